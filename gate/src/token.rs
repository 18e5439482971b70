//! Tokens: what a grant gives. They are read by nobody but the gate, and kept by nobody but the device.
//!
//! ```text
//! 1 byte version | 4 key id | 8 expires | 32 binding | 1 number of cohorts | each: 1 length, text | 32 HMAC-SHA256
//! ```

use crate::encoding::{from_base64, to_base64};
use crate::refusal::Refusal;
use crate::secret::Secret;

/// The longest token, in characters.
pub const LONGEST: usize = 2048;
const VERSION: u8 = 1;
const PURPOSE: &str = "token";

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// Whose it is: see [`Identity::binding`](crate::identity::Identity::binding).
    pub binding: [u8; 32],
    /// The roles of the cohorts that it opens, e.g. `stable.canary`.
    pub cohorts: Vec<String>,
}

impl Token {
    /// Its text. Errs if it names so many cohorts that it would be too long.
    pub fn seal(&self, secret: &Secret) -> Result<String, Refusal> {
        let too_long =
            || Refusal::malformed("G-ATT-08", "so many cohorts do not fit into one token: ask for fewer at a time");
        let mut bytes = vec![VERSION, 0, 0, 0, 0];
        bytes.extend_from_slice(&self.expires.to_be_bytes());
        bytes.extend_from_slice(&self.binding);
        bytes.push(u8::try_from(self.cohorts.len()).map_err(|_| too_long())?);
        for cohort in &self.cohorts {
            bytes.push(u8::try_from(cohort.len()).map_err(|_| too_long())?);
            bytes.extend_from_slice(cohort.as_bytes());
        }
        let (id, mac) = secret.sign(PURPOSE, &[bytes.get(5..).unwrap_or_default()]);
        for (to, from) in bytes.iter_mut().skip(1).zip(id) {
            *to = from;
        }
        bytes.extend_from_slice(&mac);
        let text = to_base64(&bytes);
        if text.len() > LONGEST { Err(too_long()) } else { Ok(text) }
    }

    /// Reads a token that this secret made and that has not expired at `now`.
    pub fn open(text: &str, secret: &Secret, now: u64) -> Result<Self, Refusal> {
        let refused = || Refusal::unknown("G-TOK-01", "the token is not one of this gate's: get a new grant");
        if text.len() > LONGEST {
            return Err(refused());
        }
        let bytes = from_base64(text).ok_or_else(refused)?;
        let (head, rest) = bytes.split_first_chunk::<5>().ok_or_else(refused)?;
        let (signed, mac) = rest.split_last_chunk::<32>().ok_or_else(refused)?;
        let [version, id @ ..] = *head;
        if version != VERSION || !secret.verify(Some(id), PURPOSE, &[signed], mac) {
            return Err(refused());
        }
        let token = Self::read(signed).ok_or_else(refused)?;
        if token.expires <= now {
            return Err(Refusal::unknown("G-TOK-02", "the token has expired: get a new grant"));
        }
        Ok(token)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (expires, bytes) = bytes.split_first_chunk::<8>()?;
        let (binding, bytes) = bytes.split_first_chunk::<32>()?;
        let (count, mut bytes) = bytes.split_first()?;
        let mut cohorts = Vec::new();
        for _ in 0..*count {
            let (length, rest) = bytes.split_first()?;
            let (cohort, rest) = rest.split_at_checked(usize::from(*length))?;
            cohorts.push(String::from_utf8(cohort.to_vec()).ok()?);
            bytes = rest;
        }
        bytes.is_empty().then(|| Self { expires: u64::from_be_bytes(*expires), binding: *binding, cohorts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_what_it_was_made_for_and_nothing_else_opens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        crate::secret::rotate(&path).unwrap();
        let secret = Secret::load(&path).unwrap();
        let token =
            Token { expires: 1000, binding: [7; 32], cohorts: vec!["stable.canary".into(), "stable.lab".into()] };
        let text = token.seal(&secret).unwrap();
        assert_eq!(Token::open(&text, &secret, 999).unwrap(), token);
        assert_eq!(Token::open(&text, &secret, 1000).unwrap_err().rule, "G-TOK-02");
        let bytes = from_base64(&text).unwrap();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert_eq!(Token::open(&to_base64(&bytes), &secret, 0).unwrap_err().rule, "G-TOK-01", "byte {at}");
            assert!(Token::open(&to_base64(&bytes[..at]), &secret, 0).is_err());
        }
        assert!(Token::open(&format!("{text}="), &secret, 0).is_err());
        crate::secret::rotate(&path).unwrap();
        assert_eq!(Token::open(&text, &Secret::load(&path).unwrap(), 0).unwrap(), token);
        let many = Token { cohorts: vec!["a".repeat(129); 16], ..token };
        assert_eq!(many.seal(&secret).unwrap_err().rule, "G-ATT-08");
    }
}

//! Access tokens: the result of a grant. Only the gate reads them, and only the device stores them.
//!
//! ```text
//! 1 byte version | 4 key id | 8 expires | 32 binding | 1 number of cohorts | each: 1 length, text | 32 HMAC-SHA256
//! ```

use crate::encoding::{from_base64url, to_base64url};
use crate::refusal::Refusal;
use crate::secret::SharedSecret;

/// The maximum length of a token, in characters.
pub const MAX_TOKEN: usize = 2048;
const VERSION: u8 = 1;
const PURPOSE: &str = "token";

/// The contents of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// The time of expiry, in Unix seconds.
    pub expires: u64,
    /// The device and key that may use it: see the field `binding` of `DeviceIdentity`.
    pub binding: [u8; 32],
    /// The roles of the cohorts that it gives access to, e.g. `stable.canary`.
    pub cohorts: Vec<String>,
}

impl AccessToken {
    /// Encodes and authenticates the token.
    ///
    /// # Errors
    ///
    /// Refuses if the names of the cohorts do not fit into the maximum length.
    pub fn seal(&self, secret: &SharedSecret) -> Result<String, Refusal> {
        let too_long = || Refusal::bad_request("G-ATT-08", "too many cohorts for one token; request fewer at a time");
        let mut bytes = vec![VERSION, 0, 0, 0, 0];
        bytes.extend_from_slice(&self.expires.to_be_bytes());
        bytes.extend_from_slice(&self.binding);
        bytes.push(u8::try_from(self.cohorts.len()).map_err(|_| too_long())?);
        for cohort in &self.cohorts {
            bytes.push(u8::try_from(cohort.len()).map_err(|_| too_long())?);
            bytes.extend_from_slice(cohort.as_bytes());
        }
        let (id, mac) = secret.mac(PURPOSE, &[bytes.get(5..).unwrap_or_default()]);
        for (to, from) in bytes.iter_mut().skip(1).zip(id) {
            *to = from;
        }
        bytes.extend_from_slice(&mac);
        let text = to_base64url(&bytes);
        if text.len() > MAX_TOKEN { Err(too_long()) } else { Ok(text) }
    }

    /// Verifies and decodes a token.
    ///
    /// # Errors
    ///
    /// Refuses a token that this secret did not create, or that has expired at `now`.
    pub fn open(text: &str, secret: &SharedSecret, now: u64) -> Result<Self, Refusal> {
        let refused =
            || Refusal::unauthenticated("G-TOK-01", "the token was not issued by this gate; request a new grant");
        if text.len() > MAX_TOKEN {
            return Err(refused());
        }
        let bytes = from_base64url(text).ok_or_else(refused)?;
        let (head, rest) = bytes.split_first_chunk::<5>().ok_or_else(refused)?;
        let (signed, mac) = rest.split_last_chunk::<32>().ok_or_else(refused)?;
        let [version, id @ ..] = *head;
        if version != VERSION || !secret.verify(Some(id), PURPOSE, &[signed], mac) {
            return Err(refused());
        }
        let token = Self::decode(signed).ok_or_else(refused)?;
        if token.expires <= now {
            return Err(Refusal::unauthenticated("G-TOK-02", "the token has expired; request a new grant"));
        }
        Ok(token)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
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
    fn opens_only_unchanged_tokens_before_expiry() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        crate::secret::rotate(&path).unwrap();
        let secret = SharedSecret::load(&path).unwrap();
        let token =
            AccessToken { expires: 1000, binding: [7; 32], cohorts: vec!["stable.canary".into(), "stable.lab".into()] };
        let text = token.seal(&secret).unwrap();
        assert_eq!(AccessToken::open(&text, &secret, 999).unwrap(), token);
        assert_eq!(AccessToken::open(&text, &secret, 1000).unwrap_err().rule, "G-TOK-02");
        let bytes = from_base64url(&text).unwrap();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert_eq!(AccessToken::open(&to_base64url(&bytes), &secret, 0).unwrap_err().rule, "G-TOK-01", "byte {at}");
            assert!(AccessToken::open(&to_base64url(&bytes[..at]), &secret, 0).is_err());
        }
        assert!(AccessToken::open(&format!("{text}="), &secret, 0).is_err());
        crate::secret::rotate(&path).unwrap();
        assert_eq!(AccessToken::open(&text, &SharedSecret::load(&path).unwrap(), 0).unwrap(), token);
        let many = AccessToken { cohorts: vec!["a".repeat(129); 16], ..token };
        assert_eq!(many.seal(&secret).unwrap_err().rule, "G-ATT-08");
    }
}

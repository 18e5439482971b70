//! Proofs: how a device without a certificate shows, with each request, that it has its enrolled device key.
//!
//! ```text
//! Tidegate-Proof: KEYID.SECONDS.RANDOM.SIGNATURE
//! ```
//!
//! The signature is over `tidegate/gate/1`, the method, the path from `/v1/` on, the SHA-256 of the body, that of the token, the seconds and
//! the random text, each followed by a line feed.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use tidegate_model::gate;
use tidegate_tuf::key::Key;

use crate::encoding::{from_base64, sha256};
use crate::refusal::Refusal;

/// The header's name.
pub const HEADER: &str = "tidegate-proof";
/// How far a proof's time may be from the gate's, in seconds.
const SKEW: u64 = 120;
/// How many proofs are remembered in each of two generations.
const MOST: usize = 500_000;

/// A proof as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The id of the key that signed.
    pub keyid: String,
    seconds: u64,
    /// As it was sent: it is signed.
    random: String,
    signature: Vec<u8>,
}

impl Proof {
    /// Reads the header.
    pub fn parse(header: &str) -> Result<Self, Refusal> {
        let refused = || Refusal::unknown("G-ID-03", "the header Tidegate-Proof is not KEYID.SECONDS.RANDOM.SIGNATURE");
        let mut parts = header.split('.');
        let (Some(keyid), Some(seconds), Some(random), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(refused());
        };
        let good = header.len() <= 512
            && seconds.len() <= 12
            && seconds.bytes().all(|c| c.is_ascii_digit())
            && from_base64(random).is_some_and(|bytes| bytes.len() == 16);
        let signature = from_base64(signature).filter(|bytes| !bytes.is_empty() && good).ok_or_else(refused)?;
        let random = random.to_owned();
        Ok(Self { keyid: keyid.to_owned(), seconds: seconds.parse().map_err(|_| refused())?, random, signature })
    }

    /// Whether it is this key's, over this request, and of now.
    pub fn check(&self, key: &Key, request: &Signed<'_>, now: u64) -> Result<(), Refusal> {
        if self.seconds.abs_diff(now) > SKEW {
            return Err(Refusal::unknown(
                "G-ID-05",
                "the proof's time is more than 120 s from the gate's: set the clock",
            )
            .missing(vec!["time".into()]));
        }
        let message = request.message(self.seconds, &self.random);
        if key.decode().is_some_and(|key| key.verify(&message, &self.signature)) {
            Ok(())
        } else {
            Err(Refusal::unknown("G-ID-04", "the proof is not by an enrolled key over this request"))
        }
    }
}

/// What of a request is signed.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, from `/v1/` on, as it was sent.
    pub path: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// The token, or nothing.
    pub token: &'a str,
}

impl Signed<'_> {
    /// The bytes that are signed.
    fn message(&self, seconds: u64, random: &str) -> Vec<u8> {
        let Self { method, path, body, token } = *self;
        // What is later than that is refused for its time before it comes here.
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        gate::Proof { method, path, body, token, seconds, random }.message()
    }
}

/// The proofs of the last minutes: none is taken twice by one instance.
///
/// What a second instance could be shown again is harmless: nonces are single-use for all instances, receipts are stored once, and
/// a download goes to whoever asks with the device's token.
#[derive(Debug, Default)]
pub struct Seen(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    since: u64,
    young: HashSet<[u8; 16]>,
    old: HashSet<[u8; 16]>,
}

impl Seen {
    /// Remembers a proof that has been checked; errs if it has been seen before.
    pub fn once(&self, proof: &Proof, now: u64) -> Result<(), Refusal> {
        let digest = sha256(&[proof.keyid.as_bytes(), b".", proof.random.as_bytes()]);
        let Some((mark, _)) = digest.split_first_chunk::<16>() else { return Ok(()) };
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A proof is good from 120 s before to 120 s after its time.
        if now.saturating_sub(seen.since) > 2 * SKEW {
            let gap = now.saturating_sub(seen.since) > 4 * SKEW;
            seen.old = if gap { HashSet::new() } else { std::mem::take(&mut seen.young) };
            seen.young.clear();
            seen.since = now;
        }
        if seen.old.contains(mark) || seen.young.contains(mark) {
            return Err(Refusal::unknown("G-ID-06", "the proof has been used: make a new one for each request"));
        }
        if seen.young.len() >= MOST {
            return Err(Refusal::unavailable("G-LIM-04", "too many requests with proofs: try again later"));
        }
        seen.young.insert(*mark);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_taken_once_however_long_it_stays_good() {
        let random = crate::encoding::to_base64(&[5; 16]);
        let proof = Proof::parse(&format!("{}.1000.{random}.AAAA", "a".repeat(64))).unwrap();
        let seen = Seen::default();
        seen.once(&proof, 880).unwrap();
        for now in [880, 1000, 1119, 1120] {
            assert_eq!(seen.once(&proof, now).unwrap_err().rule, "G-ID-06", "{now}");
        }
    }

    #[test]
    fn what_is_no_proof_is_refused() {
        let random = crate::encoding::to_base64(&[5; 16]);
        for header in [
            "",
            "....",
            "a.b.c.d",
            &format!("a.1.{random}"),
            &format!("a.+1.{random}.AAAA"),
            &format!("a.1.{random}.AAAA.x"),
            &format!("a.1.{random}=.AAAA"),
            &format!("a.1.{random}."),
        ] {
            assert_eq!(Proof::parse(header).unwrap_err().rule, "G-ID-03", "{header}");
        }
    }
}

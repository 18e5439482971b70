//! Request proofs: a device without a certificate signs each request with its enrolled device key.
//!
//! ```text
//! Tidegate-Proof: KEYID.SECONDS.RANDOM.SIGNATURE
//! ```
//!
//! The signature covers `tidegate/gate/2`, the gate's name, the method, the path from `/v1/` on, the SHA-256 of the body, the SHA-256 of the token, the
//! seconds and the random text, each followed by a line feed.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use tidegate_model::gate;
use tidegate_tuf::key::Key;

use crate::encoding::{from_base64url, sha256};
use crate::refusal::Refusal;

/// The name of the header.
pub const HEADER: &str = "tidegate-proof";
/// The maximum difference between the time of a proof and the gate's clock, in seconds.
const MAX_SKEW: u64 = 120;
/// The number of proofs in each of the two generations of the replay cache.
const GENERATION_SIZE: usize = 500_000;

/// A parsed header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestProof {
    /// The id of the signing key.
    pub keyid: String,
    seconds: u64,
    /// The text as sent, because the signature covers it.
    random: String,
    signature: Vec<u8>,
}

impl RequestProof {
    /// Parses the header.
    ///
    /// # Errors
    ///
    /// Refuses malformed text.
    pub fn parse(header: &str) -> Result<Self, Refusal> {
        let refused =
            || Refusal::unauthenticated("G-ID-03", "the header Tidegate-Proof must be KEYID.SECONDS.RANDOM.SIGNATURE");
        let mut parts = header.split('.');
        let (Some(keyid), Some(seconds), Some(random), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(refused());
        };
        let is_valid = header.len() <= 512
            && seconds.len() <= 12
            && seconds.bytes().all(|c| c.is_ascii_digit())
            && from_base64url(random).is_some_and(|bytes| bytes.len() == 16);
        let signature = from_base64url(signature).filter(|bytes| !bytes.is_empty() && is_valid).ok_or_else(refused)?;
        let random = random.to_owned();
        Ok(Self { keyid: keyid.to_owned(), seconds: seconds.parse().map_err(|_| refused())?, random, signature })
    }

    /// Verifies that this key signed this request just now.
    ///
    /// # Errors
    ///
    /// Refuses a wrong signature, and a time that differs too much from `now`.
    pub fn verify(&self, key: &Key, request: &SignedRequest<'_>, now: u64) -> Result<(), Refusal> {
        if self.seconds.abs_diff(now) > MAX_SKEW {
            return Err(Refusal::unauthenticated(
                "G-ID-05",
                "the time of the proof differs from the gate's clock by more than 120 s; set the device's clock",
            )
            .with_missing(["time"]));
        }
        let message = request.message(self.seconds, &self.random);
        if key.decode().is_some_and(|key| key.verify(&message, &self.signature)) { Ok(()) } else { Err(not_signed()) }
    }
}

/// The refusal is the same whether the key is unknown or the signature is wrong, so that it does not reveal which keys are enrolled.
pub(crate) fn not_signed() -> Refusal {
    Refusal::unauthenticated("G-ID-04", "no enrolled key has signed this request")
}

/// The signed parts of a request.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    /// The name by which the request addresses this gate.
    pub gate: &'a str,
    /// The method.
    pub method: &'a str,
    /// The path from `/v1/` on, as sent.
    pub path: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// The token, or an empty text.
    pub token: &'a str,
}

impl SignedRequest<'_> {
    /// The signed bytes.
    fn message(&self, seconds: u64, random: &str) -> Vec<u8> {
        let Self { gate, method, path, body, token } = *self;
        // `verify` has refused larger values.
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        gate::Proof { gate, method, path, body, token, seconds, random }.message()
    }
}

/// The proofs of the last minutes, so that this instance accepts none of them twice.
///
/// A replay at another instance is harmless: nonces are single-use for all instances, receipts are stored once, and a download requires
/// the device's token.
#[derive(Debug, Default)]
pub struct ReplayCache(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    since: u64,
    young: HashSet<[u8; 16]>,
    old: HashSet<[u8; 16]>,
}

impl ReplayCache {
    /// Records a verified proof.
    ///
    /// # Errors
    ///
    /// Refuses a proof that has been recorded before, and any proof while the cache is full.
    pub fn record(&self, proof: &RequestProof, now: u64) -> Result<(), Refusal> {
        let digest = sha256(&[proof.keyid.as_bytes(), b".", proof.random.as_bytes()]);
        let Some((mark, _)) = digest.split_first_chunk::<16>() else { return Ok(()) };
        let mut proofs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A proof is valid from 120 s before to 120 s after its time.
        if now.saturating_sub(proofs.since) > 2 * MAX_SKEW {
            let gap = now.saturating_sub(proofs.since) > 4 * MAX_SKEW;
            proofs.old = if gap { HashSet::new() } else { std::mem::take(&mut proofs.young) };
            proofs.young.clear();
            proofs.since = now;
        }
        if proofs.old.contains(mark) || proofs.young.contains(mark) {
            return Err(Refusal::unauthenticated(
                "G-ID-06",
                "the proof has already been used; create a new one for each request",
            ));
        }
        if proofs.young.len() >= GENERATION_SIZE {
            return Err(Refusal::unavailable("G-LIM-04", "too many requests with proofs; try again later"));
        }
        proofs.young.insert(*mark);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_a_proof_once_while_it_is_valid() {
        let random = crate::encoding::to_base64url(&[5; 16]);
        let proof = RequestProof::parse(&format!("{}.1000.{random}.AAAA", "a".repeat(64))).unwrap();
        let cache = ReplayCache::default();
        cache.record(&proof, 880).unwrap();
        for now in [880, 1000, 1119, 1120] {
            assert_eq!(cache.record(&proof, now).unwrap_err().rule, "G-ID-06", "{now}");
        }
    }

    #[test]
    fn refuses_malformed_proofs() {
        let random = crate::encoding::to_base64url(&[5; 16]);
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
            assert_eq!(RequestProof::parse(header).unwrap_err().rule, "G-ID-03", "{header}");
        }
    }
}

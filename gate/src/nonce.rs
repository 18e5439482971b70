//! Nonces: made without being kept, spent once by a create-only write into the store that all instances share.
//!
//! ```text
//! 8 bytes expires | 8 random | first 16 of HMAC-SHA256 over these and the device id
//! ```

use bytes::Bytes;
use object_store::{ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use crate::encoding::{sha256, to_hex};
use crate::refusal::Refusal;
use crate::secret::{Secret, random};
use crate::storage::Place;

/// For how many seconds a nonce is good.
pub const LIFE: u64 = 120;
const PURPOSE: &str = "nonce";
/// The length of the span that one folder of spent nonces covers, in seconds.
const BUCKET: u64 = 64;

/// A nonce for this device, and when it ends.
pub fn make(secret: &Secret, device: &str, now: u64) -> Result<([u8; 32], u64), Refusal> {
    let expires = now.saturating_add(LIFE);
    let random = random::<8>().map_err(|error| Refusal::unavailable("G-SRV-01", error.to_string()))?;
    let (_, mac) = secret.sign(PURPOSE, &[&expires.to_be_bytes(), &random, device.as_bytes()]);
    let mut nonce = [0; 32];
    let parts = expires.to_be_bytes().into_iter().chain(random).chain(mac.into_iter().take(16));
    for (to, from) in nonce.iter_mut().zip(parts) {
        *to = from;
    }
    Ok((nonce, expires))
}

/// Whether the nonce was made for this device and is still good: when it ends.
pub fn check(secret: &Secret, nonce: &[u8], device: &str, now: u64) -> Result<u64, Refusal> {
    let refused =
        || Refusal::malformed("G-NON-01", "the nonce was not made by this gate for this device: ask for a challenge");
    let (head, mac) = nonce.split_last_chunk::<16>().ok_or_else(refused)?;
    let (expires, random) = head.split_first_chunk::<8>().filter(|(_, rest)| rest.len() == 8).ok_or_else(refused)?;
    if !secret.verify(None, PURPOSE, &[expires, random, device.as_bytes()], mac) {
        return Err(refused());
    }
    let expires = u64::from_be_bytes(*expires);
    // One from the future would be of an instance whose clock is wrong; its folder might be swept too early.
    if expires <= now || expires > now.saturating_add(2 * LIFE) {
        return Err(Refusal::malformed("G-NON-02", "the nonce has expired: ask for a challenge"));
    }
    Ok(expires)
}

/// Spends a nonce: of all instances that try, one succeeds.
pub async fn spend(state: &Place, nonce: &[u8], expires: u64) -> Result<(), Refusal> {
    let key = state.key(&format!("nonces/{}/{}", expires / BUCKET, to_hex(&sha256(&[nonce]))));
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    match state.store.put_opts(&key, PutPayload::from(Bytes::new()), options).await {
        Ok(_) => Ok(()),
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
            Err(Refusal::malformed("G-NON-03", "the nonce has been used: ask for a new challenge"))
        }
        Err(error) => Err(state.failed(&error)),
    }
}

/// Removes the spent nonces that have long expired. How many were removed.
pub async fn sweep(state: &Place, now: u64) -> usize {
    use futures::StreamExt as _;
    let Ok(listed) = state.store.list_with_delimiter(Some(&state.key("nonces"))).await else { return 0 };
    let mut removed = 0;
    for folder in listed.common_prefixes {
        let bucket = folder.filename().and_then(|name| name.parse::<u64>().ok());
        // An hour later no clock of an instance is so wrong that the nonce would still be good.
        if bucket.is_some_and(|bucket| bucket.saturating_add(1).saturating_mul(BUCKET).saturating_add(3600) < now) {
            let mut objects = state.store.list(Some(&folder));
            while let Some(Ok(object)) = objects.next().await {
                removed += usize::from(state.store.delete(&object.location).await.is_ok());
            }
            state.remove_folder(&folder);
        }
    }
    removed
}

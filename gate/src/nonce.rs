//! Nonces: issued without being stored, spent once by a create-only write to the storage that all instances share.
//!
//! ```text
//! 8 bytes expires | 8 random | first 16 of HMAC-SHA256 over these and the device id
//! ```

use crate::encoding::{sha256, to_hex};
use crate::refusal::Refusal;
use crate::secret::{SharedSecret, random_bytes};
use crate::storage::{Storage, StorageError};

/// The lifetime of a nonce, in seconds.
pub const LIFETIME: u64 = 120;
const PURPOSE: &str = "nonce";
/// The period of expiry times that share one folder of spent nonces, in seconds.
const BUCKET: u64 = 64;

/// An issued nonce.
#[derive(Debug, Clone, Copy)]
pub struct Nonce {
    /// The nonce itself.
    pub bytes: [u8; 32],
    /// The time of expiry, in Unix seconds.
    pub expires: u64,
}

/// Why a nonce is not spent.
#[derive(Debug, thiserror::Error)]
pub enum SpendError {
    /// Another request has spent it.
    #[error("the nonce has already been used; request a new challenge")]
    AlreadySpent,
    /// The storage does not answer.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<SpendError> for Refusal {
    fn from(error: SpendError) -> Self {
        match error {
            SpendError::AlreadySpent => Self::bad_request("G-NON-03", error.to_string()),
            SpendError::Storage(error) => error.into(),
        }
    }
}

/// Issues a nonce to a device.
///
/// # Errors
///
/// Refuses if the operating system provides no random bytes.
pub fn issue(secret: &SharedSecret, device: &str, now: u64) -> Result<Nonce, Refusal> {
    let expires = now.saturating_add(LIFETIME);
    let random = random_bytes::<8>().map_err(|error| Refusal::unavailable("G-SRV-01", error.to_string()))?;
    let (_, mac) = secret.mac(PURPOSE, &[&expires.to_be_bytes(), &random, device.as_bytes()]);
    let mut bytes = [0; 32];
    let parts = expires.to_be_bytes().into_iter().chain(random).chain(mac.into_iter().take(16));
    for (to, from) in bytes.iter_mut().zip(parts) {
        *to = from;
    }
    Ok(Nonce { bytes, expires })
}

/// Verifies that the nonce was issued to this device, and returns its time of expiry.
///
/// # Errors
///
/// Refuses a nonce that was issued to another device or by another gate, or that has expired.
pub fn verify(secret: &SharedSecret, nonce: &[u8], device: &str, now: u64) -> Result<u64, Refusal> {
    let refused = || {
        Refusal::bad_request("G-NON-01", "the nonce was not issued to this device by this gate; request a challenge")
    };
    let (head, mac) = nonce.split_last_chunk::<16>().ok_or_else(refused)?;
    let (expires, random) = head.split_first_chunk::<8>().filter(|(_, rest)| rest.len() == 8).ok_or_else(refused)?;
    if !secret.verify(None, PURPOSE, &[expires, random, device.as_bytes()], mac) {
        return Err(refused());
    }
    let expires = u64::from_be_bytes(*expires);
    // An instance with a wrong clock could issue a nonce from the future. Its folder might be removed before it expires.
    if expires <= now || expires > now.saturating_add(2 * LIFETIME) {
        return Err(Refusal::bad_request("G-NON-02", "the nonce has expired; request a challenge"));
    }
    Ok(expires)
}

/// Spends a nonce. If several instances try, one succeeds.
///
/// # Errors
///
/// Fails if the nonce has been spent or the storage does not answer.
pub async fn spend(state: &Storage, nonce: &[u8], expires: u64) -> Result<(), SpendError> {
    let name = format!("nonces/{}/{}", expires / BUCKET, to_hex(&sha256(&[nonce])));
    if state.create(&name, Vec::new()).await? { Ok(()) } else { Err(SpendError::AlreadySpent) }
}

/// Removes spent nonces that expired at least an hour ago. Returns their number.
///
/// # Errors
///
/// Fails if the storage does not answer.
pub async fn remove_expired(state: &Storage, now: u64) -> Result<usize, StorageError> {
    let mut removed = 0;
    for folder in state.list_folders("nonces").await? {
        // After an hour no instance accepts the nonces of this folder, even if its clock is wrong.
        let is_old = |bucket: u64| bucket.saturating_add(1).saturating_mul(BUCKET).saturating_add(3600) < now;
        if folder.parse().is_ok_and(is_old) {
            removed += state.delete_folder(&format!("nonces/{folder}")).await;
        }
    }
    Ok(removed)
}

//! Attestors: they make evidence of the device's state.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use base64ct::{Base64UrlUnpadded, Encoding as _};

use super::Evidence;
use crate::command::CommandError;
use tidegate_model::digest::Digest;
use tidegate_model::gate::{Attestation, GateUrl, quote_data};
use tidegate_model::name::DeviceId;

/// Makes evidence of the device's state, for one challenge of a gate.
pub trait Attestor {
    /// The kind of evidence that it makes, if any.
    fn kind(&self) -> Option<Attestation>;

    /// Evidence for this challenge, within the attestor's time limit.
    ///
    /// # Errors
    ///
    /// [`AttestError`] if the device cannot make evidence.
    fn evidence(&self, challenge: &Challenge<'_>) -> Result<Evidence, AttestError>;
}

/// What the evidence must be bound to.
#[derive(Debug, Clone, Copy)]
pub struct Challenge<'a> {
    /// The gate.
    pub gate: &'a GateUrl,
    /// The device.
    pub device: &'a DeviceId,
    /// The gate's nonce.
    pub nonce: &'a [u8],
}

impl Challenge<'_> {
    /// The received nonce in base64url: an attestation result repeats it as `eat_nonce`.
    pub fn nonce_text(&self) -> String {
        Base64UrlUnpadded::encode_string(self.nonce)
    }

    /// The qualifying data of a TPM's quote.
    pub fn quote_data(&self) -> Digest {
        quote_data(self.gate.host(), self.nonce, self.device)
    }
}

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// A program failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A program gave an invalid result.
    #[error("{program}: {why}")]
    Answer {
        /// The program.
        program: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file could not be written or read.
    #[error("{path}: cannot {action}: {source}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Gives fixed evidence and records the nonces. Clones share their state. For tests.
#[derive(Debug, Clone)]
pub struct StubAttestor {
    evidence: Evidence,
    nonces: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl StubAttestor {
    /// An attestor that always gives this evidence.
    pub fn new(evidence: Evidence) -> Self {
        Self { evidence, nonces: Arc::default() }
    }

    /// The nonces since the last call.
    pub fn take_nonces(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.nonces.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Attestor for StubAttestor {
    fn kind(&self) -> Option<Attestation> {
        self.evidence.kind()
    }

    fn evidence(&self, challenge: &Challenge<'_>) -> Result<Evidence, AttestError> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner).push(challenge.nonce.to_vec());
        Ok(self.evidence.clone())
    }
}

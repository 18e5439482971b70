//! Evidence of a device's state, and its verification.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::attestation::{EvidenceKind, TrustTier};

pub mod ear;
pub mod jwks;
pub mod jwt;
pub mod tpm;

/// Evidence in a request.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Evidence {
    /// No evidence.
    None {},
    /// An attestation result of a verifier.
    Ear {
        /// The JWT.
        token: String,
    },
    /// A quote of a TPM.
    Tpm2 {
        /// `TPMS_ATTEST`, base64url.
        quote: String,
        /// `TPMT_SIGNATURE`, base64url.
        signature: String,
        /// The values of the quoted PCRs, in hex.
        pcrs: BTreeMap<String, String>,
    },
}

impl Evidence {
    /// The kind.
    pub fn kind(&self) -> EvidenceKind {
        match self {
            Self::None {} => EvidenceKind::None,
            Self::Ear { .. } => EvidenceKind::Ear,
            Self::Tpm2 { .. } => EvidenceKind::Tpm2,
        }
    }
}

/// What evidence proves, after its verification.
#[derive(Debug, Clone)]
pub struct VerifiedEvidence {
    /// The kind.
    pub kind: EvidenceKind,
    /// The trust tier. A verified quote is `affirming`; the PCR policy decides about its values.
    pub tier: TrustTier,
    /// The age, in seconds.
    pub age: u64,
    /// The name of the verifier of an EAR.
    pub verifier: Option<String>,
    /// The claims of an EAR.
    pub claims: Value,
    /// The PCR values of a quote.
    pub pcrs: BTreeMap<String, [u8; 32]>,
}

impl VerifiedEvidence {
    /// The result for a device that sends no evidence.
    pub fn none() -> Self {
        Self {
            kind: EvidenceKind::None,
            tier: TrustTier::None,
            age: 0,
            verifier: None,
            claims: Value::Null,
            pcrs: BTreeMap::new(),
        }
    }
}

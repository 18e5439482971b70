//! The terms of attestation that settings and requests share: kinds of evidence, trust tiers, names of PCRs.

use serde::Deserialize;
use serde_json::Value;

/// A kind of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceKind {
    /// No evidence: the device only identifies itself.
    None,
    /// An attestation result of a verifier (EAR).
    Ear,
    /// A quote of a TPM 2.0.
    Tpm2,
}

impl EvidenceKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::None, Self::Ear, Self::Tpm2];

    /// The name in requests, settings and the audit log.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ear => "ear",
            Self::Tpm2 => "tpm2",
        }
    }

    /// The name in refusals.
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "no evidence",
            Self::Ear => "ear",
            Self::Tpm2 => "tpm2 quote",
        }
    }
}

/// Trustworthiness tiers (draft-ietf-rats-ar4si section 3.2), the lowest first.
///
/// AR4SI does not order `none`. Here it ranks above `contraindicated` (no appraisal is better than a negative one) and below `warning` (an
/// appraisal of a known state is better than none).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustTier {
    /// A verifier found that the device must not be trusted.
    Contraindicated,
    /// No verifier has appraised the device.
    None,
    /// A verifier found a problem that the owner should know about.
    Warning,
    /// A verifier found the expected state.
    Affirming,
}

impl TrustTier {
    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Contraindicated => "contraindicated",
            Self::None => "none",
            Self::Warning => "warning",
            Self::Affirming => "affirming",
        }
    }

    /// Reads the claim `ear.status`: a name or a number.
    pub fn from_claim(value: &Value) -> Option<Self> {
        match (value.as_str(), value.as_i64()) {
            (Some("none"), _) | (_, Some(0)) => Some(Self::None),
            (Some("affirming"), _) | (_, Some(2)) => Some(Self::Affirming),
            (Some("warning"), _) | (_, Some(32)) => Some(Self::Warning),
            (Some("contraindicated"), _) | (_, Some(96)) => Some(Self::Contraindicated),
            _ => None,
        }
    }
}

/// The index of a PCR by its name, `sha256:0` to `sha256:23`. Other banks are not supported.
pub fn pcr_index(name: &str) -> Option<u8> {
    let number = name.strip_prefix("sha256:")?;
    let index = number.parse::<u8>().ok()?;
    (index < 24 && index.to_string() == number).then_some(index)
}

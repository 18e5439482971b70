//! Evidence: what a device shows of its state, and what it amounts to.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

pub mod ear;
pub mod jwks;
pub mod jwt;
pub mod tpm;

/// A kind of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nothing but who it is.
    None,
    /// A verifier's attestation result.
    Ear,
    /// A TPM's quote.
    Tpm2,
}

impl Kind {
    /// As requests and settings write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ear => "ear",
            Self::Tpm2 => "tpm2",
        }
    }
}

/// Trustworthiness tiers (draft-ietf-rats-ar4si section 3.2), the worst first. `none` means that nobody has looked, which is better than a
/// verifier's warning of it; but a warning about a known state is still a statement, so that settings order them as written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// A verifier says that it must not be trusted.
    Contraindicated,
    /// Nobody vouches for it.
    None,
    /// A verifier found something that its owner should know of.
    Warning,
    /// A verifier found what it expected.
    Affirming,
}

impl Tier {
    /// As settings write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Contraindicated => "contraindicated",
            Self::None => "none",
            Self::Warning => "warning",
            Self::Affirming => "affirming",
        }
    }

    /// As an EAR writes it: by name or by number.
    pub fn read(value: &Value) -> Option<Self> {
        match (value.as_str(), value.as_i64()) {
            (Some("none"), _) | (_, Some(0)) => Some(Self::None),
            (Some("affirming"), _) | (_, Some(2)) => Some(Self::Affirming),
            (Some("warning"), _) | (_, Some(32)) => Some(Self::Warning),
            (Some("contraindicated"), _) | (_, Some(96)) => Some(Self::Contraindicated),
            _ => None,
        }
    }
}

/// Evidence as a request brings it.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Evidence {
    /// None.
    None {},
    /// A verifier's result.
    Ear {
        /// The JWT.
        token: String,
    },
    /// A quote.
    Tpm2 {
        /// `TPMS_ATTEST`, base64url.
        quote: String,
        /// `TPMT_SIGNATURE`, base64url.
        signature: String,
        /// The values of the registers that were quoted.
        pcrs: BTreeMap<String, String>,
    },
}

/// What evidence amounts to, once it has been verified.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Its kind.
    pub kind: Kind,
    /// How trustworthy the device is by it. A quote is `affirming` for a policy that it meets.
    pub tier: Tier,
    /// How old it is, in seconds.
    pub age: u64,
    /// Who vouches for it: the name of a verifier.
    pub verifier: Option<String>,
    /// The claims of an EAR.
    pub claims: Value,
    /// The values of registers that a quote proves.
    pub pcrs: BTreeMap<String, [u8; 32]>,
}

impl Finding {
    /// That nothing was shown.
    pub fn nothing() -> Self {
        Self { kind: Kind::None, tier: Tier::None, age: 0, verifier: None, claims: Value::Null, pcrs: BTreeMap::new() }
    }
}

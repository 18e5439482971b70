//! Validation: five kinds of checks, one function and one stable id per rule, all findings at once.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kinds of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckKind {
    /// The bytes are there and are the ones that were signed.
    ArtifactIntegrity,
    /// Signatures, thresholds, expiries and the chain of trust.
    ReleaseVerification,
    /// Who is eligible.
    Eligibility,
    /// The hardware is known and the artifacts fit it.
    DeviceCompatibility,
    /// The cohorts make up the fleet, and the next step is allowed.
    RolloutPolicy,
}

impl CheckKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::ArtifactIntegrity,
        Self::ReleaseVerification,
        Self::Eligibility,
        Self::DeviceCompatibility,
        Self::RolloutPolicy,
    ];

    /// Its name, as in `policy.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ArtifactIntegrity => "artifact-integrity",
            Self::ReleaseVerification => "release-verification",
            Self::Eligibility => "eligibility",
            Self::DeviceCompatibility => "device-compatibility",
            Self::RolloutPolicy => "rollout-policy",
        }
    }
}

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

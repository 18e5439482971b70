//! Custom checks: programs that examine a release, each a rule with an id that begins with `X-`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::invalid;
use crate::error::Result;
use crate::keys::check_variable;
use tidegate_model::span::Span;

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
    /// What the workspace's own checks require.
    OwnChecks,
}

impl CheckKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::ArtifactIntegrity,
        Self::ReleaseVerification,
        Self::Eligibility,
        Self::DeviceCompatibility,
        Self::RolloutPolicy,
        Self::OwnChecks,
    ];

    /// Its name, as in `policy.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ArtifactIntegrity => "artifact-integrity",
            Self::ReleaseVerification => "release-verification",
            Self::Eligibility => "eligibility",
            Self::DeviceCompatibility => "device-compatibility",
            Self::RolloutPolicy => "rollout-policy",
            Self::OwnChecks => "own-checks",
        }
    }
}

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Maximum duration of a check: a validation holds the workspace's lock.
const LONGEST: Span = Span::hours(24);

/// A custom check. Its input and output: docs/lifecycle.md.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnCheck {
    /// The rule's id, e.g. `X-SBOM`.
    pub id: CheckId,
    /// What it requires, in a few words.
    pub title: String,
    /// The program and its arguments; a path with a `/` counts from the workspace.
    pub command: Vec<String>,
    /// Its timeout.
    pub timeout: Span,
    /// The variables that it inherits, beside those that every program does.
    #[serde(default)]
    pub environment: Vec<String>,
}

/// The id of a custom check: `X-` and 1 to 40 capital letters, digits and hyphens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct CheckId(String);

impl CheckId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CheckId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fine = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'-';
        match text.strip_prefix("X-") {
            Some(rest) if (1..=40).contains(&rest.len()) && rest.bytes().all(fine) => Ok(Self(text.to_owned())),
            _ => Err(format!(
                "{text:?} is not a valid id of an own check: write X- and capital letters, digits or hyphens"
            )),
        }
    }
}

impl TryFrom<String> for CheckId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<CheckId> for String {
    fn from(id: CheckId) -> String {
        id.0
    }
}

impl fmt::Display for CheckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Checks the configured checks.
///
/// # Errors
///
/// Fails if a check cannot run, or if two checks have the same id.
pub(super) fn check_all(file: &str, checks: &[OwnCheck]) -> Result<()> {
    for (index, check) in checks.iter().enumerate() {
        let refuse = |key: &str, why: &str, remedy: &str| {
            Err(invalid(file, &format!("validation.check[{index}].{key}"), why, remedy))
        };
        if checks.iter().take(index).any(|other| other.id == check.id) {
            return refuse("id", &format!("{} is the id of two checks", check.id), "give each its own");
        }
        if check.command.first().is_none_or(String::is_empty) {
            return refuse("command", "it names no program", "give the program and its arguments as a list");
        }
        if check.timeout.is_zero() {
            return refuse("timeout", "the check could never pass", "give a span such as 60s");
        }
        if check.timeout > LONGEST {
            return refuse("timeout", &format!("it is longer than {LONGEST}"), "give a span such as 10m");
        }
        if let Some(why) = check.environment.iter().find_map(|name| check_variable(name).err()) {
            return refuse("environment", &why, "list the names of other variables that the check needs");
        }
        if check.title.is_empty() || check.title.chars().any(char::is_control) {
            return refuse("title", "it is empty, or no line", "describe in a few words what the check tests");
        }
    }
    Ok(())
}

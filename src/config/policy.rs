//! `policy.toml`: what a release must have gone through before the next step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tidegate_client::model::name::Name;
use tidegate_client::model::position::PPM;

use super::{Span, check_schema, invalid, load, parse, parse_share};
use crate::error::Result;
use crate::validate::CheckKind;

const FILE: &str = "policy.toml";

/// `policy.toml`. One that exists can be met.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The form of the file: 1.
    pub schema: u64,
    /// Before a rollout starts.
    pub validation: ValidationPolicy,
    /// While it goes on.
    pub rollout: RolloutPolicy,
    /// What a security release may skip.
    pub security: SecurityPolicy,
}

/// What must have been validated.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationPolicy {
    /// The kinds of checks that a report must have passed.
    pub required: BTreeSet<CheckKind>,
    /// How old the report may be.
    pub max_age: Span,
    /// The cohort that may have a release for validation, before a rollout.
    #[serde(default)]
    pub cohort: Option<Name>,
}

/// How fast a rollout may go.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutPolicy {
    /// How long a whole cohort must have been offered a release before the next cohort is.
    pub soak: Span,
    /// Cohorts that take another time.
    #[serde(default)]
    pub soak_of: BTreeMap<Name, Span>,
    /// The largest share of the fleet that may be exposed at one instant; more takes a ramp.
    #[serde(deserialize_with = "share")]
    pub largest_step: u32,
    /// The shortest ramp from nobody to everybody.
    pub shortest_ramp: Span,
    /// How long a limited rollout goes on without anybody advancing or renewing it.
    pub max_unattended: Span,
}

/// What a security release may skip. Signing and validation it may not.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecurityPolicy {
    /// What may be skipped.
    pub skip: BTreeSet<Skippable>,
}

/// What a security release may skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skippable {
    /// The time that cohorts must have had a release before others do.
    Soak,
    /// Exposing devices little by little.
    Ramp,
}

impl Policy {
    /// Reads and checks `policy.toml` of the workspace `dir`.
    pub fn load(dir: &Path) -> Result<Self> {
        load::<Self>(dir, FILE)?.checked()
    }

    /// Reads and checks the file's content.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        parse::<Self>(FILE, bytes)?.checked()
    }

    fn checked(self) -> Result<Self> {
        check_schema(FILE, self.schema)?;
        if self.validation.max_age.is_zero() {
            return Err(invalid(FILE, "validation.max_age", "no report could ever be fresh", "give a span such as 7d"));
        }
        if self.rollout.max_unattended.is_zero() {
            return Err(invalid(
                FILE,
                "rollout.max_unattended",
                "every rollout would end at once",
                "give a span such as 24h",
            ));
        }
        if self.rollout.largest_step == 0 && self.rollout.shortest_ramp.is_zero() {
            return Err(invalid(
                FILE,
                "rollout.largest_step",
                "nobody may be exposed at once, yet ramps may take no time",
                "give a share such as 10%, or a shortest_ramp such as 1h",
            ));
        }
        Ok(self)
    }

    /// How long `cohort` must have had a release before the next cohort gets it.
    pub fn soak(&self, cohort: &Name) -> Span {
        self.rollout.soak_of.get(cohort).copied().unwrap_or(self.rollout.soak)
    }
}

fn share<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_share(&text).map(|ppm| ppm.min(PPM)).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = include_str!("../../repo-template/policy.toml");

    #[test]
    fn the_template_is_valid() {
        let policy = Policy::parse(TEMPLATE.as_bytes()).unwrap();
        assert_eq!(policy.validation.required.len(), 5);
        assert_eq!(policy.soak(&"canary".parse().unwrap()), Span::hours(48));
        assert_eq!(policy.soak(&"early".parse().unwrap()), Span::hours(24));
    }

    #[test]
    fn a_rule_that_can_never_be_met_is_refused() {
        for (from, to, part) in [
            ("max_age = \"7d\"", "max_age = \"0\"", "validation.max_age: no report could ever be fresh"),
            ("max_unattended = \"72h\"", "max_unattended = \"0\"", "rollout.max_unattended"),
            ("largest_step = \"10%\"", "largest_step = \"ten\"", "is not a share"),
            ("\"artifact-integrity\"", "\"artifact-beauty\"", "artifact-beauty"),
            ("skip = [\"soak\", \"ramp\"]", "skip = [\"signing\"]", "signing"),
        ] {
            assert!(TEMPLATE.contains(from), "{from}");
            let error = Policy::parse(TEMPLATE.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(error.to_string().contains(part), "{to}: {error}");
        }
    }
}

//! The input of the state machine besides the state itself.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use tidegate_model::manifest::Urgency;
use tidegate_model::name::Name;

use super::checks::CheckKind;
use crate::error::Rule;
use tidegate_model::span::Span;

/// The input of the state machine besides the state itself, gathered by the caller.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Facts {
    /// Whether the manifest is frozen.
    pub frozen: bool,
    /// How many artifacts there are.
    pub artifacts: usize,
    /// The urgency of the release.
    pub urgency: Option<Urgency>,
    /// Whether a security release goes through the cohorts like any other.
    pub staged: bool,
    /// Valid signatures on the proposal, the new one included.
    pub signatures: u64,
    /// The threshold of the channel's role.
    pub threshold: u64,
    /// Whether the proposal is based on the current version of the channel's role.
    pub follows: bool,
    /// The newest report on exactly this manifest.
    pub report: Option<ReportFacts>,
    /// The requested step.
    pub step: Option<Step>,
    /// When the last ramp of what is offered would end, as the event leaves it; `None` without a ramp that still rises.
    pub ramps_until: Option<DateTime<Utc>>,
    /// Whether a cohort is no longer offered it because it was unattended, so that resuming exposes devices anew.
    pub stopped: bool,
    /// Cohorts, in order, that are not yet completely offered the release.
    pub not_reached: Vec<Name>,
    /// Cohorts that are offered it.
    pub assigned: Vec<Name>,
    /// A release with a higher sequence that a cohort of this step is already offered.
    pub newer: Option<String>,
    /// The valid approvals of exactly this event at the current point of the release's life.
    pub approvals: Vec<Approved>,
    /// For a retraction: whether it is valid, and the release that it retracts, if that is still offered.
    pub retraction: Option<Retraction>,
    /// The current releases whose devices may need it as a bridge.
    pub bridge_of: Vec<String>,
}

/// One approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    /// The key that signed it, as `tidegate.toml` names it.
    pub key: String,
    /// The holder of the key; the key's name if `tidegate.toml` does not name one.
    pub person: String,
    /// When it was signed.
    pub at: DateTime<Utc>,
}

/// What a retraction takes back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retraction {
    /// The release that it takes back, if that was not withdrawn.
    pub still_offered: Option<String>,
}

/// A summary of a validation report.
#[derive(Debug, Clone)]
pub struct ReportFacts {
    /// When the checks ran.
    pub at: DateTime<Utc>,
    /// The kinds of checks of which all passed.
    pub passed: BTreeSet<CheckKind>,
    /// The rules that failed.
    pub failed: Vec<String>,
    /// The custom checks that ran and did not fail.
    pub own: BTreeSet<String>,
    /// A bridge that was withdrawn or retired since, if any: the validated upgrade paths may no longer exist.
    pub way_lost: Option<String>,
}

/// A step of a rollout: what it newly exposes.
#[derive(Debug, Clone)]
pub struct Step {
    /// The cohort.
    pub cohort: Name,
    /// Its share of the fleet in parts per million; `None` for a cohort that names its devices.
    pub share: Option<u32>,
    /// The part of the cohort, in parts per million, that is exposed at once.
    pub at_once: u32,
    /// How long the ramp would take from 0 to 100%; `None` without a ramp.
    pub ramp: Option<Span>,
    /// When the ramp ends; `None` without a ramp.
    pub until: Option<DateTime<Utc>>,
    /// The previous cohort, and since when all of it is offered the release.
    pub previous: Option<(Name, Soaking)>,
}

/// Since when all of a cohort is offered a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Soaking {
    /// Since then, as devices could see.
    Since(DateTime<Utc>),
    /// Its ramp has not ended.
    Ramping,
    /// Its step is not published: no device can know of it.
    Unpublished,
}

/// Why an event is refused: the rule and what would satisfy it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The rule.
    pub rule: Rule,
    /// What prevents it.
    pub why: String,
    /// What would satisfy the rule; `RELEASE` stands for the release.
    pub remedy: String,
    /// Until when, if time alone satisfies it.
    pub until: Option<DateTime<Utc>>,
}

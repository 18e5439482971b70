//! What the next state depends on besides the state itself.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use tidegate_model::manifest::Urgency;
use tidegate_model::name::Name;

use super::checks::CheckKind;
use crate::error::Rule;
use tidegate_model::span::Span;

/// What the next state depends on besides the state itself. Gathered by whoever asks.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Whether the manifest is frozen.
    pub frozen: bool,
    /// How many artifacts there are.
    pub artifacts: usize,
    /// How pressing the release is.
    pub urgency: Option<Urgency>,
    /// Valid signatures on the proposal, the new one included.
    pub signatures: u64,
    /// Signatures that the channel's role takes.
    pub threshold: u64,
    /// Whether the proposal follows from the channel's role as it is now.
    pub follows: bool,
    /// The newest report on exactly this manifest.
    pub report: Option<ReportFacts>,
    /// The step that is asked for.
    pub step: Option<Step>,
    /// When the last ramp of what is offered would end, as the event leaves it; `None` without a ramp that still rises.
    pub ramps_until: Option<DateTime<Utc>>,
    /// Whether a cohort is offered it no more because nobody looked after it, so that to go on exposes devices anew.
    pub stopped: bool,
    /// Cohorts, in order, that are not wholly offered the release yet.
    pub not_reached: Vec<Name>,
    /// Cohorts that are offered it.
    pub assigned: Vec<Name>,
    /// A release with a higher sequence that a cohort of this step is already offered.
    pub newer: Option<String>,
    /// Who approved exactly this event, in the place where the release stands, with a signature that is valid.
    pub approvals: Vec<Approved>,
    /// For a retraction: whether it is one, and the release that it takes back, if that is offered still.
    pub retraction: Option<Retraction>,
    /// The current releases whose devices may need it as a bridge.
    pub bridge_of: Vec<String>,
}

/// Somebody's approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    /// The key that signed it, as `tidegate.toml` names it.
    pub key: String,
    /// Who holds the key; the key's name if `tidegate.toml` does not say.
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

/// A validation report in short.
#[derive(Debug, Clone)]
pub struct ReportFacts {
    /// When the checks ran.
    pub at: DateTime<Utc>,
    /// The kinds of checks of which all passed.
    pub passed: BTreeSet<CheckKind>,
    /// The rules that failed.
    pub failed: Vec<String>,
    /// The own checks that ran and did not fail.
    pub own: BTreeSet<String>,
    /// What happened since to a release that devices may have to take first, if anything did: the ways are no longer those that were walked.
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
    /// From nobody to everybody, how long the ramp would take; `None` without a ramp.
    pub ramp: Option<Span>,
    /// When the ramp ends; `None` without a ramp.
    pub until: Option<DateTime<Utc>>,
    /// The cohort before it, and since when all of it is offered the release: `None` if it is not yet.
    pub previous: Option<(Name, Option<DateTime<Utc>>)>,
}

/// Why an event cannot be: the rule and what would satisfy it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The rule.
    pub rule: Rule,
    /// What is in the way.
    pub why: String,
    /// What would satisfy the rule; `RELEASE` stands for the release.
    pub remedy: String,
}

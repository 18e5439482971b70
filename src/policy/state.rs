//! Where a release is in its life, and what can be done with it.

use std::fmt;

use serde::{Deserialize, Serialize};
use tidegate_model::name::Name;

/// Where a release is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseState {
    /// Artifacts are being added; or the manifest is frozen and waits for signatures.
    Draft,
    /// A threshold of release keys has signed it. Nothing is exposed.
    Signed,
    /// The channel's role lists it. It is assigned to nobody.
    Registered,
    /// It has been validated, and may be exposed to the validation cohort.
    Validation,
    /// It goes out, cohort by cohort.
    Limited,
    /// Every cohort has it.
    Stable,
    /// A security release: it goes out to all cohorts at once.
    Security,
    /// It is no longer offered.
    Withdrawn,
    /// The channel's role lists it no longer.
    Retired,
}

impl ReleaseState {
    /// All states, in the order of a release's life.
    pub const ALL: [Self; 9] = [
        Self::Draft,
        Self::Signed,
        Self::Registered,
        Self::Validation,
        Self::Limited,
        Self::Stable,
        Self::Security,
        Self::Withdrawn,
        Self::Retired,
    ];
}

impl fmt::Display for ReleaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Draft => "draft",
            Self::Signed => "signed",
            Self::Registered => "registered",
            Self::Validation => "validation",
            Self::Limited => "limited",
            Self::Stable => "stable",
            Self::Security => "security",
            Self::Withdrawn => "withdrawn",
            Self::Retired => "retired",
        })
    }
}

/// A state and whether the rollout is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The state.
    pub state: ReleaseState,
    /// Nobody new is exposed while this is set.
    pub paused: bool,
}

impl Status {
    /// A state that is not paused.
    pub const fn of(state: ReleaseState) -> Self {
        Self { state, paused: false }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.paused { write!(f, "{} (paused)", self.state) } else { self.state.fmt(f) }
    }
}

/// What somebody wants to do with a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseEvent {
    /// Change the draft: add or remove artifacts.
    Edit,
    /// Remove a draft.
    Drop,
    /// Make a frozen manifest a draft again.
    Unfreeze,
    /// Freeze the manifest and propose it for signing; again, if the proposal no longer follows from the live channel.
    Freeze,
    /// Add one signature.
    Sign,
    /// Have the channel's role list it.
    Register,
    /// Record a validation report.
    Validate,
    /// Offer it to the validation cohort.
    Expose,
    /// Start the rollout.
    Start,
    /// Advance to the next cohort, or raise the share of the current one.
    Advance,
    /// Expose nobody new.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Keep a limited rollout from ending by itself.
    Renew,
    /// Say that every cohort has it.
    Complete,
    /// Stop offering it.
    Withdraw,
    /// Take it out of the channel's role.
    Retire,
    /// Approve a step that is to come.
    Approve,
    /// Make a release that takes it back.
    Retract,
}

impl ReleaseEvent {
    /// All events.
    pub const ALL: [Self; 18] = [
        Self::Edit,
        Self::Drop,
        Self::Unfreeze,
        Self::Freeze,
        Self::Sign,
        Self::Register,
        Self::Validate,
        Self::Expose,
        Self::Start,
        Self::Advance,
        Self::Pause,
        Self::Resume,
        Self::Renew,
        Self::Complete,
        Self::Withdraw,
        Self::Retire,
        Self::Approve,
        Self::Retract,
    ];

    /// What it is called in the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Self::Edit => "edit",
            Self::Drop => "drop",
            Self::Unfreeze => "unfreeze",
            Self::Freeze => "freeze",
            Self::Sign => "sign",
            Self::Register => "register",
            Self::Validate => "validate",
            Self::Expose => "expose",
            Self::Start => "start",
            Self::Advance => "advance",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Renew => "renew",
            Self::Complete => "complete",
            Self::Withdraw => "withdraw",
            Self::Retire => "retire",
            Self::Approve => "approve",
            Self::Retract => "retract",
        }
    }
}

impl ReleaseEvent {
    /// The step in words: `advance to canary`.
    pub fn with_cohort(self, cohort: Option<&Name>) -> String {
        cohort.map_or_else(|| self.name().to_owned(), |cohort| format!("{} to {cohort}", self.name()))
    }
}

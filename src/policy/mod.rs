//! `policy.toml`, and the life of a release under it, as pure functions.

mod checks;
mod facts;
mod file;
mod freeze;
mod health;
mod rules;
mod state;
#[cfg(test)]
mod tests;
mod transitions;

pub use checks::{CheckId, CheckKind, OwnCheck};
pub use facts::{Approved, Facts, Refusal, ReportFacts, Retraction, Soaking, Step};
pub use file::{
    ApprovalRule, Policy, ProvenancePolicy, RetirementPolicy, RolloutPolicy, SecurityPolicy, Skippable,
    ValidationPolicy,
};
pub use freeze::Freeze;
pub use health::{HealthPolicy, Thresholds};
pub use state::{ReleaseEvent, ReleaseState, Status};
pub use transitions::next;

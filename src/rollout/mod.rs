//! Rollouts: which cohort is offered which release, and how fast.
//!
//! What is in force is in the cohort roles, nowhere else: [`cohorts_in_force`](fn@crate::workspace::cohorts_in_force) reads it from there. An assignment is a target of the
//! cohort's role, `CHANNEL/cohorts/COHORT/PRODUCT.json`, with the bytes of the approved manifest and the details in `custom.tidegate`.

pub mod cohorts;
pub(crate) mod dead_mans_switch;
pub mod health;
pub(crate) mod list;
mod ramp;
pub mod refresh;
mod transaction;

pub use ramp::{Planned, RampRequest, plan};
pub(crate) use transaction::step;
pub use transaction::{RolloutTransaction, StepOutcome};

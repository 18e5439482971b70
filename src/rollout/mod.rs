//! Rollouts: which cohort is offered which release, and how fast.
//!
//! What is in force is in the cohort roles, nowhere else: [`standing()`] reads it from there. An assignment is a target of the
//! cohort's role, `CHANNEL/cohorts/COHORT/PRODUCT.json`, with the bytes of the approved manifest and the details in `custom.tidegate`.

mod attended;
mod bridges;
pub mod cohorts;
mod course;
pub mod curve;
mod explain;
pub mod fleet;
mod forecast;
pub mod health;
mod ramp;
pub mod scene;
pub mod simulate;
mod standing;
mod steps;

pub use bridges::bridges;
pub use course::{Course, CourseStep, Taken};
pub use explain::{Answer, Explainer, FleetAnswer, Group, Reached, Reason, explain};
pub use forecast::{Forecast, MAX_HOURS, MadeUp, Outcome as ForecastOutcome, Outlook};
pub use ramp::{Planned, RampRequest, plan};
pub(crate) use standing::digest as target_digest;
pub use standing::{CohortStanding, assignments, manifest_in_force, map_in_force, standing};
pub use steps::{Desk, Outcome};

//! Releases: the record of each, and the steps of its life up to registration and after its rollout.

pub mod adopt;
pub mod approval;
pub mod audit;
mod bridges;
pub mod delivery;
pub mod diff;
pub mod draft;
pub mod listing;
pub mod provenance;
pub mod record;
pub mod report;
pub mod retire;
pub mod retract;
pub mod signing;

pub use bridges::bridges;
pub use record::{ArtifactRecord, Record, ReleaseId, ReleaseSpec};

//! Releases: the record of each, its life, and the ledger of what happened.

pub mod adopt;
pub mod approval;
pub mod audit;
pub mod diff;
pub mod draft;
pub mod ledger;
pub mod proposal;
pub mod provenance;
pub mod record;
pub mod retire;
pub mod retract;
pub mod signing;
pub mod state;

pub use ledger::Ledger;
pub use record::{ArtifactRecord, Record, ReleaseId, ReleaseSpec};
pub use state::{Event, Facts, Refusal, State, Status};

//! Publishes a workspace to a store that devices read: DESIGN.md section 6.
//!
//! A [`plan()`] lists what is new, changed and unchanged and what devices will notice; [`execute()`] carries it out. Targets are
//! written first, then the roles that list them, then the snapshot, and `timestamp.json` last. The timestamp is replaced only if
//! it is still the one that the plan was made from. So everything that the live timestamp refers to exists at all times, an
//! interrupted publication changes nothing that devices see, and of two concurrent publishers one wins and the other gets a
//! conflict.
//!
//! A root that revokes the timestamp or snapshot keys becomes visible shortly before the timestamp that it requires. A device
//! that checks in between rejects the old timestamp, keeps its state, and succeeds at its next check.

mod beside;
mod execute;
mod notice;
mod plan;
mod prune;
mod publication;
mod publications;
mod pull;
mod read_back;
mod rebase;
mod recreate;
mod source;
mod store;
mod sync;

pub use self::beside::beside;
pub use self::execute::{PublishEvent, PublishReport, execute};
pub use self::notice::Notice;
pub use self::plan::{Object, ObjectState, Plan, Totals, UploadStage, plan};
pub use self::prune::{PruneCandidate, Pruning, plan_prune, prune};
pub use self::publication::{PublicationStatus, live_timestamp, publication_status};
pub use self::publications::{copy_record, leave_record};
pub use self::pull::{PullOptions, PullReport, read_into, take_over};
pub use self::read_back::read_back;
pub use self::rebase::{Overcome, overcome, renew_live};
pub use self::recreate::{NOT_PUBLISHED, Recreated, recreate};
pub use self::source::{Source, StoreOrigin, open_origin, open_private_origin};
pub use self::store::{
    Concurrency, Guard, HeaderRules, Headers, MARK, Options, PROBE, Remote, Seen, Variables, WriteOutcome,
};
pub use self::sync::plan_sync;
pub use crate::workspace::published::{PUBLISHED, Published};

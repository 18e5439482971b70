//! From a workspace to a store that devices read: DESIGN.md section 6.
//!
//! A [`plan()`] says what is new, changed and unchanged and what devices will notice; [`execute()`] carries it out. Targets come
//! first, then the roles that list them, then what lists those, and `timestamp.json` last, replaced only if it is still the one
//! that the plan was made from. So at every instant all that the live timestamp leads to is there, an interrupted publication has
//! changed nothing that devices see, and of two publishers at once one wins and the other is told.
//!
//! A root that revokes the keys of timestamp or snapshot is visible an instant before the timestamp that it asks for. A device
//! that checks within that instant refuses the old timestamp, keeps what it has, and succeeds at its next check.

mod beside;
mod execute;
mod notice;
mod plan;
mod prune;
mod published;
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
pub use self::published::{PUBLISHED, Published};
pub use self::pull::{PullOptions, PullReport, take_over};
pub use self::read_back::read_back;
pub use self::rebase::{Overcome, overcome, renew_live};
pub use self::recreate::{Recreated, recreate};
pub use self::source::{Source, StoreOrigin};
pub use self::store::{
    Concurrency, Guard, HeaderRules, Headers, MARK, Options, PROBE, Remote, Seen, Variables, WriteOutcome,
};
pub use self::sync::plan_sync;

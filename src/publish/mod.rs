//! From a workspace to a store that devices read: DESIGN.md section 6.
//!
//! A [`plan()`] says what is new, changed and unchanged and what devices will notice; [`execute()`] carries it out. Targets come
//! first, then the roles that list them, then what lists those, and `timestamp.json` last, replaced only if it is still the one
//! that the plan was made from. So at every instant all that the live timestamp leads to is there, an interrupted publication has
//! changed nothing that devices see, and of two publishers at once one wins and the other is told.
//!
//! A root that revokes the keys of timestamp or snapshot is visible an instant before the timestamp that it asks for. A device
//! that checks within that instant refuses the old timestamp, keeps what it has, and succeeds at its next check.

mod anyone;
mod beside;
mod buffers;
mod execute;
mod fault;
mod headers;
mod listing;
mod notice;
mod place;
mod plan;
mod private;
mod probe;
mod profile;
mod prune;
mod published;
mod read_back;
mod rebase;
mod recreate;
mod remote;
mod source;
mod stream_put;
mod sweep;
mod sync;
mod take_over;
mod upload;
mod variables;

pub use self::execute::{Event, LEFTOVER, RACE, Report, execute};
pub use self::headers::{HeaderRules, Headers};
pub use self::notice::Notice;
pub use self::place::Options;
pub use self::plan::{BEHIND, Object, PRIVATE, Plan, READABLE, Stage, State, Totals, plan};
pub use self::probe::{Concurrency, PROBE};
pub use self::prune::{Doomed, Pruning, plan_prune, prune};
pub use self::published::{PUBLISHED, Published};
pub use self::read_back::read_back;
pub use self::rebase::{Overcome, overcome, renew_live};
pub use self::recreate::{Recreated, recreate};
pub use self::remote::{Guard, Outcome, Remote, Seen};
pub use self::source::{Source, StoreOrigin};
pub use self::sweep::{MARK, SWEEP};
pub use self::sync::plan_sync;
pub use self::take_over::{CONFLICT, Taken, Taking, take_over};
pub use self::variables::Variables;
pub use beside::beside;

//! From a workspace to a store that devices read: DESIGN.md section 6.
//!
//! A [`plan()`] says what is new, changed and unchanged and what devices will notice; [`execute()`] carries it out. Targets come
//! first, then the roles that list them, then what lists those, and `timestamp.json` last, replaced only if it is still the one
//! that the plan was made from. So at every instant all that the live timestamp leads to is there, an interrupted publication has
//! changed nothing that devices see, and of two publishers at once one wins and the other is told.
//!
//! A root that revokes the keys of timestamp or snapshot is visible an instant before the timestamp that it asks for. A device
//! that checks within that instant refuses the old timestamp, keeps what it has, and succeeds at its next check.

mod execute;
mod headers;
mod notice;
mod plan;
mod remote;
mod source;

pub use self::execute::{Event, Report, execute};
pub use self::headers::Headers;
pub use self::notice::Notice;
pub use self::plan::{Object, Plan, Stage, State, Totals, plan};
pub use self::remote::{Guard, Outcome, Remote, Seen};
pub use self::source::Source;

//! Ceremonies in a workspace, the first root's among them: a proposal is started, signed, and finished or aborted.

mod finish;
mod first;
mod import;

pub use finish::{Done, FILE, TRANSCRIPTS, abort, check_thresholds, finish, keep, open, out_of_reach, proposed, start};
pub use first::{First, Initialized, init};
pub use import::{Imported, Obstacle, Start, TakeoverCheck, check, import};

//! Ceremonies in a workspace: a proposal is started, signed, and finished or aborted.

mod finish;
mod import;

pub use finish::{Done, FILE, TRANSCRIPTS, abort, check_thresholds, finish, keep, open, start};
pub use import::{Imported, import};

//! Ceremonies in a workspace: a proposal is started, kept while it is signed, and finished or given up.

mod finish;
mod import;

pub use finish::{Done, FILE, TRANSCRIPTS, abort, check_follows, check_thresholds, finish, keep, open, start};
pub use import::{Imported, import};

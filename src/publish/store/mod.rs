//! Where a repository is published to: an object store or a folder.

mod anyone;
mod buffers;
mod fault;
mod headers;
mod listing;
mod logged;
mod place;
mod private;
mod probe;
mod profile;
mod remote;
pub(super) mod sweep;
mod upload;
mod variables;

pub use self::headers::{HeaderRules, Headers};
pub use self::place::Options;
pub use self::probe::{Concurrency, PROBE};
pub(super) use self::remote::TIMESTAMP;
pub use self::remote::{Guard, Remote, Seen, WriteOutcome};
pub use self::sweep::MARK;
pub(super) use self::upload::{Job, Supply, requests};
pub use self::variables::Variables;

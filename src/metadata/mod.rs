//! The repository's metadata: opened, edited, signed and committed as one transaction.
//!
//! [`Repository::open`] reads a workspace's `metadata/` folder through the same trusted set that devices use, from the first
//! root on; nothing in here works on bytes that were not verified. An [`Edit`] changes roles as raw JSON, so that fields it does
//! not know survive, and leaves alone what did not change: same bytes, same version, same file. [`Edit::finish`] signs, renews
//! snapshot and timestamp, verifies the whole result again, and gives back the files to write.
//!
//! Bytes are deterministic: a file is the canonical JSON of `{"signatures": [...], "signed": {...}}`, signatures in order of key
//! ids, and both signature schemes are. The same inputs at the same `--now` give the same repository.

mod document;
mod edit;
mod repository;

pub use document::{Delegation, Document, RoleKeys, assemble, to_json};
pub use edit::{Edit, Finished, OnlineLifetimes, timestamp_over};
pub use repository::{METADATA_DIR, Repository, RoleFile};
use tidegate_tuf::metadata::{Envelope, Metadata};

/// The version of the specification that the metadata follows.
pub const SPEC_VERSION: &str = "1.0.34";

/// Bytes of the longest root file that is read: above any that a client reads.
pub const MAX_ROOT: u64 = 1 << 20;

/// Reads `bytes` as the metadata of `role` **without** checking a signature, as [`Envelope::danger_read_unverified`] does.
pub(crate) fn danger_parse_unverified<T: Metadata>(role: &str, bytes: &[u8]) -> Result<T, tidegate_tuf::Error> {
    Envelope::parse(role, bytes)?.danger_read_unverified(role)
}

/// Whether the snapshot lists a role by version alone, without length and hash.
///
/// So it does with cohort roles, of which there may be thousands: their versions take 60 bytes each in a file that devices
/// fetch at every change, hashes would take twice that again. The signature and the version protect them; only
/// someone who holds a rollout key could put two files under one version.
pub fn listed_by_version_alone(role: &str) -> bool {
    role.contains('.')
}

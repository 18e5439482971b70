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
pub(crate) use edit::{dated_ahead, not_ahead};
pub use repository::{FROM_ROOT, METADATA_DIR, Repository, RoleFile, anchor_file, from_root};

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_tuf::metadata::{Envelope, Metadata};

/// The version of the specification that the metadata follows.
pub const SPEC_VERSION: &str = "1.0.34";

/// Bytes of the longest root file that is read: above any that a client reads.
pub const MAX_ROOT: u64 = 1 << 20;

/// Reads `bytes` as the metadata of `role` **without** checking a signature, as [`Envelope::danger_read_unverified`] does.
pub(crate) fn danger_parse_unverified<T: Metadata>(role: &str, bytes: &[u8]) -> Result<T, tidegate_tuf::Error> {
    Envelope::parse(role, bytes)?.danger_read_unverified(role)
}

/// How far the clocks of publishers may be apart.
const CLOCKS_APART: TimeDelta = TimeDelta::minutes(1);

/// Whether metadata is dated later than `now`: this machine's clock is behind, or that of whoever signed it was ahead.
pub fn is_dated_ahead(issued: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    issued.is_some_and(|issued| issued - CLOCKS_APART > now)
}

/// Whether devices take time from this role.
pub(crate) fn gives_time(role: &str) -> bool {
    matches!(role, "root" | "timestamp" | "snapshot" | "targets")
}

/// What to do about a role that is dated ahead.
pub(crate) fn redate_remedy(role: &str) -> String {
    let how = match role {
        "timestamp" | "snapshot" => "tidegate refresh --redate".to_owned(),
        role if role.contains('.') => "tidegate refresh --redate".to_owned(),
        role => format!("tidegate ceremony start --renew {role}"),
    };
    format!("set this machine's clock (timedatectl status); if it is right, sign {role} again: {how}")
}

/// Whether the snapshot lists a role by version alone, without length and hash.
///
/// So it does with cohort roles, of which there may be thousands: their versions take 60 bytes each in a file that devices
/// fetch at every change, hashes would take twice that again. The signature and the version protect them; only
/// someone who holds a rollout key could put two files under one version.
pub fn listed_by_version_alone(role: &str) -> bool {
    role.contains('.')
}

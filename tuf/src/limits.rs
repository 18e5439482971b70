//! Bounds on what a repository can make a device do (TUF 5.3.3, 5.4.1, 5.5.1, 5.6.1, 5.6.7.1).

/// The bounds, each with a default that suits devices. Lengths are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A root file: "up to some W number of bytes".
    pub root_length: u64,
    /// How many roots to follow in one update: "more than Y number of root metadata files".
    pub root_rotations: u64,
    /// A timestamp file: "up to X number of bytes".
    pub timestamp_length: u64,
    /// A snapshot file, whatever length the timestamp lists.
    pub snapshot_length: u64,
    /// A targets file, whatever length the snapshot lists.
    pub targets_length: u64,
    /// A file that is listed without a length, so that any mirror may send one as long: a list of offers for each of a thousand products.
    pub unlisted_length: u64,
    /// How many targets roles one search may visit.
    pub roles_visited: usize,
}

impl Limits {
    /// How many bytes to read of a file that is listed with this length, of which no more than `most` are read in any case.
    pub fn listed(&self, length: Option<u64>, most: u64) -> u64 {
        length.unwrap_or(self.unlisted_length).min(most)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            root_length: 512_000,
            root_rotations: 256,
            timestamp_length: 16_384,
            snapshot_length: 2_000_000,
            targets_length: 5_000_000,
            unlisted_length: 1_000_000,
            roles_visited: 32,
        }
    }
}

/// What the form of one JSON document may cost, whatever is in it.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How many values it may contain: objects, lists, strings, numbers and words.
    pub values: usize,
    /// How deep they may be nested.
    pub depth: usize,
    /// How long a string may be, in bytes.
    pub text: usize,
}

impl Bounds {
    /// A small document by someone else.
    pub const DOCUMENT: Self = Self { values: 100_000, depth: 64, text: 65_536 };

    /// A document whose size somebody else has bounded.
    pub const OWN: Self = Self { values: usize::MAX, depth: 127, text: usize::MAX };

    /// The metadata of a role.
    pub fn of(role: &str) -> Self {
        let values = match role {
            "root" => 10_000,
            "timestamp" => 1_000,
            "snapshot" => 65_000,
            _ => 200_000,
        };
        Self { values, depth: 32, text: 16_384 }
    }
}

/// Bytes that the tree of one small document may take.
pub(crate) const ROOM: usize = 3_000_000;
/// Bytes that the tree of one entry of a large document may take.
pub(crate) const ENTRY: usize = 1_000_000;
/// Bytes that the canonical form of metadata may take that is not received in it.
pub(crate) const CANONICAL: usize = 2_000_000;
/// Bytes that all `custom` of a targets role may take.
pub(crate) const CUSTOM: usize = 3_000_000;
/// The most signatures of a file.
pub(crate) const SIGNATURES: usize = 256;
/// The most keys that a role may declare.
pub(crate) const KEYS: usize = 1024;
/// The most roles that a snapshot lists, and that a role delegates to.
pub(crate) const ROLES: usize = 12_000;
/// The most files that a targets role lists.
pub(crate) const TARGETS: usize = 40_000;

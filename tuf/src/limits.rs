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
    /// How many targets roles one search may visit.
    pub roles_visited: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            root_length: 512_000,
            root_rotations: 256,
            timestamp_length: 16_384,
            snapshot_length: 4_000_000,
            targets_length: 16_000_000,
            roles_visited: 32,
        }
    }
}

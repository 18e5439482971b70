//! A workspace, read as the repository that it is to become.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::files;
use crate::verify::{ByHash, Origin};

/// The folder of a workspace that holds metadata.
const METADATA: &str = "metadata";
/// The folder of a workspace that holds the bytes of all targets, by their SHA-256.
const ARTIFACTS: &str = "artifacts/sha256";
/// Above any root file that a client reads.
const MAX_ROOT: u64 = 1 << 20;

/// A workspace as an [`Origin`]: metadata as it lies there, targets from the content-addressed folder.
#[derive(Debug, Clone)]
pub struct Source {
    dir: PathBuf,
    origin: ByHash,
}

impl Source {
    /// The workspace in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self { origin: ByHash::new(dir.join(METADATA), dir.join(ARTIFACTS)), dir }
    }

    /// The first root of its chain: what it trusts, being its own.
    pub fn first_root(&self) -> Result<Vec<u8>> {
        let dir = self.dir.join(METADATA);
        let listing = std::fs::read_dir(&dir).map_err(|error| {
            Error::io("read", &dir, error)
                .remedy("run this in a workspace, or name one with -C; `tidegate init` makes one")
        })?;
        let mut first: Option<u64> = None;
        for entry in listing {
            let entry = entry.map_err(|error| Error::io("read", &dir, error))?;
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_suffix(".root.json")).and_then(|v| v.parse().ok());
            first = [first, version].into_iter().flatten().min();
        }
        let first = first.ok_or_else(|| {
            Error::input(format!("{} holds no root", dir.display()))
                .remedy("`tidegate init` makes a workspace with one")
        })?;
        files::read(&dir.join(format!("{first}.root.json")), MAX_ROOT)
    }

    /// Where the bytes of a target lie.
    pub fn artifact(&self, sha256: &str) -> PathBuf {
        self.origin.artifact(sha256)
    }
}

impl Origin for Source {
    fn metadata(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.origin.metadata(file, limit)
    }

    fn target(&self, path: &str, length: u64, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        self.origin.target(path, length, sink)
    }
}

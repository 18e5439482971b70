//! `published.json`: the state of the workspace and of the place when both last agreed.
//!
//! It tells the changes of two publishers apart: what differs from it here is ours, what differs from it there is theirs.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tidegate_model::digest::Digest;
use tidegate_tuf::Limits;
use tidegate_tuf::metadata::Snapshot;
use tidegate_tuf::path::metadata_file;

use crate::error::{Error, Result};
use crate::fs::{self, Changes};
use crate::metadata::{METADATA_DIR, Repository, danger_parse_unverified};
use crate::workspace::Workspace;

/// The file's path. Keep it in version control, so that every checkout has it.
pub const PUBLISHED: &str = "published.json";

/// The live state when workspace and place last agreed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    schema: u64,
    /// The version of the timestamp.
    pub timestamp: u64,
    /// The version of the newest root.
    pub root: u64,
    /// The version of the snapshot.
    pub snapshot: u64,
    /// SHA-256 of the snapshot.
    pub sha256: Digest,
}

impl Published {
    /// The state after publishing these versions of timestamp and root, and this snapshot (version and SHA-256).
    pub(super) fn new(timestamp: u64, root: u64, (snapshot, sha256): (u64, [u8; 32])) -> Self {
        Self { schema: 1, timestamp, root, snapshot, sha256: Digest::from(sha256) }
    }

    /// The state after taking over the live repository.
    pub(super) fn of(live: &Repository) -> Result<Self> {
        let (timestamp, snapshot) = (live.must_have("timestamp")?, live.must_have("snapshot")?);
        Ok(Self {
            schema: 1,
            timestamp: timestamp.version,
            root: live.roots().len() as u64,
            snapshot: snapshot.version,
            sha256: Digest::of(&snapshot.bytes),
        })
    }

    /// Reads the file of the workspace `dir`; `None` if it has never been published.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is malformed or has an unknown schema.
    pub fn load(dir: &Path) -> Result<Option<Self>> {
        let Some(bytes) = fs::read_if_exists(&fs::confined(dir, PUBLISHED)?, 1 << 16)? else { return Ok(None) };
        let published: Self = serde_json::from_slice(&bytes).map_err(|error| {
            Error::input(format!("{PUBLISHED} is malformed"))
                .with_source(error)
                .remedy("restore it from version control")
        })?;
        if published.schema != 1 {
            return Err(Error::input(format!("{PUBLISHED} has the schema {}, which is not known", published.schema)));
        }
        Ok(Some(published))
    }

    /// Records what was published, unless a newer publication is already recorded. Returns whether it recorded it.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or the change cannot be committed to the workspace.
    pub fn note(&self, workspace: &Workspace) -> Result<bool> {
        if Self::load(workspace.dir())?.is_some_and(|noted| noted.timestamp >= self.timestamp) {
            return Ok(false);
        }
        let mut changes = Changes::default();
        self.put(&mut changes)?;
        workspace.commit(changes)?;
        Ok(true)
    }

    /// Adds the file to `changes`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be serialized.
    pub fn put(&self, changes: &mut Changes) -> Result<()> {
        changes.put(PUBLISHED, crate::release::record::to_file(self)?);
        Ok(())
    }

    /// The version of each role at that time, including `root`; `None` if the workspace no longer has that snapshot.
    pub(super) fn roles(&self, dir: &Path) -> Result<Option<BTreeMap<String, u64>>> {
        let file = metadata_file("snapshot", Some(self.snapshot));
        let path = dir.join(METADATA_DIR).join(file);
        let bytes = fs::read_if_exists(&path, Limits::default().snapshot_length)?;
        let Some(bytes) = bytes.filter(|bytes| Digest::of(bytes) == self.sha256) else { return Ok(None) };
        let snapshot: Snapshot = danger_parse_unverified("snapshot", &bytes)
            .map_err(|error| Error::input(format!("{} is damaged", path.display())).with_source(error))?;
        let listed = snapshot
            .meta
            .iter()
            .map(|(file, meta)| (file.strip_suffix(".json").unwrap_or(file).to_owned(), meta.version));
        Ok(Some(listed.chain([("root".to_owned(), self.root)]).collect()))
    }
}

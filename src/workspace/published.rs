//! `published.json`: the state of the workspace and of the place when both last agreed, and when the steps of rollouts became visible.
//!
//! It tells the changes of two publishers apart: what differs from it here is ours, what differs from it there is theirs. The same record
//! lies at the place, for other checkouts (`Published::key`).

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tidegate_model::digest::Digest;
use tidegate_model::layout::{DelegatedRole, Location};
use tidegate_model::name::Name;
use tidegate_model::rollout::{Offer, Ramp, Stage};
use tidegate_model::time;
use tidegate_tuf::Limits;
use tidegate_tuf::metadata::{Snapshot, Targets};
use tidegate_tuf::path::metadata_file;

use super::{Workspace, in_force};
use crate::error::{Error, Result};
use crate::fs::{self, Changes};
use crate::metadata::{METADATA_DIR, Repository, danger_parse_unverified};

/// The file's path. Keep it in version control, so that every checkout has it.
pub const PUBLISHED: &str = "published.json";

/// The longest record that is read, in bytes: a step takes some 300.
pub(crate) const MAX_LENGTH: u64 = 8 << 20;

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
    /// Since when devices can see the steps of limited rollouts, as they now are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<PublishedStep>,
}

/// A step of a limited rollout, and since when devices can see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedStep {
    /// The cohort's role.
    pub role: String,
    /// The product.
    pub product: Name,
    /// The sequence of the release that is offered.
    pub sequence: u64,
    /// Its ramp. Another ramp is another step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
    /// When it was published first.
    #[serde(with = "time::text")]
    pub at: DateTime<Utc>,
}

impl PublishedStep {
    /// The steps that roles offer, each published at `at` unless it is `known` to be older. In the order of roles, as `known` must be.
    ///
    /// # Errors
    ///
    /// Fails if a list of offers is malformed.
    pub(crate) fn of<'a>(
        roles: impl Iterator<Item = (&'a str, &'a Targets)>,
        known: &[Self],
        at: DateTime<Utc>,
    ) -> Result<Vec<Self>> {
        let mut steps = Vec::new();
        for (role, targets) in roles {
            if !matches!(DelegatedRole::parse(role), Some(DelegatedRole::Cohort { .. })) {
                continue;
            }
            for (path, file) in &targets.targets {
                let Some(Location::Assignment { product, .. }) = Location::parse(path) else { continue };
                let Some(list) = in_force::read(path, file)? else { continue };
                for Offer { sequence, ramp, .. } in list.offers.into_iter().filter(|o| o.stage == Stage::Limited) {
                    let step = Self { role: role.to_owned(), product: product.clone(), sequence, ramp, at };
                    steps.push(step.known_in(known).filter(|known| known.at <= at).cloned().unwrap_or(step));
                }
            }
        }
        steps.sort_by(|a, b| a.role.cmp(&b.role));
        Ok(steps)
    }

    /// The same step among these, which are in the order of their roles.
    pub(crate) fn known_in<'a>(&self, known: &'a [Self]) -> Option<&'a Self> {
        let key = |step: &Self| (step.sequence, step.ramp);
        // They are in the order of roles: there may be thousands.
        let own = known.get(known.partition_point(|known| known.role < self.role)..)?.iter();
        own.take_while(|known| known.role == self.role)
            .filter(|known| known.product == self.product && key(known) == key(self))
            .min_by_key(|known| known.at)
    }
}

impl Published {
    /// The state after publishing these versions of timestamp and root, and this snapshot (version and SHA-256).
    pub(crate) fn new(
        timestamp: u64,
        root: u64,
        (snapshot, sha256): (u64, [u8; 32]),
        steps: Vec<PublishedStep>,
    ) -> Self {
        Self { schema: 1, timestamp, root, snapshot, sha256: Digest::from(sha256), steps }
    }

    /// The state after taking over the live repository.
    pub(crate) fn of(live: &Repository) -> Result<Self> {
        let (timestamp, snapshot) = (live.must_have("timestamp")?, live.must_have("snapshot")?);
        Ok(Self {
            schema: 1,
            timestamp: timestamp.version,
            root: live.roots().len() as u64,
            snapshot: snapshot.version,
            sha256: Digest::of(&snapshot.bytes),
            steps: Vec::new(),
        })
    }

    /// Reads the file of the workspace `dir`; `None` if it has never been published.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is malformed or has an unknown schema.
    pub fn load(dir: &Path) -> Result<Option<Self>> {
        let Some(bytes) = fs::read_if_exists(&fs::confined(dir, PUBLISHED)?, MAX_LENGTH)? else { return Ok(None) };
        Self::parse(&bytes).map(Some)
    }

    /// Reads such a record.
    ///
    /// # Errors
    ///
    /// Fails if it is malformed or has an unknown schema.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let published: Self = serde_json::from_slice(bytes).map_err(|error| {
            Error::input(format!("{PUBLISHED} is malformed"))
                .with_source(error)
                .remedy("restore it from version control")
        })?;
        if published.schema != 1 {
            return Err(Error::input(format!("{PUBLISHED} has the schema {}, which is not known", published.schema)));
        }
        Ok(published)
    }

    /// Records what was published, unless a newer publication is already recorded. A step that was recorded before keeps its time; one
    /// that is new has become visible only if this was the place that devices use, `is_theirs`. Returns what is recorded, if the
    /// snapshot is another than before.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or the change cannot be committed to the workspace.
    pub fn note(mut self, workspace: &Workspace, is_theirs: bool) -> Result<Option<Self>> {
        let before = Self::load(workspace.dir())?;
        if before.as_ref().is_some_and(|noted| noted.timestamp > self.timestamp) {
            return Ok(None);
        }
        let known = before.as_ref().map_or(&[][..], |before| &before.steps);
        self.steps = std::mem::take(&mut self.steps)
            .into_iter()
            .filter_map(|step| step.known_in(known).cloned().or_else(|| is_theirs.then_some(step)))
            .collect();
        if before.as_ref() == Some(&self) {
            return Ok(None);
        }
        let mut changes = Changes::default();
        self.put(&mut changes)?;
        workspace.commit(changes)?;
        let is_new = before.is_none_or(|before| before.snapshot != self.snapshot);
        Ok(is_new.then_some(self))
    }

    /// Since when devices can see what a cohort is offered; `None` if they cannot yet.
    pub fn visible_since(&self, role: &str, product: &Name, offer: &Offer) -> Option<DateTime<Utc>> {
        let (sequence, ramp) = (offer.sequence, offer.ramp);
        let step =
            PublishedStep { role: role.to_owned(), product: product.clone(), sequence, ramp, at: DateTime::UNIX_EPOCH };
        step.known_in(&self.steps).map(|known| known.at)
    }

    /// Where the record of the publication of a snapshot lies at a place.
    pub(crate) fn key(snapshot: u64) -> String {
        format!(".tidegate/published/{snapshot}.json")
    }

    /// Whether such a record has this key.
    pub(crate) fn is_key(key: &str) -> bool {
        let number = key.strip_prefix(".tidegate/published/").and_then(|file| file.strip_suffix(".json"));
        number.and_then(|number| number.parse().ok()).is_some_and(|number| Self::key(number) == key)
    }

    /// Adds the file to `changes`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be serialized.
    pub fn put(&self, changes: &mut Changes) -> Result<()> {
        changes.put(PUBLISHED, self.to_file()?);
        Ok(())
    }

    /// The record as a file.
    pub(crate) fn to_file(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|e| Error::bug(PUBLISHED).with_source(e))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The version of each role at that time, including `root`; `None` if the workspace no longer has that snapshot.
    pub(crate) fn roles(&self, dir: &Path) -> Result<Option<BTreeMap<String, u64>>> {
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

//! What a device stores: the installed release and the releases that failed.

use serde::Serialize;
use serde_json::Value;

use crate::install::Place;
use crate::state::shortened;
use crate::store::Keep;
use tidegate_model::digest::Digest;
use tidegate_model::name::Name;
use tidegate_model::release::Release;
use tidegate_model::version::{self, Version};
use tidegate_tuf::fields::{FieldError, Fields};

/// The maximum number of failed releases to store; the oldest are removed first.
const MAX_QUARANTINED: usize = 256;
/// The longest reason of each, in bytes: all of them fit in a file that is read.
const MAX_WHY: usize = 400;

/// The last installed release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Record {
    /// The product.
    pub product: Name,
    /// The channel it came from. Sequences of different channels do not compare.
    pub channel: Name,
    /// The release.
    pub release: Release,
    /// How far it is confirmed.
    pub state: InstallState,
    /// Where it runs, as the installer names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The version that the settings gave as the factory's while it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Version>,
    /// The previous release, if this program installed it too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Release>,
}

/// How far an installed release is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstallState {
    /// It runs on trial.
    Trial,
    /// It works.
    Confirmed,
    /// It was confirmed, and something else runs now.
    Left,
}

/// A release that failed on this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Failed {
    /// Its version.
    pub version: Version,
    /// Its sequence.
    pub sequence: u64,
    /// SHA-256 of its manifest.
    pub sha256: Digest,
    /// How it failed.
    pub why: String,
}

impl Failed {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, at)?;
        Ok(Self {
            version: fields.text_as("version", version::parse)?,
            sequence: fields.u64("sequence")?,
            sha256: fields.parsed("sha256")?,
            why: fields.text("why")?.to_owned(),
        })
    }

    pub(super) fn is(&self, release: &Release) -> bool {
        (self.sequence, self.sha256) == (release.sequence, release.sha256)
    }
}

/// Releases that failed on this device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Quarantine {
    pub(super) releases: Vec<Failed>,
}

impl Quarantine {
    pub(super) fn add(&mut self, failed: Failed) {
        self.releases.push(Failed { why: shortened(&failed.why, MAX_WHY), ..failed });
        let excess = self.releases.len().saturating_sub(MAX_QUARANTINED);
        self.releases.drain(..excess);
    }
}

impl Keep for Record {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        const STATES: [(&str, InstallState); 3] =
            [("trial", InstallState::Trial), ("confirmed", InstallState::Confirmed), ("left", InstallState::Left)];
        let mut fields = Fields::of(value, at)?;
        Ok(Self {
            product: fields.parsed("product")?,
            channel: fields.parsed("channel")?,
            release: fields.part("release", Release::read)?,
            state: fields.one_of("state", &STATES)?,
            place: fields.optional_text("place")?.map(str::to_owned),
            image: fields.optional_text_as("image", version::parse)?,
            previous: fields.optional_part("previous", Release::read)?,
        })
    }
}

impl Keep for Quarantine {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        Ok(Self { releases: Fields::of(value, at)?.list("releases", usize::MAX, Failed::read)? })
    }

    fn read_newer(value: &Value) -> Option<Self> {
        let releases = value.get("releases")?.as_array()?;
        Some(Self { releases: releases.iter().filter_map(|failed| Failed::read(failed, "").ok()).collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::{Disk, Faults};
    use crate::store::{DirStore, Kept, Repair, Store as _};

    fn failed(sequence: u64) -> Failed {
        Failed { version: Version::new(1, 0, 0), sequence, sha256: Digest::of(b"manifest"), why: "why".into() }
    }

    fn quarantine(sequences: &[u64]) -> Quarantine {
        Quarantine { releases: sequences.iter().map(|&sequence| failed(sequence)).collect() }
    }

    fn load(store: &DirStore) -> (Kept<Quarantine>, Vec<Repair>) {
        let mut repairs = Vec::new();
        let kept = Kept::load(store, "quarantine.json", &mut repairs).unwrap();
        (kept, repairs)
    }

    #[test]
    fn one_damaged_copy_loses_nothing() {
        for damaged in ["quarantine.json", "backup/quarantine.json"] {
            for damage in [&b""[..], b"{", b"null", b"{\"schema\":1}", b"\0\0\0\0", &vec![b' '; 300_000]] {
                let folder = tempfile::tempdir().unwrap();
                let store = DirStore::open(folder.path()).unwrap();
                let (mut kept, _) = load(&store);
                kept.save(&store, quarantine(&[1])).unwrap();
                kept.save(&store, quarantine(&[1, 2])).unwrap();
                fs::write(folder.path().join(damaged), damage).unwrap();
                let (kept, repairs) = load(&store);
                assert_eq!(kept.value(), Some(&quarantine(&[1, 2])), "{damaged} {damage:?}");
                assert_eq!(repairs.len(), 1);
                assert!(load(&store).1.is_empty(), "the repair was not made");
            }
        }
    }

    #[test]
    fn two_damaged_copies_are_noted_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = DirStore::open(folder.path()).unwrap();
        store.save("quarantine.json", b"").unwrap();
        store.save("backup/quarantine.json", b"x").unwrap();
        let (kept, repairs) = load(&store);
        assert_eq!((kept.value(), repairs.len()), (None, 2));
        assert!(load(&store).1.is_empty());
    }

    #[test]
    fn a_newer_schema_is_read_as_far_as_it_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let store = DirStore::open(folder.path()).unwrap();
        let known = serde_json::to_value(failed(1)).unwrap();
        let newer = serde_json::json!({"schema": 2, "serial": 7, "new": 1, "value": {
            "releases": [{"unknown": "form"}, known], "more": true,
        }});
        let newer = serde_json::to_vec(&newer).unwrap();
        store.save("quarantine.json", &newer).unwrap();
        let (mut kept, repairs) = load(&store);
        assert_eq!((kept.value(), kept.newer(), repairs.len()), (Some(&quarantine(&[1])), Some(2), 0));
        // What is written is of a higher serial, so that it counts for the newer version, too.
        kept.save(&store, quarantine(&[1, 2])).unwrap();
        let written: Value = serde_json::from_slice(&fs::read(folder.path().join("quarantine.json")).unwrap()).unwrap();
        assert_eq!((&written["schema"], &written["serial"]), (&1.into(), &8.into()));
        let (kept, _) = load(&store);
        assert_eq!((kept.value(), kept.newer()), (Some(&quarantine(&[1, 2])), None));
        // What is not known at all is as if it were not there.
        store.save("quarantine.json", b"{\"schema\":3,\"serial\":9,\"value\":[]}").unwrap();
        let (kept, repairs) = load(&store);
        assert_eq!((kept.value(), kept.newer(), repairs.len()), (None, Some(3), 0));
    }

    /// As many releases as are kept, each with the longest version and reason: the file can still be read.
    #[test]
    fn whatever_is_written_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = DirStore::open(folder.path()).unwrap();
        let mut quarantine = Quarantine::default();
        let version: Version = format!("1.0.0-{}", "a".repeat(58)).parse().unwrap();
        for said in ["\"", "\\", "\u{1b}", "\u{20ac}"].iter().cycle().take(MAX_QUARANTINED) {
            quarantine.add(Failed { version: version.clone(), why: said.repeat(100_000), ..failed(u64::MAX) });
        }
        let (mut kept, _) = load(&store);
        kept.save(&store, quarantine.clone()).unwrap();
        assert_eq!(load(&store).0.value(), Some(&quarantine));
        // What could not be read is not written, and what is there stays.
        let many = vec![failed(1); 3000];
        let error = kept.save(&store, Quarantine { releases: many }).unwrap_err();
        assert!(error.to_string().contains("quarantine.json: it would be longer than 262144 bytes"), "{error}");
        assert_eq!(load(&store).0.value(), Some(&quarantine));
    }

    #[test]
    fn writing_state_is_atomic() {
        let write = |disk: Disk, folder: &std::path::Path| {
            let store = DirStore::open_on(disk, folder).unwrap();
            load(&store).0.save(&store, quarantine(&[1, 2]))
        };
        let counted = Faults::none();
        let folder = tempfile::tempdir().unwrap();
        write(Disk::with_faults(counted.clone()), folder.path()).unwrap();
        for n in 0..counted.steps() {
            let folder = tempfile::tempdir().unwrap();
            let store = DirStore::open(folder.path()).unwrap();
            load(&store).0.save(&store, quarantine(&[1])).unwrap();
            drop(store);
            // Some steps are not needed the second time.
            let stopped = write(Disk::with_faults(Faults::stop_at(n)), folder.path()).is_err();
            let (kept, repairs) = load(&DirStore::open(folder.path()).unwrap());
            let value = kept.value().unwrap();
            assert!(
                *value == quarantine(&[1, 2]) || (stopped && *value == quarantine(&[1])),
                "stopped at {n}: {value:?}"
            );
            assert!(repairs.is_empty());
        }
    }

    #[test]
    fn the_oldest_failures_are_forgotten_first() {
        let mut many = Quarantine::default();
        for sequence in 0..300 {
            many.add(failed(sequence));
        }
        assert_eq!(many.releases.len(), MAX_QUARANTINED);
        assert_eq!(many.releases.first().unwrap().sequence, 44);
    }
}

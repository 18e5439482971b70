//! What a device remembers: what it installed, and what failed.
//!
//! Both files are kept twice, each copy written whole, with a serial number that rises with every write: the good copy
//! with the higher number counts. So neither a stop between two writes nor damage to one copy makes a device forget which
//! sequence it has reached.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;
use crate::model::decision::Quarantined;
use crate::model::digest::Digest;
use crate::model::name::Name;
use crate::model::version::Version;
use crate::store::{DirStore, Store as _, StoreError};
use crate::tuf::json;
use crate::updater::Repair;

/// The longest state file that is read, in bytes.
const LENGTH: u64 = 256 * 1024;
/// The most releases that are remembered as failed; the oldest are forgotten first.
const MAX_QUARANTINED: usize = 256;
const SCHEMA: u64 = 1;

/// What was installed last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The product.
    pub product: Name,
    /// The channel it came from. Sequences of different channels do not compare.
    pub channel: Name,
    /// The release.
    pub release: Release,
    /// How far it has proved itself.
    pub state: InstallState,
    /// What was there before, if this program installed that too.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous: Option<Release>,
}

/// Which release it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its version.
    pub version: Version,
    /// Its sequence.
    pub sequence: u64,
    /// SHA-256 of its manifest.
    pub sha256: Digest,
}

/// How far an installed release has proved itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstallState {
    /// Its bytes are in place; it may not run yet.
    Installed,
    /// It runs, and is being watched.
    Trial,
    /// It works.
    Confirmed,
}

/// Releases that failed on this device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Quarantine {
    pub(super) releases: Vec<Quarantined>,
}

impl Quarantine {
    pub(super) fn add(&mut self, failed: Quarantined) {
        if !self.releases.contains(&failed) {
            self.releases.push(failed);
        }
        let excess = self.releases.len().saturating_sub(MAX_QUARANTINED);
        self.releases.drain(..excess);
    }
}

/// A value that is kept in a file of the state folder, twice.
#[derive(Debug)]
pub(super) struct Kept<T> {
    name: &'static str,
    serial: u64,
    value: Option<T>,
    stored: Option<T>,
}

#[derive(Serialize, Deserialize)]
struct Form<T> {
    schema: u64,
    serial: u64,
    value: T,
}

impl<T: Serialize + DeserializeOwned + Clone> Kept<T> {
    /// Reads the value. A damaged copy is noted in `repairs` and replaced by the good one.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or was written by a newer version of this program.
    pub(super) fn load(store: &DirStore, name: &'static str, repairs: &mut Vec<Repair>) -> Result<Self, Error> {
        let names = [name.to_owned(), backup(name)];
        let mut copies = Vec::new();
        let mut damaged = false;
        for name in &names {
            match read::<T>(store, name) {
                Ok(copy) => copies.push(copy),
                Err(Unread::Damaged(reason)) => {
                    damaged = true;
                    repairs.push(Repair { name: name.clone(), reason });
                }
                Err(Unread::Failed(e)) => return Err(e),
            }
        }
        let incomplete = damaged || copies.iter().any(Option::is_none);
        let best = copies.into_iter().flatten().max_by_key(|form| form.serial);
        let serial = best.as_ref().map_or(0, |form| form.serial);
        let value = best.map(|form| form.value);
        let mut kept = Self { name, serial, stored: value.clone(), value };
        if incomplete {
            match kept.value.clone() {
                // If it cannot be written now, it will be the next time.
                Some(value) => drop(kept.save(store, value)),
                None if damaged => drop(kept.remove(store)),
                None => {}
            }
        }
        Ok(kept)
    }

    pub(super) fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// The value as it was written last.
    pub(super) fn stored(&self) -> Option<&T> {
        self.stored.as_ref()
    }

    /// Writes a new value.
    pub(super) fn save(&mut self, store: &DirStore, value: T) -> Result<(), Error> {
        let form = Form { schema: SCHEMA, serial: self.serial.saturating_add(1), value };
        let bytes = serde_json::to_vec(&form).map_err(|e| Error::State(format!("{}: {e}", self.name)))?;
        store.save(self.name, &bytes)?;
        // The first copy is whole from here on, and has the higher number.
        self.serial = form.serial;
        self.stored = Some(form.value.clone());
        self.value = Some(form.value);
        Ok(store.save(&backup(self.name), &bytes)?)
    }

    /// Changes the value for as long as the process lives.
    pub(super) fn set(&mut self, value: T) {
        self.value = Some(value);
    }

    /// Forgets the value.
    pub(super) fn remove(&mut self, store: &DirStore) -> Result<(), Error> {
        store.remove(&backup(self.name))?;
        store.remove(self.name)?;
        (self.value, self.stored) = (None, None);
        Ok(())
    }
}

enum Unread {
    Damaged(String),
    Failed(Error),
}

fn read<T: DeserializeOwned>(store: &DirStore, name: &str) -> Result<Option<Form<T>>, Unread> {
    let bytes = match store.load(name, LENGTH) {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) => bytes,
        Err(e @ StoreError::TooLong { .. }) => return Err(Unread::Damaged(e.to_string())),
        Err(e) => return Err(Unread::Failed(e.into())),
    };
    let value = json::parse(&bytes).map_err(|e| Unread::Damaged(e.to_string()))?;
    match value.get("schema").and_then(Value::as_u64) {
        Some(schema) if schema != SCHEMA => Err(Unread::Failed(Error::State(format!(
            "{}: schema {schema} is unknown: a newer version of this program wrote it",
            store.folder().join(name).display()
        )))),
        _ => serde_json::from_value(value).map(Some).map_err(|e| Unread::Damaged(e.to_string())),
    }
}

fn backup(name: &str) -> String {
    format!("backup/{name}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::{Disk, Faults};

    fn quarantine(sequences: &[u64]) -> Quarantine {
        let releases = sequences.iter().map(|&sequence| Quarantined { sequence, sha256: Digest::of(b"manifest") });
        Quarantine { releases: releases.collect() }
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
    fn a_newer_schema_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = DirStore::open(folder.path()).unwrap();
        store.save("quarantine.json", b"{\"schema\":2}").unwrap();
        let error = Kept::<Quarantine>::load(&store, "quarantine.json", &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("schema 2"), "{error}");
    }

    #[test]
    fn a_write_stopped_at_any_step_leaves_the_old_value_or_the_new() {
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
            many.add(Quarantined { sequence, sha256: Digest::of(b"manifest") });
        }
        many.add(Quarantined { sequence: 299, sha256: Digest::of(b"manifest") });
        assert_eq!(many.releases.len(), MAX_QUARANTINED);
        assert_eq!(many.releases.first().unwrap().sequence, 44);
    }
}

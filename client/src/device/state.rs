//! What a device remembers: what it installed, and what failed.
//!
//! Both files are kept twice, each copy written whole, with a serial number that rises with every write: the good copy
//! with the higher number counts. So neither a stop between two writes nor damage to one copy makes a device forget which
//! sequence it has reached.

use serde::Serialize;
use serde_json::Value;

use crate::error::Error;
use crate::model::decision::Quarantined;
use crate::model::digest::Digest;
use crate::model::name::Name;
use crate::model::version::Version;
use crate::store::{DirStore, Store as _, StoreError};
use crate::tuf::fields::{Fault, Fields};
use crate::tuf::json;
use crate::updater::Repair;

/// The longest state file that is read, in bytes.
const LENGTH: u64 = 256 * 1024;
/// The most releases that are remembered as failed; the oldest are forgotten first.
const MAX_QUARANTINED: usize = 256;
const SCHEMA: u64 = 1;

/// What was installed last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Release>,
}

/// Which release it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Release {
    /// Its version.
    pub version: Version,
    /// Its sequence.
    pub sequence: u64,
    /// SHA-256 of its manifest.
    pub sha256: Digest,
}

/// How far an installed release has proved itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
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

/// A value that can be kept.
pub(crate) trait Keep: Serialize + Clone {
    /// Reads what was written.
    fn read(value: &Value, at: &str) -> Result<Self, Fault>;
}

impl Keep for Release {
    fn read(value: &Value, at: &str) -> Result<Self, Fault> {
        let mut fields = Fields::of(value, at)?;
        Ok(Self {
            version: fields.version("version")?,
            sequence: fields.u64("sequence")?,
            sha256: fields.parsed("sha256")?,
        })
    }
}

impl Keep for Record {
    fn read(value: &Value, at: &str) -> Result<Self, Fault> {
        const STATES: [(&str, InstallState); 3] = [
            ("installed", InstallState::Installed),
            ("trial", InstallState::Trial),
            ("confirmed", InstallState::Confirmed),
        ];
        let mut fields = Fields::of(value, at)?;
        Ok(Self {
            product: fields.parsed("product")?,
            channel: fields.parsed("channel")?,
            release: fields.part("release", Release::read)?,
            state: fields.one_of("state", &STATES)?,
            previous: fields.optional_part("previous", Release::read)?,
        })
    }
}

impl Keep for Quarantine {
    fn read(value: &Value, at: &str) -> Result<Self, Fault> {
        let releases = Fields::of(value, at)?.list("releases", usize::MAX, |value, at| {
            let mut fields = Fields::of(value, at)?;
            Ok(Quarantined { sequence: fields.u64("sequence")?, sha256: fields.parsed("sha256")? })
        });
        Ok(Self { releases: releases? })
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

#[derive(Serialize)]
struct Form<T> {
    schema: u64,
    serial: u64,
    value: T,
}

impl<T: Keep> Kept<T> {
    /// Reads the value. A damaged copy is noted in `repairs` and replaced by the good one.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or was written by a newer version of this program.
    pub(super) fn load(store: &DirStore, name: &'static str, repairs: &mut Vec<Repair>) -> Result<Self, Error> {
        let check = |value: &Value| T::read(value, "value").map(drop);
        let (best, damaged) = best(store, name, &check, repairs)?;
        let serial = best.as_ref().map_or(0, |(serial, _)| *serial);
        let value = best.and_then(|(_, value)| T::read(&value, "value").ok());
        let mut kept = Self { name, serial, stored: value.clone(), value };
        if damaged != Damage::None {
            match kept.value.clone() {
                // If it cannot be written now, it will be the next time.
                Some(value) => drop(kept.save(store, value)),
                None if damaged == Damage::Bad => drop(kept.remove(store)),
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

/// What there is to mend.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Damage {
    None,
    /// A copy is missing.
    Missing,
    /// A copy is not as it was written.
    Bad,
}

/// The serial number and value of the better of two copies.
type Best = Option<(u64, Value)>;

/// Reads both copies; `check` says whether a value is what it should be.
///
/// Apart from [`Kept`], so that a device has it once and not for every type.
fn best(
    store: &DirStore,
    name: &str,
    check: &dyn Fn(&Value) -> Result<(), Fault>,
    repairs: &mut Vec<Repair>,
) -> Result<(Best, Damage), Error> {
    let mut best: Best = None;
    let mut damage = Damage::None;
    for name in [name.to_owned(), backup(name)] {
        match read(store, &name, check) {
            Ok(None) if damage == Damage::None => damage = Damage::Missing,
            Ok(None) => {}
            Ok(Some(copy)) => {
                if best.as_ref().is_none_or(|(serial, _)| copy.0 >= *serial) {
                    best = Some(copy);
                }
            }
            Err(Unread::Damaged(reason)) => {
                damage = Damage::Bad;
                repairs.push(Repair { name, reason });
            }
            Err(Unread::Failed(e)) => return Err(e),
        }
    }
    Ok((best, damage))
}

/// What is in a file: the serial number and the value.
fn read(store: &DirStore, name: &str, check: &dyn Fn(&Value) -> Result<(), Fault>) -> Result<Best, Unread> {
    let bytes = match store.load(name, LENGTH) {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) => bytes,
        Err(e @ StoreError::TooLong { .. }) => return Err(Unread::Damaged(e.to_string())),
        Err(e) => return Err(Unread::Failed(e.into())),
    };
    let mut value = json::parse(&bytes).map_err(|e| Unread::Damaged(e.to_string()))?;
    match value.get("schema").and_then(Value::as_u64) {
        Some(schema) if schema != SCHEMA => Err(Unread::Failed(Error::State(format!(
            "{}: schema {schema} is unknown: a newer version of this program wrote it",
            store.folder().join(name).display()
        )))),
        _ => {
            let serial =
                Fields::of(&value, "").and_then(|mut fields| fields.u64("serial")).map_err(|fault| damaged(&fault))?;
            let value = value.get_mut("value").map(Value::take).unwrap_or_default();
            check(&value).map_err(|fault| damaged(&fault))?;
            Ok(Some((serial, value)))
        }
    }
}

fn damaged(fault: &Fault) -> Unread {
    Unread::Damaged(fault.to_string())
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

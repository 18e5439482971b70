//! Values that survive any stop and damage to one file: each is kept in two files.
//!
//! Each copy is written whole, with a serial number that rises with every write: the good copy with the higher number counts. So neither a
//! stop between two writes nor damage to one copy loses the value.
//!
//! A file of a newer schema, which a newer program wrote before the boot loader fell back to this one, is read as far as this program knows it.
//! It stays as it is until there is something to write. `schema`, `serial` and `value` mean the same in every schema.

use serde::Serialize;
use serde_json::Value;

use super::{DirStore, Repair, Store as _, StoreError};
use tidegate_model::release::Release;
use tidegate_tuf::fields::{FieldError, Fields};
use tidegate_tuf::json;

/// The longest state file that is read, in bytes.
const LENGTH: u64 = 256 * 1024;
const SCHEMA: u64 = 1;

/// A value that can be kept.
pub(crate) trait Keep: Serialize + Clone {
    /// Reads the stored form.
    fn read(value: &Value, at: &str) -> Result<Self, FieldError>;

    /// Reads what is known of the form of a newer schema.
    fn read_newer(value: &Value) -> Option<Self> {
        Self::read(value, "value").ok()
    }
}

impl Keep for Release {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        Self::read(value, at)
    }
}

/// A value that is kept in a file of the state folder, twice.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    name: &'static str,
    serial: u64,
    value: Option<T>,
    stored: Option<T>,
    newer: Option<u64>,
}

#[derive(Serialize)]
struct Form<T> {
    schema: u64,
    serial: u64,
    value: T,
}

impl<T: Keep> Kept<T> {
    /// Reads the value. A damaged copy is reported in `repairs` and replaced by the good one.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub(crate) fn load(store: &DirStore, name: &'static str, repairs: &mut Vec<Repair>) -> Result<Self, StoreError> {
        let check = |value: &Value| T::read(value, "value").map(drop);
        let (best, damaged) = best(store, name, &check, repairs)?;
        let serial = best.as_ref().map_or(0, |best| best.serial);
        let newer = best.as_ref().map(|best| best.schema).filter(|schema| *schema > SCHEMA);
        let value = best.and_then(|Copy { value, .. }| match newer {
            None => T::read(&value, "value").ok(),
            Some(_) => T::read_newer(&value),
        });
        let mut kept = Self { name, serial, stored: value.clone(), value, newer };
        // What a newer version wrote stays as it is.
        if damaged != Damage::None && newer.is_none() {
            match kept.value.clone() {
                // If it cannot be written now, the next load repairs it.
                Some(value) => drop(kept.save(store, value)),
                None if damaged == Damage::Bad => drop(kept.remove(store)),
                None => {}
            }
        }
        Ok(kept)
    }

    /// No value yet, whatever the file holds.
    pub(crate) fn none(name: &'static str) -> Self {
        Self { name, serial: 0, value: None, stored: None, newer: None }
    }

    /// The schema of the file, if a newer version of this program wrote it.
    pub(crate) fn newer(&self) -> Option<u64> {
        self.newer
    }

    pub(crate) fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// The last written value.
    pub(crate) fn stored(&self) -> Option<&T> {
        self.stored.as_ref()
    }

    /// Writes a new value.
    pub(crate) fn save(&mut self, store: &DirStore, value: T) -> Result<(), StoreError> {
        let form = Form { schema: SCHEMA, serial: self.serial.saturating_add(1), value };
        let bytes = serde_json::to_vec(&form)
            .map_err(|e| StoreError::Unwritable { name: self.name.to_owned(), reason: e.to_string() })?;
        if bytes.len() as u64 > LENGTH {
            let reason = format!("it would be longer than {LENGTH} bytes, and never be read again");
            return Err(StoreError::Unwritable { name: self.name.to_owned(), reason });
        }
        store.save(self.name, &bytes)?;
        // From here on the first copy is complete and has the higher number.
        self.serial = form.serial;
        self.newer = None;
        self.stored = Some(form.value.clone());
        self.value = Some(form.value);
        store.save(&backup(self.name), &bytes)
    }

    /// Changes the value in memory only.
    pub(crate) fn set(&mut self, value: T) {
        self.value = Some(value);
    }

    /// Forgets the value.
    pub(crate) fn remove(&mut self, store: &DirStore) -> Result<(), StoreError> {
        store.remove(&backup(self.name))?;
        store.remove(self.name)?;
        (self.value, self.stored) = (None, None);
        Ok(())
    }
}

enum Unread {
    Damaged(String),
    Failed(StoreError),
}

/// What is damaged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Damage {
    None,
    /// A copy is missing.
    Missing,
    /// A copy is damaged.
    Bad,
}

/// What is in a file.
struct Copy {
    schema: u64,
    serial: u64,
    value: Value,
}

/// The better of two copies.
type Best = Option<Copy>;

/// Reads both copies; `check` validates a value.
///
/// Apart from [`Kept`], so that a device has it once and not for every type.
fn best(
    store: &DirStore,
    name: &str,
    check: &dyn Fn(&Value) -> Result<(), FieldError>,
    repairs: &mut Vec<Repair>,
) -> Result<(Best, Damage), StoreError> {
    let mut best: Best = None;
    let mut damage = Damage::None;
    for name in [name.to_owned(), backup(name)] {
        match read(store, &name, check) {
            Ok(None) if damage == Damage::None => damage = Damage::Missing,
            Ok(None) => {}
            Ok(Some(copy)) => {
                if best.as_ref().is_none_or(|best| copy.serial >= best.serial) {
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

/// What is in a file.
fn read(store: &DirStore, name: &str, check: &dyn Fn(&Value) -> Result<(), FieldError>) -> Result<Best, Unread> {
    let bytes = match store.load(name, LENGTH) {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) => bytes,
        Err(e @ StoreError::TooLong { .. }) => return Err(Unread::Damaged(e.to_string())),
        Err(e) => return Err(Unread::Failed(e)),
    };
    let mut value = json::parse(&bytes).map_err(|e| Unread::Damaged(e.to_string()))?;
    let schema = value.get("schema").and_then(Value::as_u64).unwrap_or(SCHEMA);
    let serial = Fields::of(&value, "").and_then(|mut fields| fields.u64("serial")).map_err(|fault| damaged(&fault))?;
    let value = value.get_mut("value").map(Value::take).unwrap_or_default();
    if schema <= SCHEMA {
        check(&value).map_err(|fault| damaged(&fault))?;
    }
    Ok(Some(Copy { schema, serial, value }))
}

fn damaged(fault: &FieldError) -> Unread {
    Unread::Damaged(fault.to_string())
}

fn backup(name: &str) -> String {
    format!("backup/{name}")
}

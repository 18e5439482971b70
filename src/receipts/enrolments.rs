//! Which keys are devices': the enrolments that the gate reads, too.
//!
//! ```json
//! {"schema": 1, "device": "device-0001", "keys": [{"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "<hex>"}}], "disabled": false}
//! ```
//!
//! Objects named `*.json`, but those below `keys/`, which lead the gate from a key to its device. Fields that are not known are ignored.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use futures::stream::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_model::digest::Digest;
use tidegate_model::name::DeviceId;
use tidegate_tuf::json;
use tidegate_tuf::key::{Key, KeyId};

use crate::error::{Error, Kind, Result};
use crate::publish::Remote;

/// The longest enrolment, in bytes: what the gate takes.
const LONGEST: u64 = 16 * 1024;
/// How many are read at once.
const AT_A_TIME: usize = 64;
/// The gate's index of keys.
const INDEX: &str = "keys/";

/// What of an enrolment matters here.
#[derive(Deserialize)]
struct Document {
    schema: u64,
    device: DeviceId,
    #[serde(default)]
    keys: Vec<Value>,
    #[serde(default)]
    disabled: bool,
}

/// The devices' keys.
#[derive(Debug, Default)]
pub struct Enrolments {
    keys: HashMap<Digest, Holder>,
    devices: Vec<Device>,
    by_id: HashMap<DeviceId, u32>,
    unreadable: Vec<String>,
    disabled: u64,
    shared: u64,
}

/// How many there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Enrolled {
    /// Devices, those that are disabled among them.
    pub devices: u64,
    /// Keys.
    pub keys: u64,
    /// Devices that are disabled: they count no more.
    pub disabled: u64,
    /// Keys that several devices have: they count for none.
    pub shared: u64,
    /// Enrolments that could not be read.
    pub unreadable: u64,
}

#[derive(Debug)]
struct Device {
    id: DeviceId,
    disabled: bool,
}

/// Who holds a key.
#[derive(Debug, Clone, PartialEq)]
struct Holder {
    /// `None` if several do.
    device: Option<u32>,
    key: Kept,
}

/// A key, in as little memory as it takes: there may be a million.
#[derive(Debug, Clone, PartialEq)]
enum Kept {
    Ed25519([u8; 32]),
    Other(Box<Key>),
}

impl Kept {
    fn of(key: Key) -> Self {
        let public = key.to_value().pointer("/keyval/public").and_then(Value::as_str).and_then(|hex| hex.parse().ok());
        match public {
            // The same object to the letter, so that its id is the same.
            Some(digits) if Key::ed25519(Digest::as_bytes(&digits)) == key => Self::Ed25519(*digits.as_bytes()),
            _ => Self::Other(Box::new(key)),
        }
    }

    fn key(&self) -> Key {
        match self {
            Self::Ed25519(public) => Key::ed25519(public),
            Self::Other(key) => key.as_ref().clone(),
        }
    }
}

/// What is known of the holder of a key.
#[derive(Debug)]
pub(super) enum Held<'a> {
    /// This device.
    By {
        /// Its number.
        device: u32,
        /// Its id.
        id: &'a DeviceId,
        /// The key.
        key: Key,
    },
    /// A device that is disabled.
    Disabled,
    /// Several devices.
    Shared,
    /// No device.
    Nobody,
}

impl Enrolments {
    /// Reads all enrolments of a place. `progress` is told each time some more were read.
    ///
    /// # Errors
    ///
    /// If the place cannot be read, or holds no key at all: then nothing could be counted, and nobody would know.
    pub async fn read(place: &Remote, mut progress: impl FnMut(u64)) -> Result<Self> {
        place.must_be_there()?;
        let mut enrolments = Self::default();
        let listed = place.objects("").try_filter(|(key, _)| {
            let is_one = key.strip_suffix(".json").is_some() && !key.starts_with(INDEX);
            std::future::ready(is_one)
        });
        let read = listed.map(|listed| async {
            let (key, length) = listed?;
            if length > LONGEST {
                return Ok((key, None));
            }
            match place.read_listed(&key, LONGEST).await {
                Ok(found) => Ok((key, found)),
                Err(error) if error.kind() == Kind::Trust => Ok((key, None)),
                Err(error) => Err(error),
            }
        });
        let mut read = std::pin::pin!(read.buffer_unordered(AT_A_TIME));
        while let Some((name, bytes)) = read.try_next().await? {
            progress(1);
            match bytes {
                Some(bytes) => enrolments.add(&name, &bytes),
                // Too long, or removed since it was listed.
                None => enrolments.unreadable.push(name),
            }
        }
        enrolments.unreadable.sort();
        if enrolments.keys.is_empty() {
            return Err(Error::input(format!("{} holds no enrolled key", place.name())).remedy(
                "give the place that the gate reads (`enrolments` in gate.toml); devices are enrolled by: tidegate-gate enrol",
            ));
        }
        Ok(enrolments)
    }

    /// Adds an enrolment; one that cannot be read is noted.
    pub fn add(&mut self, name: &str, bytes: &[u8]) {
        match parse(bytes) {
            Some((document, keys)) => self.enrol(document, keys),
            None => self.unreadable.push(name.to_owned()),
        }
    }

    fn enrol(&mut self, document: Document, keys: Vec<Key>) {
        let number = match self.by_id.entry(document.device.clone()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                // There are fewer devices on earth.
                let Ok(number) = u32::try_from(self.devices.len()) else { return };
                self.devices.push(Device { id: document.device, disabled: false });
                *new.insert(number)
            }
        };
        // Of two enrolments of a device the one that disables it counts.
        if let Some(device) =
            self.devices.get_mut(number as usize).filter(|device| document.disabled && !device.disabled)
        {
            device.disabled = true;
            self.disabled += 1;
        }
        for key in keys {
            let Ok(id) = key.id().as_str().parse() else { continue };
            match self.keys.entry(id) {
                Entry::Vacant(new) => {
                    new.insert(Holder { device: Some(number), key: Kept::of(key) });
                }
                Entry::Occupied(mut known) if known.get().device.is_some_and(|other| other != number) => {
                    known.get_mut().device = None;
                    self.shared += 1;
                }
                Entry::Occupied(_) => {}
            }
        }
    }

    /// Who holds the key with this id.
    pub(super) fn holder(&self, id: &KeyId) -> Held<'_> {
        let held = id.as_str().parse().ok().and_then(|id: Digest| self.keys.get(&id));
        let Some(held) = held else { return Held::Nobody };
        let Some(number) = held.device else { return Held::Shared };
        match self.devices.get(number as usize) {
            Some(device) if device.disabled => Held::Disabled,
            Some(device) => Held::By { device: number, id: &device.id, key: held.key.key() },
            None => Held::Nobody,
        }
    }

    /// How many there are.
    pub fn enrolled(&self) -> Enrolled {
        Enrolled {
            devices: self.devices.len() as u64,
            keys: self.keys.len() as u64,
            disabled: self.disabled,
            shared: self.shared,
            unreadable: self.unreadable.len() as u64,
        }
    }

    /// The names of those that could not be read.
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }
}

/// An enrolment and its keys, if it is one that can be read. A key of a kind that nobody knows is none that anything could be verified by.
fn parse(bytes: &[u8]) -> Option<(Document, Vec<Key>)> {
    let document: Document = serde_json::from_value(json::parse(bytes).ok()?).ok()?;
    let keys = document.keys.iter().map(|key| Key::from_value(key).ok()).collect::<Option<Vec<_>>>()?;
    (document.schema == 1).then_some((document, keys))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(number: u8) -> Key {
        let key = ed25519_dalek::SigningKey::from_bytes(&[number; 32]);
        Key::ed25519(key.verifying_key().as_bytes())
    }

    fn enrolments(documents: &[Value]) -> Enrolments {
        let mut enrolments = Enrolments::default();
        for (number, document) in documents.iter().enumerate() {
            enrolments.add(&format!("{number}.json"), document.to_string().as_bytes());
        }
        enrolments
    }

    #[test]
    fn a_key_is_one_devices_or_nobodys() {
        let mut spelt = key(4).to_value();
        spelt["keyid_hash_algorithms"] = json!(["sha256"]);
        let spelt = Key::from_value(&spelt).unwrap();
        let pem = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8ExErfeZRNUkqANnZ91EMgpZQPqT\ny/Zx3aW9h5/sI5sKDxALG8sAtcgU1mnQPBPL/3w8AjQ/dB4B3wP0/ZrB3w==\n-----END PUBLIC KEY-----\n";
        let p256 = Key::ecdsa_p256(pem);
        let found = enrolments(&[
            json!({"schema": 1, "device": "a", "keys": [key(1).to_value(), spelt.to_value(), p256.to_value()], "ak": "of the gate's"}),
            // A copy, and a device that has two of its own.
            json!({"schema": 1, "device": "a", "keys": [key(1).to_value()]}),
            json!({"schema": 1, "device": "b", "keys": [key(2).to_value(), key(3).to_value()]}),
            // An image with a key inside.
            json!({"schema": 1, "device": "c", "keys": [key(3).to_value()]}),
            json!({"schema": 1, "device": "d", "keys": [key(5).to_value()], "disabled": true}),
        ]);
        let whose = |key: &Key| match found.holder(&key.id()) {
            Held::By { id, key: found, .. } if found == *key => id.to_string(),
            held => format!("{held:?}"),
        };
        assert_eq!([&key(1), &spelt, &p256, &key(2)].map(whose), ["a", "a", "a", "b"]);
        assert_eq!([3, 5, 6].map(|number| whose(&key(number))), ["Shared", "Disabled", "Nobody"]);
        let enrolled = Enrolled { devices: 4, keys: 6, disabled: 1, shared: 1, unreadable: 0 };
        assert_eq!(found.enrolled(), enrolled);
    }

    #[test]
    fn what_is_no_enrolment_is_noted_and_gives_no_key() {
        let good = json!({"schema": 1, "device": "a", "keys": [key(1).to_value()]});
        for (pointer, value) in [
            ("/schema", json!(2)),
            ("/device", json!("two\nlines")),
            ("/keys", json!({})),
            ("/keys/0", json!("a key")),
            ("/disabled", json!("no")),
        ] {
            let mut bad = good.clone();
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            match bad.pointer_mut(parent).unwrap() {
                Value::Array(items) => items[0] = value,
                other => other[field] = value,
            }
            let found = enrolments(&[bad]);
            assert_eq!((found.unreadable().len(), found.enrolled().keys), (1, 0), "{pointer}");
        }
        let twice = good.to_string().replacen('{', "{\"device\":\"b\",", 1);
        let mut found = Enrolments::default();
        found.add("x.json", twice.as_bytes());
        assert_eq!(found.unreadable(), ["x.json"]);
        assert_eq!(enrolments(&[good]).enrolled().keys, 1);
    }
}

//! Enrolments: what the gate knows of a device beforehand. One object a device, and one a key that leads to its device.
//!
//! ```text
//! SHA-256-OF-DEVICE-ID.json   {"schema": 1, "device": ID, "keys": [TUF key], "ak": PEM, "pcrs": POLICY, "disabled": false}
//! keys/KEY-ID.json            {"device": ID}
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use object_store::{ObjectStoreExt as _, PutPayload};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_model::name::DeviceId;
use tidegate_tuf::json;
use tidegate_tuf::key::Key;

use crate::encoding::{sha256, to_hex};
use crate::error::{Error, Result};
use crate::refusal::Refusal;
use crate::storage::Place;

/// For how long an enrolment is remembered: the longest that a disabled device goes on.
const REMEMBERED: Duration = Duration::from_secs(10);
/// How many are remembered.
const MOST: usize = 10_000;
/// The longest enrolment, in bytes.
const LONGEST: u64 = 16 * 1024;

/// What is known of a device.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// 1.
    pub schema: u64,
    /// Its id.
    pub device: DeviceId,
    /// Its device keys, as TUF key objects.
    #[serde(default)]
    pub keys: Vec<Value>,
    /// Its TPM's attestation key: `SubjectPublicKeyInfo` in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ak: Option<String>,
    /// The PCR policy that holds for it instead of its cohort's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcrs: Option<String>,
    /// Whether it gets nothing any more.
    #[serde(default)]
    pub disabled: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    device: DeviceId,
}

impl Enrolment {
    /// Of a device of which nothing is known yet.
    pub fn of(device: DeviceId) -> Self {
        Self { schema: 1, device, keys: Vec::new(), ak: None, pcrs: None, disabled: false }
    }

    /// Its device key with that id.
    pub fn key(&self, id: &str) -> Option<Key> {
        self.keys.iter().filter_map(|key| Key::from_value(key).ok()).find(|key| key.id().as_str() == id)
    }
}

/// When something was read, and what was there.
type Remembered = (Instant, Option<Arc<Enrolment>>);

/// All enrolments.
#[derive(Debug)]
pub struct Enrolments {
    place: Place,
    remembered: Mutex<HashMap<String, Remembered>>,
}

impl Enrolments {
    /// The enrolments in a place.
    pub fn new(place: Place) -> Self {
        Self { place, remembered: Mutex::default() }
    }

    /// The device's enrolment, if it has one.
    pub async fn of(&self, device: &DeviceId) -> std::result::Result<Option<Arc<Enrolment>>, Refusal> {
        let name = name_of(device);
        if let Some(known) = self.recall(&name) {
            return Ok(known);
        }
        let found: Option<Enrolment> = self.read(&name).await?;
        if found.as_ref().is_some_and(|found| found.device != *device || found.schema != 1) {
            return Err(broken(&name));
        }
        Ok(self.remember(name, found.map(Arc::new)))
    }

    /// The enrolment of the device with that key, if there is one.
    pub async fn by_key(&self, id: &str) -> std::result::Result<Option<Arc<Enrolment>>, Refusal> {
        // The id becomes a part of a path.
        if id.len() != 64 || !id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(None);
        }
        let name = format!("keys/{id}.json");
        if let Some(known) = self.recall(&name) {
            return Ok(known);
        }
        let enrolment = match self.read::<Index>(&name).await? {
            Some(index) => self.of(&index.device).await?,
            None => None,
        };
        // The index is only a hint: the enrolment itself says which keys are its device's.
        Ok(self.remember(name, enrolment.filter(|enrolment| enrolment.key(id).is_some())))
    }

    /// Writes an enrolment, and the index of its keys.
    pub async fn save(&self, enrolment: &Enrolment) -> Result<()> {
        let index = Index { device: enrolment.device.clone() };
        for key in &enrolment.keys {
            let key = Key::from_value(key).map_err(Error::new)?;
            let other = self.by_key(key.id().as_str()).await.map_err(|refusal| Error::new(refusal.why))?;
            if other.is_some_and(|other| other.device != enrolment.device) {
                return Err(Error::new("this key is another device's").remedy("each device needs a key of its own"));
            }
        }
        self.write(&name_of(&enrolment.device), enrolment).await?;
        for key in enrolment.keys.iter().filter_map(|key| Key::from_value(key).ok()) {
            self.write(&format!("keys/{}.json", key.id()), &index).await?;
        }
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    async fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let text = serde_json::to_vec(value).map_err(|error| Error::new(error.to_string()))?;
        let written = self.place.store.put(&self.place.key(name), PutPayload::from(text)).await;
        written.map(|_| ()).map_err(|error| Error::new(format!("cannot write into {}: {error}", self.place.name())))
    }

    async fn read<T: for<'a> Deserialize<'a>>(&self, name: &str) -> std::result::Result<Option<T>, Refusal> {
        let found = match self.place.store.get(&self.place.key(name)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.place.failed(&error)),
        };
        if found.meta.size > LONGEST {
            return Err(broken(name));
        }
        let bytes = found.bytes().await.map_err(|error| self.place.failed(&error))?;
        let value = json::parse(&bytes).ok().and_then(|value| serde_json::from_value(value).ok());
        value.map(Some).ok_or_else(|| broken(name))
    }

    /// What is remembered, be it that there is none; `None` if it is not remembered.
    #[allow(clippy::option_option, reason = "remembered or not, there or not")]
    fn recall(&self, name: &str) -> Option<Option<Arc<Enrolment>>> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(name).filter(|(at, _)| at.elapsed() < REMEMBERED).map(|(_, known)| known.clone())
    }

    fn remember(&self, name: String, found: Option<Arc<Enrolment>>) -> Option<Arc<Enrolment>> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MOST {
            remembered.clear();
        }
        remembered.insert(name, (Instant::now(), found.clone()));
        found
    }
}

/// Device ids may hold characters that paths must not.
fn name_of(device: &DeviceId) -> String {
    format!("{}.json", to_hex(&sha256(&[device.as_str().as_bytes()])))
}

fn broken(name: &str) -> Refusal {
    eprintln!("{}", serde_json::json!({"event": "enrolment", "object": name, "error": "it is not an enrolment"}));
    Refusal::unavailable("G-SRV-03", "this device's enrolment cannot be read: its owner has to mend it")
}

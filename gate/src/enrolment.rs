//! Enrolments: the keys and the PCR policy of each device. One object per device, and one per key that names its device.
//!
//! ```text
//! SHA-256-OF-DEVICE-ID.json   {"schema": 1, "device": ID, "keys": [TUF key], "ak": PEM, "pcrs": POLICY, "disabled": false}
//! keys/KEY-ID.json            {"device": ID}
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_model::name::DeviceId;
use tidegate_tuf::json;
use tidegate_tuf::key::Key;

use crate::bounds::JsonBounds;
use crate::encoding::{is_sha256_hex, sha256, to_hex};
use crate::error::{Error, ErrorKind, Result};
use crate::refusal::Refusal;
use crate::storage::{Storage, StorageError};

/// How long an enrolment is cached, which is the longest that a disabled device keeps access.
const CACHE_LIFETIME: Duration = Duration::from_secs(10);
/// The number of cached enrolments.
const CACHE_SIZE: usize = 10_000;
/// The most that an enrolment needs.
const BOUNDS: JsonBounds = JsonBounds { length: 16 * 1024, depth: 6, values: 512 };

/// What the gate knows about a device.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// The version of this format: 1.
    pub schema: u64,
    /// The device id.
    pub device: DeviceId,
    /// The device keys, as TUF key objects.
    #[serde(default)]
    pub keys: Vec<Value>,
    /// The attestation key of the TPM: `SubjectPublicKeyInfo` in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ak: Option<String>,
    /// The PCR policy that replaces the one of the device's cohort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcrs: Option<String>,
    /// Whether the device is refused.
    #[serde(default)]
    pub disabled: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyOwner {
    device: DeviceId,
}

impl Enrolment {
    /// An enrolment without keys.
    pub fn new(device: DeviceId) -> Self {
        Self { schema: 1, device, keys: Vec::new(), ak: None, pcrs: None, disabled: false }
    }

    /// The device key with this id.
    pub fn key(&self, id: &str) -> Option<Key> {
        self.keys.iter().filter_map(|key| Key::from_value(key).ok()).find(|key| key.id().as_str() == id)
    }
}

/// The time of reading, and the enrolment if it exists.
type CachedEnrolment = (Instant, Option<Arc<Enrolment>>);

/// The enrolments in storage, cached for some seconds.
#[derive(Debug)]
pub struct EnrolmentStore {
    storage: Storage,
    cache: Mutex<HashMap<String, CachedEnrolment>>,
}

impl EnrolmentStore {
    /// The enrolments in this storage.
    pub fn new(storage: Storage) -> Self {
        Self { storage, cache: Mutex::default() }
    }

    /// The device's enrolment, if it has one.
    ///
    /// # Errors
    ///
    /// Refuses if the storage does not answer or the enrolment is damaged.
    pub async fn find(&self, device: &DeviceId) -> Result<Option<Arc<Enrolment>>, Refusal> {
        let name = object_name(device);
        if let Some(cached) = self.cached(&name) {
            return Ok(cached);
        }
        let found: Option<Enrolment> = self.read(&name).await?;
        if found.as_ref().is_some_and(|found| found.device != *device || found.schema != 1) {
            return Err(damaged(&name));
        }
        Ok(self.cache(name, found.map(Arc::new)))
    }

    /// The enrolment of the device with this key, if there is one.
    ///
    /// # Errors
    ///
    /// Refuses if the storage does not answer or the enrolment is damaged.
    pub async fn find_by_key(&self, id: &str) -> Result<Option<Arc<Enrolment>>, Refusal> {
        // The id becomes a part of a path.
        if !is_sha256_hex(id) {
            return Ok(None);
        }
        let name = format!("keys/{id}.json");
        if let Some(cached) = self.cached(&name) {
            return Ok(cached);
        }
        let enrolment = match self.read::<KeyOwner>(&name).await? {
            Some(owner) => self.find(&owner.device).await?,
            None => None,
        };
        // The object of the key is only an index. The enrolment decides which keys are valid.
        Ok(self.cache(name, enrolment.filter(|enrolment| enrolment.key(id).is_some())))
    }

    /// Writes an enrolment and the index of its keys.
    ///
    /// # Errors
    ///
    /// Fails if a key is invalid or enrolled for another device, or if the storage does not answer.
    pub async fn save(&self, enrolment: &Enrolment) -> Result<()> {
        let owner = KeyOwner { device: enrolment.device.clone() };
        for key in &enrolment.keys {
            let key = Key::from_value(key).map_err(Error::input)?;
            let other = self.find_by_key(key.id().as_str()).await?;
            if other.is_some_and(|other| other.device != enrolment.device) {
                return Err(Error::new(ErrorKind::Conflict, "this key is enrolled for another device")
                    .with_remedy("create a separate key for each device"));
            }
        }
        self.write(&object_name(&enrolment.device), enrolment).await?;
        for key in enrolment.keys.iter().filter_map(|key| Key::from_value(key).ok()) {
            self.write(&format!("keys/{}.json", key.id()), &owner).await?;
        }
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    async fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let bytes = serde_json::to_vec(value)
            .map_err(|error| Error::new(ErrorKind::Bug, "cannot serialize the enrolment").with_cause(error))?;
        Ok(self.storage.put(name, bytes).await?)
    }

    async fn read<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let bytes = match self.storage.get(name, BOUNDS.length as u64).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(StorageError::TooLong { .. }) => return Err(damaged(name)),
            Err(error) => return Err(error.into()),
        };
        let value = BOUNDS.check(&bytes).ok().and_then(|()| json::parse(&bytes).ok());
        let value = value.and_then(|value| serde_json::from_value(value).ok());
        value.map(Some).ok_or_else(|| damaged(name))
    }

    /// The outer option: whether the object is cached. The inner one: whether it exists.
    #[allow(clippy::option_option, reason = "cached or not, existing or not")]
    fn cached(&self, name: &str) -> Option<Option<Arc<Enrolment>>> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.get(name).filter(|(at, _)| at.elapsed() < CACHE_LIFETIME).map(|(_, found)| found.clone())
    }

    fn cache(&self, name: String, found: Option<Arc<Enrolment>>) -> Option<Arc<Enrolment>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE_SIZE {
            cache.clear();
        }
        cache.insert(name, (Instant::now(), found.clone()));
        found
    }
}

/// A hash, because device ids may contain characters that paths must not.
fn object_name(device: &DeviceId) -> String {
    format!("{}.json", to_hex(&sha256(&[device.as_str().as_bytes()])))
}

fn damaged(name: &str) -> Refusal {
    tracing::warn!(object = name, "damaged enrolment");
    Refusal::damaged("G-SRV-03", "this device's enrolment is damaged; the operator has to enrol the device again")
}

//! Metadata as typed values: root, timestamp, snapshot, targets (TUF 4.3 to 4.6).
//!
//! [`Envelope`] is a file whose outer form is right and whose content nobody vouches for yet. Only after its signatures are
//! checked ([`valid_signers`](super::valid_signers)) is its `signed` part read into one of the role types here. A value that exists is well formed;
//! fields that are not known are ignored, since the bytes they came in were signed and are kept as received.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use chrono::{DateTime, Utc};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::error::Error;
use super::hash::Hashes;
use super::key::{Key, KeyId};
use super::path::Pattern;
use super::{hash, json, time};

/// The names of the top-level roles, which no delegated role may bear.
pub const TOP_LEVEL: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

/// A metadata file, parsed but not yet verified: nothing in it may be used before [`valid_signers`](super::valid_signers) has counted.
#[derive(Debug, Clone)]
pub struct Envelope {
    signed: Value,
    signed_bytes: Vec<u8>,
    signatures: Vec<Signature>,
}

/// One entry of `signatures`: the signer's key id and the signature in hex.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Signature {
    /// The id under which the delegating role declares the key.
    pub keyid: KeyId,
    /// The signature in hex. One that cannot be decoded is not an error; it does not count.
    pub sig: String,
}

impl Envelope {
    /// Parses the outer form: an object with an object `signed` and a list `signatures` without a key id twice (TUF 4.2.1).
    ///
    /// `role` is the role that the bytes are said to be of; it only labels errors.
    pub fn parse(role: &str, bytes: &[u8]) -> Result<Self, Error> {
        let value = json::parse(bytes).map_err(|e| Error::malformed(role, e))?;
        let Value::Object(mut object) = value else {
            return Err(Error::malformed(role, "the file must hold a JSON object"));
        };
        let Some(signed @ Value::Object(_)) = object.remove("signed") else {
            return Err(Error::malformed(role, "\"signed\" must be an object"));
        };
        let signatures: Vec<Signature> =
            object.remove("signatures").ok_or_else(|| Error::malformed(role, "\"signatures\" is missing")).and_then(
                |list| serde_json::from_value(list).map_err(|e| Error::malformed(role, format!("signatures: {e}"))),
            )?;
        let mut seen = BTreeSet::new();
        if let Some(twice) = signatures.iter().find(|s| !seen.insert(&s.keyid)) {
            return Err(Error::malformed(role, format!("key id {} signs twice", twice.keyid)));
        }
        let signed_bytes = json::canonical(&signed).map_err(|e| Error::malformed(role, e))?;
        Ok(Self { signed, signed_bytes, signatures })
    }

    /// The canonical form of `signed`: the bytes that signatures are over.
    pub fn signed_bytes(&self) -> &[u8] {
        &self.signed_bytes
    }

    /// The signatures, as they stand in the file.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Reads `signed` as `T` **without** checking a signature: for tools that show or edit metadata whose trust they
    /// establish otherwise, never for a decision about an update.
    pub fn danger_read_unverified<T: Metadata>(&self, role: &str) -> Result<T, Error> {
        read(role, self.signed.clone())
    }

    /// Reads `signed` as `T`. Callers have verified the signatures.
    pub(super) fn into_verified<T: Metadata>(self, role: &str) -> Result<T, Error> {
        read(role, self.signed)
    }
}

fn read<T: Metadata>(role: &str, signed: Value) -> Result<T, Error> {
    let text = |name: &str| signed.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("_type") != T::TYPE {
        return Err(Error::malformed(
            role,
            format!("\"_type\" is {:?}, and {:?} was expected", text("_type"), T::TYPE),
        ));
    }
    // Clients must refuse a major version that they do not implement (TUF 4.3 "SPEC_VERSION").
    let parts: Vec<_> = text("spec_version").split('.').collect();
    let numeric = parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    if parts.first() != Some(&"1") || !(2..=3).contains(&parts.len()) || !numeric {
        return Err(Error::malformed(
            role,
            format!("\"spec_version\" is {:?}; this client implements 1.x", text("spec_version")),
        ));
    }
    let value: T = serde_json::from_value(signed).map_err(|e| Error::malformed(role, e))?;
    if value.common().issued.is_some_and(|issued| issued >= value.common().expires) {
        return Err(Error::malformed(role, "\"x-tidegate-issued\" must lie before \"expires\""));
    }
    Ok(value)
}

/// The four kinds of metadata.
pub trait Metadata: DeserializeOwned {
    /// What `_type` must say.
    const TYPE: &'static str;

    /// The fields that every kind has.
    fn common(&self) -> &Common;
}

/// The fields that every kind of metadata has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Common {
    /// The version, from 1.
    #[serde(deserialize_with = "positive")]
    pub version: u64,
    /// When the metadata stops being valid.
    #[serde(deserialize_with = "instant")]
    pub expires: DateTime<Utc>,
    /// When the metadata was made, if it says so: an extension of Tidegate's, a floor for clocks that run behind.
    #[serde(default, rename = "x-tidegate-issued", deserialize_with = "some_instant")]
    pub issued: Option<DateTime<Utc>>,
}

/// The root role: the keys and thresholds of the top-level roles (TUF 4.3).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Root {
    /// Version, expiry and time of issue.
    #[serde(flatten)]
    pub common: Common,
    /// Whether files are named by version and hash (TUF 6.2). Tidegate's always are.
    #[serde(default)]
    pub consistent_snapshot: bool,
    #[serde(deserialize_with = "keys")]
    keys: BTreeMap<KeyId, Key>,
    roles: RootRoles,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct RootRoles {
    root: Role,
    timestamp: Role,
    snapshot: Role,
    targets: Role,
}

impl Root {
    /// The keys and threshold of a top-level role; `None` for any other name.
    pub fn role(&self, name: &str) -> Option<&Role> {
        match name {
            "root" => Some(&self.roles.root),
            "timestamp" => Some(&self.roles.timestamp),
            "snapshot" => Some(&self.roles.snapshot),
            "targets" => Some(&self.roles.targets),
            _ => None,
        }
    }

    /// All declared keys.
    pub fn keys(&self) -> &BTreeMap<KeyId, Key> {
        &self.keys
    }

    /// Whether a key that `role` has here is not one of its keys in `newer`: the role's keys were rotated (TUF 5.3.11).
    pub(super) fn has_key_removed_in(&self, newer: &Self, role: &str) -> bool {
        match (self.role(role), newer.role(role)) {
            (Some(old), Some(new)) => {
                old.keyids.iter().any(|id| !new.keyids.contains(id) || self.keys.get(id) != newer.keys.get(id))
            }
            _ => false,
        }
    }
}

/// Which keys speak for a role, and how many of them must.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Role {
    /// Ids of the keys, each once.
    #[serde(deserialize_with = "distinct")]
    pub keyids: Vec<KeyId>,
    /// How many distinct keys must sign, from 1.
    #[serde(deserialize_with = "positive")]
    pub threshold: u64,
}

/// The timestamp role: which snapshot is the newest (TUF 4.6).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Timestamp {
    /// Version, expiry and time of issue.
    #[serde(flatten)]
    pub common: Common,
    #[serde(rename = "meta")]
    meta: TimestampMeta,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct TimestampMeta {
    #[serde(rename = "snapshot.json")]
    snapshot: MetaFile,
}

impl Timestamp {
    /// What is listed of the snapshot.
    pub fn snapshot(&self) -> &MetaFile {
        &self.meta.snapshot
    }
}

/// The snapshot role: which version of every targets role is the newest (TUF 4.4).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Snapshot {
    /// Version, expiry and time of issue.
    #[serde(flatten)]
    pub common: Common,
    /// File name (`ROLE.json`) to what is listed of it.
    pub meta: BTreeMap<String, MetaFile>,
}

impl Snapshot {
    /// What is listed of a targets role.
    pub fn role(&self, role: &str) -> Option<&MetaFile> {
        self.meta.get(&format!("{role}.json"))
    }
}

/// What a role lists of another role's file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MetaFile {
    /// The version that the file must have.
    #[serde(deserialize_with = "positive")]
    pub version: u64,
    /// Its length in bytes, if listed.
    #[serde(default)]
    pub length: Option<u64>,
    /// Its hashes, if listed.
    #[serde(default, deserialize_with = "hash::optional")]
    pub hashes: Option<Hashes>,
}

/// The targets role or a role delegated from it: files, and delegations to further roles (TUF 4.5).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Targets {
    /// Version, expiry and time of issue.
    #[serde(flatten)]
    pub common: Common,
    /// Target path to file.
    pub targets: BTreeMap<String, TargetFile>,
    /// Whom this role trusts with which paths.
    #[serde(default, deserialize_with = "present")]
    pub delegations: Option<Delegations>,
}

impl Targets {
    /// The delegation to the role of this name.
    pub fn delegation(&self, role: &str) -> Option<&DelegatedRole> {
        self.delegations.as_ref()?.roles.iter().find(|d| d.name == role)
    }
}

/// A file that a targets role vouches for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TargetFile {
    /// Its length in bytes.
    pub length: u64,
    /// Its hashes.
    #[serde(deserialize_with = "hash::required")]
    pub hashes: Hashes,
    /// What the application attaches to it.
    #[serde(default)]
    pub custom: Option<serde_json::Map<String, Value>>,
}

/// The delegations of a targets role, in order of precedence.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Delegations {
    #[serde(deserialize_with = "keys")]
    keys: BTreeMap<KeyId, Key>,
    /// The delegated roles; earlier ones take precedence.
    #[serde(deserialize_with = "delegated_roles")]
    pub roles: Vec<DelegatedRole>,
}

impl Delegations {
    /// All declared keys.
    pub fn keys(&self) -> &BTreeMap<KeyId, Key> {
        &self.keys
    }
}

/// One delegation: a role, its keys, and the paths it is trusted with.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "DelegatedRoleForm")]
pub struct DelegatedRole {
    /// The delegated role's name.
    pub name: String,
    /// Its keys and threshold.
    pub role: Role,
    /// The paths it is trusted with.
    pub paths: PathSet,
    /// Whether a path that it is trusted with is looked for nowhere after it.
    pub terminating: bool,
}

/// The paths that a delegation covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathSet {
    /// Paths that match one of these patterns.
    Patterns(Vec<Pattern>),
    /// Paths whose SHA-256, in lower-case hex, starts with one of these.
    HashPrefixes(Vec<String>),
}

#[derive(Deserialize)]
struct DelegatedRoleForm {
    name: String,
    #[serde(flatten)]
    role: Role,
    #[serde(default)]
    paths: Option<Vec<String>>,
    #[serde(default)]
    path_hash_prefixes: Option<Vec<String>>,
    #[serde(default)]
    terminating: bool,
}

impl TryFrom<DelegatedRoleForm> for DelegatedRole {
    type Error = String;

    fn try_from(form: DelegatedRoleForm) -> Result<Self, String> {
        let name = form.name;
        if name.is_empty() || TOP_LEVEL.contains(&name.as_str()) {
            return Err(format!("{name:?} cannot be the name of a delegated role"));
        }
        let paths = match (form.paths, form.path_hash_prefixes) {
            (Some(patterns), None) => PathSet::Patterns(patterns.into_iter().map(Pattern::new).collect()),
            (None, Some(prefixes)) => {
                PathSet::HashPrefixes(prefixes.into_iter().map(|p| p.to_ascii_lowercase()).collect())
            }
            // Neither covers nothing, which harms nobody; both would leave open which one counts.
            (None, None) => PathSet::Patterns(Vec::new()),
            (Some(_), Some(_)) => {
                return Err(format!("delegation to {name:?}: \"paths\" and \"path_hash_prefixes\" exclude each other"));
            }
        };
        Ok(Self { name, role: form.role, paths, terminating: form.terminating })
    }
}

macro_rules! metadata {
    ($($kind:ident $name:literal),*) => {$(
        impl Metadata for $kind {
            const TYPE: &'static str = $name;

            fn common(&self) -> &Common {
                &self.common
            }
        }
    )*};
}

metadata!(Root "root", Timestamp "timestamp", Snapshot "snapshot", Targets "targets");

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    NonZeroU64::deserialize(deserializer).map(NonZeroU64::get)
}

fn instant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    let text = String::deserialize(deserializer)?;
    time::parse(&text)
        .ok_or_else(|| D::Error::custom(format_args!("{text:?} is not a time of the form YYYY-MM-DDTHH:MM:SSZ")))
}

fn some_instant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    instant(deserializer).map(Some)
}

/// A field that may be absent, but not null.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<KeyId, Key>, D::Error> {
    BTreeMap::<KeyId, Value>::deserialize(deserializer)?
        .into_iter()
        .map(|(id, raw)| Key::from_value(&raw).map(|key| (id, key)).map_err(D::Error::custom))
        .collect()
}

fn distinct<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<KeyId>, D::Error> {
    let ids = Vec::<KeyId>::deserialize(deserializer)?;
    let mut seen = BTreeSet::new();
    match ids.iter().find(|id| !seen.insert(*id)) {
        Some(twice) => Err(D::Error::custom(format_args!("key id {twice} is listed twice for one role"))),
        None => Ok(ids),
    }
}

fn delegated_roles<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DelegatedRole>, D::Error> {
    let roles = Vec::<DelegatedRole>::deserialize(deserializer)?;
    let mut seen = BTreeSet::new();
    match roles.iter().find(|role| !seen.insert(&role.name)) {
        Some(twice) => Err(D::Error::custom(format_args!("role {:?} is delegated to twice", twice.name))),
        None => Ok(roles),
    }
}

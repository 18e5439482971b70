//! Metadata as typed values: root, timestamp, snapshot, targets (TUF 4.3 to 4.6).
//!
//! [`Envelope`] is a file whose outer form is right and whose content is not verified yet. Only after its signatures are
//! checked ([`valid_signers`](super::valid_signers)) is its `signed` part read into one of the role types here. A value that exists is well formed;
//! fields that are not known are ignored, since the bytes they came in were signed and are kept as received.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::error::Error;
use super::fields::{FieldError, Fields, expected, list, text, texts};
use super::hash::Hashes;
use super::key::{Key, KeyId};
use super::path::{PathSet, Pattern};
use super::{json, time};

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The id under which the delegating role declares the key.
    pub keyid: KeyId,
    /// The signature in hex. One that cannot be decoded is not an error; it does not count.
    pub sig: String,
}

impl Envelope {
    /// Parses the outer form: an object with an object `signed` and a list `signatures` without a key id twice (TUF 4.2.1).
    ///
    /// `role` is the expected role of the bytes; it only labels errors.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if the bytes have another form.
    pub fn parse(role: &str, bytes: &[u8]) -> Result<Self, Error> {
        let value = json::parse(bytes).map_err(|e| Error::malformed(role, e))?;
        let Value::Object(mut object) = value else {
            return Err(Error::malformed(role, "the file must contain a JSON object"));
        };
        let Some(signed @ Value::Object(_)) = object.remove("signed") else {
            return Err(Error::malformed(role, "\"signed\" must be an object"));
        };
        let signatures = object.get("signatures").ok_or_else(|| Error::malformed(role, "\"signatures\" is missing"))?;
        let signatures = list(signatures, "signatures", usize::MAX, Signature::read);
        let signatures = signatures.map_err(|e| Error::malformed(role, e))?;
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

    /// The signatures, as they are in the file.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Reads `signed` as `T` **without** checking a signature: for tools that show or edit metadata whose trust they
    /// establish otherwise, never for a decision about an update.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if `signed` is not a valid `T`.
    pub fn danger_read_unverified<T: Metadata>(&self, role: &str) -> Result<T, Error> {
        read(role, &self.signed)
    }

    /// Reads `signed` as `T`. Callers have verified the signatures.
    pub(super) fn into_verified<T: Metadata>(self, role: &str) -> Result<T, Error> {
        read(role, &self.signed)
    }
}

fn read<T: Metadata>(role: &str, signed: &Value) -> Result<T, Error> {
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
    let value = T::read(signed).map_err(|e| Error::malformed(role, e))?;
    if value.common().issued.is_some_and(|issued| issued >= value.common().expires) {
        return Err(Error::malformed(role, "\"x-tidegate-issued\" must be before \"expires\""));
    }
    Ok(value)
}

/// The four kinds of metadata.
pub trait Metadata: Sized {
    /// What `_type` must be.
    const TYPE: &'static str;

    /// Reads `signed`, after its signatures were checked or for inspection only.
    #[doc(hidden)]
    fn read(signed: &Value) -> Result<Self, FieldError>;

    /// The fields that every kind has.
    fn common(&self) -> &Common;
}

/// The fields that every kind of metadata has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Common {
    /// The version, from 1.
    pub version: u64,
    /// When the metadata expires.
    pub expires: DateTime<Utc>,
    /// When the metadata was made, if it is stated: an extension of Tidegate's, a floor for clocks that run behind.
    pub issued: Option<DateTime<Utc>>,
}

/// The root role: the keys and thresholds of the top-level roles (TUF 4.3).
#[derive(Debug, Clone, PartialEq)]
pub struct Root {
    /// Version, expiry and time of issue.
    pub common: Common,
    /// Whether files are named by version and hash (TUF 6.2). Tidegate's always are.
    pub consistent_snapshot: bool,
    keys: BTreeMap<KeyId, Key>,
    roles: RootRoles,
}

#[derive(Debug, Clone, PartialEq, Eq)]
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

/// The keys and threshold of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Ids of the keys, each once.
    pub keyids: Vec<KeyId>,
    /// How many distinct keys must sign, from 1.
    pub threshold: u64,
}

/// The timestamp role: which snapshot is the newest (TUF 4.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp {
    /// Version, expiry and time of issue.
    pub common: Common,
    snapshot: MetaFile,
}

impl Timestamp {
    /// What is listed of the snapshot.
    pub fn snapshot(&self) -> &MetaFile {
        &self.snapshot
    }
}

/// The snapshot role: which version of every targets role is the newest (TUF 4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Version, expiry and time of issue.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaFile {
    /// The version that the file must have.
    pub version: u64,
    /// Its length in bytes, if listed.
    pub length: Option<u64>,
    /// Its hashes, if listed.
    pub hashes: Option<Hashes>,
}

/// The targets role or a role delegated from it: files, and delegations to further roles (TUF 4.5).
#[derive(Debug, Clone, PartialEq)]
pub struct Targets {
    /// Version, expiry and time of issue.
    pub common: Common,
    /// Target path to file.
    pub targets: BTreeMap<String, TargetFile>,
    /// The delegations of this role.
    pub delegations: Option<Delegations>,
}

impl Targets {
    /// The delegation to the role of this name.
    pub fn delegation(&self, role: &str) -> Option<&DelegatedRole> {
        self.delegations.as_ref()?.roles.iter().find(|d| d.name == role)
    }
}

/// A file that a targets role lists.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetFile {
    /// Its length in bytes.
    pub length: u64,
    /// Its hashes.
    pub hashes: Hashes,
    /// Application-specific data.
    pub custom: Option<serde_json::Map<String, Value>>,
}

/// The delegations of a targets role, in order of precedence.
#[derive(Debug, Clone, PartialEq)]
pub struct Delegations {
    keys: BTreeMap<KeyId, Key>,
    /// The delegated roles; earlier ones take precedence.
    pub roles: Vec<DelegatedRole>,
}

impl Delegations {
    /// All declared keys.
    pub fn keys(&self) -> &BTreeMap<KeyId, Key> {
        &self.keys
    }
}

/// One delegation: a role, its keys, and the paths it is trusted with.
#[derive(Debug, Clone, PartialEq)]
pub struct DelegatedRole {
    /// The delegated role's name.
    pub name: String,
    /// Its keys and threshold.
    pub role: Role,
    /// The paths it is trusted with.
    pub paths: PathSet,
    /// Whether the search for its paths ends with this role.
    pub terminating: bool,
}

impl Metadata for Root {
    const TYPE: &'static str = "root";

    fn read(signed: &Value) -> Result<Self, FieldError> {
        let fields = &mut Fields::of(signed, "")?;
        Ok(Self {
            common: Common::read(fields)?,
            consistent_snapshot: fields.bool_or("consistent_snapshot", false)?,
            keys: fields.part("keys", keys)?,
            roles: fields.part("roles", RootRoles::read)?,
        })
    }

    fn common(&self) -> &Common {
        &self.common
    }
}

impl Metadata for Timestamp {
    const TYPE: &'static str = "timestamp";

    fn read(signed: &Value) -> Result<Self, FieldError> {
        let fields = &mut Fields::of(signed, "")?;
        let common = Common::read(fields)?;
        let snapshot = fields.part("meta", |value, at| Fields::of(value, at)?.part("snapshot.json", MetaFile::read))?;
        Ok(Self { common, snapshot })
    }

    fn common(&self) -> &Common {
        &self.common
    }
}

impl Metadata for Snapshot {
    const TYPE: &'static str = "snapshot";

    fn read(signed: &Value) -> Result<Self, FieldError> {
        let fields = &mut Fields::of(signed, "")?;
        let common = Common::read(fields)?;
        Ok(Self { common, meta: fields.part("meta", |value, at| map(value, at, str::to_owned, MetaFile::read))? })
    }

    fn common(&self) -> &Common {
        &self.common
    }
}

impl Metadata for Targets {
    const TYPE: &'static str = "targets";

    fn read(signed: &Value) -> Result<Self, FieldError> {
        let fields = &mut Fields::of(signed, "")?;
        Ok(Self {
            common: Common::read(fields)?,
            targets: fields.part("targets", |value, at| map(value, at, str::to_owned, TargetFile::read))?,
            delegations: fields.optional_part("delegations", Delegations::read)?,
        })
    }

    fn common(&self) -> &Common {
        &self.common
    }
}

impl Signature {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, at)?;
        Ok(Self { keyid: KeyId::new(fields.text("keyid")?), sig: fields.text("sig")?.to_owned() })
    }
}

impl Common {
    fn read(fields: &mut Fields<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            version: positive(fields, "version")?,
            expires: fields.text_as("expires", instant)?,
            issued: fields.optional_text_as("x-tidegate-issued", instant)?,
        })
    }
}

impl RootRoles {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, at)?;
        let mut role = |name| fields.part(name, |value, at| Role::read(&mut Fields::of(value, at)?));
        Ok(Self {
            root: role("root")?,
            timestamp: role("timestamp")?,
            snapshot: role("snapshot")?,
            targets: role("targets")?,
        })
    }
}

impl Role {
    fn read(fields: &mut Fields<'_>) -> Result<Self, FieldError> {
        let keyids: Vec<KeyId> = fields.part("keyids", texts)?.into_iter().map(KeyId::new).collect();
        let mut seen = BTreeSet::new();
        if let Some(twice) = keyids.iter().find(|id| !seen.insert(*id)) {
            return Err(FieldError::new(fields.at("keyids"), format!("key id {twice} is listed twice for one role")));
        }
        Ok(Self { keyids, threshold: positive(fields, "threshold")? })
    }
}

impl MetaFile {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, at)?;
        Ok(Self {
            version: positive(&mut fields, "version")?,
            length: if fields.is_null("length") { None } else { fields.optional_u64("length")? },
            hashes: fields.optional_part("hashes", hashes)?,
        })
    }
}

impl TargetFile {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, at)?;
        Ok(Self {
            length: fields.u64("length")?,
            hashes: fields.part("hashes", hashes)?,
            custom: match fields.optional("custom") {
                None | Some(Value::Null) => None,
                Some(Value::Object(custom)) => Some(custom.clone()),
                Some(other) => return Err(expected("an object", other, &fields.at("custom"))),
            },
        })
    }
}

impl Delegations {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, at)?;
        let keys = fields.part("keys", keys)?;
        let roles = fields.list("roles", usize::MAX, DelegatedRole::read)?;
        let mut seen = BTreeSet::new();
        match roles.iter().find(|role| !seen.insert(&role.name)) {
            Some(twice) => {
                Err(FieldError::new(fields.at("roles"), format!("role {:?} is delegated to twice", twice.name)))
            }
            None => Ok(Self { keys, roles }),
        }
    }
}

impl DelegatedRole {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, at)?;
        let name = fields.text("name")?.to_owned();
        if name.is_empty() || TOP_LEVEL.contains(&name.as_str()) {
            return Err(FieldError::new(at, format!("{name:?} cannot be the name of a delegated role")));
        }
        let role = Role::read(&mut fields)?;
        let mut listed = |key| if fields.is_null(key) { Ok(None) } else { fields.optional_part(key, texts) };
        let paths = match (listed("paths")?, listed("path_hash_prefixes")?) {
            (Some(patterns), None) => PathSet::Patterns(patterns.into_iter().map(Pattern::new).collect()),
            (None, Some(prefixes)) => {
                PathSet::HashPrefixes(prefixes.into_iter().map(|p| p.to_ascii_lowercase()).collect())
            }
            // Neither covers nothing, which is harmless; with both it would be ambiguous which one counts.
            (None, None) => PathSet::Patterns(Vec::new()),
            (Some(_), Some(_)) => {
                let why = format!("delegation to {name:?}: \"paths\" and \"path_hash_prefixes\" exclude each other");
                return Err(FieldError::new(at, why));
            }
        };
        Ok(Self { name, role, paths, terminating: fields.bool_or("terminating", false)? })
    }
}

fn positive(fields: &mut Fields<'_>, key: &'static str) -> Result<u64, FieldError> {
    match fields.u64(key)? {
        0 => Err(FieldError::new(fields.at(key), "0 is too small: it counts from 1")),
        number => Ok(number),
    }
}

fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    time::parse(text).ok_or_else(|| format!("{text:?} is not a time of the form YYYY-MM-DDTHH:MM:SSZ"))
}

fn keys(value: &Value, at: &str) -> Result<BTreeMap<KeyId, Key>, FieldError> {
    map(value, at, |id| KeyId::new(id), |raw, at| Key::from_value(raw).map_err(|e| FieldError::new(at, e)))
}

fn hashes(value: &Value, at: &str) -> Result<Hashes, FieldError> {
    let fields = Fields::of(value, at)?;
    for (name, digest) in fields.entries() {
        text(digest, &fields.at(name))?;
    }
    Hashes::from_map(fields.object()).map_err(|e| FieldError::new(at, e))
}

/// An object with any names.
fn map<K: Ord, T>(
    value: &Value,
    at: &str,
    name_of: impl Fn(&str) -> K,
    mut read: impl FnMut(&Value, &str) -> Result<T, FieldError>,
) -> Result<BTreeMap<K, T>, FieldError> {
    let fields = Fields::of(value, at)?;
    // Not collected: that would sort first, which is much code for a device, and they are sorted.
    let mut map = BTreeMap::new();
    for (name, value) in fields.entries() {
        map.insert(name_of(name), read(value, &fields.at(name))?);
    }
    Ok(map)
}

//! Metadata as typed values: root, timestamp, snapshot, targets (TUF 4.3 to 4.6).
//!
//! [`Envelope`] is a file whose outer form is right and whose content is not verified yet. Only after its signatures are
//! checked ([`valid_signers`](super::valid_signers)) is its `signed` part read into one of the role types here. A value that exists is well formed;
//! fields that are not known are ignored, since the bytes they came in were signed and are kept as received.

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::fields::{FieldError, Fields, expected, text, texts};
use super::hash::Hashes;
use super::json::{Raw, each, tree, tree_without};
use super::key::{Key, KeyId};
use super::limits::{Bounds, CANONICAL, CUSTOM, KEYS, ROLES, SIGNATURES, TARGETS};
use super::path::{PathSet, Pattern};
use super::time;
use crate::prelude::*;

/// The names of the top-level roles, which no delegated role may bear.
pub const TOP_LEVEL: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

/// A metadata file, parsed but not yet verified: nothing in it may be used before [`valid_signers`](super::valid_signers) has counted.
///
/// It refers to the bytes of the file and takes next to no memory of its own.
#[derive(Debug, Clone)]
pub struct Envelope<'a> {
    signed: Raw<'a>,
    signed_bytes: Cow<'a, [u8]>,
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

impl<'a> Envelope<'a> {
    /// Checks the outer form: an object with an object `signed` and a list `signatures` without a key id twice (TUF 4.2.1), within
    /// the [`Bounds`] of the role.
    ///
    /// `role` is the expected role of the bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if the bytes have another form, or exceed a bound.
    pub fn parse(role: &str, bytes: &'a [u8]) -> Result<Self, Error> {
        let file = Raw::scan(bytes, &Bounds::of(role)).map_err(|e| Error::malformed(role, e))?;
        if !file.is_object() {
            return Err(Error::malformed(role, "the file must contain a JSON object"));
        }
        let signed = file.get("signed").filter(|signed| signed.is_object());
        let signed = signed.ok_or_else(|| Error::malformed(role, "\"signed\" must be an object"))?;
        let (mut signatures, mut seen) = (Vec::new(), BTreeSet::new());
        each(file.get("signatures"), true, "signatures", SIGNATURES, &mut |_, value, at| {
            let signature = Signature::read(&tree(value, at)?, at)?;
            if !seen.insert(signature.keyid.clone()) {
                return Err(FieldError::new(at, format!("key id {} signs twice", signature.keyid)));
            }
            signatures.push(signature);
            Ok(())
        })
        .map_err(|e| Error::malformed(role, e))?;
        let signed_bytes = signed.canonical(CANONICAL).map_err(|e| Error::malformed(role, e))?;
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
        read(role, self.signed)
    }

    /// Reads `signed` as `T`. Callers have verified the signatures.
    pub(super) fn into_verified<T: Metadata>(self, role: &str) -> Result<T, Error> {
        let signed = self.signed;
        drop(self);
        read(role, signed)
    }
}

fn read<T: Metadata>(role: &str, signed: Raw<'_>) -> Result<T, Error> {
    let text = |name: &str| signed.get(name).and_then(Raw::text).unwrap_or_default();
    if text("_type") != T::TYPE {
        return Err(Error::malformed(
            role,
            format!("\"_type\" is {:?}, and {:?} was expected", text("_type"), T::TYPE),
        ));
    }
    // Clients must refuse a major version that they do not implement (TUF 4.3 "SPEC_VERSION").
    let version = text("spec_version");
    let parts: Vec<_> = version.split('.').collect();
    let numeric = parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    if parts.first() != Some(&"1") || !(2..=3).contains(&parts.len()) || !numeric {
        return Err(Error::malformed(role, format!("\"spec_version\" is {version:?}; this client implements 1.x")));
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
    fn read(signed: Raw<'_>) -> Result<Self, FieldError>;

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
    /// The delegation to the role of this name, which may be a bin.
    pub fn delegation(&self, role: &str) -> Option<Cow<'_, DelegatedRole>> {
        let Delegations { roles, bins, .. } = self.delegations.as_ref()?;
        match bins {
            Some(bins) => bins.number(role).map(|number| Cow::Owned(bins.delegation(number))),
            None => roles.iter().find(|d| d.name == role).map(Cow::Borrowed),
        }
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
    /// Hash bins, in place of `roles`.
    pub bins: Option<Bins>,
}

impl Delegations {
    /// All declared keys.
    pub fn keys(&self) -> &BTreeMap<KeyId, Key> {
        &self.keys
    }

    /// The keys and threshold of the delegated role with this name, which may be a bin.
    pub fn role(&self, name: &str) -> Option<&Role> {
        match &self.bins {
            Some(bins) => bins.number(name).map(|_| &bins.role),
            None => self.roles.iter().find(|d| d.name == name).map(|d| &d.role),
        }
    }
}

/// Succinct delegations (TAP 15): 2^`bits` roles with the same keys and threshold, `PREFIX-HEX`, each for the paths whose SHA-256 starts with
/// its number, in as many bits. All of them are terminating.
///
/// A name always ends with `-` and a number, so that none is that of a top-level role; and a role is taken as a bin only for its own paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bins {
    prefix: String,
    /// From 1 to 32.
    bits: u32,
    role: Role,
}

impl Bins {
    /// How many there are.
    pub fn count(&self) -> u64 {
        1 << self.bits
    }

    /// The part of their names that is before the number.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The number of the bin that is trusted with `path`.
    pub fn number_for(&self, path: &str) -> u64 {
        let first = Sha256::digest(path.as_bytes()).into_iter().take(4).fold(0, |sum, byte| sum << 8 | u64::from(byte));
        first >> (32 - self.bits)
    }

    /// The number of the bin with this name.
    pub fn number(&self, role: &str) -> Option<u64> {
        let hex = role.strip_prefix(self.prefix.as_str())?.strip_prefix('-')?;
        let number = u64::from_str_radix(hex, 16).ok().filter(|number| *number < self.count())?;
        // One spelling alone: neither upper case, nor a sign, nor another number of digits.
        (self.name(number) == role).then_some(number)
    }

    /// The name of the bin with this number.
    pub fn name(&self, number: u64) -> String {
        format!("{}-{number:0width$x}", self.prefix, width = self.digits())
    }

    /// What a delegation to this bin alone would be.
    fn delegation(&self, number: u64) -> DelegatedRole {
        let digits = self.digits();
        // A digit in hex is four bits, so that the last digit has several values if the bits do not fill it.
        let spare = self.bits.next_multiple_of(4) - self.bits;
        let (first, end) = (number << spare, (number + 1) << spare);
        let paths = PathSet::HashPrefixes((first..end).map(|prefix| format!("{prefix:0digits$x}")).collect());
        DelegatedRole { name: self.name(number), role: self.role.clone(), paths, terminating: true }
    }

    fn digits(&self) -> usize {
        self.bits.div_ceil(4) as usize
    }

    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, at)?;
        let bits = fields.u32("bit_length")?;
        if !(1..=32).contains(&bits) {
            return Err(FieldError::new(fields.at("bit_length"), "it must be from 1 to 32"));
        }
        Ok(Self { prefix: fields.text("name_prefix")?.to_owned(), bits, role: Role::read(&mut fields)? })
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

    fn read(signed: Raw<'_>) -> Result<Self, FieldError> {
        let head = tree_without(signed, &["keys"], "")?;
        let fields = &mut Fields::of(&head, "")?;
        Ok(Self {
            common: Common::read(fields)?,
            consistent_snapshot: fields.bool_or("consistent_snapshot", false)?,
            keys: keys(signed, "keys")?,
            roles: fields.part("roles", RootRoles::read)?,
        })
    }

    fn common(&self) -> &Common {
        &self.common
    }
}

impl Metadata for Timestamp {
    const TYPE: &'static str = "timestamp";

    fn read(signed: Raw<'_>) -> Result<Self, FieldError> {
        let signed = tree(signed, "")?;
        let fields = &mut Fields::of(&signed, "")?;
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

    fn read(signed: Raw<'_>) -> Result<Self, FieldError> {
        let head = tree_without(signed, &["meta"], "")?;
        let common = Common::read(&mut Fields::of(&head, "")?)?;
        let mut meta = BTreeMap::new();
        each(signed.get("meta"), false, "meta", ROLES, &mut |file, raw, at| {
            meta.insert(file, MetaFile::read(&tree(raw, at)?, at)?);
            Ok(())
        })?;
        Ok(Self { common, meta })
    }

    fn common(&self) -> &Common {
        &self.common
    }
}

impl Metadata for Targets {
    const TYPE: &'static str = "targets";

    fn read(signed: Raw<'_>) -> Result<Self, FieldError> {
        let head = tree_without(signed, &["targets", "delegations"], "")?;
        let common = Common::read(&mut Fields::of(&head, "")?)?;
        let (mut targets, mut room) = (BTreeMap::new(), CUSTOM);
        each(signed.get("targets"), false, "targets", TARGETS, &mut |path, raw, at| {
            let left = room;
            let value = raw.tree(&mut room).map_err(|e| FieldError::new(at, e.to_string()))?;
            let file = TargetFile::read(&value, at)?;
            if file.custom.is_none() {
                room = left;
            }
            targets.insert(path, file);
            Ok(())
        })?;
        let delegations = signed.get("delegations").map(Delegations::read).transpose()?;
        Ok(Self { common, targets, delegations })
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
            expires: fields.text_as("expires", |text| instant(text, time::parse_rfc3339(text)))?,
            issued: fields.optional_text_as("x-tidegate-issued", |text| instant(text, time::parse(text)))?,
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
            hashes: if fields.is_null("hashes") { None } else { fields.optional_part("hashes", hashes)? },
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
    fn read(raw: Raw<'_>) -> Result<Self, FieldError> {
        let keys = keys(raw, "delegations.keys")?;
        let (mut roles, mut seen) = (Vec::new(), BTreeSet::new());
        if let Some(succinct) = raw.get("succinct_roles") {
            let at = "delegations.succinct_roles";
            if raw.get("roles").is_some() {
                return Err(FieldError::new(at, "it is beside \"roles\", and only one of them is allowed"));
            }
            return Ok(Self { keys, roles, bins: Some(Bins::read(&tree(succinct, at)?, at)?) });
        }
        each(raw.get("roles"), true, "delegations.roles", ROLES, &mut |_, raw, at| {
            let role = DelegatedRole::read(&tree(raw, at)?, at)?;
            if !seen.insert(role.name.clone()) {
                return Err(FieldError::new(at, format!("role {:?} is delegated to twice", role.name)));
            }
            roles.push(role);
            Ok(())
        })?;
        Ok(Self { keys, roles, bins: None })
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

fn instant(text: &str, read: Option<DateTime<Utc>>) -> Result<DateTime<Utc>, String> {
    read.ok_or_else(|| format!("{text:?} is not a time of the form YYYY-MM-DDTHH:MM:SSZ"))
}

/// The `keys` of an object.
fn keys(raw: Raw<'_>, at: &str) -> Result<BTreeMap<KeyId, Key>, FieldError> {
    let mut keys = BTreeMap::new();
    each(raw.get("keys"), false, at, KEYS, &mut |id, raw, at| {
        keys.insert(KeyId::new(id), Key::from_value(&tree(raw, at)?).map_err(|e| FieldError::new(at, e))?);
        Ok(())
    })?;
    Ok(keys)
}

fn hashes(value: &Value, at: &str) -> Result<Hashes, FieldError> {
    let fields = Fields::of(value, at)?;
    for (name, digest) in fields.entries() {
        text(digest, &fields.at(name))?;
    }
    Hashes::from_map(fields.object()).map_err(|e| FieldError::new(at, e))
}

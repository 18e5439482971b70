//! The `signed` part of a role, as raw JSON that can be edited.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::json;
use tidegate_tuf::key::{Key, KeyId};
use tidegate_tuf::time;

use super::SPEC_VERSION;
use crate::error::{Error, Result};

/// The fields that change whenever a role is signed anew, whatever else does.
const ISSUE_FIELDS: [&str; 3] = ["version", "expires", "x-tidegate-issued"];

/// Where a role says who holds the keys that it declares.
const HOLDERS: &str = "x-tidegate-holders";

/// Keys and threshold of a role.
#[derive(Debug, Clone, PartialEq)]
pub struct RoleKeys {
    /// The keys, each once.
    pub keys: Vec<Key>,
    /// How many of them must sign.
    pub threshold: u64,
}

/// A delegation to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Delegation {
    /// The delegated role.
    pub name: String,
    /// Who signs it.
    pub keys: RoleKeys,
    /// The path patterns it is trusted with.
    pub paths: Vec<String>,
}

/// The `signed` object of a role.
///
/// Unlike the client's typed metadata it can be changed, and keeps fields it does not know.
#[derive(Debug, Clone, PartialEq)]
pub struct Document(Map<String, Value>);

impl Document {
    /// Takes over the `signed` object of verified metadata.
    pub(crate) fn from_verified(signed: Map<String, Value>) -> Self {
        Self(signed)
    }

    fn new(kind: &str) -> Self {
        let mut map = Map::new();
        map.insert("_type".into(), kind.into());
        map.insert("spec_version".into(), SPEC_VERSION.into());
        Self(map)
    }

    /// A root with these top-level roles: `root`, `targets`, `snapshot`, `timestamp`.
    pub fn root(roles: &BTreeMap<&str, RoleKeys>) -> Self {
        let mut document = Self::new("root");
        let keys: Map<String, Value> = roles.values().flat_map(|role| key_objects(&role.keys)).collect();
        let roles: Map<String, Value> =
            roles.iter().map(|(name, role)| ((*name).to_owned(), role_object(role))).collect();
        document.0.insert("consistent_snapshot".into(), true.into());
        document.0.insert("keys".into(), keys.into());
        document.0.insert("roles".into(), roles.into());
        document
    }

    /// A targets role, top-level or delegated, that lists nothing yet.
    pub fn targets() -> Self {
        let mut document = Self::new("targets");
        document.0.insert("targets".into(), json!({}));
        document
    }

    /// A snapshot that lists nothing yet.
    pub fn snapshot() -> Self {
        let mut document = Self::new("snapshot");
        document.0.insert("meta".into(), json!({}));
        document
    }

    /// A timestamp that lists nothing yet.
    pub fn timestamp() -> Self {
        let mut document = Self::new("timestamp");
        document.0.insert("meta".into(), json!({}));
        document
    }

    /// Sets what every signing sets: version, expiry and time of issue.
    pub fn issue(&mut self, version: u64, issued: DateTime<Utc>, expires: DateTime<Utc>) {
        self.0.insert("version".into(), version.into());
        self.0.insert("expires".into(), time::format(expires).into());
        self.0.insert("x-tidegate-issued".into(), time::format(issued).into());
    }

    /// The version, 0 before the first issue.
    pub fn version(&self) -> u64 {
        self.0.get("version").and_then(Value::as_u64).unwrap_or_default()
    }

    /// Whether both say the same, version, expiry and time of issue aside.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let content = |document: &Self| {
            let mut map = document.0.clone();
            map.retain(|key, _| !ISSUE_FIELDS.contains(&key.as_str()));
            map
        };
        content(self) == content(other)
    }

    /// Lists a target: its path, length in bytes, SHA-256, and what the application attaches (an object, never an empty one).
    pub fn set_target(&mut self, path: &str, length: u64, sha256: &[u8; 32], custom: Option<Map<String, Value>>) {
        let mut file = json!({"length": length, "hashes": {"sha256": to_hex(sha256)}});
        if let (Some(custom), Some(object)) = (custom.filter(|custom| !custom.is_empty()), file.as_object_mut()) {
            object.insert("custom".into(), custom.into());
        }
        self.edit("targets", |targets| targets.insert(path.to_owned(), file));
    }

    /// Lists a target no longer; whether it was listed.
    pub fn remove_target(&mut self, path: &str) -> bool {
        self.edit("targets", |targets| targets.remove(path).is_some())
    }

    /// Adds a terminating delegation after the others, or replaces the one of that name where it stands.
    pub fn set_delegation(&mut self, delegation: &Delegation) {
        let mut role = role_object(&delegation.keys);
        if let Some(object) = role.as_object_mut() {
            object.insert("name".into(), delegation.name.as_str().into());
            object.insert("paths".into(), delegation.paths.clone().into());
            object.insert("terminating".into(), true.into());
        }
        let named = |value: &Value| value.get("name").and_then(Value::as_str) == Some(&delegation.name);
        self.edit("delegations", |delegations| {
            // Bins of a repository that is taken over: they and roles exclude each other.
            delegations.remove("succinct_roles");
            if let Some(keys) = delegations.entry("keys").or_insert_with(|| json!({})).as_object_mut() {
                keys.extend(key_objects(&delegation.keys.keys));
            }
            if let Some(roles) = delegations.entry("roles").or_insert_with(|| json!([])).as_array_mut() {
                match roles.iter_mut().find(|value| named(value)) {
                    Some(old) => *old = role,
                    None => roles.push(role),
                }
            }
        });
        self.drop_unused_keys();
    }

    /// Delegates to `name` no longer; whether it did.
    pub fn remove_delegation(&mut self, name: &str) -> bool {
        let Some(roles) = self.0.get_mut("delegations").and_then(|d| d.get_mut("roles")).and_then(Value::as_array_mut)
        else {
            return false;
        };
        let before = roles.len();
        roles.retain(|role| role.get("name").and_then(Value::as_str) != Some(name));
        let removed = roles.len() < before;
        self.drop_unused_keys();
        removed
    }

    /// Puts delegations in the order of `names`; others keep their place after them.
    pub fn order_delegations(&mut self, names: &[String]) {
        let Some(roles) = self.0.get_mut("delegations").and_then(|d| d.get_mut("roles")).and_then(Value::as_array_mut)
        else {
            return;
        };
        let place = |role: &Value| {
            let name = role.get("name").and_then(Value::as_str).unwrap_or_default();
            names.iter().position(|n| n == name).unwrap_or(names.len())
        };
        roles.sort_by_key(place);
    }

    fn drop_unused_keys(&mut self) {
        let Some(delegations) = self.0.get_mut("delegations").and_then(Value::as_object_mut) else { return };
        let used: Vec<String> = delegations
            .get("roles")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|role| role.get("keyids").and_then(Value::as_array))
            .flatten()
            .filter_map(|id| id.as_str().map(str::to_owned))
            .collect();
        if let Some(keys) = delegations.get_mut("keys").and_then(Value::as_object_mut) {
            keys.retain(|id, _| used.contains(id));
        }
    }

    /// Lists a file of metadata: `name` is the file's name without its version.
    pub fn set_meta(&mut self, name: &str, version: u64, file: Option<(u64, [u8; 32])>) {
        let mut meta = json!({"version": version});
        if let (Some((length, sha256)), Some(object)) = (file, meta.as_object_mut()) {
            object.insert("length".into(), length.into());
            object.insert("hashes".into(), json!({"sha256": to_hex(&sha256)}));
        }
        self.edit("meta", |object| object.insert(name.to_owned(), meta));
    }

    /// Says who holds the keys that this role declares, by key id: an extension of Tidegate's, for people who review changes.
    pub fn set_holders(&mut self, holders: &BTreeMap<KeyId, String>) {
        if holders.is_empty() {
            self.0.remove(HOLDERS);
            return;
        }
        let holders: Map<String, Value> =
            holders.iter().map(|(id, holder)| (id.as_str().to_owned(), holder.as_str().into())).collect();
        self.0.insert(HOLDERS.into(), holders.into());
    }

    /// Who holds the keys that this role declares, as it says itself.
    pub fn holders(&self) -> BTreeMap<KeyId, String> {
        let holders = self.0.get(HOLDERS).and_then(Value::as_object);
        let text = |(id, holder): (&String, &Value)| Some((KeyId::new(id.as_str()), holder.as_str()?.to_owned()));
        holders.into_iter().flatten().filter_map(text).collect()
    }

    /// Has a root say that files carry their versions and hashes in their names, without which a repository cannot change under
    /// devices that read it. Ours always say so; one that was taken over may not.
    pub fn set_consistent_snapshot(&mut self) {
        self.0.insert("consistent_snapshot".into(), true.into());
    }

    /// Gives a root other keys and thresholds for these of its roles; keys that no role names any more go.
    pub fn set_roles(&mut self, roles: &BTreeMap<&str, RoleKeys>) {
        for (name, role) in roles {
            self.edit("keys", |keys| keys.extend(key_objects(&role.keys)));
            self.edit("roles", |all| all.insert((*name).to_owned(), role_object(role)));
        }
        let used = |id: &String| {
            let roles = self.0.get("roles").and_then(Value::as_object).into_iter().flatten();
            let ids = |role: &Value| role.get("keyids").and_then(Value::as_array).cloned().unwrap_or_default();
            roles.flat_map(|(_, role)| ids(role)).any(|named| named.as_str() == Some(id.as_str()))
        };
        let keep: Vec<String> = match self.0.get("keys").and_then(Value::as_object) {
            Some(keys) => keys.keys().filter(|id| used(id)).cloned().collect(),
            None => Vec::new(),
        };
        self.edit("keys", |keys| keys.retain(|id, _| keep.contains(id)));
    }

    /// The bytes that signatures are over.
    ///
    /// # Errors
    ///
    /// Fails if the document cannot be serialized.
    pub fn to_signed_bytes(&self) -> Result<Vec<u8>> {
        json::canonical(&self.to_value()).map_err(|e| Error::bug("metadata cannot be written").with_source(e))
    }

    /// The object as JSON.
    pub fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// Edits a member that must be an object, as an empty one if it is missing.
    fn edit<R>(&mut self, name: &str, edit: impl FnOnce(&mut Map<String, Value>) -> R) -> R {
        let mut object = match self.0.remove(name) {
            Some(Value::Object(object)) => object,
            _ => Map::new(),
        };
        let result = edit(&mut object);
        self.0.insert(name.to_owned(), object.into());
        result
    }
}

/// The file that `signed` and its signatures (hex, by key id) make: canonical JSON, signatures in order of key ids.
///
/// # Errors
///
/// Fails if the file cannot be serialized.
pub fn assemble(signed: &Value, signatures: &BTreeMap<KeyId, String>) -> Result<Vec<u8>> {
    let signatures: Vec<Value> =
        signatures.iter().map(|(keyid, sig)| json!({"keyid": keyid.as_str(), "sig": sig})).collect();
    to_json(&json!({"signatures": signatures, "signed": signed}))
}

/// JSON with sorted members and no spaces, the same bytes for the same value.
///
/// Canonical JSON but for one thing: canonical JSON has control characters as they are, such as the line ends in the PEM of a P-256
/// key, and then is no JSON that a parser takes. Here they are escaped. Signatures are over the canonical form, not over this.
///
/// # Errors
///
/// Fails if the value cannot be serialized.
pub fn to_json(value: &Value) -> Result<Vec<u8>> {
    let canonical = json::canonical(value).map_err(|e| Error::bug("metadata cannot be written").with_source(e))?;
    let mut bytes = Vec::with_capacity(canonical.len());
    // Outside of strings there is no control character.
    for byte in canonical {
        match byte {
            b'\n' => bytes.extend(b"\\n"),
            b'\r' => bytes.extend(b"\\r"),
            b'\t' => bytes.extend(b"\\t"),
            0..=0x1f => bytes.extend(format!("\\u{byte:04x}").into_bytes()),
            _ => bytes.push(byte),
        }
    }
    Ok(bytes)
}

fn key_objects(keys: &[Key]) -> impl Iterator<Item = (String, Value)> {
    keys.iter().map(|key| (key.id().as_str().to_owned(), key.to_value()))
}

fn role_object(role: &RoleKeys) -> Value {
    let mut ids: Vec<String> = role.keys.iter().map(|key| key.id().as_str().to_owned()).collect();
    ids.sort();
    json!({"keyids": ids, "threshold": role.threshold})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(seed: u8) -> RoleKeys {
        let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
        RoleKeys { keys: vec![Key::ed25519(key.verifying_key().as_bytes())], threshold: 1 }
    }

    fn delegation(name: &str, seed: u8) -> Delegation {
        Delegation { name: name.into(), keys: keys(seed), paths: vec![format!("{name}/*")] }
    }

    #[test]
    fn delegations_keep_their_place_and_only_used_keys_stay() {
        let mut document = Document::targets();
        document.set_delegation(&delegation("a", 1));
        document.set_delegation(&delegation("b", 2));
        document.set_delegation(&delegation("a", 3));
        let value = document.to_value();
        let names: Vec<_> =
            value["delegations"]["roles"].as_array().unwrap().iter().map(|r| r["name"].clone()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(value["delegations"]["keys"].as_object().unwrap().len(), 2);
        document.order_delegations(&["b".into(), "a".into()]);
        assert_eq!(document.to_value()["delegations"]["roles"][0]["name"], "b");
        assert!(document.remove_delegation("b"));
        assert!(!document.remove_delegation("b"));
        assert_eq!(document.to_value()["delegations"]["keys"].as_object().unwrap().len(), 1);
    }

    #[test]
    fn a_file_with_control_characters_is_json_and_without_them_canonical() {
        let value = json!({"b": "line\nend\ttab\u{1}", "a": 1});
        let bytes = to_json(&value).unwrap();
        assert_eq!(bytes, br#"{"a":1,"b":"line\nend\ttab\u0001"}"#);
        assert_eq!(json::parse(&bytes).unwrap(), value);
        let plain = json!({"b": [1, "x\"\\y"], "a": {}});
        assert_eq!(to_json(&plain).unwrap(), json::canonical(&plain).unwrap());
    }

    #[test]
    fn an_empty_custom_is_never_written() {
        let mut document = Document::targets();
        document.set_target("a/b", 1, &[0; 32], Some(Map::new()));
        assert_eq!(document.to_value()["targets"]["a/b"].get("custom"), None);
    }

    #[test]
    fn saying_the_same_is_blind_to_the_issue_alone() {
        let mut a = Document::targets();
        let mut b = a.clone();
        b.issue(7, DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH);
        assert!(a.says_the_same(&b));
        a.set_target("a", 1, &[0; 32], None);
        assert!(!a.says_the_same(&b));
    }
}

//! What other programs that read TUF metadata cannot read, or read otherwise: python-tuf 7, go-tuf 2, tough 0.24.
//!
//! The rules say what these programs were seen to do. `tests/it/ceremony/clients.rs` holds them against python-tuf and tough themselves;
//! those of go-tuf follow its source and were tried by hand, since its modules are not among the packages that the tests can install.
//!
//! All three verify signatures over what they have parsed and written again, not over the bytes that came: a member that a program
//! drops, adds or writes otherwise makes every signature fail.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use tidegate_tuf::key::{Key, KeyId};
use tidegate_tuf::metadata::TOP_LEVEL;

use super::{Objection, material};
use crate::proposal::fields::{element, step};

const EVERY: &str = "every-client";
const GO: &str = "go-tuf";
const PYTHON: &str = "python-tuf";
const TOUGH: &str = "tough";

/// The schemes that python-tuf knows, by key type; of any other its whole file is unreadable to it.
const PYTHON_KEYS: [(&str, &str); 16] = [
    ("ecdsa", "ecdsa-sha2-nistp256"),
    ("ecdsa", "ecdsa-sha2-nistp384"),
    ("ecdsa", "ecdsa-sha2-nistp521"),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"),
    ("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384"),
    ("ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521"),
    ("ed25519", "ed25519"),
    ("ml-dsa", "ml-dsa-44/1"),
    ("ml-dsa", "ml-dsa-65/1"),
    ("ml-dsa", "ml-dsa-87/1"),
    ("rsa", "rsassa-pss-sha256"),
    ("rsa", "rsassa-pss-sha384"),
    ("rsa", "rsassa-pss-sha512"),
    ("rsa", "rsa-pkcs1v15-sha256"),
    ("rsa", "rsa-pkcs1v15-sha384"),
    ("rsa", "rsa-pkcs1v15-sha512"),
];
/// Those that tough knows, likewise.
const TOUGH_KEYS: [(&str, &str); 4] = [
    ("ecdsa", "ecdsa-sha2-nistp256"),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"),
    ("ed25519", "ed25519"),
    ("rsa", "rsassa-pss-sha256"),
];
/// Those that go-tuf knows; a role of which it cannot use one key it does not verify at all.
const GO_KEYS: [(&str, &str); 5] = [
    ("ecdsa", "ecdsa-sha2-nistp256"),
    ("ecdsa", "ecdsa-sha2-nistp384"),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"),
    ("ed25519", "ed25519"),
    ("rsa", "rsassa-pss-sha256"),
];
/// The members that go-tuf reads by name whatever their case.
const GO_MEMBERS: [&str; 24] = [
    "_type",
    "spec_version",
    "consistent_snapshot",
    "version",
    "expires",
    "keys",
    "roles",
    "targets",
    "delegations",
    "keytype",
    "scheme",
    "keyval",
    "public",
    "keyids",
    "threshold",
    "name",
    "terminating",
    "paths",
    "path_hash_prefixes",
    "length",
    "hashes",
    "custom",
    "succinct_roles",
    "meta",
];
/// The largest whole number that a double-precision number holds with all below it.
const DOUBLE: u64 = 1 << 53;

/// What there is in a role that other programs cannot read.
pub(super) fn role(role: &str, signed: &Value) -> Vec<Objection> {
    let mut rules = Rules { document: role, found: Vec::new() };
    rules.everywhere("", signed, false);
    if role == "root" {
        if signed.get("consistent_snapshot") != Some(&Value::Bool(true)) {
            let why = "files are published with versions and hashes in their names alone";
            rules.object(&[EVERY], "/consistent_snapshot", why);
        }
        for (name, declared) in signed.get("roles").and_then(Value::as_object).into_iter().flatten() {
            let path = format!("/roles/{}", step(name));
            if !TOP_LEVEL.contains(&name.as_str()) {
                let clients: &[&str] = if name == "delegated-targets" { &[PYTHON] } else { &[PYTHON, TOUGH] };
                rules.object(clients, &path, "no root with a role of this name can be read");
            }
            rules.declared(&path, declared, signed.get("keys"));
        }
        rules.keys("/keys", signed.get("keys"));
    } else {
        for (path, file) in signed.get("targets").and_then(Value::as_object).into_iter().flatten() {
            rules.target(path, file);
        }
        if let Some(delegations) = signed.get("delegations") {
            rules.delegations(delegations);
        }
    }
    rules.found
}

struct Rules<'a> {
    document: &'a str,
    found: Vec<Objection>,
}

impl Rules<'_> {
    fn object(&mut self, clients: &[&str], path: &str, why: &str) {
        self.found.extend(clients.iter().map(|client| Objection::new(client, self.document, path, why)));
    }

    /// What is wrong wherever it stands. `custom`: whether this is inside a target's `custom`, which go-tuf keeps as it is.
    fn everywhere(&mut self, path: &str, value: &Value, custom: bool) {
        match value {
            Value::Object(members) => {
                self.members(path, members, custom);
                for (name, value) in members {
                    let custom = custom || (name == "custom" && path.starts_with("/targets/"));
                    self.everywhere(&format!("{path}/{}", step(name)), value, custom);
                }
            }
            Value::Array(list) => {
                for (at, value) in list.iter().enumerate() {
                    self.everywhere(&format!("{path}{}", element(at, value)), value, custom);
                }
            }
            Value::String(text) if !text.is_ascii() => {
                self.object(&[TOUGH], path, "text beyond ASCII is normalized before signatures are verified");
            }
            Value::Number(number) => {
                let size = number.as_u64().unwrap_or_else(|| number.as_i64().map_or(u64::MAX, i64::unsigned_abs));
                if size > i64::MAX.unsigned_abs() || (size > DOUBLE && !custom) {
                    self.object(&[GO], path, "a number of this size is rounded or refused");
                }
            }
            _ => {}
        }
    }

    fn members(&mut self, path: &str, members: &Map<String, Value>, custom: bool) {
        let mut names: Vec<&String> = members.keys().collect();
        names.sort_unstable();
        for (at, name) in names.iter().enumerate() {
            if !name.is_ascii() {
                let path = format!("{path}/{}", step(name));
                self.object(&[TOUGH], &path, "text beyond ASCII is normalized before signatures are verified");
            }
            // Named things are compared as they are; only the members of the specification's own objects are not.
            let lower = name.to_ascii_lowercase();
            if !custom && lower != **name && GO_MEMBERS.contains(&lower.as_str()) {
                let path = format!("{path}/{}", step(name));
                self.object(&[GO], &path, "it is read as the member of this name in lower case");
            }
            // tough orders by the quoted name: a quote sorts after a space and after "!".
            let is_put_before =
                |next: &&&String| next.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with([' ', '!']));
            if let Some(other) = names.get(at + 1).filter(is_put_before) {
                let path = format!("{path}/{}", step(other));
                self.object(
                    &[TOUGH],
                    &path,
                    "it is put before a shorter name that it begins with, and signatures fail",
                );
            }
        }
    }

    fn keys(&mut self, path: &str, keys: Option<&Value>) {
        for (id, value) in keys.and_then(Value::as_object).into_iter().flatten() {
            let path = format!("{path}/{}", step(id));
            let Ok(key) = Key::from_value(value) else { continue };
            let kind = (key.keytype(), key.scheme());
            let unknown = |known: &[(&str, &str)]| !known.contains(&kind);
            let why = format!("keys of the kind {}/{} are not known", kind.0, kind.1);
            if unknown(&PYTHON_KEYS) {
                self.object(&[PYTHON], &path, &why);
            }
            if unknown(&GO_KEYS) {
                self.object(&[GO], &path, &why);
            }
            if unknown(&TOUGH_KEYS) {
                self.object(&[TOUGH], &path, &why);
            } else {
                self.known_key(&path, id, &key);
            }
        }
    }

    /// A key of a kind that tough knows, and that this program knows too.
    fn known_key(&mut self, path: &str, id: &str, key: &Key) {
        if key.decode().is_none() {
            self.object(&[EVERY], path, "the public key cannot be decoded, or is too short to be safe");
        }
        // Others go by the declared id (TAP 12).
        if key.id() != KeyId::new(id.to_ascii_lowercase()) {
            self.object(&[TOUGH], path, "its id must be the hash of the key");
        }
    }

    /// Keys and threshold of a role.
    fn declared(&mut self, path: &str, declared: &Value, keys: Option<&Value>) {
        let ids: Vec<&str> =
            declared.get("keyids").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let key = |id: &&str| keys.and_then(|keys| keys.get(*id));
        if ids.iter().any(|id| key(id).is_none()) {
            self.object(&[GO], &format!("{path}/keyids"), "a key id without its key is not accepted");
        }
        let hex = |id: &&str| id.len().is_multiple_of(2) && id.bytes().all(|c| c.is_ascii_hexdigit());
        if !ids.iter().all(hex) {
            self.object(&[TOUGH], &format!("{path}/keyids"), "key ids must be hex digits");
        }
        let threshold = declared.get("threshold").and_then(Value::as_u64).unwrap_or_default();
        // One key under two ids counts once.
        let distinct: BTreeSet<String> = ids.iter().filter_map(key).filter_map(material).collect();
        if threshold > distinct.len() as u64 {
            let why = "it asks for more signatures than it has keys, and can never be signed";
            self.object(&[EVERY], &format!("{path}/threshold"), why);
        }
    }

    fn target(&mut self, name: &str, file: &Value) {
        let path = format!("/targets/{}", step(name));
        if name.split('/').all(|part| matches!(part, "" | "." | "..")) {
            self.object(&[TOUGH], &path, "a path that leads nowhere is refused");
        }
        match file.get("custom") {
            Some(Value::Null) => {
                self.object(
                    &[GO, TOUGH],
                    &format!("{path}/custom"),
                    "null is dropped, and signatures fail, or is refused",
                );
            }
            Some(Value::Object(custom)) if custom.is_empty() => {
                self.object(&[TOUGH], &format!("{path}/custom"), "an empty object is dropped, and signatures fail");
            }
            _ => {}
        }
        let hashes = file.get("hashes").and_then(Value::as_object);
        for (algorithm, digest) in hashes.into_iter().flatten() {
            let at = format!("{path}/hashes/{}", step(algorithm));
            if digest.as_str().is_some_and(|text| text.bytes().any(|c| c.is_ascii_uppercase())) {
                self.object(&[GO, PYTHON], &at, "hashes are compared, or written again, in lower case");
            }
            if algorithm != "sha256" && algorithm != "sha512" {
                self.object(&[GO, PYTHON], &at, "a target with a hash of an unknown kind is refused");
            }
        }
        if hashes.is_none_or(|hashes| !hashes.contains_key("sha256")) {
            self.object(&[TOUGH], &format!("{path}/hashes"), "a target must have a sha256");
        }
    }

    fn delegations(&mut self, delegations: &Value) {
        self.keys("/delegations/keys", delegations.get("keys"));
        self.dropped("/delegations", delegations, &["keys", "roles"]);
        if delegations.get("succinct_roles").is_some() {
            self.object(&[TOUGH], "/delegations/succinct_roles", "delegations without roles cannot be read");
        }
        for declared in delegations.get("roles").and_then(Value::as_array).into_iter().flatten() {
            let name = declared.get("name").and_then(Value::as_str).unwrap_or_default();
            let path = format!("/delegations/roles[{}]", step(name));
            self.declared(&path, declared, delegations.get("keys"));
            let known = ["name", "keyids", "threshold", "terminating", "paths", "path_hash_prefixes"];
            self.dropped(&path, declared, &known);
            if name.contains(['$', '&', '+', '=', ':', '@']) {
                self.object(&[GO], &format!("{path}/name"), "it is asked for under another file name");
            }
            if declared.get("terminating").is_none() {
                self.object(&[GO, PYTHON, TOUGH], &format!("{path}/terminating"), "it must be there");
            }
            self.covered(&path, declared);
        }
    }

    /// tough does not keep unknown members of delegations.
    fn dropped(&mut self, path: &str, value: &Value, known: &[&str]) {
        for name in value.as_object().into_iter().flatten().map(|(name, _)| name) {
            if !known.contains(&name.as_str()) {
                let path = format!("{path}/{}", step(name));
                self.object(&[TOUGH], &path, "it is dropped, and signatures fail");
            }
        }
    }

    /// The paths that a role is trusted with.
    fn covered(&mut self, path: &str, declared: &Value) {
        let list = |name: &str| declared.get(name).filter(|value| !value.is_null());
        match (list("paths"), list("path_hash_prefixes")) {
            (None, None) => {
                self.object(&[PYTHON, TOUGH], path, "a delegation without paths is refused");
            }
            (None, Some(_)) => {
                self.object(
                    &[GO],
                    &format!("{path}/path_hash_prefixes"),
                    "hashes of paths are compared in another form, and other targets are found",
                );
            }
            _ => {}
        }
        for name in ["paths", "path_hash_prefixes"] {
            if declared.get(name).is_some_and(Value::is_null) {
                self.object(&[GO, PYTHON, TOUGH], &format!("{path}/{name}"), "null is dropped, and signatures fail");
            }
        }
        let patterns = list("paths").and_then(Value::as_array);
        for pattern in patterns.into_iter().flatten().filter_map(Value::as_str) {
            let at = format!("{path}/paths[{}]", step(pattern));
            let why = "signs of this pattern mean something else";
            if pattern.contains('[') {
                self.object(&[GO, PYTHON], &at, why);
            } else if pattern.contains('\\') {
                self.object(&[GO], &at, why);
            }
            if pattern.contains(['[', '{', '}', '\\']) {
                self.object(&[TOUGH], &at, why);
            }
        }
        let prefixes = list("path_hash_prefixes").and_then(Value::as_array);
        for prefix in prefixes.into_iter().flatten().filter_map(Value::as_str) {
            if prefix.bytes().any(|c| c.is_ascii_uppercase()) {
                let at = format!("{path}/path_hash_prefixes[{}]", step(prefix));
                self.object(&[PYTHON, TOUGH], &at, "hashes are compared in lower case");
            }
        }
    }
}

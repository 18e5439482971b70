//! A TUF repository in memory, whose every byte a test can bend.
//!
//! `signed` parts are raw JSON values. [`Simulator::publish`] raises a role's version, signs it with the keys that
//! the role has at that moment, and puts the file where devices look. Tests edit values, keys or files in between.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::key::Key;
use tidegate_tuf::{json as tuf_json, path, time};

pub const TOP: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

/// The instant at which simulated repositories are made.
pub fn epoch() -> DateTime<Utc> {
    time::parse("2026-01-01T00:00:00Z").unwrap()
}

fn key(seed: u32) -> SigningKey {
    let mut secret = [0; 32];
    secret[..4].copy_from_slice(&seed.to_le_bytes());
    SigningKey::from_bytes(&secret)
}

#[derive(Clone)]
pub struct Simulator {
    /// Role to the `signed` part that the next publication starts from.
    pub signed: BTreeMap<String, Value>,
    /// Role to the keys that sign it.
    pub signers: BTreeMap<String, Vec<SigningKey>>,
    /// File path in the repository (`metadata/...`, `targets/...`) to its bytes.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Whether listings carry length and hashes.
    pub hashes: bool,
    seed: u32,
}

impl Simulator {
    /// A repository with version 1 of the four top-level roles, one key each, expiring 30 days after [`epoch`].
    pub fn new() -> Self {
        let mut sim = Self::empty();
        for (role, rest) in [
            ("root", json!({"consistent_snapshot": true, "keys": {}, "roles": {}})),
            ("timestamp", json!({"meta": {}})),
            ("snapshot", json!({"meta": {}})),
            ("targets", json!({"targets": {}})),
        ] {
            sim.signed.insert(role.into(), Self::signed_part(if role == "targets" { "targets" } else { role }, &rest));
        }
        for role in TOP {
            sim.signed.get_mut("root").unwrap()["roles"][role] = json!({"keyids": [], "threshold": 1});
            sim.add_key(role);
        }
        sim.publish(&["root", "targets", "snapshot", "timestamp"]);
        sim
    }

    /// No repository at all.
    pub fn empty() -> Self {
        Self { signed: BTreeMap::new(), signers: BTreeMap::new(), files: BTreeMap::new(), hashes: true, seed: 0 }
    }

    fn signed_part(kind: &str, rest: &Value) -> Value {
        let mut signed = json!({
            "_type": kind, "spec_version": "1.0.34", "version": 0,
            "expires": time::format(epoch() + TimeDelta::days(30)),
        });
        for (key, value) in rest.as_object().unwrap() {
            signed[key] = value.clone();
        }
        signed
    }

    /// A fresh key, the same at every run.
    pub fn new_key(&mut self) -> SigningKey {
        self.seed += 1;
        key(self.seed)
    }

    /// Every key that was ever made here.
    pub fn every_key(&self) -> Vec<SigningKey> {
        (1..=self.seed).map(key).collect()
    }

    /// The object that declares a role's key ids and threshold: in root, or in the delegation by `delegator`.
    pub fn declaration(&mut self, role: &str, delegator: &str) -> &mut Value {
        let signed = self.signed.get_mut(delegator).unwrap();
        if delegator == "root" {
            return &mut signed["roles"][role];
        }
        let roles = signed["delegations"]["roles"].as_array_mut().unwrap();
        roles.iter_mut().find(|r| r["name"] == role).unwrap()
    }

    /// Gives a top-level role one more key.
    pub fn add_key(&mut self, role: &str) -> SigningKey {
        self.add_key_from(role, "root")
    }

    /// Gives a role one more key, as `delegator` declares it.
    pub fn add_key_from(&mut self, role: &str, delegator: &str) -> SigningKey {
        let key = self.new_key();
        self.declare_key(role, delegator, &key);
        self.signers.entry(role.into()).or_default().push(key.clone());
        key
    }

    /// Declares a key for a role without making it sign.
    pub fn declare_key(&mut self, role: &str, delegator: &str, key: &SigningKey) {
        let public = Key::ed25519(key.verifying_key().as_bytes());
        let id = public.id().to_string();
        let signed = self.signed.get_mut(delegator).unwrap();
        let declaring = if delegator == "root" { signed } else { &mut signed["delegations"] };
        declaring["keys"][&id] = public.to_value();
        self.declaration(role, delegator)["keyids"].as_array_mut().unwrap().push(json!(id));
    }

    pub fn set_threshold(&mut self, role: &str, delegator: &str, threshold: u64) {
        self.declaration(role, delegator)["threshold"] = json!(threshold);
    }

    /// Takes all keys from a top-level role and gives it a new one.
    pub fn rotate(&mut self, role: &str) {
        self.declaration(role, "root")["keyids"] = json!([]);
        self.signers.remove(role);
        self.add_key(role);
    }

    /// Adds a role that `delegator` trusts with `paths`, with a key of its own. Neither is published yet.
    pub fn delegate(&mut self, delegator: &str, role: &str, paths: &[&str], terminating: bool) {
        let signed = self.signed.get_mut(delegator).unwrap();
        if signed.get("delegations").is_none() {
            signed["delegations"] = json!({"keys": {}, "roles": []});
        }
        signed["delegations"]["roles"].as_array_mut().unwrap().push(json!({
            "name": role, "keyids": [], "threshold": 1, "terminating": terminating, "paths": paths,
        }));
        if !self.signed.contains_key(role) {
            let part = Self::signed_part("targets", &json!({"targets": {}}));
            self.signed.insert(role.into(), part);
        }
        self.add_key_from(role, delegator);
    }

    /// Gives a role that `targets` delegates to a new key in place of those it had, with threshold 1.
    pub fn delegate_anew(&mut self, role: &str) {
        let declaration = self.declaration(role, "targets");
        declaration["keyids"] = json!([]);
        declaration["threshold"] = json!(1);
        self.signers.remove(role);
        self.add_key_from(role, "targets");
    }

    /// Lists a file in a targets role, and stores its bytes. The role is not published yet.
    pub fn add_target(&mut self, role: &str, target: &str, bytes: &[u8]) {
        let digest = to_hex(&Sha256::digest(bytes));
        self.signed.get_mut(role).unwrap()["targets"][target] =
            json!({"length": bytes.len(), "hashes": {"sha256": digest}});
        let (dir, file) = target.rsplit_once('/').map_or((String::new(), target), |(d, f)| (format!("{d}/"), f));
        self.files.insert(format!("targets/{dir}{digest}.{file}"), bytes.to_vec());
    }

    /// Attaches custom data to a listed file.
    pub fn set_custom(&mut self, role: &str, target: &str, custom: Value) {
        self.signed.get_mut(role).unwrap()["targets"][target]["custom"] = custom;
    }

    /// Publishes the next version of each role, in the order given, and lists it where it belongs.
    pub fn publish(&mut self, roles: &[&str]) {
        for role in roles {
            let version = self.version(role) + 1;
            self.signed.get_mut(*role).unwrap()["version"] = json!(version);
            self.publish_as_is(role);
        }
    }

    /// Signs a role with its version unchanged, stores the file, and lists it where it belongs.
    pub fn publish_as_is(&mut self, role: &str) {
        let bytes = self.sign(role);
        let version = self.version(role);
        let file = path::metadata_file(role, (role != "timestamp").then_some(version));
        self.files.insert(format!("metadata/{file}"), bytes.clone());
        let (lister, file) = match role {
            "root" | "timestamp" => return,
            "snapshot" => ("timestamp", "snapshot.json".to_owned()),
            _ => ("snapshot", format!("{role}.json")),
        };
        let mut entry = json!({"version": version});
        if self.hashes {
            entry["length"] = json!(bytes.len());
            entry["hashes"] = json!({"sha256": to_hex(&Sha256::digest(&bytes))});
        }
        self.signed.get_mut(lister).unwrap()["meta"][file] = entry;
    }

    /// The role's file, signed by its keys.
    pub fn sign(&self, role: &str) -> Vec<u8> {
        self.sign_with(role, &self.signers[role])
    }

    /// The role's file, signed by these keys.
    pub fn sign_with(&self, role: &str, keys: &[SigningKey]) -> Vec<u8> {
        let signed = &self.signed[role];
        let bytes = tuf_json::canonical(signed).unwrap();
        let signatures: Vec<Value> = keys
            .iter()
            .map(|key| {
                let id = Key::ed25519(key.verifying_key().as_bytes()).id();
                json!({"keyid": id.as_str(), "sig": to_hex(&key.sign(&bytes).to_bytes())})
            })
            .collect();
        // As other tools write it: with escapes.
        serde_json::to_vec(&json!({"signatures": signatures, "signed": signed})).unwrap()
    }

    pub fn version(&self, role: &str) -> u64 {
        self.signed[role]["version"].as_u64().unwrap()
    }

    pub fn set_expiry(&mut self, role: &str, expires: DateTime<Utc>) {
        self.signed.get_mut(role).unwrap()["expires"] = json!(time::format(expires));
    }

    /// The published file of a role's newest version.
    pub fn newest(&self, role: &str) -> &[u8] {
        let file = path::metadata_file(role, (role != "timestamp").then(|| self.version(role)));
        &self.files[&format!("metadata/{file}")]
    }

    /// The published file of one version of root.
    pub fn root(&self, version: u64) -> &[u8] {
        &self.files[&format!("metadata/{version}.root.json")]
    }
}

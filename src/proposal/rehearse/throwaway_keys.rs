//! A repository in which every key is replaced by one that we hold, so that what nobody has signed yet can be played.
//!
//! Everything else stays: versions, thresholds, delegations, expiries, and who signed what. Equal keys stay equal, different
//! ones different, so that devices see the same rotations.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::key::{Key, KeyId};
use tidegate_tuf::path::metadata_file;

use crate::error::{Error, Result};
use crate::metadata::assemble;

/// Stand-ins for keys, made from their ids.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    keys: BTreeMap<KeyId, SigningKey>,
}

impl Shadow {
    fn stand_in(&mut self, id: &KeyId) -> (KeyId, Key) {
        let secret = self.keys.entry(id.clone()).or_insert_with(|| {
            let seed = Sha256::new().chain_update(b"tidegate/rehearsal/1\0").chain_update(id.as_str()).finalize();
            SigningKey::from_bytes(&seed.into())
        });
        let key = Key::ed25519(secret.verifying_key().as_bytes());
        (key.id(), key)
    }

    /// A `signed` part with every key replaced.
    pub(super) fn translate(&mut self, signed: &Value) -> Value {
        let mut signed = signed.clone();
        for holder in ["/keys", "/delegations/keys"] {
            if let Some(keys) = signed.pointer_mut(holder).and_then(Value::as_object_mut) {
                let replaced: Map<String, Value> = keys
                    .keys()
                    .map(|id| self.stand_in(&KeyId::new(id.as_str())))
                    .map(|(id, key)| (id.as_str().to_owned(), key.to_value()))
                    .collect();
                *keys = replaced;
            }
        }
        let roles = signed
            .pointer_mut("/roles")
            .and_then(Value::as_object_mut)
            .into_iter()
            .flat_map(|roles| roles.values_mut());
        for role in roles {
            self.translate_ids(role);
        }
        let roles = signed.pointer_mut("/delegations/roles").and_then(Value::as_array_mut).into_iter().flatten();
        for role in roles {
            self.translate_ids(role);
        }
        signed
    }

    fn translate_ids(&mut self, role: &mut Value) {
        if let Some(ids) = role.get_mut("keyids").and_then(Value::as_array_mut) {
            for id in ids {
                if let Some(text) = id.as_str() {
                    let (stand_in, _) = self.stand_in(&KeyId::new(text));
                    *id = stand_in.as_str().into();
                }
            }
        }
    }

    /// The file of a translated `signed` part, signed by the stand-ins of `signers`.
    pub(super) fn file(&mut self, signed: &Value, signers: &BTreeSet<KeyId>) -> Result<Vec<u8>> {
        let bytes = tidegate_tuf::json::canonical(signed)
            .map_err(|e| Error::bug("metadata cannot be written").with_source(e))?;
        let mut signatures = BTreeMap::new();
        for signer in signers {
            let (id, _) = self.stand_in(signer);
            if let Some(secret) = self.keys.get(signer) {
                signatures.insert(id, to_hex(&secret.sign(&bytes).to_bytes()));
            }
        }
        assemble(signed, &signatures)
    }

    /// The shadow of a whole file: its `signed` part translated, signed by the stand-ins of whoever signed it.
    pub(super) fn shadow(&mut self, role: &str, bytes: &[u8], signers: &BTreeSet<KeyId>) -> Result<(Value, Vec<u8>)> {
        let signed = signed_part(role, bytes)?;
        let translated = self.translate(&signed);
        let file = self.file(&translated, signers)?;
        Ok((translated, file))
    }
}

/// The `signed` part of a file.
pub(super) fn signed_part(role: &str, bytes: &[u8]) -> Result<Value> {
    let file = tidegate_tuf::json::parse_large(bytes, usize::MAX).map_err(|e| Error::bug(format!("{role}: {e}")))?;
    file.get("signed").cloned().ok_or_else(|| Error::bug(format!("{role} has no signed part")))
}

/// Files of a simulated repository by their names in the metadata folder.
#[derive(Debug, Default, Clone)]
pub(super) struct Files(pub(super) BTreeMap<String, Vec<u8>>);

impl Files {
    pub(super) fn put(&mut self, role: &str, version: u64, bytes: Vec<u8>) -> String {
        let name = metadata_file(role, (role != "timestamp").then_some(version));
        self.0.insert(name.clone(), bytes);
        name
    }
}

/// Lists a role's file in a snapshot (or the snapshot in a timestamp): hash and length as far as they were listed before, or `always`.
pub(super) fn list(signed: &mut Value, role: &str, version: u64, bytes: &[u8], always: bool) {
    let Some(meta) = signed.get_mut("meta").and_then(Value::as_object_mut) else { return };
    let entry = meta.entry(format!("{role}.json")).or_insert_with(|| json!({}));
    let hashed = always || entry.get("hashes").is_some() || entry.get("length").is_some();
    *entry = if hashed {
        json!({"version": version, "length": bytes.len(), "hashes": {"sha256": to_hex(&Sha256::digest(bytes))}})
    } else {
        json!({"version": version})
    };
}

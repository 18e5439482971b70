//! Counting signatures towards a threshold (TUF 5.3.4 and its like).

use alloc::collections::{BTreeMap, BTreeSet};

use super::error::Error;
use super::fields::quoted;
use super::hash::from_hex;
use super::key::{Key, KeyId};
use super::metadata::{Delegations, Envelope, Role, Root};
use crate::prelude::*;

/// A delegating role: it declares the keys and thresholds of others.
pub(super) struct Delegator<'a> {
    /// Its name, for errors.
    pub(super) name: &'a str,
    keys: &'a BTreeMap<KeyId, Key>,
}

impl<'a> Delegator<'a> {
    pub(super) fn root(root: &'a Root) -> Self {
        Self { name: "root", keys: root.keys() }
    }

    pub(super) fn targets(name: &'a str, delegations: &'a Delegations) -> Self {
        Self { name, keys: delegations.keys() }
    }

    /// Checks that a threshold of `role`'s keys signed `envelope`.
    ///
    /// At most one signature counts for a key id, and at most one for the same key material under several ids. A
    /// signature by another key, in an unknown scheme, or that does not verify is ignored: the number of valid signatures
    /// decides.
    pub(super) fn verify(
        &self,
        role_name: &str,
        role: &Role,
        envelope: &Envelope,
        clause: &'static str,
    ) -> Result<(), Error> {
        let valid = valid_signers(self.keys, role, envelope).len();
        if valid as u64 >= role.threshold {
            return Ok(());
        }
        let mut unknown = String::new();
        let signed = envelope.signatures().iter().filter(|signature| role.keyids.contains(&signature.keyid));
        for (id, key) in signed.filter_map(|signature| self.keys.get_key_value(&signature.keyid)) {
            if key.decode().is_none() {
                let lead = if unknown.is_empty() { "; not supported: " } else { ", " };
                for part in [lead, "key ", id.short(), " of scheme ", &quoted(key.scheme())] {
                    unknown.push_str(part);
                }
                if !cfg!(feature = "rsa") && key.keytype() == "rsa" {
                    unknown.push_str(", which this build lacks (feature rsa)");
                }
            }
        }
        Err(Error::Threshold {
            role: role_name.to_owned(),
            delegator: self.name.to_owned(),
            valid,
            threshold: role.threshold,
            unknown,
            clause,
        })
    }
}

/// The key ids of `role` whose signatures on `envelope` verify, each key's material counted once.
///
/// `keys` are the delegating role's declared keys. The result is at least `role.threshold` long if and only if the role is validly signed.
pub fn valid_signers(keys: &BTreeMap<KeyId, Key>, role: &Role, envelope: &Envelope) -> Vec<KeyId> {
    let mut materials = BTreeSet::new();
    let signed = envelope.signed_bytes();
    envelope
        .signatures()
        .iter()
        .filter(|signature| role.keyids.contains(&signature.keyid))
        .filter(|signature| {
            let key = keys.get(&signature.keyid).and_then(Key::decode);
            let bytes = from_hex(&signature.sig);
            match (key, bytes) {
                (Some(key), Some(bytes)) => key.verify(signed, &bytes) && materials.insert(key.fingerprint()),
                _ => false,
            }
        })
        .map(|signature| signature.keyid.clone())
        .collect()
}

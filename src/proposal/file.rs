//! The file format of proposals.
//!
//! A proposal contains everything that a signer needs on a machine with only this program: the complete next version of every
//! changed role, the roots and roles that these are based on, and the signatures so far. It has one byte-exact form: an altered
//! file is either invalid or a different proposal.
//!
//! Nothing in a proposal is trusted: [`verify`](fn@super::verify) checks all of it from a root that the signer already has.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;
use tidegate_model::digest::Digest;
use tidegate_model::time;
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::json as strict;
use tidegate_tuf::key::KeyId;

use crate::error::{Error, Result, Rule};
use crate::keys::KeyName;

/// The file's type.
const FORMAT: &str = "tidegate-proposal";
/// Maximum length: a proposal contains whole metadata files.
pub const MAX_LENGTH: u64 = 64 << 20;

/// Bytes that the content of a proposal or transcript of this length may take while it is read. Small objects, such as the entries of targets, take ten times their length.
pub(super) const fn room(length: usize) -> usize {
    (4 << 20) + 16 * length
}
const MAX_ROOTS: usize = 1024;
const MAX_ROLES: usize = 4096;
const MAX_SIGNATURES: usize = 256;
const MAX_FILES: usize = 64;
const MAX_TEXT: usize = 200;
const MAX_SIGNATURE: usize = 2048;

/// The subject of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Keys, thresholds, delegations: root, targets, and the channels where they declare keys.
    Ceremony,
    /// A channel's release.
    Release,
}

/// A change that awaits a threshold of signatures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    format: String,
    schema: u64,
    /// Its kind.
    pub kind: Kind,
    /// A name for people: `root 2`, or the release as `CHANNEL/PRODUCT/VERSION`.
    pub subject: String,
    /// When it was proposed; also the time of issue of every role in it.
    #[serde(with = "time::text")]
    pub proposed: DateTime<Utc>,
    /// The reason given by the proposer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it is based on.
    pub follows: Follows,
    /// The next version of every role that changes, root first, then targets, then channels.
    pub changes: Vec<Change>,
    /// The display names of the keys. Only the proposal vouches for them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<KeyId, String>,
    /// The cohort maps and manifests that a change lists, as they are in force and as they are proposed, by their SHA-256: what people look
    /// at before they sign. Not in the digest: what is listed is listed by hash, and what did not come along is refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<Digest, Value>,
    /// Signatures so far: role to key id to signature.
    pub signatures: BTreeMap<String, BTreeMap<KeyId, Signature>>,
}

/// The trusted metadata that a proposal is based on, as whole files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Follows {
    /// The root from which they are verified, where older ones of a repository that was taken over cannot be.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub from: u64,
    /// Every root, from version 1 to the one in force.
    pub roots: Vec<String>,
    /// The versions in force of the other roles needed to check the change, each after the one that delegates to it.
    pub roles: Vec<RoleText>,
}

const fn one() -> u64 {
    1
}

// The signature is serde's.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_one(version: &u64) -> bool {
    *version == 1
}

/// A role's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleText {
    /// The role.
    pub role: String,
    /// The file, byte for byte.
    pub file: String,
}

/// The next version of a role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The role.
    pub role: String,
    /// Its `signed` part: what is signed, in canonical form.
    pub signed: Value,
}

/// One signature, and how the signer's program says it was made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// In lower-case hex.
    pub sig: String,
    /// The kind of key: `file`, `pkcs11`, `command`, `kms`, or `outside` for a signature by another program.
    pub source: String,
    /// When, by the signer's clock.
    #[serde(with = "time::text")]
    pub time: DateTime<Utc>,
    /// The signer's program: name, version, and its own SHA-256.
    pub tool: String,
}

impl Proposal {
    /// A proposal without signatures.
    pub fn new(kind: Kind, subject: String, proposed: DateTime<Utc>, follows: Follows, changes: Vec<Change>) -> Self {
        Self {
            format: FORMAT.into(),
            schema: 1,
            kind,
            subject,
            proposed,
            reason: None,
            follows,
            changes,
            names: BTreeMap::new(),
            files: BTreeMap::new(),
            signatures: BTreeMap::new(),
        }
    }

    /// Reads a proposal; `name` is the file's name in errors.
    ///
    /// # Errors
    ///
    /// `C-FORMAT` if the bytes are not exactly what this program would write for the proposal.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        let bad = |why: String| {
            Error::input(format!("{name} is not a proposal: {why}"))
                .rule(Rule::CeremonyFormat)
                .remedy("get the file again from its sender; a proposal that was edited or damaged must not be used")
        };
        if bytes.len() as u64 > MAX_LENGTH {
            return Err(bad(format!("it is longer than {MAX_LENGTH} bytes")));
        }
        let value = strict::parse_large(bytes, room(bytes.len())).map_err(|e| bad(e.to_string()))?;
        if let Some(schema) = value.get("schema").filter(|_| value.get("format") == Some(&FORMAT.into()))
            && *schema != json!(1)
        {
            return Err(bad(format!("its schema is {schema}; this version knows 1")).remedy("use a newer tidegate"));
        }
        let proposal: Self = serde_json::from_value(value).map_err(|e| bad(e.to_string()))?;
        proposal.check().map_err(bad)?;
        // Last, since a proposal that means something else is the better reason.
        if proposal.to_bytes()? != bytes {
            return Err(bad("it was altered: it is not what this program writes".into()));
        }
        Ok(proposal)
    }

    fn check(&self) -> Result<(), String> {
        let bound = |what: &str, count: usize, most: usize| {
            if count > most { Err(format!("it has {count} {what}; at most {most} are allowed")) } else { Ok(()) }
        };
        if self.format != FORMAT || self.schema != 1 {
            return Err(format!("its format is {:?} {}, not {FORMAT:?} 1", self.format, self.schema));
        }
        bound("roots", self.follows.roots.len(), MAX_ROOTS)?;
        bound("roles", self.follows.roles.len() + self.changes.len(), MAX_ROLES)?;
        bound("signatures", self.signatures.values().map(BTreeMap::len).sum(), MAX_SIGNATURES)?;
        bound("names", self.names.len(), MAX_ROLES)?;
        bound("files", self.files.len(), MAX_FILES)?;
        for (sha256, content) in &self.files {
            let bytes = strict::canonical(content).map_err(|e| format!("a file in it is not canonical JSON: {e}"))?;
            if Digest::of(&bytes) != *sha256 {
                return Err(format!("the file stored as {sha256} has another hash"));
            }
        }
        // A name with a comma could pass for a name and a holder.
        for name in self.names.values() {
            KeyName::try_from(name.clone())?;
        }
        let texts = [&self.subject].into_iter().chain(&self.reason);
        let entries = || self.signatures.values().flatten();
        let details = entries().flat_map(|(id, entry)| [id.as_str(), &entry.source, &entry.tool]);
        for text in texts.map(String::as_str).chain(details) {
            plain(text)?;
        }
        for (_, entry) in entries() {
            let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
            if entry.sig.len() > MAX_SIGNATURE || !entry.sig.bytes().all(hex) {
                return Err("a signature is not in lower-case hex".into());
            }
        }
        if self.changes.is_empty() {
            return Err("it changes nothing".into());
        }
        for (at, change) in self.changes.iter().enumerate() {
            if self.changes.iter().take(at).any(|other| other.role == change.role) {
                return Err(format!("it changes {} twice", change.role));
            }
        }
        if let Some(role) = self.signatures.keys().find(|role| self.change(role).is_none()) {
            return Err(format!("it has signatures for {role}, which it does not change"));
        }
        Ok(())
    }

    /// The file's bytes: sorted JSON without spaces, and a newline.
    ///
    /// # Errors
    ///
    /// Fails if the proposal cannot be serialized.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let value =
            serde_json::to_value(self).map_err(|e| Error::bug("a proposal cannot be written").with_source(e))?;
        let mut bytes = crate::metadata::to_json(&value)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// What identifies the proposal whatever signatures it has: the SHA-256 of all that is signed and all that it follows from.
    ///
    /// Signers compare its first digits over the phone.
    ///
    /// # Errors
    ///
    /// Fails if the proposal cannot be serialized.
    pub fn digest(&self) -> Result<String> {
        let value = json!({
            "changes": self.changes,
            "follows": self.follows,
            "kind": self.kind,
            "proposed": time::format(self.proposed),
            "subject": self.subject,
        });
        let bytes = strict::canonical(&value).map_err(|e| Error::bug("a proposal cannot be written").with_source(e))?;
        Ok(to_hex(&<Sha256 as sha2::Digest>::digest(bytes)))
    }

    /// The change of a role.
    pub fn change(&self, role: &str) -> Option<&Change> {
        self.changes.iter().find(|change| change.role == role)
    }

    /// The bytes that a role's signatures cover.
    ///
    /// # Errors
    ///
    /// Fails if the proposal does not change the role.
    pub fn signed_bytes(&self, role: &str) -> Result<Vec<u8>> {
        let change = self.change(role).ok_or_else(|| {
            let roles: Vec<_> = self.changes.iter().map(|change| change.role.as_str()).collect();
            Error::input(format!("the proposal does not change {role}"))
                .remedy(format!("it changes: {}", roles.join(", ")))
        })?;
        strict::canonical(&change.signed).map_err(|e| Error::input(format!("{role} cannot be signed")).with_source(e))
    }

    /// The role's file with the signatures so far.
    ///
    /// # Errors
    ///
    /// Fails if the proposal does not change the role.
    pub fn file(&self, role: &str) -> Result<Vec<u8>> {
        let change = self.change(role).ok_or_else(|| Error::bug(format!("the proposal does not change {role}")))?;
        let none = BTreeMap::new();
        let signatures = self.signatures.get(role).unwrap_or(&none);
        let signatures = signatures.iter().map(|(id, entry)| (id.clone(), entry.sig.clone())).collect();
        crate::metadata::assemble(&change.signed, &signatures)
    }

    /// What people call a key: its name, else the start of its id.
    pub fn label(&self, id: &KeyId) -> String {
        self.names.get(id).cloned().unwrap_or_else(|| id.short().to_owned())
    }

    /// Adds a signature. Of two by one key the one that sorts first stays, so that the order of combining does not matter.
    pub fn add(&mut self, role: &str, id: KeyId, signature: Signature) {
        let signatures = self.signatures.entry(role.to_owned()).or_default();
        match signatures.get(&id) {
            Some(old) if *old <= signature => {}
            _ => {
                signatures.insert(id, signature);
            }
        }
    }
}

/// Checks a text for display.
///
/// # Errors
///
/// Fails if the text is not one line, or could mislead on a terminal.
fn plain(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > MAX_TEXT || !text.bytes().all(|c| (b' '..=b'~').contains(&c)) {
        return Err(format!(
            "{:?} is not 1 to {MAX_TEXT} printable ASCII characters",
            text.chars().take(40).collect::<String>()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_objects_in_great_number_are_refused_before_they_take_memory() {
        let objects = |each: &str| format!("{{\"files\":[{}0]}}", each.repeat(40_000)).into_bytes();
        let error = Proposal::parse("hostile.json", &objects("{\"\":0},")).unwrap_err();
        assert!(error.to_string().contains("too much memory"), "{error}");
        let entry = format!(
            "{{\"hashes\":{{\"sha256\":\"{}\"}},\"length\":612,\"name\":\"releases/os/1.0.0.json\"}},",
            "a".repeat(64)
        );
        let error = Proposal::parse("large.json", &objects(&entry)).unwrap_err();
        assert!(!error.to_string().contains("memory"), "{error}");
    }
}

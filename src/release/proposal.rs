//! A change that waits for a threshold of signatures: `proposals/NAME.json`.
//!
//! A proposal holds the complete next version of a role, the version it follows from, and the signatures so far. Signing in parallel and
//! combining in any order gives the same bytes, since signatures are kept by key id.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_client::model::digest::Digest;
use tidegate_client::model::layout;
use tidegate_client::model::manifest::Manifest;
use tidegate_client::model::time;
use tidegate_client::tuf::hash::to_hex;
use tidegate_client::tuf::key::KeyId;
use tidegate_client::tuf::metadata::Envelope;
use tidegate_client::tuf::valid_signers;

use super::record::{MAX_LENGTH, ReleaseId, from_file, to_file};
use crate::config::Span;
use crate::error::{Error, Result};
use crate::files::{self, Changes};
use crate::keys::Signer;
use crate::metadata::{Document, Repository, assemble};

/// Where proposals are.
pub const DIR: &str = "proposals";

/// A change that waits for signatures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// The form of the file: 1.
    pub schema: u64,
    /// What it is for: `release`.
    pub kind: String,
    /// The release, as `CHANNEL/PRODUCT/VERSION`.
    pub release: String,
    /// The role to be changed.
    pub role: String,
    /// The version of the role that this follows from.
    pub base_version: u64,
    /// SHA-256 of that version's file.
    pub base_sha256: Digest,
    /// When it was proposed.
    #[serde(with = "time::text")]
    pub proposed: DateTime<Utc>,
    /// The role's next version: what is signed.
    pub signed: Value,
    /// Signatures in hex, by key id.
    pub signatures: BTreeMap<KeyId, String>,
}

impl Proposal {
    /// Proposes that the channel's role lists a release.
    pub fn release(
        id: &ReleaseId,
        manifest: &Manifest,
        manifest_bytes: &[u8],
        repository: &Repository,
        lifetime: Span,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let role = layout::channel_role(&id.channel);
        let base = repository.must_have(&role)?;
        let signed = next_version(&base.document, base.version, id, manifest, manifest_bytes, lifetime, now);
        Ok(Self {
            schema: 1,
            kind: "release".into(),
            release: id.to_string(),
            role,
            base_version: base.version,
            base_sha256: Digest::of(&base.bytes),
            proposed: now,
            signed: signed.to_value(),
            signatures: BTreeMap::new(),
        })
    }

    /// The file of a release's proposal.
    pub fn file(id: &ReleaseId) -> String {
        format!("{DIR}/{}-{}-{}.json", id.channel, id.product, id.version)
    }

    /// Reads a release's proposal, if there is one.
    pub fn load(dir: &Path, id: &ReleaseId) -> Result<Option<Self>> {
        let name = Self::file(id);
        let Some(bytes) = files::read_if_exists(&files::confined(dir, &name)?, MAX_LENGTH)? else { return Ok(None) };
        let proposal: Self = from_file(&name, &bytes)?;
        if proposal.release != id.to_string() {
            return Err(Error::input(format!("{name} is a proposal for {}", proposal.release))
                .remedy(format!("propose it anew: tidegate release manifest {id}")));
        }
        Ok(Some(proposal))
    }

    /// Writes the proposal with the other changes.
    pub fn put(&self, id: &ReleaseId, changes: &mut Changes) -> Result<()> {
        changes.put(Self::file(id), to_file(self)?);
        Ok(())
    }

    /// Whether the role is still as it was when this was proposed.
    pub fn follows(&self, repository: &Repository) -> bool {
        repository
            .role(&self.role)
            .is_some_and(|base| base.version == self.base_version && Digest::of(&base.bytes) == self.base_sha256)
    }

    /// Errs unless this proposes exactly that the release with this manifest is listed, and nothing else: whoever signs must not have to
    /// take the file's word for it.
    pub fn check(
        &self,
        id: &ReleaseId,
        manifest: &Manifest,
        manifest_bytes: &[u8],
        repository: &Repository,
        lifetime: Span,
    ) -> Result<()> {
        let base = repository.must_have(&self.role)?;
        let expected =
            next_version(&base.document, base.version, id, manifest, manifest_bytes, lifetime, self.proposed);
        if expected.to_value() == self.signed && self.role == layout::channel_role(&id.channel) {
            return Ok(());
        }
        Err(Error::trust(format!("{} proposes something else than listing {id}", Self::file(id)))
            .rule("R-PROPOSAL")
            .remedy(format!("do not sign it; propose it anew: tidegate release manifest {id}")))
    }

    /// The file that the role becomes with the signatures so far.
    pub fn assemble(&self) -> Result<Vec<u8>> {
        assemble(&self.signed, &self.signatures)
    }

    /// Adds a signature. Errs when the key has no say in the role.
    pub fn sign(&mut self, signer: &dyn Signer, repository: &Repository) -> Result<()> {
        let id = signer.public().id();
        let (_, role) = repository.keys_of(&self.role).ok_or_else(|| Error::bug("a role without keys"))?;
        if !role.keyids.contains(&id) {
            let ids: Vec<_> = role.keyids.iter().map(KeyId::short).collect();
            return Err(Error::refused(format!("the key {} does not speak for the role {}", id.short(), self.role))
                .rule("R-KEY")
                .remedy(format!("sign with one of its keys: {}", ids.join(", "))));
        }
        let envelope = self.envelope()?;
        let signature = signer.sign(envelope.signed_bytes())?;
        self.signatures.insert(id, to_hex(&signature));
        Ok(())
    }

    /// The keys whose signatures are valid, and how many it takes.
    pub fn signers(&self, repository: &Repository) -> Result<(Vec<KeyId>, u64)> {
        let Some((keys, role)) = repository.keys_of(&self.role) else { return Ok((Vec::new(), u64::MAX)) };
        Ok((valid_signers(keys, role, &self.envelope()?), role.threshold))
    }

    fn envelope(&self) -> Result<Envelope> {
        Envelope::parse(&self.role, &self.assemble()?)
            .map_err(|e| Error::input(format!("the proposal for {} is malformed", self.release)).with_source(e))
    }
}

fn next_version(
    base: &Document,
    base_version: u64,
    id: &ReleaseId,
    manifest: &Manifest,
    manifest_bytes: &[u8],
    lifetime: Span,
    proposed: DateTime<Utc>,
) -> Document {
    let mut document = base.clone();
    let path = layout::manifest_path(&id.channel, &id.product, &id.version);
    document.set_target(&path, manifest_bytes.len() as u64, Digest::of(manifest_bytes).as_bytes(), None);
    for artifact in &manifest.artifacts {
        document.set_target(&artifact.path, artifact.length, artifact.sha256.as_bytes(), None);
    }
    document.issue(base_version + 1, proposed, proposed + lifetime.delta());
    document
}

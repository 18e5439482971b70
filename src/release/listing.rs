//! A release that awaits signatures: `proposals/NAME.json`.
//!
//! The file is a [`Proposal`], as in ceremonies: it can be shown, signed and combined on any machine with `tidegate ceremony`,
//! from a root that the signer trusts. It is completed with `tidegate release register`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chrono::{DateTime, Utc};
use tidegate_model::digest::Digest;
use tidegate_model::layout;
use tidegate_model::manifest::Manifest;
use tidegate_model::span::Span;
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::key::KeyId;
use tidegate_tuf::metadata::Envelope;
use tidegate_tuf::valid_signers;

use super::record::ReleaseId;
use crate::error::{Error, Result, Rule};
use crate::fs::{self, Changes};
use crate::keys::Signer;
use crate::metadata::{Document, Repository};
use crate::proposal::{self, Change, Kind, Proposal, Signature};

/// The folder of proposals.
pub const DIR: &str = "proposals";

/// The proposal files of the workspace `dir`, sorted by name.
///
/// # Errors
///
/// Fails if the folder cannot be read.
pub fn files(dir: &Path) -> Result<Vec<String>> {
    let folder = dir.join(DIR);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", &folder, e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(|e| Error::io("read", &folder, e))?.file_name().to_string_lossy().into_owned();
        if Path::new(&name).extension().is_some_and(|extension| extension == "json") {
            found.push(format!("{DIR}/{name}"));
        }
    }
    found.sort();
    Ok(found)
}

/// A release that awaits signatures.
#[derive(Debug, Clone, PartialEq)]
pub struct ReleaseProposal {
    /// The role to change.
    pub role: String,
    /// The version of the role that this is based on.
    pub base_version: u64,
    proposal: Proposal,
}

impl ReleaseProposal {
    /// Proposes that the channel's role lists a release.
    ///
    /// # Errors
    ///
    /// Fails if the repository lacks the channel's role.
    pub fn release(
        id: &ReleaseId,
        manifest: &Manifest,
        manifest_bytes: &[u8],
        repository: &Repository,
        lifetime: Span,
        names: BTreeMap<KeyId, String>,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let role = layout::channel_role(&id.channel);
        let base = repository.must_have(&role)?;
        let signed = next_version(&base.document, base.version, id, manifest, manifest_bytes, lifetime, now).to_value();
        let follows = proposal::follows(repository, std::slice::from_ref(&role))?;
        let changes = vec![Change { role: role.clone(), signed }];
        let mut proposal = Proposal::new(Kind::Release, id.to_string(), now, follows, changes);
        proposal.names = names;
        Ok(Self { role, base_version: base.version, proposal })
    }

    /// Has the content of a manifest come along, for those who sign elsewhere.
    ///
    /// # Errors
    ///
    /// Fails if it is not JSON.
    pub fn attach(&mut self, manifest: &[u8]) -> Result<()> {
        let content = tidegate_tuf::json::parse(manifest).map_err(|e| Error::bug("a manifest").with_source(e))?;
        self.proposal.files.insert(Digest::of(manifest), content);
        Ok(())
    }

    /// The file of a release's proposal.
    pub fn file(id: &ReleaseId) -> String {
        format!("{DIR}/{}-{}-{}.json", id.channel, id.product, id.version)
    }

    /// Reads a release's proposal, if there is one.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is malformed, or proposes something else.
    pub fn load(dir: &Path, id: &ReleaseId) -> Result<Option<Self>> {
        let name = Self::file(id);
        let path = fs::confined(dir, &name)?;
        let Some(bytes) = fs::read_if_exists(&path, proposal::MAX_LENGTH)? else { return Ok(None) };
        let proposal = Proposal::parse(&name, &bytes)?;
        let role = layout::channel_role(&id.channel);
        let [change] = proposal.changes.as_slice() else { return Err(another(&name, &proposal, id)) };
        if proposal.kind != Kind::Release || proposal.subject != id.to_string() || change.role != role {
            return Err(another(&name, &proposal, id));
        }
        let version = change.signed.get("version").and_then(serde_json::Value::as_u64).unwrap_or_default();
        Ok(Some(Self { role, base_version: version.saturating_sub(1), proposal }))
    }

    /// Adds the proposal to `changes`.
    ///
    /// # Errors
    ///
    /// Fails if the proposal cannot be serialized.
    pub fn put(&self, id: &ReleaseId, changes: &mut Changes) -> Result<()> {
        changes.put(Self::file(id), self.proposal.to_bytes()?);
        Ok(())
    }

    /// Whether the role is unchanged since this was proposed.
    pub fn follows(&self, repository: &Repository) -> bool {
        let base = self.proposal.follows.roles.iter().find(|text| text.role == self.role);
        repository.role(&self.role).zip(base).is_some_and(|(live, base)| live.bytes == base.file.as_bytes())
    }

    /// Checks that this proposes to list exactly the release with this manifest, and nothing else, so that signers need not trust
    /// the file.
    ///
    /// # Errors
    ///
    /// `R-PROPOSAL` if it proposes anything else.
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
            next_version(&base.document, base.version, id, manifest, manifest_bytes, lifetime, self.proposal.proposed);
        if self.proposal.change(&self.role).is_some_and(|change| change.signed == expected.to_value()) {
            return Ok(());
        }
        Err(Error::trust(format!("{} proposes something else than listing {id}", Self::file(id)))
            .rule(Rule::ReleaseProposal)
            .remedy(format!("do not sign it; propose it anew: tidegate release manifest {id}")))
    }

    /// Refuses what those who sign elsewhere are refused, too.
    ///
    /// # Errors
    ///
    /// `C-UNSEEN` or `C-CLIENT` if the proposal, or the manifest that came along, brings what is refused by default.
    pub fn refuse_unseen(&self, id: &ReleaseId, repository: &Repository) -> Result<()> {
        let verified = proposal::verify(&self.proposal, Some(repository.anchor()?))?;
        let allowed = proposal::objections(&self.proposal, &verified).refuse(&BTreeSet::new());
        let remedy = || {
            format!(
                "propose it anew: tidegate release manifest {id}; or, if every signer knows and wants this: tidegate ceremony sign {} --allow NAME",
                Self::file(id)
            )
        };
        allowed.map(drop).map_err(|e| e.remedy(remedy()))
    }

    /// The role file with the signatures so far.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be serialized.
    pub fn assemble(&self) -> Result<Vec<u8>> {
        self.proposal.file(&self.role)
    }

    /// Adds a signature, made at `now` by a key of the kind `source`.
    ///
    /// # Errors
    ///
    /// Fails if the role does not list the key, or if the key cannot sign.
    pub fn sign(
        &mut self,
        signer: &dyn Signer,
        source: &str,
        repository: &Repository,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let id = signer.public().id();
        let (_, role) = repository.keys_of(&self.role).ok_or_else(|| Error::bug("a role without keys"))?;
        if !role.keyids.contains(&id) {
            let ids: Vec<_> = role.keyids.iter().map(KeyId::short).collect();
            return Err(Error::refused(
                Rule::ReleaseKey,
                format!("the key {} is not a key of the role {}", id.short(), self.role),
            )
            .remedy(format!("sign with one of its keys: {}", ids.join(", "))));
        }
        let sig = to_hex(&signer.sign(&self.proposal.signed_bytes(&self.role)?)?);
        let tool = concat!("tidegate ", env!("CARGO_PKG_VERSION")).to_owned();
        self.proposal.add(&self.role, id, Signature { sig, source: source.to_owned(), time: now, tool });
        Ok(())
    }

    /// Adds the signatures of copies that were signed elsewhere. If one is not a copy of this proposal, adds none.
    ///
    /// # Errors
    ///
    /// Fails if one of the files is not a copy of this proposal, or has an invalid signature.
    pub fn combine(&mut self, copies: &[(String, Proposal)], repository: &Repository) -> Result<()> {
        if !copies.is_empty() {
            self.proposal = proposal::combine(&self.proposal, copies, Some(repository.anchor()?))?;
        }
        Ok(())
    }

    /// The number of signatures, valid or not.
    pub fn signature_count(&self) -> u64 {
        self.proposal.signatures.get(&self.role).map_or(0, |by| by.len() as u64)
    }

    /// The keys whose signatures are valid, and the threshold.
    ///
    /// # Errors
    ///
    /// Fails if the proposal is malformed.
    pub fn signers(&self, repository: &Repository) -> Result<(Vec<KeyId>, u64)> {
        let Some((keys, role)) = repository.keys_of(&self.role) else { return Ok((Vec::new(), u64::MAX)) };
        let file = self.assemble()?;
        let envelope = Envelope::parse(&self.role, &file).map_err(|e| {
            Error::input(format!("the proposal for {} is malformed", self.proposal.subject)).with_source(e)
        })?;
        Ok((valid_signers(keys, role, &envelope), role.threshold))
    }
}

fn another(name: &str, proposal: &Proposal, id: &ReleaseId) -> Error {
    Error::input(format!("{name} is a proposal for {}", proposal.subject))
        .remedy(format!("propose it anew: tidegate release manifest {id}"))
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

//! The middle stages of a release's life: signing and registration.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use tidegate_model::digest::Digest;
use tidegate_tuf::key::KeyId;

use super::draft::write_down;
use super::listing::ReleaseProposal;
use super::record::{Record, ReleaseSpec};
use super::{approval, report};
use crate::error::{Error, Result, Rule, chain};
use crate::fs::Changes;
use crate::keys::KeyRing;
use crate::metadata::{Edit, Repository};
use crate::policy::{Facts, ReleaseEvent};
use crate::proposal::Proposal;
use crate::workspace::artifacts::{self, Stored};
use crate::workspace::ledger::Entry;
use crate::workspace::{Ledger, Operation, Workspace};

/// The signatures of a release so far.
#[derive(Debug)]
pub struct Signed {
    /// The record.
    pub record: Record,
    /// The keys that have signed.
    pub signers: Vec<KeyId>,
    /// The keys that have not.
    pub missing: Vec<KeyId>,
    /// The threshold.
    pub threshold: u64,
    /// The keys that signed now, by name.
    pub used: Vec<String>,
    /// The keys that could not be used here, and why.
    pub unusable: Vec<Unusable>,
}

/// A key that cannot be used here, and why.
pub type Unusable = (String, String);

/// Adds the signatures of the keys `names`, and those of copies that were signed elsewhere, to a release's proposal. With neither, signs
/// with every key of the role that can be used here.
///
/// # Errors
///
/// Fails if the release cannot be signed in its state, if the proposal is missing or proposes something else, or if a key is not
/// one of the role's or cannot sign. `K-MISSING` if no key is named and none can be used here.
pub fn sign(
    op: &mut Operation<'_>,
    spec: &ReleaseSpec,
    names: &[String],
    copies: &[(String, Proposal)],
) -> Result<Signed> {
    let (workspace, now) = (op.workspace, op.now);
    let mut record = spec.find(workspace.dir())?;
    let repository = workspace.repository()?;
    let policy = workspace.policy()?;
    let mut changes = Changes::default();
    let id = record.id();
    let loaded = ReleaseProposal::load(workspace.dir(), &id)?;
    let mut facts = facts(&record, loaded.as_ref(), &repository)?;
    // Refused before a passphrase is requested.
    record.after(ReleaseEvent::Sign, &facts, &policy, now)?;
    let mut proposal = loaded.ok_or_else(|| missing_proposal(&record))?;
    let bytes = check(workspace, &record, &proposal, &repository)?;
    let (used, unusable) = if names.is_empty() && copies.is_empty() {
        usable(&record, &proposal, &repository, op.keys)?
    } else {
        (names.to_vec(), Vec::new())
    };
    for name in &used {
        check_key(name, &proposal.role, &repository, op.keys)?;
        let source = op.keys.entry(name)?.uri.source();
        proposal.sign(op.keys.signer(name)?.as_ref(), source, &repository, now)?;
    }
    proposal.combine(copies, &repository)?;
    let (signers, threshold) = proposal.signers(&repository)?;
    facts.signatures = signers.len() as u64;
    let before = record.status();
    record.set_status(record.after(ReleaseEvent::Sign, &facts, &policy, now)?);
    record.put(&mut changes)?;
    proposal.put(&id, &mut changes)?;
    let mut evidence = Map::new();
    evidence.insert("manifest".into(), Digest::of(&bytes).to_string().into());
    evidence.insert("signatures".into(), json!(signers.iter().map(KeyId::as_str).collect::<Vec<_>>()));
    evidence.insert("threshold".into(), threshold.into());
    write_down(workspace, &mut changes, now, "sign", &record, Some(before), &used.join(" "), evidence)?;
    workspace.commit(changes)?;
    Ok(Signed { missing: missing(&repository, &proposal.role, &signers), record, signers, threshold, used, unusable })
}

/// Checks that a proposal is what keys should sign. Returns the manifest's bytes.
fn check(
    workspace: &Workspace,
    record: &Record,
    proposal: &ReleaseProposal,
    repository: &Repository,
) -> Result<Vec<u8>> {
    let id = record.id();
    let (manifest, bytes) = record.manifest(workspace.dir())?;
    let lifetime = workspace.settings()?.channel(&id.channel)?.release.expires;
    proposal.check(&id, &manifest, &bytes, repository, lifetime)?;
    proposal.refuse_unseen(&id, repository)?;
    Ok(bytes)
}

/// The keys that have not signed a release, if signatures are accepted now.
///
/// # Errors
///
/// The refusal of [`sign`], but for what concerns single keys.
pub fn awaited(
    workspace: &Workspace,
    record: &Record,
    repository: &Repository,
    now: DateTime<Utc>,
) -> Result<Vec<KeyId>> {
    let loaded = ReleaseProposal::load(workspace.dir(), &record.id())?;
    record.after(ReleaseEvent::Sign, &facts(record, loaded.as_ref(), repository)?, &workspace.policy()?, now)?;
    let proposal = loaded.ok_or_else(|| missing_proposal(record))?;
    check(workspace, record, &proposal, repository)?;
    Ok(missing(repository, &proposal.role, &proposal.signers(repository)?.0))
}

/// The keys that can sign here and have not, and those that cannot, with the reason.
fn usable(
    record: &Record,
    proposal: &ReleaseProposal,
    repository: &Repository,
    keys: &mut KeyRing,
) -> Result<(Vec<String>, Vec<Unusable>)> {
    let (id, file) = (record.id(), ReleaseProposal::file(&record.id()));
    let missing = missing(repository, &proposal.role, &proposal.signers(repository)?.0);
    if missing.is_empty() {
        return Err(Error::refused(
            Rule::ReleaseKey,
            format!("{id}: every key of the role {} has signed", proposal.role),
        )
        .remedy(format!("register it: tidegate release register {id}")));
    }
    let (mut usable, mut unusable) = (Vec::new(), Vec::new());
    for key in &missing {
        let label = keys.label(key);
        let Some(name) = keys.by_id(key).map(|entry| entry.name.clone()) else {
            unusable.push((label, "tidegate.toml does not name it".to_owned()));
            continue;
        };
        match keys.signer(&name) {
            Ok(_) => usable.push(name),
            Err(error) => unusable.push((name, chain(&error))),
        }
    }
    usable.sort();
    if usable.is_empty() {
        let why: Vec<_> = unusable.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        let why = format!("{id}: no key that has not signed can be used here ({})", why.join("; "));
        return Err(Error::refused(Rule::KeyMissing, why).remedy(format!(
            "send {file} to their holders, who sign it (tidegate ceremony sign FILE --key KEY), and add their copies: \
             tidegate release sign {id} --copy FILE"
        )));
    }
    Ok((usable, unusable))
}

/// Registers a signed release in the channel's role, and renews snapshot and timestamp. Returns the roles with a new version.
///
/// # Errors
///
/// Fails if signatures, validation or approvals are missing, if an artifact is missing from the store, or if an online key cannot
/// sign.
pub fn register(op: &mut Operation<'_>, spec: &ReleaseSpec) -> Result<(Record, Vec<String>)> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let mut record = spec.find(workspace.dir())?;
    let repository = workspace.repository()?;
    let id = record.id();
    let loaded = ReleaseProposal::load(workspace.dir(), &id)?;
    let settings = workspace.settings()?;
    let mut facts = facts(&record, loaded.as_ref(), &repository)?;
    facts.report = report::newest(workspace.dir(), &record, &repository)?;
    facts.approvals = approval::given(workspace.dir(), &settings, &record, ReleaseEvent::Register, None)?;
    let before = record.status();
    let after = record.after(ReleaseEvent::Register, &facts, &workspace.policy()?, now)?;
    let proposal = loaded.ok_or_else(|| missing_proposal(&record))?;
    let (manifest, bytes) = record.manifest(workspace.dir())?;
    proposal.check(&id, &manifest, &bytes, &repository, settings.channel(&id.channel)?.release.expires)?;
    // A registered release will be published, so its bytes must be in the store.
    for artifact in &manifest.artifacts {
        artifacts::open(workspace.dir(), Stored { sha256: artifact.sha256, length: artifact.length })?;
    }
    let mut edit = Edit::new(&repository, now, settings.online())?;
    edit.put_signed(&proposal.role, proposal.assemble()?);
    let finished = edit.finish(op.keys)?.ok_or_else(|| Error::bug("a registration that changes nothing"))?;
    let mut changes = finished.changes;
    record.set_status(after);
    record.put(&mut changes)?;
    changes.remove(ReleaseProposal::file(&id));
    let mut evidence = Map::new();
    evidence.insert("manifest".into(), Digest::of(&bytes).to_string().into());
    evidence.insert("role".into(), json!({"name": proposal.role, "version": proposal.base_version + 1}));
    approval::evidence(&facts, &mut evidence);
    write_down(workspace, &mut changes, now, "register", &record, Some(before), actor, evidence)?;
    workspace.commit(changes)?;
    Ok((record, finished.roles))
}

/// The signatures of a release so far; `None` once it is registered.
///
/// # Errors
///
/// Fails if the proposal cannot be read or is malformed.
pub fn signatures_of(workspace: &Workspace, record: &Record, repository: &Repository) -> Result<Option<Signed>> {
    let Some(proposal) = ReleaseProposal::load(workspace.dir(), &record.id())? else { return Ok(None) };
    let (signers, threshold) = proposal.signers(repository)?;
    let missing = missing(repository, &proposal.role, &signers);
    let (used, unusable) = (Vec::new(), Vec::new());
    Ok(Some(Signed { record: record.clone(), signers, missing, threshold, used, unusable }))
}

/// How many signatures a release's manifest has or had: those on its proposal, and those that the ledger tells of, on an earlier
/// proposal of the same manifest.
///
/// # Errors
///
/// Fails if the proposal or the ledger cannot be read.
pub fn signatures_on(workspace: &Workspace, record: &Record) -> Result<u64> {
    let Some(frozen) = &record.manifest else { return Ok(0) };
    let loaded = ReleaseProposal::load(workspace.dir(), &record.id())?;
    let now = loaded.as_ref().map_or(0, ReleaseProposal::signature_count);
    let (id, manifest) = (record.id().to_string(), frozen.sha256.to_string());
    let ledger = Ledger::open(workspace.dir())?;
    let of_this = |entry: &&Entry| {
        entry.event == "sign"
            && entry.subject == id
            && entry.evidence.get("manifest").and_then(Value::as_str) == Some(manifest.as_str())
    };
    let told = ledger.entries().iter().filter(of_this).filter_map(|entry| entry.evidence.get("signatures")?.as_array());
    Ok(told.map(|signatures| signatures.len() as u64).max().unwrap_or(0).max(now))
}

/// Checks a key before it is opened.
///
/// # Errors
///
/// Fails if the role does not list the key.
fn check_key(name: &str, role: &str, repository: &Repository, ring: &KeyRing) -> Result<()> {
    let ids = repository.keys_of(role).map(|(_, role)| role.keyids.clone()).unwrap_or_default();
    if ids.contains(&ring.entry(name)?.public.id()) {
        return Ok(());
    }
    Err(Error::refused(Rule::ReleaseKey, format!("the key {name} is not a key of the role {role}"))
        .remedy(format!("sign with one of its keys: {}", ring.labels(&ids))))
}

fn missing(repository: &Repository, role: &str, signers: &[KeyId]) -> Vec<KeyId> {
    let ids = repository.keys_of(role).map(|(_, role)| role.keyids.clone()).unwrap_or_default();
    ids.into_iter().filter(|id| !signers.contains(id)).collect()
}

fn facts(record: &Record, proposal: Option<&ReleaseProposal>, repository: &Repository) -> Result<Facts> {
    let (signers, threshold) = match proposal {
        Some(proposal) => proposal.signers(repository)?,
        None => (Vec::new(), 0),
    };
    Ok(Facts {
        frozen: record.manifest.is_some(),
        artifacts: record.artifacts.len(),
        urgency: Some(record.urgency.into()),
        signatures: signers.len() as u64,
        threshold,
        follows: proposal.is_some_and(|proposal| proposal.follows(repository)),
        ..Facts::default()
    })
}

fn missing_proposal(record: &Record) -> Error {
    Error::input(format!("{} is missing", ReleaseProposal::file(&record.id())))
        .remedy(format!("propose it anew: tidegate release manifest {}", record.id()))
}

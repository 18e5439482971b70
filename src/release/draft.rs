//! The first stages of a release's life: draft, artifacts, manifest.

use std::collections::BTreeSet;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use tidegate_model::condition::Condition;
use tidegate_model::digest::Digest;
use tidegate_model::manifest::Manifest;
use tidegate_model::name::{ArtifactName, HardwareId, Text};
use tidegate_model::version::VersionRange;

use super::diff::{Difference, diff};
use super::listing::ReleaseProposal;
use super::provenance::{Statement, against_policy, digests};
use super::record::{
    self, ArtifactRecord, MAX_LENGTH, ManifestRecord, ProvenanceRecord, Record, RecordedUrgency, ReleaseSpec,
};
use crate::error::{Error, Result, Rule};
use crate::fs::{self, Changes};
use crate::policy::{Facts, ProvenancePolicy, ReleaseEvent, ReleaseState};
use crate::workspace::ledger::LedgerEvent;
use crate::workspace::{Ledger, Operation, Workspace, artifacts};

/// What a draft starts with.
#[derive(Debug, Clone)]
pub struct NewRelease {
    /// Which release.
    pub spec: ReleaseSpec,
    /// The build's id.
    pub build_id: Text,
    /// The source it was built from.
    pub source: Option<Text>,
    /// An in-toto statement of how it was built.
    pub provenance: Option<std::path::PathBuf>,
    /// How pressing it is.
    pub urgency: RecordedUrgency,
    /// Which devices may have it.
    pub eligibility: Option<Condition>,
    /// From which versions a device may go to it directly.
    pub upgrade_from: Option<VersionRange>,
    /// Sequences it may replace although their version is not lower.
    pub supersedes: BTreeSet<u64>,
    /// Notes for people.
    pub notes: Vec<Text>,
}

/// Creates a draft.
///
/// # Errors
///
/// Fails if the release exists already, if its channel or product is unknown or ambiguous, or if the provenance statement cannot
/// be read.
pub fn new(op: &mut Operation<'_>, new: NewRelease) -> Result<Record> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let dir = workspace.dir();
    let id = new.spec.complete(&workspace.settings()?)?;
    if fs::confined(dir, &id.file("release.json"))?.exists() {
        return Err(Error::refused(Rule::ReleaseExists, format!("{id} exists already"))
            .remedy("a version is used once: choose another one, or go on with this one: tidegate release show"));
    }
    let provenance = new.provenance.as_deref().map(|path| read_provenance(dir, path)).transpose()?;
    let record = Record {
        schema: 1,
        channel: id.channel.clone(),
        product: id.product.clone(),
        version: id.version.clone(),
        state: ReleaseState::Draft,
        paused: false,
        created: now,
        urgency: new.urgency,
        build_id: new.build_id,
        source: new.source,
        provenance,
        artifacts: Vec::new(),
        eligibility: new.eligibility,
        upgrade_from: new.upgrade_from,
        supersedes: new.supersedes,
        retraction: None,
        notes: new.notes,
        manifest: None,
    };
    let mut changes = Changes::default();
    record.put(&mut changes)?;
    let mut evidence = Map::new();
    evidence.insert("build".into(), record.build_id.as_str().into());
    if let Some(provenance) = &record.provenance {
        evidence.insert(
            "provenance".into(),
            json!({
                "sha256": provenance.sha256.to_string(),
                "builder": provenance.builder.as_ref().map(Text::as_str),
            }),
        );
    }
    write_down(workspace, &mut changes, now, "new", &record, None, actor, evidence)?;
    workspace.commit(changes)?;
    Ok(record)
}

/// An artifact to be added.
#[derive(Debug, Clone)]
pub struct NewArtifact<'a> {
    /// The file.
    pub file: &'a Path,
    /// Its name in the repository; that of the file if `None`.
    pub name: Option<ArtifactName>,
    /// The hardware it fits.
    pub hardware: BTreeSet<HardwareId>,
    /// Its media type; guessed from the name if `None`.
    pub media_type: Option<Text>,
    /// Whether it may take the place of an artifact of the same name.
    pub replace: bool,
}

/// Adds an artifact to a draft. `progress` receives the number of bytes of each step.
///
/// # Errors
///
/// Fails if the release is no longer a draft, if the hardware is unknown, if an artifact of that name exists (without `replace`),
/// or if the file cannot be copied into the store.
pub fn add(
    op: &mut Operation<'_>,
    spec: &ReleaseSpec,
    new: &NewArtifact<'_>,
    progress: impl FnMut(u64),
) -> Result<(Record, ArtifactRecord)> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let dir = workspace.dir();
    let settings = workspace.settings()?;
    let mut record = spec.find(dir)?;
    let facts = Facts { frozen: record.manifest.is_some(), ..Facts::default() };
    record.after(ReleaseEvent::Edit, &facts, &workspace.policy()?, now)?;
    let name = match &new.name {
        Some(name) => name.clone(),
        None => name_of(new.file)?,
    };
    if let Some(unknown) = new.hardware.iter().find(|id| !settings.hardware.contains_key(*id)) {
        let known: Vec<_> = settings.hardware.keys().map(AsRef::as_ref).collect();
        return Err(Error::input(format!("unknown hardware '{unknown}' (not in tidegate.toml)"))
            .remedy(format!("add [hardware.{unknown}], or name one of: {}", known.join(", "))));
    }
    if !new.replace && record.artifacts.iter().any(|artifact| artifact.name == name) {
        return Err(Error::refused(Rule::ReleaseArtifacts, format!("{} has an artifact {name} already", record.id()))
            .remedy("give another --name, or --replace"));
    }
    let media_type = match &new.media_type {
        Some(media_type) => media_type.clone(),
        None => guess_media_type(&name)?,
    };
    let stored = artifacts::add(dir, new.file, progress)?;
    let artifact = ArtifactRecord {
        name,
        length: stored.length,
        sha256: stored.sha256,
        hardware: new.hardware.clone(),
        media_type,
    };
    record.artifacts.retain(|old| old.name != artifact.name);
    record.artifacts.push(artifact.clone());
    record.artifacts.sort_by(|a, b| a.name.cmp(&b.name));
    // Problems that would invalidate the manifest are found now, not when somebody signs it.
    record.to_manifest(1, now).check().map_err(|e| Error::input("the artifact cannot be listed").with_source(e))?;
    let mut changes = Changes::default();
    record.put(&mut changes)?;
    let mut evidence = Map::new();
    evidence.insert("artifact".into(), json!({"name": artifact.name.as_str(), "sha256": artifact.sha256.to_string()}));
    write_down(workspace, &mut changes, now, "add", &record, None, actor, evidence)?;
    workspace.commit(changes)?;
    Ok((record, artifact))
}

/// A manifest that was frozen and proposed.
#[derive(Debug)]
pub struct Frozen {
    /// The record.
    pub record: Record,
    /// The manifest.
    pub manifest: Manifest,
    /// The release that it was compared with, if there is one.
    pub previous: Option<record::ReleaseId>,
    /// What changes against it.
    pub differences: Vec<Difference>,
    /// The proposal.
    pub proposal: ReleaseProposal,
    /// Signatures that it takes.
    pub threshold: u64,
}

/// Freezes the manifest of a draft and proposes it for signing. Called again, it proposes the same manifest on top of the current
/// version of the channel's role.
///
/// # Errors
///
/// Fails if the release cannot be frozen in its state, if policy requires provenance that is missing, or if the manifest is
/// invalid.
pub fn manifest(op: &mut Operation<'_>, spec: &ReleaseSpec) -> Result<Frozen> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let dir = workspace.dir();
    let settings = workspace.settings()?;
    let mut record = spec.find(dir)?;
    let id = record.id();
    let facts = Facts { artifacts: record.artifacts.len(), ..Facts::default() };
    let before = record.status();
    let policy = workspace.policy()?;
    let after = record.after(ReleaseEvent::Freeze, &facts, &policy, now)?;
    check_provenance(dir, &record, &policy.provenance)?;
    let repository = workspace.repository()?;
    let others = record::all(dir)?;
    let siblings =
        || others.iter().filter(|other| other.channel == id.channel && other.product == id.product && other.id() != id);
    let mut changes = Changes::default();
    let (manifest, bytes) = if record.manifest.is_some() {
        record.manifest(dir)?
    } else {
        let highest = siblings().filter_map(|other| other.manifest.as_ref()).map(|m| m.sequence).max().unwrap_or(0);
        let manifest = record.to_manifest(highest + 1, now);
        let bytes = manifest.to_bytes().map_err(|e| Error::input("the manifest cannot be made").with_source(e))?;
        let sha256 = Digest::of(&bytes);
        record.manifest = Some(ManifestRecord { sequence: manifest.sequence, sha256, length: bytes.len() as u64 });
        changes.put(id.file("manifest.json"), bytes.as_slice());
        changes.put(artifacts::path(&sha256), bytes.as_slice());
        (manifest, bytes)
    };
    let lifetime = settings.channel(&id.channel)?.release.expires;
    let names = settings.key_names()?;
    let mut proposal = ReleaseProposal::release(&id, &manifest, &bytes, &repository, lifetime, names, now)?;
    let previous = previous(siblings(), manifest.sequence);
    let before_it = previous.map(|previous| previous.manifest(dir)).transpose()?;
    let differences = diff(before_it.as_ref().map(|(manifest, _)| manifest), &manifest);
    for bytes in before_it.iter().map(|(_, bytes)| bytes).chain([&bytes]) {
        proposal.attach(bytes)?;
    }
    record.set_status(after);
    record.put(&mut changes)?;
    proposal.put(&id, &mut changes)?;
    let mut evidence = Map::new();
    evidence.insert("manifest".into(), Digest::of(&bytes).to_string().into());
    evidence.insert("sequence".into(), manifest.sequence.into());
    evidence.insert("base".into(), json!({"role": proposal.role, "version": proposal.base_version}));
    write_down(workspace, &mut changes, now, "manifest", &record, Some(before), actor, evidence)?;
    workspace.commit(changes)?;
    let threshold = proposal.signers(&repository)?.1;
    Ok(Frozen { previous: previous.map(Record::id), record, manifest, differences, proposal, threshold })
}

/// The release before one with this sequence: the newest that was ever registered.
pub fn previous<'a>(siblings: impl Iterator<Item = &'a Record>, sequence: u64) -> Option<&'a Record> {
    siblings
        .filter(|record| !matches!(record.state, ReleaseState::Draft | ReleaseState::Signed))
        .filter(|record| record.manifest.as_ref().is_some_and(|manifest| manifest.sequence < sequence))
        .max_by_key(|record| record.manifest.as_ref().map(|manifest| manifest.sequence))
}

/// Appends a line to the ledger as part of `changes`.
///
/// # Errors
///
/// Fails if the ledger cannot be read or the line cannot be serialized.
#[allow(clippy::too_many_arguments, reason = "each is a column of the ledger")]
pub fn write_down(
    workspace: &Workspace,
    changes: &mut Changes,
    now: DateTime<Utc>,
    event: &'static str,
    record: &Record,
    before: Option<crate::policy::Status>,
    actor: &str,
    evidence: Map<String, Value>,
) -> Result<()> {
    let mut ledger = Ledger::open(workspace.dir())?;
    ledger.append(now, happening(event, record, before, actor, evidence))?;
    ledger.put(changes);
    Ok(())
}

/// What happened to a release.
pub fn happening(
    event: &'static str,
    record: &Record,
    before: Option<crate::policy::Status>,
    actor: &str,
    evidence: Map<String, Value>,
) -> LedgerEvent {
    LedgerEvent {
        event,
        subject: record.id().to_string(),
        actor: actor.to_owned(),
        transition: before.map(|before| (before.to_string(), record.status().to_string())),
        reason: None,
        evidence,
    }
}

fn name_of(file: &Path) -> Result<ArtifactName> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.parse().map_err(|e| {
        Error::input(format!("the file name cannot be the artifact's: {e}")).remedy("choose one with --name")
    })
}

fn guess_media_type(name: &ArtifactName) -> Result<Text> {
    let extension = name.as_str().rsplit_once('.').map_or("", |(_, extension)| extension);
    let guessed = match extension {
        "gz" | "tgz" => "application/gzip",
        "zst" => "application/zstd",
        "xz" => "application/x-xz",
        "bz2" => "application/x-bzip2",
        "zip" => "application/zip",
        "tar" => "application/x-tar",
        "json" => "application/json",
        _ => "application/octet-stream",
    };
    guessed.parse().map_err(|e| Error::bug("a media type").with_source(e))
}

/// Reads a provenance statement and keeps its bytes in the store.
fn read_provenance(dir: &Path, path: &Path) -> Result<ProvenanceRecord> {
    let bytes = fs::read(path, MAX_LENGTH)?;
    let statement = Statement::parse(&bytes).map_err(|why| {
        Error::input(format!("{} is no in-toto statement: {why}", path.display()))
            .remedy("give the statement (https://in-toto.io/Statement/v1), or the DSSE envelope around it")
    })?;
    let stored = artifacts::add(dir, path, |_| ())?;
    Ok(ProvenanceRecord { predicate_type: statement.predicate_type, sha256: stored.sha256, builder: statement.builder })
}

/// The provenance statement of a release, from the store; `None` if it has none.
///
/// # Errors
///
/// Fails if the statement is missing from the store, has other bytes than recorded, or is malformed.
pub fn provenance(dir: &Path, record: &Record) -> Result<Option<Statement>> {
    let Some(ProvenanceRecord { sha256, .. }) = &record.provenance else { return Ok(None) };
    let path = fs::confined(dir, &artifacts::path(sha256))?;
    let lost = |why: &str| {
        Error::trust(format!("the provenance statement of {} {why}", record.id()))
            .remedy("restore artifacts/ from a copy; the statement's hash is in release.json")
    };
    let bytes = fs::read_if_exists(&path, MAX_LENGTH)?.ok_or_else(|| lost("is not in the store any more"))?;
    if Digest::of(&bytes) != *sha256 {
        return Err(lost("has other bytes than it had"));
    }
    Statement::parse(&bytes).map(Some).map_err(|why| lost(&format!("cannot be read: {why}")))
}

/// Checks the provenance of a release before its manifest is frozen.
///
/// # Errors
///
/// Fails if policy requires provenance that is missing, or if the statement describes other files.
fn check_provenance(dir: &Path, record: &Record, policy: &ProvenancePolicy) -> Result<()> {
    let statement = provenance(dir, record)?;
    let mut wrong = against_policy(statement.as_ref(), policy);
    wrong.extend(statement.iter().flat_map(|statement| statement.lacks(digests(&record.artifacts))));
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::refused(Rule::ReleaseProvenance, format!("{}: {}", record.id(), wrong.join("; ")))
        .remedy("start the draft with the statement of the build that made these files: tidegate release new VERSION --provenance FILE"))
}

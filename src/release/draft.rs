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

use super::delivery::{Maker, PatchBases, PatchReport, Progress};
use super::diff::{Difference, diff};
use super::listing::ReleaseProposal;
use super::provenance::{Statement, against_policy, digests};
use super::record::{
    self, ArtifactRecord, MAX_LENGTH, ManifestRecord, ProvenanceRecord, Record, RecordedUrgency, ReleaseSpec,
};
use super::signing;
use crate::config::Settings;
use crate::error::{Error, Result, Rule};
use crate::fs::{self, Changes};
use crate::policy::{Facts, ProvenancePolicy, ReleaseEvent, ReleaseState, Status};
use crate::workspace::artifacts::{self, Stored};
use crate::workspace::ledger::LedgerEvent;
use crate::workspace::{Ledger, Operation, Workspace, check_begun};

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

impl NewRelease {
    /// An ordinary release for all devices of its hardware, from a build of which only the id is known.
    pub fn of(spec: ReleaseSpec, build_id: Text) -> Self {
        Self {
            spec,
            build_id,
            source: None,
            provenance: None,
            urgency: RecordedUrgency::Normal,
            eligibility: None,
            upgrade_from: None,
            supersedes: BTreeSet::new(),
            notes: Vec::new(),
        }
    }
}

/// Creates a draft.
///
/// # Errors
///
/// Fails if the release exists already, if its channel or product is unknown or ambiguous, or if the provenance statement cannot
/// be read.
pub fn new(op: &mut Operation<'_>, new: NewRelease) -> Result<Record> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let record = begin(op, new, &mut |path| artifacts::add(workspace.dir(), path, |_| ()))?;
    let mut changes = Changes::default();
    check(workspace.dir(), &record, now)?;
    record.put(&mut changes)?;
    write_down(workspace, &mut changes, now, "new", &record, None, actor, begun(&record))?;
    workspace.commit(changes)?;
    Ok(record)
}

/// Takes a file into the store, or only hashes it.
type Take<'a> = &'a mut dyn FnMut(&Path) -> Result<Stored>;

/// A new record. `take` takes the provenance statement.
fn begin(op: &Operation<'_>, new: NewRelease, take: Take<'_>) -> Result<Record> {
    let dir = op.workspace.dir();
    check_begun(dir)?;
    let id = new.spec.complete(&op.workspace.settings()?)?;
    check_unused(dir, &id)?;
    let provenance = new.provenance.as_deref().map(|path| read_provenance(path, take)).transpose()?;
    Ok(Record {
        schema: 1,
        channel: id.channel.clone(),
        product: id.product.clone(),
        version: id.version.clone(),
        state: ReleaseState::Draft,
        paused: false,
        created: op.now,
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
    })
}

/// Checks that there is no such release yet.
fn check_unused(dir: &Path, id: &record::ReleaseId) -> Result<()> {
    if fs::confined(dir, &id.file("release.json"))?.exists() {
        return Err(Error::refused(Rule::ReleaseExists, format!("{id} exists already")).remedy(format!(
            "a version is used once: choose another one, or go on with this one: tidegate release show {id}"
        )));
    }
    Ok(())
}

/// The evidence of a new draft.
fn begun(record: &Record) -> Map<String, Value> {
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
    evidence
}

/// Creates a draft with all its artifacts, freezes its manifest and proposes it for signing, all at once: what [`new`], [`add`] and
/// [`manifest`] do. On an error nothing is left behind. With `dry_run` nothing is written, and neither chunks nor patches are made.
/// `progress` is told how far it is.
///
/// # Errors
///
/// As for the three.
pub fn create(
    op: &mut Operation<'_>,
    new: NewRelease,
    files: &[NewArtifact<'_>],
    bases: &PatchBases,
    dry_run: bool,
    mut progress: impl FnMut(Progress<'_>) + Send,
) -> Result<Frozen> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let (dir, settings) = (workspace.dir(), workspace.settings()?);
    let mut maker = Maker::new(dir, &settings, &mut progress);
    let mut names = BTreeSet::new();
    // Everything that needs no bytes is checked before the first file is copied.
    for file in files {
        artifacts::check_source(file.file)?;
        check_hardware(&settings, &file.hardware)?;
        let name = file.name()?;
        if !names.insert(name.clone()) {
            return Err(Error::refused(Rule::ReleaseArtifacts, format!("two files would be the artifact {name}"))
                .remedy("give one of them another name: FILE --name NAME"));
        }
    }
    // A provenance statement is small, and read from the store below.
    let mut record = begin(op, new, &mut |path| maker.store(path))?;
    let (added_now, patches) = workspace.unlocked(|| {
        let mut added_now = Vec::new();
        for file in files {
            let bytes = if dry_run { maker.measure(file.file)? } else { maker.store(file.file)? };
            let artifact = file.record(bytes)?;
            added_now.push(added(&artifact));
            put_artifact(&mut record, artifact);
        }
        check(dir, &record, now)?;
        let patches = if dry_run { Vec::new() } else { maker.complete(&mut record, &record::all(dir)?, bases)? };
        Ok((added_now, patches))
    })?;
    check_unused(dir, &record.id())?;
    let mut ledger = Ledger::open(dir)?;
    ledger.append(now, happening("new", &record, None, actor, begun(&record)))?;
    for evidence in added_now {
        ledger.append(now, happening("add", &record, None, actor, evidence))?;
    }
    let mut changes = Changes::default();
    let (frozen, before, evidence) = freeze(op, record, patches, &mut changes)?;
    ledger.append(now, happening("manifest", &frozen.record, Some(before), actor, evidence))?;
    ledger.put(&mut changes);
    if !dry_run {
        workspace.commit(changes)?;
        maker.keep();
    }
    Ok(frozen)
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

impl NewArtifact<'_> {
    /// The name that it gets.
    fn name(&self) -> Result<ArtifactName> {
        self.name.clone().map_or_else(|| name_of(self.file), Ok)
    }

    /// Its record, for these bytes.
    fn record(&self, stored: Stored) -> Result<ArtifactRecord> {
        let name = self.name()?;
        let media_type = self.media_type.clone().map_or_else(|| guess_media_type(&name), Ok)?;
        let Stored { sha256, length } = stored;
        Ok(ArtifactRecord { name, length, sha256, hardware: self.hardware.clone(), media_type, delivery: None })
    }
}

/// Adds an artifact to a draft, and cuts it into chunks. `progress` is told how far it is. On an error nothing is left behind.
///
/// # Errors
///
/// Fails if the release is no longer a draft, if the hardware is unknown, if an artifact of that name exists (without `replace`),
/// or if the file cannot be copied into the store.
pub fn add(
    op: &mut Operation<'_>,
    spec: &ReleaseSpec,
    new: &NewArtifact<'_>,
    mut progress: impl FnMut(Progress<'_>) + Send,
) -> Result<(Record, ArtifactRecord)> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let dir = workspace.dir();
    let settings = workspace.settings()?;
    check_hardware(&settings, &new.hardware)?;
    open_for(new, spec, workspace, now)?;
    let mut maker = Maker::new(dir, &settings, &mut progress);
    let artifact = workspace.unlocked(|| {
        let stored = maker.store(new.file)?;
        let delivery = maker.chunks(stored)?;
        Ok(ArtifactRecord { delivery, ..new.record(stored)? })
    })?;
    let mut record = open_for(new, spec, workspace, now)?;
    put_artifact(&mut record, artifact.clone());
    check(dir, &record, now)?;
    let mut changes = Changes::default();
    record.put(&mut changes)?;
    write_down(workspace, &mut changes, now, "add", &record, None, actor, added(&artifact))?;
    workspace.commit(changes)?;
    maker.keep();
    Ok((record, artifact))
}

/// The draft that an artifact can be added to.
fn open_for(new: &NewArtifact<'_>, spec: &ReleaseSpec, workspace: &Workspace, now: DateTime<Utc>) -> Result<Record> {
    let record = spec.find(workspace.dir())?;
    allowed(ReleaseEvent::Edit, workspace, &record, now)?;
    let name = new.name()?;
    if !new.replace && record.artifacts.iter().any(|artifact| artifact.name == name) {
        return Err(Error::refused(Rule::ReleaseArtifacts, format!("{} has an artifact {name} already", record.id()))
            .remedy("give another --name, or --replace"));
    }
    Ok(record)
}

fn check_hardware(settings: &Settings, hardware: &BTreeSet<HardwareId>) -> Result<()> {
    let Some(unknown) = hardware.iter().find(|id| !settings.hardware.contains_key(*id)) else { return Ok(()) };
    let known: Vec<_> = settings.hardware.keys().map(AsRef::as_ref).collect();
    Err(Error::input(format!("unknown hardware '{unknown}' (not in tidegate.toml)"))
        .remedy(format!("add [hardware.{unknown}], or name one of: {}", known.join(", "))))
}

/// Puts an artifact in the place of the one of the same name.
fn put_artifact(record: &mut Record, artifact: ArtifactRecord) {
    record.artifacts.retain(|old| old.name != artifact.name);
    record.artifacts.push(artifact);
    record.artifacts.sort_by(|a, b| a.name.cmp(&b.name));
}

/// The evidence of an added artifact.
fn added(artifact: &ArtifactRecord) -> Map<String, Value> {
    let artifact = json!({"name": artifact.name.as_str(), "sha256": artifact.sha256.to_string()});
    Map::from_iter([("artifact".to_owned(), artifact)])
}

/// Takes an artifact out of a draft. Its bytes stay in the store.
///
/// # Errors
///
/// Fails if the release is no longer a draft that can be changed, or if it has no artifact of that name.
pub fn remove(op: &mut Operation<'_>, spec: &ReleaseSpec, name: &ArtifactName) -> Result<(Record, ArtifactRecord)> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let mut record = spec.find(workspace.dir())?;
    allowed(ReleaseEvent::Edit, workspace, &record, now)?;
    let Some(index) = record.artifacts.iter().position(|artifact| artifact.name == *name) else {
        let known: Vec<_> = record.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
        let remedy = if known.is_empty() {
            "it has none: there is nothing to remove".to_owned()
        } else {
            format!("its artifacts are: {}", known.join(", "))
        };
        return Err(Error::input(format!("{} has no artifact {name}", record.id())).remedy(remedy));
    };
    let removed = record.artifacts.remove(index);
    let mut changes = Changes::default();
    record.put(&mut changes)?;
    let mut evidence = Map::new();
    evidence.insert("artifact".into(), json!({"name": name.as_str(), "sha256": removed.sha256.to_string()}));
    write_down(workspace, &mut changes, now, "remove", &record, None, actor, evidence)?;
    workspace.commit(changes)?;
    Ok((record, removed))
}

/// The build's id of what no system has built.
pub const BY_HAND: &str = "by-hand";

/// A field of a draft that need not have a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Optional {
    /// The source it was built from.
    Source,
    /// The provenance statement.
    Provenance,
    /// The condition for eligible devices.
    Eligibility,
    /// The versions that it upgrades.
    UpgradeFrom,
    /// The sequences that it supersedes.
    Supersedes,
    /// The notes.
    Notes,
}

/// What a draft says from now on; what is `None` or empty stays as it is.
#[derive(Debug, Clone, Default)]
pub struct DraftEdit {
    /// Fields that lose their value, before the others get theirs.
    pub clear: BTreeSet<Optional>,
    /// The build's id.
    pub build_id: Option<Text>,
    /// The source it was built from.
    pub source: Option<Text>,
    /// An in-toto statement of how it was built.
    pub provenance: Option<std::path::PathBuf>,
    /// How pressing it is.
    pub urgency: Option<RecordedUrgency>,
    /// Which devices may have it.
    pub eligibility: Option<Condition>,
    /// From which versions a device may go to it directly.
    pub upgrade_from: Option<VersionRange>,
    /// Sequences it may replace although their version is not lower.
    pub supersedes: BTreeSet<u64>,
    /// Notes for people.
    pub notes: Vec<Text>,
}

impl DraftEdit {
    /// Makes the changes to a record. Returns the names of the fields that changed.
    fn apply(&self, record: &mut Record, provenance: Option<ProvenanceRecord>) -> Vec<&'static str> {
        let before = record.clone();
        for field in &self.clear {
            match field {
                Optional::Source => record.source = None,
                Optional::Provenance => record.provenance = None,
                Optional::Eligibility => record.eligibility = None,
                Optional::UpgradeFrom => record.upgrade_from = None,
                Optional::Supersedes => record.supersedes.clear(),
                Optional::Notes => record.notes.clear(),
            }
        }
        record.build_id = self.build_id.clone().unwrap_or_else(|| record.build_id.clone());
        record.source = self.source.clone().or(record.source.take());
        record.provenance = provenance.or(record.provenance.take());
        record.urgency = self.urgency.unwrap_or(record.urgency);
        record.eligibility = self.eligibility.clone().or(record.eligibility.take());
        record.upgrade_from = self.upgrade_from.clone().or(record.upgrade_from.take());
        if !self.supersedes.is_empty() {
            record.supersedes.clone_from(&self.supersedes);
        }
        if !self.notes.is_empty() {
            record.notes.clone_from(&self.notes);
        }
        let changed = [
            ("build-id", before.build_id != record.build_id),
            ("source", before.source != record.source),
            ("provenance", before.provenance != record.provenance),
            ("urgency", before.urgency != record.urgency),
            ("eligibility", before.eligibility != record.eligibility),
            ("upgrade-from", before.upgrade_from != record.upgrade_from),
            ("supersedes", before.supersedes != record.supersedes),
            ("note", before.notes != record.notes),
        ];
        changed.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect()
    }
}

/// Changes what a draft says beside its artifacts. Returns the names of the fields that changed.
///
/// # Errors
///
/// Fails if the release is no longer a draft that can be changed, if the provenance statement cannot be read, or if nothing changes.
pub fn edit(op: &mut Operation<'_>, spec: &ReleaseSpec, edit: &DraftEdit) -> Result<(Record, Vec<&'static str>)> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let dir = workspace.dir();
    let mut record = spec.find(dir)?;
    allowed(ReleaseEvent::Edit, workspace, &record, now)?;
    let provenance = edit.provenance.as_deref();
    let provenance =
        provenance.map(|path| read_provenance(path, &mut |path| artifacts::add(dir, path, |_| ()))).transpose()?;
    let fields = edit.apply(&mut record, provenance);
    if fields.is_empty() {
        return Err(Error::input(format!("nothing changes: {} says this already", record.id()))
            .remedy("see what can be changed: tidegate release edit --help"));
    }
    check(dir, &record, now)?;
    let mut changes = Changes::default();
    record.put(&mut changes)?;
    let evidence = Map::from_iter([("changed".to_owned(), json!(fields))]);
    write_down(workspace, &mut changes, now, "edit", &record, None, actor, evidence)?;
    workspace.commit(changes)?;
    Ok((record, fields))
}

/// Makes a frozen manifest that nobody has signed a draft again, and removes its proposal. Copies of that proposal are worth nothing
/// from then on.
///
/// # Errors
///
/// `R-FROZEN` if no manifest is frozen, or if somebody has signed it.
pub fn unfreeze(op: &mut Operation<'_>, spec: &ReleaseSpec) -> Result<Record> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let mut record = spec.find(workspace.dir())?;
    allowed(ReleaseEvent::Unfreeze, workspace, &record, now)?;
    let id = record.id();
    let mut changes = Changes::default();
    let frozen = record.manifest.take();
    for delivery in record.artifacts.iter_mut().filter_map(|artifact| artifact.delivery.as_mut()) {
        delivery.patches.clear();
    }
    record.put(&mut changes)?;
    changes.remove(id.file("manifest.json"));
    changes.remove(ReleaseProposal::file(&id));
    let mut evidence = Map::new();
    evidence.insert("manifest".into(), json!(frozen.map(|frozen| frozen.sha256.to_string())));
    write_down(workspace, &mut changes, now, "unfreeze", &record, None, actor, evidence)?;
    workspace.commit(changes)?;
    Ok(record)
}

/// Removes a draft that nobody has signed, with its proposal, so that its version can be used again. The ledger keeps what was done.
///
/// # Errors
///
/// `R-FROZEN` if somebody has signed it. Fails if it is no longer a draft.
pub fn drop(op: &mut Operation<'_>, spec: &ReleaseSpec) -> Result<Record> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let record = spec.find(workspace.dir())?;
    allowed(ReleaseEvent::Drop, workspace, &record, now)?;
    let id = record.id();
    let mut changes = Changes::default();
    for folder in ["", "reports/"] {
        let path = fs::confined(workspace.dir(), &id.file(folder))?;
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            if let (true, Ok(name)) = (entry.path().is_file(), entry.file_name().into_string()) {
                changes.remove(id.file(&format!("{folder}{name}")));
            }
        }
    }
    changes.remove(ReleaseProposal::file(&id));
    let mut evidence = Map::new();
    evidence.insert("artifacts".into(), json!(record.artifacts.len()));
    write_down(workspace, &mut changes, now, "drop", &record, None, actor, evidence)?;
    workspace.commit(changes)?;
    Ok(record)
}

/// Asks the state machine whether a draft may be changed this way.
fn allowed(event: ReleaseEvent, workspace: &Workspace, record: &Record, now: DateTime<Utc>) -> Result<()> {
    let signatures = signing::signatures_on(workspace, record)?;
    let facts = Facts { frozen: record.manifest.is_some(), signatures, ..Facts::default() };
    record.after(event, &facts, &workspace.policy()?, now).map(|_| ())
}

/// Finds what would invalidate the manifest now, not when somebody signs it: limits, and what it supersedes.
fn check(dir: &Path, record: &Record, now: DateTime<Utc>) -> Result<()> {
    let mut draft = record.clone();
    if draft.artifacts.is_empty() {
        // A manifest has at least one; this one stands in for those that are still to be added.
        let text = |text: &str| text.parse::<Text>().map_err(|e| Error::bug("a text").with_source(e));
        let name = "artifact".parse().map_err(|e| Error::bug("a name").with_source(e))?;
        let hardware = "hardware".parse().map_err(|e| Error::bug("a name").with_source(e))?;
        draft.artifacts.push(ArtifactRecord {
            name,
            length: 1,
            sha256: Digest::of(b"artifact"),
            hardware: BTreeSet::from([hardware]),
            media_type: text("application/octet-stream")?,
            delivery: None,
        });
    }
    let others = record::all(dir)?;
    let manifest = draft.to_manifest(next_sequence(&others, &record.id()), now);
    manifest.to_bytes().map(|_| ()).map_err(|e| {
        Error::input(format!("{} could not be released this way", record.id()))
            .with_source(e)
            .remedy("correct what is named; nothing was changed")
    })
}

/// The sequence of the next release of a product on a channel.
fn next_sequence(others: &[Record], id: &record::ReleaseId) -> u64 {
    let siblings = others.iter().filter(|other| other.channel == id.channel && other.product == id.product);
    siblings.filter_map(|other| other.manifest.as_ref()).map(|m| m.sequence).max().unwrap_or(0) + 1
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
    /// The patches that were made, or why not.
    pub patches: Vec<PatchReport>,
}

/// Freezes the manifest of a draft with patches from the newest releases, and proposes it for signing; see [`manifest_from`].
///
/// # Errors
///
/// As [`manifest_from`].
pub fn manifest(op: &mut Operation<'_>, spec: &ReleaseSpec) -> Result<Frozen> {
    manifest_from(op, spec, &PatchBases::Newest, |_| ())
}

/// Makes patches from `bases`, freezes the manifest of a draft and proposes it for signing. `progress` is told how far it is. Called again,
/// it proposes the same manifest on top of the current version of the channel's role. On an error nothing is left behind.
///
/// # Errors
///
/// `R-FROZEN` if patches are asked for, and the manifest is frozen already. Fails if the release cannot be frozen in its state, if policy
/// requires provenance that is missing, if a patch cannot be made, or if the manifest is invalid.
pub fn manifest_from(
    op: &mut Operation<'_>,
    spec: &ReleaseSpec,
    bases: &PatchBases,
    mut progress: impl FnMut(Progress<'_>) + Send,
) -> Result<Frozen> {
    let workspace = op.workspace;
    let (dir, settings) = (workspace.dir(), workspace.settings()?);
    let mut record = spec.find(dir)?;
    let mut maker = Maker::new(dir, &settings, &mut progress);
    let mut patches = Vec::new();
    if record.manifest.is_none() {
        freezable(op, &record)?;
        let before = record.clone();
        patches = workspace.unlocked(|| maker.complete(&mut record, &record::all(dir)?, bases))?;
        if record::to_file(&before)? != record::to_file(&spec.find(dir)?)? {
            return Err(Error::new(
                crate::Kind::Conflict,
                format!("{} was changed while patches were made", record.id()),
            )
            .remedy("run the command again: what was made is not made twice"));
        }
    } else if *bases != PatchBases::Newest {
        let id = record.id();
        let remedy = match record.state {
            ReleaseState::Draft => {
                format!("make it a draft again, if nobody has signed it: tidegate release unfreeze {id}")
            }
            ReleaseState::Signed => format!(
                "register it (tidegate release register {id}), then: tidegate release patch {id} --from VERSION"
            ),
            _ => format!("have its channel list more: tidegate release patch {id} --from VERSION"),
        };
        return Err(
            Error::refused(Rule::ReleaseFrozen, format!("{id} is frozen, and its patches with it")).remedy(remedy)
        );
    }
    let mut changes = Changes::default();
    let (frozen, before, evidence) = freeze(op, record, patches, &mut changes)?;
    write_down(workspace, &mut changes, op.now, "manifest", &frozen.record, Some(before), op.actor, evidence)?;
    workspace.commit(changes)?;
    maker.keep();
    Ok(frozen)
}

/// The state of a release once it is frozen.
///
/// # Errors
///
/// Fails if it cannot be frozen in its state, or if policy requires provenance that is missing.
fn freezable(op: &Operation<'_>, record: &Record) -> Result<Status> {
    let policy = op.workspace.policy()?;
    let facts = Facts { artifacts: record.artifacts.len(), ..Facts::default() };
    let after = record.after(ReleaseEvent::Freeze, &facts, &policy, op.now)?;
    check_provenance(op.workspace.dir(), record, &policy.provenance)?;
    Ok(after)
}

/// Freezes a record and proposes it, in `changes`. Also returns the state before, and the evidence for the ledger.
fn freeze(
    op: &Operation<'_>,
    mut record: Record,
    patches: Vec<PatchReport>,
    changes: &mut Changes,
) -> Result<(Frozen, Status, Map<String, Value>)> {
    let (workspace, now) = (op.workspace, op.now);
    let dir = workspace.dir();
    let settings = workspace.settings()?;
    let id = record.id();
    let before = record.status();
    let after = freezable(op, &record)?;
    let repository = workspace.repository()?;
    let others = record::all(dir)?;
    let siblings =
        || others.iter().filter(|other| other.channel == id.channel && other.product == id.product && other.id() != id);
    let (manifest, bytes) = if record.manifest.is_some() {
        record.manifest(dir)?
    } else {
        let manifest = record.to_manifest(next_sequence(&others, &id), now);
        let bytes = manifest.to_bytes().map_err(|e| Error::input("the manifest cannot be made").with_source(e))?;
        let sha256 = Digest::of(&bytes);
        record.manifest = Some(ManifestRecord { sequence: manifest.sequence, sha256, length: bytes.len() as u64 });
        changes.put(id.file("manifest.json"), bytes.as_slice());
        changes.put(artifacts::signed_path(&sha256), bytes.as_slice());
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
    record.put(changes)?;
    proposal.put(&id, changes)?;
    let mut evidence = Map::new();
    evidence.insert("manifest".into(), Digest::of(&bytes).to_string().into());
    evidence.insert("sequence".into(), manifest.sequence.into());
    evidence.insert("base".into(), json!({"role": proposal.role, "version": proposal.base_version}));
    let threshold = proposal.signers(&repository)?.1;
    let previous = previous.map(Record::id);
    Ok((Frozen { record, manifest, previous, differences, proposal, threshold, patches }, before, evidence))
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

/// Reads a provenance statement, and has its bytes taken.
fn read_provenance(path: &Path, take: Take<'_>) -> Result<ProvenanceRecord> {
    let bytes = fs::read(path, MAX_LENGTH)?;
    let statement = Statement::parse(&bytes).map_err(|why| {
        Error::input(format!("{} is no in-toto statement: {why}", path.display()))
            .remedy("give the statement (https://in-toto.io/Statement/v1), or the DSSE envelope around it")
    })?;
    let stored = take(path)?;
    Ok(ProvenanceRecord { predicate_type: statement.predicate_type, sha256: stored.sha256, builder: statement.builder })
}

/// The provenance statement of a release, from the store; `None` if it has none.
///
/// # Errors
///
/// Fails if the statement is missing from the store, has other bytes than recorded, or is malformed.
pub fn provenance(dir: &Path, record: &Record) -> Result<Option<Statement>> {
    let Some(ProvenanceRecord { sha256, .. }) = &record.provenance else { return Ok(None) };
    let path = fs::confined(dir, &artifacts::find(dir, sha256))?;
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
        .remedy(format!("give the statement of the build that made these files: --provenance FILE (for a draft: tidegate release edit {} --provenance FILE)", record.id())))
}

//! What is made beside the artifacts of a release, so that devices fetch less than the whole: chunks, and patches from what they may run.
//!
//! Chunks are made when an artifact is added, patches when the manifest is frozen. Both are kept in the store by their hashes, with a note of
//! what they were made from in `artifacts/delivery/`, so that nothing is made twice. Neither is under version control: both can be made
//! again, or come back with the artifacts (`tidegate pull --artifacts`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_model::delivery::{Delivery, FileRef, MAX_PATCHES, PatchFrom, PatchList, PatchRef};
use tidegate_model::digest::Digest;
use tidegate_model::layout;
use tidegate_model::name::ArtifactName;
use tidegate_model::version::{Version, is_newer};
use tidegate_model::{Extra, SchemaVersion};

use super::record::{self, ArtifactRecord, Record, ReleaseId, ReleaseSpec};
use crate::config::{DeliverySettings, Settings};
use crate::delivery::{self, Cut, MadePatch};
use crate::error::{Error, Result, Rule};
use crate::fs;
use crate::policy::ReleaseState;
use crate::proposal::ProposalRequest;
use crate::workspace::artifacts::{self, Stored};
use crate::workspace::{Operation, listed_bytes, manifest_in_force};

/// Where it is noted what was made from what, relative to the workspace.
pub const DIR: &str = "artifacts/delivery";
/// The longest such note.
const MAX_NOTE: u64 = 4096;

/// The releases that patches are made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PatchBases {
    /// The newest that devices may still run, as many as `tidegate.toml` says; of those, whose bytes are here.
    #[default]
    Newest,
    /// These versions; none at all if there are none.
    These(Vec<Version>),
}

/// How far some work is.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// It begins, and takes this many bytes.
    Begin(&'a str, u64),
    /// That many more bytes are done.
    Done(u64),
}

/// What became of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PatchOutcome {
    /// The manifest lists it.
    Made,
    /// It is not smaller than the chunks that it would replace, and was dropped.
    NotSmaller,
    /// The bytes that it would start from are not in this workspace.
    NotHere,
}

/// What became of a patch, and what it saves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PatchReport {
    /// The artifact that it makes.
    pub artifact: ArtifactName,
    /// The version that it starts from.
    pub from: Version,
    /// SHA-256 of the artifact that it starts from.
    pub from_sha256: Digest,
    /// What became of it.
    pub outcome: PatchOutcome,
    /// Its length in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// What a device with that artifact fetches without it, in bytes: the index, and the chunks that it lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks: Option<u64>,
}

/// Makes chunks and patches in a workspace. What it has made since is removed when it is dropped, unless it is kept.
pub struct Maker<'a> {
    dir: &'a Path,
    settings: DeliverySettings,
    progress: &'a mut (dyn FnMut(Progress<'_>) + Send),
    new: Vec<PathBuf>,
}

impl std::fmt::Debug for Maker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maker").field("dir", &self.dir).field("new", &self.new).finish_non_exhaustive()
    }
}

impl Drop for Maker<'_> {
    fn drop(&mut self) {
        for path in self.new.drain(..) {
            // Whatever went wrong before matters more.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl<'a> Maker<'a> {
    /// In the workspace `dir`, which may be unlocked meanwhile: files in the store never change.
    pub fn new(dir: &'a Path, settings: &Settings, progress: &'a mut (dyn FnMut(Progress<'_>) + Send)) -> Self {
        Self { dir, settings: settings.delivery.clone(), progress, new: Vec::new() }
    }

    /// Keeps what was made.
    pub fn keep(&mut self) {
        self.new.clear();
    }

    /// Copies a file into the store.
    ///
    /// # Errors
    ///
    /// Fails if it is not a regular file or is empty, or if the copy cannot be written.
    pub fn store(&mut self, source: &Path) -> Result<Stored> {
        let length = std::fs::metadata(source).map(|metadata| metadata.len()).unwrap_or_default();
        (self.progress)(Progress::Begin("hashing", length));
        artifacts::add_noting(self.dir, source, &mut self.new, |count| (self.progress)(Progress::Done(count)))
    }

    /// Hashes a file without storing it.
    ///
    /// # Errors
    ///
    /// Fails if it is not a regular file or is empty, or if it cannot be read.
    pub fn measure(&mut self, source: &Path) -> Result<Stored> {
        let length = std::fs::metadata(source).map(|metadata| metadata.len()).unwrap_or_default();
        (self.progress)(Progress::Begin("hashing", length));
        artifacts::measure(source, |count| (self.progress)(Progress::Done(count)))
    }

    /// Cuts an artifact in the store into chunks; `None` if nothing is made for it.
    ///
    /// # Errors
    ///
    /// Fails if the artifact cannot be read, or if what is made cannot be written.
    pub fn chunks(&mut self, artifact: Stored) -> Result<Option<Delivery>> {
        if !self.settings.chunks || artifact.length < self.settings.minimum_bytes {
            return Ok(None);
        }
        let note = format!("{}.json", artifact.sha256);
        let known = self.noted(&note, ["index", "pack"])?;
        if let Some([index, pack]) = known.filter(|files| files.iter().all(|file| self.has(file))) {
            return Ok(Some(Delivery { index, pack, patches: Vec::new(), extra: Extra::new() }));
        }
        let (source, _) = artifacts::open(self.dir, artifact)?;
        let folder = self.folder()?;
        let [index, pack] = ["index", "pack"].map(|name| folder.path().join(name));
        let cut = self.telling("cutting into chunks", artifact.length, |progress| {
            delivery::cut(&source, &index, &pack, progress)
        })?;
        self.take(&index, cut.index)?;
        self.take(&pack, cut.pack)?;
        let Cut { index, pack } = cut;
        self.note(&note, &json!({"index": index, "pack": pack}))?;
        Ok(Some(Delivery { index, pack, patches: Vec::new(), extra: Extra::new() }))
    }

    /// Gives the artifacts of a release that is about to be frozen their chunks, and patches from `bases`.
    ///
    /// # Errors
    ///
    /// Fails if a named base cannot be used, if an artifact cannot be read, or if what is made cannot be written.
    pub fn complete(&mut self, record: &mut Record, others: &[Record], bases: &PatchBases) -> Result<Vec<PatchReport>> {
        let named = matches!(bases, PatchBases::These(versions) if !versions.is_empty());
        if named && !self.settings.chunks {
            return Err(Error::refused(
                Rule::ReleaseArtifacts,
                "tidegate.toml says that neither chunks nor patches are made",
            )
            .remedy("set chunks = true under [delivery] in tidegate.toml, or give no --patch-from"));
        }
        let from = self.bases(record, others, bases)?;
        let mut reports = Vec::new();
        let artifacts = record.artifacts.clone();
        for (place, artifact) in record.artifacts.iter_mut().zip(&artifacts) {
            place.delivery = match self.chunks(stored(artifact)) {
                // A clone lacks what builds made. What was made of it when it was added stays.
                Err(error) if error.is_not_found() => {
                    place.delivery.iter_mut().for_each(|delivery| delivery.patches.clear());
                    continue;
                }
                made => made?,
            };
            let Some(delivery) = &mut place.delivery else { continue };
            for (version, old) in from.iter().filter_map(|base| Some((&base.version, counterpart(artifact, base)?))) {
                if delivery.patches.len() < MAX_PATCHES && old.sha256 != artifact.sha256 {
                    let (report, patch) = self.patch((version, old), artifact, delivery, named)?;
                    delivery.patches.extend(patch);
                    reports.push(report);
                }
            }
        }
        Ok(reports)
    }

    /// The releases to make patches from.
    fn bases<'r>(&self, record: &Record, others: &'r [Record], bases: &PatchBases) -> Result<Vec<&'r Record>> {
        let siblings = || {
            let of_it = |other: &&Record| other.channel == record.channel && other.product == record.product;
            others.iter().filter(of_it).filter(|other| other.version != record.version && other.manifest.is_some())
        };
        let PatchBases::These(versions) = bases else {
            let mut known: Vec<&Record> =
                siblings().filter(|other| may_run(other) && leads_to(other, record)).collect();
            known.sort_by_key(|other| std::cmp::Reverse(other.manifest.as_ref().map(|manifest| manifest.sequence)));
            known.truncate(self.settings.patches_from);
            return Ok(known);
        };
        let known = |version: &Version| {
            siblings().find(|other| other.version == *version).ok_or_else(|| {
                let known: Vec<_> = siblings().map(|other| other.version.to_string()).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Error::input(format!("there is no release {version} to make a patch from"))
                    .remedy(format!("give one that has a manifest: {known}"))
            })
        };
        versions.iter().map(known).collect()
    }

    /// Makes a patch. It `must` be possible if somebody named the release that it starts from.
    fn patch(
        &mut self,
        (version, old): (&Version, &ArtifactRecord),
        artifact: &ArtifactRecord,
        delivery: &Delivery,
        must: bool,
    ) -> Result<(PatchReport, Option<PatchRef>)> {
        let mut report = PatchReport {
            artifact: artifact.name.clone(),
            from: version.clone(),
            from_sha256: old.sha256,
            outcome: PatchOutcome::NotHere,
            length: None,
            chunks: None,
        };
        let opened = match artifacts::open(self.dir, stored(old)) {
            Ok((path, _)) => path,
            Err(error) if error.is_not_found() && !must => return Ok((report, None)),
            Err(error) => return Err(error),
        };
        let chunks = self.lacking(old, artifact, delivery)?;
        let note = format!("{}-{}.json", old.sha256, artifact.sha256);
        let [patch, directory] = match self.noted(&note, ["patch", "directory"])? {
            // One that was not smaller is not kept.
            Some([patch, directory]) if patch.length >= chunks || self.has(&patch) => [patch, directory],
            _ => self.make(&opened, artifact, &note)?,
        };
        (report.length, report.chunks) = (Some(patch.length), Some(chunks));
        if patch.length >= chunks {
            self.discard(&patch)?;
            report.outcome = PatchOutcome::NotSmaller;
            return Ok((report, None));
        }
        report.outcome = PatchOutcome::Made;
        let from = PatchFrom { version: version.clone(), length: old.length, sha256: old.sha256 };
        let FileRef { length, sha256 } = patch;
        Ok((report, Some(PatchRef { from, length, sha256, directory, extra: Extra::new() })))
    }

    /// What a device with an older artifact fetches without a patch: the index, and the chunks that it lacks.
    fn lacking(&mut self, old: &ArtifactRecord, artifact: &ArtifactRecord, delivery: &Delivery) -> Result<u64> {
        let (index, pack) = (delivery.index, delivery.pack);
        let Some(Delivery { index: old_index, pack: old_pack, .. }) = self.chunks(stored(old))? else {
            return Ok(index.length.saturating_add(pack.length));
        };
        let path = |file: FileRef| {
            let stored = Stored { sha256: file.sha256, length: file.length };
            artifacts::open(self.dir, stored).map(|(path, _)| path)
        };
        let (before, after) = (path(old_index)?, path(index)?);
        let lacks = delivery::missing((&before, old.length, old_pack.length), (&after, artifact.length, pack.length))?;
        Ok(index.length.saturating_add(lacks))
    }

    /// Makes a patch, and notes it.
    fn make(&mut self, old: &Path, artifact: &ArtifactRecord, note: &str) -> Result<[FileRef; 2]> {
        let (new, _) = artifacts::open(self.dir, stored(artifact))?;
        let folder = self.folder()?;
        let file = folder.path().join("patch");
        let MadePatch { length, sha256, directory } = self
            .telling("making a patch", artifact.length, |progress| delivery::make_patch(old, &new, &file, progress))?;
        let patch = FileRef { length, sha256 };
        self.take(&file, patch)?;
        self.note(note, &json!({"patch": patch, "directory": directory}))?;
        Ok([patch, directory])
    }

    /// Does work that tells from several threads how far it is.
    fn telling<T>(
        &mut self,
        what: &str,
        length: u64,
        work: impl FnOnce(&delivery::Progress<'_>) -> Result<T>,
    ) -> Result<T> {
        (self.progress)(Progress::Begin(what, length));
        let told = Mutex::new(&mut *self.progress);
        work(&|count| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            told(Progress::Done(count));
        })
    }

    /// A folder to make something in, beside the store so that it can be moved there.
    fn folder(&self) -> Result<TempDir> {
        let store = fs::confined(self.dir, artifacts::DIR)?;
        tempfile::tempdir_in(&store).map_err(|e| Error::io("write to", &store, e))
    }

    /// Moves a file that was made into the store.
    fn take(&mut self, made: &Path, file: FileRef) -> Result<()> {
        artifacts::take(self.dir, made, Stored { sha256: file.sha256, length: file.length }, &mut self.new)
    }

    fn has(&self, file: &FileRef) -> bool {
        artifacts::open(self.dir, Stored { sha256: file.sha256, length: file.length }).is_ok()
    }

    fn discard(&self, file: &FileRef) -> Result<()> {
        let path = fs::confined(self.dir, &artifacts::find(self.dir, &file.sha256))?;
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &path, e)),
            _ => Ok(()),
        }
    }

    /// The files of a note; `None` if there is none that can be read: then they are made again.
    fn noted(&self, name: &str, keys: [&str; 2]) -> Result<Option<[FileRef; 2]>> {
        let path = fs::confined(self.dir, &format!("{DIR}/{name}"))?;
        let Some(bytes) = fs::read_if_exists(&path, MAX_NOTE)? else { return Ok(None) };
        let note: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let file = |key: &str| {
            let file = note.get(key)?;
            let sha256 = file.get("sha256")?.as_str()?.parse().ok()?;
            Some(FileRef { length: file.get("length")?.as_u64()?, sha256 })
        };
        let [first, second] = keys.map(file);
        Ok(first.zip(second).map(|(first, second)| [first, second]))
    }

    fn note(&mut self, name: &str, note: &Value) -> Result<()> {
        let folder = fs::confined(self.dir, DIR)?;
        std::fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
        let path = folder.join(name);
        let is_new = !path.exists();
        fs::write_atomic(&path, format!("{note}\n").as_bytes())?;
        self.new.extend(is_new.then_some(path));
        Ok(())
    }
}

/// Patches that were made after a release was signed, and what has the channel list them.
#[derive(Debug)]
pub struct LaterPatches {
    /// The release.
    pub release: ReleaseId,
    /// What became of each.
    pub reports: Vec<PatchReport>,
    /// For a ceremony; `None` if there is nothing to list.
    pub request: Option<ProposalRequest>,
}

/// Makes patches to a release that its channel lists already, from these versions. What has the channel list them is signed at a ceremony.
///
/// # Errors
///
/// `R-ORDER` if the channel does not list the release. Fails if a version is unknown or its bytes are not here, or if a patch cannot be made.
pub fn later(
    op: &Operation<'_>,
    spec: &ReleaseSpec,
    from: &[Version],
    mut progress: impl FnMut(Progress<'_>) + Send,
) -> Result<LaterPatches> {
    let workspace = op.workspace;
    let (dir, settings) = (workspace.dir(), workspace.settings()?);
    let record = spec.find(dir)?;
    let id = record.id();
    let repository = workspace.repository()?;
    let role = layout::channel_role(&id.channel);
    let path = layout::manifest_path(&id.channel, &id.product, &id.version);
    let listed = |path: &str| repository.targets(&role).is_some_and(|targets| targets.targets.contains_key(path));
    if !listed(&path) {
        return Err(Error::refused(Rule::ReleaseOrder, format!("{id}: the role {role} does not list it")).remedy(format!(
            "patches are listed in its manifest until it is signed: tidegate release manifest {id} --patch-from VERSION"
        )));
    }
    let (mut reports, mut list) = (Vec::new(), BTreeMap::new());
    let mut maker = Maker::new(dir, &settings, &mut progress);
    let others = record::all(dir)?;
    let bases = maker.bases(&record, &others, &PatchBases::These(from.to_vec()))?;
    let (manifest, _) = manifest_in_force(dir, &repository, &id.channel, &path)?;
    for artifact in &record.artifacts {
        let approved = manifest.artifacts.iter().find(|approved| approved.name == artifact.name);
        let Some(delivery) = approved.and_then(|approved| approved.delivery.as_ref()) else { continue };
        let path = layout::patches_path(&id.channel, &id.product, &id.version, &artifact.name);
        let mut patches = Vec::new();
        if listed(&path) {
            let bytes = listed_bytes(dir, &repository, &role, &path)?;
            let known =
                PatchList::parse(&bytes).map_err(|e| Error::input(format!("{path} is malformed")).with_source(e))?;
            patches = known.patches;
        }
        let before = patches.len();
        for base in &bases {
            let Some(old) = counterpart(artifact, base).filter(|old| old.sha256 != artifact.sha256) else { continue };
            if delivery.patches.iter().chain(&patches).any(|known| known.from.version == base.version) {
                continue;
            }
            let made = workspace.unlocked(|| maker.patch((&base.version, old), artifact, delivery, true))?;
            reports.push(made.0);
            patches.extend(made.1);
        }
        if patches.len() > before {
            let later = PatchList { schema: SchemaVersion, artifact: artifact.sha256, patches, extra: Extra::new() };
            let bytes = later.to_bytes().map_err(|e| Error::input("the patches cannot be listed").with_source(e))?;
            list.insert(path, bytes);
        }
    }
    maker.keep();
    let reason = Some(format!("patches to {id}"));
    let request = (!list.is_empty()).then(|| ProposalRequest { list, reason, ..ProposalRequest::default() });
    Ok(LaterPatches { release: id, reports, request })
}

/// Whether devices may run it: it was offered, and is not retired.
fn may_run(record: &Record) -> bool {
    use ReleaseState::{Limited, Security, Stable, Validation, Withdrawn};
    matches!(record.state, Validation | Limited | Stable | Security | Withdrawn)
}

/// Whether a device with the release `old` may go to `new`.
fn leads_to(old: &Record, new: &Record) -> bool {
    let superseded = old.manifest.as_ref().is_some_and(|manifest| new.supersedes.contains(&manifest.sequence));
    (superseded || is_newer(&new.version, &old.version))
        && new.upgrade_from.as_ref().is_none_or(|range| range.holds(&old.version))
}

/// The artifact of an older release that takes the place of this one on its hardware: of the same name, or else the only one.
fn counterpart<'a>(artifact: &ArtifactRecord, base: &'a Record) -> Option<&'a ArtifactRecord> {
    let fits = |old: &&ArtifactRecord| !old.hardware.is_disjoint(&artifact.hardware);
    let mut fitting = base.artifacts.iter().filter(fits);
    let named = base.artifacts.iter().filter(fits).find(|old| old.name == artifact.name);
    named.or_else(|| fitting.next().filter(|_| fitting.next().is_none()))
}

fn stored(artifact: &ArtifactRecord) -> Stored {
    Stored { sha256: artifact.sha256, length: artifact.length }
}

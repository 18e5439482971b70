//! Where an update is written, and how it is fetched.

use std::fmt::Write as _;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::{DECISION, Device, InstallState, Release, Update, UpdateArtifact, part_of};
use crate::delivery::{Files, Filler, Job, Remote, Way, WayKind, ways};
use crate::disk::Disk;
use crate::download::{feed, regular_length};
use crate::error::Error;
use crate::install::{self, Destination, Place};
use crate::policy::Step;
use crate::store::Keep;
use crate::updater::Repository;
use crate::watch::Progress;
use tidegate_model::delivery::index::MIN_CHUNK;
use tidegate_model::delivery::{Delivery, FileRef, Kind, PatchList, PatchRef};
use tidegate_model::layout;
use tidegate_model::manifest::{Artifact, Manifest};
use tidegate_model::receipt::DeliveryCost;
use tidegate_tuf::Chain;
use tidegate_tuf::fields::{FieldError, Fields};

/// The longest list of later patches that is read, in bytes.
const LIST_LENGTH: u64 = 64 * 1024;

/// The release for which the slot that does not run was overwritten. Until that release runs, there is no fallback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Overwritten {
    /// The release.
    pub release: Release,
    /// Whether the slot is complete.
    pub complete: bool,
    /// What ran when it was begun, as the installer names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<Place>,
    /// Whether the boot loader may have been told to try it.
    pub tried: bool,
}

impl Keep for Overwritten {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, at)?;
        Ok(Self {
            release: fields.part("release", Release::read)?,
            complete: fields.bool_or("complete", false)?,
            beside: fields.optional_parsed("beside")?,
            tried: fields.bool_or("tried", false)?,
        })
    }
}

impl Device {
    /// The ways to fetch an artifact and the files for them.
    pub(super) fn delivery(
        &mut self,
        channel: &Chain,
        manifest: &Manifest,
        artifact: &Artifact,
        private: Option<&Repository>,
    ) -> (Vec<Way>, Option<Files>) {
        let Some(delivery) = &artifact.delivery else { return (ways(artifact.length, None, None), None) };
        let patch = self.patch(channel, manifest, artifact, delivery, private);
        let ways = ways(artifact.length, Some(delivery), patch.as_ref());
        let remote = |kind, file: FileRef| Remote {
            url: self.updater.object_url(private, &layout::delivery_path(&manifest.channel, kind, &file.sha256)),
            file,
        };
        let files = Files {
            index: remote(Kind::Index, delivery.index),
            pack: remote(Kind::Pack, delivery.pack),
            patch: patch.map(|it| {
                let file = FileRef { length: it.length, sha256: it.sha256 };
                (remote(Kind::Patch, file), it.directory)
            }),
        };
        (ways, Some(files))
    }

    /// The patch from the running release, of those in the manifest or of those that were made later.
    fn patch(
        &mut self,
        channel: &Chain,
        manifest: &Manifest,
        artifact: &Artifact,
        delivery: &Delivery,
        private: Option<&Repository>,
    ) -> Option<PatchRef> {
        let running = self.profile.installed.version.clone();
        if !self.installer.as_ref().is_some_and(|installer| installer.reads_running()) {
            return None;
        }
        let fits = |patches: &[PatchRef]| {
            let from_running = patches.iter().filter(|patch| patch.from.version == running);
            from_running.min_by_key(|patch| patch.length).cloned()
        };
        fits(&delivery.patches).or_else(|| {
            let path = layout::patches_path(&manifest.channel, &manifest.product, &manifest.version, &artifact.name);
            // What fails here costs bytes.
            let found = self.find(&path, channel).ok()?;
            let name = format!("patches-{}.json", artifact.name);
            let bytes = self.document(&name, &found, LIST_LENGTH, private).ok()?;
            let list = PatchList::parse(&bytes).ok().filter(|list| list.artifact == artifact.sha256)?;
            fits(&list.patches)
        })
    }

    /// Where each artifact of an update can be written or read, and whether they go straight into their slots: if they come in pieces, or there is no
    /// other room. Then the boot loader starts none of these slots any more.
    pub(super) fn places(&mut self, update: &Update) -> Result<(Vec<Destination>, bool), Error> {
        let Some(installer) = &mut self.installer else { return Ok((Vec::new(), false)) };
        let artifacts: Vec<_> = update.artifacts.iter().map(|it| (it.name.as_str(), it.length)).collect();
        let places = installer.destinations(&update.release.version, &artifacts)?;
        let has_slots = places.len() == artifacts.len() && places.iter().all(|place| place.slot.is_some());
        if !has_slots {
            return Ok((places, false));
        }
        self.running()?;
        self.must_not_be_on_trial()?;
        let has_room = self.lacks_room(&update.artifacts).is_none();
        let in_pieces = update.artifacts.iter().all(|artifact| artifact.files.is_some())
            && update.artifacts.iter().any(UpdateArtifact::comes_in_pieces);
        if has_room && !self.is_complete(&update.release) && (self.keep_fallback || !in_pieces) {
            return Ok((places, false));
        }
        let before = self.overwritten.value().cloned();
        let slots: Vec<_> = places.iter().filter_map(|place| place.slot.as_deref()).zip(&update.artifacts).collect();
        if self.is_complete(&update.release) && !slots.iter().all(|(slot, artifact)| Self::holds(slot, artifact)) {
            // The policy was asked for nothing.
            let was_allowed = self.is_allowed(update);
            self.note_overwritten(&update.release, false, false)?;
            self.must_be_allowed(update, was_allowed, "its slot was changed after it was written")?;
        }
        if before.as_ref().is_none_or(|before| before.release != update.release) {
            self.note_overwritten(&update.release, false, false)?;
        }
        let is_invalid = self.installer()?.invalidate()?;
        // Without room, it is enough that the boot loader keeps the running slot.
        if !is_invalid && has_room {
            match before {
                Some(before) => self.overwritten.save(&self.store, before)?,
                None => self.overwritten.remove(&self.store)?,
            }
            return Ok((places, false));
        }
        if !self.is_complete(&update.release) {
            for (slot, artifact) in slots {
                let failed = |source| Error::File { action: "write", path: slot.to_owned(), source };
                destroy(self.store.disk(), slot, artifact.length).map_err(failed)?;
            }
        }
        Ok((places, true))
    }

    /// Whether a slot holds an artifact.
    fn holds(slot: &Path, artifact: &UpdateArtifact) -> bool {
        let mut checker = artifact.wanted.checker();
        let read = File::open(slot).and_then(|file| feed(&mut file.take(artifact.length), &mut checker));
        matches!(read, Ok(Ok(()))) && checker.finish().is_ok()
    }

    /// The slot that does not run is what a trial falls back to.
    fn must_not_be_on_trial(&mut self) -> Result<(), Error> {
        if let Some(Release { version, sequence, .. }) = self.unrecorded()? {
            return Err(Error::State(format!(
                "{version} (sequence {sequence}) was installed and runs, but is not confirmed, and the other slot is its fallback: run tidegate-device confirm, or restart to go back"
            )));
        }
        let state = &self.machine().state;
        if state.is_unsettled() {
            return Err(Error::State(format!("the device is {}, and the other slot is needed for that", state.name())));
        }
        let on_trial = self.record.value().filter(|record| {
            record.state != InstallState::Confirmed && record.release.sequence == self.profile.installed.sequence
        });
        match on_trial {
            Some(record) => Err(Error::State(format!(
                "{} (sequence {}) is on trial, and the other slot is its fallback: run tidegate-device confirm or reject first",
                record.release.version, record.release.sequence
            ))),
            None => Ok(()),
        }
    }

    /// Notes that the slots are overwritten for a release, before that happens.
    pub(super) fn note_overwritten(&mut self, release: &Release, complete: bool, tried: bool) -> Result<(), Error> {
        let begun = self.overwritten.value().filter(|it| it.release == *release);
        let beside = begun.and_then(|it| it.beside.clone()).or_else(|| self.place.clone());
        let now = Overwritten { release: release.clone(), complete, beside, tried };
        if self.overwritten.value() == Some(&now) { Ok(()) } else { Ok(self.overwritten.save(&self.store, now)?) }
    }

    /// Whether the slots hold all of a release.
    pub(super) fn is_complete(&self, release: &Release) -> bool {
        self.overwritten.value().is_some_and(|it| it.complete && it.release == *release)
    }

    /// The release that was installed and runs although nothing says so: the device stopped before that was written down, or the boot loader was
    /// told to try it by an installation that failed.
    pub(super) fn unrecorded(&mut self) -> Result<Option<Release>, Error> {
        if self.overwritten.value().is_none_or(|it| !it.tried) {
            return Ok(None);
        }
        let running = self.running()?;
        let tried = self.overwritten.value().filter(|it| it.beside.is_some() && it.beside != running);
        Ok(tried.map(|it| it.release.clone()))
    }

    /// Fetches an artifact in pieces: into its slot, or into the state folder. Returns where it is; `None` if only the whole file can be fetched, into
    /// the state folder.
    pub(super) fn deliver(
        &self,
        update: &Update,
        artifact: &UpdateArtifact,
        place: &Destination,
        in_slots: bool,
        watch: &mut dyn FnMut(Progress<'_>) -> Result<(), Error>,
    ) -> Result<Option<PathBuf>, Error> {
        let running = place.running.as_deref();
        if let Some(slot) = place.slot.as_ref().filter(|_| in_slots) {
            if self.is_complete(&update.release) {
                return Ok(Some(slot.clone()));
            }
            let filled = self.fill(update, artifact, slot, running, true, watch)?;
            return Ok(filled.then(|| slot.clone()));
        }
        let path = self.download_path(artifact);
        let part = part_of(&path);
        let failed =
            |action| move |source| Error::File { action, path: part_of(&self.download_path(artifact)), source };
        if !artifact.comes_in_pieces() || path.exists() {
            return Ok(None);
        }
        // It may lead elsewhere.
        if regular_length(&part).map_err(failed("read"))?.is_none() {
            self.store.disk().remove(&part).map_err(failed("remove"))?;
        }
        let filled = self.fill(update, artifact, &part, running, false, watch);
        if matches!(&filled, Err(Error::File { source, .. }) if source.kind() == ErrorKind::StorageFull) {
            // To give the room back.
            self.store.disk().remove(&part).map_err(failed("remove"))?;
        }
        if !filled? {
            return Ok(None);
        }
        self.store.disk().rename(&part, &path).map_err(failed("rename"))?;
        Ok(Some(path))
    }

    /// Fetches an artifact in pieces into `target`. `false` if only the whole file can be fetched, elsewhere.
    fn fill(
        &self,
        update: &Update,
        artifact: &UpdateArtifact,
        target: &Path,
        running: Option<&Path>,
        in_slot: bool,
        watch: &mut dyn FnMut(Progress<'_>) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let is_allowed = self.is_allowed(update);
        let instead = |way| self.instead(update, artifact, way, is_allowed);
        let job = Job {
            instead: &instead,
            fetch: self.updater.fetcher(),
            disk: self.store.disk(),
            retry: self.retry,
            cancel: &self.cancel,
            wanted: &artifact.wanted,
            files: artifact.files.as_ref(),
            ways: &artifact.ways,
            folder: self.store.folder().join("downloads"),
            target,
            running,
        };
        let mut filler = Filler::new(&job, watch)?;
        let mut result = filler.fill();
        // Without room for the whole file, there is no other place for it.
        if in_slot && matches!(result, Ok(None)) && self.lacks_room(std::slice::from_ref(artifact)).is_some() {
            result = filler.whole().map(|()| Some(WayKind::Whole));
        }
        // Also after an error, so that a later call finds it.
        let synced = filler.sync();
        let way = result.as_ref().ok().copied().flatten().or(artifact.ways.first().map(|it| it.way));
        self.spend(way.unwrap_or(WayKind::Whole), filler.fetched());
        let is_filled = result?.is_some();
        synced.map(|()| is_filled)
    }

    /// Whether the policy allows downloading what is missing of an update now.
    pub(super) fn is_allowed(&self, update: &Update) -> bool {
        self.judge_now(Step::Download, update).allows()
    }

    /// Notes that a way to fetch an artifact failed. If the policy allowed it, it is asked about the next one.
    pub(super) fn instead(
        &self,
        update: &Update,
        artifact: &UpdateArtifact,
        failed: WayKind,
        was_allowed: bool,
    ) -> Result<(), Error> {
        self.unusable.set(Some((artifact.sha256, failed, self.updater.elapsed().saturating_add(DECISION))));
        self.must_be_allowed(update, was_allowed, &format!("it cannot be fetched as {}", failed.name()))
    }

    /// Ends the download if the policy, which allowed it, does not allow what it takes now.
    fn must_be_allowed(&self, update: &Update, was_allowed: bool, because: &str) -> Result<(), Error> {
        let judgement = self.judge_now(Step::Download, update);
        if !was_allowed || judgement.allows() {
            return Ok(());
        }
        self.is_barred.set(true);
        let why = format!("{because}, and {}", judgement.why());
        Err(Error::Outdated { release: update.release.version.to_string(), why })
    }

    /// The bytes of the cheapest way to an artifact that did not fail lately.
    pub(super) fn cheapest(&self, artifact: &UpdateArtifact) -> u64 {
        let failed = self
            .unusable
            .get()
            .filter(|(sha256, _, until)| *sha256 == artifact.sha256 && self.updater.elapsed() < *until);
        let after = failed.and_then(|(_, failed, _)| artifact.ways.iter().position(|it| it.way == failed));
        artifact.ways.get(after.map_or(0, |at| at + 1)).map_or(artifact.length, |way| way.bytes)
    }

    /// Adds to what the download took.
    pub(super) fn spend(&self, way: WayKind, bytes: u64) {
        let (spent, most) = self.spent.get().unwrap_or((DeliveryCost { way, bytes: 0 }, 0));
        let way = if bytes >= most { way } else { spent.way };
        self.spent.set(Some((DeliveryCost { way, bytes: spent.bytes.saturating_add(bytes) }, bytes.max(most))));
    }
}

/// Destroys the beginning of a slot, durably: what an older release left there would make a mixture look whole.
fn destroy(disk: &Disk, slot: &Path, length: u64) -> io::Result<()> {
    let mut file = disk.open(slot)?;
    file.set_length(length)?;
    // No more than what the first piece or chunk has, so that no other must come again.
    file.write_at(0, &vec![0; usize::try_from(length).unwrap_or(MIN_CHUNK).min(MIN_CHUNK)])?;
    file.sync()
}

impl Update {
    /// Its length in bytes: that of all its artifacts.
    pub fn length(&self) -> u64 {
        self.artifacts.iter().map(|artifact| artifact.length).fold(0, u64::saturating_add)
    }

    /// How each artifact can be fetched, one a line, the cheapest way first; empty if each comes as it is.
    pub fn ways(&self) -> String {
        let mut text = String::new();
        for UpdateArtifact { name, ways, .. } in self.artifacts.iter().filter(|artifact| artifact.ways.len() > 1) {
            let ways: Vec<_> = ways.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "fetch {name}: {}", ways.join("; else "));
        }
        text
    }
}

impl UpdateArtifact {
    /// Whether the cheapest way to fetch it is not the whole file.
    fn comes_in_pieces(&self) -> bool {
        self.ways.first().is_some_and(|it| it.way != WayKind::Whole)
    }

    /// The artifact in this file or slot, for the installer.
    pub(super) fn at(&self, path: PathBuf) -> install::Artifact {
        let (name, hashes) = (self.name.clone(), self.wanted.hashes.clone());
        install::Artifact { name, path, length: self.length, hashes }
    }
}

/// The names in the folder of downloads that belong to an artifact.
pub(super) fn files_of(artifact: &UpdateArtifact) -> Vec<String> {
    let files = artifact.files.iter().flat_map(|files| {
        let directory = files.patch.as_ref().map(|(_, directory)| directory.sha256);
        [Some(files.index.file.sha256), directory]
    });
    let names = files.flatten().chain([artifact.sha256]).map(|sha256| sha256.to_string());
    names.flat_map(|name| [format!("{name}.part"), format!("{name}.records"), name]).collect()
}

/// How many bytes of a file are there: one that is filled in pieces has holes.
pub(super) fn allocated(metadata: &Metadata) -> u64 {
    #[cfg(unix)]
    {
        metadata.len().min(std::os::unix::fs::MetadataExt::blocks(metadata).saturating_mul(512))
    }
    #[cfg(not(unix))]
    metadata.len()
}

//! Downloading an update's artifacts.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::{Check, Device, Update, UpdateArtifact};
use crate::download::{Progress, download, part_of};
use crate::error::{Error, Fault};
use crate::install::Artifact;
use crate::retry::jitter;
use tidegate_tuf::hash::Checker;

/// How long a download continues before the device decides again.
const DECISION: Duration = Duration::from_secs(24 * 3600);

/// An update whose artifacts are downloaded and verified.
#[derive(Debug, Clone)]
pub struct Downloaded {
    pub(super) update: Update,
    pub(super) artifacts: Vec<Artifact>,
}

impl Downloaded {
    /// The update.
    pub fn update(&self) -> &Update {
        &self.update
    }

    /// The downloaded files.
    pub fn artifacts(&self) -> &[Artifact] {
        &self.artifacts
    }
}

impl Device {
    /// Downloads an update's artifacts into the state folder. Resumes partial downloads and removes those of other updates. Every 24 hours,
    /// the device refreshes and decides again.
    ///
    /// # Errors
    ///
    /// [`Error::NoRoom`] before the first request if there is too little space. Network errors are retried as
    /// often as the device's [`Retry`](crate::retry::Retry) allows. [`Error::Outdated`] if the decision changes; partial downloads are kept.
    pub fn download(&mut self, update: &Update, progress: &mut dyn FnMut(&str, Progress)) -> Result<Downloaded, Error> {
        let mut update = update.clone();
        loop {
            match self.download_for_a_day(&update, progress) {
                Err(Error::Outdated { .. }) => update = self.decide_again(&update)?,
                result => return result,
            }
        }
    }

    /// Refreshes and decides again. Without a network, the device goes by what it trusts, as far as that has not expired.
    ///
    /// # Errors
    ///
    /// [`Error::Outdated`] unless the decision is to install the same release; as for [`check`](Device::check).
    pub(crate) fn decide_again(&mut self, update: &Update) -> Result<Update, Error> {
        let profile = self.profile.clone();
        let mut check = self.check_as(&profile, None, false);
        if check.as_ref().is_err_and(|error| error.fault() == Fault::Network) {
            check = self.check_offline();
        }
        let Check { explanation, update: again, .. } = check?;
        let outdated = || outdated(update, explanation.outcome.to_string());
        again.filter(|again| again.release == update.release).ok_or_else(outdated)
    }

    fn download_for_a_day(
        &self,
        update: &Update,
        progress: &mut dyn FnMut(&str, Progress),
    ) -> Result<Downloaded, Error> {
        let due = self.updater.elapsed().saturating_add(DECISION);
        self.remove_downloads_but(update);
        self.must_have_room(update)?;
        let mut artifacts = Vec::new();
        for artifact in &update.artifacts {
            let path = self.download_path(artifact);
            self.updater.fetcher().begin(artifact.visit.clone());
            let mut failures = 0;
            loop {
                let mut most = 0;
                let mut watched = |at: Progress| {
                    most = at.done;
                    progress(&artifact.name, at);
                    if self.updater.elapsed() < due { Ok(()) } else { Err(outdated(update, String::new())) }
                };
                let before = length(&part_of(&path));
                match download(self.updater.fetcher(), self.store.disk(), &artifact.wanted, &path, &mut watched) {
                    Ok(()) => break,
                    Err(e) if e.fault() == Fault::Network && failures < self.retry.times => {
                        // Progress resets the number of attempts.
                        failures = if most > before { 1 } else { failures + 1 };
                        thread::sleep(self.retry.pause(failures, jitter()));
                    }
                    Err(e) => return Err(e),
                }
            }
            artifacts.push(Artifact {
                name: artifact.name.clone(),
                path,
                length: artifact.length,
                hashes: artifact.wanted.hashes.clone(),
            });
        }
        Ok(Downloaded { update: update.clone(), artifacts })
    }

    /// Hashes the downloaded files again. Removes a file that has changed.
    ///
    /// # Errors
    ///
    /// [`Error::WrongTarget`] if an artifact changed since it was verified, [`Error::File`] if it cannot be read.
    pub fn verify(&self, downloaded: &Downloaded) -> Result<(), Error> {
        for (artifact, wanted) in downloaded.artifacts.iter().zip(&downloaded.update.artifacts) {
            let failed = |source| Error::File { action: "read", path: artifact.path.clone(), source };
            let mut file = fs::File::open(&artifact.path).map_err(failed)?;
            let mut checker = Checker::new(Some(artifact.length), Some(&artifact.hashes));
            let fed = crate::download::feed(&mut file, &mut checker).map_err(failed)?;
            if let Err(mismatch) = fed.and_then(|()| checker.finish()) {
                let _ = self.store.disk().remove(&artifact.path);
                let (path, url) = (wanted.wanted.name.clone(), artifact.path.display().to_string());
                return Err(Error::WrongTarget { path, url, mismatch });
            }
        }
        Ok(())
    }

    /// The maximum number of bytes still to fetch for an update.
    pub(super) fn missing(&self, update: &Update) -> u64 {
        let missing = |artifact: &UpdateArtifact| {
            let path = self.download_path(artifact);
            let here = length(&path).max(length(&part_of(&path)));
            // A longer part belongs to another file.
            if here > artifact.length { artifact.length } else { artifact.length - here }
        };
        update.artifacts.iter().map(missing).fold(0, u64::saturating_add)
    }

    fn must_have_room(&self, update: &Update) -> Result<(), Error> {
        let missing = self.missing(update);
        if missing == 0 {
            return Ok(());
        }
        let needed = missing.saturating_add(self.reserve);
        let path = self.store.folder().to_owned();
        match self.store.disk().room(&path) {
            Ok(Some(free)) if free < needed => Err(Error::NoRoom { path, free, needed }),
            // If the free space is unknown, a full disk is reported on writing.
            _ => Ok(()),
        }
    }

    fn download_path(&self, artifact: &UpdateArtifact) -> PathBuf {
        self.store.folder().join("downloads").join(artifact.sha256.to_string())
    }

    /// Removes downloads that are not part of this update.
    fn remove_downloads_but(&self, update: &Update) {
        let paths = update.artifacts.iter().map(|artifact| self.download_path(artifact));
        let keep: Vec<PathBuf> = paths.flat_map(|path| [part_of(&path), path]).collect();
        let entries = fs::read_dir(self.store.folder().join("downloads")).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| !keep.contains(path)) {
            let _ = self.store.disk().remove(&path);
        }
    }

    /// Removes all downloads. A file that cannot be removed now is removed before the next download.
    pub(super) fn remove_downloads(&self) {
        let entries = fs::read_dir(self.store.folder().join("downloads")).into_iter().flatten().flatten();
        for entry in entries {
            let _ = self.store.disk().remove(&entry.path());
        }
    }
}

fn outdated(update: &Update, why: String) -> Error {
    Error::Outdated { release: update.release.version.to_string(), why }
}

fn length(path: &std::path::Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| if metadata.is_file() { metadata.len() } else { 0 })
}

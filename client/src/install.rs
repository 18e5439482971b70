//! Installing what was downloaded: one trait, a slot that is a file, and a stub.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use semver::Version;

use crate::disk::Disk;
use crate::tuf::hash::{Checker, Hashes, Mismatch};

/// A verified artifact on disk, ready to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its name in the manifest.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub length: u64,
    /// Its hashes, to be checked once more on the way into the slot.
    pub hashes: Hashes,
}

/// Puts a release where the device will run it from.
pub trait Installer {
    /// Installs all artifacts of a release, or errs and leaves the device as it can still run.
    ///
    /// What was downloaded was verified then; an installer reads it again, so it verifies again what it reads.
    fn install(&mut self, version: &Version, artifacts: &[Artifact]) -> Result<(), InstallError>;
}

/// Why a release could not be installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// A file could not be read or written.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What was downloaded has changed since.
    #[error("{path}: no longer the file that was verified: {mismatch}")]
    Changed {
        /// The downloaded file.
        path: PathBuf,
        /// How it differs.
        mismatch: Mismatch,
    },
    /// What was written does not read back as it was.
    #[error("{path}: does not read back as it was written ({mismatch}); the storage may be failing")]
    ReadBack {
        /// The slot.
        path: PathBuf,
        /// How it differs.
        mismatch: Mismatch,
    },
    /// The release does not suit the installer.
    #[error("{0}")]
    Unsuitable(String),
}

/// A slot that is one file: it holds the old image or the new one, never a part of either.
#[derive(Debug, Clone)]
pub struct FileSlot {
    path: PathBuf,
    disk: Disk,
}

impl FileSlot {
    /// A slot at this path. The file need not exist yet; its folder must.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::on(Disk::new(), path)
    }

    /// The same, on a disk that may have a plan of faults.
    pub fn on(disk: Disk, path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), disk }
    }

    fn io(&self, action: &'static str) -> impl Fn(io::Error) -> InstallError + '_ {
        move |source| InstallError::Io { action, path: self.path.clone(), source }
    }

    /// Copies into `new` and syncs it.
    fn write(&self, artifact: &Artifact, new: &Path) -> Result<(), InstallError> {
        let reading = |source| InstallError::Io { action: "read", path: artifact.path.clone(), source };
        let changed = |mismatch| InstallError::Changed { path: artifact.path.clone(), mismatch };
        let mut source = File::open(&artifact.path).map_err(reading)?;
        let mut slot = self.disk.create(new).map_err(self.io("write"))?;
        let mut checker = Checker::new(Some(artifact.length), Some(&artifact.hashes));
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = source.read(&mut buffer).map_err(reading)?;
            if count == 0 {
                break;
            }
            let bytes = buffer.get(..count).unwrap_or_default();
            checker.update(bytes).map_err(changed)?;
            slot.append(bytes).map_err(self.io("write"))?;
        }
        checker.finish().map_err(changed)?;
        slot.sync().map_err(self.io("write"))
    }

    fn read_back(&self, artifact: &Artifact, new: &Path) -> Result<(), InstallError> {
        let differs = |mismatch| InstallError::ReadBack { path: self.path.clone(), mismatch };
        let mut file = File::open(new).map_err(self.io("read back"))?;
        let mut checker = Checker::new(Some(artifact.length), Some(&artifact.hashes));
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = file.read(&mut buffer).map_err(self.io("read back"))?;
            if count == 0 {
                return checker.finish().map_err(differs);
            }
            checker.update(buffer.get(..count).unwrap_or_default()).map_err(differs)?;
        }
    }
}

impl Installer for FileSlot {
    fn install(&mut self, version: &Version, artifacts: &[Artifact]) -> Result<(), InstallError> {
        let [artifact] = artifacts else {
            let count = artifacts.len();
            let reason = format!("a file slot takes one artifact, and release {version} has {count} for this device");
            return Err(InstallError::Unsuitable(reason));
        };
        let name = self.path.file_name().ok_or_else(|| {
            InstallError::Unsuitable(format!("{}: a slot must be a file, not a folder", self.path.display()))
        })?;
        let mut new = name.to_owned();
        new.push(".new");
        let new = self.path.with_file_name(new);
        self.write(artifact, &new)
            .and_then(|()| self.read_back(artifact, &new))
            .and_then(|()| self.disk.rename(&new, &self.path).map_err(self.io("rename the new image into")))
            .inspect_err(|_| {
                // It would only take room; the next attempt starts over.
                let _ = self.disk.remove(&new);
            })
    }
}

/// An installer that only notes what it was given, and fails if told to. Clones share what they note. For tests.
#[derive(Debug, Clone, Default)]
pub struct StubInstaller(Arc<Mutex<Stub>>);

#[derive(Debug, Default)]
struct Stub {
    installed: Vec<(Version, Vec<Artifact>)>,
    failure: Option<String>,
}

impl StubInstaller {
    /// A stub that installs nothing, successfully.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fails the next installation.
    pub fn fail_next(&self, reason: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).failure = Some(reason.into());
    }

    /// What was installed, in order.
    pub fn installed(&self) -> Vec<(Version, Vec<Artifact>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).installed.clone()
    }
}

impl Installer for StubInstaller {
    fn install(&mut self, version: &Version, artifacts: &[Artifact]) -> Result<(), InstallError> {
        let mut stub = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = stub.failure.take() {
            return Err(InstallError::Unsuitable(reason));
        }
        stub.installed.push((version.clone(), artifacts.to_vec()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::disk::Faults;

    fn artifact(folder: &Path, bytes: &[u8]) -> Artifact {
        let path = folder.join("downloaded");
        fs::write(&path, bytes).unwrap();
        let hashes = Hashes::sha256(Sha256::digest(bytes).into());
        Artifact { name: "image".into(), path, length: bytes.len() as u64, hashes }
    }

    fn version() -> Version {
        Version::new(1, 2, 3)
    }

    #[test]
    fn the_slot_has_the_old_image_or_the_new_wherever_it_stops() {
        let folder = tempfile::tempdir().unwrap();
        let slot = folder.path().join("slot");
        let image = artifact(folder.path(), &vec![9; 200_000]);
        let counted = Faults::none();
        FileSlot::on(Disk::with_faults(counted.clone()), &slot)
            .install(&version(), std::slice::from_ref(&image))
            .unwrap();
        for n in 0..counted.steps() {
            fs::write(&slot, b"old").unwrap();
            let mut stopped = FileSlot::on(Disk::with_faults(Faults::stop_at(n)), &slot);
            stopped.install(&version(), std::slice::from_ref(&image)).unwrap_err();
            let content = fs::read(&slot).unwrap();
            assert!(content == b"old" || content.len() == 200_000, "stopped at {n}");
            FileSlot::new(&slot).install(&version(), std::slice::from_ref(&image)).unwrap();
            assert_eq!(fs::read(&slot).unwrap().len(), 200_000);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "stopped at {n}");
        }
    }

    #[test]
    fn a_full_disk_leaves_the_old_image() {
        let folder = tempfile::tempdir().unwrap();
        let slot = folder.path().join("slot");
        fs::write(&slot, b"old").unwrap();
        let image = artifact(folder.path(), &vec![9; 200_000]);
        for n in 0..4 {
            let mut full = FileSlot::on(Disk::with_faults(Faults::full_from(n)), &slot);
            full.install(&version(), std::slice::from_ref(&image)).unwrap_err();
            assert_eq!(fs::read(&slot).unwrap(), b"old");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "full from {n}");
        }
    }

    #[test]
    fn what_changed_after_it_was_verified_is_not_installed() {
        let folder = tempfile::tempdir().unwrap();
        let slot = folder.path().join("slot");
        let image = artifact(folder.path(), b"verified");
        for changed in [&b"Verified"[..], b"verifie", b"verified!", b""] {
            fs::write(&image.path, changed).unwrap();
            let error = FileSlot::new(&slot).install(&version(), std::slice::from_ref(&image)).unwrap_err();
            assert!(matches!(error, InstallError::Changed { .. }), "{error}");
            assert!(!slot.exists());
        }
        fs::remove_file(&image.path).unwrap();
        assert!(FileSlot::new(&slot).install(&version(), &[image]).is_err());
    }

    #[test]
    fn a_file_slot_takes_one_artifact() {
        let folder = tempfile::tempdir().unwrap();
        let image = artifact(folder.path(), b"image");
        let mut slot = FileSlot::new(folder.path().join("slot"));
        assert!(matches!(slot.install(&version(), &[]), Err(InstallError::Unsuitable(_))));
        assert!(matches!(slot.install(&version(), &[image.clone(), image]), Err(InstallError::Unsuitable(_))));
    }
}

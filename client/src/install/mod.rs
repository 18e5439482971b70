//! Installing what was downloaded: one trait, and what implements it.
//!
//! | installer | for | goes back |
//! |---|---|---|
//! | [`SlotInstaller`] | two slots, files or block devices, and a boot loader that chooses | through the boot loader |
//! | [`CommandInstaller`] | any program: RAUC, SWUpdate, systemd-sysupdate, a script | if the program can |
//! | [`DirectoryInstaller`] | a tree of files that a link points to | by the link |
//! | [`FileSlot`] | one file that something else picks up | no |
//! | [`StubInstaller`] | tests | no |
//!
//! All keep the same promises, and one suite of tests holds them to these:
//!
//! - What runs is not touched. Stopped at any instant, the device still runs what it ran, or already the whole new release.
//! - Every byte is hashed once more on its way, and what was written is read back.
//! - Installing again, after a stop or a failure, completes.
//! - What takes effect is on trial: [`Installer::revert`] undoes it until [`Installer::confirm`] makes it stay.

mod boot;
mod command;
mod copy;
mod directory;
mod file_slot;
mod place;
mod slot;
mod stub;

use std::io;
use std::path::PathBuf;

use tidegate_model::version::Version;

pub use boot::{Boot, BootError, BootHook, Slot, StubBoot};
pub use command::CommandInstaller;
pub use directory::DirectoryInstaller;
pub use file_slot::FileSlot;
pub use place::Place;
pub use slot::{SlotImage, SlotInstaller};
pub use stub::StubInstaller;

use crate::command::CommandError;
use tidegate_tuf::hash::{Hashes, Mismatch};

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
    /// Installs all artifacts of a release.
    ///
    /// What was downloaded was verified then; an installer reads it again, so it verifies again what it reads. Where the
    /// device must restart for the release to run, the next restart runs it, on trial.
    ///
    /// # Errors
    ///
    /// [`InstallError`]; the device can still run what it ran.
    fn install(&mut self, version: &Version, artifacts: &[Artifact]) -> Result<(), InstallError>;

    /// What runs now, by a name that differs between what ran before an installation and what it installed.
    ///
    /// `None`, the default, is for installers that cannot tell: their releases are taken to run at once.
    ///
    /// # Errors
    ///
    /// [`InstallError`] if the running place cannot be determined.
    fn running(&mut self) -> Result<Option<Place>, InstallError> {
        Ok(None)
    }

    /// Makes what runs now stay. It may be called again.
    ///
    /// # Errors
    ///
    /// [`InstallError`] if the confirmation cannot be recorded.
    fn confirm(&mut self) -> Result<(), InstallError> {
        Ok(())
    }

    /// Makes `before`, which [`running`](Self::running) named then, the one to run, now or from the next restart on. It may
    /// be called again.
    ///
    /// # Errors
    ///
    /// [`InstallError`] if the previous place cannot be restored.
    fn revert(&mut self, before: &Place) -> Result<(), InstallError> {
        Err(InstallError::Unsuitable(format!("this installer cannot go back to {before}")))
    }
}

impl<T: Installer + ?Sized> Installer for Box<T> {
    fn install(&mut self, version: &Version, artifacts: &[Artifact]) -> Result<(), InstallError> {
        (**self).install(version, artifacts)
    }

    fn running(&mut self) -> Result<Option<Place>, InstallError> {
        (**self).running()
    }

    fn confirm(&mut self) -> Result<(), InstallError> {
        (**self).confirm()
    }

    fn revert(&mut self, before: &Place) -> Result<(), InstallError> {
        (**self).revert(before)
    }
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
    /// A slot has less room than the artifact needs.
    #[error("{path}: has room for {room} bytes, and {name} has {length}")]
    TooSmall {
        /// The slot.
        path: PathBuf,
        /// Its size in bytes.
        room: u64,
        /// The artifact.
        name: String,
        /// The artifact's length in bytes.
        length: u64,
    },
    /// The boot loader's hook failed.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A program that installs could not be run, or failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The program that installs says that this release will never do on this device.
    #[error("the installer rejects this release: {0}")]
    Rejected(String),
    /// The release does not suit the installer.
    #[error("{0}")]
    Unsuitable(String),
}

impl InstallError {
    /// Whether trying the same release again is of no use: nothing that can change on this device is the cause.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Rejected(_) | Self::Unsuitable(_) | Self::TooSmall { .. })
    }

    /// Whether a download turned out to be spoiled: fetching it again may help.
    pub fn is_spoiled(&self) -> bool {
        matches!(self, Self::Changed { .. })
    }
}

/// The one artifact of a release, for installers that take one.
fn only<'a>(what: &str, version: &Version, artifacts: &'a [Artifact]) -> Result<&'a Artifact, InstallError> {
    if let [artifact] = artifacts {
        return Ok(artifact);
    }
    let count = artifacts.len();
    Err(InstallError::Unsuitable(format!(
        "{what} takes one artifact, and release {version} has {count} for this device"
    )))
}

#[cfg(test)]
mod suite;

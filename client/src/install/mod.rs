//! Installing a downloaded release: one trait and its implementations.
//!
//! | installer | for | rollback |
//! |---|---|---|
//! | [`SlotInstaller`] | two slots, files or block devices, and a boot loader that chooses | through the boot loader |
//! | [`CommandInstaller`] | any program: RAUC, SWUpdate, systemd-sysupdate, a script | if the program can |
//! | [`DirectoryInstaller`] | a tree of files that a link points to | by the link |
//! | [`FileSlot`] | one file that another program uses | no |
//! | [`StubInstaller`] | tests | no |
//!
//! All give the same guarantees, which one test suite checks:
//!
//! - The running release is not changed. After an interruption at any instant, the device runs either the old or the complete new release.
//! - Every byte is hashed again during the copy, and the written data is read back.
//! - A repeated installation, after an interruption or a failure, completes.
//! - A new release is on trial: [`Installer::revert`] undoes it until [`Installer::confirm`] makes it permanent.

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
use crate::watch::{Cancel, Cancelled, Watch};
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
    /// Its hashes, which are checked again during the installation.
    pub hashes: Hashes,
}

/// Where an installer takes an artifact, and where the running release's one can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Destination {
    /// The file or block device that may be written before the installation, if there is one.
    pub slot: Option<PathBuf>,
    /// The running release's artifact. It may be longer than that, or changed.
    pub running: Option<PathBuf>,
}

/// Installs releases on the device.
pub trait Installer {
    /// Installs all artifacts of a release.
    ///
    /// The download was verified, but an installer reads it again and therefore verifies it again. If the
    /// release needs a restart, the next restart runs it on trial. `watch` is told how far it is, at least once a second; where it says
    /// so, the installation ends as after any other error.
    ///
    /// # Errors
    ///
    /// [`InstallError`]; the device can still run the old release.
    fn install(&mut self, version: &Version, artifacts: &[Artifact], watch: &mut Watch<'_>)
    -> Result<(), InstallError>;

    /// Whether the running release's artifacts can be read, so that [`destinations`](Self::destinations) says where.
    fn reads_running(&self) -> bool {
        false
    }

    /// Where each of these artifacts, by name and length, can be written, or read in the running release. Checks that they fit, and writes nothing.
    ///
    /// None, the default, is for installers that take files alone. An artifact that was written to its [`slot`](Destination::slot) is
    /// installed from there.
    ///
    /// # Errors
    ///
    /// [`InstallError`] if the artifacts do not suit the installer, or it cannot determine what runs.
    fn destinations(&mut self, version: &Version, artifacts: &[(&str, u64)]) -> Result<Vec<Destination>, InstallError> {
        let _ = (version, artifacts);
        Ok(Vec::new())
    }

    /// Prevents, durably, that what is in the slots of [`destinations`](Self::destinations) starts: called before their first byte is written.
    /// `false` if that is not possible.
    ///
    /// # Errors
    ///
    /// [`InstallError`] if it fails.
    fn invalidate(&mut self) -> Result<bool, InstallError> {
        Ok(false)
    }

    /// Whether it takes artifacts of these names. A release that it does not take is a decision, not a failure. The default takes all.
    ///
    /// # Errors
    ///
    /// Why not, as a sentence without a full stop.
    fn accepts(&self, _artifacts: &[&str]) -> Result<(), String> {
        Ok(())
    }

    /// Checks, without a change, whether an installation can begin now. The default finds nothing wrong.
    ///
    /// # Errors
    ///
    /// What the owner of the device can correct, such as a slot that is mounted.
    fn ready(&mut self) -> Result<(), InstallError> {
        Ok(())
    }

    /// Tells it the token that ends what it does: programs that it runs end with it. Called before anything else.
    fn cancelled_by(&mut self, _cancel: &Cancel) {}

    /// The name of what runs now. The old and the new release have different names.
    ///
    /// `None`, the default, is for installers that cannot determine this. Their releases count as running at once.
    ///
    /// # Errors
    ///
    /// [`InstallError`] if the running place cannot be determined.
    fn running(&mut self) -> Result<Option<Place>, InstallError> {
        Ok(None)
    }

    /// Makes the running release permanent. It may be called again.
    ///
    /// # Errors
    ///
    /// [`InstallError`] if the confirmation cannot be recorded.
    fn confirm(&mut self) -> Result<(), InstallError> {
        Ok(())
    }

    /// Makes `before`, a name from [`running`](Self::running), run again, now or from the next restart on. It may
    /// be called again.
    ///
    /// # Errors
    ///
    /// [`InstallError`] if the previous place cannot be restored.
    fn revert(&mut self, before: &Place) -> Result<(), InstallError> {
        Err(InstallError::Unsuitable(format!("this installer cannot restore {before}")))
    }
}

impl<T: Installer + ?Sized> Installer for Box<T> {
    fn install(
        &mut self,
        version: &Version,
        artifacts: &[Artifact],
        watch: &mut Watch<'_>,
    ) -> Result<(), InstallError> {
        (**self).install(version, artifacts, watch)
    }

    fn reads_running(&self) -> bool {
        (**self).reads_running()
    }

    fn destinations(&mut self, version: &Version, artifacts: &[(&str, u64)]) -> Result<Vec<Destination>, InstallError> {
        (**self).destinations(version, artifacts)
    }

    fn invalidate(&mut self) -> Result<bool, InstallError> {
        (**self).invalidate()
    }

    fn accepts(&self, artifacts: &[&str]) -> Result<(), String> {
        (**self).accepts(artifacts)
    }

    fn ready(&mut self) -> Result<(), InstallError> {
        (**self).ready()
    }

    fn cancelled_by(&mut self, cancel: &Cancel) {
        (**self).cancelled_by(cancel);
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
    /// The caller ended it.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A file could not be read or written.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The downloaded file changed after it was verified.
    #[error("{path}: changed since it was verified: {mismatch}")]
    Changed {
        /// The downloaded file.
        path: PathBuf,
        /// How it differs.
        mismatch: Mismatch,
    },
    /// The written data does not match when it is read back.
    #[error("{path}: differs when read back ({mismatch}); the storage may be failing")]
    ReadBack {
        /// The slot.
        path: PathBuf,
        /// How it differs.
        mismatch: Mismatch,
    },
    /// A slot is smaller than the artifact.
    #[error("{path}: has space for {room} bytes, but {name} has {length}")]
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
    /// An installing program could not be run, or failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The installing program permanently rejects this release on this device.
    #[error("the installer rejects this release: {0}")]
    Rejected(String),
    /// The settings of the installer, or the state of the device, prevent the installation.
    #[error("{0}")]
    Unsuitable(String),
}

impl InstallError {
    /// The stable name of this kind of error, one of [those of all errors](crate::Error::code).
    pub fn code(&self) -> &'static str {
        match self {
            Self::Cancelled(_) => "cancelled",
            Self::Io { .. } => "install-io",
            Self::Changed { .. } => "install-changed",
            Self::ReadBack { .. } => "install-read-back",
            Self::TooSmall { .. } => "install-too-small",
            Self::Boot(BootError::Hook(e)) | Self::Command(e) => e.code(),
            Self::Boot(BootError::NoSlot(_)) => "boot-no-slot",
            Self::Rejected(_) => "install-rejected",
            Self::Unsuitable(_) => "install-unsuitable",
        }
    }

    /// Whether the release itself is at fault, so that a retry is useless. Everything else is something that the owner of the
    /// device can correct, such as a setting, a mount, space or a missing program: the device tries again later.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Rejected(_))
    }

    /// Whether the download is corrupt, so that a new download may help.
    pub fn is_spoiled(&self) -> bool {
        matches!(self, Self::Changed { .. })
    }
}

/// The names of artifacts.
fn names(artifacts: &[Artifact]) -> Vec<&str> {
    artifacts.iter().map(|artifact| artifact.name.as_str()).collect()
}

//! Two slots: one runs while the other is written.

use std::io;
use std::path::{Path, PathBuf};

use tidegate_model::version::Version;

use super::boot::{Boot, Slot};
use super::copy::{copy, read_back};
use super::{Artifact, InstallError, Installer, Place};
use crate::disk::Disk;

/// The destinations of one artifact: a file or block device in each slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotImage {
    /// The artifact's name in the manifest; optional if the slots accept one artifact.
    pub artifact: Option<String>,
    /// The path in slot a.
    pub a: PathBuf,
    /// The path in slot b.
    pub b: PathBuf,
}

impl SlotImage {
    /// The only image of slots that accept one artifact.
    pub fn only(a: impl Into<PathBuf>, b: impl Into<PathBuf>) -> Self {
        Self { artifact: None, a: a.into(), b: b.into() }
    }

    fn of(&self, slot: Slot) -> &Path {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }
}

/// Writes the inactive slot, verifies it by reading it back, and makes the boot loader try it.
///
/// Before the first byte is written, the boot loader is set to keep the running slot, so that a restart never starts a
/// partially written slot.
pub struct SlotInstaller<B> {
    images: Vec<SlotImage>,
    boot: B,
    disk: Disk,
}

impl<B: Boot> SlotInstaller<B> {
    /// Slots made of these images.
    ///
    /// # Errors
    ///
    /// [`InstallError::Unsuitable`] if there is no image, one of several images has no artifact name, two have the same one, or a path is used twice.
    pub fn new(images: Vec<SlotImage>, boot: B) -> Result<Self, InstallError> {
        let bad = |reason: &str| Err(InstallError::Unsuitable(format!("the slot settings are wrong: {reason}")));
        if images.is_empty() {
            return bad("there is no image");
        }
        if images.len() > 1 && images.iter().any(|image| image.artifact.is_none()) {
            return bad("each of several images must name its artifact");
        }
        let distinct = |mut names: Vec<&std::ffi::OsStr>| {
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            names.len() == count
        };
        if !distinct(images.iter().flat_map(|image| &image.artifact).map(std::convert::AsRef::as_ref).collect()) {
            return bad("two images have the same artifact");
        }
        if !distinct(images.iter().flat_map(|image| [image.a.as_os_str(), image.b.as_os_str()]).collect()) {
            return bad("a path is used twice");
        }
        Ok(Self { images, boot, disk: Disk::new() })
    }

    /// The same, on a disk that can inject faults.
    #[must_use]
    pub fn on(self, disk: Disk) -> Self {
        Self { disk, ..self }
    }

    /// The artifact for each image.
    fn pairs<'a>(
        &'a self,
        version: &Version,
        artifacts: &'a [Artifact],
    ) -> Result<Vec<(&'a SlotImage, &'a Artifact)>, InstallError> {
        let takes =
            |image: &SlotImage, artifact: &Artifact| image.artifact.as_ref().is_none_or(|n| *n == artifact.name);
        let pairs: Vec<_> = self
            .images
            .iter()
            .filter_map(|image| Some((image, artifacts.iter().find(|artifact| takes(image, artifact))?)))
            .collect();
        if pairs.len() == self.images.len() && pairs.len() == artifacts.len() {
            return Ok(pairs);
        }
        let wanted: Vec<_> = self.images.iter().map(|image| image.artifact.as_deref().unwrap_or("(any)")).collect();
        let found: Vec<_> = artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
        let (wanted, found) = (wanted.join(", "), found.join(", "));
        let reason = format!("the slots accept the artifacts {wanted}, but release {version} has {found}");
        Err(InstallError::Unsuitable(reason))
    }

    fn write(&self, image: &SlotImage, target: Slot, artifact: &Artifact) -> Result<(), InstallError> {
        let path = image.of(target);
        let io = |action| move |source: io::Error| InstallError::Io { action, path: path.to_owned(), source };
        for other in self.images.iter().map(|image| image.of(target.other())) {
            if is_same(path, other).map_err(io("look at"))? {
                let running = other.display();
                let reason = format!("{}: this is the running slot {running}, which is never written", path.display());
                return Err(InstallError::Unsuitable(reason));
            }
        }
        if let Some(point) = mounted_at(path) {
            let reason =
                format!("{}: mounted at {point}; a slot must not be in use while it is written", path.display());
            return Err(InstallError::Unsuitable(reason));
        }
        let (mut slot, room) = self.disk.overwrite(path).map_err(io("open"))?;
        if let Some(room) = room.filter(|room| *room < artifact.length) {
            let (name, length) = (artifact.name.clone(), artifact.length);
            return Err(InstallError::TooSmall { path: path.to_owned(), room, name, length });
        }
        copy(artifact, &mut slot, path)?;
        read_back(&self.disk, artifact, path)
    }
}

impl<B: Boot> Installer for SlotInstaller<B> {
    fn install(&mut self, version: &Version, artifacts: &[Artifact]) -> Result<(), InstallError> {
        // First, because an artifact that does not fit must change nothing.
        self.pairs(version, artifacts)?;
        let running = self.boot.running()?;
        self.boot.keep(running)?;
        for (image, artifact) in self.pairs(version, artifacts)? {
            self.write(image, running.other(), artifact)?;
        }
        Ok(self.boot.attempt(running.other())?)
    }

    fn running(&mut self) -> Result<Option<Place>, InstallError> {
        Ok(Some(self.boot.running()?.to_string()))
    }

    fn confirm(&mut self) -> Result<(), InstallError> {
        let running = self.boot.running()?;
        Ok(self.boot.keep(running)?)
    }

    fn revert(&mut self, before: &Place) -> Result<(), InstallError> {
        let slot = Slot::named(before)
            .ok_or_else(|| InstallError::Unsuitable(format!("{before:?} is not a slot: use a or b")))?;
        Ok(self.boot.keep(slot)?)
    }
}

/// Whether two paths lead to the same file or device. A missing path is not the same as any other.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let real = |path: &Path| match path.canonicalize() {
        Ok(path) => Ok(Some(path)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    };
    let (Some(one), Some(other)) = (real(one)?, real(other)?) else { return Ok(false) };
    if one == other {
        return Ok(true);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
        let (one, other) = (one.metadata()?, other.metadata()?);
        let same_file = (one.dev(), one.ino()) == (other.dev(), other.ino());
        let devices = one.file_type().is_block_device() && other.file_type().is_block_device();
        Ok(same_file || (devices && one.rdev() == other.rdev()))
    }
    #[cfg(not(unix))]
    Ok(false)
}

/// The mount point of a block device, on Linux.
fn mounted_at(path: &Path) -> Option<String> {
    let device = path.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let source = Path::new(words.next()?).canonicalize().ok()?;
        (source == device).then(|| words.next().map(str::to_owned))?
    })
}

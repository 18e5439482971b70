//! Two slots: one runs while the other is written.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use tidegate_model::version::Version;

use super::boot::{Boot, Slot};
use super::copy::{copy_first_last, read_back};
use super::{Artifact, Destination, InstallError, Installer, Place, names};
use crate::disk::Disk;
use crate::watch::{Cancel, Watch};

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

    fn takes(&self, artifact: &str) -> bool {
        self.artifact.as_ref().is_none_or(|name| name == artifact)
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
/// Before the first byte is written, the boot loader is set to keep the running slot and not to start the other one, so that a restart never
/// starts a partially written slot. Its first block is written last.
#[derive(Debug)]
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
        let distinct = |names: Vec<&std::ffi::OsStr>| {
            names.iter().enumerate().all(|(index, name)| !names.iter().skip(index + 1).any(|other| other == name))
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

    /// The running slot, once every image of the other one can be written.
    fn examine(&mut self) -> Result<Slot, InstallError> {
        let running = self.boot.running()?;
        self.images.iter().try_for_each(|image| self.check(image, running.other()))?;
        Ok(running)
    }

    /// Checks that a slot can be written.
    fn check(&self, image: &SlotImage, target: Slot) -> Result<(), InstallError> {
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
        // A slot that is a file may be new. A device that is missing must not become a file.
        if path.starts_with("/dev") && !path.starts_with("/dev/shm") {
            path.metadata().map_err(io("find"))?;
        }
        Ok(())
    }

    /// Checks that the image's target slot can be written, and returns its path.
    fn writable<'a>(
        &self,
        image: &'a SlotImage,
        target: Slot,
        name: &str,
        length: u64,
    ) -> Result<&'a Path, InstallError> {
        self.check(image, target)?;
        let path = image.of(target);
        let io = |action| move |source: io::Error| InstallError::Io { action, path: path.to_owned(), source };
        if let Some(room) = size_of_device(path).map_err(io("open"))?.filter(|room| *room < length) {
            return Err(InstallError::TooSmall { path: path.to_owned(), room, name: name.to_owned(), length });
        }
        Ok(path)
    }

    fn write(
        &self,
        image: &SlotImage,
        target: Slot,
        artifact: &Artifact,
        watch: &mut Watch<'_>,
    ) -> Result<(), InstallError> {
        let path = self.writable(image, target, &artifact.name, artifact.length)?;
        // Otherwise it is there already.
        if path != artifact.path {
            let io = |action| move |source: io::Error| InstallError::Io { action, path: path.to_owned(), source };
            let mut slot = self.disk.open(path).map_err(io("open"))?;
            slot.set_length(0).map_err(io("write"))?;
            copy_first_last(artifact, &mut slot, path, watch)?;
        }
        read_back(&self.disk, artifact, path, watch)
    }
}

impl<B: Boot> Installer for SlotInstaller<B> {
    fn install(&mut self, _: &Version, artifacts: &[Artifact], watch: &mut Watch<'_>) -> Result<(), InstallError> {
        // First, because an artifact that does not fit must change nothing.
        self.accepts(&names(artifacts)).map_err(InstallError::Unsuitable)?;
        let running = self.examine()?;
        self.boot.keep(running)?;
        // A boot loader that cannot do this starts the kept slot.
        self.boot.invalidate(running.other())?;
        for image in &self.images {
            if let Some(artifact) = artifacts.iter().find(|artifact| image.takes(&artifact.name)) {
                self.write(image, running.other(), artifact, watch)?;
            }
        }
        Ok(self.boot.attempt(running.other())?)
    }

    fn reads_running(&self) -> bool {
        true
    }

    fn destinations(&mut self, _: &Version, artifacts: &[(&str, u64)]) -> Result<Vec<Destination>, InstallError> {
        let names: Vec<_> = artifacts.iter().map(|(name, _)| *name).collect();
        self.accepts(&names).map_err(InstallError::Unsuitable)?;
        let running = self.boot.running()?;
        let mut destinations = vec![Destination::default(); artifacts.len()];
        for image in &self.images {
            for ((name, length), destination) in artifacts.iter().zip(&mut destinations) {
                if image.takes(name) {
                    let slot = self.writable(image, running.other(), name, *length)?.to_owned();
                    *destination = Destination { slot: Some(slot), running: Some(image.of(running).to_owned()) };
                }
            }
        }
        Ok(destinations)
    }

    fn invalidate(&mut self) -> Result<bool, InstallError> {
        let running = self.boot.running()?;
        self.boot.keep(running)?;
        Ok(self.boot.invalidate(running.other())?)
    }

    fn accepts(&self, artifacts: &[&str]) -> Result<(), String> {
        let taken = self.images.iter().filter(|image| artifacts.iter().any(|name| image.takes(name))).count();
        if taken == self.images.len() && taken == artifacts.len() {
            return Ok(());
        }
        let wanted: Vec<_> =
            self.images.iter().map(|image| image.artifact.as_deref().unwrap_or("one of any name")).collect();
        let (wanted, found) = (wanted.join(", "), artifacts.join(", "));
        Err(format!("the artifacts that installer.images takes are {wanted}, but the release has {found}"))
    }

    fn ready(&mut self) -> Result<(), InstallError> {
        self.examine().map(drop)
    }

    fn cancelled_by(&mut self, cancel: &Cancel) {
        self.boot.cancelled_by(cancel);
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

/// The size of a block device; `None` for a file, or where there is nothing yet.
fn size_of_device(path: &Path) -> io::Result<Option<u64>> {
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(None),
        Ok(_) => File::open(path)?.seek(SeekFrom::End(0)).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
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

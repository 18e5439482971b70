//! A slot that is one file.

use std::io;
use std::path::{Path, PathBuf};

use tidegate_model::version::Version;

use super::copy::{copy, read_back};
use super::{Artifact, Destination, InstallError, Installer, names};
use crate::disk::Disk;
use crate::watch::Watch;

/// A slot that is one file. It contains either the old or the new image, never a part of one.
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

    /// The same, on a disk that can inject faults.
    pub fn on(disk: Disk, path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), disk }
    }

    fn io(&self, action: &'static str) -> impl Fn(io::Error) -> InstallError + '_ {
        move |source| InstallError::Io { action, path: self.path.clone(), source }
    }

    fn replace(&self, artifact: &Artifact, new: &Path, watch: &mut Watch<'_>) -> Result<(), InstallError> {
        copy(artifact, &mut self.disk.create(new).map_err(self.io("write"))?, &self.path, watch)?;
        read_back(&self.disk, artifact, new, watch)?;
        self.disk.rename(new, &self.path).map_err(self.io("rename the new image into"))
    }
}

impl Installer for FileSlot {
    fn reads_running(&self) -> bool {
        true
    }

    fn destinations(&mut self, _: &Version, artifacts: &[(&str, u64)]) -> Result<Vec<Destination>, InstallError> {
        Ok(vec![Destination { slot: None, running: Some(self.path.clone()) }; artifacts.len()])
    }

    fn install(&mut self, _: &Version, artifacts: &[Artifact], watch: &mut Watch<'_>) -> Result<(), InstallError> {
        self.accepts(&names(artifacts)).map_err(InstallError::Unsuitable)?;
        let Some(artifact) = artifacts.first() else { return Ok(()) };
        let name = self.path.file_name().ok_or_else(|| {
            InstallError::Unsuitable(format!("{}: a slot must be a file, not a folder", self.path.display()))
        })?;
        let mut new = name.to_owned();
        new.push(".new");
        let new = self.path.with_file_name(new);
        self.replace(artifact, &new, watch).inspect_err(|_| {
            // It would only waste space; the next attempt starts over.
            let _ = self.disk.remove(&new);
        })
    }

    fn accepts(&self, artifacts: &[&str]) -> Result<(), String> {
        if artifacts.len() == 1 {
            return Ok(());
        }
        Err(format!("the setting slot takes one artifact, but the release has {}", artifacts.join(", ")))
    }
}

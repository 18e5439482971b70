//! A tree of files that a link points to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tidegate_model::version::Version;

use super::copy::{check, copy, read_back};
use super::{Artifact, Destination, InstallError, Installer, Place};
use crate::command::Command;
use crate::disk::Disk;
use crate::watch::{Cancel, Watch};

/// Stores each release in its own folder. The link `current` points to one of them.
///
/// ```text
/// BASE/current -> releases/1.2.0
/// BASE/releases/1.1.0/...    the previous release, until the new one is confirmed
/// BASE/releases/1.2.0/...
/// ```
///
/// A release's folder contains its artifacts under their names, or their [unpacked](Self::unpack) content. It is created under
/// another name and renamed when it is complete and durable; the link is replaced by renaming. So `current` always points to a
/// complete release. It changes at once: programs must open it again, for which a restart command can be used.
#[derive(Debug, Clone)]
pub struct DirectoryInstaller {
    base: PathBuf,
    unpack: Option<Command>,
    disk: Disk,
}

const CURRENT: &str = "current";
const RELEASES: &str = "releases";
const NEW: &str = ".new";

impl DirectoryInstaller {
    /// Releases in this folder, which must exist.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into(), unpack: None, disk: Disk::new() }
    }

    /// Unpacks each artifact with a program instead of copying it. The program gets the artifact's path and the target folder
    /// as last arguments, such as `tar -x --file ARTIFACT --directory FOLDER` by `["tar", "-x", "--file", "{artifact}", "--directory", "{folder}"]`.
    #[must_use]
    pub fn unpack(self, program: Command) -> Self {
        Self { unpack: Some(program), ..self }
    }

    /// The same, on a disk that can inject faults.
    #[must_use]
    pub fn on(self, disk: Disk) -> Self {
        Self { disk: disk.clone(), unpack: self.unpack.map(|command| command.on(disk)), ..self }
    }

    fn fill(&self, folder: &Path, artifacts: &[Artifact], watch: &mut Watch<'_>) -> Result<(), InstallError> {
        for artifact in artifacts {
            let path = folder.join(&artifact.name);
            if let Some(command) = &self.unpack {
                check(artifact, watch)?;
                let replacements = [("{artifact}", artifact.path.as_path()), ("{folder}", folder)];
                command.with_paths(&replacements).run()?.success()?;
            } else {
                copy(artifact, &mut self.disk.create(&path).map_err(io("write", &path))?, &path, watch)?;
                read_back(&self.disk, artifact, &path, watch)?;
            }
        }
        Ok(())
    }

    /// The release that `current` points to.
    fn current(&self) -> Result<Option<String>, InstallError> {
        let link = self.base.join(CURRENT);
        match fs::read_link(&link) {
            Ok(target) => Ok(target.file_name().and_then(|name| name.to_str()).map(str::to_owned)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io("read the link", &link)(e)),
        }
    }

    fn point_to(&self, release: &str) -> Result<(), InstallError> {
        let link = self.base.join(CURRENT);
        self.disk.replace_link(&link, &Path::new(RELEASES).join(release)).map_err(io("replace the link", &link))
    }

    fn releases(&self) -> PathBuf {
        self.base.join(RELEASES)
    }

    /// Removes every release except the running one.
    fn remove_others(&self, keep: &str) -> Result<(), InstallError> {
        let releases = self.releases();
        for entry in fs::read_dir(&releases).map_err(io("list", &releases))? {
            let entry = entry.map_err(io("list", &releases))?;
            if entry.file_name().to_str() != Some(keep) {
                self.disk.remove_tree(&entry.path()).map_err(io("remove", &entry.path()))?;
            }
        }
        Ok(())
    }
}

impl Installer for DirectoryInstaller {
    fn reads_running(&self) -> bool {
        self.unpack.is_none()
    }

    fn destinations(&mut self, _: &Version, artifacts: &[(&str, u64)]) -> Result<Vec<Destination>, InstallError> {
        let running = |name: &str| self.unpack.is_none().then(|| self.base.join(CURRENT).join(name));
        Ok(artifacts.iter().map(|(name, _)| Destination { slot: None, running: running(name) }).collect())
    }

    fn install(
        &mut self,
        version: &Version,
        artifacts: &[Artifact],
        watch: &mut Watch<'_>,
    ) -> Result<(), InstallError> {
        let name = version.to_string();
        let releases = self.releases();
        let (new, place) = (releases.join(NEW), releases.join(&name));
        self.disk.create_folder(&releases).map_err(io("create the folder", &releases))?;
        match self.current()? {
            // It is already complete and current.
            Some(current) if current == name => return Ok(()),
            Some(current) => self.remove_others(&current)?,
            None => self.remove_others("")?,
        }
        self.disk.create_folder(&new).map_err(io("create the folder", &new))?;
        let filled = self.fill(&new, artifacts, watch).and_then(|()| {
            self.disk.sync_tree(&new).map_err(io("make durable", &new))?;
            self.disk.rename(&new, &place).map_err(io("rename the new release to", &place))
        });
        filled.inspect_err(|_| {
            // It would only waste space; the next attempt starts over.
            let _ = self.disk.remove_tree(&new);
        })?;
        self.point_to(&name)
    }

    fn cancelled_by(&mut self, cancel: &Cancel) {
        self.unpack = self.unpack.take().map(|command| command.until(cancel));
    }

    fn running(&mut self) -> Result<Option<Place>, InstallError> {
        self.current()
    }

    fn confirm(&mut self) -> Result<(), InstallError> {
        match self.current()? {
            Some(current) => self.remove_others(&current),
            None => Ok(()),
        }
    }

    fn revert(&mut self, before: &Place) -> Result<(), InstallError> {
        let path = self.releases().join(before);
        if !path.is_dir() {
            let reason = format!("{}: the previous release no longer exists", path.display());
            return Err(InstallError::Unsuitable(reason));
        }
        self.point_to(before)
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::Io { action, path, source }
}

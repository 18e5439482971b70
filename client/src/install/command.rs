//! Installing by any program.

use super::copy::check;
use super::{Artifact, InstallError, Installer, Place};
use crate::command::{Command, Ran};
use crate::disk::Disk;
use crate::watch::{Cancel, Watch};
use tidegate_model::text::printable;
use tidegate_model::version::Version;

/// Installs through a program such as RAUC, SWUpdate, or a custom script.
///
/// | called with | it | exit codes |
/// |---|---|---|
/// | `install` | installs the artifacts, to run from the next restart on, on trial | 0 done, 10 never on this device, others: try again |
/// | `running` | prints one line, of at most 200 bytes, that names what runs, such as a slot | 0 done, 20 unknown |
/// | `confirm` | makes the running release permanent | 0 done, 20 nothing to do |
/// | `revert PLACE` | makes PLACE, a name from `running`, run again | 0 done, 20 unsupported |
///
/// Its environment contains:
///
/// | variable | content |
/// |---|---|
/// | `TIDEGATE_ACTION` | the first argument |
/// | `TIDEGATE_VERSION` | the release's version |
/// | `TIDEGATE_ARTIFACTS` | the number of artifacts |
/// | `TIDEGATE_ARTIFACT_0_NAME`, `_PATH`, `_LENGTH`, `_SHA256` | the first artifact, and so on |
/// | `TIDEGATE_ARTIFACT` | the path of the only artifact, if there is one |
///
/// The artifacts are hashed again before the program starts. It runs in its own process group, which is killed at the
/// time limit. The last line that it prints to standard error becomes part of the error.
#[derive(Debug, Clone)]
pub struct CommandInstaller(Command);

const REJECTED: i32 = 10;
const CANNOT: i32 = 20;
/// The longest name of what runs, in bytes.
const MAX_PLACE: usize = 200;

impl CommandInstaller {
    /// A program with its first arguments and the time limit of a call.
    pub fn new(program: Command) -> Self {
        Self(program)
    }

    /// The same, with calls counted among the steps of this disk.
    #[must_use]
    pub fn on(self, disk: Disk) -> Self {
        Self(self.0.on(disk))
    }

    fn call(&self, arguments: &[&str], more: &[(String, String)]) -> Result<Ran, InstallError> {
        let action = arguments.first().copied().unwrap_or_default();
        let command = self.0.clone().arguments(arguments).variable("TIDEGATE_ACTION", action);
        Ok(more.iter().fold(command, |command, (name, value)| command.variable(name, value)).run()?)
    }
}

impl Installer for CommandInstaller {
    fn install(
        &mut self,
        version: &Version,
        artifacts: &[Artifact],
        watch: &mut Watch<'_>,
    ) -> Result<(), InstallError> {
        let mut variables = vec![
            ("TIDEGATE_VERSION".to_owned(), version.to_string()),
            ("TIDEGATE_ARTIFACTS".to_owned(), artifacts.len().to_string()),
        ];
        for (index, artifact) in artifacts.iter().enumerate() {
            check(artifact, watch)?;
            let path = artifact.path.display().to_string();
            let sha256 = artifact.hashes.sha256_digest().map(|digest| tidegate_tuf::hash::to_hex(digest));
            for (name, value) in [
                ("NAME", artifact.name.clone()),
                ("PATH", path.clone()),
                ("LENGTH", artifact.length.to_string()),
                ("SHA256", sha256.unwrap_or_default()),
            ] {
                variables.push((format!("TIDEGATE_ARTIFACT_{index}_{name}"), value));
            }
            if artifacts.len() == 1 {
                variables.push(("TIDEGATE_ARTIFACT".to_owned(), path));
            }
        }
        let ran = self.call(&["install"], &variables)?;
        if ran.code == Some(REJECTED) {
            return Err(InstallError::Rejected(ran.complaint()));
        }
        ran.success()?;
        Ok(())
    }

    fn cancelled_by(&mut self, cancel: &Cancel) {
        self.0 = self.0.clone().until(cancel);
    }

    fn running(&mut self) -> Result<Option<Place>, InstallError> {
        let ran = self.call(&["running"], &[])?;
        if ran.code == Some(CANNOT) {
            return Ok(None);
        }
        let said = ran.success()?;
        match said.trim() {
            place if place.is_empty() || place.len() > MAX_PLACE || place.contains(char::is_control) => {
                let said = printable(place, 40);
                Err(InstallError::Unsuitable(format!(
                    "the installer must print one name, of at most {MAX_PLACE} bytes, for `running`, but printed {said:?}"
                )))
            }
            place => Ok(Some(place.to_owned())),
        }
    }

    fn confirm(&mut self) -> Result<(), InstallError> {
        let ran = self.call(&["confirm"], &[])?;
        if ran.code != Some(CANNOT) {
            ran.success()?;
        }
        Ok(())
    }

    fn revert(&mut self, before: &Place) -> Result<(), InstallError> {
        self.call(&["revert", before], &[])?.success()?;
        Ok(())
    }
}

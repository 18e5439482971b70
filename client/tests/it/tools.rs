//! Programs from outside, and the files in `contrib/`.
//!
//! Where a program or a permission is missing a test says so and passes, unless `TIDEGATE_REQUIRE_TOOLS` is set.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tidegate_client::install::{Artifact, InstallError, Installer};
use tidegate_client::watch::{Cancel, Watch, unwatched};
use tidegate_model::version::Version;

pub const LIMIT: Duration = Duration::from_secs(60);

/// Whether these tools are here.
pub fn have(tools: &[&str]) -> bool {
    let missing: Vec<_> = tools
        .iter()
        .filter(|tool| {
            !Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap().status.success()
        })
        .collect();
    if !missing.is_empty() {
        skip(&format!("these tools are not installed: {missing:?}"));
    }
    missing.is_empty()
}

/// Says that a test does not run here, and why. With `TIDEGATE_REQUIRE_TOOLS`, as in CI, that is a failure.
pub fn skip(why: &str) {
    assert!(std::env::var_os("TIDEGATE_REQUIRE_TOOLS").is_none(), "this test must run here: {why}");
    println!("SKIPPED: {why}");
}

/// Whether a command succeeds that needs what a container often withholds: being root, mounting, namespaces. Says so if not.
pub fn is_permitted(what: &str, command: &[&str]) -> bool {
    let permitted = Command::new(command[0]).args(&command[1..]).output().is_ok_and(|output| output.status.success());
    if !permitted {
        skip(&format!("{what} cannot be had here"));
    }
    permitted
}

pub fn contrib(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib").join(path)
}

pub fn shell(folder: &Path, script: &str) -> String {
    let output = Command::new("sh").args(["-euc", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Installs without a watcher.
pub trait Quietly: Installer {
    fn install_quietly(&mut self, version: &Version, artifacts: &[Artifact]) -> Result<(), InstallError> {
        self.install(version, artifacts, &mut Watch::new(&mut unwatched, &Cancel::new()))
    }
}

impl<T: Installer + ?Sized> Quietly for T {}

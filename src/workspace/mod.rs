//! A workspace: the folder that a repository is made in, one process at a time.

pub mod artifacts;
pub mod in_force;
pub mod init;
pub mod ledger;
mod operation;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::{Cohorts, Settings};
use crate::error::{Error, Kind, Result};
use crate::fs::{self, Changes};
use crate::keys::{KeyRing, Passphrases};
use crate::metadata::Repository;
use crate::policy::Policy;
use ledger::Entry;

pub use in_force::{CohortInForce, assignments, manifest_in_force, map_in_force, standing};
pub use ledger::Ledger;
pub use operation::Operation;

/// The folder for locks and journals, not for version control.
const PRIVATE_DIR: &str = ".tidegate";
/// How long to wait for another process to be done.
const PATIENCE: Duration = Duration::from_secs(10);

/// An open workspace. Until it is dropped no other process opens it.
#[derive(Debug)]
pub struct Workspace {
    dir: PathBuf,
    _lock: File,
    /// How long the ledger was when this process began to wait for the lock, and when it had it.
    ledger_lengths: [u64; 2],
}

impl Workspace {
    /// Opens the workspace `dir`: waits for another process to be done with it, and finishes what one that died had begun.
    pub fn open(dir: &Path) -> Result<Self> {
        let settings = dir.join("tidegate.toml");
        if !settings.is_file() {
            let shown = if dir == Path::new(".") { "this folder".into() } else { dir.display().to_string() };
            return Err(Error::input(format!("{shown} has no tidegate.toml, so it is not a workspace"))
                .remedy("give the workspace with -C DIR, or make one: tidegate init DIR --generate-keys"));
        }
        Self::lock(dir)
    }

    /// Takes the lock of `dir`, which need not be a workspace yet.
    pub fn lock(dir: &Path) -> Result<Self> {
        let private = dir.join(PRIVATE_DIR);
        std::fs::create_dir_all(&private).map_err(|e| Error::io("create", &private, e))?;
        let path = private.join("lock");
        // Before the lock: what is added while waiting for it was done by others, unseen by whoever asked.
        let ledger = dir.join(crate::workspace::ledger::FILE);
        let length = || std::fs::metadata(&ledger).map_or(0, |ledger| ledger.len());
        let before = length();
        let lock = File::create(&path).map_err(|e| Error::io("lock", &path, e))?;
        let begun = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::new(
                        Kind::Conflict,
                        format!("another tidegate is at work on {}", dir.display()),
                    )
                    .remedy("wait until it is done, then run the command again"));
                }
                Err(TryLockError::Error(e)) => return Err(Error::io("lock", &path, e)),
            }
        }
        fs::recover(dir)?;
        Ok(Self { dir: dir.to_owned(), _lock: lock, ledger_lengths: [before, length()] })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What others wrote into the ledger while this process waited for its turn.
    pub fn meanwhile(&self) -> Result<Vec<Entry>> {
        let [before, after] = self.ledger_lengths;
        if before == after {
            return Ok(Vec::new());
        }
        Ok(Ledger::open(&self.dir)?.between(before, after).to_vec())
    }

    /// `tidegate.toml`.
    pub fn settings(&self) -> Result<Settings> {
        Settings::load(&self.dir)
    }

    /// `cohorts.toml`.
    pub fn cohorts(&self) -> Result<Cohorts> {
        Cohorts::load(&self.dir)
    }

    /// `policy.toml`, which names only what the other two files know.
    pub fn policy(&self) -> Result<Policy> {
        let policy = Policy::load(&self.dir)?;
        policy.check_against(&self.settings()?, &self.cohorts()?)?;
        Ok(policy)
    }

    /// The metadata, verified.
    pub fn repository(&self) -> Result<Repository> {
        Repository::open(&self.dir)
    }

    /// The keys that `tidegate.toml` names.
    pub fn ring(&self, settings: &Settings, passphrases: Box<dyn Passphrases>) -> Result<KeyRing> {
        Ok(KeyRing::new(&self.dir, settings.key_entries()?, passphrases))
    }

    /// Makes all changes or none.
    pub fn commit(&self, changes: Changes) -> Result<()> {
        changes.commit(&self.dir)
    }
}

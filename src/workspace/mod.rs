//! A workspace: the folder of a repository's source, changed by one process at a time and read by any number.

pub mod artifacts;
pub mod in_force;
pub mod init;
pub mod ledger;
mod operation;
pub mod published;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::{Cohorts, Settings};
use crate::error::{Error, Kind, Result, Rule};
use crate::fs::{self, Changes};
use crate::keys::{KeyRing, Passphrases};
use crate::metadata::{METADATA_DIR, Repository};
use crate::policy::Policy;
use ledger::Entry;

pub(crate) use in_force::listed as listed_bytes;
pub use in_force::{
    CohortInForce, ProductInForce, cohorts_in_force, manifest_in_force, map_in_force, offers_of, products_in_force,
};
pub use ledger::Ledger;
pub use operation::Operation;
pub use published::{PUBLISHED, Published};

/// How long to wait for another process.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait with work that took long.
const PATIENCE_AFTER_WORK: Duration = Duration::from_secs(600);

/// The proposal of the current ceremony.
pub const CEREMONY: &str = "proposals/ceremony.json";

/// Whether the workspace `dir` has a first root, or has had one: its ledger tells.
///
/// # Errors
///
/// Fails if the ledger cannot be read.
pub fn has_begun(dir: &Path) -> Result<bool> {
    if dir.join(METADATA_DIR).exists() {
        return Ok(true);
    }
    // Before the first root there are only attempts at it.
    let is_attempt = |event: &str| matches!(event, "ceremony-start" | "ceremony-sign" | "ceremony-abort");
    Ok(Ledger::examine(dir)?.0.iter().any(|entry| !is_attempt(&entry.event)))
}

/// The command that signs what `tidegate.toml` of the workspace `dir` says for the first time.
pub fn init_command(dir: &Path) -> String {
    let is_declared = |settings: Settings| settings.keys.values().all(|key| key.public.is_some());
    command(dir, if Settings::load(dir).is_ok_and(is_declared) { "init" } else { "init --generate-keys" })
}

/// The folder `dir`, for people.
fn shown(dir: &Path) -> String {
    if dir == Path::new(".") { "this folder".to_owned() } else { dir.display().to_string() }
}

/// A command on the workspace `dir`, as one types it in this folder.
pub(crate) fn command(dir: &Path, command: &str) -> String {
    if dir == Path::new(".") {
        format!("tidegate {command}")
    } else {
        format!("tidegate -C {} {command}", dir.display())
    }
}

/// Refuses what takes metadata where none is signed yet.
///
/// # Errors
///
/// `C-FIRST`, with what comes next. Fails if the ledger cannot be read.
pub fn check_begun(dir: &Path) -> Result<()> {
    // What is no workspace is told otherwise.
    if has_begun(dir)? || !dir.join("tidegate.toml").is_file() {
        return Ok(());
    }
    if dir.join(CEREMONY).exists() {
        return Err(Error::refused(
            Rule::CeremonyFirst,
            "nothing is in force yet: the ceremony of the first root is under way",
        )
        .remedy(format!("see who has yet to sign: {}", command(dir, "ceremony status"))));
    }
    Err(Error::refused(Rule::CeremonyFirst, "nothing is signed yet: there is no first root").remedy(format!(
        "edit tidegate.toml, cohorts.toml and policy.toml, then sign what they say: {}",
        init_command(dir)
    )))
}

/// Checks that `dir` is a workspace.
fn check_settings(dir: &Path) -> Result<()> {
    if dir.join("tidegate.toml").is_file() {
        return Ok(());
    }
    Err(Error::input(format!("{} has no tidegate.toml, so it is not a workspace", shown(dir)))
        .remedy("name the workspace with -C DIR, or create one: tidegate init DIR --generate-keys"))
}

/// Waits until nobody else has the lock.
fn await_lock(dir: &Path, lock: &File, take: fn(&File) -> Result<(), TryLockError>, patience: Duration) -> Result<()> {
    let begun = Instant::now();
    loop {
        match take(lock) {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(Kind::Conflict, format!("another tidegate is working on {}", dir.display()))
                    .remedy("wait until it has finished, then run the command again"));
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", dir, e)),
        }
    }
}

/// An open workspace. Until it is dropped, no other process can change it, and one that changes it shares it with nobody.
#[derive(Debug)]
pub struct Workspace {
    dir: PathBuf,
    /// None for a reader of a workspace that has no lock, or one that the user cannot open.
    lock: Option<File>,
    /// The length of the ledger when this process started to wait for the lock, and when it got it.
    ledger_lengths: [u64; 2],
}

impl Workspace {
    /// Opens the workspace `dir` to change it: waits for another process to finish, and completes what an interrupted one had started.
    ///
    /// # Errors
    ///
    /// Fails if `dir` is not a workspace or contains links (`P-CONFINED`), if another process uses it for too long, or if an interrupted
    /// change cannot be completed (`W-JOURNAL`).
    pub fn open(dir: &Path) -> Result<Self> {
        check_settings(dir)?;
        Self::lock(dir)
    }

    /// Opens the workspace `dir` to read it: waits for another process to finish changing it, shares it with other readers, changes and
    /// creates nothing, and needs no right to write.
    ///
    /// A lock that does not exist, or that the user cannot open, is not taken: then the workspace is read as it is.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); also if an interrupted change waits to be completed (`W-JOURNAL`).
    pub fn open_to_read(dir: &Path) -> Result<Self> {
        check_settings(dir)?;
        let workspace = Self::wait(dir, fs::find_lock(dir)?, File::try_lock_shared)?;
        fs::check_complete(dir)?;
        Ok(workspace)
    }

    /// Locks `dir`, which need not be a workspace yet, to change it.
    ///
    /// # Errors
    ///
    /// Fails with a conflict if another process uses it for too long, or if an interrupted change cannot be completed.
    pub fn lock(dir: &Path) -> Result<Self> {
        let workspace = Self::wait(dir, Some(fs::open_lock(dir)?), File::try_lock)?;
        fs::recover(dir)?;
        Ok(workspace)
    }

    /// Lets others work on the workspace while `work` is done, which takes long and adds files to the store at most. The caller looks
    /// again at everything else that it knows of the workspace.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock), and what `work` returns.
    pub fn unlocked<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(lock) = &self.lock else { return work() };
        lock.unlock().map_err(|e| Error::io("unlock", &self.dir, e))?;
        let done = work()?;
        await_lock(&self.dir, lock, File::try_lock, PATIENCE_AFTER_WORK)?;
        fs::recover(&self.dir)?;
        Ok(done)
    }

    fn wait(dir: &Path, lock: Option<File>, take: fn(&File) -> Result<(), TryLockError>) -> Result<Self> {
        // Before the lock: lines that are added while waiting come from others, unknown to the caller.
        let ledger = dir.join(crate::workspace::ledger::FILE);
        let length = || std::fs::metadata(&ledger).map_or(0, |ledger| ledger.len());
        let before = length();
        if let Some(lock) = &lock {
            await_lock(dir, lock, take, PATIENCE)?;
        }
        Ok(Self { dir: dir.to_owned(), lock, ledger_lengths: [before, length()] })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What others added to the ledger while this process waited.
    ///
    /// # Errors
    ///
    /// Fails if the ledger cannot be read or is broken.
    pub fn meanwhile(&self) -> Result<Vec<Entry>> {
        let [before, after] = self.ledger_lengths;
        if before == after {
            return Ok(Vec::new());
        }
        Ok(Ledger::open(&self.dir)?.between(before, after).to_vec())
    }

    /// `tidegate.toml`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or is invalid.
    pub fn settings(&self) -> Result<Settings> {
        Settings::load(&self.dir)
    }

    /// `cohorts.toml`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or is invalid.
    pub fn cohorts(&self) -> Result<Cohorts> {
        Cohorts::load(&self.dir)
    }

    /// `policy.toml`, checked against the other two files.
    ///
    /// # Errors
    ///
    /// Fails if a file is invalid, or if the policy names something that the other two files do not define.
    pub fn policy(&self) -> Result<Policy> {
        let policy = Policy::load(&self.dir)?;
        policy.check_against(&self.settings()?, &self.cohorts()?)?;
        Ok(policy)
    }

    /// The verified metadata.
    ///
    /// # Errors
    ///
    /// `C-FIRST` if the first root is not signed yet. Fails if the metadata does not verify.
    pub fn repository(&self) -> Result<Repository> {
        check_begun(&self.dir)?;
        Repository::open(&self.dir)
    }

    /// The verified metadata, if the first root is signed.
    ///
    /// # Errors
    ///
    /// Fails if the metadata does not verify.
    pub fn repository_if_any(&self) -> Result<Option<Repository>> {
        has_begun(&self.dir)?.then(|| self.repository()).transpose()
    }

    /// The keys that `tidegate.toml` names.
    ///
    /// # Errors
    ///
    /// Fails if a key's public part is missing.
    pub fn ring(&self, settings: &Settings, passphrases: Box<dyn Passphrases>) -> Result<KeyRing> {
        Ok(KeyRing::new(&self.dir, settings.key_entries()?, passphrases))
    }

    /// Commits all changes or none.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be written.
    pub fn commit(&self, changes: Changes) -> Result<()> {
        changes.commit(&self.dir)
    }
}

//! The operations that change files, each safe against an interruption at any instant, and fault injection for tests.
//!
//! Whole files are replaced by writing a temporary file beside them, syncing it, renaming it over them and syncing the
//! folder: a reader finds the old content or the new, never a part. Downloads are appended in place and renamed when complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Reads a regular file: all of it or, if it is longer, one byte more than `limit`.
///
/// # Errors
///
/// If there is no regular file, or it cannot be read.
pub(crate) fn read_regular(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // Opening a pipe would block until its other end is open.
    if !fs::metadata(path)?.is_file() {
        return Err(not_regular());
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// Checks that only its owner has any right to the file of a private key.
///
/// # Errors
///
/// The problem with its remedy. Systems without file modes have none.
pub fn check_private(path: &Path, metadata: &fs::Metadata) -> Result<(), String> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::MetadataExt::mode(metadata) & 0o777;
        if mode & 0o077 != 0 {
            let path = path.display();
            return Err(format!("{path} can be read or changed by others (mode {mode:04o}): chmod 600 {path}"));
        }
    }
    #[cfg(not(unix))]
    let _ = (path, metadata);
    Ok(())
}

/// Whether a file has another name, through which a change in place would reach it.
#[cfg(unix)]
pub(crate) fn has_other_names(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(metadata) > 1
}

#[cfg(not(unix))]
pub(crate) fn has_other_names(_: &fs::Metadata) -> bool {
    false
}

/// Changes files, and can inject faults. Clones share the plan of faults.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    faults: Option<Arc<Faults>>,
}

impl Disk {
    /// The real disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk that refuses every change.
    pub fn read_only() -> Self {
        Self::with_faults(Faults::plan(Plan::ReadOnly))
    }

    /// The real disk, failing as planned.
    pub fn with_faults(faults: Arc<Faults>) -> Self {
        Self { faults: Some(faults) }
    }

    /// Gives `path` the content `bytes`: afterwards, or after a crash, it has the old content or the new.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, synced or renamed.
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = temporary(path);
        let written = self.create(&temporary).and_then(|mut file| {
            file.append(bytes)?;
            file.sync()
        });
        written.and_then(|()| self.rename(&temporary, path)).inspect_err(|_| {
            // Remove the partial file, because the disk may be full. If this fails too, the next write of the
            // same name overwrites it.
            let _ = self.step(Step::Remove).and_then(|()| fs::remove_file(&temporary));
        })
    }

    /// Creates an empty file. Removes an older one with this name.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub fn create(&self, path: &Path) -> io::Result<OpenFile> {
        self.step(Step::Create)?;
        // Removing the old file and requiring a new one avoids following a link in its place.
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(OpenFile { file, disk: self.clone() })
    }

    /// Opens an existing regular file for appending after its first `keep` bytes. Truncates the rest.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened or truncated.
    pub fn resume(&self, path: &Path, keep: u64) -> io::Result<OpenFile> {
        self.step(Step::Create)?;
        if !fs::symlink_metadata(path)?.is_file() {
            return Err(not_regular());
        }
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.set_len(keep)?;
        file.seek(SeekFrom::Start(keep))?;
        Ok(OpenFile { file, disk: self.clone() })
    }

    /// Renames a file, over another if there is one, and syncs the folder.
    ///
    /// # Errors
    ///
    /// If the file cannot be renamed.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Step::Rename)?;
        fs::rename(from, to)?;
        self.sync_folder(to)
    }

    /// Removes a file if it is there, and syncs the folder.
    ///
    /// # Errors
    ///
    /// If the file cannot be removed.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(Step::Remove)?;
        match fs::remove_file(path) {
            Ok(()) => self.sync_folder(path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Creates a folder and those above it, unless they are there.
    ///
    /// # Errors
    ///
    /// If the folder cannot be created.
    pub fn create_folder(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        self.step(Step::Create)?;
        fs::create_dir_all(path)?;
        self.sync_folder(path)
    }

    /// Opens a file or block device to read and write it anywhere, or creates a file.
    ///
    /// # Errors
    ///
    /// If it cannot be opened.
    pub fn open(&self, path: &Path) -> io::Result<OpenFile> {
        self.step(Step::Create)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(OpenFile { file, disk: self.clone() })
    }

    /// Replaces the link at `path` by one to `target`, atomically.
    ///
    /// # Errors
    ///
    /// If the link cannot be created or renamed; always on platforms without symbolic links.
    #[cfg(unix)]
    pub fn replace_link(&self, path: &Path, target: &Path) -> io::Result<()> {
        let temporary = temporary(path);
        self.step(Step::Create)?;
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        std::os::unix::fs::symlink(target, &temporary)?;
        self.rename(&temporary, path)
    }

    /// Replaces the link at `path`; unsupported on this system.
    #[cfg(not(unix))]
    pub fn replace_link(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Removes a folder with its content, or a file, if it exists. An interruption leaves a part of it.
    ///
    /// # Errors
    ///
    /// If something in the tree cannot be removed.
    pub fn remove_tree(&self, path: &Path) -> io::Result<()> {
        self.step(Step::Remove)?;
        let removed = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(e) => Err(e),
        };
        match removed {
            Ok(()) => self.sync_folder(path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Makes a folder durable with its content.
    ///
    /// # Errors
    ///
    /// If the tree cannot be read or synced.
    pub fn sync_tree(&self, path: &Path) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.sync_tree(&entry.path())?;
            } else if kind.is_file() {
                self.step(Step::Sync)?;
                File::open(entry.path())?.sync_all()?;
            }
        }
        self.step(Step::SyncFolder)?;
        File::open(path)?.sync_all()
    }

    /// Makes later reads of a file come from the medium instead of memory, as far as the system supports that. Its bytes must
    /// be durable already.
    pub fn forget_cached(&self, path: &Path) {
        #[cfg(target_os = "linux")]
        if let Ok(file) = File::open(path) {
            // The system may still keep some pages in memory; that cannot be changed.
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }

    /// The bytes available to an ordinary user on the file system of `path`; `None` if that is unknown.
    ///
    /// # Errors
    ///
    /// If the file system cannot be queried.
    pub fn room(&self, path: &Path) -> io::Result<Option<u64>> {
        if let Some(room) = self.faults.as_ref().and_then(|faults| faults.room()) {
            return Ok(Some(room));
        }
        #[cfg(unix)]
        {
            let found = rustix::fs::statvfs(path)?;
            // Some file systems do not report this.
            Ok((found.f_blocks > 0).then(|| found.f_bavail.saturating_mul(found.f_frsize)))
        }
        #[cfg(not(unix))]
        Ok(None)
    }

    /// Counts an external call, such as the boot loader's hook, as a step.
    ///
    /// # Errors
    ///
    /// The planned fault, if one is due at this step.
    pub fn call(&self) -> io::Result<()> {
        self.step(Step::Call)
    }

    /// Makes the folder's entry for `path` durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.step(Step::SyncFolder)?;
        match path.parent() {
            // Only on Unix can a folder be opened and synced.
            Some(folder) if cfg!(unix) => {
                File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?.sync_all()
            }
            _ => Ok(()),
        }
    }

    fn step(&self, step: Step) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.check(step))
    }
}

/// The temporary name of a file before it is renamed.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

/// A file that is being written.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    disk: Disk,
}

impl OpenFile {
    /// Writes `bytes` at the end.
    ///
    /// # Errors
    ///
    /// If the write fails.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.disk.faults.is_none() {
            return self.file.write_all(bytes);
        }
        // In two steps, so that an injected fault can leave a part of it.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for half in [first, second] {
            self.disk.step(Step::Write)?;
            self.file.write_all(half)?;
        }
        Ok(())
    }

    /// Writes `bytes` at this offset.
    ///
    /// # Errors
    ///
    /// If the write fails.
    pub fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(at))?;
        self.append(bytes)
    }

    /// Fills `buffer` with the bytes from this offset on.
    ///
    /// # Errors
    ///
    /// If there are not that many, or they cannot be read.
    pub fn read_at(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(buffer)
    }

    /// Cuts or extends a file to this length. A block device keeps its size.
    ///
    /// # Errors
    ///
    /// If the length cannot be changed.
    pub fn set_length(&mut self, length: u64) -> io::Result<()> {
        let metadata = self.file.metadata()?;
        if !metadata.is_file() || metadata.len() == length {
            return Ok(());
        }
        self.disk.step(Step::Write)?;
        self.file.set_len(length)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    ///
    /// If the sync fails.
    pub fn sync(&self) -> io::Result<()> {
        self.disk.step(Step::Sync)?;
        self.file.sync_all()
    }
}

/// A kind of step that changes the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A file or folder is created, or opened to be changed.
    Create,
    /// Bytes are written.
    Write,
    /// A file is made durable.
    Sync,
    /// A file is renamed.
    Rename,
    /// A folder's entries are made durable.
    SyncFolder,
    /// A file is removed.
    Remove,
    /// Another program is called, such as the boot hook.
    Call,
}

impl Step {
    /// Whether it uses space on the disk.
    fn takes_room(self) -> bool {
        matches!(self, Self::Create | Self::Write)
    }
}

/// A plan of faults: which steps fail, counted from 0. For tests.
#[derive(Debug)]
pub struct Faults {
    plan: Plan,
    steps: AtomicUsize,
}

#[derive(Debug)]
enum Plan {
    None,
    StopAt(usize),
    FailAt(usize, io::ErrorKind),
    FullFrom(usize),
    Room(u64),
    ReadOnly,
    #[cfg(unix)]
    KillAt(usize),
}

impl Faults {
    /// Nothing fails; steps are counted.
    pub fn none() -> Arc<Self> {
        Self::plan(Plan::None)
    }

    /// No step happens from the `n`th on, as if the process had been killed.
    pub fn stop_at(n: usize) -> Arc<Self> {
        Self::plan(Plan::StopAt(n))
    }

    /// This process is killed at the `n`th step, by a signal that cannot be caught.
    #[cfg(unix)]
    pub fn kill_at(n: usize) -> Arc<Self> {
        Self::plan(Plan::KillAt(n))
    }

    /// The `n`th step alone fails.
    pub fn fail_at(n: usize, kind: io::ErrorKind) -> Arc<Self> {
        Self::plan(Plan::FailAt(n, kind))
    }

    /// The disk is full from the `n`th step on: steps that use space fail, others succeed.
    pub fn full_from(n: usize) -> Arc<Self> {
        Self::plan(Plan::FullFrom(n))
    }

    /// Nothing fails, but the available space is this many bytes.
    pub fn with_room(bytes: u64) -> Arc<Self> {
        Self::plan(Plan::Room(bytes))
    }

    /// How many steps were attempted.
    pub fn steps(&self) -> usize {
        self.steps.load(Ordering::SeqCst)
    }

    fn plan(plan: Plan) -> Arc<Self> {
        Arc::new(Self { plan, steps: AtomicUsize::new(0) })
    }

    fn room(&self) -> Option<u64> {
        match self.plan {
            Plan::Room(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn check(&self, step: Step) -> io::Result<()> {
        let now = self.steps.fetch_add(1, Ordering::SeqCst);
        match self.plan {
            Plan::ReadOnly => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            #[cfg(unix)]
            Plan::KillAt(n) if now == n => {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
                Ok(())
            }
            Plan::StopAt(n) if now >= n => Err(io::Error::other(format!("stopped at step {n}"))),
            Plan::FailAt(n, kind) if now == n => Err(kind.into()),
            Plan::FullFrom(n) if now >= n && step.takes_room() => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_is_atomic_at_every_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let counted = Faults::none();
        Disk::with_faults(counted.clone()).replace(&path, b"old").unwrap();
        assert!(counted.steps() >= 5);
        for n in 0..counted.steps() {
            Disk::new().replace(&path, b"old").unwrap();
            Disk::with_faults(Faults::stop_at(n)).replace(&path, b"the new").unwrap_err();
            let content = fs::read(&path).unwrap();
            assert!(content == b"old" || content == b"the new", "stopped at {n}: {content:?}");
            Disk::new().replace(&path, b"newer").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"newer");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "stopped at {n}: a temporary file is left");
        }
    }

    #[test]
    fn a_full_disk_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        Disk::new().replace(&path, b"old").unwrap();
        for n in 0..3 {
            let error = Disk::with_faults(Faults::full_from(n)).replace(&path, b"the new").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            assert_eq!(fs::read(&path).unwrap(), b"old");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_file_is_resumed_after_what_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part");
        let disk = Disk::new();
        disk.create(&path).unwrap().append(b"abcdef").unwrap();
        disk.resume(&path, 3).unwrap().append(b"DEF").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abcDEF");
        assert!(disk.resume(folder.path(), 0).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn temporary_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("file"), folder.path().join("other"));
        fs::write(&other, b"precious").unwrap();
        std::os::unix::fs::symlink(&other, folder.path().join("file.tmp")).unwrap();
        Disk::new().replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"precious");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }
}

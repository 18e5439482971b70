//! Where trusted metadata and the device's state are kept between runs.

mod kept;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

pub(crate) use kept::{Keep, Kept};

use crate::disk::{Disk, not_regular, read_regular};

/// Keeps small files by name.
///
/// A name is `/`-separated segments of URL-safe characters and `%`, as [`metadata_file`](tidegate_tuf::path::metadata_file)
/// makes them. A saved file is durable when `save` returns, and whole whenever `load` finds it.
pub trait Store {
    /// The content of `name`, or `None` if it was never saved. Reads at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// If the file is longer or cannot be read.
    fn load(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, StoreError>;

    /// Replaces the content of `name` by `bytes`, atomically.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the entry cannot be written.
    fn save(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Removes `name` if it is there.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the entry cannot be removed.
    fn remove(&self, name: &str) -> Result<(), StoreError>;
}

/// A damaged file of the store that is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Repair {
    /// The stored name.
    pub name: String,
    /// What was wrong with it.
    pub reason: String,
}

/// Why a store operation failed: a problem of the device or its settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A value has no JSON form.
    #[error("{name}: {reason}")]
    Unwritable {
        /// The stored name.
        name: String,
        /// What is wrong with the value.
        reason: String,
    },
    /// A stored file is longer than any this crate writes.
    #[error("{path}: longer than {limit} bytes; it was not written by this program")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The maximum length, in bytes.
        limit: u64,
    },
    /// Another process uses the same folder.
    #[error("{path}: in use by another process; wait until it ends")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The name could leave the folder.
    #[error("{name:?} is not a name that can be stored")]
    BadName {
        /// The name as given.
        name: String,
    },
}

impl StoreError {
    /// The stable name of this kind of error, one of [those of all errors](crate::Error::code).
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "store-io",
            Self::Unwritable { .. } => "store-unwritable",
            Self::TooLong { .. } => "store-too-long",
            Self::Locked { .. } => "store-locked",
            Self::BadName { .. } => "store-bad-name",
        }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// Whether the file system is read-only, or this user may only read.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied))
    }

    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

impl<T: Store + ?Sized> Store for Arc<T> {
    fn load(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        (**self).load(name, limit)
    }

    fn save(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        (**self).save(name, bytes)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        (**self).remove(name)
    }
}

/// A folder on disk, locked against other processes while this value or one of its [`subfolder`](Self::subfolder)s lives.
#[derive(Debug, Clone)]
pub struct DirStore {
    folder: PathBuf,
    disk: Disk,
    // Keeps the lock, which the system releases when the process ends. `None` for a view.
    lock: Option<Arc<Lock>>,
    // What is saved and removed in memory alone.
    changes: Option<Changes>,
}

/// New content by path; `None` for what is removed.
type Changes = Arc<Mutex<BTreeMap<PathBuf, Option<Vec<u8>>>>>;

/// A locked file.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough if another thread is starting a program: until it runs, that program has a copy of all open files
        // and so of the lock.
        let _ = self.0.unlock();
    }
}

impl DirStore {
    /// Opens and locks a folder. Creates it if it does not exist.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] at once if another process has it locked; others if the folder cannot be used, or contains a link.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_on(Disk::new(), folder)
    }

    /// The same, on a disk that can inject faults.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_on(disk: Disk, folder: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let folder = folder.into();
        disk.create_folder(&folder).map_err(|e| StoreError::io("create the folder", &folder, e))?;
        // What this crate keeps there is files and folders. A link would lead its writing and removing elsewhere.
        for entry in fs::read_dir(&folder).map_err(|e| StoreError::io("read", &folder, e))?.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_file() || kind.is_dir()) {
                return Err(StoreError::io("use", entry.path(), not_regular()));
            }
        }
        let path = folder.join(".lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| StoreError::io("open the lock file", &path, e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { folder, disk, lock: Some(Arc::new(Lock(lock))), changes: None }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: folder }),
            Err(TryLockError::Error(e)) => Err(StoreError::io("lock", &path, e)),
        }
    }

    /// A view of a folder: takes no lock, and keeps what is saved in memory.
    ///
    /// Files are replaced atomically, so each is read in its state before or after a concurrent write.
    pub fn observe(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), disk: Disk::read_only(), lock: None, changes: Some(Arc::default()) }
    }

    /// Whether this user cannot write the folder.
    pub(crate) fn is_read_only(&self) -> bool {
        let path = self.folder.join(".lock");
        let opened = OpenOptions::new().write(true).open(&path);
        opened.is_err_and(|e| StoreError::io("open", path, e).is_read_only())
    }

    fn changes(&self) -> Option<std::sync::MutexGuard<'_, BTreeMap<PathBuf, Option<Vec<u8>>>>> {
        self.changes.as_ref().map(|changes| changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A folder that another process may have locked, for files that only the caller writes.
    pub(crate) fn unlocked(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), disk: Disk::new(), lock: None, changes: None }
    }

    /// A store in a folder below this one, under the same lock.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the folder cannot be created.
    pub fn subfolder(&self, name: &str) -> Result<Self, StoreError> {
        Ok(Self { folder: self.path(name)?, ..self.clone() })
    }

    /// Whether this process has the folder to itself.
    pub(crate) fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The disk that the folder is on.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    fn path(&self, name: &str) -> Result<PathBuf, StoreError> {
        check_name(name)?;
        let mut path = self.folder.clone();
        for segment in name.split('/') {
            path.push(segment);
            if path.is_symlink() {
                return Err(StoreError::io("use", path, not_regular()));
            }
        }
        Ok(path)
    }
}

impl Store for DirStore {
    fn load(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(name)?;
        let changed = self.changes().and_then(|changes| changes.get(&path).cloned());
        match changed.map_or_else(|| read_regular(&path, limit), |bytes| bytes.ok_or(io::ErrorKind::NotFound.into())) {
            Ok(bytes) if bytes.len() as u64 > limit => Err(StoreError::TooLong { path, limit }),
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("read", path, e)),
        }
    }

    fn save(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(name)?;
        if let Some(mut changes) = self.changes() {
            changes.insert(path, Some(bytes.to_owned()));
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            self.disk.create_folder(folder).map_err(|e| StoreError::io("create the folder", folder, e))?;
        }
        self.disk.replace(&path, bytes).map_err(|e| StoreError::io("write", path, e))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path(name)?;
        if let Some(mut changes) = self.changes() {
            changes.insert(path, None);
            return Ok(());
        }
        match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            _ => self.disk.remove(&path).map_err(|e| StoreError::io("remove", path, e)),
        }
    }
}

/// The longest segment of a name: file systems take 255 bytes, of which a temporary file's suffix needs a few.
pub(crate) const LONGEST_SEGMENT: usize = 240;

/// Checks the name of an entry: segments of ASCII letters, digits and `-._~%`, of at most 240 bytes, with `/` between them.
/// Every store refuses other names.
///
/// # Errors
///
/// [`StoreError::BadName`].
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let good = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.len() <= LONGEST_SEGMENT
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b))
    };
    if name.split('/').all(good) { Ok(()) } else { Err(StoreError::BadName { name: name.to_owned() }) }
}

/// A store that lives as long as the process. Clones share their content.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The names stored, in order.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

impl Store for MemoryStore {
    fn load(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        check_name(name)?;
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            Some(bytes) if bytes.len() as u64 > limit => Err(StoreError::TooLong { path: name.into(), limit }),
            found => Ok(found.cloned()),
        }
    }

    fn save(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_name(name)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), bytes.to_owned());
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        check_name(name)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = DirStore::open(folder.path()).unwrap();
        let below = first.subfolder("below").unwrap();
        assert!(matches!(DirStore::open(folder.path()), Err(StoreError::Locked { .. })));
        drop(first);
        assert!(matches!(DirStore::open(folder.path()), Err(StoreError::Locked { .. })));
        drop(below);
        DirStore::open(folder.path()).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_with_links_or_pipes_is_refused() {
        for name in [".lock", "downloads", "metadata", "root.json"] {
            let folder = tempfile::tempdir().unwrap();
            let (state, outside) = (folder.path().join("state"), folder.path().join("outside"));
            fs::create_dir(&state).unwrap();
            fs::create_dir(&outside).unwrap();
            fs::write(outside.join("precious"), "precious").unwrap();
            for target in [outside.clone(), outside.join("precious"), outside.join("absent")] {
                std::os::unix::fs::symlink(target, state.join(name)).unwrap();
                let error = DirStore::open(&state).unwrap_err().to_string();
                assert!(error.contains(name) && error.contains("not a regular file"), "{error}");
                fs::remove_file(state.join(name)).unwrap();
            }
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
            assert!(std::process::Command::new("mkfifo").arg(state.join(name)).status().unwrap().success());
            assert!(DirStore::open(&state).is_err(), "{name}");
        }
        // Deeper ones when they are met.
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        fs::create_dir_all(folder.path().join("state/backup")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("a.json"), "precious").unwrap();
        std::os::unix::fs::symlink(&outside, folder.path().join("state/backup/metadata")).unwrap();
        let store = DirStore::open(folder.path().join("state")).unwrap();
        assert!(store.save("backup/metadata/a.json", b"x").is_err());
        assert!(store.load("backup/metadata/a.json", 9).is_err() && store.remove("backup/metadata/a.json").is_err());
        assert_eq!(fs::read(outside.join("a.json")).unwrap(), b"precious");
    }

    #[test]
    fn a_file_instead_of_the_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        fs::write(&path, b"").unwrap();
        let error = DirStore::open(&path).unwrap_err();
        assert!(error.to_string().contains("state"), "{error}");
    }
}

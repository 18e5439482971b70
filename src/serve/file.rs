//! Files below the folder, with the tag of their content.

use std::collections::HashMap;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::path::SafePath;

/// The folder that is served.
pub(super) struct Folder {
    /// Without symbolic links, so that a resolved path can be compared with it.
    root: PathBuf,
    tags: Arc<Mutex<HashMap<PathBuf, (Stamp, String)>>>,
}

/// A file that was found and opened.
pub(super) struct Found {
    pub(super) file: std::fs::File,
    pub(super) len: u64,
    /// The strong entity tag of the bytes as they are on disk, with its quotes.
    pub(super) tag: String,
}

/// What changes whenever a file is written anew.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

/// Files up to this size are tagged by the hash of their content, so that a tag survives a copy of the repository;
/// larger ones by what the file system says of them, as hashing a disk image would delay its first byte by seconds.
const HASHED_UP_TO: u64 = 4 << 20;
/// Tags kept; when there are more, all are forgotten. A repository with 1,000 cohorts has a fifth of this.
const MAX_TAGS: usize = 16 * 1024;

impl Folder {
    /// Opens the folder at `root`.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        if !root.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Self { root, tags: Arc::default() })
    }

    /// Finds a regular file; nothing if there is none, or if a symbolic link leads out of the folder.
    pub(super) async fn find(&self, path: &SafePath) -> io::Result<Option<Found>> {
        let (root, path, tags) = (self.root.clone(), self.root.join(path.to_path()), Arc::clone(&self.tags));
        let found = tokio::task::spawn_blocking(move || find(&root, &path, &tags)).await.map_err(io::Error::other)?;
        match found {
            Err(error) if is_absence(&error) => Ok(None),
            other => other,
        }
    }
}

/// Whether an error means that there is no such file.
fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidFilename | InvalidInput)
}

fn find(root: &Path, path: &Path, tags: &Mutex<HashMap<PathBuf, (Stamp, String)>>) -> io::Result<Option<Found>> {
    let path = path.canonicalize()?;
    // A pipe would block on opening, so the kind is looked at first, and once more on what was opened.
    if !path.starts_with(root) || !path.metadata()?.is_file() {
        return Ok(None);
    }
    let mut file = std::fs::File::open(&path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let stamp = Stamp { len: metadata.len(), modified: metadata.modified().ok(), inode: inode(&metadata) };
    let known = tags.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned();
    let tag = match known {
        Some((before, tag)) if before == stamp => tag,
        _ => {
            let tag = tag(&mut file, &stamp)?;
            let mut tags = tags.lock().unwrap_or_else(PoisonError::into_inner);
            if tags.len() >= MAX_TAGS {
                tags.clear();
            }
            tags.insert(path, (stamp.clone(), tag.clone()));
            tag
        }
    };
    Ok(Some(Found { file, len: stamp.len, tag }))
}

/// The tag of an open file, which is left at its start.
fn tag(file: &mut std::fs::File, stamp: &Stamp) -> io::Result<String> {
    if stamp.len > HASHED_UP_TO {
        let modified =
            stamp.modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
        return Ok(format!("\"{:x}-{:x}-{:x}\"", stamp.inode, stamp.len, modified.as_nanos()));
    }
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(buffer.get(..read).unwrap_or_default());
    }
    file.rewind()?;
    // Half of the hash is more than enough to tell versions of one file apart, and keeps requests short.
    let tag = hash.finalize().iter().take(16).fold(String::new(), |tag, byte| format!("{tag}{byte:02x}"));
    Ok(format!("\"{tag}\""))
}

#[cfg(unix)]
fn inode(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &std::fs::Metadata) -> u64 {
    0
}

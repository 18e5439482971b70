//! The workspace's content-addressed store: `artifacts/sha256/HEX`.
//!
//! It contains every target that the metadata lists, and provenance statements. Stored bytes never change. The small ones that this
//! program makes itself (cohort maps, manifests, lists of offers) are in `artifacts/signed/HEX`, which is under version control, so that a
//! fresh checkout can do everything but send artifacts to a place that does not have them.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use futures::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tidegate_model::digest::Digest;
use tidegate_model::layout::Location;
use tidegate_tuf::hash::to_hex;

use crate::error::{Error, Result};
use crate::fs;

/// The folder, relative to the workspace.
pub const DIR: &str = "artifacts/sha256";
/// The folder of what this program made, relative to the workspace.
pub const SIGNED_DIR: &str = "artifacts/signed";
const CHUNK: usize = 1 << 20;

/// Where the bytes with this hash are kept if they come from outside, relative to the workspace.
fn path(digest: &Digest) -> String {
    format!("{DIR}/{digest}")
}

/// Where the bytes with this hash are kept if this program made them, relative to the workspace.
pub fn signed_path(digest: &Digest) -> String {
    format!("{SIGNED_DIR}/{digest}")
}

/// Where the bytes with this hash are, relative to the workspace `dir`. Earlier versions kept all in one folder.
pub fn find(dir: &Path, digest: &Digest) -> String {
    let signed = signed_path(digest);
    if dir.join(&signed).exists() { signed } else { path(digest) }
}

/// Whether a target of this path came from a build, so that it is not under version control.
pub fn is_built(path: &str) -> bool {
    matches!(Location::parse(path), None | Some(Location::Artifact { .. } | Location::Delivery { .. }))
}

/// A file in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Their number.
    pub length: u64,
}

/// Copies a file into the store of the workspace `dir`, hashing it on the way; `progress` receives the number of bytes of each
/// step. Memory use does not depend on the file's size.
///
/// # Errors
///
/// Fails if `source` is not a regular file or is empty, or if the copy cannot be written.
pub fn add(dir: &Path, source: &Path, progress: impl FnMut(u64)) -> Result<Stored> {
    add_noting(dir, source, &mut Vec::new(), progress)
}

/// Like [`add`]; notes the new file, if the store did not have the bytes, so that it can be removed again.
pub(crate) fn add_noting(
    dir: &Path,
    source: &Path,
    new: &mut Vec<PathBuf>,
    progress: impl FnMut(u64),
) -> Result<Stored> {
    check_source(source)?;
    let folder = fs::confined(dir, DIR)?;
    std::fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
    let mut temp = tempfile::NamedTempFile::new_in(&folder).map_err(|e| Error::io("write to", &folder, e))?;
    let stored = copy(source, &mut temp, &folder, progress)?;
    let target = fs::confined(dir, &path(&stored.sha256))?;
    if !target.exists() {
        fs::set_mode(temp.as_file(), 0o644).map_err(|e| Error::io("write", &target, e))?;
        temp.as_file().sync_all().map_err(|e| Error::io("write", &target, e))?;
        temp.persist(&target).map_err(|e| Error::io("write", &target, e.error))?;
        new.push(target);
        fs::sync_dir(&folder)?;
    }
    Ok(stored)
}

/// Moves a file that was made beside the store into it; notes the new file, if the store did not have the bytes.
///
/// # Errors
///
/// Fails if it cannot be moved.
pub(crate) fn take(dir: &Path, made: &Path, stored: Stored, new: &mut Vec<PathBuf>) -> Result<()> {
    let target = fs::confined(dir, &path(&stored.sha256))?;
    if open(dir, stored).is_ok() {
        return Ok(());
    }
    let file = File::open(made).map_err(|e| Error::io("read", made, e))?;
    fs::set_mode(&file, 0o644).map_err(|e| Error::io("write", &target, e))?;
    file.sync_all().map_err(|e| Error::io("write", &target, e))?;
    std::fs::rename(made, &target).map_err(|e| Error::io("write", &target, e))?;
    new.push(target);
    fs::sync_dir(&fs::confined(dir, DIR)?)
}

/// Hashes a file without storing it.
///
/// # Errors
///
/// Fails if `source` is not a regular file or is empty, or if it cannot be read.
pub(crate) fn measure(source: &Path, progress: impl FnMut(u64)) -> Result<Stored> {
    check_source(source)?;
    copy(source, std::io::sink(), source, progress)
}

/// Checks that a file can be an artifact.
///
/// # Errors
///
/// Fails if it is not a regular file or is empty.
pub(crate) fn check_source(source: &Path) -> Result<()> {
    let metadata = std::fs::metadata(source).map_err(|e| Error::io("read", source, e))?;
    if !metadata.is_file() {
        return Err(Error::input(format!("{} is not a regular file", source.display()))
            .remedy("an artifact is one file; pack a folder into an archive or an image first"));
    }
    if metadata.len() == 0 {
        return Err(Error::input(format!("{} is empty", source.display())).remedy("give the file that the build made"));
    }
    Ok(())
}

/// Copies a file to `to`, which is in `folder`, and hashes it.
fn copy(source: &Path, mut to: impl std::io::Write, folder: &Path, mut progress: impl FnMut(u64)) -> Result<Stored> {
    let mut from = File::open(source).map_err(|e| Error::io("read", source, e))?;
    let mut hash = Sha256::new();
    let mut length = 0;
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = from.read(&mut buffer).map_err(|e| Error::io("read", source, e))?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
        to.write_all(bytes).map_err(|e| Error::io("write to", folder, e))?;
        length += count as u64;
        progress(count as u64);
    }
    let sha256: Digest = to_hex(&hash.finalize()).parse().map_err(|e| Error::bug("a digest").with_source(e))?;
    Ok(Stored { sha256, length })
}

/// Streams bytes into the store; they must match `stored`. `made` if this program made them. On an error nothing is left behind.
///
/// # Errors
///
/// Fails if the bytes have another length or hash, or if they cannot be written.
pub async fn receive(
    dir: &Path,
    stored: Stored,
    made: bool,
    mut bytes: impl Stream<Item = Result<bytes::Bytes>> + Unpin,
) -> Result<()> {
    let folder = fs::confined(dir, if made { SIGNED_DIR } else { DIR })?;
    std::fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
    let target = fs::confined(dir, &if made { signed_path(&stored.sha256) } else { path(&stored.sha256) })?;
    let mut temp = tempfile::NamedTempFile::new_in(&folder).map_err(|e| Error::io("write to", &folder, e))?;
    let (mut hash, mut length) = (Sha256::new(), 0_u64);
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk?;
        length = length.saturating_add(chunk.len() as u64);
        if length > stored.length {
            break;
        }
        hash.update(&chunk);
        temp.write_all(&chunk).map_err(|e| Error::io("write to", &folder, e))?;
    }
    if length != stored.length || to_hex(&hash.finalize()) != stored.sha256.to_string() {
        return Err(Error::trust(format!(
            "what was fetched is not the {} bytes with the SHA-256 {}",
            stored.length, stored.sha256
        ))
        .remedy("the published file is damaged; `tidegate verify` says which"));
    }
    fs::set_mode(temp.as_file(), 0o644).map_err(|e| Error::io("write", &target, e))?;
    temp.as_file().sync_all().map_err(|e| Error::io("write", &target, e))?;
    temp.persist(&target).map_err(|e| Error::io("write", &target, e.error))?;
    fs::sync_dir(&folder)
}

/// Opens the bytes with this hash and length.
///
/// # Errors
///
/// Fails if the file does not exist or has another length.
pub fn open(dir: &Path, stored: Stored) -> Result<(PathBuf, File)> {
    let path = fs::confined(dir, &find(dir, &stored.sha256))?;
    let file = File::open(&path).map_err(|e| {
        let error = Error::io("read", &path, e);
        if error.is_not_found() {
            error
                .remedy("copy the file that the build made there, or take it from what is published: tidegate pull PLACE --artifacts")
        } else {
            error
        }
    })?;
    let length = file.metadata().map_err(|e| Error::io("read", &path, e))?.len();
    if length != stored.length {
        return Err(Error::trust(format!("{} has {length} bytes, and {} were signed", path.display(), stored.length))
            .remedy("remove the file and restore the right one"));
    }
    Ok((path, file))
}

/// Hashes the stored bytes again.
///
/// # Errors
///
/// Fails if the file does not exist or has other bytes than its name promises.
pub fn verify(dir: &Path, stored: Stored, mut progress: impl FnMut(u64)) -> Result<()> {
    let (path, mut file) = open(dir, stored)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = file.read(&mut buffer).map_err(|e| Error::io("read", &path, e))?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
        progress(count as u64);
    }
    if to_hex(&hash.finalize()) == stored.sha256.to_string() {
        return Ok(());
    }
    Err(Error::trust(format!("the content of {} does not match its name", path.display()))
        .remedy("remove the file and restore the right one"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Rule;

    #[test]
    fn a_file_is_kept_by_its_hash() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("image");
        std::fs::write(&source, b"bytes").unwrap();
        let mut seen = 0;
        let stored = add(dir.path(), &source, |count| seen += count).unwrap();
        assert_eq!((stored.length, seen, stored.sha256), (5, 5, Digest::of(b"bytes")));
        verify(dir.path(), stored, |_| ()).unwrap();
        assert_eq!(add(dir.path(), &source, |_| ()).unwrap(), stored);

        std::fs::write(dir.path().join(path(&stored.sha256)), b"bites").unwrap();
        assert_eq!(verify(dir.path(), stored, |_| ()).unwrap_err().kind(), crate::Kind::Trust);
        std::fs::write(dir.path().join(path(&stored.sha256)), b"byte").unwrap();
        assert!(open(dir.path(), stored).unwrap_err().to_string().contains("has 4 bytes, and 5 were signed"));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(add(dir.path(), dir.path(), |_| ()).unwrap_err().to_string().contains("not a regular file"));
        assert!(add(dir.path(), &dir.path().join("none"), |_| ()).unwrap_err().is_not_found());
        std::fs::write(dir.path().join("empty"), b"").unwrap();
        assert!(add(dir.path(), &dir.path().join("empty"), |_| ()).unwrap_err().to_string().contains("is empty"));
    }

    #[cfg(unix)]
    #[test]
    fn a_store_that_is_a_link_to_elsewhere_is_refused() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("image"), b"bytes").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("artifacts")).unwrap();
        assert_eq!(
            add(dir.path(), &dir.path().join("image"), |_| ()).unwrap_err().broken_rule(),
            Some(Rule::PublishConfined)
        );
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}

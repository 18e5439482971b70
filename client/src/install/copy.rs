//! Copying artifacts, with every byte hashed while it is copied and again when it is read back.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{Artifact, InstallError};
use crate::disk::{Disk, OpenFile};
use tidegate_tuf::hash::{Checker, Mismatch};

const BUFFER: usize = 64 * 1024;

/// Copies an artifact into `file` at `path` and makes it durable.
pub(super) fn copy(artifact: &Artifact, file: &mut OpenFile, path: &Path) -> Result<(), InstallError> {
    let writing = |source| InstallError::Io { action: "write", path: path.to_owned(), source };
    let mut written = Ok(());
    source(artifact, |bytes| {
        written = file.append(bytes);
        written.is_ok()
    })?;
    written.and_then(|()| file.sync()).map_err(writing)
}

/// The same, with the first block written last, when all the others are durable.
pub(super) fn copy_first_last(artifact: &Artifact, file: &mut OpenFile, path: &Path) -> Result<(), InstallError> {
    let writing = |source| InstallError::Io { action: "write", path: path.to_owned(), source };
    let (mut first, mut at) = (Vec::new(), 0_u64);
    // What an older release left of the first block would make a mixture look whole.
    let zeros = vec![0; BUFFER.min(usize::try_from(artifact.length).unwrap_or(BUFFER))];
    file.write_at(0, &zeros).and_then(|()| file.sync()).map_err(writing)?;
    let mut written = Ok(());
    source(artifact, |bytes| {
        if at == 0 {
            bytes.clone_into(&mut first);
        } else {
            written = file.write_at(at, bytes);
        }
        at += bytes.len() as u64;
        written.is_ok()
    })?;
    written
        .and_then(|()| file.sync())
        .and_then(|()| file.write_at(0, &first))
        .and_then(|()| file.sync())
        .map_err(writing)
}

/// Checks that the first bytes at `path` are the artifact. Reads from the medium as far as the system allows.
pub(super) fn read_back(disk: &Disk, artifact: &Artifact, path: &Path) -> Result<(), InstallError> {
    let reading = |source| InstallError::Io { action: "read back", path: path.to_owned(), source };
    disk.forget_cached(path);
    // A slot may be longer than its content.
    let written = File::open(path).map_err(reading)?.take(artifact.length);
    each_block(artifact, written, |_| true).map_err(|e| match e {
        Unread::Io(source) => reading(source),
        Unread::Differs(mismatch) => InstallError::ReadBack { path: path.to_owned(), mismatch },
    })
}

/// Checks that the downloaded file is unchanged since it was verified.
pub(super) fn check(artifact: &Artifact) -> Result<(), InstallError> {
    source(artifact, |_| true)
}

/// Reads the downloaded file, passes it to `take` until that returns false, and checks that it is unchanged since it was verified.
fn source(artifact: &Artifact, take: impl FnMut(&[u8]) -> bool) -> Result<(), InstallError> {
    let path = &artifact.path;
    let reading = |source| InstallError::Io { action: "read", path: path.clone(), source };
    each_block(artifact, File::open(path).map_err(reading)?, take).map_err(|e| match e {
        Unread::Io(source) => reading(source),
        Unread::Differs(mismatch) => InstallError::Changed { path: path.clone(), mismatch },
    })
}

enum Unread {
    Io(io::Error),
    Differs(Mismatch),
}

fn each_block(artifact: &Artifact, mut file: impl Read, mut take: impl FnMut(&[u8]) -> bool) -> Result<(), Unread> {
    let mut checker = Checker::new(Some(artifact.length), Some(&artifact.hashes));
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match file.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            result => result.map_err(Unread::Io)?,
        };
        if count == 0 {
            return checker.finish().map_err(Unread::Differs);
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        checker.update(bytes).map_err(Unread::Differs)?;
        if !take(bytes) {
            return Ok(());
        }
    }
}

//! Copying artifacts, with every byte hashed while it is copied and again when it is read back.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{Artifact, InstallError};
use crate::disk::{Disk, OpenFile};
use crate::watch::{Phase, Progress, Watch};
use tidegate_tuf::hash::{Checker, Mismatch};

const BUFFER: usize = 64 * 1024;

/// Copies an artifact into `file` at `path` and makes it durable.
pub(super) fn copy(
    artifact: &Artifact,
    file: &mut OpenFile,
    path: &Path,
    watch: &mut Watch<'_>,
) -> Result<(), InstallError> {
    let writing = |source| InstallError::Io { action: "write", path: path.to_owned(), source };
    source(artifact, watch, |bytes| file.append(bytes).map_err(writing))?;
    file.sync().map_err(writing)
}

/// The same, with the first block written last, when all the others are durable.
pub(super) fn copy_first_last(
    artifact: &Artifact,
    file: &mut OpenFile,
    path: &Path,
    watch: &mut Watch<'_>,
) -> Result<(), InstallError> {
    let writing = |source| InstallError::Io { action: "write", path: path.to_owned(), source };
    let (mut first, mut at) = (Vec::new(), 0_u64);
    // What an older release left of the first block would make a mixture look whole.
    let zeros = vec![0; BUFFER.min(usize::try_from(artifact.length).unwrap_or(BUFFER))];
    file.write_at(0, &zeros).and_then(|()| file.sync()).map_err(writing)?;
    source(artifact, watch, |bytes| {
        if at == 0 {
            bytes.clone_into(&mut first);
        } else {
            file.write_at(at, bytes).map_err(writing)?;
        }
        at += bytes.len() as u64;
        Ok(())
    })?;
    file.sync().and_then(|()| file.write_at(0, &first)).and_then(|()| file.sync()).map_err(writing)
}

/// Checks that the first bytes at `path` are the artifact. Reads from the medium as far as the system allows.
pub(super) fn read_back(
    disk: &Disk,
    artifact: &Artifact,
    path: &Path,
    watch: &mut Watch<'_>,
) -> Result<(), InstallError> {
    let reading = |source| InstallError::Io { action: "read back", path: path.to_owned(), source };
    disk.forget_cached(path);
    // A slot may be longer than its content.
    let written = File::open(path).map_err(reading)?.take(artifact.length);
    let differs = |mismatch| InstallError::ReadBack { path: path.to_owned(), mismatch };
    each_block(artifact, written, (Phase::ReadBack, watch), (&reading, &differs), |_| Ok(()))
}

/// Checks that the downloaded file is unchanged since it was verified.
pub(super) fn check(artifact: &Artifact, watch: &mut Watch<'_>) -> Result<(), InstallError> {
    source(artifact, watch, |_| Ok(()))
}

/// Reads the downloaded file, passes it to `take`, and checks that it is unchanged since it was verified.
fn source(
    artifact: &Artifact,
    watch: &mut Watch<'_>,
    take: impl FnMut(&[u8]) -> Result<(), InstallError>,
) -> Result<(), InstallError> {
    let path = &artifact.path;
    let reading = |source| InstallError::Io { action: "read", path: path.clone(), source };
    let differs = |mismatch| InstallError::Changed { path: path.clone(), mismatch };
    let file = File::open(path).map_err(reading)?;
    each_block(artifact, file, (Phase::Install, watch), (&reading, &differs), take)
}

/// How a read error and a difference are told.
type Complaints<'a> = (&'a dyn Fn(io::Error) -> InstallError, &'a dyn Fn(Mismatch) -> InstallError);

fn each_block(
    artifact: &Artifact,
    mut file: impl Read,
    (phase, watch): (Phase, &mut Watch<'_>),
    (reading, differs): Complaints<'_>,
    mut take: impl FnMut(&[u8]) -> Result<(), InstallError>,
) -> Result<(), InstallError> {
    let mut checker = Checker::new(Some(artifact.length), Some(&artifact.hashes));
    let mut buffer = vec![0; BUFFER];
    loop {
        watch.at(Progress::new(phase, &artifact.name, checker.seen(), artifact.length))?;
        let count = match file.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            result => result.map_err(reading)?,
        };
        if count == 0 {
            return checker.finish().map_err(differs);
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        checker.update(bytes).map_err(differs)?;
        take(bytes)?;
    }
}

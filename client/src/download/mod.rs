//! Downloading a target to a file: streamed, hashed as it comes, resumed where it stopped.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::disk::{Disk, has_other_names};
use crate::error::Error;
use crate::fetch::{Fetch, Reply, Request};
use tidegate_tuf::hash::{Checker, Hashes, Mismatch};

/// What to download, and how to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The target path, for error messages.
    pub name: String,
    /// The URL.
    pub url: String,
    /// Its length in bytes.
    pub length: u64,
    /// Its hashes.
    pub hashes: Hashes,
}

impl Wanted {
    pub(crate) fn checker(&self) -> Checker {
        Checker::new(Some(self.length), Some(&self.hashes))
    }
}

/// The progress of a download, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The downloaded bytes.
    pub done: u64,
    /// The total bytes.
    pub total: u64,
}

const BUFFER: usize = 64 * 1024;

/// Brings a file to `path`, unless it is there already. Afterwards `path` holds exactly the file that is wanted.
///
/// What has come is kept in `path` with `.part` appended and survives network faults and power cuts; it is hashed again
/// before a later call continues it. A file that turns out wrong is removed, and nothing is ever found at `path` that was
/// not verified. Memory use does not depend on the file's length.
///
/// # Errors
///
/// [`Error::WrongTarget`] if the file that came is another; [`Error::Fetch`] if it did not come whole; [`Error::File`] if
/// it could not be written. On a full disk the part is removed, to give the room back. An error of `progress` ends the download like one of
/// the network.
pub fn download(
    fetch: &(impl Fetch + ?Sized),
    disk: &Disk,
    wanted: &Wanted,
    path: &Path,
    progress: &mut dyn FnMut(Progress) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { action, path, source }
    };
    if matches(path, wanted).map_err(failed("read", path))? {
        return progress(Progress { done: wanted.length, total: wanted.length });
    }
    if let Some(folder) = path.parent() {
        disk.create_folder(folder).map_err(failed("create the folder", folder))?;
    }
    let part = part_of(path);
    let mut checker = resumable(&part, wanted).map_err(failed("read", &part))?;
    loop {
        let resumed = checker.is_some();
        let checker_now = checker.take().unwrap_or_else(|| wanted.checker());
        match transfer(fetch, disk, wanted, &part, checker_now, progress) {
            Ok(()) => break,
            // The partial download may belong to another file: restart.
            Err(Error::WrongTarget { .. }) if resumed => remove(disk, &part)?,
            Err(e) => {
                let full = matches!(&e, Error::File { source, .. } if source.kind() == io::ErrorKind::StorageFull);
                if full || matches!(e, Error::WrongTarget { .. }) {
                    remove(disk, &part)?;
                }
                return Err(e);
            }
        }
    }
    disk.rename(&part, path).map_err(failed("rename the finished download to", path))
}

/// Fetches what is missing of `part`, whose bytes `checker` has seen, and checks the whole.
fn transfer(
    fetch: &(impl Fetch + ?Sized),
    disk: &Disk,
    wanted: &Wanted,
    part: &Path,
    mut checker: Checker,
    progress: &mut dyn FnMut(Progress) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = |action| move |source| Error::File { action, path: part.to_owned(), source };
    let wrong = |mismatch| Error::WrongTarget { path: wanted.name.clone(), url: wanted.url.clone(), mismatch };
    let here = checker.seen();
    if here < wanted.length || here == 0 {
        let request = Request::target(&wanted.url, wanted.length).after(here);
        let Reply::Found(mut body) = fetch.fetch(&request)? else {
            return Err(Error::Missing { what: wanted.name.clone(), url: wanted.url.clone() });
        };
        let mut file = if body.offset() == here && here > 0 {
            disk.resume(part, here)
        } else {
            checker = wanted.checker();
            disk.create(part)
        }
        .map_err(failed("write"))?;
        let mut buffer = vec![0; BUFFER];
        let result = loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(count) => count,
                Err(e) => break Err(e.into()),
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            if let Err(mismatch) = checker.update(bytes) {
                break Err(wrong(mismatch));
            }
            file.append(bytes).map_err(failed("write"))?;
            if let Err(e) = progress(Progress { done: checker.seen(), total: wanted.length }) {
                break Err(e);
            }
        };
        // Also after an error, so that a later call can resume.
        file.sync().map_err(failed("write"))?;
        result?;
    }
    checker.finish().map_err(wrong)
}

/// The name of a download that is not complete.
pub(crate) fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

/// A checker that has seen what is here of the file; `None` if that is nothing, or cannot be a part of it.
fn resumable(part: &Path, wanted: &Wanted) -> io::Result<Option<Checker>> {
    match regular_length(part)? {
        Some(length) if length > 0 && length <= wanted.length => {
            let mut checker = wanted.checker();
            Ok(feed(&mut File::open(part)?, &mut checker)?.ok().map(|()| checker))
        }
        _ => Ok(None),
    }
}

/// Whether the file at `path` is the one that is wanted.
fn matches(path: &Path, wanted: &Wanted) -> io::Result<bool> {
    if regular_length(path)? != Some(wanted.length) {
        return Ok(false);
    }
    let mut checker = wanted.checker();
    Ok(feed(&mut File::open(path)?, &mut checker)?.and_then(|()| checker.finish()).is_ok())
}

/// The length of a regular file; `None` if there is none at `path`, or if it is also another file.
pub(crate) fn regular_length(path: &Path) -> io::Result<Option<u64>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok((metadata.is_file() && !has_other_names(&metadata)).then_some(metadata.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Shows the rest of a file to a checker.
pub(crate) fn feed(file: &mut File, checker: &mut Checker) -> io::Result<Result<(), Mismatch>> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(Ok(()));
        }
        if let Err(mismatch) = checker.update(buffer.get(..count).unwrap_or_default()) {
            return Ok(Err(mismatch));
        }
    }
}

fn remove(disk: &Disk, path: &Path) -> Result<(), Error> {
    disk.remove(path).map_err(|source| Error::File { action: "remove", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;

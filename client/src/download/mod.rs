//! Downloading a target to a file: streamed, hashed as it comes, resumed where it stopped.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::disk::{Disk, OpenFile, has_other_names};
use crate::error::Error;
use crate::fetch::{Body, Fetch, FetchError, Request};
use crate::watch::{Phase, Progress};
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
    /// How far its download is.
    pub(crate) fn progress(&self, done: u64) -> Progress<'_> {
        Progress::new(Phase::Download, &self.name, done, self.length)
    }

    pub(crate) fn checker(&self) -> Checker {
        Checker::new(Some(self.length), Some(&self.hashes))
    }
}

const BUFFER: usize = 64 * 1024;

/// Brings a file to `path`, unless it is there already. Afterwards `path` holds exactly the file that is wanted.
///
/// What has come is kept in `path` with `.part` appended and survives network faults and power cuts; it is hashed again
/// before a later call continues it. A body that ends early is an interruption, whether or not its length was declared. An answer that is not the
/// file, such as the login page of a network, does not touch what is here. A whole file that turns out wrong is removed, and nothing is ever found at
/// `path` that was not verified. Memory use does not depend on the file's length.
///
/// # Errors
///
/// [`Error::WrongTarget`] if the file that came is another; [`Error::Fetch`] if it did not come whole, or something else in its place; [`Error::File`] if
/// it could not be written. On a full disk the part is removed, to give the room back. An error of `progress` ends the download like one of
/// the network.
pub fn download(
    fetch: &(impl Fetch + ?Sized),
    disk: &Disk,
    wanted: &Wanted,
    path: &Path,
    progress: &mut dyn FnMut(Progress<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { action, path, source }
    };
    if matches(path, wanted).map_err(failed("read", path))? {
        return progress(wanted.progress(wanted.length));
    }
    if let Some(folder) = path.parent() {
        disk.create_folder(folder).map_err(failed("create the folder", folder))?;
    }
    let part = part_of(path);
    // Why what was unpacked is not the file. It may be signed in compressed form.
    let mut unpacked = None;
    loop {
        let checker = resumable(&part, wanted).map_err(failed("read", &part))?.unwrap_or_else(|| wanted.checker());
        let here = checker.seen();
        let mut ask = Request::target(&wanted.url, wanted.length).after(here);
        ask.as_is = unpacked.is_some();
        let mut is_unpacked = false;
        let mut kept = Part { disk, path: &part, here, file: None, before: None, differs: false };
        match transfer(fetch, wanted, &mut kept, checker, &ask, &mut is_unpacked, progress) {
            Ok(true) => break,
            // What was here belongs to another file.
            Ok(false) => remove(disk, &part)?,
            Err(e) => {
                let is_full = matches!(&e, Error::File { source, .. } if source.kind() == io::ErrorKind::StorageFull);
                let is_unpacked = is_unpacked && !ask.as_is && is_other(&e);
                let is_useless = here == 0 && (is_unpacked || matches!(&e, Error::Fetch(FetchError::Status { .. })));
                if is_full || is_useless {
                    remove(disk, &part)?;
                }
                if !is_unpacked {
                    return Err(unpacked.filter(|_| is_other(&e)).unwrap_or(e));
                }
                unpacked = Some(e);
            }
        }
    }
    disk.rename(&part, path).map_err(failed("rename the finished download to", path))
}

/// Whether something else than the file came.
fn is_other(error: &Error) -> bool {
    use FetchError::{Protocol, Status, TooLong};
    matches!(error, Error::WrongTarget { .. } | Error::Fetch(Status { .. } | TooLong { .. } | Protocol { .. }))
}

/// Fetches what is missing of a file, whose bytes `checker` has seen, and checks the whole. `false` if what was here turned out to belong to
/// another file. `is_unpacked` becomes true if what comes is unpacked on its way.
fn transfer(
    fetch: &(impl Fetch + ?Sized),
    wanted: &Wanted,
    part: &mut Part<'_>,
    mut checker: Checker,
    request: &Request<'_>,
    is_unpacked: &mut bool,
    progress: &mut dyn FnMut(Progress<'_>) -> Result<(), Error>,
) -> Result<bool, Error> {
    let (disk, path, here) = (part.disk, part.path, part.here);
    let failed = |action| move |source| Error::File { action, path: path.to_owned(), source };
    let mut offset = here;
    if here < wanted.length || here == 0 {
        let mut body = Error::unless_found(fetch.fetch(request)?, &wanted.name, &wanted.url)?;
        offset = body.offset();
        *is_unpacked = body.head().is_unpacked;
        let doubt = body.head().doubt.clone();
        let instead = |came| Error::Fetch(FetchError::status(&wanted.url, 200, came));
        if let Some(came) = &doubt
            && body.head().length.is_some_and(|length| length != wanted.length.saturating_sub(offset))
        {
            return Err(instead(came.clone()));
        }
        if offset < here {
            checker = wanted.checker();
        }
        let received = receive(&mut body, part, &mut checker, wanted, progress);
        // Also after an error, so that a later call can resume.
        part.file.as_ref().map_or(Ok(()), OpenFile::sync).map_err(failed("write"))?;
        received?;
        let seen = checker.seen();
        if seen < wanted.length {
            let reason = format!("it ended after {seen} of {} bytes", wanted.length);
            return Err(doubt.map_or(FetchError::Interrupted { url: wanted.url.clone(), reason }.into(), instead));
        }
        if part.differs {
            // One of the two is another file. The bytes that just came were not written.
            let Err(mismatch) = checker.finish() else { return Ok(false) };
            return Err(doubt.map_or_else(|| wrong(wanted, mismatch), instead));
        }
    }
    match checker.finish() {
        Ok(()) => Ok(true),
        Err(_) if here > 0 && offset == here => Ok(false),
        Err(mismatch) => {
            remove(disk, path)?;
            Err(wrong(wanted, mismatch))
        }
    }
}

/// Takes a body to its end.
fn receive(
    body: &mut Body,
    part: &mut Part<'_>,
    checker: &mut Checker,
    wanted: &Wanted,
    progress: &mut dyn FnMut(Progress<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let path = part.path;
    let failed = |source| Error::File { action: "write", path: path.to_owned(), source };
    if part.here == 0 {
        part.open().map_err(failed)?;
    }
    let mut buffer = vec![0; BUFFER];
    loop {
        let at = checker.seen();
        let count = body.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        checker.update(bytes).map_err(|mismatch| wrong(wanted, mismatch))?;
        part.take(at, bytes).map_err(failed)?;
        progress(wanted.progress(checker.seen()))?;
    }
}

/// What is here of a file. A server that starts anew is compared with it, and only what is new is written: what is here is worth more than an
/// answer that may be another file, such as the login page of a network.
struct Part<'a> {
    disk: &'a Disk,
    path: &'a Path,
    here: u64,
    /// Open for appending.
    file: Option<OpenFile>,
    /// Open for comparing.
    before: Option<File>,
    differs: bool,
}

impl Part<'_> {
    /// Takes bytes that belong at `at` of the file.
    fn take(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let known = usize::try_from(self.here.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
        let (known, new) = bytes.split_at_checked(known).unwrap_or_default();
        if !known.is_empty() && !self.differs {
            let file = match &mut self.before {
                Some(file) => file,
                none => none.insert(File::open(self.path)?),
            };
            let mut before = vec![0; known.len()];
            file.read_exact(&mut before)?;
            self.differs = before != known;
        }
        if new.is_empty() || self.differs { Ok(()) } else { self.open()?.append(new) }
    }

    fn open(&mut self) -> io::Result<&mut OpenFile> {
        match &mut self.file {
            Some(_) => {}
            none if self.here == 0 => *none = Some(self.disk.create(self.path)?),
            none => *none = Some(self.disk.resume(self.path, self.here)?),
        }
        self.file.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn wrong(wanted: &Wanted, mismatch: Mismatch) -> Error {
    Error::WrongTarget { path: wanted.name.clone(), url: wanted.url.clone(), mismatch }
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
pub(crate) fn feed(file: &mut impl io::Read, checker: &mut Checker) -> io::Result<Result<(), Mismatch>> {
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

//! Streams the contents of a place that others may write to: they may not fit into memory.

use std::fs::{DirEntry, File, ReadDir};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use object_store::path::Path as Key;
use tracing::debug;

use super::remote::{Backend, Remote};
use crate::error::{Error, Result};

/// An object's key, relative to the place, and its length in bytes.
type Listed = (String, u64);

impl Remote {
    /// The objects below one of our keys, such as `receipts/stable`; an empty key lists the place. In no particular order.
    pub(crate) fn objects(&self, below: &str) -> BoxStream<'_, Result<Listed>> {
        if let Backend::Folder(root) = &self.kind {
            // Not the store's own listing: it stops at the first name that is not a valid key, and follows links.
            let files = Files { root, left: vec![(root.join(below), 0)], open: None };
            return stream::iter(files.map(|file| file.map_err(|(path, error)| Error::io("list", &path, error))))
                .boxed();
        }
        debug!(place = self.name(), below, "list");
        let prefix: Key = self.prefix.parts().chain(Key::from(below).parts()).collect();
        let strip = if self.prefix.as_ref().is_empty() { 0 } else { self.prefix.as_ref().len() + 1 };
        let listed = self.store.list((!prefix.as_ref().is_empty()).then_some(&prefix));
        let found = listed.filter_map(move |object| async move {
            let object = object.map_err(|error| match error {
                // The store's listing stops here, and the library has no way to continue.
                object_store::Error::InvalidPath { source } => Error::trust(format!(
                    "{} holds an object whose name is none that was put there by a gate: {source}",
                    self.name()
                ))
                .remedy("remove it with the store's own tools, and let nobody but the gate name objects there: docs/gate.md"),
                error => self.fault("list", "what is", &error),
            });
            object.map(|meta| Some((meta.location.as_ref().get(strip..)?.to_owned(), meta.size))).transpose()
        });
        found.boxed()
    }

    /// Reads a small object that was listed; `None` if it has been removed since. Files of a folder are opened directly: there
    /// may be a million of them.
    ///
    /// # Errors
    ///
    /// [`Kind::Trust`](crate::error::Kind::Trust) if it is longer than `limit`, or a file that cannot be read: anyone who may
    /// write to a folder can create such a file.
    pub(crate) async fn read_listed(&self, key: &str, limit: u64) -> Result<Option<Bytes>> {
        let Backend::Folder(root) = &self.kind else {
            return Ok(self.read(key, limit).await?.map(|seen| seen.bytes));
        };
        let path = root.join(key);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)) {
            Ok(length) if length as u64 > limit => {
                Err(Error::trust(format!("{} is longer than {limit} bytes", path.display())))
            }
            Ok(_) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Error::trust(format!("{} may not be read", path.display())).with_source(error))
            }
            Err(error) => Err(Error::io("read", &path, error)),
        }
    }

    /// Checks that the folder exists. Whether a bucket exists shows when it is listed.
    ///
    /// # Errors
    ///
    /// Fails if the place is a folder that does not exist.
    pub(crate) fn must_be_there(&self) -> Result<()> {
        match &self.kind {
            Backend::Folder(root) if !root.is_dir() => Err(Error::input(format!("there is no folder {}", self.name()))
                .remedy("correct the name, or make the folder if nothing has been put there yet")),
            _ => Ok(()),
        }
    }
}

/// How many levels below the start folders are read: more than any layout needs. Deeper folders are only reported by name, so
/// that no chain of folders exceeds what the system can open.
const DEEPEST: usize = 6;

/// The files below a folder, folder by folder, without links, pipes and names that are not UTF-8. A folder that cannot be opened,
/// or is too deep, is listed itself.
struct Files<'a> {
    root: &'a Path,
    /// The remaining folders, and their depth.
    left: Vec<(PathBuf, usize)>,
    open: Option<(PathBuf, usize, ReadDir)>,
}

impl Files<'_> {
    /// The key and length of an entry, if it is a file; a folder is queued.
    fn look(&mut self, entry: &DirEntry, depth: usize) -> io::Result<Option<Listed>> {
        let kind = entry.file_type()?;
        let path = entry.path();
        if kind.is_dir() && depth < DEEPEST {
            self.left.push((path, depth + 1));
            return Ok(None);
        }
        if kind.is_dir() {
            return Ok(self.key(&path).map(|key| (key, 0)));
        }
        let Some(key) = self.key(&path).filter(|_| kind.is_file()) else { return Ok(None) };
        match entry.metadata() {
            Ok(meta) => Ok(Some((key, meta.len()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn key(&self, path: &Path) -> Option<String> {
        let parts = path.strip_prefix(self.root).into_iter().flat_map(Path::iter);
        Some(parts.map(|part| part.to_str()).collect::<Option<Vec<_>>>()?.join("/"))
    }
}

impl Iterator for Files<'_> {
    type Item = Result<Listed, (PathBuf, io::Error)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((folder, depth, entries)) = &mut self.open else {
                let (folder, depth) = self.left.pop()?;
                match std::fs::read_dir(&folder) {
                    Ok(entries) => self.open = Some((folder, depth, entries)),
                    // Nothing has been written there yet, or it was removed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    // Anyone who may write here can create an unreadable folder; only at the start of the listing is that an
                    // error.
                    Err(error) if depth > 0 && error.kind() == io::ErrorKind::PermissionDenied => {
                        if let Some(key) = self.key(&folder) {
                            return Some(Ok((key, 0)));
                        }
                    }
                    Err(error) => return Some(Err((folder, error))),
                }
                continue;
            };
            let (folder, depth) = (folder.clone(), *depth);
            match entries.next().map(|entry| entry.and_then(|entry| self.look(&entry, depth))) {
                Some(Ok(Some(file))) => return Some(Ok(file)),
                Some(Ok(None)) => {}
                Some(Err(error)) => return Some(Err((folder, error))),
                None => self.open = None,
            }
        }
    }
}

//! Streams the contents of a place that others may write to: they may not fit into memory.

use std::fs::{DirEntry, ReadDir};
use std::io::{self};
use std::path::{Path, PathBuf};

use crate::error::Result;

/// An object's key, relative to the place, and its length in bytes.
pub(super) type Listed = (String, u64);

/// How many levels below the start folders are read: more than any layout needs. Deeper folders are only reported by name, so
/// that no chain of folders exceeds what the system can open.
const DEEPEST: usize = 6;

/// The files below a folder, folder by folder, without links, pipes and names that are not UTF-8. A folder that cannot be opened,
/// or is too deep, is listed itself.
pub(super) struct Files<'a> {
    root: &'a Path,
    /// The remaining folders, and their depth.
    left: Vec<(PathBuf, usize)>,
    open: Option<(PathBuf, usize, ReadDir)>,
}

impl<'a> Files<'a> {
    /// The files below a folder of `root`.
    pub(super) fn below(root: &'a Path, folder: &str) -> Self {
        Self { root, left: vec![(root.join(folder), 0)], open: None }
    }

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

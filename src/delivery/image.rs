//! A file that several threads read by position.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

/// An artifact, or another file that is read by position.
pub(super) struct Image {
    path: PathBuf,
    file: Mutex<File>,
    length: u64,
}

impl Image {
    pub(super) fn open(path: &Path) -> Result<Image> {
        Image::of(File::open(path).map_err(|error| Error::io("open", path, error))?, path)
    }

    /// An open file; errors name `path`.
    pub(super) fn of(mut file: File, path: &Path) -> Result<Image> {
        let length = file.seek(SeekFrom::End(0)).map_err(|error| Error::io("read", path, error))?;
        Ok(Image { path: path.to_owned(), file: Mutex::new(file), length })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Adds `length` bytes from `offset` to `into`.
    pub(super) fn read(&self, offset: u64, length: usize, into: &mut Vec<u8>) -> Result<()> {
        let start = into.len();
        into.resize(start + length, 0);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let into = into.get_mut(start..).unwrap_or_default();
        let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(into));
        read.map_err(|error| Error::io("read", &self.path, error))
    }

    /// The part of at most `length` bytes at `offset`.
    pub(super) fn part(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let length = self.length.saturating_sub(offset).min(length as u64);
        let mut part = Vec::new();
        self.read(offset, usize::try_from(length).unwrap_or(0), &mut part)?;
        Ok(part)
    }
}

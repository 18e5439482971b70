//! The pieces of an artifact, and how each is made.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::Path;

use super::Remote;
use tidegate_model::delivery::{Directory, apply};
use tidegate_model::digest::Digest;

/// A piece of an artifact.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Where it is in the artifact.
    pub(super) at: u64,
    pub(super) length: usize,
    pub(super) sha256: Digest,
    /// Where its data is in the file of the delivery. Empty if it is made without data.
    pub(super) data: Range<u64>,
}

/// The pieces of an artifact in order, with what makes them.
pub(super) trait Pieces {
    fn count(&self) -> usize;

    fn part(&mut self, index: usize) -> io::Result<Part>;

    /// The file with the data.
    fn container(&self) -> &Remote;

    /// Makes a piece in `into`, which is empty, of the running release and its data. `false` if that does not give the piece.
    fn make(&mut self, index: usize, data: &[u8], into: &mut Vec<u8>) -> bool;
}

/// The running release's artifact. Nothing in it is trusted, and it may be unreadable.
pub(super) struct Old(Option<File>);

impl Old {
    pub(super) fn open(path: Option<&Path>) -> Self {
        // Opening a pipe would block until its other end is open.
        let usable = |path: &&Path| path.metadata().is_ok_and(|metadata| !metadata.is_dir() && !is_pipe(&metadata));
        Self(path.filter(usable).and_then(|path| File::open(path).ok()))
    }

    pub(super) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Reads `length` bytes from this offset on to the end of `into`.
    pub(super) fn read(&mut self, offset: u64, length: usize, into: &mut Vec<u8>) -> bool {
        let Some(file) = &mut self.0 else { return false };
        let start = into.len();
        into.resize(start.saturating_add(length), 0);
        let rest = into.get_mut(start..).unwrap_or_default();
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(rest)).is_ok()
    }

    /// All of it, from its start.
    pub(super) fn whole(&mut self) -> Option<&File> {
        let file = self.0.as_mut()?;
        file.rewind().ok()?;
        Some(file)
    }
}

#[cfg(unix)]
fn is_pipe(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&metadata.file_type())
}

#[cfg(not(unix))]
fn is_pipe(_: &std::fs::Metadata) -> bool {
    false
}

/// The pieces of a patch.
pub(super) struct Patched<'a> {
    pub(super) patch: &'a Remote,
    pub(super) directory: Directory,
    pub(super) old: Old,
    pub(super) source: Vec<u8>,
}

impl Pieces for Patched<'_> {
    fn count(&self) -> usize {
        self.directory.len()
    }

    fn part(&mut self, index: usize) -> io::Result<Part> {
        let piece = self.directory.piece(index).ok_or(io::ErrorKind::InvalidData)?;
        let data = piece.data_offset..piece.data_offset.saturating_add(piece.data_length as u64);
        Ok(Part { at: piece.offset, length: piece.length, sha256: piece.sha256, data })
    }

    fn container(&self) -> &Remote {
        self.patch
    }

    fn make(&mut self, index: usize, data: &[u8], into: &mut Vec<u8>) -> bool {
        let Some(piece) = self.directory.piece(index) else { return false };
        self.source.clear();
        let mut sources = piece.sources.iter();
        sources.all(|source| self.old.read(source.offset, source.length as usize, &mut self.source))
            && apply(&piece, &self.source, data, into).is_ok()
    }
}

//! Patches: the pieces of an artifact, each made of parts of an older one.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tidegate_model::delivery::patch::{MAX_SOURCES, PIECE, write_directory, write_patched};
use tidegate_model::delivery::{FileRef, Method, Piece, Source};
use tidegate_model::digest::Digest;

use super::anchors::Anchors;
use super::difference::{Difference, Finder};
use super::image::Image;
use super::{Progress, lzma, parallel};
use crate::error::{Error, Result};

/// How many pieces are made at once, and held in memory.
const BATCH: usize = 256;

/// Data longer than this is made in a second, slower way too: mostly of pieces that are new.
const LONG: usize = PIECE / 8;

/// A patch that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MadePatch {
    /// Length in bytes.
    pub length: u64,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Its beginning.
    pub directory: FileRef,
}

/// Writes the patch from `old` to `new` into a new file.
///
/// # Errors
///
/// Fails if a file cannot be read or written.
pub fn make_patch(old: &Path, new: &Path, patch: &Path, progress: &Progress<'_>) -> Result<MadePatch> {
    let (old, new) = (Image::open(old)?, Image::open(new)?);
    let anchors = Anchors::of(&old)?;
    let failed = |error| Error::io("write", patch, error);
    // The directory comes first and is known last.
    let mut data = tempfile::tempfile_in(patch.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    let mut pieces = Vec::new();
    let offsets: Vec<u64> = (0..new.length()).step_by(PIECE).collect();
    for batch in offsets.chunks(BATCH) {
        let made = parallel::each(batch, |&offset, scratch: &mut Scratch| {
            let piece = new.part(offset, PIECE)?;
            let made = scratch.make(&old, &anchors, &piece, offset)?;
            progress(piece.len() as u64);
            Ok(made)
        })?;
        for (piece, bytes) in made {
            data.write_all(&bytes).map_err(failed)?;
            pieces.push(piece);
        }
    }
    let directory = directory(&pieces, old.length())?;
    let mut file = File::create_new(patch).map_err(|error| Error::io("create", patch, error))?;
    let mut hash = Sha256::new_with_prefix(&directory);
    file.write_all(&directory).map_err(failed)?;
    let data = Image::of(data, patch)?;
    for offset in (0..data.length()).step_by(1 << 20) {
        let part = data.part(offset, 1 << 20)?;
        hash.update(&part);
        file.write_all(&part).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    Ok(MadePatch {
        length: directory.len() as u64 + data.length(),
        sha256: Digest::from(<[u8; 32]>::from(hash.finalize())),
        directory: FileRef { length: directory.len() as u64, sha256: Digest::of(&directory) },
    })
}

fn directory(pieces: &[Piece], old_length: u64) -> Result<Vec<u8>> {
    let mut failed = None;
    let directory = write_directory(pieces, old_length, &mut |bytes| {
        lzma::pack(bytes, lzma::BYTES).unwrap_or_else(|error| {
            failed = Some(error);
            Vec::new()
        })
    });
    failed.map_or(Ok(directory), Err)
}

/// What a thread uses again from piece to piece.
#[derive(Default)]
struct Scratch {
    finder: Finder,
    source: Vec<u8>,
}

impl Scratch {
    /// A piece and its data.
    fn make(&mut self, old: &Image, anchors: &Anchors, piece: &[u8], offset: u64) -> Result<(Piece, Vec<u8>)> {
        let mut made = Piece {
            sha256: Digest::of(piece),
            offset,
            length: piece.len(),
            method: Method::Zeros,
            data_offset: 0,
            data_length: 0,
            sources: Vec::new(),
        };
        if piece.iter().all(|&byte| byte == 0) {
            return Ok((made, Vec::new()));
        }
        if old.part(offset, piece.len())? == piece {
            (made.method, made.sources) = (Method::Copy, vec![Source { offset, length: piece.len() as u32 }]);
            return Ok((made, Vec::new()));
        }
        let (mut method, mut data) = (Method::Stored, piece.to_vec());
        let mut offer = |other: Method, packed: Vec<u8>, sources: &[Source]| {
            if packed.len() < data.len() {
                (method, data, made.sources) = (other, packed, sources.to_vec());
            }
            data.len()
        };
        let sources = anchors.sources(piece, offset);
        self.source.clear();
        for source in &sources {
            old.read(source.offset, source.length as usize, &mut self.source)?;
        }
        let mut length = piece.len();
        if !sources.is_empty() {
            let difference = self.finder.difference(&self.source, piece);
            if let Some(copied) = copied(&difference, &sources) {
                (made.method, made.sources) = (Method::Copy, copied);
                return Ok((made, Vec::new()));
            }
            if let Some(packed) = patched(&difference)? {
                length = offer(Method::Patched, packed, &sources);
            }
        }
        if length > LONG {
            offer(Method::Packed, lzma::pack_after(piece, &self.source, lzma::MIXED)?, &sources);
        }
        (made.method, made.data_length) = (method, data.len());
        Ok((made, data))
    }
}

/// The sources that are the piece, if nothing is changed or new.
fn copied(difference: &Difference, sources: &[Source]) -> Option<Vec<Source>> {
    if !difference.new.is_empty() || difference.differences.iter().any(|&byte| byte != 0) {
        return None;
    }
    let (mut copied, mut at) = (Vec::<Source>::new(), 0_u64);
    for step in &difference.steps {
        let (mut from, mut left) = (at, u64::from(step.taken));
        let mut before = 0;
        for source in sources {
            let length = u64::from(source.length);
            if left > 0 && from >= before && from < before + length {
                let taken = left.min(before + length - from);
                copied.push(Source { offset: source.offset + from - before, length: taken as u32 });
                from += taken;
                left -= taken;
            }
            before += length;
        }
        at = at.checked_add(u64::from(step.taken))?.checked_add_signed(step.moved.into())?;
    }
    (copied.len() <= MAX_SOURCES).then_some(copied)
}

fn patched(difference: &Difference) -> Result<Option<Vec<u8>>> {
    let mut failed = None;
    let mut part = 0;
    let packed = write_patched(&difference.steps, &difference.differences, &difference.new, &mut |bytes| {
        part += 1;
        // Steps and differences come before what is new.
        let properties = if part == 3 { lzma::MIXED } else { lzma::BYTES };
        lzma::pack(bytes, properties).unwrap_or_else(|error| {
            failed = Some(error);
            Vec::new()
        })
    });
    failed.map_or(Ok(packed), Err)
}

//! What files of deliveries give, read as devices read them: for validation, and for what they would cost.

use std::collections::HashSet;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tidegate_model::delivery::index::read_index;
use tidegate_model::delivery::{DeliveryError, Directory, IndexRecord, apply, unpack};
use tidegate_model::digest::Digest;

use super::image::Image;
use super::{Progress, parallel};
use crate::error::{Error, Result};

/// How many chunks or pieces are in memory at once.
const BATCH: usize = 256;

/// The SHA-256 of what an index and a pack give.
///
/// # Errors
///
/// Fails if a file cannot be read, or is not an index or a pack of an artifact of this length.
pub fn expand_chunks(index: &Path, pack: &Path, artifact_length: u64, progress: &Progress<'_>) -> Result<Digest> {
    let pack = Image::open(pack)?;
    let records = records(index, artifact_length, pack.length())?;
    let mut hash = Sha256::new();
    for batch in records.chunks(BATCH) {
        let chunks = parallel::each(batch, |record, (): &mut ()| {
            let mut chunk = Vec::new();
            if record.packed == 0 {
                chunk.resize(record.length as usize, 0);
            } else {
                let packed = pack.part(record.offset, record.packed as usize)?;
                unpack(&packed, record.length as usize, &mut chunk).map_err(|error| wrong(pack.path(), error))?;
            }
            if Digest::of(&chunk) != record.sha256 {
                return Err(wrong(pack.path(), "a chunk has not the hash that the index says"));
            }
            progress(chunk.len() as u64);
            Ok(chunk)
        })?;
        for chunk in chunks {
            hash.update(&chunk);
        }
    }
    Ok(Digest::from(<[u8; 32]>::from(hash.finalize())))
}

/// The SHA-256 of what a patch makes of `old`.
///
/// # Errors
///
/// Fails if a file cannot be read, or is not a patch from `old` to an artifact of this length.
pub fn expand_patch(
    patch: &Path,
    directory_length: u64,
    old: &Path,
    artifact_length: u64,
    progress: &Progress<'_>,
) -> Result<Digest> {
    let (patch, old) = (Image::open(patch)?, Image::open(old)?);
    let bytes = patch.part(0, usize::try_from(directory_length).unwrap_or(usize::MAX))?;
    let refuse = |error: DeliveryError| wrong(patch.path(), error);
    let directory = Directory::parse(&bytes, artifact_length, patch.length()).map_err(refuse)?;
    if directory.old_length() != old.length() {
        return Err(wrong(patch.path(), "it is a patch from another artifact"));
    }
    let mut hash = Sha256::new();
    let pieces: Vec<_> = directory.pieces().collect();
    for batch in pieces.chunks(BATCH) {
        let made = parallel::each(batch, |piece, (): &mut ()| {
            let (mut source, mut made) = (Vec::new(), Vec::new());
            for part in &piece.sources {
                old.read(part.offset, part.length as usize, &mut source)?;
            }
            let data = patch.part(piece.data_offset, piece.data_length)?;
            apply(piece, &source, &data, &mut made).map_err(refuse)?;
            progress(made.len() as u64);
            Ok(made)
        })?;
        for piece in made {
            hash.update(&piece);
        }
    }
    Ok(Digest::from(<[u8; 32]>::from(hash.finalize())))
}

/// How many bytes of a pack are of chunks that another artifact does not have: what a device that runs that one fetches of it.
///
/// # Errors
///
/// Fails if an index cannot be read.
pub fn missing(old: (&Path, u64, u64), new: (&Path, u64, u64)) -> Result<u64> {
    let read = |(index, artifact_length, pack_length)| records(index, artifact_length, pack_length);
    let mut known: HashSet<Digest> = read(old)?.iter().map(|record| record.sha256).collect();
    let new = read(new)?;
    Ok(new.iter().filter(|record| known.insert(record.sha256)).map(|record| u64::from(record.packed)).sum())
}

fn records(index: &Path, artifact_length: u64, pack_length: u64) -> Result<Vec<IndexRecord>> {
    let file = Image::open(index)?;
    let (mut records, mut at) = (Vec::new(), 0);
    let mut read = |into: &mut [u8]| {
        let part = file.part(at, into.len())?;
        at += part.len() as u64;
        into.copy_from_slice(&part);
        Ok(())
    };
    let mut each = |record| {
        records.push(record);
        Ok(())
    };
    match read_index([file.length(), artifact_length, pack_length], &mut read, &mut each) {
        Ok(()) => Ok(records),
        Err(Failed::Read(error)) => Err(error),
        Err(Failed::Wrong(error)) => Err(wrong(index, error)),
    }
}

/// Why an index was not read.
enum Failed {
    Read(Error),
    Wrong(DeliveryError),
}

impl From<DeliveryError> for Failed {
    fn from(error: DeliveryError) -> Self {
        Failed::Wrong(error)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::Read(error)
    }
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::input(format!("{}: {why}", path.display()))
}

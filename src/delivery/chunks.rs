//! Chunks: an artifact cut by its content, each chunk compressed by itself, and the list of them.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use fastcdc::v2020::StreamCDC;
use sha2::{Digest as _, Sha256};
use tidegate_model::delivery::index::{AVERAGE_CHUNK, MAX_CHUNK, MIN_CHUNK, write_index};
use tidegate_model::delivery::{DeliveryError, FileRef, IndexRecord};
use tidegate_model::digest::Digest;

use super::{Progress, lzma, parallel};
use crate::error::{Error, Result};

/// How much of the artifact is held in memory.
const BATCH: usize = 64 << 20;

/// The files that list and hold the chunks of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The list.
    pub index: FileRef,
    /// The chunks.
    pub pack: FileRef,
}

/// Cuts an artifact, and writes its chunks into two new files.
///
/// # Errors
///
/// Fails if a file cannot be read or written.
pub fn cut(artifact: &Path, index: &Path, pack: &Path, progress: &Progress<'_>) -> Result<Cut> {
    let file = File::open(artifact).map_err(|error| Error::io("open", artifact, error))?;
    let mut chunks = StreamCDC::new(file, MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK);
    let mut writer = Writer::create(pack)?;
    loop {
        let (mut batch, mut length) = (Vec::new(), 0);
        while length < BATCH {
            let Some(chunk) = chunks.next() else { break };
            let chunk = chunk.map_err(|error| Error::io("read", artifact, error.into()))?;
            length += chunk.length;
            batch.push(chunk.data);
        }
        if batch.is_empty() {
            break;
        }
        writer.add(&batch, progress)?;
    }
    let Writer { file, hash, records, end, .. } = writer;
    file.sync_all().map_err(|error| Error::io("write", pack, error))?;
    let list = write_index::<WriteError>(&records, &mut |block| Ok(lzma::pack(block, lzma::BYTES)?))
        .map_err(|error| error.0)?;
    let failed = |error| Error::io("write", index, error);
    let mut file = File::create_new(index).map_err(failed)?;
    file.write_all(&list).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(Cut {
        index: FileRef { length: list.len() as u64, sha256: Digest::of(&list) },
        pack: FileRef { length: end, sha256: Digest::from(<[u8; 32]>::from(hash.finalize())) },
    })
}

/// A pack that is being written.
struct Writer<'a> {
    path: &'a Path,
    file: File,
    hash: Sha256,
    end: u64,
    known: HashMap<Digest, IndexRecord>,
    records: Vec<IndexRecord>,
}

impl<'a> Writer<'a> {
    fn create(path: &'a Path) -> Result<Writer<'a>> {
        let file = File::create_new(path).map_err(|error| Error::io("create", path, error))?;
        Ok(Writer { path, file, hash: Sha256::new(), end: 0, known: HashMap::new(), records: Vec::new() })
    }

    fn add(&mut self, chunks: &[Vec<u8>], progress: &Progress<'_>) -> Result<()> {
        let hashes = parallel::each(chunks, |chunk, (): &mut ()| Ok(Digest::of(chunk)))?;
        let mut fresh: Vec<(Digest, &Vec<u8>)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for (chunk, hash) in chunks.iter().zip(&hashes) {
            if !self.known.contains_key(hash) && seen.insert(*hash) {
                fresh.push((*hash, chunk));
            } else {
                progress(chunk.len() as u64);
            }
        }
        let packed = parallel::each(&fresh, |(_, chunk), (): &mut ()| {
            progress(chunk.len() as u64);
            if chunk.iter().all(|&byte| byte == 0) {
                return Ok(Vec::new());
            }
            let packed = lzma::pack_chunk(chunk)?;
            Ok(if packed.len() < chunk.len() { packed } else { (*chunk).clone() })
        })?;
        for ((sha256, chunk), packed) in fresh.iter().zip(packed) {
            let record = IndexRecord {
                sha256: *sha256,
                length: chunk.len() as u32,
                packed: packed.len() as u32,
                offset: self.end,
            };
            self.known.insert(*sha256, record);
            self.file.write_all(&packed).map_err(|error| Error::io("write", self.path, error))?;
            self.hash.update(&packed);
            self.end += packed.len() as u64;
        }
        self.records.extend(hashes.iter().filter_map(|hash| self.known.get(hash)));
        Ok(())
    }
}

/// Why an index was not written.
struct WriteError(Error);

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        WriteError(error)
    }
}

impl From<DeliveryError> for WriteError {
    fn from(error: DeliveryError) -> Self {
        WriteError(Error::input(format!("the artifact cannot be cut: {error}")))
    }
}

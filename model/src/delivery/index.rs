//! The index of an artifact's chunks.
//!
//! The file: `TGI1`, u32 number of chunks, then blocks of [`BLOCK`] chunks (the last has what is left): u24 length, and so many bytes of
//! LZMA. A block, unpacked, is tables of its chunks, in the order of the artifact: the lengths (u24), the packed lengths (u24), the places in the pack (u40,
//! less the end of all that was named so far: mostly 0), each table transposed, then the hashes.

use super::bytes::{SHORT, number, put, put_transposed, take, transposed};
use super::{DeliveryError, lzma};
use crate::digest::Digest;
use crate::prelude::*;

/// The length of the shortest chunk that is cut, but for the last.
pub const MIN_CHUNK: usize = 4 << 10;
/// The length that chunks have on average.
pub const AVERAGE_CHUNK: usize = 16 << 10;
/// The length of the longest chunk.
pub const MAX_CHUNK: usize = 64 << 10;
/// The number of chunks in a block.
pub const BLOCK: usize = 4096;

const MAGIC: &[u8] = b"TGI1";
const ROW: usize = 3 + 3 + 5 + 32;

/// A chunk of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRecord {
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Length in bytes, at most [`MAX_CHUNK`].
    pub length: u32,
    /// Length in the pack. As long as the chunk: it is stored. 0: the chunk is all zeros, and not in the pack.
    pub packed: u32,
    /// Where it is in the pack.
    pub offset: u64,
}

/// Reads an index of `index_length` bytes, asked for from its start to its end by `read`, which fills what it is given. `each`
/// gets every chunk in the order of the artifact. Takes 400 kB of memory, whatever the index is.
///
/// # Errors
///
/// If the index is damaged, does not fit the artifact and the pack, or `read` or `each` fails. `each` may have had chunks by then.
pub fn read_index<E: From<DeliveryError>>(
    [index_length, artifact_length, pack_length]: [u64; 3],
    read: &mut dyn FnMut(&mut [u8]) -> Result<(), E>,
    each: &mut dyn FnMut(IndexRecord) -> Result<(), E>,
) -> Result<(), E> {
    let wrong = |why| E::from(DeliveryError(why));
    let mut left = index_length;
    let mut next = |count: usize| -> Result<Vec<u8>, E> {
        left = left.checked_sub(count as u64).ok_or(SHORT)?;
        let mut bytes = vec![0; count];
        read(&mut bytes)?;
        Ok(bytes)
    };
    let head = next(8)?;
    let mut head = head.as_slice();
    if take(&mut head, 4)? != MAGIC {
        return Err(wrong("not an index of chunks"));
    }
    let mut chunks = number(&mut head, 4)?;
    if chunks > artifact_length / MIN_CHUNK as u64 + 1 {
        return Err(wrong("too many chunks"));
    }
    let (mut length, mut end) = (0, 0);
    while chunks > 0 {
        let rows = chunks.min(BLOCK as u64) as usize;
        chunks -= rows as u64;
        let packed = number(&mut next(3)?.as_slice(), 3)? as usize;
        if packed > 2 * BLOCK * ROW {
            return Err(wrong("a block is too long"));
        }
        let mut block = Vec::new();
        lzma::unpack(&next(packed)?, &[], rows * ROW, &mut block)?;
        for record in Block::of(&block, rows)? {
            let record = record.at(&mut end);
            length += u64::from(record.length);
            if record.length == 0
                || record.length as usize > MAX_CHUNK
                || record.packed > record.length
                || record.offset.saturating_add(record.packed.into()) > pack_length
            {
                return Err(wrong("a chunk has a wrong length or place"));
            }
            each(record)?;
        }
    }
    if length != artifact_length || left != 0 {
        return Err(wrong("the chunks are not as long as the artifact"));
    }
    Ok(())
}

/// The tables of a block.
struct Block<'a> {
    rows: usize,
    row: usize,
    lengths: &'a [u8],
    packed: &'a [u8],
    places: &'a [u8],
    hashes: &'a [u8],
}

impl<'a> Block<'a> {
    fn of(mut bytes: &'a [u8], rows: usize) -> Result<Block<'a>, DeliveryError> {
        let mut table = |width: usize| take(&mut bytes, rows * width);
        Ok(Block { rows, row: 0, lengths: table(3)?, packed: table(3)?, places: table(5)?, hashes: table(32)? })
    }
}

impl Iterator for Block<'_> {
    type Item = IndexRecord;

    fn next(&mut self) -> Option<IndexRecord> {
        let (sha256, rest) = self.hashes.split_first_chunk::<32>()?;
        self.hashes = rest;
        let value = |table| transposed(table, self.rows, self.row);
        let (length, packed, offset) = (value(self.lengths), value(self.packed), value(self.places));
        self.row += 1;
        Some(IndexRecord { sha256: Digest::from(*sha256), length: length as u32, packed: packed as u32, offset })
    }
}

const PLACES: u64 = super::MAX_LENGTH - 1;

impl IndexRecord {
    /// With the place in full, where it was less `end`.
    fn at(mut self, end: &mut u64) -> IndexRecord {
        self.offset = self.offset.wrapping_add(*end) & PLACES;
        *end = (*end).max(self.offset + u64::from(self.packed));
        self
    }
}

/// Compresses a block.
pub type Pack<'a, E> = &'a mut dyn FnMut(&[u8]) -> Result<Vec<u8>, E>;

/// The index of these chunks. `pack` compresses a block: see [`unpack_after`](super::unpack_after).
///
/// # Errors
///
/// If there are more than 2^32 chunks, or `pack` fails.
pub fn write_index<E: From<DeliveryError>>(chunks: &[IndexRecord], pack: Pack<'_, E>) -> Result<Vec<u8>, E> {
    let mut index = MAGIC.to_vec();
    let count = u32::try_from(chunks.len()).map_err(|_| DeliveryError("too many chunks"))?;
    put(count.into(), 4, &mut index);
    let mut end = 0;
    for block in chunks.chunks(BLOCK) {
        let mut places = Vec::new();
        for chunk in block {
            places.push(chunk.offset.wrapping_sub(end) & PLACES);
            end = end.max(chunk.offset + u64::from(chunk.packed));
        }
        let column =
            |value: fn(&IndexRecord) -> u32| -> Vec<u64> { block.iter().map(|row| value(row).into()).collect() };
        let mut tables = Vec::new();
        put_transposed(&column(|row| row.length), 3, &mut tables);
        put_transposed(&column(|row| row.packed), 3, &mut tables);
        put_transposed(&places, 5, &mut tables);
        tables.extend(block.iter().flat_map(|row| *row.sha256.as_bytes()));
        let packed = pack(&tables)?;
        put(packed.len() as u64, 3, &mut index);
        index.extend(packed);
    }
    Ok(index)
}

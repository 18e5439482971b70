//! The chunks of an artifact: its index on disk, and those that the running release has.

use std::io;
use std::path::Path;

use fastcdc::v2020::StreamCDC;

use super::Remote;
use super::pieces::{Old, Part, Pieces};
use crate::disk::{Disk, OpenFile};
use tidegate_model::delivery::index::{AVERAGE_CHUNK, MAX_CHUNK, MIN_CHUNK};
use tidegate_model::delivery::{IndexRecord, read_index, unpack};
use tidegate_model::digest::Digest;

/// The length of a record on disk: hash, length, packed length, offset in the pack, place in the artifact.
const ROW: usize = 32 + 4 + 4 + 8 + 8;
/// How many records are in memory.
const WINDOW: usize = 1024;

/// The records of an index, unpacked in a file: each can be read by its number, and few are in memory.
pub(super) struct Records {
    file: OpenFile,
    count: usize,
    /// The number of the first record in memory.
    first: usize,
    window: Vec<u8>,
}

impl Records {
    /// Unpacks the index in a file that was verified, to another file. `None` if it is damaged all the same.
    pub(super) fn unpack(disk: &Disk, index: &Path, lengths: [u64; 3], to: &Path) -> io::Result<Option<Self>> {
        let mut source = io::BufReader::new(std::fs::File::open(index)?);
        drop(disk.create(to)?);
        let mut records = Self { file: disk.open(to)?, count: 0, first: 0, window: Vec::new() };
        let mut at = 0_u64;
        let unpacked =
            read_index(lengths, &mut |buffer| Ok(io::Read::read_exact(&mut source, buffer)?), &mut |record| {
                records.push(&record, at)?;
                at = at.saturating_add(record.length.into());
                Ok::<_, Unread>(())
            });
        match unpacked {
            Ok(()) => records.flush().map(|()| Some(records)),
            Err(Unread::Io(e)) => Err(e),
            Err(Unread::Damaged) => Ok(None),
        }
    }

    fn push(&mut self, record: &IndexRecord, at: u64) -> io::Result<()> {
        self.window.extend_from_slice(record.sha256.as_bytes());
        self.window.extend_from_slice(&record.length.to_be_bytes());
        self.window.extend_from_slice(&record.packed.to_be_bytes());
        self.window.extend_from_slice(&record.offset.to_be_bytes());
        self.window.extend_from_slice(&at.to_be_bytes());
        self.count += 1;
        if self.window.len() < WINDOW * ROW { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at((self.first * ROW) as u64, &self.window)?;
        self.window.clear();
        self.first = self.count;
        Ok(())
    }

    /// A record, with its place in the artifact.
    fn get(&mut self, index: usize) -> io::Result<(IndexRecord, u64)> {
        if index < self.first || index >= self.first + self.window.len() / ROW {
            self.first = index;
            self.window.resize(WINDOW.min(self.count.saturating_sub(index)) * ROW, 0);
            self.file.read_at((index * ROW) as u64, &mut self.window)?;
        }
        let row = self.window.get((index - self.first) * ROW..);
        let record = row.and_then(read_row).ok_or(io::ErrorKind::InvalidData)?;
        Ok(record)
    }
}

fn read_row(row: &[u8]) -> Option<(IndexRecord, u64)> {
    let (sha256, row) = row.split_first_chunk::<32>()?;
    let (length, row) = row.split_first_chunk::<4>()?;
    let (packed, row) = row.split_first_chunk::<4>()?;
    let (offset, row) = row.split_first_chunk::<8>()?;
    let (at, _) = row.split_first_chunk::<8>()?;
    let record = IndexRecord {
        sha256: Digest::from(*sha256),
        length: u32::from_be_bytes(*length),
        packed: u32::from_be_bytes(*packed),
        offset: u64::from_be_bytes(*offset),
    };
    Some((record, u64::from_be_bytes(*at)))
}

/// Why an index was not unpacked.
enum Unread {
    Damaged,
    Io(io::Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<tidegate_model::delivery::DeliveryError> for Unread {
    fn from(_: tidegate_model::delivery::DeliveryError) -> Self {
        Self::Damaged
    }
}

/// The chunks of an artifact.
pub(super) struct Chunks<'a> {
    pub(super) pack: &'a Remote,
    pub(super) records: Records,
    pub(super) old: Old,
    /// What is being filled.
    pub(super) new: Old,
    /// The beginnings of hashes of chunks, in order, and where a chunk with that beginning is.
    found: Vec<(u64, Option<Place>)>,
}

/// Where a chunk is already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// In the running release.
    Old(u64),
    /// In what is being filled.
    New(u64),
}

impl<'a> Chunks<'a> {
    pub(super) fn new(pack: &'a Remote, records: Records, old: Old, new: Old) -> Self {
        Self { pack, records, old, new, found: Vec::new() }
    }

    /// Cuts the running release into chunks like an artifact, to find those that are missing. Whatever cannot be read there is not found.
    pub(super) fn search(&mut self, missing: &[bool]) -> io::Result<()> {
        let mut wanted = Vec::new();
        for index in (0..missing.len()).filter(|index| missing.get(*index) == Some(&true)) {
            let (record, _) = self.records.get(index)?;
            if record.packed > 0 {
                wanted.push((beginning(&record.sha256), None));
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        let mut left = wanted.len();
        self.found = wanted;
        // Chunks may be in the artifact more than once.
        for index in (0..missing.len()).filter(|index| missing.get(*index) == Some(&false)) {
            let (record, at) = self.records.get(index)?;
            if let Some(place @ None) = place(&mut self.found, beginning(&record.sha256)) {
                *place = Some(Place::New(at));
                left -= 1;
            }
        }
        let Some(old) = self.old.whole().filter(|_| left > 0) else { return Ok(()) };
        for chunk in StreamCDC::new(old, MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK) {
            let Ok(chunk) = chunk else { break };
            let key = beginning(&Digest::of(&chunk.data));
            if let Some(place @ None) = place(&mut self.found, key) {
                *place = Some(Place::Old(chunk.offset));
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// The first bytes of a hash as a number: enough to find a chunk, whose whole hash is compared when it is used.
fn beginning(sha256: &Digest) -> u64 {
    sha256.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn place(found: &mut [(u64, Option<Place>)], key: u64) -> Option<&mut Option<Place>> {
    let index = found.binary_search_by_key(&key, |(key, _)| *key).ok()?;
    found.get_mut(index).map(|(_, place)| place)
}

impl Pieces for Chunks<'_> {
    fn count(&self) -> usize {
        self.records.count
    }

    fn part(&mut self, index: usize) -> io::Result<Part> {
        let (record, at) = self.records.get(index)?;
        let is_here = record.packed > 0 && matches!(place(&mut self.found, beginning(&record.sha256)), Some(Some(_)));
        let packed = if is_here { 0 } else { record.packed.into() };
        let data = record.offset..record.offset.saturating_add(packed);
        Ok(Part { at, length: record.length as usize, sha256: record.sha256, data })
    }

    fn container(&self) -> &Remote {
        self.pack
    }

    fn make(&mut self, index: usize, data: &[u8], into: &mut Vec<u8>) -> bool {
        let Ok((record, at)) = self.records.get(index) else { return false };
        let length = record.length as usize;
        let mut place = place(&mut self.found, beginning(&record.sha256)).filter(|_| record.packed > 0);
        let made = match place.as_deref().copied().flatten() {
            _ if !data.is_empty() => unpack(data, length, into).is_ok(),
            Some(Place::Old(offset)) => self.old.read(offset, length, into),
            Some(Place::New(offset)) => self.new.read(offset, length, into),
            None => {
                into.resize(length, 0);
                true
            }
        };
        let right = made && Digest::of(into) == record.sha256;
        if let Some(place) = &mut place {
            match **place {
                None if right => **place = Some(Place::New(at)),
                // It is not what it was when it was cut.
                Some(_) if !right && data.is_empty() => **place = None,
                _ => {}
            }
        }
        right
    }
}

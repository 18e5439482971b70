//! A patch: the pieces of a new artifact, each made of parts of an old one.
//!
//! The file is a directory, then the data of the pieces, one after the other. The directory: `TGP1`, u64 length of the new artifact, u64 length of the
//! old one, u32 length of the rest when it is unpacked, then LZMA of tables: the methods (u8) and the numbers of sources (u8) of the pieces, the
//! lengths of their data (u24), the places (u40, less the piece's own place) and lengths (u24) of all sources, each transposed, then the hashes of the pieces.
//!
//! Data of [`Method::Patched`]: u16 number of steps, u16 length of the packed steps, u24 length of the packed differences, then LZMA of the
//! steps, of the differences, and of what is new. The steps are transposed tables: how many bytes to take from the source and add the differences to, how
//! many new bytes follow (u24 each), and how far to move in the source then (u24, modulo 2^24).

use super::bytes::{number, put, put_transposed, take, transposed};
use super::{DeliveryError, lzma};
use crate::digest::Digest;
use crate::prelude::*;

/// The length of every piece but the last.
pub const PIECE: usize = 256 << 10;
/// The maximum number of sources of a piece.
pub const MAX_SOURCES: usize = 16;
/// The maximum length of all sources of a piece.
pub const MAX_SOURCE: u64 = 1 << 20;
/// The maximum number of steps in the data of a piece.
pub const MAX_STEPS: usize = 16 << 10;

const MAGIC: &[u8] = b"TGP1";
const HEAD: usize = 4 + 8 + 8 + 4;
/// What a piece takes in the directory, and a source.
const ROW: usize = 1 + 1 + 3 + 32;
const SOURCE_ROW: usize = 5 + 3;
const PLACES: u64 = super::MAX_LENGTH - 1;
const STEP: usize = 3 * 3;
/// Moves are modulo 2^24.
const MOVES: usize = 0xff_ffff;

/// How a piece is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// All bytes are 0.
    Zeros,
    /// The sources are the piece.
    Copy,
    /// The data says how the sources are changed.
    Patched,
    /// The data is the piece, compressed; the sources are what it may refer to.
    Packed,
    /// The data is the piece.
    Stored,
}

impl Method {
    const ALL: [Method; 5] = [Method::Zeros, Method::Copy, Method::Patched, Method::Packed, Method::Stored];
}

/// A part of the old artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Where it starts.
    pub offset: u64,
    /// Its length.
    pub length: u32,
}

/// A piece of the new artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Where it is in the artifact.
    pub offset: u64,
    /// Its length: [`PIECE`], or what is left.
    pub length: usize,
    /// How it is made.
    pub method: Method,
    /// Where its data is in the patch.
    pub data_offset: u64,
    /// The length of its data, at most [`PIECE`].
    pub data_length: usize,
    /// The parts of the old artifact that are needed, at most [`MAX_SOURCES`], together at most [`MAX_SOURCE`] bytes.
    pub sources: Vec<Source>,
}

impl Piece {
    /// The length of all sources.
    pub fn source_length(&self) -> u64 {
        self.sources.iter().map(|source| u64::from(source.length)).sum()
    }

    fn check(&self, old_length: u64) -> Result<(), DeliveryError> {
        let (sources, data) = (self.source_length(), self.data_length);
        let inside = |source: &Source| source.offset.saturating_add(source.length.into()) <= old_length;
        let fits = match self.method {
            Method::Zeros => sources == 0 && data == 0,
            Method::Copy => sources == self.length as u64 && data == 0,
            Method::Patched => sources > 0,
            Method::Packed => true,
            Method::Stored => sources == 0 && data == self.length,
        };
        if fits && data <= self.length && sources <= MAX_SOURCE && self.sources.iter().all(inside) {
            Ok(())
        } else {
            Err(DeliveryError("a piece of the patch has a wrong length or place"))
        }
    }
}

/// The directory of a patch: its pieces.
#[derive(Debug)]
pub struct Directory {
    new_length: u64,
    old_length: u64,
    tables: Vec<u8>,
    /// For each piece, where its data is in the patch and which its first source is.
    starts: Vec<(u64, u32)>,
    sources: usize,
}

impl Directory {
    /// Reads the directory of a patch of `patch_length` bytes to an artifact of `new_length`.
    ///
    /// # Errors
    ///
    /// If it is damaged, or does not fit the artifact or the patch. What is returned is right in all numbers.
    pub fn parse(bytes: &[u8], new_length: u64, patch_length: u64) -> Result<Directory, DeliveryError> {
        let wrong = |why| Err(DeliveryError(why));
        let mut rest = bytes;
        if take(&mut rest, 4)? != MAGIC {
            return wrong("not a patch");
        }
        if number(&mut rest, 8)? != new_length || new_length > super::MAX_LENGTH {
            return wrong("a patch to another artifact");
        }
        let old_length = number(&mut rest, 8)?;
        let length = number(&mut rest, 4)? as usize;
        let pieces = new_length.div_ceil(PIECE as u64) as usize;
        let room = length.checked_sub(pieces * ROW).ok_or(DeliveryError("the directory is too short"))?;
        let sources = room / SOURCE_ROW;
        if room % SOURCE_ROW != 0 || sources > pieces * MAX_SOURCES {
            return wrong("the directory is too long");
        }
        let mut tables = Vec::new();
        lzma::unpack(rest, &[], length, &mut tables)?;
        let mut directory = Directory { new_length, old_length, tables, starts: Vec::new(), sources };
        let (mut data, mut source) = (bytes.len() as u64, 0);
        for index in 0..pieces {
            directory.starts.push((data, source));
            let piece = directory.piece(index).ok_or(DeliveryError("the directory is damaged"))?;
            piece.check(old_length)?;
            data += piece.data_length as u64;
            source += piece.sources.len() as u32;
        }
        if data != patch_length || source as usize != sources {
            return wrong("the directory does not fit the patch");
        }
        Ok(directory)
    }

    /// The number of pieces.
    pub fn len(&self) -> usize {
        self.new_length.div_ceil(PIECE as u64) as usize
    }

    /// Whether there are no pieces.
    pub fn is_empty(&self) -> bool {
        self.new_length == 0
    }

    /// The length of the old artifact.
    pub fn old_length(&self) -> u64 {
        self.old_length
    }

    /// A piece by its number, from 0.
    pub fn piece(&self, index: usize) -> Option<Piece> {
        let (pieces, sources) = (self.len(), self.sources);
        let &(data_offset, first) = self.starts.get(index)?;
        let mut rest = self.tables.as_slice();
        let mut table = |rows: usize, width: usize| take(&mut rest, rows * width).ok();
        let method = *Method::ALL.get(usize::from(*table(pieces, 1)?.get(index)?))?;
        let count = usize::from(*table(pieces, 1)?.get(index)?);
        let data_length = transposed(table(pieces, 3)?, pieces, index) as usize;
        let (places, lengths) = (table(sources, 5)?, table(sources, 3)?);
        let (sha256, _) = table(pieces, 32)?.get(index * 32..)?.split_first_chunk::<32>()?;
        let offset = index as u64 * PIECE as u64;
        let rows = first as usize..first as usize + count;
        if count > MAX_SOURCES || rows.end > sources {
            return None;
        }
        let source = |row| Source {
            offset: transposed(places, sources, row).wrapping_add(offset) & PLACES,
            length: transposed(lengths, sources, row) as u32,
        };
        Some(Piece {
            sha256: Digest::from(*sha256),
            offset,
            length: self.new_length.saturating_sub(offset).min(PIECE as u64) as usize,
            method,
            data_offset,
            data_length,
            sources: rows.map(source).collect(),
        })
    }

    /// All pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> {
        (0..self.len()).map_while(|index| self.piece(index))
    }
}

/// Makes a piece of its sources, one after the other in `source`, and its data, at the end of `into`.
///
/// # Errors
///
/// If the result is not the piece, by its SHA-256: `into` is then as it was.
pub fn apply(piece: &Piece, source: &[u8], data: &[u8], into: &mut Vec<u8>) -> Result<(), DeliveryError> {
    let start = into.len();
    let made = match piece.method {
        Method::Zeros => {
            into.resize(start + piece.length, 0);
            Ok(())
        }
        Method::Copy => {
            into.extend_from_slice(source);
            Ok(())
        }
        Method::Patched => patched(piece.length, source, data, into),
        Method::Packed => lzma::unpack(data, source, piece.length, into),
        Method::Stored => {
            into.extend_from_slice(data);
            Ok(())
        }
    };
    let right = made.is_ok() && into.get(start..).is_some_and(|made| Digest::of(made) == piece.sha256);
    if right {
        return Ok(());
    }
    into.truncate(start);
    Err(made.err().unwrap_or(DeliveryError("a piece of the patch gives other bytes than it should")))
}

fn patched(length: usize, source: &[u8], mut data: &[u8], into: &mut Vec<u8>) -> Result<(), DeliveryError> {
    const WRONG: DeliveryError = DeliveryError("a piece of the patch has wrong steps");
    let rows = number(&mut data, 2)? as usize;
    let packed_steps = number(&mut data, 2)? as usize;
    let packed_differences = number(&mut data, 3)? as usize;
    if rows > MAX_STEPS {
        return Err(WRONG);
    }
    let mut steps = Vec::new();
    lzma::unpack(take(&mut data, packed_steps)?, &[], rows * STEP, &mut steps)?;
    let table = |column: usize| steps.get(column * rows * 3..(column + 1) * rows * 3).unwrap_or_default();
    let (taken, added, moved) = (table(0), table(1), table(2));
    let sum = |table| (0..rows).map(|row| transposed(table, rows, row)).sum::<u64>();
    let (all_taken, all_added) = (sum(taken), sum(added));
    if all_taken.checked_add(all_added) != Some(length as u64) {
        return Err(WRONG);
    }
    let (mut differences, mut new) = (Vec::new(), Vec::new());
    let packed = take(&mut data, packed_differences)?;
    if all_taken > 0 {
        lzma::unpack(packed, &[], all_taken as usize, &mut differences)?;
    }
    if all_added > 0 {
        lzma::unpack(data, &[], all_added as usize, &mut new)?;
    }
    let (mut differences, mut new, mut at) = (differences.as_slice(), new.as_slice(), 0_usize);
    for row in 0..rows {
        let taken = transposed(taken, rows, row) as usize;
        let old = source.get(at..at + taken).ok_or(WRONG)?;
        into.extend(
            take(&mut differences, taken)?.iter().zip(old).map(|(difference, old)| old.wrapping_add(*difference)),
        );
        into.extend_from_slice(take(&mut new, transposed(added, rows, row) as usize)?);
        at = (at + taken + transposed(moved, rows, row) as usize) & MOVES;
    }
    Ok(())
}

/// A step in making a piece of its sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// How many bytes of the source are taken, and differences added to them.
    pub taken: u32,
    /// How many new bytes follow.
    pub added: u32,
    /// How far to move in the source then.
    pub moved: i32,
}

/// The data of a piece of [`Method::Patched`], of its steps, differences and new bytes. `pack` compresses. `None` if there are too many steps.
pub fn write_patched(
    steps: &[Step],
    differences: &[u8],
    new: &[u8],
    pack: &mut dyn FnMut(&[u8]) -> Vec<u8>,
) -> Option<Vec<u8>> {
    if steps.len() > MAX_STEPS {
        return None;
    }
    let mut tables = Vec::new();
    let column = |value: fn(&Step) -> u64| -> Vec<u64> { steps.iter().map(value).collect() };
    put_transposed(&column(|step| step.taken.into()), 3, &mut tables);
    put_transposed(&column(|step| step.added.into()), 3, &mut tables);
    put_transposed(&column(|step| u64::from(step.moved.cast_unsigned()) & MOVES as u64), 3, &mut tables);
    let steps_packed = pack(&tables);
    let differences = if differences.is_empty() { Vec::new() } else { pack(differences) };
    u16::try_from(steps_packed.len()).ok()?;
    let mut data = Vec::new();
    put(steps.len() as u64, 2, &mut data);
    put(steps_packed.len() as u64, 2, &mut data);
    put(differences.len() as u64, 3, &mut data);
    data.extend(steps_packed);
    data.extend(differences);
    if !new.is_empty() {
        data.extend(pack(new));
    }
    Some(data)
}

/// The directory of these pieces, in order; where each is, and its data, does not matter. `pack` compresses.
pub fn write_directory(pieces: &[Piece], old_length: u64, pack: &mut dyn FnMut(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let new_length = pieces.iter().map(|piece| piece.length as u64).sum();
    let mut tables: Vec<u8> = pieces.iter().map(|piece| piece.method as u8).collect();
    tables.extend(pieces.iter().map(|piece| piece.sources.len() as u8));
    let lengths: Vec<u64> = pieces.iter().map(|piece| piece.data_length as u64).collect();
    put_transposed(&lengths, 3, &mut tables);
    let (mut places, mut lengths) = (Vec::new(), Vec::new());
    for (index, piece) in pieces.iter().enumerate() {
        let offset = index as u64 * PIECE as u64;
        places.extend(piece.sources.iter().map(|source| source.offset.wrapping_sub(offset) & PLACES));
        lengths.extend(piece.sources.iter().map(|source| u64::from(source.length)));
    }
    put_transposed(&places, 5, &mut tables);
    put_transposed(&lengths, 3, &mut tables);
    tables.extend(pieces.iter().flat_map(|piece| *piece.sha256.as_bytes()));
    let mut directory = Vec::with_capacity(HEAD);
    directory.extend_from_slice(MAGIC);
    put(new_length, 8, &mut directory);
    put(old_length, 8, &mut directory);
    put(tables.len() as u64, 4, &mut directory);
    directory.extend(pack(&tables));
    directory
}

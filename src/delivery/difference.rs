//! What changed between parts of an old artifact and a piece of a new one, in the form of bsdiff.
//!
//! Bytes are found in the old parts by chains of hashes, then runs that are alike are widened as long as more than half of the bytes agree.

use tidegate_model::delivery::patch::Step;

/// Matches are found by this many bytes.
const KEY: usize = 6;
const HASH_BITS: u32 = 17;
const NONE: u32 = u32::MAX;
/// How many places are compared.
const DEPTH: usize = 24;
/// A match as long as this is not improved.
const ENOUGH: usize = 400;

/// The chains of places with the same hash; kept from piece to piece for its memory.
#[derive(Default)]
pub(super) struct Finder {
    heads: Vec<u32>,
    before: Vec<u32>,
}

/// A piece as it is made of a source.
#[derive(Default)]
pub(super) struct Difference {
    pub(super) steps: Vec<Step>,
    pub(super) differences: Vec<u8>,
    pub(super) new: Vec<u8>,
}

fn hash(bytes: &[u8]) -> Option<usize> {
    let key = bytes.first_chunk::<8>()?;
    let key = u64::from_le_bytes(*key) << (64 - 8 * KEY);
    Some((key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - HASH_BITS)) as usize)
}

fn alike(a: &[u8], b: &[u8]) -> usize {
    let mut length = 0;
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        if a != b {
            break;
        }
        length += 8;
    }
    let rest = a.get(length..).unwrap_or_default().iter().zip(b.get(length..).unwrap_or_default());
    length + rest.take_while(|(a, b)| a == b).count()
}

impl Finder {
    fn index(&mut self, source: &[u8]) {
        self.heads.clear();
        self.heads.resize(1 << HASH_BITS, NONE);
        self.before.clear();
        self.before.resize(source.len(), NONE);
        for at in 0..source.len() {
            let Some(head) = source.get(at..).and_then(hash).and_then(|hash| self.heads.get_mut(hash)) else { break };
            if let Some(before) = self.before.get_mut(at) {
                *before = *head;
            }
            *head = at as u32;
        }
    }

    /// The longest match for the start of `bytes`: its length and place. `near` is looked at first.
    fn longest(&self, source: &[u8], bytes: &[u8], near: usize) -> (usize, usize) {
        let mut best = (0, 0);
        let mut consider = |at: usize| {
            let Some(there) = source.get(at..) else { return false };
            if best.0 > 0 && there.get(best.0) != bytes.get(best.0) {
                return false;
            }
            let length = alike(there, bytes);
            if length > best.0 {
                best = (length, at);
            }
            length >= ENOUGH
        };
        if consider(near) {
            return best;
        }
        let mut at = hash(bytes).and_then(|hash| self.heads.get(hash)).copied().unwrap_or(NONE);
        for _ in 0..DEPTH {
            if at == NONE || consider(at as usize) {
                break;
            }
            at = self.before.get(at as usize).copied().unwrap_or(NONE);
        }
        best
    }

    /// How `piece` is made of `source`.
    pub(super) fn difference(&mut self, source: &[u8], piece: &[u8]) -> Difference {
        self.index(source);
        let mut made = Difference::default();
        let same = |at: usize, offset: isize| {
            at.checked_add_signed(offset).and_then(|old| source.get(old)).is_some_and(|old| piece.get(at) == Some(old))
        };
        // What is written so far ends here in the piece, and there in the source.
        let (mut done, mut offset) = (0_usize, 0_isize);
        let (mut scan, mut length, mut place) = (0_usize, 0_usize, 0_usize);
        while scan < piece.len() {
            let mut score = 0_usize;
            scan += length;
            let mut scored = scan;
            while scan < piece.len() {
                let near = scan.saturating_add_signed(offset);
                (length, place) = self.longest(source, piece.get(scan..).unwrap_or_default(), near);
                while scored < scan + length {
                    score += usize::from(same(scored, offset));
                    scored += 1;
                }
                if (length == score && length != 0) || length > score + 8 {
                    break;
                }
                score = score.saturating_sub(usize::from(same(scan, offset)));
                scan += 1;
                length = 0;
            }
            if length == score && scan < piece.len() {
                continue;
            }
            let start = done.saturating_add_signed(offset);
            let forward = forward(source.get(start..).unwrap_or_default(), piece.get(done..scan).unwrap_or_default());
            let backward = if scan < piece.len() {
                backward(source.get(..place).unwrap_or_default(), piece.get(done..scan).unwrap_or_default())
            } else {
                0
            };
            let (forward, backward) = split(source, piece, (done, start, forward), (scan, place, backward));
            let next = place - backward;
            made.push(source, piece, (done, start, forward), (scan - backward, next));
            done = scan - backward;
            offset = next as isize - done as isize;
        }
        made
    }
}

impl Difference {
    /// Takes `forward` bytes from `start` of the source for `done` of the piece; the piece goes on at `next.0`, the source at `next.1`.
    fn push(
        &mut self,
        source: &[u8],
        piece: &[u8],
        (done, start, forward): (usize, usize, usize),
        next: (usize, usize),
    ) {
        let old = source.get(start..start + forward).unwrap_or_default();
        let new = piece.get(done..next.0).unwrap_or_default();
        self.differences.extend(new.iter().zip(old).map(|(new, old)| new.wrapping_sub(*old)));
        let added = new.get(old.len()..).unwrap_or_default();
        self.new.extend_from_slice(added);
        let step = Step {
            taken: old.len() as u32,
            added: added.len() as u32,
            moved: next.1 as i32 - (start + old.len()) as i32,
        };
        if step.taken > 0 || step.added > 0 || self.steps.is_empty() {
            self.steps.push(step);
        } else if let Some(before) = self.steps.last_mut() {
            before.moved += step.moved;
        }
    }
}

/// How far both are more alike than not.
fn forward(old: &[u8], new: &[u8]) -> usize {
    let (mut score, mut best, mut length) = (0_isize, 0, 0);
    for (index, (old, new)) in old.iter().zip(new).enumerate() {
        score += if old == new { 1 } else { -1 };
        if score > best {
            (best, length) = (score, index + 1);
        }
    }
    length
}

/// The same from their ends.
fn backward(old: &[u8], new: &[u8]) -> usize {
    let (mut score, mut best, mut length) = (0_isize, 0, 0);
    for (index, (old, new)) in old.iter().rev().zip(new.iter().rev()).enumerate() {
        score += if old == new { 1 } else { -1 };
        if score > best {
            (best, length) = (score, index + 1);
        }
    }
    length
}

/// Where two runs that overlap are best parted: their lengths then.
fn split(
    source: &[u8],
    piece: &[u8],
    (done, start, forward): (usize, usize, usize),
    (scan, place, backward): (usize, usize, usize),
) -> (usize, usize) {
    let overlap = (done + forward).saturating_sub(scan - backward);
    let (mut score, mut best, mut keep) = (0_isize, 0, 0);
    for index in 0..overlap {
        let first = done + forward - overlap + index;
        let byte = piece.get(first);
        score += isize::from(source.get(start + forward - overlap + index) == byte);
        score -= isize::from(source.get(place - backward + index) == byte);
        if score > best {
            (best, keep) = (score, index + 1);
        }
    }
    (forward - overlap + keep, backward - keep)
}

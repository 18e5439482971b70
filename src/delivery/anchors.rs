//! Where in an old artifact the bytes of a piece may be found.
//!
//! A hash of the last 32 bytes that ends with so many zero bits is an anchor: the same bytes give the same anchors wherever they are. The
//! anchors of the old artifact are a sorted table; each anchor of a piece votes for the blocks of the old artifact that have it.

use std::collections::HashMap;

use tidegate_model::delivery::Source;
use tidegate_model::delivery::patch::{MAX_SOURCE, MAX_SOURCES};

use super::image::Image;
use super::parallel;
use crate::error::Result;

/// One byte in 2^BITS is an anchor.
const BITS: u32 = 7;
/// How much is read at once.
const SLICE: usize = 8 << 20;
/// Places are known to this many bits less.
const GRAIN: u32 = 4;
/// The unit of what is taken from the old artifact.
const BLOCK: u64 = 8 << 10;
/// An anchor that is in more places says nothing.
const MOST_PLACES: usize = 24;
/// The bits of a key that the first table is ordered by.
const PREFIX: u32 = 16;

/// The anchors of an artifact.
pub(super) struct Anchors {
    /// Keys and places, sorted.
    places: Vec<(u32, u32)>,
    /// Where the keys with each prefix start.
    starts: Vec<u32>,
    length: u64,
}

impl Anchors {
    pub(super) fn of(image: &Image) -> Result<Anchors> {
        let slices: Vec<u64> = (0..image.length()).step_by(SLICE).collect();
        let found = parallel::each(&slices, |&offset, (): &mut ()| {
            let mut places = Vec::new();
            each_anchor(&image.part(offset, SLICE)?, |key, at| {
                places.push((key, ((offset + at as u64) >> GRAIN) as u32));
            });
            Ok(places)
        })?;
        let mut places = found.concat();
        places.sort_unstable();
        places.dedup();
        let mut starts = vec![0; (1 << PREFIX) + 1];
        for (key, _) in &places {
            if let Some(count) = starts.get_mut((key >> (32 - PREFIX)) as usize + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        Ok(Anchors { places, starts, length: image.length() })
    }

    fn find(&self, key: u32) -> &[(u32, u32)] {
        let prefix = (key >> (32 - PREFIX)) as usize;
        let bound = |index: usize| self.starts.get(index).map_or(0, |&start| start as usize);
        let all = self.places.get(bound(prefix)..bound(prefix + 1)).unwrap_or_default();
        let from = all.partition_point(|&(other, _)| other < key);
        let rest = all.get(from..).unwrap_or_default();
        rest.get(..rest.partition_point(|&(other, _)| other == key)).unwrap_or_default()
    }

    /// The parts of the artifact that a piece at `offset` of another is likely to be made of, in the order of the artifact.
    pub(super) fn sources(&self, piece: &[u8], offset: u64) -> Vec<Source> {
        // The anchors of the piece, and for each block, which of them it has.
        let mut blocks: HashMap<u64, Vec<u32>> = HashMap::new();
        let mut count = 0;
        each_anchor(piece, |key, _| {
            let found = self.find(key);
            if found.is_empty() || found.len() > MOST_PLACES {
                return;
            }
            for &(_, place) in found {
                let block = (u64::from(place) << GRAIN) / BLOCK;
                let anchors = blocks.entry(block).or_default();
                if anchors.last() != Some(&count) {
                    anchors.push(count);
                }
            }
            count += 1;
        });
        let chosen = choose(&blocks, count, offset / BLOCK);
        self.join(chosen)
    }

    /// Blocks, best first, as sources: neighbours joined, small gaps closed, edges widened, as far as there is room.
    fn join(&self, best: Vec<u64>) -> Vec<Source> {
        let last = self.length / BLOCK;
        let mut taken: Vec<u64> = Vec::new();
        let room = (MAX_SOURCE / BLOCK) as usize;
        let runs = |taken: &[u64]| {
            taken.iter().zip(taken.iter().skip(1)).filter(|(a, b)| **b > **a + 1).count()
                + usize::from(!taken.is_empty())
        };
        for block in best {
            if taken.len() >= room {
                break;
            }
            if let Err(at) = taken.binary_search(&block) {
                taken.insert(at, block);
                if runs(&taken) > MAX_SOURCES {
                    taken.remove(at);
                }
            }
        }
        // What stands beside is likely to be near what is looked for.
        let mut grown = true;
        while grown && taken.len() < room {
            grown = false;
            for block in taken.clone() {
                for beside in [block.checked_sub(1), Some(block + 1)].into_iter().flatten() {
                    if taken.len() >= room || beside > last {
                        continue;
                    }
                    if let Err(at) = taken.binary_search(&beside) {
                        taken.insert(at, beside);
                        grown = true;
                    }
                }
            }
        }
        let mut sources: Vec<Source> = Vec::new();
        for block in taken {
            let start = block * BLOCK;
            let length = self.length.saturating_sub(start).min(BLOCK) as u32;
            match sources.last_mut() {
                Some(before) if before.offset + u64::from(before.length) == start => before.length += length,
                _ if length > 0 => sources.push(Source { offset: start, length }),
                _ => {}
            }
        }
        sources
    }
}

/// The blocks in the order in which they add most anchors to those before them; nearest to `here` first among equals.
fn choose(blocks: &HashMap<u64, Vec<u32>>, anchors: u32, here: u64) -> Vec<u64> {
    let mut covered = vec![false; anchors as usize];
    let mut open: Vec<(usize, u64)> = blocks.iter().map(|(&block, anchors)| (anchors.len(), block)).collect();
    let mut chosen = Vec::new();
    let order = |&(score, block): &(usize, u64)| (score, std::cmp::Reverse(block.abs_diff(here)), block);
    open.sort_unstable_by_key(order);
    while let Some((score, block)) = open.pop() {
        let Some(its) = blocks.get(&block) else { continue };
        let is_new = |anchor: &&u32| covered.get(**anchor as usize) == Some(&false);
        let now = its.iter().filter(is_new).count();
        if now == 0 {
            continue;
        }
        if now < score {
            // Less than when it was put here: to its new place.
            let at = open.partition_point(|other| order(other) < order(&(now, block)));
            open.insert(at, (now, block));
            continue;
        }
        for &anchor in its {
            if let Some(covered) = covered.get_mut(anchor as usize) {
                *covered = true;
            }
        }
        chosen.push(block);
        if chosen.len() as u64 >= 4 * MAX_SOURCE / BLOCK {
            break;
        }
    }
    chosen
}

/// Calls `found` with the key and the place of each anchor.
fn each_anchor(bytes: &[u8], mut found: impl FnMut(u32, usize)) {
    let mut hash = 0_u64;
    let mut last = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        hash = (hash << 1).wrapping_add(scatter(byte));
        // Bit n depends on the last n + 1 bytes.
        if hash >> 24 & ((1 << BITS) - 1) == 0 && at >= 32 {
            let key = (hash as u32 & 0xff_ffff | (hash >> (24 + BITS) << 24) as u32).wrapping_mul(0x9e37_79b1);
            if key != last {
                found(key, at);
            }
            last = key;
        }
    }
}

/// 64 bits for a byte.
const fn scatter(byte: u8) -> u64 {
    let mut bits = (byte as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

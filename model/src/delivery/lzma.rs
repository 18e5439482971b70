//! LZMA, decoding only, from memory to memory.
//!
//! Our own because the crates that do it add 18 to 90 kB to a device's program, and this 4: the output is its own dictionary, there
//! is no stream to wait for, and no container. Nothing is allocated but the probabilities (at most 28 kB, or as many as the
//! properties need) and the output, whose length the caller sets.
//!
//! A stream is one byte of properties (`lc + 9 * (lp + 5 * pb)`), then the bytes of the range coder without the first, which is
//! always 0. Zeros at the end are left out. There is no end marker: the length is known.

use super::DeliveryError;
use crate::prelude::*;

const DAMAGED: DeliveryError = DeliveryError("damaged LZMA data");

// The probabilities, one after the other.
const IS_REP: usize = 12 << 4;
const IS_REP0: usize = IS_REP + 12;
const IS_REP1: usize = IS_REP0 + 12;
const IS_REP2: usize = IS_REP1 + 12;
const IS_REP0_LONG: usize = IS_REP2 + 12;
const SLOT: usize = IS_REP0_LONG + (12 << 4);
const SPECIAL: usize = SLOT + 4 * 64;
const ALIGN: usize = SPECIAL + 128;
const LENGTH: usize = ALIGN + 16;
const REP_LENGTH: usize = LENGTH + 2 + 2 * 128 + 256;
const LITERAL: usize = REP_LENGTH + 2 + 2 * 128 + 256;

/// Unpacks exactly `length` bytes to the end of `into`. What the stream refers to before its start is the end of `before`.
///
/// # Errors
///
/// If the stream is damaged; `into` then has some of the bytes. (Not every damage is seen: whoever unpacks compares a hash.)
pub fn unpack(packed: &[u8], before: &[u8], length: usize, into: &mut Vec<u8>) -> Result<(), DeliveryError> {
    let (&properties, input) = packed.split_first().ok_or(DAMAGED)?;
    let (lc, lp, pb) = (properties % 9, properties / 9 % 5, properties / 45);
    if lc + lp > 4 || pb > 4 {
        return Err(DAMAGED);
    }
    into.reserve_exact(length);
    let mut range = RangeDecoder {
        input: input.iter(),
        range: u32::MAX,
        code: 0,
        probabilities: vec![1024; LITERAL + (0x300 << (lc + lp))],
    };
    for _ in 0..4 {
        range.code = range.code << 8 | range.next();
    }
    let mut output = Output { start: into.len(), end: into.len() + length, into, before };
    let (mut state, mut reps) = (0, [0; 4]);
    while let Some(at) = output.position() {
        let aligned = at & ((1 << pb) - 1);
        if range.bit((state << 4) + aligned) == 0 {
            let last = output.back(0).unwrap_or(0);
            let context = ((at & ((1 << lp) - 1)) << lc) + (last >> (8 - lc));
            let matched = if state < 7 { None } else { Some(output.back(reps[0])?) };
            output.into.push(range.literal(LITERAL + 0x300 * context, matched));
            state = state.saturating_sub(if state < 10 { 3 } else { 6 });
            continue;
        }
        let after_literal = state < 7;
        let count = if range.bit(IS_REP + state) == 0 {
            reps.rotate_right(1);
            let count = range.length(LENGTH, aligned);
            state = if after_literal { 7 } else { 10 };
            reps[0] = range.distance(count);
            count
        } else {
            if range.bit(IS_REP0 + state) == 1 {
                let rep = if range.bit(IS_REP1 + state) == 0 { 1 } else { 2 + range.bit(IS_REP2 + state) };
                reps.get_mut(..=rep).ok_or(DAMAGED)?.rotate_right(1);
            } else if range.bit(IS_REP0_LONG + (state << 4) + aligned) == 0 {
                state = if after_literal { 9 } else { 11 };
                output.copy(reps[0], 1)?;
                continue;
            }
            state = if after_literal { 8 } else { 11 };
            range.length(REP_LENGTH, aligned)
        };
        output.copy(reps[0], count)?;
    }
    Ok(())
}

struct Output<'a> {
    into: &'a mut Vec<u8>,
    before: &'a [u8],
    start: usize,
    end: usize,
}

impl Output<'_> {
    /// How much is unpacked; `None` when it is all.
    fn position(&self) -> Option<usize> {
        (self.into.len() < self.end).then(|| self.into.len() - self.start)
    }

    /// The byte that stands `distance + 1` bytes back.
    fn back(&self, distance: usize) -> Result<usize, DeliveryError> {
        let unpacked = self.into.get(self.start..).unwrap_or_default();
        let distance = distance.checked_add(1).ok_or(DAMAGED)?;
        let (from, index) = match unpacked.len().checked_sub(distance) {
            Some(index) => (unpacked, index),
            None => (self.before, (self.before.len() + unpacked.len()).wrapping_sub(distance)),
        };
        from.get(index).map(|&byte| byte.into()).ok_or(DAMAGED)
    }

    fn copy(&mut self, distance: usize, count: usize) -> Result<(), DeliveryError> {
        for _ in 0..count.min(self.end - self.into.len()) {
            let byte = self.back(distance)?;
            self.into.push(byte as u8);
        }
        Ok(())
    }
}

struct RangeDecoder<'a> {
    input: core::slice::Iter<'a, u8>,
    range: u32,
    code: u32,
    probabilities: Vec<u16>,
}

impl RangeDecoder<'_> {
    fn next(&mut self) -> u32 {
        self.input.next().copied().unwrap_or(0).into()
    }

    fn normalize(&mut self) {
        if self.range < 1 << 24 {
            self.range <<= 8;
            self.code = self.code << 8 | self.next();
        }
    }

    fn bit(&mut self, index: usize) -> usize {
        self.normalize();
        let Some(probability) = self.probabilities.get_mut(index) else { return 0 };
        let bound = (self.range >> 11) * u32::from(*probability);
        if self.code < bound {
            self.range = bound;
            *probability += (2048 - *probability) >> 5;
            0
        } else {
            self.range -= bound;
            self.code = self.code.wrapping_sub(bound);
            *probability -= *probability >> 5;
            1
        }
    }

    fn tree(&mut self, base: usize, bits: usize) -> usize {
        let mut node = 1;
        for _ in 0..bits {
            node = node << 1 | self.bit(base + node);
        }
        node - (1 << bits)
    }

    fn reverse_tree(&mut self, base: usize, bits: usize) -> usize {
        let (mut node, mut value) = (1, 0);
        for place in 0..bits {
            let bit = self.bit(base + node);
            node = node << 1 | bit;
            value |= bit << place;
        }
        value
    }

    fn literal(&mut self, base: usize, matched: Option<usize>) -> u8 {
        let mut node = 1;
        if let Some(mut matched) = matched {
            while node < 0x100 {
                let expected = matched >> 7 & 1;
                matched <<= 1;
                let bit = self.bit(base + ((1 + expected) << 8) + node);
                node = node << 1 | bit;
                if bit != expected {
                    break;
                }
            }
        }
        while node < 0x100 {
            node = node << 1 | self.bit(base + node);
        }
        node as u8
    }

    fn length(&mut self, base: usize, aligned: usize) -> usize {
        if self.bit(base) == 0 {
            2 + self.tree(base + 2 + (aligned << 3), 3)
        } else if self.bit(base + 1) == 0 {
            10 + self.tree(base + 2 + 128 + (aligned << 3), 3)
        } else {
            18 + self.tree(base + 2 + 256, 8)
        }
    }

    fn distance(&mut self, count: usize) -> usize {
        let slot = self.tree(SLOT + (count.min(5) - 2) * 64, 6);
        if slot < 4 {
            return slot;
        }
        let bits = (slot >> 1) - 1;
        let base = (2 | slot & 1) << bits;
        if slot < 14 {
            return base + self.reverse_tree(SPECIAL + base - slot, bits);
        }
        let mut high = 0;
        for _ in 4..bits {
            self.normalize();
            self.range >>= 1;
            let bit = self.code >= self.range;
            if bit {
                self.code -= self.range;
            }
            high = high << 1 | usize::from(bit);
        }
        base + (high << 4) + self.reverse_tree(ALIGN, 4)
    }
}

//! Numbers in bytes, big-endian, and tables of them, transposed: first the first bytes of all rows, then the second. So they compress better.

use super::DeliveryError;
use crate::prelude::*;

pub(super) const SHORT: DeliveryError = DeliveryError("too short");

/// The next `count` bytes.
pub(super) fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], DeliveryError> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or(SHORT)?;
    *bytes = rest;
    Ok(taken)
}

/// The next `width` bytes as a number.
pub(super) fn number(bytes: &mut &[u8], width: usize) -> Result<u64, DeliveryError> {
    Ok(take(bytes, width)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// The number in row `row` of a transposed table of numbers of one width.
pub(super) fn transposed(table: &[u8], rows: usize, row: usize) -> u64 {
    table.iter().skip(row).step_by(rows.max(1)).fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Writes a number in `width` bytes.
pub(super) fn put(number: u64, width: usize, into: &mut Vec<u8>) {
    into.extend(number.to_be_bytes().iter().skip(8 - width));
}

/// Writes a transposed table of numbers of one width.
pub(super) fn put_transposed(numbers: &[u64], width: usize, into: &mut Vec<u8>) {
    for place in 8 - width..8 {
        into.extend(numbers.iter().filter_map(|number| number.to_be_bytes().get(place).copied()));
    }
}

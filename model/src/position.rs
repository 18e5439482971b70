//! The position of a device in its fleet: a number from 0 to 2^64-1, fixed by a salt and the device's id.
//!
//! All arithmetic on positions is in integers. The space has [`SPACE`] = 2^64 positions; parts of it are given in parts
//! per million ([`PPM`]), which only [`boundary`] converts to positions.

use core::fmt;
use core::str::FromStr;

use sha2::{Digest as _, Sha256};

use super::decode::quoted;
use super::digest::{self, Digest};
use super::name::DeviceId;
use crate::prelude::*;

/// The number of positions.
pub const SPACE: u128 = 1 << 64;

/// The whole, in parts per million.
pub const PPM: u32 = 1_000_000;

/// Where the first `ppm` parts per million of the space end: floor(`ppm` * 2^64 / 10^6), the first position that does
/// not belong to them. Values above [`PPM`] count as the whole.
pub fn boundary(ppm: u32) -> u128 {
    u128::from(ppm.min(PPM)) * SPACE / u128::from(PPM)
}

/// The position in whole parts per million of the space (0 to 999,999): for people to read.
pub fn to_ppm(position: u64) -> u32 {
    u32::try_from((u128::from(position) * u128::from(PPM)) >> 64).unwrap_or(PPM)
}

/// Parts per million as a percentage, as short as it is exact: `12.5%`.
pub fn percent(ppm: u32) -> String {
    let (whole, fraction) = (ppm / 10_000, ppm % 10_000);
    if fraction == 0 {
        return format!("{whole}%");
    }
    format!("{whole}.{}%", format!("{fraction:04}").trim_end_matches('0'))
}

/// Parts per million as a percentage for people, rounded to a hundredth of a percent: `10%` for 99,999.
pub fn rounded(ppm: u32) -> String {
    percent(ppm.saturating_add(50) / 100 * 100)
}

/// The salt of a channel: 16 to 64 bytes, lower-case hexadecimal in JSON.
///
/// It keeps positions of different channels independent, and makes the hashed ids of explicit cohorts differ from
/// channel to channel.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Salt(Vec<u8>);

/// A salt that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a salt: write 16 to 64 bytes in lower-case hexadecimal, for example 32 random ones", quoted(.0))]
pub struct SaltError(String);

impl Salt {
    /// A salt of these bytes.
    ///
    /// # Errors
    ///
    /// If there are fewer than 16 or more than 64 bytes.
    pub fn new(bytes: &[u8]) -> Result<Salt, SaltError> {
        if (16..=64).contains(&bytes.len()) { Ok(Salt(bytes.to_vec())) } else { Err(SaltError(digest::to_hex(bytes))) }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The position of a device: the first 8 bytes, big-endian, of
    /// SHA-256(`"tidegate/cohort/1"` 00 salt 00 device-id).
    pub fn position(&self, device: &DeviceId) -> u64 {
        let digest = self.hash("tidegate/cohort/1", device);
        digest.as_bytes().iter().take(8).fold(0, |position, byte| (position << 8) | u64::from(*byte))
    }

    /// The form in which an explicit cohort lists a device without disclosing its id: SHA-256(`"tidegate/device/1"` 00 salt 00
    /// device-id).
    pub fn device_hash(&self, device: &DeviceId) -> Digest {
        self.hash("tidegate/device/1", device)
    }

    /// What the positions of a device in ramps are derived from: SHA-256(`"tidegate/ramp/1"` 00 salt 00 device-id).
    pub fn ramp_order(&self, device: &DeviceId) -> RampOrder {
        RampOrder(self.hash("tidegate/ramp/1", device))
    }

    fn hash(&self, purpose: &str, device: &DeviceId) -> Digest {
        let mut hash = Sha256::new();
        hash.update(purpose);
        hash.update([0]);
        hash.update(&self.0);
        hash.update([0]);
        hash.update(device.as_str());
        Digest::from(<[u8; 32]>::from(hash.finalize()))
    }
}

impl FromStr for Salt {
    type Err = SaltError;

    fn from_str(text: &str) -> Result<Self, SaltError> {
        let bytes = digest::from_hex(text).ok_or_else(|| SaltError(text.to_owned()))?;
        Salt::new(&bytes).map_err(|_| SaltError(text.to_owned()))
    }
}

impl TryFrom<String> for Salt {
    type Error = SaltError;

    fn try_from(text: String) -> Result<Self, SaltError> {
        text.parse()
    }
}

impl From<Salt> for String {
    fn from(salt: Salt) -> String {
        salt.to_string()
    }
}

impl fmt::Display for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&digest::to_hex(&self.0))
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Salt({self})")
    }
}

/// When ramps reach a device. The order of the devices of a cohort differs from release to release, so that the same devices are not always
/// first; it does not depend on their cohorts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RampOrder(Digest);

impl RampOrder {
    /// The device's position in the ramp of the release with this sequence: the first 8 bytes, big-endian, of
    /// SHA-256(order, sequence as 8 bytes, big-endian).
    pub fn position(&self, sequence: u64) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.0.as_bytes());
        hash.update(sequence.to_be_bytes());
        hash.finalize().iter().take(8).fold(0, |position, byte| (position << 8) | u64::from(*byte))
    }
}

/// A non-empty range of positions, from `low` up to but not including `high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    low: u64,
    high: u128,
}

impl Interval {
    /// All positions.
    pub const WHOLE: Interval = Interval { low: 0, high: SPACE };

    /// The positions between two boundaries in parts per million; `None` unless `from < to <= PPM`.
    pub fn between(from: u32, to: u32) -> Option<Interval> {
        if from >= to || to > PPM {
            return None;
        }
        Some(Interval { low: u64::try_from(boundary(from)).ok()?, high: boundary(to) })
    }

    /// The first position.
    pub fn low(self) -> u64 {
        self.low
    }

    /// The first position that no longer belongs to it; 2^64 at most.
    pub fn high(self) -> u128 {
        self.high
    }

    /// Whether `position` belongs to it.
    pub fn contains(self, position: u64) -> bool {
        self.low <= position && u128::from(position) < self.high
    }
}

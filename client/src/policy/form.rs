//! How settings are written.

use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Deserializer, de::Error};

/// A switch that is on unless it is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enabled(pub bool);

impl Default for Enabled {
    fn default() -> Self {
        Self(true)
    }
}

pub(super) fn enabled<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Enabled, D::Error> {
    bool::deserialize(deserializer).map(Enabled)
}

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TimeDelta, D::Error> {
    let text = String::deserialize(deserializer)?;
    let duration = parse_duration(&text).map_err(D::Error::custom)?;
    TimeDelta::from_std(duration).map_err(D::Error::custom)
}

/// Reads a duration as people write it: a whole number and `s`, `m`, `h` or `d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => 0,
    };
    let count = text.get(..text.len().saturating_sub(1)).and_then(|count| count.parse::<u32>().ok());
    match count {
        Some(count) if unit > 0 => Ok(Duration::from_secs(u64::from(count) * unit)),
        _ => Err(format!("{text:?} is no duration: write a whole number and s, m, h or d, such as 90s or 7d")),
    }
}

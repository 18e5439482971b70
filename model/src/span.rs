//! Durations as people write them: `365d`, `24h`, `30m`, `2w`, `1d 12h`. All settings files and programs use this notation.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::prelude::*;

/// A duration of whole seconds, from zero to a thousand years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(u64);

const UNITS: [(&str, u64); 5] = [("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
/// A thousand years.
const MAX: u64 = 1000 * 366 * 86_400;

impl Span {
    /// This many hours.
    pub const fn hours(hours: u64) -> Self {
        Self(hours * 3600)
    }

    /// This many seconds.
    pub const fn of_seconds(seconds: u64) -> Self {
        Self(seconds)
    }

    /// The length in seconds.
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// Whether the duration is zero.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The duration as a difference of instants.
    pub fn delta(self) -> TimeDelta {
        TimeDelta::seconds(i64::try_from(self.0).unwrap_or(i64::MAX / 1000))
    }

    /// The duration between two instants; zero if it would be negative.
    pub fn from_delta(delta: TimeDelta) -> Self {
        Self(u64::try_from(delta.num_seconds()).unwrap_or(0).min(MAX))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a duration: write it as 365d, 24h, 90m, 2w or 1d 12h");
        let mut total: u64 = 0;
        if text == "0" {
            return Ok(Self(0));
        }
        let mut words = text.split_whitespace().peekable();
        words.peek().ok_or_else(bad)?;
        for word in words {
            let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let unit = word.get(digits.len()..).ok_or_else(bad)?;
            let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
            if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
                return Err(bad());
            }
            let count: u64 = digits.parse().map_err(|_| bad())?;
            total = count.checked_mul(*seconds).and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
        }
        if total > MAX {
            return Err(format!("{text:?} is longer than a thousand years"));
        }
        Ok(Self(total))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        Self::from_secs(span.0)
    }
}

/// Of whole seconds, at most a thousand years.
impl From<Duration> for Span {
    fn from(time: Duration) -> Self {
        Self(time.as_secs().min(MAX))
    }
}

/// The shortest form in days, hours, minutes and seconds.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut parts = Vec::new();
        for (name, seconds) in UNITS.iter().filter(|(name, _)| *name != "w") {
            if rest >= *seconds {
                parts.push(format!("{}{name}", rest / seconds));
                rest %= seconds;
            }
        }
        if parts.is_empty() {
            parts.push("0s".into());
        }
        f.pad(&parts.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written() {
        for (text, seconds, shown) in [
            ("365d", 31_536_000, "365d"),
            ("24h", 86_400, "1d"),
            ("90m", 5_400, "1h 30m"),
            ("1d 12h", 129_600, "1d 12h"),
            ("2w", 1_209_600, "14d"),
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.seconds(), span.to_string().as_str()), (seconds, shown));
        }
        for text in [
            "",
            " ",
            "1",
            "d",
            "1 d",
            "-1d",
            "1.5h",
            "1y",
            "99999999999999999999d",
            "400000d",
            "1d12h",
            "1D",
            "\u{661}d",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }
}

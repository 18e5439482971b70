//! Spans of time as settings write them: `30s`, `5m`, `2h`, `1d`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

/// A span of whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(u64);

impl Span {
    /// That many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds)
    }

    /// In seconds.
    pub fn as_secs(self) -> u64 {
        self.0
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        Duration::from_secs(span.0)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let read = || {
            let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
            let unit: u64 = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 3600,
                "d" => 86_400,
                _ => return None,
            };
            number.bytes().all(|c| c.is_ascii_digit()).then(|| number.parse::<u64>().ok()?.checked_mul(unit))?
        };
        read()
            .map(Self)
            .ok_or_else(|| D::Error::custom(format!("{text:?} is no span of time: write e.g. 30s, 5m, 2h or 1d")))
    }
}

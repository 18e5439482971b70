//! Instants: UTC, whole seconds, written `YYYY-MM-DDTHH:MM:SSZ` as in TUF metadata ([`tidegate_tuf::time`]).

use chrono::{DateTime, Utc};

use tidegate_tuf;
use tidegate_tuf::fields::quoted;

use super::span::Span;
use crate::prelude::*;

/// An instant in UTC. Where it enters the model, parts of a second are cut off.
pub type UtcTime = DateTime<Utc>;

/// A text that is no instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not an instant: write YYYY-MM-DDTHH:MM:SSZ, in UTC, from the year 1970 on", quoted(.0))]
pub struct TimeError(String);

/// Reads `YYYY-MM-DDTHH:MM:SSZ`, years 1970 to 9999, and nothing else: no offsets, fractions or leap seconds.
///
/// # Errors
///
/// If the text has another form or names no instant.
pub fn parse(text: &str) -> Result<UtcTime, TimeError> {
    tidegate_tuf::time::parse(text).filter(|&instant| in_range(instant)).ok_or_else(|| TimeError(text.to_owned()))
}

/// Writes `YYYY-MM-DDTHH:MM:SSZ`.
pub fn format(instant: UtcTime) -> String {
    tidegate_tuf::time::format(instant)
}

/// The instant `seconds` after the start of 1970, as Unix counts time, if [`parse`] could have returned it.
pub fn from_seconds(seconds: i64) -> Option<UtcTime> {
    DateTime::from_timestamp(seconds, 0).filter(|&instant| in_range(instant))
}

/// The instant this long after another, at most the last that can be written.
pub fn after(instant: UtcTime, time: Span) -> UtcTime {
    instant.checked_add_signed(time.delta()).filter(|&at| in_range(at)).or(from_seconds(LAST)).unwrap_or(instant)
}

/// The instant this long before another, at least the start of 1970.
pub fn before(instant: UtcTime, time: Span) -> UtcTime {
    instant.checked_sub_signed(time.delta()).filter(|&at| in_range(at)).unwrap_or_default()
}

/// How long it is from one instant to a later one; zero if that is not later.
pub fn between(from: UtcTime, until: UtcTime) -> Span {
    Span::from_delta(until - from)
}

/// The instant without parts of a second.
pub fn whole(instant: UtcTime) -> UtcTime {
    DateTime::from_timestamp(instant.timestamp(), 0).unwrap_or(instant)
}

/// Whether [`format()`] writes this instant so that [`parse`] reads it.
pub(crate) fn in_range(instant: UtcTime) -> bool {
    (0..=LAST).contains(&instant.timestamp())
}

/// 9999-12-31T23:59:59Z.
const LAST: i64 = 253_402_300_799;

/// For `#[serde(with = "time::text")]`.
pub mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::UtcTime;
    use crate::prelude::*;

    /// Writes an instant as text.
    ///
    /// # Errors
    ///
    /// If the serializer fails.
    pub fn serialize<S: Serializer>(instant: &UtcTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format(*instant))
    }

    /// Reads an instant from text.
    ///
    /// # Errors
    ///
    /// If the deserializer fails or the text is not an instant.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UtcTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse(&text).map_err(D::Error::custom)
    }
}

/// For `#[serde(with = "time::optional_text")]`.
pub mod optional_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::UtcTime;
    use crate::prelude::*;

    /// Writes an instant as text, or null.
    ///
    /// # Errors
    ///
    /// If the serializer fails.
    #[allow(clippy::ref_option, reason = "the signature that serde calls")]
    pub fn serialize<S: Serializer>(instant: &Option<UtcTime>, serializer: S) -> Result<S::Ok, S::Error> {
        match instant {
            Some(instant) => serializer.serialize_some(&super::format(*instant)),
            None => serializer.serialize_none(),
        }
    }

    /// Reads an instant from text, or null.
    ///
    /// # Errors
    ///
    /// If the deserializer fails or the text is not an instant.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<UtcTime>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse(&text)).transpose().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_added_and_compared_without_another_package() {
        let at = |text| parse(text).unwrap();
        let (noon, day): (_, Span) = (at("2026-11-24T12:00:00Z"), "1d".parse().unwrap());
        assert_eq!((after(noon, day), before(noon, day)), (at("2026-11-25T12:00:00Z"), at("2026-11-23T12:00:00Z")));
        assert_eq!((between(noon, after(noon, day)), between(after(noon, day), noon)), (day, Span::default()));
        let long: Span = "365000d".parse().unwrap();
        let far = (0..9).fold(noon, |at, _| after(at, long));
        assert_eq!(
            (format(far).as_str(), format(before(noon, long)).as_str()),
            ("9999-12-31T23:59:59Z", "1970-01-01T00:00:00Z")
        );
        assert_eq!(from_seconds(noon.timestamp()), Some(noon));
        assert_eq!(from_seconds(-1), None);
    }
}

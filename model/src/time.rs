//! Instants: UTC, whole seconds, written `YYYY-MM-DDTHH:MM:SSZ` as in TUF metadata ([`tidegate_tuf::time`]).

use chrono::{DateTime, Utc};

use tidegate_tuf;
use tidegate_tuf::fields::quoted;

use crate::prelude::*;

/// An instant in UTC. Where it enters the model, parts of a second are cut off.
pub type Instant = DateTime<Utc>;

/// A text that is no instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not an instant: write YYYY-MM-DDTHH:MM:SSZ, in UTC, from the year 1970 on", quoted(.0))]
pub struct TimeError(String);

/// Reads `YYYY-MM-DDTHH:MM:SSZ`, years 1970 to 9999, and nothing else: no offsets, fractions or leap seconds.
///
/// # Errors
///
/// If the text has another form or names no instant.
pub fn parse(text: &str) -> Result<Instant, TimeError> {
    tidegate_tuf::time::parse(text).filter(|&instant| in_range(instant)).ok_or_else(|| TimeError(text.to_owned()))
}

/// Writes `YYYY-MM-DDTHH:MM:SSZ`.
pub fn format(instant: Instant) -> String {
    tidegate_tuf::time::format(instant)
}

/// The instant `seconds` after the start of 1970, if [`parse`] could have returned it.
pub(crate) fn from_seconds(seconds: i64) -> Option<Instant> {
    DateTime::from_timestamp(seconds, 0).filter(|&instant| in_range(instant))
}

/// The instant without parts of a second.
pub fn whole(instant: Instant) -> Instant {
    DateTime::from_timestamp(instant.timestamp(), 0).unwrap_or(instant)
}

/// Whether [`format()`] writes this instant so that [`parse`] reads it.
pub(crate) fn in_range(instant: Instant) -> bool {
    (0..=LAST).contains(&instant.timestamp())
}

/// 9999-12-31T23:59:59Z.
const LAST: i64 = 253_402_300_799;

/// For `#[serde(with = "time::text")]`.
pub mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Instant;
    use crate::prelude::*;

    /// Writes an instant as text.
    ///
    /// # Errors
    ///
    /// If the serializer fails.
    pub fn serialize<S: Serializer>(instant: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format(*instant))
    }

    /// Reads an instant from text.
    ///
    /// # Errors
    ///
    /// If the deserializer fails or the text is not an instant.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse(&text).map_err(D::Error::custom)
    }
}

/// For `#[serde(with = "time::optional_text")]`.
pub mod optional_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Instant;
    use crate::prelude::*;

    /// Writes an instant as text, or null.
    ///
    /// # Errors
    ///
    /// If the serializer fails.
    #[allow(clippy::ref_option, reason = "the signature that serde calls")]
    pub fn serialize<S: Serializer>(instant: &Option<Instant>, serializer: S) -> Result<S::Ok, S::Error> {
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
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Instant>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse(&text)).transpose().map_err(D::Error::custom)
    }
}

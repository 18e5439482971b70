//! How a policy is written.

use std::str::FromStr;

use chrono::TimeDelta;
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

use super::{Deferral, DeferralRule, Metered, Overrides, Policy, Rule};
use crate::store::Keep;
use crate::zone::Zone;
use tidegate_model::condition::Condition;
use tidegate_model::span::Span;
use tidegate_tuf::fields::{FieldError, Fields, expected, parsed, quoted, text, whole};

/// A switch that is on unless it is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Enabled(pub(super) bool);

impl Default for Enabled {
    fn default() -> Self {
        Self(true)
    }
}

const RULES: [(&str, Rule); 5] = [
    ("windows", Rule::Windows),
    ("deferral", Rule::Deferral),
    ("require", Rule::Require),
    ("metered", Rule::Metered),
    ("newer", Rule::Newer),
];

impl Policy {
    /// Reads a policy in the form that `policy` has in the settings file of `tidegate-device`. What is not there has its default.
    ///
    /// # Errors
    ///
    /// If it is not strict JSON, or a field is unknown or wrong.
    pub fn parse(json: impl AsRef<[u8]>) -> Result<Self, FieldError> {
        let value = tidegate_tuf::json::parse(json.as_ref()).map_err(|e| FieldError::new("", e.to_string()))?;
        Self::read(&value, "")
    }

    /// Reads a policy that is written at `at` of a larger document. What is not there has its default.
    ///
    /// # Errors
    ///
    /// If a field is unknown, missing or wrong.
    pub fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        whole(value, at, |fields| {
            Ok(Self {
                windows: fields.list_or_empty("windows", usize::MAX, parsed)?,
                utc_offset: fields.optional_text_as("utc_offset", str::parse)?.unwrap_or_default(),
                zone: fields.optional_text("time_zone")?.map(Zone::find),
                download_any_time: Enabled(fields.bool_or("download_any_time", true)?),
                deferral: fields.optional_part("deferral", DeferralRule::read)?.unwrap_or_default(),
                require: match fields.optional("require") {
                    None | Some(Value::Null) => None,
                    Some(value) => Some(
                        Condition::from_value(value)
                            .map_err(|e| FieldError::new(fields.at("require"), e.to_string()))?,
                    ),
                },
                metered: fields.optional_part("metered", metered)?.unwrap_or_default(),
                wait_for_newer: fields
                    .optional_parsed::<Span>("wait_for_newer")?
                    .map_or(TimeDelta::zero(), |span| span.delta()),
                security_overrides: match fields.optional("security_overrides") {
                    None => Overrides::default(),
                    Some(_) => Overrides(fields.set("security_overrides", usize::MAX, rule)?),
                },
            })
        })
    }
}

/// As [`Policy::parse`].
impl FromStr for Policy {
    type Err = FieldError;

    fn from_str(json: &str) -> Result<Self, FieldError> {
        Self::parse(json)
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(&Value::deserialize(deserializer)?, "").map_err(D::Error::custom)
    }
}

impl Keep for Deferral {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, at)?;
        Ok(Self {
            sequence: fields.u64("sequence")?,
            since: fields.text_as("since", tidegate_model::time::parse)?,
            until: fields.text_as("until", tidegate_model::time::parse)?,
        })
    }
}

impl DeferralRule {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        whole(value, at, |fields| Ok(Self { limit: fields.parsed::<Span>("limit")?.delta() }))
    }
}

fn metered(value: &Value, at: &str) -> Result<Metered, FieldError> {
    match value.as_str() {
        Some("allow") => return Ok(Metered::Allow),
        Some("refuse") => return Ok(Metered::Refuse),
        _ if value.is_object() => {}
        _ => return Err(expected("\"allow\", \"refuse\", or {\"at_most\": BYTES}", value, at)),
    }
    whole(value, at, |fields| {
        let most = fields.u64("at_most")?;
        Ok(Metered::AtMost(most))
    })
}

fn rule(value: &Value, at: &str) -> Result<Rule, FieldError> {
    text(value, at)?.parse().map_err(|_| expected(WORDS, value, at))
}

const WORDS: &str = "one of windows, deferral, require, metered, newer";

/// By its word, such as `windows`.
impl FromStr for Rule {
    type Err = FieldError;

    fn from_str(word: &str) -> Result<Self, FieldError> {
        let known = RULES.iter().find(|(name, _)| *name == word).map(|(_, rule)| *rule);
        known.ok_or_else(|| FieldError::new("", format!("{} is no rule of a policy: expected {WORDS}", quoted(word))))
    }
}

//! How a policy is written.

use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

use super::{Deferral, DeferralRule, Metered, Overrides, Policy, Rule, Window};
use crate::device::Keep;
use crate::model::condition::Condition;
use crate::tuf::fields::{Fault, Fields, expected, text, whole};

/// A switch that is on unless it is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enabled(pub bool);

impl Default for Enabled {
    fn default() -> Self {
        Self(true)
    }
}

const RULES: [(&str, Rule); 4] =
    [("windows", Rule::Windows), ("deferral", Rule::Deferral), ("require", Rule::Require), ("metered", Rule::Metered)];

impl Policy {
    /// Reads a policy that is written at `at` of a larger document. What is not there has its default.
    pub(crate) fn read(value: &Value, at: &str) -> Result<Self, Fault> {
        whole(value, at, |fields| {
            Ok(Self {
                windows: fields.list_or_empty("windows", usize::MAX, Window::read)?,
                utc_offset: fields.optional_meant("utc_offset", str::parse)?.unwrap_or_default(),
                download_any_time: Enabled(fields.bool_or("download_any_time", true)?),
                deferral: fields.optional_part("deferral", DeferralRule::read)?.unwrap_or_default(),
                require: match fields.optional("require") {
                    None | Some(Value::Null) => None,
                    Some(value) => Some(
                        Condition::from_value(value).map_err(|e| Fault::new(fields.at("require"), e.to_string()))?,
                    ),
                },
                metered: fields.optional_part("metered", metered)?.unwrap_or_default(),
                security_overrides: match fields.optional("security_overrides") {
                    None => Overrides::default(),
                    Some(_) => Overrides(fields.set("security_overrides", usize::MAX, rule)?),
                },
            })
        })
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(&Value::deserialize(deserializer)?, "").map_err(D::Error::custom)
    }
}

impl Keep for Deferral {
    fn read(value: &Value, at: &str) -> Result<Self, Fault> {
        let mut fields = Fields::of(value, at)?;
        Ok(Self { sequence: fields.u64("sequence")?, since: fields.instant("since")?, until: fields.instant("until")? })
    }
}

impl DeferralRule {
    fn read(value: &Value, at: &str) -> Result<Self, Fault> {
        whole(value, at, |fields| Ok(Self { limit: fields.meant("limit", duration)? }))
    }
}

fn metered(value: &Value, at: &str) -> Result<Metered, Fault> {
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

fn rule(value: &Value, at: &str) -> Result<Rule, Fault> {
    let word = text(value, at)?;
    let known = RULES.iter().find(|(name, _)| *name == word).map(|(_, rule)| *rule);
    known.ok_or_else(|| expected("one of windows, deferral, require, metered", value, at))
}

fn duration(text: &str) -> Result<TimeDelta, String> {
    TimeDelta::from_std(parse_duration(text)?).map_err(|e| e.to_string())
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

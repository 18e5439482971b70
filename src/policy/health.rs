//! `[health]` of `policy.toml`: what a health report must say for a limited rollout to go on.

use serde::Deserialize;

use crate::config::{invalid, parse_share, write_share};
use crate::error::Result;
use crate::keys::check_variable;
use tidegate_model::span::Span;

/// `[health]`. One that exists can stop something.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthPolicy {
    /// Whether a rollout can be renewed only with a report.
    #[serde(default)]
    pub required: bool,
    /// So many devices must have tried the release before shares mean anything.
    pub min_sample: u64,
    /// How old a report may be.
    pub max_age: Span,
    /// How long a program that makes the report may take.
    #[serde(default = "minute")]
    pub timeout: Span,
    /// The variables that the program inherits, beside those that every program does.
    #[serde(default)]
    pub environment: Vec<String>,
    /// More than this pauses the rollout.
    #[serde(default)]
    pub pause: Thresholds,
    /// More than this withdraws the release.
    #[serde(default)]
    pub withdraw: Thresholds,
}

/// Shares, in parts per million, that must not be exceeded; `None` for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Of the devices that tried to install it: those that could not.
    #[serde(default, deserialize_with = "share")]
    pub failed: Option<u32>,
    /// Of the devices that installed it: those that went back.
    #[serde(default, deserialize_with = "share")]
    pub rolled_back: Option<u32>,
}

impl HealthPolicy {
    /// Checks the health policy.
    ///
    /// # Errors
    ///
    /// Fails if it can never stop a rollout, or contradicts itself.
    pub(super) fn check(&self, file: &str) -> Result<()> {
        let Self { min_sample, max_age, timeout, pause, withdraw, .. } = self;
        if *min_sample == 0 {
            let remedy = "give a number of devices from 1 on, such as 50";
            return Err(invalid(file, "health.min_sample", "the threshold is 0", remedy));
        }
        for (key, span) in [("health.max_age", max_age), ("health.timeout", timeout)] {
            if span.is_zero() {
                return Err(invalid(file, key, "no report could arrive in time", "give a span such as 1h"));
            }
        }
        if let Some(why) = self.environment.iter().find_map(|name| check_variable(name).err()) {
            let remedy = "list the names of other variables that the program needs";
            return Err(invalid(file, "health.environment", why, remedy));
        }
        if [pause.failed, pause.rolled_back, withdraw.failed, withdraw.rolled_back].iter().all(Option::is_none) {
            let remedy = "give thresholds: pause = { failed = \"2%\", rolled_back = \"1%\" }";
            return Err(invalid(file, "health", "there is no threshold: nothing would ever stop a rollout", remedy));
        }
        for (what, pause, withdraw) in
            [("failed", pause.failed, withdraw.failed), ("rolled_back", pause.rolled_back, withdraw.rolled_back)]
        {
            if let (Some(pause), Some(withdraw)) = (pause, withdraw)
                && withdraw < pause
            {
                return Err(invalid(
                    file,
                    &format!("health.withdraw.{what}"),
                    format!("{} is less than the {} that pause it", write_share(withdraw), write_share(pause)),
                    "withdraw at a larger share than pause",
                ));
            }
        }
        Ok(())
    }
}

fn minute() -> Span {
    Span::from_delta(chrono::TimeDelta::minutes(1))
}

fn share<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_share(&text).map(Some).map_err(serde::de::Error::custom)
}

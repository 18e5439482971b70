//! `cohorts.toml`: who gets releases first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use tidegate_model::Extra;
use tidegate_model::cohort::{Cohort, CohortMap, Selector};
use tidegate_model::condition::Condition;
use tidegate_model::digest::Digest;
use tidegate_model::gate::{GateUrl, Protected};
use tidegate_model::name::Name;
use tidegate_model::position::{PPM, Salt, percent};

use super::{invalid, load, parse};
use crate::error::{Error, Result};

const FILE: &str = "cohorts.toml";

/// `cohorts.toml`: the cohorts of each channel.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct Cohorts {
    channels: BTreeMap<Name, ChannelCohorts>,
}

/// The cohorts of a channel, in the order in which releases reach them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelCohorts {
    /// Hex; shuffles the devices. `tidegate init` fills it in.
    pub salt: String,
    /// At least one.
    #[serde(rename = "cohort")]
    pub cohorts: Vec<CohortSettings>,
}

/// One cohort: exactly one of `condition`, `devices` and `share`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CohortSettings {
    name: Name,
    #[serde(default)]
    condition: Option<Condition>,
    #[serde(default)]
    devices: Option<BTreeSet<Digest>>,
    #[serde(default)]
    share: Option<String>,
    #[serde(default)]
    protected: Option<ProtectedSettings>,
}

/// That a cohort's releases must not lie open: `protected = { gate = "https://gate.example.com" }`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProtectedSettings {
    gate: GateUrl,
}

impl Cohorts {
    /// Reads and checks `cohorts.toml` of the workspace `dir`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or is invalid.
    pub fn load(dir: &Path) -> Result<Self> {
        load::<Self>(dir, FILE)?.checked()
    }

    /// Reads and checks the file's content.
    ///
    /// # Errors
    ///
    /// Fails if the content is not valid TOML, or if a value is invalid.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        parse::<Self>(FILE, bytes)?.checked()
    }

    fn checked(self) -> Result<Self> {
        for channel in self.channels.keys() {
            self.map(channel)?;
        }
        Ok(self)
    }

    /// The channels that have cohorts.
    pub fn channels(&self) -> impl Iterator<Item = &Name> {
        self.channels.keys()
    }

    /// The cohort map of a channel.
    ///
    /// # Errors
    ///
    /// Fails if the channel has no cohorts, or if they do not form a valid map.
    pub fn map(&self, channel: &Name) -> Result<CohortMap> {
        let settings = self.channels.get(channel).ok_or_else(|| {
            invalid(FILE, channel.as_str(), "the channel has no cohorts", format!("add [{channel}] with its cohorts"))
        })?;
        let salt: Salt = settings.salt.parse().map_err(|e| {
            invalid(FILE, &format!("{channel}.salt"), e, "32 hex digits from a good source: openssl rand -hex 16")
        })?;
        let cohorts = settings
            .cohorts
            .iter()
            .map(|cohort| {
                let selector = cohort.selector().map_err(|e| {
                    let remedy = e.remedy_text().unwrap_or_default().to_owned();
                    invalid(FILE, &format!("{channel}.{}", cohort.name), e, remedy)
                })?;
                let protected = cohort.protected.as_ref().map(|protected| Protected::by(protected.gate.clone()));
                Ok(Cohort { name: cohort.name.clone(), selector, protected, extra: Extra::new() })
            })
            .collect::<Result<_>>()?;
        CohortMap::new(salt, cohorts).map_err(|e| {
            invalid(
                FILE,
                channel.as_str(),
                e,
                "the shares of a channel add up to exactly 100%; explicit cohorts come before shares",
            )
        })
    }
}

impl CohortSettings {
    fn selector(&self) -> Result<Selector> {
        match (&self.condition, &self.devices, &self.share) {
            (Some(condition), None, None) => Ok(Selector::Condition(condition.clone())),
            (None, Some(devices), None) => Ok(Selector::Devices(devices.clone())),
            (None, None, Some(share)) => parse_share(share).map(Selector::Share).map_err(Error::input),
            _ => Err(Error::input("it does not say which devices belong to it")
                .remedy("give exactly one of: share = \"5%\", condition = {...}, devices = [...]")),
        }
    }
}

/// Reads a share such as `5%` or `0.25%` as parts per million: at most four decimals, 0% to 100%.
///
/// # Errors
///
/// Returns what is wrong with the text.
pub fn parse_share(text: &str) -> Result<u32, String> {
    let bad = || format!("{text:?} is not a share; write it as 5% or 0.25%, with at most four decimals");
    let number = text.trim().strip_suffix('%').ok_or_else(bad)?.trim_end();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str, most: usize| {
        (!text.is_empty() && text.len() <= most && text.bytes().all(|c| c.is_ascii_digit())).then_some(())
    };
    digits(whole, 3).ok_or_else(bad)?;
    digits(fraction, 4).ok_or_else(bad)?;
    let whole: u32 = whole.parse().map_err(|_| bad())?;
    let fraction: u32 = format!("{fraction:0<4}").parse().map_err(|_| bad())?;
    let ppm = whole * 10_000 + fraction;
    if ppm > PPM { Err(format!("{text:?} is more than 100%")) } else { Ok(ppm) }
}

/// Writes parts per million as a percentage, as short as it is exact.
pub fn write_share(ppm: u32) -> String {
    percent(ppm)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = include_str!("../../repo-template/cohorts.toml");

    #[test]
    fn shares_are_exact_both_ways() {
        for (text, ppm) in
            [("5%", 50_000), ("0.25%", 2_500), ("100%", PPM), ("0.0001%", 1), ("33.3333%", 333_333), ("0%", 0)]
        {
            assert_eq!(parse_share(text).unwrap(), ppm);
            assert_eq!(write_share(ppm), text);
        }
        for text in ["", "5", "%", "101%", "1.23456%", "-1%", ".5%", "5.%", "1e2%", "100.0001%"] {
            assert!(parse_share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_template_is_valid() {
        let cohorts = Cohorts::parse(TEMPLATE.as_bytes()).unwrap();
        let map = cohorts.map(&"stable".parse().unwrap()).unwrap();
        let names: Vec<_> = map.cohorts().iter().map(|cohort| cohort.name.as_str()).collect();
        assert_eq!(names, ["validation", "canary", "early", "general"]);
    }

    #[test]
    fn what_cannot_hold_is_refused_by_file_and_key() {
        for (from, to, part) in [
            ("share = \"5%\"", "share = \"6%\"", "cohorts.toml: stable: "),
            ("share = \"5%\"", "share = \"a few\"", "stable.canary: \"a few\" is not a share"),
            ("share = \"5%\"", "", "stable.canary: it does not say which devices belong to it"),
            ("share = \"5%\"", "share = \"5%\"\ndevices = []", "stable.canary: it does not say"),
            ("name = \"canary\"", "name = \"early\"", "cohorts.toml: stable: "),
            ("name = \"canary\"", "name = \"Canary\"", "is not a name"),
            ("eq = \"lab\" }\n", "equals = \"lab\" }\n", "equals"),
            ("salt = \"", "salt = \"xyz", "stable.salt: "),
            (
                "share = \"5%\"",
                "share = \"5%\"\nprotected = { gate = \"http://gate.example.com\" }",
                "is not the URL of a gate",
            ),
            ("share = \"5%\"", "share = \"5%\"\nprotected = { }", "gate"),
            ("share = \"5%\"", "share = \"5%\"\nprotected = { gate = \"https://g\", tier = 1 }", "tier"),
        ] {
            assert!(TEMPLATE.contains(from), "{from}");
            let error = Cohorts::parse(TEMPLATE.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(error.to_string().contains(part), "{to}: {error}");
            assert!(error.remedy_text().is_some(), "{error}");
        }
    }
}

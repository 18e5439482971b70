//! What the device's owner allows, and when: a pure function beside the release's own rules.
//!
//! The signed metadata decides *whether* a device may have a release ([`decide`](tidegate_model::decision::decide)); the policy decides
//! when the device installs it. [`judge`] evaluates every rule for one [`Step`] and reports each outcome, so that `status` and
//! `explain` show every obstacle, not just the first.
//!
//! ```json
//! {
//!   "windows": ["sat sun 01:00 - 05:30"],
//!   "time_zone": "Europe/Berlin",
//!   "download_any_time": true,
//!   "deferral": {"limit": "7d"},
//!   "require": {"fact": "battery-percent", "ge": 30},
//!   "metered": {"at_most": 1000000},
//!   "wait_for_newer": "2d",
//!   "security_overrides": ["windows", "deferral", "newer"]
//! }
//! ```
//!
//! A release of urgency `security` overrides the rules in `security_overrides`. The owner chooses these rules. They
//! never include rules of the release itself.

mod form;

use std::collections::BTreeSet;
use std::str::FromStr;

use chrono::TimeDelta;
use serde::Serialize;

use crate::zone::Zone;
use tidegate_model::condition::{self, Condition};
use tidegate_model::decision::Verdict;
use tidegate_model::facts::{FactValue, Facts};
use tidegate_model::manifest::Urgency;
use tidegate_model::span::Span;
use tidegate_model::time::{self, UtcTime};
use tidegate_model::version::Version;
use tidegate_model::week::{UtcOffset, WeeklyPeriod};
use tidegate_tuf::fields::FieldError;

/// What the owner of a device allows. The default allows everything.
///
/// It is read as JSON by [`parse`](Self::parse), or made in code:
///
/// ```
/// use tidegate_client::policy::{Metered, Policy};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let policy = Policy::new()
///     .with_windows(["sat sun 01:00 - 05:30".parse()?])
///     .with_utc_offset("+01:00".parse()?)
///     .with_deferral_limit("7d".parse()?)
///     .with_metered(Metered::AtMost(1_000_000))
///     .with_security_overrides("windows deferral".parse()?);
/// let same = r#"{"windows": ["sat sun 01:00 - 05:30"], "utc_offset": "+01:00", "deferral": {"limit": "7d"},
///     "metered": {"at_most": 1000000}, "security_overrides": ["windows", "deferral"]}"#;
/// assert_eq!(policy, Policy::parse(same)?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    windows: Vec<WeeklyPeriod>,
    utc_offset: UtcOffset,
    /// The time zone of the windows, which goes before any offset, or why there is none.
    zone: Option<Result<Zone, String>>,
    download_any_time: form::Enabled,
    pub(crate) deferral: DeferralRule,
    require: Option<Condition>,
    metered: Metered,
    wait_for_newer: TimeDelta,
    security_overrides: Overrides,
}

impl Policy {
    /// The policy that allows everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// When to install and restart. Default: at any time.
    #[must_use]
    pub fn with_windows(self, windows: impl IntoIterator<Item = WeeklyPeriod>) -> Self {
        Self { windows: windows.into_iter().collect(), ..self }
    }

    /// The UTC offset of the windows' local time, such as `+02:00`, if the device has no fact `utc-offset`.
    #[must_use]
    pub fn with_utc_offset(self, utc_offset: UtcOffset) -> Self {
        Self { utc_offset, ..self }
    }

    /// The time zone of the windows, which goes before any offset.
    #[must_use]
    pub fn with_time_zone(self, zone: Zone) -> Self {
        Self { zone: Some(Ok(zone)), ..self }
    }

    /// Whether downloads may run outside the windows. Default: yes.
    #[must_use]
    pub fn with_downloads_at_any_time(self, allowed: bool) -> Self {
        Self { download_any_time: form::Enabled(allowed), ..self }
    }

    /// How long after the first deferral of a release the user may defer it. Default: zero, so that users may not defer.
    #[must_use]
    pub fn with_deferral_limit(self, limit: Span) -> Self {
        Self { deferral: DeferralRule { limit: limit.delta() }, ..self }
    }

    /// A required condition on the device's facts, such as the battery charge. Default: none.
    #[must_use]
    pub fn with_required(self, condition: Condition) -> Self {
        Self { require: Some(condition), ..self }
    }

    /// What is allowed while the fact `metered` is true. Default: everything.
    #[must_use]
    pub fn with_metered(self, metered: Metered) -> Self {
        Self { metered, ..self }
    }

    /// A release is skipped if the ramp of a newer one reaches this device within this time. Default: zero, so that none is skipped.
    #[must_use]
    pub fn with_wait_for_newer(self, time: Span) -> Self {
        Self { wait_for_newer: time.delta(), ..self }
    }

    /// The rules that a security release overrides. Default: windows, deferral and newer.
    #[must_use]
    pub fn with_security_overrides(self, overrides: Overrides) -> Self {
        Self { security_overrides: overrides, ..self }
    }

    /// When to install and restart; empty for any time.
    pub fn windows(&self) -> &[WeeklyPeriod] {
        &self.windows
    }

    /// The time zone of the windows, if one is set and could be read.
    pub fn time_zone(&self) -> Option<&Zone> {
        self.zone.as_ref()?.as_ref().ok()
    }

    /// Why the time zone that was read is not known here, so that the windows stay closed.
    pub fn zone_problem(&self) -> Option<&str> {
        self.zone.as_ref()?.as_ref().err().map(String::as_str)
    }

    /// How long after the first deferral of a release the user may defer it; zero if users may not defer.
    pub fn deferral_limit(&self) -> Span {
        Span::from_delta(self.deferral.limit)
    }

    /// Whether a security release overrides a rule.
    pub fn is_overridden(&self, rule: Rule) -> bool {
        self.security_overrides.0.contains(&rule)
    }

    /// Whether a release is skipped because a newer one reaches this device at `at`.
    pub fn waits_for(&self, at: UtcTime, now: UtcTime) -> bool {
        at > now && at - now <= self.wait_for_newer
    }
}

/// The rules that a security release overrides. As a text: their words, such as `windows deferral`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overrides(BTreeSet<Rule>);

impl Default for Overrides {
    fn default() -> Self {
        Self([Rule::Windows, Rule::Deferral, Rule::Newer].into())
    }
}

impl FromIterator<Rule> for Overrides {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        Self(rules.into_iter().collect())
    }
}

impl FromStr for Overrides {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        text.split_whitespace().map(str::parse).collect()
    }
}

/// How users may defer updates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DeferralRule {
    /// The longest time from the first deferral of a release; zero if users may not defer.
    pub(crate) limit: TimeDelta,
}

/// What is allowed on a metered network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Metered {
    /// Everything.
    #[default]
    Allow,
    /// Downloads of at most this many bytes.
    AtMost(u64),
    /// No downloads.
    Refuse,
}

/// The user's deferral.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Deferral {
    /// The sequence of the deferred release.
    pub sequence: u64,
    /// The time of the first deferral.
    #[serde(serialize_with = "time::text::serialize")]
    pub since: UtcTime,
    /// The end of the deferral.
    #[serde(serialize_with = "time::text::serialize")]
    pub until: UtcTime,
}

/// The step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Downloading the missing parts of a release.
    Download,
    /// Installing it and restarting.
    Install,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Download => "downloading",
            Self::Install => "installing",
        })
    }
}

/// The inputs of a judgement.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The step.
    pub step: Step,
    /// The instant to judge for.
    pub now: UtcTime,
    /// The release's sequence.
    pub sequence: u64,
    /// The release's urgency.
    pub urgency: Urgency,
    /// The number of bytes still to download.
    pub missing: u64,
    /// The device's facts.
    pub facts: &'a Facts,
    /// The user's deferral.
    pub deferral: Option<Deferral>,
    /// A newer release that the device may have once its ramp reaches the device.
    pub newer: Option<&'a Newer>,
}

/// A newer release that waits for nothing but its ramp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Newer {
    /// Its version.
    pub release: Version,
    /// Its sequence.
    pub sequence: u64,
    /// When its ramp reaches this device.
    #[serde(serialize_with = "time::text::serialize")]
    pub at: UtcTime,
}

/// A rule of the policy. The ids are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Installations happen in maintenance windows.
    Windows,
    /// The user has not deferred the release.
    Deferral,
    /// The device's facts fulfil the required condition.
    Require,
    /// The download is allowed on the network.
    Metered,
    /// No newer release is about to reach the device.
    Newer,
}

impl Rule {
    /// Every rule, in the order in which judgements report them.
    pub const ALL: [Self; 5] = [Self::Windows, Self::Deferral, Self::Require, Self::Metered, Self::Newer];

    /// The stable id, e.g. `L-WINDOW`.
    pub fn id(self) -> &'static str {
        match self {
            Self::Windows => "L-WINDOW",
            Self::Deferral => "L-DEFERRAL",
            Self::Require => "L-REQUIRE",
            Self::Metered => "L-METERED",
            Self::Newer => "L-NEWER",
        }
    }
}

impl Serialize for Rule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

/// The outcome of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RuleOutcome {
    /// The rule.
    pub rule: Rule,
    /// The verdict.
    pub verdict: Verdict,
    /// When a failed rule will pass without a change, if that is known.
    #[serde(with = "time::optional_text")]
    pub until: Option<UtcTime>,
    /// Why, as a sentence without a full stop.
    pub why: String,
}

/// The policy's judgement of a step, with the outcome of every rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Judgement {
    /// The step.
    pub step: Step,
    /// Every rule, in the order of [`Rule::ALL`].
    pub rules: Vec<RuleOutcome>,
}

impl Judgement {
    /// Whether the step is allowed now.
    pub fn allows(&self) -> bool {
        self.failed().next().is_none()
    }

    /// When every failed rule will pass, if that is known for all of them.
    pub fn until(&self) -> Option<UtcTime> {
        self.failed().map(|rule| rule.until).try_fold(None, |latest, until| Some(latest.max(Some(until?)))).flatten()
    }

    /// The reasons of all failed rules.
    pub fn why(&self) -> String {
        self.failed().map(|rule| format!("{} ({})", rule.why, rule.rule.id())).collect::<Vec<_>>().join("; ")
    }

    fn failed(&self) -> impl Iterator<Item = &RuleOutcome> {
        self.rules.iter().filter(|rule| rule.verdict == Verdict::Fail)
    }
}

/// One line per rule.
impl std::fmt::Display for Judgement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for RuleOutcome { rule, verdict, why, .. } in &self.rules {
            let verdict = match verdict {
                Verdict::Pass => "pass",
                Verdict::Fail => "FAIL",
                Verdict::NotApplicable => "-",
            };
            writeln!(f, "  {verdict:<4}  {:<15} {why}", rule.id())?;
        }
        Ok(())
    }
}

/// Decides whether the policy allows a step now, and why.
pub fn judge(policy: &Policy, situation: &Situation<'_>) -> Judgement {
    let rules = Rule::ALL.map(|rule| {
        let found = match rule {
            Rule::Windows => windows(policy, situation),
            Rule::Deferral => deferral(policy, situation),
            Rule::Require => require(policy, situation),
            Rule::Metered => metered(policy, situation),
            Rule::Newer => newer(policy, situation),
        };
        let (verdict, until, why) = match found {
            Found::Pass(why) => (Verdict::Pass, None, why),
            Found::NotApplicable(why) => (Verdict::NotApplicable, None, why),
            Found::Fail(_, why) if situation.urgency == Urgency::Security && policy.is_overridden(rule) => {
                (Verdict::Pass, None, format!("overridden by a security release: {why}"))
            }
            Found::Fail(until, why) => (Verdict::Fail, until, why),
        };
        RuleOutcome { rule, verdict, until, why }
    });
    Judgement { step: situation.step, rules: rules.into() }
}

enum Found {
    Pass(String),
    Fail(Option<UtcTime>, String),
    NotApplicable(String),
}

fn windows(policy: &Policy, situation: &Situation<'_>) -> Found {
    if policy.windows.is_empty() {
        return Found::NotApplicable("there are no maintenance windows".into());
    }
    if situation.step == Step::Download && policy.download_any_time.0 {
        return Found::NotApplicable("downloads may run at any time".into());
    }
    let local = match local(policy, situation.facts) {
        Ok(local) => local,
        Err(why) => return Found::Fail(None, format!("the maintenance windows cannot be placed: {why}")),
    };
    let open = |at: UtcTime| policy.windows.iter().find(|window| window.contains(at, local(at)));
    if let Some(window) = open(situation.now) {
        return Found::Pass(format!("inside the maintenance window {window}"));
    }
    match next_start(&policy.windows, situation.now, &local) {
        Some(next) => Found::Fail(
            Some(next),
            format!("outside the maintenance windows, the next starts at {}", time::format(next)),
        ),
        None => Found::Fail(None, "outside the maintenance windows, and there is no later one".into()),
    }
}

/// The first minute after `now`, which is outside, that is inside a window.
fn next_start(windows: &[WeeklyPeriod], now: UtcTime, local: &dyn Fn(UtcTime) -> UtcOffset) -> Option<UtcTime> {
    let mut from = now;
    // A window may fall into an hour that the clock skips.
    for _ in 0..3 {
        let near = windows.iter().filter_map(|window| window.next_start(from, local(from))).min()?;
        // Until then the clock may change, by a few hours at most.
        let around = (-180..=180).filter_map(|minutes| near.checked_add_signed(TimeDelta::minutes(minutes)));
        let is_open = |at: &UtcTime| *at > now && windows.iter().any(|window| window.contains(*at, local(*at)));
        if let Some(at) = around.into_iter().find(is_open) {
            return Some(at);
        }
        from = near;
    }
    Some(from)
}

/// The offset from UTC at each instant: by the time zone, by the fact `utc-offset`, or by the setting. A fact that is not an offset tells that
/// something is wrong, so no other offset is used in its place.
fn local<'a>(policy: &'a Policy, facts: &Facts) -> Result<Box<dyn Fn(UtcTime) -> UtcOffset + 'a>, String> {
    if let Some(zone) = &policy.zone {
        let zone = zone.as_ref().map_err(String::clone)?;
        return Ok(Box::new(|at| UtcOffset::of_minutes(zone.offset(at)).unwrap_or_default()));
    }
    let offset = match "utc-offset".parse().ok().and_then(|name| facts.value(&name)) {
        Some(FactValue::Text(text)) => text.parse().map_err(|e| format!("the fact utc-offset: {e}"))?,
        Some(_) => return Err("the fact utc-offset is no text such as \"+01:00\"".into()),
        None => policy.utc_offset,
    };
    Ok(Box::new(move |_| offset))
}

fn deferral(policy: &Policy, situation: &Situation<'_>) -> Found {
    let limit = policy.deferral.limit;
    match situation.deferral.filter(|deferral| deferral.sequence == situation.sequence) {
        _ if situation.step == Step::Download => Found::NotApplicable("it only delays installing".into()),
        None => Found::NotApplicable("the user has not deferred this release".into()),
        Some(_) if limit.is_zero() => Found::Pass("the user may not defer releases".into()),
        Some(Deferral { since, until, .. }) => {
            let last = since.checked_add_signed(limit).unwrap_or(since);
            let until = until.min(last);
            // A clock that was set back must not extend the deferral.
            if situation.now < since {
                Found::Pass("the deferral starts in the future: the clock was set back".into())
            } else if situation.now < until {
                Found::Fail(Some(until), format!("the user deferred this release until {}", time::format(until)))
            } else if until == last {
                Found::Pass(format!("the user may not defer this release beyond {}", time::format(last)))
            } else {
                Found::Pass(format!("the user deferred this release until {}", time::format(until)))
            }
        }
    }
}

fn require(policy: &Policy, situation: &Situation<'_>) -> Found {
    match &policy.require {
        _ if situation.step == Step::Download => Found::NotApplicable("it only delays installing".into()),
        None => Found::NotApplicable("the policy has no required condition".into()),
        Some(condition) => {
            let outcome = condition.evaluate(situation.facts);
            let text = Lines(&outcome).to_string().lines().map(str::trim).collect::<Vec<_>>().join(", ");
            if outcome.holds { Found::Pass(text) } else { Found::Fail(None, text) }
        }
    }
}

struct Lines<'a>(&'a condition::Outcome);

impl std::fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.write(f, 0)
    }
}

fn metered(policy: &Policy, situation: &Situation<'_>) -> Found {
    let is_metered =
        "metered".parse().ok().and_then(|name| situation.facts.value(&name)) == Some(&FactValue::Boolean(true));
    let missing = situation.missing;
    if situation.step == Step::Install || missing == 0 {
        return Found::NotApplicable("there is nothing to download".into());
    }
    if !is_metered {
        return Found::NotApplicable("the network is not metered, as far as known".into());
    }
    match policy.metered {
        Metered::Allow => Found::Pass("the network is metered, which the policy allows".into()),
        Metered::AtMost(bytes) if missing <= bytes => {
            Found::Pass(format!("the network is metered, and {missing} of at most {bytes} bytes remain to download"))
        }
        Metered::AtMost(bytes) => {
            Found::Fail(None, format!("the network is metered, and {missing} bytes are more than the {bytes} allowed"))
        }
        Metered::Refuse => Found::Fail(None, "the network is metered".into()),
    }
}

fn newer(policy: &Policy, situation: &Situation<'_>) -> Found {
    let Some(Newer { release, at, .. }) = situation.newer.filter(|newer| policy.waits_for(newer.at, situation.now))
    else {
        return Found::NotApplicable("no newer release is about to reach this device".into());
    };
    Found::Fail(Some(*at), format!("{release} reaches this device at {}, and is waited for", time::format(*at)))
}

#[cfg(test)]
mod tests;

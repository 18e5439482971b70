//! Device health during a rollout: read from a report and checked against policy.
//!
//! A report is JSON, written by the system that monitors the devices:
//!
//! ```json
//! {
//!   "schema": 1,
//!   "at": "2026-01-05T12:00:00Z",
//!   "releases": [{
//!     "release": "stable/os/1.2.0",
//!     "sequence": 12,
//!     "cohorts": {
//!       "canary": {"installed": 480, "confirmed": 470, "failed": 3, "rolled_back": 2}
//!     }
//!   }]
//! }
//! ```
//!
//! Counts are numbers of devices since the release was first offered. `installed`: wrote the release and started it. Of these,
//! `confirmed`: passed the health check, and `rolled_back`: returned to the previous release. `failed`: could not install it.
//! Every cohort that is offered the release must be present; unknown fields are ignored, and all four counts are required.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidegate_client::command::Command;
use tidegate_model::digest::Digest;
use tidegate_model::name::Name;
use tidegate_model::time;
use tidegate_tuf::json;

use crate::config::write_share;
use crate::error::{Error, Result, Rule};
use crate::fs;
use crate::policy::{HealthPolicy, Thresholds};
use crate::release::ReleaseId;
use crate::workspace::ledger::clean;
use tidegate_model::span::Span;

/// The maximum length of a report in bytes; the output of a program is shorter.
const MAX_LENGTH: usize = 16 << 20;
/// How much output of a program is kept.
const MAX_OUTPUT: usize = 64 * 1024;
/// By how much the clock of the report's author may be ahead.
const AHEAD: TimeDelta = TimeDelta::minutes(5);

/// The source of a report: `FILE`, `-`, or `command:PROGRAM ARGUMENT...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Input,
    /// The output of a program, started without a shell.
    Command(Vec<String>),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("command:") {
            Some(command) => {
                let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
                if words.is_empty() {
                    return Err("name the program: command:./health or \"command:./health --all\"".into());
                }
                Ok(Self::Command(words))
            }
            None if text == "-" => Ok(Self::Input),
            None => Ok(Self::File(text.into())),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Input => f.write_str("standard input"),
            Self::Command(words) => write!(f, "command:{}", words.join(" ")),
        }
    }
}

impl Source {
    /// Fetches a report. A program gets the release in `TIDEGATE_RELEASE` and `TIDEGATE_SEQUENCE`, and the timeout of the policy.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or if the program fails, takes too long or prints too much (`H-COMMAND`).
    pub fn fetch(&self, release: &ReleaseId, sequence: u64, policy: &HealthPolicy) -> Result<Vec<u8>> {
        match self {
            Self::File(path) => fs::read(path, MAX_LENGTH as u64),
            Self::Input => {
                use std::io::Read as _;
                let mut bytes = Vec::new();
                let read = std::io::stdin().take(MAX_LENGTH as u64 + 1).read_to_end(&mut bytes);
                read.map_err(|e| Error::io("read", Path::new("standard input"), e))?;
                Ok(bytes)
            }
            Self::Command(words) => {
                let no_report = |why: String| {
                    report_error(Rule::HealthCommand, format!("there is no health report: {why}"))
                        .remedy("fix the program; without a report the rollout is not renewed and stops by itself")
                };
                let limit = Duration::from_secs(policy.timeout.seconds());
                // Typed by the caller, as paths on a command line are: relative to where that is.
                let ran = Command::new(words.iter().cloned(), limit)
                    .in_folder(Path::new("."))
                    .inherit(&policy.environment)
                    .variable("TIDEGATE_RELEASE", &release.to_string())
                    .variable("TIDEGATE_SEQUENCE", &sequence.to_string())
                    .run();
                let output =
                    ran.and_then(tidegate_client::command::Ran::success).map_err(|e| no_report(e.to_string()))?;
                if output.len() >= MAX_OUTPUT {
                    return Err(no_report(format!(
                        "{self} prints {MAX_OUTPUT} bytes or more; let it write a file instead"
                    )));
                }
                Ok(output.into_bytes())
            }
        }
    }
}

/// A report on a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// When the devices were counted.
    pub at: DateTime<Utc>,
    /// By cohort.
    pub cohorts: BTreeMap<Name, Counts>,
    /// Where it came from.
    pub source: String,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Device counts of a cohort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Wrote the release and started it.
    pub installed: u64,
    /// Of these: passed the health check.
    pub confirmed: u64,
    /// Could not install it.
    pub failed: u64,
    /// Of the devices that installed it: returned to the previous release.
    pub rolled_back: u64,
}

/// The report file. Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// The form of the file: 1.
    pub schema: u64,
    /// When the devices were counted.
    #[serde(with = "time::text")]
    pub at: DateTime<Utc>,
    /// The reported releases, each once.
    pub releases: Vec<ReleaseCounts>,
}

/// Device counts of a release, by cohort.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseCounts {
    /// The release, as `CHANNEL/PRODUCT/VERSION`.
    pub release: String,
    /// Its sequence.
    pub sequence: u64,
    /// The counts of each cohort that is offered it.
    pub cohorts: BTreeMap<Name, Counts>,
}

impl HealthReport {
    /// Reads a report from strict JSON; `source` is its origin, for errors. [`Health::parse`] checks its age and completeness
    /// against policy.
    ///
    /// # Errors
    ///
    /// `H-REPORT` if the report is too long, malformed, or has an unknown schema.
    pub fn read(bytes: &[u8], source: &Source) -> Result<Self> {
        let malformed = |why: String| report_error(Rule::HealthReport, format!("the health report of {source} {why}"));
        if bytes.len() > MAX_LENGTH {
            return Err(malformed(format!("is longer than {MAX_LENGTH} bytes")));
        }
        let value =
            json::parse_large(bytes, 4 * MAX_LENGTH).map_err(|e| malformed(format!("is no strict JSON: {e}")))?;
        // The schema first: for an unknown one nothing else is reported.
        if let Some(schema) = value.get("schema").and_then(Value::as_u64).filter(|schema| *schema != 1) {
            return Err(malformed(format!("has schema {schema}, which is not known to this version")));
        }
        serde_json::from_value(value).map_err(|e| malformed(format!("is malformed: {e}")))
    }
}

/// The verdict on a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The action to take.
    pub action: Action,
    /// The thresholds that are exceeded, the worst first.
    pub findings: Vec<ExceededThreshold>,
    /// All cohorts together.
    pub all: Counts,
}

/// The action of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The rollout continues.
    Renew,
    /// No further devices are exposed.
    Pause,
    /// The release is no longer offered.
    Withdraw,
}

/// A threshold that is exceeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExceededThreshold {
    /// `H-FAILED` or `H-ROLLED-BACK`.
    pub rule: Rule,
    /// The cohort; `None` for all of them together.
    pub cohort: Option<Name>,
    /// How many devices.
    pub count: u64,
    /// Out of how many.
    pub of: u64,
    /// The share that policy allows, in parts per million.
    pub limit: u32,
    /// The action that policy prescribes.
    pub action: Action,
}

impl std::fmt::Display for ExceededThreshold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, of, limit, .. } = self;
        let what = if self.rule == Rule::HealthFailed { "could not install it" } else { "rolled back" };
        let share = u32::try_from(u128::from(*count) * 1_000_000 / u128::from((*of).max(1))).unwrap_or(1_000_000);
        let whose =
            self.cohort.as_ref().map_or_else(|| "all cohorts".to_owned(), |cohort| format!("the cohort {cohort}"));
        write!(
            f,
            "{count} of {of} devices of {whose} ({}) {what}; policy.toml allows {}",
            // Hundredths of a percent are enough.
            write_share(share / 100 * 100),
            write_share(*limit)
        )
    }
}

impl Counts {
    /// Number of devices that tried to install the release.
    pub fn tried(&self) -> u64 {
        self.installed.saturating_add(self.failed)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            installed: self.installed.saturating_add(other.installed),
            confirmed: self.confirmed.saturating_add(other.confirmed),
            failed: self.failed.saturating_add(other.failed),
            rolled_back: self.rolled_back.saturating_add(other.rolled_back),
        }
    }
}

impl Health {
    /// Reads the part of a report about one release, and checks its age and that it covers each cohort that is `offered` the
    /// release.
    ///
    /// # Errors
    ///
    /// `H-AGE` if the report is too old or from the future; `H-REPORT` if it is malformed or lacks the release or a cohort.
    pub fn parse(
        bytes: Vec<u8>,
        source: &Source,
        (release, sequence): (&ReleaseId, u64),
        offered: &[Name],
        policy: &HealthPolicy,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let document = HealthReport::read(&bytes, source)?;
        let age = now - document.at;
        if age > policy.max_age.delta() {
            return Err(report_error(
                Rule::HealthAge,
                format!("the health report is {} old; policy.toml allows {}", Span::from_delta(age), policy.max_age),
            ));
        }
        if -age > AHEAD {
            return Err(report_error(
                Rule::HealthAge,
                format!("the health report is from {}, which is in the future", time::format(document.at)),
            ));
        }
        let named = release.to_string();
        let mut entries = document.releases.into_iter().filter(|entry| entry.release == named);
        let (Some(entry), None) = (entries.next(), entries.next()) else {
            return Err(report_error(
                Rule::HealthRelease,
                format!("the health report does not have {named} exactly once"),
            ));
        };
        if entry.sequence != sequence {
            let why = format!(
                "the health report has {named} with sequence {}, but its sequence is {sequence}",
                entry.sequence
            );
            return Err(report_error(Rule::HealthRelease, why));
        }
        if let Some(missing) = offered.iter().find(|cohort| !entry.cohorts.contains_key(*cohort)) {
            return Err(report_error(
                Rule::HealthCohort,
                format!("the health report says nothing about the cohort {missing}, which is offered {named}"),
            ));
        }
        for (cohort, counts) in &entry.cohorts {
            let Counts { installed, confirmed, rolled_back, .. } = counts;
            if confirmed.saturating_add(*rolled_back) > *installed {
                return Err(report_error(
                    Rule::HealthCounts,
                    format!(
                        "in the cohort {cohort}, {confirmed} devices confirmed and {rolled_back} rolled back, which is more than the {installed} that installed it"
                    ),
                ));
            }
        }
        Ok(Self {
            at: document.at,
            cohorts: entry.cohorts,
            source: source.to_string(),
            sha256: Digest::of(&bytes),
            bytes,
        })
    }

    /// Checks the report against policy: each cohort, and all of them together.
    pub fn judge(&self, policy: &HealthPolicy) -> Verdict {
        judge(&self.cohorts, policy)
    }

    /// The ledger's evidence of the report; the report itself is stored beside the release's record.
    pub(super) fn evidence(&self, verdict: &Verdict) -> Value {
        let findings: Vec<String> =
            verdict.findings.iter().map(|finding| format!("{}: {finding}", finding.rule)).collect();
        let mut evidence = Map::from_iter([
            ("at".to_owned(), json!(time::format(self.at))),
            ("sha256".to_owned(), json!(self.sha256)),
            ("source".to_owned(), json!(clean(&self.source))),
            ("installed".to_owned(), json!(verdict.all.installed)),
            ("confirmed".to_owned(), json!(verdict.all.confirmed)),
            ("failed".to_owned(), json!(verdict.all.failed)),
            ("rolled_back".to_owned(), json!(verdict.all.rolled_back)),
        ]);
        if !findings.is_empty() {
            evidence.insert("findings".into(), json!(findings));
        }
        evidence.into()
    }
}

/// Checks counts against policy: each cohort's, and their sum.
pub fn judge(cohorts: &BTreeMap<Name, Counts>, policy: &HealthPolicy) -> Verdict {
    let all = cohorts.values().fold(Counts::default(), |all, counts| all.plus(*counts));
    let each = cohorts.iter().map(|(name, counts)| (Some(name), counts));
    let mut findings: Vec<ExceededThreshold> =
        each.chain([(None, &all)]).flat_map(|(cohort, counts)| exceeded(cohort, counts, policy)).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.action));
    let action = findings.first().map_or(Action::Renew, |finding| finding.action);
    Verdict { action, findings, all }
}

fn exceeded(cohort: Option<&Name>, counts: &Counts, policy: &HealthPolicy) -> Vec<ExceededThreshold> {
    let mut findings = Vec::new();
    let mut hold = |rule, count: u64, of: u64, share: fn(&Thresholds) -> Option<u32>| {
        if counts.tried() < policy.min_sample || of == 0 {
            return;
        }
        for (action, thresholds) in [(Action::Withdraw, &policy.withdraw), (Action::Pause, &policy.pause)] {
            if let Some(limit) = share(thresholds)
                && u128::from(count) * 1_000_000 > u128::from(of) * u128::from(limit)
            {
                findings.push(ExceededThreshold { rule, cohort: cohort.cloned(), count, of, limit, action });
                return;
            }
        }
    };
    hold(Rule::HealthFailed, counts.failed, counts.tried(), |thresholds| thresholds.failed);
    hold(Rule::HealthRolledBack, counts.rolled_back, counts.installed, |thresholds| thresholds.rolled_back);
    findings
}

fn report_error(rule: Rule, why: String) -> Error {
    Error::refused(rule, why)
        .remedy("the form of the report is described in docs/rollout.md; until it is good, the rollout is not renewed and stops by itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> HealthPolicy {
        toml::from_str(
            "min_sample = 50\nmax_age = \"1h\"\npause = { failed = \"2%\", rolled_back = \"1%\" }\nwithdraw = { rolled_back = \"5%\" }",
        )
        .unwrap()
    }

    fn id() -> ReleaseId {
        let version = semver::Version::new(1, 2, 0);
        ReleaseId { channel: "stable".parse().unwrap(), product: "os".parse().unwrap(), version }
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn report(counts: [u64; 4]) -> Value {
        let [installed, confirmed, failed, rolled_back] = counts;
        json!({"schema": 1, "at": time::format(now()), "by": "a newer job", "releases": [{
            "release": "stable/os/1.2.0", "sequence": 12, "cohorts": {
                "canary": {"installed": installed, "confirmed": confirmed, "failed": failed, "rolled_back": rolled_back}}}]})
    }

    fn parse(bytes: &[u8], at: DateTime<Utc>) -> Result<Health> {
        let offered = ["canary".parse().unwrap()];
        Health::parse(bytes.to_vec(), &Source::Input, (&id(), 12), &offered, &policy(), at)
    }

    fn verdict(counts: [u64; 4]) -> (Action, Vec<Rule>) {
        let verdict = parse(report(counts).to_string().as_bytes(), now()).unwrap().judge(&policy());
        // Once for the cohort, once for all.
        (verdict.action, verdict.findings.iter().filter(|f| f.cohort.is_some()).map(|f| f.rule).collect())
    }

    #[test]
    fn thresholds_hold_from_the_first_device_beyond_them() {
        for (counts, action, rules) in [
            ([0, 0, 0, 0], Action::Renew, &[][..]),
            // Too few devices for a verdict.
            ([40, 0, 9, 40], Action::Renew, &[]),
            ([40, 0, 10, 0], Action::Pause, &[Rule::HealthFailed]),
            // Exactly at the limits.
            ([98, 97, 2, 0], Action::Renew, &[]),
            ([97, 97, 3, 0], Action::Pause, &[Rule::HealthFailed]),
            ([100, 0, 0, 1], Action::Renew, &[]),
            ([100, 0, 0, 2], Action::Pause, &[Rule::HealthRolledBack]),
            ([100, 0, 0, 5], Action::Pause, &[Rule::HealthRolledBack]),
            ([100, 0, 0, 6], Action::Withdraw, &[Rule::HealthRolledBack]),
            ([100, 0, 50, 6], Action::Withdraw, &[Rule::HealthRolledBack, Rule::HealthFailed]),
            // No device could start it. No threshold of failures withdraws.
            ([0, 0, 60, 0], Action::Pause, &[Rule::HealthFailed]),
            ([u64::MAX, 0, u64::MAX, 0], Action::Pause, &[Rule::HealthFailed]),
        ] {
            assert_eq!(verdict(counts), (action, rules.to_vec()), "{counts:?}");
        }
    }

    #[test]
    fn cohorts_too_small_to_judge_are_judged_together() {
        let mut value = report([40, 0, 0, 2]);
        value["releases"][0]["cohorts"]["early"] = value["releases"][0]["cohorts"]["canary"].clone();
        let verdict = parse(value.to_string().as_bytes(), now()).unwrap().judge(&policy());
        assert_eq!(verdict.action, Action::Pause);
        assert_eq!(
            verdict.findings[0].to_string(),
            "4 of 80 devices of all cohorts (5%) rolled back; policy.toml allows 1%"
        );
    }

    #[test]
    fn a_report_that_cannot_be_relied_on_is_refused_by_name() {
        let edit = |pointer: &str, to: Value| {
            let mut value = report([1, 1, 0, 0]);
            *value.pointer_mut(pointer).unwrap() = to;
            value.to_string()
        };
        let whole = report([1, 1, 0, 0]).to_string();
        let twice = whole.replace("\"schema\":1", "\"schema\":1,\"schema\":1");
        let lacking = whole.replace("\"failed\":0,", "");
        for (text, rule) in [
            ("", Rule::HealthReport),
            (&*twice, Rule::HealthReport),
            (&lacking, Rule::HealthReport),
            (&edit("/schema", json!(2)), Rule::HealthReport),
            (&edit("/at", json!("yesterday")), Rule::HealthReport),
            (&edit("/releases/0/cohorts/canary/failed", json!(-1)), Rule::HealthReport),
            (&edit("/releases/0/release", json!("stable/os/1.1.0")), Rule::HealthRelease),
            (&edit("/releases/0/sequence", json!(11)), Rule::HealthRelease),
            (&edit("/releases/0/cohorts", json!({})), Rule::HealthCohort),
            (&edit("/releases/0/cohorts/canary/rolled_back", json!(1)), Rule::HealthCounts),
        ] {
            let error = parse(text.as_bytes(), now()).unwrap_err();
            assert_eq!(error.broken_rule(), Some(rule), "{text}: {error}");
        }
        assert!(parse(whole.as_bytes(), now() + TimeDelta::hours(1)).is_ok());
        for late in [TimeDelta::seconds(3601), TimeDelta::minutes(-6)] {
            assert_eq!(parse(whole.as_bytes(), now() + late).unwrap_err().broken_rule(), Some(Rule::HealthAge));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_program_has_a_time_limit_and_bounded_output() {
        let fetch = |script: &str| {
            let policy = HealthPolicy { timeout: "1s".parse().unwrap(), ..policy() };
            Source::Command(["sh", "-c", script].map(str::to_owned).into()).fetch(&id(), 12, &policy)
        };
        let told = fetch("echo $TIDEGATE_RELEASE $TIDEGATE_SEQUENCE").unwrap();
        assert_eq!(String::from_utf8(told).unwrap(), "stable/os/1.2.0 12\n");
        for (script, says) in [
            ("sleep 60", "killed, because it took longer than 1"),
            ("echo no devices >&2; exit 4", "exit code 4: no devices"),
            ("head -c 200000 /dev/zero", "prints 65536 bytes or more"),
        ] {
            let error = fetch(script).unwrap_err();
            assert_eq!(error.broken_rule(), Some(Rule::HealthCommand), "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn sources_are_told_apart() {
        let source = |text: &str| text.parse::<Source>();
        assert_eq!(source("health.json").unwrap(), Source::File("health.json".into()));
        assert_eq!(source("-").unwrap(), Source::Input);
        let words = ["./health", "--all"].map(str::to_owned).into();
        assert_eq!(source("command:./health --all").unwrap(), Source::Command(words));
        assert!(source("command: ").is_err());
    }
}

//! Validation: five kinds of checks, one function and one stable id per rule, all findings at once.

mod artifacts;
pub(crate) mod conditions;
mod devices;
mod eligibility;
mod formats;
mod junit;
mod own;
mod rollout;
mod verification;
mod ways;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, json};
use tidegate_model::digest::Digest;
use tidegate_model::manifest::Manifest;
use tidegate_model::version::is_newer;

use crate::audit::Origin;
use crate::config::{Cohorts, Settings};
use crate::error::Result;
use crate::fs::Changes;
use crate::metadata::Repository;
use crate::policy::{CheckKind, Facts, Policy, ReleaseEvent};
use crate::release::draft;
use crate::release::record::{self, Record, ReleaseSpec};
use crate::release::report::{self, CheckResult, ValidationReport, Verdict};
use crate::workspace::Operation;

pub use junit::junit;

/// What a rule says: the verdict and why.
pub(crate) type RuleResult = (Verdict, String);

/// A rule: one function and one id that never changes its meaning.
pub struct Rule {
    /// The stable id, e.g. `V-ART-01`.
    pub id: &'static str,
    /// Its kind.
    pub kind: CheckKind,
    /// What it requires.
    pub title: &'static str,
    /// Checks the subject. An error means that the check could not run; it is not a finding.
    pub(crate) check: fn(&Subject<'_>) -> Result<RuleResult>,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rule").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The subject of a validation: one release and its context.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The workspace's folder.
    pub dir: &'a Path,
    /// `tidegate.toml`.
    pub settings: &'a Settings,
    /// `policy.toml`.
    pub policy: &'a Policy,
    /// `cohorts.toml`.
    pub cohorts: &'a Cohorts,
    /// The metadata.
    pub repository: &'a Repository,
    /// The release's record.
    pub record: &'a Record,
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// The manifest's bytes.
    pub bytes: &'a [u8],
    /// The manifest of the release before it.
    pub previous: Option<&'a Manifest>,
    /// A sample of the fleet, as CSV.
    pub fleet: Option<&'a Path>,
    /// Where it is published, to be looked at as devices do.
    pub published: Option<Published>,
    /// When.
    pub now: DateTime<Utc>,
}

impl Subject<'_> {
    /// The manifest of the release before it, unless that is of a newer line: devices that have it keep it.
    fn previous_of_line(&self) -> Option<&Manifest> {
        let is_above = |previous: &&Manifest| {
            is_newer(&previous.version, &self.manifest.version)
                && !self.manifest.supersedes.contains(&previous.sequence)
        };
        self.previous.filter(|previous| !is_above(previous))
    }
}

/// A published repository.
#[derive(Clone)]
pub struct Published {
    /// What people call the place.
    pub place: String,
    /// How it is read.
    pub origin: Arc<dyn Origin>,
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published").field("place", &self.place).finish_non_exhaustive()
    }
}

/// What a validation looks at beside the workspace.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The key that signs the report; `None` for the channel's first rollout key.
    pub key: Option<String>,
    /// A sample of the fleet, as CSV; `None` for the one that policy names, if it does.
    pub fleet: Option<PathBuf>,
    /// Where it is published.
    pub published: Option<Published>,
}

/// All rules, kind by kind.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    [artifacts::RULES, verification::RULES, eligibility::RULES, devices::RULES, rollout::RULES].into_iter().flatten()
}

/// Runs every rule, whatever the others find.
///
/// # Errors
///
/// Fails if a rule cannot run. A violated rule is part of the report.
pub fn run(subject: &Subject<'_>) -> Result<ValidationReport> {
    let mut findings = rules()
        .map(|rule| {
            let (verdict, detail) = (rule.check)(subject)?;
            Ok(CheckResult {
                rule: rule.id.into(),
                kind: rule.kind,
                title: rule.title.into(),
                verdict,
                detail: ascii(&detail),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    findings.extend(own::run(subject)?);
    Ok(ValidationReport {
        schema: 1,
        release: subject.record.id().to_string(),
        manifest: Digest::of(subject.bytes),
        at: subject.now,
        tool: env!("CARGO_PKG_VERSION").into(),
        findings,
    })
}

/// What is signed is ASCII, and what programs and files say need not be.
fn ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }).collect()
}

/// Validates a release, signs the report with a rollout or release key of the channel, and stores it.
///
/// # Errors
///
/// Fails if the release cannot be validated in its state, if a rule cannot run, or if no key can sign the report.
pub fn validate(op: &mut Operation<'_>, spec: &ReleaseSpec, options: &Options) -> Result<(Record, ValidationReport)> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let dir = workspace.dir();
    let (settings, policy, cohorts) = (workspace.settings()?, workspace.policy()?, workspace.cohorts()?);
    let repository = workspace.repository()?;
    let mut record = spec.find(dir)?;
    // Whether it can be validated at all does not depend on the findings.
    let facts = Facts { frozen: record.manifest.is_some(), artifacts: record.artifacts.len(), ..Facts::default() };
    record.after(ReleaseEvent::Validate, &facts, &policy, now)?;
    let (manifest, bytes) = record.manifest(dir)?;
    let all = record::all(dir)?;
    let siblings = all.iter().filter(|other| {
        other.channel == record.channel && other.product == record.product && other.version != record.version
    });
    let previous = draft::previous(siblings, manifest.sequence).map(|previous| previous.manifest(dir)).transpose()?;
    let fleet = match (&options.fleet, &policy.validation.fleet) {
        (Some(given), _) => Some(given.clone()),
        (None, Some(named)) => Some(crate::fs::confined(dir, named)?),
        (None, None) => None,
    };
    let subject = Subject {
        dir,
        settings: &settings,
        policy: &policy,
        cohorts: &cohorts,
        repository: &repository,
        record: &record,
        manifest: &manifest,
        bytes: &bytes,
        previous: previous.as_ref().map(|(manifest, _)| manifest),
        fleet: fleet.as_deref(),
        published: options.published.clone(),
        now,
    };
    let report = run(&subject)?;
    let key = match &options.key {
        Some(key) => key.clone(),
        None => settings.channel(&record.channel)?.rollout.keys.first().map(ToString::to_string).unwrap_or_default(),
    };
    let signed = report.sign(op.keys.signer(&key)?.as_ref())?;
    let before = record.status();
    let facts = Facts { report: Some(report.facts()), ..facts };
    record.set_status(record.after(ReleaseEvent::Validate, &facts, &policy, now)?);
    let mut changes = Changes::default();
    report::put(&mut changes, dir, &record.id(), &signed)?;
    record.put(&mut changes)?;
    let mut evidence = Map::new();
    evidence.insert("manifest".into(), report.manifest.to_string().into());
    evidence.insert("report".into(), Digest::of(&signed).to_string().into());
    evidence.insert("key".into(), key.into());
    evidence.insert("failed".into(), json!(report.failed().map(|finding| &finding.rule).collect::<Vec<_>>()));
    draft::write_down(workspace, &mut changes, now, "validate", &record, Some(before), actor, evidence)?;
    workspace.commit(changes)?;
    Ok((record, report))
}

#[allow(clippy::unnecessary_wraps, reason = "rules end with it")]
pub(crate) fn pass(detail: impl Into<String>) -> Result<RuleResult> {
    Ok((Verdict::Pass, detail.into()))
}

#[allow(clippy::unnecessary_wraps, reason = "rules end with it")]
pub(crate) fn warn(detail: impl Into<String>) -> Result<RuleResult> {
    Ok((Verdict::Warn, detail.into()))
}

#[allow(clippy::unnecessary_wraps, reason = "rules end with it")]
pub(crate) fn fail(detail: impl Into<String>) -> Result<RuleResult> {
    Ok((Verdict::Fail, detail.into()))
}

#[allow(clippy::unnecessary_wraps, reason = "rules end with it")]
pub(crate) fn not_applicable(detail: impl Into<String>) -> Result<RuleResult> {
    Ok((Verdict::NotApplicable, detail.into()))
}

/// Passes if there is nothing wrong, else fails with all of it.
pub(crate) fn none_of(wrong: &[String], fine: impl Into<String>) -> Result<RuleResult> {
    if wrong.is_empty() { pass(fine) } else { fail(wrong.join("; ")) }
}

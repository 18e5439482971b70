//! The signed report of a validation: `releases/CHANNEL/PRODUCT/VERSION/report.json`. Earlier reports stay as
//! `reports/SHA256.json`, by the hashes that the ledger records.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_model::digest::Digest;
use tidegate_model::layout;
use tidegate_model::time;
use tidegate_tuf::hash::{from_hex, to_hex};
use tidegate_tuf::json;
use tidegate_tuf::key::{Key, KeyId};
use tidegate_tuf::metadata::Delegations;

use crate::error::{Error, Result};
use crate::fs::{self, Changes};
use crate::keys::Signer;
use crate::metadata::Repository;
use crate::policy::{CheckKind, ReportFacts};
use crate::release::record::{self, MAX_LENGTH, Record, ReleaseId, from_file, to_file};
use crate::workspace::Ledger;

const FILE: &str = "report.json";

/// The verdict on a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The rule is satisfied.
    Pass,
    /// The rule is satisfied, but somebody should check the detail.
    Warn,
    /// The rule is violated.
    Fail,
    /// The rule has nothing to check.
    NotApplicable,
}

/// A rule and its verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckResult {
    /// The rule's stable id.
    pub rule: String,
    /// Its kind.
    pub kind: CheckKind,
    /// What it requires.
    pub title: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub detail: String,
}

/// What was checked, when, and with what result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationReport {
    /// The form of the report: 1.
    pub schema: u64,
    /// The release.
    pub release: String,
    /// SHA-256 of the validated manifest: the report applies to these bytes only.
    pub manifest: Digest,
    /// When the checks ran.
    #[serde(with = "time::text")]
    pub at: DateTime<Utc>,
    /// The version of the program that ran them.
    pub tool: String,
    /// Every rule with its verdict.
    pub findings: Vec<CheckResult>,
}

impl ValidationReport {
    /// Whether all rules of a kind passed, of which there is at least one.
    pub fn passed(&self, kind: CheckKind) -> bool {
        let mut of_kind = self.findings.iter().filter(|finding| finding.kind == kind).peekable();
        of_kind.peek().is_some() && of_kind.all(|finding| finding.verdict != Verdict::Fail)
    }

    /// The rules that failed.
    pub fn failed(&self) -> impl Iterator<Item = &CheckResult> {
        self.findings.iter().filter(|finding| finding.verdict == Verdict::Fail)
    }

    /// A summary of the report for the state machine.
    pub fn facts(&self) -> ReportFacts {
        ReportFacts {
            at: self.at,
            passed: CheckKind::ALL.into_iter().filter(|kind| self.passed(*kind)).collect(),
            failed: self.failed().map(|finding| finding.rule.clone()).collect(),
            own: self
                .findings
                .iter()
                .filter(|finding| finding.kind == CheckKind::OwnChecks && finding.verdict != Verdict::Fail)
                .map(|finding| finding.rule.clone())
                .collect(),
            way_lost: None,
        }
    }

    /// The signed report file.
    ///
    /// # Errors
    ///
    /// Fails if the report cannot be serialized or the key cannot sign.
    pub fn sign(&self, signer: &dyn Signer) -> Result<Vec<u8>> {
        let report = serde_json::to_value(self).map_err(|e| Error::bug("a report cannot be written").with_source(e))?;
        let signature = signer.sign(&message(&report)?)?;
        let file =
            SignedReport { signatures: BTreeMap::from([(signer.public().id(), to_hex(&signature))]), signed: report };
        to_file(&file)
    }
}

/// Writes a release's newest report. The previous one is kept, because earlier steps refer to it.
pub(crate) fn put(changes: &mut Changes, dir: &Path, id: &ReleaseId, signed: &[u8]) -> Result<()> {
    let name = id.file(FILE);
    if let Some(before) = fs::read_if_exists(&fs::confined(dir, &name)?, MAX_LENGTH)? {
        changes.put(id.file(&format!("reports/{}.json", Digest::of(&before))), before);
    }
    changes.put(name, signed);
    Ok(())
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedReport {
    signed: Value,
    signatures: BTreeMap<KeyId, String>,
}

/// The signed bytes, distinct from everything else that the same key may sign.
fn message(signed: &Value) -> Result<Vec<u8>> {
    json::canonical(&json!({"_type": "tidegate-validation-report", "report": signed}))
        .map_err(|e| Error::bug("a report cannot be written").with_source(e))
}

/// The newest report on a release, if it is about the current manifest and signed by a key of the channel; `None` otherwise.
///
/// # Errors
///
/// Fails if the report or the ledger cannot be read, or if no key of the channel signed the report.
pub fn newest(dir: &Path, record: &Record, repository: &Repository) -> Result<Option<ReportFacts>> {
    let Some(report) = load(dir, record, repository)? else { return Ok(None) };
    Ok(Some(ReportFacts { way_lost: way_lost(dir, record)?, ..report.facts() }))
}

/// A bridge that was withdrawn or retired since the release was last validated, if any: the report no longer shows which upgrade
/// paths remain.
fn way_lost(dir: &Path, record: &Record) -> Result<Option<String>> {
    let sequence = record.manifest.as_ref().map(|manifest| manifest.sequence);
    if record.upgrade_from.is_none() || record.retraction.is_some() {
        return Ok(None);
    }
    let (own, siblings) = (record.id().to_string(), format!("{}/{}/", record.channel, record.product));
    let ledger = Ledger::open(dir)?;
    let since = ledger.entries().iter().rev().take_while(|entry| entry.subject != own || entry.event != "validate");
    for entry in since.filter(|entry| entry.subject != own) {
        let (Some(from), Some(to)) = (&entry.from, &entry.to) else { continue };
        // A release that was never registered, or was withdrawn before, was no bridge.
        let gave_way = matches!(to.as_str(), "withdrawn" | "retired")
            && !matches!(from.as_str(), "draft" | "signed" | "withdrawn");
        let version = entry.subject.strip_prefix(&siblings).and_then(|version| version.parse().ok());
        let Some(version) = version.filter(|_| gave_way) else { continue };
        let id = ReleaseId { channel: record.channel.clone(), product: record.product.clone(), version };
        let before = record::load(dir, &id)?.and_then(|other| other.manifest).map(|manifest| manifest.sequence);
        if before < sequence {
            return Ok(Some(format!("{id} was {to}")));
        }
    }
    Ok(None)
}

/// Like [`newest`], but returns the whole report.
///
/// # Errors
///
/// Fails if the report cannot be read, is malformed, or is not signed by a key of the channel.
pub fn load(dir: &Path, record: &Record, repository: &Repository) -> Result<Option<ValidationReport>> {
    let name = record.id().file(FILE);
    let Some(bytes) = fs::read_if_exists(&fs::confined(dir, &name)?, MAX_LENGTH)? else { return Ok(None) };
    let file: SignedReport = from_file(&name, &bytes)?;
    if !signed_by_channel(&file, record, repository)? {
        return Err(Error::trust(format!("{name} is not signed by a key of the channel {}", record.channel))
            .remedy(format!("validate again: tidegate release validate {}", record.id())));
    }
    let report: ValidationReport =
        serde_json::from_value(file.signed).map_err(|e| Error::input(format!("{name} is malformed")).with_source(e))?;
    let about_this = record.manifest.as_ref().is_some_and(|manifest| manifest.sha256 == report.manifest);
    Ok((about_this && report.release == record.id().to_string()).then_some(report))
}

fn signed_by_channel(file: &SignedReport, record: &Record, repository: &Repository) -> Result<bool> {
    let message = message(&file.signed)?;
    let channel = layout::channel_role(&record.channel);
    let cohort_keys =
        repository.targets(&channel).and_then(|targets| targets.delegations.as_ref()).map(Delegations::keys);
    let release_keys = repository.keys_of(&channel).map(|(keys, role)| (keys, &role.keyids));
    let known = |id: &KeyId| -> Option<&Key> {
        let release = release_keys.filter(|(_, ids)| ids.contains(id)).and_then(|(keys, _)| keys.get(id));
        release.or_else(|| cohort_keys?.get(id))
    };
    Ok(file.signatures.iter().any(|(id, signature)| {
        let bytes = from_hex(signature);
        known(id).and_then(Key::decode).zip(bytes).is_some_and(|(key, bytes)| key.verify(&message, &bytes))
    }))
}

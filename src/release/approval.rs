//! Approvals: signed agreement to a step, in `releases/CHANNEL/PRODUCT/VERSION/approvals.json`.
//!
//! A typed name proves nothing, so an approval is signed by a key that `tidegate.toml` names. The signature covers the release,
//! the hash of its manifest, the step, and the last line of the ledger that moved the release. An approval is therefore valid for
//! one step at one point of one release's life, and becomes invalid once the release moves.

use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use tidegate_model::digest::Digest;
use tidegate_model::name::Name;
use tidegate_model::time;
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::json;
use tidegate_tuf::key::KeyId;

use super::draft::write_down;
use super::record::{MAX_LENGTH, Record, ReleaseSpec, from_file, to_file};
use crate::config::Settings;
use crate::error::{Error, Result, Rule};
use crate::fs::{self, Changes};
use crate::keys::signature_bytes;
use crate::policy::{ApprovalRule, Approved, Facts, ReleaseEvent};
use crate::workspace::ledger::Entry;
use crate::workspace::{Ledger, Operation};

/// Events that do not change a release's state.
const STANDING_STILL: [&str; 2] = ["validate", "approve"];

/// What is approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The release.
    pub release: String,
    /// SHA-256 of its manifest.
    pub manifest: Digest,
    /// The step.
    pub step: ReleaseEvent,
    /// The cohort that the step exposes, if it is one to a cohort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cohort: Option<Name>,
    /// The hash of the ledger's last line that moved the release.
    pub after: String,
    /// When it was approved.
    #[serde(with = "time::text")]
    pub at: DateTime<Utc>,
}

/// A statement and a signature on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// What is approved.
    pub statement: Statement,
    /// The key that signed it.
    pub keyid: KeyId,
    /// The signature, in hex.
    pub sig: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    approvals: Vec<Approval>,
}

impl Statement {
    /// The signed bytes, distinct from everything else that the same key may sign.
    ///
    /// # Errors
    ///
    /// Fails if the statement cannot be serialized.
    pub fn message(&self) -> Result<Vec<u8>> {
        json::canonical(&json!({"_type": "tidegate-approval", "approval": self}))
            .map_err(|e| Error::bug("an approval cannot be written").with_source(e))
    }
}

/// Approves a step of a release with the key `key`, and stores the approval beside the record.
///
/// # Errors
///
/// Fails if policy requires no approval of this step, or none by the holder of that key (an approval without effect is a
/// mistake), and if the key cannot sign.
#[allow(clippy::too_many_arguments, reason = "each is a part of what is signed")]
pub fn approve(
    op: &mut Operation<'_>,
    spec: &ReleaseSpec,
    step: ReleaseEvent,
    cohort: Option<Name>,
    key: &str,
) -> Result<(Record, Approval)> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let record = spec.find(workspace.dir())?;
    let policy = workspace.policy()?;
    record.after(
        ReleaseEvent::Approve,
        &Facts { frozen: record.manifest.is_some(), artifacts: record.artifacts.len(), ..Facts::default() },
        &policy,
        now,
    )?;
    let id = record.id();
    let rules: Vec<&ApprovalRule> = policy.approvals.iter().filter(|rule| rule.covers(step, cohort.as_ref())).collect();
    let named = step.with_cohort(cohort.as_ref());
    if rules.is_empty() {
        return Err(Error::refused(Rule::ReleaseApproval, format!("{id}: policy.toml asks nobody to approve {named}"))
            .remedy("take the step; or add an [[approval]] to policy.toml"));
    }
    if !rules.iter().any(|rule| rule.by.iter().any(|by| by.as_str() == key)) {
        let by: Vec<_> = rules.iter().flat_map(|rule| &rule.by).map(ToString::to_string).collect();
        return Err(Error::refused(
            Rule::ReleaseApproval,
            format!("{id}: policy.toml does not ask the holder of {key} to approve {named}"),
        )
        .remedy(format!("those whom it asks hold: {}", by.join(", "))));
    }
    let manifest = record.manifest.as_ref().ok_or_else(|| Error::bug("a signed release without a manifest"))?;
    let after = place(&Ledger::open(workspace.dir())?, &id.to_string());
    let statement = Statement { release: id.to_string(), manifest: manifest.sha256, step, cohort, after, at: now };
    let signer = op.keys.signer(key)?;
    let sig = to_hex(&signer.sign(&statement.message()?)?);
    let approval = Approval { statement, keyid: signer.public().id(), sig };
    let mut file = read(workspace.dir(), &record)?;
    // Approvals of other points of its life no longer count.
    file.approvals.retain(|old| {
        old.statement.after == approval.statement.after
            && (old.keyid != approval.keyid
                || old.statement.step != approval.statement.step
                || old.statement.cohort != approval.statement.cohort)
    });
    file.approvals.push(approval.clone());
    let mut changes = Changes::default();
    changes.put(path(&record), to_file(&file)?);
    let mut evidence = Map::new();
    evidence.insert("step".into(), named.into());
    evidence.insert("manifest".into(), approval.statement.manifest.to_string().into());
    evidence.insert("key".into(), approval.keyid.as_str().into());
    evidence.insert("sig".into(), approval.sig.as_str().into());
    write_down(
        workspace,
        &mut changes,
        now,
        ReleaseEvent::Approve.name(),
        &record,
        Some(record.status()),
        actor,
        evidence,
    )?;
    workspace.commit(changes)?;
    Ok((record, approval))
}

/// Who approved `step` (to `cohort`, if it is a step to a cohort) at the current point of the release's life. Approvals that do
/// not verify do not count.
///
/// # Errors
///
/// Fails if the approvals or the ledger cannot be read.
pub fn given(
    dir: &Path,
    settings: &Settings,
    record: &Record,
    step: ReleaseEvent,
    cohort: Option<&Name>,
) -> Result<Vec<Approved>> {
    let Some(manifest) = &record.manifest else { return Ok(Vec::new()) };
    let id = record.id().to_string();
    let approvals = read(dir, record)?.approvals;
    if approvals.is_empty() {
        return Ok(Vec::new());
    }
    let after = place(&Ledger::open(dir)?, &id);
    let mut found = Vec::new();
    for Approval { statement, keyid, sig } in approvals {
        let of_this = statement.release == id
            && statement.manifest == manifest.sha256
            && statement.step == step
            && statement.cohort.as_ref() == cohort
            && statement.after == after;
        if !of_this {
            continue;
        }
        let message = statement.message()?;
        for (name, key) in &settings.keys {
            let public = settings.public(name)?;
            let good = public.id() == keyid
                && public
                    .decode()
                    .zip(signature_bytes(&public, sig.as_bytes()).ok())
                    .is_some_and(|(public, bytes)| public.verify(&message, &bytes));
            if good {
                let person = key.holder.clone().unwrap_or_else(|| name.to_string());
                found.push(Approved { key: name.to_string(), person, at: statement.at });
            }
        }
    }
    Ok(found)
}

/// Records who approved the step that is taken.
pub fn evidence(facts: &Facts, evidence: &mut Map<String, serde_json::Value>) {
    if !facts.approvals.is_empty() {
        evidence.insert("approved".into(), json!(facts.approvals.iter().map(|by| &by.person).collect::<Vec<_>>()));
    }
}

/// The current point of a release's life: the last line of the ledger that moved it.
fn place(ledger: &Ledger, release: &str) -> String {
    let moved = |entry: &&Entry| entry.subject == release && !STANDING_STILL.contains(&entry.event.as_str());
    ledger.entries().iter().rev().find(moved).map(|entry| entry.hash.clone()).unwrap_or_default()
}

fn path(record: &Record) -> String {
    record.id().file("approvals.json")
}

fn read(dir: &Path, record: &Record) -> Result<File> {
    let name = path(record);
    match fs::read_if_exists(&fs::confined(dir, &name)?, MAX_LENGTH)? {
        Some(bytes) => from_file(&name, &bytes),
        None => Ok(File::default()),
    }
}

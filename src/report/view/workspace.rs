//! What only the workspace knows: records, findings, proposals, the ledger.

use std::collections::BTreeMap;

use tidegate_tuf::key::KeyId;

use super::state::{FindingState, LedgerEntry, LedgerState, Need, ProposalState, RecordState, State, WorkspaceState};
use crate::config::Settings;
use crate::error::Result;
use crate::fs;
use crate::metadata::Repository;
use crate::proposal::{self, Proposal};
use crate::release::record::{self, Record};
use crate::release::{listing, report};
use crate::workspace::{Ledger, Workspace, ledger};

/// So many lines of the ledger are shown.
const NEWEST: usize = 200;

/// Adds to `state` what `workspace` knows beside its signed metadata: names and holders of keys, records, proposals, the ledger.
///
/// # Errors
///
/// Fails if the workspace's configuration, metadata or records cannot be read.
pub fn add_workspace(state: &mut State, workspace: &Workspace) -> Result<()> {
    let settings = workspace.settings()?;
    let repository = workspace.repository()?;
    let people = People::of(&settings)?;
    for key in &mut state.trust.keys {
        let id = KeyId::new(key.keyid.as_str());
        key.name = people.names.get(&id).cloned();
        if key.holder.is_none() {
            key.holder = people.holders.get(&id).cloned();
        }
    }
    let releases =
        record::all(workspace.dir())?.iter().map(|record| record_state(workspace, record, &repository)).collect();
    state.workspace = Some(WorkspaceState {
        name: settings.name.to_string(),
        releases,
        proposals: proposals(workspace, &repository, &people)?,
        ledger: ledger_state(workspace)?,
    });
    Ok(())
}

/// What people call keys, and who holds them.
struct People {
    names: BTreeMap<KeyId, String>,
    holders: BTreeMap<KeyId, String>,
}

impl People {
    fn of(settings: &Settings) -> Result<Self> {
        let names = settings.key_names()?;
        let by_name: BTreeMap<&str, &KeyId> = names.iter().map(|(id, name)| (name.as_str(), id)).collect();
        let holder = |(name, key): (&crate::keys::KeyName, &crate::config::KeySettings)| {
            Some(((*by_name.get(name.as_str())?).clone(), key.holder.clone()?))
        };
        let holders = settings.keys.iter().filter_map(holder).collect();
        Ok(Self { names, holders })
    }

    fn person(&self, id: &KeyId) -> String {
        let name = self.names.get(id).cloned().unwrap_or_else(|| id.short().to_owned());
        match self.holders.get(id) {
            Some(holder) => format!("{name} ({holder})"),
            None => name,
        }
    }
}

fn record_state(workspace: &Workspace, record: &Record, repository: &Repository) -> RecordState {
    let (report, report_fault) = match report::load(workspace.dir(), record, repository) {
        Ok(report) => (report, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let finding = |finding: &crate::release::report::CheckResult| FindingState {
        rule: finding.rule.clone(),
        kind: finding.kind.to_string(),
        title: finding.title.clone(),
        verdict: text_of(&finding.verdict),
        detail: finding.detail.clone(),
    };
    RecordState {
        release: record.id().to_string(),
        state: record.state.to_string(),
        paused: record.paused,
        validated: report.as_ref().map(|report| report.at),
        report_fault,
        findings: report.iter().flat_map(|report| &report.findings).map(finding).collect(),
    }
}

/// An enum as its name in JSON.
fn text_of(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Everything in `proposals/`, by file name.
fn proposals(workspace: &Workspace, repository: &Repository, people: &People) -> Result<Vec<ProposalState>> {
    let files = listing::files(workspace.dir())?;
    Ok(files.into_iter().map(|file| proposal_state(workspace, repository, people, file)).collect())
}

fn proposal_state(workspace: &Workspace, repository: &Repository, people: &People, file: String) -> ProposalState {
    let mut state = ProposalState {
        subject: file.clone(),
        file,
        proposed: None,
        reason: None,
        digest: None,
        fault: None,
        needs: Vec::new(),
    };
    if let Err(error) = fill_in(&mut state, workspace, repository, people) {
        state.fault = Some(error.to_string());
    }
    state
}

fn fill_in(state: &mut ProposalState, workspace: &Workspace, repository: &Repository, people: &People) -> Result<()> {
    let bytes = fs::read(&fs::confined(workspace.dir(), &state.file)?, proposal::MAX_LENGTH)?;
    let proposal = Proposal::parse(&state.file, &bytes)?;
    state.subject.clone_from(&proposal.subject);
    state.proposed = Some(proposal.proposed);
    state.reason.clone_from(&proposal.reason);
    state.digest = proposal.digest()?.get(..16).map(str::to_owned);
    let verified = proposal::verify(&proposal, Some(repository.anchor()?))?;
    let labels = |ids: &[KeyId]| ids.iter().map(|id| people.person(id)).collect();
    state.needs = verified
        .requirement_status(&proposal)?
        .into_iter()
        .map(|requirement| Need {
            signed: labels(&requirement.signed),
            missing: labels(&requirement.missing),
            role: requirement.role,
            by: requirement.by,
            threshold: requirement.threshold,
        })
        .collect();
    Ok(())
}

fn ledger_state(workspace: &Workspace) -> Result<LedgerState> {
    let (entries, breaks) = Ledger::examine(workspace.dir())?;
    let entry = |entry: &ledger::Entry| LedgerEntry {
        seq: entry.seq,
        time: entry.time,
        actor: entry.actor.clone(),
        event: entry.event.clone(),
        subject: entry.subject.clone(),
        from: entry.from.clone(),
        to: entry.to.clone(),
        reason: entry.reason.clone(),
    };
    Ok(LedgerState {
        count: entries.len() as u64,
        broken: breaks.first().map(|at| format!("line {}: {}", at.line, at.why)),
        head: entries.last().map(|last| last.hash.clone()),
        entries: entries.iter().rev().take(NEWEST).map(entry).collect(),
    })
}

//! Retires releases: the channel's role stops listing them, so that the metadata that devices fetch stays small.
//!
//! This changes a role with a threshold, so it is a ceremony. Whether a release may be retired is checked when it is proposed and
//! again when the ceremony is finished, because a cohort may have been offered it in between.

use std::collections::BTreeSet;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::{Map, json};
use tidegate_model::layout::{self, Location};
use tidegate_model::name::Name;

use super::record::{self, Record, ReleaseId};
use crate::error::{Error, Result, Rule};
use crate::fs::Changes;
use crate::metadata::Repository;
use crate::policy::{Facts, Policy, ReleaseEvent, Status};
use crate::proposal::{Proposal, ProposalRequest};
use crate::workspace::ledger::LedgerEvent;
use crate::workspace::{Operation, Workspace, offers_of};

/// Releases that can be retired, and those beyond the limit that must stay.
#[derive(Debug, Default)]
pub struct Choice {
    /// Releases that can be retired.
    pub go: Vec<ReleaseId>,
    /// Releases that must stay, and why.
    pub stay: Vec<(ReleaseId, Error)>,
}

/// The releases beyond the `keep` newest ones that a channel lists of each product.
///
/// # Errors
///
/// Fails if the policy or a record cannot be read.
pub fn choose(workspace: &Workspace, repository: &Repository, keep: usize, now: DateTime<Utc>) -> Result<Choice> {
    let policy = workspace.policy()?;
    let mut listed: Vec<Record> = record::all(workspace.dir())?;
    listed.retain(|record| is_listed(repository, &record.id()));
    let sequence = |record: &Record| record.manifest.as_ref().map(|manifest| manifest.sequence);
    listed.sort_by_key(|record| (record.channel.clone(), record.product.clone(), std::cmp::Reverse(sequence(record))));
    let mut choice = Choice::default();
    for of_one in listed.chunk_by(|a, b| a.channel == b.channel && a.product == b.product) {
        for record in of_one.iter().skip(keep) {
            match check(repository, &policy, record, now) {
                Ok(_) => choice.go.push(record.id()),
                Err(error) => choice.stay.push((record.id(), error)),
            }
        }
    }
    Ok(choice)
}

/// The state of the release after retiring it.
///
/// # Errors
///
/// Returns the refusal while the release is offered, or while devices need it as a bridge.
pub fn check(repository: &Repository, policy: &Policy, record: &Record, now: DateTime<Utc>) -> Result<Status> {
    record.after(ReleaseEvent::Retire, &facts(repository, record)?, policy, now)
}

fn facts(repository: &Repository, record: &Record) -> Result<Facts> {
    let Some(manifest) = &record.manifest else { return Ok(Facts::default()) };
    let mut facts = Facts { frozen: true, ..Facts::default() };
    let mut bridge_of = BTreeSet::new();
    for (cohort, offer) in offers_of(repository, &record.channel, &record.product)? {
        if offer.sequence == manifest.sequence {
            facts.assigned.push(cohort);
        } else if offer.bridges.iter().any(|bridge| bridge.sequence == manifest.sequence) {
            bridge_of.insert(offer.release.to_string());
        }
    }
    facts.bridge_of = bridge_of.into_iter().collect();
    Ok(facts)
}

/// The request for a ceremony that removes these releases from their channels' roles.
///
/// # Errors
///
/// Fails if a release does not exist, is not listed, or must not be retired.
pub fn propose(
    workspace: &Workspace,
    releases: &[ReleaseId],
    reason: Option<String>,
    now: DateTime<Utc>,
) -> Result<ProposalRequest> {
    let repository = workspace.repository()?;
    let policy = workspace.policy()?;
    let mut unlist = BTreeSet::new();
    for id in releases {
        let record =
            record::load(workspace.dir(), id)?.ok_or_else(|| Error::input(format!("there is no release {id}")))?;
        check(&repository, &policy, &record, now)?;
        let paths = paths(&repository, id);
        if paths.is_empty() {
            return Err(Error::refused(
                Rule::ReleaseOrder,
                format!("{id}: the role {} does not list it", layout::channel_role(&id.channel)),
            )
            .remedy("nothing needs to be done"));
        }
        unlist.extend(paths);
    }
    let names: Vec<String> = releases.iter().map(ToString::to_string).collect();
    let reason = reason.unwrap_or_else(|| format!("retire {}", names.join(", ")));
    Ok(ProposalRequest { unlist, reason: Some(reason), ..ProposalRequest::default() })
}

/// Applies a finished ceremony to the records of the releases it retires, and returns the ledger events.
///
/// # Errors
///
/// Fails if a release must not be retired any longer, or if its record cannot be read or written.
pub fn finished(
    op: &mut Operation<'_>,
    repository: &Repository,
    proposal: &Proposal,
    changes: &mut Changes,
) -> Result<Vec<LedgerEvent>> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let policy = workspace.policy()?;
    let mut happenings = Vec::new();
    for id in unlisted(repository, proposal) {
        let Some(mut record) = record::load(workspace.dir(), &id)? else { continue };
        let before = record.status();
        let after = check(repository, &policy, &record, now)?;
        record.set_status(after);
        record.put(changes)?;
        let manifest = record.manifest.as_ref().map(|manifest| manifest.sha256.to_string());
        happenings.push(LedgerEvent {
            event: ReleaseEvent::Retire.name(),
            subject: id.to_string(),
            actor: actor.to_owned(),
            transition: Some((before.to_string(), after.to_string())),
            reason: proposal.reason.clone(),
            evidence: Map::from_iter([
                ("manifest".to_owned(), json!(manifest)),
                ("digest".to_owned(), json!(proposal.digest()?)),
            ]),
        });
    }
    Ok(happenings)
}

/// The releases that channels list now, and will not list after the ceremony.
fn unlisted(repository: &Repository, proposal: &Proposal) -> BTreeSet<ReleaseId> {
    let mut gone = BTreeSet::new();
    for change in &proposal.changes {
        let Some(before) = repository.targets(&change.role) else { continue };
        let after = change.signed.get("targets").and_then(serde_json::Value::as_object);
        for path in before.targets.keys().filter(|path| after.is_none_or(|after| !after.contains_key(*path))) {
            if let Some(Location::Manifest { channel, product, version }) = Location::parse(path) {
                gone.insert(ReleaseId { channel, product, version });
            }
        }
    }
    gone
}

fn is_listed(repository: &Repository, id: &ReleaseId) -> bool {
    let path = layout::manifest_path(&id.channel, &id.product, &id.version);
    repository.targets(&layout::channel_role(&id.channel)).is_some_and(|targets| targets.targets.contains_key(&path))
}

/// The paths that a channel's role lists for a release.
fn paths(repository: &Repository, id: &ReleaseId) -> Vec<String> {
    let of_it = |path: &&String| match Location::parse(path) {
        Some(
            Location::Manifest { channel, product, version }
            | Location::Artifact { channel, product, version, .. }
            | Location::Patches { channel, product, version, .. },
        ) => id.channel == channel && id.product == product && id.version == version,
        _ => false,
    };
    let listed = repository.targets(&layout::channel_role(&id.channel)).into_iter().flat_map(|t| t.targets.keys());
    listed.filter(of_it).cloned().collect()
}

/// How many releases of one product the channel lists beyond `retirement.keep_releases`; 0 without that rule.
///
/// # Errors
///
/// Fails if the policy or a record cannot be read.
pub fn surplus(workspace: &Workspace, repository: &Repository, channel: &Name, product: &Name) -> Result<usize> {
    let Some(keep) = workspace.policy()?.retirement.keep_releases else { return Ok(0) };
    let listed = count(repository, workspace.dir(), channel, product)?;
    Ok(listed.saturating_sub(keep))
}

fn count(repository: &Repository, dir: &Path, channel: &Name, product: &Name) -> Result<usize> {
    let of_one = |record: &&Record| {
        record.channel == *channel && record.product == *product && is_listed(repository, &record.id())
    };
    Ok(record::all(dir)?.iter().filter(of_one).count())
}

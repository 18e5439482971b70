//! Renews expiring roles whose keys are available.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_model::layout::DelegatedRole;

use crate::config::Settings;
use crate::error::{Error, Result};
use crate::fs;
use crate::keys::KeyRing;
use crate::metadata::{Edit, Repository, RoleFile, gives_time, is_dated_ahead, not_ahead};
use crate::policy::ReleaseState;
use crate::proposal::{self, Kind, Proposal};
use crate::release::listing;
use crate::release::record::{self, Record};
use crate::workspace::{Operation, Workspace};

/// For how many days a proposal holds back renewals; one that is older is taken for abandoned.
const FRESH: i64 = 7;

/// Renews timestamp and snapshot; every cohort's role with less than half of its lifetime left; and
/// targets and channels that are [`due`], if a threshold of their keys is available and no proposal holds them back.
/// Root is left to ceremonies. A renewal is nobody's step and is not in the ledger: machines renew in checkouts that they do not keep, and the
/// signed metadata at the place tells of it.
///
/// Returns the resulting repository, and the roles with a new version.
///
/// # Errors
///
/// Fails if the clock is behind the last signature or a role that devices take time from is dated later, if an online key cannot sign, or if the workspace cannot be read or written.
pub fn refresh(op: &mut Operation<'_>, settings: &Settings) -> Result<(Repository, Vec<String>)> {
    let repository = op.workspace.repository()?;
    let edit = Edit::new(&repository, op.now, settings.online())?;
    for role in repository.roles().filter(|role| gives_time(&role.name)) {
        not_ahead(role, op.now)?;
    }
    renew(op, settings, &repository, edit, |_| false)
}

/// The same where another machine's clock was wrong: also renews every role that is dated later than now, as far as its keys are available.
///
/// # Errors
///
/// As for [`refresh`], but whatever the last signature is dated.
pub fn redate(op: &mut Operation<'_>, settings: &Settings) -> Result<(Repository, Vec<String>)> {
    let (repository, now) = (op.workspace.repository()?, op.now);
    let edit = Edit::redating(&repository, now, settings.online());
    renew(op, settings, &repository, edit, |role| is_dated_ahead(role.issued, now))
}

/// Renews what expires, and what is `wrong`.
fn renew(
    op: &mut Operation<'_>,
    settings: &Settings,
    repository: &Repository,
    mut edit: Edit<'_>,
    wrong: impl Fn(&RoleFile) -> bool,
) -> Result<(Repository, Vec<String>)> {
    let (workspace, now) = (op.workspace, op.now);
    edit.renew("timestamp", settings.roles.timestamp.expires.delta())?;
    let snapshot = repository.must_have("snapshot")?;
    if half_over(snapshot, now) || wrong(snapshot) {
        edit.renew("snapshot", settings.roles.snapshot.expires.delta())?;
    }
    for role in repository.roles().filter(|role| half_over(role, now) || wrong(role)) {
        let Some(DelegatedRole::Cohort { channel, .. }) = DelegatedRole::parse(&role.name) else { continue };
        let lifetime = settings.channel(&channel)?.rollout.expires;
        // Whatever its rollouts do; `until` in an offer is never moved here.
        if signs(repository, op.keys, &role.name) {
            edit.renew(&role.name, lifetime.delta())?;
        }
    }
    // A new version would spoil pending proposals for it.
    let held_back = held_back(workspace, repository, now)?;
    let due = due(repository, now).filter(|role| !held_back.contains(&role.name) || is_urgent(role, now));
    for role in due.chain(repository.roles().filter(|role| wrong(role))) {
        let lifetime = match DelegatedRole::parse(&role.name) {
            _ if role.name == "targets" => settings.roles.targets.expires,
            Some(DelegatedRole::Channel(channel)) if role.name != "root" => settings.channel(&channel)?.release.expires,
            _ => continue,
        };
        // Keys that are elsewhere, or locked without a way to unlock them, do not fail a refresh; the output lists what stays
        // due.
        if signs(repository, op.keys, &role.name) {
            edit.renew(&role.name, lifetime.delta())?;
        }
    }
    let finished = edit.finish(op.keys)?.ok_or_else(|| Error::bug("a refresh that changes nothing"))?;
    workspace.commit(finished.changes)?;
    Ok((finished.repository, finished.roles))
}

/// The roles with less than a quarter of their lifetime left.
pub fn due(repository: &Repository, now: DateTime<Utc>) -> impl Iterator<Item = &RoleFile> {
    let due = move |role: &&RoleFile| role.issued.is_none_or(|issued| role.expires - now < (role.expires - issued) / 4);
    repository.roles().filter(due)
}

/// Whether a threshold of the role's keys is at hand.
fn signs(repository: &Repository, keys: &mut KeyRing, role: &str) -> bool {
    let known = repository.keys_of(role).map(|(_, known)| (known.keyids.clone(), known.threshold));
    known.is_some_and(|(ids, threshold)| keys.signers_for(role, &ids, threshold).is_ok())
}

/// Whether a role has less than an eighth of its lifetime left.
fn is_urgent(role: &RoleFile, now: DateTime<Utc>) -> bool {
    role.issued.is_none_or(|issued| role.expires - now < (role.expires - issued) / 8)
}

/// The roles whose renewal would spoil a proposal that somebody may still sign: one that follows from what is in force, is at most
/// [`FRESH`] days old, and is a ceremony's or that of a release which waits for signatures. Whatever else lies among proposals is ignored.
fn held_back(workspace: &Workspace, repository: &Repository, now: DateTime<Utc>) -> Result<BTreeSet<String>> {
    let records = record::all(workspace.dir())?;
    let waits = |proposal: &Proposal| {
        let is_its = |record: &&Record| record.id().to_string() == proposal.subject;
        proposal.kind != Kind::Release
            || records
                .iter()
                .find(is_its)
                .is_some_and(|record| matches!(record.state, ReleaseState::Draft | ReleaseState::Signed))
    };
    let mut roles = BTreeSet::new();
    for file in listing::files(workspace.dir())? {
        let read = fs::confined(workspace.dir(), &file).and_then(|path| fs::read(&path, proposal::MAX_LENGTH));
        let Ok(found) = read.and_then(|bytes| Proposal::parse(&file, &bytes)) else { continue };
        let is_fresh = now - found.proposed <= TimeDelta::days(FRESH);
        if is_fresh && waits(&found) && proposal::check_follows(&found, repository).is_ok() {
            roles.extend(found.follows.roles.into_iter().map(|text| text.role));
        }
    }
    Ok(roles)
}

/// Whether less than half of a role's lifetime is left.
pub fn half_over(role: &RoleFile, now: DateTime<Utc>) -> bool {
    role.issued.is_none_or(|issued| role.expires - now < (role.expires - issued) / 2)
}

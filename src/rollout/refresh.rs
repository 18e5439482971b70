//! Renews expiring roles whose keys are available.

use chrono::{DateTime, Utc};
use serde_json::{Map, json};
use tidegate_model::layout::DelegatedRole;

use crate::config::Settings;
use crate::error::{Error, Result};
use crate::keys::KeyRing;
use crate::metadata::{Edit, Repository, RoleFile, gives_time, is_dated_ahead, not_ahead};
use crate::workspace::ledger::LedgerEvent;
use crate::workspace::{Ledger, Operation, Workspace};

/// Renews timestamp and snapshot; every cohort's role with less than half of its lifetime left; and
/// targets and channels that are [`due`], if a threshold of their keys is available and no proposal is pending. Root is left to
/// ceremonies.
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
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
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
    // A new version would invalidate pending proposals for it; but a forgotten one must not let a role expire.
    let undisturbed = !has_proposals(workspace)?;
    let due = due(repository, now).filter(|role| undisturbed || is_urgent(role, now));
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
    let mut changes = finished.changes;
    let mut ledger = Ledger::open(workspace.dir())?;
    ledger.append(
        now,
        LedgerEvent {
            event: "refresh",
            subject: "repository".into(),
            actor: actor.to_owned(),
            transition: None,
            reason: None,
            evidence: Map::from_iter([("roles".to_owned(), json!(finished.roles))]),
        },
    )?;
    ledger.put(&mut changes);
    workspace.commit(changes)?;
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

fn has_proposals(workspace: &Workspace) -> Result<bool> {
    let dir = workspace.dir().join(crate::release::listing::DIR);
    match std::fs::read_dir(&dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("read", &dir, e)),
    }
}

fn half_over(role: &RoleFile, now: DateTime<Utc>) -> bool {
    role.issued.is_none_or(|issued| role.expires - now < (role.expires - issued) / 2)
}

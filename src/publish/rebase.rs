//! Resolves what blocks a publication, where nothing conflicts.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, json};
use tidegate_tuf::Limits;

use super::plan::{Content, ObjectState, Plan};
use super::pull::{PullOptions, PullReport, take_over};
use super::store::sweep::{self, Spot};
use super::store::{Remote, TIMESTAMP, WriteOutcome};
use crate::config::Settings;
use crate::error::{Error, Kind, Result, Rule};
use crate::fs::Changes;
use crate::keys::KeyRing;
use crate::metadata::{Edit, METADATA_DIR, timestamp_over};
use crate::workspace::Published;
use crate::workspace::ledger::LedgerEvent;
use crate::workspace::{Ledger, Workspace};

/// How often to check whether another publication has finished.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How a blocked publication was resolved.
#[derive(Debug)]
pub enum Overcome {
    /// Someone else published in the meantime: their changes were taken over.
    TakenOver(PullReport),
    /// Another publisher gave up: the objects it left were removed.
    Cleared(Vec<String>),
}

/// Does what is needed before a publication that failed with `error` can be tried again. `plan` is the plan that failed, if there
/// was one.
///
/// # Errors
///
/// Returns `error` if nothing can be done about it, or the error of the pull or clean-up.
pub async fn overcome(
    error: Error,
    plan: Option<&Plan>,
    workspace: &Workspace,
    settings: &Settings,
    remote: &Remote,
    ring: &mut KeyRing,
    taking: &PullOptions<'_>,
) -> Result<Overcome> {
    match (error.broken_rule(), plan) {
        (Some(Rule::PublishRace | Rule::PublishBehind), _) => {
            take_over(workspace, settings, remote, ring, taking).await.map(Overcome::TakenOver)
        }
        (Some(Rule::PublishLeftover), Some(plan)) => {
            let leftovers = leftovers(plan, remote).await?;
            if still_under_way(plan, &leftovers, remote, taking.patience).await? {
                return take_over(workspace, settings, remote, ring, taking).await.map(Overcome::TakenOver);
            }
            let spots = leftovers.into_iter().map(|(spot, _)| spot).collect();
            clear(plan, spots, workspace, settings, remote, ring, taking).await.map(Overcome::Cleared)
        }
        _ => Err(error),
    }
}

/// The leftover objects that block a plan, at either place, and when they were written.
async fn leftovers(plan: &Plan, remote: &Remote) -> Result<Vec<(Spot, DateTime<Utc>)>> {
    let mut leftovers = Vec::new();
    for object in plan.objects.iter().filter(|object| object.ahead && object.state == ObjectState::New) {
        let Content::Bytes(bytes) = &object.content else { continue };
        let there = remote.side(object.private)?.read(&object.key, Limits::default().targets_length).await?;
        if let Some(there) = there.filter(|there| there.bytes != *bytes) {
            leftovers.push((Spot { key: object.key.clone(), private: object.private }, there.written));
        }
    }
    Ok(leftovers)
}

/// Waits until the publisher that left these has finished or its time is up. Returns whether it has finished, which replaces the timestamp.
async fn still_under_way(
    plan: &Plan,
    leftovers: &[(Spot, DateTime<Utc>)],
    remote: &Remote,
    patience: TimeDelta,
) -> Result<bool> {
    let Some(youngest) = leftovers.iter().map(|(_, written)| *written).max() else { return Ok(true) };
    loop {
        if !remote.is_still_at(plan.seen.as_ref()).await? {
            return Ok(true);
        }
        // Compares the store's clock with ours; stores insist that both agree to a few minutes.
        let left = patience - (Utc::now() - youngest);
        match left.min(patience).to_std() {
            Ok(left) if !left.is_zero() => tokio::time::sleep(left.min(LOOK_AGAIN)).await,
            _ => return Ok(false),
        }
    }
}

/// Removes what an abandoned publication left, and makes sure that it cannot continue: replaces the timestamp that it started
/// from.
async fn clear(
    plan: &Plan,
    leftovers: Vec<Spot>,
    workspace: &Workspace,
    settings: &Settings,
    remote: &Remote,
    ring: &mut KeyRing,
    taking: &PullOptions<'_>,
) -> Result<Vec<String>> {
    let seen = plan.seen.as_ref().ok_or_else(|| Error::bug("leftovers before anything was published"))?;
    let repository = workspace.repository()?;
    let ours = repository.must_have("timestamp")?.version;
    let version = ours.max(plan.live.unwrap_or_default() + 1);
    let lifetime = settings.online().timestamp;
    let fence = timestamp_over(&repository, &seen.bytes, version, taking.now, lifetime, ring)?;
    sweep::sweep(remote, &leftovers, taking.now, || async {
        if remote.is_exclusive() {
            return Ok(());
        }
        match remote.replace(TIMESTAMP, &fence.into(), Some(seen)).await? {
            WriteOutcome::Written | WriteOutcome::AlreadyThere => Ok(()),
            WriteOutcome::Different => {
                Err(Error::new(Kind::Conflict, format!("{} was published to just now", remote.name()))
                    .rule(Rule::PublishRace)
                    .remedy("publish again"))
            }
        }
    })
    .await?;
    let name = |Spot { key, private }: Spot| if private { format!("{key} (private)") } else { key };
    let removed: Vec<String> = leftovers.into_iter().map(name).collect();
    renew_after(workspace, settings, ring, version, taking.now, Some((&removed, taking.actor)))?;
    Ok(removed)
}

/// Makes the workspace's timestamp follow the one that was published in between, and records what was `removed`, and by whom.
fn renew_after(
    workspace: &Workspace,
    settings: &Settings,
    ring: &mut KeyRing,
    version: u64,
    now: DateTime<Utc>,
    removed: Option<(&[String], &str)>,
) -> Result<()> {
    let repository = workspace.repository()?;
    let mut edit = Edit::new(&repository, now, settings.online())?;
    edit.after("timestamp", version);
    edit.renew("timestamp", settings.online().timestamp)?;
    let mut changes = edit.finish(ring)?.ok_or_else(|| Error::bug("a renewal that changes nothing"))?.changes;
    if let Some(mut published) = Published::load(workspace.dir())? {
        published.timestamp = version;
        published.put(&mut changes)?;
    }
    if let Some((removed, actor)) = removed {
        note(workspace, &mut changes, now, removed, actor)?;
    }
    workspace.commit(changes)
}

fn note(
    workspace: &Workspace,
    changes: &mut Changes,
    now: DateTime<Utc>,
    removed: &[String],
    actor: &str,
) -> Result<()> {
    let mut ledger = Ledger::open(workspace.dir())?;
    ledger.append(
        now,
        LedgerEvent {
            event: "sweep",
            subject: "repository".into(),
            actor: actor.to_owned(),
            transition: None,
            reason: None,
            evidence: Map::from_iter([("removed".to_owned(), json!(removed))]),
        },
    )?;
    ledger.put(changes);
    Ok(())
}

/// Renews the live timestamp and publishes it: the fence of [`super::prune()`]. Unpublished changes of the workspace stay
/// unpublished; the live state must be what the workspace last published or took over.
///
/// # Errors
///
/// `P-BEHIND` if something else is live, or if another publisher replaces the timestamp first. Fails if the timestamp cannot be
/// signed.
pub async fn renew_live(
    workspace: &Workspace,
    settings: &Settings,
    remote: &Remote,
    ring: &mut KeyRing,
    pruning: &super::prune::Pruning,
    now: DateTime<Utc>,
) -> Result<()> {
    let repository = workspace.repository()?;
    let behind = |what: &str| {
        Error::new(Kind::Conflict, format!("this workspace {what} {}", remote.name()))
            .rule(Rule::PublishBehind)
            .remedy("publish what is ready, or take over what is live with `tidegate pull`; then prune")
    };
    let seen = pruning.seen.as_ref().ok_or_else(|| Error::bug("pruning without a timestamp"))?;
    let ours = repository.must_have("timestamp")?;
    if ours.bytes != seen.bytes {
        let noted = Published::load(workspace.dir())?.is_some_and(|noted| noted.timestamp == pruning.live);
        if !noted || ours.version <= pruning.live {
            return Err(behind("is not what is live at"));
        }
        let version = ours.version;
        let fence = timestamp_over(&repository, &seen.bytes, version, now, settings.online().timestamp, ring)?;
        return match remote.replace(TIMESTAMP, &fence.into(), Some(seen)).await? {
            WriteOutcome::Written | WriteOutcome::AlreadyThere => {
                renew_after(workspace, settings, ring, version, now, None)
            }
            WriteOutcome::Different => Err(behind("is no longer what is live at")),
        };
    }
    let mut edit = Edit::new(&repository, now, settings.online())?;
    edit.renew("timestamp", settings.online().timestamp)?;
    let finished = edit.finish(ring)?.ok_or_else(|| Error::bug("a renewal that changes nothing"))?;
    let timestamp = finished.repository.must_have("timestamp")?;
    let (bytes, version) = (timestamp.bytes.clone(), timestamp.version);
    match remote.replace(TIMESTAMP, &bytes.into(), Some(seen)).await? {
        WriteOutcome::Written | WriteOutcome::AlreadyThere => {}
        WriteOutcome::Different => return Err(behind("is no longer what is live at")),
    }
    let mut changes = finished.changes;
    debug_assert!(changes.pending(&format!("{METADATA_DIR}/timestamp.json")).is_some());
    if let Some(mut published) = Published::load(workspace.dir())? {
        published.timestamp = version;
        published.put(&mut changes)?;
    }
    workspace.commit(changes)
}

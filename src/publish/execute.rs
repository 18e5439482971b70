//! Executes a plan.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use futures::stream::{self, StreamExt as _};
use serde::Serialize;

use super::plan::{Content, Object, ObjectState, Plan, UploadStage};
use super::source::Source;
use super::store::{Job, Remote, WriteOutcome, sweep};
use crate::error::{Error, Kind, Result, Rule};

/// Number of objects of one stage that are transferred concurrently.
const CONCURRENT: usize = 4;
/// Up to this many roles are written sequentially.
const ONE_BY_ONE: usize = 16;

/// What a publication did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PublishReport {
    /// Objects written.
    pub written: u64,
    /// Objects that were already there, left by an interrupted publication.
    pub found: u64,
    /// Bytes written.
    pub bytes: u64,
    /// The version of the timestamp that is now live.
    pub timestamp: u64,
}

/// An event during a publication.
#[derive(Debug, Clone, Copy)]
pub enum PublishEvent<'a> {
    /// This many more bytes were sent, or did not need to be sent.
    Sent(u64),
    /// An object is in place.
    Done(&'a Object, WriteOutcome),
}

/// Executes `plan` and reports events to `progress`.
///
/// The repository keeps its previous state until the last write, which makes the new state visible. An interrupted publication is
/// completed
/// by running it again.
///
/// # Errors
///
/// [`Kind::Conflict`] if someone else published in the meantime: devices then see theirs, untouched.
pub async fn execute(
    plan: &Plan,
    source: &Source,
    remote: &Remote,
    progress: &(dyn Fn(PublishEvent<'_>) + Sync),
) -> Result<PublishReport> {
    let is_due = |object: &&Object| object.state != ObjectState::Unchanged;
    nothing_missing(plan.objects.iter().filter(is_due), source, remote)?;
    let _guard = remote.lock()?;
    let private = remote.private();
    let _private_guard = private.map(Remote::lock).transpose()?;
    let counts = Counts::default();
    let due = |stage| {
        plan.objects.iter().filter(move |object| object.stage == stage && object.state != ObjectState::Unchanged)
    };
    // A publisher that has already lost must not leave versions behind that the winner's next change needs.
    if !plan.is_done() && !remote.is_still_at(plan.seen.as_ref()).await? {
        return Err(too_late(plan));
    }
    // Done after reading the timestamp: a prune that starts later makes the write of the timestamp fail.
    let first = plan
        .objects
        .iter()
        .find(|object| object.stage != UploadStage::Timestamp && object.state != ObjectState::Unchanged);
    if let Some(first) = first
        && sweep::is_under_way(remote).await?
    {
        return Err(sweep::wait(remote, &first.key));
    }
    let work = Work { plan, source, remote, counts: &counts };
    // Protected objects come first: nothing refers to them before the timestamp does.
    if let Some(private) = private {
        let work = Work { remote: private, ..work };
        let is_due = plan.objects.iter().any(|object| object.private && object.state != ObjectState::Unchanged);
        let kept: Vec<&Object> =
            plan.objects.iter().filter(|object| object.private && object.state == ObjectState::Unchanged).collect();
        if !plan.is_done() {
            closed_to_anyone(private, &kept).await?;
        }
        if is_due && kept.is_empty() {
            private.closed_before_the_first().await?;
        }
        for stage in [UploadStage::Target, UploadStage::Delegated] {
            let concurrent = if stage == UploadStage::Target { CONCURRENT } else { 1 };
            let objects = due(stage).filter(|object| object.private);
            all(objects, concurrent, |object| create(object, work, progress)).await?;
        }
        for object in due(UploadStage::Listing) {
            list(object, work, progress).await?;
        }
        let written: Vec<&Object> =
            plan.objects.iter().filter(|object| object.private && object.state != ObjectState::Unchanged).collect();
        closed_to_anyone(private, &written).await?;
    }
    for stage in
        [UploadStage::Target, UploadStage::Delegated, UploadStage::Targets, UploadStage::Snapshot, UploadStage::Root]
    {
        // Roots are written sequentially: a client must never find a root whose predecessor is missing. So are roles, unless
        // there are many: if two publishers write the same versions, the one that writes the first of them wins.
        let one_by_one = match stage {
            UploadStage::Root => true,
            UploadStage::Delegated => due(stage).count() <= ONE_BY_ONE,
            _ => false,
        };
        let concurrent = if one_by_one { 1 } else { CONCURRENT };
        let objects = due(stage).filter(|object| !object.private);
        all(objects, concurrent, |object| create(object, work, progress)).await?;
    }
    for object in due(UploadStage::Timestamp) {
        commit(object, work, progress).await?;
    }
    Ok(PublishReport {
        written: counts.written.into_inner(),
        found: counts.found.into_inner(),
        bytes: counts.bytes.into_inner(),
        timestamp: plan.timestamp,
    })
}

/// Checks that the source has all bytes that are to be sent, before anything is: a workspace need not have what builds made.
fn nothing_missing<'a>(due: impl Iterator<Item = &'a Object>, source: &Source, remote: &Remote) -> Result<()> {
    let missing = |object: &&Object| matches!(&object.content, Content::Artifact { sha256 } if !source.has(sha256));
    let Some(first) = due.filter(missing).map(|object| &object.key).next() else { return Ok(()) };
    Err(Error::input(format!("{} lacks {first}, and its bytes are not in this workspace", remote.name()))
        .with_source(io::Error::from(io::ErrorKind::NotFound))
        .remedy(
            "copy what is published: tidegate sync FROM TO; or fetch the bytes first: tidegate pull FROM --artifacts",
        ))
}

/// Checks that nobody can read these objects in the private place without credentials. Requests one object of each kind (role,
/// target, listing), because access is usually granted per folder.
///
/// # Errors
///
/// `P-READABLE` if one of them is publicly readable.
async fn closed_to_anyone(private: &Remote, objects: &[&Object]) -> Result<()> {
    for kind in ["metadata/", "targets/", "gate/"] {
        let of_kind = objects.iter().filter(|object| object.key.starts_with(kind));
        let Some(object) = of_kind.min_by_key(|object| object.length) else { continue };
        let bytes = match &object.content {
            Content::Bytes(bytes) => Some(bytes),
            // An object that is about to be replaced still has its old content.
            Content::Listing { bytes, seen } => match object.state {
                ObjectState::Unchanged => seen.as_ref().map(|seen| &seen.bytes),
                _ => Some(bytes),
            },
            Content::Artifact { .. } => None,
        };
        private.closed_to_anyone(&object.key, Some(object.length), bytes).await?;
    }
    Ok(())
}

/// Runs `work` on every object, some concurrently. After an error it starts no further object, but waits for those in progress: a
/// write that continues after the lock is released would disturb the next publisher.
async fn all<'a, F>(
    objects: impl Iterator<Item = &'a Object>,
    concurrent: usize,
    work: impl Fn(&'a Object) -> F,
) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let failed = Mutex::new(None);
    let (lock, work) = (&|| failed.lock().unwrap_or_else(PoisonError::into_inner), &work);
    stream::iter(objects)
        .for_each_concurrent(concurrent, |object| async move {
            let is_failed = lock().is_some();
            if is_failed {
                return;
            }
            if let Err(error) = work(object).await {
                lock().get_or_insert(error);
            }
        })
        .await;
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[derive(Default)]
struct Counts {
    written: AtomicU64,
    found: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    fn add(&self, object: &Object, outcome: WriteOutcome) {
        if outcome == WriteOutcome::Written {
            self.written.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(object.length, Ordering::Relaxed);
        } else {
            self.found.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The context of every write.
#[derive(Clone, Copy)]
struct Work<'a> {
    plan: &'a Plan,
    source: &'a Source,
    remote: &'a Remote,
    counts: &'a Counts,
}

/// Writes an object that never changes.
async fn create(object: &Object, work: Work<'_>, progress: &(dyn Fn(PublishEvent<'_>) + Sync)) -> Result<()> {
    let Work { source, remote, counts, .. } = work;
    let mut outcome = match &object.content {
        Content::Bytes(bytes) => {
            let outcome = remote.create(&object.key, bytes).await?;
            progress(PublishEvent::Sent(object.length));
            outcome
        }
        Content::Artifact { sha256 } => {
            let sent = |bytes| progress(PublishEvent::Sent(bytes));
            let supply = source.supply(&object.key, sha256).await?;
            Job { remote, key: &object.key, length: object.length, sha256, sent: &sent }.upload(supply).await?
        }
        Content::Listing { .. } => return Err(Error::bug("a listing is no object that never changes")),
    };
    if let (WriteOutcome::Different, true, true, Content::Bytes(bytes)) =
        (outcome, object.ahead, remote.is_exclusive(), &object.content)
    {
        // Left by an abandoned publication: nothing live refers to it, and nobody else is publishing.
        outcome = remote.overwrite(&object.key, bytes).await?;
    }
    if outcome == WriteOutcome::Different {
        return Err(in_the_way(object, remote));
    }
    counts.add(object, outcome);
    progress(PublishEvent::Done(object, outcome));
    Ok(())
}

fn in_the_way(object: &Object, remote: &Remote) -> Error {
    let place = remote.name();
    let error = |what: &str| {
        Error::new(Kind::Conflict, format!("{} is at {place} already, with other content: {what}", object.key))
    };
    match object.stage {
        UploadStage::Target => error("its content does not have the hash in its name")
            .rule(Rule::PublishDamaged)
            .remedy("find out who damaged it, remove it, and publish again"),
        _ if object.ahead => error("another publication has used that version, and is under way or was given up")
            .rule(Rule::PublishLeftover)
            .remedy("if one is under way, wait for its end; if it was given up: `tidegate publish --rebase`, which removes what it left"),
        _ => error("another publication has used that version")
            .rule(Rule::PublishForeign)
            .remedy("this place holds, or held, another repository than this workspace: choose another place, or find out whose it is"),
    }
}

/// Writes the timestamp, unless another publisher has replaced it since the plan was made.
async fn commit(object: &Object, work: Work<'_>, progress: &(dyn Fn(PublishEvent<'_>) + Sync)) -> Result<()> {
    let Work { plan, remote, counts, .. } = work;
    let Content::Bytes(bytes) = &object.content else { return Err(Error::bug("a timestamp that is no metadata")) };
    let outcome = remote.replace(&object.key, bytes, plan.seen.as_ref()).await?;
    progress(PublishEvent::Sent(object.length));
    if outcome == WriteOutcome::Different {
        return Err(too_late(plan));
    }
    counts.add(object, outcome);
    progress(PublishEvent::Done(object, outcome));
    Ok(())
}

/// Writes the listing of what a gate serves to a cohort's devices, unless another publisher has replaced it since the plan was
/// made. One of two concurrent publishers must fail before its timestamp is live; otherwise the gate's content would not match
/// the live timestamp.
async fn list(object: &Object, work: Work<'_>, progress: &(dyn Fn(PublishEvent<'_>) + Sync)) -> Result<()> {
    let Work { plan, remote, counts, .. } = work;
    let Content::Listing { bytes, seen } = &object.content else { return Err(Error::bug("a listing that is none")) };
    let outcome = remote.replace(&object.key, bytes, seen.as_ref()).await?;
    progress(PublishEvent::Sent(object.length));
    if outcome == WriteOutcome::Different {
        return Err(too_late(plan));
    }
    counts.add(object, outcome);
    progress(PublishEvent::Done(object, outcome));
    Ok(())
}

fn too_late(plan: &Plan) -> Error {
    Error::new(
        Kind::Conflict,
        format!("conflict: someone else published in the meantime; {} has changed since this publication began", plan.place),
    )
    .rule(Rule::PublishRace)
    .remedy(
        "devices see theirs, and nothing of yours; take theirs over with `tidegate pull PLACE`, or let `tidegate publish --rebase PLACE` \
         do so and publish yours on top",
    )
}

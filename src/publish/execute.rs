//! Carrying out a plan.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use futures::stream::{self, StreamExt as _};
use serde::Serialize;
use tidegate_client::tuf::hash::to_hex;

use super::plan::{Content, Object, Plan, Stage, State, TIMESTAMP};
use super::remote::{Outcome, Remote};
use super::source::Source;
use crate::error::{Error, Kind, Result};

/// Objects of one stage that are under way at once.
const CONCURRENT: usize = 4;

/// What a publication did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Objects written.
    pub written: u64,
    /// Objects that were there already, left by a publication that was interrupted.
    pub found: u64,
    /// Bytes written.
    pub bytes: u64,
    /// The version of the timestamp that is live now.
    pub timestamp: u64,
}

/// What happens while a publication runs.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// So many bytes more are sent, or found to need no sending.
    Sent(u64),
    /// An object is in place.
    Done(&'a Object, Outcome),
}

/// Carries out `plan`; `progress` is told what happens.
///
/// At every instant the repository is as it was before, until the last write makes it the new one. Whatever interrupts it, doing
/// it again completes it. Errs with [`Kind::Conflict`] if another publisher was faster; devices then see theirs, untouched.
pub async fn execute(
    plan: &Plan,
    source: &Source,
    remote: &Remote,
    progress: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Report> {
    let _guard = remote.lock()?;
    let counts = Counts::default();
    let due =
        |stage| plan.objects.iter().filter(move |object| object.stage == stage && object.state != State::Unchanged);
    // Whoever has lost already must not leave versions behind that the winner's next change will want.
    if !plan.is_done() && !remote.is_still(TIMESTAMP, plan.seen.as_ref()).await? {
        return Err(too_late(plan));
    }
    for stage in [Stage::Target, Stage::Delegated, Stage::Targets, Stage::Snapshot, Stage::Root] {
        // Roots one by one: a client must never meet a root whose predecessor is missing.
        let concurrent = if stage == Stage::Root { 1 } else { CONCURRENT };
        all(due(stage), concurrent, |object| create(object, source, remote, &counts, progress)).await?;
    }
    for object in due(Stage::Timestamp) {
        commit(object, plan, remote, &counts, progress).await?;
    }
    Ok(Report {
        written: counts.written.into_inner(),
        found: counts.found.into_inner(),
        bytes: counts.bytes.into_inner(),
        timestamp: plan.timestamp,
    })
}

/// Runs `work` on every object, some at once. After an error no further one is begun, and those begun are waited for: a write that
/// goes on after the lock is released would be in the way of the next publisher.
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
    fn add(&self, object: &Object, outcome: Outcome) {
        if outcome == Outcome::Written {
            self.written.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(object.length, Ordering::Relaxed);
        } else {
            self.found.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes an object that never changes.
async fn create(
    object: &Object,
    source: &Source,
    remote: &Remote,
    counts: &Counts,
    progress: &(dyn Fn(Event<'_>) + Sync),
) -> Result<()> {
    let outcome = match &object.content {
        Content::Bytes(bytes) => {
            let outcome = remote.create(&object.key, bytes).await?;
            progress(Event::Sent(object.length));
            outcome
        }
        Content::Artifact { sha256 } => {
            let file = source.artifact(&to_hex(sha256));
            let sent = |bytes| progress(Event::Sent(bytes));
            remote.upload(&object.key, &file, object.length, sha256, &sent).await?
        }
    };
    if outcome == Outcome::Different {
        let place = remote.name();
        let (what, remedy) = if object.stage == Stage::Target {
            ("its content does not have the hash in its name", "find out who damaged it, remove it, and publish again")
        } else {
            (
                "another publication has used that version",
                "bring this workspace up to date with what is published and repeat the change; if that publication was given \
                 up, sign the role anew, which takes the next version",
            )
        };
        return Err(Error::new(
            Kind::Conflict,
            format!("{} is at {place} already, with other content: {what}", object.key),
        )
        .remedy(remedy));
    }
    counts.add(object, outcome);
    progress(Event::Done(object, outcome));
    Ok(())
}

/// Writes the timestamp, unless another publisher did since the plan was made.
async fn commit(
    object: &Object,
    plan: &Plan,
    remote: &Remote,
    counts: &Counts,
    progress: &(dyn Fn(Event<'_>) + Sync),
) -> Result<()> {
    let Content::Bytes(bytes) = &object.content else { return Err(Error::bug("a timestamp that is no metadata")) };
    let outcome = remote.replace(&object.key, bytes, plan.seen.as_ref()).await?;
    progress(Event::Sent(object.length));
    if outcome == Outcome::Different {
        return Err(too_late(plan));
    }
    counts.add(object, outcome);
    progress(Event::Done(object, outcome));
    Ok(())
}

fn too_late(plan: &Plan) -> Error {
    Error::new(
        Kind::Conflict,
        format!("another publisher was faster: {} has changed since this publication began", plan.place),
    )
    .remedy("devices see theirs, and nothing of yours; bring this workspace up to date with it, then repeat the change")
}

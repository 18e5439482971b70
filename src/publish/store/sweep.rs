//! Removes objects that nothing live refers to, while others may be publishing.
//!
//! A store removes whatever it is told to, and a publisher does not send an object that already exists: one publisher might find
//! an object that another process then removes. The timestamp, the one object that is replaced conditionally, keeps them apart:
//!
//! 1. the sweeper writes a mark, [`MARK`];
//! 2. it renews the timestamp, so that publishers that started earlier cannot finish;
//! 3. it removes the objects it had found;
//! 4. it removes the mark.
//!
//! A publisher reads the timestamp, then checks for the mark, then writes. If it sees no mark, there are two cases. Either the
//! sweep has already ended, and what it finds will stay; or the sweep's new timestamp comes after the one it has read, and its
//! own write of the timestamp fails. If it sees a mark, it stops before it writes anything: an object that it finds may be about
//! to be removed, and an object that it writes may be removed by a late request.

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::remote::{Remote, Seen, WriteOutcome};
use crate::error::{Error, Kind, Result, Rule};

/// The object that marks a running sweep.
pub const MARK: &str = ".tidegate/sweep.json";
/// A sweep whose mark is older than this has died: each of its requests ends sooner, and it checks its mark before each batch.
const PATIENCE: TimeDelta = TimeDelta::minutes(15);
/// Objects removed between two checks of the mark: as many as are removed concurrently, so that the last check is always recent.
const BATCH: usize = 8;
const MAX_MARK: u64 = 4096;

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    schema: u64,
    id: String,
    #[serde(with = "tidegate_model::time::text")]
    begun: DateTime<Utc>,
}

/// An object to remove.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::publish) struct Spot {
    /// Its key.
    pub(in crate::publish) key: String,
    /// Whether it is in the private place. The mark and the timestamp of the public place guard it as well: a publisher reads
    /// both before it writes anything anywhere.
    pub(in crate::publish) private: bool,
}

/// Whether a sweep is running at a place. Never true where publishers are kept apart by other means.
pub(in crate::publish) async fn is_under_way(remote: &Remote) -> Result<bool> {
    Ok(!remote.is_exclusive() && remote.read(MARK, MAX_MARK).await?.is_some())
}

/// The error of a publisher that stops because `key`, or another object it writes, might be removed again.
pub(in crate::publish) fn wait(remote: &Remote, key: &str) -> Error {
    Error::new(Kind::Conflict, format!("{} is being cleaned up, and {key} might be removed again", remote.name()))
        .rule(Rule::PublishSweep)
        .remedy(
            "publish again when that is done; if it never ends, run `tidegate prune PLACE --apply`, which finishes it",
        )
}

/// Removes objects that nothing live refers to. `fence` must replace the timestamp by a new one that is live when it returns,
/// except where publishers are kept apart by other means; `now` is written into the mark. Returns the number of removed objects.
pub(in crate::publish) async fn sweep<F>(
    remote: &Remote,
    doomed: &[Spot],
    now: DateTime<Utc>,
    fence: impl FnOnce() -> F,
) -> Result<u64>
where
    F: Future<Output = Result<()>>,
{
    if remote.is_exclusive() {
        fence().await?;
        return remove(remote, doomed, None).await;
    }
    let mark = Marked::leave(remote, now).await?;
    if let Err(error) = fence().await {
        // Nothing was removed yet, so nobody has to wait.
        let _ = remote.delete(MARK).await;
        return Err(error);
    }
    // From here on the mark stays until everything is done: a removal that seemed to fail may still happen.
    let removed = remove(remote, doomed, Some(&mark)).await?;
    remote.delete(MARK).await?;
    Ok(removed)
}

struct Marked(Bytes);

impl Marked {
    async fn leave(remote: &Remote, now: DateTime<Utc>) -> Result<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| Error::bug(format!("no randomness: {error}")))?;
        let id = tidegate_tuf::hash::to_hex(&random);
        let mark = serde_json::to_vec(&Mark { schema: 1, id, begun: now });
        let mark = Bytes::from(mark.map_err(|error| Error::bug("a mark").with_source(error))?);
        let before = remote.read(MARK, MAX_MARK).await?;
        if let Some(before) = &before {
            let other = |begun: &str| {
                Error::new(Kind::Conflict, format!("another clean-up of {} is under way since {begun}", remote.name()))
                    .rule(Rule::PublishSweep)
                    .remedy("wait for its end; one that has died can be taken over a quarter of an hour after it began")
            };
            if !is_dead(before) {
                return Err(other(&tidegate_tuf::time::format(before.written)));
            }
        }
        match remote.replace(MARK, &mark, before.as_ref()).await? {
            WriteOutcome::Written | WriteOutcome::AlreadyThere => Ok(Self(mark)),
            WriteOutcome::Different => {
                Err(Error::new(Kind::Conflict, format!("another clean-up of {} has just begun", remote.name()))
                    .rule(Rule::PublishSweep)
                    .remedy("wait for its end"))
            }
        }
    }
}

/// Whether the process that wrote the mark has died.
fn is_dead(mark: &Seen) -> bool {
    // Both are wall clocks, ours and the store's; stores reject requests from clocks that differ by more than that.
    Utc::now() - mark.written > PATIENCE
}

async fn remove(remote: &Remote, doomed: &[Spot], mark: Option<&Marked>) -> Result<u64> {
    use futures::{StreamExt as _, TryStreamExt as _, stream};
    let mut removed = 0;
    for batch in doomed.chunks(BATCH) {
        if let Some(Marked(mark)) = mark {
            let now = remote.read(MARK, MAX_MARK).await?;
            if now.is_none_or(|now| now.bytes != *mark) {
                return Err(Error::new(
                    Kind::Conflict,
                    format!("another clean-up of {} has taken over", remote.name()),
                )
                .rule(Rule::PublishSweep)
                .remedy("let it finish"));
            }
        }
        let delete = |spot: &'_ Spot| {
            let (side, key) = (remote.side(spot.private), spot.key.clone());
            async move { side?.delete(&key).await }
        };
        let deletes = stream::iter(batch).map(delete).buffer_unordered(BATCH);
        deletes.try_collect::<Vec<_>>().await?;
        removed += batch.len() as u64;
    }
    Ok(removed)
}

//! Records of publications, kept with the place: since when devices can see the steps of rollouts.
//!
//! Several checkouts publish to one place, and most of them keep nothing: what a machine renews and publishes is in no ledger, so that no
//! two ledgers differ. A record is one small object for each snapshot, made once. It is not signed: who may write to the place could have a
//! step count as older, never as older than it is by its own signed times. Without one a step counts from when it was seen.

use chrono::{DateTime, Utc};

use tidegate_tuf::Limits;
use tidegate_tuf::metadata::Timestamp;

use super::store::{Remote, TIMESTAMP};
use crate::error::Result;
use crate::metadata::{Repository, danger_parse_unverified};
use crate::workspace::Published;
use crate::workspace::published::{MAX_LENGTH, PublishedStep};

/// Leaves the record of a publication at the place; in its private place if there is one, as it names what is offered privately.
///
/// # Errors
///
/// Fails if it cannot be written.
pub async fn leave_record(remote: &Remote, published: &Published) -> Result<()> {
    let side = remote.private().unwrap_or(remote);
    side.create(&Published::key(published.snapshot), &published.to_file()?.into()).await.map(|_| ())
}

/// Copies the record of the publication of what is live from one place to another, so that steps keep their times at the copy. One that
/// is missing or damaged is left out.
///
/// # Errors
///
/// Fails if it cannot be written.
pub async fn copy_record(from: &Remote, to: &Remote) -> Result<()> {
    let seen = from.read(TIMESTAMP, Limits::default().timestamp_length).await?;
    let timestamp = seen.and_then(|seen| danger_parse_unverified::<Timestamp>("timestamp", &seen.bytes).ok());
    let Some(snapshot) = timestamp.map(|timestamp| timestamp.snapshot().version) else { return Ok(()) };
    let side = from.private().unwrap_or(from);
    let record = side.read(&Published::key(snapshot), MAX_LENGTH).await.ok().flatten();
    match record.and_then(|record| Published::parse(&record.bytes).ok()) {
        Some(published) if published.snapshot == snapshot => leave_record(to, &published).await,
        _ => Ok(()),
    }
}

/// What is live, with the times of its steps by the place's record and by what is `known` here.
pub(super) async fn published(
    remote: &Remote,
    live: &Repository,
    known: Option<&Published>,
    now: DateTime<Utc>,
) -> Result<Published> {
    let mut published = Published::of(live)?;
    let side = remote.private().unwrap_or(remote);
    // A record that is missing, forbidden or damaged stops nothing.
    let record = side.read(&Published::key(published.snapshot), MAX_LENGTH).await.ok().flatten();
    let record = record.and_then(|record| Published::parse(&record.bytes).ok());
    let record = record.filter(|record| record.sha256 == published.sha256);
    let mut steps: Vec<PublishedStep> = known.map(|known| known.steps.clone()).unwrap_or_default();
    // Nobody signs the record: it says only what is not known here.
    let news = record.into_iter().flat_map(|record| record.steps).filter(|step| step.known_in(&steps).is_none());
    let news: Vec<_> = news.collect();
    steps.extend(news);
    steps.sort_by(|a, b| a.role.cmp(&b.role));
    let known = steps;
    let roles = live.roles().filter_map(|role| Some((role.name.as_str(), live.targets(&role.name)?)));
    published.steps = PublishedStep::of(roles, &known, now)?;
    Ok(published)
}

//! Finds objects at a place that nothing needs.
//!
//! A device may have read its timestamp some time ago, or from a stale edge, and still be fetching what that timestamp refers to.
//! So pruning keeps the live snapshot with everything it refers to, and likewise every snapshot that was live within the grace
//! period.
//!
//! The same holds for the private place: it keeps what protected cohorts are assigned by those snapshots. Publishing only adds
//! entries to listings, so that a gate keeps serving what devices are fetching; pruning shortens the listings again. One private
//! place may serve several public mirrors. A prune at a mirror that lags does not see what the others have published since; but
//! those objects are younger than the grace period, unless the lagging timestamp has expired, and in that case nothing private is
//! removed.

mod needed;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use futures::stream::TryStreamExt as _;
use serde::Serialize;
use tidegate_model::layout::{DelegatedRole, Location};
use tidegate_model::listing::Listing;
use tidegate_tuf::Limits;
use tidegate_tuf::metadata::Timestamp;

use self::needed::Needed;
use super::store::sweep::{self, Spot};
use super::store::{self, Headers, PROBE, Remote, Seen, TIMESTAMP};
use crate::error::{Error, Result, Rule};
use crate::metadata::danger_parse_unverified;
use crate::workspace::Published;

/// Number of metadata files that are read concurrently.
const READERS: usize = 16;

/// An object that nothing needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PruneCandidate {
    /// Its key.
    pub key: String,
    /// Its length in bytes.
    pub length: u64,
    /// When it was written, by the store's clock.
    #[serde(with = "tidegate_model::time::text")]
    pub written: DateTime<Utc>,
    /// Whether it is in the private place.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
}

/// What pruning would do.
#[derive(Debug, Serialize)]
pub struct Pruning {
    /// The place.
    pub place: String,
    /// The private place, if it was examined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private: Option<String>,
    /// The live timestamp's version.
    pub live: u64,
    /// The snapshots whose files are kept.
    pub snapshots: Vec<u64>,
    /// Number of objects that are needed, at both places.
    pub kept: u64,
    /// Number of objects that are not needed but too young to be removed.
    pub young: u64,
    /// Number of objects that do not belong to a repository or, in the private place, to this repository. They are left alone.
    pub foreign: u64,
    /// Number of listings to shorten because they name objects that are not needed.
    pub listings: u64,
    /// Objects to remove: private ones first, listings before the objects they name, then the oldest first.
    pub doomed: Vec<PruneCandidate>,
    /// The live timestamp.
    #[serde(skip)]
    pub(super) seen: Option<Seen>,
    #[serde(skip)]
    shorter: Vec<needed::Shorter>,
    /// Whether the mark of another prune was found; that prune may have died.
    #[serde(skip)]
    pub(super) marked: bool,
}

impl Pruning {
    /// Whether there is nothing to do: nothing to remove, and no interrupted prune to finish.
    pub fn is_done(&self) -> bool {
        self.doomed.is_empty() && self.shorter.is_empty() && !self.marked
    }

    /// Number of bytes to free.
    pub fn bytes(&self) -> u64 {
        self.doomed.iter().map(|object| object.length).sum()
    }
}

/// Finds the objects of a place and of its private place that are not needed and were written before `cutoff`.
///
/// # Errors
///
/// Fails if nothing is published there, if the live state is inconsistent (then it is unknown what is needed), or if the grace
/// period from `cutoff` to `now` is shorter than the lifetime of a timestamp (`P-GRACE`): a stale edge would refer devices to
/// removed objects.
pub async fn plan_prune(remote: &Remote, cutoff: DateTime<Utc>, now: DateTime<Utc>) -> Result<Pruning> {
    let place = remote.name().to_owned();
    let nothing = || Error::input(format!("nothing is published at {place}"));
    // Read before the listing: whatever is published later is younger than anything that is removed.
    let seen = remote.read(TIMESTAMP, Limits::default().timestamp_length).await?.ok_or_else(nothing)?;
    let timestamp: Timestamp = parse("timestamp", &seen.bytes, &place)?;
    let lifetime = timestamp.common.issued.map_or(TimeDelta::zero(), |issued| timestamp.common.expires - issued);
    if now - cutoff < lifetime {
        let hours = lifetime.num_hours();
        return Err(Error::refused(
            Rule::PublishGrace,
            format!("timestamps of {place} live {hours} hours, longer than that grace period"),
        )
        .remedy(format!("an edge may serve one for as long; give a grace period of {hours}h or more")));
    }
    let live = timestamp.snapshot().version;
    let objects = list(remote, false).await?;
    let apart = match remote.private() {
        Some(private) => list(private, true).await?,
        None => BTreeMap::new(),
    };
    let marked = objects.contains_key(store::MARK);
    let snapshots = snapshots(&objects, live, cutoff);
    if !snapshots.contains(&live) {
        return Err(unsound(&place, &format!("metadata/{live}.snapshot.json is missing")));
    }
    let mut needed = Needed::by(remote, &snapshots, live, &objects, &apart).await?;
    let shorter = match remote.private() {
        Some(private) => needed.listings(private, &apart, cutoff).await?,
        None => Vec::new(),
    };

    let private = remote.private().map(|private| private.name().to_owned());
    let version = timestamp.common.version;
    let mut pruning = Pruning {
        place,
        private,
        live: version,
        snapshots,
        kept: 0,
        young: 0,
        foreign: 0,
        listings: shorter.len() as u64,
        doomed: Vec::new(),
        shorter,
        seen: Some(seen),
        marked,
    };
    let records: BTreeSet<_> = pruning.snapshots.iter().map(|snapshot| Published::key(*snapshot)).collect();
    for (key, object) in objects {
        let is_kept = needed.public.contains(&key)
            || key == TIMESTAMP
            || is_root(&key)
            || key == store::MARK
            || records.contains(&key);
        pruning.sort_in(object, is_kept, is_ours(&key) && remote.is_within(&key), cutoff);
    }
    for (key, object) in apart {
        let is_kept = needed.private.contains(&key);
        let is_within = remote.private().is_some_and(|private| private.is_within(&key));
        pruning.sort_in(object, is_kept, is_ours_apart(&key, &needed) && is_within, cutoff);
    }
    let is_private = !pruning.shorter.is_empty() || pruning.doomed.iter().any(|object| object.private);
    if is_private && timestamp.common.expires <= now {
        return Err(Error::refused(
            Rule::PublishGrace,
            format!("timestamp {version} of {} has expired", pruning.place),
        )
        .remedy(
            "what is published elsewhere may need what is private: prune at the first place, or publish here before",
        ));
    }
    pruning.doomed.sort_by_key(|object| {
        // Records of publications come last: who may not remove them has removed the rest.
        let is_record = Published::is_key(&object.key);
        (!object.private, is_record, Listing::cohort_of(&object.key).is_none(), object.written, object.key.clone())
    });
    Ok(pruning)
}

/// The snapshots whose files are kept: the live one, and every one that was live since `cutoff`.
fn snapshots(objects: &BTreeMap<String, PruneCandidate>, live: u64, cutoff: DateTime<Utc>) -> Vec<u64> {
    let mut snapshots: BTreeMap<u64, DateTime<Utc>> = BTreeMap::new();
    for (key, object) in objects {
        let version = key.strip_prefix("metadata/").and_then(|file| file.strip_suffix(".snapshot.json"));
        if let Some(version) = version.and_then(|version| version.parse().ok()).filter(|version| *version <= live) {
            snapshots.insert(version, object.written);
        }
    }
    // The newest snapshot written before the grace period was live when the period began.
    let first = snapshots.iter().filter(|(_, written)| **written < cutoff).map(|(version, _)| *version).max();
    snapshots.into_keys().filter(|version| *version >= first.unwrap_or(0)).collect()
}

impl Pruning {
    fn sort_in(&mut self, object: PruneCandidate, is_kept: bool, is_ours: bool, cutoff: DateTime<Utc>) {
        if is_kept {
            self.kept += 1;
        } else if !is_ours {
            self.foreign += 1;
        } else if object.written >= cutoff {
            self.young += 1;
        } else {
            self.doomed.push(object);
        }
    }
}

/// Removes the objects that were found. `fence` must renew the timestamp that was live when the plan was made, so that publishers
/// that started earlier must start again. It is not called where a lock keeps publishers apart; the caller holds that lock.
/// Returns the number of removed objects.
///
/// # Errors
///
/// Fails with a conflict if something was published since the plan was made, if another process holds the lock, or if the store
/// rejects a request.
pub async fn prune<F>(remote: &Remote, pruning: &Pruning, now: DateTime<Utc>, fence: impl FnOnce() -> F) -> Result<u64>
where
    F: Future<Output = Result<()>>,
{
    let _guard = remote.lock()?;
    let _private_guard = remote.private().map(Remote::lock).transpose()?;
    if !remote.is_still_at(pruning.seen.as_ref()).await? {
        return Err(Error::new(
            crate::Kind::Conflict,
            format!("something was published to {} meanwhile", pruning.place),
        )
        .rule(Rule::PublishRace)
        .remedy("nothing was removed; prune again"));
    }
    let spot = |object: &PruneCandidate| Spot { key: object.key.clone(), private: object.private };
    let spots: Vec<Spot> = pruning.doomed.iter().map(spot).collect();
    // Listings are shortened once no earlier publisher can finish, and before the objects they name are removed.
    let fence = || async {
        if !remote.is_exclusive() {
            fence().await?;
        }
        for shorter in &pruning.shorter {
            shorter.write(remote.side(true)?).await?;
        }
        Ok(())
    };
    sweep::sweep(remote, &spots, now, fence).await
}

/// All objects of the place by key; `private` tells which of the two places it is.
async fn list(remote: &Remote, private: bool) -> Result<BTreeMap<String, PruneCandidate>> {
    let prefix = (!remote.prefix.as_ref().is_empty()).then_some(&remote.prefix);
    let strip = if prefix.is_some() { remote.prefix.as_ref().len() + 1 } else { 0 };
    let mut found = BTreeMap::new();
    let mut objects = remote.store.list(prefix);
    while let Some(object) = objects.try_next().await.map_err(|error| remote.fault("list", "what is", &error))? {
        let Some(key) = object.location.as_ref().get(strip..).map(ToOwned::to_owned) else { continue };
        found.insert(key.clone(), PruneCandidate { key, length: object.size, written: object.last_modified, private });
    }
    Ok(found)
}

fn parse<T: tidegate_tuf::metadata::Metadata>(role: &str, bytes: &[u8], place: &str) -> Result<T> {
    danger_parse_unverified(role, bytes).map_err(|error| unsound(place, &format!("{role}: {error}")))
}

fn unsound(place: &str, what: &str) -> Error {
    Error::trust(format!("{place} does not hang together: {what}"))
        .remedy("nothing was removed; `tidegate verify` says more, publishing again restores what is missing")
}

fn is_root(key: &str) -> bool {
    key.strip_prefix("metadata/")
        .and_then(|file| file.strip_suffix(".root.json"))
        .is_some_and(|version| !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether publishing creates objects like this one. All others are not ours to remove.
fn is_ours(key: &str) -> bool {
    let immutable = Headers::of(key).cache_control == Headers::of("metadata/1.root.json").cache_control;
    (immutable && (key.starts_with("metadata/") || key.starts_with("targets/")))
        || key.starts_with(PROBE)
        || Published::is_key(key)
}

/// The same for the private place, and limited to this repository: other fleets may keep objects there, with channels and cohorts
/// of the same names. So only objects of cohorts that this repository's keys have signed, and of their channels, are ours.
fn is_ours_apart(key: &str, needed: &Needed) -> bool {
    let is_known = |role: &str| {
        let mut owned = needed.owned.iter();
        owned.any(|known| known == role || known.split_once('.').is_some_and(|(channel, _)| channel == role))
    };
    if key.starts_with(PROBE) {
        return true;
    }
    if let Some(role) = Listing::cohort_of(key) {
        return is_known(role);
    }
    if let Some(file) = key.strip_prefix("metadata/") {
        let role = file.split_once('.').and_then(|(_, role)| role.strip_suffix(".json"));
        let role = role.filter(|role| matches!(DelegatedRole::parse(role), Some(DelegatedRole::Cohort { .. })));
        return is_ours(key) && role.is_some_and(is_known);
    }
    // Records of publications name no repository, and stay.
    is_ours(key) && channel_of(key).is_some_and(|channel| is_known(&channel))
}

/// The channel of a target, from its key.
fn channel_of(key: &str) -> Option<String> {
    let path = key.strip_prefix("targets/")?;
    if let Some(Location::Delivery { channel, .. }) = Location::parse(path) {
        return Some(channel.to_string());
    }
    let (folder, file) = path.rsplit_once('/')?;
    let (_, name) = file.split_once('.')?;
    Some(match Location::parse(&format!("{folder}/{name}"))? {
        Location::CohortMap { channel }
        | Location::Manifest { channel, .. }
        | Location::Artifact { channel, .. }
        | Location::Assignment { channel, .. }
        | Location::Patches { channel, .. }
        | Location::Delivery { channel, .. } => channel.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_private_place_only_what_is_of_this_repository_is_removed() {
        let needed = Needed {
            roles: ["stable".into(), "stable.canary".into(), "beta".into(), "beta.canary".into()].into(),
            owned: ["stable.canary".into()].into(),
            ..Needed::default()
        };
        let hash = "ab".repeat(32);
        let release = |channel: &str| format!("targets/{channel}/releases/os/1.0.0/{hash}.os.img");
        for key in [
            "metadata/7.stable.canary.json",
            &release("stable"),
            &format!("targets/stable/cohorts/canary/{hash}.os.json"),
            &format!("targets/stable/delivery/{hash}.patch"),
            "gate/stable.canary.json",
            ".tidegate/probe/00ff",
        ] {
            assert!(is_ours_apart(key, &needed), "{key}");
        }
        for key in [
            "metadata/7.beta.canary.json",
            "metadata/7.stable.json",
            "metadata/timestamp.json",
            &release("beta"),
            &format!("targets/{hash}.x"),
            &format!("targets/beta/delivery/{hash}.patch"),
            "gate/beta.canary.json",
            "gate/stable.json",
            "gate/secret",
            "receipts/stable/os/1/x.json",
            ".tidegate/published/7.json",
            "notes.txt",
        ] {
            assert!(!is_ours_apart(key, &needed), "{key}");
        }
    }

    #[test]
    fn only_what_publishing_makes_is_removed() {
        let hash = "ab".repeat(32);
        for key in [
            "metadata/7.stable.json",
            &format!("targets/stable/{hash}.cohorts.json"),
            ".tidegate/probe/00ff",
            ".tidegate/published/7.json",
        ] {
            assert!(is_ours(key), "{key}");
        }
        for key in [
            "index.html",
            "metadata/notes.json",
            "targets/readme.txt",
            ".tidegate/sweep.json",
            ".tidegate/published/07.json",
            "7.stable.json",
        ] {
            assert!(!is_ours(key), "{key}");
        }
        assert!(
            is_root("metadata/12.root.json") && !is_root("metadata/x.root.json") && !is_root("metadata/.root.json")
        );
    }
}

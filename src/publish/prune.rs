//! Finding what a place holds and nothing needs.
//!
//! A device may have read its timestamp a while ago, or from an edge that is behind, and still be on its way through what that one
//! leads to. So not only the live snapshot is kept with all that hangs on it, but each that was live within the grace period.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use tidegate_client::model::cohort::CohortMap;
use tidegate_client::tuf::Limits;
use tidegate_client::tuf::metadata::{Snapshot, Targets, Timestamp};
use tidegate_client::tuf::path::{TargetPath, metadata_file};

use super::headers::Headers;
use super::plan::{MAX_MAP, TIMESTAMP};
use super::probe::PROBE;
use super::remote::{Remote, Seen};
use super::sweep;
use crate::error::{Error, Result};
use crate::metadata::danger_parse_unverified;
use crate::protect::{Maps, Protection};

/// Metadata files read at once.
const READERS: usize = 16;

/// An object that nothing needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Doomed {
    /// Its key.
    pub key: String,
    /// Its length in bytes.
    pub length: u64,
    /// When it was written, by the store's clock.
    #[serde(with = "tidegate_client::model::time::text")]
    pub written: DateTime<Utc>,
}

/// What pruning would do.
#[derive(Debug, Serialize)]
pub struct Pruning {
    /// Where.
    pub place: String,
    /// The live timestamp's version.
    pub live: u64,
    /// The snapshots whose files are kept.
    pub snapshots: Vec<u64>,
    /// Objects that are needed.
    pub kept: u64,
    /// Objects that are not needed, and too young to be removed.
    pub young: u64,
    /// Objects that are none of a repository's, which are left alone.
    pub foreign: u64,
    /// Objects to remove, the oldest first.
    pub doomed: Vec<Doomed>,
    /// The live timestamp.
    #[serde(skip)]
    pub(super) seen: Option<Seen>,
    /// Whether the mark of a clean-up is there, which may have died.
    #[serde(skip)]
    pub(super) marked: bool,
}

impl Pruning {
    /// Whether there is nothing to do: nothing to remove, and no clean-up that died and is to be finished.
    pub fn is_done(&self) -> bool {
        self.doomed.is_empty() && !self.marked
    }

    /// Bytes to be freed.
    pub fn bytes(&self) -> u64 {
        self.doomed.iter().map(|object| object.length).sum()
    }
}

/// Finds what is not needed at a place and was written before `cutoff`.
///
/// Errs if what is live does not hang together: then nobody can say what is needed. Errs if the grace period, which is from `cutoff` to
/// `now`, is shorter than timestamps live: an edge that is behind would lead devices to what is gone.
pub async fn plan_prune(remote: &Remote, cutoff: DateTime<Utc>, now: DateTime<Utc>) -> Result<Pruning> {
    let place = remote.name().to_owned();
    let nothing = || Error::input(format!("nothing is published at {place}"));
    // Before the listing: whatever is published later is younger than anything that is removed.
    let seen = remote.read(TIMESTAMP, Limits::default().timestamp_length).await?.ok_or_else(nothing)?;
    let timestamp: Timestamp = parse("timestamp", &seen.bytes, &place)?;
    let lifetime = timestamp.common.issued.map_or(TimeDelta::zero(), |issued| timestamp.common.expires - issued);
    if now - cutoff < lifetime {
        let hours = lifetime.num_hours();
        return Err(Error::refused(format!("timestamps of {place} live {hours} hours, longer than that grace period"))
            .rule("P-GRACE")
            .remedy(format!("an edge may serve one for as long; give a grace period of {hours}h or more")));
    }
    let live = timestamp.snapshot().version;
    let objects = list(remote).await?;
    let marked = objects.contains_key(sweep::MARK);

    let mut snapshots: BTreeMap<u64, DateTime<Utc>> = BTreeMap::new();
    for (key, object) in &objects {
        let version = key.strip_prefix("metadata/").and_then(|file| file.strip_suffix(".snapshot.json"));
        if let Some(version) = version.and_then(|version| version.parse().ok()).filter(|version| *version <= live) {
            snapshots.insert(version, object.written);
        }
    }
    // The newest that was written before the grace period was live when it began.
    let first = snapshots.iter().filter(|(_, written)| **written < cutoff).map(|(version, _)| *version).max();
    let snapshots: Vec<u64> = snapshots.into_keys().filter(|version| *version >= first.unwrap_or(0)).collect();
    if !snapshots.contains(&live) {
        return Err(unsound(&place, &format!("metadata/{live}.snapshot.json is missing")));
    }
    let needed = needed(remote, &snapshots, live, &objects, &place).await?;

    let (mut kept, mut young, mut foreign, mut doomed) = (0, 0, 0, Vec::new());
    for (key, object) in objects {
        if needed.contains(&key) || key == TIMESTAMP || is_root(&key) || key == sweep::MARK {
            kept += 1;
        } else if !is_ours(&key) {
            foreign += 1;
        } else if object.written >= cutoff {
            young += 1;
        } else {
            doomed.push(object);
        }
    }
    doomed.sort_by(|a, b| (a.written, &a.key).cmp(&(b.written, &b.key)));
    let live = timestamp.common.version;
    Ok(Pruning { place, live, snapshots, kept, young, foreign, doomed, marked, seen: Some(seen) })
}

/// Removes what was found. `fence` must renew the timestamp that was live when the plan was made, so that whoever began before has to begin again; it is not
/// called where publishers are kept apart by other means, which is then the caller's lock. Gives the number of objects removed.
pub async fn prune<F>(remote: &Remote, pruning: &Pruning, now: DateTime<Utc>, fence: impl FnOnce() -> F) -> Result<u64>
where
    F: Future<Output = Result<()>>,
{
    let _guard = remote.lock()?;
    if !remote.is_still_at(pruning.seen.as_ref()).await? {
        return Err(Error::new(
            crate::Kind::Conflict,
            format!("something was published to {} meanwhile", pruning.place),
        )
        .rule(super::execute::RACE)
        .remedy("nothing was removed; prune again"));
    }
    let keys: Vec<String> = pruning.doomed.iter().map(|object| object.key.clone()).collect();
    sweep::sweep(remote, &keys, now, fence).await
}

/// All objects of the place, by key.
async fn list(remote: &Remote) -> Result<BTreeMap<String, Doomed>> {
    let prefix = (!remote.prefix.as_ref().is_empty()).then_some(&remote.prefix);
    let strip = if prefix.is_some() { remote.prefix.as_ref().len() + 1 } else { 0 };
    let mut found = BTreeMap::new();
    let mut objects = remote.store.list(prefix);
    while let Some(object) = objects.try_next().await.map_err(|error| remote.fault("list", "what is", &error))? {
        let Some(key) = object.location.as_ref().get(strip..).map(ToOwned::to_owned) else { continue };
        found.insert(key.clone(), Doomed { key, length: object.size, written: object.last_modified });
    }
    Ok(found)
}

/// The keys of all that the snapshots lead to.
async fn needed(
    remote: &Remote,
    snapshots: &[u64],
    live: u64,
    objects: &BTreeMap<String, Doomed>,
    place: &str,
) -> Result<BTreeSet<String>> {
    let limits = Limits::default();
    let mut needed = BTreeSet::new();
    let mut roles: BTreeMap<String, (String, bool)> = BTreeMap::new();
    let mut by_snapshot: Vec<Vec<String>> = Vec::new();
    for version in snapshots {
        let key = format!("metadata/{}", metadata_file("snapshot", Some(*version)));
        let bytes = remote.read(&key, limits.snapshot_length).await?;
        let bytes = bytes.ok_or_else(|| unsound(place, &format!("{key} is missing")))?.bytes;
        let snapshot: Snapshot = parse("snapshot", &bytes, place)?;
        let mut keys = Vec::new();
        for (file, meta) in &snapshot.meta {
            let role = file.strip_suffix(".json").unwrap_or(file);
            let key = format!("metadata/{}", metadata_file(role, Some(meta.version)));
            let entry = roles.entry(key.clone()).or_insert_with(|| (role.to_owned(), false));
            entry.1 |= *version == live;
            keys.push(key);
        }
        by_snapshot.push(keys);
        needed.insert(key);
    }
    // A snapshot lists each role as it was in its time: of the older ones some may have gone already. The private place is not listed.
    roles.retain(|key, (_, is_live)| *is_live || objects.contains_key(key) || remote.private().is_some());
    let files: Vec<Option<(String, (String, Targets))>> = stream::iter(roles)
        .map(|(key, (role, is_live))| async move {
            match remote.find(&key, limits.targets_length).await? {
                Some(seen) => {
                    let targets = parse::<Targets>(&role, &seen.bytes, place)?;
                    Ok::<_, Error>(Some((key, (role, targets))))
                }
                None if !is_live => Ok(None),
                None if role.contains('.') && remote.private().is_none() => {
                    Err(unsound(place, &format!("{key} is missing"))
                        .remedy("nothing was removed; if its cohort is protected, say where what is protected lies: --private PLACE"))
                }
                None => Err(unsound(place, &format!("{key} is missing"))),
            }
        })
        .buffer_unordered(READERS)
        .try_collect()
        .await?;
    let files: BTreeMap<String, (String, Targets)> = files.into_iter().flatten().collect();
    let maps = cohort_maps(remote, &files).await?;
    for keys in by_snapshot {
        let roles = || keys.iter().filter_map(|key| Some((key, files.get(key)?)));
        // What was public then is kept for who is still on the way; what is protected now and lies here all the same is not.
        let protection = Protection::of(roles().map(|(_, (role, targets))| (role.as_str(), targets)), &maps);
        for (key, (role, targets)) in roles() {
            if !protection.is_protected(role) {
                needed.insert(key.clone());
            }
            for (path, file) in &targets.targets {
                let path = TargetPath::new(path).map_err(|error| unsound(place, &error.to_string()))?;
                let key = format!("targets/{}", path.file_path(&file.hashes, true));
                if !protection.needs(&key).is_secret() {
                    needed.insert(key);
                }
            }
        }
    }
    Ok(needed)
}

/// The cohort maps that these roles list, as far as they can be read: one that cannot protects nothing, and so dooms nothing.
async fn cohort_maps(remote: &Remote, files: &BTreeMap<String, (String, Targets)>) -> Result<Maps> {
    let mut maps = Maps::new();
    for (path, file) in Protection::maps(files.values().map(|(role, targets)| (role.as_str(), targets))) {
        let Some(sha256) = file.hashes.sha256_digest().filter(|sha256| !maps.contains_key(*sha256)) else { continue };
        let Ok(path) = TargetPath::new(&path) else { continue };
        let key = format!("targets/{}", path.file_path(&file.hashes, true));
        let bytes = remote.read(&key, MAX_MAP).await?;
        if let Some(map) = bytes.and_then(|seen| CohortMap::parse(&seen.bytes).ok()) {
            maps.insert(*sha256, map);
        }
    }
    Ok(maps)
}

fn parse<T: tidegate_client::tuf::metadata::Metadata>(role: &str, bytes: &[u8], place: &str) -> Result<T> {
    danger_parse_unverified(role, bytes).map_err(|error| unsound(place, &format!("{role}: {error}")))
}

fn unsound(place: &str, what: &str) -> Error {
    Error::trust(format!("{place} does not hang together: {what}"))
        .remedy("nothing was removed; `tidegate verify` says more, publishing again mends what is missing")
}

fn is_root(key: &str) -> bool {
    key.strip_prefix("metadata/")
        .and_then(|file| file.strip_suffix(".root.json"))
        .is_some_and(|version| !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether an object is one that publishing makes: anything else is not ours to remove.
fn is_ours(key: &str) -> bool {
    let immutable = Headers::of(key).cache_control == Headers::of("metadata/1.root.json").cache_control;
    (immutable && (key.starts_with("metadata/") || key.starts_with("targets/"))) || key.starts_with(PROBE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_publishing_makes_is_removed() {
        let hash = "ab".repeat(32);
        for key in ["metadata/7.stable.json", &format!("targets/stable/{hash}.cohorts.json"), ".tidegate/probe/00ff"] {
            assert!(is_ours(key), "{key}");
        }
        for key in ["index.html", "metadata/notes.json", "targets/readme.txt", ".tidegate/sweep.json", "7.stable.json"]
        {
            assert!(!is_ours(key), "{key}");
        }
        assert!(
            is_root("metadata/12.root.json") && !is_root("metadata/x.root.json") && !is_root("metadata/.root.json")
        );
    }
}

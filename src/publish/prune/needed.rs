//! What the kept snapshots refer to, at each of the two places.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tidegate_model::cohort::CohortMap;
use tidegate_model::layout::{DelegatedRole, channel_role};
use tidegate_model::listing::{Listing, MAX_LISTING};
use tidegate_tuf::metadata::{Envelope, Snapshot, Targets};
use tidegate_tuf::path::{TargetPath, metadata_file};
use tidegate_tuf::{Limits, valid_signers};

use super::{PruneCandidate, READERS, parse, unsound};
use crate::audit::delivery::{self, DeliveryFile};
use crate::audit::protect::{Maps, Protection};
use crate::error::{Error, Result, Rule};
use crate::publish::plan::MAX_MAP;
use crate::publish::store::{Remote, Seen, WriteOutcome};

/// The needed objects, by key.
#[derive(Debug, Default)]
pub(super) struct Needed {
    pub(super) public: BTreeSet<String>,
    pub(super) private: BTreeSet<String>,
    /// All roles that this repository has or had: a snapshot keeps listing roles that were abandoned.
    pub(super) roles: BTreeSet<String>,
    /// The roles of cohorts that are protected in one of the snapshots.
    pub(super) protected: BTreeSet<String>,
    /// The roles of cohorts whose objects in the private place were signed by this repository's keys, now or earlier.
    pub(super) owned: BTreeSet<String>,
}

/// A role file that was read.
struct Read {
    role: String,
    bytes: Vec<u8>,
    targets: Targets,
}

impl Needed {
    /// What these snapshots refer to; `live` is the live one. `objects` are the contents of the public place, `apart` those of
    /// the private one.
    pub(super) async fn by(
        remote: &Remote,
        snapshots: &[u64],
        live: u64,
        objects: &BTreeMap<String, PruneCandidate>,
        apart: &BTreeMap<String, PruneCandidate>,
    ) -> Result<Self> {
        let (place, limits) = (remote.name(), Limits::default());
        let mut needed = Self::default();
        let mut roles: BTreeMap<String, (String, bool)> = BTreeMap::new();
        let mut by_snapshot: Vec<(bool, Vec<String>)> = Vec::new();
        for version in snapshots {
            let key = format!("metadata/{}", metadata_file("snapshot", Some(*version)));
            let bytes = remote.read(&key, limits.snapshot_length).await?;
            let bytes = bytes.ok_or_else(|| unsound(place, &format!("{key} is missing")))?.bytes;
            let snapshot: Snapshot = parse("snapshot", &bytes, place)?;
            let mut keys = Vec::new();
            for (file, meta) in &snapshot.meta {
                let role = file.strip_suffix(".json").unwrap_or(file);
                needed.roles.insert(role.to_owned());
                let key = format!("metadata/{}", metadata_file(role, Some(meta.version)));
                let entry = roles.entry(key.clone()).or_insert_with(|| (role.to_owned(), false));
                entry.1 |= *version == live;
                keys.push(key);
            }
            by_snapshot.push((*version == live, keys));
            needed.public.insert(key);
        }
        // A snapshot lists each role as it was at that time; some roles of older snapshots may already be gone.
        roles.retain(|key, (_, is_live)| *is_live || objects.contains_key(key) || remote.private().is_some());
        let files = read(remote, roles).await?;
        let maps = cohort_maps(remote, &files).await?;
        let is_delivery = |key: &String| delivery::is_file(key);
        let is_any = objects.keys().any(is_delivery) || apart.keys().any(is_delivery);
        let named = if is_any { named(remote, &files).await? } else { BTreeMap::new() };
        let channels: BTreeMap<&str, &Targets> = by_snapshot
            .iter()
            .filter(|(is_live, _)| *is_live)
            .flat_map(|(_, keys)| keys.iter().filter_map(|key| files.get(key)))
            .map(|read| (read.role.as_str(), &read.targets))
            .collect();
        if let Some(private) = remote.private() {
            needed.owned = owned(private, apart, &needed.roles, &channels).await?;
        }
        for (is_live, keys) in by_snapshot {
            let roles = || keys.iter().filter_map(|key| Some((key, files.get(key)?)));
            // What was public then is kept for devices that still fetch it; what is protected now but publicly stored is not.
            let mut protection = Protection::of(roles().map(|(_, read)| (read.role.as_str(), &read.targets)), &maps);
            if is_live && remote.private().is_some() {
                let all: BTreeMap<&str, &Read> = roles().map(|(_, read)| (read.role.as_str(), read)).collect();
                theirs(&protection, &all, place)?;
            }
            needed.protected.extend(protection.roles().map(ToOwned::to_owned));
            for (key, read) in roles() {
                let side = if protection.is_protected(&read.role) { &mut needed.private } else { &mut needed.public };
                side.insert(key.clone());
                for (path, file) in &read.targets.targets {
                    let path = TargetPath::new(path).map_err(|error| unsound(place, &error.to_string()))?;
                    let key = format!("targets/{}", path.file_path(&file.hashes, true));
                    let files = named.get(&key).map_or(&[][..], Vec::as_slice);
                    protection.follow(&key, files);
                    let needs = protection.needs(&key);
                    for key in files.iter().map(DeliveryFile::key).chain([key]) {
                        // Unassigned targets stay where they are.
                        if needs.private || !needs.public {
                            needed.private.insert(key.clone());
                        }
                        if !needs.is_apart() {
                            needed.public.insert(key);
                        }
                    }
                }
            }
        }
        Ok(needed)
    }

    /// Marks the listings of protected cohorts as needed, and returns shortened copies of those that name unneeded objects.
    /// `objects` are the contents of the private place; unneeded objects older than `cutoff` are removed.
    pub(super) async fn listings(
        &mut self,
        private: &Remote,
        objects: &BTreeMap<String, PruneCandidate>,
        cutoff: DateTime<Utc>,
    ) -> Result<Vec<Shorter>> {
        let mut shorter = Vec::new();
        for key in objects.keys() {
            let Some(role) = Listing::cohort_of(key).filter(|role| self.protected.contains(*role)) else { continue };
            self.private.insert(key.clone());
            let Some(seen) = private.read(key, MAX_LISTING).await? else { continue };
            let mut listing = Listing::parse(&seen.bytes, role)
                .map_err(|error| unsound(private.name(), &format!("{key} is no listing")).with_source(error))?;
            let named = listing.objects.len();
            let stays = |key: &String| {
                objects.get(key).is_some_and(|object| self.private.contains(key) || object.written >= cutoff)
            };
            listing.objects.retain(stays);
            if listing.objects.len() < named {
                let bytes = listing.to_bytes().map_err(|error| Error::bug("a listing").with_source(error))?;
                shorter.push(Shorter { key: key.clone(), bytes: bytes.into(), seen });
            }
        }
        Ok(shorter)
    }
}

/// A listing without the entries that are gone or will be removed.
#[derive(Debug)]
pub(in crate::publish) struct Shorter {
    key: String,
    bytes: Bytes,
    seen: Seen,
}

impl Shorter {
    /// Replaces the listing that was read.
    pub(super) async fn write(&self, private: &Remote) -> Result<()> {
        match private.replace(&self.key, &self.bytes, Some(&self.seen)).await? {
            WriteOutcome::Written | WriteOutcome::AlreadyThere => Ok(()),
            WriteOutcome::Different => Err(Error::new(
                crate::Kind::Conflict,
                format!("{} at {} has changed meanwhile", self.key, private.name()),
            )
            .rule(Rule::PublishRace)
            .remedy("nothing was removed; prune again")),
        }
    }
}

async fn read(remote: &Remote, roles: BTreeMap<String, (String, bool)>) -> Result<BTreeMap<String, Read>> {
    let (place, limits) = (remote.name(), Limits::default());
    let files: Vec<Option<(String, Read)>> = stream::iter(roles)
        .map(|(key, (role, is_live))| async move {
            match remote.find(&key, limits.targets_length).await? {
                Some(seen) => {
                    let targets = parse::<Targets>(&role, &seen.bytes, place)?;
                    Ok::<_, Error>(Some((key, Read { role, bytes: seen.bytes.to_vec(), targets })))
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
    Ok(files.into_iter().flatten().collect())
}

/// What the listed manifests and lists of patches name, by their keys. What is missing of an earlier state names nothing more.
async fn named(remote: &Remote, files: &BTreeMap<String, Read>) -> Result<BTreeMap<String, Vec<DeliveryFile>>> {
    let mut listed: BTreeMap<String, String> = BTreeMap::new();
    for (path, file) in files.values().flat_map(|read| &read.targets.targets) {
        if let (true, Ok(target)) = (delivery::names_some(path), TargetPath::new(path)) {
            listed.insert(format!("targets/{}", target.file_path(&file.hashes, true)), path.clone());
        }
    }
    stream::iter(listed)
        .map(|(key, path)| async move {
            let Some(seen) = remote.find(&key, delivery::MAX_LENGTH).await? else { return Ok((key, Vec::new())) };
            match delivery::named(&path, &seen.bytes) {
                Some(named) => Ok::<_, Error>((key, named)),
                None => Err(unsound(remote.name(), &format!("{key} is malformed"))),
            }
        })
        .buffer_unordered(READERS)
        .try_collect()
        .await
}

/// Those of the cohorts' roles whose newest file in the private place is signed by a live channel's keys, whichever of its
/// cohorts they belong to: a cohort may have been removed. Names alone prove nothing, because other fleets may use the same
/// channel and cohort names.
async fn owned(
    private: &Remote,
    apart: &BTreeMap<String, PruneCandidate>,
    roles: &BTreeSet<String>,
    channels: &BTreeMap<&str, &Targets>,
) -> Result<BTreeSet<String>> {
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    for key in apart.keys() {
        let Some((version, role)) = key.strip_prefix("metadata/").and_then(|file| file.split_once('.')) else {
            continue;
        };
        let (Ok(version), Some(role)) = (version.parse(), role.strip_suffix(".json")) else { continue };
        let best = newest.entry(role).or_insert(version);
        *best = version.max(*best);
    }
    let mut owned = BTreeSet::new();
    for (role, version) in newest.into_iter().filter(|(role, _)| roles.contains(*role)) {
        let Some(DelegatedRole::Cohort { channel, .. }) = DelegatedRole::parse(role) else { continue };
        let Some(delegations) = channels.get(channel_role(&channel).as_str()).and_then(|it| it.delegations.as_ref())
        else {
            continue;
        };
        let key = format!("metadata/{}", metadata_file(role, Some(version)));
        let Some(seen) = private.read(&key, Limits::default().targets_length).await? else { continue };
        let Ok(envelope) = Envelope::parse(role, &seen.bytes) else { continue };
        let mut declared = delegations.roles.iter();
        if declared.any(|it| valid_signers(delegations.keys(), &it.role, &envelope).len() as u64 >= it.role.threshold) {
            owned.insert(role.to_owned());
        }
    }
    Ok(owned)
}

/// Checks that the live cohorts in the private place belong to this repository. The snapshot lists such roles only by version,
/// and the configured private place may belong to another fleet: pruning would then remove all its objects.
///
/// # Errors
///
/// Fails if a role in the private place is not signed by this repository's keys.
fn theirs(protection: &Protection, roles: &BTreeMap<&str, &Read>, place: &str) -> Result<()> {
    for role in protection.roles() {
        let Some(DelegatedRole::Cohort { channel, .. }) = DelegatedRole::parse(role) else { continue };
        let channel = channel_role(&channel);
        let (Some(read), Some(above)) = (roles.get(role), roles.get(channel.as_str())) else { continue };
        let declared = above.targets.delegation(role).zip(above.targets.delegations.as_ref());
        let envelope = Envelope::parse(role, &read.bytes).ok();
        let is_theirs = declared.zip(envelope).is_some_and(|((delegation, all), envelope)| {
            valid_signers(all.keys(), &delegation.role, &envelope).len() as u64 >= delegation.role.threshold
        });
        if !is_theirs {
            return Err(unsound(place, &format!("{role} is not signed by the keys that {channel} names"))
                .remedy("nothing was removed; check that the private place is the one of this repository"));
        }
    }
    Ok(())
}

/// The cohort maps that these roles list. An unreadable map protects nothing, so it causes no removal in the public place. With a
/// private place it is an error, because protected objects would be removed there.
async fn cohort_maps(remote: &Remote, files: &BTreeMap<String, Read>) -> Result<Maps> {
    let mut maps = Maps::new();
    for (path, file) in Protection::maps(files.values().map(|read| (read.role.as_str(), &read.targets))) {
        let Some(sha256) = file.hashes.sha256_digest().filter(|sha256| !maps.contains_key(*sha256)) else { continue };
        let Ok(path) = TargetPath::new(&path) else { continue };
        let key = format!("targets/{}", path.file_path(&file.hashes, true));
        let bytes = remote.read(&key, MAX_MAP).await?;
        match bytes.and_then(|seen| CohortMap::parse(&seen.bytes).ok()) {
            Some(map) => drop(maps.insert(*sha256, map)),
            None if remote.private().is_some() => {
                return Err(unsound(remote.name(), &format!("{key} is missing or is no cohort map")));
            }
            None => {}
        }
    }
    Ok(maps)
}

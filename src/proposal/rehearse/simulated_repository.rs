//! A shadow repository before and after a proposal, and at every instant between, and devices that look at it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tidegate_client::clock::StubClock;
use tidegate_client::fetch::MemoryFetch;
use tidegate_client::store::MemoryStore;
use tidegate_client::updater::{Repository as Location, Updater};
use tidegate_tuf::key::KeyId;
use tidegate_tuf::metadata::{Role, Root, Targets};
use tidegate_tuf::path::TargetPath;

use super::Fate;
use super::compromised_keys::{reissue, thief};
use super::throwaway_keys::{Files, Shadow, list, signed_part};
use crate::error::{Error, Result};
use crate::metadata::{Repository, listed_by_version_alone};
use crate::proposal::file::Proposal;
use crate::proposal::verify::Verified;

const URL: &str = "memory://rehearsal";

/// A shadow repository before and after, and at every instant between.
pub(super) struct RehearsalRepository {
    /// The version of the first of its roots.
    first: usize,
    roots: Vec<Vec<u8>>,
    pub(super) before: Files,
    pub(super) after: Files,
    pub(super) instants: Vec<(String, Files)>,
    /// Ran-up timestamp and snapshot, if the proposal revokes the keys that could sign them.
    thief: Option<Files>,
    paths: Vec<TargetPath>,
    location: Location,
    now: DateTime<Utc>,
}

impl RehearsalRepository {
    pub(super) fn new(
        proposal: &Proposal,
        verified: &Verified,
        repository: &Repository,
        lost: &BTreeSet<KeyId>,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let mut shadow = Shadow::default();
        let InForce { roots, files: before, mut snapshot, mut timestamp } =
            in_force(&mut shadow, verified, repository, now)?;
        let online = (&mut snapshot, &mut timestamp);
        let uploads = uploads(&mut shadow, proposal, verified, repository, lost, online, now)?;
        let mut files = before.clone();
        let mut instants = Vec::new();
        for (role, version, bytes) in uploads {
            let name = files.put(&role, version, bytes);
            instants.push((name, files.clone()));
        }
        let after = files;
        // The whole is the last instant.
        instants.pop();
        let thief = thief(
            &mut shadow,
            verified,
            &before,
            (snapshot.signed, timestamp.signed),
            (&snapshot.signers, &timestamp.signers),
            now,
        )?;
        let first = usize::try_from(repository.first_root()).map_err(|_| Error::bug("a version of a root"))?;
        let (paths, location) = (probes(repository), Location::at(URL).map_err(|_| Error::bug("a URL"))?);
        Ok(Self { first, roots, before, after, instants, thief, paths, location, now })
    }

    /// The versions of the roots that devices were shipped with.
    pub(super) fn versions(&self) -> impl Iterator<Item = usize> + use<> {
        self.first..self.first + self.roots.len()
    }

    pub(super) fn device(&self, version: usize) -> Result<Device> {
        let index = version.checked_sub(self.first);
        let root = index.and_then(|index| self.roots.get(index)).cloned().ok_or_else(|| Error::bug("no such root"))?;
        Ok(Device { root, store: MemoryStore::new() })
    }

    /// Lets a device check, with what it remembers, and tells what became of it.
    pub(super) fn check(&self, device: &Device, files: &Files, name: String) -> Fate {
        let fetch = MemoryFetch::new();
        for (file, bytes) in &files.0 {
            fetch.put(format!("{URL}/metadata/{file}"), bytes.as_slice());
        }
        let clock = StubClock::at(self.now);
        let mut updater = Updater::new(device.root.clone(), self.location.clone(), fetch, device.store.clone(), clock);
        let result = updater.refresh().map(|_| ()).and_then(|()| {
            // Looking for a path walks the delegations down to it; whether it is listed does not matter here.
            for path in &self.paths {
                match updater.find(path) {
                    Ok(_) | Err(tidegate_client::Error::TargetNotFound { .. }) => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(())
        });
        let root = updater.trusted().map_or(0, |trusted| trusted.root().common.version);
        let error = result.err();
        let expired = matches!(&error, Some(tidegate_client::Error::Metadata(error)) if error.is_expired());
        Fate { device: name, root, error: error.map(|error| error.to_string()), expired }
    }

    /// A device that a thief of the online keys ran up to the highest versions, and then the proposal.
    pub(super) fn run_up(&self) -> Result<Option<Fate>> {
        let Some(thief) = &self.thief else { return Ok(None) };
        let device = self.device(self.first + self.roots.len() - 1)?;
        let misled = self.check(&device, thief, String::new());
        if let Some(error) = misled.error {
            return Err(Error::bug(format!("the rehearsal's thief was noticed: {error}")));
        }
        Ok(Some(self.check(&device, &self.after, "misled by a thief of the online keys who ran up versions".into())))
    }
}

pub(super) struct Device {
    root: Vec<u8>,
    store: MemoryStore,
}

/// Signers of a file among the keys that a role declares.
fn signers_of(
    name: &str,
    bytes: &[u8],
    keys: &BTreeMap<KeyId, tidegate_tuf::key::Key>,
    role: Option<&Role>,
) -> Result<BTreeSet<KeyId>> {
    let envelope = tidegate_tuf::metadata::Envelope::parse(name, bytes).map_err(|e| Error::bug(e.to_string()))?;
    Ok(role.map(|role| tidegate_tuf::valid_signers(keys, role, &envelope)).unwrap_or_default().into_iter().collect())
}

/// Everyone who may sign a role and has not lost the key.
fn may_sign(verified: &Verified, role: &str, lost: &BTreeSet<KeyId>) -> BTreeSet<KeyId> {
    let all = verified.requirements.iter().filter(|r| r.role == role).flat_map(|r| &r.threshold.keyids);
    all.filter(|id| !lost.contains(id)).cloned().collect()
}

type Renewed = (String, Value, BTreeSet<KeyId>);

/// The repository in force, signed with simulated keys.
struct InForce {
    roots: Vec<Vec<u8>>,
    files: Files,
    snapshot: Online,
    timestamp: Online,
}

/// A role that publishing renews: its content, its version, and who signs it now.
struct Online {
    signed: Value,
    version: u64,
    signers: BTreeSet<KeyId>,
}

fn in_force(shadow: &mut Shadow, verified: &Verified, repository: &Repository, now: DateTime<Utc>) -> Result<InForce> {
    let mut before = Files::default();
    let mut roots = Vec::new();
    // Roots were signed by keys of the one before as well.
    let mut earlier: Option<&Root> = None;
    let known = (1..).zip(repository.roots()).filter(|(version, _)| *version >= repository.first_root());
    for ((version, bytes), root) in known.zip(&verified.roots) {
        let mut signers = signers_of("root", bytes, root.keys(), root.role("root"))?;
        if let Some(earlier) = earlier {
            signers.extend(signers_of("root", bytes, earlier.keys(), earlier.role("root"))?);
        }
        let (_, file) = shadow.shadow("root", bytes, &signers)?;
        before.put("root", version, file.clone());
        roots.push(file);
        earlier = Some(root);
    }
    let mut translated: BTreeMap<String, (u64, Value, Vec<u8>)> = BTreeMap::new();
    for file in repository.roles().filter(|file| !matches!(file.name.as_str(), "root" | "timestamp" | "snapshot")) {
        let signers = repository.signers(&file.name).into_iter().collect();
        let (signed, bytes) = shadow.shadow(&file.name, &file.bytes, &signers)?;
        before.put(&file.name, file.version, bytes.clone());
        translated.insert(file.name.clone(), (file.version, signed, bytes));
    }
    let online = |name: &str| -> Result<(u64, Value, BTreeSet<KeyId>)> {
        let file = repository.must_have(name)?;
        Ok((file.version, signed_part(name, &file.bytes)?, repository.signers(name).into_iter().collect()))
    };
    let (snapshot_version, mut snapshot, snapshot_signers) = online("snapshot")?;
    for (role, (version, _, bytes)) in &translated {
        list(&mut snapshot, role, *version, bytes, false);
    }
    // As they are right after a refresh: whether somebody kept them fresh is not what is rehearsed.
    reissue(&mut snapshot, snapshot_version, now);
    let snapshot_bytes = shadow.file(&snapshot, &snapshot_signers)?;
    before.put("snapshot", snapshot_version, snapshot_bytes.clone());
    let (timestamp_version, mut timestamp, timestamp_signers) = online("timestamp")?;
    list(&mut timestamp, "snapshot", snapshot_version, &snapshot_bytes, true);
    reissue(&mut timestamp, timestamp_version, now);
    before.put("timestamp", timestamp_version, shadow.file(&timestamp, &timestamp_signers)?);
    let snapshot = Online { signed: snapshot, version: snapshot_version, signers: snapshot_signers };
    let timestamp = Online { signed: timestamp, version: timestamp_version, signers: timestamp_signers };
    Ok(InForce { roots, files: before, snapshot, timestamp })
}

/// What publishing the proposal uploads, in order.
fn uploads(
    shadow: &mut Shadow,
    proposal: &Proposal,
    verified: &Verified,
    repository: &Repository,
    lost: &BTreeSet<KeyId>,
    (snapshot, timestamp): (&mut Online, &mut Online),
    now: DateTime<Utc>,
) -> Result<Vec<(String, u64, Vec<u8>)>> {
    // The proposal, signed by everyone who has not lost a key, then what publishing renews, in the order in which it uploads.
    let mut uploads: Vec<(String, u64, Vec<u8>)> = Vec::new();
    let mut root_upload = None;
    for change in &proposal.changes {
        let signed = shadow.translate(&change.signed);
        let file = shadow.file(&signed, &may_sign(verified, &change.role, lost))?;
        let version = signed.get("version").and_then(Value::as_u64).unwrap_or_default();
        if change.role == "root" {
            root_upload = Some((change.role.clone(), version, file));
        } else {
            list(&mut snapshot.signed, &change.role, version, &file, !listed_by_version_alone(&change.role));
            uploads.push((change.role.clone(), version, file));
        }
    }
    for (name, signed, signers) in cohorts(verified, repository, lost)? {
        let version = signed.get("version").and_then(Value::as_u64).unwrap_or_default();
        let file = shadow.file(&shadow_issue(&signed, now), &signers)?;
        list(&mut snapshot.signed, &name, version, &file, false);
        uploads.push((name, version, file));
    }
    let newest =
        verified.new_root.as_ref().or(verified.roots.last()).ok_or_else(|| Error::bug("a chain without roots"))?;
    let online_keys = |role: &str| -> BTreeSet<KeyId> {
        newest.role(role).into_iter().flat_map(|role| &role.keyids).filter(|id| !lost.contains(id)).cloned().collect()
    };
    reissue(&mut snapshot.signed, snapshot.version + 1, now);
    let snapshot_bytes = shadow.file(&snapshot.signed, &online_keys("snapshot"))?;
    list(&mut timestamp.signed, "snapshot", snapshot.version + 1, &snapshot_bytes, true);
    reissue(&mut timestamp.signed, timestamp.version + 1, now);
    uploads.reverse();
    uploads.push(("snapshot".into(), snapshot.version + 1, snapshot_bytes));
    uploads.extend(root_upload);
    uploads.push((
        "timestamp".into(),
        timestamp.version + 1,
        shadow.file(&timestamp.signed, &online_keys("timestamp"))?,
    ));
    Ok(uploads)
}

/// The cohort roles that finishing would sign anew, with who signs them.
fn cohorts(verified: &Verified, repository: &Repository, lost: &BTreeSet<KeyId>) -> Result<Vec<Renewed>> {
    let mut renewed = Vec::new();
    let root =
        verified.new_root.as_ref().or(verified.roots.last()).ok_or_else(|| Error::bug("a chain without roots"))?;
    for targets in verified.proposed.values() {
        for role in targets.delegations.iter().flat_map(|d| &d.roles).filter(|role| role.name.contains('.')) {
            let signers: BTreeSet<KeyId> = role.role.keyids.iter().filter(|id| !lost.contains(id)).cloned().collect();
            match repository.role(&role.name) {
                Some(file) if crate::proposal::propose::satisfied(&role.name, &file.bytes, root, Some(targets)) => {}
                Some(file) => {
                    let mut signed = signed_part(&role.name, &file.bytes)?;
                    if let Some(object) = signed.as_object_mut() {
                        object.insert("version".into(), (file.version + 1).into());
                    }
                    renewed.push((role.name.clone(), signed, signers));
                }
                None => {
                    let mut document = crate::metadata::Document::targets();
                    document.issue(1, DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + TimeDelta::days(1));
                    renewed.push((role.name.clone(), document.to_value(), signers));
                }
            }
        }
    }
    Ok(renewed)
}

fn shadow_issue(signed: &Value, now: DateTime<Utc>) -> Value {
    let mut signed = signed.clone();
    let version = signed.get("version").and_then(Value::as_u64).unwrap_or(1);
    reissue(&mut signed, version, now);
    signed
}

/// A path below every delegation, so that looking for it loads every role.
fn probes(repository: &Repository) -> Vec<TargetPath> {
    let all = repository.roles().filter_map(|file| repository.targets(&file.name));
    let delegated = all.flat_map(|targets: &Targets| targets.delegations.iter().flat_map(|d| &d.roles));
    let patterns = delegated.filter_map(|role| match &role.paths {
        tidegate_tuf::path::PathSet::Patterns(patterns) => patterns.last(),
        tidegate_tuf::path::PathSet::HashPrefixes(_) => None,
    });
    patterns.filter_map(|pattern| TargetPath::new(pattern.as_str().replace('*', "rehearsal")).ok()).collect()
}

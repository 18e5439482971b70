//! The set of trusted metadata: the checks of the client workflow (TUF 5.2 to 5.6), in their order, without I/O.
//!
//! The order of loading is root, timestamp, snapshot, targets, delegated roles. A role can be loaded only when the ones
//! before it are final, that is, neither expired nor superseded, and not once one after it is loaded.
//!
//! Two sources feed the set. What a *local* copy states was trusted at some earlier time: it may be expired or
//! superseded by now, and then serves only as the lower bound for rollback checks (`load_*` methods). What the
//! *repository* states must be final (`update_*` methods). On any error the set is as it was before.
//!
//! Deliberately not checked here: the length of files that no role lists, and the number of root rotations in one update. The caller limits both
//! while it reads (see [`Limits`](crate::Limits)).

use alloc::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest as _, Sha256};

use super::chain::Chain;
use super::error::Error;
use super::hash::{Checker, Hashes};
use super::metadata::{Common, Envelope, MetaFile, Metadata, Role, Root, Snapshot, Targets, Timestamp};
use super::verify::Delegator;
use crate::prelude::*;

/// Metadata that is trusted, as of one update.
#[derive(Debug, Clone)]
pub struct TrustedSet {
    start: DateTime<Utc>,
    /// Signed times are ignored, and nothing expires.
    timeless: bool,
    root: Root,
    online_keys_rotated: bool,
    timestamp: Option<Timestamp>,
    snapshot: Option<LoadedSnapshot>,
    /// Targets roles by the chain of delegations through which they were verified. A role that two roles delegate to is
    /// verified, and kept, for each separately: trust through one does not imply trust through the other.
    targets: BTreeMap<Chain, LoadedTargets>,
}

#[derive(Debug, Clone)]
struct LoadedSnapshot {
    snapshot: Snapshot,
    /// Whether it is the file that the trusted timestamp lists.
    as_listed: Result<(), Error>,
}

#[derive(Debug, Clone)]
struct LoadedTargets {
    targets: Targets,
    sha256: [u8; 32],
}

/// What an offered timestamp meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// It is newer than the trusted one and has taken its place.
    New,
    /// It has the version of the trusted one, which stays: nothing has changed in the repository.
    Unchanged,
}

impl TrustedSet {
    /// Starts from a root that is already trusted: shipped with the device, or trusted by an earlier update (TUF 5.2).
    ///
    /// `start` is the fixed update start time, against which every expiry is checked (TUF 5.1). The root must be signed by a
    /// threshold of its own keys; it may be expired.
    ///
    /// # Errors
    ///
    /// If the bytes are not a valid root or too few of its own keys signed it.
    pub fn from_root(bytes: &[u8], start: DateTime<Utc>) -> Result<Self, Error> {
        let envelope = Envelope::parse("root", bytes)?;
        // The keys come from the file that they verify, which is only correct because the caller trusts the file.
        let root: Root = envelope.danger_read_unverified("root")?;
        verify_top_level(&root, "root", &envelope, "5.2")?;
        Ok(Self {
            start,
            timeless: false,
            root,
            online_keys_rotated: false,
            timestamp: None,
            snapshot: None,
            targets: BTreeMap::new(),
        })
    }

    /// Like [`from_root`](Self::from_root), but nothing ever counts as expired: for a publisher, who must be able to open
    /// expired metadata to renew it, never for a decision about an update.
    ///
    /// # Errors
    ///
    /// Those of [`from_root`](Self::from_root).
    pub fn danger_from_root_ignoring_expiry(bytes: &[u8]) -> Result<Self, Error> {
        Ok(Self { timeless: true, ..Self::from_root(bytes, DateTime::<Utc>::MIN_UTC)? })
    }

    /// Takes the root whose version follows the trusted one (TUF 5.3.4 to 5.3.7).
    ///
    /// It may be expired: only the last one must not be, which is checked when a timestamp is loaded (TUF 5.3.10).
    ///
    /// # Errors
    ///
    /// If a threshold of the old keys or of the new keys is not reached, if the version is not the next one, or if another role is loaded already.
    pub fn update_root(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.timestamp.is_some() {
            return Err(Error::OutOfOrder("root after timestamp"));
        }
        let envelope = Envelope::parse("root", bytes)?;
        // 5.3.4: signed by a threshold of the trusted root's keys ...
        verify_top_level(&self.root, "root", &envelope, "5.3.4")?;
        let root: Root = envelope.clone().into_verified("root")?;
        // ... and by a threshold of its own.
        verify_top_level(&root, "root", &envelope, "5.3.4")?;
        // 5.3.5: exactly the next version.
        let (trusted, received) = (self.root.common.version, root.common.version);
        if received <= trusted {
            return Err(Error::Rollback { role: "root".into(), trusted, received, clause: "5.3.5" });
        }
        if received != trusted.saturating_add(1) {
            let expected = trusted.saturating_add(1);
            return Err(Error::WrongVersion { role: "root".into(), expected, received, clause: "5.3.5" });
        }
        // 5.3.11 checks every step, so that a key that was removed and restored later is detected too.
        self.online_keys_rotated |=
            ["timestamp", "snapshot"].iter().any(|role| self.root.has_key_removed_in(&root, role));
        self.root = root;
        Ok(())
    }

    /// Whether a root taken by [`update_root`](Self::update_root) revoked a key of timestamp or snapshot.
    ///
    /// The local timestamp and snapshot must then be deleted, not loaded (TUF 5.3.11): they may carry version numbers that an
    /// attacker raised. They must be gone *before* the new root is stored, or a crash between the two would hide the rotation.
    pub fn online_keys_rotated(&self) -> bool {
        self.online_keys_rotated
    }

    /// Takes a timestamp that an earlier update trusted, expired or not, as the floor for the next one.
    ///
    /// # Errors
    ///
    /// If the metadata is invalid, too few keys signed it, or another role is loaded already.
    pub fn load_timestamp(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.check_final_root()?;
        self.check_not_rotated()?;
        if self.snapshot.is_some() {
            return Err(Error::OutOfOrder("timestamp after snapshot"));
        }
        let timestamp: Timestamp = self.verified("timestamp", bytes, "5.4.2")?;
        self.check_timestamp_rollback(&timestamp)?;
        self.timestamp = Some(timestamp);
        Ok(())
    }

    /// Takes a timestamp from the repository (TUF 5.4.2 to 5.4.4).
    ///
    /// # Errors
    ///
    /// If the metadata is invalid, too few keys signed it, a version went backward, it is expired, or the trusted root is expired.
    pub fn update_timestamp(&mut self, bytes: &[u8]) -> Result<Freshness, Error> {
        self.check_final_root()?;
        if self.snapshot.is_some() {
            return Err(Error::OutOfOrder("timestamp after snapshot"));
        }
        // 5.4.2
        let timestamp: Timestamp = self.verified("timestamp", bytes, "5.4.2")?;
        // 5.4.3
        self.check_timestamp_rollback(&timestamp)?;
        if self.timestamp.as_ref().is_some_and(|trusted| trusted.common.version == timestamp.common.version) {
            self.timestamp_is_unchanged()?;
            return Ok(Freshness::Unchanged);
        }
        // 5.4.4
        let issued = [&self.root.common, &timestamp.common].map(|common| self.bounded_issued(common));
        let now = issued.into_iter().fold(self.start, DateTime::max);
        check_expiry("timestamp", &timestamp.common, now, "5.4.4")?;
        self.timestamp = Some(timestamp);
        Ok(Freshness::New)
    }

    /// Records that the repository still has the trusted timestamp (an HTTP 304, or the same version).
    ///
    /// # Errors
    ///
    /// If the trusted timestamp has expired or there is none.
    pub fn timestamp_is_unchanged(&self) -> Result<(), Error> {
        self.final_timestamp().map(|_| ())
    }

    /// 5.4.3: neither the timestamp's version nor the snapshot version it lists may go backward.
    fn check_timestamp_rollback(&self, new: &Timestamp) -> Result<(), Error> {
        let Some(trusted) = &self.timestamp else { return Ok(()) };
        check_not_lower("timestamp", trusted.common.version, new.common.version, "5.4.3.1")?;
        // At the same version the trusted one stays, whatever the new one lists.
        if new.common.version == trusted.common.version {
            return Ok(());
        }
        check_not_lower("snapshot", trusted.snapshot().version, new.snapshot().version, "5.4.3.2")
    }

    /// Takes a snapshot that an earlier update trusted, as the floor for the next one, and as the current one if the timestamp
    /// lists it; [`snapshot_is_current`](Self::snapshot_is_current) returns whether.
    ///
    /// # Errors
    ///
    /// If there is no unexpired timestamp, the metadata is invalid, too few keys signed it, or a version went backward.
    pub fn load_snapshot(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let listed = self.final_timestamp()?.snapshot().clone();
        self.check_not_rotated()?;
        self.check_no_targets()?;
        let snapshot: Snapshot = self.verified("snapshot", bytes, "5.5.3")?;
        self.check_snapshot_rollback(&snapshot)?;
        // It was checked against its hashes when it was new; it is current if the timestamp still lists it.
        let as_listed = check_listed("snapshot", &listed, bytes, "5.5.2")
            .and_then(|()| check_version("snapshot", listed.version, snapshot.common.version, "5.5.4"))
            .and_then(|()| check_expiry("snapshot", &snapshot.common, self.now(), "5.5.6"));
        self.snapshot = Some(LoadedSnapshot { snapshot, as_listed });
        Ok(())
    }

    /// Whether the loaded snapshot is the one that the timestamp lists, so that none need be fetched.
    pub fn snapshot_is_current(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|loaded| loaded.as_listed.is_ok())
    }

    /// Takes a snapshot from the repository (TUF 5.5.2 to 5.5.6).
    ///
    /// # Errors
    ///
    /// If it is not the file that an unexpired timestamp lists, the metadata is invalid, too few keys signed it, a version went backward, or it is
    /// expired.
    pub fn update_snapshot(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let listed = self.final_timestamp()?.snapshot().clone();
        self.check_no_targets()?;
        // 5.5.2
        check_listed("snapshot", &listed, bytes, "5.5.2")?;
        // 5.5.3
        let snapshot: Snapshot = self.verified("snapshot", bytes, "5.5.3")?;
        // 5.5.4
        check_version("snapshot", listed.version, snapshot.common.version, "5.5.4")?;
        // 5.5.5
        self.check_snapshot_rollback(&snapshot)?;
        // 5.5.6
        check_expiry("snapshot", &snapshot.common, self.now(), "5.5.6")?;
        self.snapshot = Some(LoadedSnapshot { snapshot, as_listed: Ok(()) });
        Ok(())
    }

    /// Takes a snapshot that no timestamp lists: an earlier state of the repository, for a publisher to inspect, never for a
    /// decision about an update. Only in a set that ignores expiry.
    ///
    /// # Errors
    ///
    /// If the metadata is invalid, too few keys signed it, or the set checks expiry.
    pub fn danger_take_past_snapshot(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if !self.timeless || self.timestamp.is_some() {
            return Err(Error::OutOfOrder("a past snapshot where the present one counts"));
        }
        self.check_no_targets()?;
        let snapshot: Snapshot = self.verified("snapshot", bytes, "5.5.3")?;
        self.snapshot = Some(LoadedSnapshot { snapshot, as_listed: Ok(()) });
        Ok(())
    }

    /// 5.5.5: every previously listed targets role is still listed, and its version is not lower.
    fn check_snapshot_rollback(&self, new: &Snapshot) -> Result<(), Error> {
        let Some(loaded) = &self.snapshot else { return Ok(()) };
        for (file, trusted) in &loaded.snapshot.meta {
            let listed = new.meta.get(file).ok_or_else(|| Error::Unlisted { file: file.clone() })?;
            let role = file.strip_suffix(".json").unwrap_or(file);
            check_not_lower(role, trusted.version, listed.version, "5.5.5")?;
        }
        Ok(())
    }

    /// Takes the top-level targets role, local or from the repository (TUF 5.6.2 to 5.6.5).
    ///
    /// # Errors
    ///
    /// If it is not the file that a current snapshot lists, the metadata is invalid, too few keys signed it, or it is expired.
    pub fn update_targets(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let targets =
            self.checked_targets("targets", &Delegator::root(&self.root), self.root.role("targets"), bytes)?;
        self.targets.insert(Chain::top(), targets);
        Ok(())
    }

    /// Takes the last role of `chain`, local or from the repository, as the role before it delegates it (TUF 5.6.7.1,
    /// checked like 5.6.2 to 5.6.5). The role before it must be loaded through the same chain.
    ///
    /// # Errors
    ///
    /// If the role before it is not loaded or does not delegate to it, and for the reasons of [`update_targets`](Self::update_targets).
    pub fn update_delegated(&mut self, chain: &Chain, bytes: &[u8]) -> Result<(), Error> {
        let parent = chain.parent().ok_or(Error::OutOfOrder("the top-level role is not delegated"))?;
        let loaded = self.targets.get(&parent).ok_or(Error::OutOfOrder("delegated role before its delegator"))?;
        let (role, delegator) = (chain.role(), parent.role());
        let (delegations, keys) = loaded
            .targets
            .delegations
            .as_ref()
            .and_then(|delegations| Some((delegations, delegations.role(role)?)))
            .ok_or_else(|| Error::NotDelegated { role: role.to_owned(), delegator: delegator.to_owned() })?;
        let delegator = Delegator::targets(delegator, delegations);
        let targets = self.checked_targets(role, &delegator, Some(keys), bytes)?;
        self.targets.insert(chain.clone(), targets);
        Ok(())
    }

    fn checked_targets(
        &self,
        name: &str,
        delegator: &Delegator<'_>,
        role: Option<&Role>,
        bytes: &[u8],
    ) -> Result<LoadedTargets, Error> {
        let missing = || Error::NotInSnapshot { role: name.to_owned(), delegator: delegator.name.to_owned() };
        let listed = self.final_snapshot()?.role(name).ok_or_else(missing)?;
        // 5.6.2
        check_listed(name, listed, bytes, "5.6.2")?;
        // 5.6.3
        let envelope = Envelope::parse(name, bytes)?;
        let role = role.ok_or(Error::OutOfOrder("a top-level role was expected"))?;
        delegator.verify(name, role, &envelope, "5.6.3")?;
        let targets: Targets = envelope.into_verified(name)?;
        // 5.6.4
        check_version(name, listed.version, targets.common.version, "5.6.4")?;
        // 5.6.5
        check_expiry(name, &targets.common, self.now(), "5.6.5")?;
        Ok(LoadedTargets { targets, sha256: Sha256::digest(bytes).into() })
    }

    /// The trusted root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The trusted timestamp, which may be expired while it serves as a floor.
    pub fn timestamp(&self) -> Option<&Timestamp> {
        self.timestamp.as_ref()
    }

    /// The snapshot that the trusted timestamp lists, once it is loaded.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.final_snapshot().ok()
    }

    /// A targets role, as trusted through `chain`.
    pub fn targets(&self, chain: &Chain) -> Option<&Targets> {
        Some(&self.targets.get(chain)?.targets)
    }

    /// The roles that the last role of `chain` delegates to, in order; of bins (TAP 15), those that the snapshot lists.
    pub fn delegated(&self, chain: &Chain) -> Vec<String> {
        let Some(delegations) = self.targets(chain).and_then(|targets| targets.delegations.as_ref()) else {
            return Vec::new();
        };
        let listed = delegations.bins.iter().flat_map(|bins| {
            let files = self.snapshot().into_iter().flat_map(|snapshot| snapshot.meta.keys());
            files.filter_map(|file| file.strip_suffix(".json")).filter(|role| bins.number(role).is_some())
        });
        delegations.roles.iter().map(|role| role.name.as_str()).chain(listed).map(str::to_owned).collect()
    }

    /// The SHA-256 of the file in which [`targets`](Self::targets) came.
    pub fn targets_sha256(&self, chain: &Chain) -> Option<[u8; 32]> {
        Some(self.targets.get(chain)?.sha256)
    }

    /// The file that the trusted timestamp or snapshot lists for a role below root, and so what to fetch.
    pub fn listed(&self, role: &str) -> Option<&MetaFile> {
        match role {
            "snapshot" => self.timestamp.as_ref().map(Timestamp::snapshot),
            _ => self.snapshot()?.role(role),
        }
    }

    /// The time that expiry is checked against: the update's start, or [`signed_time`](Self::signed_time) if that is later.
    pub fn now(&self) -> DateTime<Utc> {
        self.start.max(self.signed_time())
    }

    /// The newest signed time of the top-level roles in force.
    ///
    /// A role that a newer version has replaced does not count: otherwise a stolen online key could date a timestamp in the future, and
    /// every honest one after it would appear expired. For the same reason a signed time counts only up to just before the root expires.
    pub fn signed_time(&self) -> DateTime<Utc> {
        let top = self.targets.get(&Chain::top()).map(|loaded| &loaded.targets.common);
        [
            Some(&self.root.common),
            self.timestamp.as_ref().map(|t| &t.common),
            self.snapshot.as_ref().filter(|s| s.as_listed.is_ok()).map(|s| &s.snapshot.common),
            top,
        ]
        .into_iter()
        .flatten()
        .map(|common| self.bounded_issued(common))
        .fold(DateTime::<Utc>::MIN_UTC, DateTime::max)
    }

    fn bounded_issued(&self, common: &Common) -> DateTime<Utc> {
        let bound = self.root.common.expires.checked_sub_signed(TimeDelta::seconds(1));
        match common.issued.zip(bound) {
            Some((issued, bound)) if !self.timeless => issued.min(bound),
            _ => DateTime::<Utc>::MIN_UTC,
        }
    }

    /// 5.3.10: the last root must not be expired.
    ///
    /// The root's expiry is compared only with the start time, not with the signed times of other roles.
    ///
    /// # Errors
    ///
    /// [`Error::Expired`] if it is.
    pub fn check_final_root(&self) -> Result<(), Error> {
        check_expiry("root", &self.root.common, self.start, "5.3.10")
    }

    fn final_timestamp(&self) -> Result<&Timestamp, Error> {
        let timestamp = self.timestamp.as_ref().ok_or(Error::OutOfOrder("snapshot before timestamp"))?;
        check_expiry("timestamp", &timestamp.common, self.now(), "5.4.4")?;
        Ok(timestamp)
    }

    fn final_snapshot(&self) -> Result<&Snapshot, Error> {
        let loaded = self.snapshot.as_ref().ok_or(Error::OutOfOrder("targets before snapshot"))?;
        loaded.as_listed.clone()?;
        Ok(&loaded.snapshot)
    }

    /// 5.3.11: versions from before a rotation are no minimum after it.
    fn check_not_rotated(&self) -> Result<(), Error> {
        if self.online_keys_rotated {
            Err(Error::OutOfOrder("local timestamp or snapshot after their keys were rotated"))
        } else {
            Ok(())
        }
    }

    fn check_no_targets(&self) -> Result<(), Error> {
        if self.targets.is_empty() { Ok(()) } else { Err(Error::OutOfOrder("snapshot after targets")) }
    }

    fn verified<T: Metadata>(&self, role: &str, bytes: &[u8], clause: &'static str) -> Result<T, Error> {
        let envelope = Envelope::parse(role, bytes)?;
        verify_top_level(&self.root, role, &envelope, clause)?;
        envelope.into_verified(role)
    }
}

fn verify_top_level(root: &Root, name: &str, envelope: &Envelope, clause: &'static str) -> Result<(), Error> {
    let role = root.role(name).ok_or(Error::OutOfOrder("not a top-level role"))?;
    Delegator::root(root).verify(name, role, envelope, clause)
}

fn check_expiry(role: &str, common: &Common, now: DateTime<Utc>, clause: &'static str) -> Result<(), Error> {
    // "MUST be higher than the fixed update start time".
    if common.expires > now {
        return Ok(());
    }
    Err(Error::Expired { role: role.to_owned(), expires: common.expires, now, clause })
}

fn check_not_lower(role: &str, trusted: u64, received: u64, clause: &'static str) -> Result<(), Error> {
    if received >= trusted {
        return Ok(());
    }
    Err(Error::Rollback { role: role.to_owned(), trusted, received, clause })
}

fn check_version(role: &str, expected: u64, received: u64, clause: &'static str) -> Result<(), Error> {
    if received == expected {
        return Ok(());
    }
    Err(Error::WrongVersion { role: role.to_owned(), expected, received, clause })
}

fn check_listed(role: &str, listed: &MetaFile, bytes: &[u8], clause: &'static str) -> Result<(), Error> {
    check_bytes(listed.length, listed.hashes.as_ref(), bytes).map_err(|mismatch| Error::NotAsListed {
        role: role.to_owned(),
        mismatch,
        clause,
    })
}

fn check_bytes(length: Option<u64>, hashes: Option<&Hashes>, bytes: &[u8]) -> Result<(), super::hash::Mismatch> {
    let mut checker = Checker::new(length, hashes);
    checker.update(bytes)?;
    checker.finish()
}

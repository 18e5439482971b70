//! The live state of a place, as far as a plan needs it: which state of the workspace it descends from, and what need not be sent
//! again.

use sha2::{Digest as _, Sha256};
use tidegate_tuf::Limits;
use tidegate_tuf::metadata::{Snapshot, Targets, Timestamp};
use tidegate_tuf::path::metadata_file;

use crate::audit::RoleFile;
use crate::error::{Error, Kind, Result, Rule};
use crate::metadata::danger_parse_unverified;
use crate::publish::source::Source;
use crate::publish::store::{Remote, Seen, TIMESTAMP};

/// The live state.
pub(super) struct Live {
    pub(super) timestamp: Timestamp,
    pub(super) snapshot: Snapshot,
}

impl Live {
    /// Reads the live state and finds it among the workspace's earlier states.
    ///
    /// Signatures are not verified: this only decides what need not be sent again, and is about to be replaced.
    pub(super) async fn read(source: &Source, remote: &Remote, seen: &Seen, ours: &RoleFile) -> Result<Self> {
        let place = remote.name();
        let foreign = |error| {
            Error::trust(format!("{TIMESTAMP} at {place} is not a timestamp"))
                .with_source(error)
                .remedy("choose another place; nothing that is not a repository's is replaced")
        };
        let timestamp: Timestamp = danger_parse_unverified("timestamp", &seen.bytes).map_err(foreign)?;
        let version = timestamp.common.version;
        let conflict = |what: String| {
            Error::new(Kind::Conflict, what)
                .rule(Rule::PublishBehind)
                .remedy("take over what is published: `tidegate pull PLACE`, or `tidegate publish --rebase PLACE`, which does so itself")
        };
        if version > ours.version {
            return Err(conflict(format!("{place} is at timestamp {version}, and this workspace at {}", ours.version)));
        }
        if version == ours.version && *seen.bytes != *ours.bytes {
            return Err(conflict(format!("{place} has another timestamp {version} than this workspace")));
        }
        let listed = timestamp.snapshot();
        let file = metadata_file("snapshot", Some(listed.version));
        let limit = Limits::default().snapshot_length;
        let digest = match listed.hashes.as_ref().and_then(|hashes| hashes.sha256_digest()) {
            Some(digest) => Some(*digest),
            None => unlisted(remote, &file, limit).await?,
        };
        let is_live = |bytes: &Vec<u8>| digest == Some(Sha256::digest(bytes).into());
        let bytes = source.metadata(&file, limit).await?.filter(is_live);
        let bytes = bytes.ok_or_else(|| {
            conflict(format!("{place} is at snapshot {}, which this workspace has never had", listed.version))
        })?;
        let snapshot = danger_parse_unverified("snapshot", &bytes)
            .map_err(|error| Error::input(format!("metadata/{file} is damaged")).with_source(error))?;
        Ok(Self { timestamp, snapshot })
    }
}

/// The SHA-256 of the live snapshot where the timestamp lists none, as other tools write it: of the file itself, whose name has no version
/// in a repository without consistent snapshots.
async fn unlisted(remote: &Remote, file: &str, limit: u64) -> Result<Option<[u8; 32]>> {
    let versioned = remote.read(&format!("metadata/{file}"), limit).await?;
    let seen = match versioned {
        None => remote.read("metadata/snapshot.json", limit).await?,
        found => found,
    };
    Ok(seen.map(|seen| Sha256::digest(&seen.bytes).into()))
}

/// The newest published version of our roots. Usually that is the newest one there is, which takes two requests.
///
/// # Errors
///
/// Fails if a published root is not ours: it may list other keys, and then every device would reject what our keys sign.
pub(super) async fn newest_live_root(remote: &Remote, roots: &[RoleFile], requests: &mut u64) -> Result<u64> {
    let conflict = |file: &str| {
        Error::new(
            Kind::Conflict,
            format!("metadata/{file} at {} is a root that this workspace does not have", remote.name()),
        )
        .remedy("take that root over first; if nobody knows where it comes from, publish nothing before that is clear")
    };
    let limit = Limits::default().root_length;
    let next = roots.last().map_or(1, |root| root.version.saturating_add(1));
    let file = metadata_file("root", Some(next));
    *requests += 1;
    if remote.read(&format!("metadata/{file}"), limit).await?.is_some() {
        return Err(conflict(&file));
    }
    for root in roots.iter().rev() {
        *requests += 1;
        if let Some(seen) = remote.read(&format!("metadata/{}", root.file), limit).await? {
            return if *seen.bytes == *root.bytes { Ok(root.version) } else { Err(conflict(&root.file)) };
        }
    }
    Ok(0)
}

/// The live content of a role: from the workspace if it still has that version, else from the place.
pub(super) async fn live_role(
    source: &Source,
    remote: &Remote,
    role: &str,
    version: u64,
    requests: &mut u64,
) -> Result<Option<Targets>> {
    let (file, limit) = (metadata_file(role, Some(version)), Limits::default().targets_length);
    let bytes = if let Some(bytes) = source.metadata(&file, limit).await? {
        Some(bytes)
    } else {
        *requests += 1;
        remote.find(&format!("metadata/{file}"), limit).await?.map(|seen| seen.bytes.to_vec())
    };
    // Unreadable: all its targets count as new, and are compared when they are written.
    Ok(bytes.and_then(|bytes| danger_parse_unverified(role, &bytes).ok()))
}

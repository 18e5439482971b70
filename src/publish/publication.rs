//! How far what is published is behind the workspace: by the place itself where it can be reached, else by what was last published
//! from here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;
use tidegate_model::digest::Digest;
use tidegate_tuf::Limits;
use tidegate_tuf::metadata::{Snapshot, Timestamp};
use tidegate_tuf::path::metadata_file;

use super::store::{Remote, TIMESTAMP};
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::metadata::{METADATA_DIR, Repository, danger_parse_unverified};
use crate::workspace::Published;

/// Roles that are named one by one.
const FEW: usize = 6;

/// How far a place is behind the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PublicationStatus {
    /// The place; `None` if tidegate.toml names none.
    pub place: Option<String>,
    /// Whether everything that the workspace has signed is published; `None` if that cannot be told.
    pub published: Option<bool>,
    /// The version of the timestamp there; `None` for an empty place.
    pub live: Option<u64>,
    /// The version of the workspace's timestamp.
    pub timestamp: u64,
    /// The roles of which devices do not know the newest version yet.
    pub waiting: Vec<String>,
    /// Why the place cannot be read, if it cannot: then this is what was last published from here.
    pub unreachable: Option<String>,
    /// Why the two cannot be compared by version: the place is ahead, or has another history.
    pub conflict: Option<String>,
}

/// The timestamp of a place as it is now, unverified: it is only compared with the workspace's own.
///
/// # Errors
///
/// Fails if the place cannot be read.
pub async fn live_timestamp(remote: &Remote) -> Result<Option<Vec<u8>>> {
    let seen = remote.read(TIMESTAMP, Limits::default().timestamp_length).await?;
    Ok(seen.map(|seen| seen.bytes.to_vec()))
}

/// The status of each place, given its timestamp; without a place, that of the last publication from here.
///
/// # Errors
///
/// Fails if the workspace's own files cannot be read.
pub fn publication_status(
    dir: &Path,
    repository: &Repository,
    places: &[(String, Result<Option<Vec<u8>>>)],
) -> Result<Vec<PublicationStatus>> {
    if places.is_empty() {
        return Ok(vec![recorded(dir, repository, None, None)?]);
    }
    let of = |(place, seen): &(String, Result<Option<Vec<u8>>>)| match seen {
        Err(error) => recorded(dir, repository, Some(place), Some(unread(error))),
        Ok(seen) => compared(dir, repository, place, seen.as_deref()),
    };
    places.iter().map(of).collect()
}

/// Why a place cannot be read: whether it cannot be reached, or not be used as it is named or with these credentials.
fn unread(error: &Error) -> String {
    match (error.kind(), error.remedy_text()) {
        (Kind::Io, _) => format!("cannot be reached: {}", error.text()),
        (_, Some(remedy)) => format!("cannot be used: {}; {remedy}", error.text()),
        (_, None) => format!("cannot be used: {}", error.text()),
    }
}

/// By what was last published from here.
fn recorded(
    dir: &Path,
    repository: &Repository,
    place: Option<&str>,
    why: Option<String>,
) -> Result<PublicationStatus> {
    let timestamp = repository.must_have("timestamp")?.version;
    let published = Published::load(dir)?;
    let before = published.as_ref().map(|published| published.roles(dir)).transpose()?.flatten();
    let live = published.as_ref().map(|published| published.timestamp);
    Ok(PublicationStatus {
        place: place.map(str::to_owned),
        // What is no longer known to be there may still be.
        published: Some(live.is_some_and(|live| live >= timestamp)),
        live,
        timestamp,
        waiting: waiting(repository, before.as_ref()),
        unreachable: why,
        conflict: None,
    })
}

/// By the timestamp that is there.
fn compared(dir: &Path, repository: &Repository, place: &str, seen: Option<&[u8]>) -> Result<PublicationStatus> {
    let ours = repository.must_have("timestamp")?;
    let mut status = PublicationStatus {
        place: Some(place.to_owned()),
        published: Some(false),
        live: None,
        timestamp: ours.version,
        waiting: Vec::new(),
        unreachable: None,
        conflict: None,
    };
    let Some(seen) = seen else {
        status.waiting = waiting(repository, None);
        return Ok(status);
    };
    let Ok(live) = danger_parse_unverified::<Timestamp>("timestamp", seen) else {
        status.published = None;
        status.conflict = Some("its timestamp is malformed".to_owned());
        return Ok(status);
    };
    status.live = Some(live.common.version);
    if seen == ours.bytes.as_slice() {
        status.published = Some(true);
    } else if live.common.version < ours.version {
        status.waiting = waiting(repository, listed(dir, &live)?.as_ref());
    } else {
        // What was signed here since both last agreed is not there, whatever else is.
        let base = Published::load(dir)?.map(|published| published.roles(dir)).transpose()?.flatten();
        status.waiting = base.as_ref().map(|base| waiting(repository, Some(base))).unwrap_or_default();
        status.published = if status.waiting.is_empty() { None } else { Some(false) };
        status.conflict = Some(if live.common.version > ours.version || base.is_some() {
            "somebody else has published: take it over first (tidegate pull PLACE, or tidegate publish --rebase)"
                .to_owned()
        } else {
            "it has the same version and other content: two workspaces have diverged (tidegate diff PLACE .)".to_owned()
        });
    }
    Ok(status)
}

/// The roles whose version is another than before, but for those that only say which versions belong together.
fn waiting(repository: &Repository, before: Option<&BTreeMap<String, u64>>) -> Vec<String> {
    let is_news = |name: &str, version: u64| before.is_none_or(|before| before.get(name) != Some(&version));
    repository
        .roles()
        .filter(|role| !matches!(role.name.as_str(), "timestamp" | "snapshot"))
        .filter(|role| is_news(&role.name, role.version))
        .map(|role| role.name.clone())
        .collect()
}

/// The versions of the roles in a timestamp's snapshot, if the workspace has that snapshot. Root is not in it; it is as last published.
fn listed(dir: &Path, live: &Timestamp) -> Result<Option<BTreeMap<String, u64>>> {
    let of = live.snapshot();
    let path = dir.join(METADATA_DIR).join(metadata_file("snapshot", Some(of.version)));
    let Some(bytes) = fs::read_if_exists(&path, Limits::default().snapshot_length)? else { return Ok(None) };
    let sha256 = of.hashes.as_ref().and_then(|hashes| hashes.sha256_digest());
    if sha256.is_some_and(|sha256| Digest::from(*sha256) != Digest::of(&bytes)) {
        return Ok(None);
    }
    let Ok(snapshot) = danger_parse_unverified::<Snapshot>("snapshot", &bytes) else { return Ok(None) };
    let named =
        snapshot.meta.iter().map(|(file, meta)| (file.strip_suffix(".json").unwrap_or(file).to_owned(), meta.version));
    let root = Published::load(dir)?.map(|published| ("root".to_owned(), published.root));
    Ok(Some(named.chain(root).collect()))
}

impl PublicationStatus {
    /// Whether something is not published, or cannot be told.
    pub fn is_behind(&self) -> bool {
        self.published != Some(true)
    }

    /// The same where tidegate.toml names no place.
    fn write_without_place(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.timestamp;
        match (self.published, self.live) {
            (Some(true), _) => write!(f, "timestamp {own} was published from here"),
            (_, None) => write!(f, "not published yet (timestamp {own} here)"),
            (_, Some(live)) => {
                write!(f, "not published yet: {} (timestamp {own} here, {live} published)", self.named())
            }
        }
    }

    /// What waits, in a few words.
    fn named(&self) -> String {
        let (few, more) = self.waiting.split_at(self.waiting.len().min(FEW));
        match (few, more) {
            ([], _) => "renewed signatures".to_owned(),
            (few, []) => few.join(", "),
            (few, [_]) => format!("{} and 1 more role", few.join(", ")),
            (few, more) => format!("{} and {} more roles", few.join(", "), more.len()),
        }
    }
}

/// One line, whether it is published or not.
impl fmt::Display for PublicationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(place) = self.place.as_deref() else { return self.write_without_place(f) };
        match (&self.conflict, self.published, self.live) {
            (Some(conflict), _, Some(live)) if self.waiting.is_empty() => {
                return write!(f, "{place} is at timestamp {live}: {conflict}");
            }
            (Some(conflict), _, Some(live)) => {
                let what = self.named();
                return write!(f, "not published yet: {what}; {place} is at timestamp {live}: {conflict}");
            }
            (Some(conflict), _, None) => return write!(f, "{place}: {conflict}"),
            (None, Some(true), _) => write!(f, "timestamp {} was published from here", self.timestamp)?,
            (None, _, None) => {
                write!(f, "not published yet: nothing is at {place} (timestamp {} here)", self.timestamp)?;
            }
            (None, _, Some(live)) => {
                let what = self.named();
                write!(f, "not published yet: {what} (timestamp {} here, {live} at {place})", self.timestamp)?;
            }
        }
        match &self.unreachable {
            Some(why) => write!(f, "; {place} {why}"),
            None => Ok(()),
        }
    }
}

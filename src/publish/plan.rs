//! What a publication will do: found out with few requests, and without listing.
//!
//! The live timestamp names its snapshot. If that is one of the workspace's own, the workspace has grown out of what is live, and
//! what the two snapshots have in common is there already: nothing live ever refers to something missing. If it is not, someone
//! else has published, and nothing is done.

use std::collections::BTreeSet;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tidegate_client::tuf::metadata::{Delegations, Snapshot, TargetFile, Targets, Timestamp};
use tidegate_client::tuf::path::{TargetPath, metadata_file};
use tidegate_client::tuf::{Chain, Limits};

use super::notice::{self, Notice};
use super::remote::{Remote, Seen};
use super::source::Source;
use crate::error::{Error, Kind, Result};
use crate::keys::example;
use crate::metadata::{danger_parse_unverified, listed_by_version_alone};
use crate::verify::{RoleFile, Tree, walk};

/// The object whose replacement makes a publication visible.
pub(super) const TIMESTAMP: &str = "metadata/timestamp.json";

/// The rule that stands against publishing what did not grow out of what is live.
pub const BEHIND: &str = "P-BEHIND";

/// When an object is written: each stage is complete before the next begins, and refers only to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Artifacts, manifests, cohort maps.
    Target,
    /// Channel and cohort roles.
    Delegated,
    /// The top-level targets role.
    Targets,
    /// The snapshot.
    Snapshot,
    /// Roots, in ascending order.
    Root,
    /// The timestamp: the one object that is replaced.
    Timestamp,
}

/// What is to be done about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is created.
    New,
    /// It is replaced.
    Changed,
    /// It is there.
    Unchanged,
}

/// One object of the repository.
#[derive(Debug, Clone, Serialize)]
pub struct Object {
    /// Its name, relative to the root of the repository.
    pub key: String,
    /// When it is written.
    pub stage: Stage,
    /// Whether it is.
    pub state: State,
    /// Its length in bytes.
    pub length: u64,
    /// Whether nothing live can lead to it: metadata of a version above the live one. Roots never are, as every device asks for the
    /// next one.
    #[serde(skip)]
    pub(super) ahead: bool,
    #[serde(skip)]
    pub(super) content: Content,
}

/// Where an object's bytes are.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Bytes(Bytes),
    Artifact { sha256: [u8; 32] },
}

/// What a publication will do.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// Where to.
    pub place: String,
    /// The version of the live timestamp; none if nothing is published there.
    pub live: Option<u64>,
    /// The version that the timestamp will have.
    pub timestamp: u64,
    /// All objects of the repository, in the order they are written.
    pub objects: Vec<Object>,
    /// What devices will notice.
    pub notices: Vec<Notice>,
    /// Requests that planning took.
    pub requests: u64,
    #[serde(skip)]
    pub(super) seen: Option<Seen>,
    /// The version and the SHA-256 of the snapshot that will be live.
    #[serde(skip)]
    pub(super) snapshot: (u64, [u8; 32]),
    /// The version of the newest root that will be live.
    #[serde(skip)]
    pub(super) root: u64,
    #[serde(skip)]
    part: u64,
}

/// What a plan comes to, by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Objects to create.
    pub new: u64,
    /// Objects to replace.
    pub changed: u64,
    /// Objects that are there.
    pub unchanged: u64,
    /// Bytes to send.
    pub bytes: u64,
    /// Requests that sending takes, if nothing of it is there yet.
    pub requests: u64,
}

impl Plan {
    /// Sums it up.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for object in &self.objects {
            match object.state {
                State::New => totals.new += 1,
                State::Changed => totals.changed += 1,
                State::Unchanged => {
                    totals.unchanged += 1;
                    continue;
                }
            }
            totals.bytes += object.length;
            totals.requests += super::upload::requests(object.length, self.part);
        }
        totals
    }

    /// Whether there is nothing to do.
    pub fn is_done(&self) -> bool {
        self.objects.iter().all(|object| object.state == State::Unchanged)
    }
}

/// Plans the publication of a workspace to `remote`, as of `now`.
///
/// Errs if a device would not accept the workspace's metadata, if an example key would leave the machine, and if what is live is
/// not something that the workspace has grown out of.
pub async fn plan(source: &Source, remote: &Remote, now: DateTime<Utc>) -> Result<Plan> {
    plan_of(source, walk_all(source, now).await?, remote).await
}

/// The same for a source whose metadata has been read already.
pub(super) async fn plan_of(source: &Source, tree: Tree, remote: &Remote) -> Result<Plan> {
    sound(&tree)?;
    if !remote.is_local() {
        no_example_keys(&tree)?;
    }
    let (Some(timestamp), Some(snapshot)) = (&tree.timestamp, &tree.snapshot) else {
        return Err(Error::bug("a sound repository without timestamp or snapshot"));
    };

    let mut requests = 1;
    let seen = remote.read(TIMESTAMP, Limits::default().timestamp_length).await?;
    let live = match &seen {
        Some(seen) => Some(Live::read(source, remote, seen, timestamp).await?),
        None => None,
    };
    let live_root = match &live {
        Some(_) => newest_live_root(remote, &tree.roots, &mut requests).await?,
        None => 0,
    };

    let agreed = if live.is_some() { source.agreed()? } else { None };
    let mut objects = Vec::new();
    let mut live_roles = Vec::new();
    let mut live_targets = BTreeSet::new();
    let mut by_file = BTreeSet::new();
    for (chain, role) in &tree.targets {
        // A role that two delegate to is one file.
        if !by_file.insert(role.file.as_str()) {
            continue;
        }
        let before = live.as_ref().and_then(|live| live.snapshot.role(&role.role));
        let unchanged = before.is_some_and(|before| before.version == role.version);
        // Its bytes are not in the snapshot, and this workspace has signed it since both agreed: so may have another.
        if unchanged
            && listed_by_version_alone(&role.role)
            && agreed.as_ref().is_some_and(|agreed| agreed.get(&role.role) != Some(&role.version))
        {
            requests += 1;
            let there = remote.read(&format!("metadata/{}", role.file), Limits::default().targets_length).await?;
            if there.is_none_or(|there| *there.bytes != *role.bytes) {
                return Err(Error::new(
                    Kind::Conflict,
                    format!(
                        "{} has another version {} of {} than this workspace",
                        remote.name(),
                        role.version,
                        role.role
                    ),
                )
                .rule(BEHIND)
                .remedy("take over what is published: `tidegate pull PLACE`"));
            }
        }
        let ahead = live.is_some() && before.is_none_or(|before| role.version > before.version);
        let before = match before {
            _ if unchanged => tree.role(chain).cloned(),
            Some(before) => live_role(source, remote, &role.role, before.version, &mut requests).await?,
            None => None,
        };
        for (path, file) in before.iter().flat_map(|targets| &targets.targets) {
            live_targets.insert(target_key(path, file)?);
        }
        live_roles.push((chain.clone(), before));
        let stage = if *chain == Chain::top() { Stage::Targets } else { Stage::Delegated };
        objects.push(metadata(role, stage, if unchanged { State::Unchanged } else { State::New }, ahead));
    }
    let mut targets = BTreeSet::new();
    for listed in tree.listed() {
        let key = target_key(listed.path, listed.file)?;
        if !targets.insert(key.clone()) {
            continue;
        }
        let sha256 = *listed.file.hashes.sha256_digest().ok_or_else(|| {
            Error::input(format!("{} lists {} without a sha256 hash", listed.chain.role(), listed.path))
        })?;
        let state = if live_targets.contains(&key) { State::Unchanged } else { State::New };
        let content = Content::Artifact { sha256 };
        let length = listed.file.length;
        objects.push(Object { key, stage: Stage::Target, state, length, ahead: false, content });
    }
    let known = live.as_ref().is_some_and(|live| live.timestamp.snapshot().version == snapshot.version);
    let ahead = live.as_ref().is_some_and(|live| snapshot.version > live.timestamp.snapshot().version);
    objects.push(metadata(snapshot, Stage::Snapshot, if known { State::Unchanged } else { State::New }, ahead));
    for root in &tree.roots {
        let state = if root.version <= live_root { State::Unchanged } else { State::New };
        objects.push(metadata(root, Stage::Root, state, false));
    }
    let state = match &seen {
        None => State::New,
        Some(seen) if *seen.bytes == *timestamp.bytes => State::Unchanged,
        Some(_) => State::Changed,
    };
    objects.push(metadata(timestamp, Stage::Timestamp, state, false));
    objects.sort_by_key(|object| object.stage);

    let mut notices = notice::changes(&tree, &live_roles);
    if live.is_some() {
        notices.extend(tree.roots.iter().filter(|root| root.version > live_root).map(Notice::root));
    }
    let live = live.map(|live| live.timestamp.common.version);
    let place = remote.name().to_owned();
    let root = tree.roots.last().map_or(0, |root| root.version);
    let part = remote.part;
    let snapshot = (snapshot.version, Sha256::digest(&snapshot.bytes).into());
    Ok(Plan { place, live, timestamp: timestamp.version, objects, notices, requests, seen, snapshot, root, part })
}

/// Reads and verifies all metadata of a source, on a thread that may block.
async fn walk_all(source: &Source, now: DateTime<Utc>) -> Result<Tree> {
    let (first, origin) = (source.first_root().await?, source.origin());
    let walked = tokio::task::spawn_blocking(move || walk(origin.as_ref(), &first, now)).await;
    walked.map_err(|error| Error::bug("reading the metadata broke off").with_source(error))?
}

/// What is live.
struct Live {
    timestamp: Timestamp,
    snapshot: Snapshot,
}

impl Live {
    /// Reads what is live and finds it among what the workspace has been.
    ///
    /// Its signatures are not looked at: it decides only what need not be sent again, and is about to be replaced.
    async fn read(source: &Source, remote: &Remote, seen: &Seen, ours: &RoleFile) -> Result<Self> {
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
                .rule(BEHIND)
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
        let bytes = source.metadata(&file, Limits::default().snapshot_length).await?.filter(|bytes| {
            listed
                .hashes
                .as_ref()
                .and_then(|hashes| hashes.sha256_digest())
                .is_some_and(|listed| <[u8; 32]>::from(Sha256::digest(bytes)) == *listed)
        });
        let bytes = bytes.ok_or_else(|| {
            conflict(format!("{place} is at snapshot {}, which this workspace has never had", listed.version))
        })?;
        let snapshot = danger_parse_unverified("snapshot", &bytes)
            .map_err(|error| Error::input(format!("metadata/{file} is damaged")).with_source(error))?;
        Ok(Self { timestamp, snapshot })
    }
}

/// The version of the newest of our roots that is published; usually the newest there is, which takes two requests.
///
/// Errs if a root is published that is not ours: its keys may be others, and what ours sign would be refused by every device.
async fn newest_live_root(remote: &Remote, roots: &[RoleFile], requests: &mut u64) -> Result<u64> {
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

/// The content of a role as it is live: from the workspace if it still has that version, else from the place itself.
async fn live_role(
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
        remote.read(&format!("metadata/{file}"), limit).await?.map(|seen| seen.bytes.to_vec())
    };
    // Unreadable: then all that it listed counts as new, and is compared when it is written.
    Ok(bytes.and_then(|bytes| danger_parse_unverified(role, &bytes).ok()))
}

/// Errs with all that a device would refuse.
fn sound(tree: &Tree) -> Result<()> {
    let Some(first) = tree.faults.first() else { return Ok(()) };
    let more = match tree.faults.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    Err(Error::trust(format!("devices would refuse this workspace: {}: {}{more}", first.subject, first.problem))
        .remedy("see `tidegate status`; an expired online role is renewed by `tidegate refresh`"))
}

/// Errs if the repository trusts a key that everyone has.
fn no_example_keys(tree: &Tree) -> Result<()> {
    let delegated = tree.targets.iter().filter_map(|(chain, _)| tree.role(chain)?.delegations.as_ref());
    let keys = tree.trusted.root().keys().iter().chain(delegated.flat_map(Delegations::keys));
    for (id, key) in keys {
        if example::is_example(key) {
            return Err(Error::refused(format!("this workspace trusts the example key {id}, which everyone has"))
                .rule("P-EXAMPLE-KEY")
                .remedy("make a workspace with keys of your own: `tidegate init DIR`; example keys serve for local folders only"));
        }
    }
    Ok(())
}

fn metadata(file: &RoleFile, when: Stage, state: State, ahead: bool) -> Object {
    let bytes = Bytes::from(file.bytes.clone());
    Object {
        key: format!("metadata/{}", file.file),
        stage: when,
        state,
        length: bytes.len() as u64,
        ahead,
        content: Content::Bytes(bytes),
    }
}

fn target_key(path: &str, file: &TargetFile) -> Result<String> {
    let path = TargetPath::new(path).map_err(|error| Error::input("a role lists a path").with_source(error))?;
    Ok(format!("targets/{}", path.file_path(&file.hashes, true)))
}

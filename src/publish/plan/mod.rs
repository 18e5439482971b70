//! What a publication will do: found out with few requests, and without listing.
//!
//! The live timestamp names its snapshot. If that is one of the workspace's own, the workspace has grown out of what is live, and
//! what the two snapshots have in common is there already: nothing live ever refers to something missing. If it is not, someone
//! else has published, and nothing is done.

mod apart;
mod delivery;
mod live;

use std::collections::BTreeSet;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tidegate_model::cohort::CohortMap;
use tidegate_tuf::metadata::{Delegations, TOP_LEVEL, TargetFile, Targets};
use tidegate_tuf::path::{TargetPath, metadata_file};
use tidegate_tuf::{Chain, Limits};

use self::apart::{closed, listings, live_protection, private_place, sides};
use self::live::{Live, live_role, newest_live_root};
use super::notice::{self, Notice};
use super::source::Source;
use super::store::{Remote, Seen, TIMESTAMP};
use crate::audit::protect::{Maps, Protection};
use crate::audit::{AuditFinding, Cause, Origin, RoleFile, Tree, walk, walk_regardless_of_expiry};
use crate::error::{Error, Kind, Result, Rule};
use crate::keys::example;
use crate::metadata::{dated_ahead, gives_time, is_dated_ahead, listed_by_version_alone, redate_remedy};
use crate::workspace::Published;
use crate::workspace::published::PublishedStep;

/// The longest cohort map that is read, in bytes: what devices read.
pub(super) const MAX_MAP: u64 = tidegate_model::cohort::MAX_LENGTH;
/// Objects looked for at once.
const READERS: usize = 16;

/// When an object is written: each stage is complete before the next begins, and refers only to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UploadStage {
    /// Artifacts, manifests, cohort maps.
    Target,
    /// Channel and cohort roles.
    Delegated,
    /// What gates let the devices of protected cohorts read.
    Listing,
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
pub enum ObjectState {
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
    pub stage: UploadStage,
    /// Whether it is.
    pub state: ObjectState,
    /// Its length in bytes.
    pub length: u64,
    /// Whether it goes to the private place. What both need is here twice.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
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
    Artifact {
        sha256: [u8; 32],
    },
    /// The one object beside the timestamp that is replaced, and what is there.
    Listing {
        bytes: Bytes,
        seen: Option<Seen>,
    },
}

/// What a publication will do.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// Where to.
    pub place: String,
    /// Where what is protected goes, if anything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private: Option<String>,
    /// The version of the live timestamp; none if nothing is published there.
    pub live: Option<u64>,
    /// The version that the timestamp will have.
    pub timestamp: u64,
    /// All objects of the repository, in the order they are written; of the files of delivery, those that are to be written.
    pub objects: Vec<Object>,
    /// What devices will notice.
    pub notices: Vec<Notice>,
    /// Channels and cohorts whose roles have expired: their devices take nothing new. Everything else is published.
    pub expired: Vec<String>,
    /// Requests that planning took.
    pub requests: u64,
    /// Channels and cohorts whose roles are dated later than now. Devices do not take time from them.
    #[serde(skip)]
    pub ahead: Vec<String>,
    /// When the live timestamp was signed, if it says so.
    #[serde(skip)]
    live_issued: Option<DateTime<Utc>>,
    #[serde(skip)]
    pub(super) seen: Option<Seen>,
    /// The version and the SHA-256 of the snapshot that will be live.
    #[serde(skip)]
    pub(super) snapshot: (u64, [u8; 32]),
    /// The version of the newest root that will be live.
    #[serde(skip)]
    pub(super) root: u64,
    /// The steps of limited rollouts that will be live, as of now.
    #[serde(skip)]
    steps: Vec<PublishedStep>,
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
    /// What is live once it is carried out.
    pub fn published(&self) -> Published {
        Published::new(self.timestamp, self.root, self.snapshot, self.steps.clone())
    }

    /// Sums it up.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for object in &self.objects {
            match object.state {
                ObjectState::New => totals.new += 1,
                ObjectState::Changed => totals.changed += 1,
                ObjectState::Unchanged => {
                    totals.unchanged += 1;
                    continue;
                }
            }
            totals.bytes += object.length;
            totals.requests += super::store::requests(object.length, self.part);
        }
        totals
    }

    /// Checks that what is live is not dated later than `now`.
    ///
    /// # Errors
    ///
    /// `M-TIME` if it is: this machine's clock is behind, or what is live was signed by a clock that was ahead.
    pub fn check_clock(&self, now: DateTime<Utc>) -> Result<()> {
        match self.live_issued {
            Some(issued) if is_dated_ahead(self.live_issued, now) => {
                let remedy = "set this machine's clock (timedatectl status); if it is right, replace what is live: tidegate refresh --redate, then tidegate publish --redate";
                Err(dated_ahead(&format!("timestamp at {}", self.place), issued, now).remedy(remedy))
            }
            _ => Ok(()),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_done(&self) -> bool {
        self.objects.iter().all(|object| object.state == ObjectState::Unchanged)
    }
}

/// Plans the publication of a workspace to `remote`, as of `now`.
///
/// # Errors
///
/// Fails if a device would not accept the workspace's metadata, if an example key would leave the machine, or if the workspace does
/// not continue from what is live.
pub async fn plan(source: &Source, remote: &Remote, now: DateTime<Utc>) -> Result<Plan> {
    let (tree, maps) = walk_all(source, now).await?;
    plan_of(source, tree, maps, remote, now).await
}

/// What people should know of before they publish. `live_root` is the version of the newest root at the place, if anything is published there.
async fn notices(
    tree: &Tree,
    live_roles: &[(Chain, Option<Targets>)],
    live_root: Option<u64>,
    remote: &Remote,
    requests: &mut u64,
) -> Result<Vec<Notice>> {
    let mut notices = notice::changes(tree, live_roles);
    if let Some(live_root) = live_root {
        notices.extend(tree.roots.iter().filter(|root| root.version > live_root).map(Notice::root));
    } else if tree.roots.len() > 1 {
        // It may be the place of a repository that was taken over.
        *requests += 1;
        notices.extend(remote.has("timestamp.json").await?.then(Notice::moved));
    }
    Ok(notices)
}

/// The same for a source whose metadata has been read already.
pub(super) async fn plan_of(
    source: &Source,
    tree: Tree,
    maps: Maps,
    remote: &Remote,
    now: DateTime<Utc>,
) -> Result<Plan> {
    let ahead = ahead(&tree, now)?;
    let expired = expired(&tree)?;
    if !remote.is_local() {
        no_example_keys(&tree)?;
    }
    let (Some(timestamp), Some(snapshot)) = (&tree.timestamp, &tree.snapshot) else {
        return Err(Error::bug("a sound repository without timestamp or snapshot"));
    };

    let mut protection = Protection::of(tree.by_name(), &maps);
    let private = private_place(&protection, remote, source.is_published())?;

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

    let Delegated { roles, live: live_roles } = delegated(source, &tree, live.as_ref(), remote, &mut requests).await?;
    let mut before = live_protection(&live_roles, maps, remote, &mut requests).await?;
    let mut objects = Vec::new();
    for (role, mut object) in roles {
        object.private = protection.is_protected(role);
        // What was public yesterday is not in the private place, nor the other way round.
        if live.is_some() && object.private != before.is_protected(role) {
            object.state = ObjectState::New;
        }
        objects.push(object);
    }
    objects.extend(targets(&tree, &live_roles, &protection, &before)?);
    let named = delivery::named(source, &tree, &objects, protection.is_any()).await?;
    for (key, files) in &named {
        protection.follow(key, files);
    }
    delivery::follow_live(&mut before, &live_roles, &named, remote, &mut requests).await?;
    objects.extend(delivery::objects(&named, &objects));
    if let Some(private) = private {
        objects.extend(listings(&protection, &before, private, &mut requests).await?);
        closed(&objects, &protection, &before, remote, &mut requests).await?;
    }
    objects.extend(top_level(&tree, (timestamp, snapshot), live.as_ref(), live_root, seen.as_ref()));
    objects.sort_by_key(|object| object.stage);

    let notices = notices(&tree, &live_roles, live.as_ref().map(|_| live_root), remote, &mut requests).await?;
    let live_issued = live.as_ref().and_then(|live| live.timestamp.common.issued);
    let live = live.map(|live| live.timestamp.common.version);
    let place = remote.name().to_owned();
    let root = tree.roots.last().map_or(0, |root| root.version);
    let part = remote.part;
    let snapshot = (snapshot.version, Sha256::digest(&snapshot.bytes).into());
    let private = private.map(|private| private.name().to_owned());
    Ok(Plan {
        place,
        private,
        live,
        timestamp: timestamp.version,
        objects,
        notices,
        expired,
        requests,
        ahead,
        live_issued,
        seen,
        snapshot,
        root,
        steps: PublishedStep::of(tree.by_name(), &[], now)?,
        part,
    })
}

/// The targets role and all that are delegated from it.
#[derive(Default)]
struct Delegated<'a> {
    /// With their names, in the order a device would meet them.
    roles: Vec<(&'a str, Object)>,
    /// What of them is live.
    live: Vec<(Chain, Option<Targets>)>,
}

async fn delegated<'a>(
    source: &Source,
    tree: &'a Tree,
    live: Option<&Live>,
    remote: &Remote,
    requests: &mut u64,
) -> Result<Delegated<'a>> {
    let agreed = if live.is_some() { source.agreed()? } else { None };
    let mut delegated = Delegated::default();
    let mut by_file = BTreeSet::new();
    for (chain, role) in &tree.targets {
        // A role that two delegate to is one file.
        if !by_file.insert(role.file.as_str()) {
            continue;
        }
        let before = live.and_then(|live| live.snapshot.role(&role.role));
        let unchanged = before.is_some_and(|before| before.version == role.version);
        // Its bytes are not in the snapshot, and this workspace has signed it since both agreed: so may have another.
        if unchanged
            && listed_by_version_alone(&role.role)
            && agreed.as_ref().is_some_and(|agreed| agreed.get(&role.role) != Some(&role.version))
        {
            *requests += 1;
            same_as_live(role, remote).await?;
        }
        let ahead = live.is_some() && before.is_none_or(|before| role.version > before.version);
        let before = match before {
            _ if unchanged => tree.role(chain).cloned(),
            Some(before) => live_role(source, remote, &role.role, before.version, requests).await?,
            None => None,
        };
        delegated.live.push((chain.clone(), before));
        let stage = if *chain == Chain::top() { UploadStage::Targets } else { UploadStage::Delegated };
        let object = metadata(role, stage, if unchanged { ObjectState::Unchanged } else { ObjectState::New }, ahead);
        delegated.roles.push((role.role.as_str(), object));
    }
    Ok(delegated)
}

/// Whether the live file of a role that is listed by version alone is the workspace's.
async fn same_as_live(role: &RoleFile, remote: &Remote) -> Result<()> {
    let there = remote.find(&format!("metadata/{}", role.file), Limits::default().targets_length).await?;
    if there.is_some_and(|there| *there.bytes == *role.bytes) {
        return Ok(());
    }
    let (place, version, name) = (remote.name(), role.version, &role.role);
    Err(Error::new(Kind::Conflict, format!("{place} has another version {version} of {name} than this workspace"))
        .rule(Rule::PublishBehind)
        .remedy("take over what is published: `tidegate pull PLACE`"))
}

/// The artifacts, manifests and other targets that the roles list.
fn targets(
    tree: &Tree,
    live: &[(Chain, Option<Targets>)],
    protection: &Protection,
    before: &Protection,
) -> Result<Vec<Object>> {
    let mut is_live = BTreeSet::new();
    for (path, file) in live.iter().filter_map(|(_, targets)| targets.as_ref()).flat_map(|targets| &targets.targets) {
        is_live.insert(target_key(path, file)?);
    }
    let (mut objects, mut seen) = (Vec::new(), BTreeSet::new());
    for listed in tree.listed() {
        let key = target_key(listed.path, listed.file)?;
        if !seen.insert(key.clone()) {
            continue;
        }
        let sha256 = *listed.file.hashes.sha256_digest().ok_or_else(|| {
            Error::input(format!("{} lists {} without a sha256 hash", listed.chain.role(), listed.path))
        })?;
        let is_live = is_live.contains(&key);
        for (private, is_there) in sides(protection.needs(&key), before.needs(&key), is_live) {
            let state = if is_there { ObjectState::Unchanged } else { ObjectState::New };
            let (key, content, length) = (key.clone(), Content::Artifact { sha256 }, listed.file.length);
            objects.push(Object { key, stage: UploadStage::Target, state, length, private, ahead: false, content });
        }
    }
    Ok(objects)
}

/// Snapshot, roots and timestamp.
fn top_level(
    tree: &Tree,
    (timestamp, snapshot): (&RoleFile, &RoleFile),
    live: Option<&Live>,
    live_root: u64,
    seen: Option<&Seen>,
) -> Vec<Object> {
    let mut objects = Vec::new();
    let known = live.is_some_and(|live| live.timestamp.snapshot().version == snapshot.version);
    let ahead = live.is_some_and(|live| snapshot.version > live.timestamp.snapshot().version);
    objects.push(metadata(
        snapshot,
        UploadStage::Snapshot,
        if known { ObjectState::Unchanged } else { ObjectState::New },
        ahead,
    ));
    for root in &tree.roots {
        let state = if root.version <= live_root { ObjectState::Unchanged } else { ObjectState::New };
        objects.push(metadata(root, UploadStage::Root, state, false));
    }
    let state = match seen {
        None => ObjectState::New,
        Some(seen) if *seen.bytes == *timestamp.bytes => ObjectState::Unchanged,
        Some(_) => ObjectState::Changed,
    };
    objects.push(metadata(timestamp, UploadStage::Timestamp, state, false));
    objects
}

/// Reads and verifies all metadata of a source, and its cohort maps, on a thread that may block.
pub(super) async fn walk_all(source: &Source, now: DateTime<Utc>) -> Result<(Tree, Maps)> {
    let (first, origin) = (source.first_root()?, source.origin());
    let walked = tokio::task::spawn_blocking(move || {
        let mut tree = walk(origin.as_ref(), &first, now)?;
        if !tree.faults.is_empty() && tree.faults.iter().all(|fault| fault.cause == Cause::Expired) {
            // What has expired is published all the same, with all below it: the snapshot lists it.
            let mut whole = walk_regardless_of_expiry(origin.as_ref(), &first, None)?;
            whole.faults.extend(tree.faults);
            tree = whole;
        }
        let maps = cohort_maps(&tree, origin.as_ref())?;
        older_roots(&mut tree, origin.as_ref())?;
        Ok((tree, maps))
    })
    .await;
    walked.map_err(|error| Error::bug("reading the metadata broke off").with_source(error))?
}

/// Adds the roots before the one that everything is verified from: those of a repository that was taken over, for clients that read them.
fn older_roots(tree: &mut Tree, origin: &dyn Origin) -> Result<()> {
    let Some(first) = tree.roots.first().cloned() else { return Ok(()) };
    let mut older = Vec::new();
    for version in 1..first.version {
        let file = metadata_file("root", Some(version));
        let Some(bytes) = origin.metadata(&file, Limits::default().root_length)? else { continue };
        older.push(RoleFile { file, version, bytes, issued: None, ..first.clone() });
    }
    tree.roots.splice(0..0, older);
    Ok(())
}

/// The cohort maps that a repository lists.
///
/// # Errors
///
/// Fails if one is missing or malformed: then it is unknown what is protected.
fn cohort_maps(tree: &Tree, origin: &dyn Origin) -> Result<Maps> {
    let mut maps = Maps::new();
    for (path, file) in Protection::maps(tree.by_name()) {
        let Some(sha256) = file.hashes.sha256_digest() else { continue };
        let mut bytes = Vec::new();
        let name = target_name(&path, file)?;
        let limit = file.length.min(MAX_MAP);
        let found = origin.target(&name, limit, &mut |chunk| {
            bytes.extend_from_slice(chunk);
            if bytes.len() as u64 > limit { Err(Error::trust(format!("{path} is longer than listed"))) } else { Ok(()) }
        })?;
        let bad = |what: &str| Error::input(format!("the cohort map {path} {what}"));
        if !found || <[u8; 32]>::from(Sha256::digest(&bytes)) != *sha256 {
            return Err(bad("is missing or damaged")
                .remedy("restore the workspace's artifacts/ from a backup, or `tidegate pull` it"));
        }
        let map = CohortMap::parse(&bytes).map_err(|error| bad("is malformed").with_source(error))?;
        maps.insert(*sha256, map);
    }
    Ok(maps)
}

/// The delegated roles that are dated later than now.
///
/// # Errors
///
/// `M-TIME` if a role that devices take time from is.
fn ahead(tree: &Tree, now: DateTime<Utc>) -> Result<Vec<String>> {
    let (wrong, others): (Vec<_>, Vec<_>) = tree.dated_ahead(now).partition(|role| gives_time(&role.role));
    match wrong.first().and_then(|role| Some((role, role.issued?))) {
        Some((role, issued)) => Err(dated_ahead(&role.role, issued, now).remedy(redate_remedy(&role.role))),
        None => Ok(others.into_iter().map(|role| role.role.clone()).collect()),
    }
}

/// The delegated roles that have expired. They stop their own devices only.
///
/// # Errors
///
/// Fails if devices would refuse everything, or a role that has not just expired.
fn expired(tree: &Tree) -> Result<Vec<String>> {
    let is_top = |role: &str| TOP_LEVEL.contains(&role);
    let stops_itself_only = |fault: &&AuditFinding| fault.cause == Cause::Expired && !is_top(&fault.subject);
    let (expired, others): (Vec<_>, Vec<_>) = tree.faults.iter().partition(stops_itself_only);
    let Some(first) = others.first() else {
        return Ok(expired.into_iter().map(|fault| fault.subject.clone()).collect());
    };
    let more = match others.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let remedy = match first.subject.as_str() {
        role @ ("root" | "targets") => format!("sign {role} again: tidegate ceremony start --renew {role}"),
        "timestamp" | "snapshot" => "renew it: tidegate refresh".to_owned(),
        _ => "see `tidegate status` and `tidegate doctor`".to_owned(),
    };
    Err(Error::trust(format!("devices would refuse this workspace: {}: {}{more}", first.subject, first.problem))
        .remedy(remedy))
}

/// Checks that the repository trusts no key whose private part is public.
fn no_example_keys(tree: &Tree) -> Result<()> {
    let delegated = tree.targets.iter().filter_map(|(chain, _)| tree.role(chain)?.delegations.as_ref());
    let keys = tree.trusted.root().keys().iter().chain(delegated.flat_map(Delegations::keys));
    for (id, key) in keys {
        if example::is_example(key) {
            return Err(Error::refused(Rule::PublishExampleKey, format!("this workspace trusts the example key {id}, which everyone has"))
                .remedy("make a workspace with keys of your own: `tidegate init DIR`; example keys serve for local folders only"));
        }
    }
    Ok(())
}

fn metadata(file: &RoleFile, when: UploadStage, state: ObjectState, ahead: bool) -> Object {
    let bytes = Bytes::from(file.bytes.clone());
    Object {
        key: format!("metadata/{}", file.file),
        stage: when,
        state,
        length: bytes.len() as u64,
        private: false,
        ahead,
        content: Content::Bytes(bytes),
    }
}

fn target_key(path: &str, file: &TargetFile) -> Result<String> {
    Ok(format!("targets/{}", target_name(path, file)?))
}

fn target_name(path: &str, file: &TargetFile) -> Result<String> {
    let path = TargetPath::new(path).map_err(|error| Error::input("a role lists a path").with_source(error))?;
    Ok(path.file_path(&file.hashes, true))
}

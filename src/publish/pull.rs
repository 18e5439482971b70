//! Merges the live state into a workspace: `tidegate pull`, and `tidegate publish --rebase` before it tries again.
//!
//! Works role by role: a role that only they changed is theirs, a role that only this workspace changed stays, and a role that
//! both changed is a conflict. To renew a role is no change of what it says. Snapshot and timestamp are signed again. The result is verified as a device would verify it, and
//! audited, before anything in the workspace changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tidegate_model::digest::Digest;
use tidegate_model::layout::DelegatedRole;
use tidegate_model::text::public_url;
use tidegate_tuf::Limits;
use tidegate_tuf::metadata::{Root, Snapshot, TargetFile, Timestamp};
use tidegate_tuf::path::{TargetPath, metadata_file};

use super::publications;
use super::store::Remote;
use crate::audit::delivery::{self, DeliveryFile};
use crate::audit::{ByHash, Origin, look};
use crate::config::Settings;
use crate::error::{Error, Kind, Result, Rule};
use crate::fs::{self, Changes};
use crate::keys::KeyRing;
use crate::metadata::{Document, Edit, METADATA_DIR, Repository, RoleFile, danger_parse_unverified};
use crate::release::draft::happening;
use crate::release::{Record, adopt};
use crate::rollout::refresh::half_over;
use crate::workspace::Published;
use crate::workspace::ledger::LedgerEvent;
use crate::workspace::{Ledger, Workspace, artifacts};

/// Number of roles that are read concurrently.
const READERS: usize = 16;
/// Longer manifests and cohort maps are not read.
const MAX_SMALL: u64 = 8 << 20;

/// The result of a pull.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PullReport {
    /// The version of the live timestamp.
    pub live: u64,
    /// The version of the workspace's timestamp now.
    pub timestamp: u64,
    /// Roles that were taken over.
    pub theirs: Vec<String>,
    /// Roles with changes of this workspace that are not published yet.
    pub ours: Vec<String>,
    /// Releases that were new to the workspace.
    pub releases: Vec<String>,
    /// Number of files fetched into the workspace's store.
    pub fetched: u64,
}

/// Options of a pull.
#[derive(Debug)]
pub struct PullOptions<'a> {
    /// The actor recorded in the ledger.
    pub actor: &'a str,
    /// The time of the pull.
    pub now: DateTime<Utc>,
    /// Whether to fetch all artifacts, too, not only manifests and cohort maps.
    pub artifacts: bool,
    /// Whether to build on what is live although it is dated later than now.
    pub redate: bool,
    /// How long an incomplete publication counts as running, not abandoned.
    pub patience: TimeDelta,
}

/// Takes over what is live at `remote`, and keeps what the workspace has changed since both last agreed.
///
/// # Errors
///
/// Fails if the live metadata does not verify, if the place shows an older state than before (`P-ROLLBACK`), if both sides
/// changed the same role, or if a key cannot sign the merged snapshot and timestamp.
pub async fn take_over(
    workspace: &Workspace,
    settings: &Settings,
    remote: &Remote,
    ring: &mut KeyRing,
    taking: &PullOptions<'_>,
) -> Result<PullReport> {
    let ours = workspace.repository()?;
    let theirs = live_for(remote, &ours).await?;
    let place = remote.name();
    let base = Published::load(workspace.dir())?;
    let live = theirs.must_have("timestamp")?.version;
    if let Some(base) = base.as_ref().filter(|base| base.timestamp > live) {
        return Err(Error::trust(format!("{place} is at timestamp {live}, and was at {} before", base.timestamp))
            .rule(Rule::PublishRollback)
            .remedy(
                "it shows an old state, or is a mirror that lags: look at the first place, and do not build on this",
            ));
    }
    let mut split = Split::of(workspace.dir(), base.as_ref(), &ours, &theirs, place)?;
    split.settle(remote, &ours, &theirs, taking.now).await?;
    let repository = split.join(&ours, &theirs, settings, ring, taking).map_err(|error| unbuildable(error, place))?;

    let fetched = fetch(workspace.dir(), remote, &theirs, taking.artifacts).await?;
    let files = repository.as_ref().unwrap_or(&theirs).files();
    let merged = Merged {
        files: files.iter().map(|(name, bytes)| (name.clone(), bytes.to_vec())).collect(),
        targets: ByHash::new(workspace.dir().join(METADATA_DIR), workspace.dir().join(artifacts::DIR)),
    };
    if let Some(fault) = look(&merged, ours.anchor()?, None, true)?.faults.first() {
        return Err(Error::new(
            Kind::Conflict,
            format!("your changes and those at {place} do not fit together: {}: {}", fault.subject, fault.problem),
        )
        .rule(Rule::PublishConflict)
        .remedy(
            "nothing was taken over; undo one of the two, or repeat yours in a workspace fresh from `tidegate pull`",
        ));
    }

    let mut changes = Changes::default();
    let repository = repository.as_ref().unwrap_or(&theirs);
    replace_metadata(&ours, repository, &theirs, &mut changes)?;
    publications::published(remote, &theirs, base.as_ref(), taking.now).await?.put(&mut changes)?;
    let mut adopted = adopt::adopt(workspace.dir(), repository, &mut changes)?;
    let releases = adopted.iter().map(|record| record.id().to_string()).collect();
    adopted.extend(adopt::follow(workspace.dir(), &ours, repository, &mut changes)?);
    let timestamp = repository.must_have("timestamp")?.version;
    // What was only renewed is no step of anybody's, and machines that renew keep no ledger.
    let says_the_same = |role: &String| match (ours.role(role), repository.role(role)) {
        (Some(before), Some(after)) => before.document.says_the_same(&after.document),
        _ => false,
    };
    let is_news = !adopted.is_empty() || !split.theirs.iter().all(says_the_same);
    split.ours.extend(split.again.into_keys());
    let taken = PullReport { live, timestamp, theirs: split.theirs, ours: split.ours, releases, fetched };
    if is_news {
        write_down(workspace.dir(), &taken, &adopted, &theirs, place, taking, &mut changes)?;
    }
    workspace.commit(changes)?;
    Ok(taken)
}

/// The live metadata of a place, verified for the workspace `ours`. Until the newest root of `ours` is published, what is live there may be
/// signed by the keys of the root before, such as those of the tool that a repository is taken over from.
async fn live_for(remote: &Remote, ours: &Repository) -> Result<Repository> {
    let (first, roots) = (ours.first_root(), ours.roots());
    let error = match live(remote, first, roots).await {
        Err(error) if error.kind() == Kind::Trust => error,
        found => return found,
    };
    let Some((_, before)) = roots.split_last().filter(|(_, before)| before.len() as u64 >= first) else {
        return Err(error);
    };
    let newest = metadata_file("root", Some(roots.len() as u64));
    if remote.has(&format!("metadata/{newest}")).await? || remote.has(&newest).await? {
        return Err(error);
    }
    live(remote, first, before).await.map_err(|_| error)
}

/// The most metadata that is read from a place before it is verified, in bytes: 10,000 roles of cohorts, and some large channels.
const MOST: u64 = 256_000_000;

/// All live metadata of a place, verified from a chain of roots on; `roots` contains them from version 1.
///
/// They are verified from version `first` on.
pub(super) async fn live(remote: &Remote, first: u64, roots: &[Vec<u8>]) -> Result<Repository> {
    state(remote, (first, roots), None).await
}

/// All metadata of a place that is live or, for inspecting only, that the earlier snapshot `past` listed; verified like [`live`].
async fn state(remote: &Remote, roots: (u64, &[Vec<u8>]), past: Option<u64>) -> Result<Repository> {
    if let Some(found) = state_in("metadata/", remote, roots, past).await? {
        return Ok(found);
    }
    // A repository of another tool may have no folders.
    state_in("", remote, roots, past).await?.ok_or_else(|| {
        Error::input(format!("nothing is published at {}", remote.name()))
            .remedy("check the place; the first publication needs no --rebase and nothing to pull")
    })
}

/// The same, of metadata in one folder of the place; `None` if it has no timestamp.
async fn state_in(
    folder: &str,
    remote: &Remote,
    (first, roots): (u64, &[Vec<u8>]),
    past: Option<u64>,
) -> Result<Option<Repository>> {
    let limits = Limits::default();
    let mut files = BTreeMap::new();
    for (version, root) in (1_u64..).zip(roots) {
        files.insert(metadata_file("root", Some(version)), root.clone());
    }
    let read = async |file: &str, limit: u64| -> Result<Option<Vec<u8>>> {
        Ok(remote.find(&format!("{folder}{file}"), limit).await?.map(|seen| seen.bytes.to_vec()))
    };
    // At most as many as a device follows: they are not verified yet, and their number must be bounded.
    let known = roots.len() as u64;
    for next in known + 1..=known.saturating_add(limits.root_rotations) {
        let file = metadata_file("root", Some(next));
        let Some(bytes) = read(&file, limits.root_length).await? else { break };
        files.insert(file, bytes);
    }
    let consistent = is_consistent(&files);
    // A repository of another tool may have no versions in its files' names; here they always have.
    let there = |role: &str, version: u64| metadata_file(role, consistent.then_some(version));
    let name = metadata_file("timestamp", None);
    let Some(timestamp) = remote.read(&format!("{folder}{name}"), limits.timestamp_length).await? else {
        return Ok(None);
    };
    let timestamp = timestamp.bytes;
    let malformed = |error| Error::trust(format!("the metadata at {} is malformed", remote.name())).with_source(error);
    let listed: Timestamp = danger_parse_unverified("timestamp", &timestamp).map_err(malformed)?;
    let mut lacks_cohort = false;
    let version = past.unwrap_or(listed.snapshot().version);
    if past.is_none() {
        files.insert(name, timestamp.to_vec());
    }
    if let Some(bytes) = read(&there("snapshot", version), limits.snapshot_length).await? {
        let snapshot: Snapshot = danger_parse_unverified("snapshot", &bytes).map_err(malformed)?;
        files.insert(metadata_file("snapshot", Some(version)), bytes);
        let names = snapshot.meta.iter().map(|(file, meta)| {
            let role = file.strip_suffix(".json").unwrap_or(file);
            let here = metadata_file(role, Some(meta.version));
            (there(role, meta.version), here, limits.listed(meta.length, limits.targets_length))
        });
        // This snapshot is not verified yet, and lists as much as it likes.
        let left = AtomicU64::new(MOST);
        let found: Vec<(String, Option<Vec<u8>>)> = stream::iter(names)
            .map(|(there, name, limit)| {
                let (read, left) = (&read, &left);
                async move {
                    let bytes = read(&there, limit).await?;
                    let length = bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
                    if left.fetch_sub(length, Ordering::Relaxed) < length {
                        let what = format!("the metadata at {} is more than {MOST} bytes", remote.name());
                        return Err(Error::trust(what).remedy("take nothing over from there"));
                    }
                    Ok::<_, Error>((name, bytes))
                }
            })
            .buffer_unordered(READERS)
            .try_collect()
            .await?;
        lacks_cohort = found.iter().any(|(name, bytes)| bytes.is_none() && name.split('.').count() > 3);
        files.extend(found.into_iter().filter_map(|(name, bytes)| Some((name, bytes?))));
    }
    // Verified here: nothing read above is trusted before.
    Repository::load_at(first, |name, _| Ok(files.get(name).cloned()), past).map(Some).map_err(|error| {
        let what = format!("what is live at {} does not verify", remote.name());
        // A missing role of a cohort may be in the private place.
        Error::trust(what).with_source(error).remedy(if remote.private().is_some() || !lacks_cohort {
            "take nothing over from there; `tidegate verify` says more"
        } else {
            "if cohorts are protected, say where what is protected lies: --private PLACE; else take nothing over from there"
        })
    })
}

/// Whether the newest of these roots, which are not verified yet, has consistent snapshots.
fn is_consistent(files: &BTreeMap<String, Vec<u8>>) -> bool {
    let roots = files.values().filter_map(|bytes| danger_parse_unverified::<Root>("root", bytes).ok());
    roots.max_by_key(|root| root.common.version).is_none_or(|root| root.consistent_snapshot)
}

/// Reads a place into the folder `dir`, which holds nothing else: what is live there or what the snapshot `past` listed, verified from
/// the root file `root`, with manifests and cohort maps but without artifacts. For programs that look, not for workspaces.
///
/// # Errors
///
/// `P-ROOT` if the root is not one of the place's own. Fails if the metadata does not verify or a file cannot be read.
pub async fn read_into(dir: &Path, remote: &Remote, root: &[u8], past: Option<u64>) -> Result<Repository> {
    let repository = trusted(remote, root, past).await?;
    fetch(dir, remote, &repository, false).await?;
    Ok(repository)
}

/// The state of a place that has the root file `root` among its own; older roots may be kept that nobody can verify.
///
/// # Errors
///
/// `P-ROOT` if it has not. Fails if the metadata does not verify.
pub(super) async fn trusted(remote: &Remote, root: &[u8], past: Option<u64>) -> Result<Repository> {
    let given: Root = danger_parse_unverified("root", root)
        .map_err(|error| Error::trust("the given root does not verify").with_source(error))?;
    // A root vouches for those after it and for none before: whoever may write to the place could have made these.
    let repository = state(remote, (given.common.version, &[]), past).await?;
    if repository.anchor()? == root {
        return Ok(repository);
    }
    Err(Error::trust(format!("{} does not have the root that you trust among its own", remote.name()))
        .rule(Rule::PublishRoot)
        .remedy("check the place and the root file: this is another repository, or someone has replaced it"))
}

/// Which side changed which role since both last agreed.
#[derive(Debug, Default)]
struct Split {
    ours: Vec<String>,
    theirs: Vec<String>,
    /// Changed by both, and the version that both began from.
    both: BTreeMap<String, Option<u64>>,
    /// Cohorts' roles that we changed and they only renewed: ours are signed again, on top of theirs. With our version.
    again: BTreeMap<String, u64>,
}

impl Split {
    fn of(
        dir: &Path,
        published: Option<&Published>,
        ours: &Repository,
        theirs: &Repository,
        place: &str,
    ) -> Result<Self> {
        let roots = ours.roots().iter().zip(theirs.roots()).all(|(a, b)| a == b);
        if !roots {
            return Err(Error::new(Kind::Conflict, format!("{place} has other roots than this workspace"))
                .rule(Rule::PublishConflict)
                .remedy("hold a ceremony on top of the roots that are published; nothing else can settle this"));
        }
        // What is live may be of this workspace's own past, though it was published from elsewhere: then only we have gone on.
        let base = match grown_from(dir, theirs) {
            Some(base) => base,
            None => published.map(|published| published.roles(dir)).transpose()?.flatten().ok_or_else(|| {
                Error::new(Kind::Conflict, format!("this workspace does not know what it has in common with {place}"))
                    .rule(Rule::PublishBase)
                    .remedy("`tidegate pull` into a new folder and repeat your changes there")
            })?,
        };
        let mut split = Self::default();
        let root = |repository: &Repository| repository.roots().len() as u64;
        if root(ours) > root(theirs) {
            split.ours.push("root".to_owned());
        } else if root(ours) < root(theirs) {
            split.theirs.push("root".to_owned());
        }
        let names: BTreeSet<&str> = roles(ours).chain(roles(theirs)).collect();
        for name in names {
            let (our, their) = (ours.role(name), theirs.role(name));
            if our.map(|file| &file.bytes) == their.map(|file| &file.bytes) {
                continue;
            }
            if let (Some(their), Some(base)) = (their, base.get(name))
                && their.version < *base
            {
                return Err(Error::trust(format!(
                    "{place} has version {} of {name}, and had {base} before",
                    their.version
                ))
                .rule(Rule::PublishRollback)
                .remedy("do not build on what is there; find out who put it back, and `tidegate verify` it"));
            }
            let changed = |file: Option<&RoleFile>| file.map(|file| file.version) != base.get(name).copied();
            match (changed(our), changed(their)) {
                (true, false) => split.ours.push(name.to_owned()),
                (false, true) => split.theirs.push(name.to_owned()),
                // This should not happen as the files differ: one version was used twice.
                _ => {
                    split.both.insert(name.to_owned(), base.get(name).copied());
                }
            }
        }
        Ok(split)
    }

    /// Settles what both have signed anew where one side only renewed it, as machines do at any time.
    ///
    /// # Errors
    ///
    /// `P-CONFLICT` if both sides have changed what a role says.
    async fn settle(
        &mut self,
        remote: &Remote,
        ours: &Repository,
        theirs: &Repository,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let mut conflicts = Vec::new();
        for (name, base) in std::mem::take(&mut self.both) {
            let (Some(our), Some(their)) = (ours.role(&name), theirs.role(&name)) else {
                conflicts.push(name);
                continue;
            };
            let is_cohort = matches!(DelegatedRole::parse(&name), Some(DelegatedRole::Cohort { .. }));
            if our.document.says_the_same(&their.document) {
                // Both renewed it, and theirs may be due again.
                if is_cohort && our.expires > their.expires && half_over(their, now) {
                    self.again.insert(name, our.version);
                } else {
                    self.theirs.push(name);
                }
                continue;
            }
            let Some(base) = base.filter(|base| *base < our.version && *base < their.version) else {
                conflicts.push(name);
                continue;
            };
            match earlier(remote, ours, &name, base).await? {
                Some(base) if base.says_the_same(&our.document) => self.theirs.push(name),
                Some(document) if is_cohort && only_renewed(remote, ours, their, base, &document).await? => {
                    self.again.insert(name, our.version);
                }
                _ => conflicts.push(name),
            }
        }
        if conflicts.is_empty() {
            return Ok(());
        }
        let what = format!("both this workspace and {} have changed {}", remote.name(), conflicts.join(", "));
        Err(Error::new(Kind::Conflict, what)
            .rule(Rule::PublishConflict)
            .remedy("`tidegate pull` into a new folder and repeat your change there, or have theirs undone first"))
    }

    /// The merged repository; `None` if it equals theirs. Snapshot and timestamp never get a version that either side has used.
    fn join(
        &self,
        ours: &Repository,
        theirs: &Repository,
        settings: &Settings,
        ring: &mut KeyRing,
        taking: &PullOptions<'_>,
    ) -> Result<Option<Repository>> {
        if self.ours.is_empty() && self.again.is_empty() {
            return Ok(None);
        }
        let online = settings.online();
        let version = |repository: &Repository, role: &str| repository.must_have(role).map(|file| file.version);
        // They renewed at most roles that are signed again anyway.
        let on_ours = self.theirs.is_empty() && self.again.is_empty();
        let base = if on_ours { ours } else { theirs };
        let mut edit =
            if taking.redate { Edit::redating(base, taking.now, online) } else { Edit::new(base, taking.now, online)? };
        if on_ours {
            edit.renew("timestamp", online.timestamp)?;
            if version(theirs, "snapshot")? >= version(ours, "snapshot")? {
                edit.renew("snapshot", online.snapshot)?;
            }
        }
        for role in self.ours.iter().filter(|_| !on_ours) {
            if role == "root" && ours.roots().len() > theirs.roots().len() + 1 {
                return Err(Error::new(Kind::Conflict, "this workspace has several roots that are not published")
                    .rule(Rule::PublishConflict)
                    .remedy("publish them one by one, each before the next ceremony"));
            }
            // A role that is gone here needs no entry: the role that delegated to it is among ours.
            if let Some(file) = ours.role(role) {
                edit.put_signed(role, file.bytes.clone());
            }
        }
        for (role, version) in &self.again {
            let file = ours.must_have(role)?;
            let Some(DelegatedRole::Cohort { channel, .. }) = DelegatedRole::parse(role) else { continue };
            edit.put(role, file.document.clone(), settings.channel(&channel)?.rollout.expires.delta());
            edit.after(role, *version);
        }
        for role in ["snapshot", "timestamp"] {
            edit.after(role, version(ours, role)?);
            edit.after(role, version(theirs, role)?);
        }
        Ok(edit.finish(ring)?.map(|finished| finished.repository))
    }
}

/// What to do where this workspace's changes cannot be put on top of metadata that is dated later than now.
fn unbuildable(error: Error, place: &str) -> Error {
    if error.broken_rule() != Some(Rule::MetadataTime) {
        return error;
    }
    error.remedy(format!(
        "set this machine's clock (timedatectl status); if it is right, take it over and date it anew: tidegate pull {place} --redate, \
         then tidegate publish {place} --redate"
    ))
}

/// The most versions of a role that are looked through for a change.
const MOST_VERSIONS: u64 = 16;

/// What a role said in an earlier version, from the place; `None` if it is no longer there, or its keys have not signed it.
async fn earlier(remote: &Remote, ours: &Repository, name: &str, version: u64) -> Result<Option<Document>> {
    let key = format!("metadata/{}", metadata_file(name, Some(version)));
    let bytes = remote.find(&key, Limits::default().targets_length).await?;
    Ok(bytes.and_then(|seen| ours.earlier(name, version, &seen.bytes)))
}

/// Whether every version of their role since `base` says what `document`, the base, says.
async fn only_renewed(
    remote: &Remote,
    ours: &Repository,
    their: &RoleFile,
    base: u64,
    document: &Document,
) -> Result<bool> {
    if !document.says_the_same(&their.document) || their.version - base > MOST_VERSIONS {
        return Ok(false);
    }
    for version in base + 1..their.version {
        // What was changed and changed back, such as a release that was started and withdrawn, is a change.
        let between = earlier(remote, ours, &their.name, version).await?;
        if !between.is_some_and(|between| between.says_the_same(document)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The role versions of the live snapshot, if the workspace has that very snapshot.
fn grown_from(dir: &Path, theirs: &Repository) -> Option<BTreeMap<String, u64>> {
    Published::of(theirs).ok()?.roles(dir).ok()?
}

fn roles(repository: &Repository) -> impl Iterator<Item = &str> {
    repository.roles().map(|file| file.name.as_str()).filter(|name| !["root", "snapshot", "timestamp"].contains(name))
}

/// Makes `now` the workspace's metadata. Snapshots stay, including theirs; publishing recognizes the live state by them.
fn replace_metadata(ours: &Repository, now: &Repository, theirs: &Repository, changes: &mut Changes) -> Result<()> {
    let before = ours.files();
    let mut files = now.files();
    let snapshot = theirs.must_have("snapshot")?;
    files.insert(snapshot.file_name(), &snapshot.bytes);
    for (name, bytes) in &files {
        if before.get(name) != Some(bytes) {
            changes.put(format!("{METADATA_DIR}/{name}"), *bytes);
        }
    }
    for role in roles(ours).filter_map(|role| ours.role(role)) {
        if !files.contains_key(&role.file_name()) {
            changes.remove(format!("{METADATA_DIR}/{}", role.file_name()));
        }
    }
    Ok(())
}

/// Records in the ledger what was taken over, from where and in which versions, and in which state each adopted release was found.
pub(super) fn write_down(
    dir: &Path,
    taken: &PullReport,
    adopted: &[Record],
    theirs: &Repository,
    place: &str,
    taking: &PullOptions<'_>,
    changes: &mut Changes,
) -> Result<()> {
    let mut ledger = Ledger::open(dir)?;
    let place = crate::workspace::ledger::clean(&public_url(place));
    let versions = taken.theirs.iter().filter_map(|role| Some((role.clone(), theirs.role(role)?.version.into())));
    let mut evidence = Map::new();
    evidence.insert("timestamp".into(), taken.live.into());
    evidence.insert("theirs".into(), json!(taken.theirs));
    evidence.insert("versions".into(), Value::Object(versions.collect()));
    evidence.insert("ours".into(), json!(taken.ours));
    evidence.insert("releases".into(), json!(taken.releases));
    ledger.append(
        taking.now,
        LedgerEvent {
            event: "pull",
            subject: "repository".into(),
            actor: taking.actor.to_owned(),
            transition: None,
            reason: Some(place.clone()),
            evidence,
        },
    )?;
    for record in adopted {
        let evidence = Map::from_iter([("timestamp".to_owned(), taken.live.into())]);
        let mut adopted = happening("adopt", record, Some(record.status()), taking.actor, evidence);
        adopted.reason = Some(place.clone());
        ledger.append(taking.now, adopted)?;
    }
    ledger.put(changes);
    Ok(())
}

/// Fetches what the workspace's store lacks: manifests and cohort maps, and with `all` every artifact. Returns their number.
pub(super) async fn fetch(dir: &Path, remote: &Remote, theirs: &Repository, all: bool) -> Result<u64> {
    let mut wanted: BTreeMap<Digest, (String, TargetFile)> = BTreeMap::new();
    for (path, file) in roles(theirs).filter_map(|role| theirs.targets(role)).flat_map(|targets| &targets.targets) {
        let small = file.length <= MAX_SMALL && !artifacts::is_built(path);
        let Some(sha256) = file.hashes.sha256_digest().filter(|_| small || all) else { continue };
        wanted.insert(Digest::from(*sha256), (path.clone(), file.clone()));
    }
    wanted.retain(|sha256, _| !dir.join(artifacts::find(dir, sha256)).exists());
    let count = wanted.len() as u64;
    let consistent = theirs.trusted().root().consistent_snapshot;
    stream::iter(wanted)
        .map(|(sha256, (path, file))| fetch_one(dir, (remote, consistent), sha256, path, file))
        .buffer_unordered(if all { 4 } else { READERS })
        .try_collect::<Vec<()>>()
        .await?;
    Ok(count + if all { fetch_delivery(dir, remote, theirs).await? } else { 0 })
}

/// Fetches what the store lacks of the files that manifests and lists of patches name. Returns their number.
async fn fetch_delivery(dir: &Path, remote: &Remote, theirs: &Repository) -> Result<u64> {
    let mut wanted: BTreeMap<Digest, DeliveryFile> = BTreeMap::new();
    for (path, file) in roles(theirs).filter_map(|role| theirs.targets(role)).flat_map(|targets| &targets.targets) {
        let Some(sha256) = file.hashes.sha256_digest().filter(|_| delivery::names_some(path)) else { continue };
        let stored = dir.join(artifacts::find(dir, &Digest::from(*sha256)));
        let bytes = fs::read_if_exists(&stored, delivery::MAX_LENGTH)?;
        let named = bytes.and_then(|bytes| delivery::named(path, &bytes)).unwrap_or_default();
        wanted.extend(named.into_iter().map(|file| (file.sha256, file)));
    }
    wanted.retain(|sha256, _| !dir.join(artifacts::find(dir, sha256)).exists());
    let count = wanted.len() as u64;
    stream::iter(wanted.into_values())
        .map(|file| async move {
            let missing = || Error::trust(format!("{} is missing at {}", file.key(), remote.name()));
            let stream = remote.find_stream(&file.key()).await?.ok_or_else(missing)?;
            let stored = artifacts::Stored { sha256: file.sha256, length: file.length };
            artifacts::receive(dir, stored, false, stream).await
        })
        .buffer_unordered(4)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(count)
}

async fn fetch_one(
    dir: &Path,
    (remote, consistent): (&Remote, bool),
    sha256: Digest,
    path: String,
    file: TargetFile,
) -> Result<()> {
    let target = TargetPath::new(&path).map_err(|error| Error::trust("a role lists a path").with_source(error))?;
    let key = format!("targets/{}", target.file_path(&file.hashes, consistent));
    let missing = || Error::trust(format!("{key} is missing at {}", remote.name()));
    let stream = remote.find_stream(&key).await?.ok_or_else(missing)?;
    let made = !artifacts::is_built(&path);
    artifacts::receive(dir, artifacts::Stored { sha256, length: file.length }, made, stream).await
}

/// Merged metadata that is not written yet, with the workspace's targets.
struct Merged {
    files: BTreeMap<String, Vec<u8>>,
    targets: ByHash,
}

impl Origin for Merged {
    fn is_versioned(&self) -> bool {
        true
    }

    fn metadata(&self, file: &str, _: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.files.get(file).cloned())
    }

    fn target(&self, path: &str, length: u64, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        self.targets.target(path, length, sink)
    }
}

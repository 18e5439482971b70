//! Takes over a TUF repository made by another tool: its devices follow along its own chain of roots.
//!
//! Its current state becomes the base of a workspace, and a ceremony proposes a next root with our keys. Nothing changes for
//! devices until holders of the old root's keys have signed it, as for every change of root.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, json};
use tidegate_model::digest::Digest;
use tidegate_model::layout::Location;
use tidegate_model::name::Name;
use tidegate_model::text::public_url;
use tidegate_tuf::key::Key;
use tidegate_tuf::metadata::Root;
use tidegate_tuf::path::{TargetPath, metadata_file};
use tidegate_tuf::{Limits, TrustedSet};

use crate::audit::{AuditFinding, Cause, Origin, Tree, key_of_tough, read_target, walk_regardless_of_expiry};
use crate::ceremony;
use crate::config::Settings;
use crate::error::{Error, Kind, Result, Rule, chain};
use crate::fs;
use crate::keys::KeyRing;
use crate::keys::Passphrases;
use crate::metadata::{FROM_ROOT, METADATA_DIR, Repository, danger_parse_unverified};
use crate::proposal::{Proposal, ProposalRequest};
use crate::workspace::init::{Options, TEMPLATE, begin_ledger, commit, prepare};
use crate::workspace::ledger::clean;
use crate::workspace::{Operation, Published, Workspace, artifacts};

/// For how many files a place is asked at most to see how it names them.
const MOST_ASKED: usize = 20;
/// The longest tidegate.toml that is read, in bytes.
const MAX_SETTINGS: u64 = 1 << 20;

/// A repository that was taken over.
#[derive(Debug)]
pub struct Imported {
    /// The version of its root.
    pub root: u64,
    /// How many roles were taken over.
    pub roles: usize,
    /// Number of target files that its targets roles list and the new repository will not.
    pub left_behind: usize,
    /// The proposal of its next root.
    pub proposal: Proposal,
}

const FROM_A_LATER_ROOT: &str = "take it over from a later root that you vouch for: --from-root N --root N.root.json; older ones are kept as they are";

/// The root from which a repository is verified.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// A root file that is trusted.
    pub root: &'a [u8],
    /// Its version, if roots before it cannot be verified; they are kept byte for byte.
    pub from: Option<u64>,
}

impl Start<'_> {
    fn version(&self) -> Result<u64> {
        let root: Root = danger_parse_unverified("root", self.root)
            .map_err(|error| Error::trust("the given root does not verify").with_source(error))?;
        Ok(root.common.version)
    }

    /// The same, verified from the given root in any case: it vouches for those after it and for none before, however well these fit.
    fn anchored(&self) -> Result<Self> {
        let version = self.version()?;
        Ok(Self { from: self.from.or((version > 1).then_some(version)), ..*self })
    }

    /// The root is the one that is vouched for.
    fn check(&self) -> Result<()> {
        let Some(from) = self.from else { return Ok(()) };
        match self.version()? {
            version if version == from => Ok(()),
            version => {
                Err(Error::usage(format!("the given root is version {version}, and root {from} is vouched for"))
                    .remedy(format!("give the file of root {from} that you trust: --root {from}.root.json")))
            }
        }
    }
}

/// Whether a repository can be taken over, and what that changes for its clients.
#[derive(Debug, Default, Serialize)]
pub struct TakeoverCheck {
    /// Whether nothing stands against it.
    pub possible: bool,
    /// The version of its newest root; 0 if none verifies.
    pub root: u64,
    /// The number of its roles.
    pub roles: usize,
    /// What stands against it.
    pub obstacles: Vec<Obstacle>,
    /// What changes for clients, in sentences.
    pub changes: Vec<String>,
}

/// Something that stands against a takeover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// What, and why.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Obstacle {
    fn of(error: &Error) -> Self {
        let what = chain(error);
        // The given root itself.
        let cause = error.source().and_then(<dyn StdError>::downcast_ref).map(Cause::of);
        let other = match cause {
            Some(Cause::Unsupported | Cause::Malformed) => FROM_A_LATER_ROOT,
            _ => "check that the place and the root belong together",
        };
        let remedy = error.remedy_text().unwrap_or(other).to_owned();
        Self { what, remedy }
    }

    fn fault(fault: &AuditFinding) -> Self {
        let remedy = match fault.cause {
            Cause::Root => FROM_A_LATER_ROOT,
            Cause::Unsupported => {
                "with the old tool, give the role enough keys of ed25519, P-256 or RSA (2048 bits or more), sign it anew, and try again"
            }
            Cause::Missing => "complete the repository with the old tool or from a backup, and try again",
            Cause::Expired | Cause::Malformed | Cause::Other => {
                "repair it with the old tool; if it verifies there, check that the root belongs to this repository"
            }
        };
        // What the trust core tells begins with the role.
        let is_named = fault.problem.starts_with(&format!("{}: ", fault.subject));
        let what = if is_named { fault.problem.clone() } else { format!("{}: {}", fault.subject, fault.problem) };
        Self { what, remedy: remedy.to_owned() }
    }
}

/// Finds out what [`import`] would do, and changes nothing.
///
/// # Errors
///
/// Fails if the place or the configuration in `dir` cannot be read. What the repository lacks is part of the result.
pub fn check(dir: &Path, origin: &dyn Origin, start: &Start<'_>) -> Result<TakeoverCheck> {
    start.check()?;
    let mut found = TakeoverCheck::default();
    match walk_regardless_of_expiry(origin, start.root, None) {
        Ok(tree) => {
            found.root = tree.roots.last().map_or(0, |file| file.version);
            found.roles = tree.roles() + 1 - tree.roots.len();
            found.obstacles.extend(tree.faults.iter().map(Obstacle::fault));
            if tree.faults.is_empty() {
                let channels = settings(dir)?.channels;
                let gathered =
                    gather(origin, start, &tree).and_then(|files| fits(start, &files, &tree, channels.keys()));
                found.obstacles.extend(gathered.err().iter().map(Obstacle::of));
            }
            found.obstacles.extend(unreachable_threshold(tree.trusted.root()));
            found.changes = changes(origin, &tree);
        }
        Err(error) if error.kind() == Kind::Trust => found.obstacles.push(Obstacle::of(&error)),
        Err(error) => return Err(error),
    }
    found.possible = found.obstacles.is_empty();
    Ok(found)
}

/// Creates a workspace in the folder `dir` that continues the repository at `place`, verified from the root that `start` names, and
/// starts the ceremony that hands it over.
///
/// # Errors
///
/// Fails, and leaves nothing behind, if the repository does not verify, or if its chain of roots is not available from version 1
/// on.
pub fn import(
    dir: &Path,
    (place, origin): (&str, &dyn Origin),
    start: &Start<'_>,
    options: &Options,
    now: DateTime<Utc>,
    passphrases: &mut dyn Passphrases,
) -> Result<Imported> {
    start.check()?;
    let tree = walk_regardless_of_expiry(origin, start.root, None)?;
    if let Some(fault) = tree.faults.first() {
        let Obstacle { what, remedy } = Obstacle::fault(fault);
        return Err(Error::trust(format!("{place}: {what}")).rule(Rule::ImportSound).remedy(remedy));
    }
    let files = gather(origin, start, &tree)?;
    let start = &start.anchored()?;

    let mut prepared = prepare(dir, options, passphrases)?;
    let repository = fits(start, &files, &tree, prepared.settings.channels.keys())?;
    let version = repository.roots().len() as u64;
    let last = repository.roots().last().ok_or_else(|| Error::bug("a chain without roots"))?;
    let changes = &mut prepared.changes;
    for (name, bytes) in files {
        changes.put(name, bytes);
    }
    let evidence =
        json!({"version": version, "sha256": Digest::of(last).to_string(), "from": clean(&public_url(place))});
    let mut evidence = Map::from_iter([("root".to_owned(), evidence)]);
    if let Some(version) = start.from {
        changes.put(format!("{METADATA_DIR}/{FROM_ROOT}"), format!("{version}\n"));
        let vouched = json!({"version": version, "sha256": Digest::of(start.root).to_string()});
        evidence.insert("from_root".to_owned(), vouched);
    }
    Published::of(&repository)?.put(changes)?;
    begin_ledger(dir, "import", evidence, &options.actor, now, changes)?;
    commit(dir, prepared.changes)?;

    let workspace = Workspace::open(dir)?;
    let request = ProposalRequest { reason: Some("take the repository over".into()), ..ProposalRequest::default() };
    let proposal =
        ceremony::start(&mut Operation::new(&workspace, &options.actor, now, &mut KeyRing::empty()), &request)?;
    Ok(Imported { root: version, roles: tree.targets.len() + 3, left_behind: tree.listed().count(), proposal })
}

/// The settings that a workspace in `dir` would have.
fn settings(dir: &Path) -> Result<Settings> {
    const FILE: &str = "tidegate.toml";
    let own = fs::read_if_exists(&dir.join(FILE), MAX_SETTINGS)?;
    let template = TEMPLATE.iter().find(|(name, _)| *name == FILE).map(|(_, text)| text.as_bytes());
    Settings::parse(own.as_deref().or(template).unwrap_or_default())
}

/// The files of the workspace that come from the repository, by their paths.
fn gather(origin: &dyn Origin, start: &Start<'_>, tree: &Tree) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for (version, bytes) in (1_u64..).zip(roots(origin, start, tree)?) {
        files.insert(format!("{METADATA_DIR}/{}", metadata_file("root", Some(version))), bytes);
    }
    for (digest, bytes) in cohort_maps(origin, tree)? {
        files.insert(artifacts::signed_path(&digest), bytes);
    }
    let below = [&tree.timestamp, &tree.snapshot].into_iter().flatten();
    for file in below.chain(tree.targets.iter().map(|(_, file)| file)) {
        files.insert(format!("{METADATA_DIR}/{}", file.file), file.bytes.clone());
    }
    Ok(files)
}

/// A workspace can go on from these files: it has one delegation to each role, and a role of another tool is not one of its channels.
fn fits<'a>(
    start: &Start<'_>,
    files: &BTreeMap<String, Vec<u8>>,
    tree: &Tree,
    mut channels: impl Iterator<Item = &'a Name>,
) -> Result<Repository> {
    let repository =
        Repository::load(start.from.unwrap_or(1), |name, _| Ok(files.get(&format!("{METADATA_DIR}/{name}")).cloned()))?;
    let is_taken = |name: &&Name| repository.role(name.as_str()).is_some();
    match channels.find(is_taken).filter(|_| tree.is_foreign()) {
        None => Ok(repository),
        Some(name) => {
            Err(Error::refused(Rule::ImportSound, format!("the repository has a role {name}, which is no channel"))
                .remedy(format!(
                    "name the channel otherwise: put a tidegate.toml without [channels.{name}] into the new folder"
                )))
        }
    }
}

/// Whether the keys of the old root whose schemes are supported are too few to sign the next one.
fn unreachable_threshold(root: &Root) -> Option<Obstacle> {
    let role = root.role("root")?;
    let keys = role.keyids.iter().filter_map(|id| root.keys().get(id));
    let (known, unknown): (Vec<_>, Vec<_>) = keys.partition(|key| key.decode().is_some());
    let schemes: BTreeSet<&str> = unknown.iter().map(|key| key.scheme()).collect();
    ((known.len() as u64) < role.threshold).then(|| Obstacle {
        what: format!(
            "root {} needs {} signatures, and {} of its keys are of a supported kind; not supported: {}",
            root.common.version,
            role.threshold,
            known.len(),
            schemes.into_iter().collect::<Vec<_>>().join(", ")
        ),
        remedy:
            "with the old tool, make one more root with enough keys of ed25519, P-256 or RSA, and take over from there"
                .into(),
    })
}

/// What a takeover changes for clients.
fn changes(origin: &dyn Origin, tree: &Tree) -> Vec<String> {
    let root = tree.trusted.root();
    let mut changes = Vec::new();
    if let Some(role) = root.role("root") {
        let scheme = |id| root.keys().get(id).map_or("?", Key::scheme);
        let keys: Vec<String> = role.keyids.iter().map(|id| format!("{} ({})", id.short(), scheme(id))).collect();
        let next = root.common.version + 1;
        let (version, threshold) = (root.common.version, role.threshold);
        changes.push(format!(
            "root {next} names your keys; {threshold} of the keys of root {version} sign it: {}",
            keys.join(", ")
        ));
    }
    let listed: Vec<&str> = tree.listed().map(|listed| listed.path).collect();
    if let (count @ 1.., Some(first)) = (listed.len(), listed.first()) {
        changes.push(format!(
            "clients find the {count} listed files by name no longer, such as {first}; `release new` lists files anew"
        ));
    }
    if tree.is_foreign() && tree.targets.len() > 1 {
        changes.push(format!(
            "{} delegated roles are given up; the snapshot goes on listing them",
            tree.targets.len() - 1
        ));
    }
    if !root.consistent_snapshot {
        changes.push("file names begin with a version or hash from then on (consistent snapshots, TUF 6.2)".to_owned());
    }
    if tree.is_foreign() {
        changes.push(names_for_tough(origin, tree));
    }
    if origin.is_flat() {
        changes.push("metadata moves to metadata/ and targets to targets/: have the server answer for the old URLs from there, or give clients the new ones \
             (metadata_url, targets_url)"
                .to_owned(),
        );
    }
    changes
}

/// How clients built on tough find files: Tidegate's targets are all in folders.
fn names_for_tough(origin: &dyn Origin, tree: &Tree) -> String {
    let keys = tree.listed().filter_map(|listed| key_of_tough(listed.path, &listed.file.hashes));
    let is_there = |key: String| origin.is_open(&key).unwrap_or(false);
    let has_names = tree.trusted.root().consistent_snapshot && keys.take(MOST_ASKED).any(is_there);
    let tough = if has_names {
        "files in folders have the names that clients built on tough ask for, targets/HASH.folder/name"
    } else {
        "clients built on tough (tuftool, Bottlerocket), if there are any, ask for targets/HASH.folder/name"
    };
    format!(
        "{tough}; Tidegate's files are targets/folder/HASH.name as in TUF 5.7.3: for such clients, have the server rewrite their URLs \
         (docs/migrate.md, From tuftool)"
    )
}

/// The cohort maps of a repository that Tidegate made, so that signers see which devices move.
fn cohort_maps(origin: &dyn Origin, tree: &Tree) -> Result<Vec<(Digest, Vec<u8>)>> {
    let consistent = tree.trusted.root().consistent_snapshot;
    let is_map = |path: &str| matches!(Location::parse(path), Some(Location::CohortMap { .. }));
    let mut maps = Vec::new();
    for listed in tree.listed().filter(|listed| is_map(listed.path)) {
        let unsound = |problem: String| {
            Error::trust(format!("{}: {problem}", listed.path))
                .rule(Rule::ImportSound)
                .remedy("check that the repository is complete: tidegate verify")
        };
        let path = TargetPath::new(listed.path).map_err(|error| unsound(error.to_string()))?;
        let name = path.file_path(&listed.file.hashes, consistent);
        match read_target(origin, &name, listed.path, listed.file)? {
            Ok(Some(bytes)) => maps.push((Digest::of(&bytes), bytes)),
            Ok(None) => return Err(unsound("it is too long for a cohort map".into())),
            Err(fault) => return Err(unsound(fault.problem)),
        }
    }
    Ok(maps)
}

/// Every root from version 1 on: the given one is one of them, and each follows from the one before, from the one on that is vouched for.
fn roots(origin: &dyn Origin, start: &Start<'_>, tree: &Tree) -> Result<Vec<Vec<u8>>> {
    let first = tree.roots.first().map_or(1, |file| file.version);
    let limit = Limits::default().root_length;
    let mut roots = Vec::new();
    for version in 1..first {
        let file = metadata_file("root", Some(version));
        let bytes = origin.metadata(&file, limit)?.ok_or_else(|| {
            Error::input(format!("metadata/{file} is missing")).rule(Rule::ImportChain).remedy(
                "a takeover needs every root from version 1 on, for devices that were offline since; find the file in a backup",
            )
        })?;
        roots.push(bytes);
    }
    roots.push(start.root.to_vec());
    roots.extend(tree.roots.iter().skip(1).map(|file| file.bytes.clone()));

    let broken = |version: usize, error: tidegate_tuf::Error| {
        let (what, remedy) = match Cause::of(&error) {
            Cause::Unsupported | Cause::Malformed => ("cannot be verified", FROM_A_LATER_ROOT),
            _ => (
                "does not follow from the one before",
                "the given root and the older ones belong to different repositories; find the right ones",
            ),
        };
        Error::trust(format!("root {version} {what}: {error}")).rule(Rule::ImportChain).remedy(remedy)
    };
    let from = start.from.map_or(0, |version| usize::try_from(version).unwrap_or(usize::MAX) - 1);
    let mut chain: Option<TrustedSet> = None;
    for (index, bytes) in roots.iter().enumerate().skip(from) {
        match &mut chain {
            None => {
                let set = TrustedSet::danger_from_root_ignoring_expiry(bytes);
                chain = Some(set.map_err(|e| broken(index + 1, e))?);
            }
            Some(set) => set.update_root(bytes).map_err(|e| broken(index + 1, e))?,
        }
    }
    Ok(roots)
}

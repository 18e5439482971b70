//! Takes over a TUF repository made by another tool: its devices follow along its own chain of roots.
//!
//! Its current state becomes the base of a workspace, and a ceremony proposes a next root with our keys. Nothing changes for
//! devices until holders of the old root's keys have signed it, as for every change of root.

use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::{Map, json};
use tidegate_model::digest::Digest;
use tidegate_model::layout::Location;
use tidegate_tuf::path::{TargetPath, metadata_file};
use tidegate_tuf::{Limits, TrustedSet};

use crate::audit::{ByHash, Origin, PublishedRepository, Tree, read_target, walk_regardless_of_expiry};
use crate::ceremony;
use crate::error::{Error, Result, Rule};
use crate::keys::KeyRing;
use crate::keys::Passphrases;
use crate::metadata::METADATA_DIR;
use crate::proposal::{Proposal, ProposalRequest};
use crate::workspace::init::{Options, begin_ledger, commit, prepare};
use crate::workspace::{Operation, Workspace, artifacts};

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

/// Creates a workspace in the folder `dir` that continues the repository at `place`, verified from the root file `root`, and
/// starts the ceremony that hands it over.
///
/// # Errors
///
/// Fails, and leaves nothing behind, if the repository does not verify, or if its chain of roots is not available from version 1
/// on.
pub fn import(
    dir: &Path,
    place: &str,
    root: &[u8],
    options: &Options,
    now: DateTime<Utc>,
    passphrases: &mut dyn Passphrases,
) -> Result<Imported> {
    let origin = Foreign::open(place)?;
    let tree = walk_regardless_of_expiry(&origin, root, None)?;
    if let Some(fault) = tree.faults.first() {
        return Err(Error::trust(format!("{place}: {}: {}", fault.subject, fault.problem))
            .rule(Rule::ImportSound)
            .remedy("check that the root belongs to this repository, and that the repository is complete"));
    }
    let roots = roots(&origin, root, &tree)?;

    let mut prepared = prepare(dir, options, passphrases)?;
    let changes = &mut prepared.changes;
    for (version, bytes) in (1_u64..).zip(&roots) {
        changes.put(format!("{METADATA_DIR}/{}", metadata_file("root", Some(version))), bytes.as_slice());
    }
    for (digest, bytes) in cohort_maps(&origin, &tree)? {
        changes.put(artifacts::signed_path(&digest), bytes);
    }
    let below = [&tree.timestamp, &tree.snapshot].into_iter().flatten();
    for file in below.chain(tree.targets.iter().map(|(_, file)| file)) {
        changes.put(format!("{METADATA_DIR}/{}", file.file), file.bytes.as_slice());
    }
    let last = roots.last().ok_or_else(|| Error::bug("a chain without roots"))?;
    let version = roots.len() as u64;
    let evidence = json!({"version": version, "sha256": Digest::of(last).to_string(), "from": place});
    let evidence = Map::from_iter([("root".to_owned(), evidence)]);
    begin_ledger(dir, "import", evidence, &options.actor, now, changes)?;
    commit(dir, prepared.changes)?;

    let workspace = Workspace::open(dir)?;
    let request = ProposalRequest { reason: Some("take the repository over".into()), ..ProposalRequest::default() };
    let proposal =
        ceremony::start(&mut Operation::new(&workspace, &options.actor, now, &mut KeyRing::empty()), &request)?;
    Ok(Imported { root: version, roles: tree.targets.len() + 3, left_behind: tree.listed().count(), proposal })
}

/// The cohort maps of a repository that Tidegate made, so that signers see which devices move.
fn cohort_maps(origin: &Foreign, tree: &Tree) -> Result<Vec<(Digest, Vec<u8>)>> {
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
        match read_target(origin.origin.as_ref(), &name, listed.path, listed.file)? {
            Ok(Some(bytes)) => maps.push((Digest::of(&bytes), bytes)),
            Ok(None) => return Err(unsound("it is too long for a cohort map".into())),
            Err(fault) => return Err(unsound(fault.problem)),
        }
    }
    Ok(maps)
}

/// Every root from version 1 on: `given` is one of them, and each follows from the one before.
fn roots(origin: &dyn Origin, given: &[u8], tree: &Tree) -> Result<Vec<Vec<u8>>> {
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
    roots.push(given.to_vec());
    roots.extend(tree.roots.iter().skip(1).map(|file| file.bytes.clone()));

    let broken = |version: usize, why: String| {
        Error::trust(format!("root {version} does not follow from the one before: {why}"))
            .rule(Rule::ImportChain)
            .remedy("the given root and the older ones belong to different repositories; find the right ones")
    };
    let mut chain: Option<TrustedSet> = None;
    for (index, bytes) in roots.iter().enumerate() {
        match &mut chain {
            None => {
                let set = TrustedSet::danger_from_root_ignoring_expiry(bytes);
                chain = Some(set.map_err(|e| broken(1, e.to_string()))?);
            }
            Some(set) => set.update_root(bytes).map_err(|e| broken(index + 1, e.to_string()))?,
        }
    }
    Ok(roots)
}

/// A repository with another layout: metadata in `metadata/` or in the top folder, and without versions in file names if it does
/// not use consistent snapshots.
struct Foreign {
    origin: Box<dyn Origin>,
}

impl Foreign {
    fn open(place: &str) -> Result<Self> {
        let folder = Path::new(place);
        let origin: Box<dyn Origin> = if folder.join("timestamp.json").is_file() {
            Box::new(ByHash::new(folder, folder))
        } else {
            Box::new(PublishedRepository::open(place)?)
        };
        Ok(Self { origin })
    }
}

impl Origin for Foreign {
    fn metadata(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let found = self.origin.metadata(file, limit)?;
        match file.split_once('.') {
            Some((version, rest)) if found.is_none() && rest != "root.json" && version.parse::<u64>().is_ok() => {
                // The caller verifies that it is the version it asked for.
                self.origin.metadata(rest, limit)
            }
            _ => Ok(found),
        }
    }

    fn target(&self, _path: &str, _length: u64, _sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        Err(Error::bug("of the targets a takeover reads cohort maps alone, from the origin itself"))
    }
}

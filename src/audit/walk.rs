//! Walks the whole repository with the trust core of devices: every role, through every delegation that leads to it.
//!
//! A device walks lazily and sees its own path only. This walk visits everything; a role that fails is recorded and does not end
//! the walk, so that one report lists all faults.

use std::collections::BTreeSet;
use std::fmt;

use chrono::{DateTime, Utc};
use tidegate_model::layout::Location;
use tidegate_tuf::metadata::{MetaFile, TargetFile, Targets};
use tidegate_tuf::path::metadata_file;
use tidegate_tuf::{Chain, Limits, TrustedSet};

use super::origin::Origin;
use crate::error::Result;
use crate::metadata::is_dated_ahead;

/// Maximum number of roles visited: far above any sane repository, and low enough to be harmless.
const MAX_ROLES: usize = 100_000;

/// A repository, walked.
#[derive(Debug)]
pub struct Tree {
    /// The trusted part of it.
    pub trusted: TrustedSet,
    /// Every root file found, ascending, each verified by the one before it.
    pub roots: Vec<RoleFile>,
    /// `timestamp.json`.
    pub timestamp: Option<RoleFile>,
    /// The snapshot that the timestamp lists.
    pub snapshot: Option<RoleFile>,
    /// The targets role and all roles delegated from it, in the order in which a device visits them. A role with two delegations
    /// is listed twice.
    pub targets: Vec<(Chain, RoleFile)>,
    /// Roles whose files are missing; `faults` lists them, too.
    pub absent: BTreeSet<String>,
    /// What is wrong.
    pub faults: Vec<AuditFinding>,
}

/// A metadata file that verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleFile {
    /// The role's name.
    pub role: String,
    /// The file's name below `metadata/`.
    pub file: String,
    /// The version.
    pub version: u64,
    /// When it was signed, if it says so.
    pub issued: Option<DateTime<Utc>>,
    /// When it expires.
    pub expires: DateTime<Utc>,
    /// The bytes, as received.
    pub bytes: Vec<u8>,
}

/// Something wrong in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditFinding {
    /// The role, target path or file that it is about.
    pub subject: String,
    /// What is wrong.
    pub problem: String,
    /// What kind of fault it is.
    pub cause: Cause,
}

/// Kinds of faults, by what repairs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A role has expired, and nothing else is wrong with it.
    Expired,
    /// A root does not follow from the one before.
    Root,
    /// A file is not there, or is not listed.
    Missing,
    /// Keys that signed are of kinds that are not supported.
    Unsupported,
    /// Bytes are not metadata of the expected form.
    Malformed,
    /// Anything else.
    Other,
}

impl Cause {
    /// What is wrong with metadata that was not trusted.
    pub(crate) fn of(error: &tidegate_tuf::Error) -> Self {
        use tidegate_tuf::Error as E;
        match error {
            E::Expired { .. } => Self::Expired,
            E::Unlisted { .. } | E::NotInSnapshot { .. } => Self::Missing,
            E::Threshold { unknown, .. } if !unknown.is_empty() => Self::Unsupported,
            E::Malformed { .. } => Self::Malformed,
            _ => Self::Other,
        }
    }
}

impl AuditFinding {
    pub(crate) fn new(subject: impl Into<String>, problem: &dyn fmt::Display) -> Self {
        Self { subject: subject.into(), problem: problem.to_string(), cause: Cause::Other }
    }

    fn of(subject: impl Into<String>, error: &tidegate_tuf::Error) -> Self {
        Self { cause: Cause::of(error), ..Self::new(subject, error) }
    }
}

/// A file that a role lists.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// The delegations that lead to the role.
    pub chain: &'a Chain,
    /// The target path.
    pub path: &'a str,
    /// Length, hashes and custom data.
    pub file: &'a TargetFile,
}

impl Tree {
    /// Every target that a verified role lists, with the role; one that two roles list is returned twice.
    pub fn listed(&self) -> impl Iterator<Item = Listed<'_>> {
        self.targets
            .iter()
            .filter_map(|(chain, _)| Some((chain, self.trusted.targets(chain)?)))
            .flat_map(|(chain, targets)| targets.targets.iter().map(move |(path, file)| Listed { chain, path, file }))
    }

    /// The file of every verified role in force; one with two delegations is returned twice.
    pub fn in_force(&self) -> impl Iterator<Item = &RoleFile> {
        let top = self.roots.last().into_iter().chain(&self.timestamp).chain(&self.snapshot);
        top.chain(self.targets.iter().map(|(_, file)| file))
    }

    /// Those of them that are dated later than `now`.
    pub fn dated_ahead(&self, now: DateTime<Utc>) -> impl Iterator<Item = &RoleFile> {
        self.in_force().filter(move |file| is_dated_ahead(file.issued, now))
    }

    /// How many metadata files verified.
    pub fn roles(&self) -> usize {
        let below = usize::from(self.timestamp.is_some()) + usize::from(self.snapshot.is_some());
        self.roots.len() + self.targets.len() + below
    }

    /// Whether another tool made the repository: nothing in it has a mark of Tidegate's, which are the signed time that it writes into every
    /// role and the cohort map that every channel lists.
    pub fn is_foreign(&self) -> bool {
        let is_map = |listed: &Listed<'_>| matches!(Location::parse(listed.path), Some(Location::CohortMap { .. }));
        self.in_force().all(|file| file.issued.is_none()) && !self.listed().any(|listed| is_map(&listed))
    }

    /// Every verified targets role with its name; one with two delegations is returned twice.
    pub fn by_name(&self) -> impl Iterator<Item = (&str, &Targets)> {
        self.targets.iter().filter_map(|(chain, _)| Some((chain.role(), self.trusted.targets(chain)?)))
    }

    /// A role's content.
    pub fn role(&self, chain: &Chain) -> Option<&Targets> {
        self.trusted.targets(chain)
    }
}

/// Walks the repository at `origin` from the trusted root file `root`, at the time `now`.
///
/// # Errors
///
/// Fails if `root` is not a valid root, or if reading fails for reasons other than the repository's.
pub fn walk(origin: &dyn Origin, root: &[u8], now: DateTime<Utc>) -> Result<Tree> {
    let trusted = TrustedSet::from_root(root, now)
        .map_err(|error| crate::error::Error::trust("the given root does not verify").with_source(error))?;
    let mut walker = Walker::new(origin, trusted, root);
    walker.roots()?;
    if walker.top_level()? {
        walker.delegated()?;
    }
    Ok(walker.tree)
}

/// Walks the repository like [`walk`], but ignores expiry, so that expired roles can be shown. With `snapshot`, walks what that
/// version of the snapshot lists: an earlier state, as long as its files are kept.
///
/// For inspecting a repository, never for deciding about an update.
///
/// # Errors
///
/// Fails if `root` is not a valid root, or if reading fails for reasons other than the repository's.
pub fn walk_regardless_of_expiry(origin: &dyn Origin, root: &[u8], snapshot: Option<u64>) -> Result<Tree> {
    let trusted = TrustedSet::danger_from_root_ignoring_expiry(root)
        .map_err(|error| crate::error::Error::trust("the given root does not verify").with_source(error))?;
    let mut walker = Walker::new(origin, trusted, root);
    walker.roots()?;
    let begun = match snapshot {
        None => walker.top_level()?,
        Some(version) => walker.past(version)?,
    };
    if begun {
        walker.delegated()?;
    }
    Ok(walker.tree)
}

struct Walker<'a> {
    origin: &'a dyn Origin,
    limits: Limits,
    tree: Tree,
}

impl<'a> Walker<'a> {
    fn new(origin: &'a dyn Origin, trusted: TrustedSet, root: &[u8]) -> Self {
        let first = role_file("root", Some(trusted.root().common.version), root, &trusted.root().common);
        let tree = Tree {
            trusted,
            roots: vec![first],
            timestamp: None,
            snapshot: None,
            targets: Vec::new(),
            absent: BTreeSet::new(),
            faults: Vec::new(),
        };
        Self { origin, limits: Limits::default(), tree }
    }

    fn fault(&mut self, subject: &str, cause: Cause, problem: impl fmt::Display) {
        self.tree.faults.push(AuditFinding { cause, ..AuditFinding::new(subject, &problem) });
    }

    fn refused(&mut self, subject: &str, error: &tidegate_tuf::Error) {
        self.tree.faults.push(AuditFinding::of(subject, error));
    }

    /// Follows the chain of roots to its end. Returns whether the last one is in force.
    fn roots(&mut self) -> Result<()> {
        loop {
            let version = self.tree.trusted.root().common.version.saturating_add(1);
            let Some(bytes) = self.origin.metadata(&metadata_file("root", Some(version)), self.limits.root_length)?
            else {
                break;
            };
            if let Err(error) = self.tree.trusted.update_root(&bytes) {
                self.fault(&format!("root {version}"), Cause::Root, error);
                break;
            }
            let file = role_file("root", Some(version), &bytes, &self.tree.trusted.root().common);
            self.tree.roots.push(file);
        }
        if let Err(error) = self.tree.trusted.check_final_root() {
            self.refused("root", &error);
        }
        Ok(())
    }

    /// Loads timestamp, snapshot and targets; false if one fails, with everything below it.
    fn top_level(&mut self) -> Result<bool> {
        let Some(bytes) = self.fetch("timestamp", None, self.limits.timestamp_length)? else { return Ok(false) };
        if let Err(error) = self.tree.trusted.update_timestamp(&bytes) {
            self.refused("timestamp", &error);
            return Ok(false);
        }
        let Some(timestamp) = self.tree.trusted.timestamp() else { return Ok(false) };
        self.tree.timestamp = Some(role_file("timestamp", None, &bytes, &timestamp.common));

        let (version, limit) = self.wanted(timestamp.snapshot(), self.limits.snapshot_length);
        let Some(bytes) = self.fetch("snapshot", Some(version), limit)? else { return Ok(false) };
        if let Err(error) = self.tree.trusted.update_snapshot(&bytes) {
            self.refused("snapshot", &error);
            return Ok(false);
        }
        let Some(snapshot) = self.tree.trusted.snapshot() else { return Ok(false) };
        self.tree.snapshot = Some(role_file("snapshot", Some(version), &bytes, &snapshot.common));
        self.targets_role(Chain::top())
    }

    /// Loads an earlier snapshot, and its targets.
    fn past(&mut self, version: u64) -> Result<bool> {
        let Some(bytes) = self.fetch("snapshot", Some(version), self.limits.snapshot_length)? else { return Ok(false) };
        if let Err(error) = self.tree.trusted.danger_take_past_snapshot(&bytes) {
            self.refused("snapshot", &error);
            return Ok(false);
        }
        let Some(snapshot) = self.tree.trusted.snapshot() else { return Ok(false) };
        self.tree.snapshot = Some(role_file("snapshot", Some(version), &bytes, &snapshot.common));
        self.targets_role(Chain::top())
    }

    /// Visits all delegated roles, breadth first in the order of delegation.
    fn delegated(&mut self) -> Result<()> {
        let mut pending = self.children(&Chain::top());
        let mut visited = 0_usize;
        while let Some(chain) = pending.pop() {
            visited += 1;
            if visited > MAX_ROLES {
                self.fault("targets", Cause::Other, format!("more than {MAX_ROLES} roles can be reached from here"));
                break;
            }
            if self.targets_role(chain.clone())? {
                pending.extend(self.children(&chain));
            }
        }
        // A role that the snapshot lists but no delegation leads to is no fault: abandoned roles must stay listed (TUF 5.5.5).
        Ok(())
    }

    /// The chains to a role's delegations, in reverse order, without cycles.
    fn children(&self, chain: &Chain) -> Vec<Chain> {
        let mut above = BTreeSet::new();
        let mut link = Some(chain.clone());
        while let Some(chain) = link {
            above.insert(chain.role().to_owned());
            link = chain.parent();
        }
        let roles = self.tree.trusted.delegated(chain);
        let mut children: Vec<_> =
            roles.iter().filter(|role| !above.contains(*role)).map(|role| chain.then(role)).collect();
        children.reverse();
        children
    }

    /// Loads the targets role at the end of a chain; false if it fails.
    fn targets_role(&mut self, chain: Chain) -> Result<bool> {
        let role = chain.role().to_owned();
        let Some(listed) = self.tree.trusted.listed(&role) else {
            self.fault(&role, Cause::Missing, "it is delegated to, but the snapshot does not list it");
            return Ok(false);
        };
        let (version, limit) = self.wanted(listed, self.limits.targets_length);
        let Some(bytes) = self.fetch(&role, Some(version), limit)? else { return Ok(false) };
        let taken = if chain.parent().is_none() {
            self.tree.trusted.update_targets(&bytes)
        } else {
            self.tree.trusted.update_delegated(&chain, &bytes)
        };
        if let Err(error) = taken {
            self.refused(&role, &error);
            return Ok(false);
        }
        let Some(targets) = self.tree.trusted.targets(&chain) else { return Ok(false) };
        let file = role_file(&role, Some(version), &bytes, &targets.common);
        if let Some(bins) = targets.delegations.as_ref().and_then(|delegations| delegations.bins.as_ref()) {
            let listed = self.tree.trusted.delegated(&chain).len() as u64;
            if listed < bins.count() {
                let what = format!("the snapshot lists {listed} of its {} bins {}-*", bins.count(), bins.prefix());
                self.fault(&role, Cause::Missing, what);
            }
        }
        self.tree.targets.push((chain, file));
        Ok(true)
    }

    /// The version to fetch and how many bytes to read at most.
    fn wanted(&self, listed: &MetaFile, limit: u64) -> (u64, u64) {
        (listed.version, self.limits.listed(listed.length, limit))
    }

    /// Reads a role's file; a missing one is a fault.
    ///
    /// The version is part of its name under consistent snapshots alone (TUF 6.2), and always in a workspace.
    fn fetch(&mut self, role: &str, version: Option<u64>, limit: u64) -> Result<Option<Vec<u8>>> {
        let is_versioned = self.tree.trusted.root().consistent_snapshot || self.origin.is_versioned();
        let file = metadata_file(role, version.filter(|_| is_versioned));
        let bytes = self.origin.metadata(&file, limit)?;
        if bytes.is_none() {
            self.fault(role, Cause::Missing, format!("metadata/{file} is missing"));
            self.tree.absent.insert(role.to_owned());
        }
        Ok(bytes)
    }
}

fn role_file(role: &str, version: Option<u64>, bytes: &[u8], common: &tidegate_tuf::metadata::Common) -> RoleFile {
    RoleFile {
        role: role.to_owned(),
        file: metadata_file(role, version),
        version: common.version,
        issued: common.issued,
        expires: common.expires,
        bytes: bytes.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_repairs_it() {
        use tidegate_tuf::Error as E;
        let threshold = |unknown: &str| E::Threshold {
            role: "targets".into(),
            delegator: "root".into(),
            valid: 0,
            threshold: 1,
            unknown: unknown.into(),
            clause: "5.3.4",
        };
        let malformed = E::Malformed { role: "a missing role".into(), reason: "expired is not supported".into() };
        for (error, cause) in [
            (threshold("; not supported: ecdsa-sha2-nistp384"), Cause::Unsupported),
            (threshold(""), Cause::Other),
            (malformed, Cause::Malformed),
            (E::NotInSnapshot { role: "a".into(), delegator: "targets".into() }, Cause::Missing),
            (E::WrongVersion { role: "missing".into(), expected: 1, received: 2, clause: "5.6.4" }, Cause::Other),
        ] {
            assert_eq!(Cause::of(&error), cause, "{error}");
        }
    }
}

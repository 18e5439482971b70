//! What Tidegate requires of a repository beyond TUF: channels, cohorts, releases and offers must be consistent.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_model::cohort::CohortMap;
use tidegate_model::delivery::PatchList;
use tidegate_model::digest::Digest;
use tidegate_model::layout::{
    DelegatedRole, Location, assignment_path, channel_patterns, cohort_patterns, cohort_role, manifest_path,
};
use tidegate_model::manifest::{Artifact, Manifest};
use tidegate_model::name::Name;
use tidegate_model::rollout::{Offer, Offers};
use tidegate_model::version::{Version, is_newer};
use tidegate_tuf::Chain;
use tidegate_tuf::metadata::{TargetFile, Targets};
use tidegate_tuf::path::PathSet;

use super::report::Check;
use super::walk::{AuditFinding, Listed, Tree};

/// The content of the small targets that are examined, by SHA-256.
pub(super) type Contents = BTreeMap<[u8; 32], Vec<u8>>;

/// What was examined and what is wrong with it, by check.
#[derive(Debug, Default)]
pub(super) struct Audit {
    pub(super) seen: BTreeMap<Check, u64>,
    pub(super) faults: Vec<(Check, AuditFinding)>,
    /// On a repository of another tool, which need not have Tidegate's layout.
    pub(super) remarks: Vec<(Check, AuditFinding)>,
}

impl Audit {
    fn saw(&mut self, check: Check) {
        *self.seen.entry(check).or_default() += 1;
    }

    fn fault(&mut self, check: Check, subject: &str, problem: impl std::fmt::Display) {
        self.faults.push((check, AuditFinding::new(subject, &problem)));
    }
}

/// Whether the bytes of a target are examined.
pub(super) fn is_read(path: &str) -> bool {
    use Location::{CohortMap, Manifest, Patches};
    matches!(Location::parse(path), Some(CohortMap { .. } | Manifest { .. } | Patches { .. }))
}

/// Audits a walked repository. `contents` holds the verified bytes of all targets that [`is_read`] asks for.
pub(super) fn audit(tree: &Tree, contents: &Contents) -> Audit {
    if tree.is_foreign() {
        return foreign(tree);
    }
    let mut audit = Audit::default();
    for (chain, _) in &tree.targets {
        let Some(targets) = tree.role(chain) else { continue };
        delegations(tree, chain, targets, &mut audit);
    }
    let manifests = manifests(tree, contents, &mut audit);
    for listed in tree.listed() {
        reachable(tree, &listed, &mut audit);
        match Location::parse(listed.path) {
            Some(Location::CohortMap { channel }) => cohort_map(tree, &listed, &channel, contents, &mut audit),
            Some(Location::Patches { channel, product, version, artifact }) => {
                let manifest = manifests.get(&(channel, product, version)).map(|approved| &approved.manifest);
                let of = manifest.and_then(|it| it.artifacts.iter().find(|found| found.name == artifact));
                patch_list(&listed, of, contents, &mut audit);
            }
            Some(Location::Assignment { channel, cohort, product }) => {
                offers(tree, &listed, (&channel, &cohort, &product), &manifests, &mut audit);
            }
            _ => {}
        }
    }
    audit
}

/// The remarks on a repository of another tool. It has a layout of its own, of which this alone matters: that clients find what it lists.
fn foreign(tree: &Tree) -> Audit {
    let mut audit = Audit::default();
    for listed in tree.listed() {
        reachable(tree, &listed, &mut audit);
    }
    let (files, roles) = (tree.listed().count(), tree.targets.len());
    let what =
        format!("another tool made it: {files} files in {roles} roles, and no channels or cohorts of Tidegate's");
    let made = (Check::Delegations, AuditFinding::new("repository", &what));
    audit.remarks = std::iter::once(made).chain(std::mem::take(&mut audit.faults)).collect();
    audit
}

/// Delegations must match the layout: a role lists its own paths only, and is terminating.
fn delegations(tree: &Tree, chain: &Chain, targets: &Targets, audit: &mut Audit) {
    if *chain == Chain::top() && !targets.targets.is_empty() {
        audit.fault(Check::Delegations, "targets", "it lists targets itself; only channels may");
    }
    if targets.delegations.as_ref().is_some_and(|delegations| delegations.bins.is_some()) {
        let problem = "it delegates to hash bins (succinct_roles), and only channels and cohorts are delegated to";
        audit.fault(Check::Delegations, chain.role(), problem);
    }
    for role in targets.delegations.iter().flat_map(|delegations| &delegations.roles) {
        audit.saw(Check::Delegations);
        let expected = match (DelegatedRole::parse(&role.name), chain.parent()) {
            (Some(DelegatedRole::Channel(channel)), None) => channel_patterns(&channel),
            (Some(DelegatedRole::Cohort { channel, cohort }), Some(_)) if channel.as_str() == chain.role() => {
                cohort_patterns(&channel, &cohort)
            }
            _ => {
                let problem = format!(
                    "{} delegates to it, which is neither a channel nor a cohort of that channel",
                    chain.role()
                );
                audit.fault(Check::Delegations, &role.name, problem);
                continue;
            }
        };
        let PathSet::Patterns(patterns) = &role.paths else {
            audit.fault(Check::Delegations, &role.name, "it is delegated hash prefixes instead of paths");
            continue;
        };
        let patterns: BTreeSet<&str> = patterns.iter().map(tidegate_tuf::path::Pattern::as_str).collect();
        if patterns != expected.iter().map(String::as_str).collect() {
            let problem = format!("it is delegated {patterns:?}, and should be delegated {expected:?}");
            audit.fault(Check::Delegations, &role.name, problem);
        }
        if !role.terminating {
            audit.fault(Check::Delegations, &role.name, "the delegation to it is not terminating");
        }
        if tree.role(&chain.then(&role.name)).is_some_and(|below| below.delegations.is_some())
            && chain.parent().is_some()
        {
            audit.fault(Check::Delegations, &role.name, "a cohort's role delegates further");
        }
    }
}

/// Devices can reach the file: the delegations that lead to the role cover its path.
fn reachable(tree: &Tree, listed: &Listed<'_>, audit: &mut Audit) {
    let mut chain = listed.chain.clone();
    while let Some(parent) = chain.parent() {
        let delegation = tree.role(&parent).and_then(|targets| targets.delegation(chain.role()));
        if !delegation.is_some_and(|delegation| delegation.paths.covers(listed.path)) {
            let problem = format!("{} lists it, but may not list that path", listed.chain.role());
            audit.fault(Check::Delegations, listed.path, problem);
            return;
        }
        chain = parent;
    }
}

/// An approved manifest: what the channel lists, and what it says.
struct Approved<'a> {
    file: &'a TargetFile,
    manifest: Manifest,
}

type Manifests<'a> = BTreeMap<(Name, Name, Version), Approved<'a>>;

/// Reads all manifests: each must describe the release in its path, and its artifacts must be listed beside it.
fn manifests<'a>(tree: &'a Tree, contents: &Contents, audit: &mut Audit) -> Manifests<'a> {
    let mut manifests = Manifests::new();
    let mut sequences = BTreeMap::new();
    for listed in tree.listed() {
        let Some(Location::Manifest { channel, product, version }) = Location::parse(listed.path) else { continue };
        audit.saw(Check::Manifests);
        let Some(bytes) = content(listed.file, contents) else { continue };
        let manifest = match Manifest::parse(bytes) {
            Ok(manifest) => manifest,
            Err(error) => {
                audit.fault(Check::Manifests, listed.path, error);
                continue;
            }
        };
        if (&manifest.channel, &manifest.product, &manifest.version) != (&channel, &product, &version) {
            let problem = format!("it is of {} {} on {}", manifest.product, manifest.version, manifest.channel);
            audit.fault(Check::Manifests, listed.path, problem);
        }
        let role = tree.role(listed.chain);
        for artifact in &manifest.artifacts {
            let file = role.and_then(|role| role.targets.get(&artifact.path));
            let problem = match file {
                None => format!("{} does not list its artifact {}", listed.chain.role(), artifact.path),
                Some(file) if !is(file, artifact.length, artifact.sha256.as_bytes()) => {
                    format!("its artifact {} is listed with another length or hash", artifact.path)
                }
                Some(_) => continue,
            };
            audit.fault(Check::Manifests, listed.path, problem);
        }
        if let Some(other) = sequences.insert((channel.clone(), product.clone(), manifest.sequence), version.clone()) {
            let problem = format!("sequence {} is that of {other}, too", manifest.sequence);
            audit.fault(Check::Manifests, listed.path, problem);
        }
        manifests.insert((channel, product, version), Approved { file: listed.file, manifest });
    }
    manifests
}

/// A list of patches must be of the artifact in its path.
fn patch_list(listed: &Listed<'_>, of: Option<&Artifact>, contents: &Contents, audit: &mut Audit) {
    let Some(bytes) = content(listed.file, contents) else { return };
    match PatchList::parse(bytes) {
        Err(error) => audit.fault(Check::Manifests, listed.path, error),
        Ok(list) if of.is_none_or(|artifact| artifact.sha256 != list.artifact) => {
            audit.fault(Check::Manifests, listed.path, "it lists patches to another artifact than its release has");
        }
        Ok(_) => {}
    }
}

/// Every cohort of the map must have a role, and every cohort's role a cohort.
fn cohort_map(tree: &Tree, listed: &Listed<'_>, channel: &Name, contents: &Contents, audit: &mut Audit) {
    audit.saw(Check::CohortMaps);
    let Some(bytes) = content(listed.file, contents) else { return };
    let map = match CohortMap::parse(bytes) {
        Ok(map) => map,
        Err(error) => return audit.fault(Check::CohortMaps, listed.path, error),
    };
    let named: BTreeSet<String> = map.cohorts().iter().map(|cohort| cohort_role(channel, &cohort.name)).collect();
    let role = tree.role(listed.chain);
    let delegations =
        role.iter().filter_map(|role| role.delegations.as_ref()).flat_map(|delegations| &delegations.roles);
    let delegated: BTreeSet<String> = delegations.map(|role| role.name.clone()).collect();
    for role in named.difference(&delegated) {
        audit.fault(
            Check::CohortMaps,
            listed.path,
            format!("{channel} does not delegate to {role}, which the map has"),
        );
    }
    for role in delegated.difference(&named) {
        audit.fault(Check::CohortMaps, listed.path, format!("{channel} delegates to {role}, which the map lacks"));
    }
}

/// Two roles must agree: a cohort is only offered what its channel has approved.
fn offers(
    tree: &Tree,
    listed: &Listed<'_>,
    (channel, cohort, product): (&Name, &Name, &Name),
    manifests: &Manifests<'_>,
    audit: &mut Audit,
) {
    audit.saw(Check::Offers);
    debug_assert_eq!(listed.path, assignment_path(channel, cohort, product));
    if listed.chain.role() != cohort_role(channel, cohort) {
        let problem = format!("{} lists it, and only {} may", listed.chain.role(), cohort_role(channel, cohort));
        return audit.fault(Check::Offers, listed.path, problem);
    }
    let custom = listed.file.custom.clone().unwrap_or_default();
    let list = match Offers::from_custom(&custom) {
        Ok(list) => list,
        Err(error) => return audit.fault(Check::Offers, listed.path, error),
    };
    match list.to_bytes() {
        Ok(bytes) if is(listed.file, bytes.len() as u64, Digest::of(&bytes).as_bytes()) => {}
        Ok(_) => audit.fault(Check::Offers, listed.path, "its length or hash is not that of the offers in it"),
        Err(error) => audit.fault(Check::Offers, listed.path, error),
    }
    let found = |version: &Version| manifests.get(&(channel.clone(), product.clone(), version.clone()));
    for Named { version, sequence, length, sha256 } in list.offers.iter().flat_map(Named::all) {
        let path = manifest_path(channel, product, version);
        let Some(approved) = found(version) else {
            // A listed manifest that does not parse is reported elsewhere.
            let is_listed = tree.listed().any(|other| other.path == path);
            if !is_listed {
                audit.fault(
                    Check::Offers,
                    listed.path,
                    format!("it offers {version}, which {channel} has not approved"),
                );
            }
            continue;
        };
        if !is(approved.file, length, sha256.as_bytes()) {
            let problem =
                format!("what it offers as {version} is not the manifest that {channel} has approved at {path}");
            audit.fault(Check::Offers, listed.path, problem);
        }
        if approved.manifest.sequence != sequence {
            let problem = format!(
                "it offers {version} as sequence {sequence}, but its manifest says {}",
                approved.manifest.sequence
            );
            audit.fault(Check::Offers, listed.path, problem);
        }
    }
    let nothing = BTreeSet::new();
    let supersedes = |offer: &Offer| found(&offer.release).map_or(&nothing, |approved| &approved.manifest.supersedes);
    for problem in misplaced(&list.offers, supersedes) {
        audit.fault(Check::Offers, listed.path, problem);
    }
}

/// A release that an offer names: what is offered, or a bridge to it.
struct Named<'a> {
    version: &'a Version,
    sequence: u64,
    length: u64,
    sha256: &'a Digest,
}

impl<'a> Named<'a> {
    fn all(offer: &'a Offer) -> impl Iterator<Item = Self> {
        let Offer { release: version, sequence, length, sha256, bridges, .. } = offer;
        let bridges = bridges.iter().map(|bridge| Named {
            version: &bridge.release,
            sequence: bridge.sequence,
            length: bridge.length,
            sha256: &bridge.sha256,
        });
        std::iter::once(Named { version, sequence: *sequence, length: *length, sha256 }).chain(bridges)
    }
}

/// What is wrong with the order of offers: it is that of versions, the highest first, but for releases that supersede others.
fn misplaced<'a>(offers: &[Offer], supersedes: impl Fn(&Offer) -> &'a BTreeSet<u64>) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, offer) in offers.iter().enumerate() {
        let below = offers.get(index + 1).filter(|below| is_newer(&below.release, &offer.release));
        if let Some(below) = below.filter(|_| supersedes(offer).is_empty()) {
            let problem = format!("it offers {} above {}, which is a higher version", offer.release, below.release);
            problems.push(problem);
        }
        let above = offers.iter().take(index).filter(|above| supersedes(offer).contains(&above.sequence));
        problems.extend(
            above.map(|above| format!("it offers {} below {}, which it supersedes", offer.release, above.release)),
        );
    }
    problems
}

/// Whether a listed file has this length and SHA-256.
fn is(file: &TargetFile, length: u64, sha256: &[u8; 32]) -> bool {
    file.length == length && file.hashes.sha256_digest() == Some(sha256)
}

/// The bytes of a file, if they were read and verified; failures are reported elsewhere.
fn content<'a>(file: &TargetFile, contents: &'a Contents) -> Option<&'a [u8]> {
    contents.get(file.hashes.sha256_digest()?).map(Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use tidegate_model::rollout::Stage;

    use super::*;

    fn offers(releases: &[(&str, u64)]) -> Vec<Offer> {
        let manifest = (Digest::of(b"manifest"), 8);
        let offer = |(release, sequence): &(&str, u64)| {
            Offer::new(release.parse().unwrap(), *sequence, manifest, Stage::Stable, DateTime::UNIX_EPOCH)
        };
        releases.iter().map(offer).collect()
    }

    #[test]
    fn the_highest_version_is_offered_first_but_for_what_supersedes_it() {
        // Sequence 4 takes sequence 3 back.
        let (nothing, taken_back) = (BTreeSet::new(), BTreeSet::from([3]));
        let supersedes = |offer: &Offer| if offer.sequence == 4 { &taken_back } else { &nothing };
        let problems = |releases: &[(&str, u64)]| misplaced(&offers(releases), supersedes);
        assert_eq!(problems(&[("2.0.0", 3), ("1.5.1", 5), ("1.5.0", 2)]), [""; 0]);
        assert_eq!(problems(&[("1.9.0", 4), ("2.0.0", 3), ("1.5.0", 2)]), [""; 0]);
        assert_eq!(problems(&[("1.9.0", 4), ("1.9.5", 2)]), [""; 0], "what it supersedes may be withdrawn");
        assert_eq!(problems(&[("1.5.0", 2), ("2.0.0", 3)]), ["it offers 1.5.0 above 2.0.0, which is a higher version"]);
        assert_eq!(problems(&[("2.0.0", 3), ("1.9.0", 4)]), ["it offers 1.9.0 below 2.0.0, which it supersedes"]);
    }
}

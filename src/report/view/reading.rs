//! A repository read: where from, and what of it is typed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_model::cohort::CohortMap;
use tidegate_model::digest::Digest;
use tidegate_model::layout::Location;
use tidegate_model::manifest::Manifest;
use tidegate_model::name::Name;
use tidegate_model::rollout::{Offer, Offers};
use tidegate_model::text::public_url;
use tidegate_model::time::UtcTime;
use tidegate_model::version::Version;

use super::state::Source;
use crate::audit::protect::Protection;
use crate::audit::{AuditFinding, ByHash, Look, Origin, Pair, Tree, look};
use crate::error::{Error, Result};
use crate::fs;
use crate::metadata::{MAX_ROOT, METADATA_DIR, anchor_file};
use crate::publish::{Variables, open_origin, open_private_origin};
use crate::workspace::{artifacts, check_begun};

/// Where a state is read from: a workspace, or a repository in a folder, at a URL or in a store; as it stands, or at an earlier snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// As it was given.
    pub name: String,
    what: What,
    snapshot: Option<u64>,
    /// Where protected objects are.
    private: Option<String>,
}

/// A place that was opened, and that of its protected objects if there is one.
pub type Opened = (Arc<dyn Origin>, Option<Arc<dyn Origin>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Workspace(PathBuf),
    Repository(String),
}

impl Place {
    /// Reads `PLACE` or `PLACE@SNAPSHOT`.
    ///
    /// # Errors
    ///
    /// Fails if the text is not a place that can be read.
    pub fn parse(text: &str) -> Result<Self> {
        let (place, snapshot) = match text.rsplit_once('@') {
            // An @ is fine in a path or URL; a number after it is a version.
            Some((place, version)) if !place.is_empty() && !version.is_empty() => match version.parse() {
                Ok(version) => (place, Some(version)),
                Err(_) => (text, None),
            },
            _ => (text, None),
        };
        let what = if Path::new(place).join("tidegate.toml").is_file() {
            What::Workspace(place.into())
        } else {
            What::Repository(place.to_owned())
        };
        crate::audit::has_slashes(place)?;
        Ok(Self { name: text.to_owned(), what, snapshot, private: None })
    }

    /// The same, with protected objects from the place `private`. A workspace has them itself.
    #[must_use]
    pub fn with_private(self, private: Option<&str>) -> Self {
        Self { private: private.map(str::to_owned), ..self }
    }

    /// Whether everything can be read here, protected objects as well.
    pub fn is_whole(&self) -> bool {
        self.private.is_some() || matches!(self.what, What::Workspace(_))
    }

    /// The version of the snapshot, if it is not the one that is live.
    pub fn snapshot(&self) -> Option<u64> {
        self.snapshot
    }

    /// The place without the version of its snapshot.
    pub fn place(&self) -> String {
        match &self.what {
            What::Workspace(dir) => dir.display().to_string(),
            What::Repository(place) => place.clone(),
        }
    }

    /// Opens it: the place itself, and that of its protected objects if there is one.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be opened, or as [`open_private_origin`] does.
    pub fn open(&self) -> Result<Opened> {
        Ok(match &self.what {
            What::Workspace(dir) => (Arc::new(ByHash::new(dir.join(METADATA_DIR), dir.join(artifacts::DIR))), None),
            What::Repository(place) => {
                let private = self.private.as_ref().map(|private| open_private_origin(place, private)).transpose()?;
                (open_origin(place, Variables::of_process())?, private)
            }
        })
    }

    /// The workspace `dir`, as it stands.
    pub fn workspace(dir: &Path) -> Self {
        Self { name: dir.display().to_string(), what: What::Workspace(dir.to_owned()), snapshot: None, private: None }
    }

    /// The workspace's folder, if it is one.
    pub fn as_workspace(&self) -> Option<&Path> {
        match &self.what {
            What::Workspace(dir) => Some(dir),
            What::Repository(_) => None,
        }
    }

    fn source(&self) -> Source {
        match (&self.what, self.snapshot) {
            (_, Some(_)) => Source::Snapshot,
            (What::Workspace(_), None) => Source::Workspace,
            (What::Repository(_), None) => Source::Place,
        }
    }

    /// Opens it with its protected objects, if it has a place for them.
    ///
    /// # Errors
    ///
    /// The same as [`Self::open`].
    pub fn origin(&self) -> Result<Arc<dyn Origin>> {
        Ok(match self.open()? {
            (public, Some(private)) => Arc::new(Pair { public, private }),
            (origin, None) => origin,
        })
    }

    /// Reads the repository, verified from the root file `root`; a workspace needs none, because it has its own first root.
    ///
    /// Outside a workspace, the objects of protected cohorts may be missing. Defects of the repository are part of the result.
    ///
    /// # Errors
    ///
    /// Fails if the root is not valid, or if reading fails for other reasons.
    pub fn read(&self, root: Option<&Path>) -> Result<Reading> {
        self.read_as(root, false)
    }

    /// The same without protected objects, which a workspace has as well: what the public sees.
    ///
    /// # Errors
    ///
    /// The same as [`Self::read`].
    pub fn read_as_the_public(&self, root: Option<&Path>) -> Result<Reading> {
        self.read_as(root, true)
    }

    fn read_as(&self, root: Option<&Path>, public: bool) -> Result<Reading> {
        if let What::Workspace(dir) = &self.what {
            fs::check_own(dir)?;
            check_begun(dir)?;
        }
        let bytes = match (root, &self.what) {
            (Some(path), _) => fs::read(path, MAX_ROOT)?,
            (None, What::Workspace(dir)) => fs::read(&anchor_file(dir)?, MAX_ROOT)?,
            (None, What::Repository(name)) => {
                return Err(Error::usage(format!("{name} cannot be verified without a root"))
                    .remedy("give the root that devices are shipped with: --root FILE"));
            }
        };
        let origin = self.origin()?;
        let mut seen = look(origin.as_ref(), &bytes, self.snapshot, self.is_whole())?;
        if public && seen.protection.is_any() {
            let veiled = Veiled { origin: origin.as_ref(), protection: &seen.protection };
            seen = look(&veiled, &bytes, self.snapshot, false)?;
        }
        let reading = Reading::of(&self.name, self.source(), seen, Digest::of(&bytes));
        if reading.tree.targets.is_empty() {
            let first = reading.faults.first().map(|fault| format!(": {}: {}", fault.subject, fault.problem));
            return Err(Error::trust(format!(
                "nothing in {} verifies from that root{}",
                self.name,
                first.unwrap_or_default()
            ))
            .remedy("check that the place and the root belong together: tidegate verify PLACE --root FILE"));
        }
        Ok(reading)
    }
}

/// A repository without what is protected.
struct Veiled<'a> {
    origin: &'a dyn Origin,
    protection: &'a Protection,
}

impl Origin for Veiled<'_> {
    fn is_versioned(&self) -> bool {
        self.origin.is_versioned()
    }

    fn metadata(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let role = file.split_once('.').and_then(|(_, rest)| rest.strip_suffix(".json"));
        if role.is_some_and(|role| self.protection.is_kept(role)) {
            Ok(None)
        } else {
            self.origin.metadata(file, limit)
        }
    }

    fn target(&self, path: &str, length: u64, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let is_public = self.protection.needs(&format!("targets/{path}")).public;
        if is_public { self.origin.target(path, length, sink) } else { Ok(false) }
    }
}

/// A release that a channel approves.
#[derive(Debug, Clone, PartialEq)]
pub struct Approved {
    /// Its manifest.
    pub manifest: Manifest,
    /// SHA-256 of the manifest's bytes.
    pub sha256: Digest,
    /// Their number.
    pub length: u64,
}

/// What a cohort is offered of a product.
#[derive(Debug, Clone, PartialEq)]
pub struct OfferedList {
    /// When the list was made.
    pub assigned: UtcTime,
    /// The offers, in order of preference.
    pub offers: Vec<Offered>,
}

/// A release that a cohort is offered.
#[derive(Debug, Clone, PartialEq)]
pub struct Offered {
    /// The offer.
    pub offer: Offer,
    /// Whether the channel approves what is offered, byte for byte: two signatures, two powers.
    pub approved: bool,
}

/// A repository's metadata, manifests and cohort maps, verified.
#[derive(Debug)]
pub struct Reading {
    /// What people call the place.
    pub place: String,
    /// What was read.
    pub source: Source,
    /// The metadata.
    pub tree: Tree,
    /// SHA-256 of the root that it was verified from.
    pub anchor: Digest,
    /// The cohort maps by channel.
    pub maps: BTreeMap<Name, CohortMap>,
    /// The releases by channel, product and version.
    pub releases: BTreeMap<(Name, Name, Version), Approved>,
    /// What is offered by channel, product and cohort.
    pub offers: BTreeMap<(Name, Name, Name), OfferedList>,
    /// What does not verify or fit.
    pub faults: Vec<AuditFinding>,
    /// How the layout of a repository of another tool differs from Tidegate's.
    pub remarks: Vec<AuditFinding>,
}

impl Reading {
    fn of(place: &str, source: Source, look: Look, anchor: Digest) -> Self {
        let Look { tree, contents, faults, remarks, .. } = look;
        let content = |sha256: Option<&[u8; 32]>| sha256.and_then(|sha256| contents.get(sha256));
        let mut maps = BTreeMap::new();
        let mut releases = BTreeMap::new();
        for listed in tree.listed() {
            // A path counts only in the role whose it is; the audit has told of others.
            let Some(sha256) = listed.file.hashes.sha256_digest() else { continue };
            match Location::parse(listed.path) {
                Some(Location::CohortMap { channel }) if listed.chain.role() == channel.as_str() => {
                    if let Some(map) = content(Some(sha256)).and_then(|bytes| CohortMap::parse(bytes).ok()) {
                        maps.insert(channel, map);
                    }
                }
                Some(Location::Manifest { channel, product, version }) if listed.chain.role() == channel.as_str() => {
                    if let Some(manifest) = content(Some(sha256)).and_then(|bytes| Manifest::parse(bytes).ok()) {
                        let (sha256, length) = (Digest::from(*sha256), listed.file.length);
                        let approved = Approved { manifest, sha256, length };
                        releases.insert((channel, product, version), approved);
                    }
                }
                _ => {}
            }
        }
        let mut offers = BTreeMap::new();
        for listed in tree.listed() {
            let Some(Location::Assignment { channel, cohort, product }) = Location::parse(listed.path) else {
                continue;
            };
            let role = tidegate_model::layout::cohort_role(&channel, &cohort);
            let custom = listed.file.custom.as_ref().filter(|_| listed.chain.role() == role);
            let Some(list) = custom.and_then(|custom| Offers::from_custom(custom).ok()) else { continue };
            let offered = |offer: Offer| {
                let key = (channel.clone(), product.clone(), offer.release.clone());
                let approved = releases.get(&key).is_some_and(|approved: &Approved| {
                    (approved.sha256, approved.length) == (offer.sha256, offer.length)
                });
                Offered { offer, approved }
            };
            let list = OfferedList { assigned: list.assigned, offers: list.offers.into_iter().map(offered).collect() };
            offers.insert((channel, product, cohort), list);
        }
        Self { place: public_url(place), source, tree, anchor, maps, releases, offers, faults, remarks }
    }

    /// The channels, by name.
    pub fn channels(&self) -> Vec<Name> {
        let delegated = self.tree.targets.iter().filter_map(|(_, file)| file.role.parse::<Name>().ok());
        let mut channels: Vec<Name> = delegated.filter(|name| name.as_str() != "targets").collect();
        channels.sort();
        channels.dedup();
        channels
    }

    /// The products of a channel, by name.
    pub fn products(&self, channel: &Name) -> Vec<Name> {
        let released = self.releases.keys().map(|(of, product, _)| (of, product));
        let offered = self.offers.keys().map(|(of, product, _)| (of, product));
        let mut products: Vec<Name> =
            released.chain(offered).filter(|(of, _)| *of == channel).map(|(_, product)| product.clone()).collect();
        products.sort();
        products.dedup();
        products
    }

    /// The file of a role in force.
    pub fn role(&self, role: &str) -> Option<&crate::audit::RoleFile> {
        self.roles().find(|file| file.role == role)
    }

    /// The files of all roles in force: root, timestamp, snapshot, then targets and what it delegates to.
    pub fn roles(&self) -> impl Iterator<Item = &crate::audit::RoleFile> {
        self.tree.in_force()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_behind_an_at_is_a_version() {
        let place = |text: &str| Place::parse(text).unwrap();
        assert_eq!(place("public@12").snapshot, Some(12));
        assert_eq!(place("public@12").what, What::Repository("public".into()));
        for text in ["public", "https://user@example.com/fleet", "@12", "public@", "public@x"] {
            assert_eq!((place(text).snapshot, place(text).what), (None, What::Repository(text.into())), "{text}");
        }
    }

    #[test]
    fn what_is_no_workspace_needs_a_root() {
        let error = Place::parse("nowhere").unwrap().read(None).unwrap_err();
        assert!(error.to_string().contains("cannot be verified without a root"), "{error}");
    }
}

//! Which objects of a repository must not be public: the roles of protected cohorts, and what only such cohorts are offered.
//!
//! | object | where it belongs |
//! |---|---|
//! | root, timestamp, snapshot, targets, channel roles, cohort maps, roles of other cohorts | the public place |
//! | role of a protected cohort, and its lists of offers | the private place, alone; a list of public releases only is no secret |
//! | manifest and artifacts of a release, with the files that the manifest names, that a public cohort is offered, also as a bridge, or a protected one without `private` | the public place |
//! | the same of a release that a protected cohort is offered with `private` | the private place, and the public one if the line above asks for it |
//! | the same of a release that nobody is offered, in a channel with protected cohorts | where it is; the private place if it is new |
//!
//! The snapshot lists protected roles by their version, and the channel's role names every release with its hashes: that they exist is
//! known to all. What they say is not.

use std::collections::{BTreeMap, BTreeSet};

use super::delivery::DeliveryFile;
use tidegate_model::cohort::CohortMap;
use tidegate_model::layout::{DelegatedRole, Location, cohort_role, cohorts_path};
use tidegate_model::name::Name;
use tidegate_model::rollout::Offers;
use tidegate_model::version::Version;
use tidegate_tuf::metadata::{TargetFile, Targets};
use tidegate_tuf::path::{TargetPath, metadata_file};

/// The cohort maps of a repository, by the SHA-256 of their bytes.
pub type Maps = BTreeMap<[u8; 32], CohortMap>;

/// Where an object belongs. If neither is set, nothing needs it now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Whether devices read it from the public place.
    pub public: bool,
    /// Whether devices read it through a gate.
    pub private: bool,
    /// Whether its content may be public: a cohort's list of offers that names only public releases.
    pub known: bool,
}

impl Needs {
    /// Whether it belongs in the private place only.
    pub fn is_apart(self) -> bool {
        self.private && !self.public
    }

    /// Whether it must not be found in the public place. A private object with public content may still be there from before its
    /// cohort was protected.
    pub fn is_secret(self) -> bool {
        self.is_apart() && !self.known
    }
}

/// The protected part of a repository. By default nothing is protected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protection {
    roles: BTreeSet<String>,
    /// The roles of all cohorts that are marked as protected.
    kept: BTreeSet<String>,
    /// What channels with protected cohorts list, by key; all else is public.
    objects: BTreeMap<String, Needs>,
    listings: BTreeMap<String, BTreeSet<String>>,
}

impl Protection {
    /// The protection of a repository with these named targets roles. A channel whose cohort map is not in `maps` counts as one
    /// without protected cohorts.
    pub fn of<'a>(roles: impl IntoIterator<Item = (&'a str, &'a Targets)>, maps: &Maps) -> Self {
        let roles: BTreeMap<&str, &Targets> = roles.into_iter().collect();
        let mut protection = Self::default();
        for (name, targets) in &roles {
            let Some(DelegatedRole::Channel(channel)) = DelegatedRole::parse(name) else { continue };
            let map =
                targets.targets.get(&cohorts_path(&channel)).and_then(|file| maps.get(file.hashes.sha256_digest()?));
            if let Some(map) = map.filter(|map| map.cohorts().iter().any(|cohort| cohort.protected.is_some())) {
                protection.channel(&channel, targets, map, &roles);
            }
        }
        protection
    }

    /// The cohort map files that targets roles list, which [`Protection::of`] needs.
    pub fn maps<'a>(roles: impl IntoIterator<Item = (&'a str, &'a Targets)>) -> Vec<(String, &'a TargetFile)> {
        let found = roles.into_iter().filter_map(|(name, targets)| {
            let Some(DelegatedRole::Channel(channel)) = DelegatedRole::parse(name) else { return None };
            let path = cohorts_path(&channel);
            let file = targets.targets.get(&path)?;
            Some((path, file))
        });
        found.collect()
    }

    /// Whether anything is protected.
    pub fn is_any(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Whether a role is that of a protected cohort.
    pub fn is_protected(&self, role: &str) -> bool {
        self.roles.contains(role)
    }

    /// Whether a role is that of a protected cohort, even if the role itself could not be read.
    pub fn is_kept(&self, role: &str) -> bool {
        self.kept.contains(role)
    }

    /// The roles of protected cohorts.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().map(String::as_str)
    }

    /// Where the object with this key belongs.
    pub fn needs(&self, key: &str) -> Needs {
        self.objects.get(key).copied().unwrap_or(Needs { public: true, ..Needs::default() })
    }

    /// The keys of all objects that must not be found in the public place.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.objects.iter().filter(|(_, needs)| needs.is_secret()).map(|(key, _)| key.as_str())
    }

    /// What each protected cohort's devices read through their gate, by role.
    pub fn listings(&self) -> &BTreeMap<String, BTreeSet<String>> {
        &self.listings
    }

    /// What the manifest or list of patches with the key `key` names is needed where that is.
    pub fn follow(&mut self, key: &str, named: &[DeliveryFile]) {
        let Some(needs) = self.objects.get(key).copied() else { return };
        for name in named.iter().map(DeliveryFile::key) {
            for listing in self.listings.values_mut().filter(|listing| listing.contains(key)) {
                listing.insert(name.clone());
            }
            let of_file = self.objects.entry(name).or_default();
            of_file.public |= needs.public;
            of_file.private |= needs.private;
        }
    }

    fn channel(&mut self, channel: &Name, targets: &Targets, map: &CohortMap, roles: &BTreeMap<&str, &Targets>) {
        let marked = map.cohorts().iter().filter(|cohort| cohort.protected.is_some());
        self.kept.extend(marked.map(|cohort| cohort_role(channel, &cohort.name)));
        let mut releases: BTreeMap<(Name, Version), Needs> = BTreeMap::new();
        let mut taken: BTreeMap<String, BTreeSet<(Name, Version)>> = BTreeMap::new();
        let mut lists: Vec<(String, Vec<(Name, Version)>)> = Vec::new();
        for (name, cohort_targets) in roles {
            let Some(DelegatedRole::Cohort { channel: of, cohort }) = DelegatedRole::parse(name) else { continue };
            if of != *channel {
                continue;
            }
            // A role that is not in the map is treated as protected.
            let protected = map.cohort(&cohort).is_none_or(|cohort| cohort.protected.is_some());
            if protected {
                let file = metadata_file(name, Some(cohort_targets.common.version));
                self.keep_apart(name, format!("metadata/{file}"));
                self.roles.insert((*name).to_owned());
            }
            for (path, file) in &cohort_targets.targets {
                let key = target_key(path, file).filter(|_| protected);
                if let Some(key) = &key {
                    self.keep_apart(name, key.clone());
                }
                let Some(Location::Assignment { product, .. }) = Location::parse(path) else { continue };
                let list = file.custom.as_ref().and_then(|custom| Offers::from_custom(custom).ok());
                let Some(list) = list else { continue };
                let mut named = Vec::new();
                for offer in &list.offers {
                    let through_gate = protected && offer.private;
                    let bridges = offer.bridges.iter().map(|bridge| &bridge.release);
                    for version in std::iter::once(&offer.release).chain(bridges) {
                        let release = (product.clone(), version.clone());
                        let needs = releases.entry(release.clone()).or_default();
                        needs.public |= !through_gate;
                        needs.private |= through_gate;
                        if through_gate {
                            taken.entry((*name).to_owned()).or_default().insert(release.clone());
                        }
                        named.push(release);
                    }
                }
                lists.extend(key.map(|key| (key, named)));
            }
        }
        for (key, named) in lists {
            if let Some(needs) = self.objects.get_mut(&key) {
                needs.known = named.iter().all(|release| releases.get(release).is_some_and(|needs| needs.public));
            }
        }
        for (path, file) in &targets.targets {
            let release = match Location::parse(path) {
                Some(
                    Location::Manifest { product, version, .. }
                    | Location::Artifact { product, version, .. }
                    | Location::Patches { product, version, .. },
                ) => (product, version),
                _ => continue,
            };
            let Some(key) = target_key(path, file) else { continue };
            self.objects.insert(key.clone(), releases.get(&release).copied().unwrap_or_default());
            for (role, _) in taken.iter().filter(|(_, releases)| releases.contains(&release)) {
                self.listings.entry(role.clone()).or_default().insert(key.clone());
            }
        }
    }

    fn keep_apart(&mut self, role: &str, key: String) {
        self.listings.entry(role.to_owned()).or_default().insert(key.clone());
        self.objects.insert(key, Needs { private: true, ..Needs::default() });
    }
}

fn target_key(path: &str, file: &TargetFile) -> Option<String> {
    Some(format!("targets/{}", TargetPath::new(path).ok()?.file_path(&file.hashes, true)))
}

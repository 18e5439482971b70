//! Which releases receipts can be about: those that the workspace's channels list, or listed once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidegate_model::digest::Digest;
use tidegate_model::layout::{DelegatedRole, Location};
use tidegate_model::manifest::Manifest;
use tidegate_model::name::{HardwareId, Name};
use tidegate_model::receipt::Receipt;

use super::count::Why;
use crate::error::{Error, Result};
use crate::metadata::Repository;
use crate::policy::ReleaseState;
use crate::release::ReleaseId;
use crate::release::record::{self, Record, ReleaseSpec};
use crate::workspace::in_force::digest as target_digest;
use crate::workspace::{Workspace, manifest_in_force, offers_of};

/// What is to be looked at.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// One channel.
    pub channel: Option<Name>,
    /// One product.
    pub product: Option<Name>,
    /// One release.
    pub release: Option<ReleaseSpec>,
}

impl Scope {
    fn holds(&self, channel: &Name, product: &Name) -> bool {
        self.channel.as_ref().is_none_or(|wanted| wanted == channel)
            && self.product.as_ref().is_none_or(|wanted| wanted == product)
    }
}

/// A release that receipts can be about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Which.
    pub id: ReleaseId,
    /// Its sequence.
    pub sequence: u64,
    /// SHA-256 of its manifest.
    pub manifest: Digest,
    /// The hardware that it is for, with the bytes of the artifacts for it.
    pub hardware: BTreeMap<HardwareId, u64>,
    /// The cohorts that are offered it.
    pub offered: BTreeSet<Name>,
}

/// What the workspace knows, within a scope.
#[derive(Debug, Default)]
pub struct Releases {
    known: Vec<Known>,
    by_id: HashMap<ReleaseId, u32>,
    /// All cohorts that there are or were, by channel, with their numbers.
    cohorts: HashMap<Name, HashMap<Name, u32>>,
    cohort_names: Vec<Name>,
    hardware: HashMap<HardwareId, u32>,
    hardware_names: Vec<HardwareId>,
}

/// What a receipt is about, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct About {
    pub(super) release: u32,
    pub(super) cohort: u32,
    pub(super) hardware: u32,
}

impl Releases {
    /// What a workspace knows.
    ///
    /// # Errors
    ///
    /// If there is no such channel, product or release, or the workspace is not as it must be.
    pub fn of(workspace: &Workspace, scope: &Scope) -> Result<Self> {
        let settings = workspace.settings()?;
        if let Some(channel) = &scope.channel {
            settings.channel(channel)?;
        }
        if let Some(product) = &scope.product {
            settings.check_product(product)?;
        }
        let repository = workspace.repository()?;
        let only = scope.release.as_ref().map(|spec| Ok::<_, Error>(spec.find(workspace.dir())?.id())).transpose()?;
        let holds =
            |id: &ReleaseId| scope.holds(&id.channel, &id.product) && only.as_ref().is_none_or(|only| only == id);
        let mut records: BTreeMap<ReleaseId, Record> =
            record::all(workspace.dir())?.into_iter().map(|record| (record.id(), record)).collect();
        let mut releases = Self::default();
        let mut offers: HashMap<(Name, Name), BTreeMap<u64, BTreeSet<Name>>> = HashMap::new();
        for role in repository.roles() {
            let Some(DelegatedRole::Channel(channel)) = DelegatedRole::parse(&role.name) else { continue };
            for (path, file) in repository.targets(&role.name).into_iter().flat_map(|targets| &targets.targets) {
                let Some(Location::Manifest { product, version, .. }) = Location::parse(path) else { continue };
                let id = ReleaseId { channel: channel.clone(), product, version };
                if !holds(&id) {
                    continue;
                }
                let manifest = target_digest(file)?;
                let (sequence, hardware) = match records.remove(&id).and_then(|record| frozen(&record)) {
                    Some((sha256, sequence, hardware)) if sha256 == manifest => (sequence, hardware),
                    // Of a workspace that was pulled there are no records.
                    _ => told(&manifest_in_force(workspace.dir(), &repository, &channel, path)?.0),
                };
                let offered = match offers.entry((id.channel.clone(), id.product.clone())) {
                    std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                    std::collections::hash_map::Entry::Vacant(new) => {
                        new.insert(by_sequence(&repository, &id.channel, &id.product)?)
                    }
                };
                let offered = offered.get(&sequence).cloned().unwrap_or_default();
                releases.add(Known { id, sequence, manifest, hardware, offered });
            }
        }
        // Devices may still report what the channel no longer lists.
        for (id, record) in
            records.into_iter().filter(|(id, record)| record.state == ReleaseState::Retired && holds(id))
        {
            if let Some((manifest, sequence, hardware)) = frozen(&record) {
                releases.add(Known { id, sequence, manifest, hardware, offered: BTreeSet::new() });
            }
        }
        // The snapshot lists the roles of cohorts that are gone, too, and devices may have spoken while they were there.
        for file in repository.trusted().snapshot().into_iter().flat_map(|snapshot| snapshot.meta.keys()) {
            let role = file.strip_suffix(".json").and_then(DelegatedRole::parse);
            if let Some(DelegatedRole::Cohort { channel, cohort }) = role {
                releases.add_cohort(channel, &cohort);
            }
        }
        if let (Some(only), true) = (&only, releases.known.is_empty()) {
            return Err(Error::input(format!("no device can have {only}: it is not registered"))
                .remedy(format!("see where it stands: tidegate release show {only}")));
        }
        Ok(releases)
    }

    /// Adds a release.
    pub fn add(&mut self, known: Known) {
        let Ok(number) = u32::try_from(self.known.len()) else { return };
        for hardware in known.hardware.keys() {
            number_of(&mut self.hardware, &mut self.hardware_names, hardware);
        }
        for cohort in &known.offered {
            self.add_cohort(known.id.channel.clone(), cohort);
        }
        self.by_id.insert(known.id.clone(), number);
        self.known.push(known);
    }

    /// Adds a cohort of a channel.
    pub fn add_cohort(&mut self, channel: Name, cohort: &Name) {
        number_of(self.cohorts.entry(channel).or_default(), &mut self.cohort_names, cohort);
    }

    /// All releases.
    pub fn known(&self) -> &[Known] {
        &self.known
    }

    /// Below which keys the receipts about them are kept, for a scope.
    pub fn prefixes(&self, scope: &Scope) -> Vec<String> {
        if scope.release.is_some() {
            let of = |known: &Known| format!("receipts/{}/{}/{}", known.id.channel, known.id.product, known.sequence);
            return self.known.iter().map(of).collect();
        }
        match (&scope.channel, &scope.product) {
            (None, None) => vec!["receipts".into()],
            (Some(channel), None) => vec![format!("receipts/{channel}")],
            (Some(channel), Some(product)) => vec![format!("receipts/{channel}/{product}")],
            (None, Some(product)) => {
                let channels: BTreeSet<&Name> = self.cohorts.keys().collect();
                channels.into_iter().map(|channel| format!("receipts/{channel}/{product}")).collect()
            }
        }
    }

    /// What a receipt is about, if it can be about anything.
    pub(super) fn about(&self, receipt: &Receipt) -> Result<About, Why> {
        let Receipt { channel, product, release: version, .. } = receipt;
        let id = ReleaseId { channel: channel.clone(), product: product.clone(), version: version.clone() };
        let found = self.by_id.get(&id).and_then(|number| Some((*number, self.known.get(*number as usize)?)));
        let (release, known) = found.ok_or(Why::Release)?;
        if receipt.manifest != known.manifest || receipt.sequence != known.sequence {
            return Err(Why::Manifest);
        }
        let cohort = *self.cohorts.get(channel).and_then(|all| all.get(&receipt.cohort)).ok_or(Why::Cohort)?;
        if !known.hardware.contains_key(&receipt.hardware) {
            return Err(Why::Hardware);
        }
        let hardware = *self.hardware.get(&receipt.hardware).ok_or(Why::Hardware)?;
        Ok(About { release, cohort, hardware })
    }

    pub(super) fn cohort(&self, number: u32) -> Option<&Name> {
        self.cohort_names.get(number as usize)
    }

    pub(super) fn hardware(&self, number: u32) -> Option<&HardwareId> {
        self.hardware_names.get(number as usize)
    }
}

fn number_of<T: Clone + Eq + std::hash::Hash>(numbers: &mut HashMap<T, u32>, names: &mut Vec<T>, name: &T) {
    if !numbers.contains_key(name)
        && let Ok(number) = u32::try_from(names.len())
    {
        names.push(name.clone());
        numbers.insert(name.clone(), number);
    }
}

/// Hash, sequence and hardware of a record's manifest.
fn frozen(record: &Record) -> Option<(Digest, u64, BTreeMap<HardwareId, u64>)> {
    let manifest = record.manifest.as_ref()?;
    let artifacts = record.artifacts.iter().map(|artifact| (&artifact.hardware, artifact.length));
    Some((manifest.sha256, manifest.sequence, by_hardware(artifacts)))
}

fn told(manifest: &Manifest) -> (u64, BTreeMap<HardwareId, u64>) {
    (manifest.sequence, hardware_of(manifest))
}

/// The hardware that a release is for, with the bytes of the artifacts for it.
pub(crate) fn hardware_of(manifest: &Manifest) -> BTreeMap<HardwareId, u64> {
    by_hardware(manifest.artifacts.iter().map(|artifact| (&artifact.hardware, artifact.length)))
}

fn by_hardware<'a>(artifacts: impl Iterator<Item = (&'a BTreeSet<HardwareId>, u64)>) -> BTreeMap<HardwareId, u64> {
    let mut found: BTreeMap<HardwareId, u64> = BTreeMap::new();
    for (hardware, length) in artifacts {
        for id in hardware {
            let bytes = found.entry(id.clone()).or_default();
            *bytes = bytes.saturating_add(length);
        }
    }
    found
}

/// The cohorts that are offered each sequence of a product.
fn by_sequence(repository: &Repository, channel: &Name, product: &Name) -> Result<BTreeMap<u64, BTreeSet<Name>>> {
    let mut found: BTreeMap<u64, BTreeSet<Name>> = BTreeMap::new();
    for (cohort, offer) in offers_of(repository, channel, product)? {
        found.entry(offer.sequence).or_default().insert(cohort);
    }
    Ok(found)
}

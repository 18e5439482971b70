//! What the cohorts of a channel are offered, from the signed metadata.

use std::path::Path;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use tidegate_model::cohort::{Cohort, CohortMap, Selector};
use tidegate_model::digest::Digest;
use tidegate_model::layout::{self, DelegatedRole, Location};
use tidegate_model::manifest::Manifest;
use tidegate_model::name::Name;
use tidegate_model::position::PPM;
use tidegate_model::rollout::{Offer, Offers};
use tidegate_model::time;
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::metadata::TargetFile;

use super::artifacts;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::fs;
use crate::metadata::Repository;

/// The maximum length of a manifest or cohort map.
const MAX_LENGTH: u64 = 64 << 20;

/// A cohort and what it is offered of one product.
#[derive(Debug, Clone, Serialize)]
pub struct CohortInForce {
    /// The cohort.
    pub cohort: Name,
    /// Its share of the fleet in parts per million; `None` if it names its devices.
    pub share: Option<u32>,
    /// Whether it is protected.
    #[serde(skip)]
    pub protected: bool,
    /// What it is offered, in order of preference.
    pub offers: Vec<Offer>,
    /// Its role.
    pub role: String,
    /// When the role expires, and its offers with it.
    #[serde(with = "time::text")]
    pub expires: DateTime<Utc>,
}

impl CohortInForce {
    /// The offer of the release with this sequence.
    pub fn offer(&self, sequence: u64) -> Option<&Offer> {
        self.offers.iter().find(|offer| offer.sequence == sequence)
    }

    /// Whether it is offered the release with this sequence.
    pub fn has(&self, sequence: u64) -> bool {
        self.offer(sequence).is_some()
    }

    /// The share of the cohort that is exposed to the release with this sequence, in parts per million. A ramp stops when the offer is
    /// paused, and when it or the role ends.
    pub fn exposed(&self, sequence: u64, now: DateTime<Utc>) -> u32 {
        let Some(offer) = self.offer(sequence) else { return 0 };
        let now = now.min(stop(offer, self.expires));
        offer.ramp.map_or(PPM, |ramp| ramp.exposure(now).to_ppm())
    }

    /// Since when the whole cohort is offered the release with this sequence; `None` if it is not.
    pub fn whole_since(&self, sequence: u64, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let offer = self.offer(sequence).filter(|offer| !offer.paused)?;
        let now = offer.until.map_or(now, |until| now.min(until)).min(self.expires);
        match offer.ramp {
            None => Some(offer.since),
            Some(ramp) => (ramp.to() == PPM && ramp.end() <= now).then(|| ramp.end()),
        }
    }
}

/// The field of a paused offer with the start of the pause.
pub(crate) const PAUSED_SINCE: &str = "paused_since";

/// Since when an offer is paused; `None` if it is not, or does not say.
pub(crate) fn paused_since(offer: &Offer) -> Option<DateTime<Utc>> {
    let since = offer.extra.get(PAUSED_SINCE).filter(|_| offer.paused)?;
    time::parse(since.as_str()?).ok()
}

/// From when on nobody new takes an offer unless somebody attends to it: it is paused, it ends, or the cohort's role expires.
pub(crate) fn stop(offer: &Offer, expires: DateTime<Utc>) -> DateTime<Utc> {
    [paused_since(offer), offer.until].into_iter().flatten().fold(expires, DateTime::min)
}

/// The cohort map that the channel's role lists.
///
/// # Errors
///
/// Fails if the map is missing from the store, has other bytes than listed, or is malformed.
pub fn map_in_force(dir: &Path, repository: &Repository, channel: &Name) -> Result<CohortMap> {
    let bytes = listed(dir, repository, &layout::channel_role(channel), &layout::cohorts_path(channel))?;
    CohortMap::parse(&bytes)
        .map_err(|e| Error::input(format!("the cohort map of {channel} is malformed")).with_source(e))
}

/// The manifest of a release that the channel's role lists.
///
/// # Errors
///
/// Fails if the manifest is missing from the store, has other bytes than listed, or is malformed.
pub fn manifest_in_force(
    dir: &Path,
    repository: &Repository,
    channel: &Name,
    path: &str,
) -> Result<(Manifest, Vec<u8>)> {
    let bytes = listed(dir, repository, &layout::channel_role(channel), path)?;
    let manifest = Manifest::parse(&bytes).map_err(|e| Error::input(format!("{path} is malformed")).with_source(e))?;
    Ok((manifest, bytes))
}

/// The bytes of a target that a role lists, from the store, checked against its hash.
pub(crate) fn listed(dir: &Path, repository: &Repository, role: &str, path: &str) -> Result<Vec<u8>> {
    let file = repository.targets(role).and_then(|targets| targets.targets.get(path)).ok_or_else(|| {
        Error::input(format!("the role {role} does not list {path}"))
            .remedy("`tidegate status` shows what is registered; register the release first")
    })?;
    let digest = digest(file)?;
    let stored = fs::confined(dir, &artifacts::find(dir, &digest))?;
    let bytes = fs::read(&stored, MAX_LENGTH.min(file.length)).map_err(|e| {
        if e.is_not_found() {
            e.remedy(format!("restore {path} to the store from the published repository"))
        } else {
            e
        }
    })?;
    if Digest::of(&bytes) != digest {
        return Err(Error::trust(format!("the content of {} does not match its name", stored.display()))
            .remedy("remove the file and restore the right one"));
    }
    Ok(bytes)
}

/// The SHA-256 of a target, which everything that this program writes has.
pub(crate) fn digest(file: &TargetFile) -> Result<Digest> {
    let bytes = file.hashes.sha256_digest().ok_or_else(|| Error::input("a target without sha256"))?;
    to_hex(bytes).parse().map_err(|e| Error::bug("a digest").with_source(e))
}

/// What the cohorts of a channel are offered of a product, according to their roles: cohort and offer.
///
/// # Errors
///
/// Fails if a list of offers is malformed.
pub fn offers_of(repository: &Repository, channel: &Name, product: &Name) -> Result<Vec<(Name, Offer)>> {
    let lists = lists(repository, channel)?.into_iter().filter(|list| list.product == *product);
    Ok(lists.flat_map(|list| list.offers.offers.into_iter().map(move |offer| (list.cohort.clone(), offer))).collect())
}

/// What a cohort is offered of a product.
pub(crate) struct OfferList {
    pub(crate) cohort: Name,
    pub(crate) product: Name,
    pub(crate) offers: Offers,
}

/// Everything that the cohorts of a channel are offered, according to their roles.
pub(crate) fn lists(repository: &Repository, channel: &Name) -> Result<Vec<OfferList>> {
    let mut found = Vec::new();
    for role in repository.roles() {
        let Some(DelegatedRole::Cohort { channel: of, cohort }) = DelegatedRole::parse(&role.name) else { continue };
        if of != *channel {
            continue;
        }
        for (path, file) in repository.targets(&role.name).into_iter().flat_map(|targets| &targets.targets) {
            let Some(Location::Assignment { product, .. }) = Location::parse(path) else { continue };
            if let Some(offers) = read(path, file)? {
                found.push(OfferList { cohort: cohort.clone(), product, offers });
            }
        }
    }
    Ok(found)
}

/// What all cohorts of a channel are offered of a product, in order.
///
/// # Errors
///
/// Fails if a list of offers is malformed or a cohort's role is missing.
pub fn cohorts_in_force(
    repository: &Repository,
    map: &CohortMap,
    channel: &Name,
    product: &Name,
) -> Result<Vec<CohortInForce>> {
    map.cohorts().iter().map(|cohort| of_cohort(repository, cohort, channel, product)).collect()
}

/// What the cohorts of one channel are offered of one product.
#[derive(Debug, Serialize)]
pub struct ProductInForce<'a> {
    /// The channel.
    pub channel: &'a Name,
    /// The product.
    pub product: &'a Name,
    /// Its cohorts, in order.
    pub cohorts: Vec<CohortInForce>,
}

/// What all cohorts of all channels are offered of all products. A channel that is not signed yet is left out.
///
/// # Errors
///
/// Fails if a cohort map or a list of offers is malformed, or if a cohort's role is missing.
pub fn products_in_force<'a>(
    dir: &Path,
    repository: &Repository,
    settings: &'a Settings,
) -> Result<Vec<ProductInForce<'a>>> {
    let mut found = Vec::new();
    for channel in settings.channels.keys().filter(|channel| repository.role(channel.as_str()).is_some()) {
        let map = map_in_force(dir, repository, channel)?;
        for product in &settings.products {
            let cohorts = cohorts_in_force(repository, &map, channel, product)?;
            found.push(ProductInForce { channel, product, cohorts });
        }
    }
    Ok(found)
}

/// What one cohort is offered; `None` if the channel has no such cohort.
pub(crate) fn cohort_in_force(
    repository: &Repository,
    map: &CohortMap,
    channel: &Name,
    cohort: &Name,
    product: &Name,
) -> Result<Option<CohortInForce>> {
    map.cohort(cohort).map(|cohort| of_cohort(repository, cohort, channel, product)).transpose()
}

fn of_cohort(repository: &Repository, cohort: &Cohort, channel: &Name, product: &Name) -> Result<CohortInForce> {
    let role = layout::cohort_role(channel, &cohort.name);
    let file = repository.must_have(&role)?;
    let path = layout::assignment_path(channel, &cohort.name, product);
    let target = repository.targets(&role).and_then(|targets| targets.targets.get(path.as_str()));
    let offers = target.map(|file| read(&path, file)).transpose()?.flatten().map_or_else(Vec::new, |list| list.offers);
    let share = match cohort.selector {
        Selector::Share(share) => Some(share),
        Selector::Condition(_) | Selector::Devices(_) => None,
    };
    let protected = cohort.protected.is_some();
    Ok(CohortInForce { cohort: cohort.name.clone(), share, protected, offers, role, expires: file.expires })
}

/// The list of offers in a target of a cohort's role; `None` if the target is none.
pub(crate) fn read(path: &str, file: &TargetFile) -> Result<Option<Offers>> {
    let custom = file.custom.as_ref().filter(|custom| custom.contains_key("tidegate"));
    custom
        .map(Offers::from_custom)
        .transpose()
        .map_err(|e| Error::input(format!("{path} is a malformed list of offers")).with_source(e))
}

/// The target of a list of offers: its bytes and its `custom` content.
pub(crate) fn target(offers: &Offers) -> Result<(Vec<u8>, Map<String, Value>)> {
    let unwritable = |e| Error::input("the offers cannot be written").with_source(e);
    let bytes = offers.to_bytes().map_err(unwritable)?;
    let value = offers.to_value().map_err(unwritable)?;
    Ok((bytes, Map::from_iter([("tidegate".to_owned(), value)])))
}

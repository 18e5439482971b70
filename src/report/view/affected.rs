//! Which devices a change makes do something else, and how many: by the decision code that they run.
//!
//! What a device does depends on its place in the fleet only through the cohort that owns it and on whether the ramp has reached it. Between
//! those bounds all devices decide alike, so the fleet is cut at every bound of both states and one device decides for each piece. The
//! shares are exact as long as the salt stays; a new salt draws all places anew, and then they are what is to be expected.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use tidegate_model::cohort::{ChosenBy, CohortChoice, CohortMap, Selector};
use tidegate_model::decision::{Inputs, Installed, Offer, Outcome, Profile, decide};
use tidegate_model::facts::Facts;
use tidegate_model::layout;
use tidegate_model::name::{DeviceId, Name};
use tidegate_model::position::{Interval, PPM, SPACE};
use tidegate_model::rollout::Ramp;
use tidegate_model::version::Version;

use super::reading::Reading;

/// Devices of one kind, and what changes for which part of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Affected {
    /// The channel that they follow.
    pub channel: String,
    /// Their product.
    pub product: String,
    /// Their hardware.
    pub hardware: String,
    /// The version that they run; absent for the factory image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed: Option<String>,
    /// What changes; never empty.
    pub shifts: Vec<Shift>,
}

/// A part of the devices that will do something else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Shift {
    /// The cohort that names them; absent for those that no cohort names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cohort: Option<String>,
    /// `now`, or `in the end`: after all ramps, if everything is renewed until then.
    pub when: String,
    /// What they do in the old state.
    pub before: String,
    /// What they do in the new one.
    pub after: String,
    /// How many, in parts per million of the fleet, or of the cohort that names them.
    pub ppm: u32,
}

/// All kinds of devices for which something changes.
pub fn affected(old: &Reading, new: &Reading, now: DateTime<Utc>) -> Vec<Affected> {
    let mut kinds = BTreeSet::new();
    for reading in [old, new] {
        for ((channel, product, _), approved) in &reading.releases {
            let hardware = approved.manifest.artifacts.iter().flat_map(|artifact| &artifact.hardware);
            kinds.extend(hardware.map(|hardware| (channel.clone(), product.clone(), hardware.clone())));
        }
    }
    let mut found = Vec::new();
    for (channel, product, hardware) in kinds {
        for (installed, shown) in fleets(old, &channel, &product) {
            let Ok(id) = "any".parse::<DeviceId>() else { continue };
            let device = Profile {
                id,
                product: product.clone(),
                channel: channel.clone(),
                hardware: hardware.clone(),
                installed,
                own_facts: Facts::new(),
                attestation: None,
            };
            let shifts = shifts(old, new, &device, now);
            if !shifts.is_empty() {
                found.push(Affected {
                    channel: channel.to_string(),
                    product: product.to_string(),
                    hardware: hardware.to_string(),
                    installed: shown,
                    shifts,
                });
            }
        }
    }
    found
}

/// What devices can be expected to run: what cohorts are assigned in the old state, and what they left the factory with.
fn fleets(old: &Reading, channel: &Name, product: &Name) -> Vec<(Installed, Option<String>)> {
    let mut fleets: Vec<(Installed, Option<String>)> = Vec::new();
    let factory = Version::new(0, 0, 0);
    fleets.push((Installed { version: factory, sequence: 0 }, None));
    let mut assigned: Vec<(u64, &Version)> = old
        .assignments
        .iter()
        .filter(|((of, its, _), _)| of == channel && its == product)
        .map(|(_, assigned)| (assigned.assignment.sequence, &assigned.assignment.release))
        .collect();
    assigned.sort_unstable();
    assigned.dedup();
    let installed = |(sequence, version): (u64, &Version)| {
        (Installed { version: version.clone(), sequence }, Some(version.to_string()))
    };
    fleets.extend(assigned.into_iter().map(installed));
    fleets
}

/// When a device decides.
#[derive(Debug, Clone, Copy)]
struct Moment {
    at: DateTime<Utc>,
    /// Whether roles count as expired.
    expiry: bool,
}

fn shifts(old: &Reading, new: &Reading, device: &Profile, now: DateTime<Utc>) -> Vec<Shift> {
    let ramps = |reading: &Reading| ramps(reading, device).map(|ramp| ramp.end()).max();
    let end = [ramps(old), ramps(new)].into_iter().flatten().fold(now, DateTime::max);
    let moments = [("now", Moment { at: now, expiry: true }), ("in the end", Moment { at: end, expiry: false })];
    let mut found: BTreeMap<(Option<Name>, &str, String, String), u128> = BTreeMap::new();
    for (when, moment) in moments {
        for ((before, after), weight) in fleet(old, new, device, moment) {
            *found.entry((None, when, before, after)).or_default() += weight;
        }
        for cohort in named([old, new], &device.channel) {
            for ((before, after), weight) in members(old, new, device, &cohort, moment) {
                *found.entry((Some(cohort.clone()), when, before, after)).or_default() += weight;
            }
        }
    }
    let mut shifts: Vec<Shift> = found
        .into_iter()
        .filter(|((_, _, before, after), weight)| before != after && *weight > 0)
        // Whether it is offered nothing new or nothing at all, a device does nothing.
        .filter(|((_, _, before, after), _)| ![before, after].into_iter().all(|fate| fate == NOTHING || fate == KEEP))
        .map(|((cohort, when, before, after), weight)| Shift {
            cohort: cohort.map(|name| name.to_string()),
            when: when.to_owned(),
            before,
            after,
            ppm: to_ppm(weight),
        })
        .collect();
    shifts.sort_by(|a, b| (&a.cohort, std::cmp::Reverse(&a.when)).cmp(&(&b.cohort, std::cmp::Reverse(&b.when))));
    shifts
}

/// A part of the space in parts per million, to the nearest, but never nothing where there is something.
fn to_ppm(weight: u128) -> u32 {
    let ppm = (weight * u128::from(PPM) + SPACE / 2) / SPACE;
    u32::try_from(ppm).unwrap_or(PPM).max(u32::from(weight > 0))
}

/// The cohorts of a channel that name their devices, in either state.
fn named(states: [&Reading; 2], channel: &Name) -> BTreeSet<Name> {
    let cohorts = states.into_iter().filter_map(|state| state.maps.get(channel)).flat_map(CohortMap::cohorts);
    let named = cohorts.filter(|cohort| !matches!(cohort.selector, Selector::Share(_)));
    named.map(|cohort| cohort.name.clone()).collect()
}

fn ramps<'a>(reading: &'a Reading, device: &'a Profile) -> impl Iterator<Item = Ramp> + 'a {
    let of_device =
        |(channel, product, _): &&(Name, Name, Name)| *channel == device.channel && *product == device.product;
    reading
        .assignments
        .iter()
        .filter(move |(key, _)| of_device(key))
        .filter_map(|(_, assigned)| assigned.assignment.ramp)
}

type Fates = BTreeMap<(String, String), u128>;

/// What the devices that no cohort names do in both states, by how much of the space they are.
fn fleet(old: &Reading, new: &Reading, device: &Profile, moment: Moment) -> Fates {
    let maps = (old.maps.get(&device.channel), new.maps.get(&device.channel));
    let mut fates = Fates::new();
    let same_salt = matches!(maps, (Some(old), Some(new)) if old.salt() == new.salt());
    if same_salt || maps.0.is_none() || maps.1.is_none() {
        let cuts: BTreeSet<u128> =
            [old, new].into_iter().flat_map(|reading| cuts(reading, device, moment)).chain([0, SPACE]).collect();
        for (low, width) in pieces(&cuts) {
            let fate = |reading| fate_at(reading, device, low, moment);
            *fates.entry((fate(old), fate(new))).or_default() += width;
        }
        return fates;
    }
    // Drawn anew: the old place says nothing of the new one.
    let alone = |reading: &Reading| {
        let cuts: BTreeSet<u128> = cuts(reading, device, moment).into_iter().chain([0, SPACE]).collect();
        let mut fates: BTreeMap<String, u128> = BTreeMap::new();
        for (low, width) in pieces(&cuts) {
            *fates.entry(fate_at(reading, device, low, moment)).or_default() += width;
        }
        fates
    };
    for (before, old_width) in alone(old) {
        for (after, new_width) in alone(new) {
            // In steps of 2^-32 of the fleet, so that the product fits.
            *fates.entry((before.clone(), after)).or_default() += (old_width >> 32) * (new_width >> 32);
        }
    }
    fates
}

/// What the devices that `cohort` names do in both states, by how much of the cohort they are.
fn members(old: &Reading, new: &Reading, device: &Profile, cohort: &Name, moment: Moment) -> Fates {
    let bound = |reading: &Reading| {
        let assigned = reading.assignments.get(&(device.channel.clone(), device.product.clone(), cohort.clone()));
        assigned.and_then(|assigned| assigned.assignment.ramp).map(|ramp| ramp.exposure(moment.at).bound())
    };
    let cuts: BTreeSet<u128> = [bound(old), bound(new), Some(0), Some(SPACE)].into_iter().flatten().collect();
    let mut fates = Fates::new();
    for (low, width) in pieces(&cuts) {
        let position = u64::try_from(low).unwrap_or(u64::MAX);
        let fate = |reading: &Reading| {
            let is_there = reading.maps.get(&device.channel).is_some_and(|map| map.cohort(cohort).is_some());
            if !is_there {
                return "are not named by this cohort".to_owned();
            }
            let choice = CohortChoice {
                cohort: cohort.clone(),
                position,
                within: position,
                by: ChosenBy::Devices,
                passed_over: Vec::new(),
            };
            fate(reading, device, &choice, moment)
        };
        *fates.entry((fate(old), fate(new))).or_default() += width;
    }
    fates
}

fn pieces(cuts: &BTreeSet<u128>) -> impl Iterator<Item = (u128, u128)> {
    cuts.iter().zip(cuts.iter().skip(1)).map(|(low, high)| (*low, high - low))
}

/// The positions at which devices of a state begin to decide otherwise.
fn cuts(reading: &Reading, device: &Profile, moment: Moment) -> Vec<u128> {
    let Some(map) = reading.maps.get(&device.channel) else { return Vec::new() };
    let mut cuts = Vec::new();
    for cohort in map.cohorts() {
        let Some(interval) = map.interval(&cohort.name) else { continue };
        cuts.extend([u128::from(interval.low()), interval.high()]);
        let key = (device.channel.clone(), device.product.clone(), cohort.name.clone());
        let ramp = reading.assignments.get(&key).and_then(|assigned| assigned.assignment.ramp);
        if let Some(ramp) = ramp {
            cuts.push(first_beyond(interval, ramp.exposure(moment.at).bound()));
        }
    }
    cuts
}

/// The first position of a cohort that an exposure up to `bound` does not reach: the inverse of [`Interval::rescale`].
fn first_beyond(interval: Interval, bound: u128) -> u128 {
    let (low, high) = (u128::from(interval.low()), interval.high());
    if bound >= SPACE {
        return high;
    }
    // Below 2^64 times at most 2^64.
    (low + ((high - low) * bound).div_ceil(SPACE)).min(high)
}

fn fate_at(reading: &Reading, device: &Profile, position: u128, moment: Moment) -> String {
    let Some(map) = reading.maps.get(&device.channel) else { return NOTHING.into() };
    let place = map.share_at(u64::try_from(position).unwrap_or(u64::MAX));
    let choice = CohortChoice {
        cohort: place.cohort.clone(),
        position: place.position,
        within: place.within,
        by: ChosenBy::Share { share: 0 },
        passed_over: Vec::new(),
    };
    fate(reading, device, &choice, moment)
}

const NOTHING: &str = "are offered nothing";
const KEEP: &str = "keep what they have";

/// What a device does, in a few words.
fn fate(reading: &Reading, device: &Profile, choice: &CohortChoice, moment: Moment) -> String {
    let role = layout::cohort_role(&device.channel, &choice.cohort);
    if moment.expiry && reading.role(&role).is_none_or(|file| file.expires <= moment.at) {
        return NOTHING.into();
    }
    let key = (device.channel.clone(), device.product.clone(), choice.cohort.clone());
    let Some(assigned) = reading.assignments.get(&key).filter(|assigned| assigned.approved) else {
        return NOTHING.into();
    };
    let release = (device.channel.clone(), device.product.clone(), assigned.assignment.release.clone());
    let Some(approved) = reading.releases.get(&release) else { return NOTHING.into() };
    // Facts are not known here; the shares are of the devices whose facts fulfil the release's condition.
    let mut manifest = approved.manifest.clone();
    let of = manifest.eligibility.take().map(|condition| format!(" where {condition}")).unwrap_or_default();
    let offer = Offer::Release { assignment: &assigned.assignment, manifest: &manifest, sha256: approved.sha256 };
    let decision = decide(&Inputs { device, choice, offer, now: moment.at, quarantined: &[] });
    let version = &manifest.version;
    match decision.outcome {
        Outcome::Install { .. } => format!("install {version}{of}"),
        Outcome::Bridge { bridge, .. } => format!("install {} on the way to {version}{of}", bridge.release),
        Outcome::UpToDate { .. } => KEEP.into(),
        Outcome::Wait { .. } => format!("wait for {version}"),
        Outcome::NotEligible { rule, .. } => format!("may not take {version} ({rule})"),
        Outcome::Refuse { rule, .. } => format!("refuse {version} ({rule})"),
        Outcome::NoOffer { .. } => NOTHING.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_beyond_is_the_inverse_of_rescaling() {
        for (from, to) in [(0, 1_000_000), (0, 1), (333_333, 777_777), (999_999, 1_000_000)] {
            let interval = Interval::between(from, to).unwrap();
            for bound in [0, 1, 12_345, SPACE / 3, SPACE / 2, SPACE - 1] {
                let first = first_beyond(interval, bound);
                let exposed = |position: u128| u128::from(interval.rescale(u64::try_from(position).unwrap())) < bound;
                assert!(first == interval.high() || !exposed(first), "{from} {to} {bound}");
                assert!(first == u128::from(interval.low()) || exposed(first - 1), "{from} {to} {bound}");
            }
            assert_eq!(first_beyond(interval, SPACE), interval.high());
        }
    }

    #[test]
    fn something_is_never_nothing() {
        assert_eq!([0, 1, SPACE / 2, SPACE].map(to_ppm), [0, 1, 500_000, 1_000_000]);
    }
}

//! Which devices a change makes do something else, and how many: by the decision code that they run.
//!
//! What a device does depends on its place in the fleet only through the cohort that owns it, so the fleet is cut at the bounds of all cohorts
//! of both states. Within a cohort it depends on which offers' ramps have reached the device. Its places in the ramps of different releases
//! are independent of each other and of its place in the fleet, so that the share of a combination is the product of the shares. A new salt
//! draws all places anew, and then the shares are what is to be expected.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use tidegate_model::cohort::{ChosenBy, CohortChoice, CohortMap, Selector};
use tidegate_model::decision::{Approval, Installed, Outcome, Profile, Rule, choose, decide};
use tidegate_model::explanation::Circumstances;
use tidegate_model::facts::Facts;
use tidegate_model::layout;
use tidegate_model::name::{DeviceId, Name};
use tidegate_model::position::{PPM, SPACE};
use tidegate_model::rollout::{Offer, Ramp};
use tidegate_model::version::Version;

use super::reading::{Offered, Reading};

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

/// What devices can be expected to run: what cohorts are offered in the old state, and what they left the factory with.
fn fleets(old: &Reading, channel: &Name, product: &Name) -> Vec<(Installed, Option<String>)> {
    let mut fleets: Vec<(Installed, Option<String>)> = Vec::new();
    let factory = Version::new(0, 0, 0);
    fleets.push((Installed { version: factory, sequence: 0 }, None));
    let mut offered: Vec<(u64, &Version)> =
        offers(old, channel, product).map(|offer| (offer.sequence, &offer.release)).collect();
    offered.sort_unstable();
    offered.dedup();
    let installed = |(sequence, version): (u64, &Version)| {
        (Installed { version: version.clone(), sequence }, Some(version.to_string()))
    };
    fleets.extend(offered.into_iter().map(installed));
    fleets
}

/// When a device decides.
#[derive(Debug, Clone, Copy)]
struct Moment {
    at: DateTime<Utc>,
    /// Whether roles count as expired, and offers as ended.
    expiry: bool,
}

fn shifts(old: &Reading, new: &Reading, device: &Profile, now: DateTime<Utc>) -> Vec<Shift> {
    let ramps = |reading| offers(reading, &device.channel, &device.product).filter_map(|offer| offer.ramp);
    let end = [old, new].into_iter().flat_map(ramps).map(|ramp: Ramp| ramp.end()).fold(now, DateTime::max);
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

/// All that the cohorts of a channel are offered of a product.
fn offers<'a>(reading: &'a Reading, channel: &'a Name, product: &'a Name) -> impl Iterator<Item = &'a Offer> {
    let lists = reading.offers.iter().filter(move |((of, its, _), _)| of == channel && its == product);
    lists.flat_map(|(_, list)| &list.offers).map(|offered| &offered.offer)
}

type Fates = BTreeMap<(String, String), u128>;

/// What the devices that no cohort names do in both states, by how much of the space they are.
fn fleet(old: &Reading, new: &Reading, device: &Profile, moment: Moment) -> Fates {
    if !same_places(old, new, &device.channel) {
        return both(&fleet_alone(old, device, moment), &fleet_alone(new, device, moment));
    }
    let cuts = [old, new].into_iter().flat_map(|reading| cuts(reading, device)).chain([0, SPACE]).collect();
    let mut fates = Fates::new();
    for (low, width) in pieces(&cuts) {
        let options = |reading| options_at(reading, device, low, moment);
        add(&mut fates, fates_of(&options(old), &options(new)), width);
    }
    fates
}

/// What the devices that no cohort names do in one state.
fn fleet_alone(reading: &Reading, device: &Profile, moment: Moment) -> BTreeMap<String, u128> {
    let cuts = cuts(reading, device).into_iter().chain([0, SPACE]).collect();
    let mut fates = BTreeMap::new();
    for (low, width) in pieces(&cuts) {
        add(&mut fates, fates_alone(&options_at(reading, device, low, moment)), width);
    }
    fates
}

/// What the devices that `cohort` names do in both states, by how much of the cohort they are.
fn members(old: &Reading, new: &Reading, device: &Profile, cohort: &Name, moment: Moment) -> Fates {
    let options = |reading: &Reading| {
        let is_there = reading.maps.get(&device.channel).is_some_and(|map| map.cohort(cohort).is_some());
        if is_there { options(reading, device, cohort, moment) } else { Options::Fixed(UNNAMED) }
    };
    let (before, after) = (options(old), options(new));
    if same_places(old, new, &device.channel) {
        fates_of(&before, &after)
    } else {
        both(&fates_alone(&before), &fates_alone(&after))
    }
}

/// Whether devices have the same places in both states, as far as both have places.
fn same_places(old: &Reading, new: &Reading, channel: &Name) -> bool {
    let maps = old.maps.get(channel).zip(new.maps.get(channel));
    maps.is_none_or(|(old, new)| old.salt() == new.salt())
}

/// What devices do in both states if their places were drawn anew: the old place says nothing of the new one.
fn both(old: &BTreeMap<String, u128>, new: &BTreeMap<String, u128>) -> Fates {
    let mut fates = Fates::new();
    for (before, width) in old {
        let of_all = new.iter().map(|(after, part)| ((before.clone(), after.clone()), *part)).collect();
        add(&mut fates, of_all, *width);
    }
    fates
}

/// Adds parts of something that is itself `width` of the space.
fn add<K: Ord>(fates: &mut BTreeMap<K, u128>, parts: BTreeMap<K, u128>, width: u128) {
    for (fate, part) in parts {
        *fates.entry(fate).or_default() += share_of(width, part);
    }
}

/// A part of a part of the space.
fn share_of(width: u128, part: u128) -> u128 {
    // Both are at most 2^64, so one bit less fits.
    if width == SPACE { part } else { (width * (part >> 1)) >> 63 }
}

fn pieces(cuts: &BTreeSet<u128>) -> impl Iterator<Item = (u128, u128)> {
    cuts.iter().zip(cuts.iter().skip(1)).map(|(low, high)| (*low, high - low))
}

/// The positions at which the cohorts of a state begin and end.
fn cuts(reading: &Reading, device: &Profile) -> Vec<u128> {
    let Some(map) = reading.maps.get(&device.channel) else { return Vec::new() };
    let intervals = map.cohorts().iter().filter_map(|cohort| map.interval(&cohort.name));
    intervals.flat_map(|interval| [u128::from(interval.low()), interval.high()]).collect()
}

const NOTHING: &str = "are offered nothing";
const KEEP: &str = "keep what they have";
const UNNAMED: &str = "are not named in this cohort";

/// What the devices of a cohort can do.
enum Options {
    /// All do the same.
    Fixed(&'static str),
    /// It depends on what they are offered, in order.
    Offers(Vec<Candidate>),
}

/// An offer, and the decision on it.
struct Candidate {
    sequence: u64,
    /// The release in words.
    name: String,
    /// Its condition in words.
    of: String,
    /// What a device does that its ramp has reached.
    outcome: Outcome,
    /// The first place that its ramp has not reached.
    bound: u128,
}

fn options_at(reading: &Reading, device: &Profile, position: u128, moment: Moment) -> Options {
    let Some(map) = reading.maps.get(&device.channel) else { return Options::Fixed(NOTHING) };
    let place = map.share_at(u64::try_from(position).unwrap_or(u64::MAX));
    options(reading, device, place.cohort, moment)
}

fn options(reading: &Reading, device: &Profile, cohort: &Name, moment: Moment) -> Options {
    let role = layout::cohort_role(&device.channel, cohort);
    if moment.expiry && reading.role(&role).is_none_or(|file| file.expires <= moment.at) {
        return Options::Fixed(NOTHING);
    }
    let key = (device.channel.clone(), device.product.clone(), cohort.clone());
    match (reading.offers.get(&key), reading.maps.get(&device.channel)) {
        (Some(list), Some(map)) => {
            let choice = CohortChoice {
                cohort: cohort.clone(),
                position: 0,
                order: map.salt().ramp_order(&device.id),
                by: ChosenBy::Devices,
                passed_over: Vec::new(),
            };
            let candidate = |offered| candidate(reading, device, &choice, offered, moment);
            Options::Offers(list.offers.iter().map(candidate).collect())
        }
        _ => Options::Fixed(NOTHING),
    }
}

/// The decision on an offer as if its ramp had reached the device, and how far it has.
fn candidate(
    reading: &Reading,
    device: &Profile,
    choice: &CohortChoice,
    offered: &Offered,
    moment: Moment,
) -> Candidate {
    let mut offer = Offer { ramp: None, ..offered.offer.clone() };
    if !moment.expiry {
        offer.until = None;
    }
    let release = (device.channel.clone(), device.product.clone(), offer.release.clone());
    let approved = reading.releases.get(&release).filter(|_| offered.approved);
    // Facts are not known here; the shares are of the devices whose facts fulfil the release's condition.
    let mut manifest = approved.map(|approved| approved.manifest.clone());
    let condition = manifest.as_mut().and_then(|manifest| manifest.eligibility.take());
    let approval = manifest.as_ref().map_or(Approval::Contradicted("the channel does not list it"), Approval::Manifest);
    let circumstances = Circumstances { device, choice, now: moment.at, latest: moment.at, quarantined: &[] };
    Candidate {
        sequence: offer.sequence,
        name: offer.release.to_string(),
        of: condition.map(|condition| format!(" where {condition}")).unwrap_or_default(),
        outcome: decide(&circumstances.inputs(&offer, approval)).outcome,
        bound: offered.offer.ramp.map_or(SPACE, |ramp| ramp.exposure(moment.at).bound()),
    }
}

impl Candidate {
    /// Whether a device takes it now, once its ramp has reached the device.
    fn is_taken(&self) -> bool {
        matches!(self.outcome, Outcome::Install { .. } | Outcome::Bridge { .. })
    }

    /// What a device does, in a few words.
    fn fate(&self, outcome: &Outcome) -> String {
        let Self { name, of, .. } = self;
        match outcome {
            Outcome::Install { .. } => format!("install {name}{of}"),
            Outcome::Bridge { bridge, .. } => format!("install {} on the way to {name}{of}", bridge.release),
            Outcome::UpToDate { .. } => KEEP.into(),
            Outcome::Wait { .. } => format!("wait for {name}"),
            Outcome::NotEligible { rule, .. } => format!("may not take {name} ({rule})"),
            Outcome::Refuse { rule, .. } => format!("refuse {name} ({rule})"),
            Outcome::NoOffer { .. } => NOTHING.into(),
        }
    }
}

/// Pieces of the ramp of a release, by its sequence: those that a device is in, each by its first place.
type Places = BTreeMap<u64, u128>;

impl Options {
    /// What a device with these places does, or the sequence whose place decides it.
    fn fate(&self, places: &Places) -> Result<String, u64> {
        let candidates = match self {
            Options::Fixed(fate) => return Ok((*fate).to_owned()),
            Options::Offers(candidates) => candidates,
        };
        let mut outcomes = Vec::new();
        for candidate in candidates {
            let reached = match (candidate.bound, places.get(&candidate.sequence)) {
                _ if !candidate.is_taken() => true,
                (0, _) => false,
                (SPACE.., _) => true,
                (bound, Some(place)) => *place < bound,
                (_, None) => return Err(candidate.sequence),
            };
            let outcome = if reached {
                candidate.outcome.clone()
            } else {
                Outcome::Wait { until: None, rule: Rule::Ramp, why: String::new() }
            };
            let is_taken = reached && candidate.is_taken();
            outcomes.push(outcome);
            if is_taken {
                break;
            }
        }
        let chosen = choose(&outcomes);
        let chosen = chosen.and_then(|index| candidates.get(index).zip(outcomes.get(index)));
        Ok(chosen.map_or_else(|| NOTHING.into(), |(candidate, outcome)| candidate.fate(outcome)))
    }

    /// How far the ramp of a release has come.
    fn bound(&self, sequence: u64) -> Option<u128> {
        match self {
            Options::Fixed(_) => None,
            Options::Offers(candidates) => {
                candidates.iter().find(|candidate| candidate.sequence == sequence).map(|candidate| candidate.bound)
            }
        }
    }
}

/// What the devices of a cohort do in one state, by how much of it they are.
fn fates_alone(options: &Options) -> BTreeMap<String, u128> {
    let mut fates = BTreeMap::new();
    for ((_, fate), part) in fates_of(&Options::Fixed(NOTHING), options) {
        *fates.entry(fate).or_default() += part;
    }
    fates
}

/// What the devices of a cohort do in both states, by how much of it they are.
fn fates_of(old: &Options, new: &Options) -> Fates {
    let mut fates = Fates::new();
    divide(old, new, &mut Places::new(), SPACE, &mut fates);
    fates
}

/// Divides devices by their place in one more ramp, until it is known what they do.
fn divide(old: &Options, new: &Options, places: &mut Places, width: u128, fates: &mut Fates) {
    let sequence = match (old.fate(places), new.fate(places)) {
        (Ok(before), Ok(after)) => {
            *fates.entry((before, after)).or_default() += width;
            return;
        }
        (Err(sequence), _) | (_, Err(sequence)) => sequence,
    };
    let bounds = [old, new].into_iter().filter_map(|options| options.bound(sequence));
    let cuts = bounds.chain([0, SPACE]).collect();
    for (low, part) in pieces(&cuts) {
        places.insert(sequence, low);
        divide(old, new, places, share_of(width, part), fates);
    }
    places.remove(&sequence);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(sequence: u64, percent: u128) -> Candidate {
        let release = Version::new(sequence, 0, 0);
        Candidate {
            sequence,
            name: release.to_string(),
            of: String::new(),
            outcome: Outcome::Install { release, sequence, artifacts: Vec::new() },
            bound: SPACE * percent / 100,
        }
    }

    fn installed(sequence: u64) -> Candidate {
        Candidate { outcome: Outcome::UpToDate { why: String::new() }, ..offer(sequence, 100) }
    }

    fn percents(fates: &Fates) -> Vec<(&str, &str, u32)> {
        fates.iter().map(|((old, new), width)| (old.as_str(), new.as_str(), to_ppm(*width) / 100)).collect()
    }

    #[test]
    fn the_first_offer_that_has_reached_a_device_is_taken() {
        let old = Options::Offers(vec![offer(3, 10), offer(2, 50), offer(1, 100)]);
        let new = Options::Offers(vec![offer(3, 30), offer(2, 50), offer(1, 100)]);
        assert_eq!(
            percents(&fates_of(&old, &new)),
            [
                ("install 1.0.0", "install 1.0.0", 3500),
                ("install 1.0.0", "install 3.0.0", 1000),
                ("install 2.0.0", "install 2.0.0", 3500),
                ("install 2.0.0", "install 3.0.0", 1000),
                ("install 3.0.0", "install 3.0.0", 1000),
            ],
            "the places in the ramps of different releases are independent; those in one are the same in both states"
        );
        let alone = fates_alone(&new);
        assert_eq!(alone.get("install 3.0.0").map(|width| to_ppm(*width)), Some(300_000));
    }

    #[test]
    fn whoever_takes_nothing_waits_for_what_comes() {
        let old = Options::Offers(vec![installed(2)]);
        let new = Options::Offers(vec![offer(3, 25), installed(2)]);
        assert_eq!(percents(&fates_of(&old, &new)), [(KEEP, "install 3.0.0", 2500), (KEEP, "wait for 3.0.0", 7500)]);
        assert_eq!(percents(&fates_of(&new, &Options::Offers(Vec::new()))).len(), 2);
        let none = Options::Offers(vec![offer(3, 0)]);
        assert_eq!(percents(&fates_of(&Options::Fixed(NOTHING), &none)), [(NOTHING, "wait for 3.0.0", 10_000)]);
    }

    #[test]
    fn many_ramps_at_once_stay_small() {
        let many = |first: u64| Options::Offers((first..first + 32).rev().map(|number| offer(number, 3)).collect());
        let fates = fates_of(&many(1), &many(101));
        let whole: u128 = fates.values().sum();
        assert!((SPACE - (1 << 20)..=SPACE).contains(&whole), "{whole}");
        assert_eq!(fates.len(), 33 * 33);
    }

    #[test]
    fn something_is_never_nothing() {
        assert_eq!([0, 1, SPACE / 2, SPACE].map(to_ppm), [0, 1, 500_000, 1_000_000]);
        assert_eq!([share_of(SPACE, SPACE), share_of(SPACE / 2, SPACE / 2)], [SPACE, SPACE / 4]);
    }
}

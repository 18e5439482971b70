//! Simulates how many devices of a fleet are offered a release, and when.

use std::collections::BTreeMap;
use std::rc::Rc;

use chrono::TimeDelta;
use serde::Serialize;
use tidegate_model::decision::{Installed, Outcome};
use tidegate_model::name::{HardwareId, Name};
use tidegate_model::position::RampOrder;
use tidegate_model::time::{self, UtcTime};
use tidegate_model::version::Version;

use super::delivery::Takers;
use super::timeline::{Judge, JudgedOffer, Judgement, OfferTimeline};
use crate::error::{Error, Result};
use crate::fleet::{Class, Fleet};

/// Maximum number of reasons per cohort; further ones are counted together.
const MAX_REASONS: usize = 64;
/// Number of devices between two calls of `progress`.
const PROGRESS: u64 = 4096;

/// The hours of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Window {
    /// The first instant.
    #[serde(with = "time::text")]
    pub from: UtcTime,
    /// How many hours from then on.
    pub hours: usize,
}

impl Window {
    /// The end of the hour with this number; 0 gives the beginning of the first.
    pub fn instant(&self, hour: usize) -> UtcTime {
        self.from + TimeDelta::hours(i64::try_from(hour).unwrap_or(i64::MAX / 3_600_000))
    }

    /// The hour of an instant, from 1; the instant that ends an hour belongs to it. 0 for the beginning or earlier, `None` after
    /// the end.
    fn hour(&self, instant: UtcTime) -> Option<usize> {
        let seconds = (instant - self.from).num_seconds();
        let hour = usize::try_from(seconds.max(0).unsigned_abs().div_ceil(3600)).ok()?;
        (hour <= self.hours).then_some(hour)
    }
}

/// The effect on a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Simulation {
    /// When.
    pub window: Window,
    /// By cohort, in order.
    pub cohorts: Vec<Tally>,
    /// Devices of the fleet that are of another product or channel.
    pub others: u64,
    /// How many devices update twice: they take another offered release, by its version, before the ramp of this one reaches them.
    pub twice: BTreeMap<Version, u64>,
    /// Who takes the release when, and from what.
    #[serde(skip)]
    pub takers: Takers,
}

/// The effect on the devices of a cohort.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// The cohort.
    pub cohort: Name,
    /// Its devices.
    pub devices: u64,
    /// How many of them already have the release, or a later one.
    pub have_it: u64,
    /// How many are offered it, hour by hour: first those at the beginning, then those added in the first hour, in the second,
    /// and so on.
    pub offered: Vec<u64>,
    /// How many are offered it after that.
    pub later: u64,
    /// Of all these, how many must take another release first.
    pub by_way_of_others: u64,
    /// How many are never offered it, by reason.
    pub never: BTreeMap<String, u64>,
}

impl Tally {
    /// How many are offered it within the window.
    pub fn offered_in_all(&self) -> u64 {
        self.offered.iter().sum()
    }

    /// How many are never offered it.
    pub fn never_in_all(&self) -> u64 {
        self.never.values().sum()
    }
}

impl Simulation {
    /// All devices.
    pub fn devices(&self) -> u64 {
        self.cohorts.iter().map(|tally| tally.devices).sum()
    }

    /// How many devices are offered the release by the end of each hour, beginning with the window's beginning.
    pub fn curve(&self) -> Vec<u64> {
        let mut total = 0;
        let new = |hour: usize| -> u64 { self.cohorts.iter().filter_map(|tally| tally.offered.get(hour)).sum() };
        let step = |hour| {
            total += new(hour);
            total
        };
        (0..=self.window.hours).map(step).collect()
    }
}

/// The release whose devices are counted.
#[derive(Debug, Clone)]
pub struct Sought {
    /// Its sequence.
    pub sequence: u64,
    /// Why cohorts, by their places in the map, are never offered it.
    pub without: BTreeMap<usize, String>,
}

/// Counts what becomes of the devices of `product` on `channel`. `progress` is told how far the fleet was read.
///
/// # Errors
///
/// Fails if the fleet cannot be read.
pub fn simulate(
    scene: &Rc<OfferTimeline>,
    sought: &Sought,
    (channel, product): (&Name, &Name),
    fleet: &mut Fleet,
    window: Window,
    mut progress: impl FnMut(&Fleet),
) -> Result<Simulation> {
    let tally = |cohort: &tidegate_model::cohort::Cohort| Tally {
        cohort: cohort.name.clone(),
        devices: 0,
        have_it: 0,
        offered: vec![0; window.hours + 1],
        later: 0,
        by_way_of_others: 0,
        never: BTreeMap::new(),
    };
    let cohorts = scene.map().cohorts().iter().map(tally).collect();
    let mut simulation = Simulation { window, cohorts, others: 0, twice: BTreeMap::new(), takers: Takers::new() };
    let mut judge = Judge::new(Rc::clone(scene));
    let mut seen = 0_u64;
    while let Some(member) = fleet.next() {
        let member = member?;
        seen += 1;
        if seen.is_multiple_of(PROGRESS) {
            progress(fleet);
        }
        if member.class.profile.product != *product || member.class.profile.channel != *channel {
            simulation.others += 1;
            continue;
        }
        let (cohort, order) = scene.place(&member);
        let way = Way::walk(&mut judge, &member.class, (cohort, &order), sought.sequence, window.from)?;
        simulation.count(way, cohort, sought, &member.class.profile.hardware);
    }
    progress(fleet);
    Ok(simulation)
}

/// How a device comes to the release.
struct Way {
    end: End,
    /// Whether it takes a bridge to the release.
    by_bridge: bool,
    /// The other offered release that it takes last before it.
    before: Option<Version>,
}

enum End {
    /// It has the release at the beginning.
    Has,
    /// It takes it, from this version.
    Takes(UtcTime, Version),
    /// It never does, and why.
    Never(String),
}

impl Way {
    /// Follows a device: it takes each release as soon as it may.
    fn walk(
        judge: &mut Judge,
        class: &Class,
        (cohort, order): (usize, &RampOrder),
        sequence: u64,
        from: UtcTime,
    ) -> Result<Way> {
        let mut way = Way { end: End::Has, by_bridge: false, before: None };
        if class.profile.installed.sequence == sequence {
            return Ok(way);
        }
        let mut installed: Option<Installed> = None;
        let mut now = from;
        // The sequence of what runs rises each time, so this ends.
        loop {
            let judgements = judge.judge(class, installed.as_ref(), cohort);
            let Some((offer, at)) = next(&judgements, order, now) else {
                way.end = never(&judgements, sequence);
                return Ok(way);
            };
            if offer.release.sequence == sequence {
                // A device takes the bridge and the release without delay.
                way.by_bridge = offer.by_way_of.is_some();
                let before = || installed.as_ref().unwrap_or(&class.profile.installed).version.clone();
                way.end = End::Takes(at, offer.by_way_of.clone().unwrap_or_else(before));
                return Ok(way);
            }
            if offer.by_way_of.is_none() {
                way.before = Some(offer.release.version.clone());
            }
            let Outcome::Install { release, sequence, .. } = &offer.outcome else {
                return Err(Error::bug("an offer is taken that does not install anything"));
            };
            installed = Some(Installed { version: release.clone(), sequence: *sequence });
            now = at;
        }
    }
}

/// The first offer that a device takes from `now` on, and when.
fn next<'a>(judgements: &'a [Judgement], order: &RampOrder, now: UtcTime) -> Option<(&'a JudgedOffer, UtcTime)> {
    let ends = judgements.iter().skip(1).map(|next| Some(next.since)).chain([None]);
    judgements.iter().zip(ends).find_map(|(judgement, end)| judgement.taken(order, judgement.since.max(now), end))
}

/// Why a device does not take the release, with what it runs in the end.
fn never(judgements: &[Judgement], sequence: u64) -> End {
    let Some(last) = judgements.last() else { return End::Never("the cohort is offered nothing".into()) };
    match last.of(sequence) {
        Some(JudgedOffer { outcome: Outcome::UpToDate { .. }, .. }) => End::Has,
        Some(offer) => End::Never(why_never(offer)),
        None => End::Never(last.nothing.clone().unwrap_or_else(|| "no step reaches the cohort".into())),
    }
}

impl Simulation {
    fn count(&mut self, way: Way, cohort: usize, sought: &Sought, hardware: &HardwareId) {
        let hours = self.window.hours + 1;
        let Some(tally) = self.cohorts.get_mut(cohort) else { return };
        tally.devices += 1;
        match way.end {
            End::Has => tally.have_it += 1,
            End::Takes(at, from) => {
                tally.by_way_of_others += u64::from(way.by_bridge);
                if let Some(before) = way.before {
                    *self.twice.entry(before).or_default() += 1;
                }
                match self.window.hour(at).and_then(|hour| tally.offered.get_mut(hour)) {
                    Some(hour) => *hour += 1,
                    None => tally.later += 1,
                }
                if let Some(hour) = self.window.hour(at) {
                    let takers = self.takers.entry((from, hardware.clone())).or_insert_with(|| vec![0; hours]);
                    if let Some(count) = takers.get_mut(hour) {
                        *count += 1;
                    }
                }
            }
            End::Never(why) => {
                let why = sought.without.get(&cohort).cloned().unwrap_or(why);
                let told = tally.never.len() < MAX_REASONS || tally.never.contains_key(&why);
                *tally.never.entry(if told { why } else { "other reasons".into() }).or_default() += 1;
            }
        }
    }
}

fn why_never(offer: &JudgedOffer) -> String {
    match &offer.outcome {
        Outcome::Install { .. } | Outcome::Bridge { .. } => {
            let to = offer.ramp().map_or(0, tidegate_model::rollout::Ramp::to);
            format!("the ramp ends at {} of the cohort", crate::config::write_share(to))
        }
        Outcome::UpToDate { why } | Outcome::NoOffer { why } => why.clone(),
        Outcome::Wait { rule, why, .. } | Outcome::NotEligible { rule, why } | Outcome::Refuse { rule, why } => {
            format!("{rule}: {why}")
        }
    }
}

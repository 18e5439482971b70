//! Simulates how many devices of a fleet are offered a release, and when.

use std::collections::BTreeMap;
use std::rc::Rc;

use chrono::TimeDelta;
use serde::Serialize;
use tidegate_model::decision::Outcome;
use tidegate_model::name::Name;
use tidegate_model::time::{self, Instant};

use super::timeline::{Judge, Judgement, OfferTimeline};
use crate::error::Result;
use crate::fleet::Fleet;

/// Maximum number of reasons per cohort; further ones are counted together.
const MAX_REASONS: usize = 64;
/// Number of devices between two calls of `progress`.
const PROGRESS: u64 = 4096;

/// The hours of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Window {
    /// The first instant.
    #[serde(with = "time::text")]
    pub from: Instant,
    /// How many hours from then on.
    pub hours: usize,
}

impl Window {
    /// The end of the hour with this number; 0 gives the beginning of the first.
    pub fn instant(&self, hour: usize) -> Instant {
        self.from + TimeDelta::hours(i64::try_from(hour).unwrap_or(i64::MAX / 3_600_000))
    }

    /// The hour of an instant, from 1; the instant that ends an hour belongs to it. 0 for the beginning or earlier, `None` after
    /// the end.
    fn hour(&self, instant: Instant) -> Option<usize> {
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

/// Counts what becomes of the devices of `product` on `channel`. `progress` is told how far the fleet was read.
///
/// The last offerings of each cohort are those of the release that is asked about.
///
/// # Errors
///
/// Fails if the fleet cannot be read.
pub fn simulate(
    scene: &Rc<OfferTimeline>,
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
    let mut cohorts: Vec<Tally> = scene.map().cohorts().iter().map(tally).collect();
    let mut judge = Judge::new(Rc::clone(scene));
    let (mut others, mut seen) = (0, 0_u64);
    while let Some(member) = fleet.next() {
        let member = member?;
        seen += 1;
        if seen.is_multiple_of(PROGRESS) {
            progress(fleet);
        }
        if member.class.profile.product != *product || member.class.profile.channel != *channel {
            others += 1;
            continue;
        }
        let (cohort, within) = scene.place(&member);
        let Some(tally) = cohorts.get_mut(cohort) else { continue };
        tally.devices += 1;
        count(tally, judge.judge(&member.class, cohort), within, &window);
    }
    progress(fleet);
    Ok(Simulation { window, cohorts, others })
}

fn count(tally: &mut Tally, judgements: &[Judgement], within: u64, window: &Window) {
    let reached = |judgement: &&Judgement| judgement.installs() && judgement.reached_at(within).is_some();
    // An offering only ever exposes more than the one before, so the first that reaches a device is the one that counts.
    let first = judgements.iter().filter(reached).min_by_key(|judgement| judgement.reached_at(within));
    if let Some((judgement, instant)) = first.and_then(|first| Some((first, first.reached_at(within)?))) {
        tally.by_way_of_others += u64::from(judgement.by_way_of.is_some());
        match window.hour(instant).and_then(|hour| tally.offered.get_mut(hour)) {
            Some(hour) => *hour += 1,
            None => tally.later += 1,
        }
        return;
    }
    let Some(last) = judgements.last() else { return };
    if let Outcome::UpToDate { .. } = last.outcome {
        tally.have_it += 1;
        return;
    }
    let why = why_never(last);
    let told = tally.never.len() < MAX_REASONS || tally.never.contains_key(&why);
    *tally.never.entry(if told { why } else { "other reasons".into() }).or_default() += 1;
}

fn why_never(judgement: &Judgement) -> String {
    match &judgement.outcome {
        Outcome::Install { .. } | Outcome::Bridge { .. } => {
            let to = judgement.ramp().map_or(0, tidegate_model::rollout::Ramp::to);
            format!("the ramp ends at {} of the cohort", crate::config::write_share(to))
        }
        Outcome::UpToDate { why } | Outcome::NoOffer { why } => why.clone(),
        Outcome::Wait { rule, why, .. } | Outcome::NotEligible { rule, why } | Outcome::Refuse { rule, why } => {
            format!("{rule}: {why}")
        }
    }
}

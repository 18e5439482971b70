//! What the cohorts of a channel are offered over time, and what that means for a device, as decided by the devices' own code.
//!
//! A decision depends on a device's position in its cohort only through the ramp. So [`Judge`] calls [`decide`] once for each
//! class of devices in a cohort, and evaluates the ramp for each device. A test checks that both together agree with `decide` for
//! the device.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use tidegate_model::cohort::{ChosenBy, CohortChoice, CohortMap};
use tidegate_model::condition::Condition;
use tidegate_model::decision::{Inputs, Offer, Outcome, Rule, decide};
use tidegate_model::digest::Digest;
use tidegate_model::manifest::{Manifest, Urgency};
use tidegate_model::name::Name;
use tidegate_model::rollout::{Assignment, Ramp};
use tidegate_model::time::Instant;
use tidegate_model::version::Version;

use crate::fleet::{Class, Member};

/// Maximum number of remembered decisions.
const MAX_JUDGEMENTS: usize = 1 << 18;

/// What the cohorts of a channel are offered of one product, over time.
#[derive(Debug)]
pub struct OfferTimeline {
    map: CohortMap,
    /// Where in the map a cohort is.
    places: HashMap<Name, usize>,
    /// By cohort, in order of time; at least one.
    offers: Vec<Vec<Offering>>,
    /// The approved releases, by the hashes of their manifests.
    manifests: BTreeMap<Digest, Manifest>,
}

/// What a cohort is offered from an instant on.
#[derive(Debug, Clone)]
pub struct Offering {
    /// From when on; until the cohort's next offering.
    pub since: Instant,
    /// What.
    pub given: Given,
}

/// What a cohort is offered.
#[derive(Debug, Clone)]
pub enum Given {
    /// Nothing, and why.
    Nothing(String),
    /// A release: the assignment, and the hash of its manifest.
    Release(Box<Assignment>, Digest),
}

/// What an offering means for the devices of a class in a cohort.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// What a device does that the ramp has reached.
    pub outcome: Outcome,
    /// The release it is about, if any.
    pub release: Option<Version>,
    /// The release that it takes first.
    pub by_way_of: Option<Version>,
    /// When devices are reached: the offering's beginning, and its ramp.
    since: Instant,
    ramp: Option<Ramp>,
    /// Whether the ramp holds devices back that it has not reached; else `outcome` is theirs, too.
    held: bool,
}

impl Judgement {
    /// Whether a device that the ramp has reached installs something.
    pub fn installs(&self) -> bool {
        matches!(self.outcome, Outcome::Install { .. })
    }

    /// When a device at this position within its cohort is reached; `None` if it never is.
    pub fn reached_at(&self, within: u64) -> Option<Instant> {
        match &self.ramp {
            Some(ramp) if self.held => ramp.exposed_at(within).map(|instant| instant.max(self.since)),
            _ => Some(self.since),
        }
    }

    /// Whether a device at this position waits, at this instant, for the ramp to reach it.
    pub fn waits(&self, within: u64, at: Instant) -> bool {
        self.held && self.reached_at(within).is_none_or(|reached| at < reached)
    }

    /// The ramp that holds devices back.
    pub fn ramp(&self) -> Option<&Ramp> {
        self.ramp.as_ref().filter(|_| self.held)
    }
}

impl OfferTimeline {
    /// `offers` are by cohort, in the map's order; `manifests` are of all releases and bridges that they name.
    pub fn new(map: CohortMap, offers: Vec<Vec<Offering>>, manifests: BTreeMap<Digest, Manifest>) -> Self {
        let places = map.cohorts().iter().enumerate().map(|(place, cohort)| (cohort.name.clone(), place)).collect();
        Self { map, places, offers, manifests }
    }

    /// The cohort map.
    pub fn map(&self) -> &CohortMap {
        &self.map
    }

    /// The conditions for devices to be eligible for the offers.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.manifests.values().filter_map(|manifest| manifest.eligibility.as_ref())
    }

    /// What a cohort is offered, in order of time.
    pub fn offers(&self, cohort: usize) -> &[Offering] {
        self.offers.get(cohort).map_or(&[], Vec::as_slice)
    }

    /// A device's cohort, as its place in the map, and its position within it.
    pub fn place(&self, member: &Member) -> (usize, u64) {
        let placement = self.map.place(&member.id, &member.class.facts);
        (self.places.get(placement.cohort).copied().unwrap_or_default(), placement.within)
    }

    fn judge(&self, class: &Class, cohort: usize, offering: &Offering) -> Judgement {
        let name = self.map.cohorts().get(cohort).map_or(&class.profile.product, |cohort| &cohort.name);
        // Position 0 is the first that a ramp reaches.
        let by = ChosenBy::Devices;
        let choice = CohortChoice { cohort: name.clone(), position: 0, within: 0, by, passed_over: Vec::new() };
        let since = offering.since;
        let (assignment, sha256) = match &offering.given {
            Given::Nothing(why) => {
                let outcome = outcome(class, &choice, Offer::Nothing { why }, since);
                return Judgement { outcome, release: None, by_way_of: None, since, ramp: None, held: false };
            }
            Given::Release(assignment, sha256) => (assignment, *sha256),
        };
        let now = assignment.ramp.map_or(since, |ramp| ramp.end().max(since));
        let (release, ramp) = (Some(assignment.release.clone()), assignment.ramp);
        let (mut current, mut sha256, mut by_way_of, mut held) = ((**assignment).clone(), sha256, None, false);
        loop {
            let Some(manifest) = self.manifests.get(&sha256) else {
                let why = format!("the channel does not list the manifest of {} that is assigned", current.release);
                let outcome = outcome(class, &choice, Offer::Nothing { why: &why }, now);
                return Judgement { outcome, release, by_way_of, since, ramp, held };
            };
            let offer = Offer::Release { assignment: &current, manifest, sha256 };
            let outcome = outcome(class, &choice, offer, now);
            // A ramp matters only to devices with no other obstacle, and not to a security release.
            held |= ramp.is_some()
                && manifest.urgency != Urgency::Security
                && matches!(
                    outcome,
                    Outcome::Install { .. } | Outcome::Bridge { .. } | Outcome::Wait { rule: Rule::Ramp, .. }
                );
            match outcome {
                // Bridges have ever lower sequences, so this ends.
                Outcome::Bridge { bridge, .. } => {
                    sha256 = bridge.sha256;
                    current = current.through(&bridge);
                    by_way_of = Some(bridge.release);
                }
                outcome => return Judgement { outcome, release, by_way_of, since, ramp, held },
            }
        }
    }
}

fn outcome(class: &Class, choice: &CohortChoice, offer: Offer<'_>, now: Instant) -> Outcome {
    decide(&Inputs { device: &class.profile, choice, offer, now, quarantined: &[] }).outcome
}

/// Judges the devices of a fleet, a class at a time.
#[derive(Debug)]
pub struct Judge {
    scene: Rc<OfferTimeline>,
    known: HashMap<(u64, usize), Vec<Judgement>>,
}

impl Judge {
    /// A judge that knows nothing yet.
    pub fn new(scene: Rc<OfferTimeline>) -> Self {
        Self { scene, known: HashMap::new() }
    }

    /// What it judges by.
    pub fn scene(&self) -> &OfferTimeline {
        &self.scene
    }

    /// What each offering of a cohort means for devices of a class, in order of time.
    pub fn judge(&mut self, class: &Class, cohort: usize) -> &[Judgement] {
        if self.known.len() >= MAX_JUDGEMENTS {
            self.known.clear();
        }
        let scene = &self.scene;
        self.known.entry((class.number, cohort)).or_insert_with(|| {
            scene.offers(cohort).iter().map(|offering| scene.judge(class, cohort, offering)).collect()
        })
    }
}

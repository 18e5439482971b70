//! What the cohorts of a channel are offered over time, and what that means for a device, as decided by the devices' own code.
//!
//! A decision on an offer depends on the device's id only through the ramp. So [`Judge`] calls [`decide`] on each offer once for each
//! class of devices in a cohort, and evaluates the ramps for each device. A test checks that both together agree with `decide` for
//! the device.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use tidegate_model::cohort::{ChosenBy, CohortChoice, CohortMap};
use tidegate_model::condition::Condition;
use tidegate_model::decision::{Approval, Inputs, Installed, Outcome, Profile, Rule, choose, decide};
use tidegate_model::digest::Digest;
use tidegate_model::manifest::Manifest;
use tidegate_model::name::Name;
use tidegate_model::position::RampOrder;
use tidegate_model::rollout::{Offer, Ramp};
use tidegate_model::time::UtcTime;
use tidegate_model::version::Version;

use crate::fleet::{Class, Member};

/// Maximum number of remembered decisions.
const MAX_JUDGEMENTS: usize = 1 << 18;

/// The manifests of offered releases and bridges, by the hashes in the offers; or how an offer contradicts the channel.
pub type Approvals = BTreeMap<Digest, Result<Manifest, String>>;

/// What the cohorts of a channel are offered of one product, over time.
#[derive(Debug)]
pub struct OfferTimeline {
    map: CohortMap,
    /// Where in the map a cohort is.
    places: HashMap<Name, usize>,
    /// By cohort, in order of time; at least one.
    offers: Vec<Vec<Offering>>,
    approvals: Approvals,
}

/// What a cohort is offered from an instant on.
#[derive(Debug, Clone)]
pub struct Offering {
    /// From when on; until the cohort's next offering.
    pub since: UtcTime,
    /// What.
    pub given: Given,
}

/// What a cohort is offered.
#[derive(Debug, Clone)]
pub enum Given {
    /// Nothing, and why.
    Nothing(String),
    /// Releases, in order of preference.
    Offers(Vec<Offer>),
}

/// What an offering means for the devices of a class in a cohort.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// From when on.
    pub since: UtcTime,
    /// The offers, in order of preference.
    pub offers: Vec<JudgedOffer>,
    /// Why there are none.
    pub nothing: Option<String>,
}

/// What an offer means for the devices of a class in a cohort.
#[derive(Debug, Clone)]
pub struct JudgedOffer {
    /// The release that is offered.
    pub release: Installed,
    /// What a device does that the ramp has reached, before the offer ends.
    pub outcome: Outcome,
    /// The release that it takes first.
    pub by_way_of: Option<Version>,
    since: UtcTime,
    ramp: Option<Ramp>,
    /// The sequences whose positions in the ramp hold a device back: of the release, then of the bridges to it.
    held: Vec<u64>,
    /// When the offer ends, and what a device does from then on.
    end: Option<(UtcTime, Outcome)>,
}

impl Judgement {
    /// What a device does at an instant, and the offer that it is about, if any.
    pub fn at(&self, order: &RampOrder, at: UtcTime) -> (Option<&JudgedOffer>, Cow<'_, Outcome>) {
        let outcomes: Vec<_> = self.offers.iter().map(|offer| offer.outcome_at(order, at)).collect();
        let chosen = choose(outcomes.iter().map(AsRef::as_ref));
        let chosen = chosen.and_then(|index| self.offers.get(index).zip(outcomes.into_iter().nth(index)));
        if let Some((offer, outcome)) = chosen {
            return (Some(offer), outcome);
        }
        let why = self.nothing.clone().unwrap_or_default();
        (None, Cow::Owned(Outcome::NoOffer { why }))
    }

    /// The first offer that a device takes from `from` on and before `until`, and when.
    pub fn taken(&self, order: &RampOrder, from: UtcTime, until: Option<UtcTime>) -> Option<(&JudgedOffer, UtcTime)> {
        let within = |at: &UtcTime| until.is_none_or(|until| *at < until);
        let taken = self.offers.iter().filter_map(|offer| {
            let at = offer.taken_from(order)?.max(from);
            (within(&at) && !offer.has_ended(at)).then_some((offer, at))
        });
        // Of those taken at the same instant, the first in the order of preference.
        taken.min_by_key(|(_, at)| *at)
    }

    /// The offer of the release with this sequence.
    pub fn of(&self, sequence: u64) -> Option<&JudgedOffer> {
        self.offers.iter().find(|offer| offer.release.sequence == sequence)
    }
}

impl JudgedOffer {
    /// When the ramp reaches a device; `None` if it never does.
    pub fn reached_at(&self, order: &RampOrder) -> Option<UtcTime> {
        let Some(ramp) = &self.ramp else { return Some(self.since) };
        let mut reached = self.held.iter().map(|sequence| ramp.exposed_at(order.position(*sequence)));
        reached.try_fold(self.since, |latest, reached| Some(latest.max(reached?)))
    }

    /// The ramp that holds devices back.
    pub fn ramp(&self) -> Option<&Ramp> {
        self.ramp.as_ref().filter(|_| !self.held.is_empty())
    }

    /// Whether the offer has ended by itself at `now`.
    fn has_ended(&self, now: UtcTime) -> bool {
        self.end.as_ref().is_some_and(|(until, _)| *until <= now)
    }

    /// From when on a device takes it, if it ever does.
    fn taken_from(&self, order: &RampOrder) -> Option<UtcTime> {
        matches!(self.outcome, Outcome::Install { .. }).then(|| self.reached_at(order)).flatten()
    }

    /// What a device does with this offer at an instant.
    pub fn outcome_at(&self, order: &RampOrder, at: UtcTime) -> Cow<'_, Outcome> {
        if let Some((_, outcome)) = self.end.as_ref().filter(|_| self.has_ended(at)) {
            return Cow::Borrowed(outcome);
        }
        let reached = |sequence: &u64| self.ramp.and_then(|ramp| ramp.exposed_at(order.position(*sequence)));
        let mut held = self.held.iter().filter(|_| self.ramp.is_some()).map(reached);
        let Some(reached) = held.find(|reached| reached.is_none_or(|reached| at < reached)) else {
            return Cow::Borrowed(&self.outcome);
        };
        let until = reached.filter(|reached| !self.has_ended(*reached));
        let why = match (reached, until) {
            (_, Some(_)) => "the ramp has not reached them yet",
            (Some(_), None) => "the offer ends before the ramp reaches them, unless it is renewed",
            (None, None) => "the ramp ends before it reaches them",
        };
        Cow::Owned(Outcome::Wait { until, rule: Rule::Ramp, why: why.to_owned() })
    }
}

impl OfferTimeline {
    /// `offers` are by cohort, in the map's order; `approvals` are of all releases and bridges in them.
    pub fn new(map: CohortMap, offers: Vec<Vec<Offering>>, approvals: Approvals) -> Self {
        let places = map.cohorts().iter().enumerate().map(|(place, cohort)| (cohort.name.clone(), place)).collect();
        Self { map, places, offers, approvals }
    }

    /// The cohort map.
    pub fn map(&self) -> &CohortMap {
        &self.map
    }

    /// The conditions for devices to be eligible for the offers.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.approvals.values().filter_map(|manifest| manifest.as_ref().ok()?.eligibility.as_ref())
    }

    /// What a cohort is offered, in order of time.
    pub fn offers(&self, cohort: usize) -> &[Offering] {
        self.offers.get(cohort).map_or(&[], Vec::as_slice)
    }

    /// A device's cohort, as its place in the map, and when ramps reach the device.
    pub fn place(&self, member: &Member) -> (usize, RampOrder) {
        let placement = self.map.place(&member.id, &member.class.facts);
        (self.places.get(placement.cohort).copied().unwrap_or_default(), self.map.salt().ramp_order(&member.id))
    }

    fn judge(&self, device: &Profile, cohort: usize, offering: &Offering) -> Judgement {
        let name = self.map.cohorts().get(cohort).map_or(&device.product, |cohort| &cohort.name);
        // The ramps are evaluated for each device, so that the position does not matter here.
        let order = self.map.salt().ramp_order(&device.id);
        let choice =
            CohortChoice { cohort: name.clone(), position: 0, order, by: ChosenBy::Devices, passed_over: Vec::new() };
        let since = offering.since;
        match &offering.given {
            Given::Nothing(why) => Judgement { since, offers: Vec::new(), nothing: Some(why.clone()) },
            Given::Offers(offers) => {
                let offers = offers.iter().map(|offer| self.judge_offer(device, &choice, offer, since)).collect();
                Judgement { since, offers, nothing: None }
            }
        }
    }

    fn judge_offer(&self, device: &Profile, choice: &CohortChoice, offer: &Offer, since: UtcTime) -> JudgedOffer {
        let decided = |offer: &Offer, now: UtcTime| {
            let approval = match self.approvals.get(&offer.sha256) {
                Some(Ok(manifest)) => Approval::Manifest(manifest),
                Some(Err(why)) => Approval::Contradicted(why),
                None => Approval::Contradicted("the channel does not list its manifest"),
            };
            decide(&Inputs { device, choice, offer, approval, now, latest: now, quarantined: &[] }).outcome
        };
        let release = Installed { version: offer.release.clone(), sequence: offer.sequence };
        let end = offer.until.map(|until| (until, decided(&Offer { ramp: None, ..offer.clone() }, until)));
        let mut current = Offer { ramp: None, until: None, ..offer.clone() };
        let (mut by_way_of, mut held) = (None, Vec::new());
        loop {
            let outcome = decided(&current, since);
            // Bridges are for devices that the ramp of the release has reached.
            if by_way_of.is_none() && comes_after_the_ramp(&outcome) {
                held.push(current.sequence);
            }
            match outcome {
                // Bridges have ever lower sequences, so this ends.
                Outcome::Bridge { bridge, .. } => {
                    current = current.through(&bridge);
                    by_way_of = Some(bridge.release);
                }
                outcome => return JudgedOffer { release, outcome, by_way_of, since, ramp: offer.ramp, held, end },
            }
        }
    }
}

/// Whether an outcome is that of devices that the ramp has reached only. The others do not depend on the ramp.
fn comes_after_the_ramp(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::UpToDate { .. } | Outcome::NoOffer { .. } | Outcome::Wait { .. } => false,
        Outcome::Refuse { rule, .. } => !matches!(rule, Rule::Approved | Rule::Quarantine),
        Outcome::Install { .. } | Outcome::Bridge { .. } | Outcome::NotEligible { .. } => true,
    }
}

/// Judges the devices of a fleet, a class at a time.
#[derive(Debug)]
pub struct Judge {
    scene: Rc<OfferTimeline>,
    known: HashMap<(u64, Option<u64>, usize), Rc<[Judgement]>>,
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

    /// What each offering of a cohort means for devices of a class, in order of time. `installed` is what they run meanwhile, if not what
    /// the class runs.
    pub fn judge(&mut self, class: &Class, installed: Option<&Installed>, cohort: usize) -> Rc<[Judgement]> {
        if self.known.len() >= MAX_JUDGEMENTS {
            self.known.clear();
        }
        let scene = &self.scene;
        let key = (class.number, installed.map(|installed| installed.sequence), cohort);
        let judged = self.known.entry(key).or_insert_with(|| {
            let device = match installed {
                None => Cow::Borrowed(&class.profile),
                Some(installed) => Cow::Owned(Profile { installed: installed.clone(), ..class.profile.clone() }),
            };
            scene.offers(cohort).iter().map(|offering| scene.judge(&device, cohort, offering)).collect()
        });
        Rc::clone(judged)
    }
}

//! Explains what a device would do, with the devices' own code and the signed metadata; also for a whole fleet, counted.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::rc::Rc;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tidegate_model::cohort::CohortMap;
use tidegate_model::decision::{Approval, Outcome, Profile, Quarantined, Rule};
use tidegate_model::explanation::{Circumstances, ExplainedOffer, Explanation};
use tidegate_model::layout;
use tidegate_model::name::{DeviceId, Name};
use tidegate_model::position::RampOrder;
use tidegate_model::rollout::Offer;
use tidegate_model::time;

use super::approval::{Manifests, Offered};
use super::timeline::{Approvals, Given, Judge, Judgement, OfferTimeline, Offering};
use crate::error::{Error, Result};
use crate::fleet::Fleet;
use crate::metadata::Repository;
use crate::workspace::in_force::cohort_in_force;
use crate::workspace::{CohortInForce, cohorts_in_force, map_in_force};

/// Maximum number of device groups; further ones are counted together.
const MAX_GROUPS: usize = 1000;
/// Number of devices between two calls of `progress`.
const PROGRESS: u64 = 4096;

/// What a device would do and why, in the device's own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The decision on every offer, with the outcome of every rule.
    pub explanation: Explanation,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.explanation.fmt(f)
    }
}

/// Explains what devices do, from the metadata of a workspace.
#[derive(Debug)]
pub struct Explainer<'a> {
    dir: &'a Path,
    repository: &'a Repository,
    now: DateTime<Utc>,
    maps: HashMap<Name, CohortMap>,
    manifests: Manifests<'a>,
}

/// Explains what `device` would decide at `at`, from the offers at that time.
///
/// # Errors
///
/// Fails if the device's channel is unknown, or if a cohort map, role or manifest cannot be read.
pub fn explain(dir: &Path, repository: &Repository, device: &Profile, at: DateTime<Utc>) -> Result<Answer> {
    Explainer::new(dir, repository, at).explain(device, &[], at)
}

impl<'a> Explainer<'a> {
    /// Explains the decisions of devices that request updates at `now`.
    pub fn new(dir: &'a Path, repository: &'a Repository, now: DateTime<Utc>) -> Self {
        Self { dir, repository, now, maps: HashMap::new(), manifests: Manifests::new(dir, repository) }
    }

    /// Explains what a device with these failed releases would decide at `at`.
    ///
    /// # Errors
    ///
    /// Fails if the device's channel is unknown, or if a cohort map, role or manifest cannot be read.
    pub fn explain(&mut self, device: &Profile, quarantined: &[Quarantined], at: DateTime<Utc>) -> Result<Answer> {
        let map = self.map(&device.channel)?;
        let choice = map.choose(&device.id, &device.facts());
        let own = cohort_in_force(self.repository, &map, &device.channel, &choice.cohort, &device.product)?;
        let offered = Offered { channel: &device.channel, cohort: &choice.cohort, product: &device.product };
        let circumstances = Circumstances { device, choice: &choice, now: at, latest: at, quarantined };
        let explanation = match self.offered(own.as_ref(), offered, at) {
            Ok(offers) => {
                let offers = offers.iter().map(|offer| self.consider(&circumstances, offered, offer));
                circumstances.explain(offers.collect::<Result<_>>()?)
            }
            Err(why) => circumstances.nothing(&why),
        };
        Ok(Answer { explanation })
    }

    /// The decision on an offer, and on the bridges to it.
    fn consider(
        &mut self,
        circumstances: &Circumstances<'_>,
        offered: Offered<'_>,
        offer: &Offer,
    ) -> Result<ExplainedOffer> {
        let mut explained = match self.manifests.of(offered, offer)? {
            Ok(manifest) => ExplainedOffer::new(&circumstances.inputs(offer, Approval::Manifest(manifest))),
            Err(why) => ExplainedOffer::new(&circumstances.inputs(offer, Approval::Contradicted(&why))),
        };
        if let Outcome::Bridge { bridge, .. } = &explained.decision.outcome {
            // Bridges have ever lower sequences, so this ends.
            let mut bridge = self.consider(circumstances, offered, &offer.through(bridge))?;
            let rest = std::mem::take(&mut bridge.through);
            explained.through = std::iter::once(bridge).chain(rest).collect();
        }
        Ok(explained)
    }

    /// Explains what a fleet would decide at `at`, in groups. `progress` is told how far the fleet was read.
    ///
    /// # Errors
    ///
    /// Fails if the fleet cannot be read, or as [`explain`] does.
    pub fn explain_fleet(
        &mut self,
        fleet: &mut Fleet,
        at: DateTime<Utc>,
        mut progress: impl FnMut(&Fleet),
    ) -> Result<FleetAnswer> {
        let mut judges: BTreeMap<(Name, Name), Judge> = BTreeMap::new();
        let mut counts: HashMap<(Name, Name, usize, Reason), Count> = HashMap::new();
        let mut devices = 0_u64;
        while let Some(member) = fleet.next() {
            let member = member?;
            devices += 1;
            if devices.is_multiple_of(PROGRESS) {
                progress(fleet);
            }
            let key = (member.class.profile.channel.clone(), member.class.profile.product.clone());
            let judge = match judges.entry(key.clone()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(vacant) => vacant.insert(Judge::new(Rc::new(self.scene(&key.0, &key.1, at)?))),
            };
            let (cohort, order) = judge.scene().place(&member);
            let judgements = judge.judge(&member.class, None, cohort);
            let [judgement] = &*judgements else {
                return Err(Error::bug("a cohort with more than what it is offered"));
            };
            let (reason, until) = reason(judgement, &order, at);
            let full = counts.len() >= MAX_GROUPS;
            let group = (key.0, key.1, cohort, reason);
            let group =
                if full && !counts.contains_key(&group) { (group.0, group.1, cohort, Reason::other()) } else { group };
            let count =
                counts.entry(group).or_insert_with(|| Count { devices: 0, example: member.id.clone(), until: None });
            count.devices += 1;
            if let Some(until) = until {
                let (first, last) = count.until.unwrap_or((until, until));
                count.until = Some((first.min(until), last.max(until)));
            }
        }
        progress(fleet);
        Ok(FleetAnswer { at, devices, groups: groups(counts, &judges) })
    }

    fn map(&mut self, channel: &Name) -> Result<CohortMap> {
        if !self.maps.contains_key(channel) {
            self.maps.insert(channel.clone(), map_in_force(self.dir, self.repository, channel)?);
        }
        self.maps.get(channel).cloned().ok_or_else(|| Error::bug("a map that was just read is not there"))
    }

    /// What a cohort is offered at `at`; or why nothing, in the device's own words, so that both give the same answer.
    fn offered(
        &self,
        own: Option<&CohortInForce>,
        Offered { channel, cohort, product }: Offered<'_>,
        at: DateTime<Utc>,
    ) -> std::result::Result<Vec<Offer>, String> {
        let role = layout::cohort_role(channel, cohort);
        if let Some(own) = own.filter(|own| own.expires <= at.max(self.now)) {
            let expires = time::format(own.expires);
            return Err(format!("role {role} expired at {expires}: it is renewed by tidegate refresh"));
        }
        let offers = own.map(|own| own.offers.clone()).filter(|offers| !offers.is_empty());
        offers.ok_or_else(|| format!("role {role} offers no release of {product}"))
    }

    fn scene(&mut self, channel: &Name, product: &Name, at: DateTime<Utc>) -> Result<OfferTimeline> {
        let map = self.map(channel)?;
        let mut approvals = Approvals::new();
        let mut offers = Vec::new();
        for own in cohorts_in_force(self.repository, &map, channel, product)? {
            let offered = Offered { channel, cohort: &own.cohort, product };
            let given = match self.offered(Some(&own), offered, at) {
                Err(why) => Given::Nothing(why),
                Ok(offers) => {
                    for offer in &offers {
                        self.manifests.add(&mut approvals, offered, offer)?;
                    }
                    Given::Offers(offers)
                }
            };
            // What is signed counts as having been so for as long as anybody asks.
            offers.push(vec![Offering { since: DateTime::UNIX_EPOCH, given }]);
        }
        Ok(OfferTimeline::new(map, offers, approvals))
    }
}

/// What a fleet would decide, in groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FleetAnswer {
    /// When.
    #[serde(with = "time::text")]
    pub at: DateTime<Utc>,
    /// How many devices there are.
    pub devices: u64,
    /// The groups: by channel, product and outcome, the largest first.
    pub groups: Vec<Group>,
}

/// Devices that decide the same for the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Their channel.
    pub channel: Name,
    /// Their product.
    pub product: Name,
    /// What they decide.
    #[serde(flatten)]
    pub reason: Reason,
    /// How many they are.
    pub devices: u64,
    /// How many of them are in which cohort.
    pub cohorts: BTreeMap<Name, u64>,
    /// For devices that wait: when the ramp reaches the first and the last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reached: Option<Reached>,
    /// One of them, to be asked by itself.
    pub example: DeviceId,
}

/// From when to when a ramp reaches devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reached {
    /// The first.
    #[serde(with = "time::text")]
    pub first: DateTime<Utc>,
    /// The last.
    #[serde(with = "time::text")]
    pub last: DateTime<Utc>,
}

/// What devices decide, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Reason {
    /// The kind of the outcome, as [`Outcome`] has it: `install`, `wait`, `up-to-date`, `not-eligible`, `refuse`, `no-offer`.
    pub outcome: String,
    /// The release that is offered.
    pub release: Option<String>,
    /// The release that is installed first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_way_of: Option<String>,
    /// The rule that decides, if one does.
    pub rule: Option<String>,
    /// Why.
    pub why: String,
}

#[derive(Debug)]
struct Count {
    devices: u64,
    example: DeviceId,
    until: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

impl Reason {
    fn other() -> Self {
        let why = "other reasons".to_owned();
        Self { outcome: "other".into(), release: None, by_way_of: None, rule: None, why }
    }
}

/// Why a device decides what it does, and when the ramp reaches it if it waits for that.
fn reason(judgement: &Judgement, order: &RampOrder, at: DateTime<Utc>) -> (Reason, Option<DateTime<Utc>>) {
    let (offer, outcome) = judgement.at(order, at);
    let release = offer.map(|offer| offer.release.version.to_string());
    let by_way_of = offer.and_then(|offer| offer.by_way_of.as_ref()).map(ToString::to_string);
    let of = |outcome: &str, rule: Option<Rule>, why: String| Reason {
        outcome: outcome.to_owned(),
        release: release.clone(),
        by_way_of: by_way_of.clone().filter(|_| outcome == "install"),
        rule: rule.map(|rule| rule.to_string()),
        why,
    };
    match &*outcome {
        Outcome::Install { .. } => (of("install", None, "no rule refuses it".into()), None),
        Outcome::Bridge { .. } => (of("bridge", None, "no rule refuses it".into()), None),
        Outcome::UpToDate { .. } => {
            (of("up-to-date", Some(Rule::Sequence), "they run it, or a later one".into()), None)
        }
        Outcome::Wait { until, rule, why } => (of("wait", Some(*rule), why.clone()), *until),
        Outcome::NotEligible { rule, why } => (of("not-eligible", Some(*rule), why.clone()), None),
        Outcome::Refuse { rule, why } => (of("refuse", Some(*rule), why.clone()), None),
        Outcome::NoOffer { why } => (of("no-offer", Some(Rule::Offer), why.clone()), None),
    }
}

/// Cohorts put together.
fn groups(counts: HashMap<(Name, Name, usize, Reason), Count>, judges: &BTreeMap<(Name, Name), Judge>) -> Vec<Group> {
    let mut groups: BTreeMap<(Name, Name, Reason), Group> = BTreeMap::new();
    for ((channel, product, cohort, reason), count) in counts {
        let scene = judges.get(&(channel.clone(), product.clone())).map(Judge::scene);
        let Some(cohort) = scene.and_then(|scene| scene.map().cohorts().get(cohort)) else { continue };
        let group = groups.entry((channel.clone(), product.clone(), reason.clone())).or_insert_with(|| Group {
            channel,
            product,
            reason,
            devices: 0,
            cohorts: BTreeMap::new(),
            reached: None,
            example: count.example.clone(),
        });
        group.devices += count.devices;
        group.example = group.example.clone().min(count.example);
        *group.cohorts.entry(cohort.name.clone()).or_default() += count.devices;
        if let Some((first, last)) = count.until {
            let reached = group.reached.unwrap_or(Reached { first, last });
            group.reached = Some(Reached { first: reached.first.min(first), last: reached.last.max(last) });
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by(|a, b| {
        let place = |group: &Group| (group.channel.clone(), group.product.clone(), std::cmp::Reverse(group.devices));
        place(a).cmp(&place(b)).then_with(|| a.reason.cmp(&b.reason))
    });
    groups
}

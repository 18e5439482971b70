//! Explains what a device would do, with the devices' own code and the signed metadata; also for a whole fleet, counted.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::rc::Rc;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tidegate_model::cohort::CohortMap;
use tidegate_model::decision::{Inputs, Offer, Outcome, Profile, Quarantined};
use tidegate_model::digest::Digest;
use tidegate_model::explanation::{self, Explanation};
use tidegate_model::layout;
use tidegate_model::manifest::Manifest;
use tidegate_model::name::{DeviceId, Name};
use tidegate_model::time;

use super::timeline::{Given, Judge, Judgement, OfferTimeline, Offering};
use crate::error::{Error, Result};
use crate::fleet::Fleet;
use crate::metadata::Repository;
use crate::workspace::in_force::one_standing;
use crate::workspace::{CohortInForce, manifest_in_force, map_in_force, standing};

/// Maximum number of device groups; further ones are counted together.
const MAX_GROUPS: usize = 1000;
/// Number of devices between two calls of `progress`.
const PROGRESS: u64 = 4096;

/// What a device would do and why, in the device's own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The decision, with the outcome of every rule.
    pub explanation: Explanation,
    /// The decision on the assigned release, if it leads over the bridge that `explanation` is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on_the_way_to: Vec<Explanation>,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for explanation in &self.on_the_way_to {
            writeln!(f, "{explanation}")?;
        }
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
    manifests: HashMap<String, (Manifest, Digest)>,
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
        Self { dir, repository, now, maps: HashMap::new(), manifests: HashMap::new() }
    }

    /// Explains what a device with these failed releases would decide at `at`.
    ///
    /// # Errors
    ///
    /// Fails if the device's channel is unknown, or if a cohort map, role or manifest cannot be read.
    pub fn explain(&mut self, device: &Profile, quarantined: &[Quarantined], at: DateTime<Utc>) -> Result<Answer> {
        let map = self.map(&device.channel)?;
        let choice = map.choose(&device.id, &device.facts());
        let own = one_standing(self.repository, &map, &device.channel, &choice.cohort, &device.product)?;
        let given = |offer: Offer<'_>, quarantined: &[Quarantined]| {
            explanation::explain(&Inputs { device, choice: &choice, offer, now: at, quarantined })
        };
        let mut on_the_way_to = Vec::new();
        let mut assignment = match self.offered(own.as_ref(), (&device.channel, &choice.cohort, &device.product), at) {
            Ok(assignment) => assignment,
            Err(why) => {
                let explanation = given(Offer::Nothing { why: &why }, &[]);
                return Ok(Answer { explanation, on_the_way_to });
            }
        };
        loop {
            let (manifest, sha256) = self.manifest(device, &assignment.release)?;
            let offer = Offer::Release { assignment: &assignment, manifest, sha256: *sha256 };
            let explanation = given(offer, quarantined);
            let Outcome::Bridge { bridge, .. } = &explanation.decision.outcome else {
                return Ok(Answer { explanation, on_the_way_to });
            };
            // Bridges have ever lower sequences, so this ends.
            let (_, sha256) = self.manifest(device, &bridge.release)?;
            if *sha256 != bridge.sha256 {
                let role = layout::cohort_role(&device.channel, &choice.cohort);
                return Err(Error::trust(format!(
                    "{role} names a bridge {} that the channel does not approve",
                    bridge.release
                ))
                .remedy("assign the release anew: devices of this cohort refuse it"));
            }
            assignment = assignment.through(bridge);
            on_the_way_to.push(explanation);
        }
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
            let (cohort, within) = judge.scene().place(&member);
            let [judgement] = judge.judge(&member.class, cohort) else {
                return Err(Error::bug("a cohort with more than what it is offered"));
            };
            let (reason, until) = reason(judgement, within, at);
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

    fn manifest(
        &mut self,
        device: &Profile,
        release: &tidegate_model::version::Version,
    ) -> Result<&(Manifest, Digest)> {
        let path = layout::manifest_path(&device.channel, &device.product, release);
        if !self.manifests.contains_key(&path) {
            let (manifest, bytes) = manifest_in_force(self.dir, self.repository, &device.channel, &path)?;
            self.manifests.insert(path.clone(), (manifest, Digest::of(&bytes)));
        }
        self.manifests.get(&path).ok_or_else(|| Error::bug("a manifest that was just read is not there"))
    }

    /// What a cohort is offered at `at`; or why nothing, in the device's own words, so that both give the same answer.
    fn offered(
        &self,
        own: Option<&CohortInForce>,
        (channel, cohort, product): (&Name, &Name, &Name),
        at: DateTime<Utc>,
    ) -> std::result::Result<tidegate_model::rollout::Assignment, String> {
        let role = layout::cohort_role(channel, cohort);
        if let Some(own) = own.filter(|own| own.expires <= at.max(self.now)) {
            let expires = time::format(own.expires);
            return Err(format!("role {role} expired at {expires}: the rollout was not renewed and has stopped"));
        }
        own.and_then(|own| own.assignment.clone()).ok_or_else(|| format!("role {role} assigns no release of {product}"))
    }

    fn scene(&mut self, channel: &Name, product: &Name, at: DateTime<Utc>) -> Result<OfferTimeline> {
        let map = self.map(channel)?;
        let mut manifests = BTreeMap::new();
        let mut offers = Vec::new();
        for own in standing(self.repository, &map, channel, product)? {
            let given = match self.offered(Some(&own), (channel, &own.cohort, product), at) {
                Err(why) => Given::Nothing(why),
                Ok(assignment) => {
                    let releases = assignment.bridges.iter().map(|bridge| &bridge.release).chain([&assignment.release]);
                    let mut sha256 = None;
                    for release in releases {
                        let path = layout::manifest_path(channel, product, release);
                        let (manifest, bytes) = manifest_in_force(self.dir, self.repository, channel, &path)?;
                        let hash = Digest::of(&bytes);
                        manifests.insert(hash, manifest);
                        sha256 = Some(hash);
                    }
                    Given::Release(
                        Box::new(assignment),
                        sha256.ok_or_else(|| Error::bug("an assignment without a release"))?,
                    )
                }
            };
            // What is signed counts as having been so for as long as anybody asks.
            offers.push(vec![Offering { since: DateTime::UNIX_EPOCH, given }]);
        }
        Ok(OfferTimeline::new(map, offers, manifests))
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
fn reason(judgement: &Judgement, within: u64, at: DateTime<Utc>) -> (Reason, Option<DateTime<Utc>>) {
    let release = judgement.release.as_ref().map(ToString::to_string);
    let by_way_of = judgement.by_way_of.as_ref().map(ToString::to_string);
    let of = |outcome: &str, rule: Option<String>, why: String| Reason {
        outcome: outcome.to_owned(),
        release: release.clone(),
        by_way_of: by_way_of.clone().filter(|_| outcome == "install"),
        rule,
        why,
    };
    if judgement.waits(within, at) {
        let until = judgement.reached_at(within);
        let why = match until {
            Some(_) => "the ramp has not reached them yet",
            None => "the ramp ends before it reaches them",
        };
        return (of("wait", Some("D-RAMP".into()), why.into()), until);
    }
    let reason = match &judgement.outcome {
        Outcome::Install { .. } => of("install", None, "nothing stands in the way".into()),
        Outcome::Bridge { .. } => of("bridge", None, "nothing stands in the way".into()),
        Outcome::UpToDate { .. } => of("up-to-date", Some("D-SEQUENCE".into()), "they have it, or a later one".into()),
        Outcome::Wait { rule, why, .. } => of("wait", Some(rule.to_string()), why.clone()),
        Outcome::NotEligible { rule, why } => of("not-eligible", Some(rule.to_string()), why.clone()),
        Outcome::Refuse { rule, why } => of("refuse", Some(rule.to_string()), why.clone()),
        Outcome::NoOffer { why } => of("no-offer", Some("D-OFFER".into()), why.clone()),
    };
    (reason, None)
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

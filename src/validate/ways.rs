//! Whether devices have a way to a release: directly, or over bridges, one after the other. A gap is found here, not in the field.
//!
//! Each way is walked as a device would walk it, by the devices' own decision.

use std::collections::BTreeMap;
use std::path::Path;

use tidegate_model::cohort::{ChosenBy, CohortChoice};
use tidegate_model::decision::{Decision, Inputs, Installed, Offer, Outcome, Profile, Rule, decide};
use tidegate_model::digest::Digest;
use tidegate_model::facts::Facts;
use tidegate_model::manifest::Manifest;
use tidegate_model::name::Name;
use tidegate_model::rollout::{Assignment, Stage};

use super::{RuleResult, Subject, fail, none_of, not_applicable, pass, warn};
use crate::error::{Error, Result};
use crate::fleet::{Fleet, Scope};
use crate::policy::ReleaseState;
use crate::release::bridges;
use crate::release::record::{self, Record};

/// So many devices or releases without a way are named; the others are counted.
const NAMED: usize = 5;
/// A way of more releases than this is none.
const LONGEST: usize = 64;

/// What a device that waits for nothing would be offered, and all that lies on the way.
struct Road<'a> {
    target: &'a Manifest,
    sha256: Digest,
    assignment: Assignment,
    /// The manifests of the bridges.
    bridges: BTreeMap<Digest, Manifest>,
}

/// Where a way ends.
enum End {
    /// At the release, after so many bridges.
    There(usize),
    /// The device is not meant to have it: a rule other than one about the way.
    NotMeant,
    /// Before it.
    Gap(String),
}

impl<'a> Road<'a> {
    fn to(subject: &'a Subject<'_>) -> Result<Self> {
        let manifest = subject.manifest;
        let mut assignment = Assignment::new(manifest.version.clone(), manifest.sequence, Stage::Stable, subject.now);
        assignment.bridges = bridges(subject.dir, subject.repository, manifest)?;
        let mut known = BTreeMap::new();
        for record in siblings(subject)? {
            let Some(frozen) = &record.manifest else { continue };
            if assignment.bridges.iter().any(|bridge| bridge.sha256 == frozen.sha256) {
                known.insert(frozen.sha256, record.manifest(subject.dir)?.0);
            }
        }
        Ok(Self { target: manifest, sha256: Digest::of(subject.bytes), assignment, bridges: known })
    }

    /// Walks from what a device runs.
    fn walk(&self, start: &Profile) -> Result<End> {
        let mut device = start.clone();
        for taken in 0..=LONGEST {
            let mut assignment = self.assignment.clone();
            let (mut manifest, mut sha256) = (self.target, self.sha256);
            let decision = loop {
                let offer = Offer::Release { assignment: &assignment, manifest, sha256 };
                let choice = nobody_in_particular()?;
                let inputs =
                    Inputs { device: &device, choice: &choice, offer, now: self.assignment.assigned, quarantined: &[] };
                let decision = decide(&inputs);
                let Outcome::Bridge { bridge, .. } = &decision.outcome else { break decision };
                let Some(next) = self.bridges.get(&bridge.sha256) else {
                    return Ok(End::Gap(format!("the bridge {} is not registered", bridge.release)));
                };
                (manifest, sha256) = (next, bridge.sha256);
                assignment = assignment.through(bridge);
            };
            match self.end(&decision, manifest, taken) {
                Some(end) => return Ok(end),
                None => {
                    device.installed = Installed { version: manifest.version.clone(), sequence: manifest.sequence };
                }
            }
        }
        Ok(End::Gap(format!("the way is longer than {LONGEST} releases")))
    }

    /// Whether the way ends with this decision; `None` if it goes on from `manifest`.
    fn end(&self, decision: &Decision, manifest: &Manifest, taken: usize) -> Option<End> {
        let at_target = manifest.sequence == self.target.sequence;
        match &decision.outcome {
            Outcome::Install { .. } if at_target => Some(End::There(taken)),
            Outcome::Install { .. } => None,
            Outcome::UpToDate { .. } => Some(End::There(taken)),
            // Of the release itself only what is about the way is a gap; a bridge that the device may not take is one in any case.
            Outcome::NotEligible { rule: Rule::Eligibility | Rule::Hardware, .. } if at_target => Some(End::NotMeant),
            Outcome::NotEligible { why, .. } if at_target => Some(End::Gap(why.clone())),
            Outcome::NotEligible { why, .. } => Some(End::Gap(format!("the bridge {}: {why}", manifest.version))),
            Outcome::Refuse { .. } => Some(End::NotMeant),
            other => Some(End::Gap(format!("{other:?}"))),
        }
    }
}

/// A ramp does not matter here, so neither does a place in a cohort.
fn nobody_in_particular() -> Result<CohortChoice> {
    let cohort: Name = "sample".parse().map_err(|e| Error::bug("a name").with_source(e))?;
    Ok(CohortChoice { cohort, position: 0, within: 0, by: ChosenBy::Devices, passed_over: Vec::new() })
}

/// The other releases of the product on the channel.
fn siblings(subject: &Subject<'_>) -> Result<Vec<Record>> {
    let own = subject.record.id();
    let mut all = record::all(subject.dir)?;
    all.retain(|other| other.channel == own.channel && other.product == own.product && other.version != own.version);
    Ok(all)
}

/// Every release that devices may run, on every hardware that it was for. Conditions that only a device can answer are left to the
/// sample fleet.
pub(super) fn releases(subject: &Subject<'_>) -> Result<RuleResult> {
    if subject.record.retraction.is_some() {
        return not_applicable(
            "a retraction is for the devices that have what it takes back; those that have its bytes stay",
        );
    }
    let mut road = Road::to(subject)?;
    let mut target = subject.manifest.clone();
    target.eligibility = None;
    for bridge in road.bridges.values_mut() {
        bridge.eligibility = None;
    }
    road.target = &target;
    let mut wrong = Vec::new();
    let mut seen = 0;
    for record in siblings(subject)? {
        let out = !matches!(record.state, ReleaseState::Draft | ReleaseState::Signed);
        let Some(frozen) = record.manifest.as_ref().filter(|m| out && m.sequence < subject.manifest.sequence) else {
            continue;
        };
        seen += 1;
        for hardware in record.artifacts.iter().flat_map(|artifact| &artifact.hardware) {
            let device = Profile {
                id: "sample".parse().map_err(|e| Error::bug("a device id").with_source(e))?,
                product: record.product.clone(),
                channel: record.channel.clone(),
                hardware: hardware.clone(),
                installed: Installed { version: record.version.clone(), sequence: frozen.sequence },
                own_facts: Facts::new(),
                attestation: None,
            };
            if let End::Gap(why) = road.walk(&device)? {
                wrong.push(format!("from {} on {hardware}: {why}", record.version));
            }
        }
    }
    if seen == 0 {
        return not_applicable("there is no release before it");
    }
    let more = wrong.len().saturating_sub(NAMED);
    wrong.truncate(NAMED);
    if more > 0 {
        wrong.push(format!("and {more} more"));
    }
    none_of(&wrong, format!("from each of the {seen} before it"))
}

/// Every device of a sample of the fleet that the release is meant for.
pub(super) fn fleet(subject: &Subject<'_>) -> Result<RuleResult> {
    let Some(path) = subject.fleet else {
        return not_applicable("no sample was given: --fleet FILE, or validation.fleet in policy.toml");
    };
    if subject.record.retraction.is_some() {
        return not_applicable(
            "a retraction is for the devices that have what it takes back; those that have its bytes stay",
        );
    }
    let (lost, counts) = walk_fleet(subject, path)?;
    let Counts { devices, direct, over_bridges, not_meant, without } = counts;
    if devices == 0 {
        return warn(format!("{} lists no device of this product and channel", path.display()));
    }
    if without > 0 {
        let more = without.saturating_sub(NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        return fail(format!("{without} of {devices} devices have no way: {}{more}", lost.join("; ")));
    }
    let shown = format!(
        "of {devices} devices {direct} go directly, {over_bridges} over bridges, {not_meant} are not meant to have it"
    );
    if direct + over_bridges == 0 { fail(format!("{shown}: nobody would get it")) } else { pass(shown) }
}

#[derive(Default)]
struct Counts {
    devices: usize,
    direct: usize,
    over_bridges: usize,
    not_meant: usize,
    without: usize,
}

fn walk_fleet(subject: &Subject<'_>, path: &Path) -> Result<(Vec<String>, Counts)> {
    let manifest = subject.manifest;
    let road = Road::to(subject)?;
    let scope = Scope { product: Some(manifest.product.clone()), channel: Some(manifest.channel.clone()), facts: None };
    let mut ends: BTreeMap<u64, Result<usize, Option<String>>> = BTreeMap::new();
    let (mut lost, mut counts) = (Vec::new(), Counts::default());
    for member in Fleet::csv(path, scope)? {
        let member = member?;
        let profile = &member.class.profile;
        if profile.product != manifest.product || profile.channel != manifest.channel {
            continue;
        }
        // Devices that are alike go alike.
        let end = if let Some(end) = ends.get(&member.class.number) {
            end.clone()
        } else {
            let end = match road.walk(profile)? {
                End::There(bridges) => Ok(bridges),
                End::NotMeant => Err(None),
                End::Gap(why) => Err(Some(why)),
            };
            ends.insert(member.class.number, end.clone());
            end
        };
        counts.devices += 1;
        match end {
            Ok(0) => counts.direct += 1,
            Ok(_) => counts.over_bridges += 1,
            Err(None) => counts.not_meant += 1,
            Err(Some(why)) => {
                counts.without += 1;
                if lost.len() < NAMED {
                    lost.push(format!("{} on {}: {why}", member.id, profile.installed.version));
                }
            }
        }
    }
    Ok((lost, counts))
}

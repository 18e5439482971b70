//! Whether devices have a way to a release: directly, or over bridges, one after the other. A gap is found here, not in the field.
//!
//! Each way is walked as a device would walk it, by the devices' own decision.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tidegate_model::cohort::{ChosenBy, CohortChoice};
use tidegate_model::decision::{Approval, Decision, Inputs, Installed, Outcome, Profile, Rule, decide};
use tidegate_model::digest::Digest;
use tidegate_model::facts::Facts;
use tidegate_model::manifest::Manifest;
use tidegate_model::name::{HardwareId, Name};
use tidegate_model::position::Salt;
use tidegate_model::rollout::{Offer, Stage};
use tidegate_model::version::is_newer;

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
    offer: Offer,
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
    fn to(subject: &Subject<'_>, target: &'a Manifest) -> Result<Self> {
        let manifest = (Digest::of(subject.bytes), subject.bytes.len() as u64);
        let mut offer = Offer::new(target.version.clone(), target.sequence, manifest, Stage::Stable, subject.now);
        offer.bridges = bridges(subject.dir, subject.repository, target)?;
        let mut known = BTreeMap::new();
        for record in siblings(subject)? {
            let Some(frozen) = &record.manifest else { continue };
            if offer.bridges.iter().any(|bridge| bridge.sha256 == frozen.sha256) {
                known.insert(frozen.sha256, record.manifest(subject.dir)?.0);
            }
        }
        Ok(Self { target, offer, bridges: known })
    }

    /// Leaves conditions that only a device can answer out of account.
    fn unconditional(mut self) -> Self {
        for bridge in self.bridges.values_mut() {
            bridge.eligibility = None;
        }
        self
    }

    /// Walks from what a device runs.
    fn walk(&self, start: &Profile) -> Result<End> {
        let mut device = start.clone();
        for taken in 0..=LONGEST {
            let mut offer = self.offer.clone();
            let mut manifest = self.target;
            let choice = any_cohort(&device)?;
            let decision = loop {
                let decision = decide(&Inputs {
                    device: &device,
                    choice: &choice,
                    offer: &offer,
                    approval: Approval::Manifest(manifest),
                    now: offer.since,
                    latest: offer.since,
                    quarantined: &[],
                });
                let Outcome::Bridge { bridge, .. } = &decision.outcome else { break decision };
                let Some(next) = self.bridges.get(&bridge.sha256) else {
                    return Ok(End::Gap(format!("the bridge {} is not registered", bridge.release)));
                };
                manifest = next;
                offer = offer.through(bridge);
            };
            match self.end(&device, &decision, manifest, taken) {
                Some(end) => return Ok(end),
                None => {
                    device.installed = Installed { version: manifest.version.clone(), sequence: manifest.sequence };
                }
            }
        }
        Ok(End::Gap(format!("the way is longer than {LONGEST} releases")))
    }

    /// Whether the release is of an older line than what a device runs.
    fn is_below(&self, device: &Profile) -> bool {
        is_newer(&device.installed.version, &self.target.version)
    }

    /// Whether the way ends with this decision; `None` if it goes on from `manifest`.
    fn end(&self, device: &Profile, decision: &Decision, manifest: &Manifest, taken: usize) -> Option<End> {
        let at_target = manifest.sequence == self.target.sequence;
        match &decision.outcome {
            Outcome::Install { .. } if at_target => Some(End::There(taken)),
            Outcome::Install { .. } => None,
            Outcome::UpToDate { .. } => Some(End::There(taken)),
            // Of the release itself only what is about the way is a gap; a bridge that the device may not take is one in any case.
            Outcome::NotEligible { rule: Rule::Eligibility | Rule::Hardware, .. } if at_target => Some(End::NotMeant),
            // Devices of a newer line keep it.
            Outcome::NotEligible { rule: Rule::Version, .. } if at_target && self.is_below(device) => {
                Some(End::NotMeant)
            }
            Outcome::NotEligible { why, .. } if at_target => Some(End::Gap(why.clone())),
            Outcome::NotEligible { why, .. } => Some(End::Gap(format!("the bridge {}: {why}", manifest.version))),
            Outcome::Refuse { .. } => Some(End::NotMeant),
            other => Some(End::Gap(format!("{other:?}"))),
        }
    }
}

/// There is no ramp here, so the cohort does not matter.
fn any_cohort(device: &Profile) -> Result<CohortChoice> {
    let cohort: Name = "sample".parse().map_err(|e| Error::bug("a name").with_source(e))?;
    let salt = Salt::new(&[0; 16]).map_err(|e| Error::bug("a salt").with_source(e))?;
    let order = salt.ramp_order(&device.id);
    Ok(CohortChoice { cohort, position: 0, order, by: ChosenBy::Devices, passed_over: Vec::new() })
}

/// A device of the release's product and channel.
fn sample(subject: &Subject<'_>, hardware: &HardwareId, installed: Installed) -> Result<Profile> {
    Ok(Profile {
        id: "sample".parse().map_err(|e| Error::bug("a device id").with_source(e))?,
        product: subject.manifest.product.clone(),
        channel: subject.manifest.channel.clone(),
        hardware: hardware.clone(),
        installed,
        own_facts: Facts::new(),
        attestation: None,
    })
}

/// Whether devices may run a release, by its record.
fn is_out(record: &Record) -> bool {
    !matches!(record.state, ReleaseState::Draft | ReleaseState::Signed)
}

/// The newer lines of a release: those with a higher version and a lower sequence that devices can still take, and that it does not
/// supersede.
pub(super) fn newer_lines(subject: &Subject<'_>) -> Result<Vec<Record>> {
    let own = subject.manifest;
    let mut lines = siblings(subject)?;
    lines.retain(|other| {
        let sequence = other.manifest.as_ref().map(|manifest| manifest.sequence);
        let is_over = matches!(other.state, ReleaseState::Withdrawn | ReleaseState::Retired);
        is_out(other)
            && !is_over
            && is_newer(&other.version, &own.version)
            && sequence.is_some_and(|sequence| sequence < own.sequence && !own.supersedes.contains(&sequence))
    });
    Ok(lines)
}

/// Bridges to newer lines: devices that take this release must not lose the one that they need.
pub(super) fn bridges_above(subject: &Subject<'_>) -> Result<RuleResult> {
    let lines = newer_lines(subject)?;
    if lines.is_empty() {
        return not_applicable("no release with a higher version has a lower sequence");
    }
    let own = subject.manifest;
    let mut wrong = Vec::new();
    for line in &lines {
        // The newer line, continued under a new sequence.
        let (mut target, _) = line.manifest(subject.dir)?;
        target.sequence = u64::MAX;
        target.eligibility = None;
        let road = Road::to(subject, &target)?.unconditional();
        let hardware: BTreeSet<_> = own.artifacts.iter().flat_map(|artifact| &artifact.hardware).collect();
        for hardware in hardware {
            let from = |sequence| {
                let installed = Installed { version: own.version.clone(), sequence };
                road.walk(&sample(subject, hardware, installed)?)
            };
            // What is no way for any sequence is not lost by this one.
            if let (End::There(_), End::Gap(_)) = (from(0)?, from(own.sequence)?) {
                let needed = road.offer.bridge_from(&own.version, 0);
                let needed = needed
                    .map_or_else(String::new, |bridge| format!(" {} (sequence {})", bridge.release, bridge.sequence));
                wrong.push(format!(
                    "devices on {hardware} that take {} (sequence {}) need the bridge{needed} to {} and cannot take it any more: \
                     release the same bridge under a new sequence",
                    own.version, own.sequence, line.version
                ));
            }
        }
    }
    none_of(&wrong, "devices that install it can update to the newer line")
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
            "a retraction is only for devices that run what it replaces; those that have its bytes stay",
        );
    }
    let mut target = subject.manifest.clone();
    target.eligibility = None;
    let road = Road::to(subject, &target)?.unconditional();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for record in siblings(subject)? {
        let before = |sequence: u64| sequence < subject.manifest.sequence;
        let Some(frozen) = record.manifest.as_ref().filter(|m| is_out(&record) && before(m.sequence)) else {
            continue;
        };
        // Devices of a newer line keep it.
        if is_newer(&record.version, &target.version) && !target.supersedes.contains(&frozen.sequence) {
            continue;
        }
        seen += 1;
        for hardware in record.artifacts.iter().flat_map(|artifact| &artifact.hardware) {
            let installed = Installed { version: record.version.clone(), sequence: frozen.sequence };
            let device = sample(subject, hardware, installed)?;
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
            "a retraction is only for devices that run what it replaces; those that have its bytes stay",
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
        return fail(format!("{without} of {devices} devices cannot update: {}{more}", lost.join("; ")));
    }
    let shown = format!(
        "of {devices} devices {direct} go directly, {over_bridges} over bridges, {not_meant} are not meant to have it"
    );
    if direct + over_bridges == 0 { fail(format!("{shown}: no device would get it")) } else { pass(shown) }
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
    let road = Road::to(subject, manifest)?;
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

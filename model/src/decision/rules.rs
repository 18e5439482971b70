//! One function per rule.

use core::cmp::Ordering;

use super::{Approval, Installed, Quarantined, Rule, RuleOutcome, Verdict};
use crate::cohort::CohortChoice;
use crate::condition;
use crate::facts::Facts;
use crate::gate::Attestation;
use crate::manifest::Manifest;
use crate::name::{HardwareId, Name};
use crate::position::{percent, rounded, to_ppm};
use crate::prelude::*;
use crate::rollout::{Bridge, Offer};
use crate::time::{self, UtcTime};
use crate::version::is_newer;

pub(super) fn offered(offer: &Offer, cohort: &Name) -> RuleOutcome {
    pass(Rule::Offer, format!("cohort {cohort} is offered {}", Named(offer)))
}

pub(super) fn approved(approval: &Approval<'_>) -> RuleOutcome {
    match approval {
        Approval::Contradicted(why) => fail(Rule::Approved, (*why).to_owned()),
        Approval::Manifest(_) | Approval::NotRead => pass(Rule::Approved, "the channel lists the same manifest".into()),
    }
}

pub(super) fn same(rule: Rule, what: &str, offered: &Name, own: &Name) -> RuleOutcome {
    if offered == own {
        pass(rule, format!("the release and the device have the same {what} {own}"))
    } else {
        fail(rule, format!("the release is for {what} {offered}, but the device has {what} {own}"))
    }
}

pub(super) fn assigned(offer: &Offer, manifest: &Manifest) -> RuleOutcome {
    if offer.release == manifest.version && offer.sequence == manifest.sequence {
        pass(Rule::Assigned, "the manifest belongs to the offered release".into())
    } else {
        fail(
            Rule::Assigned,
            format!(
                "the manifest is for {} (sequence {}), but {} is offered",
                manifest.version,
                manifest.sequence,
                Named(offer)
            ),
        )
    }
}

pub(super) fn sequence(offer: &Offer, installed: &Installed) -> RuleOutcome {
    let (offered, own) = (offer.sequence, installed.sequence);
    match offered.cmp(&own) {
        Ordering::Greater => pass(Rule::Sequence, format!("sequence {offered} is above the installed {own}")),
        Ordering::Equal => fail(Rule::Sequence, format!("{} (sequence {own}) is already installed", installed.version)),
        Ordering::Less => fail(
            Rule::Sequence,
            format!("sequence {offered} is below the installed {own}: the sequence never decreases"),
        ),
    }
}

pub(super) fn version(manifest: &Manifest, installed: &Installed) -> RuleOutcome {
    let (offered, own) = (&manifest.version, &installed.version);
    if manifest.sequence <= installed.sequence {
        not_applicable(Rule::Version, format!("the sequence does not increase; see {}", Rule::Sequence))
    } else if is_newer(offered, own) {
        pass(Rule::Version, format!("version {offered} is above the installed {own}"))
    } else if manifest.supersedes.contains(&installed.sequence) {
        let why = format!(
            "version {offered} is not above the installed {own}, but the release supersedes sequence {}",
            installed.sequence
        );
        pass(Rule::Version, why)
    } else {
        let why = format!(
            "version {offered} is not above the installed {own}, and the release does not supersede sequence {}",
            installed.sequence
        );
        fail(Rule::Version, why)
    }
}

pub(super) fn quarantine(offer: &Offer, quarantined: &[Quarantined]) -> RuleOutcome {
    // One match is enough: a release has one sequence and one hash, and a partial match is no reason to retry.
    if quarantined.iter().any(|failed| failed.sequence == offer.sequence || failed.sha256 == offer.sha256) {
        fail(Rule::Quarantine, format!("{} failed on this device before", Named(offer)))
    } else {
        pass(Rule::Quarantine, "the release has not failed on this device".into())
    }
}

pub(super) fn hardware(manifest: &Manifest, hardware: &HardwareId) -> RuleOutcome {
    match manifest.artifacts_for(hardware).count() {
        0 => fail(Rule::Hardware, format!("no artifact is for hardware {hardware}")),
        count => pass(Rule::Hardware, format!("artifacts for hardware {hardware}: {count}")),
    }
}

pub(super) fn eligibility(manifest: &Manifest, facts: &Facts) -> RuleOutcome {
    let Some(condition) = &manifest.eligibility else {
        return not_applicable(Rule::Eligibility, "the release has no condition".into());
    };
    let outcome = condition.evaluate(facts);
    let why = if outcome.holds {
        format!("the condition holds: {condition}")
    } else {
        format!("the condition does not hold: {condition}{}", on_evidence(&outcome, facts))
    };
    let verdict = if outcome.holds { Verdict::Pass } else { Verdict::Fail };
    RuleOutcome { rule: Rule::Eligibility, verdict, why, condition: Some(outcome) }
}

/// A note on this device's attestation, for conditions on the fact `attestation`.
fn on_evidence(outcome: &condition::Outcome, facts: &Facts) -> String {
    if !looks_at(outcome, Attestation::FACT) {
        return String::new();
    }
    match facts.iter().find(|(name, _)| name.as_str() == Attestation::FACT) {
        None => {
            "; the fact attestation is missing: this device has no attestor and gives no evidence of its state".into()
        }
        Some((_, kind)) => format!("; this device gives evidence of the kind {kind}"),
    }
}

fn looks_at(outcome: &condition::Outcome, name: &str) -> bool {
    match &outcome.of {
        condition::Part::All { parts } | condition::Part::Any { parts } => {
            parts.iter().any(|part| looks_at(part, name))
        }
        condition::Part::Not { part } => looks_at(part, name),
        condition::Part::Test { fact, .. } => fact.as_str() == name,
    }
}

pub(super) fn upgrade(offer: &Offer, manifest: &Manifest, installed: &Installed) -> RuleOutcome {
    let Installed { version, sequence } = installed;
    let range = match &manifest.upgrade_from {
        _ if manifest.sequence <= *sequence => {
            return not_applicable(Rule::Upgrade, format!("the sequence does not increase; see {}", Rule::Sequence));
        }
        None => return not_applicable(Rule::Upgrade, "the release upgrades from every version".into()),
        Some(range) => range,
    };
    if range.holds(version) {
        return pass(Rule::Upgrade, format!("the release upgrades from \"{range}\", which contains {version}"));
    }
    let lacking = format!("the release upgrades from \"{range}\", which does not contain {version}");
    match offer.bridge_from(version, *sequence) {
        Some(Bridge { release, sequence, .. }) => {
            pass(Rule::Upgrade, format!("{lacking}, but bridge {release} (sequence {sequence}) does"))
        }
        None => fail(Rule::Upgrade, format!("{lacking}; {}", missing_bridge(offer, installed))),
    }
}

/// The required properties of a bridge, and the listed bridges.
fn missing_bridge(offer: &Offer, installed: &Installed) -> String {
    let missing = format!(
        "a bridge is missing that upgrades from {}, with a sequence above {} and below {}",
        installed.version, installed.sequence, offer.sequence
    );
    let listed = offer
        .bridges
        .iter()
        .map(|bridge| format!("{} (sequence {}) from \"{}\"", bridge.release, bridge.sequence, bridge.upgrade_from));
    let listed: Vec<_> = listed.collect();
    if listed.is_empty() {
        format!("{missing}; none is listed")
    } else {
        format!("{missing}; listed: {}", listed.join(", "))
    }
}

pub(super) fn pause(offer: &Offer) -> RuleOutcome {
    if offer.paused {
        fail(Rule::Pause, "the rollout is paused in this cohort: it continues when the publisher resumes it".into())
    } else {
        pass(Rule::Pause, "the rollout is not paused".into())
    }
}

pub(super) fn until(offer: &Offer, now: UtcTime) -> RuleOutcome {
    match offer.until {
        None => not_applicable(Rule::Until, "the offer does not end by itself".into()),
        Some(until) if offer.has_ended(now) => {
            let until = time::format(until);
            let why = "the rollout was not renewed and has stopped";
            fail(Rule::Until, format!("{why}: the offer ended at {until}, until the publisher renews it"))
        }
        Some(until) => pass(Rule::Until, format!("the offer ends at {} unless it is renewed", time::format(until))),
    }
}

/// When the ramp of an offer reaches a device, if it does before the offer ends.
pub(super) fn reached(offer: &Offer, choice: &CohortChoice) -> Option<UtcTime> {
    let reached = offer.ramp?.exposed_at(choice.order.position(offer.sequence))?;
    Some(reached).filter(|reached| !offer.has_ended(*reached))
}

pub(super) fn ramp(offer: &Offer, choice: &CohortChoice, now: UtcTime) -> RuleOutcome {
    let Some(ramp) = &offer.ramp else {
        return not_applicable(Rule::Ramp, "no ramp: the whole cohort is eligible".into());
    };
    let position = choice.order.position(offer.sequence);
    let exposure = ramp.exposure(now);
    let exposed = format!("{} of the cohort is eligible so far", rounded(exposure.to_ppm()));
    let own = format!("this device is at {}", rounded(to_ppm(position)));
    match (exposure.covers(position), ramp.exposed_at(position)) {
        (true, _) => pass(Rule::Ramp, format!("{exposed}, {own}")),
        (false, Some(instant)) if offer.has_ended(instant) => fail(
            Rule::Ramp,
            format!("{exposed}, {own}: the offer ends before {}, unless it is renewed", time::format(instant)),
        ),
        (false, Some(instant)) => {
            fail(Rule::Ramp, format!("{exposed}, {own}: eligible from {} on", time::format(instant)))
        }
        (false, None) => {
            fail(Rule::Ramp, format!("{exposed}, {own}: this ramp ends at {}, below it", percent(ramp.to())))
        }
    }
}

fn pass(rule: Rule, why: String) -> RuleOutcome {
    RuleOutcome { rule, verdict: Verdict::Pass, why, condition: None }
}

pub(super) fn fail(rule: Rule, why: String) -> RuleOutcome {
    RuleOutcome { rule, verdict: Verdict::Fail, why, condition: None }
}

pub(super) fn not_applicable(rule: Rule, why: String) -> RuleOutcome {
    RuleOutcome { rule, verdict: Verdict::NotApplicable, why, condition: None }
}

/// The offered release with its sequence.
struct Named<'a>(&'a Offer);

impl core::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} (sequence {})", self.0.release, self.0.sequence)
    }
}

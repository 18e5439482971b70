//! One function per rule.

use std::cmp::Ordering;

use super::{Installed, Quarantined, Rule, RuleOutcome, Verdict};
use crate::cohort::CohortChoice;
use crate::condition;
use crate::digest::Digest;
use crate::facts::Facts;
use crate::gate::Attestation;
use crate::manifest::{Manifest, Urgency};
use crate::name::{HardwareId, Name};
use crate::position::{percent, to_ppm};
use crate::rollout::{Assignment, Bridge};
use crate::time::{self, Instant};
use crate::version::is_newer;

pub(super) fn offered(assignment: &Assignment, cohort: &Name) -> RuleOutcome {
    pass(Rule::Offer, format!("cohort {cohort} is assigned {}", Named(assignment)))
}

pub(super) fn same(rule: Rule, what: &str, offered: &Name, own: &Name) -> RuleOutcome {
    if offered == own {
        pass(rule, format!("the release and the device have the same {what} {own}"))
    } else {
        fail(rule, format!("the release is for {what} {offered}, but the device has {what} {own}"))
    }
}

pub(super) fn assigned(assignment: &Assignment, manifest: &Manifest) -> RuleOutcome {
    if assignment.release == manifest.version && assignment.sequence == manifest.sequence {
        pass(Rule::Assigned, "the manifest belongs to the assigned release".into())
    } else {
        fail(
            Rule::Assigned,
            format!(
                "the manifest is for {} (sequence {}), but {} is assigned",
                manifest.version,
                manifest.sequence,
                Named(assignment)
            ),
        )
    }
}

pub(super) fn sequence(manifest: &Manifest, installed: &Installed) -> RuleOutcome {
    let (offered, own) = (manifest.sequence, installed.sequence);
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

pub(super) fn quarantine(manifest: &Manifest, sha256: Digest, quarantined: &[Quarantined]) -> RuleOutcome {
    // One match is enough: a release has one sequence and one hash, and a partial match is no reason to retry.
    if quarantined.iter().any(|failed| failed.sequence == manifest.sequence || failed.sha256 == sha256) {
        fail(
            Rule::Quarantine,
            format!("{} (sequence {}) failed on this device before", manifest.version, manifest.sequence),
        )
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

pub(super) fn upgrade(assignment: &Assignment, manifest: &Manifest, installed: &Installed) -> RuleOutcome {
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
    match assignment.bridge_from(version, *sequence) {
        Some(Bridge { release, sequence, .. }) => {
            pass(Rule::Upgrade, format!("{lacking}, but bridge {release} (sequence {sequence}) does"))
        }
        None => fail(Rule::Upgrade, format!("{lacking}; {}", missing_bridge(assignment, installed))),
    }
}

/// The required properties of a bridge, and the listed bridges.
fn missing_bridge(assignment: &Assignment, installed: &Installed) -> String {
    let missing = format!(
        "a bridge is missing that upgrades from {}, with a sequence above {} and below {}",
        installed.version, installed.sequence, assignment.sequence
    );
    let listed = assignment
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

pub(super) fn pause(assignment: &Assignment) -> RuleOutcome {
    if assignment.paused {
        fail(Rule::Pause, "the rollout is paused in this cohort: it continues when the publisher resumes it".into())
    } else {
        pass(Rule::Pause, "the rollout is not paused".into())
    }
}

pub(super) fn ramp(assignment: &Assignment, manifest: &Manifest, choice: &CohortChoice, now: Instant) -> RuleOutcome {
    let Some(ramp) = &assignment.ramp else {
        return not_applicable(Rule::Ramp, "no ramp: the whole cohort is eligible".into());
    };
    if manifest.urgency == Urgency::Security {
        return not_applicable(Rule::Ramp, "ramps do not delay security releases".into());
    }
    let exposure = ramp.exposure(now);
    let exposed = format!("{} of the cohort is eligible so far", percent(exposure.to_ppm()));
    let own = format!("this device is at {}", percent(to_ppm(choice.within)));
    match (exposure.covers(choice.within), ramp.exposed_at(choice.within)) {
        (true, _) => pass(Rule::Ramp, format!("{exposed}, {own}")),
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

/// The assigned release with its sequence.
struct Named<'a>(&'a Assignment);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (sequence {})", self.0.release, self.0.sequence)
    }
}

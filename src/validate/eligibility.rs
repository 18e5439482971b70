//! Eligibility: some device is eligible, and every eligible device has an upgrade path.

use tidegate_model::condition::Condition;
use tidegate_model::name::HardwareId;
use tidegate_model::version::is_newer;

use super::conditions::{Known, Possible, can_fail, can_hold, dead_ends, fact_faults};
use super::{Rule, RuleResult, Subject, fail, none_of, not_applicable, pass, warn, ways};
use crate::error::Result;
use crate::policy::CheckKind;

const KIND: CheckKind = CheckKind::Eligibility;

pub(super) const RULES: &[Rule] = &[
    Rule { id: "V-ELI-01", kind: KIND, title: "the condition can hold for some device", check: satisfiable },
    Rule {
        id: "V-ELI-02",
        kind: KIND,
        title: "devices on the previous release can update to this one",
        check: reachable,
    },
    Rule { id: "V-ELI-03", kind: KIND, title: "the version rises, or the release supersedes", check: rises },
    Rule { id: "V-ELI-04", kind: KIND, title: "the condition looks at known facts, by their types", check: facts },
    Rule {
        id: "V-ELI-05",
        kind: KIND,
        title: "devices on every offered release can update to this one",
        check: ways::releases,
    },
    Rule {
        id: "V-ELI-06",
        kind: KIND,
        title: "every device of the sample fleet can update to this one",
        check: ways::fleet,
    },
];

fn satisfiable(subject: &Subject<'_>) -> Result<RuleResult> {
    let Some(condition) = &subject.manifest.eligibility else {
        return not_applicable("the release has no condition: every device of its hardware is eligible");
    };
    let mut ids: Vec<&HardwareId> = subject.manifest.artifacts.iter().flat_map(|artifact| &artifact.hardware).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut possible = Vec::new();
    let mut undecided = Vec::new();
    let mut always = !ids.is_empty();
    for id in ids {
        let known = known(subject, id);
        match can_hold(condition, &known)? {
            Possible::Yes => possible.push(id.as_str()),
            Possible::Unknown => undecided.push(id.as_str()),
            Possible::No => {}
        }
        always &= can_fail(condition, &known)? == Possible::No;
    }
    if possible.is_empty() && undecided.is_empty() {
        return fail(format!("no device of the release's hardware can fulfil: {condition}"));
    }
    if possible.is_empty() {
        return warn(format!("it has too many alternatives to check: {condition}"));
    }
    if always {
        return warn(format!("every device fulfils it, so it has no effect: {condition}"));
    }
    let dead = dead_ends_on_any(subject, condition)?;
    if !dead.is_empty() {
        return warn(format!("{condition}; these alternatives can never hold: {}", dead.join("; ")));
    }
    pass(format!("{condition}; possible on {}", possible.join(", ")))
}

/// What is known of every device of this hardware.
fn known<'a>(subject: &'a Subject<'_>, hardware: &'a HardwareId) -> Known<'a> {
    let manifest = subject.manifest;
    let facts = [
        ("product", manifest.product.as_str()),
        ("channel", manifest.channel.as_str()),
        ("hardware", hardware.as_str()),
    ];
    facts.into_iter().collect()
}

/// Alternatives that hold on none of the release's hardware.
fn dead_ends_on_any(subject: &Subject<'_>, condition: &Condition) -> Result<Vec<String>> {
    let mut common: Option<Vec<String>> = None;
    for hardware in subject.manifest.artifacts.iter().flat_map(|artifact| &artifact.hardware) {
        let dead = dead_ends(condition, &known(subject, hardware))?;
        common = Some(match common {
            None => dead,
            Some(before) => before.into_iter().filter(|text| dead.contains(text)).collect(),
        });
    }
    Ok(common.unwrap_or_default())
}

fn facts(subject: &Subject<'_>) -> Result<RuleResult> {
    let Some(condition) = &subject.manifest.eligibility else {
        return not_applicable("the release has no condition");
    };
    let wrong = fact_faults(condition, &subject.settings.facts)?;
    let names: Vec<_> = condition.facts().into_iter().map(AsRef::as_ref).collect();
    none_of(&wrong, names.join(", "))
}

fn reachable(subject: &Subject<'_>) -> Result<RuleResult> {
    let Some(previous) = subject.previous_of_line() else { return not_applicable("there is no previous release") };
    match &subject.manifest.upgrade_from {
        None => pass("it upgrades from every version"),
        Some(range) if range.holds(&previous.version) => {
            pass(format!("it upgrades from \"{range}\", which includes {}", previous.version))
        }
        Some(range) => fail(format!(
            "it upgrades from \"{range}\", which does not include {}: devices on the previous release could no longer update",
            previous.version
        )),
    }
}

fn rises(subject: &Subject<'_>) -> Result<RuleResult> {
    let Some(previous) = subject.previous else { return not_applicable("there is no previous release") };
    let (new, old) = (&subject.manifest.version, &previous.version);
    if is_newer(new, old) {
        return pass(format!("{new} is above {old}"));
    }
    if subject.manifest.supersedes.contains(&previous.sequence) {
        return pass(format!("{new} is not above {old}, but supersedes its sequence {}", previous.sequence));
    }
    warn(format!(
        "{new} is not above {old}, and does not supersede its sequence {}: devices on {old} will not install it",
        previous.sequence
    ))
}

//! Rollout policy: the cohorts make up the fleet, and the first step is allowed.

use tidegate_model::cohort::{CohortMap, Selector};
use tidegate_model::manifest::Manifest;

use super::conditions::{Known, Possible, can_hold, fact_faults};
use super::{Rule, RuleResult, Subject, none_of, not_applicable, pass, warn, ways};
use crate::config::{Settings, write_share};
use crate::error::Result;
use crate::policy::CheckKind;
use crate::workspace::{cohorts_in_force, map_in_force};

const KIND: CheckKind = CheckKind::RolloutPolicy;

pub(super) const RULES: &[Rule] = &[
    Rule { id: "V-ROL-01", kind: KIND, title: "cohorts.toml matches the signed cohort map", check: in_force },
    Rule { id: "V-ROL-02", kind: KIND, title: "policy.toml names cohorts that exist", check: names },
    Rule { id: "V-ROL-03", kind: KIND, title: "the first cohort may be exposed at once", check: first_step },
    Rule { id: "V-ROL-04", kind: KIND, title: "devices can update to newer lines", check: newer },
    Rule { id: "V-ROL-05", kind: KIND, title: "cohorts that ask for facts can have devices", check: conditions },
    Rule {
        id: "V-ROL-06",
        kind: KIND,
        title: "devices that install it keep the bridges to newer lines",
        check: ways::bridges_above,
    },
];

fn in_force(subject: &Subject<'_>) -> Result<RuleResult> {
    let channel = &subject.manifest.channel;
    let signed = map_in_force(subject.dir, subject.repository, channel)?;
    let wanted = subject.cohorts.map(channel)?;
    if signed == wanted {
        return pass(format!("{} cohorts make up the fleet", signed.cohorts().len()));
    }
    super::fail(
        "cohorts.toml was changed and is not signed: have the channel's keys sign it (tidegate ceremony start), or undo the change",
    )
}

fn names(subject: &Subject<'_>) -> Result<RuleResult> {
    let map = map_in_force(subject.dir, subject.repository, &subject.manifest.channel)?;
    // One policy holds for all channels: a cohort of another one is no fault of this one.
    let others = subject.cohorts.channels().filter(|channel| **channel != subject.manifest.channel);
    let others = others.map(|channel| subject.cohorts.map(channel)).collect::<Result<Vec<_>>>()?;
    let named = subject.policy.rollout.soak_of.keys().chain(&subject.policy.validation.cohort);
    let wrong: Vec<_> = named
        .filter(|name| others.iter().chain([&map]).all(|map| map.cohort(name).is_none()))
        .map(|name| format!("the channel has no cohort {name}, nor has another"))
        .collect();
    none_of(&wrong, "all of them do")
}

fn first_step(subject: &Subject<'_>) -> Result<RuleResult> {
    let manifest = subject.manifest;
    let map = map_in_force(subject.dir, subject.repository, &manifest.channel)?;
    let in_force = cohorts_in_force(subject.repository, &map, &manifest.channel, &manifest.product)?;
    let validation = subject.policy.validation.cohort.as_ref();
    let first = in_force.iter().find(|current| Some(&current.cohort) != validation);
    let largest = subject.policy.rollout.largest_step;
    match first.map(|first| (&first.cohort, first.share)) {
        None => not_applicable("there is no cohort but the one for validation"),
        Some((cohort, Some(share))) if share > largest => warn(format!(
            "{cohort} is {} of the fleet; policy.toml allows {} at once: the start needs --ramp",
            write_share(share),
            write_share(largest)
        )),
        Some((cohort, Some(share))) => pass(format!("{cohort} is {} of the fleet", write_share(share))),
        Some((cohort, None)) => pass(format!("{cohort} names its devices")),
    }
}

/// A fix for an older line has the next sequence and a lower version, so that devices that take it cannot take the newer line as it is.
fn newer(subject: &Subject<'_>) -> Result<RuleResult> {
    let Manifest { version, sequence, .. } = subject.manifest;
    let lines = ways::newer_lines(subject)?;
    if lines.is_empty() {
        return pass("no release with a higher version has a lower sequence");
    }
    let named = lines.iter().map(|line| {
        let sequence = line.manifest.as_ref().map_or(0, |manifest| manifest.sequence);
        format!("{} (sequence {sequence})", line.version)
    });
    warn(format!(
        "devices that take {version} (sequence {sequence}) cannot take {} any more: the newer line needs the fix under a new sequence, \
         above {sequence}",
        named.collect::<Vec<_>>().join(" or ")
    ))
}

fn conditions(subject: &Subject<'_>) -> Result<RuleResult> {
    let map = map_in_force(subject.dir, subject.repository, &subject.manifest.channel)?;
    let wrong = condition_faults(&map, subject.settings)?;
    none_of(&wrong, "they ask for known facts, by their types, and what they ask for is possible")
}

/// What is wrong with the conditions of cohorts.
fn condition_faults(map: &CohortMap, settings: &Settings) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for cohort in map.cohorts() {
        let Selector::Condition(condition) = &cohort.selector else { continue };
        let at = |why: String| format!("{}: {why}", cohort.name);
        wrong.extend(fact_faults(condition, &settings.facts)?.into_iter().map(at));
        if can_hold(condition, &Known::new())? == Possible::No {
            wrong.push(at(format!("no device can ever belong to it: {condition}")));
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Cohorts;

    #[test]
    fn a_cohort_that_no_device_can_belong_to_is_found() {
        let settings = Settings::parse(include_bytes!("../../repo-template/tidegate.toml")).unwrap();
        let faults = |condition: &str| {
            let template = include_str!("../../repo-template/cohorts.toml");
            let text = template.replacen("{ fact = \"group\", eq = \"lab\" }\n\n", &format!("{condition}\n\n"), 1);
            assert!(text.contains(condition));
            let cohorts = Cohorts::parse(text.as_bytes()).unwrap();
            condition_faults(&cohorts.map(&"stable".parse().unwrap()).unwrap(), &settings).unwrap()
        };
        assert!(faults("{ fact = \"group\", eq = \"lab\" }").is_empty());
        let never = "{ all = [{ fact = \"ram\", lt = 1 }, { fact = \"ram\", gt = 2 }] }";
        assert!(faults(never)[0].starts_with("validation: no device can ever belong to it"), "{:?}", faults(never));
        let mixed = "{ any = [{ fact = \"ram\", eq = 1 }, { fact = \"ram\", eq = \"1\" }] }";
        assert!(faults(mixed)[0].contains("compared with an integer and with a text"), "{:?}", faults(mixed));
    }
}

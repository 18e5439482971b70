//! Rollout policy: the cohorts make up the fleet, and the first step is allowed.

use super::{CheckKind, Rule, Said, Subject, none_of, not_applicable, pass, warn};
use crate::config::write_share;
use crate::error::Result;
use crate::rollout::{map_in_force, standing};

const KIND: CheckKind = CheckKind::RolloutPolicy;

pub(super) const RULES: &[Rule] = &[
    Rule { id: "V-ROL-01", kind: KIND, title: "cohorts.toml is what is in force", check: in_force },
    Rule { id: "V-ROL-02", kind: KIND, title: "policy.toml names cohorts that exist", check: names },
    Rule { id: "V-ROL-03", kind: KIND, title: "the first cohort may be exposed at once", check: first_step },
    Rule { id: "V-ROL-04", kind: KIND, title: "no cohort is offered a newer release already", check: newer },
];

fn in_force(subject: &Subject<'_>) -> Result<Said> {
    let channel = &subject.manifest.channel;
    let signed = map_in_force(subject.dir, subject.repository, channel)?;
    let wanted = subject.cohorts.map(channel)?;
    if signed == wanted {
        return pass(format!("{} cohorts make up the fleet", signed.cohorts().len()));
    }
    super::fail("cohorts.toml was changed and is not signed: the channel's role lists another cohort map")
}

fn names(subject: &Subject<'_>) -> Result<Said> {
    let map = map_in_force(subject.dir, subject.repository, &subject.manifest.channel)?;
    let named = subject.policy.rollout.soak_of.keys().chain(&subject.policy.validation.cohort);
    let wrong: Vec<_> = named
        .filter(|name| map.cohort(name).is_none())
        .map(|name| format!("the channel has no cohort {name}"))
        .collect();
    none_of(&wrong, "all of them do")
}

fn first_step(subject: &Subject<'_>) -> Result<Said> {
    let manifest = subject.manifest;
    let map = map_in_force(subject.dir, subject.repository, &manifest.channel)?;
    let standings = standing(subject.repository, &map, &manifest.channel, &manifest.product)?;
    let validation = subject.policy.validation.cohort.as_ref();
    let first = standings.iter().find(|standing| Some(&standing.cohort) != validation);
    let largest = subject.policy.rollout.largest_step;
    match first.map(|first| (&first.cohort, first.share)) {
        None => not_applicable("there is no cohort but the one for validation"),
        Some((cohort, Some(share))) if share > largest => warn(format!(
            "{cohort} is {} of the fleet, and policy.toml allows {} at once: the start takes --ramp",
            write_share(share),
            write_share(largest)
        )),
        Some((cohort, Some(share))) => pass(format!("{cohort} is {} of the fleet", write_share(share))),
        Some((cohort, None)) => pass(format!("{cohort} names its devices")),
    }
}

fn newer(subject: &Subject<'_>) -> Result<Said> {
    let manifest = subject.manifest;
    let map = map_in_force(subject.dir, subject.repository, &manifest.channel)?;
    let standings = standing(subject.repository, &map, &manifest.channel, &manifest.product)?;
    let wrong: Vec<_> = standings
        .iter()
        .filter_map(|standing| {
            let assignment = standing.assignment.as_ref().filter(|a| a.sequence > manifest.sequence)?;
            Some(format!("{} is offered {} (sequence {})", standing.cohort, assignment.release, assignment.sequence))
        })
        .collect();
    none_of(&wrong, format!("its sequence {} is the highest", manifest.sequence))
}

//! The rules that hold an event back, one function each, as the documentation lists them.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use tidegate_model::manifest::Urgency;
use tidegate_model::name::Name;
use tidegate_tuf::time;

use super::facts::{Facts, Refusal, Soaking};
use super::file::{ApprovalRule, Policy, Skippable};
use super::state::{ReleaseEvent, Status};
use crate::config::write_share;
use crate::error::Rule;
use tidegate_model::span::Span;
use tidegate_model::week::Occurrence;

/// The remedy where a release cannot go on.
pub(super) const ANOTHER: &str = "release another version: tidegate release create VERSION FILE --hardware ID";

pub(super) fn follows(facts: &Facts) -> Result<(), Refusal> {
    if facts.follows {
        return Ok(());
    }
    Err(refuse(
        Rule::ReleaseBase,
        "the channel's role has moved on since this was proposed, so the proposal no longer follows from it",
        "propose it anew and have it signed again: tidegate release manifest RELEASE",
    ))
}

pub(super) fn validated(facts: &Facts, policy: &Policy, now: DateTime<Utc>) -> Result<(), Refusal> {
    let remedy = "validate it: tidegate release validate RELEASE";
    let Some(report) = &facts.report else {
        return Err(refuse(Rule::ReleaseValidated, "there is no validation report on this manifest", remedy));
    };
    if report.at > now {
        return Err(refuse(
            Rule::ReleaseValidated,
            &format!("the validation report is from {}, which is in the future", time::format(report.at)),
            "set the clock, or validate again: tidegate release validate RELEASE",
        ));
    }
    let age = Span::from_delta(now - report.at);
    if age > policy.validation.max_age {
        return Err(refuse(
            Rule::ReleaseValidated,
            &format!("the validation report is {age} old; policy.toml allows {}", policy.validation.max_age),
            remedy,
        ));
    }
    if let Some(lost) = &report.way_lost {
        return Err(refuse(
            Rule::ReleaseValidated,
            &format!("since the validation report {lost}, which may have been a bridge to it"),
            "check that devices can still update: tidegate release validate RELEASE",
        ));
    }
    let own = policy.validation.checks.iter().map(|check| check.id.as_str());
    let own = own.filter(|id| !report.own.contains(*id)).map(str::to_owned);
    let lacking: Vec<_> =
        policy.validation.required.difference(&report.passed).map(|kind| kind.name().to_owned()).chain(own).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let failed = if report.failed.is_empty() { String::new() } else { format!(" ({})", report.failed.join(", ")) };
    Err(refuse(
        Rule::ReleaseValidated,
        &format!("required checks did not pass: {}{failed}", lacking.join(", ")),
        "fix what the report names, then validate again: tidegate release validate RELEASE",
    ))
}

pub(super) fn newest(facts: &Facts) -> Result<(), Refusal> {
    match &facts.newer {
        None => Ok(()),
        Some(newer) => Err(refuse(
            Rule::ReleaseSequence,
            &format!("a cohort is already offered {newer}, which has a higher sequence; devices never go back"),
            ANOTHER,
        )),
    }
}

pub(super) fn running(status: Status) -> Result<(), Refusal> {
    if status.paused {
        return Err(refuse(
            Rule::ReleasePaused,
            "the rollout is paused",
            "continue with: tidegate rollout resume RELEASE",
        ));
    }
    Ok(())
}

pub(super) fn offered(facts: &Facts) -> Result<(), Refusal> {
    if facts.assigned.is_empty() {
        return Err(refuse(Rule::ReleaseAssigned, "no cohort is offered it", "nothing needs to be done"));
    }
    Ok(())
}

pub(super) fn step_allowed(
    event: ReleaseEvent,
    facts: &Facts,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Result<(), Refusal> {
    let Some(step) = &facts.step else { return Ok(()) };
    if let (Some((previous, since)), false) = (&step.previous, skips(facts, policy, Skippable::Soak)) {
        let soak = policy.soak(previous);
        let since = match since {
            Soaking::Since(since) => since,
            Soaking::Ramping => {
                return Err(refuse(
                    Rule::ReleaseSoak,
                    &format!("not all of the cohort {previous} is eligible yet"),
                    "wait until its ramp has ended: tidegate rollout status RELEASE",
                ));
            }
            Soaking::Unpublished => {
                return Err(refuse(
                    Rule::ReleaseSoak,
                    &format!("the step to the cohort {previous} is not published, so its {soak} have not begun"),
                    "publish it, then wait: tidegate publish --rebase",
                ));
            }
        };
        let until = *since + soak.delta();
        if now < until {
            return Err(wait(
                Rule::ReleaseSoak,
                &format!(
                    "the cohort {previous} has had it for {}; policy.toml requires {soak}",
                    Span::from_delta(now - *since)
                ),
                until,
                "",
            ));
        }
    }
    if skips(facts, policy, Skippable::Ramp) {
        return Ok(());
    }
    // A cohort that names its devices is as large as whoever named them made it.
    let Some(share) = step.share else { return Ok(()) };
    let at_once = u64::from(share) * u64::from(step.at_once) / 1_000_000;
    if at_once > u64::from(policy.rollout.largest_step) {
        let shown = write_share(u32::try_from(at_once).unwrap_or(u32::MAX));
        return Err(refuse(
            Rule::ReleaseStep,
            &format!(
                "{shown} of the fleet would become eligible at once; policy.toml allows {}",
                write_share(policy.rollout.largest_step)
            ),
            &format!("raise the share gradually: {}", with_ramp(event, policy)),
        ));
    }
    if let Some(ramp) = step.ramp
        && ramp < policy.rollout.shortest_ramp
        && u64::from(share) > u64::from(policy.rollout.largest_step)
    {
        return Err(refuse(
            Rule::ReleaseRamp,
            &format!("the ramp would reach everybody in {ramp}; policy.toml requires {}", policy.rollout.shortest_ramp),
            &format!("take more time: {}", with_ramp(event, policy)),
        ));
    }
    Ok(())
}

/// The step with a ramp that policy allows.
fn with_ramp(event: ReleaseEvent, policy: &Policy) -> String {
    format!("tidegate rollout {} RELEASE --ramp {}", event.name(), policy.rollout.shortest_ramp)
}

/// What is urgent may skip what policy says.
fn skips(facts: &Facts, policy: &Policy, what: Skippable) -> bool {
    let urgent = facts.urgency == Some(Urgency::Security) || facts.retraction.is_some();
    urgent && policy.security.skip.contains(&what)
}

pub(super) fn thawed(facts: &Facts, policy: &Policy, now: DateTime<Utc>) -> Result<(), Refusal> {
    if skips(facts, policy, Skippable::Freeze) {
        return Ok(());
    }
    let ramp = facts.step.as_ref().and_then(|step| step.until);
    let horizon = ramp.max(facts.ramps_until).unwrap_or(now);
    let found = policy.freezes.iter().find_map(|freeze| Some((freeze, freeze.within(now, horizon)?)));
    let Some((freeze, Occurrence { from, until })) = found else { return Ok(()) };
    if from <= now {
        return Err(wait(Rule::ReleaseFreeze, &format!("policy.toml has a freeze, {freeze}"), until, ""));
    }
    Err(wait(
        Rule::ReleaseFreeze,
        &format!("the ramp would run into a freeze that begins at {}: {freeze}", time::format(from)),
        until,
        "have it end by then, or ",
    ))
}

pub(super) fn approved(event: ReleaseEvent, facts: &Facts, policy: &Policy, now: DateTime<Utc>) -> Result<(), Refusal> {
    if skips(facts, policy, Skippable::Approval) {
        return Ok(());
    }
    let cohort = facts.step.as_ref().map(|step| &step.cohort).filter(|_| event == ReleaseEvent::Advance);
    for rule in policy.approvals.iter().filter(|rule| rule.covers(event, cohort)) {
        let ApprovalRule { by, count, max_age, .. } = rule;
        let counts = |approved: &&super::facts::Approved| {
            by.iter().any(|key| key.as_str() == approved.key)
                && max_age.is_none_or(|most| approved.at <= now && Span::from_delta(now - approved.at) <= most)
        };
        let people: BTreeSet<&str> = facts.approvals.iter().filter(counts).map(|a| a.person.as_str()).collect();
        if people.len() < *count {
            let keys: Vec<_> = by.iter().map(crate::keys::KeyName::as_str).collect();
            let has = |key: &&&str| facts.approvals.iter().filter(counts).all(|approved| approved.key != **key);
            let first = keys.iter().find(has).copied().unwrap_or("NAME");
            let had = if people.is_empty() {
                String::new()
            } else {
                format!(" ({})", people.into_iter().collect::<Vec<_>>().join(", "))
            };
            let step = event.with_cohort(cohort);
            let fresh = max_age.map(|age| format!(" of the last {age}")).unwrap_or_default();
            return Err(refuse(
                Rule::ReleaseApproval,
                &format!("the step {step} needs {count} approvals{fresh}, and has fewer{had}"),
                &format!(
                    "ask holders of these keys for approval: {}; tidegate rollout approve RELEASE --step {} --key {first}",
                    keys.join(", "),
                    event.name()
                ),
            ));
        }
    }
    Ok(())
}

pub(super) fn retracted_is_withdrawn(facts: &Facts) -> Result<(), Refusal> {
    match facts.retraction.as_ref().and_then(|retraction| retraction.still_offered.as_ref()) {
        None => Ok(()),
        Some(bad) => Err(refuse(
            Rule::ReleaseRetract,
            &format!("{bad}, which it replaces, is not withdrawn: more devices could still get it"),
            &format!("withdraw it first: tidegate rollout withdraw {bad}"),
        )),
    }
}

pub(super) fn over(status: Status) -> Refusal {
    refuse(Rule::ReleaseOver, &format!("it is {status}, and cannot be used again"), ANOTHER)
}

pub(super) fn refuse(rule: Rule, why: &str, remedy: &str) -> Refusal {
    Refusal { rule, why: why.to_owned(), remedy: remedy.to_owned(), until: None }
}

/// A refusal that ends by itself.
fn wait(rule: Rule, why: &str, until: DateTime<Utc>, or: &str) -> Refusal {
    let remedy = format!("{or}wait until {}", time::format(until));
    Refusal { until: Some(until), ..refuse(rule, why, &remedy) }
}

pub(super) fn list(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}

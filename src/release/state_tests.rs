//! Every pair of a state and an event, and every rule.

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_client::model::manifest::Urgency;

use super::state::{Event, Facts, Refusal, ReportFacts, State, Status, Step, next};
use crate::config::{Policy, Span};
use crate::validate::CheckKind;

fn policy() -> Policy {
    Policy::parse(include_bytes!("../../repo-template/policy.toml")).unwrap()
}

fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

/// Facts under which every event is allowed in the states that know it.
fn good() -> Facts {
    Facts {
        frozen: true,
        artifacts: 1,
        urgency: Some(Urgency::Normal),
        signatures: 2,
        threshold: 2,
        follows: true,
        report: Some(ReportFacts { at: now(), passed: CheckKind::ALL.into_iter().collect(), failed: Vec::new() }),
        step: Some(step()),
        not_reached: Vec::new(),
        assigned: Vec::new(),
        newer: None,
    }
}

fn step() -> Step {
    Step { cohort: "early".parse().unwrap(), share: Some(50_000), at_once: 1_000_000, ramp: None, previous: None }
}

fn rule(state: State, event: Event, facts: &Facts) -> Result<Status, &'static str> {
    next(Status::of(state), event, facts, &policy(), now()).map_err(|refusal| refusal.rule)
}

/// What comes of each event in each state, under good facts: a state, or the rule that refuses.
#[test]
#[rustfmt::skip]
fn the_table() {
    use Event as E;
    use State as S;
    let none = "R-ORDER";
    let over = "R-OVER";
    // Columns: Draft Signed Registered Validation Limited Stable Security Withdrawn Retired
    let table: [(Event, [Result<State, &str>; 9]); 14] = [
        (E::Edit, [Err("R-FROZEN"), Err(none), Err(none), Err(none), Err(none), Err(none), Err(none), Err(over), Err(over)]),
        (E::Freeze, [Ok(S::Draft), Ok(S::Draft), Err(none), Err(none), Err(none), Err(none), Err(none), Err(over), Err(over)]),
        (E::Sign, [Ok(S::Signed), Ok(S::Signed), Err(none), Err(none), Err(none), Err(none), Err(none), Err(over), Err(over)]),
        (E::Register, [Err("R-THRESHOLD"), Ok(S::Registered), Err(none), Err(none), Err(none), Err(none), Err(none), Err(over), Err(over)]),
        (E::Validate, [Ok(S::Draft), Ok(S::Signed), Ok(S::Validation), Ok(S::Validation), Ok(S::Limited), Ok(S::Stable), Ok(S::Security), Err(over), Err(over)]),
        (E::Expose, [Err(none), Err(none), Err(none), Ok(S::Validation), Err(none), Err(none), Err(none), Err(over), Err(over)]),
        (E::Start, [Err(none), Err(none), Ok(S::Limited), Ok(S::Limited), Err(none), Err(none), Err(none), Err(over), Err(over)]),
        (E::Advance, [Err(none), Err(none), Err(none), Err(none), Ok(S::Limited), Err(none), Err("R-COHORTS"), Err(over), Err(over)]),
        (E::Pause, [Err(none), Err(none), Err(none), Err("R-ASSIGNED"), Err("R-ASSIGNED"), Err("R-ASSIGNED"), Err("R-ASSIGNED"), Err(over), Err(over)]),
        (E::Resume, [Err(none), Err(none), Err(none), Err("R-PAUSED"), Err("R-PAUSED"), Err("R-PAUSED"), Err("R-PAUSED"), Err(over), Err(over)]),
        (E::Renew, [Err(none), Err(none), Err(none), Err(none), Ok(S::Limited), Err(none), Err(none), Err(over), Err(over)]),
        (E::Complete, [Err(none), Err(none), Err(none), Err(none), Ok(S::Stable), Err(none), Ok(S::Stable), Err(over), Err(over)]),
        (E::Withdraw, [Ok(S::Withdrawn), Ok(S::Withdrawn), Ok(S::Withdrawn), Ok(S::Withdrawn), Ok(S::Withdrawn), Ok(S::Withdrawn), Ok(S::Withdrawn), Err(over), Err(over)]),
        (E::Retire, [Err(none), Err(none), Ok(S::Retired), Ok(S::Retired), Err(none), Ok(S::Retired), Err(none), Ok(S::Retired), Err(over)]),
    ];
    assert_eq!(table.map(|(event, _)| event), Event::ALL, "every event has a row");
    for (event, row) in table {
        for (state, expected) in State::ALL.into_iter().zip(row) {
            let found = rule(state, event, &good()).map(|status| status.state);
            assert_eq!(found, expected, "{} in {state}", event.name());
        }
    }
}

#[test]
fn every_refusal_says_why_and_what_to_do() {
    for state in State::ALL {
        for event in Event::ALL {
            for facts in [good(), Facts::default()] {
                if let Err(Refusal { rule, why, remedy }) = next(Status::of(state), event, &facts, &policy(), now()) {
                    assert!(
                        rule.starts_with("R-") && !why.is_empty() && !remedy.is_empty(),
                        "{} in {state}",
                        event.name()
                    );
                }
            }
        }
    }
}

#[test]
fn a_draft_is_open_until_it_is_frozen() {
    let facts = Facts { frozen: false, ..good() };
    assert_eq!(rule(State::Draft, Event::Edit, &facts), Ok(Status::of(State::Draft)));
    assert_eq!(rule(State::Draft, Event::Sign, &facts), Err("R-FROZEN"));
    assert_eq!(rule(State::Draft, Event::Validate, &facts), Err("R-FROZEN"));
    assert_eq!(rule(State::Draft, Event::Freeze, &Facts { artifacts: 0, ..facts }), Err("R-ARTIFACTS"));
}

#[test]
fn signing_takes_the_threshold_and_a_proposal_that_follows() {
    let one = Facts { signatures: 1, ..good() };
    assert_eq!(rule(State::Draft, Event::Sign, &one), Ok(Status::of(State::Draft)));
    let stale = Facts { follows: false, ..good() };
    for event in [Event::Sign, Event::Register] {
        assert_eq!(rule(State::Signed, event, &stale), Err("R-BASE"));
    }
}

#[test]
fn a_rollout_takes_a_fresh_report_with_all_required_checks() {
    for event in [Event::Start, Event::Expose] {
        let rule = |facts: &Facts| rule(State::Validation, event, facts).map(|_| ());
        assert_eq!(rule(&Facts { report: None, ..good() }), Err("R-VALIDATED"));
        let report = |age: TimeDelta, passed: &[CheckKind]| {
            let report = ReportFacts { at: now() - age, passed: passed.iter().copied().collect(), failed: Vec::new() };
            Facts { report: Some(report), ..good() }
        };
        assert_eq!(rule(&report(TimeDelta::days(7), &CheckKind::ALL)), Ok(()));
        assert_eq!(rule(&report(TimeDelta::days(7) + TimeDelta::seconds(1), &CheckKind::ALL)), Err("R-VALIDATED"));
        assert_eq!(rule(&report(TimeDelta::zero(), &CheckKind::ALL[1..])), Err("R-VALIDATED"));
    }
    let failed = Facts { report: None, ..good() };
    assert_eq!(rule(State::Registered, Event::Validate, &failed), Ok(Status::of(State::Registered)));
}

#[test]
fn soak_step_and_ramp_hold_a_step_back() {
    let advance = |step: Step| {
        next(Status::of(State::Limited), Event::Advance, &Facts { step: Some(step), ..good() }, &policy(), now())
            .map(|_| ())
            .map_err(|refusal| refusal.rule)
    };
    let after = |hours: i64| Some(("canary".parse().unwrap(), Some(now() - TimeDelta::hours(hours))));
    assert_eq!(advance(Step { previous: after(47), ..step() }), Err("R-SOAK"));
    assert_eq!(advance(Step { previous: after(48), ..step() }), Ok(()));
    assert_eq!(advance(Step { previous: Some(("canary".parse().unwrap(), None)), ..step() }), Err("R-SOAK"));

    let large = Step { share: Some(200_000), ..step() };
    assert_eq!(advance(large.clone()), Err("R-STEP"));
    assert_eq!(advance(Step { at_once: 500_000, ..large.clone() }), Ok(()), "exactly the largest step");
    assert_eq!(advance(Step { at_once: 500_005, ..large.clone() }), Err("R-STEP"));
    let ramp = |hours| Step { at_once: 0, ramp: Some(Span::hours(hours)), ..large.clone() };
    assert_eq!(advance(ramp(11)), Err("R-RAMP"));
    assert_eq!(advance(ramp(12)), Ok(()));
    assert_eq!(advance(Step { share: None, ..large }), Ok(()), "a cohort that names its devices");
}

#[test]
fn a_security_release_skips_soak_and_ramp_but_not_validation() {
    let step = Step { share: Some(1_000_000), previous: Some(("canary".parse().unwrap(), None)), ..step() };
    let facts = Facts { urgency: Some(Urgency::Security), step: Some(step), ..good() };
    assert_eq!(rule(State::Validation, Event::Start, &facts), Ok(Status::of(State::Security)));
    assert_eq!(rule(State::Validation, Event::Start, &Facts { report: None, ..facts.clone() }), Err("R-VALIDATED"));

    let mut strict = policy();
    strict.security.skip.clear();
    let refusal = next(Status::of(State::Validation), Event::Start, &facts, &strict, now()).unwrap_err();
    assert_eq!(refusal.rule, "R-SOAK");
}

#[test]
fn a_pause_holds_everything_back_but_withdrawal() {
    let facts = Facts { assigned: vec!["canary".parse().unwrap()], ..good() };
    let paused = Status { state: State::Limited, paused: true };
    assert_eq!(rule(State::Limited, Event::Pause, &facts), Ok(paused));
    let then = |event| next(paused, event, &facts, &policy(), now()).map_err(|refusal| refusal.rule);
    for event in [Event::Advance, Event::Complete, Event::Renew, Event::Pause] {
        assert_eq!(then(event), Err("R-PAUSED"), "{}", event.name());
    }
    assert_eq!(then(Event::Resume), Ok(Status::of(State::Limited)));
    assert_eq!(then(Event::Withdraw), Ok(Status::of(State::Withdrawn)));
    assert_eq!(then(Event::Validate), Ok(paused));
}

#[test]
fn cohorts_are_not_passed_over_and_never_go_back() {
    let left = Facts { not_reached: vec!["general".parse().unwrap()], ..good() };
    assert_eq!(rule(State::Limited, Event::Complete, &left), Err("R-COHORTS"));
    assert_eq!(rule(State::Limited, Event::Advance, &Facts { step: None, ..good() }), Err("R-COHORTS"));
    let newer = Facts { newer: Some("stable/os/1.3.0".into()), ..good() };
    assert_eq!(rule(State::Limited, Event::Advance, &newer), Err("R-SEQUENCE"));
    assert_eq!(rule(State::Validation, Event::Start, &newer), Err("R-SEQUENCE"));
    let assigned = Facts { assigned: vec!["general".parse().unwrap()], ..good() };
    assert_eq!(rule(State::Stable, Event::Retire, &assigned), Err("R-ASSIGNED"));
}

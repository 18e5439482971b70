//! Every pair of a state and an event, and every rule.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_model::manifest::Urgency;

use super::checks::CheckKind;
use super::facts::{Approved, Facts, Refusal, ReportFacts, Retraction, Soaking, Step};
use super::file::Policy;
use super::state::{ReleaseEvent, ReleaseState, Status};
use super::transitions::next;
use crate::error::Rule;
use tidegate_model::span::Span;

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
        staged: false,
        urgency: Some(Urgency::Normal),
        signatures: 2,
        threshold: 2,
        follows: true,
        report: Some(ReportFacts {
            at: now(),
            passed: CheckKind::ALL.into_iter().collect(),
            failed: Vec::new(),
            own: BTreeSet::new(),
            way_lost: None,
        }),
        step: Some(step()),
        ramps_until: None,
        stopped: false,
        not_reached: Vec::new(),
        assigned: Vec::new(),
        newer: None,
        approvals: Vec::new(),
        retraction: None,
        bridge_of: Vec::new(),
    }
}

fn step() -> Step {
    Step {
        cohort: "early".parse().unwrap(),
        share: Some(50_000),
        at_once: 1_000_000,
        ramp: None,
        until: None,
        previous: None,
    }
}

fn rule(state: ReleaseState, event: ReleaseEvent, facts: &Facts) -> Result<Status, Rule> {
    next(Status::of(state), event, facts, &policy(), now()).map_err(|refusal| refusal.rule)
}

/// What comes of each event in each state, under good facts: a state, or the rule that refuses.
#[test]
#[rustfmt::skip]
fn the_table() {
    use ReleaseEvent as E;
    use ReleaseState as S;
    let none = Rule::ReleaseOrder;
    let over = Rule::ReleaseOver;
    // Columns: Draft Signed Registered Validation Limited Stable Security Withdrawn Retired
    let table: [(ReleaseEvent, [Result<ReleaseState, Rule>; 9]); 18] = [
        (E::Edit, [Err(Rule::ReleaseFrozen), Err(Rule::ReleaseFrozen), Err(none), Err(none), Err(none), Err(none), Err(none), Err(over), Err(over)]),
        (E::Drop, [Err(Rule::ReleaseFrozen), Err(Rule::ReleaseFrozen), Err(none), Err(none), Err(none), Err(none), Err(none), Err(over), Err(over)]),
        (E::Unfreeze, [Err(Rule::ReleaseFrozen), Err(Rule::ReleaseFrozen), Err(none), Err(none), Err(none), Err(none), Err(none), Err(over), Err(over)]),
        (E::Freeze, [Ok(S::Draft), Ok(S::Draft), Err(none), Err(none), Err(none), Err(none), Err(none), Err(over), Err(over)]),
        (E::Sign, [Ok(S::Signed), Ok(S::Signed), Err(none), Err(none), Err(none), Err(none), Err(none), Err(over), Err(over)]),
        (E::Register, [Err(Rule::ReleaseThreshold), Ok(S::Registered), Err(none), Err(none), Err(none), Err(none), Err(none), Err(over), Err(over)]),
        (E::Validate, [Ok(S::Draft), Ok(S::Signed), Ok(S::Validation), Ok(S::Validation), Ok(S::Limited), Ok(S::Stable), Ok(S::Security), Err(over), Err(over)]),
        (E::Expose, [Err(none), Err(none), Err(none), Ok(S::Validation), Err(none), Err(none), Err(none), Err(over), Err(over)]),
        (E::Start, [Err(none), Err(none), Ok(S::Limited), Ok(S::Limited), Err(none), Err(none), Err(none), Err(over), Err(over)]),
        (E::Advance, [Err(none), Err(none), Err(none), Err(none), Ok(S::Limited), Err(none), Err(Rule::ReleaseCohorts), Err(over), Err(over)]),
        (E::Pause, [Err(none), Err(none), Err(none), Err(Rule::ReleaseAssigned), Err(Rule::ReleaseAssigned), Err(Rule::ReleaseAssigned), Err(Rule::ReleaseAssigned), Err(over), Err(over)]),
        (E::Resume, [Err(none), Err(none), Err(none), Err(Rule::ReleasePaused), Err(Rule::ReleasePaused), Err(Rule::ReleasePaused), Err(Rule::ReleasePaused), Err(over), Err(over)]),
        (E::Renew, [Err(none), Err(none), Err(none), Err(none), Ok(S::Limited), Err(none), Err(none), Err(over), Err(over)]),
        (E::Complete, [Err(none), Err(none), Err(none), Err(none), Ok(S::Stable), Err(none), Ok(S::Stable), Err(over), Err(over)]),
        (E::Withdraw, [Ok(S::Withdrawn), Ok(S::Withdrawn), Ok(S::Withdrawn), Ok(S::Withdrawn), Ok(S::Withdrawn), Ok(S::Withdrawn), Ok(S::Withdrawn), Err(over), Err(over)]),
        (E::Retire, [Err(none), Err(none), Ok(S::Retired), Ok(S::Retired), Err(none), Ok(S::Retired), Err(none), Ok(S::Retired), Err(over)]),
        (E::Approve, [Err(none), Ok(S::Signed), Ok(S::Registered), Ok(S::Validation), Ok(S::Limited), Err(none), Ok(S::Security), Err(over), Err(over)]),
        (E::Retract, [Err(none), Err(none), Err(none), Ok(S::Validation), Ok(S::Limited), Ok(S::Stable), Ok(S::Security), Ok(S::Withdrawn), Ok(S::Retired)]),
    ];
    assert_eq!(table.map(|(event, _)| event), ReleaseEvent::ALL, "every event has a row");
    for (event, row) in table {
        for (state, expected) in ReleaseState::ALL.into_iter().zip(row) {
            let found = rule(state, event, &good()).map(|status| status.state);
            assert_eq!(found, expected, "{} in {state}", event.name());
        }
    }
}

/// Under good and under bad facts, paused and not: a refusal names a rule that the documentation knows, and what would satisfy it.
#[test]
fn every_refusal_says_why_and_what_to_do() {
    let mut seen = BTreeSet::new();
    let text = include_str!("../../repo-template/policy.toml");
    let strict = format!(
        "{text}\n[[approval]]\nsteps = [\"register\", \"resume\"]\nby = [\"rollout\"]\ncount = 1\n\
         [[freeze]]\nfrom = \"2000-01-01\"\nuntil = \"2100-01-01\""
    );
    let strict = Policy::parse(strict.as_bytes()).unwrap();
    let bad = Facts {
        frozen: true,
        artifacts: 1,
        report: good().report,
        newer: Some("x".into()),
        bridge_of: vec!["x".into()],
        retraction: Some(Retraction { still_offered: Some("x".into()) }),
        ..Facts::default()
    };
    let cases =
        [good(), Facts::default(), bad.clone(), Facts { newer: None, ..bad }, Facts { retraction: None, ..good() }];
    for policy in [policy(), strict] {
        for paused in [false, true] {
            for (state, event) in ReleaseState::ALL.into_iter().flat_map(|s| ReleaseEvent::ALL.map(|e| (s, e))) {
                for facts in &cases {
                    let Err(Refusal { rule, why, remedy, .. }) =
                        next(Status { state, paused }, event, facts, &policy, now())
                    else {
                        continue;
                    };
                    assert!(!why.is_empty() && !remedy.is_empty(), "{} in {state}", event.name());
                    seen.insert(rule);
                }
            }
        }
    }
    // Those that these facts do not reach have tests of their own below.
    let others = [Rule::ReleaseRamp, Rule::ReleaseSoak, Rule::ReleaseStep];
    // These refuse before an event is decided, or after.
    let outside = [
        Rule::ReleaseExists,
        Rule::ReleaseHealth,
        Rule::ReleaseKey,
        Rule::ReleaseProposal,
        Rule::ReleaseProvenance,
        Rule::ReleaseRace,
    ];
    let of_events = Rule::ALL.iter().filter(|rule| rule.id().starts_with("R-") && !outside.contains(rule));
    let missing: Vec<_> = of_events.filter(|rule| !seen.contains(*rule) && !others.contains(rule)).collect();
    assert!(missing.is_empty(), "{missing:?} never refuse anything");
}

#[test]
fn registration_takes_a_fresh_report_too() {
    assert_eq!(
        rule(ReleaseState::Signed, ReleaseEvent::Register, &Facts { report: None, ..good() }),
        Err(Rule::ReleaseValidated)
    );
}

#[test]
fn an_own_check_that_policy_names_must_have_run_and_passed() {
    let text = include_str!("../../repo-template/policy.toml");
    let text =
        format!("{text}\n[[validation.check]]\nid = \"X-SBOM\"\ntitle = \"t\"\ncommand = [\"x\"]\ntimeout = \"1m\"");
    let policy = Policy::parse(text.as_bytes()).unwrap();
    let mut facts = good();
    let start = |facts: &Facts| next(Status::of(ReleaseState::Validation), ReleaseEvent::Start, facts, &policy, now());
    let refusal = start(&facts).unwrap_err();
    assert!(refusal.rule == Rule::ReleaseValidated && refusal.why.contains("X-SBOM"), "{refusal:?}");
    facts.report.as_mut().unwrap().own.insert("X-SBOM".into());
    assert_eq!(start(&facts), Ok(Status::of(ReleaseState::Limited)));
}

#[test]
fn a_step_takes_the_approvals_of_as_many_people() {
    let text = include_str!("../../repo-template/policy.toml");
    let text = format!(
        "{text}\n[[approval]]\nsteps = [\"start\", \"advance\"]\ncohorts = [\"early\"]\nby = [\"a\", \"b\", \"c\"]\ncount = 2\nmax_age = \"24h\""
    );
    let policy = Policy::parse(text.as_bytes()).unwrap();
    let approved = |key: &str, person: &str, hours: i64| Approved {
        key: key.into(),
        person: person.into(),
        at: now() - TimeDelta::hours(hours),
    };
    let with = |approvals: &[Approved]| Facts { approvals: approvals.to_vec(), ..good() };
    let advance = |facts: &Facts| {
        next(Status::of(ReleaseState::Limited), ReleaseEvent::Advance, facts, &policy, now())
            .map(|_| ())
            .map_err(|refusal| refusal.rule)
    };
    let (a, b) = (approved("a", "holder 1", 1), approved("b", "holder 2", 24));
    assert_eq!(advance(&with(&[])), Err(Rule::ReleaseApproval));
    assert_eq!(advance(&with(std::slice::from_ref(&a))), Err(Rule::ReleaseApproval));
    assert_eq!(advance(&with(&[a.clone(), b])), Ok(()));
    assert_eq!(advance(&with(&[a.clone(), approved("b", "holder 2", 25)])), Err(Rule::ReleaseApproval), "too old");
    assert_eq!(
        advance(&with(&[a.clone(), approved("c", "holder 1", 1)])),
        Err(Rule::ReleaseApproval),
        "one person, two keys"
    );
    assert_eq!(
        advance(&with(&[a.clone(), approved("b", "holder 2", -1)])),
        Err(Rule::ReleaseApproval),
        "from the future"
    );
    assert_eq!(
        advance(&with(&[a, approved("d", "holder 2", 1)])),
        Err(Rule::ReleaseApproval),
        "a key that is not asked"
    );
    let other = Facts { step: Some(Step { cohort: "canary".parse().unwrap(), ..step() }), ..good() };
    assert_eq!(advance(&other), Ok(()), "another cohort");
    let start = next(Status::of(ReleaseState::Validation), ReleaseEvent::Start, &good(), &policy, now()).unwrap_err();
    assert!(start.rule == Rule::ReleaseApproval && start.remedy.contains("--step start"), "{start:?}");
}

#[test]
fn nobody_new_is_exposed_in_a_freeze_by_a_step_or_a_ramp() {
    let text = include_str!("../../repo-template/policy.toml");
    // now() is 2024-10-04.
    let text = format!("{text}\n[[freeze]]\nfrom = \"2024-10-05\"\nuntil = \"2024-10-07\"\nreason = \"audit\"");
    let policy = Policy::parse(text.as_bytes()).unwrap();
    let at = |hours: i64| now() + TimeDelta::hours(hours);
    let advance = |hours: i64, ramp: Option<i64>, facts: &Facts| {
        let step = Step { until: ramp.map(|ramp| at(hours + ramp)), ..step() };
        let report = ReportFacts { at: at(hours), ..facts.report.clone().unwrap() };
        let facts = Facts { step: Some(step), report: Some(report), ..facts.clone() };
        next(Status::of(ReleaseState::Limited), ReleaseEvent::Advance, &facts, &policy, at(hours))
            .map(|_| ())
            .map_err(|r| r.rule)
    };
    assert_eq!(advance(23, None, &good()), Ok(()));
    assert_eq!(advance(23, Some(1), &good()), Ok(()), "a ramp that ends when the freeze begins");
    assert_eq!(advance(23, Some(2), &good()), Err(Rule::ReleaseFreeze));
    assert_eq!(advance(24, None, &good()), Err(Rule::ReleaseFreeze));
    assert_eq!(advance(71, None, &good()), Err(Rule::ReleaseFreeze));
    assert_eq!(advance(72, Some(24), &good()), Ok(()));
    let urgent = Facts { urgency: Some(Urgency::Security), ..good() };
    assert_eq!(advance(24, None, &urgent), Ok(()), "the template lets security skip it");
    let assigned = Facts { assigned: vec!["canary".parse().unwrap()], ..good() };
    let event = |event, paused| {
        next(Status { state: ReleaseState::Limited, paused }, event, &assigned, &policy, at(24))
            .map(|_| ())
            .map_err(|r| r.rule)
    };
    assert_eq!(event(ReleaseEvent::Resume, true), Err(Rule::ReleaseFreeze));
    assert_eq!(event(ReleaseEvent::Renew, false), Ok(()), "it keeps what there is");
    let goes_on = |event, stopped, hours: i64, until: Option<i64>| {
        let facts = Facts { stopped, ramps_until: until.map(at), ..assigned.clone() };
        let status = Status { state: ReleaseState::Limited, paused: event == ReleaseEvent::Resume };
        next(status, event, &facts, &policy, at(hours)).map(|_| ()).map_err(|r| r.rule)
    };
    assert_eq!(goes_on(ReleaseEvent::Resume, false, 20, Some(24)), Ok(()));
    assert_eq!(
        goes_on(ReleaseEvent::Resume, false, 20, Some(25)),
        Err(Rule::ReleaseFreeze),
        "the moved ramp runs into it"
    );
    assert_eq!(goes_on(ReleaseEvent::Renew, true, 20, Some(24)), Ok(()));
    assert_eq!(goes_on(ReleaseEvent::Renew, true, 20, Some(25)), Err(Rule::ReleaseFreeze));
    assert_eq!(goes_on(ReleaseEvent::Renew, true, 30, None), Err(Rule::ReleaseFreeze), "it had stopped by itself");
    for stops in [ReleaseEvent::Pause, ReleaseEvent::Withdraw] {
        assert_eq!(event(stops, false), Ok(()), "{}", stops.name());
    }
}

#[test]
fn a_retraction_skips_what_security_may_and_waits_for_the_withdrawal() {
    let facts = |still_offered: Option<&str>| Facts {
        retraction: Some(Retraction { still_offered: still_offered.map(str::to_owned) }),
        step: Some(Step { share: Some(1_000_000), ..step() }),
        ..good()
    };
    assert_eq!(
        rule(ReleaseState::Registered, ReleaseEvent::Start, &facts(None)),
        Ok(Status::of(ReleaseState::Limited))
    );
    assert_eq!(
        rule(ReleaseState::Registered, ReleaseEvent::Start, &facts(Some("stable/os/1.2.0"))),
        Err(Rule::ReleaseRetract)
    );
    let validated = Facts { report: None, ..facts(None) };
    assert_eq!(rule(ReleaseState::Registered, ReleaseEvent::Start, &validated), Err(Rule::ReleaseValidated));
}

#[test]
fn a_draft_is_open_until_it_is_frozen() {
    let facts = Facts { frozen: false, signatures: 0, ..good() };
    let draft = Ok(Status::of(ReleaseState::Draft));
    let frozen = Facts { frozen: true, ..facts.clone() };
    for (event, of_draft, of_frozen) in [
        (ReleaseEvent::Edit, draft, Err(Rule::ReleaseFrozen)),
        (ReleaseEvent::Drop, draft, draft),
        (ReleaseEvent::Unfreeze, Err(Rule::ReleaseFrozen), draft),
    ] {
        assert_eq!(rule(ReleaseState::Draft, event, &facts), of_draft, "{}", event.name());
        assert_eq!(rule(ReleaseState::Draft, event, &frozen), of_frozen, "{}", event.name());
    }
    assert_eq!(rule(ReleaseState::Draft, ReleaseEvent::Sign, &facts), Err(Rule::ReleaseFrozen));
    assert_eq!(rule(ReleaseState::Draft, ReleaseEvent::Validate, &facts), Err(Rule::ReleaseFrozen));
    assert_eq!(
        rule(ReleaseState::Draft, ReleaseEvent::Freeze, &Facts { artifacts: 0, ..facts }),
        Err(Rule::ReleaseArtifacts)
    );
}

#[test]
fn signing_takes_the_threshold_and_a_proposal_that_follows() {
    let one = Facts { signatures: 1, ..good() };
    assert_eq!(rule(ReleaseState::Draft, ReleaseEvent::Sign, &one), Ok(Status::of(ReleaseState::Draft)));
    let stale = Facts { follows: false, ..good() };
    for event in [ReleaseEvent::Sign, ReleaseEvent::Register] {
        assert_eq!(rule(ReleaseState::Signed, event, &stale), Err(Rule::ReleaseBase));
    }
}

#[test]
fn a_rollout_takes_a_fresh_report_with_all_required_checks() {
    for event in [ReleaseEvent::Start, ReleaseEvent::Expose] {
        let rule = |facts: &Facts| rule(ReleaseState::Validation, event, facts).map(|_| ());
        assert_eq!(rule(&Facts { report: None, ..good() }), Err(Rule::ReleaseValidated));
        let report = |age: TimeDelta, passed: &[CheckKind]| {
            let report = ReportFacts {
                at: now() - age,
                passed: passed.iter().copied().collect(),
                failed: Vec::new(),
                own: BTreeSet::new(),
                way_lost: None,
            };
            Facts { report: Some(report), ..good() }
        };
        assert_eq!(rule(&report(TimeDelta::days(7), &CheckKind::ALL)), Ok(()));
        assert_eq!(
            rule(&report(TimeDelta::days(7) + TimeDelta::seconds(1), &CheckKind::ALL)),
            Err(Rule::ReleaseValidated)
        );
        assert_eq!(rule(&report(TimeDelta::zero(), &CheckKind::ALL[1..])), Err(Rule::ReleaseValidated));
    }
    let mut lost = good();
    lost.report.as_mut().unwrap().way_lost = Some("stable/os/1.1.0 was withdrawn".into());
    assert_eq!(rule(ReleaseState::Validation, ReleaseEvent::Start, &lost), Err(Rule::ReleaseValidated));
    let failed = Facts { report: None, ..good() };
    assert_eq!(
        rule(ReleaseState::Registered, ReleaseEvent::Validate, &failed),
        Ok(Status::of(ReleaseState::Registered))
    );
}

#[test]
fn whatever_exposes_devices_or_makes_that_last_takes_a_fresh_report() {
    let none = Facts { report: None, ..good() };
    for (state, event) in [
        (ReleaseState::Signed, ReleaseEvent::Register),
        (ReleaseState::Validation, ReleaseEvent::Expose),
        (ReleaseState::Validation, ReleaseEvent::Start),
        (ReleaseState::Limited, ReleaseEvent::Advance),
        (ReleaseState::Limited, ReleaseEvent::Complete),
        (ReleaseState::Security, ReleaseEvent::Complete),
    ] {
        assert_eq!(rule(state, event, &none), Err(Rule::ReleaseValidated), "{}", event.name());
    }
    let paused = |facts: &Facts| {
        let status = Status { state: ReleaseState::Limited, paused: true };
        next(status, ReleaseEvent::Resume, facts, &policy(), now()).map_err(|refusal| refusal.rule)
    };
    assert_eq!(paused(&none), Err(Rule::ReleaseValidated));
    assert_eq!(paused(&good()), Ok(Status::of(ReleaseState::Limited)));
    let renew =
        |stopped| rule(ReleaseState::Limited, ReleaseEvent::Renew, &Facts { stopped, ..none.clone() }).map(|_| ());
    assert_eq!(renew(false), Ok(()), "it keeps what there is");
    assert_eq!(renew(true), Err(Rule::ReleaseValidated), "it had stopped by itself, and would expose devices anew");
    // What stops an exposure never waits for one.
    let offered = Facts { assigned: vec!["canary".parse().unwrap()], ..none };
    for event in [ReleaseEvent::Pause, ReleaseEvent::Withdraw] {
        assert!(rule(ReleaseState::Limited, event, &offered).is_ok(), "{}", event.name());
    }
}

#[test]
fn soak_step_and_ramp_hold_a_step_back() {
    let advance = |step: Step| {
        next(
            Status::of(ReleaseState::Limited),
            ReleaseEvent::Advance,
            &Facts { step: Some(step), ..good() },
            &policy(),
            now(),
        )
        .map(|_| ())
        .map_err(|refusal| refusal.rule)
    };
    let after = |hours: i64| Some(("canary".parse().unwrap(), Soaking::Since(now() - TimeDelta::hours(hours))));
    assert_eq!(advance(Step { previous: after(47), ..step() }), Err(Rule::ReleaseSoak));
    assert_eq!(advance(Step { previous: after(48), ..step() }), Ok(()));
    for soaking in [Soaking::Ramping, Soaking::Unpublished] {
        let previous = Some(("canary".parse().unwrap(), soaking));
        assert_eq!(advance(Step { previous, ..step() }), Err(Rule::ReleaseSoak));
    }

    let large = Step { share: Some(200_000), ..step() };
    assert_eq!(advance(large.clone()), Err(Rule::ReleaseStep));
    assert_eq!(advance(Step { at_once: 500_000, ..large.clone() }), Ok(()), "exactly the largest step");
    assert_eq!(advance(Step { at_once: 500_005, ..large.clone() }), Err(Rule::ReleaseStep));
    let ramp = |hours| Step { at_once: 0, ramp: Some(Span::hours(hours)), ..large.clone() };
    assert_eq!(advance(ramp(11)), Err(Rule::ReleaseRamp));
    assert_eq!(advance(ramp(12)), Ok(()));
    assert_eq!(advance(Step { share: None, ..large }), Ok(()), "a cohort that names its devices");
}

#[test]
fn a_security_release_skips_soak_and_ramp_but_not_validation() {
    let step = Step { share: Some(1_000_000), previous: Some(("canary".parse().unwrap(), Soaking::Ramping)), ..step() };
    let facts = Facts { urgency: Some(Urgency::Security), step: Some(step), ..good() };
    assert_eq!(rule(ReleaseState::Validation, ReleaseEvent::Start, &facts), Ok(Status::of(ReleaseState::Security)));
    assert_eq!(
        rule(ReleaseState::Validation, ReleaseEvent::Start, &Facts { report: None, ..facts.clone() }),
        Err(Rule::ReleaseValidated)
    );

    let mut strict = policy();
    strict.security.skip.clear();
    let refusal = next(Status::of(ReleaseState::Validation), ReleaseEvent::Start, &facts, &strict, now()).unwrap_err();
    assert_eq!(refusal.rule, Rule::ReleaseSoak);
}

#[test]
fn a_pause_holds_everything_back_but_withdrawal() {
    let facts = Facts { assigned: vec!["canary".parse().unwrap()], ..good() };
    let paused = Status { state: ReleaseState::Limited, paused: true };
    assert_eq!(rule(ReleaseState::Limited, ReleaseEvent::Pause, &facts), Ok(paused));
    let then = |event| next(paused, event, &facts, &policy(), now()).map_err(|refusal| refusal.rule);
    for event in [ReleaseEvent::Advance, ReleaseEvent::Complete, ReleaseEvent::Renew, ReleaseEvent::Pause] {
        assert_eq!(then(event), Err(Rule::ReleasePaused), "{}", event.name());
    }
    assert_eq!(then(ReleaseEvent::Resume), Ok(Status::of(ReleaseState::Limited)));
    assert_eq!(then(ReleaseEvent::Withdraw), Ok(Status::of(ReleaseState::Withdrawn)));
    assert_eq!(then(ReleaseEvent::Validate), Ok(paused));
    let paused = Status { state: ReleaseState::Validation, paused: true };
    for event in [ReleaseEvent::Expose, ReleaseEvent::Start] {
        let refusal = next(paused, event, &good(), &policy(), now()).unwrap_err();
        assert_eq!(refusal.rule, Rule::ReleasePaused, "{}", event.name());
    }
}

#[test]
fn cohorts_are_not_passed_over_and_never_go_back() {
    let left = Facts { not_reached: vec!["general".parse().unwrap()], ..good() };
    assert_eq!(rule(ReleaseState::Limited, ReleaseEvent::Complete, &left), Err(Rule::ReleaseCohorts));
    assert_eq!(
        rule(ReleaseState::Limited, ReleaseEvent::Advance, &Facts { step: None, ..good() }),
        Err(Rule::ReleaseCohorts)
    );
    let newer = Facts { newer: Some("stable/os/1.3.0".into()), ..good() };
    assert_eq!(rule(ReleaseState::Limited, ReleaseEvent::Advance, &newer), Err(Rule::ReleaseSequence));
    assert_eq!(rule(ReleaseState::Validation, ReleaseEvent::Start, &newer), Err(Rule::ReleaseSequence));
    let assigned = Facts { assigned: vec!["general".parse().unwrap()], ..good() };
    assert_eq!(rule(ReleaseState::Stable, ReleaseEvent::Retire, &assigned), Err(Rule::ReleaseAssigned));
}

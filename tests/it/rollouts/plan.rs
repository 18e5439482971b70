//! What a plan says comes true: hour by hour, device by device, for a rollout that is carried out as it was planned.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use tidegate::Rule;

use crate::support::Fleet;
use crate::support::chance::Chance;
use chrono::{DateTime, TimeDelta, Utc};
use tidegate::Error;
use tidegate::fleet::{Fleet as Devices, Scope};
use tidegate::forecast::{FleetForecast, Forecast, Outlook, StepKind, explain};
use tidegate::release::record::{RecordedUrgency, ReleaseSpec};
use tidegate::rollout::{RampRequest, RolloutTransaction};
use tidegate_model::decision::{Outcome, Profile};
use tidegate_model::span::Span;

/// A fleet of devices by chance, as a CSV file and as devices.
fn devices(path: &Path, count: u64) -> Vec<Profile> {
    let mut chance = Chance::new(1);
    let mut csv = "id,hardware,version,sequence,group,ram-mb,battery\n".to_owned();
    let mut profiles: Vec<Profile> = (0..count).map(|number| chance.device(number)).collect();
    for profile in &mut profiles {
        profile.installed.sequence = 0;
        if profile.hardware.as_str() == "board-b" {
            profile.hardware = "board-a".parse().unwrap();
        }
    }
    for profile in &profiles {
        let Profile { id, hardware, installed, own_facts, .. } = profile;
        let fact = |name: &str| match own_facts.value(&name.parse().unwrap()) {
            Some(tidegate_model::facts::FactValue::Text(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => String::new(),
        };
        let (version, sequence) = (&installed.version, installed.sequence);
        let (group, ram, battery) = (fact("group"), fact("ram-mb"), fact("battery"));
        writeln!(csv, "{id},{hardware},{version},{sequence},\"{group}\",{ram},{battery}").unwrap();
    }
    fs::write(path, csv).unwrap();
    profiles
}

#[allow(clippy::needless_pass_by_value, reason = "shorter where it is called")]
fn plan(fleet: &Fleet, spec: &ReleaseSpec, csv: &Path, outlook: Outlook) -> Result<FleetForecast, Error> {
    let (workspace, _) = fleet.open();
    let transaction = RolloutTransaction::open(&workspace, spec, fleet.now)?;
    let forecast = Forecast::new(&transaction, &Outlook { from: fleet.now, ..outlook })?;
    let devices = Devices::csv(csv, forecast.scope())?;
    forecast.over(devices, "fleet.csv".into(), |_| ())
}

/// How many devices would install the release at an instant, each asked by itself.
fn installing(fleet: &Fleet, profiles: &[Profile], version: &str, at: DateTime<Utc>) -> u64 {
    let (workspace, _) = fleet.open();
    let repository = workspace.repository().unwrap();
    let installs = |profile: &&Profile| {
        let explanation = explain(workspace.dir(), &repository, profile, at).unwrap().explanation;
        matches!(explanation.outcome, Outcome::Install { release, .. } if release.to_string() == version)
    };
    profiles.iter().filter(installs).count() as u64
}

#[test]
fn a_plan_comes_true_hour_by_hour_and_ramps_need_no_new_signature() {
    let mut fleet = Fleet::new();
    let csv = fleet.dir.path().join("fleet.csv");
    let profiles = devices(&csv, 60);
    let spec = fleet.draft("3.0.0", |new| {
        new.eligibility = Some(serde_json::from_str(r#"{"not": {"fact": "ram-mb", "eq": "a lot"}}"#).unwrap());
    });
    // Planned before anything is signed.
    let planned = plan(&fleet, &spec, &csv, Outlook::default()).unwrap();
    fleet.sign(&spec).unwrap();
    fleet.validate(&spec);
    fleet.register(&spec).unwrap();
    fleet.validate(&spec);
    let again = plan(&fleet, &spec, &csv, Outlook::default()).unwrap();
    assert_eq!(planned.curve, again.curve);
    assert_eq!(planned.course.steps, again.course.steps);

    let begin = fleet.now;
    let mut signed = 0;
    for (hour, expected) in planned.curve.iter().enumerate() {
        fleet.now = begin + TimeDelta::hours(i64::try_from(hour).unwrap());
        for step in
            planned.course.steps.iter().filter(|step| step.at == fleet.now && step.cohort.as_str() != "validation")
        {
            let span = step.ramp.map(|ramp| Span::from_delta(ramp.end() - ramp.start()));
            let request = RampRequest { span, ..RampRequest::default() };
            let in_force = fleet.step(&spec, |transaction, op| match step.what {
                StepKind::Start => transaction.start(request, op),
                _ => transaction.advance(request, None, op),
            });
            let cohort_in_force = in_force.unwrap().in_force.into_iter().find(|s| s.cohort == step.cohort).unwrap();
            let own = cohort_in_force.offers.into_iter().find(|offer| offer.release.to_string() == "3.0.0");
            assert_eq!(own.unwrap().ramp, step.ramp);
            signed += 1;
        }
        assert_eq!(installing(&fleet, &profiles, "3.0.0", fleet.now), *expected, "hour {hour}");
    }
    assert_eq!(signed, 3, "three steps, one signature each, over {} hours", planned.curve.len());
    let eligible = *planned.curve.last().unwrap();
    assert!(planned.curve[0] > 0 && eligible > planned.curve[0] * 2, "{:?}", planned.curve);
    let never: u64 = planned.simulation.cohorts.iter().map(tidegate::forecast::simulate::Tally::never_in_all).sum();
    assert_eq!(eligible + never, profiles.len() as u64);
}

#[test]
fn a_plan_begins_where_the_rollout_stands() {
    let mut fleet = Fleet::new();
    let csv = fleet.dir.path().join("fleet.csv");
    devices(&csv, 40);
    let spec = fleet.release("3.0.0", |_| ());
    fleet.start(&spec);
    fleet.pass(48);
    let half = RampRequest { to: Some(500_000), ..RampRequest::default() };
    fleet.step(&spec, |transaction, op| transaction.advance(half, None, op)).unwrap();
    fleet.pass(3);
    fleet.step(&spec, |transaction, op| transaction.pause(op, None)).unwrap();
    fleet.pass(5);
    let planned = plan(&fleet, &spec, &csv, Outlook { ramp: Some(Span::hours(24)), ..Outlook::default() }).unwrap();
    let steps: Vec<_> = planned.course.steps.iter().map(|step| (step.what, step.cohort.as_str())).collect();
    assert_eq!(
        steps,
        [
            (StepKind::InForce, "validation"),
            (StepKind::InForce, "canary"),
            (StepKind::InForce, "early"),
            (StepKind::Advance, "early"),
            (StepKind::Advance, "general")
        ]
    );
    let ramp = planned.course.steps[3].ramp.unwrap();
    assert_eq!((ramp.from(), ramp.to(), ramp.end() - ramp.start()), (500_000, 1_000_000, TimeDelta::hours(24)));
    assert_eq!(planned.course.steps[4].at, ramp.end() + TimeDelta::hours(24), "after the soak of early");
    assert!(planned.course.assumptions.iter().any(|text| text.starts_with("it is paused")));
}

#[test]
fn a_security_release_is_planned_for_all_at_once() {
    let fleet = Fleet::new();
    let csv = fleet.dir.path().join("fleet.csv");
    devices(&csv, 40);
    let spec = fleet.draft("3.0.0", |new| new.urgency = RecordedUrgency::Security);
    let planned = plan(&fleet, &spec, &csv, Outlook::default()).unwrap();
    assert_eq!(planned.course.steps.len(), 4);
    assert_eq!(planned.curve[0], *planned.curve.last().unwrap());
}

/// While a release ramps, devices that it has not reached take the older one that they are offered below it.
#[test]
fn devices_that_update_twice_are_counted() {
    let mut fleet = Fleet::new();
    let csv = fleet.dir.path().join("fleet.csv");
    devices(&csv, 60);
    let older = fleet.release("3.0.0", |new| new.urgency = RecordedUrgency::Security);
    fleet.start(&older);
    fleet.pass(1);
    let spec = fleet.release("3.1.0", |_| ());
    let planned = plan(&fleet, &spec, &csv, Outlook::default()).unwrap();
    let taken: u64 = planned.simulation.cohorts.iter().map(tidegate::forecast::simulate::Tally::offered_in_all).sum();
    assert_eq!(taken, *planned.curve.last().unwrap());
    // Those that are reached at once do not take the older one first.
    let twice = planned.simulation.twice.values().sum::<u64>();
    assert_eq!(twice, taken - planned.curve[0]);
    assert!(twice > 0 && planned.simulation.twice.keys().all(|version| version.to_string() == "3.0.0"));
}

#[test]
fn cohorts_with_something_newer_are_passed_over() {
    let fleet = Fleet::new();
    let csv = fleet.dir.path().join("fleet.csv");
    devices(&csv, 40);
    let (one, two) = (fleet.release("3.0.0", |_| ()), fleet.release("3.1.0", |_| ()));
    fleet.start(&two);
    let planned = plan(&fleet, &one, &csv, Outlook::default()).unwrap();
    let passed: Vec<_> = planned.course.passed_over.iter().map(|(cohort, _)| cohort.as_str()).collect();
    assert_eq!(passed, ["validation", "canary"]);
    let canary = &planned.simulation.cohorts[1];
    assert_eq!(canary.never_in_all(), canary.devices);
}

#[test]
fn nothing_is_planned_for_what_is_over_and_nothing_is_written() {
    let fleet = Fleet::new();
    let csv = fleet.dir.path().join("fleet.csv");
    devices(&csv, 3);
    let spec = fleet.release("3.0.0", |_| ());
    let (metadata, ledger) = (fleet.metadata(), fs::read(fleet.path().join("ledger.jsonl")).unwrap());
    plan(&fleet, &spec, &csv, Outlook::default()).unwrap();
    assert_eq!((fleet.metadata(), fs::read(fleet.path().join("ledger.jsonl")).unwrap()), (metadata, ledger));
    fleet.step(&spec, |transaction, op| transaction.withdraw(op, None)).unwrap();
    assert_eq!(plan(&fleet, &spec, &csv, Outlook::default()).unwrap_err().broken_rule(), Some(Rule::ReleaseOver));
    let error = Devices::csv(&fleet.dir.path().join("none.csv"), Scope::default()).unwrap_err();
    assert!(error.is_not_found());
}

//! The dead man's switch, over simulated days: a health job that does its work, finds something, lies, or dies.

use std::fs;
use std::path::PathBuf;
use tidegate::Rule;

use crate::support::Fleet;
use crate::support::fleet::{lay_out, named, rule};
use chrono::TimeDelta;
use serde_json::{Value, json};
use tidegate::Error;
use tidegate::forecast::explain;
use tidegate::policy::ReleaseState;
use tidegate::release::record::ReleaseSpec;
use tidegate::rollout::health::{Action, Health, Source, Verdict};
use tidegate::workspace::{CohortInForce, Ledger};
use tidegate_model::decision::{Outcome, Profile};
use tidegate_model::time;

/// A rollout that goes unattended for a day at most, with a health job and devices.
struct Job {
    fleet: Fleet,
    spec: ReleaseSpec,
    site: PathBuf,
}

impl Job {
    fn new() -> Self {
        let fleet = Fleet::shaped(|name, text| match name {
            "policy.toml" => text.replace("max_unattended = \"72h\"", "max_unattended = \"24h\""),
            _ => text,
        });
        let site = fleet.dir.path().join("site");
        let spec = fleet.release("1.0.0", |_| ());
        fleet.start(&spec);
        lay_out(&fleet, &site);
        Self { fleet, spec, site }
    }

    /// The job runs: counts of the canary are installed, confirmed, failed, rolled back.
    fn run(&self, canary: [u64; 4]) -> Result<Verdict, Error> {
        self.run_with(&self.report(canary))
    }

    fn run_with(&self, report: &Value) -> Result<Verdict, Error> {
        self.judge(&self.spec, 1, report)
    }

    fn judge(&self, spec: &ReleaseSpec, sequence: u64, report: &Value) -> Result<Verdict, Error> {
        let file = self.fleet.dir.path().join("health.json");
        fs::write(&file, report.to_string()).unwrap();
        let source = Source::File(file);
        self.fleet.step(spec, |transaction, op| {
            let policy = transaction.health_policy()?.clone();
            let id = transaction.record().id();
            let bytes = source.fetch(&id, sequence, &policy)?;
            let health =
                Health::parse(bytes, &source, (&id, sequence), &transaction.offered(), &policy, self.fleet.now)?;
            op.actor = "job";
            transaction.renew_by_health(&health, op).map(|(verdict, _)| verdict)
        })
    }

    fn report(&self, canary: [u64; 4]) -> Value {
        let counts = |[installed, confirmed, failed, rolled_back]: [u64; 4]| json!({"installed": installed, "confirmed": confirmed, "failed": failed, "rolled_back": rolled_back});
        let cohorts: serde_json::Map<String, Value> = self
            .in_force()
            .into_iter()
            .filter(|cohort_in_force| cohort_in_force.has(1))
            .map(|cohort_in_force| {
                let canary = if cohort_in_force.cohort.as_str() == "canary" { canary } else { [9, 9, 0, 0] };
                (cohort_in_force.cohort.to_string(), counts(canary))
            })
            .collect();
        json!({"schema": 1, "at": time::format(self.fleet.now),
            "releases": [{"release": "stable/os/1.0.0", "sequence": 1, "cohorts": cohorts}]})
    }

    fn in_force(&self) -> Vec<CohortInForce> {
        self.fleet.step(&self.spec, |transaction, _| Ok(transaction.in_force().to_vec())).unwrap()
    }

    fn state(&self) -> (ReleaseState, bool) {
        let record = self.spec.find(&self.fleet.path()).unwrap();
        (record.state, record.paused)
    }

    /// A device of this cohort.
    fn device_of(&self, cohort: &str) -> Profile {
        let (workspace, _) = self.fleet.open();
        let repository = workspace.repository().unwrap();
        let of = |number: u32| {
            let profile = Fleet::profile(&format!("device-{number}"), "stable", "os", "board-a");
            let answer = explain(workspace.dir(), &repository, &profile, self.fleet.now).unwrap();
            (answer.explanation.cohort.cohort.as_str() == cohort).then_some(profile)
        };
        (0..).find_map(of).unwrap()
    }

    /// What a device says tonight.
    fn asks(&self, profile: &Profile) -> Outcome {
        self.fleet.nightly(&self.site);
        self.fleet.device(&self.site, profile).check().unwrap().explanation.outcome
    }

    fn ledger(&self) -> Vec<tidegate::workspace::ledger::Entry> {
        Ledger::open(&self.fleet.path()).unwrap().entries().to_vec()
    }
}

/// The rollout lives as long as the renewal job, and stops by itself when the job dies.
#[test]
fn rollout_stops_when_the_renewal_job_dies() {
    let mut job = Job::new();
    let device = job.device_of("canary");
    for day in 0..5 {
        assert!(matches!(job.asks(&device), Outcome::Install { .. }), "day {day}");
        for _ in 0..2 {
            job.fleet.pass(12);
            assert_eq!(job.run([200, 198, 2, 1]).unwrap().action, Action::Renew);
        }
    }
    let last = job.ledger().last().unwrap().clone();
    assert_eq!((last.event.as_str(), last.actor.as_str()), ("renew", "job"));
    assert_eq!(last.evidence["health"]["installed"], 209);
    let kept = fs::read(job.fleet.path().join("releases/stable/os/1.0.0/health.json")).unwrap();
    let sha256 = tidegate_model::digest::Digest::of(&kept).to_string();
    assert_eq!(last.evidence["health"]["sha256"], sha256, "what the ledger names is there");

    // The job dies. Nobody else does anything but the nightly refresh.
    job.fleet.pass(23);
    assert!(matches!(job.asks(&device), Outcome::Install { .. }));
    job.fleet.pass(2);
    let outcome = job.asks(&device);
    let Outcome::Wait { rule: tidegate_model::decision::Rule::Until, why, .. } = &outcome else { panic!("{outcome}") };
    assert!(why.contains("the rollout was not renewed"), "{why}");
    assert_eq!(job.state(), (ReleaseState::Limited, false), "nobody had to do anything");

    // It comes back, and with it the rollout.
    job.fleet.pass(100);
    assert_eq!(rule(job.run([200, 198, 2, 1])), "R-VALIDATED", "to take it up exposes devices anew");
    job.fleet.validate(&job.spec);
    assert_eq!(job.run([200, 198, 2, 1]).unwrap().action, Action::Renew);
    assert!(matches!(job.asks(&device), Outcome::Install { .. }));
}

#[test]
fn a_ramp_goes_on_from_where_it_stopped_when_nobody_looked() {
    let mut job = Job::new();
    job.fleet.pass(20);
    job.run([200, 198, 0, 0]).unwrap();
    job.fleet.pass(20);
    job.run([200, 198, 0, 0]).unwrap();
    job.fleet.pass(8);
    let early = |job: &Job| named(&job.in_force(), "early").clone();
    job.fleet.advance(&job.spec, 48).unwrap();
    let ramp = early(&job).offers[0].ramp.unwrap();
    let begun = job.fleet.now;
    // Nobody comes for a week. The ramp got as far as 24 of its 48 hours.
    job.fleet.pass(24 * 7);
    assert_eq!(early(&job).exposed(1, job.fleet.now), 500_000);
    job.fleet.validate(&job.spec);
    job.run([200, 198, 0, 0]).unwrap();
    let moved = early(&job).offers[0].ramp.unwrap();
    assert_eq!(moved.exposure(job.fleet.now), ramp.exposure(begun + TimeDelta::hours(24)), "no leap");
    assert_eq!(moved.end() - ramp.end(), TimeDelta::days(6));
}

#[test]
fn what_was_stopped_does_not_go_on_into_a_freeze() {
    let mut fleet = Fleet::shaped(|name, text| match name {
        // From the fifth day on.
        "policy.toml" => {
            format!("{text}\n[[freeze]]\nfrom = \"2026-11-30\"\nuntil = \"2026-12-02\"\nreason = \"an audit\"\n")
        }
        _ => text,
    });
    let spec = fleet.release("1.0.0", |_| ());
    fleet.start(&spec);
    fleet.pass(48);
    fleet.advance(&spec, 48).unwrap();
    // Paused for a day, the ramp that would have ended in time no longer does.
    fleet.pass(24);
    fleet.step(&spec, |transaction, op| transaction.pause(op, None)).unwrap();
    fleet.pass(25);
    let before = fleet.metadata();
    let resume = |fleet: &Fleet| {
        fleet.step(&spec, |transaction, op| transaction.resume(tidegate::rollout::RampRequest::default(), op))
    };
    let error = resume(&fleet).unwrap_err();
    assert_eq!(error.broken_rule(), Some(Rule::ReleaseFreeze));
    assert!(error.to_string().contains("run into a freeze that begins at 2026-11-30"), "{error}");
    assert_eq!(fleet.metadata(), before, "nothing half done");
    fleet.pass(24 * 4);
    fleet.validate(&spec);
    resume(&fleet).unwrap();

    // Nobody looks after it for so long that it stops; a freeze that was added meanwhile holds it back.
    let policy = fleet.path().join("policy.toml");
    let text = fs::read_to_string(&policy).unwrap();
    fs::write(&policy, text.replace("2026-11-30", "2026-12-05").replace("2026-12-02", "2026-12-20")).unwrap();
    let renew = |fleet: &Fleet| fleet.step(&spec, |transaction, op| transaction.renew(op));
    renew(&fleet).unwrap();
    fleet.pass(24 * 5);
    assert_eq!(rule(renew(&fleet)), "R-FREEZE");
    fleet.pass(24 * 14);
    fleet.validate(&spec);
    renew(&fleet).unwrap();
}

#[test]
fn failures_pause_the_rollout_and_worse_ones_withdraw_the_release() {
    let mut job = Job::new();
    let device = job.device_of("canary");
    job.fleet.pass(12);
    let verdict = job.run([200, 190, 3, 5]).unwrap();
    assert_eq!((verdict.action, verdict.findings[0].rule), (Action::Pause, tidegate::Rule::HealthRolledBack));
    assert_eq!(job.state(), (ReleaseState::Limited, true));
    let outcome = job.asks(&device);
    assert!(matches!(&outcome, Outcome::Wait { until: None, .. }), "{outcome}");
    let entry = job.ledger().into_iter().rev().find(|entry| entry.event == "pause").unwrap();
    assert_eq!(
        entry.evidence["reason"],
        "H-ROLLED-BACK: 5 of 200 devices of the cohort canary (2.5%) rolled back; policy.toml allows 2%"
    );
    assert_eq!(entry.evidence["health"]["rolled_back"], 5);

    // Well again: but whoever resumes it is a person.
    job.fleet.pass(1);
    assert_eq!(rule(job.run([200, 199, 0, 0])), "R-PAUSED");
    // Still ill: nothing more to do.
    let before = job.ledger().len();
    assert_eq!(job.run([200, 190, 3, 5]).unwrap().action, Action::Pause);
    assert_eq!(job.ledger().len(), before);
    // Much worse, although it is paused.
    assert_eq!(job.run([200, 100, 3, 30]).unwrap().action, Action::Withdraw);
    assert_eq!(job.state(), (ReleaseState::Withdrawn, false));
    let outcome = job.asks(&device);
    assert!(matches!(&outcome, Outcome::NoOffer { .. }), "{outcome}");
    assert_eq!(job.ledger().into_iter().rev().find(|entry| entry.event == "withdraw").unwrap().actor, "job");
}

/// Two releases are limited at once: a report judges each by its own counts.
#[test]
fn each_offer_is_judged_by_itself() {
    let mut job = Job::new();
    job.fleet.pass(12);
    let newer = job.fleet.release("2.0.0", |_| ());
    job.fleet.start(&newer);
    let device = job.device_of("canary");
    let mut report = job.report([200, 199, 0, 0]);
    let mut second = report["releases"][0].clone();
    second["release"] = json!("stable/os/2.0.0");
    second["sequence"] = json!(2);
    second["cohorts"]["canary"] = json!({"installed": 200, "confirmed": 190, "failed": 3, "rolled_back": 5});
    report["releases"].as_array_mut().unwrap().push(second);
    let until = |sequence: u64| job.in_force().iter().find_map(|cohort| cohort.offer(sequence)?.until).unwrap();
    let before = until(1);
    job.fleet.pass(1);
    report["at"] = json!(time::format(job.fleet.now));
    let judged = |spec: &ReleaseSpec, sequence: u64| job.judge(spec, sequence, &report).unwrap().action;
    assert_eq!((judged(&newer, 2), judged(&job.spec, 1)), (Action::Pause, Action::Renew));
    let paused =
        |sequence: u64| job.in_force().iter().any(|cohort| cohort.offer(sequence).is_some_and(|own| own.paused));
    assert_eq!((paused(2), paused(1)), (true, false));
    let until = |sequence: u64| job.in_force().iter().find_map(|cohort| cohort.offer(sequence)?.until).unwrap();
    assert!(until(1) > before, "what is well is renewed");
    let outcome = job.asks(&device);
    assert!(matches!(&outcome, Outcome::Install { release, .. } if release.to_string() == "1.0.0"), "{outcome}");
}

#[test]
fn a_report_that_cannot_be_relied_on_changes_nothing() {
    let mut job = Job::new();
    job.fleet.pass(12);
    let (metadata, ledger) = (job.fleet.metadata(), job.ledger().len());
    let edited = |pointer: &str, to: Value| {
        let mut report = job.report([200, 199, 0, 0]);
        *report.pointer_mut(pointer).unwrap() = to;
        report
    };
    for (report, expected) in [
        (edited("/at", json!(time::format(job.fleet.now - TimeDelta::hours(2)))), "H-AGE"),
        (edited("/releases/0/cohorts", json!({})), "H-COHORT"),
        (edited("/releases", json!([])), "H-RELEASE"),
        (edited("/releases/0/cohorts/canary", json!({"installed": 1})), "H-REPORT"),
        (json!("well"), "H-REPORT"),
    ] {
        assert_eq!(rule(job.run_with(&report)), expected);
    }
    assert_eq!((job.fleet.metadata(), job.ledger().len()), (metadata, ledger));
}

/// Policy can require a report for every renewal, and a policy that can stop nothing is refused.
#[test]
fn policy_can_require_a_report_for_each_renewal() {
    let fleet = Fleet::shaped(|name, text| match name {
        "policy.toml" => text.replace("required = false", "required = true"),
        _ => text,
    });
    let spec = fleet.release("1.0.0", |_| ());
    fleet.start(&spec);
    assert_eq!(rule(fleet.step(&spec, |transaction, op| transaction.renew(op))), "R-HEALTH");

    let text = fs::read_to_string(fleet.path().join("policy.toml")).unwrap();
    for (from, to, says) in [
        ("min_sample = 50", "min_sample = 0", "health.min_sample"),
        ("max_age = \"1h\"", "max_age = \"0\"", "health.max_age"),
        ("failed = \"20%\"", "failed = \"1%\"", "health.withdraw.failed: 1% is less than the 5% that pause it"),
        ("pause = {", "paws = {", "paws"),
    ] {
        assert!(text.contains(from), "{from}");
        let error = tidegate::policy::Policy::parse(text.replace(from, to).as_bytes()).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    let none: String = text
        .lines()
        .filter(|line| !line.starts_with("pause =") && !line.starts_with("withdraw ="))
        .fold(String::new(), |text, line| text + line + "\n");
    let error = tidegate::policy::Policy::parse(none.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("nothing would ever stop a rollout"), "{error}");
}

//! Approvals are signatures over one step in one place of a release's life.

use std::fs;

use crate::support::fleet::{Fleet, rule};
use tidegate::policy::ReleaseEvent;
use tidegate::release::approval;
use tidegate::release::record::{RecordedUrgency, ReleaseSpec};
use tidegate::rollout::RampRequest;
use tidegate::workspace::{Ledger, Operation};
use tidegate::{Error, Kind};

const RULE: &str = r#"
[[approval]]
steps = ["register", "start", "advance"]
by = ["release-1", "release-2"]
count = 2
"#;

fn fleet(rule: &str) -> Fleet {
    let fleet = Fleet::new();
    let path = fleet.path().join("policy.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{text}\n{rule}")).unwrap();
    fleet
}

fn approve(
    fleet: &Fleet,
    spec: &ReleaseSpec,
    step: ReleaseEvent,
    cohort: Option<&str>,
    key: &str,
) -> Result<(), Error> {
    let (workspace, mut ring) = fleet.open();
    let cohort = cohort.map(|cohort| cohort.parse().unwrap());
    approval::approve(&mut Operation::new(&workspace, "tester", fleet.now, &mut ring), spec, step, cohort, key)
        .map(|_| ())
}

/// A security release is registered without approval if policy allows it.
#[test]
fn security_release_can_skip_approval() {
    let register = |skip: &str| {
        let fleet = fleet(RULE);
        let path = fleet.path().join("policy.toml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text.replace("skip = [\"soak\", \"ramp\", \"freeze\"]", &format!("skip = [{skip}]"))).unwrap();
        let spec = fleet.draft("1.0.0", |new| new.urgency = RecordedUrgency::Security);
        fleet.sign(&spec).unwrap();
        fleet.validate(&spec);
        fleet.register(&spec)
    };
    assert_eq!(rule(register("\"ramp\"")), "R-APPROVAL");
    register("\"approval\"").unwrap();
}

fn both(fleet: &Fleet, spec: &ReleaseSpec, step: ReleaseEvent, cohort: Option<&str>) {
    for key in ["release-1", "release-2"] {
        approve(fleet, spec, step, cohort, key).unwrap();
    }
}

fn start(fleet: &Fleet, spec: &ReleaseSpec) -> Result<(), Error> {
    fleet.step(spec, |transaction, op| transaction.start(RampRequest::default(), op)).map(|_| ())
}

#[test]
fn each_step_waits_for_its_own_approvals() {
    let mut fleet = fleet(RULE);
    let spec = fleet.draft("1.0.0", |_| ());
    fleet.sign(&spec).unwrap();
    fleet.validate(&spec);
    assert_eq!(rule(fleet.register(&spec)), "R-APPROVAL");
    both(&fleet, &spec, ReleaseEvent::Register, None);
    fleet.register(&spec).unwrap();

    assert_eq!(rule(start(&fleet, &spec)), "R-APPROVAL", "those for registration are not for the start");
    approve(&fleet, &spec, ReleaseEvent::Start, None, "release-1").unwrap();
    let error = start(&fleet, &spec).unwrap_err();
    assert!(error.to_string().contains("has fewer (release-1)"), "{error}");
    approve(&fleet, &spec, ReleaseEvent::Start, None, "release-1").unwrap();
    assert_eq!(rule(start(&fleet, &spec)), "R-APPROVAL", "one person twice is one person");
    approve(&fleet, &spec, ReleaseEvent::Start, None, "release-2").unwrap();
    start(&fleet, &spec).unwrap();
    let ledger = Ledger::open(&fleet.path()).unwrap();
    let line = ledger.entries().iter().rev().find(|entry| entry.event == "start").unwrap();
    assert_eq!(line.evidence["approved"], serde_json::json!(["release-1", "release-2"]));

    fleet.pass(48);
    both(&fleet, &spec, ReleaseEvent::Advance, Some("general"));
    assert_eq!(rule(fleet.advance(&spec, 24)), "R-APPROVAL", "the next cohort is early");
    both(&fleet, &spec, ReleaseEvent::Advance, Some("early"));
    fleet.advance(&spec, 24).unwrap();
}

#[test]
fn an_approval_counts_only_where_the_release_stood() {
    let fleet = fleet(RULE);
    let spec = fleet.draft("1.0.0", |_| ());
    fleet.sign(&spec).unwrap();
    fleet.validate(&spec);
    both(&fleet, &spec, ReleaseEvent::Register, None);
    fleet.validate(&spec);
    fleet.register(&spec).unwrap();
    both(&fleet, &spec, ReleaseEvent::Start, None);
    // The same file, once the release has moved.
    let path = fleet.path().join("releases/stable/os/1.0.0/approvals.json");
    let kept = fs::read(&path).unwrap();
    fleet.step(&spec, |transaction, op| transaction.pause(op, None)).unwrap_err();
    fleet.validate(&spec);
    fleet.step(&spec, |transaction, op| transaction.expose(op)).unwrap();
    fs::write(&path, &kept).unwrap();
    assert_eq!(rule(start(&fleet, &spec)), "R-APPROVAL");
}

#[test]
fn a_name_in_the_file_is_no_approval() {
    let fleet = fleet(RULE);
    let spec = fleet.draft("1.0.0", |_| ());
    fleet.sign(&spec).unwrap();
    fleet.validate(&spec);
    approve(&fleet, &spec, ReleaseEvent::Register, None, "release-1").unwrap();
    let path = fleet.path().join("releases/stable/os/1.0.0/approvals.json");
    let mut file: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    // The one signature there is, under the other key's id; and the right one over another step.
    let (workspace, ring) = fleet.open();
    let other = ring.entry("release-2").unwrap().public.id();
    drop(workspace);
    let mut forged = file["approvals"][0].clone();
    forged["keyid"] = other.as_str().into();
    file["approvals"].as_array_mut().unwrap().push(forged);
    fs::write(&path, serde_json::to_vec(&file).unwrap()).unwrap();
    assert_eq!(rule(fleet.register(&spec)), "R-APPROVAL");
    file["approvals"][1]["sig"] = "00".repeat(64).into();
    fs::write(&path, serde_json::to_vec(&file).unwrap()).unwrap();
    assert_eq!(rule(fleet.register(&spec)), "R-APPROVAL");
}

#[test]
fn an_approval_that_nobody_asks_for_is_a_mistake() {
    let fleet = fleet(RULE);
    let spec = fleet.release_with_approvals("1.0.0");
    assert_eq!(rule(approve(&fleet, &spec, ReleaseEvent::Complete, None, "release-1")), "R-APPROVAL");
    assert_eq!(rule(approve(&fleet, &spec, ReleaseEvent::Start, None, "rollout")), "R-APPROVAL");
    let error = approve(&fleet, &spec, ReleaseEvent::Start, None, "nobody").unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
}

impl Fleet {
    /// A validated, registered release where registration takes approvals.
    fn release_with_approvals(&self, version: &str) -> ReleaseSpec {
        let spec = self.draft(version, |_| ());
        self.sign(&spec).unwrap();
        self.validate(&spec);
        both(self, &spec, ReleaseEvent::Register, None);
        self.register(&spec).unwrap();
        spec
    }
}

#[test]
fn a_policy_that_names_nobody_stops_every_command_with_a_remedy() {
    let fleet = fleet("[[approval]]\nsteps = [\"start\"]\nby = [\"somebody\"]\ncount = 1");
    let (workspace, _) = fleet.open();
    let error = workspace.policy().unwrap_err();
    assert!(
        error.to_string().starts_with("policy.toml: approval[0].by: tidegate.toml names no key somebody"),
        "{error}"
    );
    assert!(error.remedy_text().unwrap().contains("release-1"), "{error}");
}

//! Stepping stones, from validation to the device: chains of them, gaps, and what happens when one is taken away.

use std::fs;
use std::path::Path;
use tidegate::Rule;

use crate::support::fleet::{Fleet, lay_out, named, rule};
use tidegate::ceremony;
use tidegate::policy::ReleaseState;
use tidegate::release::record::{RecordedUrgency, ReleaseSpec};
use tidegate::release::report::{CheckResult, Verdict};
use tidegate::release::{draft, retire};
use tidegate::rollout::RampRequest;
use tidegate::validate::{self, Options};
use tidegate::workspace::{Ledger, Operation};
use tidegate_model::decision::{Installed, Outcome};
use tidegate_model::rollout::Offer;

use super::finish;
use super::validation::plain;

fn upgrading(fleet: &Fleet, version: &str, from: &str) -> ReleaseSpec {
    fleet.release(version, |new| new.upgrade_from = Some(from.parse().unwrap()))
}

/// What a rule says of a release, given a fleet of these devices.
fn finding(fleet: &Fleet, spec: &ReleaseSpec, rule: &str, devices: &str) -> CheckResult {
    let csv = fleet.dir.path().join("fleet.csv");
    fs::write(&csv, format!("id,hardware,version\n{devices}")).unwrap();
    let (workspace, mut ring) = fleet.open();
    let options = Options { fleet: Some(csv), ..Options::default() };
    let report =
        validate::validate(&mut Operation::new(&workspace, "tester", fleet.now, &mut ring), spec, &options).unwrap().1;
    report.findings.into_iter().find(|finding| finding.rule == rule).unwrap()
}

fn withdraw(fleet: &Fleet, spec: &ReleaseSpec) -> tidegate::rollout::StepOutcome {
    fleet.step(spec, |transaction, op| transaction.withdraw(op, Some("it eats flash"))).unwrap()
}

fn offered(fleet: &Fleet, spec: &ReleaseSpec, cohort: &str) -> Offer {
    let (workspace, _) = fleet.open();
    let transaction = tidegate::rollout::RolloutTransaction::open(&workspace, spec, fleet.now).unwrap();
    named(transaction.in_force(), cohort).offers[0].clone()
}

fn stones(offer: &Offer) -> Vec<String> {
    offer.bridges.iter().map(|bridge| bridge.release.to_string()).collect()
}

/// 1.0.0 -> 1.1.0 -> 2.0.0 -> 3.0.0, none of which can be left out.
fn chain(fleet: &Fleet) -> [ReleaseSpec; 4] {
    let first = fleet.release("1.0.0", |_| ());
    [
        first,
        upgrading(fleet, "1.1.0", ">=1.0.0"),
        upgrading(fleet, "2.0.0", ">=1.1.0"),
        upgrading(fleet, "3.0.0", ">=2.0.0"),
    ]
}

/// A device follows a chain of bridges, and validation finds a missing one.
#[test]
fn chain_of_bridges_is_followed() {
    let fleet = Fleet::new();
    let [_, stone, _, newest] = chain(&fleet);
    let devices = "old,board-a,1.0.0\nnew,board-a,2.0.0\n";
    let ways = finding(&fleet, &newest, "V-ELI-05", devices);
    assert_eq!((ways.verdict, ways.detail.as_str()), (Verdict::Pass, "from each of the 3 before it"));
    let ways = finding(&fleet, &newest, "V-ELI-06", devices);
    assert_eq!(ways.detail, "of 2 devices 1 go directly, 1 over bridges, 0 are not meant to have it");
    let ways = finding(&fleet, &newest, "V-ELI-06", "older,board-a,0.9.0\n");
    assert_eq!(
        ways.verdict,
        Verdict::Pass,
        "1.0.0 upgrades from every version, and is a stone as well: {}",
        ways.detail
    );

    withdraw(&fleet, &stone);
    let ways = finding(&fleet, &newest, "V-ELI-05", devices);
    assert_eq!(ways.verdict, Verdict::Fail);
    assert!(ways.detail.contains("from 1.0.0 on board-a"), "{}", ways.detail);
    let ways = finding(&fleet, &newest, "V-ELI-06", devices);
    assert_eq!(ways.verdict, Verdict::Fail);
    assert!(ways.detail.starts_with("1 of 2 devices cannot update: old on 1.0.0"), "{}", ways.detail);
    // And that holds the rollout back.
    let start = fleet.step(&newest, |transaction, op| transaction.start(RampRequest::default(), op));
    assert_eq!(rule(start), "R-VALIDATED");
}

#[test]
fn a_report_from_before_a_bridge_was_withdrawn_is_not_fresh() {
    let fleet = Fleet::new();
    let [_, stone, _, newest] = chain(&fleet);
    let start = |fleet: &Fleet| fleet.step(&newest, |transaction, op| transaction.start(RampRequest::default(), op));
    withdraw(&fleet, &stone);
    let refused = start(&fleet).unwrap_err();
    assert_eq!(refused.broken_rule(), Some(Rule::ReleaseValidated));
    assert!(refused.to_string().contains("stable/os/1.1.0 was withdrawn"), "{refused}");

    // A release that nobody is offered can be retired, whatever may come to need it.
    let fleet = Fleet::new();
    let [_, stone, _, newest] = chain(&fleet);
    let id = stone.find(&fleet.path()).unwrap().id();
    let (workspace, _) = fleet.open();
    let request = retire::propose(&workspace, &[id], None, fleet.now).unwrap();
    ceremony::start(
        &mut Operation::new(&workspace, "tester", fleet.now, &mut tidegate::keys::KeyRing::empty()),
        &request,
    )
    .unwrap();
    drop(workspace);
    finish(&fleet).unwrap();
    let start = |fleet: &Fleet| fleet.step(&newest, |transaction, op| transaction.start(RampRequest::default(), op));
    let refused = start(&fleet).unwrap_err();
    assert!(refused.to_string().contains("stable/os/1.1.0 was retired"), "{refused}");
    let ways = finding(&fleet, &newest, "V-ELI-05", "");
    assert_eq!(ways.verdict, Verdict::Fail, "{}", ways.detail);

    // What is no way to it does not matter.
    let fleet = Fleet::new();
    let other = fleet.release("1.0.0", |_| ());
    let anywhere = fleet.release("1.1.0", |_| ());
    withdraw(&fleet, &other);
    fleet.start(&anywhere);
}

/// A withdrawn bridge is removed from the offers that name it; nothing else of them changes.
#[test]
fn withdrawn_bridge_is_removed_from_offers() {
    let mut fleet = Fleet::new();
    fleet.release("1.0.0", |_| ());
    let stone = upgrading(&fleet, "1.1.0", ">=1.0.0");
    let newest = upgrading(&fleet, "2.0.0", ">=1.1.0");
    fleet.start(&newest);
    let before = offered(&fleet, &newest, "canary");
    assert_eq!(stones(&before), ["1.1.0", "1.0.0"]);
    fleet.pass(1);
    // A draft has no sequence yet, so it is nobody's bridge: least of all in the place of the first release.
    let draft: ReleaseSpec = "3.0.0".parse().unwrap();
    draft::new(
        &mut Operation::new(&fleet.open().0, "tester", fleet.now, &mut tidegate::keys::KeyRing::empty()),
        plain(&draft),
    )
    .unwrap();
    let done = withdraw(&fleet, &draft);
    assert_eq!((done.roles.len(), done.bridge_of.len()), (0, 0), "{:?}", done.roles);
    let done = withdraw(&fleet, &stone);
    assert_eq!((done.record.state, done.bridge_of), (ReleaseState::Withdrawn, vec!["2.0.0".to_owned()]));
    let after = offered(&fleet, &newest, "canary");
    assert_eq!(stones(&after), ["1.0.0"]);
    // Whoever withdraws one release has not looked after another, whose end by itself comes no later for it.
    assert_eq!(Offer { bridges: Vec::new(), ..after }, Offer { bridges: Vec::new(), ..before });
    let ledger = Ledger::open(&fleet.path()).unwrap();
    let entry = ledger.entries().iter().rfind(|entry| entry.event == "withdraw").unwrap();
    assert_eq!(entry.evidence["bridge_of"], serde_json::json!(["2.0.0"]));

    // One that had stopped by itself by then does not start again.
    let mut fleet = Fleet::new();
    fleet.release("1.0.0", |_| ());
    let stone = upgrading(&fleet, "1.1.0", ">=1.0.0");
    let newest = upgrading(&fleet, "2.0.0", ">=1.1.0");
    fleet.start(&newest);
    fleet.pass(73);
    withdraw(&fleet, &stone);
    assert!(offered(&fleet, &newest, "canary").has_ended(fleet.now));
}

/// What a device that runs 1.0.0 decides.
fn decision(fleet: &Fleet, site: &Path) -> Outcome {
    let mut profile = Fleet::profile("device-1", "stable", "os", "board-a");
    profile.installed = Installed { version: "1.0.0".parse().unwrap(), sequence: 1 };
    fleet.device(site, &profile).check().unwrap().explanation.outcome
}

#[test]
fn devices_go_over_a_bridge_until_it_is_withdrawn() {
    let fleet = Fleet::new();
    fleet.release("1.0.0", |_| ());
    let stone = upgrading(&fleet, "1.1.0", ">=1.0.0");
    let newest = fleet.release("2.0.0", |new| {
        new.urgency = RecordedUrgency::Security;
        new.upgrade_from = Some(">=1.1.0".parse().unwrap());
    });
    fleet.start(&newest);
    let site = fleet.dir.path().join("site");
    lay_out(&fleet, &site);
    let outcome = decision(&fleet, &site);
    assert!(matches!(&outcome, Outcome::Install { sequence: 2, .. }), "{outcome:?}");

    withdraw(&fleet, &stone);
    lay_out(&fleet, &site);
    let outcome = decision(&fleet, &site);
    assert!(matches!(&outcome, Outcome::NotEligible { .. }), "{outcome:?}");
}

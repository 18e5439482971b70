//! Two lines of releases at once, each device on the newest that is meant for it; the speed of ramps; staged security releases.

use chrono::TimeDelta;
use tidegate::policy::ReleaseState;
use tidegate::release::record::{RecordedUrgency, ReleaseSpec};
use tidegate::rollout::RampRequest;
use tidegate_model::decision::{Installed, Outcome};

use crate::support::Fleet;
use crate::support::fleet::{named, rule};

/// What a device of this name on this release does.
fn does(fleet: &Fleet, id: &str, hardware: &str, version: &str, sequence: u64) -> String {
    let site = fleet.dir.path().join("site");
    fleet.nightly(&site);
    let mut profile = Fleet::profile(id, "stable", "os", hardware);
    profile.installed = Installed { version: version.parse().unwrap(), sequence };
    match fleet.device(&site, &profile).check().unwrap().explanation.outcome {
        Outcome::Install { release, .. } => release.to_string(),
        Outcome::UpToDate { .. } => "keeps".into(),
        other => other.to_string(),
    }
}

/// A device of the cohort `early` in the first quarter of the ramp of the release with this sequence, and one in its last quarter.
fn early(fleet: &Fleet, sequence: u64) -> (String, String) {
    let (workspace, _) = fleet.open();
    let repository = workspace.repository().unwrap();
    let map = tidegate::workspace::map_in_force(workspace.dir(), &repository, &"stable".parse().unwrap()).unwrap();
    let of = |first: bool| {
        (0..1000).map(|number| format!("device-{number}")).find(|name| {
            let choice = map.choose(&name.parse().unwrap(), &tidegate_model::facts::Facts::new());
            let position = choice.order.position(sequence);
            let is_there = if first { position < u64::MAX / 4 } else { position > u64::MAX / 4 * 3 };
            choice.cohort.as_str() == "early" && is_there
        })
    };
    (of(true).unwrap(), of(false).unwrap())
}

fn offered(outcome: &tidegate::rollout::StepOutcome, cohort: &str) -> Vec<String> {
    named(&outcome.in_force, cohort).offers.iter().map(|offer| offer.release.to_string()).collect()
}

/// A fix for the stable line while the next one ramps: each device gets what is meant for it, and the next line goes on with the fix.
#[test]
fn a_fix_for_the_stable_line_while_the_next_one_ramps() {
    let mut fleet = Fleet::new();
    let stable = fleet.release("1.5.0", |_| ());
    fleet.everywhere(&stable);
    let next = fleet.release("2.0.0", |_| ());
    fleet.start(&next);
    fleet.pass(49);
    fleet.advance(&next, 24).unwrap();
    fleet.pass(12);
    let (reached, late) = early(&fleet, 2);
    assert_eq!(does(&fleet, &reached, "board-a", "1.5.0", 1), "2.0.0");
    assert!(does(&fleet, &late, "board-a", "1.5.0", 1).starts_with("wait until"));
    // A device from the factory gets the stable line meanwhile.
    assert_eq!(does(&fleet, &late, "board-a", "1.0.0", 0), "1.5.0");

    let fix = fleet.release("1.5.1", |new| new.urgency = RecordedUrgency::Security);
    let outcome = fleet.step(&fix, |transaction, op| transaction.start(RampRequest::default(), op)).unwrap();
    assert_eq!(outcome.record.state, ReleaseState::Security);
    assert_eq!(offered(&outcome, "early"), ["2.0.0", "1.5.1", "1.5.0"]);
    assert_eq!(does(&fleet, &late, "board-a", "1.5.0", 1), "1.5.1");
    assert_eq!(does(&fleet, &reached, "board-a", "1.5.0", 1), "2.0.0", "the ramp still reaches its devices");
    assert_eq!(does(&fleet, &reached, "board-a", "2.0.0", 2), "keeps");

    // Completing the fix removes what it replaces, and nothing of the next line.
    fleet.validate(&fix);
    let outcome = fleet.step(&fix, |transaction, op| transaction.complete(op)).unwrap();
    assert_eq!(offered(&outcome, "early"), ["2.0.0", "1.5.1"]);

    // The next line goes on with the fix where it stood.
    let continued = fleet.release("2.0.1", |_| ());
    fleet.start(&continued);
    fleet.pass(49);
    fleet.advance(&continued, 24).unwrap();
    fleet.pass(25);
    assert_eq!(does(&fleet, &late, "board-a", "1.5.1", 3), "2.0.1");
    assert_eq!(does(&fleet, &reached, "board-a", "2.0.0", 2), "2.0.1");
}

/// Hardware that no newer release serves keeps getting its own fixes, also once the newer line is stable.
#[test]
fn hardware_that_the_newer_line_leaves_out_keeps_its_fixes() {
    let mut fleet = Fleet::new();
    let old = fleet.release_for("1.0.0", "board-b", |_| ());
    fleet.everywhere(&old);
    let newer = fleet.release("2.0.0", |_| ());
    let outcome = fleet.everywhere(&newer);
    assert_eq!(outcome.kept, ["1.0.0"], "named, as it still serves some hardware");
    assert_eq!(does(&fleet, "device-1", "board-b", "0.9.0", 0), "1.0.0");
    assert_eq!(does(&fleet, "device-1", "board-a", "0.9.0", 0), "2.0.0");
    let fix = fleet.release_for("1.0.1", "board-b", |_| ());
    let outcome = fleet.everywhere(&fix);
    assert_eq!(outcome.record.state, ReleaseState::Stable);
    assert_eq!(does(&fleet, "device-1", "board-b", "1.0.0", 1), "1.0.1");
    assert_eq!(does(&fleet, "device-1", "board-a", "2.0.0", 2), "keeps");
}

/// A running ramp gets another speed, forward only: whoever was reached stays reached.
#[test]
fn a_running_ramp_changes_its_speed_and_nobody_loses() {
    for (hours, fast) in [("30h", true), ("90d", false)] {
        let mut fleet = Fleet::new();
        let spec = fleet.release("1.0.0", |_| ());
        fleet.start(&spec);
        fleet.pass(49);
        fleet.advance(&spec, 24 * 30).unwrap();
        fleet.pass(24);
        let ramp = |fleet: &Fleet| {
            let in_force = fleet.step(&spec, |transaction, _| Ok(transaction.in_force().to_vec())).unwrap();
            named(&in_force, "early").offers[0].ramp.unwrap()
        };
        let before = ramp(&fleet).exposure(fleet.now);
        let request = RampRequest { span: Some(hours.parse().unwrap()), ..RampRequest::default() };
        let cohort = "early".parse().unwrap();
        fleet.step(&spec, |transaction, op| transaction.advance(request, Some(&cohort), op)).unwrap();
        let after = ramp(&fleet);
        assert!(after.exposure(fleet.now) >= before, "nobody loses it");
        assert!(after.exposure(fleet.now).to_ppm() <= before.to_ppm() + 1, "and nobody gains it at once");
        assert_eq!(after.end() < fleet.now + TimeDelta::days(29), fast);
        // Not faster than policy allows.
        let leap = RampRequest { span: Some("1h".parse().unwrap()), ..RampRequest::default() };
        assert_eq!(rule(fleet.step(&spec, |transaction, op| transaction.advance(leap, Some(&cohort), op))), "R-RAMP");
        // Nor backwards.
        let back = RampRequest { span: Some("24h".parse().unwrap()), from: None, to: Some(1) };
        fleet.step(&spec, |transaction, op| transaction.advance(back, Some(&cohort), op)).unwrap_err();

        // Also when resuming.
        fleet.step(&spec, |transaction, op| transaction.pause(op, None)).unwrap();
        let paused = ramp(&fleet).exposure(fleet.now);
        fleet.pass(10);
        fleet.validate(&spec);
        fleet.step(&spec, |transaction, op| transaction.resume(request, op)).unwrap();
        let resumed = ramp(&fleet).exposure(fleet.now);
        assert!(resumed >= paused && resumed.to_ppm() <= paused.to_ppm() + 1);
    }
}

/// A security release goes through the cohorts if it is asked to, where policy allows that.
#[test]
fn a_security_release_is_staged_where_policy_allows_it() {
    let start = |fleet: &Fleet, spec: &ReleaseSpec| {
        let part = RampRequest { to: Some(100_000), ..RampRequest::default() };
        fleet.step(spec, |transaction, op| transaction.start(part, op))
    };
    let urgent = |fleet: &Fleet| fleet.release("1.0.0", |new| new.urgency = RecordedUrgency::Security);
    let fleet = Fleet::new();
    assert_eq!(rule(start(&fleet, &urgent(&fleet))), "R-RAMP");
    let fleet = Fleet::shaped(|name, text| match name {
        "policy.toml" => text.replace("staged = false", "staged = true"),
        _ => text,
    });
    let spec = urgent(&fleet);
    let outcome = start(&fleet, &spec).unwrap();
    assert_eq!(outcome.record.state, ReleaseState::Limited);
    assert!(named(&outcome.in_force, "general").offers.is_empty());
    assert_eq!(named(&outcome.in_force, "canary").exposed(1, fleet.now), 100_000);
}

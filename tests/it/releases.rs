//! The life of releases through the library: what the transcripts of the command line do not show.

use std::fs;
use tidegate::Rule;

use crate::support::Fleet;
use crate::support::fleet::{named, rule};
use chrono::TimeDelta;
use tidegate::policy::ReleaseState;
use tidegate::release::draft;
use tidegate::release::record::RecordedUrgency;
use tidegate::rollout::RampRequest;
use tidegate::validate;
use tidegate::workspace::Ledger;
use tidegate::workspace::Operation;
use tidegate_model::rollout::Stage;

#[test]
fn of_two_proposals_the_later_one_is_proposed_anew() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.draft("1.0.0", |_| ()), fleet.draft("1.1.0", |_| ()));
    fleet.sign(&one).unwrap();
    fleet.sign(&two).unwrap();
    for spec in [&one, &two] {
        fleet.validate(spec);
    }
    fleet.register(&one).unwrap();
    assert_eq!(rule(fleet.register(&two)), "R-BASE");
    assert_eq!(rule(fleet.sign(&two)), "R-BASE");

    let before = two.find(&fleet.path()).unwrap().manifest.unwrap();
    let again = draft::manifest(
        &mut Operation::new(&fleet.open().0, "tester", fleet.now, &mut tidegate::keys::KeyRing::empty()),
        &two,
    )
    .unwrap();
    assert_eq!(again.record.state, ReleaseState::Draft);
    assert_eq!(again.record.manifest.unwrap(), before, "what is frozen stays as it is");
    fleet.sign(&two).unwrap();
    fleet.validate(&two);
    fleet.register(&two).unwrap();
}

#[test]
fn a_proposal_that_says_something_else_is_not_signed() {
    type Edit = fn(&mut serde_json::Value);
    let fleet = Fleet::new();
    let spec = fleet.draft("1.0.0", |_| ());
    let path = fleet.path().join("proposals/stable-os-1.0.0.json");
    let text = fs::read_to_string(&path).unwrap();
    let edits: [(&str, Edit); 4] = [
        ("another file", |signed| {
            let image = signed["targets"]["stable/releases/os/1.0.0/image.bin"].clone();
            signed["targets"]["stable/releases/os/1.0.0/other.bin"] = image;
        }),
        ("a threshold", |signed| signed["delegations"]["roles"][0]["threshold"] = 2.into()),
        ("the version", |signed| signed["version"] = 3.into()),
        ("a length", |signed| signed["targets"]["stable/releases/os/1.0.0/image.bin"]["length"] = 22.into()),
    ];
    for (what, edit) in edits {
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        edit(&mut value["changes"][0]["signed"]);
        let bytes = tidegate_tuf::json::canonical(&value).unwrap();
        fs::write(&path, [bytes.as_slice(), b"\n"].concat()).unwrap();
        let error = fleet.sign(&spec).unwrap_err();
        assert_eq!(error.broken_rule(), Some(Rule::ReleaseProposal), "{what}: {error}");
    }
    fs::write(&path, "{").unwrap();
    assert_eq!(fleet.sign(&spec).unwrap_err().broken_rule(), Some(Rule::CeremonyFormat));
    fs::write(&path, text).unwrap();
    fleet.sign(&spec).unwrap();
}

#[test]
fn a_report_that_was_edited_does_not_count() {
    let fleet = Fleet::new();
    let spec = fleet.release("1.0.0", |_| ());
    let path = fleet.path().join("releases/stable/os/1.0.0/report.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("not-applicable", "pass", 1)).unwrap();
    let started = fleet.step(&spec, |transaction, op| transaction.start(RampRequest::default(), op));
    let error = started.unwrap_err();
    assert!(error.to_string().contains("is not signed by a key of the channel"), "{error}");
}

#[test]
fn artifacts_that_changed_or_are_gone_fail_validation_and_registration() {
    let fleet = Fleet::new();
    let spec = fleet.draft("1.0.0", |_| ());
    let sha256 = spec.find(&fleet.path()).unwrap().artifacts[0].sha256;
    let path = fleet.path().join(format!("artifacts/sha256/{sha256}"));
    let good = fs::read(&path).unwrap();
    fs::write(&path, "the bites of an image").unwrap();
    let (workspace, mut ring) = fleet.open();
    let (_, report) = validate::validate(
        &mut Operation::new(&workspace, "tester", fleet.now, &mut ring),
        &spec,
        &validate::Options::default(),
    )
    .unwrap();
    drop(workspace);
    assert_eq!(report.failed().map(|finding| finding.rule.as_str()).collect::<Vec<_>>(), ["V-ART-01", "V-REL-02"]);
    fleet.sign(&spec).unwrap();
    assert_eq!(rule(fleet.register(&spec)), "R-VALIDATED");
    fs::write(&path, good).unwrap();
    fleet.validate(&spec);
    // Lost after it was looked at.
    fs::remove_file(&path).unwrap();
    assert!(fleet.register(&spec).unwrap_err().is_not_found());
    assert_eq!(spec.find(&fleet.path()).unwrap().state, ReleaseState::Signed, "nothing was half done");
}

#[test]
fn a_pause_moves_a_ramp_by_as_long_as_it_took() {
    let mut fleet = Fleet::new();
    let spec = fleet.release("1.0.0", |_| ());
    fleet.start(&spec);
    fleet.pass(48);
    let before = named(&fleet.advance(&spec, 24).unwrap(), "early").offers[0].clone().ramp.unwrap();
    fleet.pass(6);
    let exposed = before.exposure(fleet.now);
    fleet.step(&spec, |transaction, op| transaction.pause(op, Some("looking into it"))).unwrap();
    fleet.pass(10);
    let outcome =
        fleet.step(&spec, |transaction, op| transaction.resume(tidegate::rollout::RampRequest::default(), op)).unwrap();
    let after = named(&outcome.in_force, "early").offers[0].clone();
    let ramp = after.ramp.unwrap();
    assert_eq!(ramp.end() - before.end(), TimeDelta::hours(10));
    assert_eq!(ramp.exposure(fleet.now), exposed, "it goes on from where it was");
    assert!(!after.paused && !after.extra.contains_key("paused_since"));
}

#[test]
fn a_security_release_goes_to_all_at_once_after_validation() {
    let fleet = Fleet::new();
    let spec = fleet.release("1.0.1", |new| new.urgency = RecordedUrgency::Security);
    let in_force = fleet.start(&spec);
    assert!(in_force.iter().all(|cohort_in_force| cohort_in_force.offers[0].stage == Stage::Security));
    let outcome = fleet.step(&spec, |transaction, op| transaction.complete(op)).unwrap();
    assert_eq!(outcome.record.state, ReleaseState::Stable);
}

#[test]
fn cohorts_never_go_back_to_a_lower_sequence() {
    let mut fleet = Fleet::new();
    let one = fleet.release("1.0.0", |_| ());
    fleet.start(&one);
    let two = fleet.release("1.1.0", |_| ());
    fleet.start(&two);
    fleet.pass(48);
    let in_force = fleet.advance(&one, 24).unwrap();
    assert!(named(&in_force, "canary").has(2), "the newer one stays");
    assert!(named(&in_force, "early").has(1), "the older one goes on behind it");
    assert_eq!(rule(fleet.step(&one, |transaction, op| transaction.start(RampRequest::default(), op))), "R-ORDER");
}

#[test]
fn a_release_that_not_everybody_can_go_to_lists_its_bridges() {
    let fleet = Fleet::new();
    fleet.release("1.0.0", |_| ());
    let two = fleet.release("2.0.0", |new| new.upgrade_from = Some(">=1.0.0".parse().unwrap()));
    let assignment = named(&fleet.start(&two), "canary").offers[0].clone();
    let bridges: Vec<_> =
        assignment.bridges.iter().map(|bridge| (bridge.release.to_string(), bridge.sequence)).collect();
    assert_eq!(bridges, [("1.0.0".to_owned(), 1)]);
}

#[test]
fn a_limited_rollout_ends_by_itself_and_refresh_does_not_keep_it_alive() {
    let mut fleet = Fleet::new();
    let spec = fleet.release("1.0.0", |_| ());
    let canary = named(&fleet.start(&spec), "canary").clone();
    let until = canary.offers[0].until.unwrap();
    assert_eq!((until - fleet.now, canary.expires - fleet.now), (TimeDelta::hours(72), TimeDelta::days(14)));
    fleet.pass(8 * 24);
    let (workspace, mut ring) = fleet.open();
    let settings = workspace.settings().unwrap();
    let (repository, roles) =
        tidegate::rollout::refresh::refresh(&mut Operation::new(&workspace, "tester", fleet.now, &mut ring), &settings)
            .unwrap();
    drop(workspace);
    // The role lives on, the offer does not.
    assert!(roles.contains(&"stable.canary".to_owned()));
    assert_eq!(repository.role("stable.canary").unwrap().expires, fleet.now + TimeDelta::days(14));
    let in_force = fleet.step(&spec, |transaction, _| Ok(transaction.in_force().to_vec())).unwrap();
    assert_eq!(named(&in_force, "canary").offers[0].until, Some(until));
    fleet.validate(&spec);
    let outcome = fleet.step(&spec, |transaction, op| transaction.renew(op)).unwrap();
    assert_eq!(named(&outcome.in_force, "canary").offers[0].until.unwrap() - fleet.now, TimeDelta::hours(72));
}

#[test]
fn a_refusal_changes_nothing() {
    let fleet = Fleet::new();
    let spec = fleet.release("1.0.0", |_| ());
    fleet.start(&spec);
    let (metadata, ledger) = (fleet.metadata(), fs::read(fleet.path().join("ledger.jsonl")).unwrap());
    fleet.advance(&spec, 24).unwrap_err();
    fleet.step(&spec, |transaction, op| transaction.complete(op)).unwrap_err();
    assert_eq!(fleet.metadata(), metadata);
    assert_eq!(fs::read(fleet.path().join("ledger.jsonl")).unwrap(), ledger);
}

#[test]
fn a_broken_ledger_stops_every_step() {
    let fleet = Fleet::new();
    let spec = fleet.release("1.0.0", |_| ());
    fleet.start(&spec);
    let path = fleet.path().join("ledger.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("tester", "nobody")).unwrap();
    assert_eq!(Ledger::open(&fleet.path()).unwrap_err().broken_rule(), Some(Rule::LedgerChain));
    assert_eq!(rule(fleet.step(&spec, |transaction, op| transaction.pause(op, None))), "L-CHAIN");
    // It stops no machine that renews.
    let (workspace, mut ring) = fleet.open();
    let settings = workspace.settings().unwrap();
    tidegate::rollout::refresh::refresh(&mut Operation::new(&workspace, "tester", fleet.now, &mut ring), &settings)
        .unwrap();
}

//! Decisions: frozen cases with the text that explains them, and what no assignment can bring about.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_model::cohort::CohortMap;
use tidegate_model::decision::{Decision, Inputs, Offer, Outcome, Profile, Quarantined, Rule, Verdict, decide};
use tidegate_model::digest::Digest;
use tidegate_model::explanation::explain;
use tidegate_model::manifest::Manifest;
use tidegate_model::rollout::{Assignment, Ramp};
use tidegate_model::{time, version};

use super::{instant, vectors};

/// A case of `decisions.json`.
#[derive(Deserialize)]
struct Case {
    name: String,
    cohorts: CohortMap,
    device: Profile,
    now: String,
    #[serde(default)]
    quarantined: Vec<Quarantined>,
    assignment: Option<Assignment>,
    manifest: Option<Manifest>,
    outcome: Value,
    verdicts: BTreeMap<String, String>,
    explanation: Vec<String>,
}

#[test]
fn frozen_decisions() {
    for case in vectors::load::<Case>("decisions.json") {
        let choice = case.cohorts.choose(&case.device.id, &case.device.facts());
        let offer = match (&case.assignment, &case.manifest) {
            (Some(assignment), Some(manifest)) => {
                Offer::Release { assignment, manifest, sha256: Digest::of(&manifest.to_bytes().unwrap()) }
            }
            _ => Offer::Nothing { why: "the cohort is assigned nothing for this product" },
        };
        let inputs = Inputs {
            device: &case.device,
            choice: &choice,
            offer,
            now: instant(&case.now),
            quarantined: &case.quarantined,
        };
        let decision = decide(&inputs);
        let verdicts = decision.rules.iter().map(|outcome| {
            let verdict = serde_json::to_value(outcome.verdict).unwrap();
            (outcome.rule.to_string(), verdict.as_str().unwrap().to_owned())
        });
        let explanation = explain(&inputs);
        assert_eq!(explanation.decision, decision, "{}", case.name);
        let lines: Vec<_> = explanation.to_string().lines().map(str::to_owned).collect();
        assert_eq!(serde_json::to_value(&decision.outcome).unwrap(), case.outcome, "{}", case.name);
        assert_eq!(verdicts.collect::<BTreeMap<_, _>>(), case.verdicts, "{}", case.name);
        assert_eq!(lines, case.explanation, "{}", case.name);
    }
}

/// Every kind of outcome, and the pass and the failure of every rule, occur in the frozen cases.
#[test]
fn frozen_decisions_cover_every_rule() {
    let cases = vectors::load::<Case>("decisions.json");
    for kind in ["install", "bridge", "up-to-date", "wait", "not-eligible", "refuse", "no-offer"] {
        assert!(cases.iter().any(|case| case.outcome["kind"] == kind), "no case is {kind}");
    }
    for rule in Rule::ALL {
        for verdict in ["pass", "fail"] {
            assert!(cases.iter().any(|case| case.verdicts[rule.id()] == verdict), "no case has {rule} {verdict}");
        }
    }
}

/// Minimal documents for properties.
pub(super) fn manifest(release: &str, sequence: u64) -> Manifest {
    Manifest::from_value(&json!({
        "schema": 1, "product": "os", "version": release, "sequence": sequence, "channel": "stable",
        "created": "2026-01-05T09:00:00Z", "build": {"id": "b"}, "urgency": "normal",
        "artifacts": [{
            "name": "rootfs.img", "path": format!("stable/releases/os/{release}/rootfs.img"), "length": 1,
            "sha256": "00".repeat(32), "hardware": ["board-a"], "media_type": "application/octet-stream",
        }],
    }))
    .unwrap()
}

fn assignment(release: &str, sequence: u64) -> Assignment {
    Assignment::from_value(&json!({
        "schema": 1, "release": release, "sequence": sequence, "stage": "stable", "assigned": "2026-01-05T12:00:00Z",
    }))
    .unwrap()
}

fn profile(installed: &str, sequence: u64) -> Profile {
    serde_json::from_value(json!({
        "id": "d-0001", "product": "os", "channel": "stable", "hardware": "board-a",
        "installed": {"version": installed, "sequence": sequence},
    }))
    .unwrap()
}

fn decided(device: &Profile, assignment: &Assignment, manifest: &Manifest, now: &str) -> Decision {
    let map = vectors::shares(&[1_000_000]);
    let choice = map.choose(&device.id, &device.facts());
    let offer = Offer::Release { assignment, manifest, sha256: Digest::from([1; 32]) };
    decide(&Inputs { device, choice: &choice, offer, now: instant(now), quarantined: &[] })
}

/// The chain of a device that is two bridges behind: each step is decided like any other release.
#[test]
fn bridges_are_taken_one_by_one() {
    let mut target = manifest("3.0.0", 30);
    target.upgrade_from = Some(">=2.0.0".parse().unwrap());
    let bridge = |release: &str, sequence: u64, from: &str| {
        json!({
            "release": release, "sequence": sequence, "sha256": "00".repeat(32), "length": 1, "upgrade_from": from,
        })
    };
    let mut assigned = assignment("3.0.0", 30);
    assigned.bridges = ["2.5.0|25|>=1.0.0, <2.0.0", "2.4.0|24|>=1.0.0, <2.0.0", "1.9.0|19|<1.0.0"]
        .iter()
        .map(|text| {
            let fields: Vec<_> = text.split('|').collect();
            let value = bridge(fields[0], fields[1].parse().unwrap(), fields[2]);
            let whole = json!({"schema": 1, "release": "3.0.0", "sequence": 30, "stage": "stable",
                "assigned": "2026-01-05T12:00:00Z", "bridges": [value]});
            Assignment::from_value(&whole).unwrap().bridges.remove(0)
        })
        .collect();

    let mut device = profile("0.9.0", 9);
    let mut taken = Vec::new();
    loop {
        match decided(&device, &assigned, &target, "2026-01-05T12:00:00Z").outcome {
            Outcome::Bridge { bridge, target: leads_to } => {
                assert_eq!(leads_to, target.version);
                let release = manifest(&bridge.release.to_string(), bridge.sequence);
                let through = assigned.through(&bridge);
                assert!(through.check().is_ok(), "the bridges left are below the one taken");
                let step = decided(&device, &through, &release, "2026-01-05T12:00:00Z").outcome;
                assert!(matches!(step, Outcome::Install { sequence, .. } if sequence == bridge.sequence), "{step}");
                taken.push(bridge.release.to_string());
                device.installed.version = bridge.release;
                device.installed.sequence = bridge.sequence;
            }
            Outcome::Install { release, .. } => {
                assert_eq!(release, target.version);
                break;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(taken, ["1.9.0", "2.5.0"], "the newest bridge that upgrades from the version, each time");
}

/// A bridge that this device has passed in sequence is no way back.
#[test]
fn a_bridge_below_the_installed_sequence_is_no_bridge() {
    let mut target = manifest("3.0.0", 30);
    target.upgrade_from = Some(">=2.0.0".parse().unwrap());
    let assigned = Assignment::from_value(&json!({
        "schema": 1, "release": "3.0.0", "sequence": 30, "stage": "stable", "assigned": "2026-01-05T12:00:00Z",
        "bridges": [
            {"release": "2.4.0", "sequence": 24, "sha256": "00".repeat(32), "length": 1, "upgrade_from": "*"},
        ],
    }))
    .unwrap();
    let decision = decided(&profile("1.0.0", 24), &assigned, &target, "2026-01-05T12:00:00Z");
    assert!(matches!(decision.outcome, Outcome::NotEligible { rule: Rule::Upgrade, .. }), "{}", decision.outcome);
}

proptest! {
    /// Whatever is assigned: a device never installs, by a bridge or directly, a sequence that is not above its own.
    #[test]
    fn the_sequence_never_falls(
        own in 0_u64..6, offered in 1_u64..6, supersedes in prop::collection::btree_set(0_u64..6, 0..6),
        bridges in prop::collection::btree_set(0_u64..6, 0..4), own_major in 0_u64..4, major in 0_u64..4,
        from in prop::sample::select(vec!["*", "<1.0.0", ">=2.0.0"]),
    ) {
        let mut release = manifest(&format!("{major}.0.0"), offered);
        release.supersedes = supersedes;
        release.upgrade_from = Some(from.parse().unwrap());
        let mut assigned = assignment(&format!("{major}.0.0"), offered);
        let any: Assignment = serde_json::from_value(json!({
            "schema": 1, "release": "9.0.0", "sequence": 99, "stage": "stable", "assigned": "2026-01-05T12:00:00Z",
            "bridges": [
                {"release": "8.0.0", "sequence": 1, "sha256": "00".repeat(32), "length": 1, "upgrade_from": "*"},
            ],
        })).unwrap();
        // Not what reading would accept: a bridge above the target among them.
        assigned.bridges = bridges.into_iter().map(|sequence| {
            let mut bridge = any.bridges[0].clone();
            bridge.sequence = sequence;
            bridge
        }).collect();
        let device = profile(&format!("{own_major}.0.0"), own);
        let decision = decided(&device, &assigned, &release, "2026-01-05T12:00:00Z");
        match &decision.outcome {
            Outcome::Install { sequence, .. } => {
                prop_assert!(*sequence > own);
                prop_assert!(version::is_newer(&release.version, &device.installed.version)
                    || release.supersedes.contains(&own));
            }
            Outcome::Bridge { bridge, .. } => prop_assert!(bridge.sequence > own && bridge.sequence < offered),
            _ => {}
        }
        prop_assert_eq!(decision.rules.iter().map(|outcome| outcome.rule).collect::<Vec<_>>(), Rule::ALL);
        let failed = decision.rules.iter().any(|outcome| outcome.verdict == Verdict::Fail);
        let goes_on = matches!(decision.outcome, Outcome::Install { .. } | Outcome::Bridge { .. });
        prop_assert_eq!(goes_on, !failed, "nothing is installed past a rule that fails");
    }

    /// What a decision says about its change is true: it waits a second before, and installs at that instant.
    #[test]
    fn a_wait_ends_when_it_says(serial in 0_u32..1_000_000, from in 0_u32..500_000, hours in 1_i64..100) {
        let release = manifest("1.2.0", 12);
        let mut assigned = assignment("1.2.0", 12);
        let start = instant("2026-01-05T12:00:00Z");
        let end = start + chrono::Duration::hours(hours);
        assigned.ramp = Some(Ramp::new(start, end, from, 900_000).unwrap());
        let mut device = profile("1.1.0", 11);
        device.id = format!("sn-{serial}").parse().unwrap();
        let decision = decided(&device, &assigned, &release, "2026-01-05T11:59:59Z");
        if let Some(instant) = decision.changes {
            let second_before = instant - chrono::Duration::seconds(1);
            let before = decided(&device, &assigned, &release, &time::format(second_before));
            let after = decided(&device, &assigned, &release, &time::format(instant));
            prop_assert!(matches!(before.outcome, Outcome::Wait { .. }), "{}", before.outcome);
            prop_assert!(matches!(after.outcome, Outcome::Install { .. }), "{}", after.outcome);
        } else {
            let never = decided(&device, &assigned, &release, "9999-12-31T23:59:59Z");
            prop_assert!(matches!(never.outcome, Outcome::Wait { until: None, .. }), "{}", never.outcome);
        }
    }
}

//! Decisions: frozen cases with the text that explains them, and what no assignment can bring about.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_model::cohort::CohortMap;
use tidegate_model::decision::{
    Approval, Decision, Inputs, Outcome, Profile, Quarantined, Rule, Verdict, choose, decide,
};
use tidegate_model::digest::Digest;
use tidegate_model::explanation::{Circumstances, ExplainedOffer, Explanation};
use tidegate_model::manifest::Manifest;
use tidegate_model::rollout::{Bridge, Offer, Offers, Ramp, Stage};
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
    offers: Option<Offers>,
    /// For each offer its manifest, or how the channel contradicts it.
    manifests: Vec<Value>,
    outcome: Value,
    outcomes: Vec<Value>,
    verdicts: Vec<BTreeMap<String, String>>,
    explanation: Vec<String>,
}

impl Case {
    fn explain(&self) -> Explanation {
        let choice = self.cohorts.choose(&self.device.id, &self.device.facts());
        let circumstances = Circumstances {
            device: &self.device,
            choice: &choice,
            now: instant(&self.now),
            latest: instant(&self.now),
            quarantined: &self.quarantined,
        };
        let Some(offers) = &self.offers else {
            return circumstances.nothing("the cohort is offered nothing of this product");
        };
        let explained = offers.offers.iter().zip(&self.manifests).map(|(offer, manifest)| {
            if let Some(why) = manifest.as_str() {
                return ExplainedOffer::new(&circumstances.inputs(offer, Approval::Contradicted(why)));
            }
            let manifest = Manifest::from_value(manifest).unwrap();
            ExplainedOffer::new(&circumstances.inputs(offer, Approval::Manifest(&manifest)))
        });
        circumstances.explain(explained.collect())
    }
}

#[test]
fn frozen_decisions() {
    for case in vectors::load::<Case>("decisions.json") {
        let explanation = case.explain();
        let value = |outcome: &Outcome| serde_json::to_value(outcome).unwrap();
        let verdicts = explanation.offers.iter().map(|offer| {
            let verdicts = offer.decision.rules.iter().map(|outcome| {
                let verdict = serde_json::to_value(outcome.verdict).unwrap();
                (outcome.rule.to_string(), verdict.as_str().unwrap().to_owned())
            });
            verdicts.collect::<BTreeMap<_, _>>()
        });
        let outcomes: Vec<_> = explanation.offers.iter().map(|offer| value(&offer.decision.outcome)).collect();
        let lines: Vec<_> = explanation.to_string().lines().map(str::to_owned).collect();
        assert_eq!(value(&explanation.outcome), case.outcome, "{}", case.name);
        assert_eq!(outcomes, case.outcomes, "{}", case.name);
        assert_eq!(verdicts.collect::<Vec<_>>(), case.verdicts, "{}", case.name);
        assert_eq!(lines, case.explanation, "{}", case.name);
    }
}

/// Whether or not the manifest of an offer that cannot be taken now was read, the outcome is the same.
#[test]
fn manifests_of_offers_that_wait_change_nothing() {
    for case in vectors::load::<Case>("decisions.json") {
        let choice = case.cohorts.choose(&case.device.id, &case.device.facts());
        for (offer, manifest) in case.offers.iter().flat_map(|offers| &offers.offers).zip(&case.manifests) {
            let Ok(manifest) = Manifest::from_value(manifest) else { continue };
            let circumstances = Circumstances {
                device: &case.device,
                choice: &choice,
                now: instant(&case.now),
                latest: instant(&case.now),
                quarantined: &case.quarantined,
            };
            let unread = circumstances.inputs(offer, Approval::NotRead);
            if !tidegate_model::decision::needs_manifest(&unread) {
                let read = circumstances.inputs(offer, Approval::Manifest(&manifest));
                assert_eq!(decide(&unread).outcome, decide(&read).outcome, "{}", case.name);
            }
        }
    }
}

/// Every kind of outcome, and the pass and the failure of every rule, occur in the frozen cases. Without an offer there are no rules.
#[test]
fn frozen_decisions_cover_every_rule() {
    let cases = vectors::load::<Case>("decisions.json");
    for kind in ["install", "bridge", "up-to-date", "wait", "not-eligible", "refuse", "no-offer"] {
        assert!(cases.iter().any(|case| case.outcome["kind"] == kind), "no case is {kind}");
    }
    let verdicts: Vec<_> = cases.iter().flat_map(|case| &case.verdicts).collect();
    for rule in Rule::ALL {
        for verdict in ["pass", "fail"] {
            let occurs = verdicts.iter().any(|verdicts| verdicts[rule.id()] == verdict);
            assert_eq!(occurs, (rule, verdict) != (Rule::Offer, "fail"), "{rule} {verdict}");
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

fn offer(release: &str, sequence: u64) -> Offer {
    let since = instant("2026-01-05T12:00:00Z");
    Offer::new(version::parse(release).unwrap(), sequence, (Digest::from([1; 32]), 1), Stage::Stable, since)
}

fn bridge(release: &str, sequence: u64, from: &str) -> Bridge {
    Bridge {
        release: version::parse(release).unwrap(),
        sequence,
        sha256: Digest::from([0; 32]),
        length: 1,
        upgrade_from: from.parse().unwrap(),
        extra: tidegate_model::Extra::new(),
    }
}

fn profile(installed: &str, sequence: u64) -> Profile {
    serde_json::from_value(json!({
        "id": "d-0001", "product": "os", "channel": "stable", "hardware": "board-a",
        "installed": {"version": installed, "sequence": sequence},
    }))
    .unwrap()
}

fn decided(device: &Profile, offer: &Offer, manifest: &Manifest, now: &str) -> Decision {
    let map = vectors::shares(&[1_000_000]);
    let choice = map.choose(&device.id, &device.facts());
    let approval = Approval::Manifest(manifest);
    decide(&Inputs {
        device,
        choice: &choice,
        offer,
        approval,
        now: instant(now),
        latest: instant(now),
        quarantined: &[],
    })
}

/// The chain of a device that is two bridges behind: each step is decided like any other release.
#[test]
fn bridges_are_taken_one_by_one() {
    let mut target = manifest("3.0.0", 30);
    target.upgrade_from = Some(">=2.0.0".parse().unwrap());
    let mut assigned = offer("3.0.0", 30);
    assigned.bridges = vec![
        bridge("2.5.0", 25, ">=1.0.0, <2.0.0"),
        bridge("2.4.0", 24, ">=1.0.0, <2.0.0"),
        bridge("1.9.0", 19, "<1.0.0"),
    ];

    let mut device = profile("0.9.0", 9);
    let mut taken = Vec::new();
    loop {
        match decided(&device, &assigned, &target, "2026-01-05T12:00:00Z").outcome {
            Outcome::Bridge { bridge, target: leads_to } => {
                assert_eq!(leads_to, target.version);
                let release = manifest(&bridge.release.to_string(), bridge.sequence);
                let through = assigned.through(&bridge);
                assert!(through.bridges.iter().all(|left| left.sequence < bridge.sequence));
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
    let mut assigned = offer("3.0.0", 30);
    assigned.bridges = vec![bridge("2.4.0", 24, "*")];
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
        let mut assigned = offer(&format!("{major}.0.0"), offered);
        // Not what reading would accept: a bridge above the target among them.
        assigned.bridges = bridges.into_iter().map(|sequence| bridge("8.0.0", sequence, "*")).collect();
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
        let mut assigned = offer("1.2.0", 12);
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

    /// Whatever the list: what a device takes has a higher sequence than what it runs, until nothing is left to take. It takes the first
    /// offer that it may take by itself, and what one offer does never depends on another.
    #[test]
    fn the_first_offer_that_fits_is_taken(
        sequences in prop::collection::btree_set(1_u64..12, 1..6), versions in prop::collection::vec(0_u64..9, 6),
        paused in prop::collection::vec(any::<bool>(), 6), ramps in prop::collection::vec(0_u32..=1_000_000, 6),
        ended in prop::collection::vec(any::<bool>(), 6), own in 0_u64..12, own_major in 0_u64..9, serial: u32,
    ) {
        let start = instant("2026-01-05T12:00:00Z");
        let releases: Vec<_> = sequences.iter().zip(&versions).map(|(sequence, major)| {
            let mut release = manifest(&format!("{major}.0.0"), *sequence);
            release.supersedes = [1, 4].into_iter().filter(|old| old < sequence).collect();
            release
        }).collect();
        let offers: Vec<_> = releases.iter().enumerate().map(|(index, release)| {
            let mut offer = offer(&release.version.to_string(), release.sequence);
            offer.paused = paused[index];
            offer.ramp = Some(Ramp::new(start, start + chrono::Duration::hours(1), 0, ramps[index]).unwrap());
            offer.until = ended[index].then_some(start);
            offer
        }).collect();
        let mut device = profile(&format!("{own_major}.0.0"), own);
        device.id = format!("sn-{serial}").parse().unwrap();
        let mut installed = vec![own];
        loop {
            let decided: Vec<_> = offers.iter().zip(&releases).map(|(offer, release)| {
                decided(&device, offer, release, "2026-01-05T13:00:00Z").outcome
            }).collect();
            let takes = |outcome: &Outcome| matches!(outcome, Outcome::Install { .. });
            let chosen = choose(&decided).unwrap();
            let Some(first) = decided.iter().position(takes) else {
                prop_assert!(!takes(&decided[chosen]));
                break;
            };
            prop_assert_eq!(chosen, first);
            prop_assert!(!offers[first].paused && !offers[first].has_ended(start));
            // Alone in its list it is taken, too: no other offer exposes it.
            let alone = decided_alone(&device, &offers[first], &releases[first]);
            prop_assert!(takes(&alone));
            device.installed.version = releases[first].version.clone();
            device.installed.sequence = releases[first].sequence;
            installed.push(releases[first].sequence);
        }
        prop_assert!(installed.is_sorted_by(|a, b| a < b), "{installed:?}");
    }
}

fn decided_alone(device: &Profile, offer: &Offer, release: &Manifest) -> Outcome {
    let map = vectors::shares(&[1_000_000]);
    let choice = map.choose(&device.id, &device.facts());
    let now = instant("2026-01-05T13:00:00Z");
    let circumstances = Circumstances { device, choice: &choice, now, latest: now, quarantined: &[] };
    let explained = ExplainedOffer::new(&circumstances.inputs(offer, Approval::Manifest(release)));
    circumstances.explain(vec![explained]).outcome
}

//! A device against a whole repository: what it asks for, what it decides, what it refuses, what it survives.

use std::fs;
use std::path::Path;

use chrono::TimeDelta;
use serde_json::{Value, json};
use tidegate_client::device::{Check, InstallState};
use tidegate_client::disk::{Disk, Faults};
use tidegate_client::install::{FileSlot, StubInstaller};
use tidegate_client::policy::{Judgement, Policy};
use tidegate_client::watch::unwatched;
use tidegate_client::{Error, Fault};
use tidegate_model::decision::{Outcome, Rule};
use tidegate_model::facts::Facts;
use tidegate_tuf::time;

use crate::fleet::{self, IMAGE, approve, assign, channel, device, manifest, name, release};
use crate::mirror::{Mirror, Trick, scratch};
use crate::simulator::{Simulator, epoch};

/// One cohort for all, and an explicit one before it.
const SMALL: &[(&str, Option<u32>)] = &[("lab", None), ("all", Some(1_000_000))];

fn check(mirror: &Mirror, state: &Path) -> Result<Check, Error> {
    device(mirror, state, epoch()).open()?.check()
}

fn outcome(mirror: &Mirror, state: &Path) -> Outcome {
    check(mirror, state).unwrap().outcome().clone()
}

fn install(mirror: &Mirror, state: &Path, slot: &Path, disk: Disk) -> Result<Check, Error> {
    let installer = FileSlot::on(disk.clone(), slot);
    let mut device = device(mirror, state, epoch()).disk(disk).installer(installer).open()?;
    let check = device.check()?;
    if let Some(update) = &check.update {
        let downloaded = device.download(update, &mut unwatched)?;
        device.install(&downloaded, &mut unwatched)?;
    }
    Ok(check)
}

#[test]
fn from_a_release_to_a_confirmed_device() {
    let mirror = Mirror::of({
        let mut sim = channel(SMALL);
        release(&mut sim, "all", "1.2.0", 12);
        sim
    });
    let folder = scratch();
    let (state, slot) = (folder.path().join("state"), folder.path().join("slot"));
    let check = install(&mirror, &state, &slot, Disk::new()).unwrap();
    assert!(matches!(check.outcome(), Outcome::Install { sequence: 12, .. }), "{}", check.explanation);
    assert_eq!(fs::read(&slot).unwrap(), IMAGE);
    assert_eq!(fs::read_dir(state.join("downloads")).unwrap().count(), 0);
    let mut device = device(&mirror, &state, epoch()).open().unwrap();
    let record = device.status().installed.unwrap();
    assert_eq!((record.release.sequence, record.state), (12, InstallState::Trial));
    assert_eq!(device.confirm().unwrap().state, InstallState::Confirmed);
    assert_eq!(device.confirm().unwrap().state, InstallState::Confirmed);
    assert!(matches!(device.check().unwrap().outcome(), Outcome::UpToDate { .. }));
}

/// Requests of a first check, an unchanged one, one after another cohort changed, and one after our own was advanced.
#[test]
fn check_cost_is_independent_of_cohorts() {
    for count in [10_u32, 1_000] {
        let names: Vec<String> = (0..count).map(|index| format!("cohort-{index}")).collect();
        let shares: Vec<_> = names.iter().map(|name| (name.as_str(), Some(1_000_000 / count))).collect();
        let mut sim = channel(&shares);
        let bytes = approve(&mut sim, &manifest("1.2.0", 12));
        let roles: Vec<String> = names.iter().map(|name| format!("stable.{name}")).collect();
        for name in &names {
            assign(&mut sim, name, &bytes, &json!({}));
        }
        sim.publish(&roles.iter().map(String::as_str).collect::<Vec<_>>());
        sim.publish(&["stable", "snapshot", "timestamp"]);
        let mirror = Mirror::of(sim);
        let folder = scratch();
        let run = || {
            let check = check(&mirror, folder.path()).unwrap();
            let transfers = mirror.take_transfers();
            let bytes: usize = transfers.iter().map(|(_, bytes)| bytes).sum();
            (check.explanation.cohort.cohort.to_string(), transfers.len(), bytes)
        };
        let (own, requests, _) = run();
        assert_eq!(requests, 8, "{count} cohorts, first check");
        let (_, requests, bytes) = run();
        assert_eq!((requests, bytes), (2, 0), "{count} cohorts, unchanged");
        let other = names.iter().find(|name| **name != own).unwrap();
        mirror.edit(|sim| {
            release(sim, other, "1.3.0", 13);
        });
        // The channel's role lists the new release: one more.
        assert_eq!(run().1, 4, "{count} cohorts, a release for another cohort");
        mirror.edit(|sim| sim.publish(&[&format!("stable.{other}"), "snapshot", "timestamp"]));
        assert_eq!(run().1, 3, "{count} cohorts, another cohort changed");
        mirror.edit(|sim| {
            let approved = sim.signed["stable"]["targets"]["stable/releases/os/1.3.0/manifest.json"].clone();
            let digest = approved["hashes"]["sha256"].as_str().unwrap();
            let bytes = sim.files[&format!("targets/stable/releases/os/1.3.0/{digest}.manifest.json")].clone();
            assign(sim, &own, &bytes, &json!({}));
            sim.publish(&[&format!("stable.{own}"), "snapshot", "timestamp"]);
        });
        assert_eq!(run().1, 5, "{count} cohorts, own cohort advanced");
    }
}

/// Two powers (a stolen rollout key chooses among approved releases, it adds none; a channel key assigns nothing).
#[test]
fn both_powers_are_needed() {
    type Bend = fn(&mut Simulator);
    let cases: &[(&str, Bend, &str)] = &[
        (
            "a release that the channel does not list",
            |sim| {
                let bytes = fleet::approve(&mut sim.clone(), &manifest("1.3.0", 13));
                assign(sim, "all", &bytes, &json!({}));
            },
            "not approved",
        ),
        (
            "another manifest under an approved version",
            |sim| {
                let mut forged = manifest("1.2.0", 12);
                forged["urgency"] = json!("security");
                let bytes = fleet::approve(&mut sim.clone(), &forged);
                assign(sim, "all", &bytes, &json!({}));
            },
            "not approved",
        ),
        (
            "an assignment by the channel itself",
            |sim| {
                let bytes = approve(sim, &manifest("1.2.0", 12));
                sim.add_target("stable", "stable/cohorts/all/os.json", &bytes);
            },
            "only targets > stable > stable.all may",
        ),
        (
            "a cohort map by targets itself",
            |sim| sim.add_target("targets", "stable/cohorts.json", b"{}"),
            "only targets > stable may",
        ),
        (
            "an artifact that the channel lists otherwise",
            |sim| sim.add_target("stable", "stable/releases/os/1.2.0/image.bin", b"another image"),
            "not approved",
        ),
        (
            "an assignment without an assignment",
            |sim| sim.set_custom("stable.all", "stable/cohorts/all/os.json", json!({"other": 1})),
            "custom.tidegate",
        ),
        (
            "an assignment of an unknown schema",
            |sim| sim.set_custom("stable.all", "stable/cohorts/all/os.json", json!({"tidegate": {"schema": 2}})),
            "schema 2",
        ),
        ("a cohort map that is none", |sim| sim.add_target("stable", "stable/cohorts.json", b"{}"), "schema"),
    ];
    for (case, bend, expected) in cases {
        let mirror = Mirror::of({
            let mut sim = channel(SMALL);
            release(&mut sim, "all", "1.2.0", 12);
            bend(&mut sim);
            sim.publish(&["stable.all", "stable", "targets", "snapshot", "timestamp"]);
            sim
        });
        match check(&mirror, scratch().path()) {
            // A contradiction of one offer is a reason not to take it, and stops no other.
            Ok(check) => {
                assert!(matches!(check.outcome(), Outcome::Refuse { rule: Rule::Approved, .. }), "{case}: {check:?}");
                assert!(check.outcome().to_string().contains(expected), "{case}: {}", check.outcome());
            }
            Err(error) => {
                assert_eq!(error.fault(), Fault::Peer, "{case}: {error}");
                assert!(error.to_string().contains(expected), "{case}: {error}");
            }
        }
    }
}

/// A manifest that says another version, sequence, product or channel than its place is refused with a reason.
#[test]
fn a_manifest_in_the_wrong_place_is_refused() {
    let mirror = Mirror::of({
        let mut sim = channel(SMALL);
        let bytes = approve(&mut sim, &manifest("1.2.0", 12));
        assign(&mut sim, "all", &bytes, &json!({"sequence": 13}));
        sim.publish(&["stable.all", "stable", "snapshot", "timestamp"]);
        sim
    });
    let outcome = outcome(&mirror, scratch().path());
    assert!(matches!(outcome, Outcome::Refuse { rule: Rule::Assigned, .. }), "{outcome}");
}

#[test]
fn faults_of_other_cohorts_are_ignored() {
    type Bend = fn(&Mirror);
    let cases: &[(&str, Bend)] = &[
        ("expired", |mirror| {
            mirror.edit(|sim| {
                sim.set_expiry("stable.lab", epoch() - TimeDelta::days(1));
                sim.publish(&["stable.lab", "snapshot", "timestamp"]);
            });
        }),
        ("badly signed", |mirror| {
            mirror.edit(|sim| {
                sim.signers.get_mut("stable.lab").unwrap().clear();
                sim.publish(&["stable.lab", "snapshot", "timestamp"]);
            });
        }),
        ("missing", |mirror| mirror.trick("metadata/1.stable.lab.json", Trick::Gone)),
        ("oversized", |mirror| mirror.trick("metadata/1.stable.lab.json", Trick::Endless)),
        ("not metadata", |mirror| mirror.trick("metadata/1.stable.lab.json", Trick::Bytes(b"{}".to_vec()))),
    ];
    for (case, bend) in cases {
        let mirror = Mirror::of({
            let mut sim = channel(SMALL);
            release(&mut sim, "all", "1.2.0", 12);
            sim
        });
        bend(&mirror);
        let folder = scratch();
        assert!(matches!(outcome(&mirror, folder.path()), Outcome::Install { .. }), "{case}");
        assert!(!mirror.take_requests().iter().any(|file| file.contains("lab")), "{case}");
    }
}

#[test]
fn without_its_own_cohort_role_a_device_keeps_what_it_has() {
    type Bend = fn(&Mirror);
    let cases: &[(&str, Bend, &str)] = &[
        (
            "expired",
            |mirror| {
                mirror.edit(|sim| {
                    sim.set_expiry("stable.all", epoch() - TimeDelta::hours(1));
                    sim.publish(&["stable.all", "snapshot", "timestamp"]);
                });
            },
            "expired at 2025-12-31T23:00:00Z",
        ),
        ("missing", |mirror| mirror.trick("metadata/2.stable.all.json", Trick::Gone), "file is missing"),
        (
            "not in the snapshot",
            |mirror| {
                let sim = {
                    let mut sim = channel(&[("lab", None), ("all", Some(1_000_000))]);
                    sim.signed.get_mut("snapshot").unwrap()["meta"].as_object_mut().unwrap().remove("stable.all.json");
                    sim.publish(&["snapshot", "timestamp"]);
                    sim
                };
                mirror.serve(sim);
            },
            "not published",
        ),
        (
            "nothing assigned",
            |mirror| mirror.serve(channel(&[("lab", None), ("all", Some(1_000_000))])),
            "offers no release of os",
        ),
        (
            "not delegated",
            |mirror| {
                let mut sim = channel(&[("lab", None), ("all", Some(1_000_000))]);
                fleet::set_cohorts(&mut sim, &[("new", Some(1_000_000))]);
                sim.publish(&["stable", "snapshot", "timestamp"]);
                mirror.serve(sim);
            },
            "stable.new offers no release",
        ),
    ];
    for (case, bend, expected) in cases {
        let mirror = Mirror::of({
            let mut sim = channel(SMALL);
            release(&mut sim, "all", "1.2.0", 12);
            sim
        });
        bend(&mirror);
        let Outcome::NoOffer { why } = outcome(&mirror, scratch().path()) else { panic!("{case}") };
        assert!(why.contains(expected), "{case}: {why}");
    }
}

/// An expired rollout causes no repeated downloads of metadata, and continues once it is renewed.
#[test]
fn an_expired_rollout_resumes_when_renewed() {
    let mirror = Mirror::of({
        let mut sim = channel(SMALL);
        release(&mut sim, "all", "1.2.0", 12);
        sim.set_expiry("stable.all", epoch() + TimeDelta::hours(24));
        sim.publish(&["stable.all", "snapshot", "timestamp"]);
        sim
    });
    let folder = scratch();
    let at = |hours| {
        let mut device = device(&mirror, folder.path(), epoch() + TimeDelta::hours(hours)).open().unwrap();
        device.check().unwrap().outcome().clone()
    };
    assert!(matches!(at(0), Outcome::Install { .. }));
    mirror.take_requests();
    assert!(matches!(at(25), Outcome::NoOffer { .. }));
    assert_eq!(mirror.take_requests().len(), 2);
    mirror.edit(|sim| {
        sim.set_expiry("stable.all", epoch() + TimeDelta::hours(48));
        sim.publish(&["stable.all", "snapshot", "timestamp"]);
    });
    assert!(matches!(at(25), Outcome::Install { .. }));
}

#[test]
fn a_badly_signed_own_cohort_role_is_an_error() {
    let mirror = Mirror::of({
        let mut sim = channel(SMALL);
        release(&mut sim, "all", "1.2.0", 12);
        sim.signers.get_mut("stable.all").unwrap().clear();
        sim.publish(&["stable.all", "snapshot", "timestamp"]);
        sim
    });
    assert_eq!(check(&mirror, scratch().path()).unwrap_err().fault(), Fault::Peer);
}

#[test]
fn a_sequence_is_never_lowered() {
    let mirror = Mirror::of({
        let mut sim = channel(SMALL);
        release(&mut sim, "all", "1.2.0", 12);
        sim
    });
    let folder = scratch();
    let (state, slot) = (folder.path().join("state"), folder.path().join("slot"));
    install(&mirror, &state, &slot, Disk::new()).unwrap();
    mirror.edit(|sim| {
        release(sim, "all", "1.3.0", 11);
    });
    assert!(matches!(outcome(&mirror, &state), Outcome::UpToDate { .. }));
    // Also when one copy of what was installed is damaged.
    fs::write(state.join("installed.json"), b"").unwrap();
    let check = check(&mirror, &state).unwrap();
    assert!(matches!(check.outcome(), Outcome::UpToDate { .. }));
    assert_eq!(check.repairs.len(), 1);
    assert!(fs::read(state.join("installed.json")).unwrap().len() > 10);
    // And when another program notes a higher one.
    let mut device = device(&mirror, &state, epoch()).factory("2.0.0".parse().unwrap(), 20).open().unwrap();
    mirror.edit(|sim| {
        release(sim, "all", "1.4.0", 19);
    });
    assert!(matches!(device.check().unwrap().outcome(), Outcome::UpToDate { .. }));
}

/// A device of a protected cohort without gate settings keeps its release and reports what is missing.
#[test]
fn a_protected_cohort_needs_gate_settings() {
    let mirror = Mirror::of({
        let mut sim = channel(SMALL);
        release(&mut sim, "all", "1.2.0", 12);
        // The lab's files lie behind a gate; the public place has none of them.
        let map = json!({
            "schema": 1, "salt": "00112233445566778899aabbccddeeff",
            "cohorts": [
                {"name": "lab", "condition": {"fact": "group", "eq": "lab"}, "protected": {"gate": "https://gate.example.com"}},
                {"name": "all", "share": 1_000_000},
            ],
        });
        sim.add_target("stable", "stable/cohorts.json", &tidegate_tuf::json::canonical(&map).unwrap());
        sim.publish(&["stable", "snapshot", "timestamp"]);
        sim
    });
    let folder = scratch();
    let mut facts = Facts::new();
    facts.insert("group".parse().unwrap(), "lab".into());
    let lab = device(&mirror, &folder.path().join("lab"), epoch()).facts(facts);
    let check = lab.open().unwrap().check().unwrap();
    let Outcome::NoOffer { why } = check.outcome() else { panic!("{}", check.explanation) };
    assert!(why.contains("cohort lab is protected") && why.contains("https://gate.example.com"), "{why}");
    assert!(check.explanation.to_string().contains("https://gate.example.com"), "{}", check.explanation);
    // Everybody else updates as ever.
    assert!(matches!(outcome(&mirror, &folder.path().join("all")), Outcome::Install { sequence: 12, .. }));
}

#[test]
fn bridges_are_taken_one_by_one() {
    let mirror = Mirror::of({
        let mut sim = channel(SMALL);
        let mut bridge = manifest("1.5.0", 15);
        bridge["upgrade_from"] = json!(">=1.0.0, <1.5.0");
        let bridge = approve(&mut sim, &bridge);
        let mut target = manifest("2.0.0", 20);
        target["upgrade_from"] = json!(">=1.5.0");
        let target = approve(&mut sim, &target);
        let listed = &sim.signed["stable"]["targets"]["stable/releases/os/1.5.0/manifest.json"];
        let bridges = json!({"bridges": [{
            "release": "1.5.0", "sequence": 15, "sha256": listed["hashes"]["sha256"], "length": bridge.len(),
            "upgrade_from": ">=1.0.0, <1.5.0",
        }]});
        assign(&mut sim, "all", &target, &bridges);
        sim.publish(&["stable.all", "stable", "snapshot", "timestamp"]);
        sim
    });
    let folder = scratch();
    let (state, slot) = (folder.path().join("state"), folder.path().join("slot"));
    for sequence in [15, 20] {
        let check = install(&mirror, &state, &slot, Disk::new()).unwrap();
        assert_eq!(check.update.unwrap().release.sequence, sequence);
        assert_eq!(check.explanation.offers[0].through.len(), usize::from(sequence == 15));
    }
    // A bridge that the channel does not list as assigned is not taken.
    mirror.edit(|sim| {
        let listed = sim.signed["stable"]["targets"]["stable/releases/os/2.0.0/manifest.json"].clone();
        let digest = listed["hashes"]["sha256"].as_str().unwrap();
        let target = sim.files[&format!("targets/stable/releases/os/2.0.0/{digest}.manifest.json")].clone();
        let bridge = &sim.signed["stable"]["targets"]["stable/releases/os/1.5.0/manifest.json"];
        let bridges = json!({"bridges": [{
            "release": "1.5.0", "sequence": 15, "sha256": bridge["hashes"]["sha256"], "length": 1,
            "upgrade_from": ">=1.0.0, <1.5.0",
        }]});
        assign(sim, "all", &target, &bridges);
        sim.publish(&["stable.all", "snapshot", "timestamp"]);
    });
    let check = check(&mirror, scratch().path()).unwrap();
    assert!(matches!(check.outcome(), Outcome::Refuse { rule: Rule::Approved, .. }), "{}", check.outcome());
}

#[test]
fn a_rejected_release_is_not_tried_again() {
    let mirror = Mirror::of({
        let mut sim = channel(SMALL);
        release(&mut sim, "all", "1.2.0", 12);
        sim
    });
    let folder = scratch();
    let stub = StubInstaller::new();
    let open = || device(&mirror, folder.path(), epoch()).installer(stub.clone()).open().unwrap();
    let step = || {
        let mut device = open();
        let check = device.check().unwrap();
        if let Some(update) = &check.update {
            let downloaded = device.download(update, &mut unwatched).unwrap();
            device.install(&downloaded, &mut unwatched).unwrap();
        }
        check.outcome().clone()
    };
    step();
    open().confirm().unwrap();
    mirror.edit(|sim| {
        release(sim, "all", "1.3.0", 13);
    });
    step();
    open().reject().unwrap();
    let status = open().status();
    assert_eq!((status.device.installed.sequence, status.quarantined.len()), (12, 1));
    assert!(matches!(step(), Outcome::Refuse { rule: Rule::Quarantine, .. }));
    mirror.edit(|sim| {
        release(sim, "all", "1.3.1", 14);
    });
    assert!(matches!(step(), Outcome::Install { sequence: 14, .. }));
    assert_eq!(stub.installed().len(), 3);
    // With nothing before it, what is left is the factory image.
    let folder = scratch();
    let mut fresh = device(&mirror, folder.path(), epoch()).installer(stub.clone()).open().unwrap();
    assert!(matches!(fresh.reject(), Err(Error::State(_))));
    let update = fresh.check().unwrap().update.unwrap();
    let downloaded = fresh.download(&update, &mut unwatched).unwrap();
    stub.fail_next("it is for another board");
    assert_eq!(fresh.install(&downloaded, &mut unwatched).unwrap_err().fault(), Fault::Device);
    assert!(matches!(fresh.install(&downloaded, &mut unwatched), Err(Error::Outdated { .. })), "it is quarantined");
    fresh.lift(&downloaded.update().release.version).unwrap();
    let downloaded = fresh.download(&update, &mut unwatched).unwrap();
    fresh.install(&downloaded, &mut unwatched).unwrap();
    assert!(matches!(fresh.install(&downloaded, &mut unwatched), Err(Error::State(_))));
    fresh.reject().unwrap();
    assert_eq!(fresh.status().device.installed.sequence, 0);
}

#[test]
fn explanations_are_for_any_facts_and_any_time() {
    let mirror = Mirror::of({
        let mut sim = channel(SMALL);
        let bytes = approve(&mut sim, &manifest("1.2.0", 12));
        let start = time::format(epoch() + TimeDelta::days(1));
        let end = time::format(epoch() + TimeDelta::days(2));
        assign(&mut sim, "all", &bytes, &json!({"ramp": {"start": start, "end": end, "from": 0, "to": 1_000_000}}));
        assign(&mut sim, "lab", &bytes, &json!({}));
        sim.publish(&["stable.all", "stable.lab", "stable", "snapshot", "timestamp"]);
        sim
    });
    let folder = scratch();
    let mut device = device(&mirror, folder.path(), epoch()).open().unwrap();
    let Outcome::Wait { until: Some(until), rule: Rule::Ramp, .. } = device.check().unwrap().outcome().clone() else {
        panic!()
    };
    let before = device.explain(None, Some(until - TimeDelta::seconds(1))).unwrap();
    assert!(matches!(before.outcome(), Outcome::Wait { .. }));
    assert!(matches!(device.explain(None, Some(until)).unwrap().outcome(), Outcome::Install { .. }));
    let facts = Facts::parse(br#"{"group": "lab"}"#).unwrap();
    let lab = device.explain(Some(facts), None).unwrap();
    assert_eq!(lab.explanation.cohort.cohort, name("lab"));
    assert!(matches!(lab.outcome(), Outcome::Install { .. }));
    assert!(lab.explanation.to_string().contains("group = \"lab\""));
}

#[test]
fn a_tampered_artifact_reaches_no_slot() {
    let mirror = Mirror::of({
        let mut sim = channel(SMALL);
        release(&mut sim, "all", "1.2.0", 12);
        for (path, bytes) in &mut sim.files {
            if path.ends_with(".image.bin") {
                bytes[3] ^= 1;
            }
        }
        sim
    });
    let folder = scratch();
    let (state, slot) = (folder.path().join("state"), folder.path().join("slot"));
    fs::write(&slot, b"old").unwrap();
    let error = install(&mirror, &state, &slot, Disk::new()).unwrap_err();
    assert!(matches!(error, Error::WrongTarget { .. }), "{error}");
    assert_eq!(error.fault(), Fault::Peer);
    assert_eq!(fs::read(&slot).unwrap(), b"old");
}

/// Stopped, or out of space, at every step from the first check to the note of what was installed.
#[test]
fn an_installation_may_end_at_any_step() {
    let mirror = Mirror::of({
        let mut sim = channel(SMALL);
        release(&mut sim, "all", "1.2.0", 12);
        sim
    });
    let counted = Faults::none();
    let folder = scratch();
    install(&mirror, &folder.path().join("state"), &folder.path().join("slot"), Disk::with_faults(counted.clone()))
        .unwrap();
    assert!(counted.steps() > 80, "{}", counted.steps());
    for plan in [Faults::stop_at as fn(usize) -> std::sync::Arc<Faults>, Faults::full_from] {
        for n in 0..counted.steps() {
            let folder = scratch();
            let (state, slot) = (folder.path().join("state"), folder.path().join("slot"));
            fs::write(&slot, b"old").unwrap();
            if let Err(error) = install(&mirror, &state, &slot, Disk::with_faults(plan(n))) {
                assert_eq!(error.fault(), Fault::Device, "at {n}: {error}");
            }
            let content = fs::read(&slot).unwrap();
            assert!(content == b"old" || content == IMAGE, "at {n}");
            install(&mirror, &state, &slot, Disk::new()).unwrap_or_else(|e| panic!("after {n}: {e}"));
            assert_eq!(fs::read(&slot).unwrap(), IMAGE, "after {n}");
            let outcome = outcome(&mirror, &state);
            assert!(matches!(outcome, Outcome::UpToDate { .. }), "after {n}: {outcome}");
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    let builder = || {
        tidegate_client::device::Device::builder().root(*b"{}").state_dir("state").factory("1.0.0".parse().unwrap(), 0)
    };
    let error = builder().open().err().unwrap();
    let expected = "the device's repository, id, channel, product and hardware are not set";
    assert_eq!((error.fault(), error.to_string().as_str()), (Fault::Caller, expected));
    let name = |name: &str| name.parse().unwrap();
    let builder =
        builder().id("a".parse().unwrap()).channel(name("a")).product(name("a")).hardware("a".parse().unwrap());
    assert_eq!(builder.open().err().unwrap().to_string(), "the device's repository is not set");
}

/// Two releases: the newer one ramps, the older one is stable below it.
fn two_lines(ramp: &Value) -> Simulator {
    let mut sim = channel(SMALL);
    let older = approve(&mut sim, &manifest("1.5.0", 15));
    let newer = approve(&mut sim, &manifest("2.0.0", 20));
    fleet::offer(&mut sim, "all", &[(&newer, ramp.clone()), (&older, json!({"stage": "stable"}))]);
    sim.publish(&["stable.all", "stable", "snapshot", "timestamp"]);
    sim
}

/// Whatever stops the newer offer, the one below is taken: not yet reached, paused, ended, quarantined, contradicted, unreadable.
#[test]
fn an_offer_that_stops_leaves_the_one_below() {
    let installs = |mirror: &Mirror| match check(mirror, scratch().path()).unwrap().outcome() {
        Outcome::Install { release, .. } => release.to_string(),
        other => other.to_string(),
    };
    let (start, end) = (time::format(epoch() + TimeDelta::days(1)), time::format(epoch() + TimeDelta::days(2)));
    let past = time::format(epoch() - TimeDelta::days(1));
    for (what, fields) in [
        ("ramp", json!({"ramp": {"start": start, "end": end, "from": 0, "to": 1_000_000}})),
        ("pause", json!({"paused": true})),
        ("end", json!({"until": past})),
        ("another manifest", json!({"sha256": "11".repeat(32)})),
    ] {
        assert_eq!(installs(&Mirror::of(two_lines(&fields))), "1.5.0", "{what}");
    }
    assert_eq!(installs(&Mirror::of(two_lines(&json!({})))), "2.0.0");
    // A release that the channel no longer lists.
    let mirror = Mirror::of(two_lines(&json!({})));
    mirror.edit(|sim| {
        sim.signed.get_mut("stable").unwrap()["targets"]
            .as_object_mut()
            .unwrap()
            .remove("stable/releases/os/2.0.0/manifest.json");
        sim.publish(&["stable", "snapshot", "timestamp"]);
    });
    assert_eq!(installs(&mirror), "1.5.0");
    // Not so a manifest that does not come: a mirror cannot choose between offers.
    let mirror = Mirror::of(two_lines(&json!({})));
    mirror.edit(|sim| sim.files.retain(|path, _| !(path.contains("2.0.0") && path.ends_with(".manifest.json"))));
    let error = check(&mirror, scratch().path()).unwrap_err();
    assert!(matches!(error.fault(), Fault::Network | Fault::Peer), "{error}");
}

/// `check` reads the manifest only of offers that could be taken, `explain` reads all; both come to the same outcome.
#[test]
fn check_reads_only_the_manifests_it_needs() {
    let start = time::format(epoch() + TimeDelta::days(1));
    let end = time::format(epoch() + TimeDelta::days(2));
    let ramp = json!({"ramp": {"start": start, "end": end, "from": 0, "to": 1_000_000}});
    let mirror = Mirror::of(two_lines(&ramp));
    let folder = scratch();
    let mut device = device(&mirror, folder.path(), epoch()).open().unwrap();
    let read = |mirror: &Mirror| {
        let transfers = mirror.take_transfers();
        transfers.iter().filter(|(path, _)| path.ends_with("manifest.json")).count()
    };
    let checked = device.check().unwrap();
    assert_eq!((read(&mirror), checked.explanation.offers.len()), (1, 2));
    assert!(checked.explanation.offers[0].urgency.is_none());
    let explained = device.explain(None, None).unwrap();
    assert!(explained.explanation.offers[0].urgency.is_some());
    assert_eq!(explained.outcome(), checked.outcome());
    let rules =
        |check: &Check| check.explanation.offers.iter().map(|offer| offer.decision.rules.len()).collect::<Vec<_>>();
    assert_eq!((rules(&checked), rules(&explained)), (vec![14, 14], vec![14, 14]));
    // What waits above is told, with its time.
    assert!(checked.explanation.changes.is_some());
}

/// Devices that run the newer line keep it when a fix for the older one has the next sequence; those on the older line take the fix.
#[test]
fn a_fix_for_the_older_line_is_taken_by_that_line_only() {
    let mirror = Mirror::of({
        let mut sim = channel(SMALL);
        let older = approve(&mut sim, &manifest("1.5.0", 15));
        let newer = approve(&mut sim, &manifest("2.0.0", 20));
        let fix = approve(&mut sim, &manifest("1.5.1", 21));
        let offers = [(&*newer, json!({"paused": true})), (&*fix, json!({})), (&*older, json!({"stage": "stable"}))];
        fleet::offer(&mut sim, "all", &offers);
        sim.publish(&["stable.all", "stable", "snapshot", "timestamp"]);
        sim
    });
    let on = |version: &str, sequence: u64| {
        let folder = scratch();
        let mut device =
            device(&mirror, folder.path(), epoch()).factory(version.parse().unwrap(), sequence).open().unwrap();
        device.check().unwrap().outcome().clone()
    };
    assert!(matches!(on("1.5.0", 15), Outcome::Install { sequence: 21, .. }));
    assert!(matches!(on("2.0.0", 20), Outcome::UpToDate { .. }), "{}", on("2.0.0", 20));
    assert!(matches!(on("1.5.1", 21), Outcome::UpToDate { .. } | Outcome::Wait { .. }));
}

/// The owner may have a device wait for a newer release whose ramp reaches it soon, instead of updating twice; not so with a security
/// fix, and not for a release that does not fit the device.
#[test]
fn a_release_is_skipped_for_a_newer_one_that_comes_soon() {
    let (start, end) = (time::format(epoch() + TimeDelta::days(1)), time::format(epoch() + TimeDelta::days(2)));
    let ramp = json!({"ramp": {"start": start, "end": end, "from": 0, "to": 1_000_000}});
    let mut other_hardware = manifest("2.0.0", 20);
    other_hardware["artifacts"][0]["hardware"] = json!(["board-z"]);
    let with = |newer: &Value, urgency: &str, policy: Value| {
        let mut sim = channel(SMALL);
        let mut older = manifest("1.5.0", 15);
        older["urgency"] = json!(urgency);
        let older = approve(&mut sim, &older);
        let newer = approve(&mut sim, newer);
        fleet::offer(&mut sim, "all", &[(&newer, ramp.clone()), (&older, json!({"stage": "stable"}))]);
        sim.publish(&["stable.all", "stable", "snapshot", "timestamp"]);
        let mirror = Mirror::of(sim);
        let policy: Policy = serde_json::from_value(policy).unwrap();
        let folder = scratch();
        device(&mirror, folder.path(), epoch()).policy(policy).open().unwrap().check().unwrap()
    };
    let (fits, two_days) = (manifest("2.0.0", 20), json!({"wait_for_newer": "2d"}));
    let check = with(&fits, "normal", two_days.clone());
    let reached = check.explanation.changes.unwrap();
    assert!(matches!(check.outcome(), Outcome::Install { sequence: 15, .. }), "the decision stays the same");
    assert_eq!(check.update.as_ref().unwrap().newer.as_ref().unwrap().at, reached);
    assert!(check.policy.iter().all(|judgement| !judgement.allows() && judgement.until() == Some(reached)));
    for (what, check) in [
        ("too late", with(&fits, "normal", json!({"wait_for_newer": "1d"}))),
        ("no such policy", with(&fits, "normal", json!({}))),
        ("a security fix", with(&fits, "security", two_days.clone())),
        ("another hardware", with(&other_hardware, "normal", two_days)),
    ] {
        assert!(check.policy.iter().all(Judgement::allows), "{what}");
    }
}

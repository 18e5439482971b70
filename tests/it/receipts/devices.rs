//! Real devices on a real repository: what they tell is what is counted.

use std::fs;
use std::path::Path;

use chrono::TimeDelta;
use serde_json::{Value, json};
use tidegate::rollout::RampRequest;
use tidegate_client::agent::{Agent, AgentOptions, Health, StubHost};
use tidegate_client::clock::StubClock;
use tidegate_client::device::Device;
use tidegate_client::fetch::file::url_of;
use tidegate_client::install::StubInstaller;
use tidegate_client::key::DeviceKey;
use tidegate_client::receipts::{FolderSink, Naming, Receipts, Sending};
use tidegate_client::updater::Repository as Published;
use tidegate_model::position::Salt;
use tidegate_model::time;

use super::told;
use crate::support::Fleet;
use crate::support::fleet::lay_out;

/// What becomes of the release on a device.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Well,
    Rejected,
    Unsuitable,
    NeverBack,
}

#[test]
fn what_devices_tell_is_what_is_counted() {
    let fleet = Fleet::new();
    let site = fleet.dir.path().join("site");
    let spec = fleet.release("1.0.0", |_| ());
    fleet.step(&spec, |transaction, op| transaction.start(RampRequest::default(), op)).unwrap();
    lay_out(&fleet, &site);
    let fates = [Fate::Well, Fate::Well, Fate::Well, Fate::Rejected, Fate::Unsuitable, Fate::NeverBack];
    for (id, fate) in canaries().zip(fates) {
        // Twice, as if the first had not been noted.
        updates(&fleet, &site, &id, fate, 2);
    }
    configure(&fleet);
    let report: Value = serde_json::from_str(&told(&fleet.path(), fleet.now, &["receipts", "--json"])).unwrap();
    assert_eq!((&report["counted"], &report["refused"]), (&json!(6 + 5 + 3 + 2), &json!([])), "{report}");
    let health: Value = serde_json::from_str(&told(&fleet.path(), fleet.now, &["receipts", "--health", "-"])).unwrap();
    let cohort = &health["releases"][0]["cohorts"]["canary"];
    assert_eq!((&cohort["confirmed"], &cohort["failed"]), (&json!(3), &json!(2)), "{health}");
}

/// Ids of devices in the canary, the first twentieth of the fleet.
fn canaries() -> impl Iterator<Item = String> {
    let salt: Salt = "00112233445566778899aabbccddeeff".parse().unwrap();
    let ids = (0..).map(|number| format!("device-{number}"));
    ids.filter(move |id| salt.position(&id.parse().unwrap()) < u64::MAX / 21)
}

/// A device with a key that is enrolled updates and sends its receipts, so many times.
fn updates(fleet: &Fleet, site: &Path, id: &str, fate: Fate, times: usize) {
    let key = key(id);
    let enrolment = json!({"schema": 1, "device": id, "keys": [key.public().to_value()]});
    super::write(&fleet.path(), &format!("enrolments/{id}.json"), enrolment.to_string().as_bytes());
    let naming = if id.len().is_multiple_of(2) { Naming::Hash } else { Naming::Id };
    let stub = StubInstaller::new();
    let open = || open(fleet, site, id, Receipts { key: key.clone(), naming }, &stub);
    let mut host = StubHost::new();
    let by_hand = AgentOptions { health: Health::ByHand, ..AgentOptions::default() };
    if fate == Fate::Unsuitable {
        stub.fail_next("the board is too old");
    }
    // Each step by a process of its own.
    Agent::new(&mut open(), &by_hand, &mut host).check().unwrap();
    match fate {
        Fate::Well => Agent::new(&mut open(), &by_hand, &mut host).confirm().unwrap(),
        Fate::Rejected => drop(Agent::new(&mut open(), &by_hand, &mut host).reject().unwrap()),
        Fate::Unsuitable | Fate::NeverBack => {}
    }
    for _ in 0..times {
        let state = fleet.dir.path().join("devices").join(id);
        let before = fs::read(state.join("receipts.json")).unwrap();
        let mut sink = FolderSink::new(fleet.dir.path().join("share"));
        let sent = open().send_receipts(&mut sink, Sending::default()).unwrap();
        assert_eq!((sent.waiting, sent.problem), (0, None), "{fate:?}");
        fs::write(state.join("receipts.json"), &before).unwrap();
        fs::write(state.join("backup/receipts.json"), &before).unwrap();
    }
}

/// Has tidegate.toml name where the receipts are.
fn configure(fleet: &Fleet) {
    let mut toml = fs::read_to_string(fleet.path().join("tidegate.toml")).unwrap();
    toml.push_str("\n[receipts]\nplaces = [\"file:../share\"]\nenrolments = \"file:enrolments\"\n");
    fs::write(fleet.path().join("tidegate.toml"), toml).unwrap();
}

/// The figures of the page are those that are counted, each from when devices told of it.
#[test]
fn the_status_page_shows_what_devices_told_and_when() {
    let mut fleet = Fleet::new();
    let site = fleet.dir.path().join("site");
    let spec = fleet.release("1.0.0", |_| ());
    fleet.step(&spec, |transaction, op| transaction.start(RampRequest::default(), op)).unwrap();
    lay_out(&fleet, &site);
    let begun = fleet.now;
    let mut ids = canaries();
    for (hours, fates) in
        [(1, &[Fate::Well, Fate::Well][..]), (4, &[Fate::Rejected, Fate::NeverBack]), (4, &[Fate::Unsuitable])]
    {
        fleet.pass(hours);
        for fate in fates {
            updates(&fleet, &site, &ids.next().unwrap(), *fate, 1);
        }
    }
    // One that never reports is one of the fleet.
    let silent = ids.next().unwrap();
    let enrolment = json!({"schema": 1, "device": silent, "keys": [key(&silent).public().to_value()]});
    super::write(&fleet.path(), &format!("enrolments/{silent}.json"), enrolment.to_string().as_bytes());
    fleet.pass(3);
    let out = fleet.dir.path().join("page");
    let out = out.to_str().unwrap();
    let page = |line: &[&str]| -> Value {
        told(&fleet.path(), fleet.now, &[&["site", "--out", out], line].concat());
        serde_json::from_slice(&fs::read(format!("{out}/status.json")).unwrap()).unwrap()
    };
    assert_eq!(page(&[]).get("health"), None, "nothing is configured");
    configure(&fleet);
    let live = ["../site", "--root", "metadata/1.root.json"];
    let (here, there) = (page(&[]), page(&live));
    assert_eq!(here["health"], there["health"], "a page of what is live has them, too");
    assert_eq!((&here["shows"]["live"], &there["shows"]["live"]), (&json!(false), &json!(true)));
    let health = &here["health"];
    assert_eq!((&health["counted"], &health["refused"]), (&json!(3 + 3 + 3 + 2 + 2), &json!(0)), "{health}");
    let release = &health["releases"][0];
    let point = |hours: i64, [installed, confirmed, failed, rolled_back]: [u64; 4]| {
        let at = time::format(begun + TimeDelta::hours(hours));
        json!({"at": at, "installed": installed, "confirmed": confirmed, "failed": failed, "rolled_back": rolled_back})
    };
    let points = [
        point(0, [0; 4]),
        point(1, [2, 2, 0, 0]),
        point(5, [3, 2, 1, 0]),
        point(9, [3, 2, 2, 0]),
        point(12, [3, 2, 2, 0]),
    ];
    assert_eq!(release["fleet"], 6);
    assert_eq!(release["groups"], json!([{"cohort": "canary", "hardware": "board-a", "over_time": points}]));
    // The canary is 5% of the fleet, at once.
    let planned = points.map(|mut point| {
        point["planned_ppm"] = json!(50_000);
        point
    });
    assert_eq!(release["over_time"], json!(planned));
    let report: Value = serde_json::from_str(&told(&fleet.path(), fleet.now, &["receipts", "--json"])).unwrap();
    for count in ["installed", "confirmed", "failed", "rolled_back"] {
        assert_eq!(report["releases"][0]["all"][count], planned[4][count], "{count}");
    }

    // Elsewhere only if told where; and not for the public.
    let given = ["--receipts", "file:../share", "--enrolments", "file:enrolments"];
    assert_eq!(page(&[&live[..], &given].concat())["health"], *health);
    assert_eq!(page(&["--no-receipts"]).get("health"), None);
    assert_eq!(page(&["--public"]).get("health"), None);
}

/// Receipts that cannot be read stop neither the page nor a publication.
#[test]
fn a_status_page_comes_without_receipts_that_cannot_be_read() {
    let fleet = Fleet::new();
    let spec = fleet.release("1.0.0", |_| ());
    fleet.start(&spec);
    configure(&fleet);
    let public = fleet.dir.path().join("public");
    let status =
        |from: &Path| -> Value { serde_json::from_slice(&fs::read(from.join("status.json")).unwrap()).unwrap() };
    let said = told(&fleet.path(), fleet.now, &["site", "--out", "page", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    let here = status(&fleet.path().join("page"));
    told(&fleet.path(), fleet.now, &["publish", "../public", "--site=full"]);
    let there = status(&public);
    for told in [&said["receipts_fault"], &here["health"]["fault"], &there["health"]["fault"]] {
        assert!(told.as_str().unwrap().contains("there is no folder"), "{told}");
    }
    assert_eq!((&here["shows"]["live"], &there["shows"]["live"]), (&json!(false), &json!(true)));
    let page = fs::read_to_string(public.join("index.html")).unwrap();
    assert!(page.contains("No receipts") && page.contains("there is no folder"), "the page says so");
    told(&fleet.path(), fleet.now, &["publish", "../public", "--site"]);
    assert_eq!(status(&public).get("health"), None, "what devices report is not for the public");
}

fn key(id: &str) -> DeviceKey {
    use ed25519_dalek::pkcs8::EncodePrivateKey as _;
    use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
    let seed = tidegate_model::digest::Digest::of(id.as_bytes());
    let key = ed25519_dalek::SigningKey::from_bytes(seed.as_bytes());
    DeviceKey::from_pem(key.to_pkcs8_pem(LineEnding::LF).unwrap().as_bytes()).unwrap()
}

fn open(fleet: &Fleet, site: &Path, id: &str, receipts: Receipts, stub: &StubInstaller) -> Device {
    Device::builder()
        .root(fs::read(fleet.path().join("metadata/1.root.json")).unwrap())
        .repository(Published::at(&url_of(site).unwrap()).unwrap())
        .state_dir(fleet.dir.path().join("devices").join(id))
        .id(id.parse().unwrap())
        .channel("stable".parse().unwrap())
        .product("os".parse().unwrap())
        .hardware("board-a".parse().unwrap())
        .factory("0.9.0".parse().unwrap(), 0)
        .clock(StubClock::at(fleet.now))
        .installer(stub.clone())
        .receipts(receipts)
        .open()
        .unwrap()
}

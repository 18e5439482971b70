//! Real devices on a real repository: what they tell is what is counted.

use std::fs;

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
    let share = fleet.dir.path().join("share");
    // The canary is the first twentieth of the fleet.
    let salt: Salt = "00112233445566778899aabbccddeeff".parse().unwrap();
    let ids = (0..).map(|number| format!("device-{number}"));
    let canaries = ids.filter(|id| salt.position(&id.parse().unwrap()) < u64::MAX / 21);
    for (number, (id, fate)) in canaries.zip(fates).enumerate() {
        let key = key(&id);
        let enrolment = json!({"schema": 1, "device": id, "keys": [key.public().to_value()]});
        super::write(&fleet.path(), &format!("enrolments/{id}.json"), enrolment.to_string().as_bytes());
        let naming = if number % 2 == 0 { Naming::Hash } else { Naming::Id };
        let stub = StubInstaller::new();
        let open = || open(&fleet, &site, &id, Receipts { key: key.clone(), naming }, &stub);
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
        // Twice, as if the first had not been noted.
        for _ in 0..2 {
            let state = fleet.dir.path().join("devices").join(&id);
            let before = fs::read(state.join("receipts.json")).unwrap();
            let mut sink = FolderSink::new(&share);
            let sent = open().send_receipts(&mut sink, Sending::default()).unwrap();
            assert_eq!((sent.waiting, sent.problem), (0, None), "{fate:?}");
            fs::write(state.join("receipts.json"), &before).unwrap();
            fs::write(state.join("backup/receipts.json"), &before).unwrap();
        }
    }
    let mut toml = fs::read_to_string(fleet.path().join("tidegate.toml")).unwrap();
    let places = format!("\n[receipts]\nplaces = [\"file:{}\"]\nenrolments = \"file:enrolments\"\n", share.display());
    toml.push_str(&places);
    fs::write(fleet.path().join("tidegate.toml"), toml).unwrap();
    let report: Value = serde_json::from_str(&told(&fleet.path(), fleet.now, &["receipts", "--json"])).unwrap();
    assert_eq!((&report["counted"], &report["refused"]), (&json!(6 + 5 + 3 + 2), &json!([])), "{report}");
    let health: Value = serde_json::from_str(&told(&fleet.path(), fleet.now, &["receipts", "--health", "-"])).unwrap();
    let cohort = &health["releases"][0]["cohorts"]["canary"];
    assert_eq!((&cohort["confirmed"], &cohort["failed"]), (&json!(3), &json!(2)), "{health}");
}

fn key(id: &str) -> DeviceKey {
    use ed25519_dalek::pkcs8::EncodePrivateKey as _;
    use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
    let seed = tidegate_model::digest::Digest::of(id.as_bytes());
    let key = ed25519_dalek::SigningKey::from_bytes(seed.as_bytes());
    DeviceKey::from_pem(key.to_pkcs8_pem(LineEnding::LF).unwrap().as_bytes()).unwrap()
}

fn open(fleet: &Fleet, site: &std::path::Path, id: &str, receipts: Receipts, stub: &StubInstaller) -> Device {
    Device::builder()
        .root(fs::read(fleet.path().join("metadata/1.root.json")).unwrap())
        .repository(Published::at(&url_of(site).unwrap()))
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

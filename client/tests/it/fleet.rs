//! A Tidegate repository on top of a [`Simulator`]: a channel, its cohorts, releases and offers.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tidegate_client::device::{Device, DeviceBuilder};
use tidegate_model::cohort::{Cohort, CohortMap, Selector};
use tidegate_model::gate::Protected;
use tidegate_model::layout;
use tidegate_model::manifest::Manifest;
use tidegate_model::name::Name;
use tidegate_model::rollout::Offers;
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::time;

use crate::mirror::Mirror;
use crate::simulator::{Simulator, epoch};

pub const IMAGE: &[u8] = b"the image of a release";

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A channel `stable` with these cohorts, in order: a share in parts per million, or else for devices whose fact `group` is
/// the cohort's name.
pub fn channel(cohorts: &[(&str, Option<u32>)]) -> Simulator {
    let mut sim = Simulator::new();
    sim.delegate(
        "targets",
        "stable",
        &["stable/cohorts.json", "stable/releases/*/*/*", "stable/patches/*/*/*", "stable/cohorts/*/*"],
        true,
    );
    for (cohort, _) in cohorts {
        sim.delegate("stable", &format!("stable.{cohort}"), &[&format!("stable/cohorts/{cohort}/*")], true);
    }
    set_cohorts(&mut sim, cohorts);
    let roles: Vec<String> = cohorts.iter().map(|(cohort, _)| format!("stable.{cohort}")).collect();
    let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
    sim.publish(&roles);
    sim.publish(&["stable", "targets", "snapshot", "timestamp"]);
    sim
}

pub fn set_cohorts(sim: &mut Simulator, cohorts: &[(&str, Option<u32>)]) {
    set_protected_cohorts(sim, cohorts, &[]);
}

/// The same, with the gates of some of them.
pub fn set_protected_cohorts(sim: &mut Simulator, cohorts: &[(&str, Option<u32>)], gates: &[(&str, &str)]) {
    let cohorts = cohorts.iter().map(|(cohort, share)| {
        let selector = match share {
            Some(share) => Selector::Share(*share),
            None => Selector::Condition(serde_json::from_value(json!({"fact": "group", "eq": *cohort})).unwrap()),
        };
        let gate = gates.iter().find(|(protected, _)| protected == cohort);
        let protected = gate.map(|(_, gate)| Protected::by(gate.parse().unwrap()));
        Cohort { name: name(cohort), selector, protected, extra: std::collections::BTreeMap::default() }
    });
    let map = CohortMap::new("00112233445566778899aabbccddeeff".parse().unwrap(), cohorts.collect()).unwrap();
    sim.add_target("stable", "stable/cohorts.json", &map.to_bytes().unwrap());
}

/// The manifest of a release of product `os` with one artifact for hardware `board`.
pub fn manifest(version: &str, sequence: u64) -> Value {
    manifest_of(version, sequence, IMAGE)
}

/// The same with this image.
pub fn manifest_of(version: &str, sequence: u64, image: &[u8]) -> Value {
    json!({
        "schema": 1, "product": "os", "version": version, "sequence": sequence, "channel": "stable",
        "created": time::format(epoch()), "build": {"id": "build-1"}, "urgency": "normal",
        "artifacts": [{
            "name": "image.bin", "path": format!("stable/releases/os/{version}/image.bin"), "length": image.len(),
            "sha256": to_hex(&Sha256::digest(image)), "hardware": ["board"], "media_type": "application/octet-stream",
        }],
    })
}

/// Lists a release in the channel's role. Returns its manifest's bytes.
pub fn approve(sim: &mut Simulator, manifest: &Value) -> Vec<u8> {
    approve_image(sim, manifest, IMAGE)
}

/// The same with this image.
pub fn approve_image(sim: &mut Simulator, manifest: &Value, image: &[u8]) -> Vec<u8> {
    let version = manifest["version"].as_str().unwrap();
    let bytes = Manifest::from_value(manifest).unwrap().to_bytes().unwrap();
    sim.add_target("stable", &format!("stable/releases/os/{version}/manifest.json"), &bytes);
    sim.add_target("stable", &format!("stable/releases/os/{version}/image.bin"), image);
    bytes
}

/// Offers a release to a cohort, and nothing else; `more` joins or replaces fields of the offer.
pub fn assign(sim: &mut Simulator, cohort: &str, manifest: &[u8], more: &Value) {
    offer(sim, cohort, &[(manifest, more.clone())]);
}

/// Offers releases to a cohort, in this order.
pub fn offer(sim: &mut Simulator, cohort: &str, releases: &[(&[u8], Value)]) {
    let offers = releases.iter().map(|(manifest, more)| {
        let parsed: Value = serde_json::from_slice(manifest).unwrap();
        let mut offer = json!({
            "release": parsed["version"], "sequence": parsed["sequence"], "stage": "limited", "paused": false,
            "sha256": to_hex(&Sha256::digest(manifest)), "length": manifest.len(), "since": time::format(epoch()),
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            offer[field] = value.clone();
        }
        offer
    });
    let list = json!({"schema": 1, "assigned": time::format(epoch()), "offers": offers.collect::<Vec<_>>()});
    let offers = Offers::from_value(&list).unwrap();
    let path = layout::assignment_path(&name("stable"), &name(cohort), &name("os"));
    let role = format!("stable.{cohort}");
    sim.add_target(&role, &path, &offers.to_bytes().unwrap());
    sim.set_custom(&role, &path, json!({"tidegate": offers.to_value().unwrap()}));
}

/// Approves a release, assigns it to a cohort, and publishes all that changed.
pub fn release(sim: &mut Simulator, cohort: &str, version: &str, sequence: u64) -> Vec<u8> {
    release_image(sim, cohort, version, sequence, IMAGE)
}

/// The same with this image.
pub fn release_image(sim: &mut Simulator, cohort: &str, version: &str, sequence: u64, image: &[u8]) -> Vec<u8> {
    let bytes = approve_image(sim, &manifest_of(version, sequence, image), image);
    assign(sim, cohort, &bytes, &json!({}));
    sim.publish(&[&format!("stable.{cohort}"), "stable", "snapshot", "timestamp"]);
    bytes
}

/// A device of product `os` on hardware `board`, as it left the factory with 1.0.0.
pub fn device(mirror: &Mirror, state: &std::path::Path, now: DateTime<Utc>) -> DeviceBuilder {
    Device::builder()
        .root(mirror.sim().root(1))
        .repository(Mirror::repository())
        .state_dir(state)
        .id("device-1".parse().unwrap())
        .channel(name("stable"))
        .product(name("os"))
        .hardware("board".parse().unwrap())
        .factory("1.0.0".parse().unwrap(), 0)
        .fetch(mirror.clone())
        .clock(tidegate_client::clock::StubClock::at(now))
}

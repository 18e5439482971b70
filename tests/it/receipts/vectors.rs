//! What a gate stored is what is read here: the gate's own tests hold it to the same frozen file (`gate/tests/it/stored.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tidegate::publish::Remote;
use tidegate::receipts::{Counter, Enrolments, Known, Releases, read};
use tidegate::release::ReleaseId;
use tidegate_model::digest::Digest;
use tidegate_model::time;

use super::write;

#[tokio::test]
async fn what_a_gate_stored_is_read_and_counted() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("model/tests/vectors/receipts.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(vectors).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for place in ["enrolments", "receipts"] {
        for (name, text) in vectors[place].as_object().unwrap() {
            write(&dir.path().join(place), name, text.as_str().unwrap().as_bytes());
        }
    }
    let about = &vectors["release"];
    let text = |name: &str| about[name].as_str().unwrap();
    let mut releases = Releases::default();
    releases.add(Known {
        id: ReleaseId {
            channel: text("channel").parse().unwrap(),
            product: text("product").parse().unwrap(),
            version: text("version").parse().unwrap(),
        },
        sequence: about["sequence"].as_u64().unwrap(),
        manifest: text("manifest").parse::<Digest>().unwrap(),
        hardware: BTreeMap::from([(text("hardware").parse().unwrap(), 1)]),
        offered: BTreeSet::from([text("cohort").parse().unwrap()]),
    });
    let open = |place: &str| Remote::open(dir.path().join(place).to_str().unwrap()).unwrap();
    let enrolments = Arc::new(Enrolments::read(&open("enrolments"), |_| ()).await.unwrap());
    let mut counter = Counter::new(&releases, time::parse("2026-01-06T00:00:00Z").unwrap());
    read(&open("receipts"), "receipts", &enrolments, |name, found| counter.take(name, found)).await.unwrap();
    let report = counter.report(Vec::new(), Some(enrolments.enrolled()), None);
    let found = serde_json::to_value(&report).unwrap();
    assert_eq!(found["refused"], serde_json::json!([]));
    assert_eq!(found["counted"], vectors["receipts"].as_object().unwrap().len());
    assert_eq!(found["releases"][0]["all"], vectors["all"]);
}

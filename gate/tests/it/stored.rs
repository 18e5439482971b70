//! Stored objects have the format that the publisher reads: `model/tests/vectors/receipts.json`, see `tests/it/receipts/vectors.rs`.

use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::support::device::Device;
use crate::support::{COHORTS, TestSite, client};

/// All files below a folder, by relative path.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.push((name, std::fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn stores_the_format_of_the_publisher() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/vectors/receipts.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(vectors).unwrap()).unwrap();
    let site = TestSite::new();
    site.write_config("optional", COHORTS);
    let posted = vectors["posted"].as_object().unwrap();
    let devices: Vec<Device> = posted.keys().map(|id| Device::enrolled(&site, id)).collect();
    let gate = site.start();
    for device in &devices {
        let receipts = &posted[&device.id];
        let answer = device.post(&gate, "/v1/receipts", &json!({"receipts": receipts}));
        let stored = receipts.as_array().unwrap().len();
        assert_eq!((answer.status, answer.json()), (200, json!({"stored": stored, "known": 0})));
    }
    let expected = |place: &str| -> Vec<(String, Vec<u8>)> {
        let objects = vectors[place].as_object().unwrap().iter();
        objects.map(|(name, text)| (name.clone(), text.as_str().unwrap().as_bytes().to_vec())).collect()
    };
    assert_eq!(files(&site.path("receipts")), expected("receipts"));
    // The order of fields does not matter here.
    let read = |files: Vec<(String, Vec<u8>)>| -> Vec<(String, Value)> {
        files.into_iter().map(|(name, bytes)| (name, serde_json::from_slice(&bytes).unwrap())).collect()
    };
    assert_eq!(read(files(&site.path("enrolments"))), read(expected("enrolments")));
}

#[test]
fn enrols_the_key_of_a_certificate() {
    let site = TestSite::new();
    site.write_config("required", COHORTS);
    let key = KeyPair::generate().unwrap();
    let certificate = client("x", &["tidegate:device:device-1"]).signed_by(&key, &site.ca).unwrap();
    site.write("device.pem", &certificate.pem());
    site.write("device.pub", &key.public_key_pem().replace("\r\n", "\n"));
    let enrol = |device: &str, file: &str| site.run(&["enrol", device, "--key", site.path(file).to_str().unwrap()]);
    assert!(enrol("device-1", "device.pem").status.success());
    let kept = files(&site.path("enrolments"));
    // The same key from a public key file is not added again.
    assert!(enrol("device-1", "device.pub").status.success());
    assert_eq!(files(&site.path("enrolments")), kept);
    let other = enrol("device-2", "device.pem");
    let output = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(!other.status.success() && output.contains("is the certificate of device-1"), "{output}");
    site.write("key.pem", &key.serialize_pem());
    assert!(String::from_utf8_lossy(&enrol("device-1", "key.pem").stderr).contains("is not a supported public key"));
}

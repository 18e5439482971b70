//! The frozen vectors of `tests/vectors`: what publishers and devices of every version agree on.
//! A value in them never changes; new ones are added.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;
use tidegate_model::cohort::{Cohort, CohortMap, Selector};
use tidegate_model::condition::{Condition, Problem};
use tidegate_model::digest::Digest;
use tidegate_model::facts::Facts;
use tidegate_model::gate::{GateUrl, Proof, quote_data};
use tidegate_model::listing::Listing;
use tidegate_model::manifest::Manifest;
use tidegate_model::position::Salt;
use tidegate_model::receipt::SignedReceipt;
use tidegate_model::rollout::Ramp;
use tidegate_model::version::{self, VersionRange};
use tidegate_model::{Extra, time};
use tidegate_tuf::json;
use tidegate_tuf::key::Key;

use super::{device, instant, name};

/// Reads a file of vectors with the strict reader that all documents go through.
pub(super) fn load<T: for<'de> Deserialize<'de>>(file: &str) -> Vec<T> {
    let bytes = std::fs::read(folder().join(file)).unwrap();
    let cases: Vec<T> = serde_json::from_value(json::parse(&bytes).unwrap()).unwrap();
    assert!(!cases.is_empty(), "{file} is empty");
    cases
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

#[test]
fn positions() {
    #[derive(Deserialize)]
    struct Case {
        salt: Salt,
        device: String,
        position: u64,
        device_hash: Digest,
        ramp_positions: BTreeMap<String, u64>,
    }
    for case in load::<Case>("positions.json") {
        let id = device(&case.device);
        assert_eq!(case.salt.position(&id), case.position, "position of {id} under {}", case.salt);
        assert_eq!(case.salt.device_hash(&id), case.device_hash, "hash of {id} under {}", case.salt);
        let order = case.salt.ramp_order(&id);
        for (sequence, position) in case.ramp_positions {
            assert_eq!(order.position(sequence.parse().unwrap()), position, "{id} in the ramp of {sequence}");
        }
    }
}

#[test]
fn cohort_boundaries() {
    #[derive(Deserialize)]
    struct Case {
        shares: Vec<u32>,
        intervals: Vec<(String, String)>,
        samples: Vec<Sample>,
    }
    #[derive(Deserialize)]
    struct Sample {
        position: u64,
        cohort: usize,
    }
    for case in load::<Case>("cohorts.json") {
        let map = shares(&case.shares);
        for (index, (low, high)) in case.intervals.iter().enumerate() {
            let interval = map.interval(&name(&format!("c{index}"))).unwrap();
            assert_eq!((interval.low().to_string(), interval.high().to_string()), (low.clone(), high.clone()));
        }
        for sample in case.samples {
            let owners: Vec<_> = (0..case.shares.len())
                .filter(|index| map.interval(&name(&format!("c{index}"))).unwrap().contains(sample.position))
                .collect();
            assert_eq!(owners, [sample.cohort], "{} in {:?}", sample.position, case.shares);
            let placement = map.share_at(sample.position);
            assert_eq!(placement.cohort.as_str(), format!("c{}", sample.cohort));
        }
    }
}

/// A map of shares alone, named c0, c1 and so on.
pub(super) fn shares(shares: &[u32]) -> CohortMap {
    let cohorts = shares.iter().enumerate().map(|(index, share)| Cohort {
        name: name(&format!("c{index}")),
        selector: Selector::Share(*share),
        protected: None,
        extra: Extra::new(),
    });
    CohortMap::new(Salt::new(&[7; 32]).unwrap(), cohorts.collect()).unwrap()
}

#[test]
fn ramps() {
    #[derive(Deserialize)]
    struct Case {
        ramp: Ramp,
        exposure: Vec<Sample>,
        exposed_at: Vec<Reached>,
    }
    #[derive(Deserialize)]
    struct Sample {
        at: String,
        bound: String,
    }
    #[derive(Deserialize)]
    struct Reached {
        position: u64,
        at: Option<String>,
    }
    for Case { ramp, exposure, exposed_at } in load("ramps.json") {
        for Sample { at, bound } in exposure {
            assert_eq!(ramp.exposure(instant(&at)).bound().to_string(), bound, "{ramp}, exposure at {at}");
        }
        for Reached { position, at } in exposed_at {
            assert_eq!(ramp.exposed_at(position).map(time::format), at, "{ramp}, position {position}");
        }
    }
}

/// What a publisher writes and a gate reads: `tests/it/protected/vectors.rs` and `gate/tests/it/listings.rs` hold these against both.
#[test]
fn listings() {
    #[derive(Deserialize)]
    struct Case {
        name: String,
        cohort: String,
        objects: Option<Vec<String>>,
        canonical: Option<String>,
        sha256: Option<Digest>,
        bytes: Option<String>,
        #[serde(default)]
        refused: bool,
    }
    for case in load::<Case>("listings.json") {
        let bytes = case.canonical.as_ref().or(case.bytes.as_ref()).unwrap().as_bytes();
        let read = Listing::parse(bytes, &case.cohort);
        assert_eq!(read.is_err(), case.refused, "{}: {read:?}", case.name);
        let Ok(listing) = read else { continue };
        assert_eq!(listing.objects.iter().cloned().collect::<Vec<_>>(), case.objects.unwrap(), "{}", case.name);
        if let Some(sha256) = case.sha256 {
            assert_eq!(listing.to_bytes().unwrap(), bytes, "{}", case.name);
            assert_eq!(Digest::of(bytes), sha256, "{}", case.name);
        }
    }
}

/// What devices sign for a gate, and have their TPMs sign.
#[test]
fn proofs_and_quotes_for_a_gate() {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Case {
        Proof {
            gate: String,
            method: String,
            path: String,
            body: String,
            token: String,
            seconds: i64,
            random: String,
            message: String,
        },
        Quote {
            gate: String,
            nonce: String,
            device: String,
            sha256: Digest,
        },
    }
    let host = |url: &str| url.parse::<GateUrl>().unwrap().host().to_owned();
    for case in load::<Case>("gate.json") {
        match case {
            Case::Proof { gate, method, path, body, token, seconds, random, message } => {
                let (gate, body) = (&host(&gate), body.as_bytes());
                let proof = Proof { gate, method: &method, path: &path, body, token: &token, seconds, random: &random };
                assert_eq!(String::from_utf8(proof.message()).unwrap(), message);
            }
            Case::Quote { gate, nonce, device, sha256 } => {
                let nonce = data_encoding::HEXLOWER.decode(nonce.as_bytes()).unwrap();
                assert_eq!(quote_data(&host(&gate), &nonce, &device.parse().unwrap()), sha256);
            }
        }
    }
}

#[test]
fn protected_cohorts() {
    #[derive(Deserialize)]
    struct Case {
        name: String,
        map: Value,
        canonical: Option<String>,
        sha256: Option<Digest>,
        protected: Option<BTreeMap<String, String>>,
        #[serde(default)]
        refused: bool,
    }
    for case in load::<Case>("protected.json") {
        let read = CohortMap::from_value(&case.map);
        assert_eq!(read.is_err(), case.refused, "{}: {read:?}", case.name);
        let Ok(map) = read else { continue };
        let gates = map
            .cohorts()
            .iter()
            .filter_map(|cohort| Some((cohort.name.to_string(), cohort.protected.as_ref()?.gate.to_string())));
        assert_eq!(Some(gates.collect()), case.protected, "{}", case.name);
        let bytes = map.to_bytes().unwrap();
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), case.canonical.unwrap(), "{}", case.name);
        assert_eq!(Digest::of(&bytes), case.sha256.unwrap(), "{}", case.name);
    }
}

#[test]
fn conditions() {
    #[derive(Deserialize)]
    struct Case {
        condition: Value,
        facts: Facts,
        holds: bool,
        text: String,
        problems: Vec<(String, String)>,
    }
    for case in load::<Case>("conditions.json") {
        let condition = Condition::from_value(&case.condition).unwrap();
        assert_eq!(condition.to_string(), case.text);
        assert_eq!(serde_json::to_value(&condition).unwrap(), case.condition, "{condition}: JSON form");
        assert_eq!(condition.holds(&case.facts), case.holds, "{condition}");
        let outcome = condition.evaluate(&case.facts);
        assert_eq!(outcome.holds, case.holds, "{condition}: with reasons");
        let problems = outcome.problems().into_iter().map(|(fact, _, problem)| {
            let problem = match problem {
                Problem::Missing => "missing",
                Problem::WrongType => "wrong-type",
            };
            (fact.to_string(), problem.to_owned())
        });
        assert_eq!(problems.collect::<Vec<_>>(), case.problems, "{condition}: problems");
    }
}

#[test]
fn versions() {
    #[derive(Deserialize)]
    struct Case {
        range: VersionRange,
        holds: Vec<String>,
        not: Vec<String>,
    }
    for Case { range, holds, not } in load("versions.json") {
        for text in holds {
            assert!(range.holds(&version::parse(&text).unwrap()), "\"{range}\" holds {text}");
        }
        for text in not {
            assert!(!range.holds(&version::parse(&text).unwrap()), "\"{range}\" does not hold {text}");
        }
    }
}

#[test]
fn manifests() {
    #[derive(Deserialize)]
    struct Case {
        name: String,
        manifest: Value,
        canonical: String,
        sha256: Digest,
    }
    for case in load::<Case>("manifests.json") {
        let manifest = Manifest::from_value(&case.manifest).unwrap();
        let bytes = manifest.to_bytes().unwrap();
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), case.canonical, "{}", case.name);
        assert_eq!(Digest::of(&bytes), case.sha256, "{}", case.name);
        assert_eq!(Manifest::parse(&bytes).unwrap(), manifest, "{}", case.name);
    }
}

#[test]
fn signed_receipts() {
    #[derive(Deserialize)]
    struct Case {
        name: String,
        key: Value,
        receipt: Value,
        canonical: String,
        object: String,
    }
    for case in load::<Case>("signed-receipts.json") {
        let signed = SignedReceipt::from_value(&case.receipt).unwrap();
        let key = Key::from_value(&case.key).unwrap();
        assert_eq!(String::from_utf8(signed.receipt.to_bytes().unwrap()).unwrap(), case.canonical, "{}", case.name);
        assert!(signed.verify(&key), "{}: the signature", case.name);
        assert_eq!(signed.object_name().unwrap(), case.object, "{}", case.name);
        assert_eq!(signed.to_value(), case.receipt, "{}", case.name);
    }
}

/// The vectors agree with a second, independent implementation of the definitions.
#[test]
fn python_computes_the_same() {
    let output = match Command::new("python3").arg("-B").arg(folder().join("check.py")).output() {
        Ok(output) => output,
        Err(error) => {
            assert!(std::env::var_os("TIDEGATE_REQUIRE_TOOLS").is_none(), "python3 does not run: {error}");
            eprintln!("SKIPPED: the vectors were not recomputed by check.py, since python3 does not run: {error}");
            return;
        }
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains(" 0 wrong"), "{out}{err}");
}

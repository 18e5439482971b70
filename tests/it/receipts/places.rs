//! The same count from a folder and from buckets of real servers that speak S3.

use object_store::{ObjectStoreExt as _, PutPayload};
use serde_json::{Value, json};
use tidegate_model::receipt::InstallResult;

use super::{Signer, enrolment, object, receipt, tidegate, write};
use crate::support::Fleet;
use crate::support::s3::S3;

const DEVICES: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_and_buckets_give_the_same_count() {
    let fleet = Fleet::new();
    let spec = fleet.release("1.0.0", |_| ());
    fleet.start(&spec);
    let manifest = spec.find(&fleet.path()).unwrap().manifest.unwrap().sha256;
    let mut objects = Vec::new();
    for number in 0..DEVICES {
        let name = format!("device-{number}");
        let signer = Signer::of(&name);
        objects.push((format!("enrolled/{number}.json"), enrolment(&name, &signer).to_string().into_bytes()));
        let outcome = if number % 20 == 0 { InstallResult::Failed } else { InstallResult::Confirmed };
        let (name, bytes) = object(&signer.sign(receipt(&name, manifest, outcome, fleet.now)));
        objects.push((format!("kept/{name}"), bytes));
    }
    let folder = fleet.dir.path().join("places");
    for (name, bytes) in &objects {
        write(&folder, name, bytes);
    }
    let count = |variables: &[(String, String)], at: &str| -> Value {
        let (kept, enrolled) = (format!("{at}/kept"), format!("{at}/enrolled"));
        let line = ["receipts", &kept, "--enrolments", &enrolled, "--json", "--retry-for", "5s"];
        let out = tidegate(&fleet.path(), fleet.now, variables, &line);
        assert!(out.status.success(), "{at}: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    };
    let expected = count(&[], folder.to_str().unwrap());
    let tally =
        json!({"offered": DEVICES, "installed": 57, "confirmed": 57, "failed": 3, "rolled_back": 0, "recovered": 0});
    assert_eq!(expected["releases"][0]["all"], tally);

    for s3 in [Some(S3::here().await), S3::moto()].into_iter().flatten() {
        let store = s3.store();
        for (name, bytes) in &objects {
            store.put(&format!("a/b/{name}").as_str().into(), PutPayload::from(bytes.clone())).await.unwrap();
        }
        let found = tokio::task::block_in_place(|| count(&s3.variables(), "s3://fleet/a/b"));
        assert_eq!(found["releases"], expected["releases"], "{}", s3.endpoint);
        assert_eq!(found["places"], json!(["s3://fleet/a/b/kept"]));

        // Two places, one of which holds what the other does: nothing counts twice.
        let (kept, enrolled) = (folder.join("kept"), folder.join("enrolled"));
        let line = [
            "receipts",
            kept.to_str().unwrap(),
            "s3://fleet/a/b/kept",
            "--enrolments",
            enrolled.to_str().unwrap(),
            "--json",
        ];
        let out = tokio::task::block_in_place(|| tidegate(&fleet.path(), fleet.now, &s3.variables(), &line));
        let both: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(both["releases"], expected["releases"]);
        assert_eq!((&both["counted"], &both["repeated"]), (&json!(2 * DEVICES), &json!(DEVICES)));
    }
}

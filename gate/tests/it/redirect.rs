//! Redirects to presigned URLs, with a real S3 server.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use object_store::aws::AmazonS3Builder;
use object_store::{ObjectStoreExt as _, PutPayload};

use crate::support::device::Device;
use crate::support::wire::send;
use crate::support::{COHORTS, TestSite, target};

/// The server, which stops when dropped.
pub struct Moto(Child, pub String);

impl Drop for Moto {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn moto() -> Option<Moto> {
    let required = std::env::var_os("TIDEGATE_REQUIRE_TOOLS").is_some();
    let python = std::env::var("TIDEGATE_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python)
        .args(["-c", "import moto.server, boto3"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !has {
        assert!(!required, "moto is missing");
        eprintln!("SKIPPED: moto is missing");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/s3.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    Some(Moto(child, line.trim().to_owned()))
}

#[test]
fn redirects_to_objects_in_a_bucket() {
    let Some(moto) = moto() else { return };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store = AmazonS3Builder::new().with_endpoint(&moto.1).with_bucket_name("fleet").with_region("us-east-1");
    let store = store.with_access_key_id("test").with_secret_access_key("test").with_allow_http(true).build().unwrap();
    let (name, text) = target("stable/releases/os/1.2.0+b1/os.img", "in a bucket");
    let listing = serde_json::json!({"schema": 1, "cohort": "stable.canary", "objects": [name]}).to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (key, bytes) in [(name.as_str(), text.clone()), ("gate/stable.canary.json", listing)] {
        runtime.block_on(store.put(&format!("private/{key}").into(), PutPayload::from(bytes))).unwrap();
    }
    let site = TestSite::new();
    site.write_config("optional", COHORTS);
    let settings = std::fs::read_to_string(site.path("gate.toml")).unwrap();
    let settings = ["private", "state", "receipts"]
        .iter()
        .fold(settings, |text, place| text.replace(&format!("\"file:{place}\""), &format!("\"s3://fleet/{place}\"")));
    site.write("gate.toml", &settings);
    let device = Device::enrolled(&site, "device-1");
    let variables = [
        ("AWS_ENDPOINT_URL", moto.1.as_str()),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let gate = site.start_with_config(
        &site.path("gate.toml"),
        &variables.map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let token = device.token(&gate);
    let answer = device.get(&gate, &name, &token);
    assert_eq!((answer.status, answer.body.len()), (307, 0), "{answer:?}");
    let location = answer.header("location").unwrap();
    assert!(location.contains("X-Amz-Expires=60") && location.contains("X-Amz-Signature="), "{location}");
    // Like a device: without the token.
    let (host, path) = location.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let got = send(
        host.parse().unwrap(),
        None,
        format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes(),
    )
    .unwrap();
    assert_eq!((got.status, got.body), (200, text.into_bytes()));
    assert!(!gate.audit().contains("X-Amz"), "the audit log contains no presigned URL");

    // Nonces are single-use in a bucket too, and receipts are stored once.
    let nonce = device.nonce(&gate);
    let body = serde_json::json!({"device": "device-1", "nonce": nonce, "cohorts": ["stable.canary"], "evidence": {"kind": "none"}});
    assert_eq!(device.post(&gate, "/v1/grant", &body).status, 200);
    assert_eq!(device.post(&gate, "/v1/grant", &body).rule(), "G-NON-03");
    let receipts = serde_json::json!({"receipts": [device.receipt(1)]});
    for (stored, known) in [(1, 0), (0, 1)] {
        assert_eq!(
            device.post(&gate, "/v1/receipts", &receipts).json(),
            serde_json::json!({"stored": stored, "known": known})
        );
    }
    assert!(site.run(&["enrol", "x", "--disable"]).status.success());
    // The server stops: the gate reports the failure without details.
    drop(moto);
    let answer = device.get(&gate, &target("stable/releases/os/1.2.0/os.img", "x").0, &token);
    assert!(answer.status == 403 || answer.status == 503, "{answer:?}");
    assert_eq!(gate.local("/readyz").status, 503);
}

//! Receipts, as the publisher counts them: by the program, from folders and buckets, over simulated days.

mod counting;
mod devices;
mod places;
mod simulated;
mod vectors;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use chrono::{DateTime, Utc};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use tidegate_model::digest::Digest;
use tidegate_model::receipt::{InstallResult, Receipt, SignedReceipt};
use tidegate_model::time;
use tidegate_tuf::json;
use tidegate_tuf::key::{Key, KeyId};

/// A device's key, always the same for a name.
#[derive(Clone)]
pub struct Signer {
    key: SigningKey,
    id: KeyId,
}

impl Signer {
    pub fn of(name: &str) -> Self {
        let key = SigningKey::from_bytes(Digest::of(name.as_bytes()).as_bytes());
        let id = Key::ed25519(key.verifying_key().as_bytes()).id();
        Self { key, id }
    }

    pub fn public(&self) -> Key {
        Key::ed25519(self.key.verifying_key().as_bytes())
    }

    pub fn sign(&self, receipt: Receipt) -> SignedReceipt {
        let signature = self.key.sign(&receipt.to_bytes().unwrap()).to_bytes().to_vec();
        receipt.signed(self.id.clone(), signature)
    }
}

/// The enrolment of a device with one key.
pub fn enrolment(device: &str, signer: &Signer) -> Value {
    json!({"schema": 1, "device": device, "keys": [signer.public().to_value()]})
}

/// The name of an object that holds a receipt, and its bytes, as the gate keeps it.
pub fn object(signed: &SignedReceipt) -> (String, Vec<u8>) {
    (signed.object_name().unwrap(), json::canonical(&signed.to_value()).unwrap())
}

pub fn write(place: &Path, name: &str, bytes: &[u8]) {
    let path = place.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A device of the canary that speaks of the first release of stable/os at noon.
pub fn receipt(device: &str, manifest: Digest, outcome: InstallResult, at: DateTime<Utc>) -> Receipt {
    Receipt {
        device: device.parse().unwrap(),
        channel: "stable".parse().unwrap(),
        cohort: "canary".parse().unwrap(),
        product: "os".parse().unwrap(),
        release: "1.0.0".parse().unwrap(),
        sequence: 1,
        manifest,
        hardware: "board-a".parse().unwrap(),
        outcome,
        reason: None,
        at,
        from: "0.9.0".parse().unwrap(),
        offers: Vec::new(),
        delivery: None,
    }
}

/// The program on a workspace, at an instant.
pub fn tidegate(workspace: &Path, now: DateTime<Utc>, variables: &[(String, String)], line: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .current_dir(workspace)
        .args(["--now", &time::format(now)])
        .args(line)
        .env("TIDEGATE_ACTOR", "cron")
        .env("NO_COLOR", "1")
        .envs(variables.iter().cloned())
        .output()
        .unwrap()
}

/// The same, which must succeed; what it says on standard output.
pub fn told(workspace: &Path, now: DateTime<Utc>, line: &[&str]) -> String {
    let out = tidegate(workspace, now, &[], line);
    assert!(
        out.status.success(),
        "{line:?}\n{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

//! What it costs to count receipts: `cargo bench --bench receipts`.
//!
//! So many devices are enrolled with a key of their own, and each has said one thing of a release, in a folder as a gate keeps it. Then another
//! process counts: it reads, verifies and counts as `tidegate receipts` does. Prints how long that took and how much memory it had at most.
//! Exits with 1 if a limit is missed.
//!
//! ```sh
//! cargo bench --bench receipts                 # 100,000 devices
//! cargo bench --bench receipts -- 10000        # or so many
//! ```
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use ed25519_dalek::{Signer as _, SigningKey};
use tidegate::publish::Remote;
use tidegate::receipts::{Counter, Enrolments, Known, Releases, read};
use tidegate::release::ReleaseId;
use tidegate_model::digest::Digest;
use tidegate_model::receipt::{InstallResult, Receipt};
use tidegate_tuf::json;
use tidegate_tuf::key::Key;

/// For 100,000 devices: at most this long, and this many bytes.
const LIMITS: (Duration, u64) = (Duration::from_secs(120), 300_000_000);
const DEVICES: u64 = 100_000;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    match words.as_slice() {
        [count, folder] if count == "count" => counted(Path::new(folder)),
        [] => measured(DEVICES),
        [devices] => measured(devices.parse().unwrap()),
        _ => panic!("so many devices"),
    }
}

fn measured(devices: u64) {
    let place = tempfile::tempdir().unwrap();
    let started = Instant::now();
    for number in 0..devices {
        one(place.path(), number);
    }
    println!("{devices} devices, written in {:.1?}", started.elapsed());
    let child = Command::new(std::env::current_exe().unwrap()).arg("count").arg(place.path()).status().unwrap();
    std::process::exit(child.code().unwrap_or(1));
}

fn now() -> DateTime<Utc> {
    DateTime::parse_from_rfc3339("2026-01-05T12:00:00Z").unwrap().with_timezone(&Utc)
}

/// A device, enrolled, and what it says.
fn one(place: &Path, number: u64) {
    let id = format!("device-{number:06}");
    let key = SigningKey::from_bytes(Digest::of(id.as_bytes()).as_bytes());
    let public = Key::ed25519(key.verifying_key().as_bytes());
    let write = |name: &str, bytes: &[u8]| {
        let path = place.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let enrolment = serde_json::json!({"schema": 1, "device": id, "keys": [public.to_value()]});
    write(&format!("enrolments/{id}.json"), enrolment.to_string().as_bytes());
    let failed = number.is_multiple_of(50);
    let receipt = Receipt {
        device: id.parse().unwrap(),
        channel: "stable".parse().unwrap(),
        cohort: ["canary", "early", "general"][usize::try_from(number % 3).unwrap()].parse().unwrap(),
        product: "os".parse().unwrap(),
        release: "1.0.0".parse().unwrap(),
        sequence: 1,
        manifest: Digest::of(b"manifest"),
        hardware: "board-a".parse().unwrap(),
        outcome: if failed { InstallResult::RolledBack } else { InstallResult::Confirmed },
        reason: failed.then(|| "health command failed".parse().unwrap()),
        at: now(),
        from: "0.9.0".parse().unwrap(),
        offers: Vec::new(),
        delivery: None,
    };
    let signature = key.sign(&receipt.to_bytes().unwrap()).to_bytes().to_vec();
    let signed = receipt.signed(public.id(), signature);
    write(&signed.object_name().unwrap(), &json::canonical(&signed.to_value()).unwrap());
}

fn counted(folder: &Path) {
    let mut releases = Releases::default();
    releases.add(Known {
        id: ReleaseId {
            channel: "stable".parse().unwrap(),
            product: "os".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
        },
        sequence: 1,
        manifest: Digest::of(b"manifest"),
        hardware: BTreeMap::from([("board-a".parse().unwrap(), 50_000_000)]),
        offered: ["canary", "early", "general"].map(|name| name.parse().unwrap()).into(),
    });
    let open = |folder: &Path| Remote::open(folder.to_str().unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let started = Instant::now();
    let enrolments = runtime.block_on(Enrolments::read(&open(&folder.join("enrolments")), |_| ())).unwrap();
    let enrolments = Arc::new(enrolments);
    let enrolled = started.elapsed();
    let mut counter = Counter::new(&releases, now());
    let told = |name: &str, found: Result<&_, _>| counter.take(name, found);
    runtime.block_on(read(&open(folder), "receipts", &enrolments, told)).unwrap();
    let report = counter.report(Vec::new(), Some(enrolments.enrolled()), None);
    let took = started.elapsed();
    let all = report.releases[0].all;
    println!("  devices          {}, of which {} went back", all.offered, all.rolled_back);
    println!("  enrolments       {enrolled:.2?}");
    println!("  all              {took:.2?}");
    println!("  memory at most   {} MB", peak_memory() / 1_000_000);
    assert_eq!((report.counted, report.refused()), (enrolments.enrolled().devices, 0));
    let missed = took > LIMITS.0 || peak_memory() > LIMITS.1;
    if missed {
        println!("MISSED  the limits are {:?} and {} bytes", LIMITS.0, LIMITS.1);
    }
    std::process::exit(i32::from(missed));
}

/// The most memory that this process had, in bytes; 0 where that cannot be told.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1000
}

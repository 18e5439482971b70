//! Memory before trust: what hostile documents make the running service take at most.

use std::fmt::Write as _;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::device::Device;
use crate::support::wire::send;
use crate::support::{COHORTS, HIGH_LIMITS, RunningGate, TestSite};

/// What a document may take beyond what the service has, in kB.
const MOST: u64 = 12_000;

/// Begins to count the peak of the process's resident memory again. In kB.
fn begin(gate: &RunningGate) -> u64 {
    std::fs::write(format!("/proc/{}/clear_refs", gate.pid()), "5").unwrap();
    peak(gate)
}

fn peak(gate: &RunningGate) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// `head`, then `unit` as often as it fits, then `tail`.
fn filled(head: &str, unit: &str, tail: &str, length: usize) -> String {
    let count = length.saturating_sub(head.len() + tail.len()) / unit.len();
    [head, &unit.repeat(count), tail].concat()
}

/// Documents of this length that cost parsers much, as the only field of an object.
fn costly(field: &str, length: usize) -> Vec<String> {
    let head = format!("{{\"{field}\":[");
    let mut all: Vec<String> = ["{\"\":0},", "{},", "[],", "0,", "\"\",", "{\"a\":{\"b\":[]}},"]
        .iter()
        .map(|unit| filled(&head, unit, "0]}", length))
        .collect();
    all.push(filled(&head, "[", "", length));
    all.push(filled("", "{\"\":", "0", length));
    all.push(filled(&format!("{{\"{field}\":\""), "\\u0041", "\"}", length));
    let mut keys = format!("{{\"{field}\":{{");
    for number in 0.. {
        let _ = write!(keys, "\"{number:x}\":0,");
        if keys.len() + 20 > length {
            break;
        }
    }
    all.push(keys + "\"x\":0}}");
    all
}

struct Rows<'a> {
    gate: &'a RunningGate,
    count: usize,
}

impl Rows<'_> {
    /// Runs something, and asserts what it takes. It must not be answered as if nothing were wrong.
    fn row(&mut self, what: &str, mut run: impl FnMut() -> u16) {
        let before = begin(self.gate);
        let status = run();
        let taken = peak(self.gate).saturating_sub(before);
        assert!(taken <= MOST, "{what}: {taken} kB");
        assert!(status >= 400 || status == 0, "{what}: {status}");
        self.count += 1;
    }
}

fn post(gate: &RunningGate, device: &Device, path: &str, body: &str) -> u16 {
    let bytes = device.request("POST", path, body.as_bytes(), None, "");
    send(gate.address, device.tls.as_ref(), &bytes).map_or(0, |response| response.status)
}

/// The bodies of each route, among them evidence and receipts.
fn bodies(rows: &mut Rows<'_>, device: &Device) {
    let gate = rows.gate;
    for (path, field, length) in [
        ("/v1/challenge", "device", 1000),
        ("/v1/challenge", "device", 1_000_000),
        ("/v1/grant", "cohorts", 40_000),
        ("/v1/receipts", "receipts", 65_000),
    ] {
        for (number, body) in costly(field, length).iter().enumerate() {
            rows.row(&format!("{path} {number}"), || post(gate, device, path, body));
        }
    }
    let grant = |evidence: Value| {
        json!({"device": "device-1", "nonce": device.nonce(gate), "cohorts": ["stable.lab"], "evidence": evidence})
            .to_string()
    };
    let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let header = encode(r#"{"alg":"ES256","kid":"unknown"}"#);
    for (number, part) in costly("submods", 20_000).iter().enumerate() {
        let part = encode(part);
        for token in [format!("{header}.{part}.AAAA"), format!("{part}.{header}.AAAA")] {
            let body = grant(json!({"kind": "ear", "token": token}));
            rows.row(&format!("EAR {number}"), || post(gate, device, "/v1/grant", &body));
        }
    }
    let long = "A".repeat(30_000);
    let pcrs: Value = (0..300)
        .map(|number| (format!("sha256:{number}"), "a".repeat(64).into()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    for (quote, signature, pcrs) in [(&*long, "AA", json!({})), ("AA", &*long, json!({})), ("AA", "AA", pcrs)] {
        let body = grant(json!({"kind": "tpm2", "quote": quote, "signature": signature, "pcrs": pcrs}));
        rows.row("quote", || post(gate, device, "/v1/grant", &body));
    }
}

/// Files that others write: key sets, listings, enrolments, the published metadata.
fn files(rows: &mut Rows<'_>, site: &TestSite, device: &Device, token: &str) {
    let gate = rows.gate;
    let (object, _) = crate::support::target("stable/releases/os/1.2.0/os.img", "1.2.0");
    let mut listings = costly("objects", 5_000_000);
    let entry = format!("\"{}\",", "a".repeat(64));
    listings.push(filled("{\"schema\":1,\"cohort\":\"stable.canary\",\"objects\":[", &entry, "\"\"]}", 5_000_000));
    for number in [0, 7, 9, 10] {
        site.write("private/gate/stable.canary.json", &listings[number]);
        // Listings are read again after a second.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        rows.row(&format!("listing {number}"), || device.get(gate, &object, token).status);
    }
    for (file, field, length) in
        [("timestamp", "signed", 16_000), ("2.snapshot", "signed", 2_000_000), ("2.stable", "signed", 5_000_000)]
    {
        site.publish(2, &"cd".repeat(32));
        let documents = costly(field, length);
        for number in [0, 9] {
            site.write(&format!("public/metadata/{file}.json"), &documents[number]);
            std::thread::sleep(std::time::Duration::from_millis(1100));
            let body = json!({"receipts": [device.receipt(1)]});
            rows.row(&format!("{file} {number}"), || device.post(gate, "/v1/receipts", &body).status);
        }
    }
    // Role after role of another channel's files, of the right form.
    let target = |number: usize| {
        format!(
            "\"stable/releases/os/{number}.0.0/manifest.json\":{{\"length\":1,\"hashes\":{{\"sha256\":\"{number:064}\"}}}},"
        )
    };
    let mut role = String::from("{\"signed\":{\"targets\":{");
    for number in 0.. {
        role += &target(number);
        if role.len() > 4_990_000 {
            break;
        }
    }
    site.publish(3, &"cd".repeat(32));
    site.write("public/metadata/3.stable.json", &(role + "\"x\":{}}}}"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    rows.row("many releases", || device.post(gate, "/v1/receipts", &json!({"receipts": [device.receipt(1)]})).status);
}

#[test]
fn hostile_documents_take_little_memory() {
    let site = TestSite::new();
    let mut verifiers = String::new();
    for (number, set) in costly("keys", 250_000).iter().enumerate() {
        site.write(&format!("keys-{number}.json"), set);
        let _ = write!(verifiers, "[verifiers.v{number}]\njwks = \"keys-{number}.json\"\nalgorithms = [\"ES256\"]\n");
    }
    site.write_config("optional", &format!("[limits]\n{HIGH_LIMITS}{COHORTS}{verifiers}"));
    let device = Device::enrolled(&site, "device-1");
    let gate = site.start();
    let token = device.token(&gate);
    let mut rows = Rows { gate: &gate, count: 0 };
    let before = begin(&gate);
    bodies(&mut rows, &device);
    files(&mut rows, &site, &device, &token);
    for (number, enrolment) in costly("keys", 16_000).iter().enumerate() {
        let id = format!("victim-{number}");
        site.write(&format!("enrolments/{}.json", HEXLOWER.encode(&Sha256::digest(&id))), enrolment);
        let body = json!({"device": id}).to_string();
        let victim = Device::certified(&site, &id);
        rows.row(&format!("enrolment {number}"), || post(&gate, &victim, "/v1/challenge", &body));
    }
    assert!(rows.count >= 80, "{}", rows.count);
    // The allocator keeps some of it, but not that of each; and more of the program is in memory than before.
    let kept = begin(&gate).saturating_sub(before);
    println!("{} documents, {kept} kB kept", rows.count);
    assert!(kept <= 2 * MOST, "{kept} kB");
    assert_eq!(gate.local("/healthz").status, 200);
}

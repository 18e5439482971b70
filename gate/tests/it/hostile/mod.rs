//! Hostile requests against the running service: none gets a protected byte.

mod abuse;
mod fuzzed;
#[cfg(target_os = "linux")]
mod memory;
mod requests;
mod wire;

use std::sync::Arc;

use rustls::ClientConfig;

use crate::support::device::Device;
use crate::support::wire::exchange;
use crate::support::{COHORTS, HIGH_LIMITS, MARK, RunningGate, TestSite, target};

/// Sends bytes and asserts that the response is a refusal, or none, and contains nothing protected. Returns the status, or 0.
fn refused(gate: &RunningGate, tls: Option<&Arc<ClientConfig>>, what: &str, bytes: &[u8]) -> u16 {
    let raw = exchange(gate.address, tls, bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&raw);
    assert!(!text.contains(MARK), "{what}: {text}");
    assert!(!text.contains("Location:") && !text.contains("location:"), "{what}: {text}");
    let statuses: Vec<u16> =
        text.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()).collect();
    assert!(statuses.iter().all(|status| *status >= 400), "{what}: {text}");
    statuses.first().copied().unwrap_or_default()
}

/// A site with high rate limits, so that the requests are not refused for their number.
fn site_with_high_limits() -> TestSite {
    let site = TestSite::new();
    site.write_config("optional", &format!("[limits]\n{HIGH_LIMITS}patience = \"1s\"\n{COHORTS}"));
    site
}

struct Table<'a> {
    gate: &'a RunningGate,
    device: &'a Device,
    cases: usize,
}

impl Table<'_> {
    fn raw(&mut self, what: &str, bytes: &[u8]) -> u16 {
        self.cases += 1;
        refused(self.gate, self.device.tls.as_ref(), what, bytes)
    }

    fn get(&mut self, path: &str, token: Option<&str>) -> u16 {
        let bytes = self.device.request("GET", path, b"", token, "");
        self.raw(path, &bytes)
    }

    fn post(&mut self, path: &str, body: &str) -> u16 {
        let bytes = self.device.request("POST", path, body.as_bytes(), None, "");
        self.raw(&format!("{path} {}", body.chars().take(200).collect::<String>()), &bytes)
    }
}

#[test]
fn hostile_requests_get_nothing_protected() {
    let site = site_with_high_limits();
    let gate = site.start();
    let device = Device::certified(&site, "device-1");
    let token = device.token(&gate);
    let mut table = Table { gate: &gate, device: &device, cases: 0 };
    let (open, image) = target("stable/releases/os/1.2.0/os.img", "1.2.0");
    assert_eq!(device.get(&gate, &open, &token).body, image.as_bytes());
    let hash = open.rsplit('/').next().unwrap().split('.').next().unwrap().to_owned();
    let (lab, _) = target("stable/releases/os/1.3.0/os.img", "1.3.0");

    requests::paths(&mut table, &token, &hash, &open, &lab);
    requests::tokens(&mut table, &token, &open);
    requests::bodies(&mut table);
    wire::wire(&mut table, &token, &open);
    wire::proofs(&mut table, &site, &token, &open);
    let cases = table.cases;
    assert!(cases >= 200, "{cases}");
    assert!(!gate.audit().contains("G-LIM-03"));
    println!("{cases} hostile requests");
    // The gate still works.
    assert_eq!(device.get(&gate, &open, &token).body, image.as_bytes());
    assert_eq!(gate.local("/healthz").status, 200);
    let audit = gate.audit();
    assert!(!audit.contains(&token) && !audit.contains("device-1"), "{audit}");
}

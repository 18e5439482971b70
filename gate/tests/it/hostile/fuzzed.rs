//! A valid session with a few changed bytes.

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::site_with_high_limits;
use crate::support::device::Device;
use crate::support::wire::exchange;
use crate::support::{MARK, target};

/// With any changed bytes, the device gets nothing more than its own cohort, and the gate keeps running.
#[test]
fn fuzzed_session_gets_nothing_protected() {
    let site = site_with_high_limits();
    let gate = site.start();
    let device = Device::certified(&site, "device-1");
    let token = device.token(&gate);
    let (lab, _) = target("stable/releases/os/1.3.0/os.img", "1.3.0");
    let body = |nonce: &str| {
        json!({"device": "device-1", "nonce": nonce, "cohorts": ["stable.lab"], "evidence": {"kind": "none"}})
            .to_string()
    };
    let nonce = device.nonce(&gate);
    let requests = [
        device.request("GET", &format!("/v1/repo/{lab}"), b"", Some(&token), ""),
        device.request("GET", "/v1/repo/metadata/3.stable.lab.json", b"", Some(&token), ""),
        device.request("POST", "/v1/grant", body(&nonce).as_bytes(), None, ""),
        device.request(
            "POST",
            "/v1/receipts",
            json!({"receipts": [device.receipt(1)]}).to_string().as_bytes(),
            None,
            "",
        ),
    ];
    // Concurrent, because the gate waits a second for the rest of a truncated request.
    std::thread::scope(|scope| {
        for thread in 0..32u64 {
            let (requests, gate, device) = (&requests, &gate, &device);
            scope.spawn(move || {
                let mut mutator = Mutator(thread << 32);
                for round in 0..5 {
                    for request in requests {
                        let bytes = mutator.mutate(request);
                        let raw = exchange(gate.address, device.tls.as_ref(), &bytes).unwrap_or_default();
                        let text = String::from_utf8_lossy(&raw);
                        // `stable.lab` was never granted, and the changed receipt does not verify.
                        assert!(!text.contains(MARK), "{thread} {round}: {}\n{text}", String::from_utf8_lossy(&bytes));
                        assert!(!text.contains("\"stored\""), "{thread} {round}: {text}");
                    }
                }
            });
        }
    });
    assert_eq!(device.get(&gate, "metadata/3.stable.canary.json", &token).status, 200);
}

/// A deterministic sequence of random numbers.
struct Mutator(u64);

impl Mutator {
    /// The bytes with some changed, added or removed.
    fn mutate(&mut self, request: &[u8]) -> Vec<u8> {
        let mut bytes = request.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes.insert(at, b"\r\n /.%\0{}\""[self.below(10)]),
                3 => _ = bytes.remove(at),
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 += 1;
        let hash = Sha256::digest(self.0.to_be_bytes());
        usize::try_from(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])).unwrap() % bound.max(1)
    }
}

//! Several instances behind one address, kills, and reloads.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::support::device::Device;
use crate::support::wire::send;
use crate::support::{COHORTS, HIGH_LIMITS, TestSite, target};

/// A load balancer: each connection goes to the next instance.
fn balance(behind: Vec<SocketAddr>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, near) in listener.incoming().enumerate() {
            let near = near.unwrap();
            let far = TcpStream::connect(behind[number % behind.len()]).unwrap();
            for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                std::thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    address
}

#[test]
fn instances_share_tokens_nonces_and_receipts() {
    let site = TestSite::new();
    site.write_config("optional", COHORTS);
    let devices: Vec<Device> = (0..4)
        .map(|n| {
            if n % 2 == 0 {
                Device::certified(&site, &format!("device-{n}"))
            } else {
                Device::enrolled(&site, &format!("device-{n}"))
            }
        })
        .collect();
    let mut gate = site.start();
    let second = site.start();
    let alone = (gate.address, second.address);
    gate.address = balance(vec![alone.0, alone.1]);
    let (name, text) = target("stable/releases/os/1.2.0/os.img", "1.2.0");
    for device in &devices {
        // Each request uses a new connection, so challenge, grant and download reach different instances.
        let token = device.token(&gate);
        for _ in 0..2 {
            assert_eq!(device.get(&gate, &name, &token).body, text.as_bytes());
        }
        let receipts: Vec<_> = (0..3).map(|number| device.receipt(number)).collect();
        let key = device.has_key;
        if key {
            assert_eq!(
                device.post(&gate, "/v1/receipts", &json!({"receipts": receipts})).json(),
                json!({"stored": 3, "known": 0})
            );
            assert_eq!(
                device.post(&gate, "/v1/receipts", &json!({"receipts": receipts})).json(),
                json!({"stored": 0, "known": 3})
            );
        }
    }

    // Many concurrent grants with one nonce at both instances: one succeeds.
    let device = &devices[0];
    let nonce = device.nonce(&gate);
    let body = json!({"device": device.id, "nonce": nonce, "cohorts": ["stable.canary"], "evidence": {"kind": "none"}})
        .to_string();
    let granted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for number in 0..16 {
            let (body, granted) = (&body, &granted);
            let at = if number % 2 == 0 { alone.0 } else { alone.1 };
            scope.spawn(move || {
                let answer = device.send(at, "POST", "/v1/grant", body.as_bytes(), None, "");
                granted.fetch_add(usize::from(answer.status == 200), Ordering::SeqCst);
                assert!(answer.status == 200 || answer.rule() == "G-NON-03", "{answer:?}");
            });
        }
    });
    assert_eq!(granted.into_inner(), 1);
    drop(second);
}

#[test]
fn keeps_acknowledged_receipts_after_a_kill() {
    let site = TestSite::new();
    site.write_config("optional", &format!("[limits]\n{HIGH_LIMITS}{COHORTS}"));
    let devices: Vec<Device> = (0..4).map(|n| Device::enrolled(&site, &format!("device-{n}"))).collect();
    let acknowledged: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    for round in 0..3u64 {
        let mut gate = site.start();
        let at = gate.address;
        std::thread::scope(|scope| {
            for device in &devices {
                let acknowledged = Arc::clone(&acknowledged);
                scope.spawn(move || {
                    for number in 0..10_000u64 {
                        let receipts: Vec<_> =
                            (0..8).map(|part| device.receipt(round * 1_000_000 + number * 8 + part)).collect();
                        let body = json!({"receipts": receipts}).to_string();
                        let bytes = device.request("POST", "/v1/receipts", body.as_bytes(), None, "");
                        let Ok(raw) = crate::support::wire::exchange(at, device.tls.as_ref(), &bytes) else { return };
                        let answer = String::from_utf8_lossy(&raw);
                        // Only a complete response counts as an acknowledgement.
                        if answer.starts_with("HTTP/1.1 200") && answer.ends_with("\"stored\":8}") {
                            let mut acknowledged = acknowledged.lock().unwrap();
                            acknowledged.extend(
                                receipts.iter().map(|receipt| receipt["signature"]["sig"].as_str().unwrap().to_owned()),
                            );
                        } else if !answer.contains("429") {
                            return;
                        }
                    }
                });
            }
            let before = acknowledged.lock().unwrap().len();
            TestSite::wait_until("some receipts are acknowledged", || acknowledged.lock().unwrap().len() > before + 80);
            gate.kill();
        });
    }
    let kept: BTreeSet<String> = std::fs::read_dir(site.path("receipts/receipts/stable/os/12"))
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        // An incomplete write must not have the name of a receipt.
        .filter_map(|bytes| {
            Some(serde_json::from_slice::<serde_json::Value>(&bytes).ok()?["signature"]["sig"].as_str()?.to_owned())
        })
        .collect();
    let acknowledged = acknowledged.lock().unwrap();
    assert!(acknowledged.len() > 240);
    let lost: Vec<_> = acknowledged.difference(&kept).collect();
    assert!(lost.is_empty(), "{} of {}", lost.len(), acknowledged.len());
}

#[test]
fn rotation_keeps_tokens_until_the_next() {
    let site = TestSite::new();
    site.write_config("required", COHORTS);
    let gate = site.start();
    let device = Device::certified(&site, "device-1");
    let token = device.token(&gate);
    let status = || device.get(&gate, "metadata/3.stable.canary.json", &token).status;
    for (rotation, expected) in [(1, 200), (2, 401)] {
        assert!(site.run(&["secret", "--rotate"]).status.success());
        TestSite::wait_until("the secret is reloaded", || {
            gate.events.lock().unwrap().matches("\"reloaded\"").count() == rotation
        });
        assert_eq!(status(), expected, "{rotation}");
    }
    assert!(!site.run(&["secret"]).status.success());
}

#[test]
fn reloads_certificates_and_revocations() {
    let site = TestSite::new();
    let revoke = |serials: &[u64]| {
        let revoked = serials.iter().map(|serial| rcgen::RevokedCertParams {
            serial_number: rcgen::SerialNumber::from(*serial),
            revocation_time: rcgen::date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2025, 1, 1),
            next_update: rcgen::date_time_ymd(2100, 1, 1),
            crl_number: rcgen::SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        site.write("devices.crl", &list.signed_by(&site.ca).unwrap().pem().unwrap());
    };
    revoke(&[]);
    site.write_config("required", &format!("crl = [\"devices.crl\"]\n{COHORTS}"));
    let gate = site.start();
    let [one, two] = [1u64, 2].map(|serial| {
        let id = format!("device-{serial}");
        let mut params = crate::support::client(&id, &[]);
        params.serial_number = Some(serial.into());
        Device::with(&site, &id, &params, &site.ca)
    });
    let try_one = |device: &Device| {
        let body = json!({"device": device.id}).to_string();
        send(gate.address, device.tls.as_ref(), &device.request("POST", "/v1/challenge", body.as_bytes(), None, ""))
            .map(|answer| answer.status)
    };
    assert_eq!((try_one(&one), try_one(&two)), (Some(200), Some(200)));

    // An open connection ends when its certificate is revoked.
    let mut open = crate::support::wire::Open::new(gate.address, one.tls.as_ref().unwrap());
    let body = json!({"device": one.id}).to_string();
    let request = String::from_utf8(one.request("POST", "/v1/challenge", body.as_bytes(), None, ""))
        .unwrap()
        .replace("Connection: close\r\n", "");
    assert!(open.send(request.as_bytes()).is_some());
    let reloads = || gate.events.lock().unwrap().matches("\"reloaded\"").count();
    revoke(&[1]);
    TestSite::wait_until("the certificate is revoked", || try_one(&one).is_none());
    assert_eq!(try_one(&two), Some(200));
    assert!(open.send(request.as_bytes()).is_none());

    // An invalid list changes nothing and is logged.
    site.write("devices.crl", "nonsense");
    TestSite::wait_until("the failure is logged", || gate.events.lock().unwrap().contains("not reloaded"));
    assert_eq!((try_one(&one), try_one(&two)), (None, Some(200)));
    revoke(&[2]);
    TestSite::wait_until("the certificate is revoked", || try_one(&two).is_none());
    assert_eq!(try_one(&one), Some(200));

    // A new certificate of the gate.
    let before = reloads();
    let renewed = site.renew_certificate();
    TestSite::wait_until("the certificate is renewed", || {
        reloads() > before
            && crate::support::wire::Open::new(gate.address, one.tls.as_ref().unwrap()).server() == renewed
    });
}

#[test]
fn allows_only_full_tls_1_3_handshakes() {
    let site = TestSite::new();
    site.write_config("required", COHORTS);
    let gate = site.start();
    let tool = std::process::Command::new("openssl")
        .args(["s_client", "-connect", &gate.address.to_string(), "-tls1_2"])
        .stdin(std::process::Stdio::null())
        .output();
    let Ok(output) = tool else {
        assert!(std::env::var_os("TIDEGATE_REQUIRE_TOOLS").is_none(), "openssl is missing");
        eprintln!("SKIPPED: openssl is missing");
        return;
    };
    let output = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.contains("alert protocol version"), "{output}");
    // The client would use session tickets if it got any. Each handshake is a full one.
    let device = Device::certified(&site, "device-1");
    for _ in 0..3 {
        let mut open = crate::support::wire::Open::new(gate.address, device.tls.as_ref().unwrap());
        assert!(open.send(b"GET /v1/repo/x HTTP/1.1\r\nHost: x\r\n\r\n").is_some());
        assert_eq!(open.kind(), Some(rustls::HandshakeKind::Full));
    }
}

//! Several instances behind one address, stops in the middle, and what is read again while they run.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::support::device::Device;
use crate::support::wire::send;
use crate::support::{COHORTS, House, target};

/// One address before several: each connection goes to the next.
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
fn two_instances_behind_one_address_are_one_gate() {
    let house = House::new();
    house.settle("optional", COHORTS);
    let devices: Vec<Device> = (0..4)
        .map(|n| {
            if n % 2 == 0 {
                Device::certified(&house, &format!("device-{n}"))
            } else {
                Device::enrolled(&house, &format!("device-{n}"))
            }
        })
        .collect();
    let mut gate = house.serve();
    let second = house.serve();
    let alone = (gate.address, second.address);
    gate.address = balance(vec![alone.0, alone.1]);
    let (name, text) = target("stable/releases/os/1.2.0/os.img", "1.2.0");
    for device in &devices {
        // Three connections, so that challenge and grant, and grant and download, are of different instances.
        let token = device.token(&gate);
        for _ in 0..2 {
            assert_eq!(device.get(&gate, &name, &token).body, text.as_bytes());
        }
        let receipts: Vec<_> = (0..3).map(|number| device.receipt(number)).collect();
        let key = device.proves;
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

    // One nonce, many at once, at both: one grant.
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
                let answer = device.ask(at, "POST", "/v1/grant", body.as_bytes(), None, "");
                granted.fetch_add(usize::from(answer.status == 200), Ordering::SeqCst);
                assert!(answer.status == 200 || answer.rule() == "G-NON-03", "{answer:?}");
            });
        }
    });
    assert_eq!(granted.into_inner(), 1);
    drop(second);
}

#[test]
fn no_receipt_that_was_acknowledged_is_lost_by_a_kill() {
    let house = House::new();
    house.settle("optional", COHORTS);
    let devices: Vec<Device> = (0..4).map(|n| Device::enrolled(&house, &format!("device-{n}"))).collect();
    let acknowledged: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    for round in 0..3u64 {
        let mut gate = house.serve();
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
                        // The whole answer: what came is what the device goes by.
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
            House::eventually("some are acknowledged", || acknowledged.lock().unwrap().len() > before + 80);
            gate.kill();
        });
    }
    let kept: BTreeSet<String> = std::fs::read_dir(house.path("receipts/receipts/stable/os/12"))
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        // What is there is whole, or it is not under a receipt's name.
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
fn a_rotation_of_the_secret_voids_nothing_until_the_next() {
    let house = House::new();
    house.settle("required", COHORTS);
    let gate = house.serve();
    let device = Device::certified(&house, "device-1");
    let token = device.token(&gate);
    let status = || device.get(&gate, "metadata/3.stable.canary.json", &token).status;
    for (rotation, expected) in [(1, 200), (2, 401)] {
        assert!(house.run(&["secret", "--rotate"]).status.success());
        House::eventually("read again", || gate.events.lock().unwrap().matches("\"reloaded\"").count() == rotation);
        assert_eq!(status(), expected, "{rotation}");
    }
    assert!(!house.run(&["secret"]).status.success());
}

#[test]
fn certificates_and_revocations_are_read_again_without_a_restart() {
    let house = House::new();
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
        house.write("devices.crl", &list.signed_by(&house.ca).unwrap().pem().unwrap());
    };
    revoke(&[]);
    house.settle("required", &format!("crl = [\"devices.crl\"]\n{COHORTS}"));
    let gate = house.serve();
    let [one, two] = [1u64, 2].map(|serial| {
        let id = format!("device-{serial}");
        let mut params = crate::support::client(&id, &[]);
        params.serial_number = Some(serial.into());
        Device::with(&house, &id, &params, &house.ca)
    });
    let try_one = |device: &Device| {
        let body = json!({"device": device.id}).to_string();
        send(gate.address, device.tls.as_ref(), &device.request("POST", "/v1/challenge", body.as_bytes(), None, ""))
            .map(|answer| answer.status)
    };
    assert_eq!((try_one(&one), try_one(&two)), (Some(200), Some(200)));

    // A connection that is open when its certificate is revoked ends.
    let mut open = crate::support::wire::Open::new(gate.address, one.tls.as_ref().unwrap());
    let body = json!({"device": one.id}).to_string();
    let request = String::from_utf8(one.request("POST", "/v1/challenge", body.as_bytes(), None, ""))
        .unwrap()
        .replace("Connection: close\r\n", "");
    assert!(open.ask(request.as_bytes()).is_some());
    let reloads = || gate.events.lock().unwrap().matches("\"reloaded\"").count();
    revoke(&[1]);
    House::eventually("revoked", || try_one(&one).is_none());
    assert_eq!(try_one(&two), Some(200));
    assert!(open.ask(request.as_bytes()).is_none());

    // A list that cannot be read changes nothing, and is told of.
    house.write("devices.crl", "nonsense");
    House::eventually("told", || gate.events.lock().unwrap().contains("not reloaded"));
    assert_eq!((try_one(&one), try_one(&two)), (None, Some(200)));
    revoke(&[2]);
    House::eventually("revoked", || try_one(&two).is_none());
    assert_eq!(try_one(&one), Some(200));

    // A new certificate of the gate's own.
    let before = reloads();
    let renewed = house.renew_server();
    House::eventually("renewed", || {
        reloads() > before
            && crate::support::wire::Open::new(gate.address, one.tls.as_ref().unwrap()).server() == renewed
    });
}

#[test]
fn nothing_older_than_tls_1_3_is_spoken_and_no_session_is_resumed() {
    let house = House::new();
    house.settle("required", COHORTS);
    let gate = house.serve();
    let tool = std::process::Command::new("openssl")
        .args(["s_client", "-connect", &gate.address.to_string(), "-tls1_2"])
        .stdin(std::process::Stdio::null())
        .output();
    let Ok(said) = tool else {
        assert!(std::env::var_os("TIDEGATE_REQUIRE_TOOLS").is_none(), "openssl is missing");
        eprintln!("SKIPPED: openssl is missing");
        return;
    };
    let said = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.contains("alert protocol version"), "{said}");
    // The client keeps tickets if it gets any: each handshake is a full one.
    let device = Device::certified(&house, "device-1");
    for _ in 0..3 {
        let mut open = crate::support::wire::Open::new(gate.address, device.tls.as_ref().unwrap());
        assert!(open.ask(b"GET /v1/repo/x HTTP/1.1\r\nHost: x\r\n\r\n").is_some());
        assert_eq!(open.kind(), Some(rustls::HandshakeKind::Full));
    }
}

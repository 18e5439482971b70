//! A device and the gate: identification, challenge, grant, download, receipts.

use serde_json::json;

use crate::support::device::{Device, now, random};
use crate::support::wire::{Response, exchange_over, send};
use crate::support::{COHORTS, MARK, TestSite, client, target};

fn canary_image() -> (String, String) {
    target("stable/releases/os/1.2.0/os.img", "1.2.0")
}

#[test]
fn delivers_only_listed_objects() {
    let site = TestSite::new();
    site.write_config("required", COHORTS);
    let checked = site.run(&["check"]);
    assert!(checked.status.success(), "{checked:?}");
    let gate = site.start();
    let device = Device::certified(&site, "device-1");
    let token = device.token(&gate);
    let (name, text) = canary_image();
    let whole = device.get(&gate, &name, &token);
    assert_eq!((whole.status, whole.body.as_slice()), (200, text.as_bytes()));
    assert_eq!(device.get(&gate, "metadata/3.stable.canary.json", &token).status, 200);
    let (plus, _) = target("stable/releases/os/1.2.0+b1/os+x.img", "plus");
    for spelling in [plus.clone(), plus.replace('+', "%2B")] {
        assert_eq!(device.get(&gate, &spelling, &token).status, 200, "{spelling}");
    }
    for (object, status, rule) in [
        ("metadata/3.stable.lab.json", 403, "G-TOK-05"),
        ("metadata/3.beta.canary.json", 403, "G-TOK-05"),
        (target("stable/releases/os/1.3.0/os.img", "1.3.0").0.as_str(), 403, "G-TOK-05"),
        (target("stable/releases/os/9.9.9/os.img", "9.9.9").0.as_str(), 403, "G-TOK-05"),
        (target("beta/releases/os/1.0.0/os.img", "1.0.0").0.as_str(), 403, "G-TOK-05"),
        ("metadata/4.stable.canary.json", 404, "G-PATH-02"),
        ("metadata/1.root.json", 400, "G-PATH-01"),
        ("metadata/timestamp.json", 400, "G-PATH-01"),
        ("gate/stable.canary.json", 400, "G-PATH-01"),
        ("secret.txt", 400, "G-PATH-01"),
    ] {
        let answer = device.get(&gate, object, &token);
        assert_eq!((answer.status, answer.rule().as_str()), (status, rule), "{object}");
    }
    // The token is bound to the device.
    let other = Device::certified(&site, "device-2");
    let answer = other.get(&gate, &name, &token);
    assert_eq!((answer.status, answer.rule().as_str()), (401, "G-TOK-04"));
    // The token is bound to the key.
    let again = Device::certified(&site, "device-1");
    assert_eq!(again.get(&gate, &name, &token).rule(), "G-TOK-04");

    let audit = gate.audit();
    assert!(audit.contains("\"route\":\"repo\",\"status\":200"), "{audit}");
    assert!(!audit.contains("device-1") && !audit.contains(&token), "{audit}");
    let metrics = String::from_utf8(gate.local("/metrics").body).unwrap();
    assert!(metrics.contains("tidegate_gate_grants_total{cohort=\"stable.canary\"} 1"), "{metrics}");
    assert_eq!(gate.local("/readyz").status, 200);
    assert_eq!(gate.local("/healthz").status, 200);
}

#[test]
fn supports_ranges_and_etags() {
    let site = TestSite::new();
    site.write_config("required", COHORTS);
    let gate = site.start();
    let device = Device::certified(&site, "device-1");
    let token = device.token(&gate);
    let (name, text) = canary_image();
    let path = format!("/v1/repo/{name}");
    let request = |method: &str, more: &str| device.send(gate.address, method, &path, b"", Some(&token), more);
    let part = request("GET", "Range: bytes=10-19\r\n");
    assert_eq!((part.status, part.body.as_slice()), (206, &text.as_bytes()[10..20]));
    assert_eq!(part.header("content-range"), Some(format!("bytes 10-19/{}", text.len()).as_str()));
    let rest = request("GET", &format!("Range: bytes={}-\r\n", text.len() - 5));
    assert_eq!(rest.body, text.as_bytes()[text.len() - 5..]);
    assert_eq!(request("GET", &format!("Range: bytes={}-\r\n", text.len())).status, 416);
    let head = request("HEAD", "");
    assert_eq!(
        (head.status, head.body.len(), head.header("content-length")),
        (200, 0, Some(text.len().to_string().as_str()))
    );
    let etag = head.header("etag").unwrap();
    let same = request("GET", &format!("If-None-Match: {etag}\r\n"));
    assert_eq!((same.status, same.body.len()), (304, 0));
    let changed = request("GET", "Range: bytes=10-19\r\nIf-Range: \"other\"\r\n");
    assert_eq!((changed.status, changed.body.len()), (200, text.len()));
}

#[test]
fn accepts_proofs_of_enrolled_keys() {
    let site = TestSite::new();
    site.write_config("optional", COHORTS);
    let device = Device::enrolled(&site, "device-1");
    let gate = site.start();
    let token = device.token(&gate);
    let (name, text) = canary_image();
    assert_eq!(device.get(&gate, &name, &token).body, text.as_bytes());

    // A replay of the same bytes.
    let path = format!("/v1/repo/{name}");
    let request = device.request("GET", &path, b"", Some(&token), "");
    assert_eq!(send(gate.address, device.tls.as_ref(), &request).unwrap().status, 200);
    let replayed = send(gate.address, device.tls.as_ref(), &request).unwrap();
    assert_eq!((replayed.status, replayed.rule().as_str()), (401, "G-ID-06"));

    // Without a certificate or a proof, and with proofs of other requests.
    let stranger = Device::unidentified(&site);
    assert_eq!(stranger.get(&gate, &name, &token).rule(), "G-ID-02");
    let proof = |seconds: u64, method: &str, path: &str, token: &str| {
        let proof = device.proof(method, path, b"", token, seconds, &random());
        stranger.send(
            gate.address,
            "GET",
            &format!("/v1/repo/{name}"),
            b"",
            Some(token),
            &format!("Tidegate-Proof: {proof}\r\n"),
        )
    };
    assert_eq!(proof(now(), "GET", &path, &token).status, 200);
    assert_eq!(proof(now() - 1000, "GET", &path, &token).rule(), "G-ID-05");
    assert_eq!(proof(now() + 1000, "GET", &path, &token).rule(), "G-ID-05");
    assert_eq!(proof(now(), "HEAD", &path, &token).rule(), "G-ID-04");
    assert_eq!(proof(now(), "GET", "/v1/repo/other", &token).rule(), "G-ID-04");
    // Another gate passes on a request that the device signed for it: with its own name, and with this gate's.
    let for_another = |host: &str| {
        let parts = ["GET", &path, &token, &random()];
        let proof = device.proof_for("other.example.com", parts, b"", now());
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nTidegate-Proof: {proof}\r\n\r\n"
        );
        send(gate.address, stranger.tls.as_ref(), head.as_bytes()).unwrap()
    };
    assert_eq!(for_another("other.example.com").rule(), "G-ID-09");
    assert_eq!(for_another("localhost").rule(), "G-ID-04");
    let unknown = Device { id: "device-1".into(), tls: device.tls.clone(), ..Device::unidentified(&site) };
    assert_eq!(unknown.post(&gate, "/v1/challenge", &json!({"device": "device-1"})).rule(), "G-ID-02");

    // A disabled device is refused as soon as the gate reads its enrolment again.
    assert!(site.run(&["enrol", "device-1", "--disable"]).status.success());
    TestSite::wait_until("the device is refused", || device.get(&gate, &name, &token).status == 403);
    assert_eq!(device.get(&gate, &name, &token).rule(), "G-ID-08");
}

#[test]
fn nonces_are_single_use_per_device() {
    let site = TestSite::new();
    site.write_config("required", COHORTS);
    let gate = site.start();
    let [one, two] = ["device-1", "device-2"].map(|id| Device::certified(&site, id));
    let nonce = one.nonce(&gate);
    let grant = |device: &Device, nonce: &str| {
        let body =
            json!({"device": device.id, "nonce": nonce, "cohorts": ["stable.canary"], "evidence": {"kind": "none"}});
        device.post(&gate, "/v1/grant", &body)
    };
    assert_eq!(grant(&two, &nonce).rule(), "G-NON-01");
    assert_eq!(grant(&one, &nonce).status, 200);
    assert_eq!(grant(&one, &nonce).rule(), "G-NON-03");
    assert_eq!(one.post(&gate, "/v1/challenge", &json!({"device": "device-2"})).rule(), "G-ID-07");
}

#[test]
fn refuses_certificates_without_a_device() {
    let site = TestSite::new();
    site.write_config("required", COHORTS);
    let gate = site.start();
    let challenge = |device: &Device| {
        let bytes =
            device.request("POST", "/v1/challenge", json!({"device": device.id}).to_string().as_bytes(), None, "");
        send(gate.address, device.tls.as_ref(), &bytes)
    };
    // By common name.
    let common = Device::with(&site, "device-1", &client("device-1", &[]), &site.ca);
    assert_eq!(challenge(&common).unwrap().status, 200);
    // The subject alternative name takes precedence over the common name.
    let both = Device::with(&site, "device-1", &client("device-1", &["tidegate:device:device-2"]), &site.ca);
    assert_eq!(challenge(&both).unwrap().rule(), "G-ID-07");
    let two = Device::with(&site, "a", &client("a", &["tidegate:device:a", "tidegate:device:b"]), &site.ca);
    assert_eq!(challenge(&two).unwrap().rule(), "G-ID-01");
    let spaced = Device::with(&site, "a b", &client("a b", &[]), &site.ca);
    assert_eq!(challenge(&spaced).unwrap().rule(), "G-ID-01");
    // Refused in the handshake.
    assert!(challenge(&Device::with(&site, "device-1", &client("device-1", &[]), &site.untrusted_ca)).is_none());
    assert!(challenge(&Device::unidentified(&site)).is_none());
    let mut server = client("device-1", &[]);
    server.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    assert!(challenge(&Device::with(&site, "device-1", &server, &site.ca)).is_none());
    let mut old = client("device-1", &[]);
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    assert!(challenge(&Device::with(&site, "device-1", &old, &site.ca)).is_none());
}

#[test]
fn stores_only_the_devices_own_receipts_once() {
    let site = TestSite::new();
    site.write_config("optional", COHORTS);
    let [one, two] = ["device-1", "device-2"].map(|id| Device::enrolled(&site, id));
    let gate = site.start();
    let post = |device: &Device, receipts: &[serde_json::Value]| {
        device.post(&gate, "/v1/receipts", &json!({"receipts": receipts}))
    };
    let first = post(&one, &[one.receipt(1), one.receipt(2)]);
    assert_eq!((first.status, first.json()), (200, json!({"stored": 2, "known": 0})));
    assert_eq!(post(&one, &[one.receipt(2), one.receipt(3)]).json(), json!({"stored": 1, "known": 1}));
    let folder = site.path("receipts/receipts/stable/os/12");
    let mut kept: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    kept.sort();
    let mut expected: Vec<_> =
        (1..=3).map(|number| tidegate_tuf::json::canonical(&one.receipt(number)).unwrap()).collect();
    expected.sort();
    assert_eq!(kept, expected);

    assert_eq!(post(&two, &[one.receipt(4)]).rule(), "G-REC-04");
    // A hashed device id, signed with another device's key.
    let mut hashed = one.receipt(5)["signed"].clone();
    hashed["device"] = "ab".repeat(32).into();
    assert_eq!(post(&two, &[one.sign(&hashed)]).rule(), "G-REC-05");
    assert_eq!(post(&one, &[one.sign(&hashed)]).json(), json!({"stored": 1, "known": 0}));
    // One invalid receipt: none is stored.
    let mut changed = one.receipt(7);
    changed["signed"]["outcome"] = "confirmed".into();
    assert_eq!(post(&one, &[one.receipt(6), changed]).rule(), "G-REC-05");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 4);
    // Neither another release, nor another manifest of a known one.
    for (field, value) in
        [("release", json!("1.2.1")), ("manifest", json!("cd".repeat(32))), ("channel", json!("beta"))]
    {
        let mut unknown = one.receipt(8)["signed"].clone();
        unknown[field] = value;
        TestSite::wait_until(field, || post(&one, &[one.sign(&unknown)]).rule() == "G-REC-07");
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 4);
    assert_eq!(post(&one, &vec![one.receipt(1); 65]).rule(), "G-REC-02");
    assert_eq!(post(&one, &[]).rule(), "G-REC-02");
}

/// A certificate of the authority is not enough: its key must be enrolled.
#[test]
fn stores_no_receipts_of_keys_that_are_not_enrolled() {
    let site = TestSite::new();
    site.write_config("optional", COHORTS);
    let gate = site.start();
    let [certified, stranger] = [Device::certified(&site, "device-1"), Device::unidentified(&site)];
    let receipts = json!({"receipts": [certified.receipt(1)]});
    assert_eq!(certified.post(&gate, "/v1/receipts", &receipts).rule(), "G-REC-06");
    assert_eq!(stranger.post(&gate, "/v1/receipts", &receipts).rule(), "G-ID-02");
    // Enrolled with another key: the receipt's is not one of this device.
    let other = Device::enrolled(&site, "device-2");
    let mut from = other.receipt(1)["signed"].clone();
    from["reason"] = "signed with a key that is unknown".into();
    let unknown = certified.sign(&from);
    assert_eq!(other.post(&gate, "/v1/receipts", &json!({"receipts": [unknown]})).rule(), "G-REC-05");
    assert!(!site.path("receipts/receipts").exists());
}

#[test]
fn stores_so_many_receipts_a_day() {
    let site = TestSite::new();
    site.write_config("optional", &format!("[limits]\nreceipts_per_device_per_day = 3\n{COHORTS}"));
    let [one, two] = ["device-1", "device-2"].map(|id| Device::enrolled(&site, id));
    let gate = site.start();
    let post = |gate: &crate::support::RunningGate, device: &Device, numbers: std::ops::Range<u64>| {
        let receipts: Vec<_> = numbers.map(|number| device.receipt(number)).collect();
        device.post(gate, "/v1/receipts", &json!({"receipts": receipts}))
    };
    assert_eq!(post(&gate, &one, 0..2).json(), json!({"stored": 2, "known": 0}));
    // Sent again, they take no quota.
    assert_eq!(post(&gate, &one, 1..2).json(), json!({"stored": 0, "known": 1}));
    let refused = post(&gate, &one, 2..4);
    assert_eq!((refused.status, refused.rule().as_str()), (429, "G-REC-08"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(post(&gate, &two, 0..3).status, 200);
    // After a restart, too.
    drop(gate);
    let gate = site.start();
    assert_eq!(post(&gate, &one, 2..4).rule(), "G-REC-08");
    assert!(site.run(&["enrol", "device-1", "--reset-receipts"]).status.success());
    assert_eq!(post(&gate, &one, 2..4).status, 200);
}

/// The published repository says which releases there are, new ones included.
#[test]
fn receipts_of_published_releases_are_accepted() {
    let site = TestSite::new();
    site.write_config("optional", COHORTS);
    let device = Device::enrolled(&site, "device-1");
    let gate = site.start();
    let post = |number| device.post(&gate, "/v1/receipts", &json!({"receipts": [device.receipt(number)]}));
    // Before the repository can be read the gate cannot tell: the device keeps its receipt.
    std::fs::remove_dir_all(site.path("public/metadata")).unwrap();
    assert_eq!((post(1).status, post(1).rule().as_str()), (503, "G-SRV-05"));
    site.publish(1, &"cd".repeat(32));
    TestSite::wait_until("the repository is read", || post(1).rule() == "G-REC-07");
    site.publish(2, &"ab".repeat(32));
    TestSite::wait_until("the new release is read", || post(1).status == 200);
}

#[test]
fn refusals_name_what_is_missing() {
    let site = TestSite::new();
    site.write_config("required", COHORTS);
    let gate = site.start();
    let device = Device::certified(&site, "device-1");
    let refused = device.grant(&gate, &["stable.lab"], |_| json!({"kind": "none"}));
    assert_eq!((refused.status, refused.rule().as_str()), (403, "G-ATT-05"));
    assert_eq!(refused.json()["error"]["missing"], json!(["ear"]));
    assert!(!String::from_utf8_lossy(&refused.raw).contains(MARK));
    let unknown = device.grant(&gate, &["stable.other"], |_| json!({"kind": "none"}));
    assert_eq!(
        (unknown.rule().as_str(), &unknown.json()["error"]["missing"]),
        ("G-ATT-01", &json!(["cohort stable.other"]))
    );
    // Of several cohorts, those whose rules are satisfied.
    let some = device.grant(&gate, &["stable.lab", "stable.canary"], |_| json!({"kind": "none"}));
    assert_eq!(some.json()["cohorts"], json!(["stable.canary"]));
}

/// Who sends is what a trusted load balancer says; from anybody else, its header is refused.
#[test]
fn load_balancers_say_who_sends() {
    let site = TestSite::new();
    let limits = "[limits]\nper_address_per_minute = 1\nhandshakes_per_address_per_minute = 2000\n";
    let start = |trusted: &str| {
        site.write_config("required", &format!("[proxy_protocol]\ntrusted = [{trusted:?}]\n{limits}{COHORTS}"));
        site.start()
    };
    let device = Device::certified(&site, "device-1");
    let bytes = device.request("POST", "/v1/challenge", br#"{"device": "device-1"}"#, None, "");
    let ask = |gate: &crate::support::RunningGate, header: &str| {
        let mut socket = std::net::TcpStream::connect(gate.address).unwrap();
        let _ = std::io::Write::write_all(&mut socket, header.as_bytes());
        Response::parse(exchange_over(socket, device.tls.as_ref(), &bytes).ok()?).map(|response| response.status)
    };
    let gate = start("127.0.0.1");
    let from = |source: &str| {
        let (family, to) = if source.contains(':') { ("TCP6", "2001:db8::1") } else { ("TCP4", "192.0.2.1") };
        format!("PROXY {family} {source} {to} 4711 443\r\n")
    };
    for (source, status) in [
        ("203.0.113.1", 200),
        ("203.0.113.1", 429),
        ("203.0.113.2", 200),
        ("2001:db8:0:1::1", 200),
        ("2001:db8:0:1:ffff::3", 429),
        ("2001:db8:0:2::1", 200),
    ] {
        assert_eq!(ask(&gate, &from(source)), Some(status), "{source}");
    }
    assert_eq!(ask(&gate, ""), None, "a balancer has to say who sends");
    drop(gate);
    let gate = start("192.0.2.0/24");
    assert_eq!(ask(&gate, &from("203.0.113.1")), None);
    assert_eq!(ask(&gate, ""), Some(200));
}

#[test]
fn limits_rates_and_connections() {
    let site = TestSite::new();
    site.write_config("required", &format!("[limits]\nper_device_per_minute = 6\ndevice_burst = 3\n{COHORTS}"));
    let gate = site.start();
    let [one, two] = ["device-1", "device-2"].map(|id| Device::certified(&site, id));
    let challenge = |device: &Device| device.post(&gate, "/v1/challenge", &json!({"device": device.id}));
    for _ in 0..3 {
        assert_eq!(challenge(&one).status, 200);
    }
    let refused = challenge(&one);
    assert_eq!((refused.status, refused.rule().as_str()), (429, "G-LIM-03"));
    let seconds: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&seconds), "{seconds}");
    assert_eq!(challenge(&two).status, 200);
    drop(gate);

    site.write_config("required", &format!("[limits]\nper_second = 2\nhandshakes_per_address = 2\n{COHORTS}"));
    let gate = site.start();
    let statuses: Vec<u16> =
        (0..6).map(|_| two.post(&gate, "/v1/challenge", &json!({"device": "device-2"})).status).collect();
    assert!(statuses.starts_with(&[200, 200]) && statuses.contains(&429), "{statuses:?}");
    // Connections of one address are limited too.
    let held: Vec<_> = (0..2).map(|_| std::net::TcpStream::connect(gate.address).unwrap()).collect();
    TestSite::wait_until("a connection is refused", || {
        let text = String::from_utf8(gate.local("/metrics").body).unwrap();
        let _ = std::net::TcpStream::connect(gate.address);
        text.contains("tidegate_gate_connections_refused_total{rule=\"G-CON-03\"}")
    });
    drop(held);
}

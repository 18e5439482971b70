//! Requests that nobody well-behaved sends, against the running service: none gets a byte that it should not.

use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::device::{Device, now, random};
use crate::support::wire::exchange;
use crate::support::{COHORTS, House, MARK, Running, target};

/// Sends bytes and makes sure that what comes is a refusal, or nothing, and holds nothing protected. The status, or 0.
fn refused(gate: &Running, tls: Option<&Arc<ClientConfig>>, what: &str, bytes: &[u8]) -> u16 {
    let raw = exchange(gate.address, tls, bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&raw);
    assert!(!text.contains(MARK), "{what}: {text}");
    assert!(!text.contains("Location:") && !text.contains("location:"), "{what}: {text}");
    let statuses: Vec<u16> =
        text.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()).collect();
    assert!(statuses.iter().all(|status| *status >= 400), "{what}: {text}");
    statuses.first().copied().unwrap_or_default()
}

struct Table<'a> {
    gate: &'a Running,
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
fn none_of_two_hundred_hostile_requests_gets_a_byte_that_it_should_not() {
    let house = House::new();
    // Or most would be refused for being too many.
    house.settle(
        "optional",
        &format!("[limits]\nper-device-per-minute = 100000\ndevice-burst = 100000\npatience = \"1s\"\n{COHORTS}"),
    );
    let gate = house.serve();
    let device = Device::certified(&house, "device-1");
    let token = device.token(&gate);
    let mut table = Table { gate: &gate, device: &device, cases: 0 };
    let (open, image) = target("stable/releases/os/1.2.0/os.img", "1.2.0");
    assert_eq!(device.get(&gate, &open, &token).body, image.as_bytes());
    let hash = open.rsplit('/').next().unwrap().split('.').next().unwrap().to_owned();
    let (lab, _) = target("stable/releases/os/1.3.0/os.img", "1.3.0");

    paths(&mut table, &token, &hash, &open, &lab);
    tokens(&mut table, &token, &open);
    bodies(&mut table);
    wire(&mut table, &token, &open);
    proofs(&mut table, &house, &token, &open);
    let cases = table.cases;
    assert!(cases >= 200, "{cases}");
    assert!(!gate.audit().contains("G-LIM-03"));
    println!("{cases} hostile requests");
    // It goes on as before.
    assert_eq!(device.get(&gate, &open, &token).body, image.as_bytes());
    assert_eq!(gate.local("/healthz").status, 200);
    let audit = gate.audit();
    assert!(!audit.contains(&token) && !audit.contains("device-1"), "{audit}");
}

fn paths(table: &mut Table<'_>, token: &str, hash: &str, open: &str, lab: &str) {
    let dir = "targets/stable/releases/os/1.2.0";
    let hostile = [
        "",
        ".",
        "..",
        "/",
        "//",
        "/etc/passwd",
        "../secret.txt",
        "../../outside.txt",
        "metadata/../secret.txt",
        "metadata/../../outside.txt",
        "metadata/..%2f..%2foutside.txt",
        "..%2foutside.txt",
        "%2e%2e/outside.txt",
        "%2e%2e%2foutside.txt",
        "%252e%252e%252foutside.txt",
        "..%252foutside.txt",
        "..%5coutside.txt",
        "..\\outside.txt",
        "metadata\\3.stable.canary.json",
        "%c0%ae%c0%ae/outside.txt",
        "%uff0e%uff0e/outside.txt",
        "..;/outside.txt",
        "metadata/",
        "metadata",
        "targets",
        "targets/",
        "gate/stable.canary.json",
        "gate/stable.lab.json",
        "secret.txt",
        "./secret.txt",
        "state/",
        "receipts/",
        "metadata/timestamp.json",
        "metadata/1.root.json",
        "metadata/root.json",
        "metadata/1.snapshot.json",
        "metadata/1.targets.json",
        "metadata/3.stable.json",
        "metadata/3.stable.lab.json",
        "metadata/3.beta.canary.json",
        "metadata/03.stable.canary.json",
        "metadata/0.stable.canary.json",
        "metadata/-3.stable.canary.json",
        "metadata/+3.stable.canary.json",
        "metadata/3.stable.canary",
        "metadata/3.stable.canary.JSON",
        "metadata/3.STABLE.canary.json",
        "metadata/3.stable.canary.json/",
        "metadata/3.stable.canary.json%00",
        "metadata/3.stable.canary.json%00.json",
        "metadata/3.stable.canary.json%20",
        "metadata/3.stable%2ecanary.json",
        "metadata/%33.stable.canary.json",
        "metadata/3.stable.canary.lab.json",
        "metadata/3..json",
        "metadata/.json",
        "metadata/3.stable..json",
        "metadata/99999999999.stable.canary.json",
        "metadata/3.stable.canary.json.json",
        "metadata//3.stable.canary.json",
        "/metadata/3.stable.canary.json",
        "metadata/./3.stable.canary.json",
        "Metadata/3.stable.canary.json",
        "metadata/3.stable.canary.json;x",
        "metadata/3.stable.canary.json,x",
        "targets/stable/cohorts.json",
        "targets/stable/../stable/cohorts.json",
        "targets/beta/cohorts.json",
        "targets/stable/releases/os/1.2.0/os.img",
        "targets/stable/releases/os/1.2.0/manifest.json",
        "*",
        "?",
        "#",
        "%",
        "%2",
        "%zz",
        "~",
        "$",
        "{path}",
        "metadata/*",
        "metadata/3.stable.*.json",
        "C:/outside.txt",
        "file:///etc/passwd",
        "http://localhost/",
        "@localhost",
    ];
    for path in hostile {
        table.get(&format!("/v1/repo/{path}"), Some(token));
    }
    for path in [
        format!("{dir}/{hash}.os.img/"),
        format!("{dir}/{hash}.os.img/.."),
        format!("{dir}/{hash}.os.img%00"),
        format!("{dir}/{}.os.img", hash.to_uppercase()),
        format!("{dir}/{hash}"),
        format!("{dir}/{hash}."),
        format!("{dir}/{}.os.img", &hash[1..]),
        format!("{dir}/0{hash}.os.img"),
        format!("{dir}/../1.2.0/{hash}.os.img"),
        format!("{dir}/%2e/{hash}.os.img"),
        format!("{dir}//{hash}.os.img"),
        format!("targets//stable/releases/os/1.2.0/{hash}.os.img"),
        format!("targets/stable/releases/os/1.3.0/{hash}.os.img"),
        format!("targets/stable/releases/os/v1.2.0/{hash}.os.img"),
        format!("targets/stable/releases/../releases/os/1.2.0/{hash}.os.img"),
        format!("targets/beta/../stable/releases/os/1.2.0/{hash}.os.img"),
        format!("targets/stable%2freleases/os/1.2.0/{hash}.os.img"),
        format!("{dir}/{hash}.os%2eimg"),
        format!("{dir}/{hash}.os.img%2B"),
        format!("{dir}/{hash}%2Eos.img"),
        format!("targets/stable/cohorts/lab/{hash}.os.json"),
        format!("targets/beta/releases/os/1.0.0/{hash}.os.img"),
        format!("targets/root/releases/os/1.0.0/{hash}.os.img"),
        format!("targets/stable/releases/{hash}.os.img"),
        format!("targets/{hash}.os.img"),
        format!("{open}x"),
        format!("x{open}"),
        format!("{}{open}", "../".repeat(20)),
        lab.to_owned(),
        format!("{lab}/"),
        "a/".repeat(500),
        "a".repeat(1025),
        "a".repeat(8000),
        target("stable/releases/os/9.9.9/os.img", "9.9.9").0,
        target("beta/releases/os/1.0.0/os.img", "1.0.0").0,
    ] {
        table.get(&format!("/v1/repo/{path}"), Some(token));
    }
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/repo",
        "/v1/repo/",
        "/v2/repo/x",
        "/v1//repo/x",
        "/V1/repo/x",
        "//v1/repo/x",
        "/v1/./repo/x",
        "/metrics",
        "/healthz",
        "/readyz",
        "/v1/metrics",
        "/.git/config",
        "/v1/receipts/x",
        "/v1/challenge",
        "/v1/grant",
    ] {
        table.get(path, Some(token));
    }
    for path in ["?", "?x=1", "?../outside.txt"] {
        table.get(&format!("/v1/repo/{open}{path}"), Some(token));
    }
    table.get(&format!("http://localhost/v1/repo/{open}"), Some(token));
    table.get(&format!("http://other.example.com/v1/repo/{open}"), Some(token));
}

fn tokens(table: &mut Table<'_>, token: &str, open: &str) {
    let path = format!("/v1/repo/{open}");
    assert_eq!(table.get(&path, None), 401);
    let half = &token[..token.len() / 2];
    let other: String = token.chars().rev().collect();
    for bad in [
        "",
        " ",
        "x",
        "null",
        "undefined",
        "AAAA",
        half,
        &other,
        &format!("{token}="),
        &format!("{token}A"),
        &format!(" {token}"),
        &format!("{token} "),
        &token.to_uppercase(),
        &format!("{token},{token}"),
        &"A".repeat(2048),
        &"A".repeat(2049),
        &"A".repeat(9000),
        "../../outside.txt",
        "%00",
    ] {
        if bad.trim() == token {
            // White space around a field's value is no part of it.
            continue;
        }
        table.get(&path, Some(bad));
    }
    for header in [
        format!("Authorization: Basic {token}\r\n"),
        format!("Authorization: {token}\r\n"),
        format!("Authorization: bearer{token}\r\n"),
        format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"),
        format!("Authorization: Bearer\t{token}\r\n"),
        format!("Proxy-Authorization: Bearer {token}\r\n"),
        format!("Cookie: token={token}\r\n"),
        format!("X-Authorization: Bearer {token}\r\n"),
    ] {
        let bytes = table.device.request("GET", &path, b"", None, &header);
        table.raw(&header, &bytes);
    }
    // Every bit of a token counts.
    let mut changed: Vec<char> = token.chars().collect();
    for at in (0..changed.len()).step_by(changed.len() / 10) {
        let was = changed[at];
        changed[at] = if was == 'A' { 'B' } else { 'A' };
        let text: String = changed.iter().collect();
        assert_eq!(table.get(&path, Some(&text)), 401);
        changed[at] = was;
    }
}

fn bodies(table: &mut Table<'_>) {
    for body in [
        "",
        " ",
        "null",
        "[]",
        "{}",
        "1",
        "\"device-1\"",
        "{\"device\":1}",
        "{\"device\":null}",
        "{\"device\":\"device-2\"}",
        "{\"device\":\"device-1\",\"device\":\"device-1\"}",
        "{\"device\":\"device-1\",\"admin\":true}",
        "{\"device\":\"device-1\"}x",
        "{\"device\":\"device-1\"}{}",
        "{\"device\":\"DEVICE-1\"}",
        "{\"device\":\"device-1 \"}",
        "{\"device\":\"device-1\\u0000\"}",
        "{\"device\":[\"device-1\"]}",
        "\u{feff}{\"device\":\"device-1\"}",
        "{'device':'device-1'}",
        "device=device-1",
        "<device>device-1</device>",
        "{\"device\":\"../device-1\"}",
        "{\"device\":\"\"}",
        &format!("{}1{}", "[".repeat(5000), "]".repeat(5000)),
        &format!("{{\"device\":\"{}\"}}", "a".repeat(60_000)),
        &format!("{{\"device\":\"{}\"}}", "a".repeat(70_000)),
    ] {
        table.post("/v1/challenge", body);
    }
    let nonce = table.device.nonce(table.gate);
    let sound = json!({"device": "device-1", "nonce": nonce, "cohorts": ["stable.lab"], "evidence": {"kind": "none"}});
    let with = |name: &str, value: serde_json::Value| {
        let mut body = sound.clone();
        body[name] = value;
        body.to_string()
    };
    for body in [
        with("nonce", json!("")),
        with("nonce", json!("AAAA")),
        with("nonce", json!("A".repeat(43))),
        with("nonce", json!(null)),
        with("nonce", json!(format!("{nonce}="))),
        with("nonce", json!(nonce.to_uppercase())),
        with("nonce", json!("../../../x")),
        with("device", json!("device-2")),
        with("cohorts", json!([])),
        with("cohorts", json!("stable.canary")),
        with("cohorts", json!([1])),
        with("cohorts", json!(vec!["stable.canary"; 17])),
        with("cohorts", json!({"stable.canary": true})),
        with("evidence", json!({})),
        with("evidence", json!({"kind": "other"})),
        with("evidence", json!({"kind": "none", "tier": "affirming"})),
        with("evidence", json!({"kind": "ear"})),
        with("evidence", json!({"kind": "ear", "token": 1})),
        with("evidence", json!({"kind": "tpm2"})),
        with("evidence", json!({"kind": "tpm2", "quote": "", "signature": "", "pcrs": []})),
        with("evidence", json!([])),
        with("evidence", json!("none")),
        with("admin", json!(true)),
        with("device", json!(null)),
    ] {
        table.post("/v1/grant", &body);
    }
    for (cohort, evidence) in [
        ("stable.lab", json!({"kind": "none"})),
        ("stable", json!({"kind": "none"})),
        ("root", json!({"kind": "none"})),
        ("", json!({"kind": "none"})),
        ("stable.*", json!({"kind": "none"})),
        ("../stable.canary", json!({"kind": "none"})),
        ("stable.canary ", json!({"kind": "none"})),
        ("STABLE.CANARY", json!({"kind": "none"})),
        ("stable.canary\0", json!({"kind": "none"})),
        ("stable.lab", json!({"kind": "ear", "token": "a.b.c"})),
        ("stable.lab", json!({"kind": "tpm2", "quote": "AA", "signature": "AA", "pcrs": {}})),
    ] {
        let nonce = table.device.nonce(table.gate);
        table.post(
            "/v1/grant",
            &json!({"device": "device-1", "nonce": nonce, "cohorts": [cohort], "evidence": evidence}).to_string(),
        );
    }
    for body in [
        "{\"receipts\":[]}",
        "{\"receipts\":{}}",
        "{\"receipts\":[1]}",
        "{\"receipts\":[{}]}",
        "{\"receipts\":[{\"signed\":{},\"signature\":{}}]}",
        "{\"receipt\":[]}",
        "[]",
    ] {
        table.post("/v1/receipts", body);
    }
}

fn wire(table: &mut Table<'_>, token: &str, open: &str) {
    let path = format!("/v1/repo/{open}");
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "GET,GET", "X"] {
        let bytes = table.device.request(method, &path, b"", Some(token), "");
        table.raw(method, &bytes);
        let bytes = table.device.request(method, "/v1/grant", b"", Some(token), "");
        table.raw(method, &bytes);
    }
    let bearer = format!("Authorization: Bearer {token}\r\nConnection: close\r\n");
    let many = "X-Y: z\r\n".repeat(100);
    for (what, bytes) in [
        ("too many headers", format!("GET {path} HTTP/1.1\r\nHost: x\r\n{many}{bearer}\r\n")),
        ("a header too long", format!("GET {path} HTTP/1.1\r\nHost: x\r\nX: {}\r\n{bearer}\r\n", "y".repeat(20_000))),
        ("a path too long", format!("GET /v1/repo/{} HTTP/1.1\r\nHost: x\r\n{bearer}\r\n", "y".repeat(20_000))),
        ("a body with GET", format!("GET {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n{bearer}\r\nx")),
        (
            "a chunked body with GET",
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{bearer}\r\n1\r\nx\r\n0\r\n\r\n"),
        ),
        (
            "length and chunks",
            format!(
                "POST /v1/challenge HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n{bearer}\r\n0\r\n\r\nGET {path} HTTP/1.1\r\n\r\n"
            ),
        ),
        (
            "two lengths",
            format!(
                "POST /v1/challenge HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n{bearer}\r\nxx"
            ),
        ),
        ("a negative length", format!("POST /v1/challenge HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n{bearer}\r\n")),
        (
            "an endless length",
            format!("POST /v1/challenge HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n{bearer}\r\n"),
        ),
        (
            "more than allowed",
            format!("POST /v1/challenge HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n{bearer}\r\n"),
        ),
        (
            "chunks without end",
            format!(
                "POST /v1/challenge HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{bearer}\r\n{}",
                format!("1000\r\n{}\r\n", "x".repeat(4096)).repeat(20)
            ),
        ),
        (
            "bad chunks",
            format!("POST /v1/challenge HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{bearer}\r\nZZ\r\n"),
        ),
        (
            "compressed",
            format!(
                "POST /v1/challenge HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 21\r\n{bearer}\r\n{{\"device\":\"device-1\"}}"
            ),
        ),
        (
            "an unknown encoding",
            format!("POST /v1/challenge HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n{bearer}\r\n"),
        ),
        ("HTTP/0.9", format!("GET {path}\r\n")),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
        ("HTTP/3.0", format!("GET {path} HTTP/3.0\r\n{bearer}\r\n")),
        (
            "a folded header",
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer\r\n {token}\r\nConnection: close\r\n\r\n"),
        ),
        (
            "a space before the colon",
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer {token}\r\nConnection: close\r\n\r\n"),
        ),
        ("a nul in the path", format!("GET /v1/repo/\0 HTTP/1.1\r\nHost: x\r\n{bearer}\r\n")),
        ("a nul in a header", format!("GET {path} HTTP/1.1\r\nHost: x\r\nX: \0\r\n{bearer}\r\n")),
        ("a bare CR", format!("GET {path} HTTP/1.1\rHost: x\r{bearer}\r\r")),
        ("a space in the path", format!("GET {path} x HTTP/1.1\r\nHost: x\r\n{bearer}\r\n")),
        ("an asterisk", format!("OPTIONS * HTTP/1.1\r\nHost: x\r\n{bearer}\r\n")),
        (
            "an upgrade",
            format!("GET /v1/challenge HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n{bearer}\r\n"),
        ),
        (
            "beyond ASCII",
            format!("GET /v1/repo/metadata/3.st\u{e4}ble.canary.json HTTP/1.1\r\nHost: x\r\n{bearer}\r\n"),
        ),
        ("nothing", String::new()),
        ("line feeds", "\n".repeat(3000)),
    ] {
        table.raw(what, bytes.as_bytes());
    }
    // Not TLS at all.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\x00", &[0; 5000], b"SSH-2.0-x\r\n"] {
        table.cases += 1;
        assert_eq!(refused(table.gate, None, "plain", bytes), 0);
    }
}

fn proofs(table: &mut Table<'_>, house: &House, token: &str, open: &str) {
    let enrolled = Device::enrolled(house, "device-9");
    let stranger = Device::stranger(house);
    let path = format!("/v1/repo/{open}");
    let (time, text) = (now(), random());
    let sound = enrolled.proof("GET", &path, b"", token, time, &text);
    let mut parts: Vec<&str> = sound.split('.').collect();
    let (zero, other) = ("0".repeat(64), stranger.public().id().to_string());
    let mut hostile: Vec<String> = vec![
        String::new(),
        "x".into(),
        "...".into(),
        sound.repeat(2),
        "A".repeat(600),
        format!("{sound}."),
        format!("{sound}.x"),
    ];
    for (at, values) in [
        (0, vec!["", &zero, &other, "../x", "%00"]),
        (1, vec!["", "0", "-1", "99999999999999999999", "1e9", "0x10"]),
        (2, vec!["", "A", "AAAA", &"A".repeat(23)]),
        (3, vec!["", "AAAA", "!", &"A".repeat(86)]),
    ] {
        for value in values {
            let was = std::mem::replace(&mut parts[at], value);
            hostile.push(parts.join("."));
            parts[at] = was;
        }
    }
    // By the right key over something else, of another time, without the token.
    hostile.push(enrolled.proof("POST", &path, b"", token, time, &text));
    hostile.push(enrolled.proof("GET", "/v1/repo/x", b"", token, time, &text));
    hostile.push(enrolled.proof("GET", &path, b"x", token, time, &text));
    hostile.push(enrolled.proof("GET", &path, b"", "", time, &text));
    hostile.push(enrolled.proof("GET", &path, b"", token, time - 500, &text));
    hostile.push(enrolled.proof("GET", &path, b"", token, time + 500, &text));
    // A sound one, with the token of another device.
    hostile.push(sound.clone());
    for proof in hostile {
        let bytes = stranger.request("GET", &path, b"", Some(token), &format!("Tidegate-Proof: {proof}\r\n"));
        table.cases += 1;
        assert_eq!(refused(table.gate, stranger.tls.as_ref(), &proof, &bytes), 401, "{proof}");
    }
}

/// A session that is sound but for some bytes. Whatever changes: what the device itself may have is all that may come, and the gate goes on.
#[test]
fn a_fuzzed_session_gets_nothing_that_it_should_not() {
    let house = House::new();
    house.settle(
        "optional",
        &format!("[limits]\nper-device-per-minute = 100000\ndevice-burst = 100000\npatience = \"1s\"\n{COHORTS}"),
    );
    let gate = house.serve();
    let device = Device::certified(&house, "device-1");
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
    // Many at a time: the gate waits a second for the rest of what was cut off.
    std::thread::scope(|scope| {
        for thread in 0..32u64 {
            let (requests, gate, device) = (&requests, &gate, &device);
            scope.spawn(move || {
                let mut chance = Chance(thread << 32);
                for round in 0..5 {
                    for request in requests {
                        let bytes = chance.change(request);
                        let raw = exchange(gate.address, device.tls.as_ref(), &bytes).unwrap_or_default();
                        let text = String::from_utf8_lossy(&raw);
                        // `stable.lab` was never granted, so that nothing protected may come, and no receipt is its own.
                        assert!(!text.contains(MARK), "{thread} {round}: {}\n{text}", String::from_utf8_lossy(&bytes));
                        assert!(!text.contains("\"stored\""), "{thread} {round}: {text}");
                    }
                }
            });
        }
    });
    assert_eq!(device.get(&gate, "metadata/3.stable.canary.json", &token).status, 200);
}

/// The same each time.
struct Chance(u64);

impl Chance {
    /// The bytes with a few of them changed, added or missing.
    fn change(&mut self, request: &[u8]) -> Vec<u8> {
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

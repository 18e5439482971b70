//! Valid HTTP with hostile paths, tokens and bodies.

use serde_json::json;

use super::Table;
use crate::support::target;

pub(super) fn paths(table: &mut Table<'_>, token: &str, hash: &str, open: &str, lab: &str) {
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

pub(super) fn tokens(table: &mut Table<'_>, token: &str, open: &str) {
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
            // White space around a field's value is not part of it.
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
    // A change of any character makes the token invalid.
    let mut changed: Vec<char> = token.chars().collect();
    for at in (0..changed.len()).step_by(changed.len() / 10) {
        let was = changed[at];
        changed[at] = if was == 'A' { 'B' } else { 'A' };
        let text: String = changed.iter().collect();
        assert_eq!(table.get(&path, Some(&text)), 401);
        changed[at] = was;
    }
}

pub(super) fn bodies(table: &mut Table<'_>) {
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
    let valid = json!({"device": "device-1", "nonce": nonce, "cohorts": ["stable.lab"], "evidence": {"kind": "none"}});
    let with = |name: &str, value: serde_json::Value| {
        let mut body = valid.clone();
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

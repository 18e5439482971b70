//! Malformed HTTP, and wrong proofs.

use super::{Table, refused};
use crate::support::TestSite;
use crate::support::device::{Device, now, random};

pub(super) fn wire(table: &mut Table<'_>, token: &str, open: &str) {
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
    // No TLS.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\x00", &[0; 5000], b"SSH-2.0-x\r\n"] {
        table.cases += 1;
        assert_eq!(refused(table.gate, None, "plain", bytes), 0);
    }
}

pub(super) fn proofs(table: &mut Table<'_>, site: &TestSite, token: &str, open: &str) {
    let enrolled = Device::enrolled(site, "device-9");
    let stranger = Device::unidentified(site);
    let path = format!("/v1/repo/{open}");
    let (time, text) = (now(), random());
    let valid = enrolled.proof("GET", &path, b"", token, time, &text);
    let mut parts: Vec<&str> = valid.split('.').collect();
    let (zero, other) = ("0".repeat(64), stranger.public().id().to_string());
    let mut hostile: Vec<String> = vec![
        String::new(),
        "x".into(),
        "...".into(),
        valid.repeat(2),
        "A".repeat(600),
        format!("{valid}."),
        format!("{valid}.x"),
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
    // Signed with the right key for another request, another time, or without the token.
    hostile.push(enrolled.proof("POST", &path, b"", token, time, &text));
    hostile.push(enrolled.proof("GET", "/v1/repo/x", b"", token, time, &text));
    hostile.push(enrolled.proof("GET", &path, b"x", token, time, &text));
    hostile.push(enrolled.proof("GET", &path, b"", "", time, &text));
    hostile.push(enrolled.proof("GET", &path, b"", token, time - 500, &text));
    hostile.push(enrolled.proof("GET", &path, b"", token, time + 500, &text));
    // A valid proof with the token of another device.
    hostile.push(valid.clone());
    for proof in hostile {
        let bytes = stranger.request("GET", &path, b"", Some(token), &format!("Tidegate-Proof: {proof}\r\n"));
        table.cases += 1;
        assert_eq!(refused(table.gate, stranger.tls.as_ref(), &proof, &bytes), 401, "{proof}");
    }
}

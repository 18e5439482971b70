//! Against a scripted server. The real gate is in the gate's own tests.

use super::*;
use crate::clock::StubClock;
use crate::error::{Error, Fault as Whose};
use crate::fetch::http::tests::{Answer, Server, answer, impatient, raw};
use crate::gate::StubAttestor;
use crate::key::DeviceKey;

const CHALLENGE: &str = r#"{"nonce": "AAEC", "expires": "2026-01-05T12:02:00Z"}"#;

/// A grant of a token for this many minutes.
fn grant(token: &str, minutes: u32) -> Answer {
    let body =
        format!(r#"{{"token": "{token}", "expires": "2026-01-05T12:{minutes:02}:00Z", "cohorts": ["stable.canary"]}}"#);
    answer("200 OK", "", body)
}

fn challenge() -> Answer {
    answer("200 OK", "", CHALLENGE)
}

fn visit(server: &Server) -> Visit {
    Visit { gate: server.url("").parse().unwrap(), role: "stable.canary".into(), device: "device-1".parse().unwrap() }
}

fn signer(clock: &StubClock) -> Signer {
    use ed25519_dalek::pkcs8::EncodePrivateKey as _;
    let key = ed25519_dalek::SigningKey::from_bytes(&[5; 32]).to_pkcs8_pem(p256::pkcs8::LineEnding::LF).unwrap();
    Signer::new(DeviceKey::from_pem(key.as_bytes()).unwrap(), clock.clone())
}

fn clock() -> StubClock {
    // Years away from the gate's.
    StubClock::at(time::parse("2031-01-05T12:00:00Z").unwrap())
}

/// The token that a pass sends.
fn token(pass: &Arc<dyn Pass + Send + Sync>, visit: &Visit) -> String {
    let headers = pass.headers(&format!("{}/metadata/1.stable.canary.json", visit.gate.repository())).unwrap();
    headers[0].1.strip_prefix("Bearer ").unwrap().to_owned()
}

#[test]
fn grants_are_reused_until_they_expire() {
    let server = Server::new(vec![
        challenge(),
        grant("first", 10),
        challenge(),
        grant("second", 10),
        challenge(),
        grant("third", 10),
    ]);
    let (clock, visit) = (clock(), visit(&server));
    let attestor = StubAttestor::new(Evidence::Ear { token: "a.b.c".into() });
    let client =
        GateClient::new(impatient()).signer(signer(&clock)).attestor(attestor.clone()).clock(Arc::new(clock.clone()));
    assert_eq!(client.attestation(), Some(Attestation::Ear));
    assert_eq!(token(&client.enter(&visit, false).unwrap(), &visit), "first");
    assert_eq!(attestor.take_nonces(), [[0, 1, 2]]);
    // Ten minutes, by the gate's clock, less half a minute.
    clock.advance(Duration::from_secs(569));
    assert_eq!(token(&client.enter(&visit, false).unwrap(), &visit), "first");
    clock.advance(Duration::from_secs(2));
    assert_eq!(token(&client.enter(&visit, false).unwrap(), &visit), "second");
    // The gate no longer accepts it.
    let pass = client.enter(&visit, true).unwrap();
    assert_eq!(token(&pass, &visit), "third");
    let seen = server.seen();
    assert_eq!(seen.len(), 6);
    assert!(seen[0].starts_with("post /v1/challenge ") && seen[0].ends_with(r#"{"device":"device-1"}"#), "{}", seen[0]);
    assert!(seen[1].starts_with("post /v1/grant ") && seen[1].ends_with(
        r#"{"cohorts":["stable.canary"],"device":"device-1","evidence":{"kind":"ear","token":"a.b.c"},"nonce":"AAEC"}"#
    ), "{}", seen[1]);
    assert!(seen.iter().all(|head| head.contains("tidegate-proof: ") && !head.contains("authorization")));
    // A token is for its gate alone, and is in no log.
    assert!(pass.headers("https://elsewhere.example.com/v1/repo/x").is_err());
    assert!(!format!("{pass:?} {client:?}").contains("third"));
    assert_eq!(pass.headers(&format!("{}/x", visit.gate.repository())).unwrap()[1].0, HEADER);
}

#[test]
fn another_cohort_needs_another_grant() {
    let server = Server::new(vec![
        challenge(),
        grant("one", 10),
        challenge(),
        answer("200 OK", "", r#"{"token": "two", "expires": "2026-01-05T12:10:00Z", "cohorts": ["stable.lab"]}"#),
    ]);
    let one = visit(&server);
    let two = Visit { role: "stable.lab".into(), ..one.clone() };
    let client = GateClient::new(impatient());
    assert_eq!(client.attestation(), None);
    assert_eq!(token(&client.enter(&one, false).unwrap(), &one), "one");
    assert_eq!(token(&client.enter(&two, false).unwrap(), &two), "two");
    assert!(server.seen()[1].contains(r#""evidence":{"kind":"none"}"#));
}

#[test]
fn a_grant_that_has_ended_already_is_used_once() {
    for minutes in [0, 2] {
        let server = Server::new(vec![challenge(), grant("short", minutes), challenge(), grant("next", 10)]);
        let (clock, visit) = (clock(), visit(&server));
        let client = GateClient::new(impatient()).clock(Arc::new(clock.clone()));
        assert_eq!(token(&client.enter(&visit, false).unwrap(), &visit), "short");
        clock.advance(Duration::from_secs(if minutes == 0 { 0 } else { 91 }));
        assert_eq!(token(&client.enter(&visit, false).unwrap(), &visit), "next");
    }
}

#[test]
fn a_spent_proof_is_retried_once() {
    let spent = || answer("401 Unauthorized", "", r#"{"error": {"rule": "G-ID-06", "why": "used", "missing": []}}"#);
    let server = Server::new(vec![spent(), challenge(), grant("token", 10)]);
    let client = GateClient::new(impatient());
    assert!(client.enter(&visit(&server), false).is_ok());
    let server = Server::new(vec![spent(), spent(), challenge(), grant("token", 10)]);
    assert!(matches!(client.enter(&visit(&server), false), Err(FetchError::Denied { status: 401, .. })));
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn whose_fault_it_is_that_there_is_no_grant() {
    let refusal =
        r#"{"error": {"rule": "G-ATT-05", "why": "stable.canary takes tpm2 quote", "missing": ["tpm2 quote"]}}"#;
    let slow: Answer = Box::new(|stream| {
        use std::io::Write as _;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{")?;
        std::thread::sleep(Duration::from_secs(2));
        Ok(())
    });
    let bad = |body: &str| vec![answer("200 OK", "", body)];
    let granted = |body: &str| vec![challenge(), answer("200 OK", "", body)];
    let cases: Vec<(Vec<Answer>, Whose, &str)> = vec![
        (vec![challenge(), answer("403 Forbidden", "", refusal)], Whose::Peer, "missing: tpm2 quote"),
        (vec![answer("401 Unauthorized", "", refusal)], Whose::Peer, "G-ATT-05"),
        (vec![answer("400 Bad Request", "", refusal)], Whose::Peer, "does not understand"),
        (vec![answer("404 Not Found", "", "")], Whose::Peer, "404"),
        (vec![answer("429 Too Many Requests", "Retry-After: 7\r\n", refusal)], Whose::Network, "429"),
        (vec![answer("503 Unavailable", "", "")], Whose::Network, "503"),
        (vec![answer("307 Moved", "Location: https://elsewhere.example.com/\r\n", "")], Whose::Peer, "307"),
        (vec![raw("HTTP/1.1 200 OK\r\n")], Whose::Network, "no answer"),
        (vec![slow], Whose::Network, "too slow"),
        (vec![answer("200 OK", "", vec![b' '; 200_000])], Whose::Peer, "not an answer of a gate"),
        (bad("{}"), Whose::Peer, "nonce"),
        (bad(r#"{"nonce": "", "expires": "2026-01-05T12:02:00Z"}"#), Whose::Peer, "nonce"),
        (bad(r#"{"nonce": "AAEC", "expires": "soon"}"#), Whose::Peer, "expires"),
        (
            granted(r#"{"token": "a b", "expires": "2026-01-05T12:10:00Z", "cohorts": ["stable.canary"]}"#),
            Whose::Peer,
            "token",
        ),
        (
            granted(r#"{"token": "a\r\nX: b", "expires": "2026-01-05T12:10:00Z", "cohorts": ["stable.canary"]}"#),
            Whose::Peer,
            "token",
        ),
        (
            granted(r#"{"token": "a", "expires": "2026-01-05T12:10:00Z", "cohorts": ["stable.lab"]}"#),
            Whose::Peer,
            "stable.canary is not among them",
        ),
    ];
    for (answers, whose, expected) in cases {
        let server = Server::new(answers);
        let error = Error::from(GateClient::new(impatient()).enter(&visit(&server), false).unwrap_err());
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert_eq!(error.fault(), whose, "{error}");
        assert_eq!(error.retry_after(), (expected == "429").then_some(Duration::from_secs(7)));
    }
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gate = format!("http://{unused}").parse().unwrap();
    let visit = Visit { gate, role: "stable.canary".into(), device: "device-1".parse().unwrap() };
    let error = Error::from(GateClient::new(impatient()).enter(&visit, false).unwrap_err());
    assert_eq!(error.fault(), Whose::Network, "{error}");
    let server = Server::new(vec![challenge()]);
    let broken = crate::gate::CommandAttestor::new(
        crate::command::Command::new(["false".into()], Duration::from_secs(9)),
        Attestation::Ear,
    );
    let error = Error::from(
        GateClient::new(impatient()).attestor(broken).enter(&super::tests::visit(&server), false).unwrap_err(),
    );
    assert_eq!(error.fault(), Whose::Device, "{error}");
}

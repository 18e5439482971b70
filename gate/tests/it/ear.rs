//! Attestation results (EAR): which ones the gate accepts.

use std::io::{Read as _, Write as _};

use data_encoding::BASE64URL_NOPAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::support::device::{Device, now};
use crate::support::{COHORTS, RunningGate, TestSite, target};

pub struct TestVerifier {
    key: EcdsaKeyPair,
    kid: &'static str,
}

impl TestVerifier {
    pub fn new(kid: &'static str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self { key: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap(), kid }
    }

    pub fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid, "x": text(&point[1..33]), "y": text(&point[33..])})
    }

    pub fn token(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", text(header.to_string().as_bytes()), text(claims.to_string().as_bytes()));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", text(signature.as_ref()))
    }

    pub fn header(&self) -> Value {
        json!({"alg": "ES256", "kid": self.kid, "typ": "JWT"})
    }
}

/// Creates a token for a nonce.
type MakeToken<'a> = Box<dyn Fn(&str) -> String + 'a>;

fn text(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

pub fn claims(nonce: &str) -> Value {
    json!({
        "eat_profile": "tag:github.com,2023:veraison/ear", "iss": "https://verifier.example.com", "iat": now(), "ueid": "device-1", "eat_nonce": nonce,
        "ear.verifier-id": {"developer": "https://verifier.example.com", "build": "1"},
        "submods": {"os": {"ear.status": "affirming", "build": "release"}, "boot": {"ear.status": 2}},
    })
}

fn set(claims: &Value, pointer: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = claims.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(name)
    } else {
        parent.insert(name.into(), value)
    };
    claims
}

fn grant_lab(device: &Device, gate: &RunningGate, token: impl FnOnce(&str) -> String) -> (u16, String, Value) {
    let answer = device.grant(gate, &["stable.lab"], |nonce| json!({"kind": "ear", "token": token(nonce)}));
    let body = answer.json();
    (answer.status, body["error"]["rule"].as_str().unwrap_or_default().to_owned(), body)
}

/// A gate that accepts results of this verifier, and a device.
fn site_with(verifier: &TestVerifier) -> (TestSite, RunningGate, Device) {
    let site = TestSite::new();
    site.write("acme.json", &json!({"keys": [verifier.jwk()]}).to_string());
    site.write_config("required", COHORTS);
    let gate = site.start();
    let device = Device::certified(&site, "device-1");
    (site, gate, device)
}

#[test]
fn refuses_results_with_wrong_claims() {
    let verifier = TestVerifier::new("k1");
    let (_site, gate, device) = site_with(&verifier);
    let grant = |claims: &dyn Fn(&str) -> Value| {
        grant_lab(&device, &gate, |nonce| verifier.token(&verifier.header(), &claims(nonce)))
    };

    let (status, _, body) = grant(&claims);
    assert_eq!((status, &body["cohorts"]), (200, &json!(["stable.lab"])), "{body}");
    let token = body["token"].as_str().unwrap();
    let (name, image) = target("stable/releases/os/1.3.0/os.img", "1.3.0");
    assert_eq!(device.get(&gate, &name, token).body, image.as_bytes());
    // One of several nonces must be the gate's.
    assert_eq!(grant(&|nonce| set(&claims(nonce), "/eat_nonce", json!(["other-nonce", nonce]))).0, 200);

    for (pointer, value, rule) in [
        ("/eat_nonce", Value::Null, "G-ATT-02"),
        ("/eat_nonce", json!("another-nonce"), "G-ATT-02"),
        ("/eat_nonce", json!([]), "G-ATT-02"),
        ("/ueid", json!("device-2"), "G-ATT-02"),
        ("/ueid", Value::Null, "G-ATT-02"),
        ("/iss", json!("https://other.example.com"), "G-ATT-02"),
        ("/iss", Value::Null, "G-ATT-02"),
        ("/iat", Value::Null, "G-ATT-02"),
        ("/iat", json!(now() + 600), "G-ATT-02"),
        ("/iat", json!(now() - 601), "G-ATT-09"),
        ("/exp", json!(now() - 600), "G-ATT-02"),
        ("/nbf", json!(now() + 600), "G-ATT-02"),
        ("/submods", json!({}), "G-ATT-02"),
        ("/submods", Value::Null, "G-ATT-02"),
        ("/submods/boot", json!({}), "G-ATT-02"),
        ("/submods/boot", json!({"ear.status": "splendid"}), "G-ATT-02"),
        ("/submods/boot", json!({"ear.status": "none"}), "G-ATT-06"),
        ("/submods/boot", json!({"ear.status": 32}), "G-ATT-06"),
        ("/submods/boot", json!({"ear.status": "contraindicated"}), "G-ATT-06"),
        ("/submods/os/build", json!("home-made"), "G-ATT-10"),
        ("/submods/os/build", Value::Null, "G-ATT-10"),
    ] {
        let (status, found, body) = grant(&|nonce| set(&claims(nonce), pointer, value.clone()));
        assert_eq!((status, found.as_str()), (403, rule), "{pointer} {value}: {body}");
    }
}

#[test]
fn refuses_forged_results() {
    let verifier = TestVerifier::new("k1");
    let (_site, gate, device) = site_with(&verifier);
    let other = TestVerifier::new("k1");
    let part = |nonce: &str, header: &Value| verifier.token(header, &claims(nonce));
    let unsigned = |nonce: &str, alg: &str| {
        format!("{}.{}.", text(json!({"alg": alg}).to_string().as_bytes()), text(claims(nonce).to_string().as_bytes()))
    };
    let forged: Vec<(&str, MakeToken<'_>)> = vec![
        ("another key", Box::new(|nonce| other.token(&other.header(), &claims(nonce)))),
        ("no signature", Box::new(|nonce| unsigned(nonce, "none"))),
        ("an empty signature", Box::new(|nonce| unsigned(nonce, "ES256"))),
        (
            "HMAC by the public key",
            Box::new(|nonce| {
                let message = format!(
                    "{}.{}",
                    text(br#"{"alg":"HS256","kid":"k1"}"#),
                    text(claims(nonce).to_string().as_bytes())
                );
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, verifier.key.public_key().as_ref());
                format!("{message}.{}", text(ring::hmac::sign(&key, message.as_bytes()).as_ref()))
            }),
        ),
        ("another algorithm", Box::new(|nonce| part(nonce, &json!({"alg": "EdDSA", "kid": "k1"})))),
        ("an unknown key", Box::new(|nonce| part(nonce, &json!({"alg": "ES256", "kid": "k2"})))),
        (
            "its own key",
            Box::new(|nonce| other.token(&json!({"alg": "ES256", "kid": "k1", "jwk": other.jwk()}), &claims(nonce))),
        ),
        (
            "a changed claim",
            Box::new(|nonce| {
                let token = part(nonce, &verifier.header());
                let mut parts: Vec<&str> = token.split('.').collect();
                let changed = text(set(&claims(nonce), "/submods/os/build", json!("debug")).to_string().as_bytes());
                parts[1] = &changed;
                parts.join(".")
            }),
        ),
        ("no JWT", Box::new(|_| "a.b".into())),
        ("nothing", Box::new(|_| String::new())),
        ("too long", Box::new(|_| "a".repeat(40_000))),
    ];
    for (what, make) in &forged {
        let (status, rule, body) = grant_lab(&device, &gate, |nonce| make(nonce));
        assert_eq!((status, rule.as_str()), (403, "G-ATT-02"), "{what}: {body}");
    }
}

/// The gate requests the keys again for an unknown key id, but not often.
#[test]
fn caches_keys_from_a_url() {
    let site = TestSite::new();
    let [first, second] = ["k1", "k2"].map(TestVerifier::new);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let requests = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (count, keys) = (requests.clone(), json!({"keys": [first.jwk()]}).to_string());
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let _ = socket.read(&mut [0; 4096]);
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let _ =
                write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{keys}", keys.len());
        }
    });
    site.write_config("required", &COHORTS.replace("acme.json", &url));
    let gate = site.start();
    let device = Device::certified(&site, "device-1");
    for _ in 0..3 {
        assert_eq!(grant_lab(&device, &gate, |nonce| first.token(&first.header(), &claims(nonce))).0, 200);
        // An unknown key id causes at most one request in ten seconds.
        assert_eq!(grant_lab(&device, &gate, |nonce| second.token(&second.header(), &claims(nonce))).0, 403);
    }
    assert!(requests.load(std::sync::atomic::Ordering::SeqCst) <= 2, "{requests:?}");
}

/// RFC 8037: an octet key pair, and the algorithm `EdDSA`.
#[test]
fn accepts_ed25519_signatures() {
    let site = TestSite::new();
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let point = key.public_key().as_ref();
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "k1", "x": text(point)});
    site.write("acme.json", &json!({"keys": [jwk, TestVerifier::new("k2").jwk()]}).to_string());
    let token = |header: Value, nonce: &str| {
        let message = format!("{}.{}", text(header.to_string().as_bytes()), text(claims(nonce).to_string().as_bytes()));
        format!("{message}.{}", text(key.sign(message.as_bytes()).as_ref()))
    };
    let by_edwards = |nonce: &str| token(json!({"alg": "EdDSA", "kid": "k1"}), nonce);
    site.write_config("required", &COHORTS.replace("\"ES256\"", "\"EdDSA\""));
    let gate = site.start();
    let device = Device::certified(&site, "device-1");
    let (status, _, body) = grant_lab(&device, &gate, by_edwards);
    assert_eq!((status, &body["cohorts"]), (200, &json!(["stable.lab"])), "{body}");
    let flipped = |nonce: &str| {
        let token = by_edwards(nonce);
        let at = token.rfind('.').unwrap() + 1;
        let other = if token[at..].starts_with('A') { "B" } else { "A" };
        format!("{}{other}{}", &token[..at], &token[at + 1..])
    };
    for make in [
        &flipped as &dyn Fn(&str) -> String,
        // A key of another type, and algorithms that the settings do not list.
        &|nonce| token(json!({"alg": "EdDSA", "kid": "k2"}), nonce),
        &|nonce| token(json!({"alg": "ES256", "kid": "k1"}), nonce),
        &|nonce| token(json!({"alg": "Ed25519", "kid": "k1"}), nonce),
    ] {
        let (status, rule, body) = grant_lab(&device, &gate, make);
        assert_eq!((status, rule.as_str()), (403, "G-ATT-02"), "{body}");
    }
    // The settings list only the other algorithm.
    site.write_config("required", COHORTS);
    let gate = site.start();
    assert_eq!(grant_lab(&Device::certified(&site, "device-1"), &gate, by_edwards).0, 403);
}

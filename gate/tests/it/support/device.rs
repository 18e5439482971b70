//! Devices with a certificate or with an enrolled key.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ed25519_dalek::pkcs8::EncodePublicKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer as _, SigningKey};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tidegate_tuf::key::Key;

use super::wire::{Response, send};
use super::{RunningGate, TestSite, client};

pub struct Device {
    pub id: String,
    pub tls: Option<Arc<ClientConfig>>,
    pub key: SigningKey,
    pub has_key: bool,
}

impl Device {
    /// A device with a certificate of the site's authority.
    pub fn certified(site: &TestSite, id: &str) -> Self {
        Self::with(site, id, &client("x", &[&format!("tidegate:device:{id}")]), &site.ca)
    }

    /// A device with any certificate of any authority.
    pub fn with(site: &TestSite, id: &str, params: &CertificateParams, ca: &CertifiedIssuer<'static, KeyPair>) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, ca).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        Self::new(id, Some(tls(site, Some((certificate.der().clone(), key)))), false)
    }

    /// A device with an enrolled key and without a certificate.
    pub fn enrolled(site: &TestSite, id: &str) -> Self {
        let device = Self::new(id, Some(tls(site, None)), true);
        let pem = device.key.verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
        site.write(&format!("{id}.pub"), &pem);
        let enrolled = site.run(&["enrol", id, "--key", site.path(&format!("{id}.pub")).to_str().unwrap()]);
        assert!(enrolled.status.success(), "{enrolled:?}");
        device
    }

    /// A device with neither.
    pub fn unidentified(site: &TestSite) -> Self {
        Self::new("stranger", Some(tls(site, None)), false)
    }

    /// A device with a key that nobody has enrolled.
    pub fn key_only(id: &str) -> Self {
        Self::new(id, None, true)
    }

    fn new(id: &str, tls: Option<Arc<ClientConfig>>, has_key: bool) -> Self {
        let key = SigningKey::from_bytes(&Sha256::digest(id).into());
        Self { id: id.into(), tls, key, has_key }
    }

    pub fn public(&self) -> Key {
        Key::ed25519(self.key.verifying_key().as_bytes())
    }

    /// A proof header for any request, time and random text, to the test's gate.
    pub fn proof(&self, method: &str, path: &str, body: &[u8], token: &str, seconds: u64, random: &str) -> String {
        self.proof_for("localhost", [method, path, token, random], body, seconds)
    }

    /// A proof header for a gate.
    pub fn proof_for(&self, gate: &str, [method, path, token, random]: [&str; 4], body: &[u8], seconds: u64) -> String {
        let hex = |bytes: &[u8]| HEXLOWER.encode(&Sha256::digest(bytes));
        let message = format!(
            "tidegate/gate/2\n{gate}\n{method}\n{path}\n{}\n{}\n{seconds}\n{random}\n",
            hex(body),
            hex(token.as_bytes())
        );
        let signature = BASE64URL_NOPAD.encode(&self.key.sign(message.as_bytes()).to_bytes());
        format!("{}.{seconds}.{random}.{signature}", self.public().id())
    }

    /// The bytes of a request, with the device's token and proof.
    pub fn request(&self, method: &str, path: &str, body: &[u8], token: Option<&str>, more: &str) -> Vec<u8> {
        use std::fmt::Write as _;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}");
        if let Some(token) = token {
            let _ = write!(head, "Authorization: Bearer {token}\r\n");
        }
        if self.has_key {
            let proof = self.proof(method, path, body, token.unwrap_or_default(), now(), &random());
            let _ = write!(head, "Tidegate-Proof: {proof}\r\n");
        }
        if method == "POST" {
            let _ = write!(head, "Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        }
        [head.as_bytes(), b"\r\n", body].concat()
    }

    pub fn send(
        &self,
        at: SocketAddr,
        method: &str,
        path: &str,
        body: &[u8],
        token: Option<&str>,
        more: &str,
    ) -> Response {
        let bytes = self.request(method, path, body, token, more);
        send(at, self.tls.as_ref(), &bytes).unwrap_or_else(|| panic!("{method} {path}: no response"))
    }

    pub fn post(&self, gate: &RunningGate, path: &str, body: &Value) -> Response {
        self.send(gate.address, "POST", path, body.to_string().as_bytes(), None, "")
    }

    pub fn get(&self, gate: &RunningGate, object: &str, token: &str) -> Response {
        self.send(gate.address, "GET", &format!("/v1/repo/{object}"), b"", Some(token), "")
    }

    pub fn nonce(&self, gate: &RunningGate) -> String {
        let answer = self.post(gate, "/v1/challenge", &json!({"device": self.id}));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["nonce"].as_str().unwrap().to_owned()
    }

    pub fn grant(&self, gate: &RunningGate, cohorts: &[&str], evidence: impl FnOnce(&str) -> Value) -> Response {
        let nonce = self.nonce(gate);
        let evidence = evidence(&nonce);
        self.post(
            gate,
            "/v1/grant",
            &json!({"device": self.id, "nonce": nonce, "cohorts": cohorts, "evidence": evidence}),
        )
    }

    /// A token for the canary cohort, which requires no evidence.
    pub fn token(&self, gate: &RunningGate) -> String {
        let answer = self.grant(gate, &["stable.canary"], |_| json!({"kind": "none"}));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    /// A receipt, signed with the device's key.
    pub fn receipt(&self, number: u64) -> Value {
        self.sign(&json!({"schema": 1, "type": "receipt", "device": self.id, "channel": "stable", "cohort": "canary", "product": "os",
            "release": "1.2.0", "sequence": 12, "manifest": "ab".repeat(32), "hardware": "board-a", "outcome": "installed",
            "reason": format!("try {number}"), "at": "2026-01-05T12:00:00Z", "from": "1.1.0"}))
    }

    pub fn sign(&self, signed: &Value) -> Value {
        let bytes = tidegate_tuf::json::canonical(signed).unwrap();
        let sig = HEXLOWER.encode(&self.key.sign(&bytes).to_bytes());
        json!({"signed": signed, "signature": {"keyid": self.public().id(), "sig": sig}})
    }
}

/// The client side of TLS, which trusts the gate's certificate.
pub fn tls(site: &TestSite, identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(site.server_ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match identity {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    })
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// A random text that is unique.
pub fn random() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    BASE64URL_NOPAD.encode(&[&count.to_be_bytes()[..], &process.to_be_bytes(), &[0; 4]].concat())
}

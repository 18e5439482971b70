//! Proof of the sender of a request to a gate: a signature with the device's key.

use std::fmt;
use std::sync::Arc;

use base64ct::{Base64UrlUnpadded, Encoding as _};

use crate::clock::Clock;
use crate::key::DeviceKey;
use tidegate_model::gate::{GateUrl, Proof};

/// The header's name.
pub const HEADER: &str = "Tidegate-Proof";

/// Signs requests to gates.
#[derive(Clone)]
pub struct Signer {
    key: DeviceKey,
    clock: Arc<dyn Clock + Send + Sync>,
}

impl Signer {
    /// Signs with this key and this clock's time. A gate accepts a proof within two minutes of its own time.
    pub fn new(key: DeviceKey, clock: impl Clock + Send + Sync + 'static) -> Self {
        Self { key, clock: Arc::new(clock) }
    }

    /// The header's value for one request to this gate and no other: `KEYID.SECONDS.RANDOM.SIGNATURE`. `path` begins with `/v1/`; body and token are empty where there is none.
    ///
    /// # Errors
    ///
    /// If the system provides no random bytes.
    pub fn proof(&self, gate: &GateUrl, method: &str, path: &str, body: &[u8], token: &str) -> Result<String, String> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|e| format!("the system gives no random bytes: {e}"))?;
        let random = Base64UrlUnpadded::encode_string(&random);
        let seconds = self.clock.now().timestamp();
        let message = Proof { gate: gate.host(), method, path, body, token, seconds, random: &random }.message();
        let signature = Base64UrlUnpadded::encode_string(&self.key.sign(&message));
        Ok(format!("{}.{seconds}.{random}.{signature}", self.key.id()))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::StubClock;
    use tidegate_model::time;

    #[test]
    fn each_request_has_its_own_proof() {
        use ed25519_dalek::pkcs8::EncodePrivateKey as _;
        let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
        let key = DeviceKey::from_pem(key.to_pkcs8_pem(p256::pkcs8::LineEnding::LF).unwrap().as_bytes()).unwrap();
        let clock = StubClock::at(time::parse("2026-01-05T12:00:00Z").unwrap());
        let signer = Signer::new(key.clone(), clock);
        let gate = "https://gate.example.com:8443/fleet".parse().unwrap();
        let proof = signer.proof(&gate, "POST", "/v1/grant", b"{}", "token").unwrap();
        let [keyid, seconds, random, signature] = proof.split('.').collect::<Vec<_>>()[..] else { panic!("{proof}") };
        assert_eq!((keyid, seconds, random.len()), (key.id().as_str(), "1767614400", 22));
        let signature = Base64UrlUnpadded::decode_vec(signature).unwrap();
        let verifies_at = |gate, method, path, body, token| {
            let message = Proof { gate, method, path, body, token, seconds: 1_767_614_400, random }.message();
            key.public().decode().unwrap().verify(&message, &signature)
        };
        let verifies = |method, path, body, token| verifies_at("gate.example.com", method, path, body, token);
        assert!(verifies("POST", "/v1/grant", b"{}", "token"));
        assert!(!verifies_at("gate.example.org", "POST", "/v1/grant", b"{}", "token"));
        assert!(!verifies("GET", "/v1/grant", b"{}", "token"));
        assert!(!verifies("POST", "/v1/receipts", b"{}", "token"));
        assert!(!verifies("POST", "/v1/grant", b"{ }", "token"));
        assert!(!verifies("POST", "/v1/grant", b"{}", ""));
        assert_ne!(signer.proof(&gate, "POST", "/v1/grant", b"{}", "token").unwrap(), proof);
    }
}

//! Public keys and the signatures they verify (TUF 4.2.2 "Key objects").

use core::fmt;

use ed25519_dalek as ed25519;
use p256::ecdsa;
use p256::ecdsa::signature::Verifier as _;
use p256::pkcs8::der::pem;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::hash::{from_hex, to_hex};
use super::json;
use crate::prelude::*;

/// Names a key within one delegating role's metadata.
///
/// Ours are the lower-case hex SHA-256 of the key object's canonical form (TUF 4.2.2). When verifying, the id that the
/// delegating role declares is authoritative, whatever it looks like (TAP 12).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl KeyId {
    /// Takes an id as metadata declares it.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as written in metadata.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight characters, for people.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A public key object as metadata declares it.
///
/// Parsing keeps the object as it is and needs only its outer shape to be right: a key type or scheme that this crate
/// does not know, or key material it cannot decode, is a key that never verifies anything, not an error, so that a
/// repository may introduce new kinds of keys beside old ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    keytype: String,
    scheme: String,
    public: Option<String>,
    raw: Value,
}

impl Key {
    /// Reads a key object: `keytype`, `scheme` and `keyval` must be there with their types right.
    ///
    /// # Errors
    ///
    /// If one of them is missing or has another type.
    pub fn from_value(raw: &Value) -> Result<Self, String> {
        let text = |name: &str| {
            raw.get(name)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or_else(|| format!("key object: {name:?} must be a string"))
        };
        let keyval = raw.get("keyval").and_then(Value::as_object).ok_or("key object: \"keyval\" must be an object")?;
        Ok(Self {
            keytype: text("keytype")?,
            scheme: text("scheme")?,
            public: keyval.get("public").and_then(Value::as_str).map(str::to_owned),
            raw: raw.clone(),
        })
    }

    /// The key object for an Ed25519 public key (32 bytes).
    pub fn ed25519(public: &[u8; 32]) -> Self {
        Self::known("ed25519", "ed25519", to_hex(public))
    }

    /// The key object for a P-256 public key, given as PEM `SubjectPublicKeyInfo`.
    pub fn ecdsa_p256(pem: impl Into<String>) -> Self {
        Self::known("ecdsa", "ecdsa-sha2-nistp256", pem.into())
    }

    /// The key object for an RSA public key that verifies RSASSA-PSS with SHA-256, given as PEM `SubjectPublicKeyInfo`.
    pub fn rsa_pss(pem: impl Into<String>) -> Self {
        Self::known("rsa", "rsassa-pss-sha256", pem.into())
    }

    fn known(keytype: &str, scheme: &str, public: String) -> Self {
        let raw = json!({"keytype": keytype, "scheme": scheme, "keyval": {"public": public}});
        Self { keytype: keytype.into(), scheme: scheme.into(), public: Some(public), raw }
    }

    /// The key type, e.g. `ed25519`.
    pub fn keytype(&self) -> &str {
        &self.keytype
    }

    /// The signature scheme, e.g. `rsassa-pss-sha256`.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The key object exactly as declared, unknown fields included.
    pub fn to_value(&self) -> Value {
        self.raw.clone()
    }

    /// The id that the specification computes for this key: SHA-256 of its canonical form (TUF 4.2.2).
    pub fn id(&self) -> KeyId {
        // A parsed value contains no fraction, which is all that canonical JSON cannot express.
        let bytes = json::canonical(&self.raw).unwrap_or_default();
        KeyId(to_hex(&Sha256::digest(bytes)))
    }

    /// Decodes the key material; `None` if this crate does not know the scheme or the material is not valid for it.
    pub fn decode(&self) -> Option<PublicKey> {
        let public = self.public.as_deref()?;
        match (self.keytype.as_str(), self.scheme.as_str()) {
            ("ed25519", "ed25519") => {
                let bytes: [u8; 32] = from_hex(public)?.try_into().ok()?;
                Some(PublicKey(Kind::Ed25519(ed25519::VerifyingKey::from_bytes(&bytes).ok()?)))
            }
            // Older repositories write the scheme's name as the key type.
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => {
                Some(PublicKey(Kind::EcdsaP256(ecdsa_p256(public)?)))
            }
            #[cfg(feature = "rsa")]
            ("rsa", "rsassa-pss-sha256") => rsa_pss::Key::decode(public).map(|key| PublicKey(Kind::RsaPss(key))),
            _ => None,
        }
    }
}

/// Decoded key material, ready to verify.
#[derive(Debug, Clone)]
pub struct PublicKey(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Ed25519(ed25519::VerifyingKey),
    EcdsaP256(ecdsa::VerifyingKey),
    #[cfg(feature = "rsa")]
    RsaPss(rsa_pss::Key),
}

impl PublicKey {
    /// Whether `signature` (raw bytes as the scheme defines them) is this key's over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            // Strict: no small-order keys or points, so a signature is valid for one message only.
            Kind::Ed25519(key) => {
                ed25519::Signature::from_slice(signature).is_ok_and(|sig| key.verify_strict(message, &sig).is_ok())
            }
            Kind::EcdsaP256(key) => {
                ecdsa::Signature::from_der(signature).is_ok_and(|sig| key.verify(message, &sig).is_ok())
            }
            #[cfg(feature = "rsa")]
            Kind::RsaPss(key) => key.verify(message, signature),
        }
    }

    /// Identifies the key material itself, whatever id or spelling it was declared under, so that one key listed twice
    /// counts once towards a threshold (TUF 5.3.4: "each KEY MUST only contribute one SIGNATURE").
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        match &self.0 {
            Kind::Ed25519(key) => {
                hash.update(b"ed25519:");
                hash.update(key.as_bytes());
            }
            Kind::EcdsaP256(key) => {
                hash.update(b"p256:");
                hash.update(key.to_sec1_point(true).as_bytes());
            }
            #[cfg(feature = "rsa")]
            Kind::RsaPss(key) => key.identify(&mut hash),
        }
        hash.finalize().into()
    }
}

/// Reads a `SubjectPublicKeyInfo` in PEM that contains a P-256 key (RFC 5480), or the bare point in hex, as old
/// versions of go-tuf wrote it.
fn ecdsa_p256(pem: &str) -> Option<ecdsa::VerifyingKey> {
    // id-ecPublicKey with prime256v1. DER has one encoding for each value, so that what comes before the point is known to the byte: for
    // one that is written out, and for one that is compressed.
    const HEADS: [&[u8]; 2] = [
        b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00",
        b"\x30\x39\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x22\x00",
    ];
    if let Some(point) = from_hex(pem) {
        return ecdsa::VerifyingKey::from_sec1_bytes(&point).ok();
    }
    let (label, der) = pem::decode_vec(pem.as_bytes()).ok()?;
    if label != "PUBLIC KEY" {
        return None;
    }
    let [long, short] = HEADS;
    let point = match der.strip_prefix(long) {
        Some(point) if point.len() == 65 => point,
        Some(_) => return None,
        None => der.strip_prefix(short).filter(|point| point.len() == 33)?,
    };
    ecdsa::VerifyingKey::from_sec1_bytes(point).ok()
}

/// RSA keys, for repositories that others made: ours have none.
#[cfg(feature = "rsa")]
mod rsa_pss {
    use rsa::pkcs8::DecodePublicKey as _;
    use rsa::pss;
    use rsa::signature::Verifier as _;
    use rsa::traits::PublicKeyParts as _;
    use sha2::{Digest as _, Sha256};

    use crate::prelude::*;

    #[derive(Debug, Clone)]
    pub(super) struct Key(Box<rsa::PublicKey>);

    impl Key {
        pub(super) fn decode(pem: &str) -> Option<Self> {
            let key = rsa::PublicKey::from_public_key_pem(pem).ok()?;
            // "All RSA keys MUST be at least 2048 bits" (TUF 4.2.2).
            (key.size() * 8 >= 2048).then(|| Self(Box::new(key)))
        }

        pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
            pss::Signature::try_from(signature).is_ok_and(|signature| {
                // The salt's length is the signer's choice (RFC 8017 section 9.1), so it is found, not assumed.
                let key = pss::VerifyingKey::<Sha256>::new_with_auto_salt_len((*self.0).clone());
                key.verify(message, &signature).is_ok()
            })
        }

        pub(super) fn identify(&self, hash: &mut Sha256) {
            hash.update(b"rsa:");
            hash.update(self.0.n_bytes());
            hash.update(b":");
            hash.update(self.0.e_bytes());
        }
    }
}

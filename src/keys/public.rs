//! Public keys as one line of text, for `tidegate.toml`.

use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::pkcs8::{DecodePublicKey as _, EncodePublicKey as _, LineEnding};
use tidegate_tuf::hash::{from_hex, to_hex};
use tidegate_tuf::key::Key;

use crate::error::{Error, Result};

/// Writes a public key as `ed25519:HEX` (32 bytes) or `p256:HEX` (compressed SEC 1 point, 33 bytes).
///
/// # Errors
///
/// Fails if the key is of another kind, or if its bytes cannot be decoded.
pub fn write_public(key: &Key) -> Result<String> {
    let value = key.to_value();
    let public = value.pointer("/keyval/public").and_then(serde_json::Value::as_str).unwrap_or_default();
    match key.scheme() {
        "ed25519" => Ok(format!("ed25519:{public}")),
        "ecdsa-sha2-nistp256" => {
            let key = p256::PublicKey::from_public_key_pem(public)
                .map_err(|e| Error::input("a P-256 public key cannot be decoded").with_source(e))?;
            Ok(format!("p256:{}", to_hex(key.to_sec1_point(true).as_bytes())))
        }
        scheme => Err(Error::input(format!("no role of a workspace can have a key of the scheme {scheme}"))
            .remedy("use an Ed25519 or P-256 key; RSA keys sign only what roots of other tools require of them")),
    }
}

/// Reads what [`write_public`] writes.
///
/// # Errors
///
/// Fails if the text is not a valid public key of a known kind.
pub fn parse_public(text: &str) -> Result<Key> {
    let bad = |why: &str| {
        Error::input(format!("{text:?} is not a public key: {why}"))
            .remedy("write it as \"ed25519:\" and 64 hex digits, or \"p256:\" and 66; `tidegate init` fills it in")
    };
    match text.split_once(':') {
        Some(("ed25519", hex)) => {
            let bytes: [u8; 32] =
                from_hex(hex).and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| bad("not 64 hex digits"))?;
            let key = Key::ed25519(&bytes);
            key.decode().map(|_| key).ok_or_else(|| bad("not a point of the curve"))
        }
        Some(("p256", hex)) => {
            let bytes = from_hex(hex).ok_or_else(|| bad("not hex digits"))?;
            let key = p256::PublicKey::from_sec1_bytes(&bytes).map_err(|_| bad("not a point of the curve"))?;
            p256_key(&key)
        }
        _ => Err(bad("its kind is unknown")),
    }
}

/// The key object of a P-256 public key.
pub(super) fn p256_key(key: &p256::PublicKey) -> Result<Key> {
    key.to_public_key_pem(LineEnding::LF)
        .map(Key::ecdsa_p256)
        .map_err(|e| Error::bug("a P-256 public key cannot be encoded").with_source(e))
}

/// The key object of an RSA public key in DER `SubjectPublicKeyInfo`; `None` if it is something else.
#[cfg(feature = "kms")]
pub(super) fn rsa_key(der: &[u8]) -> Option<Key> {
    let pem = pkcs8::der::pem::encode_string("PUBLIC KEY", LineEnding::LF, der).ok()?;
    Some(Key::rsa_pss(pem)).filter(|key| key.decode().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_survive() {
        let key = Key::ed25519(ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key().as_bytes());
        assert_eq!(parse_public(&write_public(&key).unwrap()).unwrap(), key);
        let key = p256_key(&p256::SecretKey::from_slice(&[7; 32]).unwrap().public_key()).unwrap();
        assert_eq!(parse_public(&write_public(&key).unwrap()).unwrap(), key);
    }

    #[test]
    fn other_text_is_refused() {
        for text in
            ["", "ed25519:", "ed25519:zz", "p256:00", "rsa:00", "ed25519", &format!("ed25519:{}", "\u{e9}".repeat(32))]
        {
            assert!(parse_public(text).is_err(), "{text}");
        }
    }
}

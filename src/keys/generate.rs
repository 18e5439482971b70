//! Generates keys.

use std::str::FromStr;

use p256::pkcs8::{EncodePrivateKey as _, LineEnding};
use pkcs8::{PrivateKeyInfoRef, SecretDocument};
use tidegate_tuf::key::Key;
use zeroize::Zeroizing;

use super::file::FileKey;
use super::public;
use crate::error::{Error, Result};

/// The kinds of keys that can be generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// Ed25519, the default.
    #[default]
    Ed25519,
    /// ECDSA on P-256, for hardware without Ed25519.
    P256,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ed25519" => Ok(Self::Ed25519),
            "p256" => Ok(Self::P256),
            _ => Err(format!("{text:?} is not a kind of key; use ed25519 or p256")),
        }
    }
}

/// A generated key: the private part as PKCS#8 PEM, wiped when dropped, and the public part.
pub struct Generated {
    /// What to write to the key's file.
    pub pem: Zeroizing<String>,
    /// What metadata declares.
    pub public: Key,
}

impl std::fmt::Debug for Generated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generated").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Generates a key from the system's randomness; with a passphrase it is encrypted (PBES2: scrypt, AES-256-CBC), in the format
/// that `openssl pkey` reads.
///
/// # Errors
///
/// Fails if the system provides no randomness.
pub fn generate(kind: Kind, passphrase: Option<&str>) -> Result<Generated> {
    let mut seed = Zeroizing::new([0; 32]);
    loop {
        getrandom::fill(&mut *seed)
            .map_err(|e| Error::new(crate::Kind::Io, format!("the system provides no random numbers: {e}")))?;
        match kind {
            Kind::Ed25519 => return from_ed25519(&seed, passphrase),
            // Fails once in 2^32 times: not every 32 bytes are a scalar of the curve.
            Kind::P256 => {
                if let Ok(secret) = p256::SecretKey::from_slice(&*seed) {
                    return from_p256(&secret, passphrase);
                }
            }
        }
    }
}

pub(super) fn from_ed25519(seed: &[u8; 32], passphrase: Option<&str>) -> Result<Generated> {
    // RFC 8410: the private key alone, an OCTET STRING within an OCTET STRING; older OpenSSL reads no public part beside it.
    let mut inner = Zeroizing::new(vec![0x04, 0x20]);
    inner.extend_from_slice(seed);
    let algorithm =
        pkcs8::AlgorithmIdentifierRef { oid: pkcs8::ObjectIdentifier::new_unwrap("1.3.101.112"), parameters: None };
    let octets = pkcs8::der::asn1::OctetStringRef::new(&inner).map_err(|e| unencodable(e.into()))?;
    let document = SecretDocument::try_from(PrivateKeyInfoRef::new(algorithm, octets)).map_err(unencodable)?;
    let secret = ed25519_dalek::SigningKey::from_bytes(seed);
    Ok(Generated {
        pem: to_pem(&document, passphrase)?,
        public: super::Signer::public(&FileKey::from_ed25519(secret)).clone(),
    })
}

fn from_p256(secret: &p256::SecretKey, passphrase: Option<&str>) -> Result<Generated> {
    let document = secret.to_pkcs8_der().map_err(unencodable)?;
    Ok(Generated { pem: to_pem(&document, passphrase)?, public: public::p256_key(&secret.public_key())? })
}

fn to_pem(document: &SecretDocument, passphrase: Option<&str>) -> Result<Zeroizing<String>> {
    match passphrase {
        None => document.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|e| unencodable(e.into())),
        Some(passphrase) => PrivateKeyInfoRef::try_from(document.as_bytes())
            .map_err(unencodable)?
            .encrypt(passphrase.as_bytes())
            .map_err(unencodable)?
            .to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF)
            .map_err(|e| unencodable(e.into())),
    }
}

fn unencodable(source: pkcs8::Error) -> Error {
    Error::bug("a new key cannot be encoded").with_source(source)
}

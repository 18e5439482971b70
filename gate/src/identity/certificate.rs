//! From a verified client certificate to the device that it names.
//!
//! rustls has verified the certificate by then: its chain to the device CA, its dates, that it is for clients, that it is not revoked.

use tidegate_model::name::DeviceId;
use tidegate_tuf::key::Key;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::encoding::sha256;

/// What stands before the device's id in a subject alternative name.
const SCHEME: &str = "tidegate:device:";

/// What a certificate says.
#[derive(Debug, Clone)]
pub struct Certified {
    /// The device.
    pub device: DeviceId,
    /// The SHA-256 of its `SubjectPublicKeyInfo`.
    pub spki: [u8; 32],
    /// Its key, if it is of a kind that signs receipts.
    pub key: Option<Key>,
}

impl Certified {
    /// Reads a certificate, in DER. Errs with what is wrong with it.
    pub fn read(der: &[u8]) -> Result<Self, &'static str> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| "it cannot be read")?;
        if !rest.is_empty() {
            return Err("something follows it");
        }
        let names = certificate.subject_alternative_name().map_err(|_| "its alternative names cannot be read")?;
        let uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(SCHEME),
            _ => None,
        });
        let uris: Vec<&str> = uris.collect();
        let id = match uris.as_slice() {
            [id] => id,
            [] => {
                let mut names = certificate.subject().iter_common_name();
                match (names.next(), names.next()) {
                    (Some(name), None) => name.as_str().map_err(|_| "its common name is no text")?,
                    _ => {
                        return Err("it has neither a subject alternative name tidegate:device:ID nor one common name");
                    }
                }
            }
            _ => return Err("it names several devices"),
        };
        let device = id.parse().map_err(|_| "what it names is no device id: 1 to 128 printable ASCII characters")?;
        let spki = certificate.public_key();
        Ok(Self { device, spki: sha256(&[spki.raw]), key: key_of(spki) })
    }
}

/// The TUF key object of a public key, if there is one for its kind.
pub fn key_of(spki: &SubjectPublicKeyInfo<'_>) -> Option<Key> {
    let bytes: &[u8] = spki.subject_public_key.data.as_ref();
    let key = match spki.algorithm.algorithm.to_id_string().as_str() {
        // RFC 8410 section 3.
        "1.3.101.112" => Key::ed25519(bytes.try_into().ok()?),
        // id-ecPublicKey; whether the curve is P-256 is seen when the key is decoded.
        "1.2.840.10045.2.1" => Key::ecdsa_p256(to_pem(spki.raw)),
        _ => return None,
    };
    key.decode().map(|_| key)
}

/// PEM as the publisher writes it: lines of 64, and one at the end.
fn to_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n");
    format!("-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n")
}

//! The device that a client certificate names.
//!
//! rustls has already verified the certificate: its chain to the device CA, its validity period, its purpose, its revocation.

use data_encoding::BASE64;
use tidegate_model::name::DeviceId;
use tidegate_tuf::key::Key;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::encoding::sha256;

/// The prefix of a device id in a subject alternative name.
const URI_PREFIX: &str = "tidegate:device:";

/// The device and the key of a client certificate.
#[derive(Debug, Clone)]
pub struct DeviceCertificate {
    /// The device id.
    pub device: DeviceId,
    /// The SHA-256 of the `SubjectPublicKeyInfo`.
    pub spki_hash: [u8; 32],
    /// The key, if it can sign receipts.
    pub key: Option<Key>,
}

/// Why a certificate does not name a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is not DER.
    #[error("it cannot be parsed")]
    Malformed,
    /// There are bytes after it.
    #[error("it has trailing bytes")]
    TrailingBytes,
    /// The subject alternative names are malformed or appear twice.
    #[error("its subject alternative names cannot be parsed")]
    AlternativeNames,
    /// The common name is not text.
    #[error("its common name is not text")]
    CommonName,
    /// There is neither an alternative name nor a single common name.
    #[error("it has neither a subject alternative name tidegate:device:ID nor exactly one common name")]
    NoDevice,
    /// There are several alternative names.
    #[error("it names several devices")]
    SeveralDevices,
    /// The name is not a device id.
    #[error("the name is not a device id (1 to 128 printable ASCII characters)")]
    DeviceId,
}

impl DeviceCertificate {
    /// Parses a certificate in DER.
    ///
    /// # Errors
    ///
    /// Fails if the certificate is malformed or does not name exactly one device.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
        if !rest.is_empty() {
            return Err(CertificateError::TrailingBytes);
        }
        let names = certificate.subject_alternative_name().map_err(|_| CertificateError::AlternativeNames)?;
        let uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(URI_PREFIX),
            _ => None,
        });
        let uris: Vec<&str> = uris.collect();
        let id = match uris.as_slice() {
            [id] => id,
            [] => {
                let mut names = certificate.subject().iter_common_name();
                match (names.next(), names.next()) {
                    (Some(name), None) => name.as_str().map_err(|_| CertificateError::CommonName)?,
                    _ => return Err(CertificateError::NoDevice),
                }
            }
            _ => return Err(CertificateError::SeveralDevices),
        };
        let device = id.parse().map_err(|_| CertificateError::DeviceId)?;
        let spki = certificate.public_key();
        Ok(Self { device, spki_hash: sha256(&[spki.raw]), key: tuf_key(spki) })
    }
}

/// The TUF key object of a public key, if its type is supported.
pub fn tuf_key(spki: &SubjectPublicKeyInfo<'_>) -> Option<Key> {
    let bytes: &[u8] = spki.subject_public_key.data.as_ref();
    let key = match spki.algorithm.algorithm.to_id_string().as_str() {
        // RFC 8410 section 3.
        "1.3.101.112" => Key::ed25519(bytes.try_into().ok()?),
        // id-ecPublicKey. Decoding fails for other curves than P-256.
        "1.2.840.10045.2.1" => Key::ecdsa_p256(to_pem(spki.raw)),
        _ => return None,
    };
    key.decode().map(|_| key)
}

/// PEM exactly as the publisher writes it, because the key id is its hash: lines of 64 characters, and a final line feed.
fn to_pem(der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n");
    format!("-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n")
}

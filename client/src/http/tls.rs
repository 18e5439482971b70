//! Whom to trust, and who to be, in TLS.

use std::fmt;
use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// The certificate authorities that may vouch for servers.
///
/// What is fetched is verified by its own signatures whatever the transport. TLS keeps others from seeing what a device asks for.
#[derive(Clone, Default)]
pub struct Authorities(Option<Vec<Certificate<'static>>>);

/// The certificate and key by which a device shows who it is (mutual TLS).
#[derive(Clone)]
pub struct Identity(ClientCert);

/// Certificates or a key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

/// Where systems keep the authorities that they trust, as one file.
const SYSTEM: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/certs/ca-certificates.crt",
];

impl Authorities {
    /// Those that browsers trust, as they were when this program was built. The default.
    pub fn built_in() -> Self {
        Self::default()
    }

    /// The certificates in this PEM text, and no other.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        let certificates = certificates(pem)?;
        if certificates.is_empty() {
            return Err(TlsError("there is no certificate in it: it must be PEM".into()));
        }
        Ok(Self(Some(certificates)))
    }

    /// The file in which the system keeps those that it trusts: the one that `SSL_CERT_FILE` names, or one of the usual.
    pub fn system_file() -> Option<PathBuf> {
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        named.into_iter().chain(SYSTEM.map(PathBuf::from)).find(|path: &PathBuf| Path::is_file(path))
    }
}

impl Identity {
    /// The certificate chain, the device's own first, and the private key, both as PEM; they may be one text.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates(chain)?;
        if chain.is_empty() {
            return Err(TlsError("there is no certificate in it: it must be PEM".into()));
        }
        // What the parser says may hold parts of what it read.
        let bad = || TlsError("there is no private key in it: it must be PEM".into());
        let key = PrivateKey::from_pem(key).map_err(|_| bad())?;
        Ok(Self(ClientCert::new_with_certs(&chain, key)))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, TlsError> {
    parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None,
            Err(_) => Some(Err(TlsError("it is not well-formed PEM".into()))),
        })
        .collect()
}

/// What ureq is told.
pub(super) fn config(authorities: &Authorities, identity: Option<&Identity>) -> TlsConfig {
    let roots = match &authorities.0 {
        Some(certificates) => RootCerts::new_with_certs(certificates),
        None => RootCerts::WebPki,
    };
    TlsConfig::builder().root_certs(roots).client_cert(identity.map(|identity| identity.0.clone())).build()
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("Authorities(built-in)"),
            Some(certificates) => write!(f, "Authorities({})", certificates.len()),
        }
    }
}

/// Without the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates)", self.0.certs().len())
    }
}

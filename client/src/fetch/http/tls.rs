//! Trusted authorities and client certificates in TLS.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, TlsConfigBuilder, parse_pem};

use super::crypto;

/// The certificate authorities trusted for servers.
///
/// Files are verified by their signatures regardless of the transport. TLS hides the device's requests from others.
#[derive(Clone, Default)]
pub struct Authorities(Kind);

#[derive(Clone, Default)]
enum Kind {
    #[default]
    System,
    Given(RootCerts),
}

/// The client certificate and key of a device (mutual TLS).
#[derive(Clone)]
pub struct Identity(ClientCert);

/// Certificates or a key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

/// The maximum length of a file of authorities, in bytes.
const LONGEST: u64 = 8 * 1024 * 1024;

/// The files in which systems store their trusted authorities.
const SYSTEM: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/certs/ca-certificates.crt",
];

impl Authorities {
    /// The authorities that the system trusts. The default.
    ///
    /// They are read before the first TLS connection, from the file in `SSL_CERT_FILE` or, if it is
    /// unset, from the first existing file in which systems store them.
    pub fn system() -> Self {
        Self(Kind::System)
    }

    /// The authorities that browsers trusted when this program was built, for systems without their own.
    #[cfg(feature = "built-in-authorities")]
    pub fn built_in() -> Self {
        Self(Kind::Given(RootCerts::WebPki))
    }

    /// Only the certificates in this PEM text.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if the text is not PEM or contains no certificate.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        let certificates = certificates(pem)?;
        if certificates.is_empty() {
            return Err(TlsError("there is no certificate in it: it must be PEM".into()));
        }
        Ok(Self(Kind::Given(RootCerts::new_with_certs(&certificates))))
    }

    fn roots(&self) -> Result<RootCerts, TlsError> {
        match &self.0 {
            Kind::System => Ok(RootCerts::new_with_certs(&of_the_system()?)),
            Kind::Given(roots) => Ok(roots.clone()),
        }
    }
}

/// The certificates that the system trusts.
fn of_the_system() -> Result<Vec<Certificate<'static>>, TlsError> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let path = match named {
        Some(path) => path,
        None => SYSTEM.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or_else(|| {
            TlsError(format!(
                "no certificate authorities found in {}: install them, or configure a file",
                SYSTEM.join(", ")
            ))
        })?,
    };
    let wrong = |e: &dyn fmt::Display| TlsError(format!("certificate authorities: {}: {e}", path.display()));
    let mut pem = Vec::new();
    File::open(&path).and_then(|file| file.take(LONGEST).read_to_end(&mut pem)).map_err(|e| wrong(&e))?;
    // A system's file may contain unsupported entries.
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() { Err(wrong(&"there is no certificate in it")) } else { Ok(certificates) }
}

impl Identity {
    /// The certificate chain, the device's own first, and the private key, both as PEM; they may be one text.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if the chain or the key is not PEM.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates(chain)?;
        if chain.is_empty() {
            return Err(TlsError("there is no certificate in it: it must be PEM".into()));
        }
        // The parser's message may contain parts of the key.
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

/// The configuration for connections without TLS: it trusts no authority.
pub(super) fn none() -> TlsConfig {
    with_roots(RootCerts::new_with_certs(&[])).build()
}

/// The TLS configuration for ureq.
pub(super) fn config(authorities: &Authorities, identity: Option<&Identity>) -> Result<TlsConfig, TlsError> {
    let identity = identity.map(|identity| identity.0.clone());
    Ok(with_roots(authorities.roots()?).client_cert(identity).build())
}

fn with_roots(roots: RootCerts) -> TlsConfigBuilder {
    TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(crypto::provider())
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::System => f.write_str("Authorities(system)"),
            Kind::Given(RootCerts::Specific(certificates)) => write!(f, "Authorities({})", certificates.len()),
            Kind::Given(_) => f.write_str("Authorities(built-in)"),
        }
    }
}

/// Without the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates)", self.0.certs().len())
    }
}

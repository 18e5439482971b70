//! TLS 1.3 by rustls: the gate's certificate, the device CA, revocation lists. Reloaded when the files change.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use x509_parser::prelude::FromDer as _;

use crate::config::{ClientCertificates, GateConfig, TlsSettings};
use crate::error::{Error, ErrorKind, Result, read_file, read_private_file};
use crate::names::GateNames;

/// The maximum length of a file, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// The loaded files.
#[derive(Debug)]
pub struct TlsFiles {
    /// The configuration of new connections.
    pub server: Arc<ServerConfig>,
    /// The expiry of the gate's certificate, in Unix seconds.
    pub expiry: i64,
    /// The names in the gate's certificate.
    pub names: GateNames,
}

/// Loads the files.
///
/// # Errors
///
/// Fails if a file cannot be read or used.
pub fn load(config: &GateConfig, tls: &TlsSettings) -> Result<TlsFiles> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificates = certificates(&config.path(&tls.certificate))?;
    let expiry = certificates.first().map(|first| expiry(first, &config.path(&tls.certificate)));
    let expiry = expiry.transpose()?.unwrap_or_default();
    let names = certificates.first().map(|first| GateNames::from_certificate(first)).unwrap_or_default();
    if names.is_empty() && config.names.is_empty() {
        return Err(Error::input(format!("{} names no host that is this gate's alone", tls.certificate.display()))
            .with_remedy(
                "set names to the hosts of the gate's URLs, or use a certificate with a name that is no wildcard",
            ));
    }
    let key = private_key(&config.path(&tls.key))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Error::new(ErrorKind::Bug, "cannot configure TLS 1.3").with_cause(error))?;
    let builder = match &tls.device_ca {
        Some(path) => {
            let path = config.path(path);
            let mut roots = RootCertStore::empty();
            for authority in self::certificates(&path)? {
                roots.add(authority).map_err(|error| unusable(&path, error))?;
            }
            let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let lists = tls.crl.iter().map(|path| revocation_lists(&config.path(path))).collect::<Result<Vec<_>>>()?;
            if !lists.is_empty() {
                // A list must cover each device's certificate and must be current. If an attacker prevents its renewal, the gate refuses
                // devices instead of admitting revoked ones.
                verifier = verifier.with_crls(lists.into_iter().flatten()).enforce_revocation_expiration();
                verifier = verifier.only_check_end_entity_revocation();
            }
            if tls.clients == ClientCertificates::Optional {
                verifier = verifier.allow_unauthenticated();
            }
            builder.with_client_cert_verifier(verifier.build().map_err(|error| unusable(&path, error))?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_single_cert(certificates, key).map_err(|error| {
        Error::input(format!("cannot use {} with {}", tls.certificate.display(), tls.key.display())).with_cause(error)
    })?;
    // A resumed session does not send its certificate again, so a certificate revoked in between would be accepted.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.max_early_data_size = 0;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    tracing::debug!(certificate = %tls.certificate.display(), expiry, crls = tls.crl.len(), "TLS files loaded");
    Ok(TlsFiles { server: Arc::new(server), expiry, names })
}

/// The modification times of the TLS files and the secret.
pub fn modification_times(config: &GateConfig) -> Vec<Option<SystemTime>> {
    let tls = config.tls.iter();
    let files = tls.flat_map(|tls| [&tls.certificate, &tls.key].into_iter().chain(&tls.device_ca).chain(&tls.crl));
    files
        .chain([&config.secret])
        .map(|path| std::fs::metadata(config.path(path)).and_then(|meta| meta.modified()).ok())
        .collect()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = read_file(path, MAX_FILE)?;
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<std::result::Result<Vec<_>, _>>();
    let found = found.map_err(|error| unusable(path, error))?;
    if found.is_empty() {
        return Err(Error::input(format!("{} contains no certificate", path.display()))
            .with_remedy("provide PEM: -----BEGIN CERTIFICATE-----"));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&read_private_file(path, MAX_FILE)?).map_err(|error| unusable(path, error))
}

/// Revocation lists in PEM, or a single one in DER.
fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>> {
    let bytes = read_file(path, MAX_FILE)?;
    if bytes.first() == Some(&0x30) {
        return Ok(vec![CertificateRevocationListDer::from(bytes)]);
    }
    let found = CertificateRevocationListDer::pem_slice_iter(&bytes).collect::<std::result::Result<Vec<_>, _>>();
    let found = found.map_err(|error| unusable(path, error))?;
    if found.is_empty() {
        return Err(Error::input(format!("{} contains no revocation list", path.display()))
            .with_remedy("provide PEM: -----BEGIN X509 CRL-----"));
    }
    Ok(found)
}

fn expiry(certificate: &CertificateDer<'_>, path: &Path) -> Result<i64> {
    let (_, parsed) =
        x509_parser::certificate::X509Certificate::from_der(certificate).map_err(|error| unusable(path, error))?;
    Ok(parsed.validity().not_after.timestamp())
}

fn unusable(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::input(format!("cannot use {}", path.display())).with_cause(error)
}

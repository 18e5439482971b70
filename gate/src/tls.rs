//! TLS 1.3 by rustls: the gate's certificate, the device CA, revocation; read again when the files change.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use x509_parser::prelude::FromDer as _;

use crate::config::{Clients, Config, Tls};
use crate::error::{Error, Result, read};

/// The longest file of certificates or revoked ones, in bytes.
const LONGEST: u64 = 16 << 20;

/// TLS as the files say, and what is worth knowing of it.
#[derive(Debug)]
pub struct Loaded {
    /// For new connections.
    pub server: Arc<ServerConfig>,
    /// When the gate's certificate ends, in seconds since 1970.
    pub ends: i64,
}

/// Reads the files. Errs with which one cannot be used, and why.
pub fn load(config: &Config, tls: &Tls) -> Result<Loaded> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificates = certificates(&config.path(&tls.certificate))?;
    let ends =
        certificates.first().map(|first| ends(first, &config.path(&tls.certificate))).transpose()?.unwrap_or_default();
    let key = private_key(&config.path(&tls.key))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Error::new(format!("TLS 1.3 cannot be had: {error}")))?;
    let builder = match &tls.device_ca {
        Some(path) => {
            let path = config.path(path);
            let mut roots = RootCertStore::empty();
            for authority in self::certificates(&path)? {
                roots.add(authority).map_err(|error| Error::file("use", &path, error))?;
            }
            let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let lists = tls.crl.iter().map(|path| revoked(&config.path(path))).collect::<Result<Vec<_>>>()?;
            if !lists.is_empty() {
                // Each device's certificate must be covered by a list, and no list be out of date: a list that somebody keeps from being
                // renewed closes the gate instead of opening it.
                verifier = verifier.with_crls(lists.into_iter().flatten()).enforce_revocation_expiration();
                verifier = verifier.only_check_end_entity_revocation();
            }
            if tls.clients == Clients::Optional {
                verifier = verifier.allow_unauthenticated();
            }
            builder.with_client_cert_verifier(verifier.build().map_err(|error| Error::file("use", &path, error))?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_single_cert(certificates, key).map_err(|error| {
        Error::new(format!("{} and {} do not fit: {error}", tls.certificate.display(), tls.key.display()))
    })?;
    // A resumed session would not show its certificate again, so that one revoked in between would pass.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.max_early_data_size = 0;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Loaded { server: Arc::new(server), ends })
}

/// When these files were last changed: another value means that they were.
pub fn stamp(config: &Config) -> Vec<Option<SystemTime>> {
    let tls = config.tls.iter();
    let files = tls.flat_map(|tls| [&tls.certificate, &tls.key].into_iter().chain(&tls.device_ca).chain(&tls.crl));
    files
        .chain([&config.secret])
        .map(|path| std::fs::metadata(config.path(path)).and_then(|meta| meta.modified()).ok())
        .collect()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = read(path, LONGEST)?;
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<std::result::Result<Vec<_>, _>>();
    let found = found.map_err(|error| Error::file("read", path, error))?;
    if found.is_empty() {
        return Err(Error::new(format!("{} holds no certificate", path.display()))
            .remedy("give PEM: -----BEGIN CERTIFICATE-----"));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(path).map_err(|error| Error::file("read", path, error))?.permissions().mode();
        if mode & 0o007 != 0 {
            return Err(Error::new(format!("everyone may read the private key {}", path.display()))
                .remedy(format!("chmod 600 {}", path.display())));
        }
    }
    PrivateKeyDer::from_pem_slice(&read(path, LONGEST)?).map_err(|error| Error::file("read", path, error))
}

/// Lists of revoked certificates, in PEM, or one in DER.
fn revoked(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>> {
    let bytes = read(path, LONGEST)?;
    if bytes.first() == Some(&0x30) {
        return Ok(vec![CertificateRevocationListDer::from(bytes)]);
    }
    let found = CertificateRevocationListDer::pem_slice_iter(&bytes).collect::<std::result::Result<Vec<_>, _>>();
    let found = found.map_err(|error| Error::file("read", path, error))?;
    if found.is_empty() {
        return Err(Error::new(format!("{} holds no revocation list", path.display()))
            .remedy("give PEM: -----BEGIN X509 CRL-----"));
    }
    Ok(found)
}

fn ends(certificate: &CertificateDer<'_>, path: &Path) -> Result<i64> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate)
        .map_err(|error| Error::file("read", path, error))?;
    Ok(parsed.validity().not_after.timestamp())
}

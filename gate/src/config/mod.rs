//! `gate.toml`: unknown keys are errors, and rules that would admit more than intended are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tidegate_model::span::Span;

use crate::attestation::{EvidenceKind, TrustTier};
use crate::error::{Error, Result, read_file};
use crate::proxy_protocol::Network;

pub mod validate;

/// The settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// The version of this format: 1.
    pub schema: u64,
    /// The address for devices. Without `[tls]` it must be a loopback address.
    pub listen: SocketAddr,
    /// The address for metrics and readiness, in plain HTTP.
    pub local: Option<SocketAddr>,
    /// The hosts by which devices reach this gate. Without it: those of its certificate.
    #[serde(default)]
    pub names: Vec<String>,
    /// The file with the secret that all instances share.
    pub secret: PathBuf,
    /// The storage location of protected objects.
    pub private: String,
    /// The storage location of spent nonces. All instances share it.
    pub state: String,
    /// The storage location of receipts. Without it the gate accepts none.
    pub receipts: Option<String>,
    /// The published repository: its URL, or its storage location. Required with `receipts`, which are accepted of its releases only.
    pub repository: Option<String>,
    /// The storage location of enrolments.
    pub enrolments: String,
    /// How objects are delivered.
    #[serde(default)]
    pub deliver: DeliveryMode,
    /// The lifetime of a presigned URL.
    #[serde(default = "defaults::url_life")]
    pub url_life: Span,
    /// How long a cohort's listing is cached, and the releases of the published repository at least.
    #[serde(default = "defaults::listing_life")]
    pub listing_life: Span,
    /// Load balancers that say who sends.
    #[serde(default)]
    pub proxy_protocol: ProxySettings,
    /// TLS, and the authority of the device certificates.
    pub tls: Option<TlsSettings>,
    /// Limits on rates, connections and times.
    #[serde(default)]
    pub limits: Limits,
    /// The audit log.
    #[serde(default)]
    pub audit: AuditSettings,
    /// Verifiers whose attestation results (EAR) are accepted.
    #[serde(default)]
    pub verifiers: BTreeMap<String, VerifierSettings>,
    /// PCR policies by name: for each PCR, e.g. `sha256:7`, the allowed values.
    #[serde(default)]
    pub pcrs: BTreeMap<String, PcrPolicy>,
    /// The protected cohorts of this gate, by role name, e.g. `stable.canary`.
    pub cohorts: BTreeMap<String, CohortRules>,
    /// The folder of the file, to which its paths are relative.
    #[serde(skip)]
    pub base: PathBuf,
}

/// The allowed values of each PCR, in hex.
pub type PcrPolicy = BTreeMap<String, Vec<String>>;

/// How objects are delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryMode {
    /// By a redirect to a presigned URL where the storage supports it, else through the gate.
    #[default]
    Redirect,
    /// Always through the gate.
    Stream,
}

/// Load balancers that say who sends, by the PROXY protocol.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxySettings {
    /// Their addresses. Each of their connections must begin with a header of version 1 or 2; no other connection may.
    pub trusted: Vec<Network>,
}

/// TLS 1.3.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The gate's certificate and its intermediates, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM, readable by its owner only.
    pub key: PathBuf,
    /// The authorities of device certificates, PEM.
    pub device_ca: Option<PathBuf>,
    /// Revocation lists, PEM or DER. With any, each device certificate must be covered by a current list.
    #[serde(default)]
    pub crl: Vec<PathBuf>,
    /// Whether devices must have certificates.
    #[serde(default)]
    pub clients: ClientCertificates,
    /// How often the files are checked for changes.
    #[serde(default = "defaults::reload")]
    pub reload: Span,
}

/// Whether devices must have certificates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificates {
    /// A device without a certificate cannot connect.
    #[default]
    Required,
    /// A device may identify itself with an enrolled key instead.
    Optional,
}

/// Limits on rates, connections and times.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Concurrent connections.
    pub connections: usize,
    /// Concurrent connections from one address (IPv6: one /64).
    pub connections_per_address: usize,
    /// Concurrent connections of one device with a certificate.
    pub connections_per_device: usize,
    /// Concurrent TLS handshakes.
    pub handshakes: usize,
    /// Concurrent TLS handshakes from one address.
    pub handshakes_per_address: usize,
    /// TLS handshakes per second, and their burst.
    pub handshakes_per_second: u32,
    /// TLS handshakes per minute from one address. Three seconds' worth may come at once.
    pub handshakes_per_address_per_minute: u32,
    /// Concurrent requests.
    pub requests: usize,
    /// Requests per second of all devices, and their burst.
    pub per_second: u32,
    /// Requests per minute from one address. Three seconds' worth may come at once.
    pub per_address_per_minute: u32,
    /// Requests per minute of one device.
    pub per_device_per_minute: u32,
    /// The burst of one device.
    pub device_burst: u32,
    /// The number of devices whose rates are tracked.
    pub devices: usize,
    /// Receipts that one device may store per day.
    pub receipts_per_device_per_day: u64,
    /// Bytes of receipts that one device may store per day.
    pub receipt_bytes_per_device_per_day: u64,
    /// Receipts that one device may store in total.
    pub receipts_per_device: u64,
    /// The timeout of a handshake, of a request's head and of its body, each.
    pub patience: Span,
    /// The timeout until a response begins.
    pub answer: Span,
    /// The maximum duration of a connection.
    pub connection: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: 512,
            connections_per_device: 16,
            handshakes: 512,
            handshakes_per_address: 64,
            handshakes_per_second: 500,
            handshakes_per_address_per_minute: 1200,
            requests: 1024,
            per_second: 2000,
            per_address_per_minute: 12_000,
            per_device_per_minute: 60,
            device_burst: 120,
            devices: 1_000_000,
            receipts_per_device_per_day: 256,
            receipt_bytes_per_device_per_day: 256 * 1024,
            receipts_per_device: 10_000,
            patience: Span::of_seconds(10),
            answer: Span::of_seconds(30),
            connection: Span::of_seconds(900),
        }
    }
}

/// The audit log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSettings {
    /// Whether to write device ids, and the addresses of senders that are not identified. Without it, a keyed hash replaces each.
    pub device_ids: bool,
    /// The period over which equal refusals are counted.
    pub interval: Span,
    /// The file to append to. Without it, standard output.
    pub file: Option<PathBuf>,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self { device_ids: false, interval: Span::of_seconds(60), file: None }
    }
}

/// A verifier whose attestation results are accepted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifierSettings {
    /// Its public keys: a file or an `https` URL.
    pub jwks: String,
    /// The accepted signature algorithms.
    pub algorithms: BTreeSet<SignatureAlgorithm>,
    /// The required value of `iss`, if any.
    pub issuer: Option<String>,
    /// The required value of `aud`, if any.
    pub audience: Option<String>,
    /// The claim that must equal the device id.
    #[serde(default = "defaults::device_claim")]
    pub device_claim: String,
    /// How long keys from a URL are cached.
    #[serde(default = "defaults::jwks_life")]
    pub cache: Span,
}

/// A signature algorithm of JWTs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum SignatureAlgorithm {
    /// ECDSA on P-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519 (RFC 8037).
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// The requirements of a cohort.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CohortRules {
    /// The lowest accepted trust tier: `none`, `warning`, `affirming`.
    pub least: TrustTier,
    /// The accepted kinds of evidence. Without it: all that can reach the tier.
    pub evidence: Option<BTreeSet<EvidenceKind>>,
    /// The accepted verifiers. Without it: all.
    pub verifiers: Option<BTreeSet<String>>,
    /// Required claims of an EAR: a dotted path, and the allowed value or values.
    #[serde(default)]
    pub claims: BTreeMap<String, toml::Value>,
    /// The maximum age of an attestation result.
    #[serde(default = "defaults::max_age")]
    pub max_age: Span,
    /// The PCR policy for quotes, unless the device's enrolment names another.
    pub pcrs: Option<String>,
    /// The lifetime of a token.
    #[serde(default = "defaults::token_life")]
    pub token: Span,
}

mod defaults {
    use tidegate_model::span::Span;

    pub(super) fn url_life() -> Span {
        Span::of_seconds(60)
    }
    pub(super) fn listing_life() -> Span {
        Span::of_seconds(5)
    }
    pub(super) fn reload() -> Span {
        Span::of_seconds(10)
    }
    pub(super) fn jwks_life() -> Span {
        Span::of_seconds(300)
    }
    pub(super) fn max_age() -> Span {
        Span::of_seconds(3600)
    }
    pub(super) fn token_life() -> Span {
        Span::of_seconds(600)
    }
    pub(super) fn device_claim() -> String {
        "ueid".into()
    }
}

impl GateConfig {
    /// Loads and validates the settings.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or parsed, or with everything that is wrong in it.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = read_file(path, 1 << 20)?;
        let text = String::from_utf8(bytes).map_err(|_| Error::input(format!("{} is not UTF-8", path.display())))?;
        let mut config: Self = toml::from_str(&text).map_err(|error| {
            Error::input(format!("{} is invalid", path.display())).with_cause(error.to_string().trim_end())
        })?;
        let base = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        config.base = base.into();
        let problems = config.problems();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(problems.into_iter().fold(Error::input(format!("{} is invalid", path.display())), Error::with_cause))
        }
    }

    /// Resolves a path from the settings.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }
}

impl CohortRules {
    /// Whether this kind of evidence is accepted.
    pub fn accepts(&self, kind: EvidenceKind) -> bool {
        match &self.evidence {
            Some(kinds) => kinds.contains(&kind),
            None => self.least == TrustTier::None || kind != EvidenceKind::None,
        }
    }
}

#[cfg(test)]
mod tests;

//! `gate.toml`: strict, and checked when it is loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tidegate_model::layout::DelegatedRole;

use crate::error::{Error, Result, read};
use crate::evidence::{Kind, Tier};

pub mod span;

use span::Span;

/// The settings as they are written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// 1.
    pub schema: u64,
    /// Where devices are served. Without `[tls]` it must be an address of this machine alone.
    pub listen: SocketAddr,
    /// Where metrics and readiness are served, in plain HTTP.
    pub local: Option<SocketAddr>,
    /// The file of the secret that instances share.
    pub secret: PathBuf,
    /// The private place: what the publisher laid out.
    pub private: String,
    /// Where spent nonces are noted. All instances share it.
    pub state: String,
    /// Where receipts are stored. Without it none are taken.
    pub receipts: Option<String>,
    /// Where enrolments are.
    pub enrolments: String,
    /// How a place is read: `redirect` to presigned URLs where the store has them, or `stream` always.
    #[serde(default)]
    pub deliver: Deliver,
    /// For how long a presigned URL is good.
    #[serde(default = "defaults::url_life")]
    pub url_life: Span,
    /// For how long a listing of a cohort's objects is remembered.
    #[serde(default = "defaults::listing_life")]
    pub listing_life: Span,
    /// TLS, and whose certificates devices show.
    pub tls: Option<Tls>,
    /// What is bounded.
    #[serde(default)]
    pub limits: Limits,
    /// The audit.
    #[serde(default)]
    pub audit: Audit,
    /// Verifiers of attestation whose results (EAR) are taken.
    #[serde(default)]
    pub verifiers: BTreeMap<String, Verifier>,
    /// PCR policies by name: the register, e.g. `sha256:7`, and the values it may have.
    #[serde(default)]
    pub pcrs: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// The cohorts that this gate opens, by their roles, e.g. `stable.canary`.
    pub cohorts: BTreeMap<String, Cohort>,
    /// The folder that paths are relative to: that of the file.
    #[serde(skip)]
    pub base: PathBuf,
}

/// How objects are given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deliver {
    /// By a presigned URL where the store has such, else through the gate.
    #[default]
    Redirect,
    /// Through the gate.
    Stream,
}

/// TLS 1.3.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The gate's certificate and what leads to its authority, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM, which only its owner may read.
    pub key: PathBuf,
    /// The authorities of devices' certificates, PEM.
    pub device_ca: Option<PathBuf>,
    /// Revocation lists, PEM or DER. With any, each certificate must be covered by one that is not out of date.
    #[serde(default)]
    pub crl: Vec<PathBuf>,
    /// Whether a device without a certificate is turned away at once, or may show who it is by its device key.
    #[serde(default)]
    pub clients: Clients,
    /// How often it is looked whether these files have changed.
    #[serde(default = "defaults::reload")]
    pub reload: Span,
}

/// Whether devices need certificates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clients {
    /// They do.
    #[default]
    Required,
    /// A device key will do.
    Optional,
}

/// What is bounded.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time from one address.
    pub connections_per_address: usize,
    /// Requests at a time.
    pub requests: usize,
    /// Requests a second of all devices together, and as many at once.
    pub per_second: u32,
    /// Requests a minute of one device.
    pub per_device_per_minute: u32,
    /// As many of a device's at once.
    pub device_burst: u32,
    /// How many devices' rates are remembered.
    pub devices: usize,
    /// How long a handshake, the head of a request, and its body may take, each.
    pub patience: Span,
    /// How long a request may take until its answer begins.
    pub answer: Span,
    /// How long a connection may last.
    pub connection: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: 1024,
            requests: 1024,
            per_second: 2000,
            per_device_per_minute: 120,
            device_burst: 120,
            devices: 1_000_000,
            patience: Span::seconds(10),
            answer: Span::seconds(30),
            connection: Span::seconds(900),
        }
    }
}

/// The audit.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// Whether device ids are written as they are. Otherwise a keyed hash stands for each.
    pub device_ids: bool,
    /// A file to append to; without it standard output.
    pub file: Option<PathBuf>,
}

/// A verifier whose results are taken.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verifier {
    /// Its public keys: a file, or an `https` URL.
    pub jwks: String,
    /// `ES256`, `EdDSA`.
    pub algorithms: BTreeSet<String>,
    /// What `iss` must be, if anything.
    pub issuer: Option<String>,
    /// What `aud` must name, if anything.
    pub audience: Option<String>,
    /// The claim that must be the device's id.
    #[serde(default = "defaults::device_claim")]
    pub device_claim: String,
    /// How long keys by URL are remembered.
    #[serde(default = "defaults::jwks_life")]
    pub cache: Span,
}

/// What it takes to be let into a cohort.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cohort {
    /// The least trustworthiness (AR4SI): `none`, `warning`, `affirming`.
    pub least: Tier,
    /// The kinds of evidence that count: `none`, `ear`, `tpm2`. Without it: all that can reach the tier.
    pub evidence: Option<BTreeSet<Kind>>,
    /// The verifiers whose results count. Without it: all.
    pub verifiers: Option<BTreeSet<String>>,
    /// What claims of an EAR must be: a dotted path, and the value or values it may have.
    #[serde(default)]
    pub claims: BTreeMap<String, toml::Value>,
    /// How old an attestation result may be.
    #[serde(default = "defaults::max_age")]
    pub max_age: Span,
    /// The PCR policy that a TPM's quote must meet, unless the device's enrolment names another.
    pub pcrs: Option<String>,
    /// How long a token is good.
    #[serde(default = "defaults::token_life")]
    pub token: Span,
}

mod defaults {
    use super::Span;

    pub(super) fn url_life() -> Span {
        Span::seconds(60)
    }
    pub(super) fn listing_life() -> Span {
        Span::seconds(5)
    }
    pub(super) fn reload() -> Span {
        Span::seconds(10)
    }
    pub(super) fn jwks_life() -> Span {
        Span::seconds(300)
    }
    pub(super) fn max_age() -> Span {
        Span::seconds(3600)
    }
    pub(super) fn token_life() -> Span {
        Span::seconds(600)
    }
    pub(super) fn device_claim() -> String {
        "ueid".into()
    }
}

impl Config {
    /// Reads and checks the settings.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = read(path, 1 << 20)?;
        let text = String::from_utf8(bytes).map_err(|_| Error::new(format!("{} is not text", path.display())))?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|error| Error::new(format!("{}: {}", path.display(), error.to_string().trim_end())))?;
        let base = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        config.base = base.into();
        let faults = config.faults();
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(Error::new(format!("{}: {}", path.display(), faults.join("; "))))
        }
    }

    /// A path of the settings, relative to their file.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// All that is wrong with what is written, as far as it shows without looking at other files.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.schema != 1 {
            faults.push(format!("schema {} is unknown: this program reads 1", self.schema));
        }
        match &self.tls {
            None if !self.listen.ip().is_loopback() => {
                faults
                    .push("listen: without [tls] only an address of this machine, e.g. 127.0.0.1:8080, will do".into());
            }
            Some(tls) if tls.device_ca.is_none() && (tls.clients == Clients::Required || !tls.crl.is_empty()) => {
                faults
                    .push("tls: device_ca is missing; without it, and without crl, set clients = \"optional\"".into());
            }
            _ => {}
        }
        if self.cohorts.is_empty() {
            faults.push("cohorts: there is none, so nobody would get anything".into());
        }
        for (name, cohort) in &self.cohorts {
            self.cohort_faults(name, cohort, &mut faults);
        }
        for (name, verifier) in &self.verifiers {
            if verifier.algorithms.is_empty() {
                faults.push(format!("verifiers.{name}.algorithms: name ES256 or EdDSA"));
            }
            for other in verifier.algorithms.iter().filter(|a| !matches!(a.as_str(), "ES256" | "EdDSA")) {
                faults.push(format!("verifiers.{name}.algorithms: {other} is not taken: ES256 and EdDSA are"));
            }
            if verifier.jwks.contains("://") && !is_safe_url(&verifier.jwks) {
                faults.push(format!("verifiers.{name}.jwks: https only, or http to this machine"));
            }
        }
        for (name, registers) in &self.pcrs {
            if registers.is_empty() {
                faults.push(format!("pcrs.{name}: it names no register, so every state would meet it"));
            }
            for (register, values) in registers {
                if crate::evidence::tpm::register(register).is_none() {
                    faults.push(format!("pcrs.{name}: {register:?} is no register: write e.g. sha256:7"));
                }
                let good = |value: &String| crate::encoding::from_hex(value).is_some_and(|bytes| bytes.len() == 32);
                if values.is_empty() || !values.iter().all(good) {
                    faults.push(format!(
                        "pcrs.{name}.{register}: give the values it may have, 64 lower-case hex digits each"
                    ));
                }
            }
        }
        let limits = &self.limits;
        if [limits.connections, limits.connections_per_address, limits.requests, limits.devices].contains(&0)
            || [limits.per_second, limits.per_device_per_minute, limits.device_burst].contains(&0)
        {
            faults.push("limits: 0 would turn everyone away".into());
        }
        for (name, span, most) in [
            ("url_life", self.url_life, 3600),
            ("listing_life", self.listing_life, 300),
            ("limits.patience", limits.patience, 300),
            ("limits.answer", limits.answer, 300),
            ("limits.connection", limits.connection, 86_400),
        ] {
            if span.as_secs() == 0 || span.as_secs() > most {
                faults.push(format!("{name}: from 1 to {most} seconds"));
            }
        }
        faults
    }

    fn cohort_faults(&self, name: &str, cohort: &Cohort, faults: &mut Vec<String>) {
        let at = |what: &str| format!("cohorts.{name:?}.{what}");
        if !matches!(DelegatedRole::parse(name), Some(DelegatedRole::Cohort { .. })) {
            faults.push(format!("cohorts: {name:?} is not the role of a cohort: write \"CHANNEL.COHORT\", in quotes"));
        }
        if cohort.least == Tier::Contraindicated {
            faults.push(at("least: contraindicated would let in what a verifier warns of"));
        }
        if !(1..=86_400).contains(&cohort.token.as_secs()) {
            faults.push(at("token: from 1 second to 1 day"));
        }
        for verifier in cohort.verifiers.iter().flatten().filter(|name| !self.verifiers.contains_key(*name)) {
            faults.push(at(&format!("verifiers: there is no [verifiers.{verifier}]")));
        }
        if let Some(policy) = cohort.pcrs.as_ref().filter(|policy| !self.pcrs.contains_key(*policy)) {
            faults.push(at(&format!("pcrs: there is no [pcrs.{policy}]")));
        }
        let counts = |kind: Kind| cohort.counts(kind);
        if cohort.least > Tier::None && cohort.evidence.as_ref().is_some_and(|kinds| kinds.contains(&Kind::None)) {
            faults.push(at("evidence: \"none\" cannot reach that tier: take it out, or set least = \"none\""));
        }
        if !counts(Kind::None) && !counts(Kind::Ear) && !counts(Kind::Tpm2) {
            faults.push(at("evidence: no kind is left that could reach the tier"));
        }
        if counts(Kind::Ear) && self.verifiers.is_empty() && cohort.evidence.is_some() {
            faults.push(at("evidence: \"ear\" needs a [verifiers.NAME]"));
        }
        if !cohort.claims.is_empty() && (counts(Kind::None) || counts(Kind::Tpm2)) {
            // Claims that a device could walk around by showing something else are no rule.
            faults.push(at("claims: only an EAR has claims, so set evidence = [\"ear\"]"));
        }
        if cohort.evidence.as_ref().is_some_and(|kinds| kinds.contains(&Kind::Tpm2)) && cohort.pcrs.is_none() {
            faults.push(at("pcrs: name the PCR policy that a quote must meet"));
        }
    }
}

impl Cohort {
    /// Whether evidence of that kind counts.
    pub fn counts(&self, kind: Kind) -> bool {
        match &self.evidence {
            Some(kinds) => kinds.contains(&kind),
            None => self.least == Tier::None || kind != Kind::None,
        }
    }
}

/// Whether nobody on the way can change what a URL leads to.
pub(crate) fn is_safe_url(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| match (url.scheme(), url.host()) {
        ("https", Some(_)) => true,
        ("http", Some(url::Host::Ipv4(address))) => address.is_loopback(),
        ("http", Some(url::Host::Ipv6(address))) => address.is_loopback(),
        ("http", Some(url::Host::Domain(name))) => name == "localhost",
        _ => false,
    })
}

#[cfg(test)]
mod tests;

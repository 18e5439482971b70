//! Checks of the settings that need no other file.

use tidegate_model::layout::DelegatedRole;

use super::{ClientCertificates, CohortRules, GateConfig};
use crate::attestation::{EvidenceKind, TrustTier, pcr_index};
use crate::encoding::is_sha256_hex;
use crate::names::GateNames;

impl GateConfig {
    /// Everything that is wrong.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.schema != 1 {
            problems.push(format!("schema {} is not supported; this program supports schema 1", self.schema));
        }
        self.check_listeners(&mut problems);
        if self.cohorts.is_empty() {
            problems.push("cohorts: at least one is required".into());
        }
        for (name, cohort) in &self.cohorts {
            self.check_cohort(name, cohort, &mut problems);
        }
        self.check_verifiers(&mut problems);
        self.check_pcr_policies(&mut problems);
        self.check_limits(&mut problems);
        problems
    }

    fn check_listeners(&self, problems: &mut Vec<String>) {
        if GateNames::from_settings(&self.names).is_none() {
            problems.push(
                "names: write the hosts of the gate's URLs, without port and wildcard, e.g. gate.example.com".into(),
            );
        }
        if self.receipts.is_some() && self.repository.is_none() {
            problems.push(
                "receipts: set repository to the published repository, of whose releases receipts are accepted".into(),
            );
        }
        if self.repository.as_ref().is_some_and(|at| at.starts_with("http") && !is_safe_url(at)) {
            problems.push("repository: use https, or http with a loopback address".into());
        }
        match &self.tls {
            None if !self.listen.ip().is_loopback() => {
                problems.push("listen: without [tls] only a loopback address is allowed, e.g. 127.0.0.1:8080".into());
            }
            Some(tls)
                if tls.device_ca.is_none() && (tls.clients == ClientCertificates::Required || !tls.crl.is_empty()) =>
            {
                problems.push("tls: device_ca is missing; set it, or remove crl and set clients = \"optional\"".into());
            }
            _ => {}
        }
    }

    fn check_cohort(&self, name: &str, cohort: &CohortRules, problems: &mut Vec<String>) {
        let mut add = |text: &str| problems.push(format!("cohorts.{name:?}.{text}"));
        if cohort.least == TrustTier::Contraindicated {
            add("least: contraindicated would admit devices that a verifier rejected");
        }
        if !(1..=86_400).contains(&cohort.token.seconds()) {
            add("token: must be between 1 second and 1 day");
        }
        for verifier in cohort.verifiers.iter().flatten().filter(|name| !self.verifiers.contains_key(*name)) {
            add(&format!("verifiers: there is no [verifiers.{verifier}]"));
        }
        if let Some(policy) = cohort.pcrs.as_ref().filter(|policy| !self.pcrs.contains_key(*policy)) {
            add(&format!("pcrs: there is no [pcrs.{policy}]"));
        }
        let lists = |kind: EvidenceKind| cohort.evidence.as_ref().is_some_and(|kinds| kinds.contains(&kind));
        if cohort.least > TrustTier::None && lists(EvidenceKind::None) {
            add("evidence: \"none\" cannot reach this tier; remove it, or set least = \"none\"");
        }
        if !EvidenceKind::ALL.into_iter().any(|kind| cohort.accepts(kind)) {
            add("evidence: no accepted kind can reach this tier");
        }
        if lists(EvidenceKind::Ear) && self.verifiers.is_empty() {
            add("evidence: \"ear\" requires a [verifiers.NAME]");
        }
        if !cohort.claims.is_empty() && (cohort.accepts(EvidenceKind::None) || cohort.accepts(EvidenceKind::Tpm2)) {
            // A device could avoid the claims by sending other evidence.
            add("claims: only an EAR has claims; set evidence = [\"ear\"]");
        }
        if lists(EvidenceKind::Tpm2) && cohort.pcrs.is_none() {
            add("pcrs: name the PCR policy for quotes");
        }
        if !matches!(DelegatedRole::parse(name), Some(DelegatedRole::Cohort { .. })) {
            problems.push(format!("cohorts: {name:?} is not a cohort's role; write \"CHANNEL.COHORT\", in quotes"));
        }
    }

    fn check_verifiers(&self, problems: &mut Vec<String>) {
        for (name, verifier) in &self.verifiers {
            if verifier.algorithms.is_empty() {
                problems.push(format!("verifiers.{name}.algorithms: name ES256 or EdDSA"));
            }
            if verifier.jwks.contains("://") && !is_safe_url(&verifier.jwks) {
                problems.push(format!("verifiers.{name}.jwks: use https, or http with a loopback address"));
            }
        }
    }

    fn check_pcr_policies(&self, problems: &mut Vec<String>) {
        for (name, registers) in &self.pcrs {
            if registers.is_empty() {
                problems.push(format!("pcrs.{name}: names no PCR, so every state would satisfy it"));
            }
            for (register, values) in registers {
                if pcr_index(register).is_none() {
                    problems.push(format!("pcrs.{name}: {register:?} is not a PCR; write e.g. sha256:7"));
                }
                if values.is_empty() || !values.iter().all(|value| is_sha256_hex(value)) {
                    problems.push(format!(
                        "pcrs.{name}.{register}: list the allowed values, 64 lower-case hex digits each"
                    ));
                }
            }
        }
    }

    fn check_limits(&self, problems: &mut Vec<String>) {
        let limits = &self.limits;
        let counts = [limits.connections, limits.connections_per_address, limits.connections_per_device];
        let more = [limits.handshakes, limits.handshakes_per_address, limits.requests, limits.devices];
        let rates = [limits.per_second, limits.per_device_per_minute, limits.device_burst];
        let of_addresses = [limits.per_address_per_minute, limits.handshakes_per_address_per_minute];
        if counts.iter().chain(&more).any(|limit| *limit == 0)
            || rates.iter().chain(&of_addresses).chain([&limits.handshakes_per_second]).any(|limit| *limit == 0)
        {
            problems.push("limits: 0 would refuse every request".into());
        }
        for (name, span, maximum) in [
            ("url_life", self.url_life, 3600),
            ("listing_life", self.listing_life, 300),
            ("audit.interval", self.audit.interval, 3600),
            ("limits.patience", limits.patience, 300),
            ("limits.answer", limits.answer, 300),
            ("limits.connection", limits.connection, 86_400),
        ] {
            if span.seconds() == 0 || span.seconds() > maximum {
                problems.push(format!("{name}: must be between 1 and {maximum} seconds"));
            }
        }
    }
}

/// Whether the connection to a URL is authenticated, or does not leave this machine.
fn is_safe_url(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| match (url.scheme(), url.host()) {
        ("https", Some(_)) => true,
        ("http", Some(url::Host::Ipv4(address))) => address.is_loopback(),
        ("http", Some(url::Host::Ipv6(address))) => address.is_loopback(),
        ("http", Some(url::Host::Domain(name))) => name == "localhost",
        _ => false,
    })
}

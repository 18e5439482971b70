//! The names of this gate: devices sign them in proofs and quotes, so that no other gate can pass these on.

use std::collections::BTreeSet;
use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::refusal::Refusal;

/// The hosts by which devices reach this gate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GateNames(BTreeSet<String>);

impl GateNames {
    /// The names from the settings. `None` if one is not a host.
    pub fn from_settings(names: &[String]) -> Option<Self> {
        names.iter().map(|name| canonical(name)).collect::<Option<_>>().map(Self)
    }

    /// The names of the gate's certificate, in DER. Wildcards are not names of this gate alone, so they do not count.
    pub fn from_certificate(der: &[u8]) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Self::default() };
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) => canonical(name),
            GeneralName::IPAddress([a, b, c, d]) => Some(IpAddr::from([*a, *b, *c, *d]).to_string()),
            GeneralName::IPAddress(bytes) => Some(IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
            _ => None,
        });
        Self(names.collect())
    }

    /// The names of this machine for itself, for a gate without TLS.
    pub fn local() -> Self {
        Self(["localhost", "127.0.0.1", "::1"].map(str::to_owned).into())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name by which a request addresses this gate, as the device wrote it.
    ///
    /// # Errors
    ///
    /// Refuses a request that names no gate, or another one.
    pub fn addressed(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        let mut all = headers.get_all(header::HOST).iter();
        let authority = match (all.next(), all.next()) {
            (Some(host), None) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
            _ => None,
        };
        let host = authority.map(|authority| authority.host().to_owned());
        host.filter(|host| canonical(host).is_some_and(|host| self.0.contains(&host))).ok_or_else(|| {
            Refusal::bad_request(
                "G-ID-09",
                "the header Host does not name this gate; its operator sets names, or a certificate with them",
            )
        })
    }
}

/// A host in its only form. `None` for a wildcard, and for what is not a host.
fn canonical(host: &str) -> Option<String> {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = address.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let is_name = !host.is_empty() && host.bytes().all(|c| c.is_ascii_alphanumeric() || b".-".contains(&c));
    is_name.then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_gates_own_names_address_it() {
        let names = ["Gate.example.com", "2001:DB8::1", "192.0.2.1"].map(str::to_owned);
        let names = GateNames::from_settings(&names).unwrap();
        let addressed = |hosts: &[&str]| {
            let headers = hosts.iter().map(|host| (header::HOST, host.parse().unwrap())).collect();
            names.addressed(&headers).ok()
        };
        for (host, name) in [
            ("gate.example.com", "gate.example.com"),
            ("gate.example.com:8443", "gate.example.com"),
            ("[2001:db8::1]:8443", "[2001:db8::1]"),
            ("192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(addressed(&[host]).as_deref(), Some(name), "{host}");
        }
        for hosts in [
            &[][..],
            &[""],
            &["other.example.com"],
            &["x.gate.example.com"],
            &["gate.example.com@other.example.com"],
            &["gate.example.com", "gate.example.com"],
        ] {
            assert_eq!(addressed(hosts), None, "{hosts:?}");
        }
        assert_eq!(GateNames::from_settings(&["*.example.com".into()]), None);
    }
}

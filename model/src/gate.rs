//! The gate of protected cohorts: the service that delivers protected releases to devices.
//!
//! A cohort map marks a cohort as protected and names its gate:
//!
//! ```json
//! {"name": "canary", "share": 10000, "protected": {"gate": "https://gate.example.com"}}
//! ```
//!
//! The role of such a cohort, `CHANNEL.COHORT`, and releases assigned only to such cohorts are not published openly. A gate serves them
//! to authenticated devices. It is trusted only with access control: files from a gate are verified like all others.

use core::fmt;
use core::str::FromStr;

use serde_json::Value;

use super::decode::{Extra, FieldError, Fields, extra};
use super::digest::Digest;
use super::name::DeviceId;
use crate::prelude::*;

/// The longest base URL, in bytes.
const LENGTH: usize = 512;

/// The protection of a cohort.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Protected {
    /// The gate that its devices use.
    pub gate: GateUrl,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Protected {
    /// Protected by this gate.
    pub fn by(gate: GateUrl) -> Self {
        Self { gate, extra: Extra::new() }
    }

    /// Reads the protection. Only a missing field means "not protected".
    pub(super) fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, at)?;
        Ok(Self { gate: fields.parsed("gate")?, extra: extra(&fields)? })
    }
}

/// The base URL of a gate: `https://HOST[:PORT][/PATH]`, without a slash at its end. Plain `http` only to this machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GateUrl(String);

/// A text that is not the base URL of a gate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the URL of a gate: write https://HOST or https://HOST/PATH, at most 512 characters, without user, query or a slash at the end"
)]
pub struct BadGateUrl(String);

impl GateUrl {
    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The gate's name in what devices sign for it: the host, without the port.
    pub fn host(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        let end = if rest.starts_with('[') { rest.find(']').map(|at| at + 1) } else { rest.find([':', '/']) };
        end.and_then(|end| rest.get(..end)).unwrap_or(rest)
    }

    /// The URL that corresponds to the repository's root, with `metadata/` and `targets/` below it.
    pub fn repository(&self) -> String {
        format!("{}/v1/repo", self.0)
    }
}

impl FromStr for GateUrl {
    type Err = BadGateUrl;

    fn from_str(url: &str) -> Result<Self, BadGateUrl> {
        if is_good(url) { Ok(Self(url.to_owned())) } else { Err(BadGateUrl(url.chars().take(LENGTH).collect())) }
    }
}

fn is_good(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) if address.parse::<core::net::Ipv6Addr>().is_ok() => (address, port),
        Some(_) => return false,
        None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
    };
    let is_host = authority.starts_with('[')
        || (!host.is_empty()
            && host.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b".-".contains(&c)));
    let is_port =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|p| p > 0));
    // No dot segments and no escapes, so that the path is unambiguous.
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|c| c.is_ascii_alphanumeric() || b"._~-".contains(&c))
    };
    let is_path = path.is_empty() || path.split('/').skip(1).all(is_segment);
    let is_here = matches!(host, "localhost" | "::1")
        || host.parse::<core::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    url.len() <= LENGTH && is_host && is_port && is_path && (scheme == "https" || (scheme == "http" && is_here))
}

impl fmt::Display for GateUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl serde::Serialize for GateUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for GateUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A kind of evidence of a device's state. The fact `attestation` contains its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attestation {
    /// A quote of its TPM 2.0.
    Tpm2,
    /// A verifier's attestation result (EAR).
    Ear,
}

impl Attestation {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Tpm2, Self::Ear];

    /// The name of the fact with the kind of evidence. A device without evidence does not have this fact.
    pub const FACT: &'static str = "attestation";

    /// The name in facts and in requests to gates.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tpm2 => "tpm2",
            Self::Ear => "ear",
        }
    }
}

impl FromStr for Attestation {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| {
            format!("{} is no kind of evidence: use one of tpm2, ear, none", super::decode::quoted(name))
        })
    }
}

impl fmt::Display for Attestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The content that a device signs for each request to a gate, so that a stolen token is useless. It names the gate, so that no other gate
/// can use it.
#[derive(Debug, Clone, Copy)]
pub struct Proof<'a> {
    /// The gate's name: [`GateUrl::host`].
    pub gate: &'a str,
    /// `GET`, `HEAD` or `POST`.
    pub method: &'a str,
    /// The path of the request with its query, as sent.
    pub path: &'a str,
    /// The body; empty if there is none.
    pub body: &'a [u8],
    /// The token of the request; empty if there is none.
    pub token: &'a str,
    /// The time, in seconds since 1970.
    pub seconds: i64,
    /// 16 random bytes in base64url, which make every proof unique.
    pub random: &'a str,
}

impl Proof<'_> {
    /// The signed bytes. The parts are unambiguous: none contains a line break.
    pub fn message(&self) -> Vec<u8> {
        let Self { gate, method, path, body, token, seconds, random } = self;
        let (body, token) = (Digest::of(body), Digest::of(token.as_bytes()));
        format!("tidegate/gate/2\n{gate}\n{method}\n{path}\n{body}\n{token}\n{seconds}\n{random}\n").into_bytes()
    }
}

/// The qualifying data of a TPM's quote for a gate: it binds the quote to the gate ([`GateUrl::host`]), to its nonce and to the device.
pub fn quote_data(gate: &str, nonce: &[u8], device: &DeviceId) -> Digest {
    let mut message = format!("tidegate/gate/quote/2\n{gate}\n").into_bytes();
    message.extend_from_slice(nonce);
    message.extend_from_slice(format!("\n{device}\n").as_bytes());
    Digest::of(&message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_reached_by_tls_or_is_here() {
        for good in [
            "https://gate.example.com",
            "https://gate.example.com:8443/fleet/a",
            "https://[2001:db8::1]:8443",
            "http://127.0.0.1:8080",
            "http://localhost",
            "http://[::1]:80/x",
        ] {
            assert_eq!(good.parse::<GateUrl>().unwrap().as_str(), good);
        }
        for (url, host) in [
            ("https://gate.example.com", "gate.example.com"),
            ("https://gate.example.com/fleet", "gate.example.com"),
            ("https://gate.example.com:8443/fleet", "gate.example.com"),
            ("https://[2001:db8::1]:8443", "[2001:db8::1]"),
            ("http://[::1]/x", "[::1]"),
        ] {
            assert_eq!(url.parse::<GateUrl>().unwrap().host(), host);
        }
        for bad in [
            "",
            "gate.example.com",
            "http://gate.example.com",
            "http://10.0.0.1",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "https://",
            "https://gate.example.com/",
            "https://gate.example.com/a//b",
            "https://gate.example.com/a/../b",
            "https://gate.example.com/a?b",
            "https://gate.example.com/a#b",
            "https://user@gate.example.com",
            "https://user:word@gate.example.com",
            "https://gate.example.com:0",
            "https://gate.example.com:x",
            "https://Gate.example.com",
            "https://gate.example.com/%2e%2e",
            "https://[::1",
            "https://[x]",
            "ftp://gate.example.com",
            "https://gate example.com",
            "https://g\u{e4}te.example.com",
        ] {
            assert!(bad.parse::<GateUrl>().is_err(), "{bad}");
        }
        assert!(format!("https://{}", "a".repeat(600)).parse::<GateUrl>().is_err());
    }
}

//! The gate of protected cohorts: the service that delivers protected releases to devices.
//!
//! A cohort map marks a cohort as protected and names its gate:
//!
//! ```json
//! {"name": "canary", "share": 10000, "protected": {"gate": "https://gate.example.com"}}
//! ```
//!
//! The role of such a cohort, `CHANNEL.COHORT`, and what only such cohorts are assigned, are not in the public place. A gate gives them
//! to devices that can show what they are. It is trusted with that alone: what comes through it is verified like everything else.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::decode::{Extra, FieldError, Fields, extra};
use super::digest::Digest;
use super::name::DeviceId;

/// The longest base URL, in bytes.
const LENGTH: usize = 512;

/// That a cohort is protected, and by what.
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

    /// Reads it. Nothing stands for "not protected" but that it is not there.
    pub(super) fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, at)?;
        Ok(Self { gate: fields.parsed("gate")?, extra: extra(&fields)? })
    }
}

/// The base URL of a gate: `https://HOST[:PORT][/PATH]`, without a slash at its end. Plain `http` only to this machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GateUrl(String);

/// What is no base URL of a gate.
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

    /// Where the gate has what the repository's own root has: `metadata/` and `targets/` are below it.
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
        Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => (address, port),
        Some(_) => return false,
        None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
    };
    let is_host = authority.starts_with('[')
        || (!host.is_empty()
            && host.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b".-".contains(&c)));
    let is_port =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|p| p > 0));
    // No dots alone, no escapes: such a path is unambiguous.
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|c| c.is_ascii_alphanumeric() || b"._~-".contains(&c))
    };
    let is_path = path.is_empty() || path.split('/').skip(1).all(is_segment);
    let is_here = matches!(host, "localhost" | "::1")
        || host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback());
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

/// A kind of evidence that a device can give of its state. The fact `attestation` is its name.
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

    /// The name of the fact for the kind that a device gives. A device that gives none does not have this fact.
    pub const FACT: &'static str = "attestation";

    /// As facts and requests to gates write it.
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

/// What a device signs with its key for each request to a gate, so that a token that was overheard is of no use.
#[derive(Debug, Clone, Copy)]
pub struct Proof<'a> {
    /// `GET`, `HEAD` or `POST`.
    pub method: &'a str,
    /// The path of the request and, if it has one, its query, as they are sent.
    pub path: &'a str,
    /// The body; empty if there is none.
    pub body: &'a [u8],
    /// The token that is sent along; empty if there is none.
    pub token: &'a str,
    /// When, in seconds since 1970.
    pub seconds: i64,
    /// 16 random bytes in base64url, which make every proof another.
    pub random: &'a str,
}

impl Proof<'_> {
    /// The bytes that are signed. The parts are unambiguous: none contains a line break.
    pub fn message(&self) -> Vec<u8> {
        let Self { method, path, body, token, seconds, random } = self;
        let (body, token) = (Digest::of(body), Digest::of(token.as_bytes()));
        format!("tidegate/gate/1\n{method}\n{path}\n{body}\n{token}\n{seconds}\n{random}\n").into_bytes()
    }
}

/// The qualifying data of a TPM's quote for a gate: it binds the quote to the gate's nonce and to the device.
pub fn quote_data(nonce: &[u8], device: &DeviceId) -> Digest {
    let mut message = b"tidegate/gate/quote/1\n".to_vec();
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

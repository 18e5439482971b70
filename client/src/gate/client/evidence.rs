//! Evidence in the form that gates and attestor programs use.

use std::collections::BTreeMap;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Value, json};

use tidegate_model::gate::Attestation;
use tidegate_tuf::fields::{FieldError, Fields, expected, quoted, whole};
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::json;

/// The maximum length of an attestation result: the whole request must fit into a gate's limit.
const TOKEN: usize = 48 * 1024;
/// The longest quote and the longest signature, in bytes.
const QUOTE: usize = 4096;
/// The most registers.
const REGISTERS: usize = 24;

/// Evidence of a device's state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// No evidence, only the device's identity.
    None,
    /// A verifier's attestation result: a JWT, whose `eat_nonce` is the nonce's text.
    Ear {
        /// The JWT.
        token: String,
    },
    /// A TPM's quote.
    Tpm2 {
        /// `TPMS_ATTEST`.
        quote: Vec<u8>,
        /// `TPMT_SIGNATURE`.
        signature: Vec<u8>,
        /// The values of the registers that were quoted, by names such as `sha256:7`.
        pcrs: BTreeMap<String, Vec<u8>>,
    },
}

impl Evidence {
    /// Its kind.
    pub fn kind(&self) -> Option<Attestation> {
        match self {
            Self::None => None,
            Self::Ear { .. } => Some(Attestation::Ear),
            Self::Tpm2 { .. } => Some(Attestation::Tpm2),
        }
    }

    /// The JSON form.
    pub fn to_value(&self) -> Value {
        match self {
            Self::None => json!({"kind": "none"}),
            Self::Ear { token } => json!({"kind": "ear", "token": token}),
            Self::Tpm2 { quote, signature, pcrs } => {
                let pcrs: BTreeMap<&String, String> = pcrs.iter().map(|(name, value)| (name, to_hex(value))).collect();
                let [quote, signature] = [quote, signature].map(|bytes| Base64UrlUnpadded::encode_string(bytes));
                json!({"kind": "tpm2", "quote": quote, "signature": signature, "pcrs": pcrs})
            }
        }
    }

    /// Reads what [`to_value`](Self::to_value) writes, from strict JSON.
    ///
    /// # Errors
    ///
    /// The problem.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let value = json::parse(text).map_err(|e| e.to_string())?;
        Self::read(&value).map_err(|fault| fault.to_string())
    }

    fn read(value: &Value) -> Result<Self, FieldError> {
        whole(value, "", |fields| match fields.text("kind")? {
            "none" => Ok(Self::None),
            "ear" => Ok(Self::Ear { token: fields.text_as("token", token)? }),
            "tpm2" => Ok(Self::Tpm2 {
                quote: fields.text_as("quote", base64)?,
                signature: fields.text_as("signature", base64)?,
                pcrs: fields.part("pcrs", registers)?,
            }),
            other => {
                let why = format!("{} is unknown: use one of tpm2, ear, none", quoted(other));
                Err(FieldError::new(fields.at("kind"), why))
            }
        })
    }
}

fn token(text: &str) -> Result<String, String> {
    let is_good = (1..=TOKEN).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic());
    if is_good { Ok(text.to_owned()) } else { Err(format!("it must be a JWT of at most {TOKEN} characters")) }
}

fn base64(text: &str) -> Result<Vec<u8>, String> {
    let bytes = Base64UrlUnpadded::decode_vec(text).ok().filter(|bytes| (1..=QUOTE).contains(&bytes.len()));
    bytes.ok_or_else(|| format!("it must be 1 to {QUOTE} bytes in base64url without padding"))
}

fn registers(value: &Value, at: &str) -> Result<BTreeMap<String, Vec<u8>>, FieldError> {
    let fields = Fields::of(value, at)?;
    let read = |(name, value): (&str, &Value)| {
        let bytes = value.as_str().and_then(tidegate_model::digest::from_hex);
        let bytes = bytes.ok_or_else(|| expected("hexadecimal digits", value, &format!("{at}.{name}")))?;
        Ok((name.to_owned(), bytes))
    };
    match fields.entries().count() {
        0..=REGISTERS => fields.entries().map(read).collect(),
        count => Err(FieldError::new(at, format!("{count} registers are too many: at most {REGISTERS}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_reads_back_as_it_was() {
        let pcrs = BTreeMap::from([("sha256:0".to_owned(), vec![0; 32]), ("sha256:7".to_owned(), vec![0xab; 32])]);
        for evidence in [
            Evidence::None,
            Evidence::Ear { token: "a.b.c".into() },
            Evidence::Tpm2 { quote: vec![1, 2, 3], signature: vec![0xff; 70], pcrs },
        ] {
            let text = evidence.to_value().to_string();
            assert_eq!(Evidence::parse(text.as_bytes()).unwrap(), evidence, "{text}");
        }
    }

    #[test]
    fn what_is_no_evidence_is_refused() {
        for (text, expected) in [
            ("", "unexpected end"),
            ("{}", "`kind`"),
            (r#"{"kind": "tpm"}"#, "tpm2, ear, none"),
            (r#"{"kind": "none", "more": 1}"#, "more"),
            (r#"{"kind": "ear", "token": "a b"}"#, "JWT"),
            (r#"{"kind": "ear", "token": ""}"#, "JWT"),
            (r#"{"kind": "ear", "kind": "none"}"#, "kind"),
            (r#"{"kind": "tpm2", "quote": "+/==", "signature": "AA", "pcrs": {}}"#, "base64url"),
            (r#"{"kind": "tpm2", "quote": "AA", "signature": "", "pcrs": {}}"#, "base64url"),
            (r#"{"kind": "tpm2", "quote": "AA", "signature": "AA", "pcrs": {"sha256:7": "xy"}}"#, "sha256:7"),
            (r#"{"kind": "tpm2", "quote": "AA", "signature": "AA", "pcrs": []}"#, "an object"),
        ] {
            let why = Evidence::parse(text.as_bytes()).unwrap_err();
            assert!(why.contains(expected), "{text}: {why}");
        }
    }
}

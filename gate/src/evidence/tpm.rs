//! Quotes of TPM 2.0: verified against an enrolled attestation key, a nonce and the values of registers.
//!
//! What a TPM signs is read by hand ([`parse`]); the signatures are verified by `ring`.

use std::collections::{BTreeMap, BTreeSet};

use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm};
use tidegate_model::gate::quote_data;
use tidegate_model::name::DeviceId;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use self::parse::{Attest, Signature};
use super::{Finding, Kind, Tier};
use crate::encoding::{from_base64, from_hex, sha256};
use crate::refusal::Refusal;
use subtle::ConstantTimeEq as _;

pub mod parse;

/// How many registers are looked at.
const REGISTERS: usize = 24;

/// The number of a register: `sha256:0` to `sha256:23`. Other banks are not taken.
pub fn register(name: &str) -> Option<u8> {
    let number = name.strip_prefix("sha256:")?;
    let parsed = number.parse::<u8>().ok()?;
    (parsed < 24 && parsed.to_string() == number).then_some(parsed)
}

/// An attestation key.
pub struct AttestationKey {
    how: &'static dyn VerificationAlgorithm,
    is_rsa: bool,
    key: Vec<u8>,
}

impl AttestationKey {
    /// Reads `SubjectPublicKeyInfo` in PEM: P-256, or RSA of 2048 to 8192 bits.
    pub fn from_pem(pem: &str) -> Result<Self, &'static str> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| "it is no PEM")?;
        let Pem { label, contents } = pem;
        if label != "PUBLIC KEY" {
            return Err("it is no public key (PEM with BEGIN PUBLIC KEY)");
        }
        let (rest, spki) = SubjectPublicKeyInfo::from_der(&contents).map_err(|_| "it is no SubjectPublicKeyInfo")?;
        if !rest.is_empty() {
            return Err("something follows it");
        }
        let key = spki.subject_public_key.data.to_vec();
        match spki.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => {
                let long_enough =
                    matches!(spki.parsed(), Ok(x509_parser::public_key::PublicKey::RSA(rsa)) if rsa.key_size() >= 2048);
                if !long_enough {
                    return Err("an RSA key needs 2048 bits or more");
                }
                Ok(Self { how: &RSA_PKCS1_2048_8192_SHA256, is_rsa: true, key })
            }
            "1.2.840.10045.2.1" => {
                let curve =
                    spki.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok()).map(|oid| oid.to_id_string());
                if curve.as_deref() != Some("1.2.840.10045.3.1.7") || key.len() != 65 || key.first() != Some(&4) {
                    return Err("an elliptic curve must be P-256, its point written out");
                }
                Ok(Self { how: &ECDSA_P256_SHA256_FIXED, is_rsa: false, key })
            }
            _ => Err("it is neither P-256 nor RSA"),
        }
    }

    fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        let bytes = match signature {
            Signature::RsaSsa(bytes) if self.is_rsa => bytes.clone(),
            Signature::Ecdsa(bytes) if !self.is_rsa => bytes.to_vec(),
            _ => return false,
        };
        UnparsedPublicKey::new(self.how, &self.key).verify(message, &bytes).is_ok()
    }
}

/// A quote as a request brings it, all in base64url and hex.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// `TPMS_ATTEST`.
    pub quote: &'a str,
    /// `TPMT_SIGNATURE`.
    pub signature: &'a str,
    /// The values of the registers.
    pub pcrs: &'a BTreeMap<String, String>,
}

/// Verifies a quote: that the enrolled key signed it, over this nonce, and that the values are those that were quoted. Whether they are good
/// ones is the policy's to say.
pub fn verify(sent: Sent<'_>, ak: Option<&str>, nonce: &[u8], device: &DeviceId) -> Result<Finding, Refusal> {
    let refused = |why: &str| {
        Refusal::forbidden("G-ATT-04", format!("the quote is refused: {why}")).missing(vec!["tpm2 quote".into()])
    };
    let ak = ak.ok_or_else(|| {
        Refusal::forbidden("G-ATT-03", "no attestation key is enrolled for this device")
            .missing(vec!["enrolled attestation key".into()])
    })?;
    let ak = AttestationKey::from_pem(ak)
        .map_err(|why| Refusal::unavailable("G-SRV-03", format!("this device's attestation key is broken: {why}")))?;
    let quote = from_base64(sent.quote)
        .filter(|bytes| bytes.len() <= parse::LONGEST)
        .ok_or_else(|| refused("it is no base64url, or too long"))?;
    let signature = from_base64(sent.signature).filter(|bytes| bytes.len() <= parse::LONGEST);
    let signature = signature.and_then(|bytes| Signature::parse(&bytes));
    let signature =
        signature.ok_or_else(|| refused("its signature is no TPMT_SIGNATURE by ECDSA or RSASSA with SHA-256"))?;
    if !ak.verify(&quote, &signature) {
        return Err(refused("its signature is not by the enrolled attestation key"));
    }
    let attest = Attest::parse(&quote).ok_or_else(|| refused("it is no TPMS_ATTEST of a quote"))?;
    if !bool::from(attest.extra_data.as_slice().ct_eq(quote_data(nonce, device).as_bytes())) {
        return Err(refused("its qualifying data is not that of this challenge"));
    }
    let values = values(&attest, sent.pcrs).map_err(|why| refused(&why))?;
    let tier = Tier::Affirming;
    Ok(Finding { kind: Kind::Tpm2, tier, age: 0, verifier: None, claims: serde_json::Value::Null, pcrs: values })
}

/// The values of exactly those registers that were quoted, if they are what the quote's digest is over.
fn values(attest: &Attest, sent: &BTreeMap<String, String>) -> Result<BTreeMap<String, [u8; 32]>, String> {
    if sent.len() > REGISTERS {
        return Err("it brings too many registers".into());
    }
    let mut digested = Vec::new();
    let mut values = BTreeMap::new();
    for number in &attest.sha256_registers {
        let name = format!("sha256:{number}");
        let value = sent.get(&name).and_then(|text| from_hex(text)).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let value = value.ok_or_else(|| format!("the value of {name}, which was quoted, is missing"))?;
        digested.extend_from_slice(&value);
        values.insert(name, value);
    }
    if let Some(extra) = sent.keys().find(|name| !values.contains_key(*name)) {
        return Err(format!("{:?} was not quoted", extra.chars().take(20).collect::<String>()));
    }
    if !bool::from(attest.pcr_digest.as_slice().ct_eq(&sha256(&[&digested]))) {
        return Err("the values of its registers are not those that were quoted".into());
    }
    Ok(values)
}

/// Which registers do not have a value that the policy allows, or were not quoted.
pub fn unmet(policy: &BTreeMap<String, Vec<String>>, values: &BTreeMap<String, [u8; 32]>) -> BTreeSet<String> {
    let met = |name: &String, allowed: &Vec<String>| {
        values
            .get(name)
            .is_some_and(|value| allowed.iter().filter_map(|text| from_hex(text)).any(|allowed| allowed == value))
    };
    policy.iter().filter(|(name, allowed)| !met(name, allowed)).map(|(name, _)| format!("pcr {name}")).collect()
}

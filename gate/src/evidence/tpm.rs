//! Quotes of a TPM 2.0: verified with the enrolled attestation key, the nonce and the values of the PCRs.
//!
//! [`parse`] decodes the TPM's structures; `ring` verifies the signatures.

use std::collections::{BTreeMap, BTreeSet};

use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm};
use subtle::ConstantTimeEq as _;
use tidegate_model::gate::quote_data;
use tidegate_model::name::DeviceId;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use self::parse::{Quote, QuoteSignature};
use super::VerifiedEvidence;
use crate::attestation::{EvidenceKind, TrustTier};
use crate::config::PcrPolicy;
use crate::encoding::{from_base64url, from_hex, sha256};
use crate::refusal::Refusal;

pub mod parse;

/// The maximum number of PCRs in a request.
const MAX_PCRS: usize = 24;

/// The public part of an attestation key.
pub struct AttestationKey {
    scheme: &'static dyn VerificationAlgorithm,
    is_rsa: bool,
    key: Vec<u8>,
}

impl std::fmt::Debug for AttestationKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttestationKey").field("is_rsa", &self.is_rsa).finish_non_exhaustive()
    }
}

/// Why an attestation key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttestationKeyError {
    /// The text is not PEM.
    #[error("it is not PEM")]
    NotPem,
    /// The PEM contains something else.
    #[error("it is not a public key (PEM with BEGIN PUBLIC KEY)")]
    NotPublicKey,
    /// The contents are not a public key.
    #[error("it is not a SubjectPublicKeyInfo")]
    NotSpki,
    /// There are bytes after the key.
    #[error("it has trailing bytes")]
    TrailingBytes,
    /// The RSA key is too short.
    #[error("an RSA key must have at least 2048 bits")]
    ShortRsa,
    /// The curve is not P-256, or the point is compressed.
    #[error("an elliptic curve key must be P-256 with an uncompressed point")]
    Curve,
    /// The type is not supported.
    #[error("it is neither P-256 nor RSA")]
    UnknownType,
}

impl AttestationKey {
    /// Parses `SubjectPublicKeyInfo` in PEM: P-256, or RSA of 2048 to 8192 bits.
    ///
    /// # Errors
    ///
    /// Fails if the key is malformed or its type is not supported.
    pub fn from_pem(pem: &str) -> Result<Self, AttestationKeyError> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| AttestationKeyError::NotPem)?;
        let Pem { label, contents } = pem;
        if label != "PUBLIC KEY" {
            return Err(AttestationKeyError::NotPublicKey);
        }
        let (rest, spki) = SubjectPublicKeyInfo::from_der(&contents).map_err(|_| AttestationKeyError::NotSpki)?;
        if !rest.is_empty() {
            return Err(AttestationKeyError::TrailingBytes);
        }
        let key = spki.subject_public_key.data.to_vec();
        match spki.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => {
                let long_enough =
                    matches!(spki.parsed(), Ok(x509_parser::public_key::PublicKey::RSA(rsa)) if rsa.key_size() >= 2048);
                if !long_enough {
                    return Err(AttestationKeyError::ShortRsa);
                }
                Ok(Self { scheme: &RSA_PKCS1_2048_8192_SHA256, is_rsa: true, key })
            }
            "1.2.840.10045.2.1" => {
                let curve =
                    spki.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok()).map(|oid| oid.to_id_string());
                if curve.as_deref() != Some("1.2.840.10045.3.1.7") || key.len() != 65 || key.first() != Some(&4) {
                    return Err(AttestationKeyError::Curve);
                }
                Ok(Self { scheme: &ECDSA_P256_SHA256_FIXED, is_rsa: false, key })
            }
            _ => Err(AttestationKeyError::UnknownType),
        }
    }

    fn verify(&self, message: &[u8], signature: &QuoteSignature) -> bool {
        let bytes = match signature {
            QuoteSignature::RsaSsa(bytes) if self.is_rsa => bytes.clone(),
            QuoteSignature::Ecdsa(bytes) if !self.is_rsa => bytes.to_vec(),
            _ => return false,
        };
        UnparsedPublicKey::new(self.scheme, &self.key).verify(message, &bytes).is_ok()
    }
}

/// A quote in a request, in base64url and hex.
#[derive(Debug, Clone, Copy)]
pub struct QuoteEvidence<'a> {
    /// `TPMS_ATTEST`.
    pub quote: &'a str,
    /// `TPMT_SIGNATURE`.
    pub signature: &'a str,
    /// The values of the PCRs.
    pub pcrs: &'a BTreeMap<String, String>,
}

/// What a quote must be bound to.
#[derive(Debug, Clone, Copy)]
pub struct Challenge<'a> {
    /// The gate's name.
    pub gate: &'a str,
    /// The nonce.
    pub nonce: &'a [u8],
    /// The device.
    pub device: &'a DeviceId,
}

/// Why a quote is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// The quote is not base64url, or too long.
    #[error("it is not base64url, or too long")]
    Encoding,
    /// The signature cannot be parsed.
    #[error("its signature is not a TPMT_SIGNATURE by ECDSA or RSASSA with SHA-256")]
    SignatureFormat,
    /// The signature is wrong.
    #[error("its signature is not by the enrolled attestation key")]
    Signature,
    /// The structure is not a quote.
    #[error("it is not a TPMS_ATTEST of a quote")]
    NotQuote,
    /// The qualifying data is wrong.
    #[error("its qualifying data is not that of this challenge")]
    QualifyingData,
    /// The request contains too many PCRs.
    #[error("the request contains too many PCRs")]
    TooManyPcrs,
    /// A value is missing.
    #[error("the value of {0}, which was quoted, is missing")]
    MissingPcr(String),
    /// A value was not quoted.
    #[error("{0:?} was not quoted")]
    ExtraPcr(String),
    /// The digest does not match.
    #[error("the PCR values are not those that were quoted")]
    PcrValues,
}

/// Verifies that the enrolled key signed the quote for this gate and this nonce, and that the PCR values are the quoted ones. The policy decides whether
/// the values are acceptable.
///
/// # Errors
///
/// Refuses a quote that does not verify, and a device without a usable attestation key.
pub fn verify(
    sent: QuoteEvidence<'_>,
    ak: Option<&str>,
    challenge: Challenge<'_>,
) -> Result<VerifiedEvidence, Refusal> {
    let ak = ak.ok_or_else(|| {
        Refusal::forbidden("G-ATT-03", "no attestation key is enrolled for this device")
            .with_missing(["enrolled attestation key"])
    })?;
    let ak = AttestationKey::from_pem(ak).map_err(|error| {
        Refusal::damaged("G-SRV-03", format!("this device's enrolled attestation key is invalid: {error}"))
    })?;
    let pcrs = verify_quote(sent, &ak, challenge).map_err(|error| {
        tracing::debug!(%error, "quote refused");
        Refusal::forbidden("G-ATT-04", format!("the quote is refused: {error}")).with_missing(["tpm2 quote"])
    })?;
    tracing::debug!(pcrs = ?pcrs.keys(), "quote verified");
    Ok(VerifiedEvidence { kind: EvidenceKind::Tpm2, tier: TrustTier::Affirming, pcrs, ..VerifiedEvidence::none() })
}

fn verify_quote(
    sent: QuoteEvidence<'_>,
    ak: &AttestationKey,
    Challenge { gate, nonce, device }: Challenge<'_>,
) -> Result<BTreeMap<String, [u8; 32]>, QuoteError> {
    let decode = |text: &str| (text.len() <= parse::MAX_ENCODED).then(|| from_base64url(text)).flatten();
    let bytes = decode(sent.quote).ok_or(QuoteError::Encoding)?;
    let signature = decode(sent.signature).and_then(|bytes| QuoteSignature::parse(&bytes));
    if !ak.verify(&bytes, &signature.ok_or(QuoteError::SignatureFormat)?) {
        return Err(QuoteError::Signature);
    }
    let quote = Quote::parse(&bytes).ok_or(QuoteError::NotQuote)?;
    if !bool::from(quote.extra_data.as_slice().ct_eq(quote_data(gate, nonce, device).as_bytes())) {
        return Err(QuoteError::QualifyingData);
    }
    quoted_values(&quote, sent.pcrs)
}

/// The values of exactly the quoted PCRs, if the quote's digest covers them.
fn quoted_values(quote: &Quote, sent: &BTreeMap<String, String>) -> Result<BTreeMap<String, [u8; 32]>, QuoteError> {
    if sent.len() > MAX_PCRS {
        return Err(QuoteError::TooManyPcrs);
    }
    let mut digested = Vec::new();
    let mut values = BTreeMap::new();
    for index in &quote.sha256_pcrs {
        let name = format!("sha256:{index}");
        let value = sent.get(&name).and_then(|text| from_hex(text)).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let Some(value) = value else { return Err(QuoteError::MissingPcr(name)) };
        digested.extend_from_slice(&value);
        values.insert(name, value);
    }
    if let Some(extra) = sent.keys().find(|name| !values.contains_key(*name)) {
        return Err(QuoteError::ExtraPcr(extra.chars().take(20).collect()));
    }
    if !bool::from(quote.pcr_digest.as_slice().ct_eq(&sha256(&[&digested]))) {
        return Err(QuoteError::PcrValues);
    }
    Ok(values)
}

/// The PCRs of the policy that were not quoted or whose values are not allowed.
pub fn unmet_pcrs(policy: &PcrPolicy, values: &BTreeMap<String, [u8; 32]>) -> BTreeSet<String> {
    let is_met = |name: &String, allowed: &Vec<String>| {
        values
            .get(name)
            .is_some_and(|value| allowed.iter().filter_map(|text| from_hex(text)).any(|allowed| allowed == value))
    };
    policy.iter().filter(|(name, allowed)| !is_met(name, allowed)).map(|(name, _)| format!("pcr {name}")).collect()
}

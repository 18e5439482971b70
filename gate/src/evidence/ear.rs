//! EAT Attestation Results, the statements of a verifier about a device, as JWT (RFC 9711, RFC 9334, draft-ietf-rats-ear).

use std::collections::BTreeMap;

use jsonwebtoken::jwk::KeyAlgorithm;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use super::VerifiedEvidence;
use super::jwks::{VerifierKeys, allows_verification};
use crate::attestation::{EvidenceKind, TrustTier};
use crate::bounds::JsonBounds;
use crate::config::{SignatureAlgorithm, VerifierSettings};
use crate::encoding::from_base64url;
use crate::error::Result;
use crate::refusal::Refusal;

/// The maximum length of a JWT, in characters.
const MAX_JWT: usize = 32 * 1024;
/// The most that the header and the claims of a JWT need.
const HEADER: JsonBounds = JsonBounds { length: 8 * 1024, depth: 4, values: 128 };
const CLAIMS: JsonBounds = JsonBounds { length: MAX_JWT, depth: 16, values: 2048 };
/// How far the verifier's clock may be ahead, in seconds.
const MAX_SKEW: u64 = 60;
/// The maximum number of appraisals in a result.
const MAX_SUBMODS: usize = 32;

/// A verifier whose attestation results are accepted.
#[derive(Debug)]
pub struct Verifier {
    name: String,
    settings: VerifierSettings,
    /// Its public keys.
    pub keys: VerifierKeys,
}

/// Why an attestation result is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EarError {
    /// No verifier is configured.
    #[error("no verifier is configured")]
    NoVerifier,
    /// The JWT is too long.
    #[error("it is longer than {MAX_JWT} characters")]
    TooLong,
    /// The text is not a JWT.
    #[error("it is not a JWT")]
    NotJwt,
    /// The settings do not list the algorithm.
    #[error("its algorithm is not accepted")]
    Algorithm,
    /// The keys of the verifier cannot be loaded.
    #[error("the keys of the verifier are not available")]
    KeysUnavailable,
    /// The verifier has no such key.
    #[error("the verifier has no key with this id")]
    UnknownKey,
    /// The key is for another algorithm.
    #[error("its algorithm is not that of the key")]
    KeyAlgorithm,
    /// The key's type is not supported.
    #[error("the type of the verifier's key is not supported")]
    KeyType,
    /// The signature or a registered claim (`exp`, `nbf`, `iss`, `aud`) is not valid.
    #[error("its verification failed ({0})")]
    Invalid(String),
    /// There is no `eat_nonce`.
    #[error("it has no eat_nonce, so it could be a replay")]
    NoNonce,
    /// `eat_nonce` is not the nonce of this challenge.
    #[error("its eat_nonce is not the nonce of this challenge")]
    OtherNonce,
    /// The result is about another device.
    #[error("its claim {0} is not this device's id")]
    OtherDevice(String),
    /// There is no `iat`.
    #[error("it has no time of issue (iat)")]
    NoTime,
    /// `iat` is in the future.
    #[error("its time of issue (iat) is in the future")]
    FutureTime,
    /// There are no appraisals, or too many.
    #[error("it has no appraisals (submods), or too many")]
    Submods,
    /// The status of an appraisal is unknown.
    #[error("an appraisal has no known ear.status")]
    Status,
}

impl Verifier {
    /// A verifier from the settings.
    ///
    /// # Errors
    ///
    /// Fails if the HTTP client for its keys cannot be created.
    pub fn new(name: &str, settings: &VerifierSettings, base: &std::path::Path) -> Result<Self> {
        super::jwt::install();
        let keys = VerifierKeys::new(&settings.jwks, base, settings.cache.into())?;
        Ok(Self { name: name.to_owned(), settings: settings.clone(), keys })
    }

    fn accepts(&self, algorithm: Algorithm) -> bool {
        let algorithm = match algorithm {
            Algorithm::ES256 => SignatureAlgorithm::Es256,
            Algorithm::EdDSA => SignatureAlgorithm::EdDsa,
            _ => return false,
        };
        self.settings.algorithms.contains(&algorithm)
    }

    /// The claims of a JWT that this verifier signed.
    async fn verify_jwt(&self, token: &str) -> Result<Value, EarError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| EarError::NotJwt)?;
        if !self.accepts(header.alg) {
            return Err(EarError::Algorithm);
        }
        let found = self.keys.find(header.kid.as_deref()).await.map_err(|_| EarError::KeysUnavailable)?;
        let jwk = found.filter(allows_verification).ok_or(EarError::UnknownKey)?;
        // RFC 7517 section 4.4: a key with an algorithm is for this algorithm only.
        if !matches!(
            (jwk.common.key_algorithm, header.alg),
            (None, _) | (Some(KeyAlgorithm::ES256), Algorithm::ES256) | (Some(KeyAlgorithm::EdDSA), Algorithm::EdDSA)
        ) {
            return Err(EarError::KeyAlgorithm);
        }
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| EarError::KeyType)?;
        let data = jsonwebtoken::decode::<Value>(token, &key, &self.validation(header.alg))
            .map_err(|error| EarError::Invalid(error.to_string()))?;
        tracing::debug!(verifier = self.name, algorithm = ?header.alg, "signature of an attestation result verified");
        Ok(data.claims)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = MAX_SKEW;
        validation.validate_exp = true;
        validation.validate_nbf = true;
        validation.required_spec_claims.clear();
        if let Some(issuer) = &self.settings.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".into());
        }
        match &self.settings.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.required_spec_claims.insert("aud".into());
            }
            None => validation.validate_aud = false,
        }
        validation
    }

    /// Checks that the claims are about this device, for this nonce, and reads the lowest tier of all appraisals.
    fn check_claims(&self, claims: Value, nonce: &str, device: &str, now: u64) -> Result<VerifiedEvidence, EarError> {
        // RFC 9711 section 4.1: one nonce or several.
        let is_fresh = match claims.get("eat_nonce") {
            Some(Value::String(one)) => one == nonce,
            Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(nonce)),
            _ => return Err(EarError::NoNonce),
        };
        if !is_fresh {
            return Err(EarError::OtherNonce);
        }
        let claim = &self.settings.device_claim;
        if claim_at(&claims, claim).and_then(Value::as_str) != Some(device) {
            return Err(EarError::OtherDevice(claim.clone()));
        }
        let issued = claims.get("iat").and_then(Value::as_u64).ok_or(EarError::NoTime)?;
        if issued > now.saturating_add(MAX_SKEW) {
            return Err(EarError::FutureTime);
        }
        let submods = claims.get("submods").and_then(Value::as_object);
        let submods = submods.filter(|all| (1..=MAX_SUBMODS).contains(&all.len())).ok_or(EarError::Submods)?;
        let tiers = submods.values().map(|submod| submod.get("ear.status").and_then(TrustTier::from_claim));
        // `None`, an unknown status, is lower than any tier.
        let tier = tiers.min().flatten().ok_or(EarError::Status)?;
        Ok(VerifiedEvidence {
            kind: EvidenceKind::Ear,
            tier,
            age: now.saturating_sub(issued),
            verifier: Some(self.name.clone()),
            claims,
            pcrs: BTreeMap::new(),
        })
    }
}

/// Verifies an attestation result of one of these verifiers, for this nonce and this device.
///
/// # Errors
///
/// Refuses a result that no verifier signed, or that is about another device, another nonce or another time.
pub async fn verify(
    token: &str,
    verifiers: &BTreeMap<String, Verifier>,
    nonce: &str,
    device: &str,
    now: u64,
) -> Result<VerifiedEvidence, Refusal> {
    let verified = verify_with_any(token, verifiers, nonce, device, now).await;
    if let Ok(evidence) = &verified {
        tracing::debug!(tier = evidence.tier.name(), age = evidence.age, "attestation result verified");
    }
    verified.map_err(|error| {
        tracing::debug!(%error, "attestation result refused");
        Refusal::forbidden("G-ATT-02", format!("the attestation result is refused: {error}")).with_missing(["ear"])
    })
}

async fn verify_with_any(
    token: &str,
    verifiers: &BTreeMap<String, Verifier>,
    nonce: &str,
    device: &str,
    now: u64,
) -> Result<VerifiedEvidence, EarError> {
    if token.len() > MAX_JWT {
        return Err(EarError::TooLong);
    }
    check_bounds(token).ok_or(EarError::NotJwt)?;
    let mut last = EarError::NoVerifier;
    for verifier in verifiers.values() {
        match verifier.verify_jwt(token).await {
            Ok(claims) => return verifier.check_claims(claims, nonce, device, now),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Checks the parts of a JWT before any is parsed.
fn check_bounds(token: &str) -> Option<()> {
    let (header, rest) = token.split_once('.')?;
    let (claims, signature) = rest.split_once('.')?;
    HEADER.check(&from_base64url(header)?).ok()?;
    CLAIMS.check(&from_base64url(claims)?).ok()?;
    (!signature.contains('.')).then_some(())
}

/// The claim at a dotted path. Names of claims can contain dots (`ear.status`), so the longest matching name wins at each step.
pub fn claim_at<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(claims);
    }
    let object = claims.as_object()?;
    let ends: Vec<usize> = path.match_indices('.').map(|(at, _)| at).chain([path.len()]).collect();
    ends.into_iter().rev().find_map(|end| {
        let (name, rest) = path.split_at_checked(end)?;
        claim_at(object.get(name)?, rest.strip_prefix('.').unwrap_or(rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_claims_by_path() {
        let claims = json!({"submods": {"a.b": {"ear.status": 2}}, "x": 1});
        assert_eq!(claim_at(&claims, "submods.a.b.ear.status"), Some(&json!(2)));
        assert_eq!(claim_at(&claims, "x"), Some(&json!(1)));
        for path in ["y", "x.y", "submods.a", "submods.a.b.ear.status.z", "."] {
            assert_eq!(claim_at(&claims, path), None, "{path}");
        }
    }
}

//! EAT Attestation Results: what a verifier says of a device (RFC 9711, RFC 9334, draft-ietf-rats-ear), as JWT.

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use super::jwks::{Jwks, is_for_verifying};
use super::{Finding, Kind, Tier};
use crate::config::Verifier;
use crate::error::Result;
use crate::refusal::Refusal;

/// The longest JWT, in characters.
const LONGEST: usize = 32 * 1024;
/// How far the verifier's clock may be ahead, in seconds.
const SKEW: u64 = 60;
/// How many verifiers' parts of a result are looked at.
const SUBMODS: usize = 32;

/// A verifier and its keys.
#[derive(Debug)]
pub struct Known {
    name: String,
    rules: Verifier,
    /// Its keys.
    pub jwks: Jwks,
}

impl Known {
    /// A verifier of the settings.
    pub fn new(name: &str, rules: &Verifier, base: &std::path::Path) -> Result<Self> {
        super::jwt::install();
        let jwks = Jwks::new(&rules.jwks, base, rules.cache.into())?;
        Ok(Self { name: name.to_owned(), rules: rules.clone(), jwks })
    }

    /// The algorithms, all of which the settings name.
    fn algorithms(&self) -> Vec<Algorithm> {
        let known = [("ES256", Algorithm::ES256), ("EdDSA", Algorithm::EdDSA)];
        known
            .into_iter()
            .filter(|(name, _)| self.rules.algorithms.contains(*name))
            .map(|(_, algorithm)| algorithm)
            .collect()
    }

    /// The claims, if the token is this verifier's; what is wrong, if it is not.
    async fn claims(&self, token: &str) -> std::result::Result<Value, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| "it is no JWT".to_owned())?;
        let algorithms = self.algorithms();
        if !algorithms.contains(&header.alg) {
            return Err(format!("its algorithm is not one of {:?}", self.rules.algorithms));
        }
        let found = self
            .jwks
            .find(header.kid.as_deref())
            .await
            .map_err(|_| "the verifier's keys cannot be had now".to_owned())?;
        let jwk = found.filter(is_for_verifying).ok_or("no key of the verifier has the id that it names")?;
        // A key that says what it is for is used for nothing else (RFC 7517 section 4.4).
        if jwk.common.key_algorithm.is_some_and(|of_key| of_key.to_string() != format!("{:?}", header.alg)) {
            return Err("its algorithm is not that of the key it names".into());
        }
        let key =
            DecodingKey::from_jwk(&jwk).map_err(|_| "the verifier's key is of a kind that is not known".to_owned())?;
        let mut rules = Validation::new(header.alg);
        rules.leeway = SKEW;
        rules.validate_exp = true;
        rules.validate_nbf = true;
        rules.required_spec_claims.clear();
        if let Some(issuer) = &self.rules.issuer {
            rules.set_issuer(&[issuer]);
            rules.required_spec_claims.insert("iss".into());
        }
        match &self.rules.audience {
            Some(audience) => {
                rules.set_audience(&[audience]);
                rules.required_spec_claims.insert("aud".into());
            }
            None => rules.validate_aud = false,
        }
        let data = jsonwebtoken::decode::<Value>(token, &key, &rules)
            .map_err(|error| format!("it does not verify ({error})"))?;
        Ok(data.claims)
    }
}

/// Verifies a result with the verifiers that are known, for this nonce and this device.
pub async fn verify(
    token: &str,
    verifiers: &BTreeMap<String, Known>,
    nonce: &str,
    device: &str,
    now: u64,
) -> std::result::Result<Finding, Refusal> {
    let refused = |why: String| {
        Refusal::forbidden("G-ATT-02", format!("the attestation result is refused: {why}")).missing(vec!["ear".into()])
    };
    if token.len() > LONGEST {
        return Err(refused(format!("it is longer than {LONGEST} characters")));
    }
    let mut why = "no verifier is configured".to_owned();
    for known in verifiers.values() {
        match known.claims(token).await {
            Ok(claims) => return appraise(known, claims, nonce, device, now).map_err(refused),
            Err(error) => why = error,
        }
    }
    Err(refused(why))
}

fn appraise(known: &Known, claims: Value, nonce: &str, device: &str, now: u64) -> std::result::Result<Finding, String> {
    // RFC 9711 section 4.1: one nonce, or several.
    let is_fresh = match claims.get("eat_nonce") {
        Some(Value::String(one)) => one == nonce,
        Some(Value::Array(many)) => many.iter().any(|one| one.as_str() == Some(nonce)),
        _ => return Err("it has no eat_nonce, so that it may be of any time".into()),
    };
    if !is_fresh {
        return Err("its eat_nonce is not that of this challenge".into());
    }
    let claim = &known.rules.device_claim;
    if at(&claims, claim).and_then(Value::as_str) != Some(device) {
        return Err(format!("its claim {claim} is not this device's id"));
    }
    let issued = claims.get("iat").and_then(Value::as_u64).ok_or("it does not say when it was made (iat)")?;
    if issued > now.saturating_add(SKEW) {
        return Err("it was made in the future (iat)".into());
    }
    let submods =
        claims.get("submods").and_then(Value::as_object).filter(|all| !all.is_empty() && all.len() <= SUBMODS);
    let submods = submods.ok_or("it appraises nothing (submods)")?;
    let tier = submods.values().map(|submod| submod.get("ear.status").and_then(Tier::read)).min().flatten();
    // One that is not understood counts as nothing: `None` is less than any tier.
    let tier = tier.ok_or("an appraisal has no ear.status that is known")?;
    let age = now.saturating_sub(issued);
    Ok(Finding { kind: Kind::Ear, tier, age, verifier: Some(known.name.clone()), claims, pcrs: BTreeMap::new() })
}

/// A claim by its path. Names of claims hold dots themselves (`ear.status`), so that at each step the longest name that is there counts.
pub fn at<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(claims);
    }
    let object = claims.as_object()?;
    let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
    let ends: Vec<usize> = ends.collect();
    ends.into_iter().rev().find_map(|end| {
        let (name, rest) = path.split_at_checked(end)?;
        at(object.get(name)?, rest.strip_prefix('.').unwrap_or(rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_are_found_by_path() {
        let claims = json!({"submods": {"a.b": {"ear.status": 2}}, "x": 1});
        assert_eq!(at(&claims, "submods.a.b.ear.status"), Some(&json!(2)));
        assert_eq!(at(&claims, "x"), Some(&json!(1)));
        for path in ["y", "x.y", "submods.a", "submods.a.b.ear.status.z", "."] {
            assert_eq!(at(&claims, path), None, "{path}");
        }
    }
}

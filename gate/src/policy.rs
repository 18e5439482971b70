//! The rules of a cohort: whether verified evidence is enough. Pure.

use serde_json::Value;

use crate::attestation::{EvidenceKind, TrustTier};
use crate::config::{CohortRules, GateConfig};
use crate::enrolment::Enrolment;
use crate::evidence::{VerifiedEvidence, ear, tpm};
use crate::refusal::Refusal;

/// Checks that the evidence satisfies the rules of a cohort.
///
/// # Errors
///
/// Refuses with the rule that is not satisfied and with what is missing.
pub fn check(
    config: &GateConfig,
    name: &str,
    evidence: &VerifiedEvidence,
    enrolment: Option<&Enrolment>,
) -> Result<(), Refusal> {
    let Some(cohort) = config.cohorts.get(name) else {
        return Err(Refusal::forbidden("G-ATT-01", "this gate does not serve this cohort")
            .with_missing([format!("cohort {name}")]));
    };
    if !cohort.accepts(evidence.kind) {
        let accepted: Vec<&str> =
            EvidenceKind::ALL.into_iter().filter(|kind| cohort.accepts(*kind)).map(EvidenceKind::label).collect();
        let reason = format!("{name} requires {}, not {}", accepted.join(" or "), evidence.kind.label());
        return Err(Refusal::forbidden("G-ATT-05", reason).with_missing(accepted));
    }
    if evidence.tier < cohort.least {
        let reason =
            format!("{name} requires the trust tier {}; this device has {}", cohort.least.name(), evidence.tier.name());
        return Err(Refusal::forbidden("G-ATT-06", reason).with_missing([format!("tier {}", cohort.least.name())]));
    }
    match evidence.kind {
        EvidenceKind::None => Ok(()),
        EvidenceKind::Ear => check_attestation_result(name, cohort, evidence),
        EvidenceKind::Tpm2 => check_quote(config, name, cohort, evidence, enrolment),
    }
}

fn check_attestation_result(name: &str, cohort: &CohortRules, evidence: &VerifiedEvidence) -> Result<(), Refusal> {
    let verifier = evidence.verifier.as_deref().unwrap_or_default();
    if cohort.verifiers.as_ref().is_some_and(|accepted| !accepted.contains(verifier)) {
        return Err(Refusal::forbidden("G-ATT-07", format!("{name} does not accept results of this verifier"))
            .with_missing(["verifier"]));
    }
    if evidence.age > cohort.max_age.seconds() {
        let reason = format!(
            "the attestation result is {} s old; {name} accepts at most {} s",
            evidence.age,
            cohort.max_age.seconds()
        );
        return Err(Refusal::forbidden("G-ATT-09", reason).with_missing(["fresh result"]));
    }
    let unmet = cohort.claims.iter().filter(|(path, allowed)| {
        !ear::claim_at(&evidence.claims, path).is_some_and(|found| claim_matches(found, allowed))
    });
    let unmet: Vec<String> = unmet.map(|(path, _)| format!("claim {path}")).collect();
    if unmet.is_empty() {
        return Ok(());
    }
    Err(Refusal::forbidden("G-ATT-10", format!("the attestation result lacks claims that {name} requires"))
        .with_missing(unmet))
}

fn check_quote(
    config: &GateConfig,
    name: &str,
    cohort: &CohortRules,
    evidence: &VerifiedEvidence,
    enrolment: Option<&Enrolment>,
) -> Result<(), Refusal> {
    let policy = enrolment.and_then(|enrolment| enrolment.pcrs.as_ref()).or(cohort.pcrs.as_ref());
    let Some(policy) = policy.and_then(|policy| config.pcrs.get(policy)) else {
        return Err(Refusal::forbidden("G-ATT-11", format!("no PCR policy applies to this device in {name}"))
            .with_missing(["PCR policy"]));
    };
    let unmet = tpm::unmet_pcrs(policy, &evidence.pcrs);
    if unmet.is_empty() && evidence.tier == TrustTier::Affirming {
        return Ok(());
    }
    let unmet: Vec<String> = unmet.into_iter().collect();
    let reason = format!("the device's state does not satisfy the PCR policy of {name}: {}", unmet.join(", "));
    Err(Refusal::forbidden("G-ATT-12", reason).with_missing(unmet))
}

/// Whether a claim has the allowed value, or one of the allowed values.
fn claim_matches(found: &Value, allowed: &toml::Value) -> bool {
    match allowed {
        toml::Value::Array(values) => values.iter().any(|value| claim_matches(found, value)),
        toml::Value::String(text) => found.as_str() == Some(text),
        toml::Value::Integer(number) => found.as_i64() == Some(*number),
        toml::Value::Boolean(truth) => found.as_bool() == Some(*truth),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn matches_one_or_several_allowed_values() {
        let allowed = |text: &str| toml::from_str::<toml::Table>(&format!("v = {text}")).unwrap().remove("v").unwrap();
        for (found, value, expected) in [
            (json!("a"), "\"a\"", true),
            (json!("b"), "[\"a\", \"b\"]", true),
            (json!(["a"]), "\"a\"", false),
            (json!(1), "1", true),
            (json!("1"), "1", false),
            (json!(true), "true", true),
            (json!(1), "true", false),
            (json!(null), "[]", false),
            (json!({}), "{}", false),
        ] {
            assert_eq!(claim_matches(&found, &allowed(value)), expected, "{found} {value}");
        }
    }
}

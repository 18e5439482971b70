//! Whether what a device has shown is enough for a cohort. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::{Cohort, Config};
use crate::enrolment::Enrolment;
use crate::evidence::{Finding, Kind, Tier, ear, tpm};
use crate::refusal::Refusal;

/// Lets the finding into the cohort, or says what is missing.
pub fn decide(config: &Config, name: &str, finding: &Finding, enrolment: Option<&Enrolment>) -> Result<(), Refusal> {
    let Some(cohort) = config.cohorts.get(name) else {
        return Err(Refusal::forbidden("G-ATT-01", "this gate does not open that cohort")
            .missing(vec![format!("cohort {name}")]));
    };
    if !cohort.counts(finding.kind) {
        let wanted: Vec<String> =
            [Kind::None, Kind::Ear, Kind::Tpm2].into_iter().filter(|kind| cohort.counts(*kind)).map(word).collect();
        let why = format!("{name} takes {}, not {}", wanted.join(" or "), word(finding.kind));
        return Err(Refusal::forbidden("G-ATT-05", why).missing(wanted));
    }
    if finding.tier < cohort.least {
        let why = format!("{name} needs a device that is {}; this one is {}", cohort.least.name(), finding.tier.name());
        return Err(Refusal::forbidden("G-ATT-06", why).missing(vec![format!("tier {}", cohort.least.name())]));
    }
    match finding.kind {
        Kind::None => Ok(()),
        Kind::Ear => result(name, cohort, finding),
        Kind::Tpm2 => quote(config, name, cohort, finding, enrolment),
    }
}

fn word(kind: Kind) -> String {
    match kind {
        Kind::None => "no evidence".into(),
        Kind::Ear => "ear".into(),
        Kind::Tpm2 => "tpm2 quote".into(),
    }
}

fn result(name: &str, cohort: &Cohort, finding: &Finding) -> Result<(), Refusal> {
    let verifier = finding.verifier.as_deref().unwrap_or_default();
    if cohort.verifiers.as_ref().is_some_and(|known| !known.contains(verifier)) {
        return Err(Refusal::forbidden("G-ATT-07", format!("{name} does not take results of this verifier"))
            .missing(vec!["verifier".into()]));
    }
    if finding.age > cohort.max_age.as_secs() {
        let why = format!(
            "the attestation result is {} s old; {name} takes none older than {} s",
            finding.age,
            cohort.max_age.as_secs()
        );
        return Err(Refusal::forbidden("G-ATT-09", why).missing(vec!["fresh result".into()]));
    }
    let unmet = cohort
        .claims
        .iter()
        .filter(|(path, wanted)| !ear::at(&finding.claims, path).is_some_and(|found| meets(found, wanted)));
    let unmet: Vec<String> = unmet.map(|(path, _)| format!("claim {path}")).collect();
    if unmet.is_empty() {
        return Ok(());
    }
    Err(Refusal::forbidden("G-ATT-10", format!("the attestation result does not say of the device what {name} needs"))
        .missing(unmet))
}

fn quote(
    config: &Config,
    name: &str,
    cohort: &Cohort,
    finding: &Finding,
    enrolment: Option<&Enrolment>,
) -> Result<(), Refusal> {
    let policy = enrolment.and_then(|enrolment| enrolment.pcrs.as_ref()).or(cohort.pcrs.as_ref());
    let registers: Option<&BTreeMap<_, _>> = policy.and_then(|policy| config.pcrs.get(policy));
    let Some(registers) = registers else {
        return Err(Refusal::forbidden("G-ATT-11", format!("no PCR policy holds for this device in {name}"))
            .missing(vec!["PCR policy".into()]));
    };
    let unmet: Vec<String> = tpm::unmet(registers, &finding.pcrs).into_iter().collect();
    if unmet.is_empty() && finding.tier == Tier::Affirming {
        return Ok(());
    }
    let why = format!("the device's state is not one that {name} takes: {}", unmet.join(", "));
    Err(Refusal::forbidden("G-ATT-12", why).missing(unmet))
}

/// Whether a claim has the value that is wanted, or one of those.
fn meets(found: &Value, wanted: &toml::Value) -> bool {
    match wanted {
        toml::Value::Array(any) => any.iter().any(|wanted| meets(found, wanted)),
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
    fn a_claim_has_the_value_or_one_of_the_values() {
        let wanted = |text: &str| toml::from_str::<toml::Table>(&format!("v = {text}")).unwrap().remove("v").unwrap();
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
            assert_eq!(meets(&found, &wanted(value)), expected, "{found} {value}");
        }
    }
}

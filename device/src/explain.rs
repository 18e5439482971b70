//! `tidegate-device explain`

use std::fmt::Write as _;

use super::arguments::Arguments;
use super::failure::Failure;
use super::output::Output;
use tidegate_client::device::{Device, Update};
use tidegate_client::policy::Judgement;
use tidegate_model::decision::Verdict;
use tidegate_model::gate::Attestation;

pub(super) fn run(device: &mut Device, arguments: &Arguments, output: Output) -> Result<bool, Failure> {
    // The other facts on the command line are among the device's own already. This one comes from the attestor, except for a what-if question.
    let assumed = arguments.facts.iter().rfind(|fact| fact.name.as_str() == Attestation::FACT).map(|fact| {
        let mut facts = device.status().device.own_facts;
        facts.insert(fact.name.clone(), fact.value.clone());
        facts
    });
    let check = device.explain(assumed, arguments.at)?;
    output.repairs(&check.repairs);
    output.remarks(&check.remarks);
    let mut text = check.explanation.to_string();
    // The publisher prints the same explanation. The owner's policy follows it, if there is one.
    let has_rules = |judgement: &&Judgement| judgement.rules.iter().any(|rule| rule.verdict != Verdict::NotApplicable);
    for judgement in check.policy.iter().filter(has_rules) {
        let verdict = if judgement.allows() { "allowed now" } else { "not now" };
        let _ = write!(text, "\nown policy, {}: {verdict}\n{judgement}", judgement.step);
    }
    let ways = check.update.as_ref().map(Update::ways).filter(|ways| !ways.is_empty());
    let _ = ways.map(|ways| write!(text, "\n{ways}"));
    output.result(text, &check)?;
    Ok(true)
}

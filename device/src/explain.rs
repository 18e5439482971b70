//! `tidegate-device explain`

use std::fmt::Write as _;

use super::arguments::Arguments;
use super::failure::Failure;
use super::output::Output;
use tidegate_client::device::Device;
use tidegate_client::policy::Judgement;
use tidegate_model::decision::Verdict;
#[cfg(feature = "gate")]
use tidegate_model::gate::Attestation;

pub(super) fn run(device: &mut Device, arguments: &Arguments, output: Output) -> Result<bool, Failure> {
    #[cfg(not(feature = "gate"))]
    let supposed = None;
    // The other facts that were typed are among the device's own already; this one is the attestor's, but for the question what if.
    #[cfg(feature = "gate")]
    let supposed = arguments.facts.iter().rfind(|fact| fact.name.as_str() == Attestation::FACT).map(|fact| {
        let mut facts = device.status().device.own_facts;
        facts.insert(fact.name.clone(), fact.value.clone());
        facts
    });
    let check = device.explain(supposed, arguments.at)?;
    output.repairs(&check.repairs);
    let explanations = check.on_the_way_to.iter().chain([&check.explanation]).map(ToString::to_string);
    let mut text = explanations.collect::<Vec<_>>().join("\n");
    // What everybody could say of this device stands by itself, as the publisher says it. The owner's policy comes after it, if there is one.
    let speaks = |judgement: &&Judgement| judgement.rules.iter().any(|rule| rule.verdict != Verdict::NotApplicable);
    for judgement in check.policy.iter().filter(speaks) {
        let verdict = if judgement.allows() { "now" } else { "not now" };
        let _ = write!(text, "\nthis device's own policy says to {}: {verdict}\n{judgement}", judgement.step);
    }
    output.result(text, &check)?;
    Ok(true)
}

//! `tidegate-device explain`

use std::fmt::Write as _;

use super::Failure;
use super::output::Output;
use crate::device::Device;
use crate::model::decision::Verdict;
use crate::model::time::Instant;
use crate::policy::Judgement;

pub(super) fn run(device: &mut Device, at: Option<Instant>, output: Output) -> Result<bool, Failure> {
    let check = device.explain(None, at)?;
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

//! `tidegate-device explain`

use std::fmt::Write as _;

use super::Failure;
use super::output::Output;
use crate::device::Device;
use crate::model::time::Instant;

pub(super) fn run(device: &mut Device, at: Option<Instant>, output: Output) -> Result<bool, Failure> {
    let check = device.explain(None, at)?;
    output.repairs(&check.repairs);
    let explanations = check.on_the_way_to.iter().chain([&check.explanation]).map(ToString::to_string);
    let mut text = explanations.collect::<Vec<_>>().join("\n");
    for judgement in &check.policy {
        let verdict = if judgement.allows() { "now" } else { "not now" };
        let _ = write!(text, "\nthis device's own policy says to {}: {verdict}\n{judgement}", judgement.step);
    }
    output.result(text, &check)?;
    Ok(true)
}

//! `tidegate-device check`

use super::failure::{Failure, is_refusal};
use super::output::Output;
use tidegate_client::device::{Device, Update};
use tidegate_model::decision::{Outcome, Rule};

pub(super) fn run(device: &mut Device, output: Output) -> Result<bool, Failure> {
    let check = device.check()?;
    output.repairs(&check.repairs);
    output.remarks(&check.remarks);
    let ways = check.update.as_ref().map(Update::ways).unwrap_or_default();
    output.result(format!("{}\n{ways}", check.explanation.summary().trim_end()), &check)?;
    output.next(match check.outcome() {
        _ if check.update.is_some() => "tidegate-device install fetches and installs it",
        Outcome::Refuse { rule: Rule::Quarantine, .. } => {
            "tidegate-device quarantine shows why it failed, and lets it be tried again"
        }
        _ => "tidegate-device explain shows the reasons",
    });
    Ok(!is_refusal(check.outcome()))
}

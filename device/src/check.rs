//! `tidegate-device check`

use super::failure::{Failure, is_refusal};
use super::output::Output;
use tidegate_client::device::Device;

pub(super) fn run(device: &mut Device, output: Output) -> Result<bool, Failure> {
    let check = device.check()?;
    output.repairs(&check.repairs);
    output.result(check.explanation.summary(), &check)?;
    output.next(if check.update.is_some() {
        "tidegate-device install fetches and installs it"
    } else {
        "tidegate-device explain shows the reasons"
    });
    Ok(!is_refusal(check.outcome()))
}

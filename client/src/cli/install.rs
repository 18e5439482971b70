//! `tidegate-device install`

use serde_json::json;

use super::output::Output;
use super::{Failure, is_refusal};
use crate::device::Device;

pub(super) fn run(device: &mut Device, output: Output) -> Result<bool, Failure> {
    let check = device.check()?;
    output.repairs(&check.repairs);
    let Some(update) = &check.update else {
        output.result(check.outcome().to_string(), &json!({"outcome": check.outcome(), "installed": null}))?;
        return Ok(!is_refusal(check.outcome()));
    };
    let downloaded = device.download(update, &mut output.progress())?;
    let record = device.install(&downloaded)?;
    let text = format!("installed {} (sequence {})", record.release.version, record.release.sequence);
    output.result(text, &json!({"outcome": check.outcome(), "installed": record}))?;
    output.hint("once it runs and is well: tidegate-device confirm");
    Ok(true)
}

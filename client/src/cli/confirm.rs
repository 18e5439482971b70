//! `tidegate-device confirm`

use super::Failure;
use super::output::Output;
use crate::device::Device;

pub(super) fn run(device: &mut Device, output: Output) -> Result<bool, Failure> {
    let record = device.confirm()?;
    output.repairs(&device.status().repairs);
    let text = format!("confirmed {} (sequence {})", record.release.version, record.release.sequence);
    output.result(text, &record)?;
    Ok(true)
}

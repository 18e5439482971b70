//! `tidegate-device download`

use serde_json::json;

use super::output::Output;
use super::{Failure, is_refusal};
use crate::device::Device;

pub(super) fn run(device: &mut Device, output: Output) -> Result<bool, Failure> {
    let check = device.check()?;
    output.repairs(&check.repairs);
    let Some(update) = &check.update else {
        output.result(check.outcome().to_string(), &json!({"outcome": check.outcome(), "downloaded": []}))?;
        return Ok(!is_refusal(check.outcome()));
    };
    let downloaded = device.download(update, &mut output.progress())?;
    let paths: Vec<_> = downloaded.artifacts().iter().map(|artifact| artifact.path.display().to_string()).collect();
    let files: Vec<_> = update
        .artifacts
        .iter()
        .zip(&paths)
        .map(|(artifact, path)| json!({"name": artifact.name, "path": path, "length": artifact.length, "sha256": artifact.sha256}))
        .collect();
    output.result(paths.join("\n"), &json!({"outcome": check.outcome(), "downloaded": files}))?;
    output.hint("tidegate-device install installs it");
    Ok(true)
}

//! `tidegate-device download`

use serde::Serialize;

use super::failure::{Failure, is_refusal};
use super::output::Output;
use tidegate_client::device::{Device, UpdateArtifact};
use tidegate_model::decision::Outcome;

#[derive(Serialize)]
struct Report<'a> {
    outcome: &'a Outcome,
    downloaded: Vec<File<'a>>,
}

#[derive(Serialize)]
struct File<'a> {
    path: String,
    artifact: &'a UpdateArtifact,
}

pub(super) fn run(device: &mut Device, output: Output) -> Result<bool, Failure> {
    let check = device.check()?;
    output.repairs(&check.repairs);
    output.remarks(&check.remarks);
    let outcome = check.outcome();
    let Some(update) = &check.update else {
        output.result(outcome.to_string(), &Report { outcome, downloaded: Vec::new() })?;
        return Ok(!is_refusal(outcome));
    };
    let downloaded = device.download(update, &mut output.progress())?;
    let paths: Vec<_> = downloaded.artifacts().iter().map(|artifact| artifact.path.display().to_string()).collect();
    let text = paths.join("\n");
    let files = paths.into_iter().zip(&update.artifacts).map(|(path, artifact)| File { path, artifact });
    output.result(text, &Report { outcome, downloaded: files.collect() })?;
    output.next("tidegate-device install installs it");
    Ok(true)
}

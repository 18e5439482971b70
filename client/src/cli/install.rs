//! `tidegate-device install`

use serde::Serialize;

use super::output::Output;
use super::{Failure, is_refusal};
use crate::device::{Device, Record};
use crate::model::decision::Outcome;

#[derive(Serialize)]
struct Report<'a> {
    outcome: &'a Outcome,
    installed: Option<&'a Record>,
}

pub(super) fn run(device: &mut Device, output: Output) -> Result<bool, Failure> {
    let check = device.check()?;
    output.repairs(&check.repairs);
    let outcome = check.outcome();
    let Some(update) = &check.update else {
        output.result(outcome.to_string(), &Report { outcome, installed: None })?;
        return Ok(!is_refusal(outcome));
    };
    let downloaded = device.download(update, &mut output.progress())?;
    let record = device.install(&downloaded)?;
    let text = format!("installed {} (sequence {})", record.release.version, record.release.sequence);
    output.result(text, &Report { outcome, installed: Some(&record) })?;
    output.hint("once it runs and is well: tidegate-device confirm");
    Ok(true)
}

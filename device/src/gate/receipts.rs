//! `tidegate-device receipts`, and sending receipts at the end of other commands.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::ReceiptSink;
use crate::failure::Failure;
use crate::output::Output;
use tidegate_client::Error;
use tidegate_client::device::{Device, DeviceBuilder};
use tidegate_client::receipts::{ReceiptStatus, Sending, Sent};
use tidegate_model::receipt::SignedReceipt;
use tidegate_model::time;

/// What `receipts` prints.
#[derive(Serialize)]
struct Report<'a> {
    status: &'a ReceiptStatus,
    waiting: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<&'a Sent>,
}

/// `tidegate-device receipts`
pub(crate) fn show(builder: DeviceBuilder, output: Output) -> Result<bool, Failure> {
    // Also while another process works.
    let (status, waiting) = builder.observe_receipts()?;
    let status = status.ok_or_else(none_kept)?;
    let values = waiting.iter().map(SignedReceipt::to_value).collect();
    output.result(text(&status, &waiting), &Report { status: &status, waiting: values, sent: None })?;
    if status.waiting > 0 {
        output.next("tidegate-device receipts --send sends them now");
    }
    Ok(true)
}

/// `tidegate-device receipts --send`
pub(crate) fn send_now(builder: DeviceBuilder, sink: Option<ReceiptSink>, output: Output) -> Result<bool, Failure> {
    let mut sink = sink.ok_or_else(none_kept)?;
    let mut device = builder.open()?;
    let options = Sending { at_once: true, within: Duration::MAX, ..Sending::default() };
    let sent = device.send_receipts(&mut *sink, options)?;
    let status = device.receipts().ok_or_else(none_kept)?;
    let waiting = device.waiting_receipts().iter().map(SignedReceipt::to_value).collect();
    warn(&sent, output);
    output.result(summary(&sent), &Report { status: &status, waiting, sent: Some(&sent) })?;
    Ok(sent.problem.is_none() && sent.refused.is_empty())
}

fn none_kept() -> Error {
    Error::Setting("no receipts are configured: set \"receipts\" in the file that --config names".into())
}

/// Sends receipts at the end of another command, whose result does not depend on this.
pub(crate) fn send(device: &mut Device, mut sink: ReceiptSink, output: Output) {
    match device.send_receipts(&mut *sink, Sending::default()) {
        Ok(sent) => warn(&sent, output),
        Err(e) => output.warning(&e.to_string()),
    }
}

fn warn(sent: &Sent, output: Output) {
    for refused in &sent.refused {
        output.warning(&format!("receipt rejected permanently and dropped: {refused}"));
    }
    if let Some(problem) = &sent.problem {
        output.warning(&format!("{} not sent: {problem}", count(sent.waiting)));
    }
}

/// Sends receipts during `run`. Returns what to log: the result with its summary if something was sent, and problems.
pub(crate) fn send_in_service(device: &mut Device, mut sink: ReceiptSink) -> (Option<(String, Sent)>, Vec<String>) {
    let held_back = device.receipts().is_some_and(|status| status.until.is_some_and(|until| until > device.now()));
    let sent = match device.send_receipts(&mut *sink, Sending::default()) {
        Ok(sent) => sent,
        Err(e) => return (None, vec![e.to_string()]),
    };
    let rejected = sent.refused.iter().map(|refused| format!("receipt rejected permanently and dropped: {refused}"));
    let problem =
        sent.problem.iter().filter(|_| !held_back).map(|problem| format!("cannot send receipts now: {problem}"));
    let problems = rejected.chain(problem).collect();
    ((sent.sent > 0).then(|| (summary(&sent), sent)), problems)
}

/// The result of sending, in one line.
fn summary(sent: &Sent) -> String {
    let mut text = format!("{} sent", count(sent.sent));
    if !sent.refused.is_empty() {
        let _ = write!(text, ", {} rejected permanently", sent.refused.len());
    }
    if sent.waiting > 0 {
        let _ = write!(text, ", {} pending", sent.waiting);
    }
    text
}

fn count(receipts: usize) -> String {
    if receipts == 1 { "1 receipt".into() } else { format!("{receipts} receipts") }
}

fn text(status: &ReceiptStatus, waiting: &[SignedReceipt]) -> String {
    let mut text = format!("{status}\n");
    for SignedReceipt { receipt, .. } in waiting {
        let what = format!("{} (sequence {})", receipt.release, receipt.sequence);
        let _ =
            write!(text, "{}  {:<11}  {what}, cohort {}", time::format(receipt.at), receipt.outcome, receipt.cohort);
        if let Some(reason) = &receipt.reason {
            let _ = write!(text, ": {reason}");
        }
        text.push('\n');
    }
    text
}

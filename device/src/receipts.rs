//! `tidegate-device receipts`, the settings of receipts, and sending at the end of other commands.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::failure::Failure;
use super::form::path;
use super::output::Output;
use super::setup::Program;
use tidegate_client::Error;
use tidegate_client::clock::{BUILT, FlooredClock, SystemClock};
use tidegate_client::device::{Device, DeviceBuilder};
use tidegate_client::fetch::http::HttpFetch;
use tidegate_client::gate::{GateClient, Signer};
use tidegate_client::key::DeviceKey;
use tidegate_client::receipts::{
    FolderSink, GateSink, Naming, PutSink, ReceiptStatus, Receipts, Sending, Sent, Sink, Urls,
};
use tidegate_model::gate::GateUrl;
use tidegate_model::receipt::SignedReceipt;
use tidegate_model::time;
use tidegate_tuf::fields::{FieldError, expected, whole};

/// The longest time that a program may take that tells a URL.
const URL: Duration = Duration::from_secs(30);

/// How receipts are kept, and where they go.
#[derive(Debug, Clone)]
pub(super) struct ReceiptSetting {
    to: To,
    key: Option<PathBuf>,
    naming: Naming,
}

#[derive(Debug, Clone)]
enum To {
    /// The gate of the device's cohort, or else this one.
    Gate(Option<GateUrl>),
    Folder(PathBuf),
    Put(String),
    Program(Program),
}

impl ReceiptSetting {
    pub(super) fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        whole(value, at, |fields| {
            let gate = fields.optional_parsed("gate")?;
            let to = fields.part("to", |value, at| match value {
                Value::Object(_) => whole(value, at, |fields| Ok(To::Program(fields.part("program", Program::read)?))),
                Value::String(text) => match text.as_str() {
                    "gate" => Ok(To::Gate(gate.clone())),
                    text if text.starts_with("file:") => {
                        let path = text.trim_start_matches("file:");
                        Ok(To::Folder(path.strip_prefix("//").unwrap_or(path).into()))
                    }
                    text if text.contains("://") => Ok(To::Put(text.to_owned())),
                    _ => Err(places(value, at)),
                },
                _ => Err(places(value, at)),
            })?;
            if gate.is_some() && !matches!(to, To::Gate(_)) {
                return Err(FieldError::new(fields.at("gate"), "it is only for \"to\": \"gate\""));
            }
            let namings = [("hash", Naming::Hash), ("id", Naming::Id)];
            Ok(Self {
                to,
                key: path(fields, "key")?,
                naming: if fields.contains("device") { fields.one_of("device", &namings)? } else { Naming::default() },
            })
        })
    }

    /// How to sign. The key is the one that is set here, or else `otherwise`.
    pub(super) fn receipts(&self, folder: &Path, otherwise: Option<&PathBuf>) -> Result<Receipts, Error> {
        let none = || {
            Error::Setting("receipts.key is needed: the file with the device's key, which signs receipts".to_owned())
        };
        let path = folder.join(self.key.as_ref().or(otherwise).ok_or_else(none)?);
        let key = DeviceKey::open(path).map_err(|e| Error::Setting(format!("receipts.key: {e}")))?;
        Ok(Receipts { key, naming: self.naming })
    }

    /// Where to send to, by `http`, and to gates as `gate` knows this device to them, if it does.
    pub(super) fn sink(
        &self,
        folder: &Path,
        http: Arc<HttpFetch>,
        gate: Option<Arc<GateClient>>,
        key: &DeviceKey,
    ) -> Result<Box<dyn Sink>, Error> {
        let urls = match &self.to {
            To::Gate(otherwise) => {
                // Without settings for gates the key that signs receipts says whose they are.
                let signer = || Signer::new(key.clone(), FlooredClock::new(SystemClock::new(), BUILT));
                let gate = gate.unwrap_or_else(|| Arc::new(GateClient::new(http).signer(signer())));
                return Ok(Box::new(GateSink::new(gate, otherwise.clone())));
            }
            To::Folder(path) => return Ok(Box::new(FolderSink::new(folder.join(path)))),
            To::Put(pattern) => Urls::Pattern(pattern.clone()),
            To::Program(program) => Urls::Program(program.command(URL)),
        };
        let sink = PutSink::new(http, urls).map_err(|e| Error::Setting(format!("receipts.to: {e}")))?;
        Ok(Box::new(sink))
    }
}

fn places(value: &Value, at: &str) -> FieldError {
    expected("\"gate\", \"file:FOLDER\", a URL with {name} in it, or {\"program\": [..]}", value, at)
}

/// What `receipts` says.
#[derive(Serialize)]
struct Report<'a> {
    status: &'a ReceiptStatus,
    waiting: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<&'a Sent>,
}

/// `tidegate-device receipts`
pub(super) fn show(builder: DeviceBuilder, output: Output) -> Result<bool, Failure> {
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
pub(super) fn send_now(builder: DeviceBuilder, sink: Option<Box<dyn Sink>>, output: Output) -> Result<bool, Failure> {
    let mut sink = sink.ok_or_else(none_kept)?;
    let mut device = builder.open()?;
    let options = Sending { at_once: true, within: Duration::MAX, ..Sending::default() };
    let sent = device.send_receipts(&mut *sink, options)?;
    let status = device.receipts().ok_or_else(none_kept)?;
    let waiting = device.waiting_receipts().iter().map(SignedReceipt::to_value).collect();
    say(&sent, output);
    output.result(summary(&sent), &Report { status: &status, waiting, sent: Some(&sent) })?;
    Ok(sent.problem.is_none() && sent.refused.is_empty())
}

fn none_kept() -> Error {
    Error::Setting("this device keeps no receipts: set \"receipts\" in the file that --config names".into())
}

/// Sends at the end of a command that did something else, which has gone as it has gone.
pub(super) fn send(device: &mut Device, sink: &mut dyn Sink, output: Output) {
    match device.send_receipts(sink, Sending::default()) {
        Ok(sent) => say(&sent, output),
        Err(e) => output.warning(&e.to_string()),
    }
}

fn say(sent: &Sent, output: Output) {
    for refused in &sent.refused {
        output.warning(&format!("a receipt was refused for good, and is dropped: {refused}"));
    }
    if let Some(problem) = &sent.problem {
        output.warning(&format!("{} wait to be sent: {problem}", count(sent.waiting)));
    }
}

/// What came of sending, in one line.
pub(super) fn summary(sent: &Sent) -> String {
    let mut text = format!("{} sent", count(sent.sent));
    if !sent.refused.is_empty() {
        let _ = write!(text, ", {} refused for good", sent.refused.len());
    }
    if sent.waiting > 0 {
        let _ = write!(text, ", {} waiting", sent.waiting);
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

//! The settings of receipts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::form::path;
use crate::setup::Program;
use tidegate_client::Error;
use tidegate_client::clock::{BUILT, FlooredClock, SystemClock};
use tidegate_client::fetch::http::HttpFetch;
use tidegate_client::gate::{GateClient, Signer};
use tidegate_client::key::DeviceKey;
use tidegate_client::receipts::{FolderSink, GateSink, Naming, PutSink, Receipts, Sink, Urls};
use tidegate_model::gate::GateUrl;
use tidegate_tuf::fields::{FieldError, expected, whole};

/// The time limit of a program that prints a URL.
const URL: Duration = Duration::from_secs(30);

/// How receipts are signed, and their destination.
#[derive(Debug, Clone)]
pub(crate) struct ReceiptSetting {
    to: To,
    key: Option<PathBuf>,
    naming: Naming,
}

#[derive(Debug, Clone)]
enum To {
    /// The gate of the device's cohort, or this one by default.
    Gate(Option<GateUrl>),
    Folder(PathBuf),
    Put(String),
    Program(Program),
}

impl ReceiptSetting {
    pub(crate) fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
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

    /// How to sign. Without a key of its own, receipts are signed with `otherwise`.
    pub(super) fn receipts(&self, folder: &Path, otherwise: Option<&PathBuf>) -> Result<Receipts, Error> {
        let none = || {
            Error::Setting("receipts.key is needed: the file with the device's key, which signs receipts".to_owned())
        };
        let path = folder.join(self.key.as_ref().or(otherwise).ok_or_else(none)?);
        let key = DeviceKey::open(path).map_err(|e| Error::Setting(format!("receipts.key: {e}")))?;
        Ok(Receipts { key, naming: self.naming })
    }

    /// Where to send receipts. Requests to gates use `gate`, or by default a client that signs with `key`.
    pub(super) fn sink(
        &self,
        folder: &Path,
        http: Arc<HttpFetch>,
        gate: Option<Arc<GateClient>>,
        key: &DeviceKey,
    ) -> Result<Box<dyn Sink>, Error> {
        let urls = match &self.to {
            To::Gate(otherwise) => {
                // Without settings for gates, the key that signs receipts also identifies the device to them.
                let signer = || Signer::new(key.clone(), FlooredClock::new(SystemClock::new(), BUILT));
                let gate = gate.unwrap_or_else(|| Arc::new(GateClient::new(http).signer(signer())));
                return Ok(Box::new(GateSink::new(gate, otherwise.clone())));
            }
            To::Folder(path) => return Ok(Box::new(FolderSink::new(folder.join(path)))),
            To::Put(pattern) => Urls::Pattern(pattern.clone()),
            To::Program(program) => Urls::Program(program.command(folder, URL)),
        };
        let sink = PutSink::new(http, urls).map_err(|e| Error::Setting(format!("receipts.to: {e}")))?;
        Ok(Box::new(sink))
    }
}

fn places(value: &Value, at: &str) -> FieldError {
    expected("\"gate\", \"file:FOLDER\", a URL with {name} in it, or {\"program\": [..]}", value, at)
}

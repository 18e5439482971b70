//! The feature `gate`: the settings of gates and receipts.

mod receipt_setting;
pub(super) mod receipts;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::form::path;
use super::setup::{Program, Surroundings};
pub(super) use receipt_setting::ReceiptSetting;
use tidegate_client::Error;
use tidegate_client::clock::{BUILT, FlooredClock, SystemClock};
use tidegate_client::command::Command;
use tidegate_client::device::DeviceBuilder;
use tidegate_client::fetch::http::HttpFetch;
use tidegate_client::fetch::{FetchError, Pass};
use tidegate_client::gate::{Bank, CommandAttestor, Gate, GateClient, Signer, TpmAttestor, TpmOptions, Visit};
use tidegate_client::key::DeviceKey;
use tidegate_client::receipts::Sink;
use tidegate_model::gate::Attestation;
use tidegate_tuf::fields::{FieldError, Fields, quoted, whole};

/// The default time limit for evidence.
const EVIDENCE: Duration = Duration::from_secs(30);

/// The destination of receipts.
pub(super) type ReceiptSink = Box<dyn Sink>;

/// Gives the device its gate client and its receipts, as the settings have them. Adds what cannot be used to `problems`, except for the settings
/// of receipts, whose error is returned beside the device: the caller knows whether its command needs them.
pub(super) fn connect(
    mut builder: DeviceBuilder,
    gate: Option<&GateSetting>,
    receipts: Option<&ReceiptSetting>,
    surroundings: Surroundings<'_>,
    problems: &mut Vec<String>,
) -> (DeviceBuilder, Result<Option<ReceiptSink>, Error>) {
    let Surroundings { folder, state, http, client_key } = surroundings;
    let client = gate.map(|gate| gate.client(folder, state, http.clone()).map(Arc::new)).transpose();
    let client = match client {
        Ok(Some(client)) => {
            builder = builder.gate(client.clone());
            Some(client)
        }
        Ok(None) => None,
        Err(e) => {
            builder = builder.gate(Unusable(e.to_string()));
            problems.push(format!("no gate can be entered: {e}"));
            None
        }
    };
    let Some(setting) = receipts else { return (builder, Ok(None)) };
    let key = gate.and_then(|gate| gate.key.as_ref());
    let made = setting.receipts(folder, key.or(client_key)).and_then(|receipts| {
        let sink = setting.sink(folder, http, client, &receipts.key)?;
        Ok((receipts, sink))
    });
    match made {
        Ok((receipts, sink)) => (builder.receipts(receipts), Ok(Some(sink))),
        Err(e) => (builder, Err(e)),
    }
}

/// How this device identifies itself to gates.
#[derive(Debug, Clone)]
pub(super) struct GateSetting {
    /// The device's key. Default: none, for devices with a client certificate.
    key: Option<PathBuf>,
    attestor: Option<AttestorSetting>,
}

#[derive(Debug, Clone)]
enum AttestorSetting {
    Command {
        program: Program,
        gives: Attestation,
    },
    /// The options without the program.
    Tpm2 {
        options: Box<TpmOptions>,
        program: Option<Program>,
    },
}

impl GateSetting {
    pub(super) fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        whole(value, at, |fields| {
            Ok(Self { key: path(fields, "key")?, attestor: fields.optional_part("attestor", attestor)?.flatten() })
        })
    }

    /// A client of gates over `http`. Paths are relative to `folder`; temporary files go to the folder `state`.
    fn client(&self, folder: &Path, state: &Path, http: Arc<HttpFetch>) -> Result<GateClient, Error> {
        let wrong = |what: &str, e: &dyn std::fmt::Display| Error::Setting(format!("gate.{what}: {e}"));
        let mut client = GateClient::new(http);
        if let Some(key) = &self.key {
            let key = DeviceKey::open(folder.join(key)).map_err(|e| wrong("key", &e))?;
            client = client.signer(Signer::new(key, FlooredClock::new(SystemClock::new(), BUILT)));
        }
        Ok(match &self.attestor {
            None => client,
            Some(AttestorSetting::Command { program, gives }) => {
                client.attestor(CommandAttestor::new(program.command(folder, EVIDENCE), *gives))
            }
            Some(AttestorSetting::Tpm2 { options, program }) => {
                let mut options = TpmOptions::clone(options);
                if !is_handle(&options.key) {
                    options.key = folder.join(&options.key).to_string_lossy().into_owned();
                }
                let tool = || Command::new(["tpm2_quote".to_owned()], EVIDENCE).in_folder(folder);
                options.program = Some(program.as_ref().map_or_else(tool, |program| program.command(folder, EVIDENCE)));
                let attestor = TpmAttestor::new(options, state);
                client.attestor(attestor.map_err(|e| wrong("attestor", &e))?)
            }
        })
    }
}

fn attestor(value: &Value, at: &str) -> Result<Option<AttestorSetting>, FieldError> {
    whole(value, at, |fields| match fields.text("kind")? {
        "none" => Ok(None),
        "command" => Ok(Some(AttestorSetting::Command {
            program: fields.part("program", Program::read)?,
            gives: fields.parsed("gives")?,
        })),
        "tpm2" => tpm(fields).map(Some),
        other => {
            let why = format!("{} is unknown: use one of tpm2, command, none", quoted(other));
            Err(FieldError::new(fields.at("kind"), why))
        }
    })
}

fn tpm(fields: &mut Fields<'_>) -> Result<AttestorSetting, FieldError> {
    let pcr = |value: &Value, at: &str| {
        let number = value.as_u64().and_then(|number| u8::try_from(number).ok());
        number.ok_or_else(|| FieldError::new(at, "a register is a number of 0 to 23"))
    };
    let pcrs: Vec<u8> = fields.list("pcrs", 24, pcr)?;
    let options = TpmOptions {
        key: fields.text("key")?.to_owned(),
        auth: fields.optional_text("auth")?.map(str::to_owned),
        tcti: fields.optional_text("tcti")?.map(str::to_owned),
        bank: if fields.contains("bank") { fields.one_of("bank", &Bank::ALL)? } else { Bank::default() },
        pcrs: BTreeSet::from_iter(pcrs),
        program: None,
    };
    // Also if no quote is requested.
    TpmAttestor::new(options.clone(), "").map_err(|why| FieldError::new(fields.here(), why))?;
    Ok(AttestorSetting::Tpm2 { options: Box::new(options), program: fields.optional_part("program", Program::read)? })
}

/// Whether it is a handle in the notation of tpm2-tools, and not a file.
fn is_handle(key: &str) -> bool {
    key.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x"))
}

/// A gate that cannot be entered because of an error in this device's own settings. Public cohorts do not need it.
#[derive(Debug)]
struct Unusable(String);

impl Gate for Unusable {
    fn attestation(&self) -> Option<Attestation> {
        None
    }

    fn enter(&self, visit: &Visit, _: bool) -> Result<Arc<dyn Pass + Send + Sync>, FetchError> {
        Err(FetchError::Evidence { url: visit.gate.to_string(), reason: self.0.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_of_gates_are_read_strictly() {
        let tpm = |more: &str, value: Value| {
            let mut setting = json!({"kind": "tpm2", "key": "0x81010002", "pcrs": [0, 7]});
            setting[more] = value;
            json!({"attestor": setting})
        };
        for good in [
            json!({}),
            json!({"key": "device.key"}),
            json!({"attestor": {"kind": "none"}}),
            json!({"attestor": {"kind": "command", "program": ["attest"], "gives": "ear"}}),
            tpm("bank", json!("sha384")),
            tpm("program", json!({"program": ["tpm2_quote"], "limit": "5s"})),
            tpm("key", json!("ak.ctx")),
        ] {
            assert!(GateSetting::read(&good, "gate").is_ok(), "{good}");
        }
        for (bad, expected) in [
            (json!({"keys": "device.key"}), "keys"),
            (json!({"attestor": {"kind": "tpm"}}), "tpm2, command, none"),
            (json!({"attestor": {"kind": "command", "program": ["attest"]}}), "gives"),
            (json!({"attestor": {"kind": "command", "program": ["attest"], "gives": "none"}}), "tpm2, ear"),
            (tpm("pcrs", json!([24])), "0 to 23"),
            (tpm("pcrs", json!([-1])), "0 to 23"),
            (tpm("pcrs", json!([])), "at least one"),
            (tpm("bank", json!("sha1")), "sha256, sha384, sha512"),
            (tpm("key", json!("")), "attestation key"),
            (tpm("pin", json!("1234")), "pin"),
        ] {
            let fault = GateSetting::read(&bad, "gate").unwrap_err().to_string();
            assert!(fault.contains(expected) && fault.contains("gate"), "{bad}: {fault}");
        }
    }
}

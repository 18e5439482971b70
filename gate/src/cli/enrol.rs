//! `tidegate-gate enrol`

use std::path::{Path, PathBuf};

use serde_json::json;
use tidegate_model::name::DeviceId;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::print;
use crate::config::GateConfig;
use crate::enrolment::{Enrolment, EnrolmentStore};
use crate::error::{Error, Result, read_file};
use crate::evidence::tpm::AttestationKey;
use crate::identity::certificate::{DeviceCertificate, tuf_key};
use crate::quota::ReceiptQuotas;
use crate::storage::Storage;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The device id
    device: DeviceId,
    /// Add a device key: a public key in PEM (Ed25519 or P-256), or the device's certificate
    #[arg(long, value_name = "PEM")]
    key: Vec<PathBuf>,
    /// Set the TPM's attestation key: a public key in PEM (P-256 or RSA), e.g. from `tpm2_readpublic --format=pem`
    #[arg(long, value_name = "PEM")]
    ak: Option<PathBuf>,
    /// Set the PCR policy that replaces the one of the device's cohort
    #[arg(long, value_name = "NAME")]
    pcrs: Option<String>,
    /// Refuse all requests of the device
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    /// Count the device's stored receipts from zero again, e.g. after old ones were removed
    #[arg(long)]
    reset_receipts: bool,
    /// Accept requests of a disabled device again
    #[arg(long)]
    enable: bool,
}

pub(super) async fn run(path: &Path, arguments: &Arguments, json: bool) -> Result<()> {
    let config = GateConfig::load(path)?;
    let enrolments = EnrolmentStore::new(Storage::open(&config.enrolments, &config.base, true)?);
    let found = enrolments.find(&arguments.device).await?;
    let is_new = found.is_none();
    let mut enrolment = found.map_or_else(|| Enrolment::new(arguments.device.clone()), |found| found.as_ref().clone());
    for file in &arguments.key {
        let key = read_device_key(file, &arguments.device)?;
        if !enrolment.keys.contains(&key) {
            enrolment.keys.push(key);
        }
    }
    if let Some(file) = &arguments.ak {
        let pem = read_text(file)?;
        AttestationKey::from_pem(&pem).map_err(|error| {
            Error::input(format!("{} is not a supported attestation key", file.display())).with_cause(error)
        })?;
        enrolment.ak = Some(pem);
    }
    if let Some(policy) = &arguments.pcrs {
        if !config.pcrs.contains_key(policy) {
            return Err(Error::input(format!("there is no [pcrs.{policy}] in {}", path.display())));
        }
        enrolment.pcrs = Some(policy.clone());
    }
    enrolment.disabled = (enrolment.disabled && !arguments.enable) || arguments.disable;
    enrolments.save(&enrolment).await?;
    if arguments.reset_receipts {
        let state = Storage::open(&config.state, &config.base, false)?;
        ReceiptQuotas::new(state).reset(&arguments.device).await?;
    }
    let Enrolment { device, keys, ak, pcrs, disabled, .. } = &enrolment;
    if json {
        let result =
            json!({"device": device, "keys": keys.len(), "ak": ak.is_some(), "pcrs": pcrs, "disabled": disabled});
        return print(&result.to_string());
    }
    let action = match (disabled, is_new) {
        (true, _) => "disabled",
        (false, true) => "enrolled",
        (false, false) => "updated",
    };
    let ak = if ak.is_some() { "an attestation key" } else { "no attestation key" };
    print(&format!("{device}: {action}, with {} device key(s) and {ak}", keys.len()))
}

fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read_file(path, 16 * 1024)?).map_err(|_| Error::input(format!("{} is not UTF-8", path.display())))
}

/// A device key as a TUF key object, from a public key or a certificate.
fn read_device_key(path: &Path, device: &DeviceId) -> Result<serde_json::Value> {
    let text = read_text(path)?;
    let unsupported = || {
        Error::input(format!("{} is not a supported public key", path.display())).with_remedy(
            "provide an Ed25519 or P-256 key as SubjectPublicKeyInfo in PEM (BEGIN PUBLIC KEY), e.g. from \
             `openssl pkey -pubout`, or a certificate with such a key",
        )
    };
    let (_, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|_| unsupported())?;
    let key = match pem.label.as_str() {
        "PUBLIC KEY" => {
            let (_, spki) = SubjectPublicKeyInfo::from_der(&pem.contents).map_err(|_| unsupported())?;
            tuf_key(&spki)
        }
        // The issuer is not checked: the operator who enrols a device is responsible for its key.
        "CERTIFICATE" => {
            let certificate = DeviceCertificate::parse(&pem.contents).map_err(|error| {
                Error::input(format!("{} does not name a device", path.display())).with_cause(error)
            })?;
            if certificate.device != *device {
                return Err(Error::input(format!("{} is the certificate of {}", path.display(), certificate.device))
                    .with_remedy("enrol each device with its own certificate"));
            }
            certificate.key
        }
        _ => return Err(unsupported()),
    };
    key.map(|key| key.to_value()).ok_or_else(unsupported)
}

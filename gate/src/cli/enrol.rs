//! `tidegate-gate enrol`

use std::path::{Path, PathBuf};

use serde_json::json;
use tidegate_model::name::DeviceId;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::print;
use crate::config::Config;
use crate::enrolment::{Enrolment, Enrolments};
use crate::error::{Error, Result, read};
use crate::evidence::tpm::AttestationKey;
use crate::identity::certificate::{Certified, key_of};
use crate::storage::Place;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The device's id.
    device: DeviceId,
    /// The public part of a device key, PEM: Ed25519 or P-256; or the device's certificate with such a key. Added to those that it has.
    #[arg(long, value_name = "PEM")]
    key: Vec<PathBuf>,
    /// The public part of its TPM's attestation key, PEM (`tpm2_readpublic --format=pem`): P-256 or RSA.
    #[arg(long, value_name = "PEM")]
    ak: Option<PathBuf>,
    /// The PCR policy of the settings that holds for this device instead of its cohort's.
    #[arg(long, value_name = "NAME")]
    pcrs: Option<String>,
    /// The device gets nothing any more.
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    /// It does again.
    #[arg(long)]
    enable: bool,
}

pub(super) async fn run(path: &Path, arguments: &Arguments, json: bool) -> Result<()> {
    let config = Config::load(path)?;
    let enrolments = Enrolments::new(Place::open(&config.enrolments, &config.base, true)?);
    let known = enrolments.of(&arguments.device).await.map_err(|refusal| Error::new(refusal.why))?;
    let is_new = known.is_none();
    let mut enrolment = known.map_or_else(|| Enrolment::of(arguments.device.clone()), |known| known.as_ref().clone());
    for file in &arguments.key {
        let key = public_key(file, &arguments.device)?;
        if !enrolment.keys.contains(&key) {
            enrolment.keys.push(key);
        }
    }
    if let Some(file) = &arguments.ak {
        let pem = text(file)?;
        AttestationKey::from_pem(&pem).map_err(|why| Error::new(format!("{}: {why}", file.display())))?;
        enrolment.ak = Some(pem);
    }
    if let Some(policy) = &arguments.pcrs {
        if !config.pcrs.contains_key(policy) {
            return Err(Error::new(format!("there is no [pcrs.{policy}] in {}", path.display())));
        }
        enrolment.pcrs = Some(policy.clone());
    }
    enrolment.disabled = (enrolment.disabled && !arguments.enable) || arguments.disable;
    enrolments.save(&enrolment).await?;
    if json {
        return print(&json!({"device": enrolment.device, "keys": enrolment.keys.len(), "ak": enrolment.ak.is_some(), "pcrs": enrolment.pcrs, "disabled": enrolment.disabled}).to_string());
    }
    let state = if enrolment.disabled {
        "disabled"
    } else if is_new {
        "enrolled"
    } else {
        "changed"
    };
    let ak = if enrolment.ak.is_some() { "an attestation key" } else { "no attestation key" };
    print(&format!("{}: {state}, with {} device key(s) and {ak}", enrolment.device, enrolment.keys.len()))
}

fn text(path: &Path) -> Result<String> {
    String::from_utf8(read(path, 16 * 1024)?).map_err(|_| Error::new(format!("{} is not text", path.display())))
}

fn public_key(path: &Path, device: &DeviceId) -> Result<serde_json::Value> {
    let text = text(path)?;
    let wrong = || {
        Error::new(format!("{} is no public key that devices sign with", path.display()))
            .remedy("give SubjectPublicKeyInfo in PEM (BEGIN PUBLIC KEY) of an Ed25519 or P-256 key, e.g. by `openssl pkey -pubout`, or a certificate with such a key")
    };
    let (_, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|_| wrong())?;
    let key = match pem.label.as_str() {
        "PUBLIC KEY" => {
            let (_, spki) = SubjectPublicKeyInfo::from_der(&pem.contents).map_err(|_| wrong())?;
            key_of(&spki)
        }
        // That the authority issued it is not asked: whoever enrols a device vouches for its key.
        "CERTIFICATE" => {
            let certified = Certified::read(&pem.contents)
                .map_err(|why| Error::new(format!("{}: the certificate is no device's: {why}", path.display())))?;
            if certified.device != *device {
                return Err(Error::new(format!("{} is the certificate of {}", path.display(), certified.device))
                    .remedy("enrol each device with its own certificate"));
            }
            certified.key
        }
        _ => return Err(wrong()),
    };
    key.map(|key| key.to_value()).ok_or_else(wrong)
}

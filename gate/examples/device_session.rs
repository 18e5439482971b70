//! One session of a device with a gate, at its lowest level: challenge and grant, then one protected object.
//!
//! ```text
//! cargo run -p tidegate-gate --example device_session -- https://gate.example.com device-0001 device.key stable.canary \
//!     metadata/3.stable.canary.json authorities.pem
//! ```
//!
//! The device must be enrolled (`tidegate-gate enrol device-0001 --key device.pub`) and the cohort must require no evidence. An update
//! daemon gives the same [`GateClient`] to `Device::builder().gate(...)`, which verifies everything that it fetches; this program does not.

use std::error::Error;
use std::sync::Arc;

use tidegate_client::clock::SystemClock;
use tidegate_client::fetch::http::{Authorities, HttpFetch, HttpOptions};
use tidegate_client::fetch::{Fetch as _, Reply, Request};
use tidegate_client::gate::{Gate as _, GateClient, Signer, Visit};
use tidegate_client::key::DeviceKey;
use tidegate_model::gate::GateUrl;

/// The maximum length of the object, in bytes.
const LIMIT: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [gate, device, key, cohort, object, more @ ..] = arguments.as_slice() else {
        return Err("usage: device_session GATE DEVICE KEY COHORT OBJECT [AUTHORITIES]".into());
    };
    let authorities = match more.first() {
        Some(path) => Authorities::from_pem(&std::fs::read(path)?)?,
        None => Authorities::system(),
    };
    let visit = Visit { gate: gate.parse()?, role: cohort.clone(), device: device.parse()? };
    let bytes = fetch(&visit, DeviceKey::open(key)?, authorities, object)?;
    println!("{object}: {} bytes", bytes.len());
    Ok(())
}

/// Fetches an object of a protected cohort, with requests that are signed with the device's key.
pub(crate) fn fetch(
    visit: &Visit,
    key: DeviceKey,
    authorities: Authorities,
    object: &str,
) -> Result<Vec<u8>, Box<dyn Error>> {
    let options = HttpOptions { authorities, ..HttpOptions::default() };
    let http = Arc::new(HttpFetch::with_options(options, Arc::new(SystemClock::new())));
    let client = GateClient::new(http.clone()).signer(Signer::new(key, SystemClock::new()));
    // Challenge and grant. The pass contains the token, and signs each request.
    let pass = client.enter(visit, false)?;
    let url = url_of(&visit.gate, object);
    match http.fetch(&Request::metadata(&url, LIMIT).opened_by(&*pass))? {
        Reply::Found(body) => Ok(body.into_bytes()?),
        Reply::NotFound(_) | Reply::Unchanged => Err(format!("{url}: not found").into()),
    }
}

fn url_of(gate: &GateUrl, object: &str) -> String {
    format!("{}/{object}", gate.repository())
}

//! `examples/device_session.rs`, run against a gate.

use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use tidegate_client::fetch::http::Authorities;
use tidegate_client::gate::Visit;
use tidegate_client::key::DeviceKey;

use crate::support::device::Device;
use crate::support::{COHORTS, MARK, RunningGate, TestSite};

#[allow(dead_code)]
#[path = "../../examples/device_session.rs"]
mod device_session;

const OBJECT: &str = "metadata/2.stable.canary.json";

fn fetch(site: &TestSite, gate: &RunningGate, device: &Device, object: &str) -> Result<Vec<u8>, String> {
    let url = format!("https://localhost:{}", gate.address.port());
    let visit = Visit { gate: url.parse().unwrap(), role: "stable.canary".into(), device: device.id.parse().unwrap() };
    let key = DeviceKey::from_pem(device.key.to_pkcs8_pem(LineEnding::LF).unwrap().as_bytes()).unwrap();
    let authorities = Authorities::from_pem(site.server_ca.pem().as_bytes()).unwrap();
    device_session::fetch(&visit, key, authorities, object).map_err(|error| error.to_string())
}

#[test]
fn fetches_for_an_enrolled_device_alone() {
    let site = TestSite::new();
    site.write_config("optional", COHORTS);
    site.write(&format!("private/{OBJECT}"), MARK);
    site.write(
        "private/gate/stable.canary.json",
        &format!(r#"{{"schema":1,"cohort":"stable.canary","objects":["{OBJECT}"]}}"#),
    );
    let enrolled = Device::enrolled(&site, "device-1");
    let gate = site.start();
    assert_eq!(fetch(&site, &gate, &enrolled, OBJECT).unwrap(), MARK.as_bytes());
    assert!(fetch(&site, &gate, &enrolled, "metadata/3.stable.lab.json").is_err());
    assert!(fetch(&site, &gate, &Device::unidentified(&site), OBJECT).is_err());
}

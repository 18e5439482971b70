//! Which cohort a device is in, and when a ramp reaches it. Publisher and devices run this very code, so that a rollout can be explained
//! before it starts.

use std::error::Error;

use tidegate_model::cohort::CohortMap;
use tidegate_model::facts::Facts;
use tidegate_model::name::DeviceId;
use tidegate_model::rollout::Ramp;
use tidegate_model::time;

const COHORTS: &[u8] = br#"{
  "schema": 1,
  "salt": "00112233445566778899aabbccddeeff",
  "cohorts": [{"name": "canary", "share": 50000}, {"name": "fleet", "share": 950000}]
}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let map = CohortMap::parse(COHORTS)?;
    // Of the release with sequence 12: the order differs from release to release.
    let ramp = Ramp::new(time::parse("2026-12-01T08:00:00Z")?, time::parse("2026-12-03T08:00:00Z")?, 0, 100_000)?;
    for number in 1..=20 {
        let device: DeviceId = format!("device-{number:04}").parse()?;
        let choice = map.choose(&device, &Facts::new());
        let reached = ramp.exposed_at(choice.order.position(12)).map_or("not in this step".into(), time::format);
        println!("{device}: cohort {}, reached {reached}", choice.cohort);
    }
    Ok(())
}

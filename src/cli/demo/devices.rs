//! The three devices: one that is early, one that is late, one that is not eligible.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tidegate_client::clock::StubClock;
use tidegate_client::device::Device;
use tidegate_client::fetch::file::url_of;
use tidegate_client::install::FileSlot;
use tidegate_client::updater::Repository;
use tidegate_model::cohort::CohortMap;
use tidegate_model::facts::{FactValue, Facts};
use tidegate_model::name::DeviceId;
use tidegate_model::time::UtcTime;

use super::folder::Folder;
use crate::error::{Error, Kind, Result};

/// The sequence of the demonstration's release.
const SEQUENCE: u64 = 1;
/// The least memory that the demonstration's release asks for.
pub(super) const RAM_MB: i64 = 512;

/// A device of the demonstration.
pub(super) struct Actor {
    /// What it is called in the story, and its folder.
    pub(super) name: &'static str,
    /// Its id.
    pub(super) id: DeviceId,
    /// The cohort that the signed map puts it into.
    pub(super) cohort: String,
    clock: StubClock,
    device: Device,
    slot: PathBuf,
}

impl Actor {
    /// Sets up a device: the root it is shipped with, a settings file for `tidegate-device`, and the library's device.
    fn set_up(folder: &Folder, name: &'static str, id: DeviceId, cohort: String, ram_mb: i64) -> Result<Self> {
        let home = folder.join("devices").join(name);
        fs::create_dir_all(&home).map_err(|e| Error::io("create", &home, e))?;
        let root_path = folder.join("fleet/metadata/1.root.json");
        let root = fs::read(&root_path).map_err(|e| Error::io("read", &root_path, e))?;
        write(&home.join("root.json"), &root)?;
        let settings = json!({
            "root": "root.json",
            "repository": "../../site",
            "state_dir": "state",
            "device_id": id,
            "channel": "stable",
            "product": "os",
            "hardware": "board-a",
            "factory_version": "1.0.0",
            "facts": {"ram-mb": ram_mb},
            "slot": "slot.img",
        });
        let text = serde_json::to_string_pretty(&settings).map_err(|e| Error::bug("settings").with_source(e))?;
        write(&home.join("device.json"), format!("{text}\n").as_bytes())?;

        let site = std::path::absolute(folder.join("site")).map_err(|e| Error::io("find", &folder.join("site"), e))?;
        let url = url_of(&site).map_err(|e| Error::input("the folder has no file URL").with_source(e))?;
        let clock = StubClock::at(UtcTime::UNIX_EPOCH);
        let slot = home.join("slot.img");
        let word = |e: tidegate_model::name::NameError| Error::bug(e.to_string());
        let mut facts = Facts::new();
        facts.insert("ram-mb".parse().map_err(word)?, FactValue::from(ram_mb));
        let device = Device::builder()
            .root(root)
            .repository(Repository::at(&url).map_err(failed)?)
            .state_dir(home.join("state"))
            .id(id.clone())
            .channel("stable".parse().map_err(word)?)
            .product("os".parse().map_err(word)?)
            .hardware("board-a".parse().map_err(word)?)
            .factory(semver::Version::new(1, 0, 0), 0)
            .facts(facts)
            .clock(clock.clone())
            .installer(FileSlot::new(&slot))
            .open()
            .map_err(failed)?;
        Ok(Self { name, id, cohort, clock, device, slot })
    }

    /// The device, at an instant.
    pub(super) fn at(&mut self, now: UtcTime) -> &mut Device {
        self.clock.set(now);
        &mut self.device
    }

    /// The file it installs into.
    pub(super) fn slot(&self) -> &Path {
        &self.slot
    }
}

/// An error of the device's side.
pub(super) fn failed(error: tidegate_client::Error) -> Error {
    Error::new(Kind::Trust, "the device could not do it").with_source(error)
}

/// The three, chosen so that the signed cohort map puts each where the story needs it.
pub(super) fn cast(folder: &Folder, map: &CohortMap) -> Result<[Actor; 3]> {
    let mut early = Vec::new();
    let mut late = None;
    for number in 1..=100_000 {
        let id: DeviceId = format!("gateway-{number:04}").parse().map_err(|e| Error::bug(format!("{e}")))?;
        let placement = map.place(&id, &Facts::new());
        let cohort = placement.cohort.to_string();
        // Late in the ramp, so that it waits.
        let is_late = map.salt().ramp_order(&id).position(SEQUENCE) > u64::MAX / 10 * 6;
        match cohort.as_str() {
            "canary" if early.len() < 2 => early.push((id, cohort)),
            "general" if late.is_none() && is_late => late = Some((id, cohort)),
            _ => {}
        }
        if early.len() == 2 && late.is_some() {
            break;
        }
    }
    let lacking = || Error::bug("no device falls into the cohorts of the story");
    let (other, other_cohort) = early.pop().ok_or_else(lacking)?;
    let (first, first_cohort) = early.pop().ok_or_else(lacking)?;
    let (last, last_cohort) = late.ok_or_else(lacking)?;
    Ok([
        Actor::set_up(folder, "early", first, first_cohort, 2048)?,
        Actor::set_up(folder, "late", last, last_cohort, 2048)?,
        Actor::set_up(folder, "small", other, other_cohort, 256)?,
    ])
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|e| Error::io("write", path, e))
}

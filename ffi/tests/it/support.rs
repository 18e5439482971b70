//! A repository, and the settings of a device for it.

use std::path::Path;

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use crate::fleet;
use crate::simulator::Simulator;

/// A repository with one release for every device, which no clock of today calls expired.
pub fn simulator(image: &[u8]) -> Simulator {
    let mut sim = fleet::channel(&[("all", Some(1_000_000))]);
    let roles: Vec<String> = sim.signed.keys().filter(|role| *role != "root").cloned().collect();
    for role in sim.signed.keys().cloned().collect::<Vec<_>>() {
        sim.set_expiry(&role, Utc::now() + TimeDelta::days(1));
    }
    // The first root is the one that devices are shipped with: it may have expired.
    sim.publish(&["root"]);
    let manifest = fleet::approve_image(&mut sim, &fleet::manifest_of("1.1.0", 1, image), image);
    fleet::assign(&mut sim, "all", &manifest, &json!({}));
    let order = |role: &String| ["snapshot", "timestamp"].iter().position(|last| last == role).map_or(0, |n| n + 1);
    let mut roles = roles;
    roles.sort_by_key(order);
    sim.publish(&roles.iter().map(String::as_str).collect::<Vec<_>>());
    sim
}

/// The settings of a device whose root and state are in this folder.
pub fn settings(folder: &Path, repository: &str) -> Value {
    json!({
        "root": folder.join("root.json"), "repository": repository, "state_dir": folder.join("state"),
        "device_id": "device-1", "channel": "stable", "product": "os", "hardware": "board", "factory_version": "1.0.0",
    })
}

/// Whether a tool is here. With `TIDEGATE_REQUIRE_TOOLS`, as in CI, it must be.
pub fn have(tool: &str) -> bool {
    let found = std::process::Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
    let is_here = found.is_ok_and(|output| output.status.success());
    if !is_here {
        assert!(std::env::var_os("TIDEGATE_REQUIRE_TOOLS").is_none(), "this test must run here: {tool} is missing");
        println!("SKIPPED: {tool} is not installed");
    }
    is_here
}

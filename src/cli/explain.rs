//! `tidegate explain`: what a device would do, and why.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::Args as ClapArgs;
use serde::Deserialize;
use tidegate_client::model::decision::{Installed, Profile};
use tidegate_client::model::facts::Facts;
use tidegate_client::model::name::{DeviceId, HardwareId, Name};
use tidegate_client::model::version::Version;

use super::{Context, parse_instant};
use crate::error::{Error, Result};
use crate::files;
use crate::release::record::from_file;
use crate::rollout::explain;
use crate::workspace::Workspace;

/// Show what a device would do now, or at any time, with every rule's outcome
///
/// The answer is computed from the signed metadata by the code that devices run.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  tidegate explain --device device.json --at 2026-03-01T12:00:00Z

device.json:
  {\"id\": \"device-0042\", \"product\": \"os\", \"channel\": \"stable\", \"hardware\": \"board-a\",
   \"version\": \"1.1.0\", \"sequence\": 1, \"facts\": {\"group\": \"field\"}}")]
pub(super) struct Args {
    /// The device, as JSON: id, product, channel, hardware, version, sequence, facts
    #[arg(long, value_name = "FILE")]
    device: PathBuf,
    /// At this instant instead of now
    #[arg(long, value_name = "RFC3339", value_parser = parse_instant)]
    at: Option<DateTime<Utc>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    id: DeviceId,
    product: Name,
    channel: Name,
    hardware: HardwareId,
    version: Version,
    #[serde(default)]
    sequence: u64,
    #[serde(default)]
    facts: Facts,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let bytes = files::read(&args.device, 1 << 20)?;
    let name = args.device.display().to_string();
    let device: Device = from_file(&name, &bytes).map_err(|e| {
        let text = std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default();
        Error::input(format!("{name} does not describe a device: {text}"))
            .remedy("see the example: tidegate explain --help")
    })?;
    let profile = Profile {
        id: device.id,
        product: device.product,
        channel: device.channel,
        hardware: device.hardware,
        installed: Installed { version: device.version, sequence: device.sequence },
        own_facts: device.facts,
    };
    let workspace = Workspace::open(&cx.dir)?;
    let explanation = explain(workspace.dir(), &workspace.repository()?, &profile, args.at.unwrap_or(cx.now))?;
    if cx.ui.is_json() { cx.ui.json(&explanation) } else { cx.ui.result(explanation.to_string().trim_end()) }
}

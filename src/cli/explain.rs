//! `tidegate explain`: what a device would do, and why; or a whole fleet.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use clap::Args as ClapArgs;
use serde::Deserialize;
use serde_json::Value;
use tidegate_model::decision::{Installed, Profile, Quarantined};
use tidegate_model::facts::Facts;
use tidegate_model::layout::Location;
use tidegate_model::name::{DeviceId, HardwareId, Name};
use tidegate_model::time;
use tidegate_model::version::Version;

use super::context::{Context, block_on, parse_instant};
use super::place::{ReadArgs, place};
use super::publish::{AccessArgs, is_same_place};
use super::show;
use crate::config::{Settings, write_share};
use crate::error::{Error, Result};
use crate::fleet::{Fleet, Scope};
use crate::forecast::{Explainer, Group};
use crate::fs;
use crate::metadata::Repository;
use crate::publish::read_into;
use crate::release::record::from_file;
use crate::report::view::Place;
use crate::workspace::Workspace;

/// How many cohorts of a group are named in the table.
const NAMED: usize = 3;

/// Show what a device or a fleet would do, and why
///
/// The answer comes from the signed metadata and the code that devices run, so a device gives exactly the same one. Of a device's own
/// settings file the factory version counts as what it runs.
#[derive(Debug, ClapArgs)]
#[command(group = clap::ArgGroup::new("whom").args(["device", "fleet"]).required(true))]
#[command(after_help = "Examples:
  tidegate explain --device device.json --at 2026-03-01T12:00:00Z
  tidegate explain --fleet fleet.csv
  tidegate explain ../public --device device.json

device.json:
  {\"id\": \"device-0042\", \"product\": \"os\", \"channel\": \"stable\",
   \"hardware\": \"board-a\", \"version\": \"1.1.0\", \"sequence\": 1,
   \"facts\": {\"group\": \"field\"}}

fleet.csv:
  id,hardware,version,sequence,group
  device-0042,board-a,1.1.0,1,field")]
pub(super) struct Args {
    #[arg(help = place!("The repository [default: the workspace]"))]
    place: Option<String>,
    #[command(flatten)]
    read: ReadArgs,
    /// The device, as JSON: id, product, channel, hardware, version, sequence, facts; or its own settings file (tidegate-device --config)
    #[arg(long, value_name = "FILE")]
    device: Option<PathBuf>,
    /// The fleet, as CSV; `-` for standard input. The columns are id, hardware, version, sequence, product, channel, and facts by name
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    /// The product of devices whose line does not name it [default: the only one]
    #[arg(long, value_name = "NAME", requires = "fleet")]
    product: Option<Name>,
    /// The channel of devices whose line does not name it [default: the only one]
    #[arg(long, value_name = "NAME", requires = "fleet")]
    channel: Option<Name>,
    /// Decide for this time instead of now
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
    /// Releases that failed on the device, as `tidegate-device status --json` lists them.
    #[serde(default)]
    quarantined: Vec<Quarantined>,
}

/// Of a device's own settings file what `explain` needs; everything else in it is for the device's program.
#[derive(Debug, Deserialize)]
struct DeviceSettings {
    device_id: DeviceId,
    product: Name,
    channel: Name,
    hardware: HardwareId,
    factory_version: Version,
    #[serde(default)]
    factory_sequence: u64,
    #[serde(default)]
    facts: Facts,
}

impl From<DeviceSettings> for Device {
    fn from(settings: DeviceSettings) -> Self {
        Self {
            id: settings.device_id,
            product: settings.product,
            channel: settings.channel,
            hardware: settings.hardware,
            version: settings.factory_version,
            sequence: settings.factory_sequence,
            facts: settings.facts,
            quarantined: Vec::new(),
        }
    }
}

impl Device {
    /// Reads a description, or a device's own settings file, which says `device_id`.
    fn read(name: &str, bytes: &[u8]) -> Result<Self> {
        let is_settings = serde_json::from_slice::<Value>(bytes).is_ok_and(|value| value.get("device_id").is_some());
        let read =
            if is_settings { from_file::<DeviceSettings>(name, bytes).map(Self::from) } else { from_file(name, bytes) };
        read.map_err(|e| {
            let text = std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default();
            Error::input(format!("{name} does not describe a device: {text}"))
                .remedy("see the example: tidegate explain --help")
        })
    }
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let place = match &args.place {
        Some(place) => args.read.place(place)?,
        None => Place::workspace(&cx.dir),
    };
    if place.as_workspace().is_some() && place.snapshot().is_none() {
        let workspace =
            place.as_workspace().map_or_else(|| Workspace::open_to_read(&cx.dir), Workspace::open_to_read)?;
        let settings = workspace.settings()?;
        let known = (settings.products.iter().collect(), settings.channels.keys().collect());
        return answer(args, workspace.dir(), &workspace.repository()?, known, cx);
    }
    // Read as devices read it; nothing of it stays.
    let folder = tempfile::tempdir().map_err(|e| Error::io("create", &std::env::temp_dir(), e))?;
    let root = args.read.trusted(cx)?;
    // There need not be a workspace.
    let own = || {
        let publish = Settings::load(&cx.dir).ok()?.publish;
        let is_it = publish.places(&cx.dir).iter().any(|own| is_same_place(own, &place.place()));
        publish.private(&cx.dir).filter(|_| is_it)
    };
    let access = AccessArgs::reading(args.read.private.clone().or_else(own));
    let remote = access.open_to_read(&place.place(), folder.path(), None)?;
    let repository = block_on(read_into(folder.path(), &remote, &root, place.snapshot()))?;
    let (products, channels) = published(&repository);
    answer(args, folder.path(), &repository, (products.iter().collect(), channels.iter().collect()), cx)
}

/// The products and channels of a repository.
fn published(repository: &Repository) -> (BTreeSet<Name>, BTreeSet<Name>) {
    let paths =
        repository.roles().filter_map(|role| repository.targets(&role.name)).flat_map(|role| role.targets.keys());
    let manifests = paths.filter_map(|path| match Location::parse(path) {
        Some(Location::Manifest { channel, product, .. }) => Some((product, channel)),
        _ => None,
    });
    manifests.unzip()
}

/// Explains what is asked for, from the repository and the small files in `dir`.
fn answer(args: &Args, dir: &Path, repository: &Repository, known: Known<'_>, cx: &Context) -> Result<()> {
    let at = args.at.unwrap_or(cx.now);
    stale(repository, cx);
    let mut explainer = Explainer::new(dir, repository, cx.now);
    if let Some(path) = &args.fleet {
        return fleet(Fleet::csv(path, scope(args, known)?)?, &mut explainer, at, cx);
    }
    let path = args.device.as_deref().ok_or_else(|| Error::bug("neither a device nor a fleet"))?;
    let bytes = fs::read(path, 1 << 20)?;
    let name = path.display().to_string();
    let device = Device::read(&name, &bytes)?;
    let profile = Profile {
        id: device.id,
        product: device.product,
        channel: device.channel,
        hardware: device.hardware,
        installed: Installed { version: device.version, sequence: device.sequence },
        own_facts: device.facts,
        attestation: None,
    };
    let profile = profile.assumed().map_err(|why| Error::input(format!("{name}: {why}")))?;
    let answer = explainer.explain(&profile, &device.quarantined, at)?;
    if cx.ui.is_json() { cx.ui.json(&answer) } else { cx.ui.block(answer.to_string().trim_end()) }
}

/// Says which roles every device needs and will not take any more.
fn stale(repository: &Repository, cx: &Context) {
    for role in ["timestamp", "snapshot", "targets"] {
        if let Some(role) = repository.role(role).filter(|role| role.expires <= cx.now) {
            let expires = time::format(role.expires);
            cx.ui.status(format_args!(
                "The role {} expired at {expires}: devices install nothing new until `tidegate refresh`",
                role.name
            ));
        }
    }
}

/// The products and channels that there are.
type Known<'a> = (Vec<&'a Name>, Vec<&'a Name>);

fn scope(args: &Args, (products, channels): Known<'_>) -> Result<Scope> {
    let one = |what: &str, given: &Option<Name>, mut all: Vec<&Name>| match given {
        Some(name) if !all.contains(&name) => {
            let names: Vec<_> = all.iter().map(|name| name.as_str()).collect();
            Err(Error::input(format!("unknown {what} {name}")).remedy(format!("name one of: {}", names.join(", "))))
        }
        Some(name) => Ok(Some(name.clone())),
        None => Ok(all.pop().filter(|_| all.is_empty()).cloned()),
    };
    let product = one("product", &args.product, products)?;
    let channel = one("channel", &args.channel, channels)?;
    Ok(Scope { product, channel, facts: None })
}

fn fleet(mut fleet: Fleet, explainer: &mut Explainer<'_>, at: DateTime<Utc>, cx: &Context) -> Result<()> {
    let mut bar = cx.ui.progress_items(fleet.length(), "looking at the fleet");
    let mut told = 0;
    let answer = explainer.explain_fleet(&mut fleet, at, |fleet| {
        bar.advance(fleet.done() - told);
        told = fleet.done();
    })?;
    drop(bar);
    if cx.ui.is_json() {
        return cx.ui.json(&answer);
    }
    cx.ui.result(format_args!("{} devices at {}", answer.devices, time::format(at)))?;
    let rows: Vec<_> = answer.groups.iter().map(|group| row(group, answer.devices)).collect();
    show::table(&cx.ui, &["DEVICES", "OF ALL", "PRODUCT", "OUTCOME", "RELEASE", "COHORTS", "WHY"], &rows)?;
    if let Some(group) =
        answer.groups.iter().find(|group| !matches!(group.reason.outcome.as_str(), "install" | "up-to-date"))
    {
        cx.ui.hint(format_args!("tidegate explain --device FILE, for one of them, such as {}", group.example));
    }
    Ok(())
}

fn row(group: &Group, devices: u64) -> Vec<String> {
    let reason = &group.reason;
    let share = u128::from(group.devices) * 1_000_000 / u128::from(devices.max(1));
    // Hundredths of a percent are enough.
    let share = write_share(u32::try_from(share).unwrap_or(1_000_000) / 100 * 100);
    let mut cohorts: Vec<_> = group.cohorts.keys().take(NAMED).map(Name::to_string).collect();
    if group.cohorts.len() > NAMED {
        cohorts.push(format!("and {} more", group.cohorts.len() - NAMED));
    }
    let rule = reason.rule.as_ref().map(|rule| format!("{rule}: ")).unwrap_or_default();
    let mut why = format!("{rule}{}", reason.why);
    if let Some(reached) = group.reached {
        why = format!("{why}: from {} to {}", time::format(reached.first), time::format(reached.last));
    }
    if let Some(first) = &reason.by_way_of {
        why = format!("{why}; by way of {first}");
    }
    vec![
        group.devices.to_string(),
        share,
        format!("{}/{}", group.channel, group.product),
        reason.outcome.clone(),
        reason.release.clone().unwrap_or_else(|| "-".into()),
        cohorts.join(" "),
        why,
    ]
}

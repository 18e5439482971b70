//! From settings to a device.

use std::path::{Path, PathBuf};
use std::str::FromStr;
#[cfg(feature = "gate")]
use std::sync::Arc;
use std::time::Duration;

use super::arguments::Arguments;
use super::command::Command;
use super::failure::Failure;
use super::form::read;
use super::output::Output;
use super::settings_file::SettingsFile;
use tidegate_client::Error;
use tidegate_client::agent::{AgentOptions, Health, Schedule};
use tidegate_client::device::{Device, DeviceBuilder};
use tidegate_client::facts::{FactSource, Gathered, gather};
use tidegate_client::fetch::file::url_of;
use tidegate_client::install::FileSlot;
use tidegate_client::retry::Retry;
use tidegate_client::updater::Repository;
use tidegate_model::facts::{Facts, TypedFact};
use tidegate_model::gate::Attestation;
use tidegate_model::name::DeviceId;
use tidegate_model::version;
use tidegate_tuf::json;

/// The longest time that a program that tells facts may take, unless it is set.
const FACTS: Duration = Duration::from_secs(10);

/// A device that is described and not opened yet, and how it is driven.
pub(super) struct Settings {
    pub(super) builder: DeviceBuilder,
    pub(super) options: AgentOptions,
    pub(super) schedule: Schedule,
    pub(super) id: DeviceId,
    /// What kept facts away, or receipts.
    pub(super) problems: Vec<String>,
    /// Where receipts go.
    #[cfg(feature = "gate")]
    pub(super) sink: Option<Box<dyn tidegate_client::receipts::Sink>>,
}

impl Settings {
    /// Opens the device for a command that acts on it once. What it has to tell is sent at the end, however that went.
    pub(super) fn act(
        self,
        output: Output,
        act: fn(&mut Device, &AgentOptions, Output) -> Result<bool, Failure>,
    ) -> Result<bool, Failure> {
        let mut device = self.builder.open()?;
        let result = act(&mut device, &self.options, output);
        #[cfg(feature = "gate")]
        if let Some(mut sink) = self.sink {
            super::receipts::send(&mut device, &mut *sink, output);
        }
        result
    }
}

/// Reads the settings of the device that the arguments and the settings file describe; the arguments have precedence.
pub(super) fn read_all(arguments: &Arguments) -> Result<Settings, Error> {
    let file = arguments.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
    let folder = arguments.config.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    let given = &arguments.given;
    let text =
        |option: &str, ours: &Option<String>, file: &Option<String>| needed(option, ours.as_ref().or(file.as_ref()));
    let path =
        |option: &str, ours: &Option<PathBuf>, file: &Option<PathBuf>| needed(option, ours.as_ref().or(file.as_ref()));
    let version = text("factory-version", &given.factory_version, &file.factory_version)?;
    let repository = repository(given, &file)?;
    let state_dir = path("state-dir", &given.state_dir, &file.state_dir)?;
    let id: DeviceId = parse("device-id", &text("device-id", &given.device_id, &file.device_id)?)?;
    let network = file.network.clone().unwrap_or_default();
    let http = network.http(folder, repository.metadata_url())?;
    let fetch = network.fetch(http.clone(), &state_dir);
    #[cfg(feature = "gate")]
    let gate = file.gate.as_ref().map(|gate| gate.client(folder, &state_dir, http.clone()).map(Arc::new)).transpose();
    let sources = sources(&file, folder, &arguments.facts)?;
    let Gathered { mut facts, mut problems } =
        if arguments.command.decides() { gather(&sources) } else { Gathered::default() };
    if facts.remove(Attestation::FACT).is_some() {
        problems.push("the fact attestation is passed over: the device's attestor says what it gives".into());
    }
    let mut builder = Device::builder()
        .root(read(&path("root", &given.root, &file.root)?)?)
        .repository(repository)
        .state_dir(state_dir)
        .id(id.clone())
        .channel(parse("channel", &text("channel", &given.channel, &file.channel)?)?)
        .product(parse("product", &text("product", &given.product, &file.product)?)?)
        .hardware(parse("hardware", &text("hardware", &given.hardware, &file.hardware)?)?)
        .factory(
            version::parse(&version).map_err(|e| setting("factory-version", e))?,
            given.factory_sequence.or(file.factory_sequence).unwrap_or(0),
        )
        .facts(facts)
        .fetch(fetch)
        .policy(file.policy.clone().unwrap_or_default())
        .retry(Retry::TRANSFERS)
        .reserve(file.reserve.unwrap_or(0));
    if let Some(slot) = given.slot.as_ref().or(file.slot.as_ref()) {
        builder = builder.installer(FileSlot::new(slot));
    } else if let Some(installer) = &file.installer {
        builder = builder.installer(installer.installer(folder)?);
    }
    #[cfg(feature = "gate")]
    let gate = match gate {
        Ok(gate) => {
            if let Some(gate) = gate.clone() {
                builder = builder.gate(gate);
            }
            gate
        }
        // What is public does not need it.
        Err(e) => {
            builder = builder.gate(super::gate::Unusable(e.to_string()));
            problems.push(format!("no gate can be entered: {e}"));
            None
        }
    };
    #[cfg(feature = "gate")]
    let sink = match &file.receipts {
        Some(receipts) => {
            let key = file.gate.as_ref().and_then(super::gate::GateSetting::key).or(network.key());
            let made = receipts.receipts(folder, key).and_then(|kept| {
                let sink = receipts.sink(folder, http, gate, &kept.key)?;
                Ok((kept, sink))
            });
            match made {
                Ok((kept, sink)) => {
                    builder = builder.receipts(kept);
                    Some(sink)
                }
                Err(e) if matches!(arguments.command, Command::Receipts | Command::SendReceipts) => return Err(e),
                // An update does not need them.
                Err(e) => {
                    problems.push(format!("no receipts are kept: {e}"));
                    None
                }
            }
        }
        None => None,
    };
    // Once `run` is in charge there is nobody at hand.
    let health = if arguments.command == Command::Run { Health::Runs } else { Health::ByHand };
    let mut options = file.trial.clone().unwrap_or_default().options(health);
    options.ignores_policy = arguments.now;
    let schedule = file.poll.unwrap_or_default().schedule();
    Ok(Settings {
        builder,
        options,
        schedule,
        id,
        problems,
        #[cfg(feature = "gate")]
        sink,
    })
}

/// Where facts come from, the least telling first.
fn sources(file: &SettingsFile, folder: &Path, typed: &[TypedFact]) -> Result<Vec<FactSource>, Error> {
    let mut sources = Vec::new();
    if file.system_facts {
        sources.push(FactSource::System("/".into()));
    }
    if let Some(value) = &file.facts {
        sources.push(FactSource::Given(Facts::from_value(value).map_err(|e| setting("facts", e))?));
    }
    sources.extend(file.facts_file.as_ref().map(|path| FactSource::File(folder.join(path))));
    sources.extend(file.facts_program.as_ref().map(|program| FactSource::Command(program.command(FACTS))));
    // What was supposed is no fact of this device.
    #[cfg(feature = "gate")]
    let typed = typed.iter().filter(|fact| fact.name.as_str() != Attestation::FACT);
    #[cfg(not(feature = "gate"))]
    let typed = typed.iter();
    sources.push(FactSource::Given(typed.map(|fact| (fact.name.clone(), fact.value.clone())).collect()));
    Ok(sources)
}

fn repository(given: &SettingsFile, file: &SettingsFile) -> Result<Repository, Error> {
    let whole = given.repository.as_ref().or(file.repository.as_ref()).map(|url| to_url(url)).transpose()?;
    let part = |ours: &Option<String>, file: &Option<String>, folder: &str, option: &str| match (
        ours.as_ref().or(file.as_ref()),
        &whole,
    ) {
        (Some(url), _) => to_url(url),
        (None, Some(whole)) => Ok(format!("{}/{folder}", whole.trim_end_matches('/'))),
        (None, None) => needed::<String>(option, None),
    };
    Ok(Repository::new(
        &part(&given.metadata_url, &file.metadata_url, "metadata", "repository")?,
        &part(&given.targets_url, &file.targets_url, "targets", "repository")?,
    ))
}

/// A folder may be given in place of a URL.
fn to_url(text: &str) -> Result<String, Error> {
    if text.contains("://") {
        return Ok(text.to_owned());
    }
    // A URL must not hold the `..` that a relative path, or one relative to a settings file, often does. What is not there (yet) is
    // taken as it stands: fetching from it will say so.
    let path = Path::new(text).canonicalize().or_else(|_| std::path::absolute(text));
    let path = path.map_err(|e| setting("repository", e))?;
    Ok(url_of(&path)?)
}

/// Reads a settings file. Paths in it are relative to its folder.
fn read_file(path: &Path) -> Result<SettingsFile, Error> {
    let wrong = |e: &dyn std::fmt::Display| Error::Setting(format!("{}: {e}", path.display()));
    let value = json::parse(&read(path)?).map_err(|e| wrong(&e))?;
    let mut given = SettingsFile::read(&value).map_err(|e| wrong(&e))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    for path in [&mut given.root, &mut given.state_dir, &mut given.slot].into_iter().flatten() {
        *path = folder.join(&path);
    }
    for url in [&mut given.repository, &mut given.metadata_url, &mut given.targets_url].into_iter().flatten() {
        if !url.contains("://") {
            *url = folder.join(&url).to_string_lossy().into_owned();
        }
    }
    Ok(given)
}

fn parse<T: FromStr<Err: std::fmt::Display>>(option: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|e| setting(option, e))
}

fn setting(option: &str, error: impl std::fmt::Display) -> Error {
    Error::Setting(format!("--{option}: {error}"))
}

fn needed<T: Clone>(option: &str, value: Option<&T>) -> Result<T, Error> {
    value.cloned().ok_or_else(|| {
        let name = option.replace('-', "_");
        Error::Setting(format!("--{option} is needed, or \"{name}\" in the file that --config names"))
    })
}

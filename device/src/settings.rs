//! Creates a device from the settings.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::arguments::Arguments;
use super::command::Command;
use super::failure::Failure;
use super::form::read;
use super::gate::{self, ReceiptSink};
use super::output::Output;
use super::settings_file::SettingsFile;
use super::setup::{NetworkSetting, Surroundings, of_kernel, overlap, slot_fault, void};
use tidegate_client::Error;
use tidegate_client::agent::{AgentOptions, Health, Schedule};
use tidegate_client::device::{Device, DeviceBuilder};
use tidegate_client::facts::{FactSource, Gathered, gather};
use tidegate_client::fetch::file::url_of;
use tidegate_client::install::{FileSlot, Installer};
use tidegate_client::retry::Retry;
use tidegate_client::updater::Repository;
use tidegate_client::zone::Zone;
use tidegate_model::facts::{Facts, TypedFact};
use tidegate_model::gate::Attestation;
use tidegate_model::name::DeviceId;
use tidegate_model::version;
use tidegate_tuf::json;

/// The default time limit of a facts program.
const FACTS: Duration = Duration::from_secs(10);

/// A device that is configured but not opened yet, and its agent options.
pub(super) struct Settings {
    pub(super) builder: DeviceBuilder,
    pub(super) options: AgentOptions,
    pub(super) schedule: Schedule,
    pub(super) id: DeviceId,
    /// Settings that cannot be used now, such as a facts program that failed. The device works without them.
    pub(super) problems: Vec<String>,
    /// What was assumed in place of a setting.
    pub(super) remark: Option<String>,
    /// Settings that cannot work. Empty for commands that do not ask.
    pub(super) faults: Vec<String>,
    /// The settings of the network cannot be used. Only for the doctor.
    pub(super) no_network: bool,
    /// The bytes that downloads leave free.
    pub(super) reserve: u64,
    pub(super) state_dir: PathBuf,
    /// The destination of receipts.
    pub(super) sink: Option<ReceiptSink>,
}

impl Settings {
    /// Opens the device for a command that acts on it once. Sends pending receipts at the end, whether or not the command failed.
    pub(super) fn act(
        self,
        output: Output,
        act: fn(&mut Device, &AgentOptions, Output) -> Result<bool, Failure>,
    ) -> Result<bool, Failure> {
        let mut device = self.builder.open()?;
        let result = act(&mut device, &self.options, output);
        if let Some(sink) = self.sink {
            gate::receipts::send(&mut device, sink, output);
        }
        result
    }
}

/// Reads the settings of the device that the arguments and the settings file describe; the arguments have precedence.
pub(super) fn read_all(arguments: &Arguments) -> Result<Settings, Error> {
    let is_doctor = arguments.command == Command::Doctor;
    let file = arguments.config.as_deref().map(|path| read_file(path, is_doctor)).transpose()?.unwrap_or_default();
    // Absolute, because programs run in the folder of the settings file.
    let here = std::env::current_dir().map_err(|source| Error::File { action: "find", path: ".".into(), source })?;
    let folder = &here.join(arguments.config.as_deref().and_then(Path::parent).unwrap_or(Path::new("")));
    let either = Either { given: &arguments.given, file: &file };
    let repository = repository(&arguments.given, &file)?;
    let state_dir = here.join(either.required("state-dir", |settings| settings.state_dir.as_ref())?);
    let id: DeviceId = either.parsed("device-id", |settings| settings.device_id.as_ref())?;
    let network = file.network.clone().unwrap_or_default();
    // The doctor goes on without what cannot be used.
    let mut unread = file.unread.clone();
    let mut or_told = |error: Error| {
        if !is_doctor {
            return Err(error);
        }
        unread.push(error.to_string());
        Ok(())
    };
    let http = network.http(folder, repository.metadata_url());
    let no_network = http.is_err() || file.unread.iter().any(|why| why.contains("network"));
    let http = match http {
        Ok(http) => http,
        Err(e) => or_told(e).and_then(|()| NetworkSetting::default().http(folder, repository.metadata_url()))?,
    };
    let root = either.required("root", |settings| settings.root.as_ref()).and_then(|path| read(&path));
    let root = root.or_else(|e| or_told(e).map(|()| Vec::new()))?;
    let fetch = network.fetch(http.clone(), &state_dir);
    let fact_sources = sources(&file, folder, &arguments.facts)?;
    let (facts, mut problems) = facts(arguments, &fact_sources);
    // Windows stay closed then.
    let zone = file.policy.as_ref().and_then(|policy| policy.zone_problem());
    problems.extend(zone.map(|why| format!("policy.time_zone: {why}")));
    let assumed = file.policy.as_ref().and_then(|policy| policy.time_zone()).is_some_and(Zone::is_assumed);
    let remark = assumed.then(|| "policy.time_zone: the system sets no time zone, UTC is used".into());
    let builder = Device::builder()
        .root(root)
        .repository(repository)
        .state_dir(&state_dir)
        .id(id.clone())
        .facts(facts)
        .fact_sources(fact_sources)
        .fetch(fetch)
        .policy(file.policy.clone().unwrap_or_default())
        .retry(Retry::TRANSFERS)
        .reserve(file.reserve.unwrap_or(0))
        .keep_fallback(file.keep_fallback);
    let builder = identify(builder, &either)?;
    let builder = match with_installer(&either, folder) {
        Ok(Some(installer)) => builder.installer(installer),
        Ok(None) => builder,
        Err(e) => or_told(e).map(|()| builder)?,
    };
    problems.extend(unread);
    let surroundings = Surroundings { folder, state: &state_dir, http, client_key: network.client_key() };
    let (builder, sink) =
        gate::connect(builder, file.gate.as_ref(), file.receipts.as_ref(), surroundings, &mut problems);
    let sink = match sink {
        Ok(sink) => sink,
        Err(e) if matches!(arguments.command, Command::Receipts | Command::SendReceipts) => return Err(e),
        // An update does not need receipts.
        Err(e) => {
            problems.push(format!("receipts are disabled: {e}"));
            None
        }
    };
    // During `run`, no user confirms.
    let health = if arguments.command == Command::Run { Health::Runs } else { Health::ByHand };
    let mut options = file.trial.clone().unwrap_or_default().options(folder, health);
    options.ignores_policy = arguments.now;
    let schedule = file.poll.unwrap_or_default().schedule();
    let faults = if matches!(arguments.command, Command::Check | Command::Doctor) {
        faults(&either, folder, &state_dir)
    } else {
        Vec::new()
    };
    let reserve = file.reserve.unwrap_or(0);
    Ok(Settings { builder, options, schedule, id, problems, remark, faults, no_network, reserve, state_dir, sink })
}

/// Settings from the command line and from the settings file. The command line has precedence.
struct Either<'a> {
    given: &'a SettingsFile,
    file: &'a SettingsFile,
}

impl Either<'_> {
    fn required<T: Clone>(&self, option: &str, of: fn(&SettingsFile) -> Option<&T>) -> Result<T, Error> {
        required(option, of(self.given).or_else(|| of(self.file)))
    }

    fn parsed<T: FromStr<Err: std::fmt::Display>>(
        &self,
        option: &str,
        of: fn(&SettingsFile) -> Option<&String>,
    ) -> Result<T, Error> {
        self.required(option, of)?.parse().map_err(|e| setting(option, e))
    }
}

/// Adds the device's identity.
fn identify(builder: DeviceBuilder, either: &Either<'_>) -> Result<DeviceBuilder, Error> {
    let version = either.required("factory-version", |settings| settings.factory_version.as_ref())?;
    let version = version::parse(&version).map_err(|e| setting("factory-version", e))?;
    let sequence = either.given.factory_sequence.or(either.file.factory_sequence).unwrap_or(0);
    Ok(builder
        .channel(either.parsed("channel", |settings| settings.channel.as_ref())?)
        .product(either.parsed("product", |settings| settings.product.as_ref())?)
        .hardware(either.parsed("hardware", |settings| settings.hardware.as_ref())?)
        .factory(version, sequence))
}

/// What cannot work of the settings: programs and places that are not there, and times of zero.
fn faults(either: &Either<'_>, folder: &Path, state: &Path) -> Vec<String> {
    let file = either.file;
    let slot = either.given.slot.as_ref().or(file.slot.as_ref());
    let installer = match (slot, &file.installer) {
        (Some(slot), _) => slot_fault(slot).into_iter().collect(),
        (None, Some(installer)) => installer.faults(folder),
        (None, None) => Vec::new(),
    };
    let facts = file.facts_program.as_ref().and_then(|program| program.missing("facts_program", folder));
    let trial = file.trial.iter().flat_map(|trial| trial.faults(folder));
    let places = match (slot, &file.installer) {
        (Some(slot), _) => vec![slot.clone()],
        (None, installer) => installer.as_ref().map_or_else(Vec::new, |installer| installer.places(folder)),
    };
    let shared = shared(&places, state);
    let kernel = || format!("state_dir {} belongs to the kernel: name another folder", state.display());
    let state = of_kernel(state).then(kernel);
    let void = file.void.iter().cloned();
    void.chain(installer).chain(shared).chain(facts).chain(trial).chain(state).collect()
}

/// Slots that are one place, or share one with the state folder.
fn shared(places: &[PathBuf], state: &Path) -> Vec<String> {
    let with_state = places.iter().filter(|place| overlap(place, state)).map(|place| {
        let (state, place) = (state.display(), place.display());
        format!("state_dir {state} and the slot {place} share a place: name another state folder")
    });
    let pairs =
        places.iter().enumerate().filter_map(|(i, a)| Some((a, places.iter().skip(i + 1).find(|b| overlap(a, b))?)));
    let slots = pairs.map(|(a, b)| {
        format!("installer.images: {} and {} are the same place: name another slot", a.display(), b.display())
    });
    with_state.chain(slots).collect()
}

/// The installer, if one is set.
fn with_installer(either: &Either<'_>, folder: &Path) -> Result<Option<Box<dyn Installer + Send>>, Error> {
    if let (None, Some(_), Some(_)) = (&either.given.slot, &either.file.slot, &either.file.installer) {
        return Err(setting("slot", "give either slot or installer"));
    }
    Ok(match (either.given.slot.as_ref().or(either.file.slot.as_ref()), &either.file.installer) {
        (Some(slot), _) => Some(Box::new(FileSlot::new(slot))),
        (None, Some(installer)) => Some(installer.installer(folder)?),
        (None, None) => None,
    })
}

/// Collects the facts that the command needs, and the problems met.
fn facts(arguments: &Arguments, sources: &[FactSource]) -> (Facts, Vec<String>) {
    let Gathered { mut facts, mut problems, .. } =
        if arguments.command.decides() { gather(sources) } else { Gathered::default() };
    if facts.remove(Attestation::FACT).is_some() {
        problems.push("the fact attestation is ignored: it comes from the device's attestor".into());
    }
    (facts, problems)
}

/// The sources of facts, lowest precedence first.
fn sources(file: &SettingsFile, folder: &Path, typed: &[TypedFact]) -> Result<Vec<FactSource>, Error> {
    let mut sources = Vec::new();
    if file.system_facts {
        sources.push(FactSource::System("/".into()));
    }
    if let Some(value) = &file.facts {
        sources.push(FactSource::Given(Facts::from_value(value).map_err(|e| setting("facts", e))?));
    }
    sources.extend(file.facts_file.as_ref().map(|path| FactSource::File(folder.join(path))));
    sources.extend(file.facts_program.as_ref().map(|program| FactSource::Command(program.command(folder, FACTS))));
    // An assumed attestation is not a fact of this device.
    let typed = typed.iter().filter(|fact| fact.name.as_str() != Attestation::FACT);
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
        (None, None) => required::<String>(option, None),
    };
    Repository::new(
        &part(&given.metadata_url, &file.metadata_url, "metadata", "repository")?,
        &part(&given.targets_url, &file.targets_url, "targets", "repository")?,
    )
}

/// A folder may be given in place of a URL.
fn to_url(text: &str) -> Result<String, Error> {
    if text.contains("://") {
        return Ok(text.to_owned());
    }
    // URLs must not contain the `..` that relative paths often do. A path that does not exist (yet) is used as it is: fetching from it
    // reports that.
    let path = Path::new(text).canonicalize().or_else(|_| std::path::absolute(text));
    let path = path.map_err(|e| setting("repository", e))?;
    Ok(url_of(&path)?)
}

/// Reads a settings file. Paths in it are relative to its folder.
/// `is_doctor` leaves out what cannot be read, and says so.
fn read_file(path: &Path, is_doctor: bool) -> Result<SettingsFile, Error> {
    let wrong = |e: &dyn std::fmt::Display| Error::Setting(format!("{}: {e}", path.display()));
    let mut value = json::parse(&read(path)?).map_err(|e| wrong(&e))?;
    let mut unread = Vec::new();
    if let (true, Some(settings)) = (is_doctor, value.as_object_mut()) {
        settings.retain(|name, value| {
            let alone = SettingsFile::read(&serde_json::Value::from_iter([(name.clone(), value.clone())]));
            unread.extend(alone.as_ref().err().map(|e| wrong(e).to_string()));
            alone.is_ok()
        });
    }
    let mut given = SettingsFile::read(&value).map_err(|e| wrong(&e))?;
    given.unread = unread;
    void(&value, "", &mut given.void);
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

fn setting(option: &str, error: impl std::fmt::Display) -> Error {
    Error::Setting(format!("--{option}: {error}"))
}

fn required<T: Clone>(option: &str, value: Option<&T>) -> Result<T, Error> {
    value.cloned().ok_or_else(|| {
        let name = option.replace('-', "_");
        Error::Setting(format!("--{option} is required, or \"{name}\" in the file that --config names"))
    })
}

//! The settings of installers, trials, policy, polling and network, as they are written in the settings file.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::Value;

use super::form::path;
use tidegate_client::Error;
use tidegate_client::agent::{AgentOptions, Health, HealthCommand, Schedule};
use tidegate_client::clock::{BUILT, FlooredClock, SystemClock};
use tidegate_client::command::Command;
use tidegate_client::disk::check_private;
use tidegate_client::fetch::http::{Authorities, Authorization, HttpFetch, HttpOptions, Identity, Proxy, Source};
use tidegate_client::fetch::{Allowance, AnyFetch, Fetch, Throttle};
use tidegate_client::install::{
    BootHook, CommandInstaller, DirectoryInstaller, FileSlot, Installer, SlotImage, SlotInstaller,
};
use tidegate_client::state::Tolerance;
use tidegate_model::span::Span;
use tidegate_tuf::fields::{FieldError, Fields, expected, quoted, texts, whole};

/// A program: `["program", "argument"]`, or `{"program": [..], "limit": "30s", "environment": ["NAME"]}`.
#[derive(Debug, Clone)]
pub(super) struct Program {
    words: Vec<String>,
    limit: Option<Duration>,
    /// The variables that it inherits, beside those that every program does.
    environment: Vec<String>,
}

impl Program {
    pub(super) fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let words = |value: &Value, at: &str| {
            let words = texts(value, at)?;
            if words.is_empty() { Err(FieldError::new(at, "it names no program")) } else { Ok(words) }
        };
        if value.is_array() {
            return Ok(Self { words: words(value, at)?, limit: None, environment: Vec::new() });
        }
        if !value.is_object() {
            return Err(expected("a list of words, or {\"program\": [..], \"limit\": \"30s\"}", value, at));
        }
        whole(value, at, |fields| {
            Ok(Self {
                words: fields.part("program", words)?,
                limit: fields.optional_parsed::<Span>("limit")?.map(Into::into),
                environment: fields.optional_part("environment", texts)?.unwrap_or_default(),
            })
        })
    }

    /// What is wrong if it is not there.
    pub(super) fn missing(&self, setting: &str, folder: &Path) -> Option<String> {
        self.command(folder, HOOK).missing().map(|why| format!("{setting}: {why}"))
    }

    /// The program, in the folder of the settings file.
    pub(super) fn command(&self, folder: &Path, limit: Duration) -> Command {
        Command::new(self.words.clone(), self.limit.unwrap_or(limit)).in_folder(folder).inherit(&self.environment)
    }
}

/// The installer.
#[derive(Debug, Clone)]
pub(super) enum InstallerSetting {
    File { path: PathBuf },
    Slots { images: Vec<SlotImage>, boot: Program },
    Command { program: Program },
    Directory { path: PathBuf, unpack: Option<Program> },
}

const HOOK: Duration = Duration::from_secs(30);
const INSTALLATION: Duration = Duration::from_secs(3600);

impl InstallerSetting {
    pub(super) fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        whole(value, at, |fields| {
            let place = |fields: &mut Fields<'_>| fields.text("path").map(PathBuf::from);
            Ok(match fields.text("kind")? {
                "file" => Self::File { path: place(fields)? },
                "slots" => Self::Slots {
                    images: fields.list("images", usize::MAX, image)?,
                    boot: fields.part("boot", Program::read)?,
                },
                "command" => Self::Command { program: fields.part("program", Program::read)? },
                "directory" => {
                    Self::Directory { path: place(fields)?, unpack: fields.optional_part("unpack", unpacker)? }
                }
                other => {
                    let why = format!("{} is unknown: use one of file, slots, command, directory", quoted(other));
                    return Err(FieldError::new(fields.at("kind"), why));
                }
            })
        })
    }

    /// The slots.
    pub(super) fn places(&self, folder: &Path) -> Vec<PathBuf> {
        match self {
            Self::File { path } => vec![folder.join(path)],
            Self::Slots { images, .. } => {
                images.iter().flat_map(|image| [folder.join(&image.a), folder.join(&image.b)]).collect()
            }
            Self::Command { .. } | Self::Directory { .. } => Vec::new(),
        }
    }

    /// What cannot work: programs and places that are not there.
    pub(super) fn faults(&self, folder: &Path) -> Vec<String> {
        let missing = |setting: &str, program: &Program| program.missing(setting, folder);
        match self {
            Self::File { path } => slot_fault(&folder.join(path)).into_iter().collect(),
            Self::Slots { images, boot } => {
                let places = images.iter().flat_map(|image| [&image.a, &image.b]);
                let places = places.filter_map(|path| slot_fault(&folder.join(path)));
                missing("installer.boot", boot).into_iter().chain(places).collect()
            }
            Self::Command { program } => missing("installer.program", program).into_iter().collect(),
            Self::Directory { path, unpack } => {
                let path = folder.join(path);
                let folder_fault = || format!("installer.path: {} is not a folder", path.display());
                let program = unpack.as_ref().and_then(|program| missing("installer.unpack", program));
                let kernel = || format!("installer.path: {} belongs to the kernel: name another", path.display());
                let place = (!path.is_dir()).then(folder_fault).or_else(|| of_kernel(&path).then(kernel));
                place.into_iter().chain(program).collect()
            }
        }
    }

    pub(super) fn installer(&self, folder: &Path) -> Result<Box<dyn Installer + Send>, Error> {
        Ok(match self {
            Self::File { path } => Box::new(FileSlot::new(folder.join(path))),
            Self::Slots { images, boot } => {
                let place = |image: &SlotImage| SlotImage {
                    artifact: image.artifact.clone(),
                    a: folder.join(&image.a),
                    b: folder.join(&image.b),
                };
                let boot = BootHook::new(boot.command(folder, HOOK));
                let slots = SlotInstaller::new(images.iter().map(place).collect(), boot);
                Box::new(slots.map_err(|e| Error::Setting(format!("installer: {e}")))?)
            }
            Self::Command { program } => Box::new(CommandInstaller::new(program.command(folder, INSTALLATION))),
            Self::Directory { path, unpack } => {
                let directory = DirectoryInstaller::new(folder.join(path));
                Box::new(match unpack {
                    Some(unpack) => directory.unpack(unpack.command(folder, INSTALLATION)),
                    None => directory,
                })
            }
        })
    }
}

/// Why there can be no slot at a path.
pub(super) fn slot_fault(path: &Path) -> Option<String> {
    let is_device = path.starts_with("/dev") && !path.starts_with("/dev/shm");
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fault = match path.metadata() {
        Ok(found) if found.is_dir() => "is a folder",
        _ if of_kernel(path) => "belongs to the kernel: name a partition or a file",
        Ok(found) if !found.is_file() && !found.file_type().is_block_device() => "is neither a file nor a partition",
        Err(_) if is_device => "is not there",
        Err(_) if !folder.is_dir() => "is in a folder that is not there",
        _ => return None,
    };
    Some(format!("the slot {} {fault}", path.display()))
}

/// Whether a path leads to what the kernel shows of itself, where nothing can be stored.
pub(super) fn of_kernel(path: &Path) -> bool {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    ["/proc", "/sys"].iter().any(|folder| real.starts_with(folder))
}

/// Adds what is wrong with empty texts, and with times of zero where zero cannot work.
pub(super) fn void(value: &Value, at: &str, found: &mut Vec<String>) {
    if let Value::Array(values) = value {
        return values.iter().filter(|value| value.is_object()).for_each(|value| void(value, at, found));
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        let is_time = matches!(name.as_str(), "limit" | "within" | "every" | "interval" | "per");
        match value.as_str() {
            Some("") => found.push(format!("{at} is empty: give it a value, or leave it out")),
            Some(text) if is_time && text.parse::<Span>().is_ok_and(|span| Duration::from(span).is_zero()) => {
                found.push(format!("{at} is {text}: set at least 1s, or leave it out"));
            }
            None if !matches!(at.as_str(), "facts" | "policy") => void(value, &at, found),
            _ => {}
        }
    }
}

/// Why two slots, or a slot and the state folder, are one place: by path, as the same file, or as the same partition.
pub(super) fn overlap(path: &Path, other: &Path) -> bool {
    let real = |path: &Path| {
        let parent = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
        path.canonicalize().ok().or_else(parent).unwrap_or_else(|| path.to_owned())
    };
    let (a, b) = (real(path), real(other));
    let is_same = |a: Metadata, b: Metadata| {
        let device = |metadata: &Metadata| metadata.file_type().is_block_device().then(|| metadata.rdev());
        match (device(&a), device(&b)) {
            (Some(a), Some(b)) => a == b,
            (Some(device), None) => b.is_dir() && b.dev() == device,
            (None, Some(device)) => a.is_dir() && a.dev() == device,
            (None, None) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        }
    };
    let both = a.metadata().ok().zip(b.metadata().ok());
    a.starts_with(&b) || b.starts_with(&a) || both.is_some_and(|(a, b)| is_same(a, b))
}

/// A program that unpacks an artifact into a folder.
fn unpacker(value: &Value, at: &str) -> Result<Program, FieldError> {
    let program = Program::read(value, at)?;
    match ["{artifact}", "{folder}"].into_iter().find(|needed| !program.words.iter().any(|word| word == needed)) {
        Some(needed) => Err(FieldError::new(at, format!("it needs the word {needed}"))),
        None => Ok(program),
    }
}

/// A number that must not be zero.
fn positive<T: Default + PartialEq>(value: Option<T>, fields: &Fields<'_>, key: &str) -> Result<Option<T>, FieldError> {
    if value.as_ref().is_some_and(|value| *value == T::default()) {
        return Err(FieldError::new(fields.at(key), "it must be at least 1"));
    }
    Ok(value)
}

fn image(value: &Value, at: &str) -> Result<SlotImage, FieldError> {
    whole(value, at, |fields| {
        Ok(SlotImage {
            artifact: fields.optional_text("artifact")?.map(str::to_owned),
            a: fields.text("a")?.into(),
            b: fields.text("b")?.into(),
        })
    })
}

/// How the health of a new release is determined.
#[derive(Debug, Clone, Default)]
pub(super) struct TrialSetting {
    /// `"by-hand"`, or a program.
    health: Option<HealthSetting>,
    within: Option<Duration>,
    every: Option<Duration>,
    boots: Option<u32>,
    attempts: Option<u32>,
    restart: Option<Program>,
}

#[derive(Debug, Clone)]
enum HealthSetting {
    ByHand,
    Program(Program),
}

impl TrialSetting {
    pub(super) fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        whole(value, at, |fields| {
            Ok(Self {
                health: fields.optional_part("health", |value, at| match value {
                    Value::String(word) if word == "by-hand" => Ok(HealthSetting::ByHand),
                    Value::String(_) => {
                        Err(expected("\"by-hand\", a program with its arguments, or a program with a limit", value, at))
                    }
                    program => Program::read(program, at).map(HealthSetting::Program),
                })?,
                within: fields.optional_parsed::<Span>("within")?.map(Into::into),
                every: fields.optional_parsed::<Span>("every")?.map(Into::into),
                boots: positive(fields.optional_u32("boots")?, fields, "boots")?,
                attempts: positive(fields.optional_u32("attempts")?, fields, "attempts")?,
                restart: fields.optional_part("restart", Program::read)?,
            })
        })
    }

    /// The programs that are not there.
    pub(super) fn faults(&self, folder: &Path) -> Vec<String> {
        let health = match &self.health {
            Some(HealthSetting::Program(program)) => program.missing("trial.health", folder),
            _ => None,
        };
        let restart = self.restart.as_ref().and_then(|program| program.missing("trial.restart", folder));
        health.into_iter().chain(restart).collect()
    }

    /// `otherwise` is the default for health; programs run in `folder`.
    pub(super) fn options(&self, folder: &Path, otherwise: Health) -> AgentOptions {
        let tolerance = Tolerance::default();
        let health = match &self.health {
            None => otherwise,
            Some(HealthSetting::ByHand) => Health::ByHand,
            Some(HealthSetting::Program(program)) => Health::Command(HealthCommand {
                command: program.command(folder, HOOK),
                within: self.within.unwrap_or(Duration::from_secs(300)),
                every: self.every.unwrap_or(Duration::from_secs(10)),
            }),
        };
        AgentOptions {
            health,
            tolerance: Tolerance {
                boots: self.boots.unwrap_or(tolerance.boots),
                attempts: self.attempts.unwrap_or(tolerance.attempts),
            },
            restart: self.restart.as_ref().map(|program| program.command(folder, HOOK)),
            ..AgentOptions::default()
        }
    }
}

/// When to check the repository.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PollSetting {
    interval: Option<Duration>,
    first_within: Option<Duration>,
}

impl PollSetting {
    pub(super) fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        whole(value, at, |fields| {
            Ok(Self {
                interval: fields.optional_parsed::<Span>("interval")?.map(Into::into),
                first_within: fields.optional_parsed::<Span>("first_within")?.map(Into::into),
            })
        })
    }

    pub(super) fn schedule(self) -> Schedule {
        let otherwise = Schedule::default();
        Schedule {
            interval: self.interval.map_or(otherwise.interval, |span| span.max(Duration::from_secs(1))),
            first_within: self.first_within.unwrap_or(otherwise.first_within),
        }
    }
}

/// How to reach the repository.
#[derive(Debug, Clone, Default)]
pub(super) struct NetworkSetting {
    /// A URL, or `"none"`. Default: the proxy from the environment.
    proxy: Option<String>,
    /// A file, or `"system"`, which is the default.
    ca: Option<String>,
    client_certificate: Option<PathBuf>,
    client_key: Option<PathBuf>,
    authorization: Option<AuthorizationSetting>,
    /// Bytes a second.
    rate: Option<u64>,
    allowance: Option<AllowanceSetting>,
}

#[derive(Debug, Clone)]
struct AuthorizationSetting {
    file: Option<PathBuf>,
    program: Option<Program>,
    /// The server it is for. Default: that of the metadata.
    server: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct AllowanceSetting {
    bytes: u64,
    per: Duration,
}

impl AuthorizationSetting {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        whole(value, at, |fields| {
            Ok(Self {
                file: path(fields, "file")?,
                program: fields.optional_part("program", Program::read)?,
                server: fields.optional_text("server")?.map(str::to_owned),
            })
        })
    }
}

impl AllowanceSetting {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        whole(value, at, |fields| {
            let bytes = positive(Some(fields.u64("bytes")?), fields, "bytes")?.unwrap_or_default();
            Ok(Self { bytes, per: fields.parsed::<Span>("per")?.into() })
        })
    }
}

impl NetworkSetting {
    pub(super) fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        whole(value, at, |fields| {
            Ok(Self {
                proxy: fields.optional_text("proxy")?.map(str::to_owned),
                ca: fields.optional_text("ca")?.map(str::to_owned),
                client_certificate: path(fields, "client_certificate")?,
                client_key: path(fields, "client_key")?,
                authorization: fields.optional_part("authorization", AuthorizationSetting::read)?,
                rate: positive(fields.optional_u64("rate")?, fields, "rate")?,
                allowance: fields.optional_part("allowance", AllowanceSetting::read)?,
            })
        })
    }

    /// A fetcher that uses `http` within the configured rate and allowance.
    pub(super) fn fetch(&self, http: Arc<HttpFetch>, state: &Path) -> Box<dyn Fetch + Send> {
        let mut throttle = Throttle::new(AnyFetch::with_http(http));
        if let Some(rate) = self.rate {
            throttle = throttle.rate(rate);
        }
        if let Some(AllowanceSetting { bytes, per }) = self.allowance {
            let per = TimeDelta::from_std(per).unwrap_or(TimeDelta::MAX);
            let clock = FlooredClock::new(SystemClock::new(), BUILT);
            throttle = throttle.allowance(Allowance::new(bytes, per, state.join("traffic.json"), clock));
        }
        Box::new(throttle)
    }

    /// The file with the private key of the client certificate, if there is one.
    pub(super) fn client_key(&self) -> Option<&PathBuf> {
        self.client_key.as_ref().or(self.client_certificate.as_ref())
    }

    /// The HTTP fetcher. Paths are relative to `folder`; `metadata` is the metadata's URL.
    pub(super) fn http(&self, folder: &Path, metadata: &str) -> Result<Arc<HttpFetch>, Error> {
        Ok(Arc::new(HttpFetch::with_options(self.options(folder, metadata)?, Arc::new(SystemClock::new()))))
    }

    fn options(&self, folder: &Path, metadata: &str) -> Result<HttpOptions, Error> {
        let read = |path: &Path| super::form::read(&folder.join(path));
        let wrong = |what: &str, e: &dyn std::fmt::Display| Error::Setting(format!("network.{what}: {e}"));
        let authorities = match self.ca.as_deref() {
            None | Some("system") => Authorities::system(),
            Some(ca) => Authorities::from_pem(&read(ca.as_ref())?).map_err(|e| wrong("ca", &e))?,
        };
        let identity = match (&self.client_certificate, &self.client_key) {
            (Some(certificate), key) => {
                let key = key.as_ref().unwrap_or(certificate);
                let path = folder.join(key);
                // A file that is missing is reported on reading.
                let checked = path.metadata().map_or(Ok(()), |metadata| check_private(&path, &metadata));
                checked.map_err(|e| wrong("client_key", &e))?;
                let identity = Identity::from_pem(&read(certificate)?, &read(key)?);
                Some(identity.map_err(|e| wrong("client_certificate", &e))?)
            }
            (None, Some(_)) => return Err(wrong("client_key", &"client_certificate is also required")),
            (None, None) => None,
        };
        let authorization = match &self.authorization {
            None => None,
            Some(AuthorizationSetting { file, program, server }) => {
                let source = match (file, program) {
                    (Some(file), None) => Source::File(folder.join(file)),
                    (None, Some(program)) => Source::Command(program.command(folder, HOOK)),
                    _ => return Err(wrong("authorization", &"give either a file or a program")),
                };
                let server = server.as_deref().unwrap_or(metadata);
                Some(Authorization::new(server, source).map_err(|e| wrong("authorization", &e))?)
            }
        };
        let proxy = match self.proxy.as_deref() {
            None => Proxy::Environment,
            Some("none") => Proxy::None,
            Some(url) => Proxy::Url(url.parse().map_err(|e: String| wrong("proxy", &e))?),
        };
        Ok(HttpOptions { proxy, authorities, identity, authorization, ..HttpOptions::default() })
    }
}

/// The inputs for the settings of gates and receipts.
pub(super) struct Surroundings<'a> {
    /// The folder that paths are relative to.
    pub(super) folder: &'a Path,
    /// The state folder.
    pub(super) state: &'a Path,
    pub(super) http: Arc<HttpFetch>,
    /// The file with the private key of the client certificate, if there is one.
    pub(super) client_key: Option<&'a PathBuf>,
}

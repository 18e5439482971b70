//! The settings of installers, trials, policy, polling and network, as they are written in the settings file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::agent::{AgentOptions, Health, HealthCommand, Schedule};
use crate::clock::{BUILT, FlooredClock, SystemClock};
use crate::command::Command;
use crate::error::Error;
use crate::fetch::{Allowance, AnyFetch, Fetch, Throttle};
use crate::http::{Authorities, Authorization, HttpFetch, HttpOptions, Identity, Proxy, Source};
use crate::install::{BootHook, CommandInstaller, DirectoryInstaller, FileSlot, Installer, SlotImage, SlotInstaller};
use crate::machine::Tolerance;
use crate::policy::form::parse_duration;

/// A program with a time limit: `["program", "argument"]`, or `{"program": [..], "limit": "30s"}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a program must be a list of words, or {\"program\": [..], \"limit\": \"30s\"}")]
pub(super) enum Program {
    Words(Vec<String>),
    Limited(LimitedProgram),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitedProgram {
    program: Vec<String>,
    limit: Span,
}

/// A duration, such as `90s` or `7d`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span(pub(super) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_duration(&String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

impl Program {
    pub(super) fn command(&self, limit: Duration) -> Command {
        match self {
            Self::Words(words) => Command::new(words.clone(), limit),
            Self::Limited(program) => Command::new(program.program.clone(), program.limit.0),
        }
    }

    fn words(&self) -> &[String] {
        match self {
            Self::Words(words) => words,
            Self::Limited(program) => &program.program,
        }
    }

    fn limit(&self, otherwise: Duration) -> Duration {
        match self {
            Self::Words(_) => otherwise,
            Self::Limited(program) => program.limit.0,
        }
    }
}

/// Where releases go.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum InstallerSetting {
    File { path: PathBuf },
    Slots { images: Vec<SlotImage>, boot: Program },
    Command { program: Program },
    Directory { path: PathBuf, unpack: Option<Program> },
}

const HOOK: Duration = Duration::from_secs(30);
const INSTALLATION: Duration = Duration::from_secs(3600);

impl InstallerSetting {
    pub(super) fn installer(&self, folder: &Path) -> Result<Box<dyn Installer + Send>, Error> {
        Ok(match self {
            Self::File { path } => Box::new(FileSlot::new(folder.join(path))),
            Self::Slots { images, boot } => {
                let place = |image: &SlotImage| SlotImage {
                    artifact: image.artifact.clone(),
                    a: folder.join(&image.a),
                    b: folder.join(&image.b),
                };
                let boot = BootHook::new(boot.words().to_vec(), boot.limit(HOOK));
                let slots = SlotInstaller::new(images.iter().map(place).collect(), boot);
                Box::new(slots.map_err(|e| Error::Setting(format!("installer: {e}")))?)
            }
            Self::Command { program } => {
                Box::new(CommandInstaller::new(program.words().to_vec(), program.limit(INSTALLATION)))
            }
            Self::Directory { path, unpack } => {
                let directory = DirectoryInstaller::new(folder.join(path));
                Box::new(match unpack {
                    Some(unpack) => directory.unpack(unpack.words().to_vec(), unpack.limit(INSTALLATION)),
                    None => directory,
                })
            }
        })
    }
}

/// How a new release proves itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TrialSetting {
    /// `"by-hand"`, or a program.
    health: Option<HealthSetting>,
    within: Option<Span>,
    every: Option<Span>,
    boots: Option<u32>,
    attempts: Option<u32>,
    restart: Option<Program>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "trial.health must be \"by-hand\", a program with its arguments, or a program with a limit"
)]
enum HealthSetting {
    ByHand(ByHand),
    Program(Program),
}

#[derive(Debug, Clone, Deserialize)]
enum ByHand {
    #[serde(rename = "by-hand")]
    ByHand,
}

impl TrialSetting {
    /// `otherwise` is how health is found out if nothing is set.
    pub(super) fn options(&self, otherwise: Health) -> AgentOptions {
        let tolerance = Tolerance::default();
        let health = match &self.health {
            None => otherwise,
            Some(HealthSetting::ByHand(ByHand::ByHand)) => Health::ByHand,
            Some(HealthSetting::Program(program)) => Health::Command(HealthCommand {
                command: program.command(HOOK),
                within: self.within.map_or(Duration::from_secs(300), |span| span.0),
                every: self.every.map_or(Duration::from_secs(10), |span| span.0),
            }),
        };
        AgentOptions {
            health,
            tolerance: Tolerance {
                boots: self.boots.unwrap_or(tolerance.boots),
                attempts: self.attempts.unwrap_or(tolerance.attempts),
            },
            restart: self.restart.as_ref().map(|program| program.command(HOOK)),
            ..AgentOptions::default()
        }
    }
}

/// When to ask the repository.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PollSetting {
    interval: Option<Span>,
    first_within: Option<Span>,
}

impl PollSetting {
    pub(super) fn schedule(self) -> Schedule {
        let otherwise = Schedule::default();
        Schedule {
            interval: self.interval.map_or(otherwise.interval, |span| span.0.max(Duration::from_secs(1))),
            first_within: self.first_within.map_or(otherwise.first_within, |span| span.0),
        }
    }
}

/// How to reach the repository.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct NetworkSetting {
    /// A URL, or `"none"`. Default: what the environment says.
    proxy: Option<String>,
    /// A file, or `"system"`. Default: the built-in list.
    ca: Option<String>,
    client_certificate: Option<PathBuf>,
    client_key: Option<PathBuf>,
    authorization: Option<AuthorizationSetting>,
    /// Bytes a second.
    rate: Option<u64>,
    allowance: Option<AllowanceSetting>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorizationSetting {
    file: Option<PathBuf>,
    program: Option<Program>,
    /// The server it is for. Default: that of the metadata.
    server: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowanceSetting {
    bytes: u64,
    per: Span,
}

impl NetworkSetting {
    /// What fetches. Paths are relative to `folder`; `metadata` is the metadata's URL.
    pub(super) fn fetch(&self, folder: &Path, metadata: &str, state: &Path) -> Result<Box<dyn Fetch + Send>, Error> {
        let http = HttpFetch::with_options(self.options(folder, metadata)?, Arc::new(SystemClock::new()));
        let mut throttle = Throttle::new(AnyFetch::with_http(http));
        if let Some(rate) = self.rate {
            throttle = throttle.rate(rate);
        }
        if let Some(AllowanceSetting { bytes, per }) = self.allowance {
            let per = TimeDelta::from_std(per.0).unwrap_or(TimeDelta::MAX);
            let clock = FlooredClock::new(SystemClock::new(), BUILT);
            throttle = throttle.allowance(Allowance::new(bytes, per, state.join("traffic.json"), clock));
        }
        Ok(Box::new(throttle))
    }

    fn options(&self, folder: &Path, metadata: &str) -> Result<HttpOptions, Error> {
        let read = |path: &Path| super::settings::read(&folder.join(path));
        let wrong = |what: &str, e: &dyn std::fmt::Display| Error::Setting(format!("network.{what}: {e}"));
        let authorities = match self.ca.as_deref() {
            None => Authorities::built_in(),
            Some(ca) => {
                let none =
                    || Error::Setting("network.ca: this system keeps no authorities in any of the usual files".into());
                let path = if ca == "system" { Authorities::system_file().ok_or_else(none)? } else { ca.into() };
                Authorities::from_pem(&read(&path)?).map_err(|e| wrong("ca", &e))?
            }
        };
        let identity = match (&self.client_certificate, &self.client_key) {
            (Some(certificate), key) => {
                let key = key.as_ref().unwrap_or(certificate);
                let identity = Identity::from_pem(&read(certificate)?, &read(key)?);
                Some(identity.map_err(|e| wrong("client_certificate", &e))?)
            }
            (None, Some(_)) => return Err(wrong("client_key", &"there must be a client_certificate, too")),
            (None, None) => None,
        };
        let authorization = match &self.authorization {
            None => None,
            Some(AuthorizationSetting { file, program, server }) => {
                let source = match (file, program) {
                    (Some(file), None) => Source::File(folder.join(file)),
                    (None, Some(program)) => Source::Command(program.command(HOOK)),
                    _ => return Err(wrong("authorization", &"there must be a file or a program, and not both")),
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

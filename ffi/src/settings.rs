//! The settings of a device, as JSON: those of the settings file of `tidegate-device` that a library needs.

use std::fmt::Display;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidegate_client::Error;
use tidegate_client::clock::SystemClock;
use tidegate_client::command::Command;
use tidegate_client::device::{Device, DeviceBuilder};
use tidegate_client::facts::{FactSource, gather};
use tidegate_client::fetch::AnyFetch;
use tidegate_client::fetch::file::url_of;
use tidegate_client::fetch::http::{Authorities, HttpFetch, HttpOptions, Proxy};
use tidegate_client::install::{BootHook, CommandInstaller, FileSlot, Installer, SlotImage, SlotInstaller};
use tidegate_client::policy::Policy;
use tidegate_client::retry::Retry;
use tidegate_client::updater::Repository;
use tidegate_model::facts::Facts;
use tidegate_model::span::Span;
use tidegate_model::text::public_url;
use tidegate_model::version;
use tidegate_tuf::fields::{FieldError, Fields, expected, quoted, texts, whole};
use tidegate_tuf::json;

use crate::failure::Failure;

/// The longest file that is read, in bytes.
const LONGEST: u64 = 1_000_000;
/// The default time limits of a boot hook and of an installing program.
const HOOK: Duration = Duration::from_secs(30);
const INSTALLATION: Duration = Duration::from_secs(3600);

/// The settings of a device, except for an installer of the caller's.
pub(crate) struct Settings {
    pub(crate) builder: DeviceBuilder,
    pub(crate) has_installer: bool,
}

impl Settings {
    /// Reads settings.
    pub(crate) fn read(text: &str) -> Result<Self, Failure> {
        let value = json::parse(text.as_bytes()).map_err(|e| Failure::argument(format!("settings: {e}")))?;
        must_be_there(&value)?;
        let read = whole(&value, "", |fields| Ok((identity(fields)?, Rest::read(fields)?)));
        let (builder, rest) = read.map_err(Failure::setting)?;
        Ok(rest.apply(builder)?)
    }
}

/// Names all that is missing, at once.
fn must_be_there(value: &Value) -> Result<(), Failure> {
    const NEEDED: [&str; 8] =
        ["root", "repository", "state_dir", "device_id", "channel", "product", "hardware", "factory_version"];
    let missing: Vec<_> = NEEDED.into_iter().filter(|name| value.is_object() && value.get(name).is_none()).collect();
    if missing.is_empty() { Ok(()) } else { Err(Failure::setting(format!("missing settings: {}", missing.join(", ")))) }
}

/// What names the device and what it runs.
fn identity(fields: &mut Fields<'_>) -> Result<DeviceBuilder, FieldError> {
    let factory = fields.text_as("factory_version", version::parse)?;
    Ok(Device::builder()
        .id(fields.parsed("device_id")?)
        .channel(fields.parsed("channel")?)
        .product(fields.parsed("product")?)
        .hardware(fields.parsed("hardware")?)
        .factory(factory, fields.optional_u64("factory_sequence")?.unwrap_or(0)))
}

/// The other settings.
struct Rest {
    root: PathBuf,
    repository: String,
    state_dir: PathBuf,
    sources: Vec<FactSource>,
    policy: Policy,
    fetch: AnyFetch,
    reserve: u64,
    keep_fallback: bool,
    slot: Option<PathBuf>,
    installer: Option<Box<dyn Installer + Send>>,
}

impl Rest {
    fn read(fields: &mut Fields<'_>) -> Result<Self, FieldError> {
        let mut sources = Vec::new();
        if fields.bool_or("system_facts", false)? {
            sources.push(FactSource::System("/".into()));
        }
        if let Some(facts) = fields.optional("facts") {
            let facts = Facts::from_value(facts).map_err(|e| FieldError::new("facts", e.to_string()))?;
            sources.push(FactSource::Given(facts));
        }
        Ok(Self {
            root: fields.text("root")?.into(),
            repository: fields.text("repository")?.to_owned(),
            state_dir: fields.text("state_dir")?.into(),
            sources,
            policy: fields.optional_part("policy", Policy::read)?.unwrap_or_default(),
            fetch: fields.optional_part("network", network)?.unwrap_or_default(),
            reserve: fields.optional_u64("reserve")?.unwrap_or(0),
            keep_fallback: fields.bool_or("keep_fallback", false)?,
            slot: fields.optional_text("slot")?.map(PathBuf::from),
            installer: fields.optional_part("installer", installer)?,
        })
    }

    fn apply(self, builder: DeviceBuilder) -> Result<Settings, Error> {
        let has_installer = self.slot.is_some() || self.installer.is_some();
        let builder = match (self.slot, self.installer) {
            (Some(_), Some(_)) => return Err(Error::Setting("`slot`: give either slot or installer".into())),
            (Some(slot), None) => builder.installer(FileSlot::new(slot)),
            (None, Some(installer)) => builder.installer(installer),
            (None, None) => builder,
        };
        let builder = builder
            .root(file(&self.root)?)
            .repository(repository(&self.repository)?)
            .state_dir(self.state_dir)
            .facts(gather(&self.sources).facts)
            .fact_sources(self.sources)
            .fetch(self.fetch)
            .policy(self.policy)
            .retry(Retry::TRANSFERS)
            .reserve(self.reserve)
            .keep_fallback(self.keep_fallback);
        Ok(Settings { builder, has_installer })
    }
}

/// Reads the file that a setting names.
fn file(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::File { action: "read", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LONGEST {
        return Err(Error::Setting(format!("{}: longer than {LONGEST} bytes", path.display())));
    }
    Ok(bytes)
}

/// `{"proxy": URL or "none", "ca": FILE or "system"}`.
fn network(value: &Value, at: &str) -> Result<AnyFetch, FieldError> {
    whole(value, at, |fields| {
        let proxy = match fields.optional_text("proxy")? {
            None => Proxy::Environment,
            Some("none") => Proxy::None,
            Some(url) => Proxy::Url(url.parse().map_err(|e: String| FieldError::new(fields.at("proxy"), e))?),
        };
        let authorities = match fields.optional_text("ca")? {
            None | Some("system") => Authorities::system(),
            Some(path) => {
                let wrong = |e: &dyn Display| FieldError::new(format!("{at}.ca"), e.to_string());
                Authorities::from_pem(&file(path.as_ref()).map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?
            }
        };
        let options = HttpOptions { proxy, authorities, ..HttpOptions::default() };
        Ok(AnyFetch::with_http(HttpFetch::with_options(options, Arc::new(SystemClock::new()))))
    })
}

/// A URL, or a folder in place of one.
fn repository(text: &str) -> Result<Repository, Error> {
    if text.contains("://") {
        return Repository::at(text);
    }
    let bad = |e| Error::Setting(format!("`repository`: {}: {e}", public_url(text)));
    let path = Path::new(text).canonicalize().or_else(|_| std::path::absolute(text)).map_err(bad)?;
    Repository::at(&url_of(&path)?)
}

/// `{"kind": "slots", "images": [{"artifact": .., "a": .., "b": ..}], "boot": PROGRAM}` or `{"kind": "command", "program": PROGRAM}`.
fn installer(value: &Value, at: &str) -> Result<Box<dyn Installer + Send>, FieldError> {
    whole(value, at, |fields| {
        let installer: Box<dyn Installer + Send> = match fields.text("kind")? {
            "slots" => {
                let images = fields.list("images", usize::MAX, image)?;
                let boot = BootHook::new(fields.part("boot", |value, at| program(value, at, HOOK))?);
                let slots = SlotInstaller::new(images, boot);
                Box::new(slots.map_err(|e| FieldError::new(fields.here(), e.to_string()))?)
            }
            "command" => {
                let program = fields.part("program", |value, at| program(value, at, INSTALLATION))?;
                Box::new(CommandInstaller::new(program))
            }
            other => {
                let why =
                    format!("{} is unknown: use slots or command, or give tidegate_open an installer", quoted(other));
                return Err(FieldError::new(fields.at("kind"), why));
            }
        };
        Ok(installer)
    })
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

/// `["program", "argument"]`, or `{"program": [..], "limit": "30s", "environment": ["NAME"]}`.
fn program(value: &Value, at: &str, limit: Duration) -> Result<Command, FieldError> {
    let words = |value: &Value, at: &str| match texts(value, at)? {
        words if words.is_empty() => Err(FieldError::new(at, "it names no program")),
        words => Ok(words),
    };
    match value {
        Value::Array(_) => Ok(Command::new(words(value, at)?, limit)),
        Value::Object(_) => whole(value, at, |fields| {
            let words = fields.part("program", words)?;
            let limit = fields.optional_parsed::<Span>("limit")?.map_or(limit, Into::into);
            let environment = fields.optional_part("environment", texts)?.unwrap_or_default();
            Ok(Command::new(words, limit).inherit(&environment))
        }),
        other => Err(expected("a list of words, or {\"program\": [..], \"limit\": \"30s\"}", other, at)),
    }
}

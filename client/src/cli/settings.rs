//! From settings to a device.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::arguments::{Arguments, Given};
use crate::device::Device;
use crate::error::Error;
use crate::file::url_of;
use crate::install::FileSlot;
use crate::model::facts::Facts;
use crate::model::version;
use crate::tuf::json;
use crate::updater::Repository;

/// The longest settings file and root that are read, in bytes.
const LENGTH: u64 = 1_000_000;

/// Opens the device that the arguments and the settings file describe; the arguments have precedence.
pub(super) fn open(arguments: &Arguments) -> Result<Device, Error> {
    let file = arguments.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
    let given = &arguments.given;
    let text =
        |option: &str, ours: &Option<String>, file: &Option<String>| needed(option, ours.as_ref().or(file.as_ref()));
    let path =
        |option: &str, ours: &Option<PathBuf>, file: &Option<PathBuf>| needed(option, ours.as_ref().or(file.as_ref()));
    let version = text("factory-version", &given.factory_version, &file.factory_version)?;
    let mut facts = match file.facts.as_ref() {
        Some(value) => Facts::from_value(value).map_err(|e| setting("facts", e))?,
        None => Facts::new(),
    };
    for fact in &arguments.facts {
        facts.insert(fact.name.clone(), fact.value.clone());
    }
    let mut builder = Device::builder()
        .root(read(&path("root", &given.root, &file.root)?)?)
        .repository(repository(given, &file)?)
        .state_dir(path("state-dir", &given.state_dir, &file.state_dir)?)
        .id(parse("device-id", &text("device-id", &given.device_id, &file.device_id)?)?)
        .channel(parse("channel", &text("channel", &given.channel, &file.channel)?)?)
        .product(parse("product", &text("product", &given.product, &file.product)?)?)
        .hardware(parse("hardware", &text("hardware", &given.hardware, &file.hardware)?)?)
        .factory(
            version::parse(&version).map_err(|e| setting("factory-version", e))?,
            given.factory_sequence.or(file.factory_sequence).unwrap_or(0),
        )
        .facts(facts);
    if let Some(slot) = given.slot.as_ref().or(file.slot.as_ref()) {
        builder = builder.installer(FileSlot::new(slot));
    }
    builder.open()
}

fn repository(given: &Given, file: &Given) -> Result<Repository, Error> {
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
    let path = std::path::absolute(text).map_err(|e| setting("repository", e))?;
    Ok(url_of(&path)?)
}

/// Reads a settings file. Paths in it are relative to its folder.
fn read_file(path: &Path) -> Result<Given, Error> {
    let wrong = |e: &dyn std::fmt::Display| Error::Setting(format!("{}: {e}", path.display()));
    let value = json::parse(&read(path)?).map_err(|e| wrong(&e))?;
    let mut given: Given = serde_json::from_value(value).map_err(|e| wrong(&e))?;
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

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::File { action: "read", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(LENGTH + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LENGTH {
        return Err(Error::Setting(format!("{}: longer than {LENGTH} bytes", path.display())));
    }
    Ok(bytes)
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

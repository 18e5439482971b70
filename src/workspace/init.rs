//! Lays a workspace down: the files to edit, and the keys. [`crate::ceremony`] makes the first metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use chrono::{DateTime, Utc};
use serde_json::Map;
use tidegate_model::position::Salt;
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::key::Key;
use toml_edit::{DocumentMut, Item, TableLike, Value};
use zeroize::Zeroizing;

use super::ledger::{self, Ledger, LedgerEvent};
use crate::config::{Cohorts, Settings};
use crate::error::{Error, Result, Rule};
use crate::fs::Changes;
use crate::keys::example::EXAMPLE_KEYS;
use crate::keys::generate::{self, generate};
use crate::keys::{FileKey, KeyRing, KeyUri, NoPassphrases, Passphrases, Signer, open, write_public};
use crate::metadata::METADATA_DIR;
use crate::policy::Policy;
use crate::workspace::Workspace;

/// The files that a workspace starts with, with their content.
pub const TEMPLATE: [(&str, &str); 5] = [
    ("tidegate.toml", include_str!("../../repo-template/tidegate.toml")),
    ("cohorts.toml", include_str!("../../repo-template/cohorts.toml")),
    ("policy.toml", include_str!("../../repo-template/policy.toml")),
    (".gitignore", include_str!("../../repo-template/gitignore")),
    (".gitattributes", include_str!("../../repo-template/gitattributes")),
];

/// Where keys come from. A key whose public part `tidegate.toml` declares, or that is on a token, in a KMS or behind a program, is never
/// replaced.
#[derive(Debug)]
pub enum KeySource {
    /// Where `tidegate.toml` says.
    Declared,
    /// Where `tidegate.toml` says; those that it does not declare are generated in `keys/`, encrypted if there is a passphrase.
    Generate {
        /// The kind of all generated keys.
        kind: generate::Kind,
        /// What they are encrypted with.
        passphrase: Option<Zeroizing<String>>,
    },
    /// `NAME.pem` in this folder; those that it has not, where `tidegate.toml` says.
    Folder(PathBuf),
    /// The public example keys, in `keys/`.
    Example,
}

/// What to create.
#[derive(Debug)]
pub struct Options {
    /// Where the keys come from.
    pub keys: KeySource,
    /// The salt of all channels in hex; random if `None`.
    pub salt: Option<String>,
    /// The actor recorded in the ledger.
    pub actor: String,
}

/// The configuration and keys of a workspace to be created.
pub(crate) struct Prepared {
    pub(crate) settings: Settings,
    pub(crate) cohorts: Cohorts,
    /// The keys that can be used here.
    pub(crate) ring: KeyRing,
    /// Why the others cannot, by name.
    pub(crate) elsewhere: BTreeMap<String, String>,
    /// The files so far: configuration, and keys that were made.
    pub(crate) changes: Changes,
}

/// Writes those of the files to edit that the folder `dir` does not have yet; it must be absent, or contain nothing but such files and
/// keys. Gives the files that were written: none if all are there.
///
/// # Errors
///
/// Fails if the folder contains other files, if `salt` is not one, or if a file cannot be written.
pub fn write_files(dir: &Path, salt: Option<&str>) -> Result<Vec<String>> {
    crate::fs::check_own(dir)?;
    let existing = existing_configuration(dir)?;
    let is_to_edit = |name: &str| ["tidegate.toml", "cohorts.toml", "policy.toml"].contains(&name);
    if TEMPLATE.iter().all(|(name, _)| existing.contains(*name) || !is_to_edit(name)) {
        return Ok(Vec::new());
    }
    let mut changes = Changes::default();
    for (name, text) in texts(dir, &existing, salt)? {
        // What somebody has edited stays as it is.
        if !existing.contains(name) {
            changes.put(name, text);
        }
    }
    let written = changes.written().map(str::to_owned).collect();
    commit(dir, changes)?;
    Ok(written)
}

/// The files of the template as they are in the folder, or as they are to be written.
fn texts(dir: &Path, existing: &BTreeSet<String>, salt: Option<&str>) -> Result<BTreeMap<&'static str, String>> {
    let mut texts = BTreeMap::new();
    for (name, template) in TEMPLATE {
        let path = dir.join(name);
        let text = if existing.contains(name) {
            fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?
        } else {
            template.to_owned()
        };
        texts.insert(name, text);
    }
    let had = |name: &str| existing.contains(name);
    if let Some(text) = texts.get_mut("cohorts.toml")
        && (!had("cohorts.toml") || salt.is_some())
    {
        *text = fill_in_salts(text, salt)?;
    }
    if had("cohorts.toml") && !had("policy.toml") {
        let cohorts = Cohorts::parse(texts.get("cohorts.toml").map_or(&b""[..], String::as_bytes))?;
        if let Some(text) = texts.get_mut("policy.toml") {
            *text = fit_policy(text, &cohorts)?;
        }
    }
    Ok(texts)
}

/// Reads or creates the configuration of the folder `dir`, and opens or generates the keys; writes nothing yet.
pub(crate) fn prepare(dir: &Path, options: &Options, passphrases: &mut dyn Passphrases) -> Result<Prepared> {
    crate::fs::check_own(dir)?;
    let existing = existing_configuration(dir)?;
    let mut texts = texts(dir, &existing, options.salt.as_deref())?;
    let mut changes = Changes::default();

    let mut settings_text = texts.remove("tidegate.toml").unwrap_or_default();
    let settings = Settings::parse(settings_text.as_bytes())?;
    let Found { opened, elsewhere } = open_keys(dir, &settings, &options.keys, passphrases, &mut changes)?;
    for (name, key) in &opened {
        settings_text = fill_in_key(&settings_text, name, key.uri.as_deref(), &key.public, None)?;
    }
    let settings = Settings::parse(settings_text.as_bytes())?;
    let cohorts_text = texts.remove("cohorts.toml").unwrap_or_default();
    let cohorts = Cohorts::parse(cohorts_text.as_bytes())?;
    if let Some(unknown) = cohorts.channels().find(|name| !settings.channels.contains_key(*name)) {
        return Err(Error::input(format!("cohorts.toml: {unknown}: tidegate.toml has no such channel"))
            .remedy(format!("add [channels.{unknown}.release] and [channels.{unknown}.rollout] to tidegate.toml")));
    }
    let policy_text = texts.remove("policy.toml").unwrap_or_default();
    Policy::parse(policy_text.as_bytes())?.check_against(&settings, &cohorts)?;

    let mut ring = KeyRing::new(dir, settings.key_entries()?, Box::new(NoPassphrases));
    for (name, key) in opened {
        ring.insert(&name, key.signer);
    }
    changes.put("tidegate.toml", settings_text);
    changes.put("cohorts.toml", cohorts_text);
    changes.put("policy.toml", policy_text);
    for name in [".gitignore", ".gitattributes"] {
        changes.put(name, texts.remove(name).unwrap_or_default());
    }
    Ok(Prepared { settings, cohorts, ring, elsewhere, changes })
}

/// The first line of the ledger, or the one after those of a first root that was given up.
pub(crate) fn begin_ledger(
    dir: &Path,
    event: &'static str,
    evidence: Map<String, serde_json::Value>,
    actor: &str,
    now: DateTime<Utc>,
    changes: &mut Changes,
) -> Result<()> {
    let mut ledger = Ledger::open(dir)?;
    ledger.append(
        now,
        LedgerEvent {
            event,
            subject: "repository".into(),
            actor: actor.to_owned(),
            transition: None,
            reason: None,
            evidence,
        },
    )?;
    ledger.put(changes);
    Ok(())
}

/// Commits to a folder that may not exist yet, and removes what it created if that fails.
pub(crate) fn commit(dir: &Path, changes: Changes) -> Result<()> {
    let existed = dir.exists();
    let had_private = fs::symlink_metadata(dir.join(".tidegate")).is_ok();
    let result = Workspace::lock(dir).and_then(|workspace| {
        // Somebody else may have been faster.
        if dir.join(METADATA_DIR).exists() {
            return Err(is_workspace(dir));
        }
        workspace.commit(changes)
    });
    if result.is_err() {
        // Removes only what this function created; a failure here must not hide the error.
        if !had_private {
            let _ = fs::remove_dir_all(dir.join(".tidegate"));
        }
        if !existed {
            let _ = fs::remove_dir(dir);
        }
    }
    result
}

/// The names of the template's files that exist already.
///
/// # Errors
///
/// Fails if the folder contains anything else than these, keys, and what a first root that was given up leaves behind.
fn existing_configuration(dir: &Path) -> Result<BTreeSet<String>> {
    if dir.join(".tidegate").exists() {
        // What an interrupted command had decided comes first.
        drop(Workspace::lock(dir)?);
    }
    if dir.join(super::CEREMONY).exists() && !super::has_begun(dir)? {
        return Err(Error::refused(
            Rule::CeremonyOne,
            format!("the ceremony of the first root is under way in {}", super::shown(dir)),
        )
        .remedy(format!(
            "see what is missing: {}; or, to sign something else, give it up: {}",
            super::command(dir, "ceremony status"),
            super::command(dir, "ceremony abort")
        )));
    }
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(e) => return Err(Error::io("read", dir, e)),
    };
    let mut found = BTreeSet::new();
    for entry in entries {
        let name = entry.map_err(|e| Error::io("read", dir, e))?.file_name().to_string_lossy().into_owned();
        if name == METADATA_DIR || (name == ledger::FILE && super::has_begun(dir)?) {
            return Err(is_workspace(dir));
        }
        let harmless = [".git", ".tidegate", "keys", "proposals", ledger::FILE].contains(&name.as_str());
        if TEMPLATE.iter().any(|(file, _)| *file == name) {
            found.insert(name);
        } else if !harmless && !name.starts_with("README") {
            return Err(Error::refused(
                Rule::ImportEmpty,
                format!("{} is not empty: it contains {name}", super::shown(dir)),
            )
            .remedy(
                "choose a new folder; it may hold tidegate.toml, cohorts.toml, policy.toml and keys/ to start from",
            ));
        }
    }
    Ok(found)
}

fn is_workspace(dir: &Path) -> Error {
    Error::refused(Rule::ImportEmpty, format!("{} is already a workspace", super::shown(dir)))
        .remedy("see its state: tidegate status")
}

struct Opened {
    /// Where it is, if not where `tidegate.toml` says.
    uri: Option<String>,
    public: Key,
    signer: Rc<dyn Signer>,
}

/// The keys of `tidegate.toml`.
struct Found {
    /// Those that can be used here.
    opened: BTreeMap<String, Opened>,
    /// Why the others cannot, by name.
    elsewhere: BTreeMap<String, String>,
}

fn open_keys(
    dir: &Path,
    settings: &Settings,
    source: &KeySource,
    passphrases: &mut dyn Passphrases,
    changes: &mut Changes,
) -> Result<Found> {
    let mut found = Found { opened: BTreeMap::new(), elsewhere: BTreeMap::new() };
    let mut undeclared = Vec::new();
    for (name, entry) in &settings.keys {
        let declared = entry.public.as_ref().map(|_| settings.public(name)).transpose()?;
        let (name, uri) = (name.as_str(), KeyUri::parse(&entry.uri)?);
        let key = match open_key(dir, name, &uri, declared.as_ref(), source, passphrases)? {
            Where::Here(key) => key,
            Where::Elsewhere(why) => {
                found.elsewhere.insert(name.to_owned(), why);
                continue;
            }
            Where::Nowhere => match source {
                KeySource::Generate { kind, passphrase } => {
                    let made = generate(*kind, passphrase.as_ref().map(|p| p.as_str()))?;
                    made_key(&entry.uri, name, &made.pem, &mut Known(passphrase.clone()), changes)?
                }
                KeySource::Example => {
                    let example = EXAMPLE_KEYS.iter().find(|example| example.name == name).ok_or_else(|| {
                        Error::input(format!("there is no example key called {name}"))
                            .remedy("use the key names of the template, or make keys: --generate-keys")
                    })?;
                    made_key(&entry.uri, name, example.pem, passphrases, changes)?
                }
                KeySource::Declared | KeySource::Folder(_) => {
                    undeclared.push(name.to_owned());
                    continue;
                }
            },
        };
        if declared.is_some_and(|declared| declared != key.public) {
            let uri = key.uri.as_ref().unwrap_or(&entry.uri);
            return Err(Error::input(format!("keys.{name}: {uri} is not the private part of the declared `public`"))
                .remedy("correct `uri` or `public` of that key in tidegate.toml, or remove `public`"));
        }
        found.opened.insert(name.to_owned(), key);
    }
    if undeclared.is_empty() {
        return Ok(found);
    }
    let place = match source {
        KeySource::Folder(folder) => format!("in {}", folder.display()),
        _ => "here".to_owned(),
    };
    let first = undeclared.first().map_or("NAME", String::as_str);
    Err(Error::refused(
        Rule::KeyMissing,
        format!(
            "these keys have neither a private part {place} nor a `public` in tidegate.toml: {}",
            undeclared.join(", ")
        ),
    )
    .remedy(format!(
        "run this again with --generate-keys to create them here; or, where their holders have them, declare each first: {}",
        super::command(dir, &format!("key import {first} --public ed25519:HEX"))
    )))
}

/// Where a private part is.
enum Where {
    Here(Opened),
    /// Not within reach, and why; the public part is declared.
    Elsewhere(String),
    /// Nobody has declared it: it is to be made.
    Nowhere,
}

/// Opens a key where it is.
fn open_key(
    dir: &Path,
    name: &str,
    uri: &KeyUri,
    declared: Option<&Key>,
    source: &KeySource,
    passphrases: &mut dyn Passphrases,
) -> Result<Where> {
    let here = |uri: Option<String>, signer: Rc<dyn Signer>| {
        Where::Here(Opened { uri, public: signer.public().clone(), signer })
    };
    if let KeySource::Folder(folder) = source {
        let path = folder.join(format!("{name}.pem"));
        if path.exists() {
            let key = Rc::new(FileKey::open(name, &path, passphrases)?);
            return Ok(here(Some(KeyUri::File(relative_to(dir, &path)).to_string()), key));
        }
    }
    let file = uri.file(dir);
    let is_missing = file.as_ref().is_some_and(|file| !file.exists());
    let is_example = || matches!(source, KeySource::Example) && EXAMPLE_KEYS.iter().any(|example| example.name == name);
    if is_missing && matches!(uri, KeyUri::File(path) if is_own(path)) && (declared.is_none() || is_example()) {
        return Ok(Where::Nowhere);
    }
    match open(name, uri, dir, declared, passphrases) {
        Ok(signer) => Ok(here(None, signer)),
        // A file that is there and cannot be used is for its owner to put right.
        Err(error) if declared.is_some() && (is_missing || file.is_none()) => {
            Ok(Where::Elsewhere(error.text().to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// Whether a key's file is one that may be made here: directly in `keys/`.
fn is_own(path: &Path) -> bool {
    let parts: Vec<_> = path.components().collect();
    matches!(parts.as_slice(), [Component::Normal(folder), Component::Normal(_)] if *folder == "keys")
}

/// A key that was made, to be written to the file that its URI names.
fn made_key(
    uri: &str,
    name: &str,
    pem: &str,
    passphrases: &mut dyn Passphrases,
    changes: &mut Changes,
) -> Result<Opened> {
    let key = FileKey::from_pem(name, pem, passphrases)?;
    changes.put_private(uri.strip_prefix("file:").unwrap_or(uri), pem.as_bytes());
    Ok(Opened { uri: None, public: key.public().clone(), signer: Rc::new(key) })
}

/// The passphrase that new keys were encrypted with.
#[derive(Debug)]
struct Known(Option<Zeroizing<String>>);

impl Passphrases for Known {
    fn passphrase(&mut self, name: &str) -> Result<Zeroizing<String>> {
        self.0.clone().ok_or_else(|| Error::bug(format!("the new key {name} is encrypted")))
    }
}

/// `path` as seen from the folder `dir`: with `..` where both have more in common than the root, else absolute.
fn relative_to(dir: &Path, path: &Path) -> PathBuf {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (dir, path) = (clean(&absolute(dir)), clean(&absolute(path)));
    let common = dir.components().zip(path.components()).take_while(|(a, b)| a == b).count();
    if common <= 1 {
        return path;
    }
    let up = dir.components().skip(common).map(|_| Component::ParentDir);
    up.chain(path.components().skip(common)).collect()
}

/// Resolves `.` and `..` in the text of an absolute path.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::CurDir => {}
            other => cleaned.push(other),
        }
    }
    cleaned
}

/// Writes a key's URI, public part and holder into its table in the text of `tidegate.toml`; leaves the rest unchanged.
pub(crate) fn fill_in_key(
    text: &str,
    name: &str,
    uri: Option<&str>,
    public: &Key,
    holder: Option<&str>,
) -> Result<String> {
    let mut document = edited("tidegate.toml", text)?;
    let table = document.get_mut("keys").and_then(|keys| keys.get_mut(name)).and_then(Item::as_table_like_mut);
    let table = table.ok_or_else(|| Error::bug(format!("tidegate.toml has no table for the key {name}")))?;
    let public = write_public(public)?;
    for (key, value) in [("uri", uri), ("public", Some(public.as_str())), ("holder", holder)] {
        if let Some(value) = value {
            set(table, key, value);
        }
    }
    Ok(document.to_string())
}

/// Removes references of the template's policy to cohorts that do not exist.
pub(crate) fn fit_policy(text: &str, cohorts: &Cohorts) -> Result<String> {
    let mut known = BTreeSet::new();
    for channel in cohorts.channels() {
        known.extend(cohorts.map(channel)?.cohorts().iter().map(|cohort| cohort.name.to_string()));
    }
    let mut document = edited("policy.toml", text)?;
    for (section, key, cohort) in [("rollout", "soak_of", "canary"), ("validation", "cohort", "validation")] {
        if !known.contains(cohort)
            && let Some(table) = document.get_mut(section).and_then(Item::as_table_like_mut)
        {
            table.remove(key);
        }
    }
    Ok(document.to_string())
}

/// A file to edit, keeping its comments and layout.
fn edited(name: &str, text: &str) -> Result<DocumentMut> {
    text.parse().map_err(|e: toml_edit::TomlError| Error::input(format!("{name}: {}", e.message())).with_source(e))
}

/// Sets a value, keeping the comment behind it.
fn set(table: &mut dyn TableLike, key: &str, text: &str) {
    let mut value = Value::from(text);
    if let Some(old) = table.get(key).and_then(Item::as_value) {
        *value.decor_mut() = old.decor().clone();
    }
    table.insert(key, Item::Value(value));
}

/// Gives every channel its salt.
fn fill_in_salts(text: &str, salt: Option<&str>) -> Result<String> {
    let salt = if let Some(salt) = salt {
        salt.parse::<Salt>().map_err(|e| {
            Error::input(format!("--salt: {e}")).remedy("32 hex digits from a good source: openssl rand -hex 16")
        })?;
        salt.to_ascii_lowercase()
    } else {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)
            .map_err(|e| Error::new(crate::Kind::Io, format!("the system provides no random numbers: {e}")))?;
        to_hex(&bytes)
    };
    let mut document = edited("cohorts.toml", text)?;
    let names: Vec<String> = document.iter().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        if let Some(channel) = document.get_mut(&name).and_then(Item::as_table_like_mut) {
            set(channel, "salt", &salt);
        }
    }
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_keys_are_named_as_seen_from_the_workspace() {
        assert_eq!(relative_to(Path::new("/a/b/w"), Path::new("/a/keys/k.pem")), Path::new("../../keys/k.pem"));
        assert_eq!(relative_to(Path::new("/a/w"), Path::new("/a/w/keys/k.pem")), Path::new("keys/k.pem"));
        assert_eq!(relative_to(Path::new("/a/w"), Path::new("/media/k.pem")), Path::new("/media/k.pem"));
    }
}

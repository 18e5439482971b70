//! Creates a workspace: configuration, keys, and the first metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use chrono::{DateTime, Utc};
use serde_json::{Map, json};
use tidegate_model::digest::Digest;
use tidegate_model::layout;
use tidegate_model::position::Salt;
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::key::Key;
use toml_edit::{DocumentMut, Item, TableLike, Value};
use zeroize::Zeroizing;

use super::artifacts;
use super::ledger::{Ledger, LedgerEvent};
use crate::config::{Cohorts, Settings};
use crate::error::{Error, Result, Rule};
use crate::fs::Changes;
use crate::keys::example::EXAMPLE_KEYS;
use crate::keys::generate::{self, generate};
use crate::keys::{FileKey, KeyRing, KeyUri, NoPassphrases, Passphrases, Signer, open, write_public};
use crate::metadata::{Delegation, Document, Edit, Repository};
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

/// Where the keys come from.
#[derive(Debug)]
pub enum KeySource {
    /// Generated in `keys/`; encrypted if there is a passphrase.
    Generate {
        /// The kind of all keys.
        kind: generate::Kind,
        /// What they are encrypted with.
        passphrase: Option<Zeroizing<String>>,
    },
    /// `NAME.pem` in this folder, for every key that `tidegate.toml` names.
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

/// A workspace that was created.
#[derive(Debug)]
pub struct Initialized {
    /// The metadata.
    pub repository: Repository,
    /// The files written, relative to the workspace.
    pub written: Vec<String>,
    /// The configuration.
    pub settings: Settings,
}

/// Creates a workspace in the folder `dir`, which must be empty, absent, or contain nothing but the configuration to use. On an
/// error nothing is left behind.
///
/// # Errors
///
/// Fails if the folder contains other files, if the configuration is invalid, if a key cannot be opened, or if a file cannot be
/// written.
pub fn init(
    dir: &Path,
    options: &Options,
    now: DateTime<Utc>,
    passphrases: &mut dyn Passphrases,
) -> Result<Initialized> {
    let Prepared { settings, cohorts, mut ring, mut changes } = prepare(dir, options, passphrases)?;
    let finished = first_metadata(&settings, &cohorts, now, &mut ring, &mut changes)?;
    let root = finished.repository.must_have("root")?;
    let mut evidence = Map::new();
    evidence.insert("root".into(), json!({"version": root.version, "sha256": Digest::of(&root.bytes).to_string()}));
    begin_ledger("init", evidence, &options.actor, now, &mut changes)?;
    changes.extend(finished.changes);
    let written = changes.written().map(str::to_owned).collect();
    commit(dir, changes)?;
    Ok(Initialized { repository: finished.repository, written, settings })
}

/// The configuration and keys of a workspace to be created.
pub(crate) struct Prepared {
    pub(crate) settings: Settings,
    pub(crate) cohorts: Cohorts,
    pub(crate) ring: KeyRing,
    /// The files so far: configuration, and keys that were made.
    pub(crate) changes: Changes,
}

/// Reads or creates the configuration of the folder `dir`, and opens or generates the keys; writes nothing yet.
pub(crate) fn prepare(dir: &Path, options: &Options, passphrases: &mut dyn Passphrases) -> Result<Prepared> {
    crate::fs::check_own(dir)?;
    let existing = existing_configuration(dir)?;
    let content = |name: &str, template: &str| -> Result<String> {
        if !existing.contains(name) {
            return Ok(template.to_owned());
        }
        let path = dir.join(name);
        fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))
    };
    let mut texts = BTreeMap::new();
    for (name, template) in TEMPLATE {
        texts.insert(name, content(name, template)?);
    }
    let mut changes = Changes::default();

    let mut settings_text = texts.remove("tidegate.toml").unwrap_or_default();
    let settings = Settings::parse(settings_text.as_bytes())?;
    let opened = open_keys(dir, &settings, &options.keys, passphrases, &mut changes)?;
    for (name, key) in &opened {
        settings_text = fill_in_key(&settings_text, name, &key.uri, &key.public)?;
    }
    let settings = Settings::parse(settings_text.as_bytes())?;
    let mut cohorts_text = texts.remove("cohorts.toml").unwrap_or_default();
    if !existing.contains("cohorts.toml") || options.salt.is_some() {
        cohorts_text = fill_in_salts(&cohorts_text, options.salt.as_deref())?;
    }
    let cohorts = Cohorts::parse(cohorts_text.as_bytes())?;
    let mut policy_text = texts.remove("policy.toml").unwrap_or_default();
    if existing.contains("cohorts.toml") && !existing.contains("policy.toml") {
        policy_text = fit_policy(&policy_text, &cohorts)?;
    }
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
    Ok(Prepared { settings, cohorts, ring, changes })
}

/// The first line of the ledger.
pub(crate) fn begin_ledger(
    event: &'static str,
    evidence: Map<String, serde_json::Value>,
    actor: &str,
    now: DateTime<Utc>,
    changes: &mut Changes,
) -> Result<()> {
    let mut ledger = Ledger::empty();
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
    let result = Workspace::lock(dir).and_then(|workspace| workspace.commit(changes));
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
/// Fails if the folder contains anything else.
fn existing_configuration(dir: &Path) -> Result<BTreeSet<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(e) => return Err(Error::io("read", dir, e)),
    };
    let mut found = BTreeSet::new();
    for entry in entries {
        let name = entry.map_err(|e| Error::io("read", dir, e))?.file_name().to_string_lossy().into_owned();
        if name == "metadata" || name == "ledger.jsonl" {
            return Err(Error::refused(Rule::ImportEmpty, format!("{} is already a workspace", dir.display()))
                .remedy("see its state: tidegate status"));
        }
        let harmless = name == ".git" || name == ".tidegate" || name.starts_with("README");
        if TEMPLATE.iter().any(|(file, _)| *file == name) {
            found.insert(name);
        } else if !harmless {
            return Err(Error::refused(
                Rule::ImportEmpty,
                format!("{} is not empty: it contains {name}", dir.display()),
            )
            .remedy("choose a new folder; it may hold tidegate.toml, cohorts.toml and policy.toml to start from"));
        }
    }
    Ok(found)
}

struct Opened {
    uri: String,
    public: Key,
    signer: Rc<dyn Signer>,
}

fn open_keys(
    dir: &Path,
    settings: &Settings,
    source: &KeySource,
    passphrases: &mut dyn Passphrases,
    changes: &mut Changes,
) -> Result<BTreeMap<String, Opened>> {
    let mut opened = BTreeMap::new();
    let mut elsewhere = Vec::new();
    for (name, entry) in &settings.keys {
        let declared = entry.public.as_ref().map(|_| settings.public(name)).transpose()?;
        let name = name.as_str();
        let mut keep = |pem: &str, passphrases: &mut dyn Passphrases| -> Result<Opened> {
            let path = format!("keys/{name}.pem");
            let key = FileKey::from_pem(name, pem, passphrases)?;
            changes.put_private(path.as_str(), pem.as_bytes());
            Ok(Opened { uri: format!("file:{path}"), public: key.public().clone(), signer: Rc::new(key) })
        };
        let key = match source {
            KeySource::Generate { .. } if declared.is_some() => {
                let uri = KeyUri::parse(&entry.uri)?;
                match open(name, &uri, dir, declared.as_ref(), passphrases) {
                    Ok(signer) => Opened { uri: entry.uri.clone(), public: signer.public().clone(), signer },
                    Err(error) => {
                        elsewhere.push(error.to_string());
                        continue;
                    }
                }
            }
            KeySource::Generate { kind, passphrase } => {
                let made = generate(*kind, passphrase.as_ref().map(|p| p.as_str()))?;
                keep(&made.pem, &mut Known(passphrase.clone()))?
            }
            KeySource::Example => {
                let example = EXAMPLE_KEYS.iter().find(|example| example.name == name).ok_or_else(|| {
                    Error::input(format!("there is no example key called {name}"))
                        .remedy("use the key names of the template, or make keys: --generate-keys")
                })?;
                keep(example.pem, passphrases)?
            }
            KeySource::Folder(folder) => {
                let path = folder.join(format!("{name}.pem"));
                let key = FileKey::open(name, &path, passphrases)?;
                let uri = KeyUri::File(relative_to(dir, &path)).to_string();
                Opened { uri, public: key.public().clone(), signer: Rc::new(key) }
            }
        };
        if declared.is_some_and(|declared| declared != key.public) {
            return Err(Error::input(format!(
                "keys.{name}: {} is not the private part of the declared `public`",
                key.uri
            ))
            .remedy("correct `uri` or `public` of that key in tidegate.toml, or remove `public`"));
        }
        opened.insert(name.to_owned(), key);
    }
    if elsewhere.is_empty() {
        return Ok(opened);
    }
    Err(Error::refused(
        Rule::KeyMissing,
        format!("tidegate.toml declares public keys that cannot sign here: {}", elsewhere.join("; ")),
    )
    .remedy(
        "bring them here for the first root; or, where root keys stay with their holders, remove their `public` from tidegate.toml, so \
         that init creates other keys, and have a ceremony replace these before any device is shipped: docs/ceremony.md",
    ))
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

/// Writes a key's URI and public part into its table; leaves the rest unchanged.
fn fill_in_key(text: &str, name: &str, uri: &str, public: &Key) -> Result<String> {
    let mut document = edited("tidegate.toml", text)?;
    let table = document.get_mut("keys").and_then(|keys| keys.get_mut(name)).and_then(Item::as_table_like_mut);
    let table = table.ok_or_else(|| Error::bug(format!("tidegate.toml has no table for the key {name}")))?;
    set(table, "uri", uri);
    set(table, "public", &write_public(public)?);
    Ok(document.to_string())
}

/// Removes references of the template's policy to cohorts that do not exist.
fn fit_policy(text: &str, cohorts: &Cohorts) -> Result<String> {
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

fn first_metadata(
    settings: &Settings,
    cohorts: &Cohorts,
    now: DateTime<Utc>,
    ring: &mut KeyRing,
    changes: &mut Changes,
) -> Result<crate::metadata::Finished> {
    let mut edit = Edit::initial(now, settings.online());
    let roles = &settings.roles;
    let top = [
        ("root", &roles.root),
        ("targets", &roles.targets),
        ("snapshot", &roles.snapshot),
        ("timestamp", &roles.timestamp),
    ];
    let top = top.into_iter().map(|(name, role)| Ok((name, settings.role_keys(role)?))).collect::<Result<_>>()?;
    edit.put("root", Document::root(&top), roles.root.expires.delta());

    if let Some(unknown) = cohorts.channels().find(|name| !settings.channels.contains_key(*name)) {
        return Err(Error::input(format!("cohorts.toml: {unknown}: tidegate.toml has no such channel"))
            .remedy(format!("add [channels.{unknown}.release] and [channels.{unknown}.rollout] to tidegate.toml")));
    }
    let mut targets = Document::targets();
    for (name, channel) in &settings.channels {
        targets.set_delegation(&Delegation {
            name: layout::channel_role(name),
            keys: settings.role_keys(&channel.release)?,
            paths: layout::channel_patterns(name),
        });
        let map = cohorts.map(name)?;
        let bytes = map.to_bytes().map_err(|e| Error::input("the cohort map cannot be written").with_source(e))?;
        let digest = Digest::of(&bytes);
        let mut document = Document::targets();
        document.set_target(&layout::cohorts_path(name), bytes.len() as u64, digest.as_bytes(), None);
        changes.put(artifacts::signed_path(&digest), bytes);
        for cohort in map.cohorts() {
            let role = layout::cohort_role(name, &cohort.name);
            document.set_delegation(&Delegation {
                name: role.clone(),
                keys: settings.role_keys(&channel.rollout)?,
                paths: layout::cohort_patterns(name, &cohort.name),
            });
            edit.put(&role, Document::targets(), channel.rollout.expires.delta());
        }
        edit.put(&layout::channel_role(name), document, channel.release.expires.delta());
    }
    edit.put("targets", targets, roles.targets.expires.delta());
    edit.finish(ring)?.ok_or_else(|| Error::bug("a new repository without metadata"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            keys: KeySource::Example,
            salt: Some("00112233445566778899aabbccddeeff".into()),
            actor: "test".into(),
        }
    }

    fn at() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + chrono::TimeDelta::days(20_000)
    }

    #[test]
    fn the_same_inputs_give_the_same_workspace_and_it_opens() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&a, &b] {
            init(dir.path(), &options(), at(), &mut NoPassphrases).unwrap();
        }
        let (a, b) = (Workspace::open(a.path()).unwrap(), Workspace::open(b.path()).unwrap());
        assert_eq!(a.repository().unwrap().files(), b.repository().unwrap().files());
        let settings = a.settings().unwrap();
        assert_eq!(settings.key_entries().unwrap().len(), 11);
        let roles: Vec<_> = a.repository().unwrap().roles().map(|role| role.name.clone()).collect();
        assert_eq!(
            roles,
            [
                "root",
                "timestamp",
                "snapshot",
                "targets",
                "stable",
                "stable.validation",
                "stable.canary",
                "stable.early",
                "stable.general"
            ]
        );
        let mut ring = a.ring(&settings, Box::new(NoPassphrases)).unwrap();
        ring.signer("root-1").unwrap();
    }

    #[test]
    fn a_folder_with_anything_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "x").unwrap();
        let error = init(dir.path(), &options(), at(), &mut NoPassphrases).unwrap_err();
        assert_eq!(error.broken_rule(), Some(Rule::ImportEmpty));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_configuration_that_is_there_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let text = TEMPLATE[1].1.replace("\"canary\"", "\"pioneers\"");
        fs::write(dir.path().join("cohorts.toml"), text).unwrap();
        let made = init(dir.path(), &options(), at(), &mut NoPassphrases).unwrap();
        assert!(made.repository.role("stable.pioneers").is_some());
        let again = init(dir.path(), &options(), at(), &mut NoPassphrases).unwrap_err();
        assert!(again.to_string().contains("is already a workspace"), "{again}");
    }

    /// Keys that holders made apart are used or refused, and never replaced.
    #[test]
    fn declared_public_keys_are_kept() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        init(other.path(), &options(), at(), &mut NoPassphrases).unwrap();
        let declared = fs::read_to_string(other.path().join("tidegate.toml")).unwrap();
        fs::write(dir.path().join("tidegate.toml"), &declared).unwrap();
        let generate =
            || Options { keys: KeySource::Generate { kind: generate::Kind::Ed25519, passphrase: None }, ..options() };
        let error = init(dir.path(), &generate(), at(), &mut NoPassphrases).unwrap_err();
        assert_eq!(error.broken_rule(), Some(Rule::KeyMissing), "{error}");
        assert!(
            error.to_string().contains("root-1") && error.remedy_text().unwrap().contains("docs/ceremony.md"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(dir.path().join("tidegate.toml")).unwrap(), declared);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else was written");
        // Where they can be reached, they sign.
        let absolute = declared.replace("file:keys/", &format!("file:{}/keys/", other.path().display()));
        fs::write(dir.path().join("tidegate.toml"), &absolute).unwrap();
        init(dir.path(), &generate(), at(), &mut NoPassphrases).unwrap();
        let made = fs::read_to_string(dir.path().join("tidegate.toml")).unwrap();
        let publics = |text: &str| {
            text.lines().filter(|line| line.starts_with("public = \"ed25519")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(publics(&made), publics(&declared));
    }

    #[test]
    fn nothing_is_left_behind_by_an_error() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("new");
        let options = Options { salt: Some("not hex".into()), ..options() };
        assert!(init(&dir, &options, at(), &mut NoPassphrases).is_err());
        assert!(!dir.exists());
        let options =
            Options { keys: KeySource::Folder(parent.path().join("no-keys")), salt: None, actor: "test".into() };
        let error = init(&dir, &options, at(), &mut NoPassphrases).unwrap_err();
        assert!(error.to_string().contains("there is no file"), "{error}");
        assert!(!dir.exists());
    }

    #[test]
    fn given_keys_are_named_as_seen_from_the_workspace() {
        assert_eq!(relative_to(Path::new("/a/b/w"), Path::new("/a/keys/k.pem")), Path::new("../../keys/k.pem"));
        assert_eq!(relative_to(Path::new("/a/w"), Path::new("/a/w/keys/k.pem")), Path::new("keys/k.pem"));
        assert_eq!(relative_to(Path::new("/a/w"), Path::new("/media/k.pem")), Path::new("/media/k.pem"));
    }

    #[cfg(unix)]
    #[test]
    fn generated_keys_are_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let keys = KeySource::Generate { kind: generate::Kind::Ed25519, passphrase: None };
        init(dir.path(), &Options { keys, ..options() }, at(), &mut NoPassphrases).unwrap();
        let mode = fs::metadata(dir.path().join("keys/root-1.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

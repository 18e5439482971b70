//! `tidegate.toml`: what is released, who may sign what, and where the keys are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use tidegate_model::delivery::MAX_PATCHES;
use tidegate_model::name::{FactName, HardwareId, Name, Text};
use tidegate_model::version::Version;
use tidegate_tuf::key::{Key, KeyId};

use super::{check_schema, invalid, load, parse};
use crate::error::{Error, Result};
use crate::keys::{KeyEntry, KeyName, KeyUri, parse_public};
use crate::metadata::{OnlineLifetimes, RoleKeys};
use tidegate_model::span::Span;

const FILE: &str = "tidegate.toml";

/// `tidegate.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The form of the file: 1.
    pub schema: u64,
    /// What people call the repository.
    pub name: Text,
    /// What is released. At least one.
    pub products: Vec<Name>,
    /// The hardware there is. At least one.
    pub hardware: BTreeMap<HardwareId, Hardware>,
    /// The facts that devices have beside those that every device has. Where there are any, a condition on another one is a slip.
    #[serde(default)]
    pub facts: BTreeMap<FactName, FactSettings>,
    /// The keys by name.
    pub keys: BTreeMap<KeyName, KeySettings>,
    /// Who signs the top-level roles.
    pub roles: Roles,
    /// The channels. At least one.
    pub channels: BTreeMap<Name, Channel>,
    /// How objects are published.
    #[serde(default)]
    pub publish: PublishSettings,
    /// What is made so that devices fetch less than whole artifacts.
    #[serde(default)]
    pub delivery: DeliverySettings,
    /// Where devices' receipts are.
    #[serde(default)]
    pub receipts: ReceiptSettings,
}

/// What is made so that devices fetch less than whole artifacts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeliverySettings {
    /// Whether artifacts are cut into chunks, so that devices fetch only those that they lack.
    pub chunks: bool,
    /// From how many of the newest releases patches are made.
    pub patches_from: usize,
    /// Smaller artifacts are fetched whole: nothing is made for them.
    pub minimum_bytes: u64,
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self { chunks: true, patches_from: 3, minimum_bytes: 1 << 20 }
    }
}

/// Where devices' receipts are, and the keys that they are verified by. `file:FOLDER` counts from the workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptSettings {
    /// Where receipts are kept.
    #[serde(default)]
    pub places: Vec<String>,
    /// Where devices' keys are enrolled.
    #[serde(default)]
    pub enrolments: Option<String>,
}

/// How objects are published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishSettings {
    /// Where to: one place, or several of which the first decides. A folder counts from the workspace.
    #[serde(default, deserialize_with = "one_or_several")]
    pub place: Vec<String>,
    /// For how long a cache may keep `timestamp.json`; a minute by default.
    #[serde(default)]
    pub timestamp_max_age: Option<Span>,
    /// Whether versioned metadata is stored compressed.
    #[serde(default)]
    pub compress_metadata: bool,
    /// Where what is meant for protected cohorts goes: a place that only the gate reads. A folder counts from the workspace.
    #[serde(default)]
    pub private: Option<String>,
}

impl PublishSettings {
    /// The places, as commands take them for the workspace `dir`.
    pub fn places(&self, dir: &Path) -> Vec<String> {
        self.place.iter().map(|place| from_workspace(dir, place)).collect()
    }

    /// The private place, as commands take it for the workspace `dir`.
    pub fn private(&self, dir: &Path) -> Option<String> {
        self.private.as_ref().map(|place| from_workspace(dir, place))
    }
}

/// A place as it is written in the workspace `dir`: a folder that is not absolute counts from there.
fn from_workspace(dir: &Path, place: &str) -> String {
    // A scheme of one letter is a Windows drive.
    let is_url = place.split_once(':').is_some_and(|(scheme, _)| scheme.len() > 1 && !scheme.contains(['/', '.']));
    let is_elsewhere = is_url || Path::new(place).is_absolute();
    if is_elsewhere || dir == Path::new(".") { place.to_owned() } else { dir.join(place).display().to_string() }
}

/// A text, or a list of texts.
fn one_or_several<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a place, or a list of places")]
    enum Given {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Given::deserialize(from)? {
        Given::One(place) => vec![place],
        Given::Several(places) => places,
    })
}

/// A kind of device.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// What it is, for people.
    #[serde(default)]
    pub description: Option<String>,
    /// How many bytes an artifact for it may have: the size of its slot.
    #[serde(default)]
    pub slot_bytes: Option<u64>,
    /// The lowest version that runs on it.
    #[serde(default)]
    pub minimum_version: Option<Version>,
}

/// A fact that devices have.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactSettings {
    /// What kind of value it has.
    #[serde(rename = "type")]
    pub kind: FactKind,
    /// What it is, for people.
    #[serde(default)]
    pub description: Option<String>,
}

/// The kind of a fact's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FactKind {
    /// Any text.
    Text,
    /// A whole number.
    Integer,
    /// True or false.
    Boolean,
    /// A text that is a version.
    Version,
}

impl FactKind {
    /// Whether a fact of this kind can be compared with a value of another. A version is a text.
    pub fn compares_as(self, other: Self) -> bool {
        self == other || (self == Self::Version && other == Self::Text)
    }
}

impl std::fmt::Display for FactKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Text => "a text",
            Self::Integer => "an integer",
            Self::Boolean => "a boolean",
            Self::Version => "a version",
        })
    }
}

/// A key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    /// Where the private part is: `file:PATH`.
    pub uri: String,
    /// The public part: `ed25519:HEX` or `p256:HEX`. `tidegate init` fills it in.
    #[serde(default)]
    pub public: Option<String>,
    /// Who holds it, for people.
    #[serde(default)]
    pub holder: Option<String>,
}

/// Who signs the top-level roles.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roles {
    /// The keys and thresholds of everything.
    pub root: RoleSettings,
    /// Which channels there are.
    pub targets: RoleSettings,
    /// Which versions of all roles belong together.
    pub snapshot: RoleSettings,
    /// Which snapshot is the newest.
    pub timestamp: RoleSettings,
}

/// Keys, threshold and lifetime of a role.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleSettings {
    /// Names of keys.
    pub keys: Vec<KeyName>,
    /// How many of them must sign.
    pub threshold: u64,
    /// How long a signed version is valid.
    pub expires: Span,
}

/// A channel.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Who says what may be installed.
    pub release: RoleSettings,
    /// Who says how far a rollout goes.
    pub rollout: RoleSettings,
}

impl Settings {
    /// Reads and checks `tidegate.toml` of the workspace `dir`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or is invalid.
    pub fn load(dir: &Path) -> Result<Self> {
        load::<Self>(dir, FILE)?.checked()
    }

    /// Reads and checks the file's content.
    ///
    /// # Errors
    ///
    /// Fails if the content is not valid TOML, or if a value is invalid.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        parse::<Self>(FILE, bytes)?.checked()
    }

    fn checked(self) -> Result<Self> {
        check_schema(FILE, self.schema)?;
        let not_empty = |key: &str, empty: bool| {
            if empty { Err(invalid(FILE, key, "it is empty", "name at least one")) } else { Ok(()) }
        };
        not_empty("products", self.products.is_empty())?;
        not_empty("hardware", self.hardware.is_empty())?;
        not_empty("channels", self.channels.is_empty())?;
        if let Some(twice) = twice(&self.products) {
            return Err(invalid(FILE, "products", format!("{twice} is listed twice"), "list each product once"));
        }
        for (path, role) in self.roles() {
            self.check_role(&path, role)?;
        }
        // One key under two names would count as two people, and could hold two powers.
        let mut seen = BTreeMap::new();
        for (name, key) in &self.keys {
            let at = |e: Error| prefixed(&format!("keys.{name}"), e);
            KeyUri::parse(&key.uri).map_err(at)?;
            let public = key.public.as_deref().map(parse_public).transpose().map_err(at)?;
            if let Some(other) = public.and_then(|public| seen.insert(public.id(), name)) {
                return Err(invalid(
                    FILE,
                    &format!("keys.{name}.public"),
                    format!("it is that of {other}, too"),
                    "use separate keys, or one name",
                ));
            }
        }
        self.check_separation()?;
        if self.delivery.patches_from > MAX_PATCHES {
            return Err(invalid(
                FILE,
                "delivery.patches_from",
                format!("a manifest lists at most {MAX_PATCHES} patches of an artifact"),
                format!("choose 0 to {MAX_PATCHES}"),
            ));
        }
        Ok(self)
    }

    fn check_role(&self, path: &str, role: &RoleSettings) -> Result<()> {
        let key = |name: &str| format!("{path}.{name}");
        if let Some(unknown) = role.keys.iter().find(|name| !self.keys.contains_key(*name)) {
            let names: Vec<_> = self.keys.keys().map(KeyName::as_str).collect();
            return Err(invalid(
                FILE,
                &key("keys"),
                format!("unknown key {unknown}"),
                format!("add [keys.{unknown}], or name one of: {}", names.join(", ")),
            ));
        }
        if let Some(twice) = twice(&role.keys) {
            return Err(invalid(FILE, &key("keys"), format!("{twice} is listed twice"), "list each key once"));
        }
        let count = role.keys.len() as u64;
        if role.threshold == 0 || role.threshold > count {
            return Err(invalid(
                FILE,
                &key("threshold"),
                format!("a threshold of {} with {count} keys can never be met", role.threshold),
                format!("choose 1 to {count}, or list more keys"),
            ));
        }
        if role.expires.is_zero() {
            return Err(invalid(FILE, &key("expires"), "it would expire at once", "give a span such as 90d"));
        }
        Ok(())
    }

    /// Powers that must not meet in one key.
    fn check_separation(&self) -> Result<()> {
        let online = [("roles.snapshot", &self.roles.snapshot), ("roles.timestamp", &self.roles.timestamp)];
        let shared = |a: &RoleSettings, b: &RoleSettings| a.keys.iter().find(|key| b.keys.contains(key)).cloned();
        for (path, role) in online {
            for (other, offline) in [("roles.root", &self.roles.root), ("roles.targets", &self.roles.targets)] {
                if let Some(key) = shared(role, offline) {
                    return Err(invalid(
                        FILE,
                        path,
                        format!("the key {key} also signs {other}"),
                        "keys that are online must not be root or targets keys: use separate keys",
                    ));
                }
            }
        }
        for (name, channel) in &self.channels {
            if let Some(key) = shared(&channel.release, &channel.rollout) {
                return Err(invalid(
                    FILE,
                    &format!("channels.{name}.rollout"),
                    format!("the key {key} also signs releases"),
                    "a device installs only what release keys approve and rollout keys offer: use separate keys",
                ));
            }
        }
        Ok(())
    }

    /// All roles with the path of their table.
    fn roles(&self) -> Vec<(String, &RoleSettings)> {
        let mut roles = vec![
            ("roles.root".to_owned(), &self.roles.root),
            ("roles.targets".to_owned(), &self.roles.targets),
            ("roles.snapshot".to_owned(), &self.roles.snapshot),
            ("roles.timestamp".to_owned(), &self.roles.timestamp),
        ];
        for (name, channel) in &self.channels {
            roles.push((format!("channels.{name}.release"), &channel.release));
            roles.push((format!("channels.{name}.rollout"), &channel.rollout));
        }
        roles
    }

    /// The channel called `name`.
    ///
    /// # Errors
    ///
    /// Fails if there is no such channel.
    pub fn channel(&self, name: &Name) -> Result<&Channel> {
        self.channels.get(name).ok_or_else(|| {
            let names: Vec<_> = self.channels.keys().map(Name::as_str).collect();
            Error::input(format!("{FILE} has no channel {name}"))
                .remedy(format!("the channels are: {}", names.join(", ")))
        })
    }

    /// Checks that the product exists.
    ///
    /// # Errors
    ///
    /// Fails if there is no such product.
    pub fn check_product(&self, name: &Name) -> Result<()> {
        if self.products.contains(name) {
            return Ok(());
        }
        let names: Vec<_> = self.products.iter().map(Name::as_str).collect();
        Err(Error::input(format!("{FILE} has no product {name}"))
            .remedy(format!("the products are: {}", names.join(", "))))
    }

    /// How long snapshot and timestamp live.
    pub fn online(&self) -> OnlineLifetimes {
        OnlineLifetimes {
            snapshot: self.roles.snapshot.expires.delta(),
            timestamp: self.roles.timestamp.expires.delta(),
        }
    }

    /// The keys, for a key ring.
    ///
    /// # Errors
    ///
    /// Fails if a key's public part is missing.
    pub fn key_entries(&self) -> Result<Vec<KeyEntry>> {
        self.keys
            .iter()
            .map(|(name, key)| {
                let at = |e: Error| prefixed(&format!("keys.{name}"), e);
                Ok(KeyEntry {
                    name: name.to_string(),
                    uri: KeyUri::parse(&key.uri).map_err(at)?,
                    public: self.public(name)?,
                    holder: key.holder.clone(),
                })
            })
            .collect()
    }

    /// What the keys are called, by id.
    ///
    /// # Errors
    ///
    /// Fails if a key's public part is missing.
    pub fn key_names(&self) -> Result<BTreeMap<KeyId, String>> {
        let known = self.keys.iter().filter(|(_, key)| key.public.is_some());
        known.map(|(name, _)| Ok((self.public(name)?.id(), name.to_string()))).collect()
    }

    /// The public part of the key called `name`.
    ///
    /// # Errors
    ///
    /// Fails if the key's public part is missing.
    pub fn public(&self, name: &KeyName) -> Result<Key> {
        let text = self.keys.get(name).and_then(|key| key.public.as_deref()).ok_or_else(|| {
            invalid(
                FILE,
                &format!("keys.{name}"),
                "public is missing",
                "add public = \"ed25519:HEX\", the key's public part",
            )
        })?;
        parse_public(text).map_err(|e| prefixed(&format!("keys.{name}.public"), e))
    }

    /// Keys and threshold of a role, as metadata declares them.
    ///
    /// # Errors
    ///
    /// Fails if a key's public part is missing.
    pub fn role_keys(&self, role: &RoleSettings) -> Result<RoleKeys> {
        let keys = role.keys.iter().map(|name| self.public(name)).collect::<Result<_>>()?;
        Ok(RoleKeys { keys, threshold: role.threshold })
    }
}

fn prefixed(key: &str, error: Error) -> Error {
    let remedy = error.remedy_text().unwrap_or("correct that key").to_owned();
    invalid(FILE, key, error, remedy)
}

fn twice<T: Ord>(names: &[T]) -> Option<&T> {
    let mut seen = BTreeSet::new();
    names.iter().find(|name| !seen.insert(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = include_str!("../../repo-template/tidegate.toml");

    fn refusal(from: &str, to: &str) -> String {
        assert!(TEMPLATE.contains(from), "{from}");
        let error = Settings::parse(TEMPLATE.replacen(from, to, 1).as_bytes()).unwrap_err();
        assert!(error.remedy_text().is_some(), "{error}");
        error.to_string()
    }

    #[test]
    fn the_template_is_valid() {
        Settings::parse(TEMPLATE.as_bytes()).unwrap();
    }

    #[test]
    fn one_key_under_two_names_is_refused() {
        let public =
            format!("public = \"ed25519:{}\"", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let text = format!(
            "{TEMPLATE}\n[keys.one]\nuri = \"file:keys/one.pem\"\n{public}\n[keys.two]\nuri = \"file:keys/two.pem\"\n{public}\n"
        );
        let error = Settings::parse(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("keys.two.public: it is that of one, too"), "{error}");
    }

    #[test]
    fn what_cannot_hold_is_refused_by_file_and_key() {
        for (from, to, part) in [
            ("schema = 1", "schema = 2", "tidegate.toml: schema: 2 is not known"),
            ("schema = 1", "schema = \"1\"", "line 9: invalid type"),
            ("schema = 1", "schema = 1\ncolour = 2", "unknown field `colour`"),
            ("products = [\"os\"]", "products = []", "products: it is empty"),
            ("products = [\"os\"]", "products = [\"OS\"]", "is not a name"),
            ("products = [\"os\"]", "products = [\"os\", \"os\"]", "os is listed twice"),
            ("[\"root-1\", \"root-2\", \"root-3\"]", "[\"root-9\"]", "roles.root.keys: unknown key root-9"),
            (
                "[\"root-1\", \"root-2\", \"root-3\"]",
                "[\"root-1\"]",
                "roles.root.threshold: a threshold of 2 with 1 keys can never be met",
            ),
            ("keys = [\"timestamp\"]", "keys = [\"root-1\"]", "roles.timestamp: the key root-1 also signs roles.root"),
            (
                "keys = [\"rollout\"]",
                "keys = [\"release-1\"]",
                "channels.stable.rollout: the key release-1 also signs releases",
            ),
            ("file:keys/root-1.pem", "pkcs11:token=a", "keys.root-1: the key URI pkcs11:token=a is malformed"),
            ("expires = \"365d\"", "expires = \"0\"", "would expire at once"),
            (
                "schema = 1",
                "schema = 1\ndelivery = { patches_from = 17 }",
                "delivery.patches_from: a manifest lists at most 16",
            ),
            ("expires = \"365d\"", "expires = \"a year\"", "is not a duration"),
        ] {
            let error = refusal(from, to);
            assert!(error.contains(part), "{to}: {error}");
        }
    }
}

//! The record of a release: `releases/CHANNEL/PRODUCT/VERSION/release.json`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tidegate_model::Extra;
use tidegate_model::condition::Condition;
use tidegate_model::delivery::Delivery;
use tidegate_model::digest::Digest;
use tidegate_model::layout;
use tidegate_model::manifest::{Artifact, Build, Manifest, Provenance, Urgency};
use tidegate_model::name::{ArtifactName, HardwareId, Name, Text};
use tidegate_model::time;
use tidegate_model::version::{self, Version, VersionRange};
use tidegate_tuf::json;

use crate::config::Settings;
use crate::error::{Error, Result, Rule};
use crate::fs::{self, Changes};
use crate::policy::{self, Facts, Policy, ReleaseEvent, ReleaseState, Status};

/// Where records are.
pub const RELEASES_DIR: &str = "releases";
/// The largest record, manifest or report that is read.
pub const MAX_LENGTH: u64 = 16 << 20;

/// Bytes that the content of such a file may take while it is read.
const ROOM: usize = 64 << 20;

/// Which release: `CHANNEL/PRODUCT/VERSION`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReleaseId {
    /// The channel.
    pub channel: Name,
    /// The product.
    pub product: Name,
    /// The version.
    pub version: Version,
}

impl ReleaseId {
    /// The folder of the record, relative to the workspace.
    pub fn dir(&self) -> String {
        format!("{RELEASES_DIR}/{}/{}/{}", self.channel, self.product, self.version)
    }

    /// A file in that folder.
    pub fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.dir())
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}/{}", self.channel, self.product, self.version))
    }
}

/// Which release, as people type it: `1.2.0`, `os/1.2.0` or `stable/os/1.2.0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseSpec {
    channel: Option<Name>,
    product: Option<Name>,
    version: Version,
}

impl FromStr for ReleaseSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts: Vec<&str> = text.split('/').collect();
        let version = parts.pop().unwrap_or_default();
        let version = version::parse(version).map_err(|e| e.to_string())?;
        let name = |text: &str| text.parse::<Name>().map_err(|e| e.to_string());
        let product = parts.pop().map(name).transpose()?;
        let channel = parts.pop().map(name).transpose()?;
        if !parts.is_empty() {
            return Err(format!("{text:?} has too many parts; write 1.2.0, os/1.2.0 or stable/os/1.2.0"));
        }
        Ok(Self { channel, product, version })
    }
}

impl ReleaseSpec {
    /// Completes the id of a new release: an omitted channel or product must be the only one.
    ///
    /// # Errors
    ///
    /// Fails if the channel or product is unknown, or omitted although there are several.
    pub fn complete(&self, settings: &Settings) -> Result<ReleaseId> {
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => only("channel", settings.channels.keys(), &self.version)?,
        };
        let product = match &self.product {
            Some(product) => product.clone(),
            None => only("product", settings.products.iter(), &self.version)?,
        };
        settings.channel(&channel)?;
        settings.check_product(&product)?;
        Ok(ReleaseId { channel, product, version: self.version.clone() })
    }

    fn matches(&self, id: &ReleaseId) -> bool {
        self.version == id.version
            && self.channel.as_ref().is_none_or(|channel| *channel == id.channel)
            && self.product.as_ref().is_none_or(|product| *product == id.product)
    }

    /// Finds the one matching release.
    ///
    /// # Errors
    ///
    /// Fails if no release matches, if several match, or if a record cannot be read.
    pub fn find(&self, dir: &Path) -> Result<Record> {
        let records = all(dir)?;
        let found: Vec<&Record> = records.iter().filter(|record| self.matches(&record.id())).collect();
        match found.as_slice() {
            [one] => Ok((*one).clone()),
            [] => {
                let known: Vec<_> = records.iter().map(|record| record.id().to_string()).collect();
                Err(Error::input(format!("there is no release {self}")).remedy(if known.is_empty() {
                    "make one: tidegate release create VERSION FILE --hardware ID".into()
                } else {
                    format!("the releases are: {}", known.join(", "))
                }))
            }
            several => {
                let several: Vec<_> = several.iter().map(|record| record.id().to_string()).collect();
                Err(Error::input(format!("{self} may be several releases"))
                    .remedy(format!("say which: {}", several.join(", "))))
            }
        }
    }
}

impl fmt::Display for ReleaseSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.channel, &self.product].into_iter().flatten() {
            write!(f, "{part}/")?;
        }
        write!(f, "{}", self.version)
    }
}

fn only<'a>(what: &str, mut names: impl Iterator<Item = &'a Name>, version: &Version) -> Result<Name> {
    match (names.next(), names.next()) {
        (Some(one), None) => Ok(one.clone()),
        _ => Err(Error::input(format!("which {what} is {version} of? There are several"))
            .remedy("write the release as CHANNEL/PRODUCT/VERSION, e.g. stable/os/1.2.0")),
    }
}

/// The unsigned record of a release.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The form of the file: 1.
    pub schema: u64,
    /// The channel.
    pub channel: Name,
    /// The product.
    pub product: Name,
    /// The version.
    pub version: Version,
    /// Where it is in its life.
    pub state: ReleaseState,
    /// Whether its rollout is paused.
    pub paused: bool,
    /// When the draft was made.
    #[serde(with = "time::text")]
    pub created: DateTime<Utc>,
    /// Its urgency.
    pub urgency: RecordedUrgency,
    /// The build's id.
    pub build_id: Text,
    /// The source it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Text>,
    /// The provenance statement; its bytes are in the artifact store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<ProvenanceRecord>,
    /// The artifacts.
    #[serde(default)]
    pub artifacts: Vec<ArtifactRecord>,
    /// The condition for eligible devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eligibility: Option<Condition>,
    /// From which versions a device may go to it directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_from: Option<VersionRange>,
    /// Sequences it may replace although their version is not lower.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub supersedes: BTreeSet<u64>,
    /// What it retracts, if it is a retraction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retraction: Option<RetractionRecord>,
    /// Notes for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Text>,
    /// The frozen manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<ManifestRecord>,
}

/// What a retraction takes back, and which release its bytes come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetractionRecord {
    /// The release that it takes back.
    pub of: Version,
    /// That release's sequence.
    pub sequence: u64,
    /// The release whose bytes it carries.
    pub to: Version,
}

/// `normal` or `security`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordedUrgency {
    /// An ordinary release.
    Normal,
    /// A security release.
    Security,
}

impl From<RecordedUrgency> for Urgency {
    fn from(urgency: RecordedUrgency) -> Self {
        match urgency {
            RecordedUrgency::Normal => Self::Normal,
            RecordedUrgency::Security => Self::Security,
        }
    }
}

/// A provenance statement that came with the draft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvenanceRecord {
    /// The statement's `predicateType`.
    pub predicate_type: Text,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// The builder it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<Text>,
}

/// An artifact of a draft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactRecord {
    /// Its name in the repository.
    pub name: ArtifactName,
    /// Length in bytes.
    pub length: u64,
    /// SHA-256 of its bytes, by which the store keeps it.
    pub sha256: Digest,
    /// The hardware it fits.
    pub hardware: BTreeSet<HardwareId>,
    /// Media type.
    pub media_type: Text,
    /// Its chunks and, once the manifest is frozen, its patches.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_delivery")]
    pub delivery: Option<Delivery>,
}

fn some_delivery<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Option<Delivery>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Delivery::from_value(&value).map(Some).map_err(serde::de::Error::custom)
}

/// A frozen manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestRecord {
    /// The release's sequence.
    pub sequence: u64,
    /// SHA-256 of the manifest's bytes.
    pub sha256: Digest,
    /// Their length.
    pub length: u64,
}

impl Record {
    /// Which release this is.
    pub fn id(&self) -> ReleaseId {
        ReleaseId { channel: self.channel.clone(), product: self.product.clone(), version: self.version.clone() }
    }

    /// State and pause.
    pub fn status(&self) -> Status {
        Status { state: self.state, paused: self.paused }
    }

    /// The status after `event`.
    ///
    /// # Errors
    ///
    /// Returns the refusal: the release, the rule, and what would satisfy it.
    pub fn after(&self, event: ReleaseEvent, facts: &Facts, policy: &Policy, now: DateTime<Utc>) -> Result<Status> {
        policy::next(self.status(), event, facts, policy, now).map_err(|refusal| {
            let id = self.id().to_string();
            Error::refused(refusal.rule, format!("{id}: {}", refusal.why))
                .remedy(refusal.remedy.replace("RELEASE", &id))
                .until(refusal.until)
        })
    }

    /// Sets state and pause.
    pub fn set_status(&mut self, status: Status) {
        self.state = status.state;
        self.paused = status.paused;
    }

    /// Adds the record to `changes`.
    ///
    /// # Errors
    ///
    /// Fails if the record cannot be serialized.
    pub fn put(&self, changes: &mut Changes) -> Result<()> {
        changes.put(self.id().file("release.json"), to_file(self)?);
        Ok(())
    }

    /// Builds the manifest of the draft.
    #[allow(clippy::default_trait_access, reason = "the type of the schema has one value and needs no name")]
    pub fn to_manifest(&self, sequence: u64, created: DateTime<Utc>) -> Manifest {
        let artifact = |artifact: &ArtifactRecord| Artifact {
            name: artifact.name.clone(),
            path: layout::artifact_path(&self.channel, &self.product, &self.version, &artifact.name),
            length: artifact.length,
            sha256: artifact.sha256,
            hardware: artifact.hardware.clone(),
            media_type: artifact.media_type.clone(),
            delivery: artifact.delivery.clone(),
            extra: Extra::new(),
        };
        let provenance = self.provenance.as_ref().map(|provenance| Provenance {
            predicate_type: provenance.predicate_type.clone(),
            sha256: provenance.sha256,
            builder: provenance.builder.clone(),
            extra: Extra::new(),
        });
        Manifest {
            schema: Default::default(),
            product: self.product.clone(),
            version: self.version.clone(),
            sequence,
            channel: self.channel.clone(),
            created,
            build: Build { id: self.build_id.clone(), source: self.source.clone(), provenance, extra: Extra::new() },
            urgency: self.urgency.into(),
            artifacts: self.artifacts.iter().map(artifact).collect(),
            eligibility: self.eligibility.clone(),
            upgrade_from: self.upgrade_from.clone(),
            supersedes: self.supersedes.clone(),
            notes: self.notes.clone(),
            extra: Extra::new(),
        }
    }

    /// The frozen manifest.
    ///
    /// # Errors
    ///
    /// Fails if no manifest is frozen yet, or if the file is missing, malformed or has another hash than recorded.
    pub fn manifest(&self, dir: &Path) -> Result<(Manifest, Vec<u8>)> {
        let path = self.id().file("manifest.json");
        let Some(frozen) = &self.manifest else {
            return Err(Error::refused(Rule::ReleaseOrder, format!("{} has no manifest yet", self.id()))
                .remedy(format!("freeze it: tidegate release manifest {}", self.id())));
        };
        let bytes = fs::read(&fs::confined(dir, &path)?, MAX_LENGTH)?;
        if Digest::of(&bytes) != frozen.sha256 {
            return Err(Error::trust(format!("{path} is not the manifest that was frozen"))
                .remedy("restore it from version control"));
        }
        let manifest =
            Manifest::parse(&bytes).map_err(|e| Error::input(format!("{path} is malformed")).with_source(e))?;
        Ok((manifest, bytes))
    }
}

/// Serializes to JSON as workspace files use it: indented, with a final newline.
///
/// # Errors
///
/// Fails if the value cannot be serialized.
pub fn to_file(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|e| Error::bug("a record cannot be written").with_source(e))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads JSON that [`to_file`] wrote, strictly.
///
/// # Errors
///
/// Fails if the bytes are not strict JSON of that type.
pub fn from_file<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    let malformed = || {
        Error::input(format!("{name} is malformed"))
            .remedy("restore it from version control; it is not meant to be edited")
    };
    let value = json::parse_large(bytes, ROOM).map_err(|e| malformed().with_source(e))?;
    serde_json::from_value(value).map_err(|e| malformed().with_source(e))
}

/// The record of one release of the workspace `dir`; `None` if it does not exist.
///
/// # Errors
///
/// Fails if the record cannot be read or is malformed.
pub fn load(dir: &Path, id: &ReleaseId) -> Result<Option<Record>> {
    read(dir, &id.file("release.json"))
}

fn read(dir: &Path, name: &str) -> Result<Option<Record>> {
    let Some(bytes) = fs::read_if_exists(&fs::confined(dir, name)?, MAX_LENGTH)? else { return Ok(None) };
    let record: Record = from_file(name, &bytes)?;
    if record.id().file("release.json") != name {
        return Err(Error::input(format!("{name} is the record of {}", record.id()))
            .remedy("restore the folder from version control; records cannot be copied or moved"));
    }
    Ok(Some(record))
}

/// All readable records of the workspace `dir`, sorted by channel, product and version. A record that cannot be read stops no
/// other release; see [`unreadable`].
///
/// # Errors
///
/// Fails if a folder cannot be read.
pub fn all(dir: &Path) -> Result<Vec<Record>> {
    let mut records: Vec<Record> = files(dir)?.iter().filter_map(|name| read(dir, name).ok().flatten()).collect();
    records.sort_by(|a, b| {
        (&a.channel, &a.product).cmp(&(&b.channel, &b.product)).then_with(|| a.version.cmp(&b.version))
    });
    Ok(records)
}

/// The files of the records that cannot be read, and why not.
///
/// # Errors
///
/// Fails if a folder cannot be read.
pub fn unreadable(dir: &Path) -> Result<Vec<(String, Error)>> {
    Ok(files(dir)?.into_iter().filter_map(|name| read(dir, &name).err().map(|error| (name, error))).collect())
}

fn files(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for channel in subfolders(&dir.join(RELEASES_DIR))? {
        for product in subfolders(&dir.join(RELEASES_DIR).join(&channel))? {
            for version in subfolders(&dir.join(RELEASES_DIR).join(&channel).join(&product))? {
                names.push(format!("{RELEASES_DIR}/{channel}/{product}/{version}/release.json"));
            }
        }
    }
    Ok(names)
}

fn subfolders(dir: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", dir, e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("read", dir, e))?;
        if let (true, Ok(name)) = (entry.path().is_dir(), entry.file_name().into_string()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_named_in_three_lengths() {
        for (text, shown) in
            [("1.2.0", "1.2.0"), ("os/1.2.0", "os/1.2.0"), ("stable/os/1.2.0-rc.1", "stable/os/1.2.0-rc.1")]
        {
            assert_eq!(text.parse::<ReleaseSpec>().unwrap().to_string(), shown);
        }
        for text in ["", "1.2", "../1.2.0", "/1.2.0", "a/b/c/1.2.0", "OS/1.2.0", "os/", "stable//1.2.0"] {
            assert!(text.parse::<ReleaseSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_said_must_be_the_only_one() {
        let settings = Settings::parse(include_bytes!("../../repo-template/tidegate.toml")).unwrap();
        let spec: ReleaseSpec = "1.2.0".parse().unwrap();
        assert_eq!(spec.complete(&settings).unwrap().to_string(), "stable/os/1.2.0");
        let spec: ReleaseSpec = "app/1.2.0".parse().unwrap();
        assert!(spec.complete(&settings).unwrap_err().to_string().contains("no product app"));
    }
}

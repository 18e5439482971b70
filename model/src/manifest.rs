//! The manifest of a release: what it is, what it contains, and which devices may install it. Schema 1.
//!
//! ```json
//! {
//!   "schema": 1,
//!   "product": "os", "version": "1.2.0", "sequence": 12, "channel": "stable",
//!   "created": "2026-01-05T09:00:00Z",
//!   "build": {"id": "ci-4711", "source": "git+https://example.com/os@3f2c", "provenance": {
//!     "type": "https://slsa.dev/provenance/v1", "sha256": "...", "builder": "https://example.com/ci"}},
//!   "urgency": "normal",
//!   "artifacts": [{
//!     "name": "rootfs.img", "path": "stable/releases/os/1.2.0/rootfs.img", "length": 52428800, "sha256": "...",
//!     "hardware": ["board-a", "board-b"], "media_type": "application/octet-stream", "delivery": {
//!       "index": {"length": 123456, "sha256": "..."}, "pack": {"length": 23456789, "sha256": "..."},
//!       "patches": [{"from": {"version": "1.1.0", "length": 52428800, "sha256": "..."}, "length": 5432109, "sha256": "...",
//!         "directory": {"length": 98765, "sha256": "..."}}]}}],
//!   "eligibility": {"fact": "ram-mb", "ge": 512},
//!   "upgrade_from": ">=1.0.0",
//!   "supersedes": [11],
//!   "notes": ["Fixes the clock."]
//! }
//! ```
//!
//! `source`, `provenance`, `delivery`, `eligibility`, `upgrade_from`, `supersedes` and `notes` may be absent. `build`, an artifact
//! and the manifest itself may contain more fields, which are kept and ignored.

use alloc::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::condition::Condition;
use super::decode::{
    Extra, FieldError, Fields, FormatError, SchemaVersion, canonical, extra, invalid, parse, parsed, schema,
};
use super::delivery::Delivery;
use super::digest::Digest;
use super::layout::Location;
use super::name::{ArtifactName, HardwareId, Name, Text};
use super::time::{self, UtcTime};
use super::version::{Version, VersionRange};
use crate::prelude::*;

/// Why a manifest was not accepted.
pub type ManifestError = FormatError;

/// The maximum number of artifacts in a manifest.
pub const MAX_ARTIFACTS: usize = 256;

const DOCUMENT: &str = "manifest";
const MAX_LIST: usize = 1024;

/// A release of a product on a channel.
///
/// The fields are public; [`Manifest::to_bytes`] refuses the same values as [`Manifest::parse`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Manifest {
    /// The schema.
    pub schema: SchemaVersion,
    /// The product.
    pub product: Name,
    /// The version. Versions are ordered by precedence; build metadata does not count.
    pub version: Version,
    /// Increases with every release of the product on the channel, including retracts. It never decreases on a device.
    /// At least 1; 0 is the factory image.
    pub sequence: u64,
    /// The channel.
    pub channel: Name,
    /// When the manifest was made.
    #[serde(with = "time::text")]
    pub created: UtcTime,
    /// The origin of the artifacts.
    pub build: Build,
    /// The urgency.
    pub urgency: Urgency,
    /// At least one.
    pub artifacts: Vec<Artifact>,
    /// The condition for devices that may install it; `None` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eligibility: Option<Condition>,
    /// The installed versions that can be upgraded directly to this one; `None` for all. A device on another version
    /// installs a bridge first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade_from: Option<VersionRange>,
    /// Lower sequences of releases that it may replace although their version is not lower: a signed
    /// retract.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub supersedes: BTreeSet<u64>,
    /// Notes for people, line by line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Text>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The origin of a release's artifacts.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Build {
    /// The build's id in the system that ran it.
    pub id: Text,
    /// The source it was built from, best as a URI with a commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Text>,
    /// The attestation of how it was built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A reference to a provenance statement (in-toto).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Provenance {
    /// The statement's `predicateType`, e.g. `https://slsa.dev/provenance/v1`.
    #[serde(rename = "type")]
    pub predicate_type: Text,
    /// SHA-256 of the statement's bytes.
    pub sha256: Digest,
    /// The id of the builder, as the statement names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builder: Option<Text>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The urgency of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Urgency {
    /// An ordinary release.
    Normal,
    /// A security release: it may be offered to all cohorts at once, without soak and ramps.
    Security,
}

impl core::fmt::Display for Urgency {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            Urgency::Normal => "normal",
            Urgency::Security => "security",
        })
    }
}

/// A file of a release.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Artifact {
    /// Its name, unique within the manifest.
    pub name: ArtifactName,
    /// Its target path. It is below the releases of the manifest's own channel and product; the version in it may be
    /// another one, as when a retract carries older bytes.
    pub path: String,
    /// Length in bytes, at least 1.
    pub length: u64,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// The hardware it fits, at least one id. A device takes every artifact that fits its hardware.
    pub hardware: BTreeSet<HardwareId>,
    /// Media type (RFC 6838), e.g. `application/octet-stream`.
    pub media_type: Text,
    /// How it travels in fewer bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Manifest {
    /// Reads a manifest from strict JSON.
    ///
    /// # Errors
    ///
    /// If it is not strict JSON or not a valid manifest.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        Manifest::from_value(&parse(DOCUMENT, bytes)?)
    }

    /// Reads a manifest from a JSON value.
    ///
    /// # Errors
    ///
    /// If it is not a valid manifest.
    pub fn from_value(value: &Value) -> Result<Manifest, ManifestError> {
        let one = |error| invalid(DOCUMENT, vec![error]);
        let mut fields = Fields::of(value, "").map_err(one)?;
        let schema = schema(DOCUMENT, &mut fields)?;
        let manifest = read(schema, fields).map_err(one)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The signed and published bytes: canonical JSON.
    ///
    /// # Errors
    ///
    /// If reading the bytes would not give the same manifest.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        self.check()?;
        let whole = Manifest { created: time::whole(self.created), ..self.clone() };
        let bytes = canonical(DOCUMENT, &whole, Manifest::from_value)?;
        parse(DOCUMENT, &bytes)?;
        Ok(bytes)
    }

    /// Checks the rules that the types do not enforce, and lists all errors.
    ///
    /// # Errors
    ///
    /// Every invalid field.
    pub fn check(&self) -> Result<(), ManifestError> {
        let mut errors = Vec::new();
        let mut add = |at: &str, why: String| errors.push(FieldError::new(at, why));
        if self.sequence == 0 {
            add("sequence", "0 is reserved for the factory image; releases start at 1".into());
        }
        if !time::in_range(self.created) {
            add("created", "the year must be 1970 to 9999".into());
        }
        if self.version.to_string().len() > super::version::MAX {
            add("version", format!("too long: at most {} characters", super::version::MAX));
        }
        if let Some(own) = self.supersedes.iter().find(|&&sequence| sequence >= self.sequence) {
            add("supersedes", format!("{own} is not lower than the release's own sequence {}", self.sequence));
        }
        if self.artifacts.is_empty() {
            add("artifacts", "this list is empty: a release has at least one artifact".into());
        }
        let mut names = BTreeMap::new();
        for (index, artifact) in self.artifacts.iter().enumerate() {
            if let Some(first) = names.insert(&artifact.name, index) {
                let why = format!("{} is the name of artifacts[{first}] already", artifact.name);
                add(&format!("artifacts[{index}].name"), why);
            }
            if let Err(why) = self.check_path(artifact) {
                add(&format!("artifacts[{index}].path"), why);
            }
            if artifact.length == 0 {
                add(&format!("artifacts[{index}].length"), "an artifact has at least one byte".into());
            }
            if artifact.hardware.is_empty() {
                add(&format!("artifacts[{index}].hardware"), "this list is empty: name the hardware it fits".into());
            }
            if !is_media_type(artifact.media_type.as_str()) {
                let why = "expected a media type such as application/octet-stream".into();
                add(&format!("artifacts[{index}].media_type"), why);
            }
            if let Some(delivery) = &artifact.delivery {
                delivery.check(&mut |at, why| add(&format!("artifacts[{index}].delivery{at}"), why.into()));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(invalid(DOCUMENT, errors)) }
    }

    /// The artifacts that fit a hardware, in the manifest's order.
    pub fn artifacts_for<'a>(&'a self, hardware: &'a HardwareId) -> impl Iterator<Item = &'a Artifact> {
        self.artifacts.iter().filter(move |artifact| artifact.hardware.contains(hardware))
    }

    fn check_path(&self, artifact: &Artifact) -> Result<(), String> {
        match Location::parse(&artifact.path) {
            Some(Location::Artifact { channel, product, artifact: name, .. })
                if channel == self.channel && product == self.product && name == artifact.name =>
            {
                Ok(())
            }
            _ => Err(format!(
                "{} is not the path of this artifact: expected {}/releases/{}/VERSION/{}",
                super::decode::quoted(&artifact.path),
                self.channel,
                self.product,
                artifact.name
            )),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Manifest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Manifest::from_value(&Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

fn read(schema: SchemaVersion, mut fields: Fields<'_>) -> Result<Manifest, FieldError> {
    Ok(Manifest {
        schema,
        product: fields.parsed("product")?,
        version: fields.text_as("version", crate::version::parse)?,
        sequence: fields.u64("sequence")?,
        channel: fields.parsed("channel")?,
        created: fields.text_as("created", time::parse)?,
        build: read_build(Fields::of(fields.required("build")?, "build")?)?,
        urgency: fields.one_of("urgency", &[("normal", Urgency::Normal), ("security", Urgency::Security)])?,
        artifacts: fields.list("artifacts", MAX_ARTIFACTS, |item, at| read_artifact(Fields::of(item, at)?))?,
        eligibility: fields.optional("eligibility").map(|value| Condition::read(value, "eligibility")).transpose()?,
        upgrade_from: fields.optional_parsed("upgrade_from")?,
        supersedes: fields.set_or_empty("supersedes", MAX_LIST, |item, at| {
            item.as_u64().ok_or_else(|| super::decode::expected("a whole number from 0 to 2^64-1", item, at))
        })?,
        notes: fields.list_or_empty("notes", MAX_LIST, parsed)?,
        extra: extra(&fields)?,
    })
}

fn read_build(mut fields: Fields<'_>) -> Result<Build, FieldError> {
    Ok(Build {
        id: fields.parsed("id")?,
        source: fields.optional_parsed("source")?,
        provenance: match fields.optional("provenance") {
            None => None,
            Some(value) => Some(read_provenance(Fields::of(value, &fields.at("provenance"))?)?),
        },
        extra: extra(&fields)?,
    })
}

fn read_provenance(mut fields: Fields<'_>) -> Result<Provenance, FieldError> {
    Ok(Provenance {
        predicate_type: fields.parsed("type")?,
        sha256: fields.parsed("sha256")?,
        builder: fields.optional_parsed("builder")?,
        extra: extra(&fields)?,
    })
}

fn read_artifact(mut fields: Fields<'_>) -> Result<Artifact, FieldError> {
    Ok(Artifact {
        name: fields.parsed("name")?,
        path: fields.parsed("path")?,
        length: fields.u64("length")?,
        sha256: fields.parsed("sha256")?,
        hardware: fields.set("hardware", MAX_LIST, parsed)?,
        media_type: fields.parsed("media_type")?,
        delivery: fields.optional_part("delivery", Delivery::read)?,
        extra: extra(&fields)?,
    })
}

/// RFC 6838, section 4.2: two restricted names with a slash between. Parameters are left out.
fn is_media_type(text: &str) -> bool {
    let restricted = |name: &str| {
        (1..=127).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&c))
    };
    text.split_once('/').is_some_and(|(kind, subtype)| restricted(kind) && restricted(subtype))
}

//! The layout: the target paths and role names of a repository.
//!
//! ```text
//! stable/cohorts.json                           cohort map        listed by role stable
//! stable/releases/os/1.2.0/manifest.json        manifest          listed by role stable
//! stable/releases/os/1.2.0/rootfs.img           artifact          listed by role stable
//! stable/patches/os/1.2.0/rootfs.img.json       later patches     listed by role stable
//! stable/cohorts/canary/os.json                 assignment        listed by role stable.canary
//! stable/delivery/SHA256.index, .pack, .patch   deliveries        listed by no role: named in manifests and in later patches
//! ```
//!
//! These are target paths in TUF's sense: relative to the targets folder, without the hash prefix of consistent
//! snapshots. Every segment is ASCII and needs no percent-encoding but for `+`.

use core::fmt;

use super::delivery::Kind;
use super::digest::Digest;
use super::name::{ArtifactName, Name};
use super::version::{self, Version};
use crate::prelude::*;

/// The target path of a channel's cohort map.
pub fn cohorts_path(channel: &Name) -> String {
    format!("{channel}/cohorts.json")
}

/// The target path of a release's manifest.
pub fn manifest_path(channel: &Name, product: &Name, version: &Version) -> String {
    format!("{channel}/releases/{product}/{version}/manifest.json")
}

/// The target path of an artifact of a release.
pub fn artifact_path(channel: &Name, product: &Name, version: &Version, artifact: &ArtifactName) -> String {
    format!("{channel}/releases/{product}/{version}/{artifact}")
}

/// The target path by which a cohort's role assigns a release of a product.
pub fn assignment_path(channel: &Name, cohort: &Name, product: &Name) -> String {
    format!("{channel}/cohorts/{cohort}/{product}.json")
}

/// The target path of the list of patches to an artifact that were made after its release was signed.
pub fn patches_path(channel: &Name, product: &Name, version: &Version, artifact: &ArtifactName) -> String {
    format!("{channel}/patches/{product}/{version}/{artifact}.json")
}

/// The path of a file of a delivery. It is no target: its name has no further prefix.
pub fn delivery_path(channel: &Name, kind: Kind, sha256: &Digest) -> String {
    format!("{channel}/delivery/{sha256}.{}", kind.extension())
}

/// The role of a channel: its name.
pub fn channel_role(channel: &Name) -> String {
    channel.to_string()
}

/// The role of a cohort: `CHANNEL.COHORT`. Names contain no dot, so that this can be read back.
pub fn cohort_role(channel: &Name, cohort: &Name) -> String {
    format!("{channel}.{cohort}")
}

/// The path patterns that `targets` delegates to a channel's role. `*` never crosses a `/`.
pub fn channel_patterns(channel: &Name) -> Vec<String> {
    vec![
        format!("{channel}/cohorts.json"),
        format!("{channel}/releases/*/*/*"),
        format!("{channel}/patches/*/*/*"),
        format!("{channel}/cohorts/*/*"),
    ]
}

/// The path patterns that a channel's role delegates to a cohort's role.
pub fn cohort_patterns(channel: &Name, cohort: &Name) -> Vec<String> {
    vec![format!("{channel}/cohorts/{cohort}/*")]
}

/// What a target path denotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A channel's cohort map.
    CohortMap {
        /// Its channel.
        channel: Name,
    },
    /// A release's manifest.
    Manifest {
        /// Its channel.
        channel: Name,
        /// Its product.
        product: Name,
        /// Its version.
        version: Version,
    },
    /// An artifact of a release.
    Artifact {
        /// Its channel.
        channel: Name,
        /// Its product.
        product: Name,
        /// Its version.
        version: Version,
        /// Its file name.
        artifact: ArtifactName,
    },
    /// The list of later patches to an artifact.
    Patches {
        /// Its channel.
        channel: Name,
        /// Its product.
        product: Name,
        /// The version of the artifact's release.
        version: Version,
        /// The artifact's file name.
        artifact: ArtifactName,
    },
    /// A file of a delivery.
    Delivery {
        /// Its channel.
        channel: Name,
        /// What it is.
        kind: Kind,
        /// SHA-256 of its bytes.
        sha256: Digest,
    },
    /// A cohort's assignment for a product.
    Assignment {
        /// Its channel.
        channel: Name,
        /// Its cohort.
        cohort: Name,
        /// Its product.
        product: Name,
    },
}

impl Location {
    /// Reads a target path back. `None` if it is no path of this layout; what is returned displays as `path`.
    pub fn parse(path: &str) -> Option<Location> {
        let mut segments = path.split('/');
        let mut next = || segments.next();
        let channel = next()?.parse().ok()?;
        let found = match (next()?, next(), next(), next()) {
            ("cohorts.json", None, None, None) => Location::CohortMap { channel },
            ("cohorts", Some(cohort), Some(file), None) => Location::Assignment {
                channel,
                cohort: cohort.parse().ok()?,
                product: file.strip_suffix(".json")?.parse().ok()?,
            },
            ("delivery", Some(file), None, None) => {
                let (sha256, extension) = file.split_once('.')?;
                let kind = Kind::ALL.into_iter().find(|kind| kind.extension() == extension)?;
                Location::Delivery { channel, kind, sha256: sha256.parse().ok()? }
            }
            ("patches", Some(product), Some(version), Some(file)) => Location::Patches {
                channel,
                product: product.parse().ok()?,
                version: version::parse(version).ok()?,
                artifact: file.strip_suffix(".json")?.parse().ok()?,
            },
            ("releases", Some(product), Some(version), Some(file)) => {
                let product = product.parse().ok()?;
                let version = version::parse(version).ok()?;
                match file {
                    "manifest.json" => Location::Manifest { channel, product, version },
                    _ => Location::Artifact { channel, product, version, artifact: file.parse().ok()? },
                }
            }
            _ => return None,
        };
        segments.next().is_none().then_some(found)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self {
            Location::CohortMap { channel } => cohorts_path(channel),
            Location::Manifest { channel, product, version } => manifest_path(channel, product, version),
            Location::Artifact { channel, product, version, artifact } => {
                artifact_path(channel, product, version, artifact)
            }
            Location::Patches { channel, product, version, artifact } => {
                patches_path(channel, product, version, artifact)
            }
            Location::Delivery { channel, kind, sha256 } => delivery_path(channel, *kind, sha256),
            Location::Assignment { channel, cohort, product } => assignment_path(channel, cohort, product),
        })
    }
}

/// What a delegated role denotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DelegatedRole {
    /// A channel's role: what may be installed.
    Channel(Name),
    /// A cohort's role: the state of the rollout.
    Cohort {
        /// The channel that delegates to it.
        channel: Name,
        /// The cohort.
        cohort: Name,
    },
}

impl DelegatedRole {
    /// Reads the name of a delegated role back. `None` for anything else, the top-level roles among it.
    pub fn parse(role: &str) -> Option<DelegatedRole> {
        Some(match role.split_once('.') {
            None => DelegatedRole::Channel(role.parse().ok()?),
            Some((channel, cohort)) => {
                DelegatedRole::Cohort { channel: channel.parse().ok()?, cohort: cohort.parse().ok()? }
            }
        })
    }
}

impl fmt::Display for DelegatedRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DelegatedRole::Channel(channel) => write!(f, "{channel}"),
            DelegatedRole::Cohort { channel, cohort } => write!(f, "{channel}.{cohort}"),
        }
    }
}

//! The files that manifests and lists of patches name beside their artifacts: chunk indexes, packs and patches.
//!
//! They are objects of the repository but no targets: the channel's role lists the manifest, and the manifest lists them by length and
//! SHA-256, which is in their names. A place needs those that live manifests and lists of patches name.

use tidegate_model::delivery::{Delivery, Kind, PatchList, PatchRef};
use tidegate_model::digest::Digest;
use tidegate_model::layout::{self, Location};
use tidegate_model::manifest::Manifest;
use tidegate_model::name::Name;

/// A file of delivery.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeliveryFile {
    /// Its path below the targets folder.
    pub path: String,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Their number.
    pub length: u64,
}

impl DeliveryFile {
    fn new(channel: &Name, kind: Kind, sha256: Digest, length: u64) -> Self {
        Self { path: layout::delivery_path(channel, kind, &sha256), sha256, length }
    }

    /// Its name, relative to the root of the repository.
    pub fn key(&self) -> String {
        format!("targets/{}", self.path)
    }
}

/// The longest manifest or list of patches that is read, in bytes.
pub const MAX_LENGTH: u64 = 16 << 20;

/// Whether the object with this key is a file of delivery.
pub fn is_file(key: &str) -> bool {
    let path = key.strip_prefix("targets/");
    path.is_some_and(|path| matches!(Location::parse(path), Some(Location::Delivery { .. })))
}

/// Whether the target at this path may name such files.
pub fn names_some(path: &str) -> bool {
    matches!(Location::parse(path), Some(Location::Manifest { .. } | Location::Patches { .. }))
}

/// The files that the target at this path, with these bytes, names; `None` if it is malformed.
pub fn named(path: &str, bytes: &[u8]) -> Option<Vec<DeliveryFile>> {
    Some(match Location::parse(path) {
        Some(Location::Manifest { channel, .. }) => {
            let artifacts = Manifest::parse(bytes).ok()?.artifacts;
            artifacts
                .iter()
                .filter_map(|artifact| artifact.delivery.as_ref())
                .flat_map(|it| files(&channel, it))
                .collect()
        }
        Some(Location::Patches { channel, .. }) => {
            PatchList::parse(bytes).ok()?.patches.iter().map(|it| patch(&channel, it)).collect()
        }
        _ => Vec::new(),
    })
}

/// The files of one artifact's delivery.
pub fn files(channel: &Name, delivery: &Delivery) -> Vec<DeliveryFile> {
    let Delivery { index, pack, patches, .. } = delivery;
    let chunks = [(Kind::Index, index), (Kind::Pack, pack)];
    let chunks = chunks.map(|(kind, file)| DeliveryFile::new(channel, kind, file.sha256, file.length));
    chunks.into_iter().chain(patches.iter().map(|it| patch(channel, it))).collect()
}

/// The file of a patch.
pub fn patch(channel: &Name, patch: &PatchRef) -> DeliveryFile {
    DeliveryFile::new(channel, Kind::Patch, patch.sha256, patch.length)
}

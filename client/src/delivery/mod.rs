//! Delivering an artifact in fewer bytes: straight into a slot or a file, piece by piece.
//!
//! A manifest lists chunks and patches of an artifact by length and hash ([`tidegate_model::delivery`]). `ways` orders the ways by their signed
//! sizes, and `Filler` writes the artifact. A piece is taken, in this order, from what is there already, from the running release, by patch
//! from it, as a chunk of the pack, or from the whole file, and its hash is compared before it is written. Nothing else is remembered about how far that
//! came: after a stop, the pieces that are there are compared again.
//!
//! What fails of a patch, an index or a pack, or in the running release, costs bytes; the artifact is whole when its own hash is right, and only then.

mod chunks;
mod fill;
mod pieces;

use serde::Serialize;

pub(crate) use fill::{Filler, Job};

use tidegate_model::delivery::{Delivery, FileRef, PatchRef};
pub use tidegate_model::receipt::DeliveryWay as WayKind;
use tidegate_model::version::Version;

/// A way to fetch an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Way {
    /// Which way.
    pub way: WayKind,
    /// The most bytes that it takes, by the signed lengths.
    pub bytes: u64,
    /// The release that a patch starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Version>,
}

/// For example `patch from 1.1.0, 789 bytes`.
impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, bytes) = (self.way.name(), self.bytes);
        match &self.from {
            Some(from) => write!(f, "{kind} from {from}, {bytes} bytes"),
            None => write!(f, "{kind}, {bytes} bytes"),
        }
    }
}

/// The ways to fetch an artifact of `length` bytes with this delivery and this patch, the cheapest first.
///
/// Of chunks, the device has some as a rule, so that fewer come than are signed: they go before the whole file as long as they are not 1/64 more
/// than it, as for an image that does not compress.
pub(crate) fn ways(length: u64, delivery: Option<&Delivery>, patch: Option<&PatchRef>) -> Vec<Way> {
    let way = |way, bytes| Way { way, bytes, from: None };
    let chunks = delivery.map(|it| way(WayKind::Chunks, it.index.length.saturating_add(it.pack.length)));
    let patch = patch.map(|it| Way { from: Some(it.from.version.clone()), ..way(WayKind::Patch, it.length) });
    let mut ways: Vec<Way> = patch.into_iter().chain(chunks).chain([way(WayKind::Whole, length)]).collect();
    ways.sort_by_key(|it| if it.way == WayKind::Whole { it.bytes.saturating_add(it.bytes / 64) } else { it.bytes });
    ways
}

/// A file of a delivery, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) url: String,
    pub(crate) file: FileRef,
}

/// The files of an artifact's delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) index: Remote,
    pub(crate) pack: Remote,
    /// The patch from the running release, with its directory.
    pub(crate) patch: Option<(Remote, FileRef)>,
}

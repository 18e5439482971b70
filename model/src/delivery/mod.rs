//! How an artifact travels in fewer bytes: as chunks (an index and a pack) and as patches from earlier artifacts.
//!
//! A manifest lists these files by length and SHA-256; they are objects beside the targets, and no targets themselves. They decide only
//! how many bytes are fetched: an artifact is known by its own SHA-256, and every piece by one of its own, compared before it is used.
//! Everything in these files is bounded before memory is taken or a byte is unpacked, so that none needs to be trusted.
//!
//! * [`index`]: the chunks of an artifact, and where each is in the pack.
//! * [`patch`]: the pieces of an artifact, and how each is made of an older one.
//! * [`unpack()`]: one chunk of a pack. [`unpack_after()`]: LZMA.

#![allow(clippy::cast_possible_truncation, reason = "the numbers were read from as few bytes, or are bounded before")]

mod bytes;
pub mod index;
mod lzma;
pub mod patch;

pub use index::{IndexRecord, read_index};
pub use lzma::unpack as unpack_after;
pub use patch::{Directory, Method, Piece, Source, apply};

use serde_json::Value;

use super::decode::{Extra, FieldError, Fields, FormatError, SchemaVersion, canonical, extra, invalid, parse, schema};
use super::digest::Digest;
use super::version::{self, Version};
use crate::prelude::*;

/// The maximum number of patches to one artifact in a manifest, and in a list of patches.
pub const MAX_PATCHES: usize = 16;

/// The maximum length of an artifact, an index, a pack and a patch: places in them are written in five bytes.
pub const MAX_LENGTH: u64 = 1 << 40;

/// Why a file of a delivery was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DeliveryError(pub(crate) &'static str);

/// Unpacks one chunk of a pack: `packed` is the chunk itself if it is as long as it, else compressed.
///
/// # Errors
///
/// If it is damaged. Whoever unpacks compares the chunk's hash: not every damage is seen here.
pub fn unpack(packed: &[u8], length: usize, into: &mut Vec<u8>) -> Result<(), DeliveryError> {
    if packed.len() == length {
        into.extend_from_slice(packed);
        return Ok(());
    }
    lzma::unpack(packed, &[], length, into)
}

/// The kinds of files of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The list of an artifact's chunks.
    Index,
    /// The chunks.
    Pack,
    /// What makes an artifact of an older one.
    Patch,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Index, Kind::Pack, Kind::Patch];

    /// The extension of its files.
    pub fn extension(self) -> &'static str {
        match self {
            Kind::Index => "index",
            Kind::Pack => "pack",
            Kind::Patch => "patch",
        }
    }
}

/// A file, or the beginning of one, by its length and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct FileRef {
    /// Length in bytes.
    pub length: u64,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
}

/// The ways in which an artifact travels, beside its own bytes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Delivery {
    /// The index of its chunks.
    pub index: FileRef,
    /// The chunks.
    pub pack: FileRef,
    /// Patches from older artifacts, at most [`MAX_PATCHES`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<PatchRef>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A patch.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PatchRef {
    /// What it starts from.
    pub from: PatchFrom,
    /// Length in bytes.
    pub length: u64,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Its beginning: the list of its pieces.
    pub directory: FileRef,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The artifact that a patch starts from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PatchFrom {
    /// The version of its release.
    pub version: Version,
    /// Length in bytes.
    pub length: u64,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
}

impl Delivery {
    /// Reads it from a JSON value.
    ///
    /// # Errors
    ///
    /// If it is not a valid one.
    pub fn from_value(value: &Value) -> Result<Delivery, FormatError> {
        Delivery::read(value, "").map_err(|error| invalid("delivery", vec![error]))
    }

    pub(crate) fn read(value: &Value, at: &str) -> Result<Delivery, FieldError> {
        let mut fields = Fields::of(value, at)?;
        Ok(Delivery {
            index: fields.part("index", read_file)?,
            pack: fields.part("pack", read_file)?,
            patches: fields.list_or_empty("patches", MAX_PATCHES, PatchRef::read)?,
            extra: extra(&fields)?,
        })
    }

    /// The rules that the types do not enforce, by field.
    pub(crate) fn check(&self, add: &mut dyn FnMut(&str, &'static str)) {
        check_length(self.index.length, ".index.length", add);
        check_length(self.pack.length, ".pack.length", add);
        check_patches(&self.patches, add);
    }
}

impl PatchRef {
    fn read(value: &Value, at: &str) -> Result<PatchRef, FieldError> {
        let mut fields = Fields::of(value, at)?;
        let (length, sha256) = file(&mut fields)?;
        Ok(PatchRef {
            from: fields.part("from", |value, at| {
                let mut fields = Fields::of(value, at)?;
                let (length, sha256) = file(&mut fields)?;
                Ok(PatchFrom { version: fields.text_as("version", version::parse)?, length, sha256 })
            })?,
            length,
            sha256,
            directory: fields.part("directory", read_file)?,
            extra: extra(&fields)?,
        })
    }
}

fn read_file(value: &Value, at: &str) -> Result<FileRef, FieldError> {
    let (length, sha256) = file(&mut Fields::of(value, at)?)?;
    Ok(FileRef { length, sha256 })
}

fn file(fields: &mut Fields<'_>) -> Result<(u64, Digest), FieldError> {
    Ok((fields.u64("length")?, fields.parsed("sha256")?))
}

fn check_length(length: u64, at: &str, add: &mut dyn FnMut(&str, &'static str)) {
    if length >= MAX_LENGTH {
        add(at, "too long: a file of a delivery is shorter than 2^40 bytes");
    }
}

fn check_patches(patches: &[PatchRef], add: &mut dyn FnMut(&str, &'static str)) {
    if patches.len() > MAX_PATCHES {
        add(".patches", "too many: an artifact has at most 16 patches");
    }
    for (index, patch) in patches.iter().enumerate() {
        check_length(patch.length, &format!(".patches[{index}].length"), add);
        if patch.directory.length > patch.length {
            let at = format!(".patches[{index}].directory.length");
            add(&at, "longer than the patch: the directory is its beginning");
        }
    }
}

const LIST: &str = "list of patches";

/// The list of patches to an artifact that were made after its release was signed: a target of the channel.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PatchList {
    /// The schema.
    pub schema: SchemaVersion,
    /// SHA-256 of the artifact that they make.
    pub artifact: Digest,
    /// At most [`MAX_PATCHES`].
    pub patches: Vec<PatchRef>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl PatchList {
    /// Reads a list from strict JSON.
    ///
    /// # Errors
    ///
    /// If it is not strict JSON or not a valid list.
    pub fn parse(bytes: &[u8]) -> Result<PatchList, FormatError> {
        PatchList::from_value(&parse(LIST, bytes)?)
    }

    /// Reads a list from a JSON value.
    ///
    /// # Errors
    ///
    /// If it is not a valid list.
    pub fn from_value(value: &Value) -> Result<PatchList, FormatError> {
        let one = |error| invalid(LIST, vec![error]);
        let mut fields = Fields::of(value, "").map_err(one)?;
        let schema = schema(LIST, &mut fields)?;
        let read = |mut fields: Fields<'_>| {
            Ok(PatchList {
                schema,
                artifact: fields.parsed("artifact")?,
                patches: fields.list("patches", MAX_PATCHES, PatchRef::read)?,
                extra: extra(&fields)?,
            })
        };
        let list = read(fields).map_err(one)?;
        let mut errors = Vec::new();
        check_patches(&list.patches, &mut |at, why| errors.push(FieldError::new(at.trim_start_matches('.'), why)));
        if errors.is_empty() { Ok(list) } else { Err(invalid(LIST, errors)) }
    }

    /// The published bytes: canonical JSON.
    ///
    /// # Errors
    ///
    /// If reading the bytes would not give the same list.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        canonical(LIST, self, PatchList::from_value)
    }
}

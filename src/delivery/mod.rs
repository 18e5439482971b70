//! Makes the files of deliveries: chunks (an index and a pack) and patches, and checks that they give the artifact.
//!
//! Pure functions from files to files. They use all processors, at most 1 GiB of memory whatever the artifacts' lengths, and report how far
//! they are. The same input gives the same output, on any machine.
//!
//! * `chunks`: content-defined chunks. `patch`: pieces made of an older artifact.
//! * `anchors` finds where in the old artifact a piece comes from, `difference` what changed there.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "the numbers are lengths of pieces, chunks and windows, all short, and parts of hashes"
)]

mod anchors;
mod chunks;
mod difference;
mod expand;
mod image;
mod lzma;
mod parallel;
mod patch;

#[cfg(test)]
mod tests;

pub use chunks::{Cut, cut};
pub use expand::{expand_chunks, expand_patch, missing};
pub use patch::{MadePatch, make_patch};

/// Told how many bytes of the artifact are done since the last call; from several threads.
pub type Progress<'a> = dyn Fn(u64) + Sync + 'a;

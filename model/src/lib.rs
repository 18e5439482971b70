//! The model shared by publisher and device: names, paths, manifests, cohorts, rollouts, conditions, decisions.
//!
//! Everything here is a pure function of its arguments: no file, socket, clock or terminal. Both sides link the
//! same code, so that a device takes the decision that the publisher explained before the rollout.
//!
//! * [`name`], [`version`], [`digest`], [`time`]: the small values, each valid by construction. [`text`]: text of others, as it is shown.
//! * [`layout`]: the paths of a repository, and which role may list them.
//! * [`manifest`]: the content of a release. [`cohort`] and [`position`]: the place of a device in its fleet.
//! * [`rollout`]: assignments and ramps. [`facts`] and [`condition`]: eligibility.
//! * [`delivery`]: chunks and patches, which make an artifact travel in fewer bytes.
//! * [`gate`] and [`listing`]: cohorts whose releases are protected. [`receipt`]: the result of an installation, reported by a device.
//! * [`decision`] and [`explanation`]: the decision of a device, with the outcome of every rule.
//!
//! ## Reading JSON
//!
//! Documents are read strictly (see [`tidegate_tuf::json`]). An unknown *field* is kept and ignored, so that a newer
//! publisher can give newer devices more information; an unknown *schema* is refused. Conditions and ramps are not
//! lenient: to ignore part of either could offer a release to the wrong devices. A known field with a wrong
//! value is never skipped.

#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), no_std)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

extern crate alloc;

pub mod cohort;
pub mod condition;
pub mod decision;
mod decode;
pub mod delivery;
pub mod digest;
pub mod explanation;
pub mod facts;
pub mod failure;
pub mod gate;
pub mod layout;
pub mod listing;
pub mod manifest;
pub mod name;
pub mod position;
mod prelude;
pub mod receipt;
pub mod release;
pub mod rollout;
pub mod span;
pub mod text;
pub mod time;
pub mod version;
pub mod week;

/// Packages whose types appear in this one, in the version that it uses: `chrono` for instants, `serde_json` for values.
pub use {chrono, serde_json};

pub use decode::{Extra, FieldError, FormatError, SchemaVersion};

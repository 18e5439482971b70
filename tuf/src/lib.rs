//! The trust core: TUF 1.0.34 metadata, verified over the bytes as received, with no I/O.
//!
//! [`TrustedSet`] contains the trusted metadata and enforces the order of the specification's
//! client workflow (section 5); [`Search`] walks delegations lazily and names the role it needs next. The caller fetches and
//! stores files.

#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), no_std)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

extern crate alloc;

mod chain;
mod error;
pub mod fields;
pub mod hash;
pub mod json;
pub mod key;
pub mod limits;
pub mod metadata;
pub mod path;
mod prelude;
mod search;
pub mod time;
mod trusted;
mod verify;

/// Packages whose types appear in this one, in the version that it uses: `chrono` for instants, `serde_json` for values.
pub use {chrono, serde_json};

pub use chain::Chain;
pub use error::Error;
pub use limits::Limits;
pub use search::{Found, Search, Step};
pub use trusted::{Freshness, TrustedSet};
pub use verify::valid_signers;

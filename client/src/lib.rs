//! The device's side of Tidegate.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]
pub mod agent;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
pub mod command;
pub mod device;
pub mod disk;
pub mod download;
mod error;
pub mod facts;
pub mod fetch;
pub mod file;
#[cfg(feature = "http")]
pub mod http;
pub mod install;
pub mod machine;
pub mod model;
pub mod policy;
pub mod retry;
pub mod store;
pub mod tuf;
pub mod updater;

pub use error::{Error, Fault};

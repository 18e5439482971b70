//! The integration tests of the client, in one binary.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub, dead_code)]

mod attacks;
#[cfg(feature = "cli")]
mod cli;
mod device;
mod differential;
mod fleet;
mod fuzz;
mod mirror;
mod model;
mod python;
mod simulator;
mod trusted_set;
mod updater;

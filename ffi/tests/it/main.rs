//! The C interface, as programs use it.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

// The repositories of the client's tests.
#[allow(dead_code, missing_docs)]
#[path = "../../../client/tests/it/fleet.rs"]
mod fleet;
mod header;
mod hostile;
#[allow(dead_code, missing_docs)]
#[path = "../../../client/tests/it/mirror.rs"]
mod mirror;
#[cfg(target_os = "linux")]
mod programs;
#[allow(dead_code, missing_docs)]
#[path = "../../../tuf/tests/it/simulator.rs"]
mod simulator;
mod support;

//! The integration tests of the client, in one binary.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub, dead_code)]

#[cfg(unix)]
mod agent;
mod attacks;
#[cfg(unix)]
mod board;
#[cfg(feature = "cli")]
mod cli;
mod device;
mod differential;
#[cfg(unix)]
mod faults;
mod fleet;
mod fuzz;
#[cfg(feature = "gate")]
mod gate;
mod mirror;
mod model;
mod python;
#[cfg(all(target_os = "linux", feature = "cli"))]
mod qemu;
#[cfg(target_os = "linux")]
mod rauc;
#[cfg(all(unix, feature = "gate"))]
mod receipts;
#[cfg(target_os = "linux")]
mod recipes;
#[cfg(all(target_os = "linux", feature = "cli"))]
mod run;
mod simulator;
#[cfg(all(target_os = "linux", feature = "cli"))]
mod systemd;
#[cfg(all(unix, feature = "http"))]
mod tls;
mod trusted_set;
mod updater;

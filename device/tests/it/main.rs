//! The program `tidegate-device`, run as a process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub, dead_code)]

// A board and a repository in memory, as in the client's own tests.
#[path = "../../../client/tests/it/board.rs"]
mod board;
#[path = "../../../client/tests/it/delivery_files.rs"]
mod delivery_files;
#[path = "../../../client/tests/it/fleet.rs"]
mod fleet;
#[path = "../../../client/tests/it/mirror.rs"]
mod mirror;
#[path = "../../../tuf/tests/it/simulator.rs"]
mod simulator;
#[path = "../../../client/tests/it/tls_server.rs"]
mod tls_server;
#[path = "../../../client/tests/it/tools.rs"]
mod tools;

mod cli;
mod delivery;
mod field;
#[cfg(feature = "gate")]
mod gate;
mod log;
mod memory;
mod programs;
mod qemu;
#[cfg(feature = "gate")]
mod receipts;
mod run;
mod systemd;
#[cfg(unix)]
mod text;
mod tls;

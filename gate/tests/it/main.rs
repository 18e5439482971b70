//! The gate as it is run: the program, real sockets, real certificates, real stores.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)]

// A repository in memory, as the client's own tests have it.
#[allow(dead_code, missing_docs)]
#[path = "../../../client/tests/it/fleet.rs"]
mod fleet;
#[allow(dead_code, missing_docs)]
#[path = "../../../client/tests/it/mirror.rs"]
mod mirror;
#[allow(dead_code, missing_docs)]
#[path = "../../../tuf/tests/it/simulator.rs"]
mod simulator;

mod cli;
mod ear;
mod end_to_end;
mod guide;
mod hostile;
mod instances;
mod listings;
mod log;
mod receipts;
mod redirect;
mod service;
mod stored_format;
mod support;
mod tpm;

//! Tests of the gate as a separate program, with real sockets, certificates and storage.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, unreachable_pub, clippy::too_many_lines)]

// The in-memory repository of the client's tests.
#[allow(dead_code, missing_docs)]
#[path = "../../../client/tests/it/fleet.rs"]
mod fleet;
#[allow(dead_code, missing_docs)]
#[path = "../../../client/tests/it/mirror.rs"]
mod mirror;
#[allow(missing_docs)]
#[path = "../../../client/tests/it/mutations.rs"]
mod mutations;
#[allow(dead_code, missing_docs)]
#[path = "../../../tuf/tests/it/simulator.rs"]
mod simulator;

mod cli;
mod ear;
mod end_to_end;
mod example;
mod fuzz;
mod guide;
mod hostile;
mod instances;
mod listings;
mod log;
mod receipts;
mod redirect;
mod service;
mod stored;
mod support;
mod tpm;

//! The gate as it is run: the program, real sockets, real certificates, real stores.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)]

mod ear;
mod guide;
mod hostile;
mod instances;
mod receipts;
mod redirect;
mod service;
mod stored;
mod support;
mod tpm;

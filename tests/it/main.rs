//! The integration tests, one binary: they link once.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub, clippy::too_many_lines)]

mod azure;
mod ceremony;
mod cli;
mod clones;
mod commands;
mod cost;
mod deliveries;
mod docs;
mod drafts;
mod emergency;
mod faults;
mod full_disk;
mod gcs;
mod governance;
mod interop;
mod keys;
mod logging;
mod next;
mod places;
mod protected;
mod publish;
mod publishers;
mod reading;
mod receipts;
mod releases;
mod remedies;
mod rollouts;
mod s3;
mod support;
mod text;
mod untrusted;
mod verify;
mod view;

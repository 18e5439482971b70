//! The integration tests of the trust core, in one binary.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub, dead_code, clippy::too_many_lines)]

mod differential;
mod example;
mod python;
mod simulator;
mod trusted_set;

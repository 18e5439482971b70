//! The integration tests of the client, in one binary.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub, dead_code)]

#[cfg(unix)]
mod agent;
mod attacks;
#[cfg(unix)]
mod board;
#[cfg(unix)]
mod by_hand;
#[cfg(all(unix, feature = "http"))]
mod cancel;
#[cfg(all(unix, feature = "http"))]
mod delivery;
mod delivery_files;
mod device;
#[cfg(unix)]
mod faults;
mod fleet;
mod fuzz;
#[cfg(feature = "gate")]
mod gate;
#[cfg(all(unix, feature = "http"))]
mod logging;
#[cfg(unix)]
mod manners;
mod mirror;
mod mutations;
#[cfg(unix)]
mod old_decisions;
#[cfg(all(unix, feature = "http"))]
mod proxies;
#[cfg(target_os = "linux")]
mod rauc;
#[cfg(all(unix, feature = "gate"))]
mod receipts;
#[cfg(target_os = "linux")]
mod recipes;
#[path = "../../../tuf/tests/it/simulator.rs"]
mod simulator;
#[cfg(all(target_os = "linux", feature = "http"))]
mod soak;
mod stolen_time;
#[cfg(all(unix, feature = "testing"))]
mod suites;
#[cfg(all(unix, feature = "testing", feature = "http"))]
mod suites_http;
mod threads;
#[cfg(all(unix, feature = "http"))]
mod tls;
#[cfg(all(unix, feature = "http"))]
mod tls_server;
mod tools;
mod updater;

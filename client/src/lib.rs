//! The device's side of Tidegate.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]
pub mod model;
pub mod tuf;

//! The trust core.
pub mod hash;
pub mod json;
pub mod key;

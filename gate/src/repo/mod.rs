//! The protected repository: the object that a request names, the access to it, its delivery; the known releases.

pub mod delivery;
pub mod listing;
pub mod path;
pub mod releases;

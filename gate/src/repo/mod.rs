//! The protected repository: the object that a request names, the access to it, and its delivery.

pub mod delivery;
pub mod listing;
pub mod path;

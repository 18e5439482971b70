//! What lies behind the gate: which object a request names, who may have it, and how it is given.

pub mod delivery;
pub mod listing;
pub mod path;

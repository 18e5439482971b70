//! The name of what runs.

/// What runs on the device, as an installer names it: a slot, a version, a partition.
pub type Place = String;

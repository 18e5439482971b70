//! `tidegate-device`.
fn main() {}

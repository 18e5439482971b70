//! Rollouts: what a plan says, what health says, what is explained, and that all of them agree with devices.

mod judge;
mod plan;

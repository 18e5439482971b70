//! Rollouts: what a plan says, what health says, what is explained, and that all of them agree with devices.

mod explain;
mod health;
mod judge;
mod plan;
mod several;
mod size;

//! Rollouts: what a plan says, what health says, what is explained, and that all of them agree with devices.

mod cohorts;
mod explain;
mod health;
mod judge;
mod lines;
mod plan;
mod retract;
mod several;
mod size;
mod stops;

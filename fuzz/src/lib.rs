//! What the fuzz targets run: one function a target, over arbitrary bytes.
//!
//! Each asserts what must hold whatever comes in, so that a wrong answer is found and not only a panic. The client's tests run
//! the same functions over the seeds and mutations of them, so that they stay alive where no fuzzer is at hand.

pub mod harness;
#[path = "../../tuf/tests/it/simulator.rs"]
pub mod simulator;

pub use harness::*;

//! What the fuzz targets run: one function a target, over arbitrary bytes.
//!
//! Each asserts what must hold whatever comes in, so that a wrong answer is found and not only a panic. The tests of the client and of the
//! gate run the same functions over the seeds and mutations of them, so that they stay alive where no fuzzer is at hand.

#[path = "../../gate/src/bounds.rs"]
pub mod bounds;
pub mod gate;
pub mod harness;
#[path = "../../gate/src/proxy_protocol.rs"]
pub mod proxy_protocol;
#[path = "../../tuf/tests/it/simulator.rs"]
pub mod simulator;

pub use harness::*;

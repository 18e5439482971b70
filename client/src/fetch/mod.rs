//! Getting files from a repository, whatever carries them: one trait, bounded readers, and a stub.

pub(crate) mod answer;
mod any;
mod error;
pub mod file;
#[cfg(feature = "http")]
pub mod http;
mod memory;
mod refusal;
mod request;
mod throttle;

pub use any::AnyFetch;
pub use error::FetchError;
pub use memory::MemoryFetch;
pub use refusal::Refusal;
#[cfg(test)]
pub(crate) use request::Head;
pub use request::{Body, Fetch, Kind, Pass, Reply, Request};
pub use throttle::{Allowance, Throttle};

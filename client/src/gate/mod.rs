//! The device's side of a [gate](tidegate_model::gate): it authenticates and fetches the files of its protected cohort.
//!
//! ```text
//! POST /v1/challenge -> nonce -> Attestor -> evidence -> POST /v1/grant -> token
//!                                                                            |   with each request, the device's certificate or key
//!                      GET /v1/repo/metadata/N.CHANNEL.COHORT.json <---------+
//!                      GET /v1/repo/targets/...     (releases that are assigned with "private": true)
//! ```
//!
//! A [`Device`](crate::device::Device) with a [`Gate`] uses it only for these files, and only if its cohort is protected and something
//! changed. All other files are public, and files from a gate are verified like all others. A refusal is a reason to keep
//! the installed release, not an error; an unreachable gate is a network error.
//!
//! `GateClient` (feature `gate`) is the real client; its `Attestor` makes the evidence. [`StubGate`] is for tests.

#[cfg(feature = "gate")]
mod client;
mod entry;
mod gated_fetch;
mod stub;

#[cfg(feature = "gate")]
pub use client::{
    AttestError, Attestor, Bank, Challenge, CommandAttestor, Evidence, GateClient, HEADER, Signer, StubAttestor,
    TpmAttestor, TpmOptions,
};
pub use entry::{Gate, Visit};
pub(crate) use gated_fetch::{CurrentVisit, GatedFetch};
pub use stub::StubGate;

//! The device's side of a [gate](tidegate_model::gate): it shows what it is, and fetches what is kept for devices like it.
//!
//! ```text
//! POST /v1/challenge -> nonce -> Attestor -> evidence -> POST /v1/grant -> token
//!                                                                            |   with each request, the device's certificate or key
//!                      GET /v1/repo/metadata/N.CHANNEL.COHORT.json <---------+
//!                      GET /v1/repo/targets/...     (releases that are assigned with "private": true)
//! ```
//!
//! A [`Device`](crate::device::Device) that was given a [`Gate`] asks it for nothing but that, and only if its cohort is protected and something
//! changed: everything else stays public, and what comes through a gate is verified like everything else. A gate that refuses is a reason to keep
//! what is installed, not an error; one that cannot be reached is an error of the network's kind.
//!
//! `GateClient` (feature `gate`) is the real one; it makes its evidence by an `Attestor`. [`StubGate`] is for tests.

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
pub(crate) use gated_fetch::GatedFetch;
pub use stub::StubGate;

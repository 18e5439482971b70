//! The gate: gives what must not be public to devices that can show what they are.
//!
//! Static files serve everyone alike. What a channel keeps for some of its devices lies in a private place, and this service stands
//! before it: a device shows who it is (a client certificate, or its device key), answers a challenge with evidence of its state, and gets
//! a token for the cohorts that the evidence opens; with the token it gets their objects. It also takes the devices' receipts.
//!
//! The gate holds **no signing key**. Stolen, it can deny or disclose, never forge: devices verify all that it gives them as they
//! verify everything. `docs/gate.md` says what each stolen part can do, and how to set one up.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | `gate.toml`, strict |
//! | [`api`] | the routes, and what holds for every request |
//! | [`identity`], [`enrolment`] | who asks: certificates, proofs, enrolled keys |
//! | [`evidence`], [`policy`] | what a device shows, and whether that is enough |
//! | [`nonce`], [`token`], [`secret`] | what the gate gives out and gets back, without keeping it |
//! | [`repo`], [`storage`] | objects: by which path, for whom, from where |
//! | [`server`], [`tls`], [`monitoring`] | sockets |
//! | [`rate_limit`], [`audit`], [`metrics`] | bounds and records |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

pub mod api;
pub mod audit;
pub mod cli;
pub mod config;
pub mod context;
pub mod encoding;
pub mod enrolment;
pub mod error;
pub mod evidence;
pub mod identity;
pub mod metrics;
pub mod monitoring;
pub mod nonce;
pub mod policy;
pub mod rate_limit;
pub mod refusal;
pub mod repo;
pub mod secret;
pub mod server;
pub mod storage;
pub mod tls;
pub mod token;

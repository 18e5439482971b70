//! The gate: delivers protected releases to devices that prove their identity and state.
//!
//! Static files are the same for everyone. Objects that a channel protects for some of its devices are in private storage, and this service
//! controls the access: a device identifies itself (with a client certificate or its device key), answers a challenge with evidence of its
//! state, and gets a token for the cohorts whose rules the evidence satisfies. With the token it downloads their objects. The gate also
//! stores the devices' receipts.
//!
//! The gate has **no signing key**. An attacker who controls it can deny or disclose, but never forge: devices verify everything that it
//! delivers like every other download. `docs/gate.md` describes the set-up, and what an attacker can do with each part.
//!
//! Modules, lowest first. A module imports only from modules above it in this table:
//!
//! | module | contents |
//! |---|---|
//! | [`error`], [`encoding`], [`logging`] | errors for the operator, encodings, text without secrets |
//! | [`bounds`], [`sender`], [`proxy_protocol`] | bounds on JSON from others; addresses; what load balancers say |
//! | [`refusal`], [`names`] | error responses for devices; the names of this gate |
//! | [`attestation`] | kinds of evidence, trust tiers, names of PCRs |
//! | [`config`] | `gate.toml` |
//! | [`storage`], [`download`] | folders and buckets; files by URL |
//! | [`secret`], [`nonce`], [`token`] | what the gate issues and accepts again without storing it |
//! | [`enrolment`], [`identity`] | who sends a request: enrolled keys, certificates, proofs |
//! | [`evidence`], [`policy`] | the state of a device, and whether it satisfies the rules of a cohort |
//! | [`repo`] | protected objects: path, access, delivery |
//! | [`rate_limit`], [`pool`], [`quota`], [`audit`], [`metrics`] | limits and records |
//! | [`tls`] | certificates and revocation lists |
//! | [`context`] | everything above, opened from the settings |
//! | [`api`], [`monitoring`], [`server`] | routes and listeners |
//! | [`cli`] | the command line |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

pub mod api;
pub mod attestation;
pub mod audit;
pub mod bounds;
pub mod cli;
pub mod config;
pub mod context;
pub mod download;
pub mod encoding;
pub mod enrolment;
pub mod error;
pub mod evidence;
pub mod identity;
pub mod logging;
pub mod metrics;
pub mod monitoring;
pub mod names;
pub mod nonce;
pub mod policy;
pub mod pool;
pub mod proxy_protocol;
pub mod quota;
pub mod rate_limit;
pub mod refusal;
pub mod repo;
pub mod secret;
pub mod sender;
pub mod server;
pub mod storage;
pub mod tls;
pub mod token;

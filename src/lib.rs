//! Tidegate: signed over-the-air releases as static files.
//!
//! This library is the publisher's side: it turns build outputs into a repository that follows The Update Framework
//! (TUF 1.0.34), takes each release through its life, and writes what any static file host can serve. What publisher and
//! device must read alike lives in `tidegate-client`.
//!
//! Data flows one way: [`release`] and [`rollout`] decide, [`metadata`] signs and commits. [`cli`] is the only module that prints.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod audit;
pub mod ceremony;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod error;
pub mod fleet;
pub mod forecast;
pub mod fs;
pub mod keys;
mod markup;
pub mod metadata;
pub mod policy;
pub mod proposal;
pub mod publish;
pub mod receipts;
pub mod release;
pub mod report;
pub mod rollout;
pub mod serve;
pub mod validate;
pub mod workspace;

pub use error::{Error, Kind, Rule};

//! Proposals: changes that need a threshold of people at different places.
//!
//! Root rotations, delegations and a channel's releases all use the same mechanism. A change is *proposed*
//! ([`propose`](fn@propose)), travels as a [`Proposal`], is *reviewed* ([`review`](fn@review)) and *signed* ([`sign`]) wherever
//! its signers are, and *combined* ([`combine`](fn@combine)) in any order. All of these are pure functions over bytes;
//! [`crate::ceremony`] finishes a proposal in the workspace.
//!
//! Signers trust a root that they already have, never the proposal: [`verify`](fn@verify) checks everything in it from there.
//! Before anybody signs, [`rehearse`](fn@rehearse) presents the proposal to simulated devices at every root version.

mod combine;
mod fields;
mod file;
mod objections;
mod plan;
mod propose;
mod rehearse;
mod review;
mod transcript;
mod verify;

pub use combine::{add_outside, combine, sign};
pub use fields::Field;
pub use file::{Change, Follows, Kind, MAX_LENGTH, Proposal, RoleText, Signature};
pub use objections::{CLIENTS, Objection, Objections, objections};
pub use plan::{Plan, Situation, plan};
pub(crate) use propose::satisfied;
pub use propose::{ProposalRequest, follows, propose};
pub use rehearse::{Fate, Rehearsal, rehearse};
pub use review::{DocumentReview, Review, RoleReview, Row, review};
pub use transcript::{Checked, MAX_LENGTH as MAX_TRANSCRIPT, Tool, Transcript, check};
pub use verify::{Requirement, RequirementStatus, Verified, check_follows, verify};

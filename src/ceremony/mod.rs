//! Ceremonies: changes that need a threshold of people, who sit apart.
//!
//! Every such change is a proposal, and there is one mechanism for all: root rotations, delegations, a channel's release. It is
//! *proposed* ([`propose`](fn@propose)), travels as a [`Bundle`], is *reviewed* ([`review`](fn@review)) and *signed* ([`sign`]) wherever its signers are,
//! *combined* ([`combine`](fn@combine)) in any order, and *finished* ([`finish`](fn@finish)) in the workspace. All but the last are pure functions over bytes.
//!
//! Signers believe a root they were given, never the bundle: [`verify`](fn@verify) checks everything in it from there. Before anybody
//! signs, [`rehearse`](fn@rehearse) plays the proposal to simulated devices at every root version.

mod bundle;
mod combine;
mod finish;
mod plan;
mod propose;
mod rehearse;
mod review;
mod shadow;
mod transcript;
mod verify;

pub use bundle::{Bundle, Change, Follows, Kind, MAX_LENGTH, RoleText, Signature};
pub use combine::{add_outside, combine, sign};
pub use finish::{Done, FILE, TRANSCRIPTS, abort, anchor, check_follows, check_thresholds, finish, keep, open, start};
pub use plan::{Plan, Situation, plan};
pub use propose::{Wish, follows, propose};
pub use rehearse::{Fate, Rehearsal, rehearse};
pub use review::{Review, RoleReview, Row, review};
pub use transcript::{Checked, MAX_LENGTH as MAX_TRANSCRIPT, Tool, Transcript, check};
pub use verify::{Requirement, Standing, Verified, verify};

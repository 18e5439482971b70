//! What a command acts with.

use chrono::{DateTime, Utc};

use super::Workspace;
use crate::keys::KeyRing;

/// What a command acts with: the workspace, who acts, the time, and the keys at hand.
#[derive(Debug)]
pub struct Operation<'a> {
    /// The workspace, locked.
    pub workspace: &'a Workspace,
    /// Who acts, for the ledger.
    pub actor: &'a str,
    /// The time to act at.
    pub now: DateTime<Utc>,
    /// The keys. [`KeyRing::empty`] for commands that sign nothing.
    pub keys: &'a mut KeyRing,
}

impl<'a> Operation<'a> {
    /// An operation of `actor` at `now`.
    pub fn new(workspace: &'a Workspace, actor: &'a str, now: DateTime<Utc>, keys: &'a mut KeyRing) -> Self {
        Self { workspace, actor, now, keys }
    }
}

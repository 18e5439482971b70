//! What can be wrong with metadata, and the clause of the specification that requires it.

use chrono::{DateTime, Utc};

use super::hash::Mismatch;
use crate::prelude::*;

/// Why metadata was not trusted.
///
/// All but [`OutOfOrder`](Self::OutOfOrder) are caused by the repository or an attacker. Whatever the error, what was trusted
/// before stays trusted. Clauses are those of the TUF specification 1.0.34.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not metadata of the expected form.
    #[error("{role}: malformed: {reason} (TUF 4)")]
    Malformed {
        /// The role whose metadata it should have been.
        role: String,
        /// What is wrong, with the field's name where there is one.
        reason: String,
    },
    /// Fewer keys than the threshold signed: an arbitrary software attack, or a publisher's mistake.
    #[error(
        "{role}: {valid} of the {threshold} signatures that {delegator} requires are valid{unknown} (TUF {clause})"
    )]
    Threshold {
        /// The role whose signatures were checked.
        role: String,
        /// The role whose keys and threshold they were checked against.
        delegator: String,
        /// How many distinct keys signed correctly.
        valid: usize,
        /// How many must.
        threshold: u64,
        /// The keys that signed, and whose scheme or form is not supported, each with its scheme; empty if there are none. Their signatures are
        /// neither valid nor wrong.
        unknown: String,
        /// The clause that requires it.
        clause: &'static str,
    },
    /// A version number went backward, or did not go forward as it must.
    #[error("{role}: version {received} is a rollback: version {trusted} is trusted already (TUF {clause})")]
    Rollback {
        /// The role whose version went backward.
        role: String,
        /// The version seen before.
        trusted: u64,
        /// The version offered now.
        received: u64,
        /// The clause that forbids it.
        clause: &'static str,
    },
    /// The version is not the one that was requested.
    #[error("{role}: expected version {expected}, received version {received} (TUF {clause})")]
    WrongVersion {
        /// The role.
        role: String,
        /// The version that the listing role announces.
        expected: u64,
        /// The version inside the file.
        received: u64,
        /// The clause that forbids it.
        clause: &'static str,
    },
    /// The metadata is past its expiry: a freeze attack, a publisher that stopped renewing, or a clock that runs ahead.
    #[error("{role}: expired at {expires}; the current time is {now} (TUF {clause}); if the clock is right, the publisher must renew it", expires = time(*expires), now = time(*now))]
    Expired {
        /// The role.
        role: String,
        /// When it expired.
        expires: DateTime<Utc>,
        /// The time it was checked against: the update's fixed start time or the floor from signed times.
        now: DateTime<Utc>,
        /// The clause that forbids it.
        clause: &'static str,
    },
    /// The file is not the one that the listing role announced: a mix-and-match attack or a damaged copy.
    #[error("{role}: not the listed file: {mismatch} (TUF {clause})")]
    NotAsListed {
        /// The role.
        role: String,
        /// How it differs.
        mismatch: Mismatch,
        /// The clause that forbids it.
        clause: &'static str,
    },
    /// A targets role that the trusted snapshot listed is no longer listed.
    #[error("snapshot: {file} is no longer listed (TUF 5.5.5)")]
    Unlisted {
        /// The metadata file name as listed.
        file: String,
    },
    /// The snapshot does not list a role that a delegation names.
    #[error("{role}: delegated by {delegator}, but the snapshot does not list it (TUF 5.6.1)")]
    NotInSnapshot {
        /// The delegated role.
        role: String,
        /// The role that delegates to it.
        delegator: String,
    },
    /// A role was offered under a delegator that does not delegate to it.
    #[error("{role}: {delegator} does not delegate to it (TUF 5.6.7)")]
    NotDelegated {
        /// The role offered.
        role: String,
        /// The role that should have delegated to it.
        delegator: String,
    },
    /// The caller loaded roles in an order that the workflow does not allow: a bug in the caller.
    #[error("metadata loaded out of order: {0} (TUF 5)")]
    OutOfOrder(&'static str),
}

impl Error {
    /// The stable name of this kind of error, in kebab case. It begins with `metadata-`, and never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "metadata-malformed",
            Self::Threshold { .. } => "metadata-threshold",
            Self::Rollback { .. } => "metadata-rollback",
            Self::WrongVersion { .. } => "metadata-wrong-version",
            Self::Expired { .. } => "metadata-expired",
            Self::NotAsListed { .. } => "metadata-not-as-listed",
            Self::Unlisted { .. } => "metadata-unlisted",
            Self::NotInSnapshot { .. } => "metadata-not-in-snapshot",
            Self::NotDelegated { .. } => "metadata-not-delegated",
            Self::OutOfOrder(_) => "metadata-out-of-order",
        }
    }

    /// Whether this is about expiry, the only error that time alone causes.
    pub fn is_expired(&self) -> bool {
        matches!(self, Self::Expired { .. })
    }

    pub(crate) fn malformed(role: &str, reason: impl core::fmt::Display) -> Self {
        Self::Malformed { role: role.to_owned(), reason: reason.to_string() }
    }
}

fn time(instant: DateTime<Utc>) -> String {
    super::time::format(instant)
}

#[cfg(test)]
mod tests {
    #[test]
    fn error_codes_never_change() {
        let source = include_str!("error.rs");
        let body = source.split("pub fn code(&self)").nth(1).and_then(|rest| rest.split("\n    }\n").next()).unwrap();
        let codes: Vec<&str> = body.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(
            codes,
            [
                "metadata-malformed",
                "metadata-threshold",
                "metadata-rollback",
                "metadata-wrong-version",
                "metadata-expired",
                "metadata-not-as-listed",
                "metadata-unlisted",
                "metadata-not-in-snapshot",
                "metadata-not-delegated",
                "metadata-out-of-order",
            ]
        );
    }
}

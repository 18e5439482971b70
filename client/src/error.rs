//! What can go wrong, and whose fault it is.

use crate::fetch::FetchError;
use crate::store::StoreError;
use tidegate_tuf::hash::Mismatch;
use tidegate_tuf::path::BadPath;

/// Why an update could not be looked for, fetched or installed. What was trusted and installed before stays so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file did not come.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The repository's metadata is not to be trusted, or no longer.
    #[error(transparent)]
    Metadata(#[from] tidegate_tuf::Error),
    /// The repository lacks a file that it must have.
    #[error("the repository has no {what} ({url} was not found)")]
    Missing {
        /// The role or target.
        what: String,
        /// Where it should be.
        url: String,
    },
    /// The repository offers older roots than were trusted before.
    #[error(
        "root {known} was trusted before, and the repository offers none after {offered}: it withholds roots, or the stored ones are damaged"
    )]
    RootWithheld {
        /// The version trusted before.
        known: u64,
        /// The newest version that could be reached now.
        offered: u64,
    },
    /// The repository offers more new roots than one update follows (TUF 5.3.3).
    #[error(
        "the repository offers more than {limit} new roots at once; {reached} was reached, the next update goes on"
    )]
    TooManyRoots {
        /// The most roots that one update follows.
        limit: u64,
        /// The version reached, which is stored.
        reached: u64,
    },
    /// No role vouches for the target.
    #[error("{path}: no role that may speak for it lists it")]
    TargetNotFound {
        /// The target path.
        path: String,
    },
    /// The search for a target visited as many roles as it may (TUF 5.6.7.1).
    #[error("{path}: not found in the first {limit} roles that may speak for it")]
    TooManyRoles {
        /// The target path.
        path: String,
        /// The most roles that one search visits.
        limit: usize,
    },
    /// The file that came is not the one that is signed for.
    #[error("{path}: the file at {url} is not the one that is signed for: {mismatch}")]
    WrongTarget {
        /// The target path.
        path: String,
        /// Where the file came from.
        url: String,
        /// How it differs.
        mismatch: Mismatch,
    },
    /// A signed document has content that this device cannot act on.
    #[error("{path}: {reason}")]
    BadDocument {
        /// The target path of the document.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The two powers disagree: what one role assigns is not what the other approves.
    #[error("{what} is not approved by role {approval}: {reason}")]
    NotApproved {
        /// What is not approved.
        what: String,
        /// The role that must approve it.
        approval: String,
        /// How they differ.
        reason: String,
    },
    /// The device's storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of the device could not be written or read.
    #[error("{path}: cannot {action}: {source}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is too little room for a download.
    #[error("{path}: {free} bytes are free, and the download needs {needed}")]
    NoRoom {
        /// A folder on the file system that is too full.
        path: std::path::PathBuf,
        /// The bytes that are free.
        free: u64,
        /// The bytes that are to come, with those that must stay free.
        needed: u64,
    },
    /// The installer failed.
    #[error("installing failed: {0}")]
    Install(#[from] crate::install::InstallError),
    /// The command that restarts the device failed.
    #[error("the restart command failed: {0}")]
    Restart(#[source] crate::command::CommandError),
    /// The stored state of the update does not fit what is done to it.
    #[error("the update's state: {0}")]
    InvalidTransition(#[from] crate::state::InvalidTransition),
    /// The root that the device was given is not usable.
    #[error("the root that this device was given cannot be used: {0}")]
    ShippedRoot(#[source] tidegate_tuf::Error),
    /// A target path that is not safe to use.
    #[error(transparent)]
    BadPath(#[from] BadPath),
    /// A setting is missing or wrong.
    #[error("{0}")]
    Setting(String),
    /// What was asked for does not fit the state that the device is in.
    #[error("{0}")]
    State(String),
}

/// Whose fault an error is: who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The repository's, or of someone between it and the device: the publisher must act, or the device is under attack.
    Peer,
    /// The network's: trying again later may help.
    Network,
    /// The device's: its disk, its state or its clock.
    Device,
    /// The caller's: a setting or an argument.
    Caller,
}

impl Error {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Fetch(FetchError::BadUrl { .. })
            | Self::Metadata(tidegate_tuf::Error::OutOfOrder(_))
            | Self::ShippedRoot(_)
            | Self::BadPath(_)
            | Self::Setting(_)
            | Self::State(_) => Fault::Caller,
            Self::Fetch(
                FetchError::Secret { .. }
                | FetchError::Authorities { .. }
                | FetchError::Allowance { .. }
                | FetchError::Evidence { .. },
            )
            | Self::Store(_)
            | Self::File { .. }
            | Self::NoRoom { .. }
            | Self::Install(_)
            | Self::Restart(_)
            | Self::InvalidTransition(_) => Fault::Device,
            Self::Fetch(e) if e.is_temporary() => Fault::Network,
            Self::Fetch(_)
            | Self::Metadata(_)
            | Self::Missing { .. }
            | Self::RootWithheld { .. }
            | Self::TooManyRoots { .. }
            | Self::TargetNotFound { .. }
            | Self::TooManyRoles { .. }
            | Self::WrongTarget { .. }
            | Self::BadDocument { .. }
            | Self::NotApproved { .. } => Fault::Peer,
        }
    }

    /// What to do about it, where that is not plain from the message.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Fetch(FetchError::Unreachable { .. }) => "check the URL and the network; nothing was changed",
            Self::Fetch(FetchError::Denied { .. }) => {
                "this device keeps what it has; whoever runs the gate can tell from its audit what it lacks"
            }
            Self::Fetch(FetchError::Evidence { .. }) => {
                "check the attestor in this device's settings; nothing was changed"
            }
            Self::Fetch(e) if e.is_temporary() => "try again later; a download goes on where it stopped",
            Self::Metadata(e) if e.is_expired() => {
                "check this device's clock; if it is right, the publisher must renew the role"
            }
            Self::RootWithheld { .. } => {
                "if the repository is the right one, remove the state folder's metadata/root.json to start from the shipped root"
            }
            Self::ShippedRoot(_) => "give the device the repository's 1.root.json, unaltered",
            Self::Store(StoreError::Locked { .. }) => "only one process may work with a state folder at a time",
            Self::Store(e) if e.is_full() => "free some space; nothing was half-written",
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                "free some space; nothing was half-written"
            }
            Self::NoRoom { .. } => "free some space; nothing was fetched, and what was begun goes on where it stopped",
            Self::Missing { .. } => "check the URL; if it is right, the repository is incomplete",
            _ => return None,
        })
    }
}

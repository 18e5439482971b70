//! Errors, and who must act on them.

use crate::command::CommandError;
use crate::fetch::FetchError;
use crate::install::{BootError, InstallError};
use crate::store::StoreError;
use crate::watch::Cancelled;
use tidegate_model::text::public_url;
use tidegate_tuf::hash::Mismatch;
use tidegate_tuf::path::BadPath;

/// Why a check, download or installation failed. The trusted metadata and the installed release do not change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller ended it. What was fetched is kept.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A file could not be fetched.
    #[error(transparent)]
    Fetch(FetchError),
    /// The repository's metadata failed verification.
    #[error(transparent)]
    Metadata(#[from] tidegate_tuf::Error),
    /// A required file is missing in the repository.
    #[error("the repository has no {what} ({} was not found)", public_url(.url))]
    Missing {
        /// The role or target.
        what: String,
        /// The URL.
        url: String,
    },
    /// The repository's newest root is older than the trusted one.
    #[error(
        "the trusted root has version {known}, but the repository offers only version {offered}: it withholds roots, or the stored ones are damaged"
    )]
    RootWithheld {
        /// The version trusted before.
        known: u64,
        /// The newest version that could be reached now.
        offered: u64,
    },
    /// The repository offers more new roots than one update follows (TUF 5.3.3).
    #[error("the repository has more than {limit} new roots; version {reached} was reached, the next check continues")]
    TooManyRoots {
        /// The most roots that one update follows.
        limit: u64,
        /// The version reached, which is stored.
        reached: u64,
    },
    /// No role lists the target.
    #[error("{path}: no role that is trusted for it lists it")]
    TargetNotFound {
        /// The target path.
        path: String,
    },
    /// The search for a target reached the maximum number of roles (TUF 5.6.7.1).
    #[error("{path}: not found in the first {limit} roles that are trusted for it")]
    TooManyRoles {
        /// The target path.
        path: String,
        /// The maximum number of roles that one search visits.
        limit: usize,
    },
    /// The fetched file does not match the signed hash or length.
    #[error("{path}: the file at {} does not match the signed metadata: {mismatch}", public_url(.url))]
    WrongTarget {
        /// The target path.
        path: String,
        /// The URL of the file.
        url: String,
        /// How it differs.
        mismatch: Mismatch,
    },
    /// A signed document has content that this device cannot use.
    #[error("{path}: {reason}")]
    BadDocument {
        /// The target path of the document.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The cohort's role assigns something that the channel's role does not approve.
    #[error("{what} is not approved by role {approval}: {reason}")]
    NotApproved {
        /// What is not approved.
        what: String,
        /// The role that must approve it.
        approval: String,
        /// How they differ.
        reason: String,
    },
    /// The decision to install a release no longer holds.
    #[error("release {release} is not to be installed now: {why}")]
    Outdated {
        /// The release's version.
        release: String,
        /// The new decision.
        why: String,
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
        /// The system's error.
        source: std::io::Error,
    },
    /// There is too little space for a download.
    #[error("{path}: the download needs {needed} bytes, but {free} are free")]
    NoRoom {
        /// A folder on the file system that is too full.
        path: std::path::PathBuf,
        /// The bytes that are free.
        free: u64,
        /// The bytes to download plus the reserve.
        needed: u64,
    },
    /// The installer failed.
    #[error("installing failed: {0}")]
    Install(InstallError),
    /// The command that restarts the device failed.
    #[error("the restart command failed: {0}")]
    Restart(#[source] crate::command::CommandError),
    /// An event does not apply to the stored state of the update.
    #[error("the update's state: {0}")]
    InvalidTransition(#[from] crate::state::InvalidTransition),
    /// The shipped root cannot be used.
    #[error("the shipped root cannot be used: {0}")]
    ShippedRoot(#[source] tidegate_tuf::Error),
    /// A target path that is not safe to use.
    #[error(transparent)]
    BadPath(#[from] BadPath),
    /// A setting is missing or wrong.
    #[error("{0}")]
    Setting(String),
    /// The request does not apply to the device's current state.
    #[error("{0}")]
    State(String),
}

/// The origin of an error, and so who must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The repository, or someone between it and the device: the publisher must act, or the device is under attack.
    Peer,
    /// The network: a later retry may help.
    Network,
    /// The device: its disk, its state or its clock.
    Device,
    /// The caller: a setting or an argument.
    Caller,
    /// Nobody: the caller ended it.
    Nobody,
}

impl From<FetchError> for Error {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Cancelled(cancelled) => cancelled.into(),
            error => Self::Fetch(error),
        }
    }
}

impl From<InstallError> for Error {
    fn from(error: InstallError) -> Self {
        match error {
            InstallError::Cancelled(cancelled)
            | InstallError::Command(CommandError::Cancelled(cancelled))
            | InstallError::Boot(BootError::Hook(CommandError::Cancelled(cancelled))) => cancelled.into(),
            error => Self::Install(error),
        }
    }
}

impl Error {
    /// The origin of the error.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Cancelled(_) => Fault::Nobody,
            Self::Fetch(FetchError::BadUrl { .. } | FetchError::Proxy { .. })
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
            // Whoever answered, it was not with the repository's files.
            Self::Fetch(FetchError::Status { status: 401 | 403, .. } | FetchError::Redirect { .. }) => Fault::Network,
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
            | Self::Outdated { .. }
            | Self::NotApproved { .. } => Fault::Peer,
        }
    }

    /// How long to wait before the next attempt, if a server asks for that.
    pub fn retry_after(&self) -> Option<std::time::Duration> {
        if let Self::Fetch(e) = self { e.retry_after() } else { None }
    }

    /// A remedy, if the message does not already imply one.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Fetch(FetchError::Unreachable { .. }) => "check the URL and the network; nothing was changed",
            Self::Fetch(FetchError::CertificateTime { .. }) => {
                "check this device's clock; if it is right, the server needs a new certificate"
            }
            Self::Fetch(FetchError::Redirect { .. }) => {
                "the network may want a login; if not, set the repository to where its files are now"
            }
            Self::Fetch(FetchError::Denied { .. }) => {
                "this device keeps its release; the gate's audit log records what is missing"
            }
            Self::Fetch(FetchError::Evidence { .. }) => {
                "check the attestor in this device's settings; nothing was changed"
            }
            Self::Outdated { .. } => "try again later; downloads resume where they stopped",
            Self::Fetch(e) if e.is_temporary() => "try again later; downloads resume where they stopped",
            Self::Metadata(e) if e.is_expired() => {
                "check this device's clock; if it is right, the publisher must renew the role"
            }
            Self::RootWithheld { .. } => {
                "if the repository is the right one, remove the state folder's metadata/root.json to start from the shipped root"
            }
            Self::ShippedRoot(_) => "configure the repository's unmodified 1.root.json",
            Self::Store(StoreError::Locked { .. }) => "only one process may use a state folder at a time",
            Self::Store(e) if e.is_read_only() => {
                "make the state folder writable for this user; check, explain and status answer meanwhile"
            }
            Self::Store(e) if e.is_full() => "free some space; no file was partially written",
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                "free some space; no file was partially written"
            }
            Self::NoRoom { .. } => {
                "free some space; nothing was downloaded, and partial downloads resume where they stopped"
            }
            Self::Missing { .. } => "check the URL; if it is right, the repository is incomplete",
            _ => return None,
        })
    }
}

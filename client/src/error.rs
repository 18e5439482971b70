//! Errors, and who must act on them.

use crate::command::CommandError;
use crate::fetch::{Body, FetchError, Reply};
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
    #[error("the repository has no {what} ({} was not found{}{said})", public_url(.url), if said.is_empty() { "" } else { ": the server answered " })]
    Missing {
        /// The role or target.
        what: String,
        /// The URL.
        url: String,
        /// What the server answered, or nothing.
        said: String,
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

    /// The stable name of this kind of error, in kebab case: for logs and metrics, and to branch on where the variant does not matter.
    ///
    /// A code never changes and never gets another meaning. New versions may add codes.
    ///
    /// | code | what failed |
    /// |---|---|
    /// | `cancelled` | the caller ended it |
    /// | `metadata-malformed` | metadata that does not have the specified form |
    /// | `metadata-threshold` | too few valid signatures; the message names keys of kinds that this build lacks |
    /// | `metadata-rollback` | an older version than the trusted one |
    /// | `metadata-wrong-version` | another version than the one that is listed |
    /// | `metadata-expired` | expired metadata, or a clock that is ahead |
    /// | `metadata-not-as-listed` | another length or hash than the listed one |
    /// | `metadata-unlisted` | a role that was listed is no longer listed |
    /// | `metadata-not-in-snapshot` | a delegated role that the snapshot does not list |
    /// | `metadata-not-delegated` | a role of a delegator that does not delegate to it |
    /// | `metadata-out-of-order` | roles loaded in the wrong order: a bug of the caller |
    /// | `missing` | a required file that the repository lacks |
    /// | `root-withheld` | only older roots than the trusted one |
    /// | `too-many-roots` | more new roots than one check follows |
    /// | `target-not-found` | a target that no trusted role lists |
    /// | `too-many-roles` | a target that was not found in as many roles as may be searched |
    /// | `wrong-target` | a file that is not the signed one |
    /// | `bad-document` | a signed document that this device cannot use |
    /// | `not-approved` | an assignment that the channel does not approve |
    /// | `outdated` | a decision that no longer holds |
    /// | `shipped-root` | a shipped root that cannot be used |
    /// | `bad-path` | a target path that is not safe |
    /// | `setting` | a setting that is missing or wrong |
    /// | `state` | a request that does not apply to the state of the device |
    /// | `invalid-transition` | an event that does not apply to the stored state of the update |
    /// | `file` | a file of the device that cannot be read or written |
    /// | `no-room` | too little space for a download |
    /// | `restart` | a restart command that failed |
    /// | `fetch-unreachable` | no connection or no answer |
    /// | `fetch-certificate-time` | a certificate that is not valid by this device's clock |
    /// | `fetch-interrupted` | a transfer that broke off |
    /// | `fetch-too-slow` | a transfer that is too slow |
    /// | `fetch-status` | another status or content than the file |
    /// | `fetch-denied` | a gate that denies access |
    /// | `fetch-evidence` | no evidence for a gate |
    /// | `fetch-too-long` | a file that is longer than allowed |
    /// | `fetch-no-ranges` | a server that does not send parts of files |
    /// | `fetch-redirect` | a redirect that must not be followed |
    /// | `fetch-protocol` | an answer that violates the protocol |
    /// | `fetch-secret` | a secret for a server that cannot be read |
    /// | `fetch-authorities` | certificate authorities that cannot be read |
    /// | `fetch-allowance` | an allowance that is used up |
    /// | `fetch-proxy` | a proxy that cannot be used |
    /// | `fetch-bad-url` | a URL that cannot be fetched |
    /// | `store-io` | a file of the store that cannot be read or written |
    /// | `store-unwritable` | a value that has no stored form |
    /// | `store-too-long` | a stored file that is too long |
    /// | `store-locked` | a state folder that another process uses |
    /// | `store-bad-name` | a name that cannot be stored |
    /// | `install-io` | a file that cannot be read or written while installing |
    /// | `install-changed` | a download that changed after it was verified |
    /// | `install-read-back` | data that differs when it is read back |
    /// | `install-too-small` | a slot that is smaller than the artifact |
    /// | `install-rejected` | an installer that rejects the release |
    /// | `install-unsuitable` | settings or a state that prevent the installation |
    /// | `boot-no-slot` | a boot hook that names no slot |
    /// | `command-start` | a program that cannot be started |
    /// | `command-too-long` | a program that reached its time limit |
    /// | `command-failed` | a program that failed |
    pub fn code(&self) -> &'static str {
        match self {
            Self::Cancelled(_) => "cancelled",
            Self::Fetch(e) => e.code(),
            Self::Metadata(e) => e.code(),
            Self::Missing { .. } => "missing",
            Self::RootWithheld { .. } => "root-withheld",
            Self::TooManyRoots { .. } => "too-many-roots",
            Self::TargetNotFound { .. } => "target-not-found",
            Self::TooManyRoles { .. } => "too-many-roles",
            Self::WrongTarget { .. } => "wrong-target",
            Self::BadDocument { .. } => "bad-document",
            Self::NotApproved { .. } => "not-approved",
            Self::Outdated { .. } => "outdated",
            Self::Store(e) => e.code(),
            Self::File { .. } => "file",
            Self::NoRoom { .. } => "no-room",
            Self::Install(e) => e.code(),
            Self::Restart(_) => "restart",
            Self::InvalidTransition(_) => "invalid-transition",
            Self::ShippedRoot(_) => "shipped-root",
            Self::BadPath(_) => "bad-path",
            Self::Setting(_) => "setting",
            Self::State(_) => "state",
        }
    }

    /// The body of a reply to a request for a file that must be there.
    pub(crate) fn unless_found(reply: Reply, what: &str, url: &str) -> Result<Body, Self> {
        let said = match reply {
            Reply::Found(body) => return Ok(body),
            Reply::NotFound(said) => said,
            Reply::Unchanged => String::new(),
        };
        Err(Self::Missing { what: what.to_owned(), url: url.to_owned(), said })
    }

    /// How long to wait before the next attempt, if a server asks for that.
    pub fn retry_after(&self) -> Option<std::time::Duration> {
        if let Self::Fetch(e) = self { e.retry_after() } else { None }
    }

    /// A remedy, if the message does not already imply one.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Fetch(e) if e.is_of_proxy_login() => {
                "set the proxy's user and password (http://user:password@host:port) in network.proxy of the settings, or in the variable http_proxy or https_proxy"
            }
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
            Self::Store(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                "give this user the permission to read and write the state folder, or run as its owner"
            }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every code that was ever published. Lines are added, none is changed or removed.
    const CODES: &str = "
        bad-document bad-path boot-no-slot cancelled command-failed command-start command-too-long fetch-allowance
        fetch-authorities fetch-bad-url fetch-certificate-time fetch-denied fetch-evidence fetch-interrupted fetch-no-ranges
        fetch-protocol fetch-proxy fetch-redirect fetch-secret fetch-status fetch-too-long fetch-too-slow fetch-unreachable file
        install-changed install-io install-read-back install-rejected install-too-small install-unsuitable invalid-transition
        metadata-expired metadata-malformed metadata-not-as-listed metadata-not-delegated metadata-not-in-snapshot
        metadata-out-of-order metadata-rollback metadata-threshold metadata-unlisted metadata-wrong-version missing no-room
        not-approved outdated restart root-withheld setting shipped-root state store-bad-name store-io store-locked
        store-too-long store-unwritable target-not-found too-many-roles too-many-roots wrong-target
    ";

    fn in_backquotes(source: &str) -> impl Iterator<Item = &str> {
        source.lines().filter_map(|line| line.trim().strip_prefix("/// | `")?.split('`').next())
    }

    /// The words that the functions `code` of a file return.
    fn returned(source: &str) -> impl Iterator<Item = &str> {
        let bodies = source.split("pub fn code(&self)").skip(1).filter_map(|rest| rest.split("\n    }\n").next());
        bodies.flat_map(|body| body.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next()))
    }

    #[test]
    fn error_codes_are_documented_and_never_change() {
        let pinned: BTreeSet<&str> = CODES.split_whitespace().collect();
        assert_eq!(in_backquotes(include_str!("error.rs")).collect::<BTreeSet<_>>(), pinned);
        let sources = [
            include_str!("error.rs"),
            include_str!("fetch/error.rs"),
            include_str!("install/mod.rs"),
            include_str!("store/mod.rs"),
            include_str!("command.rs"),
        ];
        let of_metadata = pinned.iter().copied().filter(|code| code.starts_with("metadata-"));
        let all: Vec<&str> = sources.iter().copied().flat_map(returned).filter(|code| *code != "cancelled").collect();
        let returned: BTreeSet<&str> = all.iter().copied().chain(of_metadata).chain(["cancelled"]).collect();
        assert_eq!(returned, pinned);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "two variants have one code");
    }

    #[test]
    fn an_error_has_the_code_of_its_innermost_kind() {
        let hook = CommandError::TooLong { program: "hook".into(), limit: std::time::Duration::ZERO };
        let metadata = tidegate_tuf::Error::NotDelegated { role: "a".into(), delegator: "b".into() };
        for (error, code) in [
            (Error::from(FetchError::TooLong { url: "u".into(), limit: 1 }), "fetch-too-long"),
            (FetchError::Cancelled(Cancelled).into(), "cancelled"),
            (InstallError::Boot(BootError::Hook(hook)).into(), "command-too-long"),
            (StoreError::BadName { name: "..".into() }.into(), "store-bad-name"),
            (metadata.into(), "metadata-not-delegated"),
            (Error::Setting("no id".into()), "setting"),
        ] {
            assert_eq!(error.code(), code, "{error}");
        }
    }
}

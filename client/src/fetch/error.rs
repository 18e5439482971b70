//! Why a file could not be fetched.

use std::io;
use std::time::Duration;

use super::refusal::Refusal;
use crate::watch::Cancelled;
use tidegate_model::text::public_url;

/// The longest pause that a server may ask for.
pub(super) const LONGEST: Duration = Duration::from_secs(86_400);

/// Why a file did not come. Messages show URLs without user, password and query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The caller ended it.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// No connection, no name, no TLS, no answer.
    #[error("{}: no answer: {reason}", public_url(.url))]
    Unreachable {
        /// The requested URL.
        url: String,
        /// What failed.
        reason: String,
    },
    /// The server's certificate is expired, or not valid yet, by this device's clock.
    #[error("{}: {reason}; this device's clock says {clock}", public_url(.url))]
    CertificateTime {
        /// The requested URL.
        url: String,
        /// What TLS says.
        reason: String,
        /// The time of this device.
        clock: String,
    },
    /// The transfer was interrupted.
    #[error("{}: the transfer broke off: {reason}", public_url(.url))]
    Interrupted {
        /// The requested URL.
        url: String,
        /// What failed.
        reason: String,
    },
    /// The transfer is too slow: a bad network, or a slow retrieval attack (TUF 1.5.2).
    #[error("{}: too slow: less than {least} bytes in {seconds} s", public_url(.url))]
    TooSlow {
        /// The requested URL.
        url: String,
        /// The minimum number of bytes in the window.
        least: u64,
        /// The length of the window.
        seconds: u64,
    },
    /// Something else than the file came: another status, or a page in its place.
    #[error("{}: the server answered {status}{came}", public_url(.url))]
    Status {
        /// The requested URL.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What came with it, and the probable cause.
        came: String,
        /// How long to wait before the next request, if the server says so.
        retry_after: Option<Duration>,
    },
    /// The gate of a protected cohort denies access.
    #[error("{}: {refusal}", public_url(.url))]
    Denied {
        /// The requested URL.
        url: String,
        /// The HTTP status: 401 if the gate cannot identify the device, 403 if its rules deny access.
        status: u16,
        /// The reason, and what is missing.
        refusal: Refusal,
    },
    /// This device could not make the evidence that a gate requires.
    #[error("{}: no evidence for this gate: {reason}", public_url(.url))]
    Evidence {
        /// The gate.
        url: String,
        /// What failed.
        reason: String,
    },
    /// The file is too long: an endless data attack (TUF 1.5.2), or a wrong file.
    #[error("{}: longer than {limit} bytes", public_url(.url))]
    TooLong {
        /// The requested URL.
        url: String,
        /// The maximum length.
        limit: u64,
    },
    /// The server does not send the requested part of a file: only the whole file can be requested.
    #[error("{}: this server gives no ranges: {reason}", public_url(.url))]
    NoRanges {
        /// The requested URL.
        url: String,
        /// What came instead.
        reason: String,
    },
    /// The server redirects to a URL that must not be followed.
    #[error("{}: the server answered {status} with the location {:?}: {rule}", public_url(.url), public_url(.to))]
    Redirect {
        /// The requested URL.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The target of the redirect, as it was received.
        to: String,
        /// Why it is not followed.
        rule: &'static str,
    },
    /// The answer violates the protocol.
    #[error("{}: {reason}", public_url(.url))]
    Protocol {
        /// The requested URL.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The secret for the server could not be read.
    #[error("{}: no authorization: {reason}", public_url(.url))]
    Secret {
        /// The requested URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate authorities could not be read.
    #[error("{}: {reason}", public_url(.url))]
    Authorities {
        /// The requested URL.
        url: String,
        /// What is wrong with them.
        reason: String,
    },
    /// The allowance in the device's settings is used up.
    #[error("{}: the {bytes} bytes that this device may fetch are used up until {until}", public_url(.url))]
    Allowance {
        /// The requested URL.
        url: String,
        /// The allowance in bytes.
        bytes: u64,
        /// When the next period starts.
        until: String,
    },
    /// The configured proxy cannot be used, and is not passed over.
    #[error("{}: the proxy {proxy} cannot be used: {reason}", public_url(.url))]
    Proxy {
        /// The requested URL.
        url: String,
        /// The proxy as it is written, without user and password.
        proxy: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// The URL cannot be fetched by this program.
    #[error("{:?} cannot be fetched: {reason}", public_url(.url))]
    BadUrl {
        /// The URL as given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl FetchError {
    /// Something came instead of the file.
    pub(crate) fn status(url: &str, status: u16, came: String) -> Self {
        Self::Status { url: url.to_owned(), status, came, retry_after: None }
    }

    pub(crate) fn from_io(url: &str, error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(fetch) => fetch,
            Err(error) => Self::Interrupted { url: url.to_owned(), reason: error.to_string() },
        }
    }

    /// The stable name of this kind of error, one of [those of all errors](crate::Error::code).
    pub fn code(&self) -> &'static str {
        match self {
            Self::Cancelled(_) => "cancelled",
            Self::Unreachable { .. } => "fetch-unreachable",
            Self::CertificateTime { .. } => "fetch-certificate-time",
            Self::Interrupted { .. } => "fetch-interrupted",
            Self::TooSlow { .. } => "fetch-too-slow",
            Self::Status { .. } => "fetch-status",
            Self::Denied { .. } => "fetch-denied",
            Self::Evidence { .. } => "fetch-evidence",
            Self::TooLong { .. } => "fetch-too-long",
            Self::NoRanges { .. } => "fetch-no-ranges",
            Self::Redirect { .. } => "fetch-redirect",
            Self::Protocol { .. } => "fetch-protocol",
            Self::Secret { .. } => "fetch-secret",
            Self::Authorities { .. } => "fetch-authorities",
            Self::Allowance { .. } => "fetch-allowance",
            Self::Proxy { .. } => "fetch-proxy",
            Self::BadUrl { .. } => "fetch-bad-url",
        }
    }

    /// How long the server asks to wait, at most a day.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { status: 429 | 503, retry_after, .. } => retry_after.map(|pause| pause.min(LONGEST)),
            _ => None,
        }
    }

    /// Whether a proxy wants a user and a password, or others.
    pub(crate) fn is_of_proxy_login(&self) -> bool {
        match self {
            Self::Status { status, .. } => *status == 407,
            // So says the HTTP library of a tunnel.
            Self::Unreachable { reason, .. } => reason.contains("proxy server responded 407"),
            _ => false,
        }
    }

    /// Whether the same request may succeed later or through another server.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::CertificateTime { .. }
            | Self::Interrupted { .. }
            | Self::TooSlow { .. }
            | Self::NoRanges { .. } => true,
            // A success with something else than the file is the network's.
            Self::Status { status, .. } => *status >= 500 || matches!(status, 200..300 | 407 | 408 | 429),
            _ => false,
        }
    }
}

//! Why a file could not be fetched.

use std::io;

use super::refusal::Refusal;

/// Why a file did not come.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No connection, no name, no TLS, no answer.
    #[error("{url}: no answer: {reason}")]
    Unreachable {
        /// The URL asked for.
        url: String,
        /// What failed.
        reason: String,
    },
    /// The file began to come and did not end.
    #[error("{url}: the transfer broke off: {reason}")]
    Interrupted {
        /// The URL asked for.
        url: String,
        /// What failed.
        reason: String,
    },
    /// The file comes more slowly than is tolerated: a bad network, or a slow retrieval attack (TUF 1.5.2).
    #[error("{url}: too slow: less than {least} bytes in {seconds} s")]
    TooSlow {
        /// The URL asked for.
        url: String,
        /// The bytes that should have come in that time.
        least: u64,
        /// The length of the window.
        seconds: u64,
    },
    /// The server answered with a status that is neither success nor "not found".
    #[error("{url}: the server answered {status}")]
    Status {
        /// The URL asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The gate of a protected cohort does not let this device in, or not to this.
    #[error("{url}: {refusal}")]
    Denied {
        /// The URL asked for.
        url: String,
        /// The HTTP status: 401 if the gate does not know who asks, 403 if its rules do not let the device in.
        status: u16,
        /// Why, and what is missing.
        refusal: Refusal,
    },
    /// This device could not make the evidence that a gate asks for.
    #[error("{url}: no evidence for this gate: {reason}")]
    Evidence {
        /// The gate.
        url: String,
        /// What failed.
        reason: String,
    },
    /// The file is longer than it may be: an endless data attack (TUF 1.5.2), or a wrong file.
    #[error("{url}: longer than {limit} bytes")]
    TooLong {
        /// The URL asked for.
        url: String,
        /// The longest that is accepted.
        limit: u64,
    },
    /// The server sends this device elsewhere, and it must not follow.
    #[error("{url}: redirected to {to}: {rule}")]
    Redirect {
        /// The URL asked for.
        url: String,
        /// Where the server points.
        to: String,
        /// Why that is not followed.
        rule: &'static str,
    },
    /// The answer breaks the protocol.
    #[error("{url}: {reason}")]
    Protocol {
        /// The URL asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The secret that the server asks for could not be read.
    #[error("{url}: no authorization: {reason}")]
    Secret {
        /// The URL asked for.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate authorities that may vouch for the server could not be read.
    #[error("{url}: {reason}")]
    Authorities {
        /// The URL asked for.
        url: String,
        /// What is wrong with them.
        reason: String,
    },
    /// The device may fetch no more for now, by its own settings.
    #[error("{url}: the {bytes} bytes that this device may fetch are used up until {until}")]
    Allowance {
        /// The URL asked for.
        url: String,
        /// The allowance.
        bytes: u64,
        /// When there is a new one.
        until: String,
    },
    /// The URL cannot be fetched by this program.
    #[error("{url:?} cannot be fetched: {reason}")]
    BadUrl {
        /// The URL as given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl FetchError {
    pub(crate) fn from_io(url: &str, error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(fetch) => fetch,
            Err(error) => Self::Interrupted { url: url.to_owned(), reason: error.to_string() },
        }
    }

    /// Whether the same request may succeed later, or from elsewhere.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Interrupted { .. } | Self::TooSlow { .. } => true,
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 429),
            _ => false,
        }
    }
}

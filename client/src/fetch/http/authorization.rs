//! The `Authorization` header: a secret, sent to one server and no other.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ureq::http::Uri;

use super::{Origin, is_here, origin};
use crate::command::{Command, Ran};
use crate::disk::read_regular;

/// The longest value, in bytes.
const LENGTH: u64 = 8 * 1024;

/// A header that is sent to one scheme, host and port.
#[derive(Clone)]
pub struct Authorization {
    origin: Origin,
    source: Source,
    /// The last value. Clones share it.
    value: Arc<Mutex<Option<String>>>,
}

/// The source of the header's value, such as `Bearer abc`. It is read on first use, and again when the server no longer accepts it.
#[derive(Debug, Clone)]
pub enum Source {
    /// The content of a file.
    File(PathBuf),
    /// The output of a program.
    Command(Command),
}

/// A server that no secret is sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorizationError {
    /// The URL contains no server.
    #[error("{0:?} names no http or https server")]
    NoServer(String),
    /// Others in the network could read the secret.
    #[error("{0}: a secret is only sent over https, or to this machine")]
    Plain(String),
}

impl Authorization {
    /// A header for the server of this URL.
    ///
    /// # Errors
    ///
    /// If the URL contains no server, or if others in the network could read the secret.
    pub fn new(url: &str, source: Source) -> Result<Self, AuthorizationError> {
        let server = url.parse::<Uri>().ok().and_then(|uri| origin(&uri));
        let origin = server.ok_or_else(|| AuthorizationError::NoServer(url.to_owned()))?;
        if origin.0 != "https" && !is_here(&origin) {
            return Err(AuthorizationError::Plain(url.to_owned()));
        }
        Ok(Self { origin, source, value: Arc::default() })
    }

    /// The header's value for a request to `url`; `None` for other servers.
    pub(super) fn value(&self, url: &str) -> Result<Option<String>, String> {
        let is_for_it = url.parse::<Uri>().ok().and_then(|uri| origin(&uri)).as_ref() == Some(&self.origin);
        if !is_for_it {
            return Ok(None);
        }
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        if value.is_none() {
            *value = Some(self.source.read()?);
        }
        Ok(value.clone())
    }

    /// Discards the value, so that it is read again.
    pub(super) fn renew(&self) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Source {
    fn read(&self) -> Result<String, String> {
        let text = match self {
            Self::File(path) => {
                let bytes = read_regular(path, LENGTH).map_err(|e| format!("{}: {e}", path.display()))?;
                String::from_utf8(bytes).unwrap_or_default()
            }
            Self::Command(command) => command.run().and_then(Ran::success).map_err(|e| e.to_string())?,
        };
        let value = text.trim();
        let is_good = !value.is_empty()
            && value.len() as u64 <= LENGTH
            && value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if is_good { Ok(value.to_owned()) } else { Err("the secret must be one line of printable ASCII".into()) }
    }
}

/// Without the secret.
impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorization")
            .field("origin", &self.origin)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

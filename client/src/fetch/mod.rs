//! Getting files from a repository, whatever carries them: one trait, bounded readers, and a stub.

pub mod file;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "gate")]
mod refusal;
mod throttle;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "gate")]
pub use refusal::Refusal;
pub use throttle::{Allowance, Throttle};

use crate::fetch::file::FileFetch;

/// Gets files by URL.
pub trait Fetch {
    /// Asks for a file. The body that comes back never yields more than [`Request::limit`] bytes.
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError>;
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The absolute URL.
    pub url: &'a str,
    /// What sort of file it is.
    pub kind: Kind,
    /// The longest file to accept, in bytes, counted after decompression and including what `offset` skips.
    pub limit: u64,
    /// How many bytes are here already; the reply may start after them, or from the start all the same.
    pub offset: u64,
    /// The tag of the copy that is here already: the reply may be [`Reply::Unchanged`].
    pub etag: Option<&'a str>,
    /// What opens the file, if not everyone may have it. Only what speaks HTTP looks at it.
    #[cfg(feature = "gate")]
    pub pass: Option<&'a dyn Pass>,
}

/// Shows a server with each request whose it is and what it may have: what a [gate](crate::gate) lets a device in with.
#[cfg(feature = "gate")]
pub trait Pass: std::fmt::Debug {
    /// The headers of a `GET` for this URL. They go to its server, and not to where that redirects to.
    ///
    /// # Errors
    ///
    /// Why there are none.
    fn headers(&self, url: &str) -> Result<Vec<(&'static str, String)>, String>;
}

impl<'a> Request<'a> {
    /// Asks for a metadata file of at most `limit` bytes.
    pub fn metadata(url: &'a str, limit: u64) -> Self {
        Self::new(url, Kind::Metadata, limit)
    }

    /// Asks for a target file of `length` bytes.
    pub fn target(url: &'a str, length: u64) -> Self {
        Self::new(url, Kind::Target, length)
    }

    fn new(url: &'a str, kind: Kind, limit: u64) -> Self {
        Self {
            url,
            kind,
            limit,
            offset: 0,
            etag: None,
            #[cfg(feature = "gate")]
            pass: None,
        }
    }

    /// The same, opened by this.
    #[cfg(feature = "gate")]
    #[must_use]
    pub fn opened_by(self, pass: &'a dyn Pass) -> Self {
        Self { pass: Some(pass), ..self }
    }

    /// The same, unless the file still has this tag.
    #[must_use]
    pub fn unless(self, etag: Option<&'a str>) -> Self {
        Self { etag, ..self }
    }

    /// The same, without the first `offset` bytes if the server can skip them.
    #[must_use]
    pub fn after(self, offset: u64) -> Self {
        Self { offset, ..self }
    }
}

/// What sort of file is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Small and textual, such as roles and manifests: it may come compressed.
    Metadata,
    /// Large, and hashed as it stands in the repository: it must come as it is.
    Target,
}

/// The answer to a request.
#[derive(Debug)]
pub enum Reply {
    /// Here it is.
    Found(Body),
    /// It still has the tag that the request named.
    Unchanged,
    /// There is no such file.
    NotFound,
}

/// A file on its way.
pub struct Body {
    reader: Box<dyn Read>,
    url: String,
    limit: u64,
    left: u64,
    offset: u64,
    etag: Option<String>,
}

impl Body {
    /// A body that starts at `offset` of the file and ends before `limit`, or errs there.
    ///
    /// An [`io::Error`] of `reader` that wraps a [`FetchError`] surfaces as that; any other as [`FetchError::Interrupted`].
    pub fn new(reader: Box<dyn Read>, request: &Request<'_>, offset: u64) -> Self {
        let left = request.limit.saturating_sub(offset);
        Self { reader, url: request.url.to_owned(), limit: request.limit, left, offset, etag: None }
    }

    /// The same, with the file's entity tag.
    #[must_use]
    pub fn with_etag(self, etag: Option<String>) -> Self {
        Self { etag, ..self }
    }

    /// Where in the file the first byte of this body belongs: the request's `offset`, or 0.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The file's entity tag, if the server gave one.
    pub fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    /// Reads some bytes; 0 means that the file has ended.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, FetchError> {
        if buffer.is_empty() {
            return Ok(0);
        }
        // Past the last allowed byte one more read tells whether the file ends there, as it must.
        let mut probe = [0; 1];
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let target = if room == 0 { &mut probe[..] } else { buffer.get_mut(..room).unwrap_or_default() };
        let count = loop {
            match self.reader.read(target) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted && e.get_ref().is_none() => {}
                result => break result.map_err(|e| FetchError::from_io(&self.url, e))?,
            }
        };
        if room == 0 && count > 0 {
            return Err(FetchError::TooLong { url: self.url.clone(), limit: self.limit });
        }
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }

    /// Reads the rest into memory.
    pub fn into_bytes(mut self) -> Result<Vec<u8>, FetchError> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 8192];
        loop {
            match self.read(&mut buffer)? {
                0 => return Ok(bytes),
                count => bytes.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            }
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("url", &self.url).field("left", &self.left).finish_non_exhaustive()
    }
}

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
    #[cfg(feature = "gate")]
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
    #[cfg(feature = "gate")]
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

impl<T: Fetch + ?Sized> Fetch for Arc<T> {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        (**self).fetch(request)
    }
}

impl<T: Fetch + ?Sized> Fetch for Box<T> {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        (**self).fetch(request)
    }
}

/// Fetches `file:` URLs, and `http:` and `https:` ones where the feature `http` is built in.
#[derive(Debug, Default)]
pub struct AnyFetch {
    file: FileFetch,
    #[cfg(feature = "http")]
    http: std::cell::OnceCell<Arc<crate::fetch::http::HttpFetch>>,
}

impl AnyFetch {
    /// One of every kind, with default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with this one for HTTP.
    #[cfg(feature = "http")]
    pub fn with_http(http: impl Into<Arc<crate::fetch::http::HttpFetch>>) -> Self {
        Self { file: FileFetch::new(), http: http.into().into() }
    }
}

impl Fetch for AnyFetch {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        match request.url.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase()).as_deref() {
            Some("file") => self.file.fetch(request),
            #[cfg(feature = "http")]
            Some("http" | "https") => self.http.get_or_init(Arc::default).fetch(request),
            #[cfg(not(feature = "http"))]
            Some("http" | "https") => Err(FetchError::BadUrl {
                url: request.url.to_owned(),
                reason: "this program was built without the feature \"http\"",
            }),
            _ => Err(FetchError::BadUrl {
                url: request.url.to_owned(),
                reason: "it must start with https://, http:// or file://",
            }),
        }
    }
}

/// Serves files from memory, and notes what was asked for. Clones share their content. For tests.
#[derive(Debug, Clone, Default)]
pub struct MemoryFetch(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    files: BTreeMap<String, Vec<u8>>,
    requests: Vec<String>,
}

impl MemoryFetch {
    /// An empty repository.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves `bytes` at `url`.
    pub fn put(&self, url: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.lock().files.insert(url.into(), bytes.into());
    }

    /// Serves nothing at `url` any more.
    pub fn remove(&self, url: &str) {
        self.lock().files.remove(url);
    }

    /// Serves nothing any more.
    pub fn clear(&self) {
        self.lock().files.clear();
    }

    /// The URLs asked for since the last call, in order.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().requests)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetch for MemoryFetch {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        use sha2::{Digest as _, Sha256};

        let mut memory = self.lock();
        memory.requests.push(request.url.to_owned());
        let Some(bytes) = memory.files.get(request.url) else { return Ok(Reply::NotFound) };
        let etag = tidegate_tuf::hash::to_hex(&Sha256::digest(bytes));
        if request.etag == Some(&etag) {
            return Ok(Reply::Unchanged);
        }
        let offset = request.offset.min(bytes.len() as u64);
        let rest = bytes.iter().copied().skip(usize::try_from(offset).unwrap_or(usize::MAX)).collect::<Vec<_>>();
        Ok(Reply::Found(Body::new(Box::new(io::Cursor::new(rest)), request, offset).with_etag(Some(etag))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(reader: impl Read + 'static, limit: u64) -> Body {
        Body::new(Box::new(reader), &Request::metadata("test:", limit), 0)
    }

    #[test]
    fn a_body_ends_at_its_limit_or_errs() {
        assert_eq!(body(&b"12345"[..], 5).into_bytes().unwrap(), b"12345");
        assert_eq!(body(&b"12345"[..], 9).into_bytes().unwrap(), b"12345");
        assert!(matches!(body(&b"12345"[..], 4).into_bytes(), Err(FetchError::TooLong { limit: 4, .. })));
        assert!(matches!(body(io::repeat(0), 100_000).into_bytes(), Err(FetchError::TooLong { .. })));
        assert!(matches!(body(io::repeat(0), 0).into_bytes(), Err(FetchError::TooLong { .. })));
    }

    #[test]
    fn other_schemes_are_refused() {
        for url in ["ftp://host/", "", "relative", "://"] {
            let reply = AnyFetch::new().fetch(&Request::metadata(url, 1));
            assert!(matches!(reply, Err(FetchError::BadUrl { .. })), "{url:?}");
        }
    }
}

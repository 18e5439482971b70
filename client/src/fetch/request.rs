//! What a fetcher is: a request, the answer to it, and a bounded body.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;

use tracing::debug;

use super::error::FetchError;
use crate::watch::Cancel;
use tidegate_model::text::public_url;

/// Gets files by URL.
pub trait Fetch {
    /// Requests a file. The returned body never yields more than [`Request::limit`] bytes.
    ///
    /// # Errors
    ///
    /// [`FetchError`] unless the answer is the file, "unchanged" or "not found".
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError>;
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

/// A request for a file.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The absolute URL.
    pub url: &'a str,
    /// The kind of file.
    pub kind: Kind,
    /// The maximum length in bytes, after decompression and including the bytes that `offset` skips.
    pub limit: u64,
    /// How many bytes are already downloaded. The reply may start after them or at the beginning.
    pub offset: u64,
    /// Where to end, before `limit`. With it, a reply has exactly the bytes from `offset` on that come before it.
    pub end: Option<u64>,
    /// The tag of the stored copy. With it, the reply may be [`Reply::Unchanged`].
    pub etag: Option<&'a str>,
    /// The pass for a protected file. Only HTTP fetchers use it.
    pub pass: Option<&'a dyn Pass>,
    /// Take the answer as it is, whatever encoding its label says: a file that is signed in compressed form may have one.
    pub as_is: bool,
    /// What ends the request, and the reading of its body: [`FetchError::Cancelled`] within a second.
    pub cancel: Option<&'a Cancel>,
}

/// Shows a server with each request whose it is and what it may have: what a [gate](crate::gate) lets a device in with.
pub trait Pass: std::fmt::Debug + Sync {
    /// The headers of a `GET` for this URL. They are sent to its server, but not to the target of a redirect.
    ///
    /// # Errors
    ///
    /// The reason if there are none.
    fn headers(&self, url: &str) -> Result<Vec<(&'static str, String)>, String>;
}

impl<'a> Request<'a> {
    /// A request for a metadata file of at most `limit` bytes.
    pub fn metadata(url: &'a str, limit: u64) -> Self {
        Self::new(url, Kind::Metadata, limit)
    }

    /// A request for a target file of `length` bytes.
    pub fn target(url: &'a str, length: u64) -> Self {
        Self::new(url, Kind::Target, length)
    }

    fn new(url: &'a str, kind: Kind, limit: u64) -> Self {
        Self { url, kind, limit, offset: 0, end: None, etag: None, pass: None, as_is: false, cancel: None }
    }

    /// The same, with this pass.
    #[must_use]
    pub fn opened_by(self, pass: &'a dyn Pass) -> Self {
        Self { pass: Some(pass), ..self }
    }

    /// The same, ended by this token.
    #[must_use]
    pub fn until(self, cancel: &'a Cancel) -> Self {
        Self { cancel: Some(cancel), ..self }
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

    /// The same, up to this byte, which is the first that is not wanted. The reply is then this range, or an error: after
    /// [`FetchError::NoRanges`] only a request for the whole file can succeed.
    #[must_use]
    pub fn before(self, end: u64) -> Self {
        Self { end: Some(end), ..self }
    }

    pub(super) fn no_ranges(&self, reason: impl Into<String>) -> FetchError {
        FetchError::NoRanges { url: self.url.to_owned(), reason: reason.into() }
    }
}

/// The kind of a requested file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Small and textual, such as roles and manifests: compression is allowed.
    Metadata,
    /// Large, and hashed in its stored form: compression is not allowed.
    Target,
}

/// The answer to a request.
#[derive(Debug)]
pub enum Reply {
    /// The file.
    Found(Body),
    /// The file still has the tag of the request.
    Unchanged,
    /// There is no such file. With what the server answered, for the message, such as "404 with text/html (Not Found)"; it may be empty.
    NotFound(String),
}

/// What a server says about a file before it comes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    /// The file's entity tag.
    pub(crate) etag: Option<String>,
    /// The length of what comes.
    pub(crate) length: Option<u64>,
    /// Whether it is unpacked here, which only its hash can show to be right.
    pub(crate) is_unpacked: bool,
    /// What comes, if it may be something else than the file: a page, or something compressed.
    pub(crate) doubt: Option<String>,
}

/// A file on its way.
pub struct Body {
    reader: Box<dyn Read + Send>,
    url: String,
    limit: u64,
    left: u64,
    offset: u64,
    /// Whether the body must end where the request does.
    is_range: bool,
    head: Head,
    started: Instant,
}

impl Body {
    /// A body that starts at `offset` of the file and ends before `limit`, or fails there. That of a request with an end fails unless it ends
    /// exactly there.
    ///
    /// An [`io::Error`] of `reader` that wraps a [`FetchError`] surfaces as that; any other as [`FetchError::Interrupted`].
    pub fn new(reader: Box<dyn Read + Send>, request: &Request<'_>, offset: u64) -> Self {
        let limit = request.end.unwrap_or(request.limit).min(request.limit);
        Self {
            reader,
            url: request.url.to_owned(),
            limit,
            left: limit.saturating_sub(offset),
            offset,
            is_range: request.end.is_some(),
            head: Head::default(),
            started: Instant::now(),
        }
    }

    /// The same, with the file's entity tag.
    #[must_use]
    pub fn with_etag(self, etag: Option<String>) -> Self {
        let head = Head { etag, ..self.head };
        Self { head, ..self }
    }

    pub(crate) fn with_head(self, head: Head) -> Self {
        Self { head, ..self }
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// What came in place of the file, if it looks like something else; otherwise this error.
    pub(crate) fn instead(&self, error: FetchError) -> FetchError {
        self.head.doubt.clone().map_or(error, |came| FetchError::status(&self.url, 200, came))
    }

    /// The requested URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Where in the file the first byte of this body belongs: the request's `offset`, or 0.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The file's entity tag, if the server gave one.
    pub fn etag(&self) -> Option<&str> {
        self.head.etag.as_deref()
    }

    /// Reads some bytes; 0 means that the file has ended.
    ///
    /// # Errors
    ///
    /// [`FetchError::TooLong`] once the body exceeds the limit; others if the transfer fails.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, FetchError> {
        if buffer.is_empty() {
            return Ok(0);
        }
        // After the last allowed byte, one more read checks that the file ends there.
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
            let (url, limit) = (self.url.clone(), self.limit);
            return Err(if self.is_range {
                FetchError::NoRanges { url, reason: "more came than was requested".into() }
            } else {
                self.instead(FetchError::TooLong { url, limit })
            });
        }
        self.left = self.left.saturating_sub(count as u64);
        if count == 0 {
            let bytes = self.limit.saturating_sub(self.offset).saturating_sub(self.left);
            let milliseconds = self.started.elapsed().as_millis();
            debug!(url = public_url(&self.url), offset = self.offset, bytes, milliseconds, "received a file");
            if self.is_range && self.left > 0 {
                let reason = format!("it ended after {bytes} of {} bytes", self.left.saturating_add(bytes));
                return Err(FetchError::Interrupted { url: self.url.clone(), reason });
            }
        }
        Ok(count)
    }

    /// Reads the rest into memory.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
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

#[cfg(test)]
mod tests {
    use super::*;

    fn body(reader: impl Read + Send + 'static, limit: u64) -> Body {
        Body::new(Box::new(reader), &Request::metadata("test:", limit), 0)
    }

    #[test]
    fn a_body_fails_past_its_limit() {
        assert_eq!(body(&b"12345"[..], 5).into_bytes().unwrap(), b"12345");
        assert_eq!(body(&b"12345"[..], 9).into_bytes().unwrap(), b"12345");
        assert!(matches!(body(&b"12345"[..], 4).into_bytes(), Err(FetchError::TooLong { limit: 4, .. })));
        assert!(matches!(body(io::repeat(0), 100_000).into_bytes(), Err(FetchError::TooLong { .. })));
        assert!(matches!(body(io::repeat(0), 0).into_bytes(), Err(FetchError::TooLong { .. })));
    }
}

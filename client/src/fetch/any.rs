//! One fetcher for every kind of URL.

use std::sync::OnceLock;

use super::error::FetchError;
use super::file::FileFetch;
use super::request::{Fetch, Reply, Request};

/// Fetches `file:` URLs, and `http:` and `https:` ones where the feature `http` is built in.
#[derive(Default)]
pub struct AnyFetch {
    file: FileFetch,
    /// Created on first use; `None` inside if this build has no HTTP.
    http: OnceLock<Option<Box<dyn Fetch + Send + Sync>>>,
}

impl AnyFetch {
    /// A fetcher of every kind, with default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with this one for HTTP, such as an `HttpFetch`.
    pub fn with_http(http: impl Fetch + Send + Sync + 'static) -> Self {
        let http: Box<dyn Fetch + Send + Sync> = Box::new(http);
        Self { file: FileFetch::new(), http: Some(http).into() }
    }
}

impl std::fmt::Debug for AnyFetch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnyFetch").finish_non_exhaustive()
    }
}

impl Fetch for AnyFetch {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        let bad = |reason| FetchError::BadUrl { url: request.url.to_owned(), reason };
        match request.url.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase()).as_deref() {
            Some("file") => self.file.fetch(request),
            Some("http" | "https") => match self.http.get_or_init(default_http) {
                Some(http) => http.fetch(request),
                None => Err(bad("this program was built without the feature \"http\"")),
            },
            _ => Err(bad("it must start with https://, http:// or file://")),
        }
    }
}

#[cfg(feature = "http")]
#[expect(clippy::unnecessary_wraps, reason = "there is none without the feature")]
fn default_http() -> Option<Box<dyn Fetch + Send + Sync>> {
    Some(Box::new(super::http::HttpFetch::new()))
}

#[cfg(not(feature = "http"))]
fn default_http() -> Option<Box<dyn Fetch + Send + Sync>> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_schemes_are_refused() {
        for url in ["ftp://host/", "", "relative", "://"] {
            let reply = AnyFetch::new().fetch(&Request::metadata(url, 1));
            assert!(matches!(reply, Err(FetchError::BadUrl { .. })), "{url:?}");
        }
    }
}

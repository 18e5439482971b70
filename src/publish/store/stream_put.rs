//! Sending a file to a plain web server while it is read.
//!
//! `object_store` holds a whole object in memory for such servers, which know no uploads in parts.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use object_store::path::Path as Key;
use reqwest::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use url::Url;

use crate::error::{Error, Result};

/// A web server that takes `PUT`.
#[derive(Debug)]
pub(super) struct StreamPut {
    client: reqwest::Client,
    base: Url,
}

impl StreamPut {
    /// The server at `base`; `headers` go with every request, each of which may be silent for `idle` at most.
    pub(super) fn new(base: Url, headers: HeaderMap, idle: Duration) -> Result<Self> {
        let client =
            reqwest::Client::builder().default_headers(headers).read_timeout(idle).connect_timeout(idle).build();
        Ok(Self { client: client.map_err(|error| Error::bug("no client for HTTP").with_source(error))?, base })
    }

    /// Sends `body`, `length` bytes, as the object `key`. Errs with what went wrong.
    pub(super) async fn send(
        &self,
        key: &Key,
        (content_type, cache_control): (&'static str, Cow<'static, str>),
        length: u64,
        body: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
    ) -> Result<(), String> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(key.parts().map(|part| part.as_ref().to_owned()));
        }
        let request = self
            .client
            .put(url)
            .header(CONTENT_TYPE, content_type)
            .header(CACHE_CONTROL, &*cache_control)
            .header(CONTENT_LENGTH, length)
            .body(reqwest::Body::wrap_stream(body));
        let answer = request.send().await.map_err(|error| crate::error::chain(&error.without_url()))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("status code: {status}")) }
    }
}

//! What a store returns to a client without credentials.
//!
//! A place counts as private because its owner configured it so. Only a request without credentials, sent from here, shows
//! whether it is.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path as Key;
use reqwest::header::RANGE;
use reqwest::{Client, StatusCode, redirect};
use tracing::debug;
use url::Url;

use super::remote::{Backend, Remote};
use crate::error::{Error, Result, Rule};

/// How to request objects of a store without credentials.
#[derive(Debug, Clone)]
pub(super) struct Anyone {
    client: Client,
    /// The base URL of all keys.
    base: Url,
}

impl Anyone {
    /// Sends requests below `base`, each with `timeout`. Redirects are not followed: a redirect does not return the object.
    pub(super) fn at(base: Url, timeout: Duration) -> Result<Self> {
        let client = Client::builder().redirect(redirect::Policy::none()).timeout(timeout).connect_timeout(timeout);
        let client = client.build().map_err(|error| Error::bug("no client for HTTP").with_source(error))?;
        Ok(Self { client, base })
    }

    /// Whether an object is returned; `length` and `bytes` describe its content, if known.
    pub(super) async fn ask(
        &self,
        key: &Key,
        length: Option<u64>,
        bytes: Option<&Bytes>,
    ) -> Result<bool, reqwest::Error> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(key.parts().map(|part| part.as_ref().to_owned()));
        }
        let request = self.client.get(url);
        // A long object need not be read: its first byte is enough.
        let request = if bytes.is_some() { request } else { request.header(RANGE, "bytes=0-0") };
        let answer = request.send().await;
        debug!(
            key = key.as_ref(),
            status = answer.as_ref().ok().map(|answer| answer.status().as_u16()),
            "ask without credentials"
        );
        let answer = answer?;
        if answer.status().is_server_error() || answer.status() == StatusCode::TOO_MANY_REQUESTS {
            answer.error_for_status()?;
            return Ok(false);
        }
        if !answer.status().is_success() {
            return Ok(false);
        }
        // A login page is an answer, too.
        let Some(bytes) = bytes else {
            let whole = answer.headers().get("content-range").and_then(|range| range.to_str().ok()?.rsplit('/').next());
            let whole = whole.and_then(|whole| whole.parse().ok()).or(answer.content_length());
            return Ok(whole.zip(length).is_none_or(|(whole, length): (u64, u64)| whole == length));
        };
        let mut found = Vec::new();
        let mut body = answer.bytes_stream();
        while let Some(chunk) = body.try_next().await? {
            found.extend_from_slice(&chunk);
            if found.len() > bytes.len() {
                return Ok(false);
            }
        }
        Ok(found == *bytes)
    }
}

/// The error of a private place that anyone can read.
pub(super) fn open(private: &Remote, key: &str) -> Error {
    let how = match private.kind {
        Backend::Folder(_) => "",
        Backend::Store(_) => ", without credentials",
    };
    Error::refused(Rule::PublishReadable, format!("{} is not private: anyone can read {key} there{how}", private.name()))
        .remedy(
            "nothing public leads there yet, and what devices see has not changed: let only the publisher and the gate read that place \
             (docs/publish.md, protected cohorts), then publish again",
        )
}

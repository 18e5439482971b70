//! What a store returns to a client without credentials.
//!
//! A place counts as private because its owner configured it so. Only a request without credentials, sent from here, shows
//! whether it is.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path as Key;
use reqwest::header::RANGE;
use reqwest::{Client, StatusCode, redirect};
use tracing::debug;
use url::Url;

use super::probe::PROBE;
use super::remote::{Backend, Remote};
use crate::error::{Error, Kind, Result, Rule, chain};

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

    async fn ask(&self, key: &Key, length: Option<u64>, bytes: Option<&Bytes>) -> Result<bool, reqwest::Error> {
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

impl Remote {
    /// Whether anyone who requests an object gets it; `None` where that cannot be checked: a folder is served by another program,
    /// if at all. `length` and `bytes` describe the content, if known.
    ///
    /// # Errors
    ///
    /// Fails if there is no answer, because the result is then unknown.
    pub(in crate::publish) async fn is_open_to_anyone(
        &self,
        key: &str,
        length: Option<u64>,
        bytes: Option<&Bytes>,
    ) -> Result<Option<bool>> {
        let Some(anyone) = &self.anyone else { return Ok(None) };
        let (begun, mut tries) = (Instant::now(), 0);
        loop {
            match anyone.ask(&self.key(key), length, bytes).await {
                Ok(is_open) => return Ok(Some(is_open)),
                Err(_) if self.may_retry(begun, &mut tries).await => {}
                Err(error) => {
                    let why = self.secrets.redact(&chain(&error.without_url()));
                    let what = format!("cannot find out whether anyone can read {key} at {}: {why}", self.name());
                    return Err(Error::new(Kind::Io, what).remedy("publish again; what devices see has not changed"));
                }
            }
        }
    }

    /// Checks that nobody can read this object of the private place without credentials.
    ///
    /// # Errors
    ///
    /// `P-READABLE` if anyone can read it.
    pub(in crate::publish) async fn closed_to_anyone(
        &self,
        key: &str,
        length: Option<u64>,
        bytes: Option<&Bytes>,
    ) -> Result<()> {
        if self.is_open_to_anyone(key, length, bytes).await? == Some(true) { Err(open(self, key)) } else { Ok(()) }
    }

    /// The same check for an empty place, with an object without information.
    pub(in crate::publish) async fn closed_before_the_first(&self) -> Result<()> {
        if self.anyone.is_none() {
            return Ok(());
        }
        let mut random = [0; 12];
        getrandom::fill(&mut random).map_err(|error| Error::bug(format!("no randomness: {error}")))?;
        let name = tidegate_tuf::hash::to_hex(&random);
        let (key, bytes) = (format!("{PROBE}/{name}"), Bytes::from(format!("{name}\n")));
        self.create(&key, &bytes).await?;
        let closed = self.closed_to_anyone(&key, None, Some(&bytes)).await;
        // Nothing depends on this: leftovers are small, and `tidegate prune` removes them.
        let _ = self.delete(&key).await;
        closed
    }
}

fn open(private: &Remote, key: &str) -> Error {
    let how = match private.kind {
        Backend::Folder(_) => "",
        Backend::Store(_) => ", without credentials",
    };
    Error::refused(format!("{} is not private: anyone can read {key} there{how}", private.name()))
        .rule(Rule::PublishReadable)
        .remedy(
            "nothing public leads there yet, and what devices see has not changed: let only the publisher and the gate read that place \
             (docs/publish.md, protected cohorts), then publish again",
        )
}

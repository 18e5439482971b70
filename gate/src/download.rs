//! Downloads of what the settings name, bounded in length and time.

use std::time::Duration;

use futures::StreamExt as _;
use tidegate_model::text::public_url;

use crate::error::{Error, ErrorKind, Result};

/// Downloads files. Follows no redirects.
#[derive(Debug, Clone)]
pub struct Downloader(reqwest::Client);

impl Downloader {
    /// Sends nothing yet.
    ///
    /// # Errors
    ///
    /// Fails if the HTTP client cannot be created.
    pub fn new() -> Result<Self> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(10))
            .build();
        client.map(Self).map_err(|error| Error::new(ErrorKind::Io, "cannot create an HTTP client").with_cause(error))
    }

    /// Downloads a file of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// Fails if the server does not answer with the file, or if it is longer.
    pub async fn get(&self, url: &str, limit: usize) -> Result<Vec<u8>> {
        let shown = public_url(url);
        let failed = |error: reqwest::Error| {
            Error::new(ErrorKind::Network, format!("cannot download {shown}")).with_cause(error.without_url())
        };
        let response = self.0.get(url).send().await.map_err(failed)?.error_for_status().map_err(failed)?;
        if !response.status().is_success() {
            return Err(Error::new(ErrorKind::Network, format!("{shown} returned {}", response.status())));
        }
        let mut stream = response.bytes_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(failed)?;
            if bytes.len() + chunk.len() > limit {
                return Err(Error::input(format!("{shown} is longer than {limit} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

//! The public keys of a verifier: from a file, or from a URL and remembered for a while.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyOperations, PublicKeyUse};
use tokio::sync::Mutex;

use crate::error::{Error, Result, read};

/// The longest set of keys, in bytes.
const LONGEST: usize = 256 * 1024;
/// How often a URL is asked at most, whatever devices send.
const PAUSE: Duration = Duration::from_secs(10);
/// For how much longer than asked keys are kept while their URL does not answer.
const GRACE: u32 = 12;

/// Where keys come from.
#[derive(Debug)]
enum Source {
    File(PathBuf),
    Url(String),
}

/// Keys that are kept up to date.
#[derive(Debug)]
pub struct Jwks {
    source: Source,
    life: Duration,
    client: reqwest::Client,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    keys: Option<(Instant, Arc<JwkSet>)>,
    asked: Option<Instant>,
}

impl Jwks {
    /// Keys from a file, or from a URL if there is a scheme. Nothing is read yet.
    pub fn new(jwks: &str, base: &std::path::Path, life: Duration) -> Result<Self> {
        let source = if jwks.contains("://") { Source::Url(jwks.into()) } else { Source::File(base.join(jwks)) };
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(10))
            .build()
            .map_err(|error| Error::new(format!("cannot speak HTTPS: {error}")))?;
        Ok(Self { source, life, client, known: Mutex::default() })
    }

    /// The key with that id; without an id the only key, if there is only one. Asks again where the key is not known, but not often.
    pub async fn find(&self, kid: Option<&str>) -> Result<Option<Jwk>> {
        // One at a time: whoever waits here finds what the first one fetched.
        let mut known = self.known.lock().await;
        let pick = |set: &JwkSet| match (kid, set.keys.as_slice()) {
            (Some(kid), _) => set.find(kid).cloned(),
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
        };
        if let Some((at, set)) = &known.keys
            && at.elapsed() < self.life
            && let Some(found) = pick(set)
        {
            return Ok(Some(found));
        }
        if known.asked.is_none_or(|asked| asked.elapsed() >= PAUSE) {
            known.asked = Some(Instant::now());
            match self.fetch().await {
                Ok(set) => known.keys = Some((Instant::now(), Arc::new(set))),
                Err(error) => {
                    eprintln!("{}", serde_json::json!({"event": "jwks", "error": error.to_string()}));
                    if known.keys.is_none() {
                        return Err(error);
                    }
                }
            }
        }
        match &known.keys {
            Some((at, set)) if at.elapsed() < self.life.saturating_mul(GRACE) => Ok(pick(set)),
            _ => Err(Error::new("the verifier's keys cannot be had")),
        }
    }

    /// Reads the keys now. For files also what `check` does.
    pub async fn fetch(&self) -> Result<JwkSet> {
        let bytes = match &self.source {
            Source::File(path) => read(path, LONGEST as u64)?,
            Source::Url(url) => self.download(url).await?,
        };
        let set: JwkSet =
            serde_json::from_slice(&bytes).map_err(|error| Error::new(format!("no set of keys (JWKS): {error}")))?;
        if set.keys.is_empty() {
            return Err(Error::new("the set of keys (JWKS) is empty"));
        }
        Ok(set)
    }

    async fn download(&self, url: &str) -> Result<Vec<u8>> {
        let failed = |error: reqwest::Error| Error::new(format!("cannot get {url}: {}", error.without_url()));
        let answer = self.client.get(url).send().await.map_err(failed)?.error_for_status().map_err(failed)?;
        if !answer.status().is_success() {
            return Err(Error::new(format!("{url} answers {}", answer.status())));
        }
        let mut stream = answer.bytes_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(failed)?);
            if bytes.len() > LONGEST {
                return Err(Error::new(format!("{url} is longer than {LONGEST} bytes")));
            }
        }
        Ok(bytes)
    }
}

/// Whether a key says of itself that it is for something else than verifying.
pub fn is_for_verifying(key: &Jwk) -> bool {
    let common = &key.common;
    !matches!(common.public_key_use, Some(PublicKeyUse::Encryption))
        && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify))
}

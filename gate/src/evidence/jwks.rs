//! The public keys of a verifier: from a file, or from a URL and cached.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, JwkSet, KeyOperations, PublicKeyUse};
use tidegate_model::text::public_url;
use tokio::sync::Mutex;

use crate::bounds::JsonBounds;
use crate::download::Downloader;
use crate::error::{Error, ErrorKind, Result, read_file};
use crate::logging::elapsed_ms;

/// The maximum length of a key set, in bytes.
const MAX_KEY_SET: usize = 256 * 1024;
/// The most that a key set of this length needs: some dozens of keys, with certificates.
const BOUNDS: JsonBounds = JsonBounds { length: MAX_KEY_SET, depth: 6, values: 4096 };
/// The minimum time between two requests for a key set, whatever devices send.
const MIN_INTERVAL: Duration = Duration::from_secs(10);
/// How many times its configured lifetime a key set stays usable while its source does not answer.
const GRACE: u32 = 12;

#[derive(Debug)]
enum KeySetSource {
    File(PathBuf),
    Url(String),
}

/// The keys of a verifier, reloaded when they expire or a key id is unknown.
#[derive(Debug)]
pub struct VerifierKeys {
    source: KeySetSource,
    lifetime: Duration,
    downloader: Downloader,
    cache: Mutex<KeyCache>,
}

#[derive(Debug, Default)]
struct KeyCache {
    keys: Option<(Instant, Arc<JwkSet>)>,
    last_attempt: Option<Instant>,
}

impl VerifierKeys {
    /// Keys from a file, or from a URL. Loads nothing yet.
    ///
    /// # Errors
    ///
    /// Fails if the HTTP client cannot be created.
    pub fn new(jwks: &str, base: &std::path::Path, lifetime: Duration) -> Result<Self> {
        let source =
            if jwks.contains("://") { KeySetSource::Url(jwks.into()) } else { KeySetSource::File(base.join(jwks)) };
        Ok(Self { source, lifetime, downloader: Downloader::new()?, cache: Mutex::default() })
    }

    /// The key with this id; without an id, the only key of the set. Reloads the set if the key is unknown, but not often.
    ///
    /// # Errors
    ///
    /// Fails if the set cannot be loaded and no recent one is cached.
    pub async fn find(&self, kid: Option<&str>) -> Result<Option<Jwk>> {
        // One task loads the set; the others wait here and find it.
        let mut cache = self.cache.lock().await;
        let select = |set: &JwkSet| match (kid, set.keys.as_slice()) {
            (Some(kid), _) => set.find(kid).cloned(),
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
        };
        if let Some((at, set)) = &cache.keys
            && at.elapsed() < self.lifetime
            && let Some(found) = select(set)
        {
            return Ok(Some(found));
        }
        if cache.last_attempt.is_none_or(|attempt| attempt.elapsed() >= MIN_INTERVAL) {
            cache.last_attempt = Some(Instant::now());
            match self.load().await {
                Ok(set) => cache.keys = Some((Instant::now(), Arc::new(set))),
                Err(error) => {
                    tracing::warn!(%error, "verifier keys not loaded");
                    if cache.keys.is_none() {
                        return Err(error);
                    }
                }
            }
        }
        match &cache.keys {
            Some((at, set)) if at.elapsed() < self.lifetime.saturating_mul(GRACE) => Ok(select(set)),
            _ => Err(Error::new(ErrorKind::Network, "the verifier's keys are not available")),
        }
    }

    /// Loads the keys from their source.
    ///
    /// # Errors
    ///
    /// Fails if the source does not answer, or if it is not a key set with at least one key.
    pub async fn load(&self) -> Result<JwkSet> {
        let started = Instant::now();
        let bytes = match &self.source {
            KeySetSource::File(path) => read_file(path, MAX_KEY_SET as u64)?,
            KeySetSource::Url(url) => self.downloader.get(url, MAX_KEY_SET).await?,
        };
        BOUNDS
            .check(&bytes)
            .map_err(|error| Error::input(format!("{self} is not a JSON Web Key Set")).with_cause(error))?;
        let set: JwkSet = serde_json::from_slice(&bytes)
            .map_err(|error| Error::input(format!("{self} is not a JSON Web Key Set")).with_cause(error))?;
        if set.keys.is_empty() {
            return Err(Error::input(format!("{self} contains no keys")));
        }
        let duration_ms = elapsed_ms(started);
        tracing::debug!(source = %self, keys = set.keys.len(), duration_ms, "verifier keys loaded");
        Ok(set)
    }
}

/// The source, without credentials.
impl std::fmt::Display for VerifierKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.source {
            KeySetSource::File(path) => path.display().fmt(f),
            KeySetSource::Url(url) => f.write_str(&public_url(url)),
        }
    }
}

/// Whether the key's declared use includes verification.
pub fn allows_verification(key: &Jwk) -> bool {
    let common = &key.common;
    !matches!(common.public_key_use, Some(PublicKeyUse::Encryption))
        && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify))
}

//! A repository in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::FetchError;
use super::request::{Body, Fetch, Reply, Request};

/// Serves files from memory and records the requests. Clones share their content. For tests.
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

    /// Stops serving `url`.
    pub fn remove(&self, url: &str) {
        self.lock().files.remove(url);
    }

    /// Stops serving everything.
    pub fn clear(&self) {
        self.lock().files.clear();
    }

    /// The requested URLs since the last call, in order.
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
        let Some(bytes) = memory.files.get(request.url) else { return Ok(Reply::NotFound(String::new())) };
        let etag = tidegate_tuf::hash::to_hex(&Sha256::digest(bytes));
        if request.etag == Some(&etag) {
            return Ok(Reply::Unchanged);
        }
        let offset = request.offset.min(bytes.len() as u64);
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let length = request.end.map_or(usize::MAX, |end| index(end.saturating_sub(offset)));
        let rest = bytes.iter().copied().skip(index(offset)).take(length).collect::<Vec<_>>();
        Ok(Reply::Found(Body::new(Box::new(io::Cursor::new(rest)), request, offset).with_etag(Some(etag))))
    }
}

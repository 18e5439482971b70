//! Listings: the targets that a cohort gives access to. The publisher writes them to storage; the gate caches them for some seconds.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_model::listing::{Listing, MAX_LISTING};
use tokio::sync::Mutex;

use crate::refusal::Refusal;
use crate::storage::{Storage, StorageError};

/// The time of reading, and the objects in the listing.
type CachedListing = (Instant, Arc<HashSet<String>>);

/// The listings of the cohorts in the settings. The gate reads no others, so the cache is bounded.
#[derive(Debug)]
pub struct ListingCache {
    storage: Storage,
    lifetime: Duration,
    cohorts: BTreeMap<String, Mutex<Option<CachedListing>>>,
}

impl ListingCache {
    /// The listings of these cohorts.
    pub fn new<'a>(storage: Storage, lifetime: Duration, cohorts: impl Iterator<Item = &'a String>) -> Self {
        Self { storage, lifetime, cohorts: cohorts.map(|cohort| (cohort.clone(), Mutex::default())).collect() }
    }

    /// Whether the cohort's listing contains this object.
    ///
    /// # Errors
    ///
    /// Refuses if the storage does not answer or the listing is damaged.
    pub async fn contains(&self, cohort: &str, object: &str) -> Result<bool, Refusal> {
        let Some(cached) = self.cohorts.get(cohort) else { return Ok(false) };
        // One task reads the listing; the others wait here and find it.
        let mut cached = cached.lock().await;
        if let Some((at, objects)) = &*cached
            && at.elapsed() < self.lifetime
        {
            return Ok(objects.contains(object));
        }
        let objects = Arc::new(self.read(cohort).await?);
        let contains = objects.contains(object);
        *cached = Some((Instant::now(), objects));
        Ok(contains)
    }

    async fn read(&self, cohort: &str) -> Result<HashSet<String>, Refusal> {
        let name = Listing::key(cohort);
        let damaged = || {
            tracing::warn!(object = name, "damaged listing");
            Refusal::damaged("G-SRV-04", "the listing of this cohort is damaged; the publisher has to publish it again")
        };
        let bytes = match self.storage.get(&name, MAX_LISTING).await {
            Ok(Some(bytes)) => bytes,
            // The publisher has not published anything for this cohort yet.
            Ok(None) => return Ok(HashSet::new()),
            Err(StorageError::TooLong { .. }) => return Err(damaged()),
            Err(error) => return Err(error.into()),
        };
        let listing = Listing::parse(&bytes, cohort).map_err(|_| damaged())?;
        Ok(listing.objects.into_iter().collect())
    }
}

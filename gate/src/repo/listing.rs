//! Which targets a cohort may have: the publisher writes it beside them, the gate reads it and remembers it for some seconds.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::ObjectStoreExt as _;
use tidegate_model::listing::{Listing, MAX_LISTING};
use tokio::sync::Mutex;

use crate::refusal::Refusal;
use crate::storage::Place;

/// When a listing was read, and the objects that it names.
type Read = (Instant, Arc<HashSet<String>>);

/// The listings of those cohorts that the settings name. Others are never asked for, so that there are no more of them.
#[derive(Debug)]
pub struct Listings {
    place: Place,
    life: Duration,
    cohorts: BTreeMap<String, Mutex<Option<Read>>>,
}

impl Listings {
    /// Listings in a place, for these cohorts.
    pub fn new<'a>(place: Place, life: Duration, cohorts: impl Iterator<Item = &'a String>) -> Self {
        Self { place, life, cohorts: cohorts.map(|cohort| (cohort.clone(), Mutex::default())).collect() }
    }

    /// Whether the cohort's listing names this object.
    pub async fn names(&self, cohort: &str, key: &str) -> Result<bool, Refusal> {
        let Some(known) = self.cohorts.get(cohort) else { return Ok(false) };
        // Whoever waits here finds what the first one read.
        let mut known = known.lock().await;
        if let Some((at, objects)) = &*known
            && at.elapsed() < self.life
        {
            return Ok(objects.contains(key));
        }
        let objects = Arc::new(self.read(cohort).await?);
        let names = objects.contains(key);
        *known = Some((Instant::now(), objects));
        Ok(names)
    }

    async fn read(&self, cohort: &str) -> Result<HashSet<String>, Refusal> {
        let name = Listing::key(cohort);
        let found = match self.place.store.get(&self.place.key(&name)).await {
            Ok(found) => found,
            // Nothing has been published for it yet.
            Err(object_store::Error::NotFound { .. }) => return Ok(HashSet::new()),
            Err(error) => return Err(self.place.failed(&error)),
        };
        let broken = || {
            eprintln!(
                "{}",
                serde_json::json!({"event": "listing", "object": name, "error": "it is not the listing of this cohort"})
            );
            Refusal::unavailable("G-SRV-04", "the listing of this cohort cannot be read: its publisher has to mend it")
        };
        if found.meta.size > MAX_LISTING {
            return Err(broken());
        }
        let bytes = found.bytes().await.map_err(|error| self.place.failed(&error))?;
        let listing = Listing::parse(&bytes, cohort).map_err(|_| broken())?;
        Ok(listing.objects.into_iter().collect())
    }
}

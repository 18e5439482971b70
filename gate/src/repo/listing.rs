//! Listings: the targets that a cohort gives access to. The publisher writes them to storage; the gate caches them for some seconds.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use tidegate_model::listing::{Listing, MAX_LISTING};
use tokio::sync::Mutex;

use crate::encoding::sha256;
use crate::refusal::Refusal;
use crate::storage::{Storage, StorageError};

/// The maximum number of objects in a listing.
const MAX_OBJECTS: usize = 50_000;

/// The time of reading, and the objects in the listing.
type CachedListing = (Instant, Arc<Objects>);

/// The objects in a listing, by the hashes of their names: a long listing takes less memory than its text.
#[derive(Debug, Default)]
struct Objects(HashSet<[u8; 32]>);

/// What [`Listing::parse`] reads.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    schema: u64,
    cohort: String,
    objects: Objects,
}

impl Objects {
    fn contains(&self, object: &str) -> bool {
        self.0.contains(&sha256(&[object.as_bytes()]))
    }

    fn parse(bytes: &[u8], cohort: &str) -> Option<Self> {
        // Serde would also take a list of the fields.
        let form: Form = bytes.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(bytes).ok())??;
        (form.schema == 1 && form.cohort == cohort).then_some(form.objects)
    }
}

impl<'de> Deserialize<'de> for Objects {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Objects;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the names of objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Objects, A::Error> {
                let mut objects = HashSet::new();
                while let Some(name) = names.next_element::<String>()? {
                    objects.insert(sha256(&[name.as_bytes()]));
                    if objects.len() > MAX_OBJECTS {
                        return Err(A::Error::custom("too many objects"));
                    }
                }
                Ok(Objects(objects))
            }
        }
        deserializer.deserialize_seq(Names)
    }
}

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

    async fn read(&self, cohort: &str) -> Result<Objects, Refusal> {
        let name = Listing::key(cohort);
        let damaged = || {
            tracing::warn!(object = name, "damaged listing");
            Refusal::damaged("G-SRV-04", "the listing of this cohort is damaged; the publisher has to publish it again")
        };
        let bytes = match self.storage.get(&name, MAX_LISTING).await {
            Ok(Some(bytes)) => bytes,
            // The publisher has not published anything for this cohort yet.
            Ok(None) => return Ok(Objects::default()),
            Err(StorageError::TooLong { .. }) => return Err(damaged()),
            Err(error) => return Err(error.into()),
        };
        Objects::parse(&bytes, cohort).ok_or_else(damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of the format are in `tests/it/listings.rs`.
    #[test]
    fn refuses_lists_of_fields_and_too_many_objects() {
        let parse = |objects: &str| {
            let text = format!(r#"{{"schema":1,"cohort":"stable.canary","objects":[{objects}]}}"#);
            Objects::parse(text.as_bytes(), "stable.canary")
        };
        let names = |count: usize| (0..count).map(|number| format!("\"{number}\"")).collect::<Vec<_>>().join(",");
        assert!(parse(&names(MAX_OBJECTS)).unwrap().contains("49999"));
        assert!(parse(&names(MAX_OBJECTS + 1)).is_none());
        assert!(Objects::parse(br#"[1,"stable.canary",[]]"#, "stable.canary").is_none());
    }
}

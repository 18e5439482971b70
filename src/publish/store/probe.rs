//! Probes whether a store's conditional writes are reliable.
//!
//! An S3 implementation may accept the conditions and yet check them separately from the write, so that several concurrent
//! writers all win. Only a test shows this: several writers race to create one object, then to replace it, and each time exactly
//! one must win. The workspace remembers the result, so a store is probed once.

use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use object_store::{Error as StoreError, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, UpdateVersion};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tidegate_tuf::hash::to_hex;

use super::fault;
use super::remote::Remote;
use crate::error::{Error, Result};
use crate::fs;

/// Number of concurrent writers.
const RACERS: usize = 8;
/// How long a good result is valid: stores are upgraded, or replaced under the same name.
const MEMORY: TimeDelta = TimeDelta::days(30);
/// How long a bad result is valid: the cause may be temporary, or somebody may be fixing it.
const MEMORY_OF_NO: TimeDelta = TimeDelta::days(1);
/// Number of races that must succeed: in a single race, writers that did not overlap look as if they were kept apart.
const GOOD: usize = 3;
/// Maximum number of races, including those without a winner.
const RACES: usize = 6;
/// The folder of a probe's objects. They are removed afterwards.
pub const PROBE: &str = ".tidegate/probe";

/// How a place handles conditional writes, as far as known without probing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Concurrency {
    /// A lock on this machine keeps publishers apart.
    Lock,
    /// Of several concurrent publishers exactly one wins.
    Conditional,
    /// It will be probed before the first write.
    Unknown,
    /// Nothing keeps two publishers apart: there must be only one.
    SingleWriter,
}

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    place: String,
    conditional: bool,
    #[serde(with = "tidegate_model::time::text")]
    probed: DateTime<Utc>,
}

/// The probe of a store.
pub(super) struct Probe<'a>(pub(super) &'a Remote);

impl Probe<'_> {
    /// Whether conditional writes are reliable, as remembered or else as probed.
    pub(super) async fn is_conditional(&self, now: DateTime<Utc>) -> Result<bool> {
        if let Some(known) = self.remembered(now) {
            return Ok(known);
        }
        let conditional = self.probe().await?;
        self.remember(conditional, now);
        Ok(conditional)
    }

    /// Lets several writers race. The probe's objects are removed again, if that is permitted.
    async fn probe(&self) -> Result<bool> {
        let mut good = 0;
        for _ in 0..RACES {
            let mut random = [0; 12];
            getrandom::fill(&mut random)
                .map_err(|error| Error::bug("no randomness").with_source(std::io::Error::from(error)))?;
            let key = format!("{PROBE}/{}", to_hex(&random));
            let conditional = self.race(&key).await;
            // Nothing depends on this: leftovers are small, and `tidegate prune` removes them.
            let _ = self.0.store.delete(&self.0.key(&key)).await;
            match conditional? {
                Some(true) => good += 1,
                Some(false) => return Ok(false),
                None => {}
            }
            if good == GOOD {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `None` if nobody won: stores may reject all concurrent writers (S3 answers 409), which is inconclusive.
    async fn race(&self, key: &str) -> Result<Option<bool>> {
        match self.winners(key, &PutMode::Create).await? {
            0 => return Ok(None),
            1 => {}
            _ => return Ok(Some(false)),
        }
        let Some(seen) = self.0.read(key, 64).await? else { return Ok(None) };
        match self.winners(key, &PutMode::Update(seen.version.clone())).await? {
            0 => return Ok(None),
            1 => {}
            _ => return Ok(Some(false)),
        }
        // The object with the seen tag is gone, and one that never existed cannot be replaced either.
        let never = UpdateVersion { e_tag: Some("\"00000000000000000000000000000000\"".into()), version: None };
        let conditional = self.winners(key, &PutMode::Update(seen.version)).await? == 0
            && self.winners(key, &PutMode::Update(never)).await? == 0
            && self.winners(key, &PutMode::Create).await? == 0;
        Ok(Some(conditional))
    }

    /// How many of several writers won. A store that does not support the condition counts as having no winner.
    async fn winners(&self, key: &str, mode: &PutMode) -> Result<usize> {
        let writers = (0..RACERS).map(|number| {
            let options = PutOptions { mode: mode.clone(), ..PutOptions::default() };
            // Different bytes, so that ETags differ.
            let bytes = PutPayload::from(format!("{number} {}", rand_word(number)).into_bytes());
            async move { self.0.store.put_opts(&self.0.key(key), bytes, options).await }
        });
        let mut won = 0;
        for outcome in join_all(writers).await {
            match outcome {
                Ok(_) => won += 1,
                Err(StoreError::Precondition { .. } | StoreError::AlreadyExists { .. }) => {}
                // The answer to replacing a missing object; for a creation it means that the bucket is missing.
                Err(StoreError::NotFound { .. }) if *mode != PutMode::Create => {}
                Err(error) if fault::is_unsupported(&error) => return Ok(usize::MAX),
                Err(error) => return Err(self.0.fault("try a conditional write to", key, &error)),
            }
        }
        Ok(won)
    }

    fn memory_of_probe(&self) -> Option<PathBuf> {
        let name = to_hex(&Sha256::digest(self.0.place()));
        Some(self.0.memory.as_ref()?.join("stores").join(format!("{name}.json")))
    }

    fn remembered(&self, now: DateTime<Utc>) -> Option<bool> {
        let bytes = fs::read_if_exists(&self.memory_of_probe()?, 1 << 16).ok()??;
        let known: Known = serde_json::from_slice(&bytes).ok()?;
        let memory = if known.conditional { MEMORY } else { MEMORY_OF_NO };
        (known.place == self.0.place() && (now - known.probed).abs() < memory).then_some(known.conditional)
    }

    fn remember(&self, conditional: bool, now: DateTime<Utc>) {
        let known = Known { place: self.0.place(), conditional, probed: now };
        // If the result cannot be saved, the next publication probes again.
        if let Some(path) = self.memory_of_probe()
            && let Ok(bytes) = serde_json::to_vec(&known)
        {
            let _ = fs::write_atomic(&path, &bytes);
        }
    }
}

/// A value that differs between writers and races.
fn rand_word(number: usize) -> String {
    let mut random = [0; 6];
    let _ = getrandom::fill(&mut random);
    random.iter().fold(number.to_string(), |word, byte| format!("{word}{byte:02x}"))
}

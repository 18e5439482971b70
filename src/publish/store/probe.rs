//! Finding out whether a store's conditional writes can be relied on.
//!
//! What speaks the protocol of S3 may know the conditions and yet check them apart from the write, so that of several writers at
//! once all win. Only trying tells: several writers race for one new object, then for one replacement of it, and each time exactly
//! one must win. The answer is remembered in the workspace, so it takes place once for a store.

use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use object_store::{Error as StoreError, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, UpdateVersion};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tidegate_tuf::hash::to_hex;

use super::fault;
use super::remote::{Backend, Remote, Writes};
use crate::error::{Error, Result, Rule};
use crate::fs;

/// Writers at once.
const RACERS: usize = 8;
/// How long a good answer counts: stores are upgraded, and replaced behind the same name.
const MEMORY: TimeDelta = TimeDelta::days(30);
/// How long a bad one does: it may have been the store's bad day, and somebody may be repairing it.
const MEMORY_OF_NO: TimeDelta = TimeDelta::days(1);
/// Races that must go well: in one alone writers who did not meet look as if they were kept apart.
const GOOD: usize = 3;
/// Races at most, with those that nobody has won.
const RACES: usize = 6;
/// Below which the objects of a probe lie. They are removed again.
pub const PROBE: &str = ".tidegate/probe";

/// How a place takes conditional writes, as far as that is known without asking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Concurrency {
    /// A lock on this machine keeps publishers apart.
    Lock,
    /// Of several publishers at once exactly one wins.
    Conditional,
    /// It will be probed before the first write.
    Unknown,
    /// Nothing keeps two publishers apart: there must be one only.
    SingleWriter,
}

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    place: String,
    conditional: bool,
    #[serde(with = "tidegate_model::time::text")]
    probed: DateTime<Utc>,
}

impl Remote {
    /// How publishers are kept apart there.
    pub fn concurrency(&self) -> Concurrency {
        match self.kind {
            Backend::Folder(_) => Concurrency::Lock,
            Backend::Store(Writes::Conditional) => Concurrency::Conditional,
            Backend::Store(Writes::Unknown) => Concurrency::Unknown,
            Backend::Store(Writes::None) => Concurrency::SingleWriter,
        }
    }

    /// The same place, taken to be one whose conditional writes can be relied on. For stores of which that is known otherwise.
    #[must_use]
    pub fn danger_assume_conditional(mut self) -> Self {
        if let Backend::Store(writes) = &mut self.kind {
            *writes = Writes::Conditional;
        }
        self
    }

    /// Makes sure, before anything is written, that two publishers cannot both win; `now` is for the memory of it.
    ///
    /// Errs (`P-SINGLE-WRITER`) if the store cannot keep them apart, unless `single_writer` says that there is only one.
    pub async fn settle(&mut self, single_writer: bool, now: DateTime<Utc>) -> Result<()> {
        if let Some(private) = &mut self.private {
            Box::pin(std::sync::Arc::make_mut(private).settle(single_writer, now)).await?;
        }
        let why = match self.kind {
            Backend::Folder(_) | Backend::Store(Writes::Conditional) => return Ok(()),
            Backend::Store(Writes::None) => "it has no conditional writes",
            Backend::Store(Writes::Unknown) => {
                let conditional = if let Some(known) = self.remembered(now) {
                    known
                } else {
                    let conditional = self.probe().await?;
                    self.remember(conditional, now);
                    conditional
                };
                if conditional {
                    self.kind = Backend::Store(Writes::Conditional);
                    return Ok(());
                }
                "of several writers at once more than one won there, or none"
            }
        };
        if single_writer {
            self.kind = Backend::Store(Writes::None);
            return Ok(());
        }
        Err(Error::refused(format!("{} cannot keep two publishers apart: {why}", self.name()))
            .rule(Rule::PublishSingleWriter)
            .remedy("if nothing else ever publishes there, say so: --single-writer; else choose a store with conditional writes"))
    }

    /// Has several writers race. Objects of the probe are removed again, if that is allowed.
    async fn probe(&self) -> Result<bool> {
        let mut good = 0;
        for _ in 0..RACES {
            let mut random = [0; 12];
            getrandom::fill(&mut random)
                .map_err(|error| Error::bug("no randomness").with_source(std::io::Error::from(error)))?;
            let key = format!("{PROBE}/{}", to_hex(&random));
            let conditional = self.race(&key).await;
            // Nothing depends on it: leftovers are small, and `tidegate prune` takes them.
            let _ = self.store.delete(&self.key(&key)).await;
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

    /// `None` if nobody won: stores may turn all of those away who come at once (S3 answers 409), and that settles nothing.
    async fn race(&self, key: &str) -> Result<Option<bool>> {
        match self.winners(key, &PutMode::Create).await? {
            0 => return Ok(None),
            1 => {}
            _ => return Ok(Some(false)),
        }
        let Some(seen) = self.read(key, 64).await? else { return Ok(None) };
        match self.winners(key, &PutMode::Update(seen.version.clone())).await? {
            0 => return Ok(None),
            1 => {}
            _ => return Ok(Some(false)),
        }
        // What was seen is no longer there, and what never was cannot be replaced either.
        let never = UpdateVersion { e_tag: Some("\"00000000000000000000000000000000\"".into()), version: None };
        let conditional = self.winners(key, &PutMode::Update(seen.version)).await? == 0
            && self.winners(key, &PutMode::Update(never)).await? == 0
            && self.winners(key, &PutMode::Create).await? == 0;
        Ok(Some(conditional))
    }

    /// How many of several writers won. A store that does not know the condition lets none win, for this purpose.
    async fn winners(&self, key: &str, mode: &PutMode) -> Result<usize> {
        let writers = (0..RACERS).map(|number| {
            let options = PutOptions { mode: mode.clone(), ..PutOptions::default() };
            // Different bytes, and so different ETags.
            let bytes = PutPayload::from(format!("{number} {}", rand_word(number)).into_bytes());
            async move { self.store.put_opts(&self.key(key), bytes, options).await }
        });
        let mut won = 0;
        for outcome in join_all(writers).await {
            match outcome {
                Ok(_) => won += 1,
                Err(StoreError::Precondition { .. } | StoreError::AlreadyExists { .. }) => {}
                // To a replacement of what is not there; to a creation it is the answer of a bucket that is not there.
                Err(StoreError::NotFound { .. }) if *mode != PutMode::Create => {}
                Err(error) if fault::is_unsupported(&error) => return Ok(usize::MAX),
                Err(error) => return Err(self.fault("try a conditional write to", key, &error)),
            }
        }
        Ok(won)
    }

    fn memory_of_probe(&self) -> Option<PathBuf> {
        let name = to_hex(&Sha256::digest(self.place()));
        Some(self.memory.as_ref()?.join("stores").join(format!("{name}.json")))
    }

    fn remembered(&self, now: DateTime<Utc>) -> Option<bool> {
        let bytes = fs::read_if_exists(&self.memory_of_probe()?, 1 << 16).ok()??;
        let known: Known = serde_json::from_slice(&bytes).ok()?;
        let memory = if known.conditional { MEMORY } else { MEMORY_OF_NO };
        (known.place == self.place() && (now - known.probed).abs() < memory).then_some(known.conditional)
    }

    fn remember(&self, conditional: bool, now: DateTime<Utc>) {
        let known = Known { place: self.place(), conditional, probed: now };
        // If it cannot be written down, the next publication asks again.
        if let Some(path) = self.memory_of_probe()
            && let Ok(bytes) = serde_json::to_vec(&known)
        {
            let _ = fs::write_atomic(&path, &bytes);
        }
    }
}

/// Something that differs from writer to writer and from race to race.
fn rand_word(number: usize) -> String {
    let mut random = [0; 6];
    let _ = getrandom::fill(&mut random);
    random.iter().fold(number.to_string(), |word, byte| format!("{word}{byte:02x}"))
}

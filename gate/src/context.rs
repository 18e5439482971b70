//! The gate: its settings and all that they lead to, opened.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Semaphore;

use crate::audit::Log;
use crate::config::Config;
use crate::enrolment::Enrolments;
use crate::error::Result;
use crate::evidence::ear::Known;
use crate::identity::proof::Seen;
use crate::metrics::Metrics;
use crate::rate_limit::Rates;
use crate::repo::listing::Listings;
use crate::secret::Secret;
use crate::storage::Place;

/// All that requests are answered with.
#[derive(Debug)]
pub struct Gate {
    /// The settings.
    pub config: Config,
    /// What the publisher laid out: only read.
    pub private: Place,
    /// Spent nonces.
    pub state: Place,
    /// Receipts: only written.
    pub receipts: Option<Place>,
    /// What is known of devices.
    pub enrolments: Enrolments,
    /// Which cohort may have which objects.
    pub listings: Listings,
    /// Verifiers of attestation.
    pub verifiers: BTreeMap<String, Known>,
    /// Rates.
    pub rates: Rates,
    /// Requests at a time.
    pub requests: Semaphore,
    /// Proofs of the last minutes.
    pub seen: Seen,
    /// Metrics.
    pub metrics: Metrics,
    /// The audit.
    pub log: Log,
    secret: RwLock<Arc<Secret>>,
}

impl Gate {
    /// Opens everything. Errs with what cannot be used; nothing is written but folders that are not there yet.
    pub fn open(config: Config) -> Result<Self> {
        // Whoever embeds this may have chosen before: then theirs stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = &config.base;
        let private = Place::open(&config.private, base, false)?;
        let life = config.listing_life.into();
        let verifiers = config.verifiers.iter().map(|(name, rules)| Ok((name.clone(), Known::new(name, rules, base)?)));
        Ok(Self {
            listings: Listings::new(private.clone(), life, config.cohorts.keys()),
            // A nonce that a loss of power forgets was its own device's; nobody else can use it.
            state: Place::open(&config.state, base, false)?,
            // A receipt that was acknowledged is there after it.
            receipts: config.receipts.as_ref().map(|place| Place::open(place, base, true)).transpose()?,
            enrolments: Enrolments::new(Place::open(&config.enrolments, base, true)?),
            verifiers: verifiers.collect::<Result<_>>()?,
            rates: Rates::new(&config.limits),
            requests: Semaphore::new(config.limits.requests.min(Semaphore::MAX_PERMITS)),
            seen: Seen::default(),
            metrics: Metrics::default(),
            log: Log::open(&config)?,
            secret: RwLock::new(Arc::new(Secret::load(&config.path(&config.secret))?)),
            private,
            config,
        })
    }

    /// The secret in force.
    pub fn secret(&self) -> Arc<Secret> {
        Arc::clone(&self.secret.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the secret anew. The old one stays if that fails.
    pub fn reload_secret(&self) -> Result<()> {
        let path: &Path = &self.config.path(&self.config.secret);
        let secret = Arc::new(Secret::load(path)?);
        *self.secret.write().unwrap_or_else(PoisonError::into_inner) = secret;
        Ok(())
    }

    /// Seconds since 1970.
    pub fn now(&self) -> u64 {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

//! What the handling of every request shares: the settings and everything opened from them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Semaphore;

use crate::audit::AuditLog;
use crate::config::GateConfig;
use crate::enrolment::EnrolmentStore;
use crate::error::Result;
use crate::evidence::ear::Verifier;
use crate::identity::proof::ReplayCache;
use crate::metrics::Metrics;
use crate::names::GateNames;
use crate::quota::ReceiptQuotas;
use crate::rate_limit::RateLimiter;
use crate::repo::listing::ListingCache;
use crate::repo::releases::KnownReleases;
use crate::secret::SharedSecret;
use crate::storage::Storage;

/// The settings and everything opened from them.
#[derive(Debug)]
pub struct GateContext {
    /// The settings.
    pub config: GateConfig,
    /// The protected objects; read-only.
    pub private: Storage,
    /// The spent nonces.
    pub state: Storage,
    /// The receipts, if the gate accepts any.
    pub receipts: Option<Receipts>,
    /// The enrolments of devices.
    pub enrolments: EnrolmentStore,
    /// The objects that each cohort gives access to.
    pub listings: ListingCache,
    /// The verifiers of attestation results.
    pub verifiers: BTreeMap<String, Verifier>,
    /// The rate limits.
    pub rates: RateLimiter,
    /// The permits of concurrent requests.
    pub requests: Semaphore,
    /// The proofs of the last minutes.
    pub proofs: ReplayCache,
    /// The metrics.
    pub metrics: Metrics,
    /// The audit log.
    pub audit: AuditLog,
    secret: RwLock<Arc<SharedSecret>>,
    names: RwLock<Arc<GateNames>>,
}

/// What receipts need.
#[derive(Debug)]
pub struct Receipts {
    /// Where they are; write-only.
    pub storage: Storage,
    /// The releases whose receipts are accepted.
    pub releases: KnownReleases,
    /// How many each device may store.
    pub quotas: ReceiptQuotas,
}

impl GateContext {
    /// Opens everything that the settings name. Writes nothing, except for storage folders that do not exist yet.
    ///
    /// # Errors
    ///
    /// Fails if something cannot be opened.
    pub fn open(config: GateConfig) -> Result<Self> {
        // An embedding program may have installed another provider, which then stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = &config.base;
        let private = Storage::open(&config.private, base, false)?;
        // If a loss of power loses a spent nonce, only the device that received the nonce can use it again.
        let state = Storage::open(&config.state, base, false)?;
        let receipts = match (&config.receipts, &config.repository) {
            (Some(location), Some(repository)) => Some(Receipts {
                // An acknowledged receipt must survive a loss of power.
                storage: Storage::open(location, base, true)?,
                releases: KnownReleases::open(repository, base, config.listing_life.into())?,
                quotas: ReceiptQuotas::new(state.clone()),
            }),
            _ => None,
        };
        let verifiers = config.verifiers.iter();
        let verifiers = verifiers.map(|(name, settings)| Ok((name.clone(), Verifier::new(name, settings, base)?)));
        Ok(Self {
            listings: ListingCache::new(private.clone(), config.listing_life.into(), config.cohorts.keys()),
            state,
            receipts,
            enrolments: EnrolmentStore::new(Storage::open(&config.enrolments, base, true)?),
            verifiers: verifiers.collect::<Result<_>>()?,
            rates: RateLimiter::new(&config.limits),
            requests: Semaphore::new(config.limits.requests.min(Semaphore::MAX_PERMITS)),
            proofs: ReplayCache::default(),
            metrics: Metrics::default(),
            audit: AuditLog::open(&config)?,
            secret: RwLock::new(load_secret(&config)?),
            names: RwLock::new(Arc::new(GateNames::local())),
            private,
            config,
        })
    }

    /// The secret in use.
    pub fn secret(&self) -> Arc<SharedSecret> {
        Arc::clone(&self.secret.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reloads the secret.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be used; the previous secret stays in use.
    pub fn reload_secret(&self) -> Result<()> {
        let secret = load_secret(&self.config)?;
        *self.secret.write().unwrap_or_else(PoisonError::into_inner) = secret;
        Ok(())
    }

    /// The names of this gate.
    pub fn names(&self) -> Arc<GateNames> {
        Arc::clone(&self.names.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets the names to those of the settings, else to those of the certificate.
    pub fn set_names(&self, of_certificate: GateNames) {
        let names = GateNames::from_settings(&self.config.names).filter(|names| !names.is_empty());
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(names.unwrap_or(of_certificate));
    }

    /// The time, in Unix seconds.
    pub fn now(&self) -> u64 {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

fn load_secret(config: &GateConfig) -> Result<Arc<SharedSecret>> {
    let path = config.path(&config.secret);
    let secret = SharedSecret::load(&path)?;
    tracing::debug!(path = %path.display(), ?secret, "secret loaded");
    Ok(Arc::new(secret))
}

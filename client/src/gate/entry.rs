//! What lets a device in: the trait of gates, and what a device requests of one.

use std::sync::Arc;

use crate::fetch::{FetchError, Pass};
use tidegate_model::gate::{Attestation, GateUrl};
use tidegate_model::name::DeviceId;

/// Lets a device in to what is kept for its cohort.
pub trait Gate {
    /// The kind of evidence that this device gives. `None` if it gives none.
    fn attestation(&self) -> Option<Attestation>;

    /// What opens, to this device, what is kept for a cohort. Unless it is asked for `afresh`, that may be what is still good of the last time.
    ///
    /// # Errors
    ///
    /// [`FetchError::Denied`] if the gate refuses; [`FetchError::Evidence`] if this device could not make its evidence; others if the gate
    /// could not be asked.
    fn enter(&self, visit: &Visit, afresh: bool) -> Result<Arc<dyn Pass + Send + Sync>, FetchError>;
}

impl<T: Gate + ?Sized> Gate for Arc<T> {
    fn attestation(&self) -> Option<Attestation> {
        (**self).attestation()
    }

    fn enter(&self, visit: &Visit, afresh: bool) -> Result<Arc<dyn Pass + Send + Sync>, FetchError> {
        (**self).enter(visit, afresh)
    }
}

/// Who wants in, where, for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// The gate.
    pub gate: GateUrl,
    /// The role of the cohort, `CHANNEL.COHORT`.
    pub role: String,
    /// The device.
    pub device: DeviceId,
}

impl Visit {
    /// Whether this URL is behind the gate.
    pub fn leads_to(&self, url: &str) -> bool {
        url.strip_prefix(&self.gate.repository()).is_some_and(|rest| rest.starts_with('/'))
    }
}

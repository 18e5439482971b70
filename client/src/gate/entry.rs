//! Access through a gate: the trait, and the parameters of a request.

use std::sync::Arc;

use crate::fetch::{FetchError, Pass};
use tidegate_model::gate::{Attestation, GateUrl};
use tidegate_model::name::DeviceId;

/// Gives a device access to the files of its protected cohort.
pub trait Gate {
    /// The kind of evidence that this device provides, if any.
    fn attestation(&self) -> Option<Attestation>;

    /// A pass for the files of a cohort. Unless `afresh` is set, this may be an earlier pass that is still valid.
    ///
    /// # Errors
    ///
    /// [`FetchError::Denied`] if the gate refuses; [`FetchError::Evidence`] if this device cannot make its evidence; others if the gate
    /// cannot be reached.
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

/// The parameters of an access request: gate, role and device.
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

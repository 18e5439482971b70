//! Fetching through the gate of a protected cohort.

use std::cell::RefCell;

use tracing::trace;

use super::entry::{Gate, Visit};
use crate::fetch::{Fetch, FetchError, Reply, Request};
use tidegate_model::gate::Attestation;

/// Fetches public files directly, and files behind the current visit's gate with that gate's pass.
pub(crate) struct GatedFetch {
    fetch: Box<dyn Fetch + Send>,
    gate: Option<Box<dyn Gate + Send>>,
    visit: RefCell<Option<Visit>>,
}

impl GatedFetch {
    pub(crate) fn new(fetch: Box<dyn Fetch + Send>, gate: Option<Box<dyn Gate + Send>>) -> Self {
        Self { fetch, gate, visit: RefCell::new(None) }
    }

    /// Whether the device has a gate client.
    pub(crate) fn has_gate(&self) -> bool {
        self.gate.is_some()
    }

    pub(crate) fn attestation(&self) -> Option<Attestation> {
        self.gate.as_ref().and_then(|gate| gate.attestation())
    }

    /// The current visit.
    pub(crate) fn visit(&self) -> Option<Visit> {
        self.visit.borrow().clone()
    }

    /// Starts another visit, or none.
    pub(crate) fn begin(&self, visit: Option<Visit>) {
        *self.visit.borrow_mut() = visit;
    }
}

impl Fetch for GatedFetch {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        let visit = self.visit().filter(|visit| visit.leads_to(request.url));
        let (Some(gate), Some(visit)) = (&self.gate, visit) else { return self.fetch.fetch(request) };
        trace!(gate = %visit.gate, role = visit.role, "fetches through a gate");
        let pass = gate.enter(&visit, false)?;
        match self.fetch.fetch(&request.opened_by(&*pass)) {
            // The grant may have expired, or the gate may have a new secret.
            Err(FetchError::Denied { status: 401, .. }) => {
                let pass = gate.enter(&visit, true)?;
                self.fetch.fetch(&request.opened_by(&*pass))
            }
            result => result,
        }
    }
}

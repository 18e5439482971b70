//! Fetching through the gate of a protected cohort.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::trace;

use super::entry::{Gate, Visit};
use crate::fetch::{Fetch, FetchError, Reply, Request};

/// The visit of a device to a gate: what its requests are let in with. The device sets it, and its fetcher reads it.
#[derive(Debug, Clone, Default)]
pub(crate) struct CurrentVisit(Arc<Mutex<Option<Visit>>>);

impl CurrentVisit {
    /// The visit.
    pub(crate) fn get(&self) -> Option<Visit> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts another visit, or none.
    pub(crate) fn begin(&self, visit: Option<Visit>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = visit;
    }
}

/// Fetches public files directly, and files behind the current visit's gate with that gate's pass.
pub(crate) struct GatedFetch {
    fetch: Box<dyn Fetch + Send>,
    gate: Option<Box<dyn Gate + Send>>,
    visit: CurrentVisit,
}

impl GatedFetch {
    pub(crate) fn new(fetch: Box<dyn Fetch + Send>, gate: Option<Box<dyn Gate + Send>>, visit: CurrentVisit) -> Self {
        Self { fetch, gate, visit }
    }
}

impl Fetch for GatedFetch {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        let visit = self.visit.get().filter(|visit| visit.leads_to(request.url));
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

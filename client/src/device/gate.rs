//! The way through the gate of a protected cohort.

use std::cell::RefCell;

use super::{Device, Found};
use crate::error::Error;
use crate::fetch::{Fetch, FetchError, Reply, Request};
use crate::gate::{Gate, Visit};
use crate::model::cohort::CohortChoice;
use crate::model::decision::Profile;
use crate::model::gate::{Attestation, Protected};
use crate::model::layout;
use crate::updater::{Elsewhere, Repository};

/// Fetches what is public as ever, and what is behind the gate of the visit under way with what that gate gives.
pub(super) struct Through {
    fetch: Box<dyn Fetch + Send>,
    gate: Option<Box<dyn Gate + Send>>,
    visit: RefCell<Option<Visit>>,
}

impl Through {
    pub(super) fn new(fetch: Box<dyn Fetch + Send>, gate: Option<Box<dyn Gate + Send>>) -> Self {
        Self { fetch, gate, visit: RefCell::new(None) }
    }

    pub(super) fn attestation(&self) -> Option<Attestation> {
        self.gate.as_ref().and_then(|gate| gate.attestation())
    }

    /// The visit under way.
    pub(super) fn visit(&self) -> Option<Visit> {
        self.visit.borrow().clone()
    }

    /// Begins another visit, or none.
    pub(super) fn begin(&self, visit: Option<Visit>) {
        *self.visit.borrow_mut() = visit;
    }
}

impl Fetch for Through {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        let visit = self.visit().filter(|visit| visit.leads_to(request.url));
        let (Some(gate), Some(visit)) = (&self.gate, visit) else { return self.fetch.fetch(request) };
        let pass = gate.enter(&visit, false)?;
        match self.fetch.fetch(&request.opened_by(&*pass)) {
            // What was granted may have ended, or the gate may have another secret now.
            Err(FetchError::Denied { status: 401, .. }) => {
                let pass = gate.enter(&visit, true)?;
                self.fetch.fetch(&request.opened_by(&*pass))
            }
            result => result,
        }
    }
}

impl Device {
    /// Gets ready for the device's cohort: if it is protected, its role comes through its gate, and where that is is returned.
    pub(super) fn approach(
        &mut self,
        profile: &Profile,
        choice: &CohortChoice,
        protected: Option<&Protected>,
    ) -> Result<Option<Repository>, String> {
        let through = self.updater.fetcher();
        let Some(protected) = protected else {
            through.begin(None);
            self.updater.route(None);
            return Ok(None);
        };
        let gate = &protected.gate;
        if through.gate.is_none() {
            return Err(format!(
                "cohort {} is protected: its gate {gate} asks devices to show what they are, and this device has no settings for gates",
                choice.cohort
            ));
        }
        let role = layout::cohort_role(&profile.channel, &choice.cohort);
        through.begin(Some(Visit { gate: gate.clone(), role: role.clone(), device: profile.id.clone() }));
        let repository = Repository::at(&gate.repository());
        self.updater.route(Some(Elsewhere { role, repository: repository.clone() }));
        Ok(Some(repository))
    }
}

/// Turns a gate's refusal into a reason to keep what is installed.
pub(super) fn or_denied(
    offered: Result<Result<Found, String>, Error>,
    choice: &CohortChoice,
    protected: Option<&Protected>,
) -> Result<Result<Found, String>, Error> {
    match (offered, protected) {
        (Err(Error::Fetch(FetchError::Denied { refusal, .. })), Some(protected)) => Ok(Err(format!(
            "cohort {} is protected, and its gate {} does not let this device in: {refusal}",
            choice.cohort, protected.gate
        ))),
        (offered, _) => offered,
    }
}

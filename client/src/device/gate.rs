//! Access to a protected cohort through its gate.

use super::{Device, Found};
use crate::error::Error;
use crate::fetch::FetchError;
use crate::gate::Visit;
use crate::updater::{Elsewhere, Repository};
use tidegate_model::cohort::CohortChoice;
use tidegate_model::decision::Profile;
use tidegate_model::gate::Protected;
use tidegate_model::layout;

impl Device {
    /// Prepares for the device's cohort. If it is protected, its role is fetched through its gate, whose location is returned.
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
        if !through.has_gate() {
            return Err(format!(
                "cohort {} is protected: its gate {gate} requires authentication, and this device has no gate settings",
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

/// Converts a gate's refusal into a reason to keep the installed release.
pub(super) fn or_denied(
    offered: Result<Result<Found, String>, Error>,
    choice: &CohortChoice,
    protected: Option<&Protected>,
) -> Result<Result<Found, String>, Error> {
    match (offered, protected) {
        (Err(Error::Fetch(FetchError::Denied { refusal, .. })), Some(protected)) => Ok(Err(format!(
            "cohort {} is protected, and its gate {} denied this device access: {refusal}",
            choice.cohort, protected.gate
        ))),
        (offered, _) => offered,
    }
}

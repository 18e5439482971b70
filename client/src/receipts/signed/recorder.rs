//! Records the install results of releases, signed with the device's key.

use super::drain::drain;
use super::ledger::{Context, Ledger};
use super::{Naming, Receipts, expected, is_failure, outcome_of};
use crate::error::Error;
use crate::receipts::recorder::ReceiptRecorder;
use crate::receipts::sending::{Sending, Sent};
use crate::receipts::sink::{Destination, Sink};
use crate::receipts::status::ReceiptStatus;
use crate::state::{Machine, State, Tolerance};
use crate::store::{DirStore, Kept, Repair};
use tidegate_model::cohort::{CohortChoice, CohortMap};
use tidegate_model::explanation::Explanation;
use tidegate_model::gate::GateUrl;
use tidegate_model::name::{DeviceId, Name};
use tidegate_model::receipt::{DeliveryCost, InstallResult, OfferResult, SignedReceipt};
use tidegate_model::release::Release;
use tidegate_model::time::UtcTime;

/// The state file.
const NAME: &str = "receipts.json";

/// Signs receipts and stores them until they are sent.
pub(crate) struct SigningRecorder {
    settings: Receipts,
    /// `None` if the ledger cannot be read; then nothing is recorded and the device continues.
    kept: Option<Kept<Ledger>>,
    /// The device's cohort according to the last check.
    observed: Option<Observed>,
    /// The last recording failure.
    problem: Option<String>,
}

/// The device's place in its channel.
struct Observed {
    cohort: Name,
    hash: DeviceId,
    gate: Option<GateUrl>,
}

impl SigningRecorder {
    pub(crate) fn new(settings: Receipts) -> Self {
        Self { settings, kept: None, observed: None, problem: None }
    }

    fn ledger(&self) -> Option<&Ledger> {
        self.kept.as_ref().and_then(Kept::value)
    }

    /// Saves a change of the ledger. If that fails, it stays in memory and is saved with the next change.
    fn change(
        &mut self,
        store: &DirStore,
        change: impl FnOnce(&mut Ledger, &Receipts, Option<&Observed>) -> Result<bool, String>,
    ) {
        let mut ledger = self.ledger().cloned().unwrap_or_default();
        let Some(kept) = &mut self.kept else { return };
        self.problem = match change(&mut ledger, &self.settings, self.observed.as_ref()) {
            Ok(false) => return,
            Ok(true) => match kept.save(store, ledger.clone()) {
                Ok(()) => None,
                Err(e) => {
                    kept.set(ledger);
                    Some(format!("a receipt cannot be saved: {e}"))
                }
            },
            Err(why) => Some(format!("a receipt cannot be created: {why}")),
        };
    }
}

impl ReceiptRecorder for SigningRecorder {
    fn open(&mut self, store: &DirStore, repairs: &mut Vec<Repair>) {
        match Kept::<Ledger>::load(store, NAME, repairs) {
            Ok(mut kept) => {
                let ledger = kept.value().cloned();
                if let Some(mut ledger) = ledger
                    && ledger.sign_again(&self.settings.key)
                {
                    kept.set(ledger);
                }
                self.kept = Some(kept);
            }
            Err(e) => self.problem = Some(format!("receipts are disabled: {e}")),
        }
    }

    fn status(&self) -> Option<ReceiptStatus> {
        let mut status = self.ledger().map_or_else(|| Ledger::default().status(), Ledger::status);
        status.problem = self.problem.clone().or(status.problem);
        Some(status)
    }

    fn pending(&self) -> &[SignedReceipt] {
        self.ledger().map_or(&[], Ledger::waiting)
    }

    fn observe(&mut self, device: &DeviceId, map: &CohortMap, choice: &CohortChoice) {
        let protected = map.cohort(&choice.cohort).and_then(|cohort| cohort.protected.as_ref());
        let hash = map.salt().device_hash(device).to_string().parse();
        self.observed = hash.ok().map(|hash| Observed {
            cohort: choice.cohort.clone(),
            hash,
            gate: protected.map(|protected| protected.gate.clone()),
        });
    }

    fn forget(&mut self) {
        self.observed = None;
    }

    fn record_offer(&mut self, store: &DirStore, explanation: &Explanation, release: &Release, at: UtcTime) {
        let Explanation { device: profile, offers, .. } = explanation;
        let offers: Vec<_> = offers.iter().map(OfferResult::of).collect();
        self.change(store, |ledger, settings, observed| {
            let Some(observed) = observed else { return Ok(false) };
            let context = Context {
                device: if settings.naming == Naming::Id { profile.id.clone() } else { observed.hash.clone() },
                channel: profile.channel.clone(),
                cohort: observed.cohort.clone(),
                product: profile.product.clone(),
                hardware: profile.hardware.clone(),
                from: profile.installed.version.clone(),
            };
            let moved = ledger.gate != observed.gate;
            ledger.gate.clone_from(&observed.gate);
            Ok(ledger.offered(release, context, offers, at, &settings.key)? || moved)
        });
    }

    fn record(&mut self, store: &DirStore, release: &Release, outcome: InstallResult, why: Option<&str>, at: UtcTime) {
        self.change(store, |ledger, settings, _| ledger.record(release, outcome, why, at, &settings.key));
    }

    fn record_fetched(&mut self, store: &DirStore, release: &Release, cost: DeliveryCost) {
        self.change(store, |ledger, _, _| Ok(ledger.fetched(release, cost)));
    }

    fn record_step(&mut self, store: &DirStore, before: &State, after: &State, at: UtcTime) {
        let release = before.release().or(after.release());
        if let (Some((outcome, why)), Some(release)) = (outcome_of(before, after), release) {
            self.record(store, release, outcome, why, at);
        }
    }

    fn record_expected(&mut self, store: &DirStore, state: &State, at: UtcTime) {
        let Some(release) = state.release() else { return };
        let last = self.ledger().and_then(|ledger| ledger.last(release));
        if let Some((outcome, why)) = last.and_then(|last| expected(state, last)) {
            self.record(store, release, outcome, why, at);
        }
    }

    fn record_failure(
        &mut self,
        store: &DirStore,
        machine: &Machine,
        tolerance: Tolerance,
        error: &Error,
        at: UtcTime,
    ) {
        let is_work =
            matches!(machine.state, State::Downloading { .. } | State::Verifying { .. } | State::Installing { .. });
        let often = machine.failures.saturating_add(1) >= tolerance.attempts;
        if let (true, Some(release)) = (is_work && often && is_failure(error), machine.state.release()) {
            self.record(store, release, InstallResult::Failed, Some(&error.to_string()), at);
        }
    }

    fn take_problem(&mut self) -> Option<String> {
        self.problem.take()
    }

    fn send(&mut self, store: &DirStore, sink: &mut dyn Sink, options: Sending, now: UtcTime) -> Option<Sent> {
        let problem = self.problem.clone();
        let Some(kept) = &mut self.kept else { return Some(Sent { problem, ..Sent::default() }) };
        let mut ledger = kept.value().cloned().unwrap_or_default();
        let gate = self.observed.as_ref().map_or_else(|| ledger.gate.clone(), |observed| observed.gate.clone());
        let mut save = |ledger: &Ledger| kept.save(store, ledger.clone()).map_err(Error::from);
        let sent = drain(&mut ledger, sink, &Destination { gate }, options, now, &mut save);
        // As it is, whether or not it could be written down.
        kept.set(ledger);
        Some(sent)
    }
}

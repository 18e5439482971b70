//! How a device records and sends receipts.

use super::{Device, Release, Update};
use crate::error::Error;
use crate::receipts::{
    Context, Destination, Ledger, Naming, ReceiptRecorder, ReceiptStatus, Seen, Sending, Sent, Sink, drain, is_failure,
    outcome_of, owed,
};
use crate::state::{State, Tolerance};
use tidegate_model::cohort::{CohortChoice, CohortMap};
use tidegate_model::receipt::{Outcome, SignedReceipt};
use tidegate_model::time::Instant;

impl Device {
    /// The receipts that wait to be sent, the oldest first.
    pub fn waiting_receipts(&self) -> &[SignedReceipt] {
        self.recorder.as_ref().and_then(ReceiptRecorder::ledger).map_or(&[], Ledger::waiting)
    }

    /// How this device's receipts stand; `None` if it was given no key to sign them with.
    pub fn receipts(&self) -> Option<ReceiptStatus> {
        self.recorder.as_ref().map(ReceiptRecorder::status)
    }

    /// Sends what waits, unless a failure asked for patience, and forgets what was acknowledged.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the device was given no key to sign receipts with. That they cannot be sent now is no error: [`Sent::problem`].
    pub fn send_receipts(&mut self, sink: &mut dyn Sink, options: Sending) -> Result<Sent, Error> {
        let now = self.now();
        let none = || Error::State("this device keeps no receipts: give it a key for them".into());
        let recorder = self.recorder.as_mut().ok_or_else(none)?;
        let problem = recorder.problem.clone();
        let Some(kept) = &mut recorder.kept else { return Ok(Sent { problem, ..Sent::default() }) };
        let mut ledger = kept.value().cloned().unwrap_or_default();
        let gate = recorder.seen.as_ref().map_or_else(|| ledger.gate.clone(), |seen| seen.gate.clone());
        let store = &self.store;
        let mut save = |ledger: &Ledger| kept.save(store, ledger.clone()).map_err(Error::from);
        let sent = drain(&mut ledger, sink, &Destination { gate }, options, now, &mut save);
        // As it is, whether or not it could be written down.
        kept.set(ledger);
        Ok(sent)
    }

    /// Tells that a release could not be installed, for callers that drive the device themselves and have given up on it.
    ///
    /// What [`install`](Device::install) is told to be unsuitable, and what [`reject`](Device::reject) takes back, is told by them.
    pub fn give_up(&mut self, update: &Update, why: &str) {
        self.tell(&update.release, Outcome::Failed, Some(why));
    }

    /// What could not be told or written down, once.
    pub(crate) fn receipt_problem(&mut self) -> Option<String> {
        self.recorder.as_mut()?.problem.take()
    }

    /// Forgets what was seen of the device as it might be, and not as it is.
    pub(super) fn unsee(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.seen = None;
        }
    }

    /// Takes note of where this device stands.
    pub(super) fn see(&mut self, map: &CohortMap, choice: &CohortChoice) {
        let Some(recorder) = &mut self.recorder else { return };
        let protected = map.cohort(&choice.cohort).and_then(|cohort| cohort.protected.as_ref());
        let hash = map.salt().device_hash(&self.profile.id).to_string().parse();
        recorder.seen = hash.ok().map(|hash| Seen {
            cohort: choice.cohort.clone(),
            hash,
            gate: protected.map(|protected| protected.gate.clone()),
        });
    }

    /// Tells that a check decided to install this.
    pub(super) fn tell_offer(&mut self, update: &Update) {
        let (at, profile) = (self.now(), &self.profile);
        let Some(recorder) = &mut self.recorder else { return };
        recorder.change(&self.store, |ledger, settings, seen| {
            let Some(seen) = seen else { return Ok(false) };
            let context = Context {
                device: if settings.naming == Naming::Id { profile.id.clone() } else { seen.hash.clone() },
                channel: profile.channel.clone(),
                cohort: seen.cohort.clone(),
                product: profile.product.clone(),
                hardware: profile.hardware.clone(),
                from: profile.installed.version.clone(),
            };
            let moved = ledger.gate != seen.gate;
            ledger.gate.clone_from(&seen.gate);
            Ok(ledger.offered(&update.release, context, at, &settings.key)? || moved)
        });
    }

    /// Tells what became of a release.
    pub(super) fn tell(&mut self, release: &Release, outcome: Outcome, why: Option<&str>) {
        let at: Instant = self.now();
        let Some(recorder) = &mut self.recorder else { return };
        recorder.change(&self.store, |ledger, settings, _| ledger.tell(release, outcome, why, at, &settings.key));
    }

    /// Tells what a step of the update means, before it is written down: a stop in between repeats the step.
    pub(super) fn tell_step(&mut self, after: &State) {
        if self.recorder.is_none() {
            return;
        }
        let before = self.machine().state.clone();
        if let (Some((outcome, why)), Some(release)) =
            (outcome_of(&before, after), before.release().or(after.release()))
        {
            self.tell(&release.clone(), outcome, why);
        }
    }

    /// Tells what the present state says and what, for a fault of the disk, could not be written down when it came about.
    pub(crate) fn tell_what_is_owed(&mut self) {
        let Some(recorder) = &self.recorder else { return };
        let state = self.machine().state.clone();
        let Some(release) = state.release() else { return };
        let last = recorder.ledger().and_then(|ledger| ledger.last(release));
        if let Some((outcome, why)) = last.and_then(|last| owed(&state, last)) {
            self.tell(release, outcome, why);
        }
    }

    /// Tells that work on a release failed, once that has happened as often in a row as is tolerated. It is tried again all the same.
    pub(crate) fn tell_failure(&mut self, error: &Error, tolerance: Tolerance) {
        let machine = self.machine();
        let is_work =
            matches!(machine.state, State::Downloading { .. } | State::Verifying { .. } | State::Installing { .. });
        let often = machine.failures.saturating_add(1) >= tolerance.attempts;
        if let (true, Some(release)) = (is_work && often && is_failure(error), machine.state.release().cloned()) {
            self.tell(&release, Outcome::Failed, Some(&error.to_string()));
        }
    }
}

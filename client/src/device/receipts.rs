//! How a device records and sends receipts.

use super::{Device, Release, Update};
use crate::error::Error;
use crate::receipts::{ReceiptStatus, Sending, Sent, Sink};
use crate::state::{State, Tolerance};
use tidegate_model::receipt::{Outcome, SignedReceipt};

impl Device {
    /// The receipts that wait to be sent, the oldest first.
    pub fn waiting_receipts(&self) -> &[SignedReceipt] {
        self.recorder.pending()
    }

    /// How this device's receipts stand; `None` if it was given no key to sign them with.
    pub fn receipts(&self) -> Option<ReceiptStatus> {
        self.recorder.status()
    }

    /// Sends what waits, unless a failure asked for patience, and forgets what was acknowledged.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the device was given no key to sign receipts with. That they cannot be sent now is no error: [`Sent::problem`].
    pub fn send_receipts(&mut self, sink: &mut dyn Sink, options: Sending) -> Result<Sent, Error> {
        let now = self.now();
        let none = || Error::State("this device keeps no receipts: give it a key for them".into());
        self.recorder.send(&self.store, sink, options, now).ok_or_else(none)
    }

    /// Records that a release could not be installed, for callers that drive the device themselves and have given up on it.
    ///
    /// [`install`](Device::install) and [`reject`](Device::reject) record by themselves what they find to be final.
    pub fn give_up(&mut self, update: &Update, why: &str) {
        self.record_result(&update.release, Outcome::Failed, Some(why));
    }

    /// What could not be recorded, once.
    pub(crate) fn receipt_problem(&mut self) -> Option<String> {
        self.recorder.take_problem()
    }

    /// Records that a check decided to install this.
    pub(super) fn record_offer(&mut self, update: &Update) {
        let at = self.now();
        self.recorder.record_offer(&self.store, &self.profile, &update.release, at);
    }

    /// Records the result of a release.
    pub(super) fn record_result(&mut self, release: &Release, outcome: Outcome, why: Option<&str>) {
        let at = self.now();
        self.recorder.record(&self.store, release, outcome, why, at);
    }

    /// Records what a step of the update means, before the state is written.
    pub(super) fn record_step(&mut self, after: &State) {
        let (at, before) = (self.now(), self.machine().state.clone());
        self.recorder.record_step(&self.store, &before, after, at);
    }

    /// Records what follows from the present state and could not be written when it came about.
    pub(crate) fn record_expected(&mut self) {
        let (at, state) = (self.now(), self.machine().state.clone());
        self.recorder.record_expected(&self.store, &state, at);
    }

    /// Records that work on a release failed, once that has happened too often.
    pub(crate) fn record_failure(&mut self, error: &Error, tolerance: Tolerance) {
        let (at, machine) = (self.now(), self.machine().clone());
        self.recorder.record_failure(&self.store, &machine, tolerance, error, at);
    }
}

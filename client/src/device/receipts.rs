//! How a device records and sends receipts.

use super::{Device, Release, Update};
use crate::error::Error;
use crate::receipts::{ReceiptStatus, Sending, Sent, Sink};
use crate::state::{State, Tolerance};
use tidegate_model::explanation::Explanation;
use tidegate_model::receipt::{InstallResult, SignedReceipt};

impl Device {
    /// The unsent receipts, the oldest first.
    pub fn waiting_receipts(&self) -> &[SignedReceipt] {
        self.recorder.pending()
    }

    /// The status of this device's receipts; `None` without a key to sign them.
    pub fn receipts(&self) -> Option<ReceiptStatus> {
        self.recorder.status()
    }

    /// Sends the queued receipts and removes the acknowledged ones. Sends nothing during the delay after a failure.
    ///
    /// # Errors
    ///
    /// [`Error::State`] without a key to sign receipts. A failure to send is not an error; see [`Sent::problem`].
    pub fn send_receipts(&mut self, sink: &mut dyn Sink, options: Sending) -> Result<Sent, Error> {
        let now = self.now();
        let none = || Error::State("this device records no receipts: configure a key to sign them".into());
        self.recorder.send(&self.store, sink, options, now).ok_or_else(none)
    }

    /// Records that a release could not be installed, for callers that drive the device themselves and stop trying.
    ///
    /// [`install`](Device::install) and [`reject`](Device::reject) record final results automatically.
    pub fn give_up(&mut self, update: &Update, why: &str) {
        self.record_result(&update.release, InstallResult::Failed, Some(why));
    }

    /// The last recording failure. A second call returns `None`.
    pub(crate) fn receipt_problem(&mut self) -> Option<String> {
        self.recorder.take_problem()
    }

    /// Records that a check decided to install this.
    pub(super) fn record_offer(&mut self, explanation: &Explanation, update: &Update) {
        let at = self.now();
        self.recorder.record_offer(&self.store, explanation, &update.release, at);
    }

    /// Records the result of a release.
    pub(super) fn record_result(&mut self, release: &Release, outcome: InstallResult, why: Option<&str>) {
        let at = self.now();
        self.recorder.record(&self.store, release, outcome, why, at);
    }

    /// Records the result of a step of the update, before the state is written.
    pub(super) fn record_step(&mut self, after: &State) {
        let (at, before) = (self.now(), self.machine().state.clone());
        self.recorder.record_step(&self.store, &before, after, at);
    }

    /// Records the result of the current state, if that could not be written earlier.
    pub(crate) fn record_expected(&mut self) {
        let (at, state) = (self.now(), self.machine().state.clone());
        self.recorder.record_expected(&self.store, &state, at);
    }

    /// Records a failed release after too many failures in a row.
    pub(crate) fn record_failure(&mut self, error: &Error, tolerance: Tolerance) {
        let (at, machine) = (self.now(), self.machine().clone());
        self.recorder.record_failure(&self.store, &machine, tolerance, error, at);
    }
}

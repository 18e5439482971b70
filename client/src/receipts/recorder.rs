//! Recording the install results of releases.

use super::sending::{Sending, Sent};
use super::sink::Sink;
use super::status::ReceiptStatus;
use crate::error::Error;
use crate::state::{Machine, State, Tolerance};
use crate::store::{DirStore, Repair};
use tidegate_model::cohort::{CohortChoice, CohortMap};
use tidegate_model::explanation::Explanation;
use tidegate_model::name::DeviceId;
use tidegate_model::receipt::{DeliveryCost, InstallResult, SignedReceipt};
use tidegate_model::release::Release;
use tidegate_model::time::UtcTime;

/// Records the install results of releases. A failure here never fails an update.
pub(crate) trait ReceiptRecorder: Send {
    /// Reads the stored receipts.
    fn open(&mut self, store: &DirStore, repairs: &mut Vec<Repair>);

    /// The status of the receipts; `None` if none are recorded.
    fn status(&self) -> Option<ReceiptStatus>;

    /// The unsent receipts, the oldest first.
    fn pending(&self) -> &[SignedReceipt];

    /// Remembers the cohort that a check found for the device.
    fn observe(&mut self, device: &DeviceId, map: &CohortMap, choice: &CohortChoice);

    /// Forgets the cohort of a hypothetical check.
    fn forget(&mut self);

    /// Records that a check decided to install a release, with what became of all offers.
    fn record_offer(&mut self, store: &DirStore, explanation: &Explanation, release: &Release, at: UtcTime);

    /// Records the result of a release.
    fn record(&mut self, store: &DirStore, release: &Release, outcome: InstallResult, why: Option<&str>, at: UtcTime);

    /// Adds to what fetching a release took.
    fn record_fetched(&mut self, store: &DirStore, release: &Release, cost: DeliveryCost);

    /// Records the result of a step of the update, before the state is saved. An interruption in between repeats the step.
    fn record_step(&mut self, store: &DirStore, before: &State, after: &State, at: UtcTime);

    /// Records the result of the current state, if a disk error prevented that earlier.
    fn record_expected(&mut self, store: &DirStore, state: &State, at: UtcTime);

    /// Records a failed release after too many failures in a row. The device still retries.
    fn record_failure(&mut self, store: &DirStore, machine: &Machine, tolerance: Tolerance, error: &Error, at: UtcTime);

    /// The last recording failure. A second call returns `None`.
    fn take_problem(&mut self) -> Option<String>;

    /// Sends the queued receipts and removes the acknowledged ones; `None` if no receipts are recorded.
    fn send(&mut self, store: &DirStore, sink: &mut dyn Sink, options: Sending, now: UtcTime) -> Option<Sent>;
}

/// Records nothing: the device has no key to sign receipts with.
pub(crate) struct NoReceipts;

impl ReceiptRecorder for NoReceipts {
    fn open(&mut self, _: &DirStore, _: &mut Vec<Repair>) {}

    fn status(&self) -> Option<ReceiptStatus> {
        None
    }

    fn pending(&self) -> &[SignedReceipt] {
        &[]
    }

    fn observe(&mut self, _: &DeviceId, _: &CohortMap, _: &CohortChoice) {}

    fn forget(&mut self) {}

    fn record_offer(&mut self, _: &DirStore, _: &Explanation, _: &Release, _: UtcTime) {}

    fn record(&mut self, _: &DirStore, _: &Release, _: InstallResult, _: Option<&str>, _: UtcTime) {}

    fn record_fetched(&mut self, _: &DirStore, _: &Release, _: DeliveryCost) {}

    fn record_step(&mut self, _: &DirStore, _: &State, _: &State, _: UtcTime) {}

    fn record_expected(&mut self, _: &DirStore, _: &State, _: UtcTime) {}

    fn record_failure(&mut self, _: &DirStore, _: &Machine, _: Tolerance, _: &Error, _: UtcTime) {}

    fn take_problem(&mut self) -> Option<String> {
        None
    }

    fn send(&mut self, _: &DirStore, _: &mut dyn Sink, _: Sending, _: UtcTime) -> Option<Sent> {
        None
    }
}

//! What records the install results of releases.

use super::sending::{Sending, Sent};
use super::sink::Sink;
use super::status::ReceiptStatus;
use crate::error::Error;
use crate::state::{Machine, State, Tolerance};
use crate::store::{DirStore, Repair};
use tidegate_model::cohort::{CohortChoice, CohortMap};
use tidegate_model::decision::Profile;
use tidegate_model::name::DeviceId;
use tidegate_model::receipt::{InstallResult, SignedReceipt};
use tidegate_model::release::Release;
use tidegate_model::time::Instant;

/// Records the install results of releases while they happen. A failure here never fails an update.
pub(crate) trait ReceiptRecorder: Send {
    /// Reads what was recorded before.
    fn open(&mut self, store: &DirStore, repairs: &mut Vec<Repair>);

    /// How the receipts stand; `None` if none are recorded.
    fn status(&self) -> Option<ReceiptStatus>;

    /// The receipts that wait to be sent, the oldest first.
    fn pending(&self) -> &[SignedReceipt];

    /// Notes the cohort that a check found for the device.
    fn observe(&mut self, device: &DeviceId, map: &CohortMap, choice: &CohortChoice);

    /// Forgets the cohort of a check that was not of the device as it is.
    fn forget(&mut self);

    /// Records that a check decided to install a release.
    fn record_offer(&mut self, store: &DirStore, profile: &Profile, release: &Release, at: Instant);

    /// Records the result of a release.
    fn record(&mut self, store: &DirStore, release: &Release, outcome: InstallResult, why: Option<&str>, at: Instant);

    /// Records what a step of the update means, before the state is written: a stop in between repeats the step.
    fn record_step(&mut self, store: &DirStore, before: &State, after: &State, at: Instant);

    /// Records what follows from the present state and could not be written, for a fault of the disk, when it came about.
    fn record_expected(&mut self, store: &DirStore, state: &State, at: Instant);

    /// Records that work on a release failed, once that has happened as often in a row as is tolerated. The work is tried again all the same.
    fn record_failure(&mut self, store: &DirStore, machine: &Machine, tolerance: Tolerance, error: &Error, at: Instant);

    /// What could not be recorded, once.
    fn take_problem(&mut self) -> Option<String>;

    /// Sends what waits, and forgets what was acknowledged; `None` if no receipts are recorded.
    fn send(&mut self, store: &DirStore, sink: &mut dyn Sink, options: Sending, now: Instant) -> Option<Sent>;
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

    fn record_offer(&mut self, _: &DirStore, _: &Profile, _: &Release, _: Instant) {}

    fn record(&mut self, _: &DirStore, _: &Release, _: InstallResult, _: Option<&str>, _: Instant) {}

    fn record_step(&mut self, _: &DirStore, _: &State, _: &State, _: Instant) {}

    fn record_expected(&mut self, _: &DirStore, _: &State, _: Instant) {}

    fn record_failure(&mut self, _: &DirStore, _: &Machine, _: Tolerance, _: &Error, _: Instant) {}

    fn take_problem(&mut self) -> Option<String> {
        None
    }

    fn send(&mut self, _: &DirStore, _: &mut dyn Sink, _: Sending, _: Instant) -> Option<Sent> {
        None
    }
}

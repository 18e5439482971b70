//! Records the install results of releases, as signed receipts, while they happen. A failure here never fails an update.

use super::{Ledger, ReceiptStatus, Receipts};
use crate::store::{DirStore, Kept, Repair};
use tidegate_model::gate::GateUrl;
use tidegate_model::name::{DeviceId, Name};

/// The state file.
const NAME: &str = "receipts.json";

/// What tells.
pub(crate) struct ReceiptRecorder {
    pub(crate) settings: Receipts,
    /// None if what was told before cannot be read: nothing is told then, and the device goes on.
    pub(crate) kept: Option<Kept<Ledger>>,
    /// What the last check found of the device itself.
    pub(crate) seen: Option<Seen>,
    /// What could not be told or written down.
    pub(crate) problem: Option<String>,
}

/// Where a device stands in its channel.
pub(crate) struct Seen {
    pub(crate) cohort: Name,
    pub(crate) hash: DeviceId,
    pub(crate) gate: Option<GateUrl>,
}

impl ReceiptRecorder {
    /// Reads what was told before.
    pub(crate) fn open(settings: Receipts, store: &DirStore, repairs: &mut Vec<Repair>) -> Self {
        let (kept, problem) = match Kept::<Ledger>::load(store, NAME, repairs) {
            Ok(mut kept) => {
                let ledger = kept.value().cloned();
                if let Some(mut ledger) = ledger
                    && ledger.sign_again(&settings.key)
                {
                    kept.set(ledger);
                }
                (Some(kept), None)
            }
            Err(e) => (None, Some(format!("no receipts are kept: {e}"))),
        };
        Self { settings, kept, seen: None, problem }
    }

    pub(crate) fn ledger(&self) -> Option<&Ledger> {
        self.kept.as_ref().and_then(Kept::value)
    }

    /// Has a change of the ledger written down. If that fails it is kept in memory and written with the next.
    pub(crate) fn change(
        &mut self,
        store: &DirStore,
        change: impl FnOnce(&mut Ledger, &Receipts, Option<&Seen>) -> Result<bool, String>,
    ) {
        let mut ledger = self.ledger().cloned().unwrap_or_default();
        let Some(kept) = &mut self.kept else { return };
        self.problem = match change(&mut ledger, &self.settings, self.seen.as_ref()) {
            Ok(false) => return,
            Ok(true) => match kept.save(store, ledger.clone()) {
                Ok(()) => None,
                Err(e) => {
                    kept.set(ledger);
                    Some(format!("a receipt cannot be written down: {e}"))
                }
            },
            Err(why) => Some(format!("a receipt cannot be made: {why}")),
        };
    }

    pub(crate) fn status(&self) -> ReceiptStatus {
        let mut status = self.ledger().map_or_else(|| Ledger::default().status(), Ledger::status);
        status.problem = self.problem.clone().or(status.problem);
        status
    }
}

//! What a device tells of releases, as it happens. Nothing here makes an update fail.

use super::state::Kept;
use super::{Device, Release, Update};
use crate::error::Error;
use crate::machine::{State, Tolerance};
use crate::model::cohort::{CohortChoice, CohortMap};
use crate::model::gate::GateUrl;
use crate::model::name::{DeviceId, Name};
use crate::model::receipt::{Outcome, SignedReceipt};
use crate::model::time::Instant;
use crate::receipts::{
    Context, Destination, Ledger, Naming, ReceiptStatus, Receipts, Sending, Sent, Sink, drain, is_failure, outcome_of,
    owed,
};
use crate::store::DirStore;
use crate::updater::Repair;

/// The state file.
const NAME: &str = "receipts.json";

/// What tells.
pub(super) struct Teller {
    settings: Receipts,
    /// None if what was told before cannot be read: nothing is told then, and the device goes on.
    kept: Option<Kept<Ledger>>,
    /// What the last check found of the device itself.
    seen: Option<Seen>,
    /// What could not be told or written down.
    problem: Option<String>,
}

/// Where a device stands in its channel.
struct Seen {
    cohort: Name,
    hash: DeviceId,
    gate: Option<GateUrl>,
}

impl Teller {
    /// Reads what was told before.
    pub(super) fn open(settings: Receipts, store: &DirStore, repairs: &mut Vec<Repair>) -> Self {
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

    fn ledger(&self) -> Option<&Ledger> {
        self.kept.as_ref().and_then(Kept::value)
    }

    /// Has a change of the ledger written down. If that fails it is kept in memory and written with the next.
    fn change(
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

    fn status(&self) -> ReceiptStatus {
        let mut status = self.ledger().map_or_else(|| Ledger::default().status(), Ledger::status);
        status.problem = self.problem.clone().or(status.problem);
        status
    }
}

impl Device {
    /// The receipts that wait to be sent, the oldest first.
    pub fn waiting_receipts(&self) -> &[SignedReceipt] {
        self.teller.as_ref().and_then(Teller::ledger).map_or(&[], Ledger::waiting)
    }

    /// How this device's receipts stand; `None` if it was given no key to sign them with.
    pub fn receipts(&self) -> Option<ReceiptStatus> {
        self.teller.as_ref().map(Teller::status)
    }

    /// Sends what waits, unless a failure asked for patience, and forgets what was acknowledged.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the device was given no key to sign receipts with. That they cannot be sent now is no error: [`Sent::problem`].
    pub fn send_receipts(&mut self, sink: &mut dyn Sink, options: Sending) -> Result<Sent, Error> {
        let now = self.now();
        let none = || Error::State("this device keeps no receipts: give it a key for them".into());
        let teller = self.teller.as_mut().ok_or_else(none)?;
        let problem = teller.problem.clone();
        let Some(kept) = &mut teller.kept else { return Ok(Sent { problem, ..Sent::default() }) };
        let mut ledger = kept.value().cloned().unwrap_or_default();
        let gate = teller.seen.as_ref().map_or_else(|| ledger.gate.clone(), |seen| seen.gate.clone());
        let store = &self.store;
        let mut save = |ledger: &Ledger| kept.save(store, ledger.clone());
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
        self.teller.as_mut()?.problem.take()
    }

    /// Forgets what was seen of the device as it might be, and not as it is.
    pub(super) fn unsee(&mut self) {
        if let Some(teller) = &mut self.teller {
            teller.seen = None;
        }
    }

    /// Takes note of where this device stands.
    pub(super) fn see(&mut self, map: &CohortMap, choice: &CohortChoice) {
        let Some(teller) = &mut self.teller else { return };
        let protected = map.cohort(&choice.cohort).and_then(|cohort| cohort.protected.as_ref());
        let hash = map.salt().device_hash(&self.profile.id).to_string().parse();
        teller.seen = hash.ok().map(|hash| Seen {
            cohort: choice.cohort.clone(),
            hash,
            gate: protected.map(|protected| protected.gate.clone()),
        });
    }

    /// Tells that a check decided to install this.
    pub(super) fn tell_offer(&mut self, update: &Update) {
        let (at, profile) = (self.now(), &self.profile);
        let Some(teller) = &mut self.teller else { return };
        teller.change(&self.store, |ledger, settings, seen| {
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
        let Some(teller) = &mut self.teller else { return };
        teller.change(&self.store, |ledger, settings, _| ledger.tell(release, outcome, why, at, &settings.key));
    }

    /// Tells what a step of the update means, before it is written down: a stop in between repeats the step.
    pub(super) fn tell_step(&mut self, after: &State) {
        if self.teller.is_none() {
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
        let Some(teller) = &self.teller else { return };
        let state = self.machine().state.clone();
        let Some(release) = state.release() else { return };
        let last = teller.ledger().and_then(|ledger| ledger.last(release));
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

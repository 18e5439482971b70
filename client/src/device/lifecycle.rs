//! What happens to a release on the device: installed, on trial, confirmed, or rejected.
//!
//! [`Device::install`], [`Device::confirm`] and [`Device::reject`] are for callers that supervise a trial themselves. The
//! [`Agent`](crate::agent::Agent) uses the smaller steps below. Each of them can be repeated after an interruption.

use tracing::trace;

use super::state::{InstallState, Record};
use super::{Device, Downloaded, Status, Update, builder};
use crate::error::Error;
use crate::install::{Installer, Place};
use crate::policy::{Deferral, Judgement, Step};
use crate::state::{Event, Machine, Tolerance};
use crate::store::Kept;
use tidegate_model::decision::Quarantined;
use tidegate_model::receipt::InstallResult;
use tidegate_model::release::Release;
use tidegate_model::time::Instant;

const DEFERRAL: &str = "deferral.json";

impl Device {
    /// Installs the downloaded release, records it, and removes the download.
    ///
    /// After an interruption between the installation and the record, the next check installs the same release again, which
    /// is safe. First the device refreshes and decides again: a release may be withdrawn, or its role may expire, during a download.
    ///
    /// # Errors
    ///
    /// [`Error::Outdated`] if the decision is another now, [`Error::State`] if this release or a later one is installed, [`Error::Setting`] without an installer, [`Error::Install`] if the
    /// installer fails, [`Error::Store`] if the result cannot be stored.
    pub fn install(&mut self, downloaded: &Downloaded) -> Result<Record, Error> {
        let release = downloaded.update.release.clone();
        if release.sequence <= self.profile.installed.sequence {
            return Err(Error::State(format!(
                "{} (sequence {}) or a later release is already installed",
                release.version, release.sequence
            )));
        }
        self.decide_again(&downloaded.update)?;
        let put = self.put(downloaded);
        match &put {
            Ok(()) => self.record_result(&release, InstallResult::Installed, None),
            Err(Error::Install(e)) if e.is_final() => {
                self.record_result(&release, InstallResult::Failed, Some(&e.to_string()));
            }
            Err(_) => {}
        }
        put?;
        self.note_new(&release, InstallState::Installed)?;
        self.remove_downloads();
        self.installed()
    }

    /// Records that the installed release works. Writes nothing if it is already confirmed.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if nothing is installed, [`Error::Store`] if the confirmation cannot be stored.
    pub fn confirm(&mut self) -> Result<Record, Error> {
        let record = self.installed()?;
        if record.state != InstallState::Confirmed {
            self.record_result(&record.release, InstallResult::Confirmed, None);
            self.note(Record { state: InstallState::Confirmed, ..record })?;
        }
        self.installed()
    }

    /// Records that the installed release failed and the previous one runs again. The device never retries the failed release.
    ///
    /// The caller must make the previous release run, for example through the boot loader.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if nothing is installed, [`Error::Store`] if the rejection cannot be stored.
    pub fn reject(&mut self) -> Result<Status, Error> {
        let record = self.installed()?;
        self.record_result(&record.release, InstallResult::RolledBack, Some("it was rejected"));
        self.forget(&record.release)?;
        Ok(self.status())
    }

    /// The state of the update.
    pub fn machine(&self) -> &Machine {
        static NEW: Machine = Machine { state: crate::state::State::Idle, failures: 0, begun: None };
        self.machine.value().unwrap_or(&NEW)
    }

    /// The device's time: that of its clock, or signed time if the clock is not plausible (see [`clock`](crate::clock)).
    pub fn now(&self) -> Instant {
        self.updater.now()
    }

    /// The user's deferral. It is read each time, because the user may change it while this process runs.
    pub(super) fn deferral(&self) -> Option<Deferral> {
        Kept::load(&self.store, DEFERRAL, &mut Vec::new()).ok()?.value().copied()
    }

    pub(super) fn defer(self, until: Instant) -> Result<Deferral, Error> {
        let nothing = || Error::State("no release is waiting to be installed: there is nothing to defer".into());
        let sequence = self.machine().state.pending().ok_or_else(nothing)?.sequence;
        let mut kept = Kept::<Deferral>::load(&self.store, DEFERRAL, &mut Vec::new())?;
        let before = kept.value().filter(|deferral| deferral.sequence == sequence);
        let since = before.map_or(self.now(), |deferral| deferral.since);
        let deferral = Deferral { sequence, since, until };
        kept.save(&self.store, deferral)?;
        Ok(deferral)
    }

    /// The state after `event`, saved if it is durable.
    pub(crate) fn advance(&mut self, event: Event, tolerance: Tolerance) -> Result<(), Error> {
        let next = self.machine().next(event, tolerance)?;
        trace!(before = self.machine().state.name(), after = next.state.name(), "advances the update");
        self.record_step(&next.state);
        if !next.state.is_durable() || self.machine.stored().unwrap_or(&Machine::default()) == &next {
            self.machine.set(next);
            return Ok(());
        }
        Ok(self.machine.save(&self.store, next)?)
    }

    /// How the policy judges a step of an update now.
    pub(crate) fn judge_now(&self, step: Step, update: &Update) -> Judgement {
        self.judge(step, update, &self.profile, self.now())
    }

    /// What runs now, as the installer names it.
    pub(crate) fn running(&mut self) -> Result<Option<Place>, Error> {
        Ok(self.installer()?.running()?)
    }

    /// Runs the installer. Records nothing.
    pub(crate) fn put(&mut self, downloaded: &Downloaded) -> Result<(), Error> {
        let version = &downloaded.update.release.version;
        Ok(self.installer()?.install(version, &downloaded.artifacts)?)
    }

    /// Records that a release runs on trial, and removes its download.
    pub(crate) fn begin_trial(&mut self, release: &Release) -> Result<(), Error> {
        self.note_new(release, InstallState::Trial)?;
        self.remove_downloads();
        Ok(())
    }

    /// Confirms the running release and records it.
    pub(crate) fn settle(&mut self, release: &Release) -> Result<(), Error> {
        self.installer()?.confirm()?;
        self.note_new(release, InstallState::Confirmed)
    }

    /// Makes the installer restore what ran before.
    pub(crate) fn go_back(&mut self, before: &Place) -> Result<(), Error> {
        Ok(self.installer()?.revert(before)?)
    }

    /// Records that a release failed here, and that the previous one is the installed release again.
    pub(crate) fn forget(&mut self, release: &Release) -> Result<(), Error> {
        let failed = Quarantined { sequence: release.sequence, sha256: release.sha256 };
        if !self.quarantined().contains(&failed) {
            let mut quarantine = self.quarantine.value().cloned().unwrap_or_default();
            quarantine.add(failed);
            // First, so that an interruption cannot make the device retry.
            self.quarantine.save(&self.store, quarantine)?;
        }
        self.remove_downloads();
        self.take_back(release)
    }

    /// Records that the previous release is the installed release again.
    pub(crate) fn take_back(&mut self, release: &Release) -> Result<(), Error> {
        let Some(record) = self.record.value().filter(|record| record.release == *release).cloned() else {
            return Ok(());
        };
        if let Some(release) = record.previous.clone() {
            self.note(Record { release, state: InstallState::Confirmed, previous: None, ..record })
        } else {
            self.record.remove(&self.store)?;
            self.profile.installed = self.factory.clone();
            Ok(())
        }
    }

    /// Records that a release is installed and what it replaces, unless that is already recorded.
    fn note_new(&mut self, release: &Release, state: InstallState) -> Result<(), Error> {
        let noted = self.record.value().filter(|record| record.release == *release);
        if noted.is_some_and(|record| record.state == state) {
            return Ok(());
        }
        let previous = match noted {
            Some(record) => record.previous.clone(),
            None => self.record.value().map(|record| record.release.clone()),
        };
        self.note(Record {
            product: self.profile.product.clone(),
            channel: self.profile.channel.clone(),
            release: release.clone(),
            state,
            previous,
        })
    }

    fn note(&mut self, record: Record) -> Result<(), Error> {
        self.record.save(&self.store, record)?;
        self.profile.installed = builder::running(self.record.value(), &self.profile, &self.factory);
        Ok(())
    }

    fn installed(&self) -> Result<Record, Error> {
        let nothing = || Error::State("nothing is installed on this device yet".into());
        self.record.value().cloned().ok_or_else(nothing)
    }

    fn installer(&mut self) -> Result<&mut (dyn Installer + Send + 'static), Error> {
        let none = || Error::Setting("no installer is set: give the device one, such as a slot".into());
        self.installer.as_deref_mut().ok_or_else(none)
    }
}

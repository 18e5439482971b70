//! What happens to a release on the device: installed, on trial, confirmed, or rejected.
//!
//! [`Device::install`], [`Device::confirm`] and [`Device::reject`] are for callers that watch over a trial themselves. The
//! [`Agent`](crate::agent::Agent) takes the smaller steps below them, each of which may be repeated after a stop.

use tracing::trace;

use super::state::{InstallState, Record};
use super::{Device, Downloaded, Status, Update, builder};
use crate::error::Error;
use crate::install::{Installer, Place};
use crate::policy::{Deferral, Judgement, Step};
use crate::state::{Event, Machine, Tolerance};
use crate::store::Kept;
use tidegate_model::decision::Quarantined;
use tidegate_model::receipt::Outcome;
use tidegate_model::release::Release;
use tidegate_model::time::Instant;
use tidegate_tuf::TrustedSet;

const DEFERRAL: &str = "deferral.json";

impl Device {
    /// Installs what was downloaded, notes it, and removes the download.
    ///
    /// If this is cut short between the installation and the note, the next check decides to install the same again, which
    /// does no harm.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if this release or a later one is installed, [`Error::Setting`] without an installer, [`Error::Install`] if the
    /// installer fails, [`Error::Store`] if the result cannot be stored.
    pub fn install(&mut self, downloaded: &Downloaded) -> Result<Record, Error> {
        let release = downloaded.update.release.clone();
        if release.sequence <= self.profile.installed.sequence {
            return Err(Error::State(format!(
                "{} (sequence {}) is installed already, or one after it",
                release.version, release.sequence
            )));
        }
        let put = self.put(downloaded);
        match &put {
            Ok(()) => self.record_result(&release, Outcome::Installed, None),
            Err(Error::Install(e)) if e.is_final() => {
                self.record_result(&release, Outcome::Failed, Some(&e.to_string()));
            }
            Err(_) => {}
        }
        put?;
        self.note_new(&release, InstallState::Installed)?;
        self.remove_downloads();
        self.installed()
    }

    /// Notes that the installed release works. Nothing is written if that is noted already.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if nothing is installed, [`Error::Store`] if the confirmation cannot be stored.
    pub fn confirm(&mut self) -> Result<Record, Error> {
        let record = self.installed()?;
        if record.state != InstallState::Confirmed {
            self.record_result(&record.release, Outcome::Confirmed, None);
            self.note(Record { state: InstallState::Confirmed, ..record })?;
        }
        self.installed()
    }

    /// Notes that the installed release does not work and the one before it runs again. It is never tried again.
    ///
    /// What makes the one before it run is the caller's: a boot loader, or another slot.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if nothing is installed, [`Error::Store`] if the rejection cannot be stored.
    pub fn reject(&mut self) -> Result<Status, Error> {
        let record = self.installed()?;
        self.record_result(&record.release, Outcome::RolledBack, Some("it was rejected"));
        self.forget(&record.release)?;
        Ok(self.status())
    }

    /// Where the update stands.
    pub fn machine(&self) -> &Machine {
        static NEW: Machine = Machine { state: crate::state::State::Idle, failures: 0, begun: None };
        self.machine.value().unwrap_or(&NEW)
    }

    /// The device's time: that of its clock, but not before what is trusted was signed.
    pub fn now(&self) -> Instant {
        let clock = self.updater.now();
        self.updater.trusted().map_or(clock, |trusted: &TrustedSet| trusted.now().max(clock))
    }

    /// What the user asked for. It is read anew each time, since the user may ask while this process works.
    pub(super) fn deferral(&self) -> Option<Deferral> {
        Kept::load(&self.store, DEFERRAL, &mut Vec::new()).ok()?.value().copied()
    }

    pub(super) fn defer(self, until: Instant) -> Result<Deferral, Error> {
        let nothing = || Error::State("no release is waiting to be installed: there is nothing to put off".into());
        let sequence = self.machine().state.pending().ok_or_else(nothing)?.sequence;
        let mut kept = Kept::<Deferral>::load(&self.store, DEFERRAL, &mut Vec::new())?;
        let before = kept.value().filter(|deferral| deferral.sequence == sequence);
        let since = before.map_or(self.now(), |deferral| deferral.since);
        let deferral = Deferral { sequence, since, until };
        kept.save(&self.store, deferral)?;
        Ok(deferral)
    }

    /// The state after `event`, written down if it must be.
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

    /// What the policy says to a step of an update now.
    pub(crate) fn judge_now(&self, step: Step, update: &Update) -> Judgement {
        self.judge(step, update, &self.profile, self.now())
    }

    /// What runs now, as the installer names it.
    pub(crate) fn running(&mut self) -> Result<Option<Place>, Error> {
        Ok(self.installer()?.running()?)
    }

    /// Has the installer install, and notes nothing.
    pub(crate) fn put(&mut self, downloaded: &Downloaded) -> Result<(), Error> {
        let version = &downloaded.update.release.version;
        Ok(self.installer()?.install(version, &downloaded.artifacts)?)
    }

    /// Notes that a release runs, on trial. Its download is of no use any more.
    pub(crate) fn begin_trial(&mut self, release: &Release) -> Result<(), Error> {
        self.note_new(release, InstallState::Trial)?;
        self.remove_downloads();
        Ok(())
    }

    /// Makes the release that runs stay, and notes it.
    pub(crate) fn settle(&mut self, release: &Release) -> Result<(), Error> {
        self.installer()?.confirm()?;
        self.note_new(release, InstallState::Confirmed)
    }

    /// Has the installer go back to what ran before.
    pub(crate) fn go_back(&mut self, before: &Place) -> Result<(), Error> {
        Ok(self.installer()?.revert(before)?)
    }

    /// Notes that a release failed here, and that what was before it counts as installed again.
    pub(crate) fn forget(&mut self, release: &Release) -> Result<(), Error> {
        let failed = Quarantined { sequence: release.sequence, sha256: release.sha256 };
        if !self.quarantined().contains(&failed) {
            let mut quarantine = self.quarantine.value().cloned().unwrap_or_default();
            quarantine.add(failed);
            // First, so that a stop in between cannot make the device try again.
            self.quarantine.save(&self.store, quarantine)?;
        }
        self.remove_downloads();
        self.take_back(release)
    }

    /// Notes that what was before a release counts as installed again.
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

    /// Notes that a release is installed, with what it replaces, unless that is noted already.
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
        let nothing = || Error::State("nothing was installed on this device yet".into());
        self.record.value().cloned().ok_or_else(nothing)
    }

    fn installer(&mut self) -> Result<&mut (dyn Installer + Send + 'static), Error> {
        let none = || Error::Setting("no installer is set: give the device one, such as a slot".into());
        self.installer.as_deref_mut().ok_or_else(none)
    }
}

//! A device that its caller drives step by step: the same states, in the same order, as an agent goes through.

use std::ops::ControlFlow;

use super::{Agent, AgentOptions, Entry, Health, Host, Next};
use crate::clock::BootInfo;
use crate::device::{Check, Device, Downloaded, Record};
use crate::error::Error;
use crate::retry::Retry;
use crate::state::{Attempt, Event, State, Tolerance};
use crate::watch::{Progress, unwatched};

/// The caller, as the host of an agent.
struct Caller<'a> {
    boot: BootInfo,
    progress: &'a mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
}

impl Host for Caller<'_> {
    fn boot(&self) -> BootInfo {
        self.boot.clone()
    }

    fn note(&mut self, _: &Entry<'_>) {}

    fn progress(&mut self, progress: Progress<'_>) -> ControlFlow<()> {
        (self.progress)(progress)
    }
}

impl Device {
    fn by_hand<T>(
        &mut self,
        progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
        act: impl FnOnce(&mut Agent<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let options = AgentOptions {
            tolerance: Tolerance::default(),
            health: Health::ByHand,
            restart: None,
            retry: Retry::NEVER,
            ignores_policy: true,
        };
        let mut caller = Caller { boot: self.boot(), progress };
        act(&mut Agent::new(self, &options, &mut caller))
    }

    /// Finds out what runs, checks the repository for the release that this device should run, and decides. Installs nothing.
    ///
    /// What the installer says is running counts: after a boot loader went back to the old system, the release is offered again, a limited
    /// number of times. While a release is on trial, or waits for a restart, it is no update, and a remark says what to do.
    ///
    /// # Errors
    ///
    /// If the repository cannot be reached or fails verification. It is not an error if it has nothing for this device.
    pub fn check(&mut self) -> Result<Check, Error> {
        if self.is_view() {
            self.compare()?;
        } else {
            self.by_hand(&mut unwatched, |agent| agent.resume())?;
        }
        let mut check = self.check_compared()?;
        let state = &self.machine().state;
        if state
            .unsettled()
            .is_some_and(|attempt| check.update.as_ref().is_some_and(|it| it.release == attempt.release))
        {
            check.update = None;
        }
        check.remarks.extend(unsettled(state));
        Ok(check)
    }

    /// Installs the downloaded release. It runs after a restart ([`Next::Restart`]), or from now on ([`Next::Look`]), on trial until
    /// [`confirm`](Self::confirm) or [`reject`](Self::reject).
    ///
    /// After an interruption the next check offers the same release again, which is safe to install again; after three interruptions it is
    /// quarantined. First the device refreshes and decides again: a release may be withdrawn, or its role may expire, during a download.
    ///
    /// # Errors
    ///
    /// [`Error::Outdated`] if the decision is another now, [`Error::State`] if this release or a later one is installed or another is on
    /// trial, [`Error::Setting`] without an installer, [`Error::Install`] if the installer fails, [`Error::Store`] if the result cannot be
    /// stored.
    pub fn install(
        &mut self,
        downloaded: &Downloaded,
        progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Next, Error> {
        self.by_hand(progress, |agent| {
            agent.resume()?;
            let state = &agent.device.machine().state;
            if let Some(why) = unsettled(state) {
                return Err(Error::State(why));
            }
            let release = downloaded.update().release.clone();
            agent.device.must_be_newer(&release)?;
            agent.device.decide_again(downloaded.update())?;
            agent.advance(Event::Poll)?;
            let before = agent.device.ready()?;
            agent.advance(Event::Offered { attempt: Attempt { release: release.clone(), before } })?;
            if let State::Quarantined { why, .. } = agent.device.machine().state.clone() {
                agent.settle()?;
                return Err(Error::State(format!("{} is not installed: {why}", release.version)));
            }
            agent.advance(Event::Downloaded)?;
            let next = agent.install(downloaded);
            match agent.device.machine().state.clone() {
                State::Quarantined { why, .. } => Err(Error::Install(crate::install::InstallError::Rejected(why))),
                _ => next,
            }
        })
    }

    /// Makes the running release permanent: tells the installer, and records it. Writes nothing if it is already confirmed.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if nothing is installed, it does not run yet, or something else runs; [`Error::Setting`] without the installer that
    /// installed it; [`Error::Install`] if the installer fails; [`Error::Store`] if the confirmation cannot be stored.
    pub fn confirm(&mut self) -> Result<Record, Error> {
        self.by_hand(&mut unwatched, |agent| agent.confirm())?;
        self.installed()
    }

    /// Makes the previous release run again, now or after a restart ([`Next::Restart`]): records that the release on trial failed, and tells
    /// the installer. The device never retries the failed release.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if no release is on trial, [`Error::Setting`] without the installer that installed it, [`Error::Install`] if the
    /// installer fails, [`Error::Store`] if the rejection cannot be stored.
    pub fn reject(&mut self) -> Result<Next, Error> {
        self.by_hand(&mut unwatched, |agent| agent.reject())
    }
}

/// What an update waits for that is neither confirmed nor taken back.
pub(super) fn unsettled(state: &State) -> Option<String> {
    Some(match state {
        State::Rebooting { attempt, .. } => {
            let Attempt { release, .. } = attempt;
            format!("{} (sequence {}) is installed, and runs after a restart", release.version, release.sequence)
        }
        // Without a place before, nothing but the record waits.
        State::Trial { attempt: Attempt { release, before: Some(_) }, .. } => {
            format!("{} (sequence {}) runs on trial: confirm or reject it", release.version, release.sequence)
        }
        State::RolledBack { attempt: Attempt { release, .. }, why, .. } => {
            format!(
                "{} (sequence {}) failed ({why}): restart into the release before",
                release.version, release.sequence
            )
        }
        _ => return None,
    })
}

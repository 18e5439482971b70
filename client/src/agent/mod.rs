//! Drives an update from the first check to its confirmation, or back.
//!
//! ```text
//! loop {                                        Next::Check   at the next regular check, or at an instant if that is sooner
//!     let next = agent.check() or .resume();    Next::Look    in a while: a trial is on
//!     sleep as next says                        Next::Restart the device is to restart
//! }
//! ```
//!
//! Every call starts by looking at what a stop, a restart or a boot loader may have done since the last one
//! ([`Event::Started`]). Every state is written down before the work that it stands for begins; all work can be repeated. So a call
//! that is cut short anywhere is made up for by the next.

mod host;
mod schedule;

use std::time::Duration;

use chrono::TimeDelta;
use serde::Serialize;

pub use host::{BootInfo, Entry, Host, StubHost, SystemHost};
pub use schedule::Schedule;

use crate::command::Command;
use crate::device::{Check, Device, Downloaded, Release, Update};
use crate::error::Error;
use crate::policy::{Judgement, Step};
use crate::retry::{Retry, jitter};
use crate::state::{Attempt, Event, State, Tolerance};
use tidegate_model::decision::Outcome;
use tidegate_model::time::Instant;

/// How an update is driven.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// How much is tolerated of a release.
    pub tolerance: Tolerance,
    /// What tells whether a release on trial is well.
    pub health: Health,
    /// What restarts the device, or the programs that a release consists of. Without it, someone else does.
    pub restart: Option<Command>,
    /// How long to wait after failures.
    pub retry: Retry,
    /// Whether the device's policy is passed over, because the user says so.
    pub ignores_policy: bool,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            tolerance: Tolerance::default(),
            health: Health::Runs,
            restart: None,
            retry: Retry::CHECKS,
            ignores_policy: false,
        }
    }
}

/// What tells whether a release on trial is well.
#[derive(Debug, Clone)]
pub enum Health {
    /// It is as soon as this program runs in it.
    Runs,
    /// Someone says so: [`Agent::confirm`] or [`Agent::reject`].
    ByHand,
    /// A program does.
    Command(HealthCommand),
}

/// A program that tells whether a release on trial is well.
#[derive(Debug, Clone)]
pub struct HealthCommand {
    /// Ends with exit code 0 if all is well.
    pub command: Command,
    /// How long after the start of the trial it must have been so.
    pub within: Duration,
    /// How long to wait before asking again.
    pub every: Duration,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Next {
    /// To check again at the next regular time, or at this instant if that is sooner.
    Check {
        /// The instant.
        #[serde(with = "tidegate_model::time::optional_text")]
        until: Option<Instant>,
    },
    /// To look after the trial again in a while.
    Look {
        /// How long that is.
        #[serde(skip)]
        after: Duration,
    },
    /// To restart, if that does not happen by itself, and then to look again.
    Restart,
}

/// A device with what drives it.
pub struct Agent<'a> {
    device: &'a mut Device,
    options: &'a AgentOptions,
    host: &'a mut dyn Host,
}

impl<'a> Agent<'a> {
    /// An agent for this device.
    pub fn new(device: &'a mut Device, options: &'a AgentOptions, host: &'a mut dyn Host) -> Self {
        Self { device, options, host }
    }

    /// Goes on with an update that was begun, and asks the repository for nothing.
    ///
    /// # Errors
    ///
    /// [`Error`] if the installer does not report what runs, or the device's state cannot be stored.
    pub fn resume(&mut self) -> Result<Next, Error> {
        self.started()?;
        self.settle()
    }

    /// Goes on with an update that was begun. If none is on trial, checks for one and takes it as far as it gets now.
    ///
    /// # Errors
    ///
    /// What went wrong, after it was written down when to try again.
    pub fn check(&mut self) -> Result<Next, Error> {
        let was_unsettled = self.device.machine().state.is_unsettled();
        let next = self.resume()?;
        if was_unsettled || self.device.machine().state.is_unsettled() {
            return Ok(next);
        }
        self.advance(Event::Poll)?;
        let check = self.device.check();
        let check = self.or_fail(check)?;
        self.host.note(&Entry::Checked(&check));
        match &check.update {
            Some(update) => self.take(update),
            None => self.nothing(check),
        }
    }

    /// Says that the release on trial is well, whatever the health command says.
    ///
    /// # Errors
    ///
    /// As for [`Device::confirm`], and [`Error::State`] if the new release does not run yet.
    pub fn confirm(&mut self) -> Result<(), Error> {
        self.started()?;
        match self.device.machine().state.clone() {
            State::Trial { attempt, .. } => self.healthy(&attempt),
            State::Rebooting { attempt, .. } => Err(Error::State(format!(
                "{} (sequence {}) does not run yet: restart first",
                attempt.release.version, attempt.release.sequence
            ))),
            _ => self.device.confirm().map(drop),
        }
    }

    /// Says that the release on trial, or about to be, is not well: the device goes back to what it ran before.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if no release is on trial; otherwise as for [`resume`](Self::resume).
    pub fn reject(&mut self) -> Result<Next, Error> {
        self.started()?;
        if !matches!(self.device.machine().state, State::Trial { .. } | State::Rebooting { .. }) {
            return Err(Error::State("no release is on trial: there is nothing to go back from".into()));
        }
        self.advance(Event::Unhealthy { why: "it was rejected by hand".into() })?;
        self.settle()
    }

    fn nothing(&mut self, check: Check) -> Result<Next, Error> {
        let until = check.explanation.decision.changes;
        let event = match check.explanation.decision.outcome {
            Outcome::Wait { until, why, .. } => Event::Hold { until, why, release: None },
            _ => Event::Nothing,
        };
        self.advance(event)?;
        Ok(Next::Check { until })
    }

    /// Takes an update as far as it gets now.
    fn take(&mut self, update: &Update) -> Result<Next, Error> {
        if let Some(next) = self.held_back(Step::Download, update)? {
            return Ok(next);
        }
        let before = self.device.running();
        let before = self.or_fail(before)?;
        self.advance(Event::Offered { attempt: Attempt { release: update.release.clone(), before } })?;
        if !matches!(self.device.machine().state, State::Downloading { .. }) {
            return self.settle();
        }
        let host = &mut *self.host;
        let downloaded = self.device.download(update, &mut |name, progress| host.progress(name, progress));
        if let Err(Error::Fetch(e @ crate::fetch::FetchError::Denied { .. })) = &downloaded {
            // Who is let in where may change at any time: that is no failure.
            self.advance(Event::Hold { until: None, why: e.to_string(), release: None })?;
            return Ok(Next::Check { until: None });
        }
        let downloaded = self.or_fail(downloaded)?;
        self.advance(Event::Downloaded)?;
        let verified = self.device.verify(&downloaded);
        self.or_fail(verified)?;
        if let Some(next) = self.held_back(Step::Install, update)? {
            return Ok(next);
        }
        self.install(&downloaded)
    }

    fn install(&mut self, downloaded: &Downloaded) -> Result<Next, Error> {
        let boot = self.host.boot().id;
        self.advance(Event::Verified { boot: boot.clone() })?;
        match self.device.put(downloaded) {
            Ok(()) => self.advance(Event::Installed { boot })?,
            Err(Error::Install(e)) if e.is_final() => self.advance(Event::Rejected { why: e.to_string() })?,
            Err(e) => return self.or_fail(Err(e)),
        }
        self.settle()
    }

    /// Brings what is in place and not settled to an end, as far as that is possible now.
    fn settle(&mut self) -> Result<Next, Error> {
        loop {
            match self.device.machine().state.clone() {
                State::Rebooting { boot, .. } => {
                    if boot == self.host.boot().id {
                        self.restart()?;
                    }
                    self.started()?;
                    if matches!(self.device.machine().state, State::Rebooting { .. }) {
                        return Ok(Next::Restart);
                    }
                }
                State::Trial { attempt, since, .. } => {
                    self.device.begin_trial(&attempt.release)?;
                    match self.health(since) {
                        Verdict::Well => {
                            self.healthy(&attempt)?;
                            // It may have been a bridge.
                            return Ok(Next::Check { until: Some(self.device.now()) });
                        }
                        Verdict::NotYet { after } => return Ok(Next::Look { after }),
                        Verdict::Unwell { why } => self.advance(Event::Unhealthy { why })?,
                    }
                }
                State::RolledBack { attempt, boot, again, .. } => {
                    if again {
                        self.device.take_back(&attempt.release)?;
                    } else {
                        self.device.forget(&attempt.release)?;
                    }
                    if !self.went_back(&attempt, &boot)? {
                        return Ok(Next::Restart);
                    }
                    self.advance(Event::Returned)?;
                }
                State::Quarantined { release, .. } => {
                    self.device.forget(&release)?;
                    return Ok(Next::Check { until: None });
                }
                State::Waiting { until, .. } => return Ok(Next::Check { until }),
                _ => return Ok(Next::Check { until: None }),
            }
        }
    }

    fn healthy(&mut self, attempt: &Attempt) -> Result<(), Error> {
        self.device.settle(&attempt.release)?;
        self.advance(Event::Healthy)
    }

    fn health(&mut self, since: u64) -> Verdict {
        let health = match &self.options.health {
            Health::Runs => return Verdict::Well,
            Health::ByHand => return Verdict::NotYet { after: Duration::from_secs(3600) },
            Health::Command(health) => health,
        };
        let complaint = match health.command.run().and_then(crate::command::Ran::success) {
            Ok(_) => return Verdict::Well,
            Err(e) => e.to_string(),
        };
        self.host.note(&Entry::Problem(&format!("not well yet: {complaint}")));
        let passed = Duration::from_secs(self.host.boot().uptime.saturating_sub(since));
        match health.within.checked_sub(passed) {
            Some(left) if !left.is_zero() => Verdict::NotYet { after: left.min(health.every) },
            _ => Verdict::Unwell { why: format!("not well within {} s: {complaint}", health.within.as_secs()) },
        }
    }

    /// Whether what was before runs again.
    fn went_back(&mut self, attempt: &Attempt, failed_in: &str) -> Result<bool, Error> {
        // Without a place to go back to, all there is to do is not to try again.
        let Some(before) = &attempt.before else { return Ok(true) };
        self.device.go_back(before)?;
        if failed_in == self.host.boot().id {
            self.restart()?;
        }
        Ok(self.device.running()?.as_ref() == Some(before))
    }

    fn restart(&mut self) -> Result<(), Error> {
        if let Some(command) = &self.options.restart {
            self.host.note(&Entry::Restarting);
            command.run().and_then(crate::command::Ran::success).map_err(Error::Restart)?;
        }
        Ok(())
    }

    /// What the policy says to a step, unless it allows it.
    fn held_back(&mut self, step: Step, update: &Update) -> Result<Option<Next>, Error> {
        let judgement: Judgement = self.device.judge_now(step, update);
        if self.options.ignores_policy || judgement.allows() {
            return Ok(None);
        }
        let until = judgement.until();
        let release: Option<Release> = Some(update.release.clone());
        self.advance(Event::Hold { until, why: judgement.why(), release })?;
        Ok(Some(Next::Check { until }))
    }

    fn started(&mut self) -> Result<(), Error> {
        // Only what is unsettled depends on what runs; asking may cost a process.
        let state = &self.device.machine().state;
        let running = if state.is_unsettled() || matches!(state, State::Installing { .. }) {
            self.device.running()?
        } else {
            None
        };
        self.device.record_expected();
        let BootInfo { id: boot, uptime } = self.host.boot();
        self.advance(Event::Started { running, boot, uptime })
    }

    /// Writes down a failure of work that may go right another time, and when that is.
    fn or_fail<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        self.device.record_failure(&error, self.options.tolerance);
        let failures = self.device.machine().failures.saturating_add(1);
        let pause = TimeDelta::from_std(self.options.retry.pause(failures, jitter())).unwrap_or(TimeDelta::MAX);
        let now = self.device.now();
        let until = now.checked_add_signed(pause).unwrap_or(now);
        // If this cannot be written, the error that led here says more.
        let _ = self.advance(Event::Failed { until, why: error.to_string() });
        Err(error)
    }

    fn advance(&mut self, event: Event) -> Result<(), Error> {
        let before = self.device.machine().state.clone();
        self.device.advance(event, self.options.tolerance)?;
        if let Some(problem) = self.device.receipt_problem() {
            self.host.note(&Entry::Problem(&problem));
        }
        let after = &self.device.machine().state;
        if *after != before {
            self.host.note(&Entry::Now(after));
        }
        Ok(())
    }
}

enum Verdict {
    Well,
    NotYet { after: Duration },
    Unwell { why: String },
}

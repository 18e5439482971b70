//! Drives an update from the first check to its confirmation or rollback.
//!
//! ```text
//! loop {                                        Next::Check   wait for the next regular check, or an earlier instant
//!     let next = agent.check() or .resume();    Next::Look    resume after a delay: a trial is in progress
//!     sleep according to next                   Next::Restart restart the device
//! }
//! ```
//!
//! Every call first determines what an interruption, a restart or the boot loader has changed since the last call
//! ([`Event::Started`]). Every state is saved before its work starts, and all work can be repeated. So the next
//! call completes an interrupted one.

mod by_hand;
mod host;
mod schedule;

use std::time::Duration;

use chrono::TimeDelta;
use serde::Serialize;

pub use host::{Entry, Host, Permission, Stage, StubHost};
pub use schedule::Schedule;

use crate::clock::BootInfo;
use crate::command::{Command, CommandError};
use crate::device::{Check, Device, Downloaded, Release, Update};
use crate::error::Error;
use crate::policy::{Judgement, Step};
use crate::retry::{Retry, jitter};
use crate::state::{Attempt, Event, State, Tolerance};
use tidegate_model::decision::Outcome;
use tidegate_model::time::UtcTime;

/// How an update is driven.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// The limits on boots and attempts of a release.
    pub tolerance: Tolerance,
    /// How to determine whether a release on trial is healthy.
    pub health: Health,
    /// The command that restarts the device, or the programs of a release. Without it, the caller restarts.
    pub restart: Option<Command>,
    /// How long to wait after failures.
    pub retry: Retry,
    /// Whether to ignore the device's policy at the user's request.
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

/// How to determine whether a release on trial is healthy.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Health {
    /// It is healthy as soon as this program runs.
    Runs,
    /// The caller decides: [`Agent::confirm`] or [`Agent::reject`].
    ByHand,
    /// A program decides.
    Command(HealthCommand),
}

/// A program that checks the health of a release on trial.
#[derive(Debug, Clone)]
pub struct HealthCommand {
    /// The command; exit code 0 means healthy.
    pub command: Command,
    /// How long after the start of the trial it must have succeeded.
    pub within: Duration,
    /// How long to wait between runs.
    pub every: Duration,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Next {
    /// Check again at the next regular time, or at this instant if it is earlier.
    Check {
        /// The instant.
        #[serde(with = "tidegate_model::time::optional_text")]
        until: Option<UtcTime>,
    },
    /// Resume the trial after a delay.
    Look {
        /// The delay.
        #[serde(skip)]
        after: Duration,
    },
    /// Restart, unless that happens automatically, and then resume.
    Restart,
}

/// A device with its update driver.
pub struct Agent<'a> {
    device: &'a mut Device,
    options: &'a AgentOptions,
    host: &'a mut dyn Host,
}

impl std::fmt::Debug for Agent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("device", self.device).field("options", self.options).finish_non_exhaustive()
    }
}

impl<'a> Agent<'a> {
    /// An agent for this device.
    pub fn new(device: &'a mut Device, options: &'a AgentOptions, host: &'a mut dyn Host) -> Self {
        Self { device, options, host }
    }

    /// Continues an update in progress, without a request to the repository.
    ///
    /// # Errors
    ///
    /// [`Error`] if the installer does not report what runs, or the device's state cannot be stored.
    pub fn resume(&mut self) -> Result<Next, Error> {
        self.started()?;
        self.settle()
    }

    /// Continues an update in progress. If none is on trial, checks for one and advances it as far as possible.
    ///
    /// # Errors
    ///
    /// The failure, after the time of the next attempt was saved.
    pub fn check(&mut self) -> Result<Next, Error> {
        let was_unsettled = self.device.machine().state.is_unsettled();
        let next = self.resume()?;
        if was_unsettled || self.device.machine().state.is_unsettled() {
            return Ok(next);
        }
        self.advance(Event::Poll)?;
        let check = self.device.check_compared();
        let check = self.or_fail(check)?;
        self.host.note(&Entry::Checked(&check));
        match &check.update {
            Some(update) => self.take(update),
            None => self.nothing(check),
        }
    }

    /// Confirms the release on trial, regardless of the health command.
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
            State::RolledBack { why, .. } => {
                self.settle()?;
                Err(Error::State(format!("{why}: there is nothing to confirm")))
            }
            _ => self.device.confirm_recorded(),
        }
    }

    /// Rejects the release that is on trial or will be after the restart. The device rolls back.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if no release is on trial; otherwise as for [`resume`](Self::resume).
    pub fn reject(&mut self) -> Result<Next, Error> {
        self.started()?;
        if !matches!(self.device.machine().state, State::Trial { .. } | State::Rebooting { .. }) {
            return Err(Error::State("no release is on trial: there is nothing to reject".into()));
        }
        self.advance(Event::Unhealthy { why: "it was rejected by hand".into() })?;
        self.settle()
    }

    fn nothing(&mut self, check: Check) -> Result<Next, Error> {
        let until = check.explanation.changes;
        let event = match check.explanation.outcome {
            Outcome::Wait { until, why, .. } => Event::Hold { until, why, release: None },
            _ => Event::Nothing,
        };
        self.advance(event)?;
        Ok(Next::Check { until })
    }

    /// Advances an update as far as possible now.
    fn take(&mut self, update: &Update) -> Result<Next, Error> {
        if let Some(next) = self.held_back(Step::Download, update)? {
            return Ok(next);
        }
        // What waits for its installation alone is not hashed and told again at every check.
        if self.device.has_downloaded(update)
            && let Some(next) = self.held_back(Step::Install, update)?
        {
            return Ok(next);
        }
        let before = self.must_be_confirmable().and_then(|()| self.device.ready());
        let before = self.or_fail(before)?;
        self.advance(Event::Offered { attempt: Attempt { release: update.release.clone(), before } })?;
        if !matches!(self.device.machine().state, State::Downloading { .. }) {
            return self.settle();
        }
        let host = &mut *self.host;
        let downloaded = self.device.download(update, &mut |progress| host.progress(progress));
        let Some(downloaded) = self.or_wait(downloaded)? else { return Ok(Next::Check { until: None }) };
        self.advance(Event::Downloaded)?;
        let verified = self.device.verify(&downloaded);
        self.or_fail(verified)?;
        if let Some(next) = self.held_back(Step::Install, update)? {
            return Ok(next);
        }
        // The download may have taken days.
        let again = self.device.decide_again(update);
        let Some(update) = self.or_wait(again)? else { return Ok(Next::Check { until: None }) };
        if let Some(next) = self.held_back(Step::Install, &update)? {
            return Ok(next);
        }
        self.install(&downloaded)
    }

    /// Checks that the programs of a trial are there: without them no release could be confirmed.
    fn must_be_confirmable(&self) -> Result<(), Error> {
        let health = match &self.options.health {
            Health::Command(health) => health.command.missing(),
            _ => None,
        };
        let restart = self.options.restart.as_ref().and_then(Command::missing);
        match health.map(|why| ("health", why)).or(restart.map(|why| ("restart", why))) {
            Some((setting, why)) => Err(Error::Setting(format!("trial.{setting}: {why}"))),
            None => Ok(()),
        }
    }

    fn install(&mut self, downloaded: &Downloaded) -> Result<Next, Error> {
        let boot = self.host.boot().id;
        self.advance(Event::Verified { boot: boot.clone() })?;
        let host = &mut *self.host;
        match self.device.put(downloaded, &mut |progress| host.progress(progress)) {
            Ok(()) => self.advance(Event::Installed { boot })?,
            Err(Error::Install(e)) if e.is_final() => self.advance(Event::Rejected { why: e.to_string() })?,
            Err(e) => {
                // The boot loader may have been told to try the release, although that failed.
                if let State::Installing { attempt: Attempt { before: Some(before), .. }, .. } =
                    self.device.machine().state.clone()
                {
                    let _ = self.device.go_back(&before);
                }
                return self.or_fail(Err(e));
            }
        }
        self.settle()
    }

    /// Advances a trial or rollback as far as possible now.
    fn settle(&mut self) -> Result<Next, Error> {
        loop {
            match self.device.machine().state.clone() {
                State::Rebooting { boot, attempt } => {
                    if boot == self.host.boot().id {
                        if let Permission::NotNow { until } = self.host.may(Stage::Restart(&attempt.release)) {
                            return Ok(Next::Check { until });
                        }
                        self.restart()?;
                    }
                    self.started()?;
                    if matches!(self.device.machine().state, State::Rebooting { .. }) {
                        return Ok(Next::Restart);
                    }
                }
                State::Trial { attempt, since, .. } => {
                    self.device.begin_trial(&attempt.release)?;
                    match self.health(since)? {
                        Verdict::Well => {
                            self.healthy(&attempt)?;
                            // It may be a bridge.
                            return Ok(Next::Check { until: Some(self.device.now()) });
                        }
                        Verdict::NotYet { after } => return Ok(Next::Look { after }),
                        Verdict::Unwell { why } => self.advance(Event::Unhealthy { why })?,
                    }
                }
                State::RolledBack { attempt, boot, again, why } => {
                    let before = attempt.before.as_ref();
                    if again {
                        self.device.take_back(&attempt.release, before)?;
                    } else {
                        self.device.forget(&attempt.release, &why, before)?;
                    }
                    if !self.went_back(&attempt, &boot)? {
                        return Ok(Next::Restart);
                    }
                    self.advance(Event::Returned)?;
                }
                State::Quarantined { release, why } => {
                    self.device.put_in_quarantine(&release, &why)?;
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

    fn health(&mut self, since: u64) -> Result<Verdict, Error> {
        let health = match &self.options.health {
            Health::Runs => return Ok(Verdict::Well),
            Health::ByHand => return Ok(Verdict::NotYet { after: Duration::from_secs(3600) }),
            Health::Command(health) => health,
        };
        let passed = || Duration::from_secs(self.host.boot().uptime.saturating_sub(since));
        // It is stopped at the end of the trial, whatever its own limit.
        let left = health.within.saturating_sub(passed()).max(Duration::from_secs(1));
        let command = health.command.clone().at_most(left).until(self.device.cancel());
        let complaint = match command.run().and_then(crate::command::Ran::success) {
            Ok(_) => return Ok(Verdict::Well),
            Err(CommandError::Cancelled(cancelled)) => return Err(cancelled.into()),
            Err(e) => e.to_string(),
        };
        let left = health.within.checked_sub(passed());
        self.host.note(&Entry::Problem(&format!("not healthy yet: {complaint}")));
        Ok(match left {
            Some(left) if !left.is_zero() => Verdict::NotYet { after: left.min(health.every) },
            _ => Verdict::Unwell { why: format!("not healthy within {} s: {complaint}", health.within.as_secs()) },
        })
    }

    /// Whether the previous release runs again.
    fn went_back(&mut self, attempt: &Attempt, failed_in: &str) -> Result<bool, Error> {
        // Without a previous place, the device can only avoid retries.
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
            let ran = command.clone().until(self.device.cancel()).run().and_then(crate::command::Ran::success);
            if let Err(CommandError::Cancelled(cancelled)) = ran {
                return Err(cancelled.into());
            }
            if let Err(e) = ran {
                // Counted, so that the next attempts are ever further apart.
                return self.put_off(Error::Restart(e));
            }
        }
        Ok(())
    }

    /// The objection of the policy or of the host to a step, or `None` if both allow it.
    fn held_back(&mut self, step: Step, update: &Update) -> Result<Option<Next>, Error> {
        let judgement: Judgement = self.device.judge_now(step, update);
        let stage = match step {
            Step::Download => Stage::Download(update),
            Step::Install => Stage::Install(update),
        };
        let (until, why) = if self.options.ignores_policy || judgement.allows() {
            match self.host.may(stage) {
                Permission::Go => return Ok(None),
                Permission::NotNow { until } => (until, format!("{step} was put off by the user")),
            }
        } else {
            (judgement.until(), judgement.why())
        };
        let release: Option<Release> = Some(update.release.clone());
        self.advance(Event::Hold { until, why, release })?;
        Ok(Some(Next::Check { until }))
    }

    fn started(&mut self) -> Result<(), Error> {
        let before = self.device.machine().state.clone();
        self.device.compare()?;
        self.note_after(&before);
        let state = &self.device.machine().state;
        let matters = state.is_unsettled() || matches!(state, State::Installing { .. });
        let running = if matters && self.device.has_installer() { self.device.running()? } else { None };
        self.device.record_expected();
        let BootInfo { id: boot, uptime } = self.host.boot();
        self.advance(Event::Started { running, boot, uptime })
    }

    /// `None` if the device keeps its release until the next check, which is not a failure: access to a protected cohort, and the
    /// decision, can change at any time.
    fn or_wait<T>(&mut self, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match &result {
            Err(e @ (Error::Fetch(crate::fetch::FetchError::Denied { .. }) | Error::Outdated { .. })) => {
                self.advance(Event::Hold { until: None, why: e.to_string(), release: None })?;
                Ok(None)
            }
            _ => self.or_fail(result).map(Some),
        }
    }

    /// Saves a temporary failure and the time of the next attempt.
    fn or_fail<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        let error = match result {
            Ok(value) => return Ok(value),
            // Nobody is to blame, and nothing is counted.
            Err(error @ Error::Cancelled(_)) => {
                // If this cannot be saved, it counts as an interruption.
                let _ = self.advance(Event::Cancelled);
                return Err(error);
            }
            Err(error) => error,
        };
        self.device.record_failure(&error, self.options.tolerance);
        self.put_off(error)
    }

    /// Saves the time of the next attempt after a failure: further away with each one in a row.
    fn put_off<T>(&mut self, error: Error) -> Result<T, Error> {
        let failures = self.device.machine().failures.saturating_add(1);
        let pause = self.options.retry.pause(failures, jitter()).max(error.retry_after().unwrap_or_default());
        let pause = TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
        let now = self.device.now();
        let until = now.checked_add_signed(pause).unwrap_or(now);
        // If this cannot be saved, the original error is more useful.
        let _ = self.advance(Event::Failed { until, why: error.to_string() });
        Err(error)
    }

    fn advance(&mut self, event: Event) -> Result<(), Error> {
        let before = self.device.machine().state.clone();
        self.device.advance(event, self.options.tolerance)?;
        if let Some(problem) = self.device.receipt_problem() {
            self.host.note(&Entry::Problem(&problem));
        }
        self.note_after(&before);
        Ok(())
    }

    fn note_after(&mut self, before: &State) {
        let after = &self.device.machine().state;
        if after != before {
            self.host.note(&Entry::Now(after));
        }
    }
}

enum Verdict {
    Well,
    NotYet { after: Duration },
    Unwell { why: String },
}

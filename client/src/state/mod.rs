//! The states of an update on a device and the transitions between them: a pure state machine.
//!
//! ```text
//!            +--------------------- nothing, not now, failed --------------------+
//!            v                                                                   |
//! idle / waiting --poll--> checking --offered--> downloading --> verifying --> installing --> rebooting
//!    ^       ^                                                                    |               |
//!    |       |                                                              rejected            started
//!    |       |                                                                    v               v
//!    |       +------------------------------------------------------------- quarantined         trial --healthy--> confirmed
//!    |                                                                            ^               |
//!    |                                                                            |          unhealthy, or the old
//!    |                                                                            |          system came back
//!    |                                                                            |               v
//!    +-- poll ------------------------------------------------ confirmed          +--returned-- rolled back
//! ```
//!
//! [`Machine::next`] does no I/O and reads no clock. Its driver ([`Agent`](crate::agent::Agent)) saves the new state
//! *before* it does the work of that state. So the state on disk always names the work that may be incomplete,
//! and [`Event::Started`] resolves it:
//!
//! | on disk | after an interruption |
//! |---|---|
//! | idle, waiting, confirmed, quarantined | unchanged; waiting, if something else runs than was confirmed ([`Event::Displaced`]) |
//! | downloading, verifying | idle: the next check decides again; the partial download is kept |
//! | installing, the old system runs | idle; the interruption is counted |
//! | installing, the new system runs | trial, or first the restart: only the record was missing |
//! | rebooting, not restarted yet | unchanged: restart |
//! | rebooting or trial, the new system runs | trial, with one more boot |
//! | rebooting or trial, the old system runs after a restart | rolled back by the boot loader; retried a limited number of times |
//! | rolled back | unchanged until the old system runs |
//!
//! *Checking* is never saved: a check without changes writes nothing.

mod form;

use serde::Serialize;

use crate::install::Place;
use tidegate_model::release::Release;
use tidegate_model::time::{self, UtcTime};

/// The longest reason in a state, in bytes.
const MAX_WHY: usize = 1000;

/// The state of a device's update, with counters across attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The state.
    pub state: State,
    /// How many checks, downloads, installations and restarts failed in a row. The delay grows with it.
    pub failures: u32,
    /// When a failed restart is repeated.
    #[serde(skip_serializing_if = "Option::is_none", with = "time::optional_text")]
    pub restart: Option<UtcTime>,
    /// How many installations of one release were attempted. A release that stays needs no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begun: Option<Begun>,
}

/// Attempts at one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Begun {
    /// The release's sequence.
    pub sequence: u64,
    /// The number of attempts.
    pub times: u32,
}

/// The state of an update.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(into = "form::Form")]
pub enum State {
    /// There is nothing to do until the next check.
    #[default]
    Idle,
    /// The device checks the repository.
    Checking,
    /// There is work to do, but not now.
    Waiting {
        /// When to check again at the latest; `None` for the next regular check.
        until: Option<UtcTime>,
        /// Why.
        why: String,
        /// The release that the device's own policy delays, if that is the reason.
        release: Option<Release>,
    },
    /// The release is being downloaded.
    Downloading {
        /// The attempt.
        attempt: Attempt,
    },
    /// The download is complete and is being hashed again.
    Verifying {
        /// The attempt.
        attempt: Attempt,
    },
    /// It is being installed.
    Installing {
        /// The attempt.
        attempt: Attempt,
        /// The boot during which it is installed.
        boot: String,
    },
    /// It is installed; a restart makes it run.
    Rebooting {
        /// The attempt.
        attempt: Attempt,
        /// The boot during which it was installed.
        boot: String,
    },
    /// It runs on trial.
    Trial {
        /// The attempt.
        attempt: Attempt,
        /// The boot that it runs in.
        boot: String,
        /// The number of boots on trial.
        boots: u32,
        /// When the trial started in this boot, in seconds since the boot.
        since: u64,
    },
    /// It works and is confirmed.
    Confirmed {
        /// The release.
        release: Release,
    },
    /// It failed. The device rolls back or has rolled back.
    RolledBack {
        /// The attempt.
        attempt: Attempt,
        /// The boot in which it failed. A different boot id means that the device has restarted since.
        boot: String,
        /// How it failed.
        why: String,
        /// Whether the release is retried: the boot loader rolled back, for which a power cut during a trial is enough.
        again: bool,
    },
    /// It failed, the previous release runs again, and this device does not retry the failed one until that is lifted.
    Quarantined {
        /// The release.
        release: Release,
        /// How it failed.
        why: String,
    },
}

/// A release on its way onto the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// The release.
    pub release: Release,
    /// What ran when the attempt started; `None` if the installer does not report it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Place>,
}

impl Attempt {
    /// Whether the device now runs what the attempt installed.
    ///
    /// An installer that does not report this takes effect at once, so the answer is yes.
    pub fn runs(&self, running: Option<&Place>) -> bool {
        self.before.is_none() || running != self.before.as_ref()
    }
}

/// An event in the life of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The agent starts, or inspects a device that may have restarted.
    Started {
        /// What runs, by the installer's name.
        running: Option<Place>,
        /// The current boot.
        boot: String,
        /// Seconds since the boot.
        uptime: u64,
    },
    /// It is time to check the repository.
    Poll,
    /// There is nothing to install.
    Nothing,
    /// There is a release to install, but its rules or the device's policy delay it.
    Hold {
        /// Until when, if that is known.
        until: Option<UtcTime>,
        /// Why.
        why: String,
        /// The release that the device's own policy delays, if that is the reason.
        release: Option<Release>,
    },
    /// A release can be installed.
    Offered {
        /// The attempt.
        attempt: Attempt,
    },
    /// Its artifacts are downloaded.
    Downloaded,
    /// They match the signed hashes.
    Verified {
        /// The current boot.
        boot: String,
    },
    /// They are installed.
    Installed {
        /// The current boot.
        boot: String,
    },
    /// A temporary failure.
    Failed {
        /// When to retry.
        until: UtcTime,
        /// What.
        why: String,
    },
    /// The caller ended the work. Nothing is counted.
    Cancelled,
    /// The installer rejects the release permanently on this device.
    Rejected {
        /// Why.
        why: String,
    },
    /// The new system is healthy.
    Healthy,
    /// The new system is unhealthy, or did not become healthy in time.
    Unhealthy {
        /// The reason.
        why: String,
    },
    /// The previous release runs again.
    Returned,
    /// Something else runs than was confirmed.
    Displaced {
        /// What.
        why: String,
        /// Whether another image was written to the device; otherwise the boot loader fell back.
        by_hand: bool,
    },
    /// The quarantine of a release is lifted: attempts at it count from zero.
    Lifted {
        /// Its sequence.
        sequence: u64,
    },
}

/// The limits on boots and attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// How many boots a release may take to pass its trial.
    pub boots: u32,
    /// How many attempts a release gets. A power cut, a rollback by the boot loader, also after the release was
    /// confirmed, or a hang each use one attempt; after the last one the release is quarantined.
    pub attempts: u32,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { boots: 3, attempts: 3 }
    }
}

/// An event that does not apply to a state: a bug in the driver, or a foreign state file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event} does not apply to a device that is {state}")]
pub struct InvalidTransition {
    /// The state's name.
    pub state: &'static str,
    /// The event's name.
    pub event: &'static str,
}

impl Machine {
    /// The machine after `event`.
    ///
    /// # Errors
    ///
    /// [`InvalidTransition`] if the event does not apply. The machine does not change.
    pub fn next(&self, event: Event, tolerance: Tolerance) -> Result<Self, InvalidTransition> {
        use State as S;
        let invalid = InvalidTransition { state: self.state.name(), event: event.name() };
        let next = match (self.state.clone(), event) {
            (state, Event::Started { running, boot, uptime }) => {
                let now = Now { boot, uptime, attempts: self.begun.as_ref().map_or(0, |begun| begun.times) };
                return Ok(self.to(started(state, running.as_ref(), &now, tolerance)));
            }

            // A trial that cannot be undone is no obstacle to what comes after it.
            (
                S::Idle
                | S::Waiting { .. }
                | S::Confirmed { .. }
                | S::Quarantined { .. }
                | S::Trial { attempt: Attempt { before: None, .. }, .. },
                Event::Poll,
            ) => S::Checking,

            (S::Checking, Event::Nothing) => return Ok(Self { failures: 0, ..self.to(S::Idle) }),
            (S::Checking | S::Downloading { .. } | S::Verifying { .. }, Event::Hold { until, why, release }) => {
                return Ok(Self { failures: 0, ..self.to(S::Waiting { until, why, release }) });
            }
            (S::Checking, Event::Offered { attempt }) => match &self.begun {
                Some(begun) if begun.sequence == attempt.release.sequence && begun.times >= tolerance.attempts => {
                    let why = format!("it was attempted {} times and did not stay", begun.times);
                    S::Quarantined { release: attempt.release, why }
                }
                _ => S::Downloading { attempt },
            },

            (S::Downloading { attempt }, Event::Downloaded) => S::Verifying { attempt },
            (S::Verifying { attempt }, Event::Verified { boot }) => {
                let sequence = attempt.release.sequence;
                let before = self.begun.as_ref().filter(|begun| begun.sequence == sequence);
                let times = before.map_or(0, |begun| begun.times).saturating_add(1);
                return Ok(Self { begun: Some(Begun { sequence, times }), ..self.to(S::Installing { attempt, boot }) });
            }
            (S::Installing { attempt, .. }, Event::Installed { boot }) => {
                return Ok(Self { failures: 0, ..self.to(S::Rebooting { attempt, boot }) });
            }
            (S::Installing { attempt, .. }, Event::Rejected { why }) => {
                let state = S::Quarantined { release: attempt.release, why };
                return Ok(Self { state, ..Self::default() });
            }
            (state, Event::Cancelled) if state.is_work() => {
                return Ok(Self { begun: self.begun_before(&state), ..self.to(S::Idle) });
            }
            (state, Event::Failed { until, why }) if state.is_work() => {
                let begun = self.begun_before(&state);
                let state = S::Waiting { until: Some(until), why, release: None };
                return Ok(Self { failures: self.failures.saturating_add(1), begun, ..self.to(state) });
            }

            // The restart failed, which is repeated.
            (state @ (S::Rebooting { .. } | S::RolledBack { .. }), Event::Failed { until, .. }) => {
                let failures = self.failures.saturating_add(1);
                return Ok(Self { failures, restart: Some(until), ..self.to(state) });
            }

            (S::Trial { attempt, .. }, Event::Healthy) => S::Confirmed { release: attempt.release },
            (S::Rebooting { attempt, boot } | S::Trial { attempt, boot, .. }, Event::Unhealthy { why }) => {
                S::RolledBack { attempt, boot, why, again: false }
            }
            (S::RolledBack { why, again: true, .. }, Event::Returned) => {
                S::Waiting { until: None, why: format!("{why}; it will be retried"), release: None }
            }
            (S::RolledBack { attempt, why, .. }, Event::Returned) => {
                return Ok(Self { begun: None, ..self.to(S::Quarantined { release: attempt.release, why }) });
            }

            (state, Event::Displaced { why, by_hand }) if !state.is_unsettled() => {
                let begun = self.begun.clone().filter(|_| !by_hand);
                return Ok(Self { begun, ..self.to(S::Waiting { until: None, why, release: None }) });
            }
            (state, Event::Lifted { sequence }) => {
                let begun = self.begun.clone().filter(|begun| begun.sequence != sequence);
                let state = match state {
                    S::Quarantined { release, .. } if release.sequence == sequence => S::Idle,
                    S::RolledBack { attempt, boot, why, .. } if attempt.release.sequence == sequence => {
                        S::RolledBack { attempt, boot, why, again: true }
                    }
                    state => state,
                };
                return Ok(Self { begun, ..self.to(state) });
            }

            _ => return Err(invalid),
        };
        Ok(self.to(next))
    }

    /// The attempts without one that ended with an error: it was not interrupted.
    fn begun_before(&self, state: &State) -> Option<Begun> {
        let ended = u32::from(matches!(state, State::Installing { .. }));
        self.begun.clone().map(|begun| Begun { times: begun.times.saturating_sub(ended), ..begun })
    }

    /// When the work that failed last is tried again.
    pub fn again_at(&self) -> Option<UtcTime> {
        match &self.state {
            State::Waiting { until, .. } if self.failures > 0 => *until,
            _ => self.restart,
        }
    }

    fn to(&self, state: State) -> Self {
        // Then the restart has succeeded.
        let is_restarted = matches!(state, State::Trial { .. } | State::Quarantined { .. });
        let failures = if is_restarted { 0 } else { self.failures };
        let restart = self.restart.filter(|_| state == self.state);
        Self { state, failures, restart, begun: self.begun.clone() }
    }
}

/// What is known about the current boot.
struct Now {
    boot: String,
    uptime: u64,
    attempts: u32,
}

/// Resolves the state after an interruption, by what runs now.
fn started(state: State, running: Option<&Place>, now: &Now, tolerance: Tolerance) -> State {
    use State as S;
    let trial = |attempt, boots| S::Trial { attempt, boot: now.boot.clone(), boots, since: now.uptime };
    let went_back = |attempt, boot, how: &str| S::RolledBack {
        attempt,
        boot,
        why: format!("{how}: the boot loader rolled back"),
        again: now.attempts < tolerance.attempts,
    };
    match state {
        S::Checking | S::Downloading { .. } | S::Verifying { .. } => S::Idle,
        // If the installer cannot distinguish the systems, a partial installation is possible.
        S::Installing { attempt, .. } if attempt.before.is_none() || !attempt.runs(running) => S::Idle,
        // A release that takes effect without a device restart may still need a restart of its programs.
        S::Installing { attempt, boot } if boot == now.boot => S::Rebooting { attempt, boot },
        S::Installing { attempt, .. } => trial(attempt, 1),
        S::Rebooting { attempt, .. } if attempt.runs(running) => trial(attempt, 1),
        S::Rebooting { attempt, boot } if boot == now.boot => S::Rebooting { attempt, boot },
        S::Rebooting { attempt, boot } => went_back(attempt, boot, "it did not start"),
        S::Trial { attempt, boot, .. } if !attempt.runs(running) => {
            went_back(attempt, boot, "it stopped during its trial")
        }
        // Boots are not counted if a rollback is impossible.
        S::Trial { attempt, boots, .. } if attempt.before.is_none() => {
            S::Trial { attempt, boot: now.boot.clone(), boots, since: now.uptime }
        }
        S::Trial { attempt, boot, boots, .. } if boot != now.boot => {
            if boots >= tolerance.boots {
                let why = format!("it restarted {boots} times without becoming healthy");
                S::RolledBack { attempt, boot: now.boot.clone(), why, again: false }
            } else {
                trial(attempt, boots.saturating_add(1))
            }
        }
        S::Idle
        | S::Waiting { .. }
        | S::Trial { .. }
        | S::Confirmed { .. }
        | S::RolledBack { .. }
        | S::Quarantined { .. } => state,
    }
}

impl State {
    /// The same, with a [`bounded`] reason.
    #[must_use]
    pub(crate) fn bounded(mut self) -> Self {
        if let Self::Waiting { why, .. } | Self::RolledBack { why, .. } | Self::Quarantined { why, .. } = &mut self {
            *why = bounded(why);
        }
        self
    }

    /// Its name, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Checking => "checking",
            Self::Waiting { .. } => "waiting",
            Self::Downloading { .. } => "downloading",
            Self::Verifying { .. } => "verifying",
            Self::Installing { .. } => "installing",
            Self::Rebooting { .. } => "rebooting",
            Self::Trial { .. } => "trial",
            Self::Confirmed { .. } => "confirmed",
            Self::RolledBack { .. } => "rolled-back",
            Self::Quarantined { .. } => "quarantined",
        }
    }

    /// Whether it must be saved. `Checking` is not saved: after an interruption the device checks again.
    pub fn is_durable(&self) -> bool {
        !matches!(self, Self::Checking)
    }

    /// Whether a release is on trial or being rolled back. No check happens until that is over.
    pub fn is_unsettled(&self) -> bool {
        self.unsettled().is_some()
    }

    /// The attempt that is on trial or being rolled back.
    pub fn unsettled(&self) -> Option<&Attempt> {
        match self {
            Self::Rebooting { attempt, .. } | Self::Trial { attempt, .. } | Self::RolledBack { attempt, .. } => {
                Some(attempt)
            }
            _ => None,
        }
    }

    /// The release in question.
    pub fn release(&self) -> Option<&Release> {
        match self {
            Self::Idle | Self::Checking => None,
            Self::Waiting { release, .. } => release.as_ref(),
            Self::Downloading { attempt }
            | Self::Verifying { attempt }
            | Self::Installing { attempt, .. }
            | Self::Rebooting { attempt, .. }
            | Self::Trial { attempt, .. }
            | Self::RolledBack { attempt, .. } => Some(&attempt.release),
            Self::Confirmed { release } | Self::Quarantined { release, .. } => Some(release),
        }
    }

    /// The release that will be installed next, unless a rule delays it.
    pub fn pending(&self) -> Option<&Release> {
        match self {
            Self::Waiting { .. } | Self::Downloading { .. } | Self::Verifying { .. } => self.release(),
            _ => None,
        }
    }

    /// Work that can fail without an effect on the running release.
    fn is_work(&self) -> bool {
        matches!(self, Self::Checking | Self::Downloading { .. } | Self::Verifying { .. } | Self::Installing { .. })
    }
}

/// A reason in the form in which states have it: what hooks, programs and servers say can be of any length, and a state file must stay
/// short enough to be read back.
pub fn bounded(why: &str) -> String {
    shortened(why, MAX_WHY)
}

/// The first `most` bytes of a text, without control characters, so that JSON makes it at most twice as long.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let start = text.get(..end).unwrap_or_default().replace(char::is_control, " ");
    if end < text.len() { start + "..." } else { start }
}

/// One line, e.g. `waiting until 2026-01-05T18:00:00Z: outside the maintenance window`.
impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name().replace('-', " "))?;
        if let Self::Waiting { until: Some(until), .. } = self {
            write!(f, " until {}", time::format(*until))?;
        }
        if let Some(release) = self.release() {
            write!(f, " {} (sequence {})", release.version, release.sequence)?;
        }
        match self {
            Self::Trial { boots, .. } => write!(f, ", boot {boots}"),
            Self::Waiting { why, .. } | Self::RolledBack { why, .. } | Self::Quarantined { why, .. } => {
                write!(f, ": {why}")
            }
            _ => Ok(()),
        }
    }
}

impl Event {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Poll => "poll",
            Self::Nothing => "nothing",
            Self::Hold { .. } => "hold",
            Self::Offered { .. } => "offered",
            Self::Downloaded => "downloaded",
            Self::Verified { .. } => "verified",
            Self::Installed { .. } => "installed",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
            Self::Rejected { .. } => "rejected",
            Self::Healthy => "healthy",
            Self::Unhealthy { .. } => "unhealthy",
            Self::Returned => "returned",
            Self::Displaced { .. } => "displaced",
            Self::Lifted { .. } => "lifted",
        }
    }
}

#[cfg(test)]
mod tests;

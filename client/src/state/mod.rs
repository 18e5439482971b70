//! The states of an update on a device, and how one follows from another: a pure table.
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
//! [`Machine::next`] does no I/O and reads no clock. Whoever drives it ([`Agent`](crate::agent::Agent)) writes the new state down
//! *before* it does what the state stands for. So at any instant the state on disk names the work that may be half done,
//! and [`Event::Started`] says what to make of it:
//!
//! | on disk | after a stop |
//! |---|---|
//! | idle, waiting, confirmed, quarantined | the same |
//! | downloading, verifying | idle: the next check decides anew, what came of the download is kept |
//! | installing, the old system runs | idle; that it was cut short is counted |
//! | installing, the new system runs | trial, or first the restart: only the note was missing |
//! | rebooting, not restarted yet | the same: restart |
//! | rebooting or trial, the new system runs | trial, one boot more |
//! | rebooting or trial, the old system runs after a restart | rolled back, by the boot loader; tried again, but not often |
//! | rolled back | the same, until the old system runs |
//!
//! *Checking* is never written: an unchanged check writes nothing at all.

mod form;

use serde::Serialize;

use crate::install::Place;
use tidegate_model::release::Release;
use tidegate_model::time::{self, Instant};

/// The state of a device's update, with what is remembered from one attempt to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The state.
    pub state: State,
    /// How many checks, downloads and installations failed in a row; waiting grows with it.
    pub failures: u32,
    /// How often one release was begun to be installed without becoming confirmed or failing for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begun: Option<Begun>,
}

/// Attempts at one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Begun {
    /// The release's sequence.
    pub sequence: u64,
    /// How often.
    pub times: u32,
}

/// Where an update stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(into = "form::Form")]
pub enum State {
    /// There is nothing to do until the next check.
    #[default]
    Idle,
    /// The repository is being asked.
    Checking,
    /// There is something to do, but not now.
    Waiting {
        /// When to look again, at the latest; `None` for the next regular check.
        until: Option<Instant>,
        /// Why.
        why: String,
        /// The release that the device's own policy holds back, if that is the reason.
        release: Option<Release>,
    },
    /// The release is being fetched.
    Downloading {
        /// What is attempted.
        attempt: Attempt,
    },
    /// All of it is here and is being hashed once more.
    Verifying {
        /// What is attempted.
        attempt: Attempt,
    },
    /// It is being written to where it will run from.
    Installing {
        /// What is attempted.
        attempt: Attempt,
        /// The boot in which it is installed.
        boot: String,
    },
    /// It is in place; a restart makes it run.
    Rebooting {
        /// What is attempted.
        attempt: Attempt,
        /// The boot in which it was installed.
        boot: String,
    },
    /// It runs, and has yet to prove itself.
    Trial {
        /// What is attempted.
        attempt: Attempt,
        /// The boot that it runs in.
        boot: String,
        /// How many boots it has had.
        boots: u32,
        /// When it began in this boot, in seconds since the boot.
        since: u64,
    },
    /// It works, and is what the device runs from now on.
    Confirmed {
        /// The release.
        release: Release,
    },
    /// It failed. The device goes back to what it ran before, or has.
    RolledBack {
        /// What was attempted.
        attempt: Attempt,
        /// The boot in which it failed. In a later one, what runs has been restarted since.
        boot: String,
        /// How it failed.
        why: String,
        /// Whether it is tried again: the boot loader went back, which a power cut during a trial is enough for.
        again: bool,
    },
    /// It failed, what was before runs again, and the release is not tried again on this device.
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
    /// What ran when the attempt began; `None` if the installer does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Place>,
}

impl Attempt {
    /// Whether what runs now is what the attempt installed.
    ///
    /// An installer that does not tell takes effect at once, so it is.
    pub fn runs(&self, running: Option<&Place>) -> bool {
        self.before.is_none() || running != self.before.as_ref()
    }
}

/// What happens to an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The agent starts, or looks again at a device that may have restarted.
    Started {
        /// What runs, as the installer names it.
        running: Option<Place>,
        /// The boot that this is.
        boot: String,
        /// Seconds since the boot.
        uptime: u64,
    },
    /// It is time to ask the repository.
    Poll,
    /// There is nothing to install.
    Nothing,
    /// There is something to install, but the release's rules or the device's own say not now.
    Hold {
        /// Until when, if that is known.
        until: Option<Instant>,
        /// Why.
        why: String,
        /// The release that the device's own policy holds back, if that is the reason.
        release: Option<Release>,
    },
    /// A release is to be installed.
    Offered {
        /// What to attempt.
        attempt: Attempt,
    },
    /// Its artifacts are here.
    Downloaded,
    /// They are what is signed for.
    Verified {
        /// The boot that this is.
        boot: String,
    },
    /// They are in place.
    Installed {
        /// The boot that this is.
        boot: String,
    },
    /// Something went wrong that may go right another time.
    Failed {
        /// When to try again.
        until: Instant,
        /// What.
        why: String,
    },
    /// The installer says that the release will never do on this device.
    Rejected {
        /// Why.
        why: String,
    },
    /// The new system is well.
    Healthy,
    /// The new system is not well, or did not become so in time.
    Unhealthy {
        /// How that shows.
        why: String,
    },
    /// What was before runs again.
    Returned,
}

/// How much is tolerated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// How many boots in a row a release on trial may take to prove itself.
    pub boots: u32,
    /// How often a release may be begun to be installed without proving itself, because the power went, the boot loader went
    /// back, or the device hung, before the release is held to blame.
    pub attempts: u32,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { boots: 3, attempts: 3 }
    }
}

/// An event that does not apply to a state: a bug in whoever drives the machine, or a state file from elsewhere.
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
    /// [`InvalidTransition`] if the event does not apply; the machine stays as it is.
    pub fn next(&self, event: Event, tolerance: Tolerance) -> Result<Self, InvalidTransition> {
        use State as S;
        let invalid = InvalidTransition { state: self.state.name(), event: event.name() };
        let next = match (self.state.clone(), event) {
            (state, Event::Started { running, boot, uptime }) => {
                let now = Now { boot, uptime, attempts: self.begun.as_ref().map_or(0, |begun| begun.times) };
                return Ok(self.to(started(state, running.as_ref(), &now, tolerance)));
            }

            (S::Idle | S::Waiting { .. } | S::Confirmed { .. } | S::Quarantined { .. }, Event::Poll) => S::Checking,

            (S::Checking, Event::Nothing) => return Ok(Self { failures: 0, ..self.to(S::Idle) }),
            (S::Checking | S::Downloading { .. } | S::Verifying { .. }, Event::Hold { until, why, release }) => {
                return Ok(Self { failures: 0, ..self.to(S::Waiting { until, why, release }) });
            }
            (S::Checking, Event::Offered { attempt }) => match &self.begun {
                Some(begun) if begun.sequence == attempt.release.sequence && begun.times >= tolerance.attempts => {
                    let why = format!("it was begun {} times and never proved itself", begun.times);
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
                return Ok(Self { failures: 0, begun: None, state });
            }
            (state, Event::Failed { until, why }) if state.is_work() => {
                // An installation that ended with an error was not cut short.
                let ended = u32::from(matches!(state, S::Installing { .. }));
                let begun = self.begun.clone().map(|begun| Begun { times: begun.times.saturating_sub(ended), ..begun });
                let state = S::Waiting { until: Some(until), why, release: None };
                return Ok(Self { failures: self.failures.saturating_add(1), begun, state });
            }

            (S::Trial { attempt, .. }, Event::Healthy) => {
                return Ok(Self { begun: None, ..self.to(S::Confirmed { release: attempt.release }) });
            }
            (S::Rebooting { attempt, boot } | S::Trial { attempt, boot, .. }, Event::Unhealthy { why }) => {
                S::RolledBack { attempt, boot, why, again: false }
            }
            (S::RolledBack { why, again: true, .. }, Event::Returned) => {
                S::Waiting { until: None, why: format!("{why}; it is tried again"), release: None }
            }
            (S::RolledBack { attempt, why, .. }, Event::Returned) => {
                return Ok(Self { begun: None, ..self.to(S::Quarantined { release: attempt.release, why }) });
            }

            _ => return Err(invalid),
        };
        Ok(self.to(next))
    }

    fn to(&self, state: State) -> Self {
        Self { state, ..self.clone() }
    }
}

/// The present, as far as a stop can be judged by it.
struct Now {
    boot: String,
    uptime: u64,
    attempts: u32,
}

/// What a stop left behind, by what runs now.
fn started(state: State, running: Option<&Place>, now: &Now, tolerance: Tolerance) -> State {
    use State as S;
    let trial = |attempt, boots| S::Trial { attempt, boot: now.boot.clone(), boots, since: now.uptime };
    let went_back = |attempt, boot, how: &str| S::RolledBack {
        attempt,
        boot,
        why: format!("{how}: the boot loader went back to what was before"),
        again: now.attempts < tolerance.attempts,
    };
    match state {
        S::Checking | S::Downloading { .. } | S::Verifying { .. } => S::Idle,
        // Without telling the new system from the old there is no telling whether it was written whole.
        S::Installing { attempt, .. } if attempt.before.is_none() || !attempt.runs(running) => S::Idle,
        // What takes effect without a restart of the device may need one of its own.
        S::Installing { attempt, boot } if boot == now.boot => S::Rebooting { attempt, boot },
        S::Installing { attempt, .. } => trial(attempt, 1),
        S::Rebooting { attempt, .. } if attempt.runs(running) => trial(attempt, 1),
        S::Rebooting { attempt, boot } if boot == now.boot => S::Rebooting { attempt, boot },
        S::Rebooting { attempt, boot } => went_back(attempt, boot, "it did not start"),
        S::Trial { attempt, boot, .. } if !attempt.runs(running) => {
            went_back(attempt, boot, "it stopped during its trial")
        }
        // Where nothing can be undone there is nothing to count towards.
        S::Trial { attempt, boots, .. } if attempt.before.is_none() => {
            S::Trial { attempt, boot: now.boot.clone(), boots, since: now.uptime }
        }
        S::Trial { attempt, boot, boots, .. } if boot != now.boot => {
            if boots >= tolerance.boots {
                let why = format!("it restarted {boots} times without becoming well");
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

    /// Whether it must be written down. Checking need not be: stopped there, a device has only to check again.
    pub fn is_durable(&self) -> bool {
        !matches!(self, Self::Checking)
    }

    /// Whether a new release is in place that has not proved itself, or is being undone: no check happens until that is over.
    pub fn is_unsettled(&self) -> bool {
        matches!(self, Self::Rebooting { .. } | Self::Trial { .. } | Self::RolledBack { .. })
    }

    /// The release that it is about.
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

    /// The release that is not installed yet and will be, unless something holds it back.
    pub fn pending(&self) -> Option<&Release> {
        match self {
            Self::Waiting { .. } | Self::Downloading { .. } | Self::Verifying { .. } => self.release(),
            _ => None,
        }
    }

    /// Work that can fail without consequence for what runs.
    fn is_work(&self) -> bool {
        matches!(self, Self::Checking | Self::Downloading { .. } | Self::Verifying { .. } | Self::Installing { .. })
    }
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
            Self::Rejected { .. } => "rejected",
            Self::Healthy => "healthy",
            Self::Unhealthy { .. } => "unhealthy",
            Self::Returned => "returned",
        }
    }
}

#[cfg(test)]
mod tests;

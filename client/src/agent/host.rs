//! The system that an agent runs on.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::clock::BootInfo;
use crate::device::{Check, Release, Update};
use crate::state::State;
use crate::watch::Progress;
use tidegate_model::time::UtcTime;

/// The system beneath an agent.
pub trait Host {
    /// The current boot. The default is that of the operating system, as far as it tells.
    fn boot(&self) -> BootInfo {
        BootInfo::now()
    }

    /// Whether a step may begin now, such as because the user was asked. A step of which the device's own policy says that it waits is not
    /// asked about. The default lets everything begin.
    fn may(&mut self, _stage: Stage<'_>) -> Permission {
        Permission::Go
    }

    /// Records an event.
    fn note(&mut self, entry: &Entry<'_>);

    /// Records how far a download or installation is. [`ControlFlow::Break`] ends it with [`Error::Cancelled`](crate::Error::Cancelled).
    fn progress(&mut self, _progress: Progress<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// What an agent is about to begin.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Stage<'a> {
    /// The download of an update.
    Download(&'a Update),
    /// The installation of an update that was downloaded.
    Install(&'a Update),
    /// The restart into a release that was installed.
    Restart(&'a Release),
}

impl Stage<'_> {
    /// The release.
    pub fn release(&self) -> &Release {
        match self {
            Self::Download(update) | Self::Install(update) => &update.release,
            Self::Restart(release) => release,
        }
    }
}

/// Whether a step may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// It begins.
    Go,
    /// It is asked about again at the next check, or at this instant if it is earlier.
    NotNow {
        /// The instant.
        until: Option<UtcTime>,
    },
}

/// An event to record.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "event", content = "of", rename_all = "kebab-case")]
pub enum Entry<'a> {
    /// The result of a check.
    Checked(&'a Check),
    /// The new state of the update.
    Now(&'a State),
    /// The device, or the programs of a release, are being restarted.
    Restarting,
    /// A problem that does not end the update.
    Problem(&'a str),
}

/// A simulated system for tests. Clones share their state.
#[derive(Debug, Clone, Default)]
pub struct StubHost(Arc<Mutex<Stub>>);

#[derive(Debug, Default)]
struct Stub {
    boots: u64,
    uptime: u64,
    notes: Vec<String>,
}

impl StubHost {
    /// A simulated system in its first boot.
    pub fn new() -> Self {
        Self::default()
    }

    /// Restarts.
    pub fn restart(&self) {
        let mut stub = self.lock();
        stub.boots += 1;
        stub.uptime = 0;
    }

    /// Advances the uptime.
    pub fn pass(&self, seconds: u64) {
        self.lock().uptime += seconds;
    }

    /// The events since the last call, as JSON.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().notes)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Stub> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host for StubHost {
    fn boot(&self) -> BootInfo {
        let stub = self.lock();
        BootInfo { id: format!("boot {}", stub.boots), uptime: stub.uptime }
    }

    fn note(&mut self, entry: &Entry<'_>) {
        let text = serde_json::to_string(entry).unwrap_or_default();
        self.lock().notes.push(text);
    }
}

//! The system that an agent runs on.

use std::fs;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::device::Check;
use crate::state::State;
use crate::watch::Progress;

/// The system beneath an agent.
pub trait Host {
    /// The current boot.
    fn boot(&self) -> BootInfo;

    /// Records an event.
    fn note(&mut self, entry: &Entry<'_>);

    /// Records how far a download or installation is. [`ControlFlow::Break`] ends it with [`Error::Cancelled`](crate::Error::Cancelled).
    fn progress(&mut self, _progress: Progress<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// A boot of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootInfo {
    /// Its unique id.
    pub id: String,
    /// Seconds since it began.
    pub uptime: u64,
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

/// The running system, on Linux. On other systems restarts are not detected.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemHost;

impl SystemHost {
    /// The current boot.
    pub fn boot() -> BootInfo {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let id = read("/proc/sys/kernel/random/boot_id").trim().to_owned();
        let uptime = read("/proc/uptime").split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
        BootInfo { id: if id.is_empty() { "unknown".into() } else { id }, uptime }
    }
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

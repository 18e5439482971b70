//! What an agent runs on.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::device::Check;
use crate::download::Progress;
use crate::state::State;

/// The system beneath an agent.
pub trait Host {
    /// This boot.
    fn boot(&self) -> BootInfo;

    /// Takes note of what happened.
    fn note(&mut self, entry: &Entry<'_>);

    /// Takes note of how a download stands.
    fn progress(&mut self, artifact: &str, progress: Progress);
}

/// A boot of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootInfo {
    /// What tells it from others.
    pub id: String,
    /// Seconds since it began.
    pub uptime: u64,
}

/// Something that happened.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "event", content = "of", rename_all = "kebab-case")]
pub enum Entry<'a> {
    /// The repository was asked, and this is the decision.
    Checked(&'a Check),
    /// The update's state is now this.
    Now(&'a State),
    /// The device, or what a release consists of, is being restarted.
    Restarting,
    /// Something is not as it should be, and is not the end.
    Problem(&'a str),
}

/// The running system, on Linux. Elsewhere restarts are not noticed.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemHost;

impl SystemHost {
    /// This boot.
    pub fn boot() -> BootInfo {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let id = read("/proc/sys/kernel/random/boot_id").trim().to_owned();
        let uptime = read("/proc/uptime").split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
        BootInfo { id: if id.is_empty() { "unknown".into() } else { id }, uptime }
    }
}

/// A system that restarts and gets older when it is told to, and remembers what was noted. Clones are the same system. For tests.
#[derive(Debug, Clone, Default)]
pub struct StubHost(Arc<Mutex<Stub>>);

#[derive(Debug, Default)]
struct Stub {
    boots: u64,
    uptime: u64,
    notes: Vec<String>,
}

impl StubHost {
    /// A system in its first boot.
    pub fn new() -> Self {
        Self::default()
    }

    /// Restarts.
    pub fn restart(&self) {
        let mut stub = self.lock();
        stub.boots += 1;
        stub.uptime = 0;
    }

    /// Lets time pass.
    pub fn pass(&self, seconds: u64) {
        self.lock().uptime += seconds;
    }

    /// What was noted since the last call, as JSON.
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

    fn progress(&mut self, _: &str, _: Progress) {}
}

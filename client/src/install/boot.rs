//! The boot loader's choice between two slots.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::command::{Command, CommandError};
use crate::disk::Disk;
use crate::watch::Cancel;
use tidegate_model::text::printable;

/// One of two slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The slot called `a` or `b`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "a" => Some(Self::A),
            "b" => Some(Self::B),
            _ => None,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

/// Access to the boot loader.
pub trait Boot {
    /// The slot that runs now.
    ///
    /// # Errors
    ///
    /// [`BootError`] if the boot loader cannot be read.
    fn running(&mut self) -> Result<Slot, BootError>;

    /// Makes `slot` start at the next restart. Later restarts start the [kept](Self::keep) slot, unless `slot` is kept by
    /// then. (A boot loader may allow it a few restarts.)
    ///
    /// # Errors
    ///
    /// [`BootError`] if the boot loader cannot be written.
    fn attempt(&mut self, slot: Slot) -> Result<(), BootError>;

    /// Makes `slot` start at every restart from now on.
    ///
    /// # Errors
    ///
    /// [`BootError`] if the boot loader cannot be written.
    fn keep(&mut self, slot: Slot) -> Result<(), BootError>;

    /// Makes `slot` start no more, not even if the other one does not start, until it is [attempted](Self::attempt) or kept again.
    ///
    /// `false`, the default, is for boot loaders that cannot promise this.
    ///
    /// # Errors
    ///
    /// [`BootError`] if the boot loader cannot be written.
    fn invalidate(&mut self, slot: Slot) -> Result<bool, BootError> {
        let _ = slot;
        Ok(false)
    }

    /// Tells it the token that ends what it does.
    fn cancelled_by(&mut self, _cancel: &Cancel) {}
}

/// Why the boot loader could not be accessed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The hook could not be run, or failed.
    #[error("the boot hook failed: {0}")]
    Hook(#[from] CommandError),
    /// The hook named no slot, but printed something that begins so.
    #[error("the boot hook must print a or b for `running`, but printed {0:?}")]
    NoSlot(String),
}

/// A program that controls the boot loader, for example through `fw_setenv` or `grub-editenv`.
///
/// | called with | it |
/// |---|---|
/// | `running` | prints `a` or `b`: the slot that runs now |
/// | `try a`, `try b` | makes that slot start at the next restart, on trial |
/// | `keep a`, `keep b` | makes that slot start from now on |
/// | `invalid a`, `invalid b` | makes that slot start no more, until `try` or `keep` names it again |
///
/// A hook that fails for `invalid` cannot do this: releases are then downloaded before the slot is written. Each call must be atomic, and durable when the program ends with exit code 0.
#[derive(Debug, Clone)]
pub struct BootHook(Command);

impl BootHook {
    /// A hook: a program with its first arguments and the time limit of a call.
    pub fn new(program: Command) -> Self {
        Self(program)
    }

    /// The same, with calls counted among the steps of this disk.
    #[must_use]
    pub fn on(self, disk: Disk) -> Self {
        Self(self.0.on(disk))
    }

    fn call(&self, arguments: &[&str]) -> Result<String, CommandError> {
        self.0.clone().arguments(arguments).run()?.success()
    }
}

impl Boot for BootHook {
    fn running(&mut self) -> Result<Slot, BootError> {
        let said = self.call(&["running"])?;
        Slot::named(said.trim()).ok_or_else(|| BootError::NoSlot(printable(said.trim(), 40)))
    }

    fn attempt(&mut self, slot: Slot) -> Result<(), BootError> {
        self.call(&["try", &slot.to_string()])?;
        Ok(())
    }

    fn keep(&mut self, slot: Slot) -> Result<(), BootError> {
        self.call(&["keep", &slot.to_string()])?;
        Ok(())
    }

    fn cancelled_by(&mut self, cancel: &Cancel) {
        self.0 = self.0.clone().until(cancel);
    }

    fn invalidate(&mut self, slot: Slot) -> Result<bool, BootError> {
        let ran = self.0.clone().arguments(&["invalid", &slot.to_string()]).run()?;
        match ran.code {
            // Killed: it may know the call.
            None => ran.success().map(|_| false).map_err(Into::into),
            code => Ok(code == Some(0)),
        }
    }
}

/// A simulated boot loader for tests. Clones share their state.
#[derive(Debug, Clone)]
pub struct StubBoot {
    state: Arc<Mutex<StubState>>,
    disk: Disk,
}

#[derive(Debug)]
struct StubState {
    running: Slot,
    kept: Slot,
    attempted: Option<Slot>,
    invalid: Option<Slot>,
}

impl StubBoot {
    /// A boot loader that has started slot a and keeps it.
    pub fn new() -> Self {
        let state = StubState { running: Slot::A, kept: Slot::A, attempted: None, invalid: None };
        Self { state: Arc::new(Mutex::new(state)), disk: Disk::new() }
    }

    /// The same boot loader, with calls counted among the steps of this disk.
    #[must_use]
    pub fn on(&self, disk: Disk) -> Self {
        Self { disk, ..self.clone() }
    }

    /// Restarts the device. Returns the slot that starts.
    pub fn restart(&self) -> Slot {
        self.with(|state| {
            state.running = state.attempted.take().unwrap_or(state.kept);
            state.running
        })
    }

    /// The slot that a restart would start.
    pub fn next(&self) -> Slot {
        self.with(|state| state.attempted.unwrap_or(state.kept))
    }

    /// The kept slot.
    pub fn kept(&self) -> Slot {
        self.with(|state| state.kept)
    }

    /// The slot that must not start.
    pub fn invalid(&self) -> Option<Slot> {
        self.with(|state| state.invalid)
    }

    fn with<T>(&self, act: impl FnOnce(&mut StubState) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn call<T>(&self, act: impl FnOnce(&mut StubState) -> T) -> Result<T, BootError> {
        self.disk.call().map_err(CommandError::stopped)?;
        Ok(self.with(act))
    }
}

impl Default for StubBoot {
    fn default() -> Self {
        Self::new()
    }
}

impl Boot for StubBoot {
    fn running(&mut self) -> Result<Slot, BootError> {
        self.call(|state| state.running)
    }

    fn attempt(&mut self, slot: Slot) -> Result<(), BootError> {
        self.call(|state| {
            state.attempted = Some(slot);
            state.invalid.take_if(|invalid| *invalid == slot);
        })
    }

    fn keep(&mut self, slot: Slot) -> Result<(), BootError> {
        self.call(|state| {
            (state.kept, state.attempted) = (slot, None);
            state.invalid.take_if(|invalid| *invalid == slot);
        })
    }

    fn invalidate(&mut self, slot: Slot) -> Result<bool, BootError> {
        self.call(|state| state.invalid = Some(slot))?;
        Ok(true)
    }
}

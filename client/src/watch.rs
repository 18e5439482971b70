//! Long steps: how far they are, and how to end them.

use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

/// What a long step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Phase {
    /// An artifact is downloaded, or made in its slot of pieces.
    Download,
    /// An artifact is written where it is installed.
    Install,
    /// An artifact that was written is read back.
    ReadBack,
}

/// How far a long step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// What is done.
    pub phase: Phase,
    /// The name of the artifact that it is done with.
    pub name: &'a str,
    /// The bytes that are done.
    pub done: u64,
    /// All bytes.
    pub total: u64,
}

impl<'a> Progress<'a> {
    /// `done` of `total` bytes of an artifact.
    pub fn new(phase: Phase, name: &'a str, done: u64, total: u64) -> Self {
        Self { phase, name, done, total }
    }

    /// How much is done, in percent; 100 only at the end.
    pub fn percent(&self) -> u8 {
        let share = u128::from(self.done).saturating_mul(100).checked_div(u128::from(self.total));
        share.map_or(100, |share| u8::try_from(share).unwrap_or(100).min(100))
    }
}

/// Ends what a device does, from another thread, within a second. Clones are the same token.
///
/// What was fetched is kept, and no release is blamed. Until [`clear`](Self::clear), whatever uses the token ends at once.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<(Mutex<bool>, Condvar)>);

impl Cancel {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends what uses this token.
    pub fn cancel(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Lets it begin again.
    pub fn clear(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// Whether it is cancelled.
    pub fn is_cancelled(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error if it is cancelled.
    ///
    /// # Errors
    ///
    /// [`Cancelled`].
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// Sleeps, unless it is or becomes cancelled.
    ///
    /// # Errors
    ///
    /// [`Cancelled`].
    pub fn sleep(&self, time: Duration) -> Result<(), Cancelled> {
        let (lock, changed) = &*self.0;
        let cancelled = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(cancelled, time, |cancelled| !*cancelled);
        let (cancelled, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *cancelled { Err(Cancelled) } else { Ok(()) }
    }
}

/// The caller ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cancelled; what was fetched is kept")]
pub struct Cancelled;

/// What a long step tells its caller while it works: how far it is, to which the caller answers whether it goes on.
pub struct Watch<'a> {
    progress: &'a mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    cancel: Cancel,
}

impl<'a> Watch<'a> {
    /// A watch that tells `progress`, and ends with this token.
    pub fn new(progress: &'a mut dyn FnMut(Progress<'_>) -> ControlFlow<()>, cancel: &Cancel) -> Self {
        Self { progress, cancel: cancel.clone() }
    }

    /// Tells how far it is. Called at least once a second.
    ///
    /// # Errors
    ///
    /// [`Cancelled`] if the caller ended it: the step ends as after any other error.
    pub fn at(&mut self, progress: Progress<'_>) -> Result<(), Cancelled> {
        self.cancel.check()?;
        match (self.progress)(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Cancelled),
        }
    }

    /// The token that ends it, for what waits.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("cancel", &self.cancel).finish_non_exhaustive()
    }
}

/// A progress that is not shown, and goes on.
pub fn unwatched(_: Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn percent_is_100_only_at_the_end() {
        let percent = |done, total| Progress::new(Phase::Download, "a", done, total).percent();
        assert_eq!(
            [percent(0, 3), percent(1, 3), percent(299, 300), percent(3, 3), percent(0, 0)],
            [0, 33, 99, 100, 100]
        );
        assert_eq!([percent(u64::MAX - 1, u64::MAX), percent(u64::MAX, 1)], [99, 100]);
    }

    #[test]
    fn a_sleep_ends_when_it_is_cancelled() {
        let cancel = Cancel::new();
        assert_eq!(cancel.sleep(Duration::from_millis(1)), Ok(()));
        let (other, started) = (cancel.clone(), Instant::now());
        let thread = std::thread::spawn(move || other.sleep(Duration::from_secs(60)));
        cancel.cancel();
        assert_eq!(thread.join().unwrap(), Err(Cancelled));
        assert!(started.elapsed() < Duration::from_secs(30));
        assert_eq!((cancel.check(), cancel.sleep(Duration::ZERO)), (Err(Cancelled), Err(Cancelled)));
        cancel.clear();
        assert_eq!(cancel.check(), Ok(()));
    }
}

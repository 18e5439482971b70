//! Wall time and monotonic time, both injected.
//!
//! Wall time decides whether metadata has expired and whether a ramp has reached a device; monotonic time decides whether
//! a download is too slow. A device's wall clock may be wrong in three ways, and each behaves as follows:
//!
//! - *No clock, or one that starts in 1970.* Time is at least [`BUILT`] (through [`FlooredClock`]) and at least the newest
//!   signed time in trusted metadata ([`TrustedSet::now`](tidegate_tuf::TrustedSet::now)), so metadata that had expired by then stays
//!   expired. Until the clock is set, a freeze (TUF 1.5.2) that began after those instants is not detected.
//! - *A clock that is behind.* The same floors apply.
//! - *A clock that is ahead, such as one in 2099.* Metadata appears expired and is refused; the installed release stays. The error
//!   names both times, which points to the clock. Nothing is stored, so correcting the clock is enough.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

/// A wall clock.
pub trait Clock {
    /// The current time, to the second.
    fn now(&self) -> DateTime<Utc>;
}

/// A monotonic clock with an arbitrary origin.
pub trait Monotonic: Send + Sync {
    /// Time since the origin.
    fn elapsed(&self) -> Duration;
}

/// The operating system's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic origin is now.
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now().trunc_subsecs(0)
    }
}

impl Monotonic for SystemClock {
    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// No device runs this code before this instant: 2026-11-01, or the build's `SOURCE_DATE_EPOCH` if it was set.
pub const BUILT: DateTime<Utc> = match DateTime::from_timestamp(built(), 0) {
    Some(instant) => instant,
    None => DateTime::UNIX_EPOCH,
};

const fn built() -> i64 {
    const WRITTEN: i64 = 1_793_491_200;
    let Some(epoch) = option_env!("SOURCE_DATE_EPOCH") else { return WRITTEN };
    let digits = epoch.as_bytes();
    // More digits would exceed the range of chrono.
    if digits.is_empty() || digits.len() > 11 {
        return WRITTEN;
    }
    let (mut seconds, mut i) = (0_i64, 0);
    while i < digits.len() {
        if !digits[i].is_ascii_digit() {
            return WRITTEN;
        }
        seconds = seconds * 10 + (digits[i] - b'0') as i64;
        i += 1;
    }
    seconds
}

/// A clock that never returns a time before a minimum.
#[derive(Debug, Clone, Copy)]
pub struct FlooredClock<C> {
    clock: C,
    floor: DateTime<Utc>,
}

impl<C> FlooredClock<C> {
    /// Wraps `clock`. The usual minimum is [`BUILT`].
    pub fn new(clock: C, floor: DateTime<Utc>) -> Self {
        Self { clock, floor }
    }
}

impl<C: Clock> Clock for FlooredClock<C> {
    fn now(&self) -> DateTime<Utc> {
        self.clock.now().max(self.floor)
    }
}

impl<T: Clock + ?Sized> Clock for Arc<T> {
    fn now(&self) -> DateTime<Utc> {
        (**self).now()
    }
}

impl<T: Clock + ?Sized> Clock for Box<T> {
    fn now(&self) -> DateTime<Utc> {
        (**self).now()
    }
}

/// A clock that tests set and advance. Clones share their time.
#[derive(Debug, Clone)]
pub struct StubClock(Arc<Mutex<(DateTime<Utc>, Duration)>>);

impl StubClock {
    /// A clock at `now`, with a monotonic time of zero.
    pub fn at(now: DateTime<Utc>) -> Self {
        Self(Arc::new(Mutex::new((now.trunc_subsecs(0), Duration::ZERO))))
    }

    /// Sets the wall time. The monotonic time does not change.
    pub fn set(&self, now: DateTime<Utc>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = now.trunc_subsecs(0);
    }

    /// Advances both times.
    pub fn advance(&self, by: Duration) {
        let mut time = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        time.1 = time.1.saturating_add(by);
        if let Some(now) = TimeDelta::from_std(by).ok().and_then(|by| time.0.checked_add_signed(by)) {
            time.0 = now;
        }
    }
}

impl Clock for StubClock {
    fn now(&self) -> DateTime<Utc> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.trunc_subsecs(0)
    }
}

impl Monotonic for StubClock {
    fn elapsed(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_holds_and_only_the_floor() {
        let stub = StubClock::at(DateTime::UNIX_EPOCH);
        let floored = FlooredClock::new(stub.clone(), BUILT);
        assert_eq!(floored.now(), BUILT);
        stub.set(BUILT + TimeDelta::days(1));
        assert_eq!(floored.now(), BUILT + TimeDelta::days(1));
    }

    #[test]
    fn the_stub_advances_both_times() {
        let stub = StubClock::at(BUILT);
        stub.advance(Duration::from_millis(1500));
        assert_eq!(stub.now(), BUILT + TimeDelta::seconds(1));
        assert_eq!(stub.elapsed(), Duration::from_millis(1500));
        stub.advance(Duration::from_millis(500));
        assert_eq!(stub.now(), BUILT + TimeDelta::seconds(2));
    }

    #[test]
    fn the_system_clock_tells_whole_seconds() {
        assert_eq!(SystemClock::new().now().timestamp_subsec_nanos(), 0);
    }
}

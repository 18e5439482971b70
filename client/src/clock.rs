//! Wall time and monotonic time, both injected.
//!
//! Wall time decides whether metadata has expired and whether a ramp has reached a device; monotonic time decides whether
//! a download is too slow, and when a decision is too old.
//!
//! A device knows two times: its clock's, and the newest signed time of the metadata in force
//! ([`TrustedSet::now`](tidegate_tuf::TrustedSet::now)). Whoever holds the timestamp key chooses the second one.
//!
//! - *What opens* (a ramp, a maintenance window, the end of a deferral) goes by the clock, or by signed time if the clock is not plausible. A
//!   window ends by the time that opened it.
//! - *What closes* (expiry, `until`) goes by the later of both.
//!
//! A clock is not plausible before [`BUILT`] (through [`FlooredClock`]), or before the time that the device remembers: the newest
//! signed time that a plausible clock had reached when it was trusted. So:
//!
//! - *No clock, or one that starts in 1970.* Everything goes by signed time, which advances with each new timestamp. A freeze (TUF
//!   1.5.2) is not detected until the clock is set. A deferral ends at once.
//! - *A clock that is behind*, but after both minimums. Ramps open late; what signed time shows to have expired has expired.
//! - *A clock that is ahead, such as one in 2099.* Metadata appears expired and is refused; the installed release stays. The error
//!   names both times, which points to the clock. Nothing is stored, so correcting the clock is enough.
//!
//! Signed time is that of the metadata in force only: a timestamp from the future has no effect once a newer one has replaced it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

/// A wall clock, with a monotonic one.
pub trait Clock: Monotonic {
    /// The current time, to the second.
    fn now(&self) -> DateTime<Utc>;

    /// Whether [`now`](Self::now) is the clock's own time, not a minimum in its place.
    fn is_set(&self) -> bool {
        true
    }
}

/// A monotonic clock with an arbitrary origin.
pub trait Monotonic: Send + Sync {
    /// Time since the origin.
    fn elapsed(&self) -> Duration;
}

/// A boot of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootInfo {
    /// Its unique id.
    pub id: String,
    /// Seconds since it began.
    pub uptime: u64,
}

impl BootInfo {
    /// The current boot, on Linux. On other systems restarts are not detected.
    pub fn now() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let id = read("/proc/sys/kernel/random/boot_id").trim().to_owned();
        let uptime = read("/proc/uptime").split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
        Self { id: if id.is_empty() { "unknown".into() } else { id }, uptime }
    }
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

/// A clock that never returns a time before a minimum, and is not set before it.
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

    fn is_set(&self) -> bool {
        self.clock.is_set() && self.clock.now() >= self.floor
    }
}

impl<C: Monotonic> Monotonic for FlooredClock<C> {
    fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }
}

impl<T: Clock + ?Sized> Clock for Box<T> {
    fn now(&self) -> DateTime<Utc> {
        (**self).now()
    }

    fn is_set(&self) -> bool {
        (**self).is_set()
    }
}

impl<T: Monotonic + ?Sized> Monotonic for Box<T> {
    fn elapsed(&self) -> Duration {
        (**self).elapsed()
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
        assert_eq!((floored.now(), floored.is_set()), (BUILT, false));
        stub.set(BUILT + TimeDelta::days(1));
        assert_eq!((floored.now(), floored.is_set()), (BUILT + TimeDelta::days(1), true));
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

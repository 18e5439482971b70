//! Limits on slow servers.
//!
//! Two limits work together. A [`Meter`] counts the bytes of a body over a sliding window. It is checked whenever a read
//! returns, so each read needs its own limit: [`Patience`] sets it at the socket. Otherwise a server could
//! block one read for hours by sending a TLS record or a chunk header byte by byte, within the timeout of each
//! single socket read.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::unversioned::transport::NextTimeout;
use ureq::unversioned::transport::time::Duration as Bound;

use crate::clock::Monotonic;
use crate::fetch::error::FetchError;
use crate::watch::{Cancel, Cancelled};

/// Counts bytes over a sliding window of time.
#[derive(Debug)]
pub(super) struct Meter {
    window: Duration,
    least: u64,
    elapsed: Duration,
    /// Time and bytes of recent reads, those close together merged, the oldest first.
    recent: VecDeque<(Duration, u64)>,
}

impl Meter {
    pub(super) fn new(window: Duration, least: u64) -> Self {
        Self { window, least, elapsed: Duration::ZERO, recent: VecDeque::new() }
    }

    /// Records that `bytes` arrived after `waited`; returns whether that is fast enough.
    fn note(&mut self, waited: Duration, bytes: u64) -> bool {
        self.elapsed += waited;
        match self.recent.back_mut() {
            Some((since, sum)) if self.elapsed.saturating_sub(*since) < self.window / 32 => *sum += bytes,
            _ => self.recent.push_back((self.elapsed, bytes)),
        }
        let start = self.elapsed.saturating_sub(self.window);
        while self.recent.front().is_some_and(|(since, _)| *since < start) {
            self.recent.pop_front();
        }
        let sum: u64 = self.recent.iter().map(|(_, bytes)| bytes).sum();
        self.elapsed < self.window || sum >= self.least
    }
}

/// The time left for the current read, and what ends it, shared between a body and its socket.
#[derive(Debug, Clone, Default)]
pub(super) struct Patience(Arc<Mutex<Limits>>);

#[derive(Debug, Default)]
struct Limits {
    deadline: Option<Instant>,
    cancel: Option<Cancel>,
}

/// How long a call may block where it can be cancelled.
const SLICE: Duration = Duration::from_millis(200);

impl Patience {
    /// Starts a read with this time limit.
    pub(super) fn renew(&self, time: Duration) {
        self.lock().deadline = Instant::now().checked_add(time);
    }

    /// Ends the reads from now on with this token.
    pub(super) fn until(&self, cancel: Option<&Cancel>) {
        self.lock().cancel = cancel.cloned();
    }

    /// An error if the caller cancelled.
    pub(super) fn check(&self) -> Result<(), Cancelled> {
        self.lock().cancel.as_ref().map_or(Ok(()), Cancel::check)
    }

    /// How long the next call of a wait that has this limit, and began then, may block.
    pub(super) fn slice(&self, timeout: &NextTimeout, started: Instant) -> Result<Duration, Error> {
        let limits = self.lock();
        limits.cancel.as_ref().map_or(Ok(()), Cancel::check).map_err(|e| io::Error::other(FetchError::from(e)))?;
        let now = Instant::now();
        let own = limits.deadline.map(|deadline| deadline.saturating_duration_since(now));
        let left = match timeout.after {
            Bound::Exact(time) => Some(time.saturating_sub(now.saturating_duration_since(started))),
            Bound::NotHappening => None,
        };
        let left = own.into_iter().chain(left).min();
        let most = limits.cancel.as_ref().map_or(HOUR, |_| SLICE);
        match left {
            Some(left) if left.is_zero() => Err(Error::Timeout(timeout.reason)),
            left => Ok(left.unwrap_or(HOUR).min(most)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Limits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a call blocks that nothing limits, before it is made again.
const HOUR: Duration = Duration::from_secs(3600);

/// A body that fails if it is too slow or does not end.
pub(super) struct Paced {
    reader: ureq::BodyReader<'static>,
    meter: Meter,
    clock: Arc<dyn Monotonic>,
    patience: Patience,
    url: String,
    left: u64,
    limit: u64,
}

impl Paced {
    pub(super) fn new(
        reader: ureq::BodyReader<'static>,
        meter: Meter,
        clock: Arc<dyn Monotonic>,
        patience: Patience,
        url: &str,
        limit: u64,
    ) -> Self {
        Self { reader, meter, clock, patience, url: url.to_owned(), left: limit, limit }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// How many bytes were received.
    pub(super) fn received(&self) -> u64 {
        self.limit.saturating_sub(self.left)
    }

    fn too_slow(&self) -> io::Error {
        io::Error::other(FetchError::TooSlow {
            url: self.url.clone(),
            least: self.meter.least,
            seconds: self.meter.window.as_secs(),
        })
    }
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.patience.renew(self.meter.window);
        let before = self.clock.elapsed();
        let count = match self.reader.read(buffer) {
            Ok(count) => count,
            Err(e) => {
                self.patience.check().map_err(|e| io::Error::other(FetchError::from(e)))?;
                return Err(if is_timeout(&e) { self.too_slow() } else { e });
            }
        };
        // Only time spent waiting for the peer counts, not what happens between reads.
        let waited = self.clock.elapsed().saturating_sub(before);
        if count == 0 {
            return Ok(0);
        }
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other(FetchError::TooLong { url: self.url.clone(), limit: self.limit }))?;
        if self.meter.note(waited, count as u64) { Ok(count) } else { Err(self.too_slow()) }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
        || error.get_ref().and_then(|e| e.downcast_ref()).is_some_and(|e| matches!(e, Error::Timeout(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_window_slides() {
        let mut meter = Meter::new(SECOND * 10, 100);
        // Nothing is checked before a full window has passed.
        assert!((0..9).all(|_| meter.note(SECOND, 1)));
        // A burst allows one window's time, not more.
        assert!(meter.note(SECOND, 1000));
        assert!((0..10).all(|_| meter.note(SECOND, 1)));
        assert!(!meter.note(SECOND, 1));
    }

    #[test]
    fn a_steady_pace_at_the_floor_is_enough() {
        let mut meter = Meter::new(SECOND * 10, 100);
        assert!((0..1000).all(|_| meter.note(SECOND, 10)));
        assert!(meter.recent.len() < 40);
        let mut meter = Meter::new(SECOND * 10, 100);
        assert!(!(0..1000).all(|_| meter.note(SECOND, 8)));
    }
}

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
use ureq::unversioned::transport::time::Duration as Bound;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use crate::clock::Monotonic;
use crate::fetch::error::FetchError;

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

/// The time left for the current read, shared between a body and its socket.
#[derive(Debug, Clone)]
pub(super) struct Patience(Arc<Mutex<Option<Instant>>>);

impl Patience {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }

    /// Starts a read with this time limit.
    pub(super) fn renew(&self, time: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_add(time);
    }

    fn left(&self) -> Option<Duration> {
        let deadline = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

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
            Err(e) if is_timeout(&e) => return Err(self.too_slow()),
            Err(e) => return Err(e),
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

/// Inserts [`Patience`] above the socket.
#[derive(Debug)]
pub(super) struct PatientConnector(pub(super) Patience);

impl<In: Transport> Connector<In> for PatientConnector {
    type Out = PatientTransport<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|socket| PatientTransport { socket, patience: self.0.clone() }))
    }
}

#[derive(Debug)]
pub(super) struct PatientTransport<In> {
    socket: In,
    patience: Patience,
}

impl<In> PatientTransport<In> {
    fn bounded(&self, timeout: NextTimeout) -> Result<NextTimeout, Error> {
        let Some(left) = self.patience.left() else { return Ok(timeout) };
        if left.is_zero() {
            return Err(Error::Timeout(timeout.reason));
        }
        Ok(NextTimeout { after: timeout.after.min(Bound::Exact(left)), ..timeout })
    }
}

impl<In: Transport> Transport for PatientTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.socket.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = self.bounded(timeout)?;
        self.socket.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = self.bounded(timeout)?;
        self.socket.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.socket.is_open()
    }

    fn is_tls(&self) -> bool {
        self.socket.is_tls()
    }
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

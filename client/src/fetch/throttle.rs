//! Bounds on what a device may fetch: how fast, and how much.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use chrono::TimeDelta;
use serde::Serialize;

use super::error::FetchError;
use super::request::{Body, Fetch, Kind, Reply, Request};
use crate::clock::{Clock, Monotonic, SystemClock};
use crate::disk::{Disk, read_regular};
use tidegate_model::time::{self, UtcTime};
use tidegate_tuf::fields::Fields;
use tidegate_tuf::json;

/// How many bytes may come before they are written down.
const UNWRITTEN: u64 = 1_000_000;

/// Fetches through another, at most so fast, and at most so much.
pub struct Throttle<F> {
    fetch: F,
    rate: Option<u64>,
    allowance: Option<Allowance>,
    clock: Arc<dyn Monotonic>,
    sleep: fn(Duration),
    /// When the next bytes of targets are due: files that come in many ranges keep to the rate, too.
    due: Arc<Mutex<Duration>>,
}

impl<F: std::fmt::Debug> std::fmt::Debug for Throttle<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Throttle").field("fetch", &self.fetch).field("rate", &self.rate).finish_non_exhaustive()
    }
}

impl<F: Fetch> Throttle<F> {
    /// A fetcher without limits.
    pub fn new(fetch: F) -> Self {
        Self {
            fetch,
            rate: None,
            allowance: None,
            clock: Arc::new(SystemClock::new()),
            sleep: thread::sleep,
            due: Arc::default(),
        }
    }

    /// The same, at most this many bytes per second for targets together, and for each other file.
    #[must_use]
    pub fn rate(self, bytes_per_second: u64) -> Self {
        Self { rate: Some(bytes_per_second.max(1)), ..self }
    }

    /// The same, within this allowance. Metadata counts, but is fetched even when the allowance is used up, because it is small
    /// and announces security releases.
    #[must_use]
    pub fn allowance(self, allowance: Allowance) -> Self {
        Self { allowance: Some(allowance), ..self }
    }

    /// The same, with this clock and this function to sleep.
    #[must_use]
    pub fn time(self, clock: Arc<dyn Monotonic>, sleep: fn(Duration)) -> Self {
        Self { clock, sleep, ..self }
    }
}

impl<F: Fetch> Fetch for Throttle<F> {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        if let Some(allowance) = self.allowance.as_ref().filter(|_| request.kind == Kind::Target) {
            allowance.must_last(request.url)?;
        }
        let body = match self.fetch.fetch(request)? {
            Reply::Found(body) => body,
            other => return Ok(other),
        };
        let (offset, head) = (body.offset(), body.head().clone());
        let reader = Throttled {
            body,
            url: request.url.to_owned(),
            kind: request.kind,
            rate: self.rate,
            allowance: self.allowance.clone(),
            clock: self.clock.clone(),
            sleep: self.sleep,
            start: self.clock.elapsed().max(if request.kind == Kind::Target {
                due_of(&self.due)
            } else {
                Duration::ZERO
            }),
            read: 0,
            due: self.due.clone(),
        };
        Ok(Reply::Found(Body::new(Box::new(reader), request, offset).with_head(head)))
    }
}

struct Throttled {
    body: Body,
    url: String,
    kind: Kind,
    rate: Option<u64>,
    allowance: Option<Allowance>,
    clock: Arc<dyn Monotonic>,
    sleep: fn(Duration),
    start: Duration,
    read: u64,
    due: Arc<Mutex<Duration>>,
}

fn due_of(due: &Mutex<Duration>) -> Duration {
    *due.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Read for Throttled {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(rate) = self.rate {
            // The bytes read so far are due now or later.
            let due = Duration::from_secs(self.read / rate)
                + Duration::from_millis((self.read % rate).saturating_mul(1000) / rate);
            let due = self.start.saturating_add(due);
            let early = due.saturating_sub(self.clock.elapsed());
            if !early.is_zero() {
                (self.sleep)(early);
            }
        }
        // At most a quarter of a second's bytes at once, so that other users get their share of the network.
        let most = self.rate.map_or(usize::MAX, |rate| usize::try_from(rate / 4).unwrap_or(usize::MAX).max(1));
        let room = buffer.len().min(most);
        let count = self.body.read(buffer.get_mut(..room).unwrap_or_default()).map_err(io::Error::other)?;
        self.read = self.read.saturating_add(count as u64);
        if let Some(rate) = self.rate.filter(|_| self.kind == Kind::Target) {
            let took = Duration::from_millis(self.read.saturating_mul(1000) / rate);
            *self.due.lock().unwrap_or_else(PoisonError::into_inner) = self.start.saturating_add(took);
        }
        if let Some(allowance) = &self.allowance {
            allowance.spend(count as u64);
            if self.kind == Kind::Target && count > 0 {
                allowance.must_last(&self.url).map_err(io::Error::other)?;
            }
        }
        Ok(count)
    }
}

/// How many bytes a device may fetch in a stretch of time. What was fetched is kept in a file. Clones share it.
#[derive(Clone)]
pub struct Allowance(Arc<Inner>);

impl std::fmt::Debug for Allowance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Allowance").field("bytes", &self.0.bytes).field("per", &self.0.per).finish_non_exhaustive()
    }
}

struct Inner {
    bytes: u64,
    per: TimeDelta,
    path: PathBuf,
    disk: Disk,
    clock: Box<dyn Clock + Send + Sync>,
    spent: Mutex<(Spent, u64)>,
}

/// What was fetched, since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Spent {
    #[serde(serialize_with = "time::text::serialize")]
    since: UtcTime,
    bytes: u64,
}

impl Spent {
    fn load(path: &Path) -> Option<Self> {
        let value = json::parse(&read_regular(path, 4096).ok()?).ok()?;
        let mut fields = Fields::of(&value, "").ok()?;
        Some(Self { since: fields.text_as("since", time::parse).ok()?, bytes: fields.u64("bytes").ok()? })
    }
}

impl Allowance {
    /// This many bytes per period, counted in this file. A missing or damaged file starts a new period.
    pub fn new(bytes: u64, per: TimeDelta, path: PathBuf, clock: impl Clock + Send + Sync + 'static) -> Self {
        let spent = Spent::load(&path).unwrap_or(Spent { since: clock.now(), bytes: 0 });
        let spent = Mutex::new((spent, 0));
        Self(Arc::new(Inner { bytes, per, path, disk: Disk::new(), clock: Box::new(clock), spent }))
    }

    /// The remaining bytes of the current period.
    pub fn left(&self) -> u64 {
        self.with(|spent, _| self.0.bytes.saturating_sub(spent.bytes))
    }

    fn must_last(&self, url: &str) -> Result<(), FetchError> {
        let until = self.with(|spent, _| (spent.bytes >= self.0.bytes).then(|| spent.since + self.0.per));
        match until {
            None => Ok(()),
            Some(until) => {
                Err(FetchError::Allowance { url: url.to_owned(), bytes: self.0.bytes, until: time::format(until) })
            }
        }
    }

    fn spend(&self, bytes: u64) {
        self.with(|spent, unwritten| {
            spent.bytes = spent.bytes.saturating_add(bytes);
            *unwritten = unwritten.saturating_add(bytes);
            // At the end of a file, and sometimes in between.
            if (bytes == 0 && *unwritten > 0) || *unwritten >= UNWRITTEN {
                *unwritten = 0;
                // If it cannot be written, it is counted in memory.
                let _ = serde_json::to_vec(&*spent).map(|bytes| self.0.disk.replace(&self.0.path, &bytes));
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Spent, &mut u64) -> T) -> T {
        let mut guard = self.0.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let (spent, unwritten) = &mut *guard;
        let now = self.0.clock.now();
        // Also when the clock was set back by more than a period.
        if now.signed_duration_since(spent.since).abs() >= self.0.per {
            *spent = Spent { since: now, bytes: 0 };
        }
        act(spent, unwritten)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let (spent, unwritten) = *self.spent.get_mut().unwrap_or_else(PoisonError::into_inner);
        if unwritten > 0 {
            let _ = serde_json::to_vec(&spent).map(|bytes| self.disk.replace(&self.path, &bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::clock::{BUILT, StubClock};
    use crate::fetch::MemoryFetch;

    const URL: &str = "test:/file";

    fn read(fetch: &impl Fetch, request: &Request<'_>) -> Result<Vec<u8>, FetchError> {
        match fetch.fetch(request)? {
            Reply::Found(body) => body.into_bytes(),
            other => panic!("{other:?}"),
        }
    }

    fn memory(length: usize) -> MemoryFetch {
        let fetch = MemoryFetch::new();
        fetch.put(URL, vec![7; length]);
        fetch
    }

    #[test]
    fn files_come_no_faster_than_allowed() {
        thread_local!(static SLEPT: Cell<Duration> = const { Cell::new(Duration::ZERO) });
        // A clock that stands still: all the time that passes is slept.
        let clock = Arc::new(StubClock::at(BUILT));
        let throttle = Throttle::new(memory(10_000)).rate(1000).time(clock, |time| SLEPT.set(SLEPT.get() + time));
        // Each pause is as long as all that came so far, since no time passes; the last is due at the end.
        read(&throttle, &Request::target(URL, 10_000)).unwrap();
        let pauses: f64 = (1..=40).map(|quarter| f64::from(quarter) * 0.25).sum();
        assert!((SLEPT.get().as_secs_f64() - pauses).abs() < 0.5, "{:?} {pauses}", SLEPT.get());
        let started = std::time::Instant::now();
        read(&Throttle::new(memory(3000)).rate(10_000), &Request::target(URL, 3000)).unwrap();
        assert!(started.elapsed() >= Duration::from_millis(290), "{:?}", started.elapsed());
    }

    #[test]
    fn many_ranges_come_no_faster_than_one_file() {
        let throttle = Throttle::new(memory(4000)).rate(10_000);
        let started = std::time::Instant::now();
        for part in 0..40 {
            read(&throttle, &Request::target(URL, 4000).after(part * 100).before(part * 100 + 100)).unwrap();
        }
        assert!(started.elapsed() >= Duration::from_millis(380), "{:?}", started.elapsed());
    }

    #[test]
    fn an_allowance_survives_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let clock = StubClock::at(BUILT);
        let path = folder.path().join("traffic.json");
        let open = || {
            let allowance = Allowance::new(25_000, TimeDelta::days(30), path.clone(), clock.clone());
            Throttle::new(memory(10_000)).allowance(allowance)
        };
        let request = Request::target(URL, 10_000);
        read(&open(), &request).unwrap();
        read(&open(), &request).unwrap();
        let throttle = open();
        let error = read(&throttle, &request).unwrap_err();
        assert!(matches!(error, FetchError::Allowance { .. }), "{error}");
        assert!(error.to_string().contains(&time::format(BUILT + TimeDelta::days(30))), "{error}");
        // Not even asked for any more; but metadata is.
        assert!(read(&open(), &request).is_err());
        read(&open(), &Request::metadata(URL, 10_000)).unwrap();
        drop(throttle);
        clock.advance(Duration::from_secs(30 * 86_400));
        read(&open(), &request).unwrap();
        std::fs::write(&path, b"damaged").unwrap();
        read(&open(), &request).unwrap();
    }

    #[test]
    fn other_replies_pass_through() {
        let fetch = memory(10);
        let throttle = Throttle::new(fetch.clone()).rate(1);
        let absent = throttle.fetch(&Request::target("test:/absent", 10));
        assert!(matches!(absent, Ok(Reply::NotFound(_))));
        assert_eq!(fetch.take_requests().len(), 1);
    }
}

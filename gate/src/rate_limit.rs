//! Rates: one bucket for all, one for each device. What is remembered of a device takes 32 bytes or so, and no more devices are remembered than set.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::config::Limits;
use crate::refusal::Refusal;

/// A bucket: what is left of it, and when that was, in milliseconds since the start.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f32,
    at: u64,
}

impl Bucket {
    /// Takes one, or says in how many seconds there will be one.
    fn take(&mut self, rate: f32, burst: f32, now: u64) -> Result<(), u32> {
        self.fill(rate, burst, now);
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        Err(((1.0 - self.left) / rate).ceil().clamp(1.0, 3600.0) as u32)
    }

    fn fill(&mut self, rate: f32, burst: f32, now: u64) {
        #[allow(clippy::cast_precision_loss, reason = "spans of minutes")]
        let passed = now.saturating_sub(self.at) as f32 / 1000.0;
        self.left = (self.left + passed * rate).min(burst);
        self.at = now;
    }
}

/// All rates.
#[derive(Debug)]
pub struct Rates {
    started: Instant,
    /// Requests a second and at once of all, then of one device.
    all: (f32, f32),
    each: (f32, f32),
    most: usize,
    global: Mutex<Bucket>,
    /// Sixteen parts, so that not every request waits for one lock. Keyed by a hash that nobody outside can steer.
    devices: [Mutex<HashMap<u64, Bucket>>; PARTS],
    hasher: RandomState,
}

const PARTS: usize = 16;

impl Rates {
    /// Rates as set.
    #[allow(clippy::cast_precision_loss, reason = "rates are small")]
    pub fn new(limits: &Limits) -> Self {
        let all = limits.per_second as f32;
        let (each, burst) = (limits.per_device_per_minute as f32 / 60.0, limits.device_burst as f32);
        Self {
            started: Instant::now(),
            all: (all, all),
            each: (each, burst),
            most: limits.devices.div_ceil(PARTS),
            global: Mutex::new(Bucket { left: all, at: 0 }),
            devices: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }

    /// Lets one more request of anyone in.
    pub fn anyone(&self) -> Result<(), Refusal> {
        let now = self.now();
        let taken = self.global.lock().unwrap_or_else(PoisonError::into_inner).take(self.all.0, self.all.1, now);
        taken.map_err(|seconds| Refusal::busy("G-LIM-01", "the gate is asked too much: try again later", seconds))
    }

    /// Lets one more request of this device in.
    pub fn device(&self, device: &str) -> Result<(), Refusal> {
        let now = self.now();
        let hash = self.hasher.hash_one(device);
        let part = usize::try_from(hash % PARTS as u64).unwrap_or_default();
        let Some(part) = self.devices.get(part) else { return Ok(()) };
        let mut devices = part.lock().unwrap_or_else(PoisonError::into_inner);
        if devices.len() >= self.most && !devices.contains_key(&hash) {
            // A full bucket says no more than none.
            devices.retain(|_, bucket| {
                bucket.fill(self.each.0, self.each.1, now);
                bucket.left < self.each.1
            });
            if devices.len() >= self.most {
                return Err(Refusal::busy("G-LIM-02", "too many devices ask at a time: try again later", 60));
            }
        }
        let bucket = devices.entry(hash).or_insert(Bucket { left: self.each.1, at: now });
        let taken = bucket.take(self.each.0, self.each.1, now);
        taken.map_err(|seconds| {
            Refusal::busy("G-LIM-03", "this device asks too often: wait as long as Retry-After says", seconds)
        })
    }

    /// How many devices are remembered.
    pub fn remembered(&self) -> usize {
        self.devices.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_again_and_says_when() {
        let mut bucket = Bucket { left: 2.0, at: 0 };
        assert_eq!(bucket.take(0.5, 2.0, 0), Ok(()));
        assert_eq!(bucket.take(0.5, 2.0, 0), Ok(()));
        assert_eq!(bucket.take(0.5, 2.0, 0), Err(2));
        assert_eq!(bucket.take(0.5, 2.0, 1900), Err(1));
        assert_eq!(bucket.take(0.5, 2.0, 2000), Ok(()));
        bucket.fill(0.5, 2.0, 1_000_000);
        assert!((bucket.left - 2.0).abs() < f32::EPSILON);
    }

    #[test]
    fn one_device_does_not_use_up_anothers_rate_and_no_more_are_remembered_than_set() {
        let limits = Limits { per_device_per_minute: 1, device_burst: 2, devices: 32, ..Limits::default() };
        let rates = Rates::new(&limits);
        rates.device("a").unwrap();
        rates.device("a").unwrap();
        let refusal = rates.device("a").unwrap_err();
        assert_eq!((refusal.rule, refusal.status.as_u16()), ("G-LIM-03", 429));
        assert!(refusal.retry_after.is_some_and(|seconds| (1..=60).contains(&seconds)));
        rates.device("b").unwrap();
        for number in 0..1000 {
            let _ = rates.device(&format!("device-{number}"));
        }
        assert!(rates.remembered() <= 32, "{}", rates.remembered());
    }
}

//! Rate limits: one bucket for all requests, and one per device. A device takes about 32 bytes, and the number of tracked devices is bounded.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::config::Limits;
use crate::refusal::Refusal;

/// The remaining requests, and the time of the last update in milliseconds since the start.
#[derive(Debug, Clone, Copy)]
struct RateBucket {
    left: f32,
    at: u64,
}

impl RateBucket {
    /// Takes one request, or returns the number of seconds until one is available.
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
        #[allow(clippy::cast_precision_loss, reason = "durations of minutes")]
        let passed = now.saturating_sub(self.at) as f32 / 1000.0;
        self.left = (self.left + passed * rate).min(burst);
        self.at = now;
    }
}

/// The rate limits of the gate.
#[derive(Debug)]
pub struct RateLimiter {
    started: Instant,
    /// Requests per second and burst, of all devices and of one.
    global_rate: (f32, f32),
    device_rate: (f32, f32),
    max_devices_per_shard: usize,
    global: Mutex<RateBucket>,
    /// Shards, so that requests do not all wait for one lock. The keys are randomly seeded hashes, so that clients cannot cause collisions.
    devices: [Mutex<HashMap<u64, RateBucket>>; SHARDS],
    hasher: RandomState,
}

const SHARDS: usize = 16;

impl RateLimiter {
    /// The limits from the settings.
    #[allow(clippy::cast_precision_loss, reason = "rates are small")]
    pub fn new(limits: &Limits) -> Self {
        let all = limits.per_second as f32;
        let (each, burst) = (limits.per_device_per_minute as f32 / 60.0, limits.device_burst as f32);
        Self {
            started: Instant::now(),
            global_rate: (all, all),
            device_rate: (each, burst),
            max_devices_per_shard: limits.devices.div_ceil(SHARDS),
            global: Mutex::new(RateBucket { left: all, at: 0 }),
            devices: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }

    /// Counts a request of any device.
    ///
    /// # Errors
    ///
    /// Refuses above the rate.
    pub fn check_global(&self) -> Result<(), Refusal> {
        let now = self.now();
        let taken = self.global.lock().unwrap_or_else(PoisonError::into_inner).take(
            self.global_rate.0,
            self.global_rate.1,
            now,
        );
        taken.map_err(|seconds| Refusal::too_many_requests("G-LIM-01", "too many requests; try again later", seconds))
    }

    /// Counts a request of this device.
    ///
    /// # Errors
    ///
    /// Refuses above the device's rate, and if too many devices are active.
    pub fn check_device(&self, device: &str) -> Result<(), Refusal> {
        let now = self.now();
        let hash = self.hasher.hash_one(device);
        let shard = usize::try_from(hash % SHARDS as u64).unwrap_or_default();
        let Some(shard) = self.devices.get(shard) else { return Ok(()) };
        let mut devices = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if devices.len() >= self.max_devices_per_shard && !devices.contains_key(&hash) {
            // A full bucket equals a new one.
            devices.retain(|_, bucket| {
                bucket.fill(self.device_rate.0, self.device_rate.1, now);
                bucket.left < self.device_rate.1
            });
            if devices.len() >= self.max_devices_per_shard {
                return Err(Refusal::too_many_requests("G-LIM-02", "too many active devices; try again later", 60));
            }
        }
        let bucket = devices.entry(hash).or_insert(RateBucket { left: self.device_rate.1, at: now });
        let taken = bucket.take(self.device_rate.0, self.device_rate.1, now);
        taken.map_err(|seconds| {
            Refusal::too_many_requests(
                "G-LIM-03",
                "too many requests by this device; wait for the time in Retry-After",
                seconds,
            )
        })
    }

    /// The number of tracked devices.
    pub fn tracked_devices(&self) -> usize {
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
    fn a_bucket_refills() {
        let mut bucket = RateBucket { left: 2.0, at: 0 };
        assert_eq!(bucket.take(0.5, 2.0, 0), Ok(()));
        assert_eq!(bucket.take(0.5, 2.0, 0), Ok(()));
        assert_eq!(bucket.take(0.5, 2.0, 0), Err(2));
        assert_eq!(bucket.take(0.5, 2.0, 1900), Err(1));
        assert_eq!(bucket.take(0.5, 2.0, 2000), Ok(()));
        bucket.fill(0.5, 2.0, 1_000_000);
        assert!((bucket.left - 2.0).abs() < f32::EPSILON);
    }

    #[test]
    fn devices_have_separate_rates_and_a_bounded_number() {
        let limits = Limits { per_device_per_minute: 1, device_burst: 2, devices: 32, ..Limits::default() };
        let limiter = RateLimiter::new(&limits);
        limiter.check_device("a").unwrap();
        limiter.check_device("a").unwrap();
        let refusal = limiter.check_device("a").unwrap_err();
        assert_eq!((refusal.rule, refusal.status.as_u16()), ("G-LIM-03", 429));
        assert!(refusal.retry_after.is_some_and(|seconds| (1..=60).contains(&seconds)));
        limiter.check_device("b").unwrap();
        for number in 0..1000 {
            let _ = limiter.check_device(&format!("device-{number}"));
        }
        assert!(limiter.tracked_devices() <= 32, "{}", limiter.tracked_devices());
    }
}

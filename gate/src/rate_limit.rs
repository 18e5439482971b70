//! Rate limits: budgets of each address and of each device come first, then those of all, so that nobody who is refused takes from others.
//!
//! The first half of what all may use is for everyone; the other half only for senders that have at least half of their own budget left.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::config::Limits;
use crate::refusal::Refusal;
use crate::sender::AddressGroup;

/// The budgets of addresses: a fixed number, so that no number of addresses uses up memory or locks out others. Addresses whose seeded
/// hashes collide share a budget.
const ADDRESSES: usize = 1 << 16;
const SHARDS: usize = 16;
/// The share of a minute's budget of an address that it may use at once: so little that some addresses together do not use up what is for all.
const ADDRESS_BURST: f32 = 0.05;

/// A budget: its refill per second, and its size.
#[derive(Debug, Clone, Copy)]
struct Rate {
    per_second: f32,
    burst: f32,
}

impl Rate {
    #[allow(clippy::cast_precision_loss, reason = "rates are small")]
    fn per_minute(count: u32, burst: f32) -> Self {
        Self { per_second: count as f32 / 60.0, burst: burst.max(1.0) }
    }
}

/// What is left of a budget, and the time of the last update in milliseconds since the start.
#[derive(Debug, Clone, Copy)]
struct RateBucket {
    left: f32,
    at: u64,
}

impl RateBucket {
    fn full(rate: Rate) -> Self {
        Self { left: rate.burst, at: 0 }
    }

    /// Takes `cost` and leaves at least `reserve`. Returns whether half of the budget was there, or the number of seconds until there is enough.
    fn take(&mut self, rate: Rate, cost: f32, reserve: f32, now: u64) -> Result<bool, u32> {
        self.fill(rate, now);
        if self.left >= cost + reserve {
            let is_sparing = self.left >= rate.burst / 2.0;
            self.left -= cost;
            return Ok(is_sparing);
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        Err(((cost + reserve - self.left) / rate.per_second).ceil().clamp(1.0, 3600.0) as u32)
    }

    fn fill(&mut self, rate: Rate, now: u64) {
        #[allow(clippy::cast_precision_loss, reason = "durations of minutes")]
        let passed = now.saturating_sub(self.at) as f32 / 1000.0;
        self.left = (self.left + passed * rate.per_second).min(rate.burst);
        self.at = now;
    }
}

/// The rate limits of the gate.
#[derive(Debug)]
pub struct RateLimiter {
    started: Instant,
    requests: Budget,
    handshakes: Budget,
    /// Requests of each address, and its handshakes.
    addresses: AddressBudgets,
    address_handshakes: AddressBudgets,
    device_rate: Rate,
    max_devices_per_shard: usize,
    /// Shards, so that requests do not all wait for one lock. The keys are randomly seeded hashes, so that clients cannot cause collisions.
    devices: [Mutex<HashMap<u64, RateBucket>>; SHARDS],
    hasher: RandomState,
}

/// The budget of all senders.
#[derive(Debug)]
struct Budget {
    rate: Rate,
    bucket: Mutex<RateBucket>,
}

impl Budget {
    #[allow(clippy::cast_precision_loss, reason = "rates are small")]
    fn new(per_second: u32) -> Self {
        let rate = Rate { per_second: per_second as f32, burst: per_second as f32 };
        Self { rate, bucket: Mutex::new(RateBucket::full(rate)) }
    }

    fn take(&self, is_sparing: bool, now: u64) -> Result<bool, u32> {
        let reserve = if is_sparing { 0.0 } else { self.rate.burst / 2.0 };
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(self.rate, 1.0, reserve, now)
    }
}

#[derive(Debug)]
struct AddressBudgets {
    rate: Rate,
    buckets: Mutex<Box<[RateBucket]>>,
}

impl AddressBudgets {
    fn new(rate: Rate) -> Self {
        Self { rate, buckets: Mutex::new(vec![RateBucket::full(rate); ADDRESSES].into_boxed_slice()) }
    }

    fn with<T>(&self, hash: u64, use_bucket: impl FnOnce(&mut RateBucket, Rate) -> T) -> Option<T> {
        let at = usize::try_from(hash % ADDRESSES as u64).unwrap_or_default();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.get_mut(at).map(|bucket| use_bucket(bucket, self.rate))
    }
}

impl RateLimiter {
    /// The limits from the settings.
    #[allow(clippy::cast_precision_loss, reason = "rates are small")]
    pub fn new(limits: &Limits) -> Self {
        let of_address = |count: u32| AddressBudgets::new(Rate::per_minute(count, count as f32 * ADDRESS_BURST));
        Self {
            started: Instant::now(),
            requests: Budget::new(limits.per_second),
            handshakes: Budget::new(limits.handshakes_per_second),
            addresses: of_address(limits.per_address_per_minute),
            address_handshakes: of_address(limits.handshakes_per_address_per_minute),
            device_rate: Rate::per_minute(limits.per_device_per_minute, limits.device_burst as f32),
            max_devices_per_shard: limits.devices.div_ceil(SHARDS),
            devices: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }

    /// Counts a handshake. Returns whether there is budget for it.
    pub fn allows_handshake(&self, sender: Option<AddressGroup>) -> bool {
        let now = self.now();
        let own = sender.and_then(|sender| {
            self.address_handshakes.with(self.hasher.hash_one(sender), |bucket, rate| bucket.take(rate, 1.0, 0.0, now))
        });
        own.unwrap_or(Ok(true)).is_ok_and(|is_sparing| self.handshakes.take(is_sparing, now).is_ok())
    }

    /// Counts a request from an address.
    ///
    /// # Errors
    ///
    /// Refuses above the address's rate.
    pub fn check_address(&self, sender: Option<AddressGroup>) -> Result<(), Refusal> {
        let Some(sender) = sender else { return Ok(()) };
        let now = self.now();
        let taken = self.addresses.with(self.hasher.hash_one(sender), |bucket, rate| bucket.take(rate, 1.0, 0.0, now));
        taken.unwrap_or(Ok(true)).map(drop).map_err(|seconds| {
            Refusal::too_many_requests("G-LIM-08", "too many requests from this address; try again later", seconds)
        })
    }

    /// Counts a request whose sender could not be identified as many: it costs the gate a look into storage, or a signature.
    pub fn charge_unidentified(&self, sender: Option<AddressGroup>) {
        let (Some(sender), now) = (sender, self.now()) else { return };
        self.addresses.with(self.hasher.hash_one(sender), |bucket, rate| {
            bucket.fill(rate, now);
            bucket.left = (bucket.left - 9.0).max(0.0);
        });
    }

    /// Counts a request of an identified device within its budget. `is_sparing` is the result of [`RateLimiter::check_device`].
    ///
    /// # Errors
    ///
    /// Refuses above the rate of all devices.
    pub fn check_global(&self, is_sparing: bool) -> Result<(), Refusal> {
        let taken = self.requests.take(is_sparing, self.now());
        taken
            .map(drop)
            .map_err(|seconds| Refusal::too_many_requests("G-LIM-01", "too many requests; try again later", seconds))
    }

    /// Counts a request of this device. Returns whether the device has at least half of its budget.
    ///
    /// # Errors
    ///
    /// Refuses above the device's rate, and if too many devices are active.
    pub fn check_device(&self, device: &str) -> Result<bool, Refusal> {
        let now = self.now();
        let rate = self.device_rate;
        let hash = self.hasher.hash_one(device);
        let shard = usize::try_from(hash % SHARDS as u64).unwrap_or_default();
        let Some(shard) = self.devices.get(shard) else { return Ok(true) };
        let mut devices = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if devices.len() >= self.max_devices_per_shard && !devices.contains_key(&hash) {
            // A full bucket equals a new one.
            devices.retain(|_, bucket| {
                bucket.fill(rate, now);
                bucket.left < rate.burst
            });
            if devices.len() >= self.max_devices_per_shard {
                return Err(Refusal::too_many_requests("G-LIM-02", "too many active devices; try again later", 60));
            }
        }
        let bucket = devices.entry(hash).or_insert(RateBucket { left: rate.burst, at: now });
        bucket.take(rate, 1.0, 0.0, now).map_err(|seconds| {
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
        let rate = Rate { per_second: 0.5, burst: 2.0 };
        let mut bucket = RateBucket::full(rate);
        assert_eq!(bucket.take(rate, 1.0, 0.0, 0), Ok(true));
        assert_eq!(bucket.take(rate, 1.0, 1.0, 0), Err(2), "the rest is reserved");
        assert_eq!(bucket.take(rate, 1.0, 0.0, 0), Ok(true));
        assert_eq!(bucket.take(rate, 1.0, 0.0, 0), Err(2));
        assert_eq!(bucket.take(rate, 1.0, 0.0, 1900), Err(1));
        assert_eq!(bucket.take(rate, 1.0, 0.0, 2000), Ok(true));
        assert_eq!(bucket.take(rate, 1.0, 0.0, 2000), Err(2));
        bucket.fill(rate, 1_000_000);
        assert!((bucket.left - 2.0).abs() < f32::EPSILON);
    }

    #[test]
    fn devices_have_separate_rates_and_a_bounded_number() {
        let limits = Limits { per_device_per_minute: 1, device_burst: 2, devices: 32, ..Limits::default() };
        let limiter = RateLimiter::new(&limits);
        assert!(limiter.check_device("a").unwrap());
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

    #[test]
    fn half_of_what_all_may_use_is_for_those_who_use_little() {
        let limits = Limits { per_second: 10, handshakes_per_second: 10, ..Limits::default() };
        let limiter = RateLimiter::new(&limits);
        let count = |is_sparing| (0..20).filter(|_| limiter.check_global(is_sparing).is_ok()).count();
        assert!((5..=6).contains(&count(false)));
        assert!((5..=6).contains(&count(true)));
    }

    #[test]
    fn an_address_uses_up_only_its_own_budget() {
        let limits =
            Limits { per_address_per_minute: 300, handshakes_per_address_per_minute: 300, ..Limits::default() };
        let limiter = RateLimiter::new(&limits);
        let [greedy, other] = ["192.0.2.1", "2001:db8::1"]
            .map(|text| Some(AddressGroup::from(text.parse::<std::net::IpAddr>().unwrap())));
        assert_eq!((0..100).filter(|_| limiter.allows_handshake(greedy)).count(), 15);
        assert!(limiter.allows_handshake(other));
        assert_eq!((0..100).filter(|_| limiter.check_address(greedy).is_ok()).count(), 15);
        assert_eq!(limiter.check_address(greedy).unwrap_err().rule, "G-LIM-08");
        limiter.charge_unidentified(other);
        assert_eq!((0..100).filter(|_| limiter.check_address(other).is_ok()).count(), 6);
        assert!((0..100).all(|_| limiter.check_address(None).is_ok() && limiter.allows_handshake(None)));
    }
}

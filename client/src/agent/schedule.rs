//! When to check the repository: regularly, and not all devices at once.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use tidegate_model::name::DeviceId;

/// How often to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// The approximate time between checks.
    pub interval: Duration,
    /// The time after a start over which devices spread their first check, so that a thousand devices that start at once
    /// do not reach the server at once.
    pub first_within: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { interval: Duration::from_secs(3600), first_within: Duration::from_secs(600) }
    }
}

impl Schedule {
    /// The delay of the first check after the start.
    pub fn first(&self, device: &DeviceId) -> Duration {
        share(self.first_within, position(device, 0))
    }

    /// The delay after check number `round`, counted from 1: the interval plus or minus a tenth.
    pub fn next(&self, device: &DeviceId, round: u64) -> Duration {
        let tenth = self.interval / 10;
        self.interval.saturating_sub(tenth).saturating_add(share(tenth * 2, position(device, round)))
    }
}

/// A number that is evenly distributed over devices and rounds.
fn position(device: &DeviceId, round: u64) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(b"tidegate/poll/1\0");
    hasher.update(round.to_be_bytes());
    hasher.update(device.as_str());
    let digest: [u8; 32] = hasher.finalize().into();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// `whole` times `position` / 2^64.
fn share(whole: Duration, position: u64) -> Duration {
    let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(u64::try_from((u128::from(nanos) * u128::from(position)) >> 64).unwrap_or(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20,000 devices start at one instant.
    #[test]
    fn there_is_no_herd() {
        let schedule = Schedule::default();
        let devices: Vec<DeviceId> = (0..20_000).map(|n| format!("device-{n}").parse().unwrap()).collect();
        let mut times: Vec<Duration> = devices.iter().map(|device| schedule.first(device)).collect();
        for round in 1..=25 {
            // The most in any ten seconds, against what an even spread over the first ten minutes would give.
            let mut seconds: Vec<u64> = times.iter().map(Duration::as_secs).collect();
            seconds.sort_unstable();
            let most = seconds.chunk_by(|a, b| a / 10 == b / 10).map(<[u64]>::len).max().unwrap();
            assert!(most < 20_000 / 60 * 5 / 4, "{most} in ten seconds, in round {round}");
            for (time, device) in times.iter_mut().zip(&devices) {
                *time += schedule.next(device, round);
            }
        }
        let average = times.iter().sum::<Duration>() / 20_000 / 25;
        assert!((3580..3660).contains(&average.as_secs()), "{average:?}");
    }

    #[test]
    fn a_device_keeps_its_place() {
        let schedule = Schedule::default();
        let device: DeviceId = "device-1".parse().unwrap();
        assert_eq!(schedule.first(&device), schedule.first(&device));
        assert!(schedule.first(&device) < schedule.first_within);
        assert_ne!(schedule.next(&device, 1), schedule.next(&device, 2));
        let short = Schedule { interval: Duration::from_secs(1), first_within: Duration::ZERO };
        assert_eq!(short.first(&device), Duration::ZERO);
    }
}

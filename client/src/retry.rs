//! Delays between retries: longer each time, and randomized so that devices do not retry at once.

use std::time::Duration;

/// Exponential backoff with a maximum delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The maximum number of retries in a row.
    pub times: u32,
    /// The approximate delay before the first retry.
    pub first: Duration,
    /// The maximum delay.
    pub longest: Duration,
}

impl Retry {
    /// No retries.
    pub const NEVER: Self = Self { times: 0, first: Duration::ZERO, longest: Duration::ZERO };

    /// Within a download: five times, up to a minute apart.
    pub const TRANSFERS: Self = Self { times: 5, first: Duration::from_secs(2), longest: Duration::from_secs(60) };

    /// Between checks: without a limit, from a minute to four hours apart.
    pub const CHECKS: Self =
        Self { times: u32::MAX, first: Duration::from_secs(60), longest: Duration::from_secs(4 * 3600) };

    /// The delay after this number of failures in a row, counted from 1. It doubles each time up to the maximum and is then chosen
    /// from its upper half by `random`, so that devices that failed together do not retry together.
    pub fn pause(&self, failures: u32, random: u64) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let whole = self.first.saturating_mul(doubled).min(self.longest);
        let half = whole / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        // The product of two u64 fits; its upper half is below `nanos`.
        let share = u64::try_from((u128::from(nanos) * u128::from(random)) >> 64).unwrap_or(nanos);
        half + Duration::from_nanos(share)
    }
}

/// A number that differs between calls and devices; only suitable for jitter.
pub fn jitter() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_within_bounds() {
        let retry = Retry { times: 9, first: Duration::from_secs(2), longest: Duration::from_secs(60) };
        for (failures, seconds) in [(0, 2), (1, 2), (2, 4), (3, 8), (5, 32), (6, 60), (32, 60), (u32::MAX, 60)] {
            let whole = Duration::from_secs(seconds);
            assert_eq!(retry.pause(failures, 0), whole / 2);
            let longest = retry.pause(failures, u64::MAX);
            assert!(longest <= whole && longest + Duration::from_millis(1) > whole, "{longest:?}");
        }
        assert_eq!(Retry::NEVER.pause(3, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn devices_that_failed_together_come_back_apart() {
        let mut pauses: Vec<_> = (0..1000).map(|_| Retry::CHECKS.pause(20, jitter()).as_secs()).collect();
        pauses.sort_unstable();
        assert!(pauses[0] < 8_000 && pauses[999] > 13_500, "{} to {}", pauses[0], pauses[999]);
        let most_at_once = pauses.chunk_by(|a, b| a / 60 == b / 60).map(<[u64]>::len).max().unwrap();
        assert!(most_at_once < 40, "{most_at_once} of 1000 within one minute of two hours");
    }
}

//! How a release spreads over the fleet: the sum of its cohorts' ramps, as straight lines between points.
//!
//! Exact integer arithmetic on the ramps that devices compute with. Only cohorts with a share count: how many devices a condition or a
//! list takes is not in the repository.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use tidegate_model::position::{PPM, SPACE};
use tidegate_model::rollout::{Exposure, Offer};

use super::state::{Curve, CurvePoint};
use crate::workspace::in_force::stop;

/// A share of the fleet and an offer that it is given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) share: u32,
    pub(super) offer: &'a Offer,
    /// When the cohort's role expires.
    pub(super) expires: DateTime<Utc>,
}

/// The curve of the release that all `parts` offer; `None` without parts.
pub(super) fn curve(parts: &[Part<'_>], now: DateTime<Utc>) -> Option<Curve> {
    let first = parts.first()?.offer;
    let mut instants: BTreeSet<DateTime<Utc>> = parts.iter().flat_map(|part| breaks(part, now)).collect();
    instants.insert(now);
    let mut points = Vec::new();
    for at in instants {
        // A jump is two points at one instant: just before it, and from it on.
        for before in [true, false] {
            let point = CurvePoint { at, ppm: total(parts, at, before, now) };
            if points.last() != Some(&point) {
                points.push(point);
            }
        }
    }
    let stops = parts.iter().filter_map(|part| {
        let ramp = part.offer.ramp.filter(|ramp| !part.offer.paused && ramp.end() > now)?;
        Some(stop(part.offer, part.expires)).filter(|stop| *stop < ramp.end())
    });
    Some(Curve {
        release: first.release.to_string(),
        sequence: first.sequence,
        now_ppm: total(parts, now, false, now),
        final_ppm: points.last().map_or(0, |point| point.ppm),
        stops: stops.min(),
        points,
        paused: parts.iter().any(|part| part.offer.paused),
    })
}

/// How much of a cohort an offer is open to at `now`, or was open to when it stopped.
pub(super) fn exposure(offer: &Offer, expires: DateTime<Utc>, now: DateTime<Utc>) -> Exposure {
    open_to(offer, now.min(stop(offer, expires)), false)
}

/// How much of a cohort an offer is open to at `at`; with `before`, just before that instant.
fn open_to(offer: &Offer, at: DateTime<Utc>, before: bool) -> Exposure {
    let begins = offer.ramp.map_or(offer.since, |ramp| ramp.start());
    if at < begins || (before && at == begins) {
        return Exposure::NOBODY;
    }
    offer.ramp.map_or(Exposure::EVERYONE, |ramp| ramp.exposure(at))
}

/// When an offer stopped, if it has.
fn stopped(part: &Part<'_>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    Some(stop(part.offer, part.expires)).filter(|stop| *stop <= now)
}

fn breaks(part: &Part<'_>, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let (begins, ends) = part.offer.ramp.map_or((part.offer.since, None), |ramp| (ramp.start(), Some(ramp.end())));
    let stopped = stopped(part, now);
    if stopped.is_some_and(|stopped| stopped < begins) {
        return Vec::new();
    }
    let last = ends.map(|ends| stopped.map_or(ends, |stopped| ends.min(stopped)));
    std::iter::once(begins).chain(last).collect()
}

/// Parts per million of the fleet, to the nearest. What has stopped stays as it was.
fn total(parts: &[Part<'_>], at: DateTime<Utc>, before: bool, now: DateTime<Utc>) -> u32 {
    let of = |part: &Part<'_>| match stopped(part, now) {
        Some(stopped) if stopped < at => open_to(part.offer, stopped, false),
        _ => open_to(part.offer, at, before),
    };
    // At most 10^6 * 2^64 for all shares together.
    let sum: u128 = parts.iter().map(|part| u128::from(part.share) * of(part).bound()).sum();
    u32::try_from((sum + SPACE / 2) / SPACE).unwrap_or(PPM)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use tidegate_model::digest::Digest;
    use tidegate_model::rollout::{Ramp, Stage};

    use super::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    fn offer(ramp: Option<(i64, i64, u32, u32)>) -> Offer {
        let manifest = (Digest::of(b"manifest"), 8);
        let mut offer = Offer::new("1.0.0".parse().unwrap(), 1, manifest, Stage::Limited, at(10));
        offer.ramp = ramp.map(|(start, end, from, to)| Ramp::new(at(start), at(end), from, to).unwrap());
        offer
    }

    fn points(curve: &Curve) -> Vec<(i64, u32)> {
        curve.points.iter().map(|point| (point.at.timestamp() / 3600, point.ppm)).collect()
    }

    #[test]
    fn cohorts_add_up_and_jumps_are_two_points() {
        let (whole, slow) = (offer(None), offer(Some((20, 30, 100_000, 600_000))));
        let parts = [
            Part { share: 10_000, offer: &whole, expires: at(1000) },
            Part { share: 100_000, offer: &slow, expires: at(25) },
        ];
        let curve = curve(&parts, at(22)).unwrap();
        assert_eq!(
            points(&curve),
            [(10, 0), (10, 10_000), (20, 10_000), (20, 20_000), (22, 30_000), (30, 70_000)],
            "10% of 10% at once, then 5% of it an hour"
        );
        assert_eq!((curve.now_ppm, curve.final_ppm, curve.stops), (30_000, 70_000, Some(at(25))));
    }

    #[test]
    fn a_ramp_that_ends_before_its_role_needs_no_renewal() {
        let slow = offer(Some((20, 30, 0, 1_000_000)));
        let part = |expires| [Part { share: 1_000_000, offer: &slow, expires: at(expires) }];
        assert_eq!(curve(&part(30), at(22)).unwrap().stops, None);
        assert_eq!(curve(&part(29), at(22)).unwrap().stops, Some(at(29)));
        assert_eq!(curve(&part(29), at(30)).unwrap().stops, None, "it is done");
        assert!(curve(&[], at(0)).is_none());
    }

    #[test]
    fn a_ramp_stops_where_its_offer_or_its_role_ends() {
        for (until, expires) in [(Some(25), 1000), (None, 25), (Some(28), 25)] {
            let mut slow = offer(Some((20, 30, 0, 1_000_000)));
            slow.until = until.map(at);
            let parts = [Part { share: 1_000_000, offer: &slow, expires: at(expires) }];
            let before = curve(&parts, at(22)).unwrap();
            assert_eq!((before.now_ppm, before.final_ppm, before.stops), (200_000, 1_000_000, Some(at(25))));
            let after = curve(&parts, at(27)).unwrap();
            assert_eq!(points(&after), [(20, 0), (25, 500_000), (27, 500_000)]);
            assert_eq!((after.now_ppm, after.final_ppm, after.stops), (500_000, 500_000, Some(at(25))));
            assert_eq!(exposure(&slow, at(expires), at(27)).to_ppm(), 500_000);
        }
        let mut paused = offer(Some((20, 30, 0, 1_000_000)));
        (paused.paused, paused.until) = (true, Some(at(40)));
        paused.extra.insert("paused_since".into(), "1970-01-02T01:00:00Z".into());
        let after = curve(&[Part { share: 1_000_000, offer: &paused, expires: at(1000) }], at(27)).unwrap();
        assert_eq!((after.now_ppm, after.final_ppm, after.stops), (500_000, 500_000, None), "paused at 25");
        let mut late = offer(Some((20, 30, 0, 1_000_000)));
        late.until = Some(at(15));
        let parts = [Part { share: 1_000_000, offer: &late, expires: at(1000) }];
        assert_eq!(points(&curve(&parts, at(22)).unwrap()), [(22, 0)], "it ended before it began");
    }
}

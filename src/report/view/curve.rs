//! How a release spreads over the fleet: the sum of its cohorts' ramps, as straight lines between points.
//!
//! Exact integer arithmetic on the ramps that devices compute with. Only cohorts with a share count: how many devices a condition or a
//! list takes is not in the repository.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use tidegate_model::position::{PPM, SPACE};
use tidegate_model::rollout::{Assignment, Exposure};

use super::state::{Curve, CurvePoint};

/// A share of the fleet and what it is assigned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) share: u32,
    pub(super) assignment: &'a Assignment,
    /// When the cohort's role expires.
    pub(super) expires: DateTime<Utc>,
}

/// The curve of the release that all `parts` are assigned; `None` without parts.
pub(super) fn curve(parts: &[Part<'_>], now: DateTime<Utc>) -> Option<Curve> {
    let first = parts.first()?.assignment;
    let mut instants: BTreeSet<DateTime<Utc>> = parts.iter().flat_map(breaks).collect();
    instants.insert(now);
    let mut points = Vec::new();
    for at in instants {
        // A jump is two points at one instant: just before it, and from it on.
        for ppm in [total(parts, at, true), total(parts, at, false)] {
            let point = CurvePoint { at, ppm };
            if points.last() != Some(&point) {
                points.push(point);
            }
        }
    }
    let growing = |part: &&Part<'_>| !part.assignment.paused && part.assignment.ramp.is_some_and(|r| r.end() > now);
    let stops = parts.iter().filter(growing).map(|part| (part.expires, part.assignment.ramp)).collect::<Vec<_>>();
    let stops = stops.into_iter().filter(|(expires, ramp)| ramp.is_some_and(|ramp| *expires < ramp.end()));
    Some(Curve {
        release: first.release.to_string(),
        sequence: first.sequence,
        now_ppm: total(parts, now, false),
        final_ppm: points.last().map_or(0, |point| point.ppm),
        points,
        stops: stops.map(|(expires, _)| expires).min(),
        paused: parts.iter().any(|part| part.assignment.paused),
    })
}

/// How much of a cohort an assignment is open to at `at`; with `before`, just before that instant.
pub(super) fn exposure(assignment: &Assignment, at: DateTime<Utc>, before: bool) -> Exposure {
    let begins = assignment.ramp.map_or(assignment.assigned, |ramp| ramp.start());
    if at < begins || (before && at == begins) {
        return Exposure::NOBODY;
    }
    assignment.ramp.map_or(Exposure::EVERYONE, |ramp| ramp.exposure(at))
}

fn breaks(part: &Part<'_>) -> Vec<DateTime<Utc>> {
    match part.assignment.ramp {
        None => vec![part.assignment.assigned],
        Some(ramp) => vec![ramp.start(), ramp.end()],
    }
}

/// Parts per million of the fleet, to the nearest.
fn total(parts: &[Part<'_>], at: DateTime<Utc>, before: bool) -> u32 {
    // At most 10^6 * 2^64 for all shares together.
    let sum: u128 =
        parts.iter().map(|part| u128::from(part.share) * exposure(part.assignment, at, before).bound()).sum();
    u32::try_from((sum + SPACE / 2) / SPACE).unwrap_or(PPM)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use tidegate_model::rollout::{Ramp, Stage};

    use super::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    fn assignment(ramp: Option<(i64, i64, u32, u32)>) -> Assignment {
        let mut assignment = Assignment::new("1.0.0".parse().unwrap(), 1, Stage::Limited, at(10));
        assignment.ramp = ramp.map(|(start, end, from, to)| Ramp::new(at(start), at(end), from, to).unwrap());
        assignment
    }

    #[test]
    fn cohorts_add_up_and_jumps_are_two_points() {
        let (whole, slow) = (assignment(None), assignment(Some((20, 30, 100_000, 600_000))));
        let parts = [
            Part { share: 10_000, assignment: &whole, expires: at(1000) },
            Part { share: 100_000, assignment: &slow, expires: at(25) },
        ];
        let curve = curve(&parts, at(22)).unwrap();
        let points: Vec<(i64, u32)> = curve.points.iter().map(|p| (p.at.timestamp() / 3600, p.ppm)).collect();
        assert_eq!(
            points,
            [(10, 0), (10, 10_000), (20, 10_000), (20, 20_000), (22, 30_000), (30, 70_000)],
            "10% of 10% at once, then 5% of it an hour"
        );
        assert_eq!((curve.now_ppm, curve.final_ppm, curve.stops), (30_000, 70_000, Some(at(25))));
    }

    #[test]
    fn a_ramp_that_ends_before_its_role_needs_no_renewal() {
        let slow = assignment(Some((20, 30, 0, 1_000_000)));
        let part = |expires| [Part { share: 1_000_000, assignment: &slow, expires: at(expires) }];
        assert_eq!(curve(&part(30), at(22)).unwrap().stops, None);
        assert_eq!(curve(&part(29), at(22)).unwrap().stops, Some(at(29)));
        assert_eq!(curve(&part(29), at(30)).unwrap().stops, None, "it is done");
        assert!(curve(&[], at(0)).is_none());
    }
}

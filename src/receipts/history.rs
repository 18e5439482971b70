//! What was counted, over time: in steps of a width that people read easily, by the devices' clocks.
//!
//! The last step has the counts of the [report](super::ReceiptReport): a device counts as installed from when it first told so, and as
//! confirmed, failed or rolled back from when it told how it ended last.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use tidegate_model::name::{HardwareId, Name};
use tidegate_model::receipt::InstallResult;

use super::count::{Counter, Word, is_installed};
use super::delivery::DeliveryTally;
use super::enrolments::Enrolled;
use super::releases::Known;
use crate::rollout::health::Counts;

/// A history has at most so many steps.
const STEPS: i64 = 60;
/// How long a step can be, in minutes.
const WIDTHS: [i64; 11] = [1, 5, 15, 60, 180, 360, 720, 1440, 2880, 10_080, 40_320];

/// Counts at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// When.
    pub at: DateTime<Utc>,
    /// How many devices had told of each by then.
    pub counts: Counts,
}

/// The devices of a release over time.
#[derive(Debug, Clone, PartialEq)]
pub struct ReleaseHistory<'a> {
    /// The release.
    pub known: &'a Known,
    /// How many devices can be offered it: those that reported a release of its product on its channel, and those that never reported
    /// any release.
    pub fleet: u64,
    /// All devices together. Only instants at which something changes, the first and the last.
    pub all: Vec<Point>,
    /// By cohort and hardware, the most devices first.
    pub groups: Vec<GroupHistory>,
    /// What fetching it took; `None` if no device told.
    pub delivery: Option<DeliveryTally>,
}

/// The devices of one kind of hardware in one cohort over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupHistory {
    /// The cohort.
    pub cohort: Name,
    /// The hardware.
    pub hardware: HardwareId,
    /// The counts.
    pub points: Vec<Point>,
}

impl Counter<'_> {
    /// What devices said over time of each release that somebody is offered or that devices spoke of. `since` tells when a release was
    /// first offered: what a device says for an earlier instant counts from then on.
    pub fn histories(
        &self,
        enrolled: &Enrolled,
        since: impl Fn(&Known) -> Option<DateTime<Utc>>,
    ) -> Vec<ReleaseHistory<'_>> {
        let mut words: HashMap<u32, Vec<&Word>> = HashMap::new();
        let mut spoken: HashMap<(&Name, &Name), HashSet<u32>> = HashMap::new();
        for ((release, device), word) in &self.words {
            words.entry(*release).or_default().push(word);
            if let Some(known) = self.releases.known().get(*release as usize) {
                spoken.entry((&known.id.channel, &known.id.product)).or_default().insert(*device);
            }
        }
        let anybody: HashSet<u32> = spoken.values().flatten().copied().collect();
        let silent = enrolled.devices.saturating_sub(enrolled.disabled + anybody.len() as u64);
        (0..)
            .zip(self.releases.known())
            .filter_map(|(number, known)| {
                let words = words.remove(&number).unwrap_or_default();
                if words.is_empty() && known.offered.is_empty() {
                    return None;
                }
                let spoken = spoken.get(&(&known.id.channel, &known.id.product)).map_or(0, HashSet::len);
                Some(self.history(known, silent + spoken as u64, &words, since(known)))
            })
            .collect()
    }

    fn history<'a>(
        &'a self,
        known: &'a Known,
        fleet: u64,
        words: &[&Word],
        since: Option<DateTime<Utc>>,
    ) -> ReleaseHistory<'a> {
        let first = words.iter().map(|word| word.at).min();
        let times = times(since.or(first).unwrap_or(self.now), self.now);
        let mut all = vec![Counts::default(); times.len()];
        let mut by_group: BTreeMap<(u32, u32), Vec<Counts>> = BTreeMap::new();
        for word in words {
            let group =
                by_group.entry((word.cohort, word.hardware)).or_insert_with(|| vec![Counts::default(); times.len()]);
            for steps in [&mut all, group] {
                add(steps, &times, word);
            }
        }
        let named = |(cohort, hardware): (u32, u32)| {
            Some((self.releases.cohort(cohort)?.clone(), self.releases.hardware(hardware)?.clone()))
        };
        let mut groups: Vec<GroupHistory> = by_group
            .into_iter()
            .filter_map(|(group, steps)| {
                let (cohort, hardware) = named(group)?;
                Some(GroupHistory { cohort, hardware, points: points(&times, &steps) })
            })
            .collect();
        let devices =
            |group: &GroupHistory| group.points.last().map_or(0, |last| last.counts.installed + last.counts.failed);
        groups.sort_by(|a, b| {
            devices(b).cmp(&devices(a)).then_with(|| (&a.cohort, &a.hardware).cmp(&(&b.cohort, &b.hardware)))
        });
        let delivery = self.delivery(known, words.iter().copied());
        ReleaseHistory { known, fleet, all: points(&times, &all), groups, delivery }
    }
}

/// The ends of the steps from one instant to another, which is the last.
fn times(from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let from = from.min(to);
    let minutes = (to - from).num_minutes();
    let fits = |width: &i64| minutes / width < STEPS - 2;
    let width = WIDTHS.into_iter().find(fits).unwrap_or(minutes / (STEPS - 2) + 1) * 60;
    let next = from.timestamp().div_euclid(width) + 1;
    let ends = (next..).map_while(|step| DateTime::from_timestamp(step * width, 0)).take_while(|end| *end < to);
    let first = (from < to).then_some(from);
    first.into_iter().chain(ends).chain([to]).collect()
}

/// Adds a device to the steps in which it told of something.
fn add(steps: &mut [Counts], times: &[DateTime<Utc>], word: &Word) {
    // The first step is the instant before anybody can have it.
    let earliest = usize::from(times.len() > 1);
    let mut count = |at: DateTime<Utc>, of: fn(&mut Counts) -> &mut u64| {
        let step = times.partition_point(|end| *end < at).clamp(earliest, times.len() - 1);
        if let Some(counts) = steps.get_mut(step) {
            *of(counts) += 1;
        }
    };
    if is_installed(word.outcome) {
        count(word.installed.unwrap_or(word.at), |counts| &mut counts.installed);
    }
    match word.outcome {
        InstallResult::Confirmed => count(word.at, |counts| &mut counts.confirmed),
        InstallResult::Failed => count(word.at, |counts| &mut counts.failed),
        InstallResult::RolledBack => count(word.at, |counts| &mut counts.rolled_back),
        InstallResult::Offered | InstallResult::Installed => {}
    }
}

/// Adds up the steps, and leaves out those that change nothing.
fn points(times: &[DateTime<Utc>], steps: &[Counts]) -> Vec<Point> {
    let mut total = Counts::default();
    let mut points: Vec<Point> = Vec::new();
    for (index, (at, step)) in times.iter().zip(steps).enumerate() {
        total.installed += step.installed;
        total.confirmed += step.confirmed;
        total.failed += step.failed;
        total.rolled_back += step.rolled_back;
        let is_end = index == 0 || index + 1 == times.len();
        if is_end || points.last().is_some_and(|last| last.counts != total) {
            points.push(Point { at: *at, counts: total });
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::minutes(minutes)
    }

    #[test]
    fn steps_are_few_and_end_at_round_times() {
        assert_eq!(times(at(7), at(10)), [7, 8, 9, 10].map(at));
        assert_eq!(times(at(7), at(7)), [at(7)]);
        assert_eq!(times(at(9), at(7)), [at(7)], "what begins later has not begun");
        let day = times(at(7), at(24 * 60));
        assert_eq!((day[..3].to_vec(), day.last()), ([7, 60, 120].map(at).to_vec(), Some(&at(24 * 60))));
        for days in [1, 3, 14, 100, 400, 4_000, 400_000] {
            let count = times(at(7) - TimeDelta::days(days), at(7)).len();
            assert!((2..=60).contains(&count), "{days} days: {count}");
        }
    }

    #[test]
    fn a_device_counts_from_when_it_told_so_and_never_before_the_offer() {
        use InstallResult::{Confirmed, Failed, Installed, Offered, RolledBack};
        let times = times(at(0), at(10));
        let mut steps = vec![Counts::default(); times.len()];
        let word = |outcome, minute, installed: Option<i64>| Word {
            outcome,
            at: at(minute),
            installed: installed.map(at),
            cohort: 0,
            hardware: 0,
            reason: None,
            said: 0,
            delivery: None,
        };
        for word in [
            word(Offered, 1, None),
            word(Installed, 2, Some(2)),
            word(Confirmed, 4, Some(2)),
            // It was not heard when it installed it.
            word(Confirmed, 4, None),
            word(RolledBack, 6, Some(5)),
            // Clocks that are far behind, and a little ahead.
            word(Failed, -20_000, None),
            word(Failed, 14, None),
        ] {
            add(&mut steps, &times, &word);
        }
        let found: Vec<_> = points(&times, &steps)
            .iter()
            .map(|Point { at: when, counts: c }| {
                ((*when - at(0)).num_minutes(), [c.installed, c.confirmed, c.failed, c.rolled_back])
            })
            .collect();
        let expected = [
            (0, [0, 0, 0, 0]),
            (1, [0, 0, 1, 0]),
            (2, [2, 0, 1, 0]),
            (4, [3, 2, 1, 0]),
            (5, [4, 2, 1, 0]),
            (6, [4, 2, 1, 1]),
            (10, [4, 2, 2, 1]),
        ];
        assert_eq!(found, expected);
    }
}

//! Counting what devices say: an entry for each device and release, whatever they send.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use tidegate_model::receipt::{DeliveryCost, InstallResult, Receipt};

use super::delivery::DeliveryTally;
use super::releases::{About, Known, Releases};

/// By how much a device's clock may be ahead.
const AHEAD: TimeDelta = TimeDelta::minutes(5);

/// Why a receipt counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Its name is none that a receipt can have.
    Name,
    /// It is longer than any receipt.
    Length,
    /// It is no receipt.
    Form,
    /// It is kept under another name than its own: a copy, or one that was changed.
    Misnamed,
    /// No enrolment has the key that it names.
    UnknownKey,
    /// Several devices are enrolled with that key.
    SharedKey,
    /// The device is disabled.
    Disabled,
    /// It names another device than the one that the key is enrolled for.
    OtherDevice,
    /// It is not signed by the key that it names.
    Signature,
    /// The workspace has no such release, or has not registered it.
    Release,
    /// The release has another manifest or another sequence.
    Manifest,
    /// The channel never had such a cohort.
    Cohort,
    /// The release is not for that hardware.
    Hardware,
    /// It is from the future.
    Future,
}

impl Why {
    /// The reason's id, which stays.
    pub fn id(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Length => "length",
            Self::Form => "form",
            Self::Misnamed => "misnamed",
            Self::UnknownKey => "unknown-key",
            Self::SharedKey => "shared-key",
            Self::Disabled => "disabled",
            Self::OtherDevice => "other-device",
            Self::Signature => "signature",
            Self::Release => "release",
            Self::Manifest => "manifest",
            Self::Cohort => "cohort",
            Self::Hardware => "hardware",
            Self::Future => "future",
        }
    }

    /// The same in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Name => "named as no receipt is",
            Self::Length => "longer than any receipt",
            Self::Form => "no receipt, or one of a form that is not known",
            Self::Misnamed => "kept under another name than its own",
            Self::UnknownKey => "by a key that is not enrolled",
            Self::SharedKey => "by a key that several devices are enrolled with",
            Self::Disabled => "by a device that is disabled",
            Self::OtherDevice => "in the name of another device than the key is enrolled for",
            Self::Signature => "not signed by the key that it names",
            Self::Release => "about a release that is not known here",
            Self::Manifest => "about another manifest than the release has",
            Self::Cohort => "of a cohort that the channel never had",
            Self::Hardware => "of hardware that the release is not for",
            Self::Future => "from the future",
        }
    }
}

/// How many were refused for a reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) count: u64,
    /// One of them: the first in the alphabet, so that the order of reading is of no matter.
    pub(super) example: String,
}

/// Counts devices, by what they say of releases.
#[derive(Debug)]
pub struct Counter<'a> {
    pub(super) releases: &'a Releases,
    pub(super) now: DateTime<Utc>,
    pub(super) words: HashMap<(u32, u32), Word>,
    pub(super) refused: BTreeMap<Why, Count>,
    pub(super) counted: u64,
    pub(super) repeated: u64,
    /// When the last of them was given, by the device's clock.
    pub(super) newest: Option<DateTime<Utc>>,
}

/// What counts of all that a device said of a release.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) outcome: InstallResult,
    pub(super) at: DateTime<Utc>,
    /// When it first told that it had installed it.
    pub(super) installed: Option<DateTime<Utc>>,
    pub(super) cohort: u32,
    pub(super) hardware: u32,
    /// Why it failed or went back.
    pub(super) reason: Option<Box<str>>,
    /// All outcomes that it ever told of: a bit for each.
    pub(super) said: u8,
    /// What fetching the release took, as it told last, and when it did.
    pub(super) delivery: Option<(DateTime<Utc>, DeliveryCost)>,
}

impl Word {
    /// Whether the device ever told of this outcome.
    pub(super) fn said(&self, outcome: InstallResult) -> bool {
        self.said & bit(outcome) != 0
    }

    /// What decides between two things that a device said: how it ended before what came before that; the later; of one second the graver;
    /// and then anything, so long as it is always the same.
    fn rank(&self) -> (u8, DateTime<Utc>, InstallResult, u32, u32, Option<&str>) {
        let stage = match self.outcome {
            InstallResult::Offered => 0,
            InstallResult::Installed => 1,
            InstallResult::Confirmed | InstallResult::Failed | InstallResult::RolledBack => 2,
        };
        (stage, self.at, self.outcome, self.cohort, self.hardware, self.reason.as_deref())
    }
}

/// Whether a device that tells of this has installed the release.
pub(super) fn is_installed(outcome: InstallResult) -> bool {
    matches!(outcome, InstallResult::Installed | InstallResult::Confirmed | InstallResult::RolledBack)
}

fn bit(outcome: InstallResult) -> u8 {
    match outcome {
        InstallResult::Offered => 1,
        InstallResult::Installed => 2,
        InstallResult::Confirmed => 4,
        InstallResult::Failed => 8,
        InstallResult::RolledBack => 16,
    }
}

impl Counter<'_> {
    /// What fetching a release took, as devices tell it; `None` if none does.
    pub(super) fn delivery<'w>(&self, release: &Known, words: impl Iterator<Item = &'w Word>) -> Option<DeliveryTally> {
        let mut tally = None::<DeliveryTally>;
        for word in words {
            let whole = self.releases.hardware(word.hardware).and_then(|hardware| release.hardware.get(hardware));
            if let (Some((_, cost)), Some(whole)) = (word.delivery, whole) {
                tally.get_or_insert_default().add(cost, *whole);
            }
        }
        tally
    }
}

impl<'a> Counter<'a> {
    /// Counts as of `now`, for these releases.
    pub fn new(releases: &'a Releases, now: DateTime<Utc>) -> Self {
        Self { releases, now, words: HashMap::new(), refused: BTreeMap::new(), counted: 0, repeated: 0, newest: None }
    }

    /// How many receipts count.
    pub fn counted(&self) -> u64 {
        self.counted
    }

    /// How many count for nothing.
    pub fn refused(&self) -> u64 {
        self.refused.values().map(|refused| refused.count).sum()
    }

    /// When the last of those that count was given, by the device's clock.
    pub fn newest(&self) -> Option<DateTime<Utc>> {
        self.newest
    }

    /// Takes what [`read`](super::read()) found under a name.
    pub fn take(&mut self, name: &str, found: Result<&(u32, Receipt), Why>) {
        if let Err(why) = found.and_then(|(device, receipt)| self.count(*device, receipt)) {
            let refused = self.refused.entry(why).or_default();
            refused.count += 1;
            if refused.example.is_empty() || name < refused.example.as_str() {
                name.clone_into(&mut refused.example);
            }
        }
    }

    fn count(&mut self, device: u32, receipt: &Receipt) -> Result<(), Why> {
        let About { release, cohort, hardware } = self.releases.about(receipt)?;
        if receipt.at - self.now > AHEAD {
            return Err(Why::Future);
        }
        let Receipt { outcome, at, reason, .. } = receipt;
        let reason = reason.as_ref().filter(|_| matches!(outcome, InstallResult::Failed | InstallResult::RolledBack));
        let reason = reason.map(|reason| reason.as_str().into());
        let installed = is_installed(*outcome).then_some(*at);
        let delivery = receipt.delivery.map(|cost| (*at, cost));
        let said = bit(*outcome);
        let mut word = Word { outcome: *outcome, at: *at, installed, cohort, hardware, reason, said, delivery };
        match self.words.entry((release, device)) {
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(word);
            }
            std::collections::hash_map::Entry::Occupied(mut known) => {
                let known = known.get_mut();
                self.repeated += u64::from(known.said(*outcome));
                known.said |= word.said;
                known.installed = known.installed.into_iter().chain(word.installed).min();
                // The last of them, whatever the order of reading; of one second that which took more.
                let last = |told: &(DateTime<Utc>, DeliveryCost)| (told.0, told.1.bytes, told.1.way);
                known.delivery = known.delivery.into_iter().chain(word.delivery).max_by_key(last);
                if word.rank() > known.rank() {
                    (word.said, word.installed, word.delivery) = (known.said, known.installed, known.delivery);
                    *known = word;
                }
            }
        }
        self.counted += 1;
        self.newest = self.newest.max(Some(*at));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use tidegate_model::digest::Digest;
    use tidegate_model::receipt::DeliveryWay;
    use tidegate_model::time;

    use super::super::{Known, Tally};
    use super::*;

    fn releases() -> Releases {
        let mut releases = Releases::default();
        releases.add(Known {
            id: crate::release::ReleaseId {
                channel: "stable".parse().unwrap(),
                product: "os".parse().unwrap(),
                version: "1.2.0".parse().unwrap(),
            },
            sequence: 12,
            manifest: Digest::of(b"manifest"),
            hardware: BTreeMap::from([("board-a".parse().unwrap(), 1000), ("board-b".parse().unwrap(), 2000)]),
            offered: BTreeSet::from(["canary".parse().unwrap(), "early".parse().unwrap()]),
        });
        releases
    }

    fn receipt(minute: u32, outcome: InstallResult) -> Receipt {
        Receipt {
            device: "device-1".parse().unwrap(),
            channel: "stable".parse().unwrap(),
            cohort: "canary".parse().unwrap(),
            product: "os".parse().unwrap(),
            release: "1.2.0".parse().unwrap(),
            sequence: 12,
            manifest: Digest::of(b"manifest"),
            hardware: "board-a".parse().unwrap(),
            outcome,
            reason: Some("no light".parse().unwrap()),
            at: time::parse(&format!("2026-01-05T12:{minute:02}:00Z")).unwrap(),
            from: "1.1.0".parse().unwrap(),
            offers: Vec::new(),
            delivery: None,
        }
    }

    fn counted(said: &[(u32, InstallResult)]) -> Tally {
        let releases = releases();
        let mut tallies = Vec::new();
        // In any order the same.
        for backwards in [false, true] {
            let mut counter = Counter::new(&releases, time::parse("2026-01-05T13:00:00Z").unwrap());
            let mut receipts: Vec<_> = said.iter().map(|(minute, outcome)| receipt(*minute, *outcome)).collect();
            if backwards {
                receipts.reverse();
            }
            for receipt in receipts {
                counter.take("x", Ok(&(0, receipt)));
            }
            assert!(counter.refused.is_empty());
            tallies.push(counter.report(Vec::new(), None, None).releases[0].all);
        }
        assert_eq!(tallies[0], tallies[1], "{said:?}");
        tallies[0]
    }

    #[test]
    fn what_a_device_fetched_counts_once() {
        let releases = releases();
        let mut counter = Counter::new(&releases, time::parse("2026-01-06T00:00:00Z").unwrap());
        let mut take = |device: u32, minute: u32, way: DeliveryWay, bytes: u64| {
            let delivery = Some(DeliveryCost { way, bytes });
            let said = Receipt { delivery, ..receipt(minute, InstallResult::Installed) };
            counter.take("name", Ok(&(device, said)));
        };
        take(1, 3, DeliveryWay::Patch, 10);
        take(1, 1, DeliveryWay::Whole, 1000);
        take(2, 1, DeliveryWay::Chunks, 300);
        counter.take("name", Ok(&(1, receipt(9, InstallResult::Confirmed))));
        counter.take("name", Ok(&(3, receipt(9, InstallResult::Confirmed))));
        let report = counter.report(Vec::new(), None, None);
        let delivery = report.releases[0].delivery.unwrap();
        let told: Vec<_> = delivery.ways().map(|(way, fetched)| (way, fetched.devices, fetched.bytes)).collect();
        assert_eq!(told, [("patch", 1, 10), ("chunks", 1, 300)]);
        assert_eq!((delivery.without, delivery.saved()), (2000, 1690));
    }

    #[test]
    fn a_device_counts_once_and_by_how_it_ended_last() {
        use InstallResult::{Confirmed, Failed, Installed, Offered, RolledBack};
        let tally = |[installed, confirmed, failed, rolled_back, recovered]: [u64; 5]| Tally {
            offered: 1,
            installed,
            confirmed,
            failed,
            rolled_back,
            recovered,
        };
        for (said, expected) in [
            (&[(1, Offered)][..], [0, 0, 0, 0, 0]),
            (&[(1, Offered), (2, Installed)], [1, 0, 0, 0, 0]),
            (&[(1, Offered), (2, Installed), (3, Confirmed)], [1, 1, 0, 0, 0]),
            (&[(1, Offered), (2, Installed), (3, RolledBack)], [1, 0, 0, 1, 0]),
            (&[(1, Offered), (2, Failed)], [0, 0, 1, 0, 0]),
            // It tries again, and fails until it confirms.
            (&[(2, Failed), (3, Offered), (4, Installed)], [0, 0, 1, 0, 0]),
            (&[(2, RolledBack), (3, Offered), (4, Installed)], [1, 0, 0, 1, 0]),
            (&[(2, Failed), (4, Installed), (5, Confirmed)], [1, 1, 0, 0, 1]),
            (&[(2, RolledBack), (5, Confirmed)], [1, 1, 0, 0, 1]),
            (&[(2, RolledBack), (3, Failed)], [0, 0, 1, 0, 0]),
            // Confirmed too early.
            (&[(2, Confirmed), (3, RolledBack)], [1, 0, 0, 1, 0]),
            // Within one second the graver.
            (&[(2, Installed), (2, Confirmed)], [1, 1, 0, 0, 0]),
            (&[(2, Confirmed), (2, RolledBack)], [1, 0, 0, 1, 0]),
            // A clock that went back does not make it undone.
            (&[(9, Installed), (3, Confirmed)], [1, 1, 0, 0, 0]),
            // However often it says so.
            (&[(1, Failed), (2, Failed), (3, Failed), (3, Failed)], [0, 0, 1, 0, 0]),
        ] {
            assert_eq!(counted(said), tally(expected), "{said:?}");
        }
    }

    #[test]
    fn what_cannot_be_so_counts_for_nothing() {
        let releases = releases();
        let mut counter = Counter::new(&releases, time::parse("2026-01-05T12:30:00Z").unwrap());
        let edit = |edit: fn(&mut Receipt)| {
            let mut receipt = receipt(1, InstallResult::Failed);
            edit(&mut receipt);
            receipt
        };
        for (receipt, why) in [
            (edit(|r| r.release = "1.3.0".parse().unwrap()), Why::Release),
            (edit(|r| r.product = "app".parse().unwrap()), Why::Release),
            (edit(|r| r.manifest = Digest::of(b"another")), Why::Manifest),
            (edit(|r| r.sequence = 13), Why::Manifest),
            (edit(|r| r.cohort = "nowhere".parse().unwrap()), Why::Cohort),
            (edit(|r| r.hardware = "board-z".parse().unwrap()), Why::Hardware),
            (edit(|r| r.at = time::parse("2026-01-05T12:35:01Z").unwrap()), Why::Future),
        ] {
            counter.take(why.id(), Ok(&(7, receipt)));
            assert_eq!(counter.refused.get(&why).map(|refused| refused.example.as_str()), Some(why.id()));
        }
        assert_eq!((counter.counted, counter.words.len()), (0, 0));
        counter.take("y", Err(Why::Signature));
        counter.take("x", Err(Why::Signature));
        counter.take("z", Err(Why::Signature));
        assert_eq!(counter.refused[&Why::Signature], Count { count: 3, example: "x".into() });
        // A clock that is a little ahead, and one that is far behind.
        for at in ["2026-01-05T12:35:00Z", "1970-01-02T00:00:00Z"] {
            let receipt = Receipt { at: time::parse(at).unwrap(), ..receipt(1, InstallResult::Failed) };
            counter.take("good", Ok(&(8, receipt)));
        }
        assert_eq!((counter.counted, counter.repeated, counter.words.len()), (2, 1, 1));
    }
}

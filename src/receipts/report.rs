//! What was counted: by release, cohort, hardware and reason; and as the report on health that rollouts are renewed by.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tidegate_model::digest::Digest;
use tidegate_model::name::{HardwareId, Name};
use tidegate_model::receipt::InstallResult;
use tidegate_model::time;

use super::count::{Counter, Why, Word, is_installed};
use super::delivery::DeliveryTally;
use super::enrolments::Enrolled;
use super::releases::Known;
use crate::policy::HealthPolicy;
use crate::rollout::health::{self, Counts, Verdict};

/// So many reasons of a release are told apart; the others are counted together.
const REASONS: usize = 100;

/// What receipts say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReceiptReport {
    /// As of when.
    #[serde(with = "time::text")]
    pub at: DateTime<Utc>,
    /// Where the receipts were.
    pub places: Vec<String>,
    /// The devices that could have sent some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enrolled: Option<Enrolled>,
    /// Receipts that are devices' words.
    pub counted: u64,
    /// Of these: those that say of a release what the device had said of it before.
    pub repeated: u64,
    /// When the last of them was given, by the device's clock.
    #[serde(with = "time::optional_text")]
    pub newest: Option<DateTime<Utc>>,
    /// Receipts that count for nothing.
    pub refused: Vec<Refused>,
    /// By release: those that somebody is offered, and those that devices spoke of.
    pub releases: Vec<ReleaseReport>,
}

/// Receipts that were refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Why.
    pub why: Why,
    /// The same in words.
    pub text: &'static str,
    /// How many.
    pub count: u64,
    /// The name of one of them.
    pub example: String,
}

/// How the devices of a release fare.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReleaseReport {
    /// The release, as `CHANNEL/PRODUCT/VERSION`.
    pub release: String,
    /// Its sequence.
    pub sequence: u64,
    /// SHA-256 of its manifest.
    pub manifest: Digest,
    /// All devices together.
    pub all: Tally,
    /// By cohort: those that are offered it, and those that devices spoke of.
    pub cohorts: BTreeMap<Name, Tally>,
    /// By hardware.
    pub hardware: BTreeMap<HardwareId, Tally>,
    /// By cohort and hardware.
    pub groups: Vec<Group>,
    /// Why devices failed or went back, the most frequent first.
    pub reasons: Vec<Reason>,
    /// How many did for reasons beyond those.
    pub other_reasons: u64,
    /// What `[health]` of `policy.toml` makes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Whether some cohort is offered it.
    pub is_offered: bool,
    /// What fetching it took; absent if no device told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryTally>,
}

/// The devices of one kind of hardware in one cohort.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The cohort.
    pub cohort: Name,
    /// The hardware.
    pub hardware: HardwareId,
    /// How they fare.
    #[serde(flatten)]
    pub tally: Tally,
}

/// Devices that failed or went back for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Which of the two.
    pub outcome: InstallResult,
    /// In the device's words; none if it gave none.
    pub reason: Option<String>,
    /// How many.
    pub devices: u64,
    /// Of these, by cohort.
    pub cohorts: BTreeMap<Name, u64>,
    /// And by hardware.
    pub hardware: BTreeMap<HardwareId, u64>,
}

/// How devices fare with a release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Said anything at all of it: it was offered to them.
    pub offered: u64,
    /// Wrote it and started it.
    pub installed: u64,
    /// Of these: it proved itself.
    pub confirmed: u64,
    /// Could not install it.
    pub failed: u64,
    /// Of those who installed it: went back to what they had.
    pub rolled_back: u64,
    /// Of those who confirmed it: failed or went back before.
    pub recovered: u64,
}

impl Tally {
    /// How many tried to install it.
    pub fn tried(&self) -> u64 {
        self.installed + self.failed
    }

    /// How many of these could not, or went back.
    pub fn failing(&self) -> u64 {
        self.failed + self.rolled_back
    }

    /// How many started it and have not said how that ended.
    pub fn open(&self) -> u64 {
        self.installed.saturating_sub(self.confirmed + self.rolled_back)
    }

    /// The share of those that tried which fail, in parts per million.
    pub fn failing_share(&self) -> u32 {
        u32::try_from(u128::from(self.failing()) * 1_000_000 / u128::from(self.tried().max(1))).unwrap_or(1_000_000)
    }

    fn add(&mut self, word: &Word) {
        let is = |outcome| u64::from(word.outcome == outcome);
        self.offered += 1;
        self.installed += u64::from(is_installed(word.outcome));
        self.confirmed += is(InstallResult::Confirmed);
        self.failed += is(InstallResult::Failed);
        self.rolled_back += is(InstallResult::RolledBack);
        let ill_before = word.said(InstallResult::Failed) || word.said(InstallResult::RolledBack);
        self.recovered += u64::from(word.outcome == InstallResult::Confirmed && ill_before);
    }
}

impl From<Tally> for Counts {
    fn from(tally: Tally) -> Self {
        let Tally { installed, confirmed, failed, rolled_back, .. } = tally;
        Self { installed, confirmed, failed, rolled_back }
    }
}

impl ReceiptReport {
    /// The report that `tidegate rollout renew --require-health` reads.
    pub fn health(&self) -> health::HealthReport {
        let counts = |release: &ReleaseReport| health::ReleaseCounts {
            release: release.release.clone(),
            sequence: release.sequence,
            cohorts: release.counts(),
        };
        health::HealthReport { schema: 1, at: self.at, releases: self.releases.iter().map(counts).collect() }
    }

    /// How many receipts were refused in all.
    pub fn refused(&self) -> u64 {
        self.refused.iter().map(|refused| refused.count).sum()
    }
}

impl ReleaseReport {
    fn counts(&self) -> BTreeMap<Name, Counts> {
        self.cohorts.iter().map(|(cohort, tally)| (cohort.clone(), Counts::from(*tally))).collect()
    }
}

/// Numbers of a cohort and of a kind of hardware.
type Pair = (u32, u32);

/// What is put together for a release.
#[derive(Default)]
struct Gathered<'a> {
    groups: BTreeMap<Pair, Tally>,
    reasons: HashMap<(InstallResult, Option<&'a str>), BTreeMap<Pair, u64>>,
    words: Vec<&'a Word>,
}

impl Counter<'_> {
    /// What has been counted. With a policy, what that makes of it.
    pub fn report(
        &self,
        places: Vec<String>,
        enrolled: Option<Enrolled>,
        policy: Option<&HealthPolicy>,
    ) -> ReceiptReport {
        let mut gathered: BTreeMap<u32, Gathered<'_>> = BTreeMap::new();
        for ((release, _), word) in &self.words {
            let gathered = gathered.entry(*release).or_default();
            let group = (word.cohort, word.hardware);
            gathered.groups.entry(group).or_default().add(word);
            gathered.words.extend(word.delivery.is_some().then_some(word));
            if matches!(word.outcome, InstallResult::Failed | InstallResult::RolledBack) {
                let reason = gathered.reasons.entry((word.outcome, word.reason.as_deref())).or_default();
                *reason.entry(group).or_default() += 1;
            }
        }
        let mut releases: Vec<ReleaseReport> = (0..)
            .zip(self.releases.known())
            .filter_map(|(number, known)| {
                let gathered = gathered.remove(&number);
                let is_told = gathered.is_some() || !known.offered.is_empty();
                is_told.then(|| self.release(known, gathered.unwrap_or_default(), policy))
            })
            .collect();
        releases.sort_by(|a, b| (&a.release, a.sequence).cmp(&(&b.release, b.sequence)));
        let refused = self.refused.iter().map(|(why, refused)| Refused {
            why: *why,
            text: why.text(),
            count: refused.count,
            example: refused.example.clone(),
        });
        ReceiptReport {
            at: self.now,
            places,
            enrolled,
            counted: self.counted,
            repeated: self.repeated,
            newest: self.newest,
            refused: refused.collect(),
            releases,
        }
    }

    fn release(&self, known: &Known, gathered: Gathered<'_>, policy: Option<&HealthPolicy>) -> ReleaseReport {
        let named = |(cohort, hardware): Pair| {
            Some((self.releases.cohort(cohort)?.clone(), self.releases.hardware(hardware)?.clone()))
        };
        let mut report = ReleaseReport {
            release: known.id.to_string(),
            sequence: known.sequence,
            manifest: known.manifest,
            all: Tally::default(),
            // A cohort that has said nothing yet has to be there as well: its silence is told, not left out.
            cohorts: known.offered.iter().map(|cohort| (cohort.clone(), Tally::default())).collect(),
            hardware: BTreeMap::new(),
            groups: Vec::new(),
            reasons: Vec::new(),
            other_reasons: 0,
            verdict: None,
            is_offered: !known.offered.is_empty(),
            delivery: self.delivery(known, gathered.words.iter().copied()),
        };
        for (group, tally) in gathered.groups {
            let Some((cohort, hardware)) = named(group) else { continue };
            report.all.plus(tally);
            report.cohorts.entry(cohort.clone()).or_default().plus(tally);
            report.hardware.entry(hardware.clone()).or_default().plus(tally);
            report.groups.push(Group { cohort, hardware, tally });
        }
        report.groups.sort_by(|a, b| (&a.cohort, &a.hardware).cmp(&(&b.cohort, &b.hardware)));
        for ((outcome, reason), groups) in gathered.reasons {
            let mut found = Reason {
                outcome,
                reason: reason.map(str::to_owned),
                devices: 0,
                cohorts: BTreeMap::new(),
                hardware: BTreeMap::new(),
            };
            for (group, devices) in groups {
                let Some((cohort, hardware)) = named(group) else { continue };
                found.devices += devices;
                *found.cohorts.entry(cohort).or_default() += devices;
                *found.hardware.entry(hardware).or_default() += devices;
            }
            report.reasons.push(found);
        }
        report.reasons.sort_by(|a, b| {
            b.devices.cmp(&a.devices).then_with(|| (a.outcome, &a.reason).cmp(&(b.outcome, &b.reason)))
        });
        let others = report.reasons.split_off(REASONS.min(report.reasons.len()));
        report.other_reasons = others.iter().map(|reason| reason.devices).sum();
        report.verdict = policy.map(|policy| health::judge(&report.counts(), policy));
        report
    }
}

impl Tally {
    fn plus(&mut self, other: Self) {
        self.offered += other.offered;
        self.installed += other.installed;
        self.confirmed += other.confirmed;
        self.failed += other.failed;
        self.rolled_back += other.rolled_back;
        self.recovered += other.recovered;
    }
}

//! The recorded results per release and the unsent receipts: one file of the state folder.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::key::DeviceKey;
use crate::receipts::status::ReceiptStatus;
use crate::store::Keep;
use tidegate_model::gate::GateUrl;
use tidegate_model::name::{DeviceId, HardwareId, Name};
use tidegate_model::receipt::{
    DeliveryCost, InstallResult, MAX_LENGTH, MAX_SIGNATURE, OfferResult, Receipt, SignedReceipt,
};
use tidegate_model::release::Release;
use tidegate_model::time::{self, UtcTime};
use tidegate_model::version::Version;
use tidegate_tuf::fields::{FieldError, Fields};
use tidegate_tuf::json;

/// The maximum number of unsent receipts. Beyond it, the oldest `offered` are dropped first, then the oldest others.
pub const MAX_WAITING: usize = 256;
/// The maximum size of the unsent receipts in bytes.
pub const MAX_BYTES: usize = 160 * 1024;
/// The maximum number of remembered releases; the oldest are forgotten first.
const MAX_RELEASES: usize = 64;

/// What a device has recorded and not yet sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// The oldest first.
    pub(super) queue: Vec<SignedReceipt>,
    /// The newest last.
    releases: Vec<Known>,
    /// The gate of the device's last known cohort, if it had one.
    pub(crate) gate: Option<GateUrl>,
    pub(super) dropped: u64,
    pub(super) refused: u64,
    pub(super) failures: u32,
    pub(super) until: Option<UtcTime>,
    pub(super) problem: Option<String>,
}

/// A release that was offered to this device.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    release: Release,
    context: Context,
    /// The last recorded result.
    last: InstallResult,
    /// What fetching it took so far.
    delivery: Option<DeliveryCost>,
}

/// The other fields of a receipt, saved when the release is offered, because the repository may be unreachable after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Context {
    /// The device's id or its salted hash.
    pub(crate) device: DeviceId,
    pub(crate) channel: Name,
    pub(crate) cohort: Name,
    pub(crate) product: Name,
    pub(crate) hardware: HardwareId,
    /// What the device ran.
    pub(crate) from: Version,
}

impl Ledger {
    /// Records that a release is offered, if that is new. Returns whether the ledger changed.
    pub(crate) fn offered(
        &mut self,
        release: &Release,
        context: Context,
        offers: Vec<OfferResult>,
        at: UtcTime,
        key: &DeviceKey,
    ) -> Result<bool, String> {
        if let Some(known) = self.known(release) {
            // Not once it is installed, because then the device runs it.
            let changed =
                !matches!(known.last, InstallResult::Installed | InstallResult::Confirmed) && known.context != context;
            if changed {
                known.context = context;
            }
            return Ok(changed);
        }
        let known = Known { release: release.clone(), context, last: InstallResult::Offered, delivery: None };
        self.queue.push(sign(&known, None, offers, at, key)?);
        self.releases.push(known);
        let excess = self.releases.len().saturating_sub(MAX_RELEASES);
        self.releases.drain(..excess);
        self.make_room();
        Ok(true)
    }

    /// Adds to what fetching a release took. Returns whether the ledger changed.
    pub(crate) fn fetched(&mut self, release: &Release, cost: DeliveryCost) -> bool {
        let Some(known) = self.known(release).filter(|_| cost.bytes > 0) else { return false };
        let before = known.delivery.map_or(0, |cost| cost.bytes);
        known.delivery = Some(DeliveryCost { bytes: cost.bytes.saturating_add(before), ..cost });
        true
    }

    /// Records the result of a release, unless it was recorded last or the release was never offered. Returns whether the ledger changed.
    pub(crate) fn record(
        &mut self,
        release: &Release,
        outcome: InstallResult,
        reason: Option<&str>,
        at: UtcTime,
        key: &DeviceKey,
    ) -> Result<bool, String> {
        let Some(known) = self.known(release) else { return Ok(false) };
        let follows = match outcome {
            InstallResult::Offered => false,
            // A confirmed release is not installed again.
            InstallResult::Installed | InstallResult::Failed => !matches!(known.last, InstallResult::Confirmed),
            InstallResult::Confirmed | InstallResult::RolledBack => true,
        };
        if !follows || outcome == known.last {
            return Ok(false);
        }
        known.last = outcome;
        let receipt = sign(known, reason, Vec::new(), at, key)?;
        self.queue.push(receipt);
        self.make_room();
        Ok(true)
    }

    /// Signs the unsent receipts with this key if another key signed them, because that key may be unknown now. Returns whether the ledger changed.
    pub(crate) fn sign_again(&mut self, key: &DeviceKey) -> bool {
        let mut changed = false;
        for signed in self.queue.iter_mut().filter(|signed| signed.keyid != *key.id()) {
            if let Ok(bytes) = signed.receipt.to_bytes() {
                *signed = signed.receipt.clone().signed(key.id().clone(), key.sign(&bytes));
                changed = true;
            }
        }
        changed
    }

    /// The last recorded result of a release.
    pub(crate) fn last(&self, release: &Release) -> Option<InstallResult> {
        self.releases.iter().find(|known| known.release == *release).map(|known| known.last)
    }

    /// The unsent receipts, the oldest first.
    pub(crate) fn waiting(&self) -> &[SignedReceipt] {
        &self.queue
    }

    pub(crate) fn status(&self) -> ReceiptStatus {
        ReceiptStatus {
            waiting: self.queue.len(),
            dropped: self.dropped,
            refused: self.refused,
            failures: self.failures,
            problem: self.problem.clone(),
            until: self.until,
        }
    }

    fn known(&mut self, release: &Release) -> Option<&mut Known> {
        self.releases.iter_mut().find(|known| known.release == *release)
    }

    /// Drops receipts beyond the maximum. Results are more important than offers.
    fn make_room(&mut self) {
        let mut bytes: usize = self.queue.iter().map(length).sum();
        while self.queue.len() > MAX_WAITING || bytes > MAX_BYTES {
            let offered = self.queue.iter().position(|signed| signed.receipt.outcome == InstallResult::Offered);
            let gone = self.queue.remove(offered.unwrap_or(0));
            bytes = bytes.saturating_sub(length(&gone));
            self.dropped = self.dropped.saturating_add(1);
        }
    }
}

fn length(signed: &SignedReceipt) -> usize {
    json::canonical(&signed.to_value()).map_or(MAX_LENGTH, |bytes| bytes.len())
}

fn sign(
    known: &Known,
    reason: Option<&str>,
    offers: Vec<OfferResult>,
    at: UtcTime,
    key: &DeviceKey,
) -> Result<SignedReceipt, String> {
    let Known { release, context, last, delivery } = known.clone();
    let mut receipt = Receipt {
        device: context.device,
        channel: context.channel,
        cohort: context.cohort,
        product: context.product,
        release: release.version,
        sequence: release.sequence,
        manifest: release.sha256,
        hardware: context.hardware,
        outcome: last,
        reason: reason.and_then(super::reason),
        at: time::whole(at),
        from: context.from,
        offers,
        delivery: delivery.filter(|_| last == InstallResult::Installed),
    };
    while length(&receipt.clone().signed(key.id().clone(), vec![0; MAX_SIGNATURE])) > MAX_LENGTH
        && receipt.offers.pop().is_some()
    {}
    let bytes = receipt.to_bytes().map_err(|e| e.to_string())?;
    let signed = receipt.signed(key.id().clone(), key.sign(&bytes));
    if length(&signed) > MAX_LENGTH {
        return Err(format!("a receipt would be longer than {MAX_LENGTH} bytes"));
    }
    Ok(signed)
}

impl Serialize for Ledger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let queue: Vec<Value> = self.queue.iter().map(SignedReceipt::to_value).collect();
        let releases: Vec<Value> = self
            .releases
            .iter()
            .map(|known| {
                let mut value = json!({"release": known.release, "context": known.context, "last": known.last.name()});
                if let (Some(delivery), Some(map)) = (known.delivery, value.as_object_mut()) {
                    map.insert("delivery".into(), delivery.value());
                }
                value
            })
            .collect();
        json!({
            "queue": queue, "releases": releases, "gate": self.gate, "dropped": self.dropped, "refused": self.refused,
            "failures": self.failures, "until": self.until.map(time::format), "problem": self.problem,
        })
        .serialize(serializer)
    }
}

impl Keep for Ledger {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, at)?;
        let queue = fields.list("queue", usize::MAX, |value, at| {
            SignedReceipt::from_value(value).map_err(|e| FieldError::new(at, e.to_string()))
        })?;
        let releases = fields.list("releases", usize::MAX, known)?;
        let is_set = |fields: &Fields<'_>, key| !fields.is_null(key);
        Ok(Self {
            queue,
            releases,
            gate: if is_set(&fields, "gate") { fields.optional_parsed("gate")? } else { None },
            dropped: fields.u64("dropped")?,
            refused: fields.u64("refused")?,
            failures: fields.u32("failures")?,
            until: if is_set(&fields, "until") { fields.optional_text_as("until", time::parse)? } else { None },
            problem: if is_set(&fields, "problem") {
                fields.optional_text("problem")?.map(str::to_owned)
            } else {
                None
            },
        })
    }
}

fn known(value: &Value, at: &str) -> Result<Known, FieldError> {
    let mut fields = Fields::of(value, at)?;
    Ok(Known {
        release: fields.part("release", Release::read)?,
        context: fields.part("context", |value, at| {
            let mut fields = Fields::of(value, at)?;
            Ok(Context {
                device: fields.parsed("device")?,
                channel: fields.parsed("channel")?,
                cohort: fields.parsed("cohort")?,
                product: fields.parsed("product")?,
                hardware: fields.parsed("hardware")?,
                from: fields.text_as("from", tidegate_model::version::parse)?,
            })
        })?,
        last: fields.one_of("last", &InstallResult::NAMES)?,
        delivery: fields.optional_part("delivery", DeliveryCost::read)?,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use tidegate_model::digest::Digest;

    pub(in crate::receipts) fn key() -> DeviceKey {
        use ed25519_dalek::pkcs8::EncodePrivateKey as _;
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        DeviceKey::from_pem(key.to_pkcs8_pem(p256::pkcs8::LineEnding::LF).unwrap().as_bytes()).unwrap()
    }

    fn release(sequence: u64) -> Release {
        Release { version: semver::Version::new(1, sequence, 0), sequence, sha256: Digest::of(b"manifest") }
    }

    fn context(cohort: &str) -> Context {
        Context {
            device: "device-0001".parse().unwrap(),
            channel: "stable".parse().unwrap(),
            cohort: cohort.parse().unwrap(),
            product: "os".parse().unwrap(),
            hardware: "board-a".parse().unwrap(),
            from: "1.0.0".parse().unwrap(),
        }
    }

    fn at(second: i64) -> UtcTime {
        chrono::DateTime::from_timestamp(1_767_225_600 + second, 0).unwrap()
    }

    /// A ledger with this number of offered releases.
    pub(in crate::receipts) fn offered(count: u64) -> Ledger {
        let mut ledger = Ledger::default();
        for sequence in 1..=count {
            assert!(ledger.offered(&release(sequence), context("canary"), Vec::new(), at(0), &key()).unwrap());
        }
        ledger
    }

    fn queued(ledger: &Ledger) -> Vec<&'static str> {
        ledger.queue.iter().map(|signed| signed.receipt.outcome.name()).collect()
    }

    #[test]
    fn each_outcome_is_recorded_once_per_attempt() {
        let mut ledger = offered(1);
        assert!(!ledger.offered(&release(1), context("canary"), Vec::new(), at(9), &key()).unwrap());
        let mut record = |outcome| {
            let first = ledger.record(&release(1), outcome, Some("why"), at(1), &key()).unwrap();
            assert!(!ledger.record(&release(1), outcome, Some("why"), at(2), &key()).unwrap(), "{outcome} twice");
            first
        };
        for (outcome, expected) in [
            (InstallResult::Offered, false),
            (InstallResult::Installed, true),
            (InstallResult::RolledBack, true),
            (InstallResult::Offered, false),
            (InstallResult::Installed, true),
            (InstallResult::Failed, true),
            (InstallResult::Installed, true),
            (InstallResult::Confirmed, true),
            (InstallResult::Installed, false),
            (InstallResult::Failed, false),
            (InstallResult::RolledBack, true),
        ] {
            assert_eq!(record(outcome), expected, "{outcome}");
        }
        assert_eq!(
            queued(&ledger),
            ["offered", "installed", "rolled-back", "installed", "failed", "installed", "confirmed", "rolled-back"]
        );
        let public = key().public().clone();
        assert!(ledger.queue.iter().all(|signed| signed.verify(&public)));
        // A release that was never offered has no results.
        assert!(!ledger.record(&release(9), InstallResult::Installed, None, at(1), &key()).unwrap());
    }

    #[test]
    fn a_pending_release_may_change_cohort() {
        let mut ledger = offered(1);
        assert!(ledger.offered(&release(1), context("all"), Vec::new(), at(1), &key()).unwrap());
        ledger.record(&release(1), InstallResult::Installed, None, at(2), &key()).unwrap();
        assert!(!ledger.offered(&release(1), context("lab"), Vec::new(), at(3), &key()).unwrap());
        ledger.record(&release(1), InstallResult::Confirmed, None, at(4), &key()).unwrap();
        let cohorts: Vec<_> = ledger.queue.iter().map(|signed| signed.receipt.cohort.to_string()).collect();
        assert_eq!(cohorts, ["canary", "all", "all"]);
    }

    #[test]
    fn a_new_key_signs_pending_receipts_again() {
        use ed25519_dalek::pkcs8::EncodePrivateKey as _;
        let mut ledger = offered(3);
        assert!(!ledger.sign_again(&key()));
        let pem = p256::SecretKey::from_slice(&[3; 32]).unwrap().to_pkcs8_pem(p256::pkcs8::LineEnding::LF).unwrap();
        let other = DeviceKey::from_pem(pem.as_bytes()).unwrap();
        let before = ledger.clone();
        assert!(ledger.sign_again(&other) && !ledger.sign_again(&other));
        for (signed, before) in ledger.queue.iter().zip(&before.queue) {
            assert!(signed.verify(other.public()) && signed.receipt == before.receipt);
        }
    }

    #[test]
    fn it_reads_back_as_it_was() {
        let mut ledger = offered(3);
        ledger.record(&release(2), InstallResult::Failed, Some("no\u{a0}room"), at(1), &key()).unwrap();
        for changed in [
            ledger.clone(),
            Ledger {
                gate: Some("https://gate.example.com".parse().unwrap()),
                until: Some(at(7)),
                problem: Some("no connection".into()),
                failures: 2,
                dropped: 1,
                refused: 3,
                ..ledger
            },
            Ledger::default(),
        ] {
            let bytes = serde_json::to_vec(&changed).unwrap();
            assert_eq!(Ledger::read(&json::parse(&bytes).unwrap(), "").unwrap(), changed);
        }
        assert!(Ledger::read(&json!({"queue": [{}]}), "").is_err());
    }

    #[test]
    fn it_is_bounded_and_the_oldest_offers_go_first() {
        let mut ledger = offered(10);
        ledger.record(&release(1), InstallResult::Installed, None, at(1), &key()).unwrap();
        // As it is after many more.
        ledger.offered(&release(11), context("canary"), Vec::new(), at(0), &key()).unwrap();
        ledger.record(&release(11), InstallResult::Failed, Some(&"why ".repeat(60)), at(1), &key()).unwrap();
        let failed = ledger.queue.last().unwrap().clone();
        ledger.queue.extend(std::iter::repeat_n(failed, 170));
        for sequence in 12..=100 {
            ledger.offered(&release(sequence), context("canary"), Vec::new(), at(0), &key()).unwrap();
            ledger.record(&release(sequence), InstallResult::Failed, Some(&"why ".repeat(60)), at(1), &key()).unwrap();
        }
        let bytes: usize = ledger.queue.iter().map(length).sum();
        assert!(ledger.queue.len() <= MAX_WAITING && bytes <= MAX_BYTES, "{} {bytes}", ledger.queue.len());
        assert!(bytes > MAX_BYTES / 2);
        // All offers are dropped before the first result, and older results before later ones.
        assert!(queued(&ledger).iter().all(|outcome| *outcome == "failed"), "{:?}", queued(&ledger));
        assert_eq!(ledger.queue.last().unwrap().receipt.sequence, 100);
        assert_eq!(ledger.dropped, 10 + 1 + 2 + 170 + 2 * 89 - ledger.queue.len() as u64);
        assert_eq!(ledger.releases.len(), MAX_RELEASES);
        // The stored file stays below the read limit.
        assert!(serde_json::to_vec(&ledger).unwrap().len() < 256 * 1024);
    }
}

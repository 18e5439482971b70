//! Receipts: the result of a release on a device, signed by the device. Schema 1.
//!
//! ```json
//! {"signed": {"schema": 1, "type": "receipt", "device": "device-0001", "channel": "stable", "cohort": "canary", "product": "os",
//!             "release": "1.2.0", "sequence": 12, "manifest": "<SHA-256>", "hardware": "board-a", "outcome": "rolled-back",
//!             "reason": "health command failed", "at": "2026-01-05T12:00:00Z", "from": "1.1.0"},
//!  "signature": {"keyid": "<id of the device's key>", "sig": "<hex>"}}
//! ```
//!
//! The signature is over the canonical JSON of `signed`. Each receipt is stored under a name that depends on those bytes and the key's id
//! ([`SignedReceipt::object_name`]), so that duplicates are stored once. `reason` is optional; `device` is the device's id or,
//! to keep it private, [its salted hash](super::position::Salt::device_hash). Unknown fields of a receipt are not ignored: they make
//! it invalid.
//!
//! A receipt with the outcome `offered` also lists the offers of the device's cohort, with the outcome of each one and of its rules:
//!
//! ```json
//! "offers": [
//!   {"release": "2.0.0", "sequence": 20, "outcome": "wait", "failed": ["D-RAMP"], "not_applicable": ["D-PRODUCT", "D-CHANNEL"]},
//!   {"release": "1.5.0", "sequence": 15, "outcome": "install", "failed": [], "not_applicable": []}
//! ]
//! ```
//!
//! A rule that is in neither list has passed.
//!
//! A receipt with the outcome `installed` may say what fetching the release took: `"delivery": {"way": "patch", "bytes": 5432109}`, with the way
//! of the artifact that took most: `patch`, `chunks` or `whole`.

use alloc::collections::BTreeSet;

use serde_json::{Value, json};

use super::decision::{OutcomeKind, Rule, Verdict};
use super::decode::{FieldError, Fields, FormatError, invalid, parse};
use super::digest::Digest;
use super::explanation::ExplainedOffer;
use super::name::{DeviceId, HardwareId, Name, Text};
use super::rollout::MAX_OFFERS;
use super::time::{self, UtcTime};
use super::version::Version;
use crate::prelude::*;
use tidegate_tuf::fields::{quoted, text, whole};
use tidegate_tuf::json;
use tidegate_tuf::key::{Key, KeyId};

/// The maximum length of a receipt with its signature, in bytes.
pub const MAX_LENGTH: usize = 4096;
/// The longest reason, in characters.
pub const MAX_REASON: usize = 200;

const DOCUMENT: &str = "receipt";
/// The longest signature, in bytes. ECDSA in DER has at most 72, Ed25519 64.
pub const MAX_SIGNATURE: usize = 128;

/// The result of a release on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The device's id or its salted hash.
    pub device: DeviceId,
    /// The channel that the device follows.
    pub channel: Name,
    /// The device's cohort at that time.
    pub cohort: Name,
    /// The product.
    pub product: Name,
    /// The release's version.
    pub release: Version,
    /// The release's sequence.
    pub sequence: u64,
    /// SHA-256 of the release's manifest.
    pub manifest: Digest,
    /// The device's hardware.
    pub hardware: HardwareId,
    /// The result.
    pub outcome: InstallResult,
    /// The reason, in one line of at most [`MAX_REASON`] printable ASCII characters.
    pub reason: Option<Text>,
    /// The time by the device's clock.
    pub at: UtcTime,
    /// The version that the device ran previously.
    pub from: Version,
    /// The offers of the device's cohort, in order of preference, if the outcome is [`InstallResult::Offered`]. Those that do not
    /// fit into [`MAX_LENGTH`] are left out, the last ones first.
    pub offers: Vec<OfferResult>,
    /// What fetching the release took, if the outcome is [`InstallResult::Installed`].
    pub delivery: Option<DeliveryCost>,
}

/// What fetching a release took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryCost {
    /// The way of the artifact that took most.
    pub way: DeliveryWay,
    /// The bytes that were fetched.
    pub bytes: u64,
}

/// The ways to fetch an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryWay {
    /// By a patch from the running release.
    Patch,
    /// As chunks, without those that the running release has.
    Chunks,
    /// As it is.
    Whole,
}

impl DeliveryWay {
    /// The ways with their names.
    pub const NAMES: [(&str, Self); 3] = [("patch", Self::Patch), ("chunks", Self::Chunks), ("whole", Self::Whole)];

    /// The name in receipts.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, way)| *way == self).map_or("", |(name, _)| name)
    }
}

impl DeliveryCost {
    /// Its JSON form.
    pub fn value(self) -> Value {
        json!({"way": self.way.name(), "bytes": self.bytes})
    }

    /// Reads its JSON form.
    ///
    /// # Errors
    ///
    /// If it has another field, or lacks one.
    pub fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        whole(value, at, |fields| {
            Ok(Self { way: fields.one_of("way", &DeliveryWay::NAMES)?, bytes: fields.u64("bytes")? })
        })
    }
}

/// What became of an offer at the check that decided to install a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferResult {
    /// The version of the offered release.
    pub release: Version,
    /// Its sequence.
    pub sequence: u64,
    /// The kind of the decision's outcome, such as `wait`.
    pub outcome: OutcomeKind,
    /// The rules that failed.
    pub failed: BTreeSet<Rule>,
    /// The rules that did not apply, or were not evaluated. All others passed.
    pub not_applicable: BTreeSet<Rule>,
}

impl OfferResult {
    /// What became of an offer.
    pub fn of(offer: &ExplainedOffer) -> Self {
        let with = |verdict: Verdict| {
            let rules = offer.decision.rules.iter();
            rules.filter(|outcome| outcome.verdict == verdict).map(|outcome| outcome.rule).collect()
        };
        Self {
            release: offer.release.clone(),
            sequence: offer.sequence,
            outcome: offer.decision.outcome.kind(),
            failed: with(Verdict::Fail),
            not_applicable: with(Verdict::NotApplicable),
        }
    }

    fn value(&self) -> Value {
        let ids = |rules: &BTreeSet<Rule>| rules.iter().map(|rule| rule.id()).collect::<Vec<_>>();
        json!({
            "release": self.release.to_string(), "sequence": self.sequence, "outcome": self.outcome.name(),
            "failed": ids(&self.failed), "not_applicable": ids(&self.not_applicable),
        })
    }

    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let rule = |value: &Value, at: &str| {
            let id = text(value, at)?;
            let rule = Rule::ALL.into_iter().find(|rule| rule.id() == id);
            rule.ok_or_else(|| FieldError::new(at, format!("{} is not a rule of decisions", quoted(id))))
        };
        whole(value, at, |fields| {
            Ok(Self {
                release: fields.text_as("release", crate::version::parse)?,
                sequence: fields.u64("sequence")?,
                outcome: fields.one_of("outcome", &OutcomeKind::NAMES)?,
                failed: fields.set("failed", Rule::ALL.len(), rule)?,
                not_applicable: fields.set("not_applicable", Rule::ALL.len(), rule)?,
            })
        })
    }
}

/// The result of a release on a device, in chronological order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstallResult {
    /// A check decided to install it.
    Offered,
    /// It is installed, and the device starts it.
    Installed,
    /// It runs and is confirmed.
    Confirmed,
    /// It could not be installed.
    Failed,
    /// It failed its trial, and the device restored the previous release.
    RolledBack,
}

impl InstallResult {
    /// The results with their names in receipts.
    pub const NAMES: [(&str, Self); 5] = [
        ("offered", Self::Offered),
        ("installed", Self::Installed),
        ("confirmed", Self::Confirmed),
        ("failed", Self::Failed),
        ("rolled-back", Self::RolledBack),
    ];

    /// The name in receipts.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, outcome)| *outcome == self).map_or("", |(name, _)| name)
    }
}

impl core::fmt::Display for InstallResult {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

/// A receipt with its unverified signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReceipt {
    /// The content.
    pub receipt: Receipt,
    /// The key that claims to have signed it.
    pub keyid: KeyId,
    /// The signature.
    pub signature: Vec<u8>,
}

impl Receipt {
    /// The signed bytes: canonical JSON.
    ///
    /// # Errors
    ///
    /// If a field is invalid, such as a reason that is too long.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        let value = self.value();
        if Self::read(&value).map_err(|error| invalid(DOCUMENT, vec![error]))? != *self {
            return Err(invalid(
                DOCUMENT,
                vec![FieldError::new("at", "an instant within the years 1970 to 9999, in whole seconds")],
            ));
        }
        json::canonical(&value).map_err(|source| FormatError::Json { document: DOCUMENT, source })
    }

    /// The same with a signature over [`Receipt::to_bytes`].
    pub fn signed(self, keyid: KeyId, signature: Vec<u8>) -> SignedReceipt {
        SignedReceipt { receipt: self, keyid, signature }
    }

    fn value(&self) -> Value {
        let mut value = json!({
            "schema": 1, "type": "receipt", "device": self.device, "channel": self.channel, "cohort": self.cohort,
            "product": self.product, "release": self.release.to_string(), "sequence": self.sequence, "manifest": self.manifest,
            "hardware": self.hardware, "outcome": self.outcome.name(), "at": time::format(self.at), "from": self.from.to_string(),
        });
        if let Some(map) = value.as_object_mut() {
            if let Some(reason) = &self.reason {
                map.insert("reason".into(), reason.as_str().into());
            }
            if !self.offers.is_empty() {
                map.insert("offers".into(), self.offers.iter().map(OfferResult::value).collect());
            }
            if let Some(delivery) = self.delivery {
                map.insert("delivery".into(), delivery.value());
            }
        }
        value
    }

    fn read(value: &Value) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, "signed")?;
        match fields.u64("schema")? {
            1 => {}
            other => {
                return Err(FieldError::new(
                    "signed.schema",
                    format!("unsupported schema {other}: this version supports schema 1"),
                ));
            }
        }
        fields.one_of("type", &[("receipt", ())])?;
        let receipt = Self {
            device: fields.parsed("device")?,
            channel: fields.parsed("channel")?,
            cohort: fields.parsed("cohort")?,
            product: fields.parsed("product")?,
            release: fields.text_as("release", crate::version::parse)?,
            sequence: fields.u64("sequence")?,
            manifest: fields.parsed("manifest")?,
            hardware: fields.parsed("hardware")?,
            outcome: fields.one_of("outcome", &InstallResult::NAMES)?,
            reason: fields.optional_parsed("reason")?,
            at: fields.text_as("at", time::parse)?,
            from: fields.text_as("from", crate::version::parse)?,
            offers: fields.list_or_empty("offers", MAX_OFFERS, OfferResult::read)?,
            delivery: fields.optional_part("delivery", DeliveryCost::read)?,
        };
        fields.finish()?;
        if receipt.sequence == 0 {
            return Err(FieldError::new("signed.sequence", "0 is reserved for the factory image; releases start at 1"));
        }
        if !receipt.offers.is_empty() && receipt.outcome != InstallResult::Offered {
            return Err(FieldError::new("signed.offers", "only a receipt with the outcome offered lists offers"));
        }
        if receipt.delivery.is_some() && receipt.outcome != InstallResult::Installed {
            return Err(FieldError::new("signed.delivery", "only a receipt with the outcome installed has it"));
        }
        if receipt.reason.as_ref().is_some_and(|reason| reason.as_str().len() > MAX_REASON) {
            return Err(FieldError::new("signed.reason", format!("longer than {MAX_REASON} characters")));
        }
        Ok(receipt)
    }
}

impl SignedReceipt {
    /// Reads a receipt from strict JSON of at most [`MAX_LENGTH`] bytes.
    ///
    /// # Errors
    ///
    /// If it is longer, not strict JSON, or not a valid receipt. The signature is not checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() > MAX_LENGTH {
            return Err(invalid(DOCUMENT, vec![FieldError::new("", format!("longer than {MAX_LENGTH} bytes"))]));
        }
        Self::from_value(&parse(DOCUMENT, bytes)?)
    }

    /// Reads a receipt from a JSON value, one of the list that a device sends.
    ///
    /// # Errors
    ///
    /// If it is not a valid receipt. The signature is not checked.
    pub fn from_value(value: &Value) -> Result<Self, FormatError> {
        Self::read(value).map_err(|error| invalid(DOCUMENT, vec![error]))
    }

    /// The JSON form.
    pub fn to_value(&self) -> Value {
        let sig = tidegate_tuf::hash::to_hex(&self.signature);
        json!({"signed": self.receipt.value(), "signature": {"keyid": self.keyid.as_str(), "sig": sig}})
    }

    /// Whether this key has signed it. The caller identifies the key by [`SignedReceipt::keyid`].
    pub fn verify(&self, key: &Key) -> bool {
        let Ok(bytes) = self.receipt.to_bytes() else { return false };
        key.id() == self.keyid && key.decode().is_some_and(|key| key.verify(&bytes, &self.signature))
    }

    /// The name of the stored object: `receipts/CHANNEL/PRODUCT/SEQUENCE/SHA256.json`, with the SHA-256 of the signed bytes, a line break and the key's id:
    /// no device can overwrite the receipt of another.
    ///
    /// # Errors
    ///
    /// If the receipt is not valid.
    pub fn object_name(&self) -> Result<String, FormatError> {
        let Receipt { channel, product, sequence, .. } = &self.receipt;
        let mut named = self.receipt.to_bytes()?;
        named.extend_from_slice(format!("\n{}", self.keyid).as_bytes());
        Ok(format!("receipts/{channel}/{product}/{sequence}/{}.json", Digest::of(&named)))
    }

    fn read(value: &Value) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, "")?;
        let receipt = Receipt::read(fields.required("signed")?)?;
        let mut signature = Fields::of(fields.required("signature")?, "signature")?;
        let keyid: Digest = signature.parsed("keyid")?;
        let sig = signature.text("sig")?;
        let bytes = hex(sig).filter(|bytes| !bytes.is_empty() && bytes.len() <= MAX_SIGNATURE);
        let bytes = bytes
            .ok_or_else(|| FieldError::new("signature.sig", format!("{} is not a signature in hex", quoted(sig))))?;
        signature.finish()?;
        fields.finish()?;
        Ok(Self { receipt, keyid: KeyId::new(keyid.to_string()), signature: bytes })
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    fn receipt() -> Receipt {
        Receipt {
            device: "device-0001".parse().unwrap(),
            channel: "stable".parse().unwrap(),
            cohort: "canary".parse().unwrap(),
            product: "os".parse().unwrap(),
            release: "1.2.0".parse().unwrap(),
            sequence: 12,
            manifest: Digest::of(b"manifest"),
            hardware: "board-a".parse().unwrap(),
            outcome: InstallResult::RolledBack,
            reason: Some("health command failed".parse().unwrap()),
            at: time::parse("2026-01-05T12:00:00Z").unwrap(),
            from: "1.1.0".parse().unwrap(),
            offers: Vec::new(),
            delivery: None,
        }
    }

    fn signed() -> (SignedReceipt, Key) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = Key::ed25519(key.verifying_key().as_bytes());
        let signature = key.sign(&receipt().to_bytes().unwrap());
        (receipt().signed(public.id(), signature.to_bytes().to_vec()), public)
    }

    #[test]
    fn a_receipt_reads_back_and_only_its_own_key_vouches_for_it() {
        let (signed, key) = signed();
        let bytes = serde_json::to_vec(&signed.to_value()).unwrap();
        let read = SignedReceipt::parse(&bytes).unwrap();
        assert_eq!(read, signed);
        assert!(read.verify(&key));
        assert!(!read.verify(&Key::ed25519(SigningKey::from_bytes(&[8; 32]).verifying_key().as_bytes())));
        let mut other = read.clone();
        other.receipt.outcome = InstallResult::Confirmed;
        assert!(!other.verify(&key), "its content is signed");
        assert_ne!(other.object_name().unwrap(), read.object_name().unwrap());
        let mut named = read.receipt.to_bytes().unwrap();
        named.extend_from_slice(format!("\n{}", key.id()).as_bytes());
        let digest = Digest::of(&named);
        assert_eq!(read.object_name().unwrap(), format!("receipts/stable/os/12/{digest}.json"));
    }

    fn with_offers() -> Receipt {
        let offer = |release: &str, sequence, outcome, failed: &[Rule]| OfferResult {
            release: release.parse().unwrap(),
            sequence,
            outcome,
            failed: failed.iter().copied().collect(),
            not_applicable: BTreeSet::new(),
        };
        let offers =
            vec![offer("2.0.0", 20, OutcomeKind::Wait, &[Rule::Ramp]), offer("1.5.0", 15, OutcomeKind::Install, &[])];
        Receipt { outcome: InstallResult::Offered, reason: None, offers, ..receipt() }
    }

    #[test]
    fn offers_read_back_and_belong_to_what_was_offered() {
        let value = with_offers().value();
        assert_eq!(value["offers"][0]["failed"], json!(["D-RAMP"]));
        assert_eq!(Receipt::read(&value).unwrap(), with_offers());
        for (pointer, bad) in [
            ("/outcome", json!("installed")),
            ("/offers/0/failed", json!(["D-UNKNOWN"])),
            ("/offers/0/outcome", json!("later")),
            ("/offers/0/more", json!(1)),
            ("/offers", json!(vec![value["offers"][0].clone(); MAX_OFFERS + 1])),
        ] {
            let mut wrong = value.clone();
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            wrong.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(field.to_owned(), bad);
            assert!(Receipt::read(&wrong).is_err(), "{pointer}");
        }
    }

    #[test]
    fn what_a_delivery_took_reads_back_and_belongs_to_what_was_installed() {
        let delivery = Some(DeliveryCost { way: DeliveryWay::Patch, bytes: 5_432_109 });
        let installed = Receipt { outcome: InstallResult::Installed, delivery, ..receipt() };
        let value = installed.value();
        assert_eq!(value["delivery"], json!({"way": "patch", "bytes": 5_432_109}));
        assert_eq!(Receipt::read(&value).unwrap(), installed);
        for (field, bad) in [
            ("outcome", json!("confirmed")),
            ("delivery", json!({"way": "mail", "bytes": 1})),
            ("delivery", json!({"way": "patch"})),
            ("delivery", json!({"way": "patch", "bytes": 1, "more": 1})),
        ] {
            let mut wrong = value.clone();
            wrong[field] = bad;
            assert!(Receipt::read(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_receipt_is_refused() {
        let (signed, _) = signed();
        let good = signed.to_value();
        for (pointer, value) in [
            ("/signed/schema", json!(2)),
            ("/signed/type", json!("manifest")),
            ("/signed/sequence", json!(0)),
            ("/signed/sequence", json!(1.5)),
            ("/signed/outcome", json!("rolled_back")),
            ("/signed/reason", json!("x".repeat(201))),
            ("/signed/reason", json!("two\nlines")),
            ("/signed/device", json!("")),
            ("/signed/channel", json!("Stable")),
            ("/signed/at", json!("yesterday")),
            ("/signed/manifest", json!("00")),
            ("/signed/new", json!(1)),
            ("/signature/sig", json!("")),
            ("/signature/sig", json!("0")),
            ("/signature/sig", json!("AB")),
            ("/signature/sig", json!("00".repeat(200))),
            ("/signature/keyid", json!("00")),
            ("/signature/extra", json!(true)),
            ("/other", json!(true)),
        ] {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            let mut bad = good.clone();
            bad.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(field.to_owned(), value.clone());
            assert!(SignedReceipt::from_value(&bad).is_err(), "{pointer} = {value}");
        }
        let text = serde_json::to_string(&good).unwrap();
        let twice = text.replacen('{', "{\"signature\":{},", 1);
        assert!(SignedReceipt::parse(twice.as_bytes()).is_err(), "a field twice");
        assert!(SignedReceipt::parse(format!("{text}{}", " ".repeat(MAX_LENGTH)).as_bytes()).is_err());
    }
}

//! What a cohort is offered: a list of offers for a product, each with a ramp in time. Schema 1.
//!
//! The list is the member `tidegate` of the `custom` object of a cohort's target, whose bytes are the canonical JSON of the same list:
//!
//! ```json
//! {
//!   "schema": 1, "assigned": "2026-01-05T11:58:00Z",
//!   "offers": [
//!     {
//!       "release": "2.0.0", "sequence": 13, "sha256": "...", "length": 612, "stage": "limited", "since": "2026-01-05T11:58:00Z",
//!       "ramp": {"start": "2026-01-05T12:00:00Z", "end": "2026-01-06T12:00:00Z", "from": 0, "to": 500000},
//!       "until": "2026-01-08T11:58:00Z",
//!       "bridges": [{"release": "1.9.9", "sequence": 10, "sha256": "...", "length": 1234, "upgrade_from": "<1.0.0"}]
//!     },
//!     {"release": "1.5.0", "sequence": 12, "sha256": "...", "length": 598, "stage": "stable", "since": "..."}
//!   ]
//! }
//! ```
//!
//! Offers are in order of preference: the highest version first, and a retraction above what it supersedes. A device takes the first
//! one that it may install now. `paused`, `private`, `ramp`, `until` and `bridges` are optional. Without a ramp the whole cohort is
//! eligible at once; without `until` the offer does not end by itself.

use serde_json::{Map, Value};

use super::decode::{
    Extra, FieldError, Fields, FormatError, SchemaVersion, canonical, extra, invalid, schema, to_value,
};
use super::digest::Digest;
use super::position::{PPM, SPACE, percent};
use super::time::{self, UtcTime};
use super::version::{Version, VersionRange};
use crate::prelude::*;

/// The most bridges of an offer.
pub const MAX_BRIDGES: usize = 64;

/// The most offers in a list.
pub const MAX_OFFERS: usize = 32;

const DOCUMENT: &str = "list of offers";
const RAMP: &str = "ramp";

/// What a cohort is offered of a product, in order of preference.
///
/// The fields are public; [`Offers::to_value`] refuses the same values as [`Offers::from_value`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Offers {
    /// The schema.
    pub schema: SchemaVersion,
    /// When this list was made.
    #[serde(with = "time::text")]
    pub assigned: UtcTime,
    /// The offers, 1 to [`MAX_OFFERS`], each of another release.
    pub offers: Vec<Offer>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A release that a cohort is offered.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Offer {
    /// The version of the release.
    pub release: Version,
    /// The sequence of the release.
    pub sequence: u64,
    /// SHA-256 of its manifest.
    pub sha256: Digest,
    /// Length of its manifest in bytes.
    pub length: u64,
    /// The stage of the release.
    pub stage: Stage,
    /// When the cohort was first offered the release, in this stage or an earlier one.
    #[serde(with = "time::text")]
    pub since: UtcTime,
    /// While this is set, no device starts to install it.
    pub paused: bool,
    /// The release and its bridges are not public: their manifests and artifacts are served by the gate of the cohort. Has no effect
    /// in an unprotected cohort.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub private: bool,
    /// The ramp in time; `None` for the whole cohort at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
    /// When the offer ends by itself; `None` if it does not.
    #[serde(with = "time::optional_text", skip_serializing_if = "Option::is_none")]
    pub until: Option<UtcTime>,
    /// Releases for devices whose version the release itself does not upgrade from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bridges: Vec<Bridge>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The stage of an offered release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Only for the validation cohort.
    Validation,
    /// For some cohorts, or in ramps.
    Limited,
    /// For everyone.
    Stable,
    /// A security release, for everyone.
    Security,
}

impl Stage {
    const NAMES: [(&str, Stage); 4] = [
        ("validation", Stage::Validation),
        ("limited", Stage::Limited),
        ("stable", Stage::Stable),
        ("security", Stage::Security),
    ];
}

impl core::fmt::Display for Stage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            Stage::Validation => "validation",
            Stage::Limited => "limited",
            Stage::Stable => "stable",
            Stage::Security => "security",
        })
    }
}

/// An intermediate release, for devices whose version the offered release does not upgrade from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Bridge {
    /// Its version.
    pub release: Version,
    /// Its sequence, lower than that of the offered release.
    pub sequence: u64,
    /// SHA-256 of its manifest.
    pub sha256: Digest,
    /// Length of its manifest in bytes.
    pub length: u64,
    /// The versions it upgrades from, as in its manifest.
    pub upgrade_from: VersionRange,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Offers {
    /// A list of offers, made at `assigned`.
    pub fn new(assigned: UtcTime, offers: Vec<Offer>) -> Self {
        Offers { schema: SchemaVersion, assigned, offers, extra: Extra::new() }
    }

    /// Reads the list in a target's `custom` object.
    ///
    /// # Errors
    ///
    /// If there is no valid list in it.
    pub fn from_custom(custom: &Map<String, Value>) -> Result<Offers, FormatError> {
        match custom.get("tidegate") {
            Some(value) => Offers::from_value(value),
            None => Err(invalid(DOCUMENT, vec![FieldError::new("custom.tidegate", "this field is missing")])),
        }
    }

    /// Reads a list from a JSON value.
    ///
    /// # Errors
    ///
    /// If it is not a valid list of offers.
    pub fn from_value(value: &Value) -> Result<Offers, FormatError> {
        let one = |error| invalid(DOCUMENT, vec![error]);
        let mut fields = Fields::of(value, "").map_err(one)?;
        let schema = schema(DOCUMENT, &mut fields)?;
        let offers = read(schema, fields).map_err(one)?;
        offers.check()?;
        Ok(offers)
    }

    /// The JSON form, for `custom.tidegate`.
    ///
    /// # Errors
    ///
    /// If reading the value would not give the same list.
    pub fn to_value(&self) -> Result<Value, FormatError> {
        self.check()?;
        to_value(DOCUMENT, &self.whole_seconds(), Offers::from_value)
    }

    /// The canonical JSON form: the bytes of the target.
    ///
    /// # Errors
    ///
    /// If reading the bytes would not give the same list.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        self.check()?;
        canonical(DOCUMENT, &self.whole_seconds(), Offers::from_value)
    }

    /// The offer of the release with this sequence.
    pub fn of(&self, sequence: u64) -> Option<&Offer> {
        self.offers.iter().find(|offer| offer.sequence == sequence)
    }

    /// Checks the rules that the types do not enforce, and lists all errors.
    ///
    /// # Errors
    ///
    /// Every invalid field.
    pub fn check(&self) -> Result<(), FormatError> {
        let mut errors = Vec::new();
        if !time::in_range(self.assigned) {
            errors.push(FieldError::new("assigned", "the year must be 1970 to 9999"));
        }
        if self.offers.is_empty() {
            errors.push(FieldError::new("offers", "at least one is required: without any, the target is not listed"));
        }
        if self.offers.len() > MAX_OFFERS {
            let why = format!("{} entries are too many: at most {MAX_OFFERS}", self.offers.len());
            errors.push(FieldError::new("offers", why));
        }
        for (index, offer) in self.offers.iter().enumerate() {
            let at = format!("offers[{index}]");
            offer.check(&at, &mut errors);
            let earlier =
                |same: fn(&Offer, &Offer) -> bool| self.offers.iter().take(index).position(|other| same(other, offer));
            if let Some(first) = earlier(|other, offer| other.sequence == offer.sequence) {
                let why = format!("{} is the sequence of offers[{first}] already", offer.sequence);
                errors.push(FieldError::new(format!("{at}.sequence"), why));
            }
            if let Some(first) = earlier(|other, offer| other.release == offer.release) {
                let why = format!("{} is the release of offers[{first}] already", offer.release);
                errors.push(FieldError::new(format!("{at}.release"), why));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(invalid(DOCUMENT, errors)) }
    }

    fn whole_seconds(&self) -> Offers {
        let offers = self.offers.iter().map(|offer| Offer {
            since: time::whole(offer.since),
            until: offer.until.map(time::whole),
            ..offer.clone()
        });
        Offers { assigned: time::whole(self.assigned), offers: offers.collect(), ..self.clone() }
    }
}

impl Offer {
    /// An offer to everyone at once, without bridges. `sha256` and `length` are those of the release's manifest.
    pub fn new(release: Version, sequence: u64, (sha256, length): (Digest, u64), stage: Stage, since: UtcTime) -> Self {
        Offer {
            release,
            sequence,
            sha256,
            length,
            stage,
            since,
            paused: false,
            private: false,
            ramp: None,
            until: None,
            bridges: Vec::new(),
            extra: Extra::new(),
        }
    }

    fn check(&self, at: &str, errors: &mut Vec<FieldError>) {
        let mut add = |name: &str, why: String| errors.push(FieldError::new(format!("{at}.{name}"), why));
        if self.sequence == 0 {
            add("sequence", "0 is reserved for the factory image; releases start at 1".into());
        }
        if !time::in_range(self.since) {
            add("since", "the year must be 1970 to 9999".into());
        }
        if self.until.is_some_and(|until| !time::in_range(until)) {
            add("until", "the year must be 1970 to 9999".into());
        }
        if self.bridges.len() > MAX_BRIDGES {
            add("bridges", format!("{} entries are too many: at most {MAX_BRIDGES}", self.bridges.len()));
        }
        for (index, bridge) in self.bridges.iter().enumerate() {
            let name = format!("bridges[{index}].sequence");
            if bridge.sequence == 0 || bridge.sequence >= self.sequence {
                let why = format!("{} is not between 1 and {}", bridge.sequence, self.sequence.saturating_sub(1));
                add(&name, why);
            }
            let mut earlier = self.bridges.iter().take(index);
            if let Some(first) = earlier.position(|other| other.sequence == bridge.sequence) {
                add(&name, format!("{} is the sequence of bridges[{first}] already", bridge.sequence));
            }
        }
    }

    /// Whether the offer has ended by itself at `now`.
    pub fn has_ended(&self, now: UtcTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// The bridge for a device on `version` with `sequence`: of those that upgrade from its version, the one with the
    /// highest sequence above its own.
    pub fn bridge_from(&self, version: &Version, sequence: u64) -> Option<&Bridge> {
        self.bridges
            .iter()
            .filter(|bridge| bridge.sequence > sequence && bridge.sequence < self.sequence)
            .filter(|bridge| bridge.upgrade_from.holds(version))
            .max_by_key(|bridge| bridge.sequence)
    }

    /// The offer as if `bridge` were what is offered: same stage, pause and end, and the bridges below it. Without a ramp: it is for devices
    /// that the ramp of the release has reached.
    #[must_use]
    pub fn through(&self, bridge: &Bridge) -> Offer {
        Offer {
            release: bridge.release.clone(),
            sequence: bridge.sequence,
            sha256: bridge.sha256,
            length: bridge.length,
            ramp: None,
            bridges: self.bridges.iter().filter(|other| other.sequence < bridge.sequence).cloned().collect(),
            ..self.clone()
        }
    }
}

impl<'de> serde::Deserialize<'de> for Offers {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Offers::from_value(&Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

fn read(schema: SchemaVersion, mut fields: Fields<'_>) -> Result<Offers, FieldError> {
    Ok(Offers {
        schema,
        assigned: fields.text_as("assigned", time::parse)?,
        offers: fields.list_or_empty("offers", MAX_OFFERS, |item, at| read_offer(Fields::of(item, at)?))?,
        extra: extra(&fields)?,
    })
}

fn read_offer(mut fields: Fields<'_>) -> Result<Offer, FieldError> {
    let ramp_at = fields.at("ramp");
    Ok(Offer {
        release: fields.text_as("release", crate::version::parse)?,
        sequence: fields.u64("sequence")?,
        sha256: fields.parsed("sha256")?,
        length: fields.u64("length")?,
        stage: fields.one_of("stage", &Stage::NAMES)?,
        since: fields.text_as("since", time::parse)?,
        paused: fields.bool_or("paused", false)?,
        private: fields.bool_or("private", false)?,
        ramp: fields.optional("ramp").map(|value| Ramp::read(value, &ramp_at)).transpose()?,
        until: if fields.contains("until") { Some(fields.text_as("until", time::parse)?) } else { None },
        bridges: fields.list_or_empty("bridges", MAX_BRIDGES, |item, at| read_bridge(Fields::of(item, at)?))?,
        extra: extra(&fields)?,
    })
}

fn read_bridge(mut fields: Fields<'_>) -> Result<Bridge, FieldError> {
    Ok(Bridge {
        release: fields.text_as("release", crate::version::parse)?,
        sequence: fields.u64("sequence")?,
        sha256: fields.parsed("sha256")?,
        length: fields.u64("length")?,
        upgrade_from: fields.parsed("upgrade_from")?,
        extra: extra(&fields)?,
    })
}

/// The share of a cohort that is eligible, as a function of time.
///
/// Nobody before `start`; from `start` on exactly `from` parts per million, rising linearly, and from `end` on exactly
/// `to`. Exposure is a number of positions, out of 2^64: at second `x` of a ramp that lasts `d`,
///
/// ```text
/// exposure = floor((from * d + (to - from) * x) * 2^64 / (10^6 * d))
/// ```
///
/// and a device is exposed if its position within the cohort is less. The division is the only rounding, to one
/// position in 2^64. The instants are in the years 1970 to 9999, so that no product exceeds 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Ramp {
    #[serde(with = "time::text")]
    start: UtcTime,
    #[serde(with = "time::text")]
    end: UtcTime,
    from: u32,
    to: u32,
}

impl Ramp {
    /// A ramp from `from` parts per million at `start` to `to` at `end`, where `start < end` and `from <= to <= 10^6`.
    /// Parts of a second are cut off. All errors are listed.
    ///
    /// # Errors
    ///
    /// Every invalid argument.
    pub fn new(start: UtcTime, end: UtcTime, from: u32, to: u32) -> Result<Ramp, FormatError> {
        let mut errors = Vec::new();
        let mut add = |at: &str, why: String| errors.push(FieldError::new(at, why));
        let ends = (time::from_seconds(start.timestamp()), time::from_seconds(end.timestamp()));
        if ends.0.is_none() {
            add("start", "the year must be 1970 to 9999".into());
        }
        if ends.1.is_none() {
            add("end", "the year must be 1970 to 9999".into());
        }
        if start.timestamp() >= end.timestamp() {
            add("end", "a ramp ends after it starts".into());
        }
        if to > PPM {
            add("to", format!("{to} parts per million are more than the whole, {PPM}"));
        }
        if from > to {
            add("from", format!("a ramp does not fall: {from} is more than {to}"));
        }
        match (ends, errors.is_empty()) {
            ((Some(start), Some(end)), true) => Ok(Ramp { start, end, from, to }),
            _ => Err(invalid(RAMP, errors)),
        }
    }

    /// When it starts.
    pub fn start(&self) -> UtcTime {
        self.start
    }

    /// When it ends.
    pub fn end(&self) -> UtcTime {
        self.end
    }

    /// Parts per million exposed at the start.
    pub fn from(&self) -> u32 {
        self.from
    }

    /// Parts per million exposed at the end.
    pub fn to(&self) -> u32 {
        self.to
    }

    /// How much is exposed at `now`.
    pub fn exposure(&self, now: UtcTime) -> Exposure {
        let elapsed = now.timestamp().saturating_sub(self.start.timestamp());
        let Ok(elapsed) = u128::try_from(elapsed) else { return Exposure::NOBODY };
        let part = self.base() + self.rise() * elapsed.min(self.duration());
        Exposure(part * SPACE / self.whole())
    }

    /// The first second at which a position within the cohort is exposed; `None` if the ramp ends before it.
    /// This is the exact inverse of [`Ramp::exposure`].
    pub fn exposed_at(&self, position: u64) -> Option<UtcTime> {
        // The least part for which floor(part * 2^64 / whole) exceeds the position.
        let part = ((u128::from(position) + 1) * self.whole()).div_ceil(SPACE);
        let missing = part.saturating_sub(self.base());
        let elapsed = match (missing, self.rise()) {
            (0, _) => 0,
            (_, 0) => return None,
            (missing, rise) => missing.div_ceil(rise),
        };
        if elapsed > self.duration() {
            return None;
        }
        time::from_seconds(self.start.timestamp().checked_add(i64::try_from(elapsed).ok()?)?)
    }

    pub(crate) fn read(value: &Value, at: &str) -> Result<Ramp, FieldError> {
        let mut fields = Fields::of(value, at)?;
        let (start, end) = (fields.text_as("start", time::parse)?, fields.text_as("end", time::parse)?);
        let (from, to) = (fields.u32("from")?, fields.u32("to")?);
        fields.finish()?;
        Ramp::new(start, end, from, to).map_err(|error| match error {
            // One error is enough where a document is read: the first names the field.
            FormatError::Invalid { errors, .. } => match errors.into_iter().next() {
                Some(error) => FieldError::new(format!("{at}.{}", error.at), error.why),
                None => FieldError::new(at, "not a ramp"),
            },
            other => FieldError::new(at, other.to_string()),
        })
    }

    /// Seconds from start to end, at least 1.
    fn duration(&self) -> u128 {
        u128::try_from(self.end.timestamp().saturating_sub(self.start.timestamp())).unwrap_or(1).max(1)
    }

    /// The part, out of [`Ramp::whole`], that is exposed at the start.
    fn base(&self) -> u128 {
        u128::from(self.from) * self.duration()
    }

    /// By how much that part grows each second.
    fn rise(&self) -> u128 {
        u128::from(self.to.saturating_sub(self.from))
    }

    fn whole(&self) -> u128 {
        u128::from(PPM) * self.duration()
    }
}

impl core::fmt::Display for Ramp {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (start, end) = (time::format(self.start), time::format(self.end));
        write!(f, "ramp from {} at {start} to {} at {end}", percent(self.from), percent(self.to))
    }
}

impl<'de> serde::Deserialize<'de> for Ramp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ramp::read(&Value::deserialize(deserializer)?, RAMP).map_err(serde::de::Error::custom)
    }
}

/// How much of a cohort is exposed: the positions below a bound from 0 to 2^64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exposure(u128);

impl Exposure {
    /// No position.
    pub const NOBODY: Exposure = Exposure(0);

    /// Every position.
    pub const EVERYONE: Exposure = Exposure(SPACE);

    /// The first position that is not exposed; 2^64 if all are.
    pub fn bound(self) -> u128 {
        self.0
    }

    /// Whether a position within the cohort is exposed.
    pub fn covers(self, position: u64) -> bool {
        u128::from(position) < self.0
    }

    /// Parts per million, rounded up.
    pub fn to_ppm_up(self) -> u32 {
        u32::try_from((self.0 * u128::from(PPM)).div_ceil(SPACE)).unwrap_or(PPM)
    }

    /// Parts per million, rounded to the nearest: for people to read.
    pub fn to_ppm(self) -> u32 {
        u32::try_from((self.0 * u128::from(PPM) + SPACE / 2) >> 64).unwrap_or(PPM)
    }
}

//! The state of a rollout: the assignment of a cohort, and its ramp in time. Schema 1.
//!
//! An assignment is the member `tidegate` of the `custom` object of a cohort's target:
//!
//! ```json
//! {
//!   "schema": 1,
//!   "release": "1.2.0", "sequence": 12, "stage": "limited", "paused": false,
//!   "ramp": {"start": "2026-01-05T12:00:00Z", "end": "2026-01-06T12:00:00Z", "from": 0, "to": 500000},
//!   "assigned": "2026-01-05T11:58:00Z",
//!   "bridges": [{"release": "1.1.9", "sequence": 10, "sha256": "...", "length": 1234, "upgrade_from": "<1.0.0"}]
//! }
//! ```
//!
//! `paused`, `private`, `ramp` and `bridges` are optional. Without a ramp the whole cohort is eligible at once.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::decode::{Extra, FieldError, Fields, FormatError, SchemaVersion, extra, invalid, schema, to_value};
use super::digest::Digest;
use super::position::{PPM, SPACE, percent};
use super::time::{self, Instant};
use super::version::{Version, VersionRange};

/// The most bridges in an assignment.
pub const MAX_BRIDGES: usize = 64;

const DOCUMENT: &str = "assignment";
const RAMP: &str = "ramp";

/// The assignment of a cohort for a product.
///
/// The fields are public; [`Assignment::to_value`] refuses the same values as [`Assignment::from_value`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Assignment {
    /// The schema.
    pub schema: SchemaVersion,
    /// The version of the release.
    pub release: Version,
    /// The sequence of the release.
    pub sequence: u64,
    /// The stage of the release.
    pub stage: Stage,
    /// While this is set, no further devices become eligible.
    pub paused: bool,
    /// The release and its bridges are not public: their manifests and artifacts are served by the gate of the cohort. Has no effect
    /// in an unprotected cohort.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
    /// The ramp in time; `None` for the whole cohort at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
    /// When this assignment was made.
    #[serde(with = "time::text")]
    pub assigned: Instant,
    /// Releases for devices whose version the release itself does not upgrade from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bridges: Vec<Bridge>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The stage of an assigned release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Only for the validation cohort.
    Validation,
    /// For some cohorts, or in ramps.
    Limited,
    /// For everyone.
    Stable,
    /// For everyone at once; such an assignment has no ramp.
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

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Stage::Validation => "validation",
            Stage::Limited => "limited",
            Stage::Stable => "stable",
            Stage::Security => "security",
        })
    }
}

/// An intermediate release, for devices whose version the assigned release does not upgrade from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Bridge {
    /// Its version.
    pub release: Version,
    /// Its sequence, lower than that of the assigned release.
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

impl Assignment {
    /// An assignment to everyone at once, without bridges.
    pub fn new(release: Version, sequence: u64, stage: Stage, assigned: Instant) -> Self {
        Assignment {
            schema: SchemaVersion,
            release,
            sequence,
            stage,
            paused: false,
            private: false,
            ramp: None,
            assigned,
            bridges: Vec::new(),
            extra: Extra::new(),
        }
    }

    /// Reads the assignment in a target's `custom` object.
    ///
    /// # Errors
    ///
    /// If there is no valid assignment in it.
    pub fn from_custom(custom: &Map<String, Value>) -> Result<Assignment, FormatError> {
        match custom.get("tidegate") {
            Some(value) => Assignment::from_value(value),
            None => Err(invalid(DOCUMENT, vec![FieldError::new("custom.tidegate", "this field is missing")])),
        }
    }

    /// Reads an assignment from a JSON value.
    ///
    /// # Errors
    ///
    /// If it is not a valid assignment.
    pub fn from_value(value: &Value) -> Result<Assignment, FormatError> {
        let one = |error| invalid(DOCUMENT, vec![error]);
        let mut fields = Fields::of(value, "").map_err(one)?;
        let schema = schema(DOCUMENT, &mut fields)?;
        let assignment = read(schema, fields).map_err(one)?;
        assignment.check()?;
        Ok(assignment)
    }

    /// The JSON form, for `custom.tidegate`.
    ///
    /// # Errors
    ///
    /// If reading the value would not give the same assignment.
    pub fn to_value(&self) -> Result<Value, FormatError> {
        self.check()?;
        let whole = Assignment { assigned: time::whole(self.assigned), ..self.clone() };
        to_value(DOCUMENT, &whole, Assignment::from_value)
    }

    /// Checks the rules that the types do not enforce, and lists all errors.
    ///
    /// # Errors
    ///
    /// Every invalid field.
    pub fn check(&self) -> Result<(), FormatError> {
        let mut errors = Vec::new();
        let mut add = |at: &str, why: String| errors.push(FieldError::new(at, why));
        if self.sequence == 0 {
            add("sequence", "0 is reserved for the factory image; releases start at 1".into());
        }
        if self.stage == Stage::Security && self.ramp.is_some() {
            add("ramp", "a security release cannot have a ramp".into());
        }
        if !time::in_range(self.assigned) {
            add("assigned", "the year must be 1970 to 9999".into());
        }
        if self.bridges.len() > MAX_BRIDGES {
            add("bridges", format!("{} entries are too many: at most {MAX_BRIDGES}", self.bridges.len()));
        }
        let mut sequences = BTreeMap::new();
        for (index, bridge) in self.bridges.iter().enumerate() {
            let at = format!("bridges[{index}].sequence");
            if bridge.sequence == 0 || bridge.sequence >= self.sequence {
                let why = format!("{} is not between 1 and {}", bridge.sequence, self.sequence.saturating_sub(1));
                add(&at, why);
            }
            if let Some(first) = sequences.insert(bridge.sequence, index) {
                add(&at, format!("{} is the sequence of bridges[{first}] already", bridge.sequence));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(invalid(DOCUMENT, errors)) }
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

    /// The assignment as if `bridge` were what is assigned: same stage, pause and ramp, and the bridges below it.
    /// A decision on it states whether, and when, a device may take the bridge.
    #[must_use]
    pub fn through(&self, bridge: &Bridge) -> Assignment {
        Assignment {
            release: bridge.release.clone(),
            sequence: bridge.sequence,
            bridges: self.bridges.iter().filter(|other| other.sequence < bridge.sequence).cloned().collect(),
            ..self.clone()
        }
    }
}

impl<'de> serde::Deserialize<'de> for Assignment {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Assignment::from_value(&Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

fn read(schema: SchemaVersion, mut fields: Fields<'_>) -> Result<Assignment, FieldError> {
    Ok(Assignment {
        schema,
        release: fields.text_as("release", crate::version::parse)?,
        sequence: fields.u64("sequence")?,
        stage: fields.one_of("stage", &Stage::NAMES)?,
        paused: fields.bool_or("paused", false)?,
        private: fields.bool_or("private", false)?,
        ramp: fields.optional("ramp").map(|value| Ramp::read(value, "ramp")).transpose()?,
        assigned: fields.text_as("assigned", time::parse)?,
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
    start: Instant,
    #[serde(with = "time::text")]
    end: Instant,
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
    pub fn new(start: Instant, end: Instant, from: u32, to: u32) -> Result<Ramp, FormatError> {
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
    pub fn start(&self) -> Instant {
        self.start
    }

    /// When it ends.
    pub fn end(&self) -> Instant {
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
    pub fn exposure(&self, now: Instant) -> Exposure {
        let elapsed = now.timestamp().saturating_sub(self.start.timestamp());
        let Ok(elapsed) = u128::try_from(elapsed) else { return Exposure::NOBODY };
        let part = self.base() + self.rise() * elapsed.min(self.duration());
        Exposure(part * SPACE / self.whole())
    }

    /// The first second at which a position within the cohort is exposed; `None` if the ramp ends before it.
    /// This is the exact inverse of [`Ramp::exposure`].
    pub fn exposed_at(&self, position: u64) -> Option<Instant> {
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

impl std::fmt::Display for Ramp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

    /// Parts per million, rounded down: for people to read.
    pub fn to_ppm(self) -> u32 {
        u32::try_from((self.0 * u128::from(PPM)) >> 64).unwrap_or(PPM)
    }
}

//! The cohort map of a channel: the cohort and position of each device. Schema 1.
//!
//! ```json
//! {
//!   "schema": 1,
//!   "salt": "00112233445566778899aabbccddeeff",
//!   "cohorts": [
//!     {"name": "validation", "devices": ["<hash of a device id>"]},
//!     {"name": "lab", "condition": {"fact": "group", "eq": "lab"}},
//!     {"name": "canary", "share": 10000},
//!     {"name": "fleet", "share": 990000}
//!   ]
//! }
//! ```
//!
//! The first cohort that matches a device wins. Explicit ones (`devices`, `condition`) come first; the shares, in parts
//! per million, divide the space of positions among the remaining devices and add up to the whole, so that each
//! device is in exactly one cohort. Share *k* owns the positions from [`boundary`](super::position::boundary) of the
//! shares before it to that of the shares up to and including it.
//!
//! A cohort may be [protected](super::gate): `"protected": {"gate": "https://gate.example.com"}`.

use alloc::collections::{BTreeMap, BTreeSet};
use core::fmt;

use serde_json::Value;

use super::condition::{Condition, Outcome};
use super::decode::{
    Extra, FieldError, Fields, FormatError, SchemaVersion, canonical, each, extra, invalid, parsed, scan, schema, tree,
    tree_without,
};
use super::digest::Digest;
use super::facts::Facts;
use super::gate::Protected;
use super::name::{DeviceId, Name};
use super::position::{Interval, PPM, RampOrder, Salt, percent, to_ppm};
use crate::prelude::*;
use tidegate_tuf::json::Raw;

/// The most cohorts in a map.
pub const MAX_COHORTS: usize = 10_000;

/// The most devices that one cohort may list.
pub const MAX_DEVICES: usize = 50_000;

/// The longest map, in bytes.
pub const MAX_LENGTH: u64 = 5_000_000;

/// More values than that many cohorts and devices take, with conditions.
const MAX_VALUES: usize = 150_000;

/// Bytes that all conditions and unknown fields may take.
const ROOM: usize = 8_000_000;

const DOCUMENT: &str = "cohort map";

/// The cohorts of a channel. Every value of this type is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CohortMap {
    salt: Salt,
    cohorts: Vec<Cohort>,
    extra: Extra,
    /// The cohorts with shares and the positions they own, in order, without gaps.
    slices: Vec<Slice>,
    /// The last of them, which ends at 2^64.
    last: Slice,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Slice {
    cohort: Name,
    share: u32,
    interval: Interval,
}

/// One cohort.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Cohort {
    /// Its name, unique in the map.
    pub name: Name,
    /// The devices that belong to it.
    #[serde(flatten)]
    pub selector: Selector,
    /// The gate that authenticates devices before they can read the cohort's files, if the cohort is protected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protected: Option<Protected>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The devices that belong to a cohort.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selector {
    /// The devices whose ids hash to one of these; see [`Salt::device_hash`].
    Devices(BTreeSet<Digest>),
    /// The devices whose facts fulfil a condition.
    Condition(Condition),
    /// A share, in parts per million, of the devices that no explicit cohort takes. At least 1.
    Share(u32),
}

/// The cohort and position of a device, in the short form that is computed for whole fleets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement<'a> {
    /// The cohort.
    pub cohort: &'a Name,
    /// The position in the fleet.
    pub position: u64,
    /// The positions that the cohort owns; `None` for an explicit cohort.
    pub interval: Option<Interval>,
}

/// The cohort and position of a device, with the reasons.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CohortChoice {
    /// The cohort.
    pub cohort: Name,
    /// The position in the fleet.
    pub position: u64,
    /// When ramps reach the device.
    #[serde(skip)]
    pub order: RampOrder,
    /// Why this cohort matches.
    pub by: ChosenBy,
    /// The explicit cohorts before it that did not match, in the map's order.
    pub passed_over: Vec<PassedOver>,
}

/// Why a device is in its cohort.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ChosenBy {
    /// The cohort lists the device.
    Devices,
    /// The cohort's condition holds.
    Condition {
        /// The evaluated condition.
        outcome: Outcome,
    },
    /// The cohort's share contains the device's position.
    Share {
        /// The share in parts per million.
        share: u32,
    },
}

/// An explicit cohort that did not match a device.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PassedOver {
    /// The cohort.
    pub cohort: Name,
    /// The evaluated condition; `None` if the cohort lists devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

impl CohortMap {
    /// A map of these cohorts, in this order. All errors are listed.
    ///
    /// # Errors
    ///
    /// If a name occurs twice, a share is 0, the shares do not add up to the whole, or an explicit cohort follows one with a share.
    pub fn new(salt: Salt, cohorts: Vec<Cohort>) -> Result<CohortMap, FormatError> {
        Self::build(salt, cohorts, Extra::new())
    }

    /// Reads a map from strict JSON.
    ///
    /// # Errors
    ///
    /// If it is not strict JSON or not a valid map.
    pub fn parse(bytes: &[u8]) -> Result<CohortMap, FormatError> {
        let raw = scan(DOCUMENT, bytes, MAX_LENGTH, MAX_VALUES)?;
        let one = |error| invalid(DOCUMENT, vec![error]);
        let head = tree_without(raw, &["cohorts"], "").map_err(one)?;
        let mut fields = Fields::of(&head, "").map_err(one)?;
        schema(DOCUMENT, &mut fields)?;
        let salt = fields.parsed("salt").map_err(one)?;
        // The cohorts one by one, so that a large map does not take many times its length.
        let (mut cohorts, mut room) = (Vec::new(), ROOM);
        let mut read = |_: String, raw: Raw<'_>, at: &str| {
            cohorts.push(read_cohort(raw, at, &mut room)?);
            Ok(())
        };
        each(raw.get("cohorts"), true, "cohorts", MAX_COHORTS, &mut read).map_err(one)?;
        Self::build(salt, cohorts, extra(&fields).map_err(one)?)
    }

    /// Reads a map from a JSON value.
    ///
    /// # Errors
    ///
    /// If it is not a valid map.
    pub fn from_value(value: &Value) -> Result<CohortMap, FormatError> {
        Self::parse(value.to_string().as_bytes())
    }

    /// The signed and published bytes: canonical JSON.
    ///
    /// # Errors
    ///
    /// If reading the bytes would not give the same map.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        let bytes = canonical(DOCUMENT, self, CohortMap::from_value)?;
        scan(DOCUMENT, &bytes, MAX_LENGTH, MAX_VALUES)?;
        Ok(bytes)
    }

    /// The channel's salt.
    pub fn salt(&self) -> &Salt {
        &self.salt
    }

    /// The cohorts, in order.
    pub fn cohorts(&self) -> &[Cohort] {
        &self.cohorts
    }

    /// The cohort of this name.
    pub fn cohort(&self, name: &Name) -> Option<&Cohort> {
        self.cohorts.iter().find(|cohort| cohort.name == *name)
    }

    /// The positions that a cohort owns; `None` for an explicit or unknown one.
    pub fn interval(&self, name: &Name) -> Option<Interval> {
        self.slices.iter().find(|slice| slice.cohort == *name).map(|slice| slice.interval)
    }

    /// The cohort and position of a device.
    pub fn place(&self, device: &DeviceId, facts: &Facts) -> Placement<'_> {
        let position = self.salt.position(device);
        // Hashed at most once, and only if some cohort lists devices.
        let mut hash = None;
        for Cohort { name, selector, .. } in self.explicit() {
            let matches = match selector {
                Selector::Devices(devices) => {
                    devices.contains(hash.get_or_insert_with(|| self.salt.device_hash(device)))
                }
                Selector::Condition(condition) => condition.holds(facts),
                Selector::Share(_) => false,
            };
            if matches {
                return Placement { cohort: name, position, interval: None };
            }
        }
        self.share_at(position)
    }

    /// The cohort whose share contains a position, for a device in no explicit cohort.
    pub fn share_at(&self, position: u64) -> Placement<'_> {
        let Slice { cohort, interval, .. } = self.slice(position);
        Placement { cohort, position, interval: Some(*interval) }
    }

    /// The cohort and position of a device as [`CohortMap::place`] finds them, with the reasons.
    pub fn choose(&self, device: &DeviceId, facts: &Facts) -> CohortChoice {
        let Placement { cohort, position, .. } = self.place(device, facts);
        let mut passed_over = Vec::new();
        let mut by = ChosenBy::Share { share: self.slice(position).share };
        for Cohort { name, selector, .. } in self.explicit() {
            let outcome = match selector {
                Selector::Condition(condition) => Some(condition.evaluate(facts)),
                Selector::Devices(_) | Selector::Share(_) => None,
            };
            if name == cohort {
                by = outcome.map_or(ChosenBy::Devices, |outcome| ChosenBy::Condition { outcome });
                break;
            }
            passed_over.push(PassedOver { cohort: name.clone(), outcome });
        }
        CohortChoice { cohort: cohort.clone(), position, order: self.salt.ramp_order(device), by, passed_over }
    }

    /// The cohorts that come before the shares.
    fn explicit(&self) -> impl Iterator<Item = &Cohort> {
        self.cohorts.iter().take_while(|cohort| !matches!(cohort.selector, Selector::Share(_)))
    }

    fn slice(&self, position: u64) -> &Slice {
        let index = self.slices.partition_point(|slice| slice.interval.high() <= u128::from(position));
        self.slices.get(index).unwrap_or(&self.last)
    }

    fn build(salt: Salt, cohorts: Vec<Cohort>, extra: Extra) -> Result<CohortMap, FormatError> {
        let mut errors = Vec::new();
        let mut add = |at: String, why: String| errors.push(FieldError::new(at, why));
        let mut names = BTreeMap::new();
        let mut slices: Vec<Slice> = Vec::new();
        // 64 bits, so that the sum of excessive shares is reported exactly.
        let mut total = 0_u64;
        for (index, Cohort { name, selector, .. }) in cohorts.iter().enumerate() {
            if let Some(first) = names.insert(name, index) {
                add(format!("cohorts[{index}].name"), format!("{name} is the name of cohorts[{first}] already"));
            }
            match selector {
                Selector::Share(0) => {
                    add(format!("cohorts[{index}].share"), "a share is at least 1 part per million".into());
                }
                Selector::Share(share) => {
                    let from = total;
                    total = total.saturating_add(u64::from(*share));
                    let ends = (u32::try_from(from).ok(), u32::try_from(total).ok());
                    if let (Some(from), Some(to)) = ends
                        && let Some(interval) = Interval::between(from, to)
                    {
                        slices.push(Slice { cohort: name.clone(), share: *share, interval });
                    }
                }
                Selector::Devices(_) | Selector::Condition(_) if total > 0 => {
                    let why = "an explicit cohort after one with a share never matches: move it before the shares";
                    add(format!("cohorts[{index}]"), why.into());
                }
                Selector::Devices(_) | Selector::Condition(_) => {}
            }
        }
        if total != u64::from(PPM) {
            add("cohorts".into(), format!("the shares add up to {total} parts per million, not to {PPM}"));
        }
        match slices.last().cloned() {
            Some(last) if errors.is_empty() => Ok(CohortMap { salt, cohorts, extra, slices, last }),
            _ => Err(invalid(DOCUMENT, errors)),
        }
    }
}

/// Reads a cohort. What remains of it in memory is deducted from `room`: unknown fields whole, a condition by a quarter.
fn read_cohort(raw: Raw<'_>, at: &str, room: &mut usize) -> Result<Cohort, FieldError> {
    let before = *room;
    let head = raw.tree_without(&["devices"], room).map_err(|e| FieldError::new(at, e.to_string()))?;
    let mut fields = Fields::of(&head, at)?;
    let name = fields.parsed("name")?;
    let condition = fields.optional("condition");
    let share = fields.optional("share");
    let selector = match (raw.get("devices"), condition, share) {
        (Some(raw), None, None) => {
            let mut devices = BTreeSet::new();
            each(Some(raw), true, &fields.at("devices"), MAX_DEVICES, &mut |_, raw, at| {
                let is_new = devices.insert(parsed(&tree(raw, at)?, at)?);
                if is_new { Ok(()) } else { Err(FieldError::new(at, "duplicate entry")) }
            })?;
            Selector::Devices(devices)
        }
        (None, Some(value), None) => Selector::Condition(Condition::read(value, &fields.at("condition"))?),
        (None, None, Some(_)) => Selector::Share(fields.u32("share")?),
        _ => return Err(FieldError::new(fields.here(), "a cohort has exactly one of devices, condition and share")),
    };
    // Unknown fields are refused here: a client that ignores one would request protected files without the gate.
    let protected =
        fields.optional("protected").map(|value| Protected::read(value, &fields.at("protected"))).transpose()?;
    let extra = extra(&fields)?;
    if extra.is_empty() {
        *room = if condition.is_none() { before } else { before - (before - *room) / 4 };
    }
    Ok(Cohort { name, selector, protected, extra })
}

impl serde::Serialize for CohortMap {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Form<'a> {
            schema: SchemaVersion,
            salt: &'a Salt,
            cohorts: &'a [Cohort],
            #[serde(flatten)]
            extra: &'a Extra,
        }
        Form { schema: SchemaVersion, salt: &self.salt, cohorts: &self.cohorts, extra: &self.extra }
            .serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for CohortMap {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        CohortMap::from_value(&Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Several lines: the cohort with the reason, then the other cohorts with the reasons.
impl fmt::Display for CohortChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CohortChoice { cohort, position, .. } = self;
        match &self.by {
            ChosenBy::Devices => writeln!(f, "{cohort}: it lists this device")?,
            ChosenBy::Condition { outcome } => {
                writeln!(f, "{cohort}: its condition holds")?;
                outcome.write(f, 2)?;
            }
            ChosenBy::Share { share } => {
                writeln!(f, "{cohort}: its share of {} contains this device", percent(*share))?;
            }
        }
        for PassedOver { cohort, outcome } in &self.passed_over {
            match outcome {
                None => writeln!(f, "  not {cohort}: it does not list this device")?,
                Some(outcome) => {
                    writeln!(f, "  not {cohort}: its condition does not hold")?;
                    outcome.write(f, 2)?;
                }
            }
        }
        write!(f, "  position {position} (at {} of the fleet)", percent(to_ppm(*position)))
    }
}

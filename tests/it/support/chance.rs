//! Cohorts, releases, offers and devices by chance, the same at every run.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};
use tidegate_model::cohort::CohortMap;
use tidegate_model::decision::{Installed, Profile};
use tidegate_model::facts::{FactValue, Facts};
use tidegate_model::manifest::Manifest;
use tidegate_model::rollout::Offers;
use tidegate_model::time;

/// A sequence of numbers that looks like chance (splitmix64).
pub struct Chance(u64);

/// A channel as somebody might have set it up: its cohorts, what is approved, and what each cohort is offered.
pub struct Policy {
    pub map: CohortMap,
    pub manifests: Vec<Manifest>,
    /// By cohort, in order.
    pub offers: Vec<Option<Offers>>,
    pub now: DateTime<Utc>,
}

const HARDWARE: [&str; 3] = ["board-a", "board-b", "board-c"];
const GROUPS: [&str; 4] = ["lab", "field", "office", "a group with spaces"];
const FROM: [&str; 5] = ["1.0.0", "1.1.0", "1.2.0", "2.0.0-rc.1", "0.0.1"];

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// True once in `of` times.
    pub fn once_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    pub fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    fn condition(&mut self, depth: u64) -> Value {
        match self.below(if depth == 0 { 6 } else { 9 }) {
            0 => json!({"fact": "group", "eq": self.one(&GROUPS)}),
            1 => json!({"fact": "group", "in": [self.one(&GROUPS), "shed"]}),
            2 => json!({"fact": "ram-mb", "ge": self.below(4096)}),
            3 => json!({"fact": "version", "matches-version": ">=1.1.0"}),
            4 => json!({"fact": "battery", "exists": true}),
            5 => json!({"fact": "sequence", "lt": self.below(6)}),
            6 => json!({"not": self.condition(depth - 1)}),
            7 => json!({"all": [self.condition(depth - 1), self.condition(depth - 1)]}),
            _ => json!({"any": [self.condition(depth - 1), self.condition(depth - 1)]}),
        }
    }

    /// A channel `stable` with the product `os`.
    pub fn policy(&mut self, now: DateTime<Utc>) -> Policy {
        let map = self.map();
        let manifests: Vec<Manifest> = (1..=4).map(|sequence| self.manifest(sequence, now)).collect();
        let offers = map.cohorts().iter().map(|_| self.offers(&manifests, now)).collect();
        Policy { map, manifests, offers, now }
    }

    fn map(&mut self) -> CohortMap {
        let salt = format!("{:016x}{:016x}", self.number(), self.number());
        let mut cohorts = Vec::new();
        for number in 0..self.below(3) {
            cohorts.push(json!({"name": format!("named-{number}"), "condition": self.condition(2)}));
        }
        let shares = 1 + self.below(4);
        let mut left = 1_000_000;
        for number in 0..shares {
            let share = if number + 1 == shares { left } else { 1 + self.below(left - (shares - number)) };
            left -= share;
            cohorts.push(json!({"name": format!("share-{number}"), "share": share}));
        }
        CohortMap::from_value(&json!({"schema": 1, "salt": salt, "cohorts": cohorts})).unwrap()
    }

    fn manifest(&mut self, sequence: u64, now: DateTime<Utc>) -> Manifest {
        // Versions mostly rise; a retract's does not.
        let version = if self.once_in(8) { format!("0.{sequence}.0") } else { format!("1.{sequence}.0") };
        let artifacts: Vec<Value> = HARDWARE[..=usize::try_from(self.below(3)).unwrap()]
            .iter()
            .map(|hardware| {
                let name = format!("{hardware}.img");
                json!({
                    "name": name, "path": format!("stable/releases/os/{version}/{name}"), "length": 3,
                    "sha256": tidegate_model::digest::Digest::of(b"img").to_string(),
                    "hardware": [hardware], "media_type": "application/octet-stream",
                })
            })
            .collect();
        let mut manifest = json!({
            "schema": 1, "product": "os", "version": version, "sequence": sequence, "channel": "stable",
            "created": time::format(now), "build": {"id": format!("build-{sequence}")},
            "urgency": if self.once_in(5) { "security" } else { "normal" }, "artifacts": artifacts,
        });
        if self.once_in(3) {
            manifest["eligibility"] = self.condition(2);
        }
        if self.once_in(3) {
            manifest["upgrade_from"] = self.one(&[">=1.1.0", "^1.2", ">=1.3.0", "<1.2.0"]).into();
        }
        if sequence > 1 && self.once_in(4) {
            manifest["supersedes"] = json!([sequence - 1]);
        }
        Manifest::from_value(&manifest).unwrap()
    }

    /// Up to three releases, the highest sequence first.
    fn offers(&mut self, manifests: &[Manifest], now: DateTime<Utc>) -> Option<Offers> {
        if self.once_in(8) {
            return None;
        }
        let first = usize::try_from(self.below(manifests.len() as u64)).unwrap();
        let count = 1 + usize::try_from(self.below(3)).unwrap();
        let offered = manifests[..=first].iter().rev().take(count);
        let offers: Vec<Value> = offered.map(|manifest| self.offer(manifest, manifests, now)).collect();
        let list = json!({"schema": 1, "assigned": time::format(now), "offers": offers});
        Some(Offers::from_value(&list).unwrap())
    }

    fn offer(&mut self, manifest: &Manifest, manifests: &[Manifest], now: DateTime<Utc>) -> Value {
        let bytes = manifest.to_bytes().unwrap();
        let mut offer = Map::from_iter([
            ("release".to_owned(), json!(manifest.version.to_string())),
            ("sequence".to_owned(), json!(manifest.sequence)),
            ("sha256".to_owned(), json!(tidegate_model::digest::Digest::of(&bytes).to_string())),
            ("length".to_owned(), json!(bytes.len())),
            ("stage".to_owned(), json!(self.one(&["validation", "limited", "stable"]))),
            ("since".to_owned(), json!(time::format(now))),
            ("paused".to_owned(), json!(self.once_in(6))),
        ]);
        if self.once_in(4) {
            let until = now + TimeDelta::seconds(i64::try_from(self.below(300_000)).unwrap() - 100_000);
            offer.insert("until".into(), json!(time::format(until)));
        }
        if !self.once_in(3) {
            let to = self.below(1_000_001);
            let start = now + TimeDelta::seconds(i64::try_from(self.below(200_000)).unwrap() - 100_000);
            let end = start + TimeDelta::seconds(1 + i64::try_from(self.below(300_000)).unwrap());
            let ramp =
                json!({"start": time::format(start), "end": time::format(end), "from": self.below(to + 1), "to": to});
            offer.insert("ramp".into(), ramp);
        }
        let bridge = |bridge: &Manifest| {
            let bytes = bridge.to_bytes().unwrap();
            json!({
                "release": bridge.version.to_string(), "sequence": bridge.sequence, "length": bytes.len(),
                "sha256": tidegate_model::digest::Digest::of(&bytes).to_string(),
                "upgrade_from": bridge.upgrade_from.as_ref().map_or("*".to_owned(), ToString::to_string),
            })
        };
        let bridges = manifests.iter().filter(|other| other.sequence < manifest.sequence);
        let bridges: Vec<Value> = bridges.filter(|_| !self.once_in(3)).map(bridge).collect();
        offer.insert("bridges".into(), bridges.into());
        offer.into()
    }

    /// A device that follows the channel.
    pub fn device(&mut self, number: u64) -> Profile {
        let mut facts = Facts::new();
        let mut fact = |name: &str, value: FactValue| {
            facts.insert(name.parse().unwrap(), value);
        };
        if !self.once_in(3) {
            fact("group", self.one(&GROUPS).into());
        }
        match self.below(4) {
            0 => {}
            1 => fact("ram-mb", "a lot".into()),
            _ => fact("ram-mb", i64::try_from(self.below(5000)).unwrap().into()),
        }
        if self.once_in(3) {
            fact("battery", self.once_in(2).into());
        }
        Profile {
            id: format!("device-{number}-{:x}", self.number()).parse().unwrap(),
            product: "os".parse().unwrap(),
            channel: "stable".parse().unwrap(),
            hardware: self.one(&HARDWARE).parse().unwrap(),
            installed: Installed { version: self.one(&FROM).parse().unwrap(), sequence: self.below(5) },
            own_facts: facts,
            attestation: None,
        }
    }

    /// An instant some days around `now`.
    pub fn instant(&mut self, now: DateTime<Utc>) -> DateTime<Utc> {
        now + TimeDelta::seconds(i64::try_from(self.below(500_000)).unwrap() - 150_000)
    }
}

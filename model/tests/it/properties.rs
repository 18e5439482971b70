//! What holds for every input.

use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_model::cohort::CohortMap;
use tidegate_model::condition::Condition;
use tidegate_model::delivery::Kind;
use tidegate_model::digest::Digest;
use tidegate_model::facts::{FactValue, Facts};
use tidegate_model::layout::{DelegatedRole, Location};
use tidegate_model::manifest::Manifest;
use tidegate_model::name::{ArtifactName, Name};
use tidegate_model::position::{PPM, SPACE, boundary};
use tidegate_model::rollout::{Exposure, Offers, Ramp};
use tidegate_model::time::{self, UtcTime};
use tidegate_model::version::{Version, VersionRange};
use tidegate_tuf::json;

use super::vectors::shares;
use super::{device, name};

/// 9999-12-31T23:59:59Z.
const LAST: i64 = 253_402_300_799;

fn at(seconds: i64) -> UtcTime {
    UtcTime::from_timestamp(seconds, 0).unwrap()
}

/// Ramps of every length from a second to eight thousand years, short ones as likely as long ones.
fn ramp() -> impl Strategy<Value = Ramp> {
    let share = prop_oneof![Just(0), Just(PPM), 0..=PPM];
    let duration = (0_u32..38).prop_flat_map(|bits| 1..=(1_i64 << bits));
    (0..LAST, duration, share.clone(), share).prop_map(|(start, duration, a, b)| {
        let duration = duration.min(LAST - start);
        Ramp::new(at(start), at(start + duration), a.min(b), a.max(b)).unwrap()
    })
}

/// An instant on the ramp, or well before or after it.
fn around(ramp: &Ramp) -> impl Strategy<Value = UtcTime> + use<> {
    let (start, end) = (ramp.start().timestamp(), ramp.end().timestamp());
    prop_oneof![start - 3..=start + 3, end - 3..=end + 3, start..=end, 0..=LAST].prop_map(at)
}

fn ramp_and_instant() -> impl Strategy<Value = (Ramp, UtcTime)> {
    ramp().prop_flat_map(|ramp| (Just(ramp), around(&ramp)))
}

fn share_list() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::btree_set(1..PPM, 0..40).prop_map(|cuts| {
        let mut from = 0;
        let mut list: Vec<u32> = cuts.into_iter().map(|cut| cut - std::mem::replace(&mut from, cut)).collect();
        list.push(PPM - from);
        list
    })
}

fn condition() -> impl Strategy<Value = Value> {
    let value = || prop_oneof![any::<i64>().prop_map(Value::from), any::<bool>().prop_map(Value::from), word()];
    let version = || prop_oneof![Just(json!("1.2.3")), Just(json!("1.2.3-rc.1")), Just(json!("0.0.0+b"))];
    let bound = prop_oneof![any::<i64>().prop_map(Value::from), version()];
    let range = prop_oneof![Just(json!("*")), Just(json!("^1.2")), Just(json!(">=1.0.0, <2.0.0"))];
    let operand = prop_oneof![
        value().prop_map(|operand| ("eq", operand)),
        prop::collection::vec(value(), 1..4).prop_map(|operands| ("in", Value::from(operands))),
        (prop::sample::select(vec!["ge", "gt", "le", "lt"]), bound),
        Just(("exists", json!(true))),
        range.prop_map(|operand| ("matches-version", operand)),
    ];
    let test = (fact(), operand).prop_map(|(fact, (operator, operand))| json!({"fact": fact, operator: operand}));
    test.prop_recursive(6, 40, 4, |inner| {
        let parts = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            parts.clone().prop_map(|parts| json!({"all": parts})),
            parts.prop_map(|parts| json!({"any": parts})),
            inner.prop_map(|part| json!({"not": part})),
        ]
    })
}

fn fact() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "d", "e"]).prop_map(str::to_owned)
}

fn word() -> impl Strategy<Value = Value> {
    prop::sample::select(vec!["", "lab", "1.2.3", "2.0.0-rc.1", "true", "7"]).prop_map(Value::from)
}

fn facts() -> impl Strategy<Value = Facts> {
    let value = prop_oneof![
        any::<i64>().prop_map(FactValue::Integer),
        any::<bool>().prop_map(FactValue::Boolean),
        word().prop_map(|word| FactValue::Text(word.as_str().unwrap().to_owned())),
        any::<String>().prop_map(FactValue::Text),
    ];
    prop::collection::vec((fact(), value), 0..5)
        .prop_map(|facts| facts.into_iter().map(|(name, value)| (name.parse().unwrap(), value)).collect())
}

/// JSON of any shape, with the words of the formats in it so that it comes near to what is accepted.
fn any_json() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "all",
        "any",
        "not",
        "fact",
        "eq",
        "in",
        "ge",
        "exists",
        "matches-version",
        "schema",
        "salt",
        "cohorts",
        "name",
        "share",
        "devices",
        "condition",
        "release",
        "sequence",
        "stage",
        "ramp",
        "bridges",
        "artifacts",
        "build",
        "other",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        Just(json!(1)),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        word(),
    ];
    leaf.prop_recursive(8, 60, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..5)
                .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn exposure_never_falls((ramp, one) in ramp_and_instant(), other in 0..=LAST) {
        let (first, second) = (one.min(at(other)), one.max(at(other)));
        prop_assert!(ramp.exposure(first) <= ramp.exposure(second));
    }

    #[test]
    fn exposure_is_exact_at_both_ends(ramp in ramp(), beyond in 0..=LAST) {
        prop_assert_eq!(ramp.exposure(ramp.start()).bound(), boundary(ramp.from()));
        prop_assert_eq!(ramp.exposure(ramp.end()).bound(), boundary(ramp.to()));
        prop_assert_eq!(ramp.exposure(at(ramp.start().timestamp() - 1)), Exposure::NOBODY);
        if at(beyond) > ramp.end() {
            prop_assert_eq!(ramp.exposure(at(beyond)).bound(), boundary(ramp.to()));
        }
    }

    /// Linear but for less than one position: 2^64 times the line's value lies within the bound and the next.
    #[test]
    fn exposure_is_linear((ramp, now) in ramp_and_instant()) {
        prop_assume!(ramp.start() <= now && now <= ramp.end());
        let duration = u128::try_from((ramp.end() - ramp.start()).num_seconds()).unwrap();
        let elapsed = u128::try_from((now - ramp.start()).num_seconds()).unwrap();
        let part = u128::from(ramp.from()) * duration + u128::from(ramp.to() - ramp.from()) * elapsed;
        let whole = u128::from(PPM) * duration;
        // bound <= part / whole * 2^64 < bound + 1, in whole numbers, with 64 bits to spare on either side.
        let bound = ramp.exposure(now).bound();
        let (quotient, rest) = (part / whole, part % whole);
        let line = quotient * SPACE + rest * SPACE / whole;
        prop_assert!(bound <= line && line < bound + 1);
    }

    #[test]
    fn exposed_at_is_the_inverse_of_exposure((ramp, now) in ramp_and_instant(), position: u64, near in -2_i8..=2) {
        // Positions anywhere, and those at the very edge of what is exposed now.
        let edge = u64::try_from(ramp.exposure(now).bound().min(SPACE - 1)).unwrap();
        for position in [position, edge.saturating_add_signed(near.into())] {
            if let Some(first) = ramp.exposed_at(position) {
                prop_assert!(ramp.start() <= first && first <= ramp.end());
                prop_assert!(ramp.exposure(first).covers(position));
                prop_assert!(!ramp.exposure(at(first.timestamp() - 1)).covers(position));
                prop_assert_eq!(ramp.exposure(now).covers(position), now >= first);
            } else {
                prop_assert!(!ramp.exposure(ramp.end()).covers(position));
                prop_assert!(!ramp.exposure(now).covers(position));
            }
        }
    }

    /// Never in blocks: from one second to the next, no more becomes exposed than the slope of the ramp, to a position.
    #[test]
    fn no_second_exposes_more_than_its_part((ramp, now) in ramp_and_instant()) {
        prop_assume!(ramp.start() <= now && now < ramp.end());
        let duration = u128::try_from((ramp.end() - ramp.start()).num_seconds()).unwrap();
        let slope = u128::from(ramp.to() - ramp.from()) * SPACE / (u128::from(PPM) * duration);
        let step = ramp.exposure(at(now.timestamp() + 1)).bound() - ramp.exposure(now).bound();
        prop_assert!(step == slope || step == slope + 1, "step {} on a slope of {}", step, slope);
    }

    #[test]
    fn each_position_is_in_exactly_one_share(list in share_list(), position: u64) {
        let map = shares(&list);
        let intervals: Vec<_> =
            (0..list.len()).map(|index| map.interval(&name(&format!("c{index}"))).unwrap()).collect();
        prop_assert_eq!(intervals[0].low(), 0);
        prop_assert_eq!(intervals[list.len() - 1].high(), SPACE);
        for pair in intervals.windows(2) {
            prop_assert_eq!(pair[0].high(), u128::from(pair[1].low()));
        }
        prop_assert_eq!(intervals.iter().filter(|interval| interval.contains(position)).count(), 1);
    }

    #[test]
    fn each_device_is_in_the_share_of_its_position(list in share_list(), id in "[!-~]{1,40}") {
        let map = shares(&list);
        let placement = map.place(&device(&id), &Facts::new());
        let interval = placement.interval.unwrap();
        prop_assert_eq!(Some(interval), map.interval(placement.cohort));
        prop_assert!(interval.contains(placement.position));
        let choice = map.choose(&device(&id), &Facts::new());
        prop_assert_eq!(&choice.cohort, placement.cohort);
        prop_assert_eq!(choice.position, placement.position);
        prop_assert_eq!(choice.order, map.salt().ramp_order(&device(&id)));
    }

    #[test]
    fn a_map_chooses_and_places_alike(condition in condition(), facts in facts(), id in "[!-~]{1,40}") {
        let map = CohortMap::from_value(&json!({"schema": 1, "salt": "07".repeat(16), "cohorts": [
            {"name": "listed", "devices": ["00".repeat(32)]},
            {"name": "lab", "condition": condition},
            {"name": "fleet", "share": 1_000_000},
        ]})).unwrap();
        let placement = map.place(&device(&id), &facts);
        let choice = map.choose(&device(&id), &facts);
        prop_assert_eq!(&choice.cohort, placement.cohort);
        prop_assert_eq!(CohortMap::parse(&map.to_bytes().unwrap()).unwrap(), map);
    }

    #[test]
    fn conditions_evaluate_alike_with_and_without_reasons(value in condition(), facts in facts()) {
        let condition = Condition::from_value(&value).unwrap();
        let outcome = condition.evaluate(&facts);
        prop_assert_eq!(outcome.holds, condition.holds(&facts));
        prop_assert_eq!(serde_json::to_value(&condition).unwrap(), value);
        for (fact, _, _) in outcome.problems() {
            prop_assert!(condition.facts().contains(fact));
        }
        // What is printed stays on one line of ASCII, whatever the device says of itself.
        prop_assert!(condition.to_string().bytes().all(|c| c == b' ' || c.is_ascii_graphic()));
    }

    /// Reading any JSON gives a value or an error, and a value evaluates on any facts.
    #[test]
    fn reading_is_total(value in any_json(), facts in facts()) {
        if let Ok(condition) = Condition::from_value(&value) {
            condition.evaluate(&facts);
        }
        if let Ok(map) = CohortMap::from_value(&value) {
            map.choose(&device("d"), &facts);
        }
        let _ = (Manifest::from_value(&value), Offers::from_value(&value), Facts::from_value(&value));
    }

    #[test]
    fn reading_bytes_is_total(bytes: Vec<u8>) {
        let _ = (Manifest::parse(&bytes), CohortMap::parse(&bytes), Facts::parse(&bytes));
    }

    #[test]
    fn facts_come_back(facts in facts()) {
        prop_assume!(facts.iter().all(|(_, value)| value.to_string().len() <= 80));
        let value = serde_json::to_value(&facts).unwrap();
        prop_assert_eq!(Facts::from_value(&value).unwrap(), facts);
    }

    #[test]
    fn offers_come_back(
        ramp in prop::option::of(ramp()), sequence in 2_u64.., paused: bool, other: u64, ends: bool, below: bool,
    ) {
        let offer = |release: &str, sequence: u64| json!({
            "release": release, "sequence": sequence, "sha256": "00".repeat(32), "length": 1, "stage": "limited",
            "since": "2026-01-05T12:00:00Z", "paused": paused, "x-later": {"n": other},
        });
        let mut offers = vec![offer("1.2.0", sequence)];
        if below {
            offers.push(offer("1.1.0", sequence - 1));
        }
        let mut list = Offers::from_value(&json!({
            "schema": 1, "assigned": "2026-01-05T12:00:00Z", "offers": offers, "x-later": other,
        })).unwrap();
        list.offers[0].ramp = ramp;
        list.offers[0].until = ends.then_some(list.assigned);
        let value = list.to_value().unwrap();
        let bytes = json::canonical(&value).unwrap();
        prop_assert_eq!(&list.to_bytes().unwrap(), &bytes);
        prop_assert_eq!(&Offers::from_value(&json::parse(&bytes).unwrap()).unwrap(), &list);
        prop_assert_eq!(Offers::from_value(&value).unwrap().to_value().unwrap(), value);
    }

    #[test]
    fn manifests_come_back(condition in prop::option::of(condition()), sequence in 2_u64.., later in any_json()) {
        let mut manifest = super::decisions::manifest("1.2.0", sequence);
        manifest.supersedes.insert(sequence - 1);
        manifest.eligibility = condition.map(|value| Condition::from_value(&value).unwrap());
        manifest.extra.insert("x-later".into(), later);
        // An extra field that holds a fraction, or more than printable ASCII, is refused. All others come back.
        if let Ok(bytes) = manifest.to_bytes() {
            let read = Manifest::parse(&bytes).unwrap();
            prop_assert_eq!(&read, &manifest);
            prop_assert_eq!(read.to_bytes().unwrap(), bytes);
        }
    }

    #[test]
    fn paths_come_back(
        channel in "[a-z0-9][a-z0-9-]{0,9}",
        other in "[a-z0-9][a-z0-9-]{0,9}",
        artifact in "[A-Za-z0-9][A-Za-z0-9_+-]{0,9}",
        (major, minor, patch) in any::<(u64, u64, u64)>(),
    ) {
        let (channel, product): (Name, Name) = (name(&channel), name(&other));
        let artifact: ArtifactName = artifact.parse().unwrap();
        let version = Version::new(major, minor, patch);
        for location in [
            Location::CohortMap { channel: channel.clone() },
            Location::Manifest { channel: channel.clone(), product: product.clone(), version: version.clone() },
            Location::Artifact { channel: channel.clone(), product: product.clone(), version: version.clone(), artifact: artifact.clone() },
            Location::Patches { channel: channel.clone(), product: product.clone(), version, artifact: artifact.clone() },
            Location::Delivery { channel: channel.clone(), kind: Kind::Index, sha256: Digest::of(artifact.as_str().as_bytes()) },
            Location::Assignment { channel: channel.clone(), cohort: product.clone(), product },
        ] {
            prop_assert_eq!(Location::parse(&location.to_string()), Some(location));
        }
    }

    #[test]
    fn only_paths_of_the_layout_are_read(path in "[a-z./0-9-]{0,40}") {
        if let Some(location) = Location::parse(&path) {
            prop_assert_eq!(location.to_string(), path.clone());
        }
        if let Some(role) = DelegatedRole::parse(&path) {
            prop_assert_eq!(role.to_string(), path);
        }
    }

    #[test]
    fn instants_come_back(seconds in 0..=LAST) {
        let text = time::format(at(seconds));
        prop_assert_eq!(time::parse(&text), Ok(at(seconds)));
    }

    #[test]
    fn ranges_are_printable(text in "[ -~\t\u{a0}]{0,12}") {
        if let Ok(range) = text.parse::<VersionRange>() {
            prop_assert!(text.bytes().all(|c| c == b' ' || c.is_ascii_graphic()));
            prop_assert_eq!(range.to_string(), text);
        }
    }

    /// For releases, ranges mean what they mean to Cargo.
    #[test]
    fn ranges_of_releases_are_cargos(
        parts in prop::collection::vec((prop::sample::select(vec!["", "=", ">", ">=", "<", "<=", "~", "^"]), 0_u64..3,
            prop::option::of((0_u64..3, prop::option::of(0_u64..3)))), 1..3),
        (major, minor, patch) in (0_u64..4, 0_u64..4, 0_u64..4),
    ) {
        let parts = parts.into_iter().map(|(operator, major, rest)| match rest {
            None => format!("{operator}{major}"),
            Some((minor, None)) => format!("{operator}{major}.{minor}"),
            Some((minor, Some(patch))) => format!("{operator}{major}.{minor}.{patch}"),
        });
        let text = parts.collect::<Vec<_>>().join(", ");
        let version = Version::new(major, minor, patch);
        let cargo = semver::VersionReq::parse(&text).unwrap().matches(&version);
        prop_assert_eq!(text.parse::<VersionRange>().unwrap().holds(&version), cargo, "{} {}", text, version);
    }
}

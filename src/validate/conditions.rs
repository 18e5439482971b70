//! Analyzes a condition without any device: whether it can hold at all, which facts it uses, and their types.
//!
//! Each test compares one fact, and between the constants of its tests a fact makes no difference. So a condition is split into
//! the ways in which it can hold (each a list of tests that must hold or must not), and a way is possible if every fact has a
//! value that satisfies all its tests. Candidate values are evaluated with the devices' own code.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tidegate_model::condition::Condition;
use tidegate_model::facts::{FactValue, Facts};
use tidegate_model::gate::Attestation;
use tidegate_model::name::FactName;
use tidegate_model::version::{self, Version};

use crate::config::{FactKind, FactSettings};
use crate::error::{Error, Result};

/// A condition with more ways than this is not analyzed.
const MAX_WAYS: usize = 4096;
/// Facts that every device has.
const ALWAYS: [(&str, FactKind); 5] = [
    ("product", FactKind::Text),
    ("channel", FactKind::Text),
    ("hardware", FactKind::Text),
    ("version", FactKind::Version),
    ("sequence", FactKind::Integer),
];

/// The kind of a fact that devices have by themselves.
fn fixed(name: &str) -> Option<FactKind> {
    let always = ALWAYS.iter().find(|(fact, _)| *fact == name).map(|(_, kind)| *kind);
    always.or((name == Attestation::FACT).then_some(FactKind::Text))
}

/// Whether a condition can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Possible {
    /// It can.
    Yes,
    /// It never can.
    No,
    /// It has more ways than were examined.
    Unknown,
}

/// Facts of which the value is known, e.g. the hardware.
pub(crate) type Known<'a> = BTreeMap<&'a str, &'a str>;

/// Whether a condition can hold for a device with these `known` facts.
pub(crate) fn can_hold(condition: &Condition, known: &Known<'_>) -> Result<Possible> {
    Ok(possible(&value_of(condition)?, true, known))
}

/// Whether a condition can fail: if not, it has no effect.
pub(crate) fn can_fail(condition: &Condition, known: &Known<'_>) -> Result<Possible> {
    Ok(possible(&value_of(condition)?, false, known))
}

/// Alternatives of a condition, as text, that can never hold: probably mistakes.
pub(crate) fn dead_ends(condition: &Condition, known: &Known<'_>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    collect_dead_ends(&value_of(condition)?, known, &mut found);
    Ok(found)
}

/// What is wrong with the facts that a condition looks at: unknown to `declared`, if that says anything, or of another type.
pub(crate) fn fact_faults(condition: &Condition, declared: &BTreeMap<FactName, FactSettings>) -> Result<Vec<String>> {
    let mut faults = BTreeSet::new();
    let mut seen: BTreeMap<String, FactKind> = BTreeMap::new();
    for test in tests(&value_of(condition)?) {
        let name = test.fact;
        let declared_kind = declared.iter().find(|(fact, _)| fact.as_str() == name).map(|(_, fact)| fact.kind);
        let kind = fixed(&name).or(declared_kind);
        if kind.is_none() && !declared.is_empty() {
            let known: Vec<_> = declared
                .keys()
                .map(FactName::as_str)
                .chain(ALWAYS.map(|(fact, _)| fact))
                .chain([Attestation::FACT])
                .collect();
            faults.insert(format!("the fact {name} is unknown; tidegate.toml knows {}", known.join(", ")));
        }
        let Some(wanted) = test.compares else { continue };
        match kind {
            Some(kind) if !kind.compares_as(wanted) => {
                faults.insert(format!("the fact {name} is {kind}, and is compared with {wanted}"));
            }
            Some(_) => {}
            None => match seen.insert(name.clone(), wanted) {
                Some(before) if !before.compares_as(wanted) && !wanted.compares_as(before) => {
                    faults.insert(format!("the fact {name} is compared with {before} and with {wanted}"));
                }
                _ => {}
            },
        }
    }
    Ok(faults.into_iter().collect())
}

fn value_of(condition: &Condition) -> Result<Value> {
    serde_json::to_value(condition).map_err(|e| Error::bug("a condition").with_source(e))
}

/// A test, and that it must hold, or must not.
#[derive(Clone, Copy)]
struct Literal<'a> {
    test: &'a Value,
    holds: bool,
}

fn possible(node: &Value, holds: bool, known: &Known<'_>) -> Possible {
    match ways(node, holds, known) {
        None => Possible::Unknown,
        Some(ways) if ways.is_empty() => Possible::No,
        Some(_) => Possible::Yes,
    }
}

/// The possible ways in which `node` holds (or does not); `None` if they are too many.
fn ways<'a>(node: &'a Value, holds: bool, known: &Known<'_>) -> Option<Vec<Vec<Literal<'a>>>> {
    let list = |key: &str| node.get(key).and_then(Value::as_array);
    if let Some(inner) = node.get("not") {
        return ways(inner, !holds, known);
    }
    let (parts, every) = match (list("all"), list("any")) {
        (Some(parts), _) => (parts, holds),
        (_, Some(parts)) => (parts, !holds),
        _ => {
            let literal = vec![Literal { test: node, holds }];
            return Some(if consistent(&literal, known) { vec![literal] } else { Vec::new() });
        }
    };
    if !every {
        let mut found = Vec::new();
        for part in parts {
            found.extend(ways(part, holds, known)?);
            if found.len() > MAX_WAYS {
                return None;
            }
        }
        return Some(found);
    }
    let mut found: Vec<Vec<Literal<'a>>> = vec![Vec::new()];
    for part in parts {
        let of_part = ways(part, holds, known)?;
        if found.len().saturating_mul(of_part.len()) > MAX_WAYS {
            return None;
        }
        let mut both = Vec::new();
        for way in &found {
            for other in &of_part {
                let way: Vec<_> = way.iter().chain(other).copied().collect();
                if consistent(&way, known) {
                    both.push(way);
                }
            }
        }
        found = both;
    }
    Some(found)
}

/// Whether every fact has a value with which all its tests come out as they must.
fn consistent(way: &[Literal<'_>], known: &Known<'_>) -> bool {
    let mut by_fact: BTreeMap<&str, Vec<(Condition, bool)>> = BTreeMap::new();
    let mut constants: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for literal in way {
        let Some(fact) = literal.test.get("fact").and_then(Value::as_str) else { continue };
        let Ok(condition) = Condition::from_value(literal.test) else { return false };
        by_fact.entry(fact).or_default().push((condition, literal.holds));
        constants.entry(fact).or_default().push(literal.test);
    }
    by_fact.iter().all(|(fact, tests)| {
        let Ok(name) = fact.parse::<FactName>() else { return false };
        let tests_of = constants.get(fact).map(Vec::as_slice).unwrap_or_default();
        candidates(fact, tests_of, known).into_iter().any(|value| {
            let mut facts = Facts::new();
            if let Some(value) = value {
                facts.insert(name.clone(), value);
            }
            tests.iter().all(|(test, holds)| test.holds(&facts) == *holds)
        })
    })
}

/// Values of a fact that tell its tests apart; `None` for a device that does not have it.
fn candidates(fact: &str, tests: &[&Value], known: &Known<'_>) -> Vec<Option<FactValue>> {
    if let Some(value) = known.get(fact) {
        return vec![Some(FactValue::from(*value))];
    }
    if fact == Attestation::FACT {
        return Attestation::ALL.map(|kind| Some(FactValue::from(kind.name()))).into_iter().chain([None]).collect();
    }
    let always = ALWAYS.iter().find(|(name, _)| *name == fact).map(|(_, kind)| *kind);
    let mut values: Vec<Option<FactValue>> = Vec::new();
    if always.is_none() {
        values.extend([None, Some(FactValue::from(true)), Some(FactValue::from(false))]);
    }
    let mut integers = BTreeSet::from([0_i64]);
    let mut strings = BTreeSet::from(["a text that no condition tests".to_owned()]);
    let mut versions = BTreeSet::from(["0.0.0-0".to_owned(), "0.0.0".to_owned()]);
    for constant in tests.iter().flat_map(|test| constants_of(test)) {
        match constant {
            Constant::Integer(number) => {
                integers.extend([number.saturating_sub(1), number, number.saturating_add(1)]);
            }
            Constant::Text(text) => {
                if let Ok(version) = version::parse(&text) {
                    versions.extend(around(&version));
                }
                strings.insert(text);
            }
            Constant::Version(version) => versions.extend(around(&version)),
        }
    }
    let of_kind = |kind: FactKind| always.is_none_or(|always| always == kind);
    if of_kind(FactKind::Integer) {
        let least = if always.is_some() { 0 } else { i64::MIN };
        values.extend(integers.into_iter().filter(|number| *number >= least).map(|number| Some(number.into())));
    }
    if of_kind(FactKind::Text) {
        values.extend(strings.iter().map(|text| Some(FactValue::from(text.as_str()))));
    }
    if of_kind(FactKind::Version) {
        values.extend(versions.iter().map(|text| Some(FactValue::from(text.as_str()))));
    }
    values
}

enum Constant {
    Integer(i64),
    Text(String),
    Version(Version),
}

fn constants_of(test: &Value) -> Vec<Constant> {
    let mut found = Vec::new();
    let Some(test) = test.as_object() else { return found };
    for (key, value) in test.iter().filter(|(key, _)| *key != "fact") {
        let list: Vec<&Value> = value.as_array().map_or_else(|| vec![value], |list| list.iter().collect());
        for value in list {
            match value {
                Value::String(range) if key == "matches-version" => {
                    found.extend(named_versions(range).into_iter().map(Constant::Version));
                }
                Value::String(string) => found.push(Constant::Text(string.clone())),
                Value::Number(number) => found.extend(number.as_i64().map(Constant::Integer)),
                _ => {}
            }
        }
    }
    found
}

/// The versions that a range names, with what is left out as 0.
fn named_versions(range: &str) -> Vec<Version> {
    range
        .split(',')
        .filter_map(|part| {
            let part = part.trim_matches(|c: char| c.is_whitespace() || "<>=^~".contains(c));
            let (triple, pre) = part.split_once('-').map_or((part, None), |(triple, pre)| (triple, Some(pre)));
            let mut numbers = triple.split('.').map(|number| number.trim().parse::<u64>().unwrap_or(0));
            let mut next = || numbers.next().unwrap_or(0);
            let text = format!("{}.{}.{}", next(), next(), next());
            let text = pre.map_or_else(|| text.clone(), |pre| format!("{text}-{pre}"));
            version::parse(&text).ok()
        })
        .collect()
}

/// A version, and those next to it on either side in the order of precedence, as far as any range can tell.
fn around(version: &Version) -> Vec<String> {
    let Version { major, minor, patch, pre, .. } = version;
    let mut found = vec![version.to_string(), format!("{major}.{minor}.{patch}-0"), format!("{major}.{minor}.{patch}")];
    if !pre.is_empty() {
        found.push(format!("{major}.{minor}.{patch}-{pre}.0"));
    }
    let next = [
        (*major, *minor, patch.saturating_add(1)),
        (*major, minor.saturating_add(1), 0),
        (major.saturating_add(1), 0, 0),
    ];
    for (major, minor, patch) in next {
        found.extend([format!("{major}.{minor}.{patch}-0"), format!("{major}.{minor}.{patch}")]);
    }
    for (major, minor, patch) in [
        (*major, *minor, patch.saturating_sub(1)),
        (*major, minor.saturating_sub(1), 0),
        (major.saturating_sub(1), 0, 0),
    ] {
        found.push(format!("{major}.{minor}.{patch}"));
    }
    found
}

fn collect_dead_ends(node: &Value, known: &Known<'_>, found: &mut Vec<String>) {
    for part in node.get("any").and_then(Value::as_array).into_iter().flatten() {
        if possible(part, true, known) == Possible::No {
            found.extend(Condition::from_value(part).map(|part| part.to_string()));
        }
    }
    let inner = ["all", "any"].into_iter().filter_map(|key| node.get(key).and_then(Value::as_array)).flatten();
    for part in inner.chain(node.get("not")) {
        collect_dead_ends(part, known, found);
    }
}

struct Test {
    fact: String,
    /// What the test compares the fact with; `None` for `exists`.
    compares: Option<FactKind>,
}

fn tests(node: &Value) -> Vec<Test> {
    let inner: Vec<&Value> = ["all", "any"]
        .into_iter()
        .filter_map(|key| node.get(key).and_then(Value::as_array))
        .flatten()
        .chain(node.get("not"))
        .collect();
    let mut found: Vec<Test> = inner.into_iter().flat_map(tests).collect();
    let Some(fact) = node.get("fact").and_then(Value::as_str) else { return found };
    let Some(object) = node.as_object() else { return found };
    for (operator, value) in object.iter().filter(|(key, _)| *key != "fact") {
        let values: Vec<&Value> = value.as_array().map_or_else(|| vec![value], |list| list.iter().collect());
        for value in values {
            let compares = match (operator.as_str(), value) {
                ("exists", _) => None,
                ("matches-version", _) | ("ge" | "gt" | "le" | "lt", Value::String(_)) => Some(FactKind::Version),
                (_, Value::String(_)) => Some(FactKind::Text),
                (_, Value::Bool(_)) => Some(FactKind::Boolean),
                (_, _) => Some(FactKind::Integer),
            };
            found.push(Test { fact: fact.to_owned(), compares });
        }
    }
    found
}

#[cfg(test)]
mod tests_of_it {
    use serde_json::json;

    use super::*;

    fn hold(condition: &Value) -> Possible {
        let known = Known::from([("hardware", "board-a"), ("product", "os"), ("channel", "stable")]);
        can_hold(&Condition::from_value(condition).unwrap(), &known).unwrap()
    }

    #[test]
    #[rustfmt::skip]
    fn contradictions_are_found_and_nothing_else() {
        let fact = |name: &str, operator: &str, value: Value| json!({"fact": name, operator: value});
        let (lt, gt) = (fact("x", "lt", json!(1)), fact("x", "gt", json!(2)));
        for (condition, expected) in [
            (json!({"all": [lt, gt]}), Possible::No),
            (json!({"any": [lt, gt]}), Possible::Yes),
            (json!({"all": [fact("x", "gt", json!(1)), fact("x", "lt", json!(3))]}), Possible::Yes),
            (json!({"all": [fact("x", "gt", json!(1)), fact("x", "lt", json!(2))]}), Possible::No),
            (json!({"all": [fact("x", "eq", json!("a")), fact("x", "eq", json!(1))]}), Possible::No),
            (json!({"all": [fact("x", "eq", json!("a")), {"not": fact("x", "exists", json!(true))}]}), Possible::No),
            (json!({"not": fact("x", "exists", json!(true))}), Possible::Yes),
            (json!({"not": fact("hardware", "exists", json!(true))}), Possible::No),
            (json!({"all": [fact("x", "in", json!(["a", "b"])), {"not": fact("x", "in", json!(["b", "a"]))}]}), Possible::No),
            (json!({"all": [fact("x", "in", json!(["a", "b"])), {"not": fact("x", "eq", json!("a"))}]}), Possible::Yes),
            (fact("hardware", "eq", json!("board-a")), Possible::Yes),
            (fact("hardware", "in", json!(["board-x"])), Possible::No),
            (fact("hardware", "matches-version", json!(">=1")), Possible::No),
            (fact("sequence", "lt", json!(0)), Possible::No),
            (fact("attestation", "in", json!(["tpm2", "ear"])), Possible::Yes),
            (json!({"not": fact("attestation", "exists", json!(true))}), Possible::Yes),
            (fact("attestation", "eq", json!("tpm3")), Possible::No),
            (fact("attestation", "ge", json!("1.0.0")), Possible::No),
            (fact("sequence", "eq", json!("12")), Possible::No),
            (fact("version", "eq", json!("not a version")), Possible::No),
            (json!({"all": [fact("version", "lt", json!("1.2.0")), fact("version", "matches-version", json!(">=1.2.0"))]}), Possible::No),
            (json!({"all": [fact("version", "lt", json!("1.2.0")), fact("version", "gt", json!("1.1.9"))]}), Possible::Yes),
            (json!({"all": [fact("k", "matches-version", json!("^1.4")), fact("k", "ge", json!("2.0.0-rc.1"))]}), Possible::No),
            (json!({"all": [fact("k", "matches-version", json!("~5.10")), {"not": fact("k", "lt", json!("5.10.99"))}]}), Possible::Yes),
            (json!({"all": [{"any": [lt, fact("y", "eq", json!(true))]}, gt, {"not": fact("y", "eq", json!(true))}]}), Possible::No),
        ] {
            assert_eq!(hold(&condition), expected, "{condition}");
        }
    }

    #[test]
    fn what_always_holds_and_alternatives_that_never_do_are_told() {
        let known = Known::new();
        let read = |value: Value| Condition::from_value(&value).unwrap();
        let either = read(json!({"any": [{"fact": "x", "exists": true}, {"not": {"fact": "x", "exists": true}}]}));
        assert_eq!(can_fail(&either, &known).unwrap(), Possible::No);
        let slip = read(json!({"any": [
            {"fact": "group", "eq": "lab"},
            {"all": [{"fact": "ram", "lt": 1}, {"fact": "ram", "gt": 2}]},
        ]}));
        assert_eq!(dead_ends(&slip, &known).unwrap(), ["ram < 1 and ram > 2"]);
    }

    #[test]
    fn a_condition_with_too_many_ways_is_not_decided() {
        let pair = |n: usize| json!({"any": [{"fact": format!("a{n}"), "eq": 1}, {"fact": format!("b{n}"), "eq": 1}]});
        let condition = json!({"all": (0..20).map(pair).collect::<Vec<_>>()});
        assert_eq!(hold(&condition), Possible::Unknown);
    }

    #[test]
    fn unknown_facts_and_wrong_types_are_named() {
        let declared: BTreeMap<FactName, FactSettings> =
            toml::from_str("ram-mb = { type = \"integer\" }\nkernel = { type = \"version\" }").unwrap();
        let faults = |value: Value| fact_faults(&Condition::from_value(&value).unwrap(), &declared).unwrap();
        assert!(faults(json!({"fact": "ram-mb", "ge": 512})).is_empty());
        assert!(faults(json!({"fact": "kernel", "eq": "5.10.0"})).is_empty());
        assert!(faults(json!({"fact": "hardware", "eq": "board-a"})).is_empty());
        assert!(faults(json!({"fact": "attestation", "in": ["tpm2"]})).is_empty());
        assert_eq!(
            faults(json!({"fact": "attestation", "eq": true})),
            ["the fact attestation is a text, and is compared with a boolean"]
        );
        assert_eq!(
            faults(json!({"fact": "ram", "ge": 512})),
            [
                "the fact ram is unknown; tidegate.toml knows kernel, ram-mb, product, channel, hardware, version, sequence, attestation"
            ]
        );
        assert_eq!(
            faults(json!({"fact": "ram-mb", "eq": "512"})),
            ["the fact ram-mb is an integer, and is compared with a text"]
        );
        assert_eq!(
            faults(json!({"fact": "sequence", "ge": "1.0.0"})),
            ["the fact sequence is an integer, and is compared with a version"]
        );
        assert_eq!(
            faults(json!({"not": {"fact": "kernel", "lt": 5}})),
            ["the fact kernel is a version, and is compared with an integer"]
        );
        let undeclared = BTreeMap::new();
        let mixed = json!({"any": [{"fact": "x", "eq": 1}, {"fact": "x", "eq": "1"}]});
        let found = fact_faults(&Condition::from_value(&mixed).unwrap(), &undeclared).unwrap();
        assert_eq!(found, ["the fact x is compared with an integer and with a text"]);
    }
}

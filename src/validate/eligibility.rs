//! Eligibility: somebody can have it, and everybody has a way to it.

use serde_json::Value;
use tidegate_client::model::version::is_newer;

use super::{CheckKind, Rule, Said, Subject, fail, not_applicable, pass, warn};
use crate::error::{Error, Result};

const KIND: CheckKind = CheckKind::Eligibility;

pub(super) const RULES: &[Rule] = &[
    Rule { id: "V-ELI-01", kind: KIND, title: "the condition can hold for some device", check: satisfiable },
    Rule { id: "V-ELI-02", kind: KIND, title: "the previous release has a way to this one", check: reachable },
    Rule { id: "V-ELI-03", kind: KIND, title: "the version rises, or the release supersedes", check: rises },
];

/// Three-valued logic: facts that only a device knows may have any value; product, channel and hardware are known here.
#[derive(Clone, Copy, PartialEq, Eq)]
struct May {
    hold: bool,
    fail: bool,
}

fn satisfiable(subject: &Subject<'_>) -> Result<Said> {
    let Some(condition) = &subject.manifest.eligibility else {
        return not_applicable("the release has no condition: every device of its hardware is eligible");
    };
    let value = serde_json::to_value(condition).map_err(|e| Error::bug("a condition").with_source(e))?;
    let hardware = subject.manifest.artifacts.iter().flat_map(|artifact| &artifact.hardware);
    let can = hardware.filter(|id| {
        let known = |fact: &str| match fact {
            "product" => Some(subject.manifest.product.as_str()),
            "channel" => Some(subject.manifest.channel.as_str()),
            "hardware" => Some(id.as_str()),
            _ => None,
        };
        may(&value, &known).hold
    });
    let mut ids: Vec<&str> = can.map(AsRef::as_ref).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return fail(format!("no device of the release's hardware can fulfil: {condition}"));
    }
    pass(format!("{condition}; possible on {}", ids.join(", ")))
}

fn may<'a>(node: &Value, known: &impl Fn(&str) -> Option<&'a str>) -> May {
    let parts =
        |value: &Value| -> Vec<May> { value.as_array().into_iter().flatten().map(|part| may(part, known)).collect() };
    if let Some(all) = node.get("all").map(parts) {
        return May { hold: all.iter().all(|p| p.hold), fail: all.iter().any(|p| p.fail) };
    }
    if let Some(any) = node.get("any").map(parts) {
        return May { hold: any.iter().any(|p| p.hold), fail: any.iter().all(|p| p.fail) };
    }
    if let Some(not) = node.get("not") {
        let inner = may(not, known);
        return May { hold: inner.fail, fail: inner.hold };
    }
    let either = May { hold: true, fail: true };
    let Some(value) = node.get("fact").and_then(Value::as_str).and_then(known) else { return either };
    let holds = if let Some(wanted) = node.get("eq") {
        wanted == value
    } else if let Some(list) = node.get("in").and_then(Value::as_array) {
        list.iter().any(|wanted| wanted == value)
    } else if node.get("exists").is_some() {
        true
    } else {
        return either;
    };
    May { hold: holds, fail: !holds }
}

fn reachable(subject: &Subject<'_>) -> Result<Said> {
    let Some(previous) = subject.previous else { return not_applicable("there is no previous release") };
    match &subject.manifest.upgrade_from {
        None => pass("it upgrades from every version"),
        Some(range) if range.holds(&previous.version) => {
            pass(format!("it upgrades from \"{range}\", which holds {}", previous.version))
        }
        Some(range) => fail(format!(
            "it upgrades from \"{range}\", which does not hold {}: devices that have the previous release would be stranded",
            previous.version
        )),
    }
}

fn rises(subject: &Subject<'_>) -> Result<Said> {
    let Some(previous) = subject.previous else { return not_applicable("there is no previous release") };
    let (new, old) = (&subject.manifest.version, &previous.version);
    if is_newer(new, old) {
        return pass(format!("{new} is above {old}"));
    }
    if subject.manifest.supersedes.contains(&previous.sequence) {
        return pass(format!("{new} is not above {old}, but supersedes its sequence {}", previous.sequence));
    }
    warn(format!(
        "{new} is not above {old}, and does not supersede its sequence {}: devices that have {old} will not take it",
        previous.sequence
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_that_can_never_hold_are_found() {
        let known = |fact: &str| (fact == "hardware").then_some("board-a");
        let hardware = |id: &str| json!({"fact": "hardware", "eq": id});
        let free = json!({"fact": "group", "eq": "lab"});
        for (condition, hold) in [
            (hardware("board-a"), true),
            (hardware("board-x"), false),
            (json!({"not": hardware("board-a")}), false),
            (json!({"not": free}), true),
            (json!({"all": [free, hardware("board-x")]}), false),
            (json!({"any": [free, hardware("board-x")]}), true),
            (json!({"fact": "hardware", "in": ["board-x", "board-a"]}), true),
            (json!({"fact": "hardware", "in": ["board-x"]}), false),
            (json!({"not": {"fact": "hardware", "exists": true}}), false),
            (json!({"fact": "hardware", "matches-version": ">=1"}), true),
        ] {
            assert_eq!(may(&condition, &known).hold, hold, "{condition}");
        }
    }
}

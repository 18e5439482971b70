//! What else is in a role: targets, the names of holders, expiry, and members that this version does not know.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use tidegate_model::time;
use tidegate_tuf::key::KeyId;
use tidegate_tuf::metadata::Targets;

use super::ReviewBuilder;
use crate::proposal::file::Kind;

/// Members of a role that have a line of their own, so that every other is compared as it stands.
const KNOWN: [&str; 9] = [
    "version",
    "expires",
    "x-tidegate-issued",
    "keys",
    "roles",
    "targets",
    "delegations",
    "x-tidegate-holders",
    "_type",
];
/// The members that have lines of their own further down. `*` stands for every member or element.
const EXPLAINED: [(&str, &[&str]); 7] = [
    ("/keys/*", &["keytype", "scheme", "keyval"]),
    ("/keys/*/keyval", &["public"]),
    ("/roles/*", &["keyids", "threshold"]),
    ("/delegations", &["keys", "roles"]),
    ("/delegations/keys/*", &["keytype", "scheme", "keyval"]),
    ("/delegations/roles/*", &["name", "keyids", "threshold", "paths", "path_hash_prefixes", "terminating"]),
    ("/targets/*", &["length", "hashes", "custom"]),
];
/// What is shorter or longer than this is worth a second look.
const NEAR: TimeDelta = TimeDelta::days(30);
const FAR: TimeDelta = TimeDelta::days(2 * 366);

impl ReviewBuilder<'_> {
    pub(super) fn targets(&mut self, role: &str, old: Option<&Targets>, new: &Targets) {
        let no_files = BTreeMap::new();
        let before = old.map_or(&no_files, |old| &old.targets);
        let show = |file: &tidegate_tuf::metadata::TargetFile| {
            let custom = file.custom.as_ref().map(|custom| Value::from(custom.clone()).to_string());
            let custom = custom.map(|custom| format!(", {}", custom.chars().take(200).collect::<String>()));
            format!("{} bytes, {}{}", file.length, file.hashes.name_prefix(), custom.unwrap_or_default())
        };
        for (path, file) in before {
            match new.targets.get(path) {
                None => {
                    self.row('-', path, show(file), "");
                    self.impossible.push(format!("{path} can be installed no longer"));
                }
                Some(after) if after != file => {
                    self.row('~', path, show(file), show(after));
                    if self.proposal.kind == Kind::Release {
                        self.warnings.push(format!("{path} is listed already and would become another file"));
                    }
                }
                Some(_) => {}
            }
        }
        for (path, file) in new.targets.iter().filter(|(path, _)| !before.contains_key(*path)) {
            self.row('+', path, "", show(file));
            if path.ends_with("/manifest.json") {
                self.possible.push(format!("the rollout key of {role} may assign {path} to its cohorts"));
            }
        }
        self.delegations(role, old, new);
    }

    pub(super) fn holders(&mut self, role: &str, before: &BTreeMap<KeyId, String>, after: &BTreeMap<KeyId, String>) {
        for (id, holder) in before {
            match after.get(id) {
                Some(new) if new != holder => {
                    self.row('~', format!("holder of {}", self.proposal.label(id)), holder, new);
                }
                None if self.key_stays(role, id) => {
                    self.row('-', format!("holder of {}", self.proposal.label(id)), holder, "");
                }
                _ => {}
            }
        }
        for (id, holder) in after.iter().filter(|(id, _)| !before.contains_key(*id)) {
            self.row('+', format!("holder of {}", self.proposal.label(id)), "", holder);
        }
        let people: BTreeSet<&String> = after.values().collect();
        for gone in before.values().collect::<BTreeSet<_>>() {
            let renamed =
                before.iter().any(|(id, holder)| holder == gone && after.get(id).is_some_and(|new| new != gone));
            if !people.contains(gone) && !renamed {
                self.warnings.push(format!("{gone} holds no key of {role} any more"));
            }
        }
    }

    /// Whatever else differs is shown as it stands, so that nothing is signed unseen.
    pub(super) fn others(&mut self, role: &str, before: Option<&Value>, after: &Value) {
        let empty = Map::new();
        let old = before.and_then(Value::as_object).unwrap_or(&empty);
        let new = after.as_object().unwrap_or(&empty);
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names.into_iter().filter(|name| !KNOWN.contains(&name.as_str())) {
            let (a, b) = (old.get(name), new.get(name));
            if a == b || (before.is_none() && matches!(name.as_str(), "spec_version")) {
                continue;
            }
            let text = |value: Option<&Value>| {
                value.map(|v| v.to_string().chars().take(60).collect::<String>()).unwrap_or_default()
            };
            self.row('~', name.as_str(), text(a), text(b));
            self.warnings.push(format!("{role}: the field {name:?} changes, which this program does not explain"));
        }
        for (at, members) in EXPLAINED {
            for (path, value) in each(after, at) {
                let old = before.and_then(|before| before.pointer(&path));
                for (name, value) in value.as_object().into_iter().flatten() {
                    if !members.contains(&name.as_str()) && old.and_then(|old| old.get(name)) != Some(value) {
                        self.warnings
                            .push(format!("{role}: {path} holds {name:?}, which this program does not explain"));
                    }
                }
            }
        }
    }

    pub(super) fn expiry(&mut self, role: &str, before: Option<&Value>, after: &Value) {
        let instant = |value: Option<&Value>, name: &str| {
            value.and_then(|v| v.get(name)).and_then(Value::as_str).and_then(tidegate_tuf::time::parse)
        };
        let (Some(issued), Some(expires)) =
            (instant(Some(after), "x-tidegate-issued"), instant(Some(after), "expires"))
        else {
            return;
        };
        let old = instant(before, "expires");
        let shown = |at: Option<DateTime<Utc>>| at.map(time::format).unwrap_or_default();
        self.row('~', "expires", shown(old), shown(Some(expires)));
        let life = expires - issued;
        let old_life = old.zip(instant(before, "x-tidegate-issued")).map(|(expires, issued)| expires - issued);
        let days = life.num_days();
        if life < NEAR && old_life.is_none_or(|old| life < old) {
            self.warnings.push(format!("{role} would expire after {days} days already"));
        }
        if life > FAR || old_life.is_some_and(|old| life > old * 2) {
            self.warnings.push(format!("{role} would live {days} days: whoever steals its keys has as long"));
        }
        if expires <= self.now {
            self.warnings.push(format!("{role} would be expired: it expires at {}", time::format(expires)));
        }
        let age = self.now - self.proposal.proposed;
        if role == self.proposal.changes.first().map_or("", |c| c.role.as_str()) && age > TimeDelta::days(30) {
            self.warnings.push(format!("it was proposed {} days ago", age.num_days()));
        }
        if self.proposal.proposed > self.now + TimeDelta::minutes(10)
            && role == self.proposal.changes.first().map_or("", |c| c.role.as_str())
        {
            self.warnings.push("it was proposed in the future: this machine's clock or the proposer's is wrong".into());
        }
    }
}

/// Every value at a pattern of [`EXPLAINED`], with its JSON pointer.
fn each<'a>(value: &'a Value, pattern: &str) -> Vec<(String, &'a Value)> {
    let mut found = vec![(String::new(), value)];
    for step in pattern.split('/').skip(1) {
        found = found
            .into_iter()
            .flat_map(|(path, value)| -> Vec<(String, &'a Value)> {
                let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
                match (step, value) {
                    ("*", Value::Object(members)) => {
                        members.iter().map(|(name, value)| (format!("{path}/{}", escaped(name)), value)).collect()
                    }
                    ("*", Value::Array(elements)) => {
                        (0..).zip(elements).map(|(at, value): (usize, _)| (format!("{path}/{at}"), value)).collect()
                    }
                    _ => value.get(step).map(|value| (format!("{path}/{step}"), value)).into_iter().collect(),
                }
            })
            .collect();
    }
    found
}

//! What else is in a role: targets, the names of holders, expiry, and members that this version does not know.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tidegate_model::digest::Digest;
use tidegate_model::layout::Location;
use tidegate_model::name::Name;
use tidegate_model::time;
use tidegate_tuf::key::KeyId;
use tidegate_tuf::metadata::{TargetFile, Targets};

use super::{DocumentReview, ReviewBuilder};
use crate::proposal::fields::fields;
use crate::proposal::file::Kind;

/// What is shorter or longer than this is worth a second look.
const NEAR: TimeDelta = TimeDelta::days(30);
const FAR: TimeDelta = TimeDelta::days(2 * 366);

impl ReviewBuilder<'_> {
    pub(super) fn targets(&mut self, role: &str, old: Option<&Targets>, new: &Targets) {
        let no_files = BTreeMap::new();
        let before = old.map_or(&no_files, |old| &old.targets);
        let show = |file: &TargetFile| {
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

    /// Every field that differs: of the role, then of each file that it lists anew and that came along.
    pub(super) fn documents(&self, role: &str, before: Option<&Value>, after: &Value) -> Vec<DocumentReview> {
        let of = |name: &str, against: Option<String>, before: Option<&Value>, after: &Value| DocumentReview {
            name: name.to_owned(),
            against,
            fields: fields(before, after),
        };
        let mut documents = vec![of(role, None, before, after)];
        let Some(new) = self.verified.proposed.get(role) else { return documents };
        let old = self.verified.base.get(role);
        let content = |file: &TargetFile| self.proposal.files.get(&file.hashes.name_prefix().parse::<Digest>().ok()?);
        for (path, file) in &new.targets {
            let before = old.and_then(|old| old.targets.get(path));
            let Some(value) = content(file).filter(|_| before != Some(file)) else { continue };
            // A release is compared with the one of its product that came along.
            let previous = || {
                let listed = old.iter().flat_map(|old| &old.targets);
                let product = release_of(path)?;
                listed
                    .filter(|(other, _)| release_of(other) == Some(product.clone()))
                    .find_map(|(other, file)| Some((other.clone(), content(file)?)))
            };
            documents.push(match (before.and_then(content), previous()) {
                (None, Some((other, before))) => of(path, Some(other), Some(before), value),
                (before, _) => of(path, None, before, value),
            });
        }
        documents
    }

    pub(super) fn expiry(&mut self, role: &str, before: Option<&Value>, after: &Value) {
        let instant = |value: Option<&Value>, name: &str| {
            value.and_then(|v| v.get(name)).and_then(Value::as_str).and_then(tidegate_tuf::time::parse_rfc3339)
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

/// The channel and product of a manifest, by its path.
fn release_of(path: &str) -> Option<(Name, Name)> {
    match Location::parse(path) {
        Some(Location::Manifest { channel, product, .. }) => Some((channel, product)),
        _ => None,
    }
}

//! What a proposal changes, for people: tables, sentences, warnings. Pure; the words are the same on every machine.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use tidegate_client::model::time;
use tidegate_client::tuf::key::{Key, KeyId};
use tidegate_client::tuf::metadata::{PathSet, Role, Root, Targets};

use super::bundle::{Bundle, Kind};
use super::verify::Verified;
use crate::error::Result;

/// Members of a role that have a line of their own, so that every other is compared as it stands.
const KNOWN: [&str; 10] = [
    "version",
    "expires",
    "x-tidegate-issued",
    "keys",
    "roles",
    "targets",
    "delegations",
    "x-tidegate-holders",
    "_type",
    "meta",
];
/// What is shorter or longer than this is worth a second look.
const NEAR: TimeDelta = TimeDelta::days(30);
const FAR: TimeDelta = TimeDelta::days(2 * 366);

/// What a proposal changes.
#[derive(Debug, Clone, Serialize)]
pub struct Review {
    /// What it is about.
    pub subject: String,
    /// What to compare over the phone.
    pub digest: String,
    /// When it was proposed.
    #[serde(with = "time::text")]
    pub proposed: DateTime<Utc>,
    /// Why, in the words of whoever proposed it.
    pub reason: Option<String>,
    /// The root in force that it follows from.
    pub root_version: u64,
    /// Role by role.
    pub roles: Vec<RoleReview>,
    /// What becomes possible.
    pub possible: Vec<String>,
    /// What becomes impossible.
    pub impossible: Vec<String>,
    /// What devices need in order to follow.
    pub devices: Vec<String>,
    /// What deserves a question before one signs.
    pub warnings: Vec<String>,
}

/// What changes in one role.
#[derive(Debug, Clone, Serialize)]
pub struct RoleReview {
    /// The role.
    pub role: String,
    /// The version in force, if there is one.
    pub from: Option<u64>,
    /// The version proposed.
    pub to: u64,
    /// What changes, line by line.
    pub rows: Vec<Row>,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `+` for what comes, `-` for what goes, `~` for what changes, a space for what stays.
    pub mark: char,
    /// What it is.
    pub what: String,
    /// As it is in force.
    pub before: String,
    /// As it is proposed.
    pub after: String,
}

/// Says what a verified proposal changes, for someone who reads it at `now`.
pub fn review(bundle: &Bundle, verified: &Verified, now: DateTime<Utc>) -> Result<Review> {
    let current = verified.roots.last();
    let mut desk = Desk {
        bundle,
        verified,
        now,
        possible: Vec::new(),
        impossible: Vec::new(),
        warnings: Vec::new(),
        rows: Vec::new(),
        examples: 0,
    };
    let mut roles = Vec::new();
    for change in &bundle.changes {
        let Some((before, after)) = verified.documents.get(&change.role) else { continue };
        desk.rows = Vec::new();
        let (from, to) = (before.as_ref().map(crate::metadata::Document::version), after.version());
        let before_value = before.as_ref().map(crate::metadata::Document::to_value);
        if let (true, Some(old), Some(new)) = (change.role == "root", current, &verified.new_root) {
            desk.root(old, new);
        } else if let Some(new) = verified.proposed.get(&change.role) {
            desk.targets(&change.role, verified.base.get(&change.role), new);
        }
        let held = before.as_ref().map(crate::metadata::Document::holders).unwrap_or_default();
        desk.holders(&change.role, &held, &after.holders());
        desk.others(&change.role, before_value.as_ref(), &change.signed);
        desk.expiry(&change.role, before_value.as_ref(), &change.signed);
        roles.push(RoleReview { role: change.role.clone(), from, to, rows: std::mem::take(&mut desk.rows) });
    }
    if desk.examples > 0 {
        desk.warnings
            .push(format!("{} of the keys are example keys, whose private parts everyone knows", desk.examples));
    }
    let devices = devices(bundle, verified);
    Ok(Review {
        subject: bundle.subject.clone(),
        digest: bundle.digest()?,
        proposed: bundle.proposed,
        reason: bundle.reason.clone(),
        root_version: current.map_or(0, |root| root.common.version),
        roles,
        possible: desk.possible,
        impossible: desk.impossible,
        devices,
        warnings: desk.warnings,
    })
}

struct Desk<'a> {
    bundle: &'a Bundle,
    verified: &'a Verified,
    now: DateTime<Utc>,
    rows: Vec<Row>,
    examples: usize,
    possible: Vec<String>,
    impossible: Vec<String>,
    warnings: Vec<String>,
}

impl Desk<'_> {
    fn row(&mut self, mark: char, what: impl Into<String>, before: impl Into<String>, after: impl Into<String>) {
        self.rows.push(Row { mark, what: what.into(), before: before.into(), after: after.into() });
    }

    fn person(&self, id: &KeyId) -> String {
        let label = self.bundle.label(id);
        match self.verified.holders.get(id) {
            Some(holder) => format!("{label}, held by {holder}"),
            None => label,
        }
    }

    fn root(&mut self, old: &Root, new: &Root) {
        for name in ["root", "targets", "snapshot", "timestamp"] {
            if let (Some(before), Some(after)) = (old.role(name), new.role(name)) {
                self.keys(name, Some((old.keys(), before)), (new.keys(), after));
            }
        }
        let offline: BTreeSet<&KeyId> =
            ["root", "targets"].iter().filter_map(|r| new.role(r)).flat_map(|r| &r.keyids).collect();
        for name in ["snapshot", "timestamp"] {
            for id in new.role(name).into_iter().flat_map(|role| &role.keyids).filter(|id| offline.contains(id)) {
                self.warnings.push(format!(
                    "{} is a key of root or targets and would sign {name} online as well",
                    self.bundle.label(id)
                ));
            }
        }
    }

    /// Compares the keys and threshold of a role that `root` or a delegation declares.
    fn keys(
        &mut self,
        name: &str,
        before: Option<(&BTreeMap<KeyId, Key>, &Role)>,
        (keys, after): (&BTreeMap<KeyId, Key>, &Role),
    ) {
        let none = Vec::new();
        let old_ids = before.map_or(&none, |(_, role)| &role.keyids);
        let mut changed = false;
        for id in old_ids {
            if !after.keyids.contains(id) {
                let scheme = before.and_then(|(keys, _)| keys.get(id)).map_or("", Key::scheme);
                self.row('-', format!("{name} key {}", self.person(id)), format!("{scheme} {}", id.short()), "");
                self.impossible.push(format!("{} signs {name} no longer", self.person(id)));
                changed = true;
            }
        }
        for id in &after.keyids {
            let key = keys.get(id);
            let shown = format!("{} {}", key.map_or("", Key::scheme), id.short());
            if !old_ids.contains(id) {
                self.row('+', format!("{name} key {}", self.person(id)), "", shown);
                self.possible.push(format!("{} signs {name}", self.person(id)));
                changed = true;
            }
            if key.and_then(Key::decode).is_none() {
                self.warnings
                    .push(format!("the {name} key {} is of a kind that devices cannot verify", self.bundle.label(id)));
            } else if key.is_some_and(crate::keys::example::is_example) {
                self.examples += 1;
            }
        }
        let count = after.keyids.len() as u64;
        let of = |role: &Role| format!("{} of {}", role.threshold, role.keyids.len());
        if let Some((_, old)) = before {
            if old.threshold != after.threshold || old.keyids.len() != after.keyids.len() {
                self.row('~', format!("{name} threshold"), of(old), of(after));
                changed = true;
            }
            if after.threshold < old.threshold {
                self.warnings.push(format!(
                    "the threshold of {name} is lowered from {} to {}: fewer people, or fewer stolen keys, suffice",
                    old.threshold, after.threshold
                ));
            }
        } else {
            self.row('+', format!("{name} threshold"), "", of(after));
        }
        if !changed && before.is_some() {
            return;
        }
        let others = count.saturating_sub(after.threshold);
        self.possible.push(format!(
            "any {} of the {count} {name} keys sign for {name}; {}",
            after.threshold,
            match others {
                0 => "none may be lost".to_owned(),
                1 => "one may be lost".to_owned(),
                more => format!("{more} may be lost"),
            }
        ));
        if others == 0 && matches!(name, "root" | "targets") {
            self.warnings.push(format!("if one key of {name} is lost, {name} can never be signed again"));
        }
        if after.threshold > count {
            self.warnings.push(format!("{name} asks for more signatures than it has keys: it can never be signed"));
        }
        if name == "root" && after.threshold == 1 {
            self.warnings.push("one key alone would decide over root, and so over everything".into());
        }
        if matches!(name, "snapshot" | "timestamp") && old_ids.iter().any(|id| !after.keyids.contains(id)) {
            self.impossible.push(format!(
                "whoever has the old {name} key can no longer freeze or mislead devices that have followed"
            ));
        }
    }

    fn targets(&mut self, role: &str, old: Option<&Targets>, new: &Targets) {
        let no_files = BTreeMap::new();
        let before = old.map_or(&no_files, |old| &old.targets);
        let show = |file: &tidegate_client::tuf::metadata::TargetFile| {
            format!("{} bytes, {}", file.length, file.hashes.name_prefix())
        };
        for (path, file) in before {
            match new.targets.get(path) {
                None => {
                    self.row('-', path, show(file), "");
                    self.impossible.push(format!("{path} can be installed no longer"));
                }
                Some(after) if after != file => {
                    self.row('~', path, show(file), show(after));
                    if self.bundle.kind == Kind::Release {
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

    fn delegations(&mut self, role: &str, old: Option<&Targets>, new: &Targets) {
        let list = |targets: Option<&Targets>| {
            targets.and_then(|t| t.delegations.clone()).map(|d| d.roles).unwrap_or_default()
        };
        let (before, after) = (list(old), list(Some(new)));
        for gone in before.iter().filter(|d| !after.iter().any(|new| new.name == d.name)) {
            self.row('-', format!("delegation {}", gone.name), patterns(&gone.paths), "");
            self.impossible
                .push(format!("{} speaks for nothing any more: what it lists cannot be installed", gone.name));
            self.warnings.push(format!(
                "the delegation to {} is removed; devices that follow it stop getting updates",
                gone.name
            ));
        }
        let Some(delegations) = &new.delegations else { return };
        // Cohorts by the hundred share one set of keys: said once.
        let mut said: BTreeSet<String> = BTreeSet::new();
        for delegation in &after {
            let old_one = before.iter().find(|d| d.name == delegation.name);
            if old_one == Some(delegation) {
                continue;
            }
            match old_one {
                None => self.row('+', format!("delegation {}", delegation.name), "", patterns(&delegation.paths)),
                Some(old) if old.paths != delegation.paths => {
                    self.row(
                        '~',
                        format!("paths of {}", delegation.name),
                        patterns(&old.paths),
                        patterns(&delegation.paths),
                    );
                    self.warnings.push(format!("{} would be trusted with other paths", delegation.name));
                }
                Some(_) => {}
            }
            if !delegation.terminating {
                self.warnings.push(format!(
                    "the delegation to {} is not terminating: later roles could answer for its paths",
                    delegation.name
                ));
            }
            if let PathSet::Patterns(paths) = &delegation.paths {
                let prefix = format!("{}/", delegation.name.split('.').next().unwrap_or_default());
                for path in paths.iter().filter(|path| !path.as_str().starts_with(&prefix)) {
                    self.warnings.push(format!(
                        "{} would be trusted with {}, which is not below {prefix}",
                        delegation.name,
                        path.as_str()
                    ));
                }
            } else {
                self.warnings.push(format!(
                    "{} would be trusted with paths by their hashes, which cannot be read",
                    delegation.name
                ));
            }
            let from = old_one.and_then(|old_one| {
                let keys = old.and_then(|old| old.delegations.as_ref())?.keys();
                Some((keys, &old_one.role))
            });
            if from.is_some_and(|(_, role)| *role == delegation.role) {
                continue;
            }
            let same = format!("{:?}{:?}", from.map(|(_, role)| role), delegation.role);
            if said.insert(same) {
                self.keys(&delegation.name, from, (delegations.keys(), &delegation.role));
            } else {
                self.row('~', format!("keys of {}", delegation.name), "", "as the delegation before it");
            }
        }
        let moved = before.iter().map(|d| &d.name).filter(|name| after.iter().any(|d| d.name == **name));
        let order: Vec<_> =
            after.iter().map(|d| &d.name).filter(|name| before.iter().any(|d| d.name == **name)).collect();
        if !moved.eq(order.iter().copied()) {
            self.row('~', format!("order of {role}'s delegations"), "", "earlier ones take precedence");
        }
    }

    fn holders(&mut self, role: &str, before: &BTreeMap<KeyId, String>, after: &BTreeMap<KeyId, String>) {
        for (id, holder) in before {
            match after.get(id) {
                Some(new) if new != holder => {
                    self.row('~', format!("holder of {}", self.bundle.label(id)), holder, new);
                }
                None if self.key_stays(role, id) => {
                    self.row('-', format!("holder of {}", self.bundle.label(id)), holder, "");
                }
                _ => {}
            }
        }
        for (id, holder) in after.iter().filter(|(id, _)| !before.contains_key(*id)) {
            self.row('+', format!("holder of {}", self.bundle.label(id)), "", holder);
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

    fn key_stays(&self, role: &str, id: &KeyId) -> bool {
        match role {
            "root" => self.verified.new_root.as_ref().is_some_and(|root| root.keys().contains_key(id)),
            _ => self
                .verified
                .proposed
                .get(role)
                .and_then(|t| t.delegations.as_ref())
                .is_some_and(|d| d.keys().contains_key(id)),
        }
    }

    /// Whatever else differs is shown as it stands, so that nothing is signed unseen.
    fn others(&mut self, role: &str, before: Option<&Value>, after: &Value) {
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
    }

    fn expiry(&mut self, role: &str, before: Option<&Value>, after: &Value) {
        let instant = |value: Option<&Value>, name: &str| {
            value.and_then(|v| v.get(name)).and_then(Value::as_str).and_then(tidegate_client::tuf::time::parse)
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
        let age = self.now - self.bundle.proposed;
        if role == self.bundle.changes.first().map_or("", |c| c.role.as_str()) && age > TimeDelta::days(30) {
            self.warnings.push(format!("it was proposed {} days ago", age.num_days()));
        }
        if self.bundle.proposed > self.now + TimeDelta::minutes(10)
            && role == self.bundle.changes.first().map_or("", |c| c.role.as_str())
        {
            self.warnings.push("it was proposed in the future: this machine's clock or the proposer's is wrong".into());
        }
    }
}

fn patterns(paths: &PathSet) -> String {
    match paths {
        PathSet::Patterns(paths) => {
            paths.iter().map(tidegate_client::tuf::path::Pattern::as_str).collect::<Vec<_>>().join(" ")
        }
        PathSet::HashPrefixes(prefixes) => format!("hashes {}", prefixes.join(" ")),
    }
}

fn devices(bundle: &Bundle, verified: &Verified) -> Vec<String> {
    let mut lines = Vec::new();
    let current = verified.roots.last().map_or(0, |root| root.common.version);
    if let Some(new) = &verified.new_root {
        let to = new.common.version;
        lines.push(format!("a device at root {current} fetches root {to}, which keys of both must have signed"));
        if current > 1 {
            lines.push(format!(
                "one that slept since root 1 fetches every root from 2 to {to}: all of them must stay published"
            ));
        }
        let rotated = ["timestamp", "snapshot"].into_iter().filter(|role| {
            let (Some(root), Some(new)) = (verified.roots.last(), Some(new)) else { return false };
            let (old, new) = (root.role(role), new.role(role));
            old.zip(new).is_some_and(|(old, new)| old.keyids.iter().any(|id| !new.keyids.contains(id)))
        });
        let rotated: Vec<_> = rotated.collect();
        if !rotated.is_empty() {
            lines.push(format!(
                "keys of {} are revoked, so devices forget the timestamp and snapshot they hold; versions that a thief ran up no longer count",
                rotated.join(" and ")
            ));
        }
        let overlap = |role: &str| {
            let old = verified.roots.last().and_then(|root| root.role(role));
            old.zip(new.role(role)).is_none_or(|(old, new)| {
                let both = old.keyids.iter().filter(|id| new.keyids.contains(id)).count() as u64;
                both >= new.threshold
            })
        };
        for role in ["targets", "snapshot", "timestamp"].into_iter().filter(|role| !overlap(role)) {
            lines.push(format!(
                "{role} changes hands at once: a device that checks while this is being published may fail once, and succeeds at its next check; to avoid even that, add the new key first and remove the old one in a second ceremony"
            ));
        }
    }
    let below: Vec<&str> = bundle.changes.iter().map(|c| c.role.as_str()).filter(|role| *role != "root").collect();
    if !below.is_empty() {
        lines.push(format!("every device fetches the new {} at its next check", below.join(", ")));
    }
    lines
}

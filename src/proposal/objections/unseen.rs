//! What nobody who signs would see: fields and roles without a meaning here, keys that no role uses, files that are listed and did not
//! come along.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tidegate_model::cohort::CohortMap;
use tidegate_model::delivery::PatchList;
use tidegate_model::digest::Digest;
use tidegate_model::layout::{DelegatedRole, Location};
use tidegate_model::manifest::Manifest;
use tidegate_tuf::hash::Checker;
use tidegate_tuf::metadata::{TargetFile, Targets};

use super::{Objection, material};
use crate::proposal::fields::{element, step, text};
use crate::proposal::file::Proposal;
use crate::proposal::verify::Verified;

/// The members that have a meaning, by place; `*` stands for every member or element, and what is not here is not looked into.
type Known = &'static [(&'static str, &'static [&'static str])];

const ROOT: Known = &[
    (
        "",
        &[
            "_type",
            "spec_version",
            "consistent_snapshot",
            "version",
            "expires",
            "keys",
            "roles",
            "x-tidegate-issued",
            "x-tidegate-holders",
        ],
    ),
    ("/keys/*", &["keytype", "scheme", "keyval"]),
    ("/keys/*/keyval", &["public"]),
    ("/roles", &["root", "targets", "snapshot", "timestamp"]),
    ("/roles/*", &["keyids", "threshold"]),
];
const TARGETS: Known = &[
    (
        "",
        &[
            "_type",
            "spec_version",
            "version",
            "expires",
            "targets",
            "delegations",
            "x-tidegate-issued",
            "x-tidegate-holders",
        ],
    ),
    ("/targets/*", &["length", "hashes"]),
    ("/targets/*/hashes", &["sha256", "sha512"]),
    ("/delegations", &["keys", "roles"]),
    ("/delegations/keys/*", &["keytype", "scheme", "keyval"]),
    ("/delegations/keys/*/keyval", &["public"]),
    ("/delegations/roles/*", &["name", "keyids", "threshold", "paths", "path_hash_prefixes", "terminating"]),
];
/// What the role of a cohort has besides: lists of offers.
const OFFERS: Known = &[
    ("/targets/*", &["length", "hashes", "custom"]),
    ("/targets/*/custom", &["tidegate"]),
    ("/targets/*/custom/tidegate", &["schema", "assigned", "offers"]),
    (
        "/targets/*/custom/tidegate/offers/*",
        &["release", "sequence", "sha256", "length", "stage", "since", "paused", "private", "ramp", "until", "bridges"],
    ),
    ("/targets/*/custom/tidegate/offers/*/ramp", &["start", "end", "from", "to"]),
    ("/targets/*/custom/tidegate/offers/*/bridges/*", &["release", "sequence", "sha256", "length", "upgrade_from"]),
];
const COHORTS: Known = &[
    ("", &["schema", "salt", "cohorts"]),
    ("/cohorts/*", &["name", "devices", "condition", "share", "protected"]),
    ("/cohorts/*/protected", &["gate"]),
];
const FILE: &[&str] = &["length", "sha256"];
const MANIFEST: Known = &[
    (
        "",
        &[
            "schema",
            "product",
            "version",
            "sequence",
            "channel",
            "created",
            "build",
            "urgency",
            "artifacts",
            "eligibility",
            "upgrade_from",
            "supersedes",
            "notes",
        ],
    ),
    ("/build", &["id", "source", "provenance"]),
    ("/build/provenance", &["type", "sha256", "builder"]),
    ("/artifacts/*", &["name", "path", "length", "sha256", "hardware", "media_type", "delivery"]),
    ("/artifacts/*/delivery", &["index", "pack", "patches"]),
    ("/artifacts/*/delivery/index", FILE),
    ("/artifacts/*/delivery/pack", FILE),
    ("/artifacts/*/delivery/patches/*", &["from", "length", "sha256", "directory"]),
    ("/artifacts/*/delivery/patches/*/from", &["version", "length", "sha256"]),
    ("/artifacts/*/delivery/patches/*/directory", FILE),
];

const PATCHES: Known = &[
    ("", &["schema", "artifact", "patches"]),
    ("/patches/*", &["from", "length", "sha256", "directory"]),
    ("/patches/*/from", &["version", "length", "sha256"]),
    ("/patches/*/directory", FILE),
];

/// What nobody would see in a role.
pub(super) fn role(role: &str, signed: &Value) -> Vec<Objection> {
    let is_cohort = matches!(DelegatedRole::parse(role), Some(DelegatedRole::Cohort { .. }));
    let mut known: BTreeMap<&str, &[&str]> = if role == "root" { ROOT } else { TARGETS }.iter().copied().collect();
    if is_cohort {
        known.extend(OFFERS.iter().copied());
    }
    let mut found = unknown(role, signed, &known);
    let at = |pointer: &str| signed.pointer(pointer);
    let (keys, using): (_, Vec<&Value>) = if role == "root" {
        let known = ["root", "targets", "snapshot", "timestamp"];
        (at("/keys"), known.iter().filter_map(|name| at("/roles")?.get(name)).collect())
    } else {
        (at("/delegations/keys"), at("/delegations/roles").and_then(Value::as_array).into_iter().flatten().collect())
    };
    let place = if role == "root" { "/keys/" } else { "/delegations/keys/" };
    let used: BTreeSet<&str> = using
        .iter()
        .filter_map(|role| role.get("keyids").and_then(Value::as_array))
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    found.extend(delegated(role, signed));
    let mut first: BTreeMap<String, &String> = BTreeMap::new();
    for (id, key) in members(keys) {
        if let Some(other) = material(key).and_then(|material| first.insert(material, id)) {
            let why = format!("the same key as {}: other programs count its signature twice", step(other));
            found.push(Objection::new("twin", role, &format!("{place}{}", step(id)), why));
        }
    }
    for (id, key) in members(keys).filter(|(id, _)| !used.contains(id.as_str())) {
        let path = format!("{place}{}", step(id));
        found.push(Objection::new("unused", role, &path, format!("a key that no role uses: {}", text(key))));
    }
    for (id, holder) in members(at("/x-tidegate-holders")).filter(|(id, _)| !used.contains(id.as_str())) {
        let path = format!("/x-tidegate-holders/{}", step(id));
        found.push(Objection::new("unused", role, &path, format!("a holder of no key of a role: {}", text(holder))));
    }
    found
}

/// Delegations that are neither to a channel nor to one of its cohorts: nothing here says what they are for.
fn delegated(role: &str, signed: &Value) -> Vec<Objection> {
    let roles = signed.pointer("/delegations/roles").and_then(Value::as_array);
    let names = roles.into_iter().flatten().filter_map(|declared| declared.get("name")?.as_str());
    let has_meaning = |name: &str| match DelegatedRole::parse(name) {
        Some(DelegatedRole::Channel(_)) => role == "targets",
        Some(DelegatedRole::Cohort { channel, .. }) => role == channel.as_str(),
        None => false,
    };
    let object = |name: &str| {
        let path = format!("/delegations/roles[{}]", step(name));
        Objection::new("unknown", role, &path, "a role that is neither a channel nor one of its cohorts")
    };
    names.filter(|name| !has_meaning(name)).map(object).collect()
}

/// A role that is shown as new although it is in force, so that nobody sees what it loses.
pub(super) fn base(role: &str, verified: &Verified) -> Option<Objection> {
    let (None, _) = verified.documents.get(role)? else { return None };
    // A first root follows from nothing.
    verified.roots.last()?;
    let is_in_force =
        role == "root" || role == "targets" || verified.base.values().any(|targets| targets.delegation(role).is_some());
    is_in_force.then(|| Objection::new("content", role, "", "the version in force did not come along"))
}

/// What nobody would see of the files that a role lists anew: those that did not come along, and unknown fields in those that did.
pub(super) fn files(proposal: &Proposal, role: &str, old: Option<&Targets>, new: &Targets) -> Vec<Objection> {
    let mut found = Vec::new();
    for (path, file) in &new.targets {
        let before = old.and_then(|old| old.targets.get(path));
        if before == Some(file) {
            continue;
        }
        let content = |file: &TargetFile| proposal.files.get(&file.hashes.name_prefix().parse::<Digest>().ok()?);
        let object = |why: &str| Objection::new("content", role, &format!("/targets/{}", step(path)), why);
        let (known, readable): (Known, fn(&Value) -> bool) = match Location::parse(path) {
            Some(Location::CohortMap { .. }) => (COHORTS, |value| CohortMap::from_value(value).is_ok()),
            Some(Location::Manifest { .. }) => (MANIFEST, |value| Manifest::from_value(value).is_ok()),
            Some(Location::Patches { .. }) => (PATCHES, |value| PatchList::from_value(value).is_ok()),
            _ => continue,
        };
        if before.is_some_and(|before| content(before).is_none()) {
            found.push(object("the file in force did not come along"));
        }
        match content(file) {
            None => found.push(object("the file that is listed did not come along")),
            Some(value) if !is_listed(value, file) => {
                found.push(object("the file that is listed has another length or hash"));
            }
            Some(value) if !readable(value) => found.push(object("the file that is listed is malformed")),
            Some(value) => found.extend(unknown(path, value, &known.iter().copied().collect())),
        }
    }
    found
}

/// Whether devices would accept the file.
fn is_listed(content: &Value, file: &TargetFile) -> bool {
    let mut check = Checker::new(Some(file.length), Some(&file.hashes));
    tidegate_tuf::json::canonical(content).is_ok_and(|bytes| check.update(&bytes).is_ok()) && check.finish().is_ok()
}

fn members(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

fn unknown(document: &str, value: &Value, known: &BTreeMap<&str, &[&str]>) -> Vec<Objection> {
    let mut found = Vec::new();
    for (pattern, names) in known {
        for (path, value) in each(value, pattern) {
            for (name, value) in members(Some(value)).filter(|(name, _)| !names.contains(&name.as_str())) {
                let path = format!("{path}/{}", step(name));
                let what = if *pattern == "/roles" { "a role" } else { "a field" };
                let why = format!("{what} that has no meaning here: {}", text(value));
                found.push(Objection::new("unknown", document, &path, why));
            }
        }
    }
    found
}

/// Every value at a pattern, with its path.
fn each<'a>(value: &'a Value, pattern: &str) -> Vec<(String, &'a Value)> {
    let mut found = vec![(String::new(), value)];
    for part in pattern.split('/').skip(1) {
        found = found
            .into_iter()
            .flat_map(|(path, value)| -> Vec<(String, &'a Value)> {
                match (part, value) {
                    ("*", Value::Object(members)) => {
                        members.iter().map(|(name, value)| (format!("{path}/{}", step(name)), value)).collect()
                    }
                    ("*", Value::Array(elements)) => (0_usize..)
                        .zip(elements)
                        .map(|(at, value)| (format!("{path}{}", element(at, value)), value))
                        .collect(),
                    _ => value.get(part).map(|value| (format!("{path}/{part}"), value)).into_iter().collect(),
                }
            })
            .collect();
    }
    found
}

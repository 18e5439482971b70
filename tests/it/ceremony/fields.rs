//! Attacks on what signers see: each field of each document that a proposal covers is changed, removed and added in turn, and the review
//! says so, or nobody can sign it.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use tidegate::ceremony;
use tidegate::keys::KeyRing;
use tidegate::proposal::{self, Change, Kind, Proposal, Verified};
use tidegate::workspace::{Operation, Workspace};
use tidegate_model::digest::Digest;
use tidegate_tuf::json::canonical;

use super::table::Table;
use crate::support::Fleet;

/// What a review says, without the digest, which differs in any case.
fn said(proposal: &Proposal, verified: &Verified) -> String {
    let lines = proposal::review(proposal, verified, proposal.proposed).unwrap().lines();
    lines.into_iter().filter(|line| !line.starts_with("digest ")).collect::<Vec<_>>().join("\n")
}

/// Where in a document something is, and how it is called.
type Place = (Vec<String>, String);

/// Every place in a document, as JSON pointers cut into pieces, the innermost last.
fn places(value: &Value, at: &[String], found: &mut Vec<Vec<String>>) {
    found.push(at.to_vec());
    let mut below = |name: String, value: &Value| places(value, &[at, &[name]].concat(), found);
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| below(name.clone(), value)),
        Value::Array(list) => list.iter().enumerate().for_each(|(at, value)| below(at.to_string(), value)),
        _ => {}
    }
}

fn at<'a>(value: &'a mut Value, place: &[String]) -> &'a mut Value {
    place.iter().fold(value, |value, step| match value {
        Value::Array(list) => &mut list[step.parse::<usize>().unwrap()],
        value => &mut value[step.as_str()],
    })
}

/// Another value of the same type.
fn other(value: &Value) -> Value {
    match value {
        Value::Null => json!(false),
        Value::Bool(bool) => json!(!bool),
        Value::Number(number) => json!(number.as_u64().unwrap() + 1),
        // A digit, so that digests, times and versions stay well formed.
        Value::String(text) => match text.rfind(|c: char| c.is_ascii_digit()) {
            Some(at) => json!(format!(
                "{}{}{}",
                &text[..at],
                if text[at..].starts_with('7') { '8' } else { '7' },
                &text[at + 1..]
            )),
            None => json!(format!("{text}x")),
        },
        Value::Array(list) => json!([list.clone(), vec![json!("x")]].concat()),
        Value::Object(_) => json!({"x": 1}),
    }
}

/// The document with one thing different: every value changed, removed and (to lists and objects) added to, and every two neighbours in a
/// list exchanged. With each the name of what differs.
fn mutations(document: &Value) -> Vec<(Value, Place)> {
    let mut found = Vec::new();
    let mut all = Vec::new();
    places(document, &[], &mut all);
    for place in all {
        let with = |place: &[String], change: &dyn Fn(&mut Value)| {
            let mut copy = document.clone();
            change(at(&mut copy, place));
            copy
        };
        let here = at(&mut document.clone(), &place).clone();
        let name = place.iter().rev().find(|step| step.parse::<usize>().is_err()).cloned().unwrap_or_default();
        let mut push = |value: Value, name: &str| found.push((value, (place.clone(), name.to_owned())));
        match &here {
            Value::Object(_) => push(with(&place, &|value| value["x-added"] = json!({"y": [1]})), "x-added"),
            Value::Array(list) => {
                push(with(&place, &|value| value.as_array_mut().unwrap().insert(0, json!("added"))), &name);
                for at in 1..list.len() {
                    push(with(&place, &|value| value.as_array_mut().unwrap().swap(at - 1, at)), &name);
                }
            }
            value => push(with(&place, &|here| *here = other(value)), &name),
        }
        if let Some((last, parent)) = place.split_last() {
            push(
                with(parent, &|value| match value {
                    Value::Array(list) => drop(list.remove(last.parse().unwrap())),
                    value => drop(value.as_object_mut().unwrap().remove(last)),
                }),
                &name,
            );
        }
    }
    found
}

/// Holds that each variant of a proposal, made by `vary` of a variant of a document, is refused by whoever verifies it or reads
/// differently and names the field. Gives how many there were of each.
fn each_is_seen(
    proposal: &Proposal,
    root: &[u8],
    document: &Value,
    vary: impl Fn(&mut Proposal, Value),
) -> (usize, usize) {
    let verified = proposal::verify(proposal, Some(root)).unwrap();
    let plain = said(proposal, &verified);
    let (mut refused, mut seen) = (0, 0);
    let mut texts = BTreeSet::from([plain.clone()]);
    for (value, (place, name)) in mutations(document) {
        if value == *document {
            continue;
        }
        let mut altered = proposal.clone();
        vary(&mut altered, value.clone());
        let Ok(verified) = proposal::verify(&altered, Some(root)) else {
            refused += 1;
            continue;
        };
        if name == "x-added" {
            let refused = proposal::objections(&altered, &verified).new;
            assert!(
                refused.iter().any(|o| o.name.starts_with("unknown:") || o.name.starts_with("content:")),
                "{place:?}"
            );
        }
        let text = said(&altered, &verified);
        assert_ne!(text, plain, "{place:?} {value}");
        let lines: BTreeSet<&str> = plain.lines().collect();
        let shown = text.lines().any(|line| !lines.contains(line) && line.contains(&name))
            || plain.lines().any(|line| line.contains(&name) && !text.lines().any(|other| other == line));
        assert!(shown, "{place:?}: {name} is not named:\n{text}");
        // Nor do any two variants read alike.
        assert!(texts.insert(text), "{place:?} reads like another change");
        seen += 1;
    }
    (refused, seen)
}

fn set_signed(role: &'static str) -> impl Fn(&mut Proposal, Value) {
    move |proposal, value| proposal.changes.iter_mut().find(|change| change.role == role).unwrap().signed = value
}

/// Replaces a file that a role lists, and what the role says of it.
fn set_file(role: &'static str, path: String) -> impl Fn(&mut Proposal, Value) {
    move |proposal, value| {
        let bytes = canonical(&value).unwrap();
        let digest = Digest::of(&bytes);
        let change = proposal.changes.iter_mut().find(|change| change.role == role).unwrap();
        let old: Digest = change.signed["targets"][&path]["hashes"]["sha256"].as_str().unwrap().parse().unwrap();
        change.signed["targets"][&path]["hashes"]["sha256"] = json!(digest.to_string());
        change.signed["targets"][&path]["length"] = json!(bytes.len());
        proposal.files.remove(&old);
        proposal.files.insert(digest, value);
    }
}

fn signed(proposal: &Proposal, role: &str) -> Value {
    proposal.change(role).unwrap().signed.clone()
}

/// A proposal that changes root, targets, a channel and its cohort map, of which one cohort is protected.
fn everything_changes() -> (Table, Proposal) {
    let mut table = Table::new();
    let path = table.path().join("cohorts.toml");
    let cohorts = |condition: &str, devices: &[&str]| {
        let text = fs::read_to_string(table.path().join("cohorts.toml")).unwrap();
        let guarded =
            text.replace("name = \"early\"", "name = \"early\"\nprotected = { gate = \"https://gate.example.com\" }");
        let devices: Vec<_> = devices.iter().map(|device| format!("\"{}\"", device.repeat(32))).collect();
        let named =
            format!("name = \"named\"\ndevices = [{}]\n\n[[stable.cohort]]\nname = \"canary\"", devices.join(", "));
        guarded.replace("name = \"canary\"", &named).replace("eq = \"lab\"", condition)
    };
    let (before, after) = (cohorts("eq = \"lab\"", &["1a"]), cohorts("in = [\"lab\", \"bench\"]", &["1a", "2b"]));
    fs::write(&path, before).unwrap();
    table.pass(1);
    let proposal = table.start().unwrap();
    let copies = table.copies(&proposal, &["release-1", "release-2"]);
    let combined = proposal::combine(&proposal, &copies, Some(&table.first_root())).unwrap();
    let workspace = table.workspace();
    ceremony::keep(&mut Operation::new(&workspace, "tester", table.now, &mut KeyRing::empty()), &combined).unwrap();
    table.finish(&workspace).unwrap();
    drop(workspace);
    fs::write(&path, after).unwrap();
    for name in ["root-4", "targets-4", "release-4", "rollout-4"] {
        table.key(name);
    }
    table.edit("\"root-3\"]", "\"root-4\"]");
    table.edit("\"targets-3\"]", "\"targets-4\"]");
    table.edit("keys = [\"release-1\", \"release-2\"]", "keys = [\"release-1\", \"release-2\", \"release-4\"]");
    table.edit("keys = [\"rollout\"]", "keys = [\"rollout\", \"rollout-4\"]");
    table.pass(1);
    let proposal = table.start().unwrap();
    (table, proposal)
}

#[test]
fn each_field_of_root_targets_and_a_channel_is_seen() {
    let (table, proposal) = everything_changes();
    for (role, least) in [("root", 40), ("targets", 20), ("stable", 40)] {
        let (refused, seen) = each_is_seen(&proposal, &table.first_root(), &signed(&proposal, role), set_signed(role));
        assert!(seen >= least, "{role}: {seen} seen, {refused} refused");
    }
}

#[test]
fn each_field_of_a_cohort_map_is_seen() {
    let (table, proposal) = everything_changes();
    let path = "stable/cohorts.json";
    let sha256 = signed(&proposal, "stable")["targets"][path]["hashes"]["sha256"].as_str().unwrap().parse().unwrap();
    let map = proposal.files[&sha256].clone();
    assert!(map.to_string().contains("gate.example.com"));
    let (refused, seen) = each_is_seen(&proposal, &table.first_root(), &map, set_file("stable", path.into()));
    assert!(refused == 0 && seen > 40, "{seen} seen, {refused} refused");
}

#[test]
fn each_field_of_a_manifest_is_seen() {
    let fleet = Fleet::new();
    fleet.release("1.0.0", |_| ());
    fleet.draft("1.1.0", |new| {
        new.notes = vec!["a note".parse().unwrap()];
        new.upgrade_from = Some(">=1.0".parse().unwrap());
    });
    let bytes = fs::read(fleet.path().join("proposals/stable-os-1.1.0.json")).unwrap();
    let proposal = Proposal::parse("p", &bytes).unwrap();
    let path = "stable/releases/os/1.1.0/manifest.json";
    let sha256 = signed(&proposal, "stable")["targets"][path]["hashes"]["sha256"].as_str().unwrap().parse().unwrap();
    let manifest = proposal.files[&sha256].clone();
    let root = fs::read(fleet.path().join("metadata/1.root.json")).unwrap();
    let verified = proposal::verify(&proposal, Some(&root)).unwrap();
    let text = said(&proposal, &verified);
    assert!(text.contains("~ /version: \"1.0.0\" -> \"1.1.0\""), "{text}");
    let (refused, seen) = each_is_seen(&proposal, &root, &manifest, set_file("stable", path.into()));
    assert!(refused == 0 && seen > 30, "{seen} seen, {refused} refused");
}

/// Lists of offers are signed by a machine; one that is signed by hand is shown all the same.
#[test]
fn each_field_of_a_list_of_offers_is_seen() {
    let mut fleet = Fleet::new();
    let spec = fleet.release("1.0.0", |_| ());
    fleet.start(&spec);
    fleet.pass(1);
    let repository = Workspace::open(&fleet.path()).unwrap().repository().unwrap();
    let role = "stable.validation";
    let mut document = repository.role(role).unwrap().document.clone();
    document.issue(document.version() + 1, fleet.now, fleet.now + chrono::TimeDelta::days(14));
    let follows = proposal::follows(&repository, &["stable".into(), role.into()]).unwrap();
    let mut signed = document.to_value();
    let offers = signed["targets"].as_object_mut().unwrap().values_mut().next().unwrap();
    offers["custom"]["tidegate"]["offers"][0]["bridges"] = json!([{"release": "0.9.0", "sequence": 1}]);
    let change = Change { role: role.into(), signed: signed.clone() };
    let proposal =
        Proposal::new(Kind::Ceremony, format!("{role} {}", document.version()), fleet.now, follows, vec![change]);
    let root = fs::read(fleet.path().join("metadata/1.root.json")).unwrap();
    let (refused, seen) = each_is_seen(&proposal, &root, &signed, set_signed("stable.validation"));
    assert!(seen > 40, "{seen} seen, {refused} refused");
}

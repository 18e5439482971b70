//! Every field in which two JSON documents differ, whatever they are: beneath the lines that explain, so that none can be forgotten
//! when a format grows.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_model::digest::Digest;

/// A value that comes or goes is shown in one piece up to this length, and member by member beyond it.
const WHOLE: usize = 400;
/// A text is shown up to this length; of a longer one its beginning, its length and its hash.
const TEXT: usize = 2_000;
/// More digests than this in a row are shown by their number and hash.
const DIGESTS: usize = 64;

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Where it is, such as `/roles/root/threshold` or `/cohorts[canary]/protected/gate`.
    pub path: String,
    /// As it is in force, as JSON; `None` if it comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// As it is proposed, as JSON; `None` if it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl Field {
    /// The field in one line.
    pub fn line(&self) -> String {
        let path = &self.path;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => format!("~ {path}: {before} -> {after}"),
            (Some(before), None) => format!("- {path}: {before}"),
            (None, Some(after)) => format!("+ {path}: {after}"),
            (None, None) => format!("  {path}"),
        }
    }
}

/// Every field in which two documents differ; against nothing, everything is new. Against one document, no two others give the same
/// list.
pub(super) fn fields(before: Option<&Value>, after: &Value) -> Vec<Field> {
    let mut found = Vec::new();
    match before {
        Some(before) => compare("", before, after, &mut found),
        None => added("", after, &mut found),
    }
    found
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<Field>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
                let path = format!("{path}/{}", step(name));
                match (old.get(name), new.get(name)) {
                    (Some(old), Some(new)) => compare(&path, old, new, found),
                    (Some(old), None) => removed(&path, old, found),
                    (None, Some(new)) => added(&path, new, found),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(old), Value::Array(new)) => match (by_name(old), by_name(new)) {
            (Some(old), Some(new)) => compare_named(path, &old, &new, found),
            _ => {
                for at in 0..old.len().max(new.len()) {
                    let path = format!("{path}[#{at}]");
                    match (old.get(at), new.get(at)) {
                        (Some(old), Some(new)) => compare(&path, old, new, found),
                        (Some(old), None) => removed(&path, old, found),
                        (None, Some(new)) => added(&path, new, found),
                        (None, None) => {}
                    }
                }
            }
        },
        _ => found.push(Field { path: path.to_owned(), before: Some(text(before)), after: Some(text(after)) }),
    }
}

/// The elements of a list by what people tell them apart by: the name of an object, else the element itself. `None` if two are alike.
fn by_name(list: &[Value]) -> Option<BTreeMap<String, (usize, &Value)>> {
    let mut names = BTreeMap::new();
    for (at, element) in list.iter().enumerate() {
        let name = match element {
            Value::Object(members) => step(members.get("name")?.as_str()?),
            Value::Array(_) => return None,
            scalar => text(scalar),
        };
        if names.insert(name, (at, element)).is_some() {
            return None;
        }
    }
    Some(names)
}

/// An element that comes is listed with its place; where those that stay change places among themselves, their order is listed, too.
fn compare_named(
    path: &str,
    old: &BTreeMap<String, (usize, &Value)>,
    new: &BTreeMap<String, (usize, &Value)>,
    found: &mut Vec<Field>,
) {
    let (gone, come): (Vec<_>, Vec<_>) = (
        old.iter().filter(|(name, _)| !new.contains_key(*name)).map(|(_, (_, value))| *value).collect(),
        new.iter().filter(|(name, _)| !old.contains_key(*name)).collect(),
    );
    let many = |values: &[&Value]| values.len() > DIGESTS && values.iter().all(|value| is_digest(value));
    if many(&gone) || many(&come.iter().map(|(_, (_, value))| *value).collect::<Vec<_>>()) {
        let list = |of: &BTreeMap<String, (usize, &Value)>| {
            let mut in_order: Vec<_> = of.values().collect();
            in_order.sort_by_key(|(at, _)| *at);
            Value::Array(in_order.into_iter().map(|(_, value)| (*value).clone()).collect())
        };
        let (before, after) = (text(&list(old)), text(&list(new)));
        found.push(Field { path: path.to_owned(), before: Some(before), after: Some(after) });
        return;
    }
    for (name, (_, old)) in old {
        let path = format!("{path}[{name}]");
        match new.get(name) {
            None => removed(&path, old, found),
            Some((_, new)) => compare(&path, old, new, found),
        }
    }
    for (name, (at, value)) in come {
        added(&format!("{path}[{name}] (number {})", at + 1), value, found);
    }
    let stay = |of: &BTreeMap<String, (usize, &Value)>, other: &BTreeMap<String, (usize, &Value)>| {
        let mut names: Vec<(usize, &String)> =
            of.iter().filter(|(name, _)| other.contains_key(*name)).map(|(name, (at, _))| (*at, name)).collect();
        names.sort_unstable();
        names.into_iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let (was, is) = (stay(old, new), stay(new, old));
    if was != is {
        let path = format!("{path} (order)");
        found.push(Field { path, before: Some(short(&was)), after: Some(short(&is)) });
    }
}

fn added(path: &str, value: &Value, found: &mut Vec<Field>) {
    one_sided(path, value, &mut |path, text| found.push(Field { path, before: None, after: Some(text) }));
}

fn removed(path: &str, value: &Value, found: &mut Vec<Field>) {
    one_sided(path, value, &mut |path, text| found.push(Field { path, before: Some(text), after: None }));
}

/// A value that is on one side alone: in one piece where it is short, else member by member.
fn one_sided(path: &str, value: &Value, put: &mut dyn FnMut(String, String)) {
    match value {
        Value::Object(members) if whole(value).is_none() => {
            for (name, value) in members {
                one_sided(&format!("{path}/{}", step(name)), value, put);
            }
        }
        Value::Array(list) if whole(value).is_none() && !is_digests(list) => {
            for (at, value) in list.iter().enumerate() {
                let path = match value.get("name").and_then(Value::as_str) {
                    Some(name) => format!("{path}[{}] (number {})", step(name), at + 1),
                    None => format!("{path}[#{at}]"),
                };
                one_sided(&path, value, put);
            }
        }
        _ => put(if path.is_empty() { "/".to_owned() } else { path.to_owned() }, text(value)),
    }
}

/// The value's text, if that is short.
fn whole(value: &Value) -> Option<String> {
    let text = json(value);
    (text.len() <= WHOLE).then_some(text)
}

fn is_digest(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.parse::<Digest>().is_ok())
}

fn is_digests(list: &[Value]) -> bool {
    list.len() > DIGESTS && list.iter().all(is_digest)
}

/// A value as JSON in printable ASCII.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Array(list) if is_digests(list) => {
            format!("{} hashes, together sha256 {}", list.len(), Digest::of(json(value).as_bytes()))
        }
        _ => short(&json(value)),
    }
}

fn json(value: &Value) -> String {
    ascii(&value.to_string())
}

fn short(text: &str) -> String {
    match text.char_indices().nth(TEXT) {
        None => text.to_owned(),
        Some((end, _)) => {
            let beginning = text.get(..end).unwrap_or_default();
            format!("{beginning}... ({} characters, sha256 {})", text.len(), Digest::of(text.as_bytes()))
        }
    }
}

/// A member's name as a step of a path: as it is where it is a plain word, else in quotes, so that no two paths look alike.
pub(super) fn step(name: &str) -> String {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"._-+".contains(&c);
    if !name.is_empty() && name.bytes().all(plain) { name.to_owned() } else { ascii(&Value::from(name).to_string()) }
}

/// An element of a list as a step of a path: by its name, else by its number from 0.
pub(super) fn element(at: usize, value: &Value) -> String {
    match value.get("name").and_then(Value::as_str) {
        Some(name) => format!("[{}]", step(name)),
        None => format!("[#{at}]"),
    }
}

fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => out.push(c),
            c => out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(before: &Value, after: &Value) -> Vec<String> {
        fields(Some(before), after).iter().map(Field::line).collect()
    }

    #[test]
    fn each_difference_is_listed_with_its_place() {
        let before = json!({"a": 1, "list": ["x", "y"], "cohorts": [{"name": "one", "share": 1}, {"name": "two"}]});
        let after = json!({"b c": "\u{202e}", "list": ["z", "y", "x"],
            "cohorts": [{"name": "new"}, {"name": "one", "share": 2, "protected": {"gate": "g"}}]});
        assert_eq!(
            lines(&before, &after),
            [
                "- /a: 1",
                "+ /\"b c\": \"\\u202e\"",
                "+ /cohorts[one]/protected: {\"gate\":\"g\"}",
                "~ /cohorts[one]/share: 1 -> 2",
                "- /cohorts[two]: {\"name\":\"two\"}",
                "+ /cohorts[new] (number 1): {\"name\":\"new\"}",
                "+ /list[\"z\"] (number 1): \"z\"",
                "~ /list (order): \"x\", \"y\" -> \"y\", \"x\"",
            ]
        );
    }

    #[test]
    fn what_is_long_is_shown_by_its_hash() {
        let hash = |byte: u8| Value::from(format!("{byte:064x}"));
        let many: Vec<Value> = (0..100).map(hash).collect();
        let mut other = many.clone();
        other.push(hash(200));
        // One more among many is one line; another list of as many differs in its hash.
        assert_eq!(
            lines(&json!({"d": many}), &json!({"d": other})),
            [format!("+ /d[{0}] (number 101): {0}", hash(200))]
        );
        let new = |last: u8| fields(None, &json!({"d": many.iter().cloned().chain([hash(last)]).collect::<Vec<_>>()}));
        assert_eq!(new(201).len(), 1);
        assert_ne!(new(201), new(202));
        let long = |end: &str| fields(None, &Value::from("x".repeat(TEXT) + end));
        assert_ne!(long("a"), long("b"));
    }
}

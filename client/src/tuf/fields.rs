//! From JSON values to typed ones, with errors that say where and what.
//!
//! By hand, because what serde derives is many times as large and knows of no place, and devices are small.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

/// One thing wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where: a path such as `artifacts[1].length`. Empty for the document as a whole.
    pub at: String,
    /// What is wrong, and what would be right.
    pub why: String,
}

impl Fault {
    pub(crate) fn new(at: impl Into<String>, why: impl Into<String>) -> Self {
        Fault { at: at.into(), why: why.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.is_empty() { f.write_str(&self.why) } else { write!(f, "`{}`: {}", self.at, self.why) }
    }
}

/// The fields of one JSON object, taken one by one by name.
pub(crate) struct Fields<'a> {
    pub(crate) at: String,
    pub(crate) map: &'a Map<String, Value>,
    pub(crate) taken: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(crate) fn of(value: &'a Value, at: &str) -> Result<Self, Fault> {
        match value {
            Value::Object(map) => Ok(Fields { at: at.to_owned(), map, taken: Vec::new() }),
            other => Err(expected("an object", other, at)),
        }
    }

    /// The path of a field of this object.
    pub(crate) fn at(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    /// All fields, without taking them.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        self.map.iter().map(|(key, value)| (key.as_str(), value))
    }

    pub(crate) fn optional(&mut self, key: &'static str) -> Option<&'a Value> {
        self.taken.push(key);
        self.map.get(key)
    }

    pub(crate) fn required(&mut self, key: &'static str) -> Result<&'a Value, Fault> {
        self.optional(key).ok_or_else(|| Fault::new(self.at(key), "this field is missing"))
    }

    pub(crate) fn u64(&mut self, key: &'static str) -> Result<u64, Fault> {
        let value = self.required(key)?;
        value.as_u64().ok_or_else(|| expected("a whole number from 0 to 2^64-1", value, &self.at(key)))
    }

    /// For the few fields that others write as null where they mean nothing.
    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    pub(crate) fn optional_u64(&mut self, key: &'static str) -> Result<Option<u64>, Fault> {
        if self.map.contains_key(key) { self.u64(key).map(Some) } else { Ok(None) }
    }

    pub(crate) fn optional_u32(&mut self, key: &'static str) -> Result<Option<u32>, Fault> {
        if self.map.contains_key(key) { self.u32(key).map(Some) } else { Ok(None) }
    }

    pub(crate) fn text(&mut self, key: &'static str) -> Result<&'a str, Fault> {
        let value = self.required(key)?;
        text(value, &self.at(key))
    }

    pub(crate) fn optional_text(&mut self, key: &'static str) -> Result<Option<&'a str>, Fault> {
        if self.map.contains_key(key) { self.text(key).map(Some) } else { Ok(None) }
    }

    /// A text with a meaning.
    pub(crate) fn meant<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, Fault> {
        let text = self.text(key)?;
        read(text).map_err(|error| Fault::new(self.at(key), error.to_string()))
    }

    pub(crate) fn optional_meant<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Fault> {
        if self.map.contains_key(key) { self.meant(key, read).map(Some) } else { Ok(None) }
    }

    /// A part that has a form of its own.
    pub(crate) fn part<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'a Value, &str) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let value = self.required(key)?;
        read(value, &self.at(key))
    }

    pub(crate) fn optional_part<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'a Value, &str) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        if self.map.contains_key(key) { self.part(key, read).map(Some) } else { Ok(None) }
    }

    pub(crate) fn u32(&mut self, key: &'static str) -> Result<u32, Fault> {
        let number = self.u64(key)?;
        u32::try_from(number).map_err(|_| Fault::new(self.at(key), format!("{number} is too large")))
    }

    pub(crate) fn bool_or(&mut self, key: &'static str, default: bool) -> Result<bool, Fault> {
        match self.optional(key) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(expected("true or false", other, &self.at(key))),
        }
    }

    pub(crate) fn parsed<T>(&mut self, key: &'static str) -> Result<T, Fault>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let value = self.required(key)?;
        parsed(value, &self.at(key))
    }

    pub(crate) fn optional_parsed<T>(&mut self, key: &'static str) -> Result<Option<T>, Fault>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.optional(key).map(|value| parsed(value, &self.at(key))).transpose()
    }

    /// The elements of a list, each read by `read`; an absent field is an empty list.
    pub(crate) fn list_or_empty<T>(
        &mut self,
        key: &'static str,
        max: usize,
        read: impl FnMut(&'a Value, &str) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        match self.optional(key) {
            None => Ok(Vec::new()),
            Some(value) => list(value, &self.at(key), max, read),
        }
    }

    pub(crate) fn list<T>(
        &mut self,
        key: &'static str,
        max: usize,
        read: impl FnMut(&'a Value, &str) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let value = self.required(key)?;
        list(value, &self.at(key), max, read)
    }

    /// One of a few words.
    pub(crate) fn one_of<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Result<T, Fault> {
        let value = self.required(key)?;
        let word = text(value, &self.at(key))?;
        if let Some((_, meaning)) = words.iter().find(|(known, _)| *known == word) {
            Ok(*meaning)
        } else {
            let known: Vec<_> = words.iter().map(|(known, _)| *known).collect();
            let why = format!("{} is unknown: use one of {}", quoted(word), known.join(", "));
            Err(Fault::new(self.at(key), why))
        }
    }

    /// A list whose elements must differ, in any order.
    pub(crate) fn set<T: Ord>(
        &mut self,
        key: &'static str,
        max: usize,
        read: impl FnMut(&'a Value, &str) -> Result<T, Fault>,
    ) -> Result<BTreeSet<T>, Fault> {
        let items = self.list(key, max, read)?;
        distinct(items, &self.at(key))
    }

    /// Like [`Fields::set`]; an absent field is an empty set.
    pub(crate) fn set_or_empty<T: Ord>(
        &mut self,
        key: &'static str,
        max: usize,
        read: impl FnMut(&'a Value, &str) -> Result<T, Fault>,
    ) -> Result<BTreeSet<T>, Fault> {
        let items = self.list_or_empty(key, max, read)?;
        distinct(items, &self.at(key))
    }

    /// The path of this object.
    pub(crate) fn here(&self) -> &str {
        &self.at
    }

    /// Refuses what no one asked for, where ignoring it would change what the rest means.
    pub(crate) fn finish(self) -> Result<(), Fault> {
        match self.map.keys().find(|key| !self.taken.contains(&key.as_str())) {
            Some(key) => {
                let why = format!("the field {} is unknown, and nothing here may be ignored", quoted(key));
                Err(Fault::new(self.at, why))
            }
            None => Ok(()),
        }
    }
}

pub(crate) fn text<'a>(value: &'a Value, at: &str) -> Result<&'a str, Fault> {
    value.as_str().ok_or_else(|| expected("a string", value, at))
}

/// An object in which every field means something: what `read` does not ask for is refused.
pub(crate) fn whole<'a, T>(
    value: &'a Value,
    at: &str,
    read: impl FnOnce(&mut Fields<'a>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut fields = Fields::of(value, at)?;
    let whole = read(&mut fields)?;
    fields.finish()?;
    Ok(whole)
}

/// A list of texts.
pub(crate) fn texts(value: &Value, at: &str) -> Result<Vec<String>, Fault> {
    list(value, at, usize::MAX, |item, at| text(item, at).map(str::to_owned))
}

pub(crate) fn parsed<T>(value: &Value, at: &str) -> Result<T, Fault>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    text(value, at)?.parse().map_err(|error: T::Err| Fault::new(at, error.to_string()))
}

pub(crate) fn list<'a, T>(
    value: &'a Value,
    at: &str,
    max: usize,
    mut read: impl FnMut(&'a Value, &str) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let Value::Array(items) = value else { return Err(expected("a list", value, at)) };
    if items.len() > max {
        return Err(Fault::new(at, format!("{} entries are too many: at most {max}", items.len())));
    }
    items.iter().enumerate().map(|(index, item)| read(item, &format!("{at}[{index}]"))).collect()
}

fn distinct<T: Ord>(items: Vec<T>, at: &str) -> Result<BTreeSet<T>, Fault> {
    let mut set = BTreeSet::new();
    for (index, item) in items.into_iter().enumerate() {
        if !set.insert(item) {
            return Err(Fault::new(format!("{at}[{index}]"), "this entry is in the list already"));
        }
    }
    Ok(set)
}

pub(crate) fn expected(what: &str, found: &Value, at: &str) -> Fault {
    Fault::new(at, format!("expected {what}, found {}", describe(found)))
}

/// A JSON value in a few words, safe to print.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("the string {}", quoted(text)),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// Text from outside between double quotes: ASCII, shortened, without control characters.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut out = String::from("\"");
    for (index, character) in text.chars().enumerate() {
        if index == SHOWN {
            out.push_str("...");
            break;
        }
        match character {
            // `escape_default` escapes the apostrophe too, for character literals; here it would only disturb.
            '\'' => out.push('\''),
            other => out.extend(other.escape_default()),
        }
    }
    out.push('"');
    out
}

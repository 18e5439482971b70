//! Reads typed values from JSON objects, with errors that name the field and what is wrong with it.
//!
//! Written by hand: derived deserializers are many times as large and cannot name the place of an error, and devices are small.

use alloc::collections::BTreeSet;
use core::fmt;
use core::str::FromStr;

use serde_json::{Map, Value};

use crate::prelude::*;

/// One error in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The field: a path such as `artifacts[1].length`. Empty for the document as a whole.
    pub at: String,
    /// What is wrong, and what is expected.
    pub why: String,
}

impl FieldError {
    /// An error at the path `at`.
    pub fn new(at: impl Into<String>, why: impl Into<String>) -> Self {
        FieldError { at: at.into(), why: why.into() }
    }
}

impl core::error::Error for FieldError {}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.is_empty() { f.write_str(&self.why) } else { write!(f, "`{}`: {}", self.at, self.why) }
    }
}

/// The fields of one JSON object, taken one by one by name.
#[derive(Debug)]
pub struct Fields<'a> {
    at: String,
    map: &'a Map<String, Value>,
    taken: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The fields of `value`, which is at the path `at`.
    ///
    /// # Errors
    ///
    /// If `value` is not an object.
    pub fn of(value: &'a Value, at: &str) -> Result<Self, FieldError> {
        match value {
            Value::Object(map) => Ok(Fields { at: at.to_owned(), map, taken: Vec::new() }),
            other => Err(expected("an object", other, at)),
        }
    }

    /// The path of a field of this object.
    pub fn at(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    /// All fields, without marking them as known.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        self.map.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a field, if it is present.
    pub fn optional(&mut self, key: &'static str) -> Option<&'a Value> {
        self.taken.push(key);
        self.map.get(key)
    }

    /// The value of a field.
    ///
    /// # Errors
    ///
    /// If the field is missing.
    pub fn required(&mut self, key: &'static str) -> Result<&'a Value, FieldError> {
        self.optional(key).ok_or_else(|| FieldError::new(self.at(key), "this field is missing"))
    }

    /// A whole number from 0 to 2^64-1.
    ///
    /// # Errors
    ///
    /// If the field is missing or something else.
    pub fn u64(&mut self, key: &'static str) -> Result<u64, FieldError> {
        let value = self.required(key)?;
        value.as_u64().ok_or_else(|| expected("a whole number from 0 to 2^64-1", value, &self.at(key)))
    }

    /// Whether the field is null: some implementations write null for an absent field.
    pub fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    /// Like [`Fields::u64`], for a field that may be absent.
    ///
    /// # Errors
    ///
    /// If the field is something else.
    pub fn optional_u64(&mut self, key: &'static str) -> Result<Option<u64>, FieldError> {
        if self.map.contains_key(key) { self.u64(key).map(Some) } else { Ok(None) }
    }

    /// Like [`Fields::u32`], for a field that may be absent.
    ///
    /// # Errors
    ///
    /// If the field is something else.
    pub fn optional_u32(&mut self, key: &'static str) -> Result<Option<u32>, FieldError> {
        if self.map.contains_key(key) { self.u32(key).map(Some) } else { Ok(None) }
    }

    /// A string.
    ///
    /// # Errors
    ///
    /// If the field is missing or something else.
    pub fn text(&mut self, key: &'static str) -> Result<&'a str, FieldError> {
        let value = self.required(key)?;
        text(value, &self.at(key))
    }

    /// Like [`Fields::text`], for a field that may be absent.
    ///
    /// # Errors
    ///
    /// If the field is something else.
    pub fn optional_text(&mut self, key: &'static str) -> Result<Option<&'a str>, FieldError> {
        if self.map.contains_key(key) { self.text(key).map(Some) } else { Ok(None) }
    }

    /// A string, read by `read`.
    ///
    /// # Errors
    ///
    /// If the field is missing or not a string, or `read` fails.
    pub fn text_as<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, FieldError> {
        let text = self.text(key)?;
        read(text).map_err(|error| FieldError::new(self.at(key), error.to_string()))
    }

    /// Like [`Fields::text_as`], for a field that may be absent.
    ///
    /// # Errors
    ///
    /// If the field is not a string, or `read` fails.
    pub fn optional_text_as<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, FieldError> {
        if self.map.contains_key(key) { self.text_as(key, read).map(Some) } else { Ok(None) }
    }

    /// A value, read by `read`, which also gets its path.
    ///
    /// # Errors
    ///
    /// If the field is missing, or `read` fails.
    pub fn part<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'a Value, &str) -> Result<T, FieldError>,
    ) -> Result<T, FieldError> {
        let value = self.required(key)?;
        read(value, &self.at(key))
    }

    /// Like [`Fields::part`], for a field that may be absent.
    ///
    /// # Errors
    ///
    /// If `read` fails.
    pub fn optional_part<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'a Value, &str) -> Result<T, FieldError>,
    ) -> Result<Option<T>, FieldError> {
        if self.map.contains_key(key) { self.part(key, read).map(Some) } else { Ok(None) }
    }

    /// A whole number from 0 to 2^32-1.
    ///
    /// # Errors
    ///
    /// If the field is missing or something else.
    pub fn u32(&mut self, key: &'static str) -> Result<u32, FieldError> {
        let number = self.u64(key)?;
        u32::try_from(number).map_err(|_| FieldError::new(self.at(key), format!("{number} is too large")))
    }

    /// A boolean, or `default` where the field is absent.
    ///
    /// # Errors
    ///
    /// If the field is something else.
    pub fn bool_or(&mut self, key: &'static str, default: bool) -> Result<bool, FieldError> {
        match self.optional(key) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(expected("true or false", other, &self.at(key))),
        }
    }

    /// A string, parsed by [`FromStr`].
    ///
    /// # Errors
    ///
    /// If the field is missing, not a string, or cannot be parsed.
    pub fn parsed<T>(&mut self, key: &'static str) -> Result<T, FieldError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let value = self.required(key)?;
        parsed(value, &self.at(key))
    }

    /// Like [`Fields::parsed`], for a field that may be absent.
    ///
    /// # Errors
    ///
    /// If the field is not a string, or cannot be parsed.
    pub fn optional_parsed<T>(&mut self, key: &'static str) -> Result<Option<T>, FieldError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.optional(key).map(|value| parsed(value, &self.at(key))).transpose()
    }

    /// The elements of a list, each read by `read`; an absent field is an empty list.
    ///
    /// # Errors
    ///
    /// If the field is not a list or too long, or `read` fails.
    pub fn list_or_empty<T>(
        &mut self,
        key: &'static str,
        max: usize,
        read: impl FnMut(&'a Value, &str) -> Result<T, FieldError>,
    ) -> Result<Vec<T>, FieldError> {
        match self.optional(key) {
            None => Ok(Vec::new()),
            Some(value) => list(value, &self.at(key), max, read),
        }
    }

    /// The elements of a list of at most `max`, each read by `read`.
    ///
    /// # Errors
    ///
    /// If the field is missing, not a list or too long, or `read` fails.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        max: usize,
        read: impl FnMut(&'a Value, &str) -> Result<T, FieldError>,
    ) -> Result<Vec<T>, FieldError> {
        let value = self.required(key)?;
        list(value, &self.at(key), max, read)
    }

    /// One of a few words, each with its meaning.
    ///
    /// # Errors
    ///
    /// If the field is missing or another word.
    pub fn one_of<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Result<T, FieldError> {
        let value = self.required(key)?;
        let word = text(value, &self.at(key))?;
        if let Some((_, meaning)) = words.iter().find(|(known, _)| *known == word) {
            Ok(*meaning)
        } else {
            let known: Vec<_> = words.iter().map(|(known, _)| *known).collect();
            let why = format!("{} is unknown: use one of {}", quoted(word), known.join(", "));
            Err(FieldError::new(self.at(key), why))
        }
    }

    /// A list of different elements, in any order.
    ///
    /// # Errors
    ///
    /// As [`Fields::list`], and if two elements are equal.
    pub fn set<T: Ord>(
        &mut self,
        key: &'static str,
        max: usize,
        read: impl FnMut(&'a Value, &str) -> Result<T, FieldError>,
    ) -> Result<BTreeSet<T>, FieldError> {
        let items = self.list(key, max, read)?;
        distinct(items, &self.at(key))
    }

    /// Like [`Fields::set`]; an absent field is an empty set.
    ///
    /// # Errors
    ///
    /// As [`Fields::list_or_empty`], and if two elements are equal.
    pub fn set_or_empty<T: Ord>(
        &mut self,
        key: &'static str,
        max: usize,
        read: impl FnMut(&'a Value, &str) -> Result<T, FieldError>,
    ) -> Result<BTreeSet<T>, FieldError> {
        let items = self.list_or_empty(key, max, read)?;
        distinct(items, &self.at(key))
    }

    /// The fields that were not read.
    pub fn unknown(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.entries().filter(|(key, _)| !self.taken.contains(key))
    }

    /// Whether the field is present.
    pub fn contains(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The object itself.
    pub fn object(&self) -> &'a Map<String, Value> {
        self.map
    }

    /// The path of this object.
    pub fn here(&self) -> &str {
        &self.at
    }

    /// Refuses unknown fields, for objects in which ignoring a field would change the meaning of the others.
    ///
    /// # Errors
    ///
    /// If a field was never read.
    pub fn finish(self) -> Result<(), FieldError> {
        match self.map.keys().find(|key| !self.taken.contains(&key.as_str())) {
            Some(key) => {
                let why = format!("the field {} is unknown, and unknown fields are not allowed here", quoted(key));
                Err(FieldError::new(self.at, why))
            }
            None => Ok(()),
        }
    }
}

/// `value` as a string.
///
/// # Errors
///
/// If it is something else.
pub fn text<'a>(value: &'a Value, at: &str) -> Result<&'a str, FieldError> {
    value.as_str().ok_or_else(|| expected("a string", value, at))
}

/// Reads an object and refuses the fields that `read` does not take.
///
/// # Errors
///
/// If `value` is not an object, `read` fails, or a field is unknown.
pub fn whole<'a, T>(
    value: &'a Value,
    at: &str,
    read: impl FnOnce(&mut Fields<'a>) -> Result<T, FieldError>,
) -> Result<T, FieldError> {
    let mut fields = Fields::of(value, at)?;
    let whole = read(&mut fields)?;
    fields.finish()?;
    Ok(whole)
}

/// A list of strings.
///
/// # Errors
///
/// If `value` is something else.
pub fn texts(value: &Value, at: &str) -> Result<Vec<String>, FieldError> {
    list(value, at, usize::MAX, |item, at| text(item, at).map(str::to_owned))
}

/// `value` as a string, parsed by [`FromStr`].
///
/// # Errors
///
/// If it is not a string, or cannot be parsed.
pub fn parsed<T>(value: &Value, at: &str) -> Result<T, FieldError>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    text(value, at)?.parse().map_err(|error: T::Err| FieldError::new(at, error.to_string()))
}

/// The elements of a list of at most `max`, each read by `read`.
///
/// # Errors
///
/// If `value` is not a list or too long, or `read` fails.
pub fn list<'a, T>(
    value: &'a Value,
    at: &str,
    max: usize,
    mut read: impl FnMut(&'a Value, &str) -> Result<T, FieldError>,
) -> Result<Vec<T>, FieldError> {
    let Value::Array(items) = value else { return Err(expected("a list", value, at)) };
    if items.len() > max {
        return Err(FieldError::new(at, format!("{} entries are too many: at most {max}", items.len())));
    }
    items.iter().enumerate().map(|(index, item)| read(item, &format!("{at}[{index}]"))).collect()
}

fn distinct<T: Ord>(items: Vec<T>, at: &str) -> Result<BTreeSet<T>, FieldError> {
    let mut set = BTreeSet::new();
    for (index, item) in items.into_iter().enumerate() {
        if !set.insert(item) {
            return Err(FieldError::new(format!("{at}[{index}]"), "duplicate entry"));
        }
    }
    Ok(set)
}

/// The error that something else was expected at the path `at`.
pub fn expected(what: &str, found: &Value, at: &str) -> FieldError {
    FieldError::new(at, format!("expected {what}, found {}", describe(found)))
}

/// A JSON value in a few words, safe to print.
pub fn describe(value: &Value) -> String {
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
pub fn quoted(text: &str) -> String {
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

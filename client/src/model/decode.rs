//! From JSON values to typed ones, with errors that say where and what.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::time::{self, Instant};
use super::version::{self, Version};
use crate::tuf::json::{self, JsonError};

/// Fields that this version does not know: kept as they came, and otherwise ignored. What could not be signed again
/// (fractions, text beyond printable ASCII) is refused in them too.
pub type Extra = BTreeMap<String, Value>;

/// Why a manifest, cohort map, assignment or condition was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The bytes are not JSON as Tidegate reads it.
    #[error("{document}: {source}")]
    Json {
        /// What was being read, e.g. `manifest`.
        document: &'static str,
        /// What the JSON reader found.
        source: JsonError,
    },
    /// The document declares a schema that this version does not implement.
    #[error("{document}: schema {found} is unknown: this program reads schema {known}; update the program")]
    UnknownSchema {
        /// What was being read.
        document: &'static str,
        /// The schema it declares.
        found: u64,
        /// The schema this version reads.
        known: u64,
    },
    /// The document says something it must not. Every fault that was found is listed.
    #[error("{document}: {}", Listed(faults))]
    Faults {
        /// What was being read.
        document: &'static str,
        /// At least one fault.
        faults: Vec<Fault>,
    },
}

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

struct Listed<'a>(&'a [Fault]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

/// The field `schema` of a document of schema 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Schema1;

impl serde::Serialize for Schema1 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(SCHEMA)
    }
}

const SCHEMA: u64 = 1;

/// Parses strict JSON on behalf of `document`.
pub(crate) fn parse(document: &'static str, bytes: &[u8]) -> Result<Value, FormatError> {
    json::parse(bytes).map_err(|source| FormatError::Json { document, source })
}

/// Canonical JSON of `value` on behalf of `document`, if it reads back as it is.
///
/// What a type's public fields leave possible and reading refuses is thus never written: a field in [`Extra`] with the
/// name of a known one, above all.
pub(crate) fn canonical<T: serde::Serialize + PartialEq>(
    document: &'static str,
    value: &T,
    read: impl FnOnce(&Value) -> Result<T, FormatError>,
) -> Result<Vec<u8>, FormatError> {
    let json = to_value(document, value, read)?;
    json::canonical(&json).map_err(|source| FormatError::Json { document, source })
}

/// The JSON form of `value`, if it reads back as it is.
pub(crate) fn to_value<T: serde::Serialize + PartialEq>(
    document: &'static str,
    value: &T,
    read: impl FnOnce(&Value) -> Result<T, FormatError>,
) -> Result<Value, FormatError> {
    let fault = |why: String| faults(document, vec![Fault::new("", why)]);
    let json = serde_json::to_value(value).map_err(|error| fault(error.to_string()))?;
    if read(&json)? == *value {
        Ok(json)
    } else {
        Err(fault("an extra field has the name of a field of this schema: set that field instead".into()))
    }
}

pub(crate) fn faults(document: &'static str, faults: Vec<Fault>) -> FormatError {
    FormatError::Faults { document, faults }
}

/// Checks `schema` before anything else is looked at: a later schema may have changed everything but this field.
pub(crate) fn schema(document: &'static str, fields: &mut Fields<'_>) -> Result<Schema1, FormatError> {
    let found = fields.u64("schema").map_err(|fault| faults(document, vec![fault]))?;
    if found == SCHEMA { Ok(Schema1) } else { Err(FormatError::UnknownSchema { document, found, known: SCHEMA }) }
}

/// The fields of one JSON object, taken one by one by name.
pub(crate) struct Fields<'a> {
    at: String,
    map: &'a Map<String, Value>,
    taken: Vec<&'static str>,
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

    pub(crate) fn version(&mut self, key: &'static str) -> Result<Version, Fault> {
        let value = self.required(key)?;
        let at = self.at(key);
        version::parse(text(value, &at)?).map_err(|error| Fault::new(at, error.to_string()))
    }

    pub(crate) fn instant(&mut self, key: &'static str) -> Result<Instant, Fault> {
        let value = self.required(key)?;
        let at = self.at(key);
        time::parse(text(value, &at)?).map_err(|error| Fault::new(at, error.to_string()))
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

    /// What no one asked for, as long as it could be written again.
    pub(crate) fn extra(self) -> Result<Extra, Fault> {
        let unknown = self.map.iter().filter(|(key, _)| !self.taken.contains(&key.as_str()));
        unknown
            .map(|(key, value)| {
                let at = self.at(key);
                signable_text(key, &at)?;
                signable(value, &at)?;
                Ok((key.clone(), value.clone()))
            })
            .collect()
    }
}

/// Checks that a value has a canonical form that reads back: whole numbers, and printable ASCII like everything signed.
/// Canonical JSON writes control characters raw, which no JSON reader takes.
fn signable(value: &Value, at: &str) -> Result<(), Fault> {
    match value {
        Value::Number(number) if number.is_f64() => Err(Fault::new(at, format!("{number} is not a whole number"))),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        Value::String(text) => signable_text(text, at),
        Value::Array(items) => items.iter().try_for_each(|item| signable(item, at)),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| {
            signable_text(key, at)?;
            signable(value, at)
        }),
    }
}

fn signable_text(text: &str, at: &str) -> Result<(), Fault> {
    if text.bytes().all(|c| c.is_ascii_graphic() || c == b' ') {
        Ok(())
    } else {
        // `at` may end in the very key.
        let at: String = at.chars().filter(char::is_ascii_graphic).collect();
        Err(Fault::new(at, format!("{} holds more than printable ASCII characters", quoted(text))))
    }
}

pub(crate) fn text<'a>(value: &'a Value, at: &str) -> Result<&'a str, Fault> {
    value.as_str().ok_or_else(|| expected("a string", value, at))
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

//! Facts: properties of a device, which conditions test.

use alloc::collections::BTreeMap;
use core::fmt;
use core::str::FromStr;

use serde_json::Value;

use super::decode::{FieldError, Fields, FormatError, expected, invalid, parse, quoted};
use super::name::{FactName, NameError};
use super::version::{self, Version};
use crate::prelude::*;

/// The most facts a device may have.
pub const MAX_FACTS: usize = 256;

/// The longest text, in bytes, that a fact may contain.
pub const MAX_TEXT: usize = 1024;

/// The value of a fact: a text, an integer or a boolean. A version is a text that reads as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(untagged)]
pub enum FactValue {
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Text.
    Text(String),
}

impl FactValue {
    /// Reads a value as people type it: `true`, `false`, a decimal integer without superfluous digits, else text.
    /// So `0042` stays a text: it is more likely a serial number than a quantity.
    pub fn from_typed(text: &str) -> FactValue {
        match text {
            "true" => FactValue::Boolean(true),
            "false" => FactValue::Boolean(false),
            _ => match text.parse::<i64>() {
                Ok(number) if number.to_string() == text => FactValue::Integer(number),
                _ => FactValue::Text(text.to_owned()),
            },
        }
    }

    /// The version that a text reads as.
    pub fn as_version(&self) -> Option<Version> {
        match self {
            FactValue::Text(text) => version::parse(text).ok(),
            _ => None,
        }
    }

    pub(crate) fn from_value(value: &Value, at: &str) -> Result<Self, FieldError> {
        match value {
            Value::Bool(value) => Ok(FactValue::Boolean(*value)),
            Value::Number(number) => match number.as_i64() {
                Some(number) => Ok(FactValue::Integer(number)),
                None => Err(FieldError::new(at, format!("{number} is no whole number from -2^63 to 2^63-1"))),
            },
            Value::String(text) if text.len() <= MAX_TEXT => Ok(FactValue::Text(text.clone())),
            Value::String(text) => {
                Err(FieldError::new(at, format!("{} bytes of text are too many: at most {MAX_TEXT}", text.len())))
            }
            other => Err(expected("a string, a whole number, true or false", other, at)),
        }
    }

    /// What kind of value this is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            FactValue::Boolean(_) => "a boolean",
            FactValue::Integer(_) => "an integer",
            FactValue::Text(_) => "a text",
        }
    }
}

/// Texts appear between double quotes, escaped to printable ASCII.
impl fmt::Display for FactValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FactValue::Boolean(value) => write!(f, "{value}"),
            FactValue::Integer(value) => write!(f, "{value}"),
            FactValue::Text(value) => f.write_str(&quoted(value)),
        }
    }
}

impl From<&str> for FactValue {
    fn from(text: &str) -> Self {
        FactValue::Text(text.to_owned())
    }
}

impl From<i64> for FactValue {
    fn from(number: i64) -> Self {
        FactValue::Integer(number)
    }
}

impl From<bool> for FactValue {
    fn from(value: bool) -> Self {
        FactValue::Boolean(value)
    }
}

/// The facts of a device, by name. In JSON an object: `{"group": "lab", "ram-mb": 2048}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Facts(BTreeMap<FactName, FactValue>);

impl Facts {
    /// No facts.
    pub fn new() -> Self {
        Facts::default()
    }

    /// Reads facts from strict JSON.
    ///
    /// # Errors
    ///
    /// If it is not strict JSON or not a valid object of facts.
    pub fn parse(bytes: &[u8]) -> Result<Facts, FormatError> {
        Facts::from_value(&parse(DOCUMENT, bytes)?)
    }

    /// Reads facts from a JSON object.
    ///
    /// # Errors
    ///
    /// If it is not a valid object of facts.
    pub fn from_value(value: &Value) -> Result<Facts, FormatError> {
        let read = || {
            let fields = Fields::of(value, "")?;
            let count = fields.entries().count();
            if count > MAX_FACTS {
                return Err(FieldError::new("", format!("{count} facts are too many: at most {MAX_FACTS}")));
            }
            let mut facts = Facts::new();
            for (name, value) in fields.entries() {
                let fact = name.parse().map_err(|error: NameError| FieldError::new("", error.to_string()))?;
                facts.insert(fact, FactValue::from_value(value, name)?);
            }
            Ok(facts)
        };
        read().map_err(|error| invalid(DOCUMENT, vec![error]))
    }

    /// The same with another fact.
    ///
    /// # Errors
    ///
    /// If the name cannot be that of a fact.
    pub fn with(mut self, name: &str, value: impl Into<FactValue>) -> Result<Facts, NameError> {
        self.insert(name.parse()?, value.into());
        Ok(self)
    }

    /// Sets a fact and returns its previous value.
    pub fn insert(&mut self, name: FactName, value: FactValue) -> Option<FactValue> {
        self.0.insert(name, value)
    }

    /// Removes a fact and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<FactValue> {
        self.0.remove(name)
    }

    /// The value of a fact.
    pub fn value(&self, name: &FactName) -> Option<&FactValue> {
        self.0.get(name)
    }

    /// All facts, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&FactName, &FactValue)> {
        self.0.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

const DOCUMENT: &str = "facts";

impl FromIterator<(FactName, FactValue)> for Facts {
    fn from_iter<I: IntoIterator<Item = (FactName, FactValue)>>(facts: I) -> Self {
        let mut all = Facts::new();
        // Not collected at once: that sorts first, by 3 kB of code on a device.
        all.0.extend(facts);
        all
    }
}

impl<'de> serde::Deserialize<'de> for Facts {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Facts::from_value(&Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// One fact as it is typed: `name=value`, read by [`FactValue::from_typed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedFact {
    /// Its name.
    pub name: FactName,
    /// Its value.
    pub value: FactValue,
}

/// A text that is no `name=value`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TypedFactError {
    /// No equals sign.
    #[error("{} is not a fact: write name=value, for example group=lab", quoted(.0))]
    NoEquals(String),
    /// The name cannot name a fact.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The value is too long.
    #[error("the fact {0} is too long: at most {MAX_TEXT} bytes")]
    TooLong(FactName),
}

impl FromStr for TypedFact {
    type Err = TypedFactError;

    fn from_str(text: &str) -> Result<Self, TypedFactError> {
        let (name, value) = text.split_once('=').ok_or_else(|| TypedFactError::NoEquals(text.to_owned()))?;
        let name: FactName = name.parse()?;
        if value.len() > MAX_TEXT {
            return Err(TypedFactError::TooLong(name));
        }
        Ok(TypedFact { name, value: FactValue::from_typed(value) })
    }
}

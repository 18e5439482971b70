//! Conditions from JSON.

use serde_json::Value;

use super::{Bound, Condition, MAX_DEPTH, MAX_SIZE, Node, Operator, Order, Test};
use crate::decode::{FieldError, Fields, FormatError, describe, expected, invalid, list, parse, parsed, quoted, text};
use crate::facts::FactValue;
use crate::name::Text;
use crate::prelude::*;
use crate::version;

impl Condition {
    /// Reads a condition from strict JSON.
    ///
    /// # Errors
    ///
    /// If it is not strict JSON or not a valid condition.
    pub fn parse(json: impl AsRef<[u8]>) -> Result<Condition, FormatError> {
        Condition::from_value(&parse("condition", json.as_ref())?)
    }

    /// Reads a condition from JSON.
    ///
    /// # Errors
    ///
    /// If it is not a valid condition. Unknown fields are refused.
    pub fn from_value(value: &Value) -> Result<Condition, FormatError> {
        Condition::read(value, "").map_err(|error| invalid("condition", vec![error]))
    }

    pub(crate) fn read(value: &Value, at: &str) -> Result<Condition, FieldError> {
        let mut size = 0;
        node(value, at, 1, &mut size).map(Condition)
    }
}

impl<'de> serde::Deserialize<'de> for Condition {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Condition::from_value(&Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

fn node(value: &Value, at: &str, depth: usize, size: &mut usize) -> Result<Node, FieldError> {
    if depth > MAX_DEPTH {
        return Err(FieldError::new(at, format!("nested too deep: at most {MAX_DEPTH} levels")));
    }
    grow(size, 1, at)?;
    let fields = Fields::of(value, at)?;
    let mut keys = fields.entries();
    // One key: a connective. Two: a test.
    let (first, second, more) = (keys.next(), keys.next(), keys.next());
    match (first, second, more) {
        (Some((key @ "all", value)), None, _) => Ok(Node::All(nodes(value, &fields.at(key), depth, size)?)),
        (Some((key @ "any", value)), None, _) => Ok(Node::Any(nodes(value, &fields.at(key), depth, size)?)),
        (Some((key @ "not", value)), None, _) => {
            Ok(Node::Not(Box::new(node(value, &fields.at(key), depth + 1, size)?)))
        }
        (Some(("fact", fact)), Some((key, operand)), None) | (Some((key, operand)), Some(("fact", fact)), None) => {
            let fact = parsed(fact, &fields.at("fact"))?;
            let operator = operator(key, operand, &fields.at(key), size)?
                .ok_or_else(|| FieldError::new(at, format!("{key:?} is no test: use one of {OPERATORS}")))?;
            Ok(Node::Test(Test { fact, operator }))
        }
        _ => Err(FieldError::new(
            at,
            format!("expected one of all, any and not, or fact with one of {OPERATORS}; found {}", shown(value)),
        )),
    }
}

const OPERATORS: &str = "eq, in, ge, gt, le, lt, exists, matches-version";

fn nodes(value: &Value, at: &str, depth: usize, size: &mut usize) -> Result<Vec<Node>, FieldError> {
    let nodes = list(value, at, MAX_SIZE, |item, at| node(item, at, depth + 1, size))?;
    if nodes.is_empty() {
        Err(FieldError::new(at, "this list is empty: name at least one condition"))
    } else {
        Ok(nodes)
    }
}

fn operator(key: &str, operand: &Value, at: &str, size: &mut usize) -> Result<Option<Operator>, FieldError> {
    let order = |order| Ok(Some(Operator::Order(order, bound(operand, at)?)));
    match key {
        "eq" => Ok(Some(Operator::Eq(plain(operand, at)?))),
        "in" => {
            let values = list(operand, at, MAX_SIZE, plain)?;
            grow(size, values.len(), at)?;
            if values.is_empty() {
                Err(FieldError::new(at, "this list is empty: name at least one value"))
            } else {
                Ok(Some(Operator::In(values)))
            }
        }
        "ge" => order(Order::Ge),
        "gt" => order(Order::Gt),
        "le" => order(Order::Le),
        "lt" => order(Order::Lt),
        "exists" => match operand {
            Value::Bool(true) => Ok(Some(Operator::Exists)),
            other => {
                Err(FieldError::new(at, format!("expected true, found {}; for the opposite use not", describe(other))))
            }
        },
        "matches-version" => Ok(Some(Operator::MatchesVersion(parsed(operand, at)?))),
        _ => Ok(None),
    }
}

/// A value to compare with. It is part of something signed, hence ASCII without control characters.
fn plain(value: &Value, at: &str) -> Result<FactValue, FieldError> {
    let found = FactValue::from_value(value, at)?;
    match &found {
        FactValue::Text(text) if !text.is_empty() => {
            text.parse::<Text>().map_err(|error| FieldError::new(at, error.to_string()))?;
        }
        _ => {}
    }
    Ok(found)
}

fn bound(value: &Value, at: &str) -> Result<Bound, FieldError> {
    match value {
        Value::String(_) => {
            let text = text(value, at)?.to_owned();
            let version = version::parse(&text)
                .map_err(|error| FieldError::new(at, format!("{error}; texts have no order but as versions")))?;
            Ok(Bound::Version { text, version })
        }
        other => match FactValue::from_value(other, at)? {
            FactValue::Integer(number) => Ok(Bound::Integer(number)),
            _ => Err(expected("a whole number or a version", other, at)),
        },
    }
}

fn grow(size: &mut usize, by: usize, at: &str) -> Result<(), FieldError> {
    *size = size.saturating_add(by);
    if *size > MAX_SIZE {
        Err(FieldError::new(at, format!("too large: at most {MAX_SIZE} conditions and values in total")))
    } else {
        Ok(())
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Object(map) if map.is_empty() => "an empty object".into(),
        Value::Object(map) => {
            let keys: Vec<_> = map.keys().take(4).map(|key| quoted(key)).collect();
            format!("{}{}", keys.join(", "), if map.len() > 4 { ", ..." } else { "" })
        }
        other => describe(other),
    }
}

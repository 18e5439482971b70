//! Conditions as text and as JSON.

use core::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Bound, Condition, Node, Operator, Order, Test};
use crate::facts::FactValue;
use crate::prelude::*;

/// The condition in one line, e.g. `group in ("lab", "office") and not kernel matches "<5.10"`.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, false)
    }
}

impl Node {
    fn write(&self, f: &mut fmt::Formatter<'_>, inner: bool) -> fmt::Result {
        let (parts, word) = match self {
            Node::All(parts) => (parts, " and "),
            Node::Any(parts) => (parts, " or "),
            Node::Not(part) => {
                f.write_str("not ")?;
                return part.write(f, true);
            }
            Node::Test(test) => return write!(f, "{test}"),
        };
        let parentheses = inner && parts.len() > 1;
        f.write_str(if parentheses { "(" } else { "" })?;
        for (index, part) in parts.iter().enumerate() {
            f.write_str(if index > 0 { word } else { "" })?;
            part.write(f, inner || parts.len() > 1)?;
        }
        f.write_str(if parentheses { ")" } else { "" })
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fact = &self.fact;
        match &self.operator {
            Operator::Eq(value) => write!(f, "{fact} = {value}"),
            Operator::In(values) => {
                let values: Vec<_> = values.iter().map(FactValue::to_string).collect();
                write!(f, "{fact} in ({})", values.join(", "))
            }
            Operator::Order(order, Bound::Integer(bound)) => write!(f, "{fact} {} {bound}", order.sign()),
            Operator::Order(order, Bound::Version { text, .. }) => write!(f, "{fact} {} {text}", order.sign()),
            Operator::Exists => write!(f, "{fact} exists"),
            Operator::MatchesVersion(range) => write!(f, "{fact} matches \"{range}\""),
        }
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Node::All(parts) => map.serialize_entry("all", parts)?,
            Node::Any(parts) => map.serialize_entry("any", parts)?,
            Node::Not(part) => map.serialize_entry("not", part)?,
            Node::Test(Test { fact, operator }) => {
                map.serialize_entry("fact", fact)?;
                match operator {
                    Operator::Eq(value) => map.serialize_entry("eq", value)?,
                    Operator::In(values) => map.serialize_entry("in", values)?,
                    Operator::Order(order, Bound::Integer(bound)) => map.serialize_entry(order.key(), bound)?,
                    Operator::Order(order, Bound::Version { text, .. }) => map.serialize_entry(order.key(), text)?,
                    Operator::Exists => map.serialize_entry("exists", &true)?,
                    Operator::MatchesVersion(range) => map.serialize_entry("matches-version", range)?,
                }
            }
        }
        map.end()
    }
}

impl Order {
    fn key(self) -> &'static str {
        match self {
            Order::Ge => "ge",
            Order::Gt => "gt",
            Order::Le => "le",
            Order::Lt => "lt",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Order::Ge => ">=",
            Order::Gt => ">",
            Order::Le => "<=",
            Order::Lt => "<",
        }
    }
}

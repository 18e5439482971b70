//! Conditions on the facts of a device.
//!
//! ```json
//! {"all": [
//!   {"fact": "group", "in": ["lab", "office"]},
//!   {"fact": "ram-mb", "ge": 2048},
//!   {"not": {"fact": "kernel", "matches-version": "<5.10"}}
//! ]}
//! ```
//!
//! `eq` and `in` compare texts, integers and booleans by value and type. `ge gt le lt` compare with an integer, or, given a
//! text, with a version by its precedence. `matches-version` takes a [`VersionRange`]. `exists` is always `true`: for the
//! opposite use `not`.
//!
//! Evaluation is total: it never fails and always ends. A test on a fact that the device does not have, or that has
//! another type than the test can compare, is *false* and says so. Mind `not`: what it makes of such a test is true.

use std::collections::BTreeSet;
use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::decode::{Fault, Fields, FormatError, describe, expected, faults, list, parsed, text};
use super::facts::{FactValue, Facts};
use super::name::{FactName, Text};
use super::version::{self, Version, VersionRange};

/// How deep conditions may be nested.
pub const MAX_DEPTH: usize = 16;

/// How many conditions, and values in `in` lists, one condition may hold in total.
pub const MAX_SIZE: usize = 1024;

/// A condition on facts, within [`MAX_DEPTH`] and [`MAX_SIZE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition(Node);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Test(Test),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Test {
    fact: FactName,
    operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    Eq(FactValue),
    In(Vec<FactValue>),
    Order(Order, Bound),
    Exists,
    MatchesVersion(VersionRange),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Ge,
    Gt,
    Le,
    Lt,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Bound {
    Integer(i64),
    Version { text: String, version: Version },
}

/// What came of a condition, down to its tests. Nothing is skipped: every test is evaluated.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Outcome {
    /// Whether the condition holds.
    pub holds: bool,
    /// What it was and what came of its parts.
    #[serde(flatten)]
    pub of: Part,
}

/// A part of a condition, with outcomes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Part {
    /// Holds if all parts do.
    All {
        /// At least one.
        parts: Vec<Outcome>,
    },
    /// Holds if any part does.
    Any {
        /// At least one.
        parts: Vec<Outcome>,
    },
    /// Holds if its part does not.
    Not {
        /// The part.
        part: Box<Outcome>,
    },
    /// A test on one fact.
    Test {
        /// The test as text, e.g. `ram-mb >= 2048`.
        test: String,
        /// The fact it looks at.
        fact: FactName,
        /// The device's value, if it has one.
        found: Option<FactValue>,
        /// Why the test could not compare at all.
        #[serde(skip_serializing_if = "Option::is_none")]
        problem: Option<Problem>,
    },
}

/// Why a test was false without comparing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// The device has no such fact.
    Missing,
    /// The fact has another type than the test compares.
    WrongType,
}

impl Condition {
    /// Reads a condition from JSON.
    pub fn from_value(value: &Value) -> Result<Condition, FormatError> {
        Condition::read(value, "").map_err(|fault| faults("condition", vec![fault]))
    }

    pub(crate) fn read(value: &Value, at: &str) -> Result<Condition, Fault> {
        let mut size = 0;
        node(value, at, 1, &mut size).map(Condition)
    }

    /// Whether the condition holds for these facts.
    pub fn holds(&self, facts: &Facts) -> bool {
        self.0.holds(facts)
    }

    /// Evaluates every part. `holds` of the result is what [`Condition::holds`] says.
    pub fn evaluate(&self, facts: &Facts) -> Outcome {
        self.0.evaluate(facts)
    }

    /// The names of the facts it looks at.
    pub fn facts(&self) -> BTreeSet<&FactName> {
        let mut names = BTreeSet::new();
        self.0.collect_facts(&mut names);
        names
    }
}

impl Outcome {
    /// The tests that could not compare, in the order of the condition: the fact, its value if any, and why.
    pub fn problems(&self) -> Vec<(&FactName, Option<&FactValue>, Problem)> {
        let mut found = Vec::new();
        self.collect_problems(&mut found);
        found
    }

    fn collect_problems<'a>(&'a self, into: &mut Vec<(&'a FactName, Option<&'a FactValue>, Problem)>) {
        match &self.of {
            Part::All { parts } | Part::Any { parts } => parts.iter().for_each(|part| part.collect_problems(into)),
            Part::Not { part } => part.collect_problems(into),
            Part::Test { fact, found, problem, .. } => {
                into.extend(problem.map(|problem| (fact, found.as_ref(), problem)));
            }
        }
    }

    /// The outcome as indented lines, the first indented by `depth` steps of two spaces.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        write!(f, "{:indent$}{} ", "", if self.holds { "yes" } else { "no " }, indent = depth * 2)?;
        match &self.of {
            Part::All { parts } => {
                f.write_str("all of\n")?;
                parts.iter().try_for_each(|part| part.write(f, depth + 1))
            }
            Part::Any { parts } => {
                f.write_str("any of\n")?;
                parts.iter().try_for_each(|part| part.write(f, depth + 1))
            }
            Part::Not { part } => {
                f.write_str("not\n")?;
                part.write(f, depth + 1)
            }
            Part::Test { test, found, problem, .. } => match (found, problem) {
                (None, _) => writeln!(f, "{test}  (the device has no such fact)"),
                (Some(found), None) => writeln!(f, "{test}  (it is {found})"),
                (Some(found), Some(_)) => {
                    writeln!(f, "{test}  (it is {found}, {}, which this test cannot compare)", found.kind())
                }
            },
        }
    }
}

fn node(value: &Value, at: &str, depth: usize, size: &mut usize) -> Result<Node, Fault> {
    if depth > MAX_DEPTH {
        return Err(Fault::new(at, format!("nested too deep: at most {MAX_DEPTH} levels")));
    }
    grow(size, 1, at)?;
    let fields = Fields::of(value, at)?;
    let mut keys = fields.keys();
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
                .ok_or_else(|| Fault::new(at, format!("{key:?} is no test: use one of {OPERATORS}")))?;
            Ok(Node::Test(Test { fact, operator }))
        }
        _ => Err(Fault::new(
            at,
            format!("expected one of all, any and not, or fact with one of {OPERATORS}; found {}", shown(value)),
        )),
    }
}

const OPERATORS: &str = "eq, in, ge, gt, le, lt, exists, matches-version";

fn nodes(value: &Value, at: &str, depth: usize, size: &mut usize) -> Result<Vec<Node>, Fault> {
    let nodes = list(value, at, MAX_SIZE, |item, at| node(item, at, depth + 1, size))?;
    if nodes.is_empty() { Err(Fault::new(at, "this list is empty: name at least one condition")) } else { Ok(nodes) }
}

fn operator(key: &str, operand: &Value, at: &str, size: &mut usize) -> Result<Option<Operator>, Fault> {
    let order = |order| Ok(Some(Operator::Order(order, bound(operand, at)?)));
    match key {
        "eq" => Ok(Some(Operator::Eq(plain(operand, at)?))),
        "in" => {
            let values = list(operand, at, MAX_SIZE, plain)?;
            grow(size, values.len(), at)?;
            if values.is_empty() {
                Err(Fault::new(at, "this list is empty: name at least one value"))
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
            other => Err(Fault::new(at, format!("expected true, found {}; for the opposite use not", describe(other)))),
        },
        "matches-version" => Ok(Some(Operator::MatchesVersion(parsed(operand, at)?))),
        _ => Ok(None),
    }
}

/// A value to compare with. It is part of something signed, hence ASCII without control characters.
fn plain(value: &Value, at: &str) -> Result<FactValue, Fault> {
    let found = FactValue::from_value(value, at)?;
    match &found {
        FactValue::Text(text) if !text.is_empty() => {
            text.parse::<Text>().map_err(|error| Fault::new(at, error.to_string()))?;
        }
        _ => {}
    }
    Ok(found)
}

fn bound(value: &Value, at: &str) -> Result<Bound, Fault> {
    match value {
        Value::String(_) => {
            let text = text(value, at)?.to_owned();
            let version = version::parse(&text)
                .map_err(|error| Fault::new(at, format!("{error}; texts have no order but as versions")))?;
            Ok(Bound::Version { text, version })
        }
        other => match FactValue::from_value(other, at)? {
            FactValue::Integer(number) => Ok(Bound::Integer(number)),
            _ => Err(expected("a whole number or a version", other, at)),
        },
    }
}

fn grow(size: &mut usize, by: usize, at: &str) -> Result<(), Fault> {
    *size = size.saturating_add(by);
    if *size > MAX_SIZE {
        Err(Fault::new(at, format!("too large: at most {MAX_SIZE} conditions and values in total")))
    } else {
        Ok(())
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Object(map) if map.is_empty() => "an empty object".into(),
        Value::Object(map) => {
            let keys: Vec<_> = map.keys().take(4).map(|key| super::decode::quoted(key)).collect();
            format!("{}{}", keys.join(", "), if map.len() > 4 { ", ..." } else { "" })
        }
        other => describe(other),
    }
}

impl Node {
    fn holds(&self, facts: &Facts) -> bool {
        match self {
            Node::All(parts) => parts.iter().all(|part| part.holds(facts)),
            Node::Any(parts) => parts.iter().any(|part| part.holds(facts)),
            Node::Not(part) => !part.holds(facts),
            Node::Test(test) => test.apply(facts) == Ok(true),
        }
    }

    fn evaluate(&self, facts: &Facts) -> Outcome {
        match self {
            Node::All(parts) => {
                let parts: Vec<_> = parts.iter().map(|part| part.evaluate(facts)).collect();
                Outcome { holds: parts.iter().all(|part| part.holds), of: Part::All { parts } }
            }
            Node::Any(parts) => {
                let parts: Vec<_> = parts.iter().map(|part| part.evaluate(facts)).collect();
                Outcome { holds: parts.iter().any(|part| part.holds), of: Part::Any { parts } }
            }
            Node::Not(part) => {
                let part = Box::new(part.evaluate(facts));
                Outcome { holds: !part.holds, of: Part::Not { part } }
            }
            Node::Test(test) => {
                let result = test.apply(facts);
                Outcome {
                    holds: result == Ok(true),
                    of: Part::Test {
                        test: test.to_string(),
                        fact: test.fact.clone(),
                        found: facts.value(&test.fact).cloned(),
                        problem: result.err(),
                    },
                }
            }
        }
    }

    fn collect_facts<'a>(&'a self, into: &mut BTreeSet<&'a FactName>) {
        match self {
            Node::All(parts) | Node::Any(parts) => parts.iter().for_each(|part| part.collect_facts(into)),
            Node::Not(part) => part.collect_facts(into),
            Node::Test(test) => {
                into.insert(&test.fact);
            }
        }
    }
}

impl Test {
    fn apply(&self, facts: &Facts) -> Result<bool, Problem> {
        let found = facts.value(&self.fact).ok_or(Problem::Missing)?;
        match (&self.operator, found) {
            (Operator::Exists, _) => Ok(true),
            (Operator::Eq(value), found) => equal(value, found),
            (Operator::In(values), found) => {
                let results: Vec<_> = values.iter().map(|value| equal(value, found)).collect();
                match results.contains(&Ok(true)) {
                    true => Ok(true),
                    // Wrong only if there was nothing of the fact's type to compare with.
                    false if results.contains(&Ok(false)) => Ok(false),
                    false => Err(Problem::WrongType),
                }
            }
            (Operator::Order(order, Bound::Integer(bound)), FactValue::Integer(found)) => {
                Ok(order.accepts(found.cmp(bound)))
            }
            (Operator::Order(order, Bound::Version { version, .. }), found) => {
                let found = found.as_version().ok_or(Problem::WrongType)?;
                Ok(order.accepts(found.cmp_precedence(version)))
            }
            (Operator::MatchesVersion(range), found) => {
                let found = found.as_version().ok_or(Problem::WrongType)?;
                Ok(range.holds(&found))
            }
            (Operator::Order(_, Bound::Integer(_)), _) => Err(Problem::WrongType),
        }
    }
}

fn equal(value: &FactValue, found: &FactValue) -> Result<bool, Problem> {
    if std::mem::discriminant(value) == std::mem::discriminant(found) {
        Ok(value == found)
    } else {
        Err(Problem::WrongType)
    }
}

impl Order {
    fn accepts(self, ordering: std::cmp::Ordering) -> bool {
        match self {
            Order::Ge => ordering.is_ge(),
            Order::Gt => ordering.is_gt(),
            Order::Le => ordering.is_le(),
            Order::Lt => ordering.is_lt(),
        }
    }

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

impl<'de> serde::Deserialize<'de> for Condition {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Condition::from_value(&Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
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

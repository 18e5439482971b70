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
//! `eq` and `in` compare texts, integers and booleans by value and type. `ge gt le lt` compare with an integer, or,
//! given a text, with a version by its precedence. `matches-version` takes a [`VersionRange`]. `exists` is always
//! `true`: for the opposite use `not`.
//!
//! Evaluation is total: it never fails and always ends. A test on a fact that the device does not have, or that has
//! another type than the test can compare, is *false* and reports the problem. `not` turns such a test into true.

mod read;
mod write;

use alloc::collections::BTreeSet;
use core::fmt;

use super::facts::{FactValue, Facts};
use super::name::FactName;
use super::version::{Version, VersionRange};
use crate::prelude::*;

/// How deep conditions may be nested.
pub const MAX_DEPTH: usize = 16;

/// How many conditions, and values in `in` lists, one condition may contain in total.
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

/// The outcome of a condition, down to its tests. Every test is evaluated.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Outcome {
    /// Whether the condition holds.
    pub holds: bool,
    /// The condition with the outcomes of its parts.
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
        /// The tested fact.
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
    /// Whether the condition holds for these facts.
    pub fn holds(&self, facts: &Facts) -> bool {
        self.0.holds(facts)
    }

    /// Evaluates every part. `holds` of the result is what [`Condition::holds`] returns.
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
    ///
    /// # Errors
    ///
    /// If `f` cannot be written to.
    pub fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
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
    if core::mem::discriminant(value) == core::mem::discriminant(found) {
        Ok(value == found)
    } else {
        Err(Problem::WrongType)
    }
}

impl Order {
    fn accepts(self, ordering: core::cmp::Ordering) -> bool {
        match self {
            Order::Ge => ordering.is_ge(),
            Order::Gt => ordering.is_gt(),
            Order::Le => ordering.is_le(),
            Order::Lt => ordering.is_lt(),
        }
    }
}

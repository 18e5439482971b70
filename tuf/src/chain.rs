//! The chain of delegations through which a role is trusted.

use core::fmt;

use crate::prelude::*;

/// Role names from `targets` down to a role, each delegating to the next.
///
/// A role is trusted *through a chain*, never by its name alone: the same file may satisfy one delegator and not another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain {
    above: Vec<String>,
    role: String,
}

impl Chain {
    /// The chain of the top-level targets role, which root delegates to.
    pub fn top() -> Self {
        Self { above: Vec::new(), role: "targets".into() }
    }

    /// This chain and one delegation more.
    #[must_use]
    pub fn then(&self, role: &str) -> Self {
        let mut above = self.above.clone();
        above.push(self.role.clone());
        Self { above, role: role.to_owned() }
    }

    /// The role at its end.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The chain of the role that delegates to this one; `None` at the top.
    pub fn parent(&self) -> Option<Self> {
        let mut above = self.above.clone();
        above.pop().map(|role| Self { above, role })
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for role in &self.above {
            write!(f, "{role} > ")?;
        }
        f.write_str(&self.role)
    }
}

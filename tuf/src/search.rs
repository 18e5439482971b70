//! Finding the role that lists a target: a pre-order, depth-first walk of delegations, one role at a time (TUF 5.6.7).

use alloc::collections::BTreeSet;

use super::chain::Chain;
use super::metadata::TargetFile;
use super::path::TargetPath;
use super::trusted::TrustedSet;
use crate::prelude::*;

/// A search under way. It does no I/O: [`step`](Self::step) returns the role that it needs next, the caller loads that into the
/// [`TrustedSet`], and steps again.
#[derive(Debug, Clone)]
pub struct Search {
    path: TargetPath,
    /// Roles to visit, the next one last.
    pending: Vec<Chain>,
    visited: BTreeSet<String>,
    limit: usize,
}

/// The state of a search.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Load the last role of this chain, then step again.
    ///
    /// If it cannot be loaded, the search ends without a result: a missing role must not give way to a less trusted
    /// one behind it (note of TUF 5.6.7).
    Load(Chain),
    /// The target is found.
    Found(Found),
    /// No role that is trusted with the path lists it.
    NotFound,
    /// The bound on visited roles was reached before an answer (TUF 5.6.7.1).
    TooManyRoles,
}

/// A target and the role that lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The target path.
    pub path: TargetPath,
    /// Length, hashes and custom data.
    pub target: TargetFile,
    /// The delegations that lead to the role that lists it.
    pub chain: Chain,
}

impl Search {
    /// Starts a search for `path` that visits at most `limit` roles.
    pub fn new(path: TargetPath, limit: usize) -> Self {
        Self { path, pending: vec![Chain::top()], visited: BTreeSet::new(), limit }
    }

    /// Continues as far as the loaded roles allow.
    pub fn step(&mut self, trusted: &TrustedSet) -> Step {
        while let Some(chain) = self.pending.last() {
            // Visited before: skip, so that cycles end.
            if self.visited.contains(chain.role()) {
                self.pending.pop();
                continue;
            }
            if self.visited.len() >= self.limit {
                return Step::TooManyRoles;
            }
            let Some(targets) = trusted.targets(chain) else {
                return Step::Load(chain.clone());
            };
            let chain = chain.clone();
            if let Some(target) = targets.targets.get(self.path.as_str()) {
                return Step::Found(Found { path: self.path.clone(), target: target.clone(), chain });
            }
            self.visited.insert(chain.role().to_owned());
            self.pending.pop();
            let mut children = Vec::new();
            if let Some(bins) = targets.delegations.as_ref().and_then(|d| d.bins.as_ref()) {
                // TAP 15: bins are terminating, and one alone is trusted with the path.
                children.push(chain.then(&bins.name(bins.number_for(self.path.as_str()))));
                self.pending.clear();
            }
            for delegation in targets.delegations.iter().flat_map(|d| &d.roles) {
                if delegation.paths.covers(self.path.as_str()) {
                    children.push(chain.then(&delegation.name));
                    if delegation.terminating {
                        // No role after it is trusted with the path, at this level or above.
                        self.pending.clear();
                        break;
                    }
                }
            }
            self.pending.extend(children.into_iter().rev());
        }
        Step::NotFound
    }
}

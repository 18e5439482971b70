//! What a proposal changes, for people: tables, sentences, warnings. Pure; the words are the same on every machine.

mod cohorts;
mod content;
mod devices;
mod keys;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tidegate_model::time;
use tidegate_tuf::key::KeyId;

use super::file::Proposal;
use super::verify::Verified;
use crate::error::Result;

/// What a proposal changes.
#[derive(Debug, Clone, Serialize)]
pub struct Review {
    /// What it is about.
    pub subject: String,
    /// What to compare over the phone.
    pub digest: String,
    /// When it was proposed.
    #[serde(with = "time::text")]
    pub proposed: DateTime<Utc>,
    /// Why, in the words of whoever proposed it.
    pub reason: Option<String>,
    /// The root in force that it follows from.
    pub root_version: u64,
    /// Role by role.
    pub roles: Vec<RoleReview>,
    /// What becomes possible.
    pub possible: Vec<String>,
    /// What becomes impossible.
    pub impossible: Vec<String>,
    /// What devices need in order to follow.
    pub devices: Vec<String>,
    /// What deserves a question before one signs.
    pub warnings: Vec<String>,
}

/// What changes in one role.
#[derive(Debug, Clone, Serialize)]
pub struct RoleReview {
    /// The role.
    pub role: String,
    /// The version in force, if there is one.
    pub from: Option<u64>,
    /// The version proposed.
    pub to: u64,
    /// What changes, line by line.
    pub rows: Vec<Row>,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `+` for what comes, `-` for what goes, `~` for what changes, a space for what stays.
    pub mark: char,
    /// What it is.
    pub what: String,
    /// As it is in force.
    pub before: String,
    /// As it is proposed.
    pub after: String,
}

/// Describes what a verified proposal changes, for a reader at `now`.
///
/// # Errors
///
/// Fails if a changed role cannot be read.
pub fn review(proposal: &Proposal, verified: &Verified, now: DateTime<Utc>) -> Result<Review> {
    let current = verified.roots.last();
    let mut builder = ReviewBuilder {
        proposal,
        verified,
        now,
        possible: Vec::new(),
        impossible: Vec::new(),
        warnings: Vec::new(),
        rows: Vec::new(),
        examples: 0,
    };
    let mut roles = Vec::new();
    for change in &proposal.changes {
        let Some((before, after)) = verified.documents.get(&change.role) else { continue };
        builder.rows = Vec::new();
        let (from, to) = (before.as_ref().map(crate::metadata::Document::version), after.version());
        let before_value = before.as_ref().map(crate::metadata::Document::to_value);
        if let (true, Some(old), Some(new)) = (change.role == "root", current, &verified.new_root) {
            builder.root(old, new);
        } else if let Some(new) = verified.proposed.get(&change.role) {
            builder.targets(&change.role, verified.base.get(&change.role), new);
            builder.cohorts(&change.role, verified.base.get(&change.role), new);
        }
        let held = before.as_ref().map(crate::metadata::Document::holders).unwrap_or_default();
        builder.holders(&change.role, &held, &after.holders());
        builder.others(&change.role, before_value.as_ref(), &change.signed);
        builder.expiry(&change.role, before_value.as_ref(), &change.signed);
        roles.push(RoleReview { role: change.role.clone(), from, to, rows: std::mem::take(&mut builder.rows) });
    }
    if builder.examples > 0 {
        builder
            .warnings
            .push(format!("{} of the keys are example keys, whose private parts everyone knows", builder.examples));
    }
    let devices = devices::devices(proposal, verified);
    Ok(Review {
        subject: proposal.subject.clone(),
        digest: proposal.digest()?,
        proposed: proposal.proposed,
        reason: proposal.reason.clone(),
        root_version: current.map_or(0, |root| root.common.version),
        roles,
        possible: builder.possible,
        impossible: builder.impossible,
        devices,
        warnings: builder.warnings,
    })
}

struct ReviewBuilder<'a> {
    proposal: &'a Proposal,
    verified: &'a Verified,
    now: DateTime<Utc>,
    rows: Vec<Row>,
    examples: usize,
    possible: Vec<String>,
    impossible: Vec<String>,
    warnings: Vec<String>,
}

impl ReviewBuilder<'_> {
    fn row(&mut self, mark: char, what: impl Into<String>, before: impl Into<String>, after: impl Into<String>) {
        self.rows.push(Row { mark, what: what.into(), before: before.into(), after: after.into() });
    }

    fn person(&self, id: &KeyId) -> String {
        let label = self.proposal.label(id);
        match self.verified.holders.get(id) {
            Some(holder) => format!("{label}, held by {holder}"),
            None => label,
        }
    }
}

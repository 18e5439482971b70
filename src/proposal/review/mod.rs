//! What a proposal changes, for people: tables, sentences, warnings. Pure; the words are the same on every machine.

mod cohorts;
mod content;
mod devices;
mod keys;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tidegate_model::text::one_line;
use tidegate_model::time;
use tidegate_tuf::key::KeyId;

use super::fields::Field;
use super::file::Proposal;
use super::objections::{Objection, objections};
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
    /// The root in force that it follows from; 0 for a first root.
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
    /// What is refused unless it is allowed by name.
    pub refused: Vec<Objection>,
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
    /// What changes, line by line, in words.
    pub rows: Vec<Row>,
    /// Every field that differs: of the role itself, then of the files that it lists and that came along.
    pub documents: Vec<DocumentReview>,
}

/// Every field that differs in one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentReview {
    /// The role, or the path of the file.
    pub name: String,
    /// What it is compared with, if that has another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// Its fields.
    pub fields: Vec<Field>,
}

impl DocumentReview {
    /// What the fields are of, in one line.
    pub fn heading(&self) -> String {
        match &self.against {
            None => format!("every changed field of {}", self.name),
            Some(against) => format!("every changed field of {}, against {against}", self.name),
        }
    }
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

impl Review {
    /// The review as lines of text, for whoever must read it before signing.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("proposal   {}", self.subject),
            format!("digest     {}", self.digest),
            format!("proposed   {}", time::format(self.proposed)),
            match self.root_version {
                0 => "follows    nothing: it is a first root".to_owned(),
                version => format!("follows    root {version}"),
            },
        ];
        lines.extend(self.reason.as_ref().map(|reason| format!("reason     {reason}")));
        for role in &self.roles {
            lines.push(String::new());
            lines.extend(role.lines());
        }
        let refused: Vec<String> = self.refused.iter().map(|o| format!("{}: {}", o.name, o.why)).collect();
        for (heading, sentences) in [
            ("This makes possible:", &self.possible),
            ("This makes impossible:", &self.impossible),
            ("Devices:", &self.devices),
            ("WARNINGS:", &self.warnings),
            ("REFUSED unless allowed by name:", &refused),
        ] {
            if !sentences.is_empty() {
                lines.push(String::new());
                lines.push(heading.to_owned());
                lines.extend(sentences.iter().map(|sentence| format!("  - {sentence}")));
            }
        }
        lines.iter().map(|line| one_line(line)).collect()
    }
}

impl RoleReview {
    fn lines(&self) -> Vec<String> {
        let from = self.from.map_or_else(|| "new".to_owned(), |from| from.to_string());
        let mut lines = vec![format!("{}  {from} -> {}", self.role, self.to)];
        let width = |cell: fn(&Row) -> &String| self.rows.iter().map(|row| cell(row).len()).max().unwrap_or(0);
        let (what, before) = (width(|row| &row.what), width(|row| &row.before));
        for row in &self.rows {
            let line = format!("  {} {:<what$}  {:<before$}  {}", row.mark, row.what, row.before, row.after);
            lines.push(line.trim_end().to_owned());
        }
        for document in self.documents.iter().filter(|document| !document.fields.is_empty()) {
            lines.push(format!("  {}:", document.heading()));
            lines.extend(document.fields.iter().map(|field| format!("    {}", field.line())));
        }
        lines
    }
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
        if let (true, Some(new)) = (change.role == "root", &verified.new_root) {
            builder.root(current, new);
        } else if let Some(new) = verified.proposed.get(&change.role) {
            builder.targets(&change.role, verified.base.get(&change.role), new);
            builder.cohorts(&change.role, verified.base.get(&change.role), new);
        }
        let held = before.as_ref().map(crate::metadata::Document::holders).unwrap_or_default();
        builder.holders(&change.role, &held, &after.holders());
        builder.expiry(&change.role, before_value.as_ref(), &change.signed);
        let documents = builder.documents(&change.role, before_value.as_ref(), &change.signed);
        roles.push(RoleReview {
            role: change.role.clone(),
            from,
            to,
            rows: std::mem::take(&mut builder.rows),
            documents,
        });
    }
    builder.names();
    let objections = objections(proposal, verified);
    let in_force =
        objections.in_force.iter().map(|objection| format!("in force already: {}, {}", objection.name, objection.why));
    builder.warnings.extend(in_force);
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
        refused: objections.new,
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

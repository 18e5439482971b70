//! The result of an audit.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tidegate_model::text::{one_line, public_url};
use tidegate_tuf::time;

use super::walk::AuditFinding;

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Every root from the trusted one on, and every role below: signatures, thresholds, versions, expiry, hashes.
    Metadata,
    /// Every target: it is there, with the listed length and hashes.
    Targets,
    /// Delegations: terminating, each role for its own paths only, every listed path within them.
    Delegations,
    /// Cohort maps: they parse, and have a role for each cohort.
    CohortMaps,
    /// Manifests: they parse, are of the release in their path, and their artifacts are listed as they say.
    Manifests,
    /// Offers: they parse, are in order, and offer what the channel has approved.
    Offers,
    /// Protected objects: nobody can read them publicly. Only if there are any.
    Protected,
    /// [`Metadata`](Self::Metadata) by the second implementation.
    SecondMetadata,
    /// [`Targets`](Self::Targets) by the second implementation.
    SecondTargets,
}

impl Check {
    /// All checks, in the order of the report.
    pub const ALL: [Self; 9] = [
        Self::Metadata,
        Self::Targets,
        Self::Delegations,
        Self::CohortMaps,
        Self::Manifests,
        Self::Offers,
        Self::Protected,
        Self::SecondMetadata,
        Self::SecondTargets,
    ];

    /// The implementation that checks it.
    pub fn by(self) -> &'static str {
        match self {
            Self::SecondMetadata | Self::SecondTargets => TOUGH,
            _ => "tidegate",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Metadata | Self::SecondMetadata => "metadata",
            Self::Targets | Self::SecondTargets => "target files",
            Self::Delegations => "delegations",
            Self::CohortMaps => "cohort maps",
            Self::Manifests => "manifests",
            Self::Offers => "offers",
            Self::Protected => "protected",
        }
    }
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What was checked.
    pub check: Check,
    /// By which implementation.
    pub by: &'static str,
    /// Number of objects that were checked.
    pub items: u64,
    /// Whether all of them passed.
    pub ok: bool,
    /// Details.
    pub detail: String,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// The audited place.
    pub place: String,
    /// The time of the audit.
    #[serde(with = "tidegate_model::time::text")]
    pub now: DateTime<Utc>,
    /// Whether there are no findings.
    pub ok: bool,
    /// The checks.
    pub rows: Vec<Row>,
    /// What is wrong.
    pub faults: Vec<Found>,
    /// How the layout of a repository of another tool differs from Tidegate's; no faults.
    pub remarks: Vec<Found>,
    /// The role that expires first, and when.
    pub first_to_expire: Option<Expiry>,
    /// Whether there is no timestamp, so that nothing is published there.
    #[serde(skip)]
    pub is_empty: bool,
}

/// The name of the second implementation.
pub const TOUGH: &str = "tough";

/// A finding, and the check that found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The check.
    pub check: Check,
    /// By which implementation.
    pub by: &'static str,
    /// The role, target path or file.
    pub subject: String,
    /// What is wrong with it.
    pub problem: String,
}

/// When a role expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expiry {
    /// The role.
    pub role: String,
    /// When.
    #[serde(with = "tidegate_model::time::text")]
    pub expires: DateTime<Utc>,
}

impl AuditReport {
    /// An empty report.
    pub(super) fn new(place: &str, now: DateTime<Utc>) -> Self {
        Self {
            place: public_url(place),
            now,
            ok: true,
            rows: Vec::new(),
            faults: Vec::new(),
            remarks: Vec::new(),
            first_to_expire: None,
            is_empty: false,
        }
    }

    /// Adds a check with its faults.
    pub(super) fn add(&mut self, check: Check, items: u64, detail: String, faults: Vec<AuditFinding>) {
        let ok = faults.is_empty();
        self.ok &= ok;
        self.rows.push(Row { check, by: check.by(), items, ok, detail });
        self.faults.extend(faults.into_iter().map(|finding| Found::of(check, finding)));
    }

    /// Adds remarks.
    pub(super) fn remark(&mut self, remarks: Vec<(Check, AuditFinding)>) {
        self.remarks.extend(remarks.into_iter().map(|(check, finding)| Found::of(check, finding)));
    }
}

impl Found {
    fn of(check: Check, AuditFinding { subject, problem, .. }: AuditFinding) -> Self {
        Self { check, by: check.by(), subject, problem }
    }
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<8}  {:<12}  {:>7}  result", "by", "check", "items")?;
        for row in &self.rows {
            let result = if row.ok { "ok" } else { "FAULT" };
            let comma = if row.detail.is_empty() { "" } else { ", " };
            let detail = one_line(&row.detail);
            writeln!(f, "{:<8}  {:<12}  {:>7}  {result}{comma}{detail}", row.by, row.check.title(), row.items)?;
        }
        for found in &self.faults {
            let what = one_line(&format!("{}: {}", found.subject, found.problem));
            writeln!(f, "FAULT {what} [{}, {}]", found.check.title(), found.by)?;
        }
        for remark in &self.remarks {
            writeln!(f, "remark: {}", one_line(&format!("{}: {}", remark.subject, remark.problem)))?;
        }
        if let Some(Expiry { role, expires }) = &self.first_to_expire {
            writeln!(f, "first to expire: {}, {}", one_line(role), time::format(*expires))?;
        }
        let place = one_line(&self.place);
        match self.faults.len() {
            0 => write!(f, "{place} is sound"),
            1 => write!(f, "{place} has 1 fault"),
            count => write!(f, "{place} has {count} faults"),
        }
    }
}

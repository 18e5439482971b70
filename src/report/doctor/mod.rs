//! `tidegate doctor`: what is not as it should be, where, and what to do.
//!
//! One function and one stable id for each thing that is looked at. A finding is never an error of this program: what keeps a
//! check from being made is a finding as well.

mod checkouts;
mod published;
mod workspace;

use std::path::Path;
use std::process::Command;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

pub use published::{publication, published};
pub use workspace::workspace;

use tidegate_client::command::with_clean_environment;
use tidegate_model::text::{public_url, public_urls};

use crate::error::Error;
use crate::metadata::{is_dated_ahead, redate_remedy};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Something does not work, or devices are being failed.
    Error,
    /// It works, and will not for long, or not as safely as it could.
    Warning,
    /// It works, and is different from what Tidegate makes.
    Remark,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DoctorFinding {
    /// The stable id of the check, e.g. `DOC-KEYS-MODE`.
    pub id: String,
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong.
    pub what: String,
    /// The file, role or key.
    pub place: String,
    /// What to do.
    pub remedy: String,
}

/// What was looked at and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(title = "Tidegate doctor")]
pub struct Diagnosis {
    /// The checks that were made.
    pub checked: Vec<String>,
    /// What they found.
    pub findings: Vec<DoctorFinding>,
}

impl Diagnosis {
    /// Whether something does not work.
    pub fn is_ill(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Adds what another diagnosis says.
    pub fn extend(&mut self, other: Self) {
        self.checked.extend(other.checked);
        self.findings.extend(other.findings);
    }

    fn checks(&mut self, id: &str) {
        self.checked.push(id.to_owned());
    }

    fn find(&mut self, severity: Severity, id: &str, place: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(DoctorFinding {
            id: id.to_owned(),
            severity,
            what: public_urls(&what.into()),
            place: public_url(place),
            remedy: public_urls(&remedy.into()),
        });
    }

    /// A role that is dated later than now; `then` is added to the remedy.
    fn dated_ahead(&mut self, id: &str, role: &str, issued: Option<DateTime<Utc>>, now: DateTime<Utc>, then: &str) {
        if is_dated_ahead(issued, now) {
            let what =
                "it is dated later than now: this machine's clock is behind, or that of whoever signed it was ahead";
            self.find(Severity::Error, id, role, what, redate_remedy(role) + then);
        }
    }

    /// What kept a check from being made.
    fn trouble(&mut self, id: &str, place: &str, error: &Error) {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let remedy = error.remedy_text().unwrap_or("fix that first, then run the command again");
        let text = error.to_string();
        // The place is named before it.
        let what = text.strip_prefix(place).map_or(text.as_str(), |text| text.trim_start_matches([':', ',', ' ']));
        self.find(Severity::Error, id, place, format!("{what}{cause}"), remedy);
    }
}

/// Git in the folder `dir`, whose own configuration may name programs: a file system monitor, and ways to fetch what is missing.
fn git(dir: &Path) -> Command {
    let mut git = with_clean_environment("git");
    git.env("GIT_ALLOW_PROTOCOL", "none").args(["-c", "core.fsmonitor=false", "-C"]).arg(dir);
    git
}

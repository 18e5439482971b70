//! The checks on what several checkouts of a workspace share: git, the place, and who acts.

use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_model::rollout::Stage;

use super::{Diagnosis, Severity, git};
use crate::ceremony;
use crate::config::Settings;
use crate::fs;
use crate::metadata::Repository;
use crate::proposal::{self, Proposal};
use crate::release::listing;
use crate::workspace::ledger::{Cause, FILE, UNKNOWN};
use crate::workspace::{Ledger, PUBLISHED, Published, Workspace, products_in_force};

/// After so many days a proposal that nobody has finished is taken for abandoned.
const ABANDONED: i64 = 7;

/// The checks that need no metadata.
pub(super) fn files(workspace: &Workspace, settings: Option<&Settings>, now: DateTime<Utc>, found: &mut Diagnosis) {
    line_ends(workspace.dir(), found);
    merged(workspace, found);
    abandoned(workspace, now, found);
    if let Some(settings) = settings {
        place(workspace.dir(), settings, found);
    }
}

/// Git changes no line ends.
fn line_ends(dir: &Path, found: &mut Diagnosis) {
    found.checks("DOC-LINE-ENDS");
    let out = git(dir).args(["check-attr", "text", "--", FILE]).output();
    // Without git, or outside a repository, nothing changes them.
    let Some(out) = out.ok().filter(|out| out.status.success()) else { return };
    if !String::from_utf8_lossy(&out.stdout).trim_end().ends_with(": unset") {
        let what = "git may change line ends here: hashes of files would no longer match on Windows";
        let remedy = "commit a .gitattributes with the line `* -text`, as `tidegate init` makes";
        found.find(Severity::Warning, "DOC-LINE-ENDS", ".gitattributes", what, remedy);
    }
}

/// The ledger holds no conflict of git, its line ends are its own, and it says who acted.
fn merged(workspace: &Workspace, found: &mut Diagnosis) {
    found.checks("DOC-ACTOR");
    // What else is wrong with it, the check of the ledger tells.
    let Ok((entries, breaks)) = Ledger::examine(workspace.dir()) else { return };
    for at in breaks {
        let id = match at.cause {
            Cause::Changed => continue,
            Cause::LineEnds => "DOC-LINE-ENDS",
            Cause::Unmerged => "DOC-LEDGER",
        };
        found.find(Severity::Error, id, FILE, format!("line {}: {}", at.line, at.why), at.cause.remedy());
    }
    let unknown = entries.iter().filter(|entry| entry.actor == UNKNOWN).count();
    if unknown > 0 {
        let what = format!("it does not say who acted in {unknown} of {} entries", entries.len());
        let remedy = "set TIDEGATE_ACTOR where these commands run, such as in CI";
        found.find(Severity::Warning, "DOC-ACTOR", FILE, what, remedy);
    }
}

/// No proposal lies about that nobody will finish. It holds back no renewal any more.
fn abandoned(workspace: &Workspace, now: DateTime<Utc>, found: &mut Diagnosis) {
    found.checks("DOC-PROPOSAL-AGE");
    for file in listing::files(workspace.dir()).unwrap_or_default() {
        let read = fs::confined(workspace.dir(), &file).and_then(|path| fs::read(&path, proposal::MAX_LENGTH));
        let Ok(proposal) = read.and_then(|bytes| Proposal::parse(&file, &bytes)) else { continue };
        let age = now - proposal.proposed;
        if age > TimeDelta::days(ABANDONED) {
            let what = format!("it waits for signatures for {} days", age.num_days());
            let remedy = if file == ceremony::FILE {
                "have it signed, or give it up: tidegate ceremony abort".to_owned()
            } else {
                format!("have it signed, or give it up: tidegate rollout withdraw {}", proposal.subject)
            };
            found.find(Severity::Warning, "DOC-PROPOSAL-AGE", &file, what, remedy);
        }
    }
}

/// What is published has a place that every checkout knows.
fn place(dir: &Path, settings: &Settings, found: &mut Diagnosis) {
    found.checks("DOC-PLACE");
    if settings.publish.place.is_empty() && dir.join(PUBLISHED).exists() {
        let what = "it does not say where this is published: whether steps are live cannot be told, and soak counts from the command";
        let remedy = "set place under [publish] in tidegate.toml";
        found.find(Severity::Warning, "DOC-PLACE", "tidegate.toml", what, remedy);
    }
}

/// Devices can see every step of a limited rollout, so that its soak has begun.
pub(super) fn soak(workspace: &Workspace, repository: &Repository, settings: &Settings, found: &mut Diagnosis) {
    found.checks("DOC-SOAK");
    if settings.publish.place.is_empty() {
        return;
    }
    let Ok(in_force) = products_in_force(workspace.dir(), repository, settings) else { return };
    let published = match Published::load(workspace.dir()) {
        Ok(published) => published,
        Err(error) => return found.trouble("DOC-SOAK", PUBLISHED, &error),
    };
    for product in &in_force {
        for current in &product.cohorts {
            let visible = |offer| {
                published.as_ref().and_then(|seen| seen.visible_since(&current.role, product.product, offer)).is_some()
            };
            for offer in current.offers.iter().filter(|offer| offer.stage == Stage::Limited && !visible(offer)) {
                let what = format!("{} is not known to be published there, so its soak has not begun", offer.release);
                found.find(Severity::Warning, "DOC-SOAK", &current.role, what, "tidegate publish --rebase");
            }
        }
    }
}

//! The checks on a published repository, by itself and against the workspace.

use std::path::Path;

use chrono::{DateTime, Utc};
use tidegate_model::time;

use super::{Diagnosis, Severity};
use crate::error::Result;
use crate::publish::PublicationStatus;
use crate::report::view::state::Urgency;
use crate::report::view::{Place, Reading, signed};

/// Looks at the repository at `place`, verified from `root`, and at how it stands to the workspace `dir`, if there is one.
///
/// # Errors
///
/// Fails if the place is not usable. Defects of the repository are part of the diagnosis.
pub fn published(place: &Place, root: Option<&Path>, dir: Option<&Path>, now: DateTime<Utc>) -> Result<Diagnosis> {
    let mut found = Diagnosis::default();
    found.checks("DOC-PUB-SOUND");
    let live = match place.read(root) {
        Ok(live) => live,
        // How the command was given is no finding.
        Err(error) if error.kind() == crate::Kind::Usage => return Err(error),
        Err(error) => {
            found.trouble("DOC-PUB-SOUND", &place.name, &error);
            return Ok(found);
        }
    };
    let state = signed(&live, now);
    let is_foreign = !live.remarks.is_empty();
    let takeover = format!("see what a takeover takes: tidegate import {} --dry-run --root FILE", place.name);
    for remark in &live.remarks {
        found.find(Severity::Remark, "DOC-PUB-FOREIGN", &remark.subject, &*remark.problem, takeover.as_str());
    }
    for fault in &state.faults {
        let remedy = if is_foreign {
            "another tool made it: repair it with that"
        } else {
            "publish again from a sound workspace; devices keep what they have until then"
        };
        found.find(Severity::Error, "DOC-PUB-SOUND", &fault.subject, &*fault.problem, remedy);
    }
    found.checks("DOC-PUB-EXPIRY");
    for due in state.due.iter().filter(|due| due.urgency != Urgency::Later) {
        let at = time::format(due.expires);
        let (severity, what) = match due.urgency {
            // An offer that ends by itself does what it was made for.
            Urgency::Expired if due.offer.is_some() => (Severity::Warning, format!("it ended at {at}")),
            Urgency::Expired => (Severity::Error, format!("what is published expired at {at}")),
            _ => (Severity::Warning, format!("what is published expires at {at}")),
        };
        found.find(severity, "DOC-PUB-EXPIRY", &due.subject(), what, format!("{}, then tidegate publish", due.remedy));
    }
    found.checks("DOC-PUB-CLOCK");
    for role in live.roles() {
        found.dated_ahead("DOC-PUB-CLOCK", &role.role, role.issued, now, ", then tidegate publish --redate");
    }
    if let Some(dir) = dir {
        found.checks("DOC-PUB-SAME");
        match Place::workspace(dir).read(None) {
            Ok(ours) => same(&ours, &live, &place.name, &mut found),
            Err(error) => found.trouble("DOC-METADATA", "metadata/", &error),
        }
    }
    Ok(found)
}

/// What is not published yet, as far as the places in tidegate.toml tell. A place that cannot be reached is told, and is no error.
pub fn publication(status: &[PublicationStatus]) -> Diagnosis {
    const ID: &str = "DOC-PUBLISHED";
    let mut found = Diagnosis::default();
    found.checks(ID);
    for publication in status {
        let place = publication.place.as_deref().unwrap_or("published.json");
        let remedy = match (&publication.place, &publication.conflict) {
            (_, Some(_)) => format!("compare the two: tidegate diff {place} ."),
            (Some(_), None) => "tidegate publish".to_owned(),
            (None, None) => "tidegate publish PLACE".to_owned(),
        };
        // A workspace that names no place and never published is a trial.
        let is_trial = publication.place.is_none() && publication.live.is_none();
        if publication.is_behind() && !is_trial {
            found.find(Severity::Warning, ID, place, publication.to_string(), remedy);
        } else if publication.unreachable.is_some() {
            let remedy = "devices may be unable to reach it, too: see whether it can be read from elsewhere";
            found.find(Severity::Warning, ID, place, publication.to_string(), remedy);
        }
    }
    found
}

/// What is published is what the workspace has.
fn same(ours: &Reading, live: &Reading, place: &str, found: &mut Diagnosis) {
    const ID: &str = "DOC-PUB-SAME";
    let anchors = (ours.tree.roots.first(), live.tree.roots.first());
    if let (Some(a), Some(b)) = anchors
        && a.version == b.version
        && a.bytes != b.bytes
    {
        let what = "it starts from another root: it is another repository";
        return found.find(Severity::Error, ID, place, what, "name the right place, or the right workspace with -C");
    }
    let (Some(mine), Some(theirs)) = (&ours.tree.timestamp, &live.tree.timestamp) else { return };
    if mine.version > theirs.version {
        let what = format!("timestamp {} is live, and the workspace is at {}", theirs.version, mine.version);
        found.find(Severity::Warning, ID, place, what, format!("tidegate publish {place}"));
    } else if mine.version < theirs.version {
        let what = format!(
            "timestamp {} is live, and the workspace is only at {}: somebody else published",
            theirs.version, mine.version
        );
        found.find(
            Severity::Error,
            ID,
            place,
            what,
            format!("take it over before anything else: tidegate pull {place}"),
        );
    } else if mine.bytes != theirs.bytes {
        let what =
            format!("both are at timestamp {}, with different content: somebody else published, too", mine.version);
        found.find(
            Severity::Error,
            ID,
            place,
            what,
            format!("see what differs (tidegate diff {place} .), and put what was signed here on top: tidegate publish {place} --rebase"),
        );
    }
    let (Some(mine), Some(theirs)) = (ours.tree.roots.last(), live.tree.roots.last()) else { return };
    if theirs.version < mine.version {
        let what = format!(
            "root {} is the last that can be followed there, and the workspace is at {}",
            theirs.version, mine.version
        );
        found.find(Severity::Error, ID, place, what, format!("tidegate publish {place}"));
    }
}

//! What devices will notice of a publication.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use serde::Serialize;
use tidegate_model::rollout::Assignment;
use tidegate_model::time;
use tidegate_tuf::Chain;
use tidegate_tuf::metadata::{TargetFile, Targets};

use crate::audit::{RoleFile, Tree};

/// One change that devices will notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// The role that changed.
    pub role: String,
    /// What they will notice.
    pub what: String,
}

impl Notice {
    fn new(role: &str, what: impl Into<String>) -> Self {
        Self { role: role.to_owned(), what: what.into() }
    }

    pub(super) fn root(root: &RoleFile) -> Self {
        Self::new("root", format!("root {} takes over; every device fetches it once", root.version))
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.role, self.what)
    }
}

/// Compares each role with its live version.
pub(super) fn changes(tree: &Tree, live: &[(Chain, Option<Targets>)]) -> Vec<Notice> {
    let mut notices = Vec::new();
    for (chain, before) in live {
        let Some(now) = tree.role(chain) else { continue };
        let role = chain.role();
        match before {
            None if *chain == Chain::top() => {}
            None => notices.push(Notice::new(role, format!("new, lists {}", count(now.targets.len(), "file")))),
            Some(before) if before.common.version == now.common.version => {}
            Some(before) => compare(role, before, now, &mut notices),
        }
    }
    notices
}

fn compare(role: &str, before: &Targets, now: &Targets, notices: &mut Vec<Notice>) {
    let told = notices.len();
    let paths: BTreeSet<&String> = before.targets.keys().chain(now.targets.keys()).collect();
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    for path in paths {
        match (offer(before.targets.get(path)), offer(now.targets.get(path))) {
            (None, Some((_, new))) => notices.push(Notice::new(role, format!("offers {new}"))),
            (Some((old, _)), None) => notices.push(Notice::new(role, format!("no longer offers {old}"))),
            (Some((_, old)), Some((_, new))) if old != new => {
                notices.push(Notice::new(role, format!("offers {new}; until now {old}")));
            }
            (Some(_), Some(_)) => {}
            (None, None) => match (before.targets.get(path), now.targets.get(path)) {
                (None, Some(_)) => added.push(path.as_str()),
                (Some(_), None) => removed.push(path.as_str()),
                (Some(old), Some(new)) if old.hashes != new.hashes => {
                    notices.push(Notice::new(role, format!("{path} changes")));
                }
                _ => {}
            },
        }
    }
    if !added.is_empty() {
        notices.push(Notice::new(role, format!("lists {}", files(&added))));
    }
    if !removed.is_empty() {
        notices.push(Notice::new(role, format!("no longer lists {}", files(&removed))));
    }
    if notices.len() == told {
        let expires = time::format(now.common.expires);
        notices.push(Notice::new(role, format!("version {}, same content, good until {expires}", now.common.version)));
    }
}

/// Describes what a cohort is assigned.
fn offer(file: Option<&TargetFile>) -> Option<(String, String)> {
    let Assignment { release, sequence, stage, paused, ramp, .. } =
        Assignment::from_custom(file?.custom.as_ref()?).ok()?;
    let mut words = format!("{release} (sequence {sequence}), {stage}");
    if paused {
        words.push_str(", paused");
    }
    if let Some(ramp) = ramp {
        let (start, end) = (time::format(ramp.start()), time::format(ramp.end()));
        let _ = write!(words, ", {} to {} ppm from {start} to {end}", ramp.from(), ramp.to());
    }
    Some((release.to_string(), words))
}

/// Lists a few names, or their number.
fn files(paths: &[&str]) -> String {
    match paths {
        [one] => (*one).to_owned(),
        [one, two] => format!("{one} and {two}"),
        [first, ..] => format!("{first} and {}", count(paths.len() - 1, "file")),
        [] => String::new(),
    }
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

//! What devices will notice of a publication.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use serde::Serialize;
use tidegate_model::rollout::{Offer, Offers};
use tidegate_model::text::one_line;
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

    /// Roots that are copied although they are older than the trusted one.
    pub(super) fn unverified(count: usize, trusted: u64) -> Self {
        let roots = if count == 1 { "1 older root is".to_owned() } else { format!("{count} older roots are") };
        let what = format!(
            "{roots} copied without being verified, which root {trusted} cannot do; clients that were shipped with one verify it themselves"
        );
        Self::new("root", what)
    }

    /// The metadata of the old repository lies in the top folder, where its clients go on reading it.
    pub(super) fn moved() -> Self {
        let what = "timestamp.json in the top folder stays; clients that read it there see nothing new until the server answers for its URL \
                    with metadata/ (docs/migrate.md)";
        Self::new("timestamp", what)
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&format!("{}: {}", self.role, self.what)))
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
        let (old, new) = (before.targets.get(path), now.targets.get(path));
        match (offers(old), offers(new)) {
            (None, None) => match (old, new) {
                (None, Some(_)) => added.push(path.as_str()),
                (Some(_), None) => removed.push(path.as_str()),
                (Some(old), Some(new)) if old.hashes != new.hashes => {
                    notices.push(Notice::new(role, format!("{path} changes")));
                }
                _ => {}
            },
            (old, new) => {
                let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
                notices.extend(differences(&old, &new).map(|what| Notice::new(role, what)));
            }
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

/// What a cohort is offered.
fn offers(file: Option<&TargetFile>) -> Option<Vec<Offer>> {
    Offers::from_custom(file?.custom.as_ref()?).ok().map(|list| list.offers)
}

/// What is different between two lists of offers, by release, in the order of the new list.
fn differences(old: &[Offer], new: &[Offer]) -> impl Iterator<Item = String> {
    let same = |among: &[Offer], offer: &Offer| among.iter().find(|other| other.sequence == offer.sequence).cloned();
    let changed = new.iter().filter_map(move |offer| match same(old, offer) {
        None => Some(format!("offers {}", described(offer))),
        Some(before) if before == *offer => None,
        Some(before) => Some(change(&before, offer)),
    });
    let gone = old.iter().filter(move |offer| same(new, offer).is_none());
    let (mut before, mut after) = (sequences(old), sequences(new));
    let is_same = before == after;
    before.sort_unstable();
    after.sort_unstable();
    let moved = (!is_same && before == after).then(|| {
        let releases: Vec<String> = new.iter().map(|offer| offer.release.to_string()).collect();
        format!("offers in another order: {}", releases.join(", "))
    });
    changed.chain(gone.map(|offer| format!("no longer offers {}", offer.release))).chain(moved)
}

fn sequences(offers: &[Offer]) -> Vec<u64> {
    offers.iter().map(|offer| offer.sequence).collect()
}

fn change(old: &Offer, new: &Offer) -> String {
    if let (Some(before), Some(until)) = (old.until, new.until)
        && *old == (Offer { until: old.until, ..new.clone() })
    {
        let (before, until) = (time::format(before), time::format(until));
        return format!("offers {} (sequence {}) until {until} instead of {before}", new.release, new.sequence);
    }
    match (described(old), described(new)) {
        (before, after) if before == after => format!("offers {after}, with other details"),
        (before, after) => format!("offers {after}; until now {before}"),
    }
}

fn described(offer: &Offer) -> String {
    let Offer { release, sequence, stage, paused, private, ramp, until, bridges, .. } = offer;
    let mut words = format!("{release} (sequence {sequence}), {stage}");
    if *paused {
        words.push_str(", paused");
    }
    if *private {
        words.push_str(", private");
    }
    if let Some(ramp) = ramp {
        let (start, end) = (time::format(ramp.start()), time::format(ramp.end()));
        let _ = write!(words, ", {} to {} ppm from {start} to {end}", ramp.from(), ramp.to());
    }
    if let Some(until) = until {
        let _ = write!(words, ", until {}", time::format(*until));
    }
    for (index, bridge) in bridges.iter().enumerate() {
        let _ = write!(words, "{} {}", if index == 0 { ", over" } else { " or" }, bridge.release);
    }
    words
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

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};
    use tidegate_model::digest::Digest;
    use tidegate_model::rollout::Stage;
    use tidegate_model::version::Version;

    use super::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    fn offer(sequence: u64, until: Option<i64>) -> Offer {
        let manifest = (Digest::of(&sequence.to_be_bytes()), 8);
        let offer = Offer::new(Version::new(sequence, 0, 0), sequence, manifest, Stage::Limited, at(0));
        Offer { until: until.map(at), ..offer }
    }

    fn told(old: &[Offer], new: &[Offer]) -> Vec<String> {
        differences(old, new).collect()
    }

    #[test]
    fn lists_are_compared_release_by_release() {
        let old = [offer(2, Some(1)), offer(1, None)];
        assert_eq!(told(&old, &old), [""; 0]);
        let added = [offer(3, None), offer(2, Some(1)), offer(1, None)];
        assert_eq!(told(&old, &added), ["offers 3.0.0 (sequence 3), limited"]);
        assert_eq!(told(&added, &old), ["no longer offers 3.0.0"]);
        let paused = [Offer { paused: true, ..offer(2, Some(1)) }, offer(1, None)];
        let until = "until 1970-01-01T01:00:00Z";
        assert_eq!(
            told(&old, &paused),
            [format!(
                "offers 2.0.0 (sequence 2), limited, paused, {until}; until now 2.0.0 (sequence 2), limited, {until}"
            )]
        );
        let other = [offer(2, Some(1)), Offer { length: 9, ..offer(1, None) }];
        assert_eq!(told(&old, &other), ["offers 1.0.0 (sequence 1), limited, with other details"]);
    }

    #[test]
    fn a_renewal_is_told_by_its_end_and_an_order_by_its_releases() {
        let old = [offer(2, Some(1)), offer(1, None)];
        let renewed = [offer(2, Some(2)), offer(1, None)];
        assert_eq!(
            told(&old, &renewed),
            ["offers 2.0.0 (sequence 2) until 1970-01-01T02:00:00Z instead of 1970-01-01T01:00:00Z"]
        );
        let moved = [offer(1, None), offer(2, Some(1))];
        assert_eq!(told(&old, &moved), ["offers in another order: 1.0.0, 2.0.0"]);
    }
}

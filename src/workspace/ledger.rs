//! `ledger.jsonl`: a hash-chained log of events.
//!
//! One canonical JSON object per line. Each contains the hash of the line before it (`prev`) and its own (`hash`, over all other
//! fields), so a line that was changed, added, removed or moved breaks the chain at that place.

use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidegate_model::digest::Digest;
use tidegate_model::time;
use tidegate_tuf::json;

use crate::error::{Error, Result, Rule};
use crate::fs::{self, Changes};

/// Where the ledger is.
pub const FILE: &str = "ledger.jsonl";
/// The actor where nothing says who acts.
pub const UNKNOWN: &str = "unknown";
const MAX_LENGTH: u64 = 1 << 30;

/// Bytes that an entry may take while it is read.
const ROOM: usize = 64 << 20;

/// An event to record.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerEvent {
    /// What was done, e.g. `register`.
    pub event: &'static str,
    /// Its subject: a release, a role, the repository.
    pub subject: String,
    /// The actor, as far as the program knows.
    pub actor: String,
    /// The state before and after, for a release.
    pub transition: Option<(String, String)>,
    /// The reason, as given by the actor.
    pub reason: Option<String>,
    /// Hashes, versions and names that the event is based on.
    pub evidence: Map<String, Value>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Line number, from 1.
    pub seq: u64,
    /// When.
    #[serde(with = "time::text")]
    pub time: DateTime<Utc>,
    /// The actor.
    pub actor: String,
    /// What was done.
    pub event: String,
    /// The subject.
    pub subject: String,
    /// The state before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The state after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it is based on.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub evidence: Map<String, Value>,
    /// The hash of the line before; 64 zeros in the first.
    pub prev: String,
    /// The hash of the canonical JSON of all other fields.
    pub hash: String,
}

/// The ledger's current content.
#[derive(Debug, Clone)]
pub struct Ledger {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// Where a ledger is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
    /// Who or what did it.
    pub cause: Cause,
}

/// What breaks a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Somebody or something changed it.
    Changed,
    /// Its lines end with CR LF: as git or an editor writes them on Windows.
    LineEnds,
    /// It holds a conflict of git: two checkouts have added lines.
    Unmerged,
}

impl Cause {
    /// What to do.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Changed => {
                "restore the ledger from version control, and find out who changed it: tidegate log --verify"
            }
            Self::LineEnds => {
                "nobody edited it: commit a .gitattributes with the line `* -text`, as `tidegate init` makes, and clone again"
            }
            Self::Unmerged => {
                "a chain is not merged but continued: git merge --abort, git reset --hard @{upstream}, tidegate pull; then repeat your steps"
            }
        }
    }
}

impl Ledger {
    /// A ledger without lines.
    pub fn empty() -> Self {
        Self { bytes: Vec::new(), entries: Vec::new() }
    }

    /// Reads the ledger of the workspace `dir`.
    ///
    /// # Errors
    ///
    /// Fails at the first broken line, or if the file cannot be read.
    pub fn open(dir: &Path) -> Result<Self> {
        let bytes = fs::read_if_exists(&fs::confined(dir, FILE)?, MAX_LENGTH)?.unwrap_or_default();
        let (entries, breaks) = check(&bytes);
        match breaks.first() {
            None => Ok(Self { bytes, entries }),
            Some(first) => Err(broken(first)),
        }
    }

    /// Reads the ledger and returns where it is broken.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read.
    pub fn examine(dir: &Path) -> Result<(Vec<Entry>, Vec<Break>)> {
        let bytes = fs::read_if_exists(&fs::confined(dir, FILE)?, MAX_LENGTH)?.unwrap_or_default();
        Ok(check(&bytes))
    }

    /// The lines.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The lines that were added while the file grew from `before` to `after` bytes.
    pub fn between(&self, before: u64, after: u64) -> &[Entry] {
        let lines = |length: u64| {
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(self.bytes.len());
            self.bytes.get(..length).unwrap_or_default().split(|byte| *byte == b'\n').skip(1).count()
        };
        self.entries.get(lines(before)..lines(after)).unwrap_or_default()
    }

    /// Appends a line.
    ///
    /// # Errors
    ///
    /// Fails if the event cannot be serialized.
    pub fn append(&mut self, now: DateTime<Utc>, happening: LedgerEvent) -> Result<()> {
        let (from, to) = happening.transition.unzip();
        let prev = self.entries.last().map_or_else(|| "0".repeat(64), |last| last.hash.clone());
        let mut entry = Entry {
            seq: self.entries.len() as u64 + 1,
            time: now,
            actor: happening.actor,
            event: happening.event.to_owned(),
            subject: happening.subject,
            from,
            to,
            reason: happening.reason,
            evidence: happening.evidence,
            prev,
            hash: String::new(),
        };
        entry.hash = hash(&entry)?;
        self.bytes.extend(line(&entry)?);
        self.bytes.push(b'\n');
        self.entries.push(entry);
        Ok(())
    }

    /// Writes the ledger with the other changes.
    pub fn put(self, changes: &mut Changes) {
        changes.put(FILE, self.bytes);
    }
}

fn broken(at: &Break) -> Error {
    Error::trust(format!("{FILE}, line {}: {}", at.line, at.why)).rule(Rule::LedgerChain).remedy(at.cause.remedy())
}

fn check(bytes: &[u8]) -> (Vec<Entry>, Vec<Break>) {
    let mut entries: Vec<Entry> = Vec::new();
    let mut breaks = Vec::new();
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let rest = lines.pop().unwrap_or_default();
    let mut fault = |line: usize, why: String| breaks.push(Break { line, why, cause: Cause::Changed });
    if !rest.is_empty() {
        fault(lines.len() + 1, "it does not end with a newline: it was cut off".into());
    }
    let mut changed_ends = None;
    let mut unmerged = None;
    for (index, text) in lines.into_iter().enumerate() {
        let number = index + 1;
        // One line tells for all.
        let text = match text.strip_suffix(b"\r") {
            Some(text) => {
                changed_ends.get_or_insert(number);
                text
            }
            None => text,
        };
        if [&b"<<<<<<< "[..], b"=======", b">>>>>>> "].iter().any(|mark| text.starts_with(mark)) {
            unmerged.get_or_insert(number);
            continue;
        }
        let parsed = json::parse_large(text, ROOM).ok().and_then(|value| serde_json::from_value::<Entry>(value).ok());
        let Some(entry) = parsed else {
            fault(number, "it is not a ledger entry".into());
            continue;
        };
        let expected = entries.last().map_or_else(|| "0".repeat(64), |last| last.hash.clone());
        if line(&entry).ok().as_deref() != Some(text) {
            fault(number, "it is not in the form of an entry: it was edited".into());
        } else if hash(&entry).ok().as_deref() != Some(&entry.hash) {
            fault(number, "its hash does not match its content: it was edited".into());
        } else if entry.prev != expected {
            fault(number, "it does not follow from the line before: a line was removed, added or moved".into());
        } else if entry.seq != entries.len() as u64 + 1 {
            fault(number, format!("its number is {}, and {} was expected", entry.seq, entries.len() + 1));
        }
        entries.push(entry);
    }
    let told = |line: Option<usize>, why: &str, cause| line.map(|line| Break { line, why: why.to_owned(), cause });
    let ends = "it ends with CR LF: git or an editor has changed line ends";
    let merge = "it is a mark of a conflict in git: two checkouts have added lines";
    let first = told(unmerged, merge, Cause::Unmerged).into_iter().chain(told(changed_ends, ends, Cause::LineEnds));
    (entries, first.chain(breaks).collect())
}

fn hash(entry: &Entry) -> Result<String> {
    let mut value = serde_json::to_value(entry).map_err(|e| Error::bug("ledger").with_source(e))?;
    if let Some(object) = value.as_object_mut() {
        object.remove("hash");
    }
    Ok(Digest::of(&canonical(&value)?).to_string())
}

fn line(entry: &Entry) -> Result<Vec<u8>> {
    canonical(&serde_json::to_value(entry).map_err(|e| Error::bug("ledger").with_source(e))?)
}

/// Canonical JSON contains raw control characters, and a line must stay one line; so texts are cleaned first.
fn canonical(value: &Value) -> Result<Vec<u8>> {
    json::canonical(value).map_err(|e| Error::bug("ledger").with_source(e))
}

/// Cleans a text for the ledger: printable ASCII in one line; anything else becomes `?`.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(1024).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(count: usize) -> Ledger {
        let mut ledger = Ledger::empty();
        for index in 0..count {
            let happening = LedgerEvent {
                event: "edit",
                subject: format!("release {index}"),
                actor: "somebody".into(),
                transition: Some(("draft".into(), "draft".into())),
                reason: None,
                evidence: Map::new(),
            };
            ledger.append(DateTime::UNIX_EPOCH, happening).unwrap();
        }
        ledger
    }

    fn lines(ledger: &Ledger) -> Vec<String> {
        String::from_utf8(ledger.bytes.clone()).unwrap().lines().map(str::to_owned).collect()
    }

    fn first_break(lines: &[String]) -> Option<(usize, String)> {
        let text = format!("{}\n", lines.join("\n"));
        check(text.as_bytes()).1.first().map(|at| (at.line, at.why.clone()))
    }

    #[test]
    fn an_untouched_ledger_is_whole() {
        let ledger = ledger(4);
        let (entries, breaks) = check(&ledger.bytes);
        assert_eq!((entries, breaks), (ledger.entries, Vec::new()));
    }

    #[test]
    fn a_broken_chain_is_found_and_named() {
        let good = lines(&ledger(4));
        let mut edited = good.clone();
        edited[1] = edited[1].replace("somebody", "nobody");
        assert_eq!(first_break(&edited).unwrap().0, 2);

        let mut spaced = good.clone();
        spaced[1].push(' ');
        assert_eq!(first_break(&spaced).unwrap().0, 2);

        let mut removed = good.clone();
        removed.remove(1);
        let (line, why) = first_break(&removed).unwrap();
        assert!(line == 2 && why.contains("does not follow"), "{why}");

        let mut swapped = good.clone();
        swapped.swap(1, 2);
        assert_eq!(first_break(&swapped).unwrap().0, 2);

        let mut repeated = good.clone();
        repeated.insert(1, good[0].clone());
        assert_eq!(first_break(&repeated).unwrap().0, 2);

        let mut noise = good;
        noise[3] = "{}".into();
        assert_eq!(first_break(&noise).unwrap().0, 4);
    }

    #[test]
    fn line_ends_and_conflicts_of_git_are_named_as_the_cause() {
        let good = lines(&ledger(3));
        let causes = |text: String| check(text.as_bytes()).1.iter().map(|at| (at.line, at.cause)).collect::<Vec<_>>();
        assert_eq!(causes(format!("{}\r\n", good.join("\r\n"))), [(1, Cause::LineEnds)], "and nothing was edited");
        let [a, b, c] = [&good[0], &good[1], &good[2]];
        let merged = format!("{a}\n<<<<<<< HEAD\n{b}\n=======\n{c}\n>>>>>>> theirs\n");
        assert_eq!(causes(merged), [(2, Cause::Unmerged)]);
    }

    #[test]
    fn a_line_that_was_cut_off_is_noticed() {
        let mut bytes = ledger(2).bytes;
        bytes.truncate(bytes.len() - 5);
        assert!(check(&bytes).1.iter().any(|at| at.why.contains("cut off")));
    }

    #[test]
    fn texts_stay_within_a_line() {
        assert_eq!(clean("a\nb\u{e9}\tc"), "a?b??c");
    }
}

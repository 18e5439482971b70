//! The record of a ceremony, for people and for machines: Markdown with the same facts as JSON at its end.
//!
//! The Markdown is written from the JSON and from nothing else, so that [`check`] can write it again and see whether anybody
//! edited either; then it holds the JSON against the repository.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tidegate_model::text::one_line;
use tidegate_model::time;
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::key::{Key, KeyId};
use tidegate_tuf::metadata::{Envelope, Root};
use tidegate_tuf::valid_signers;

use super::file::Proposal;
use super::objections::Objection;
use super::review::{DocumentReview, RoleReview, Row, review};
use super::verify::Verified;
use crate::error::{Error, Result, Rule};
use crate::metadata::{Repository, danger_parse_unverified};

/// What stands before and after the JSON.
const FENCE: (&str, &str) = ("```json\n", "\n```\n");
/// A transcript is a few pages.
pub const MAX_LENGTH: u64 = 16 << 20;

/// The program that did it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// `tidegate` and its version.
    pub version: String,
    /// The SHA-256 of its own file.
    pub sha256: String,
}

impl Tool {
    /// This program.
    ///
    /// # Errors
    ///
    /// Fails if the program's own file cannot be read.
    pub fn this() -> Result<Self> {
        let path = std::env::current_exe()
            .map_err(|e| Error::new(crate::Kind::Io, "the program cannot find itself").with_source(e))?;
        let mut file = std::fs::File::open(&path).map_err(|e| Error::io("read", &path, e))?;
        let mut hash = Sha256::new();
        std::io::copy(&mut file, &mut HashWriter(&mut hash)).map_err(|e| Error::io("read", &path, e))?;
        Ok(Self { version: concat!("tidegate ", env!("CARGO_PKG_VERSION")).into(), sha256: to_hex(&hash.finalize()) })
    }
}

impl std::fmt::Display for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} sha256:{}", self.version, self.sha256)
    }
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The record of a ceremony.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transcript {
    schema: u64,
    /// What it was about.
    pub subject: String,
    /// The proposal's digest.
    pub digest: String,
    #[serde(with = "time::text")]
    proposed: DateTime<Utc>,
    #[serde(with = "time::text")]
    finished: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The SHA-256 of every root that it follows from, from version 1.
    roots: Vec<String>,
    files: Vec<FileRecord>,
    thresholds: Vec<ThresholdRecord>,
    changes: Vec<RoleRecord>,
    warnings: Vec<String>,
    /// What is refused by default and was allowed by name.
    allowed: Vec<Objection>,
    tool: Tool,
}

/// A role's new file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRecord {
    role: String,
    version: u64,
    length: u64,
    sha256: String,
}

/// A threshold and who met it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ThresholdRecord {
    role: String,
    by: String,
    threshold: u64,
    of: u64,
    signed: Vec<SignerRecord>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignerRecord {
    keyid: KeyId,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
    scheme: String,
    source: String,
    #[serde(with = "time::text")]
    time: DateTime<Utc>,
    tool: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleRecord {
    role: String,
    version: u64,
    rows: Vec<[String; 4]>,
    documents: Vec<DocumentReview>,
}

/// What was found of a transcript's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// `3.root.json` or its like.
    pub file: String,
    /// Whether the repository still has it, byte for byte; `false` if a later version has taken its place.
    pub present: bool,
}

impl Transcript {
    /// The transcript of a proposal that has become `after`, with what was `allowed` although it is refused by default.
    ///
    /// # Errors
    ///
    /// Fails if `after` lacks a role of the proposal.
    pub fn of(
        (proposal, verified): (&Proposal, &Verified),
        after: &Repository,
        allowed: Vec<Objection>,
        tool: &Tool,
        finished: DateTime<Utc>,
    ) -> Result<Self> {
        let files = after.files();
        let files = proposal
            .changes
            .iter()
            .map(|change| {
                let role = after.must_have(&change.role)?;
                let bytes = files.get(&role.file_name()).copied().unwrap_or(&role.bytes);
                Ok(FileRecord {
                    role: change.role.clone(),
                    version: role.version,
                    length: bytes.len() as u64,
                    sha256: to_hex(&Sha256::digest(bytes)),
                })
            })
            .collect::<Result<_>>()?;
        let review = review(proposal, verified, finished)?;
        Ok(Self {
            schema: 1,
            subject: proposal.subject.clone(),
            digest: proposal.digest()?,
            proposed: proposal.proposed,
            finished,
            reason: proposal.reason.clone(),
            roots: proposal.follows.roots.iter().map(|root| to_hex(&Sha256::digest(root))).collect(),
            files,
            thresholds: thresholds(proposal, verified)?,
            changes: review.roles.iter().map(role_record).collect(),
            warnings: review.warnings,
            allowed,
            tool: tool.clone(),
        })
    }

    /// The file's name: the day and the subject.
    pub fn file_name(&self) -> String {
        let subject: String =
            self.subject.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
        format!("{}-{subject}.md", self.finished.format("%Y-%m-%d"))
    }

    /// The transcript's text.
    ///
    /// # Errors
    ///
    /// Fails if the transcript cannot be serialized.
    pub fn to_markdown(&self) -> Result<String> {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        let json = serde_json::to_string_pretty(self)
            .map_err(|e| Error::bug("a transcript cannot be written").with_source(e))?;
        let _ = write!(
            out,
            "## The same for machines\n\n`tidegate ceremony verify-transcript` checks this file against the repository.\n\n{}{json}{}",
            FENCE.0, FENCE.1
        );
        Ok(out)
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "# Ceremony: {}\n", self.subject)?;
        writeln!(out, "| | |\n|---|---|")?;
        writeln!(out, "| proposed | {} |", time::format(self.proposed))?;
        writeln!(out, "| finished | {} |", time::format(self.finished))?;
        if let Some(reason) = &self.reason {
            writeln!(out, "| reason | {} |", cell(reason))?;
        }
        writeln!(out, "| proposal | `{}` |", self.digest)?;
        writeln!(out, "| finished with | {}, SHA-256 `{}` |", self.tool.version, self.tool.sha256)?;
        self.write_changes(out)?;
        if !self.allowed.is_empty() {
            writeln!(out, "## Allowed by name, though refused by default\n")?;
            for objection in &self.allowed {
                writeln!(out, "- {}: {}", cell(&objection.name), cell(&objection.why))?;
            }
            writeln!(out)?;
        }
        if !self.warnings.is_empty() {
            writeln!(out, "## Warnings that the signers were shown\n")?;
            for warning in &self.warnings {
                writeln!(out, "- {}", cell(warning))?;
            }
            writeln!(out)?;
        }
        writeln!(out, "## Who signed\n")?;
        for threshold in &self.thresholds {
            writeln!(
                out,
                "### {}: {} of {} keys of {}\n",
                cell(&threshold.role),
                threshold.threshold,
                threshold.of,
                cell(&threshold.by)
            )?;
            writeln!(out, "| key | holder | fingerprint | kind | time | with |\n|---|---|---|---|---|---|")?;
            for s in &threshold.signed {
                let holder = s.holder.as_deref().unwrap_or("");
                writeln!(
                    out,
                    "| {} | {} | `{}` | {}, {} | {} | {} |",
                    cell(&s.name),
                    cell(holder),
                    s.keyid,
                    s.scheme,
                    s.source,
                    time::format(s.time),
                    cell(&short_tool(&s.tool))
                )?;
            }
            writeln!(out)?;
        }
        writeln!(
            out,
            "Kind, time and program are what each signer's own program said; the signatures themselves are verified.\n"
        )?;
        writeln!(out, "## Files\n\n| file | bytes | SHA-256 |\n|---|---|---|")?;
        for (sha256, version) in self.roots.iter().zip(1..) {
            writeln!(out, "| {version}.root.json (before) | | `{sha256}` |")?;
        }
        for file in &self.files {
            writeln!(out, "| {}.{}.json | {} | `{}` |", file.version, cell(&file.role), file.length, file.sha256)?;
        }
        writeln!(out)
    }

    fn write_changes(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n## What changed\n")?;
        for change in &self.changes {
            writeln!(
                out,
                "### {} {}\n\n| | what | before | after |\n|---|---|---|---|",
                cell(&change.role),
                change.version
            )?;
            for [mark, what, before, after] in &change.rows {
                writeln!(out, "| {mark} | {} | {} | {} |", cell(what), cell(before), cell(after))?;
            }
            writeln!(out)?;
            for document in change.documents.iter().filter(|document| !document.fields.is_empty()) {
                writeln!(out, "{}:\n\n| field | before | after |\n|---|---|---|", cell(&capital(&document.heading())))?;
                for field in &document.fields {
                    let side = |side: &Option<String>| cell(side.as_deref().unwrap_or_default());
                    writeln!(out, "| {} | {} | {} |", cell(&field.path), side(&field.before), side(&field.after))?;
                }
                writeln!(out)?;
            }
        }
        Ok(())
    }

    /// Reads a transcript; `name` is the file's name in errors.
    ///
    /// # Errors
    ///
    /// Fails if the text differs from what its JSON would produce.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::refused(Rule::CeremonyTranscript, format!("{name} is not a transcript as it was written: {why}"))
                .remedy("get the original; transcripts are not to be edited")
        };
        let (_, rest) = text.split_once(FENCE.0).ok_or_else(|| bad("it holds no JSON"))?;
        let json = rest.strip_suffix(FENCE.1).ok_or_else(|| bad("it does not end with its JSON"))?;
        let value = tidegate_tuf::json::parse_large(json.as_bytes(), super::file::room(json.len()))
            .map_err(|e| bad(&e.to_string()))?;
        let transcript: Self = serde_json::from_value(value).map_err(|e| bad(&e.to_string()))?;
        if transcript.schema != 1 {
            return Err(bad("its schema is not known to this version"));
        }
        if transcript.to_markdown()? != text {
            return Err(bad("its text and its JSON differ"));
        }
        Ok(transcript)
    }
}

/// Holds a transcript against a repository: every file that is still there is the one recorded, the roots are those that it followed
/// from, and whoever is said to have signed root did.
///
/// # Errors
///
/// Fails with the first difference between the transcript and the repository.
pub fn check(transcript: &Transcript, repository: &Repository) -> Result<Vec<Checked>> {
    let wrong = |what: String| {
        Error::trust(format!("the transcript does not fit the repository: {what}"))
            .rule(Rule::CeremonyTranscript)
            .remedy("either is not what it was; compare both with other copies")
    };
    let files = repository.files();
    for (sha256, version) in transcript.roots.iter().zip(1_u64..) {
        let name = format!("{version}.root.json");
        let bytes = files.get(&name).ok_or_else(|| wrong(format!("{name} is missing")))?;
        if to_hex(&Sha256::digest(bytes)) != *sha256 {
            return Err(wrong(format!("{name} is another one")));
        }
    }
    let mut checked = Vec::new();
    for file in &transcript.files {
        let name = tidegate_tuf::path::metadata_file(&file.role, Some(file.version));
        let newest = repository.role(&file.role).map_or(0, |role| role.version);
        let present = match files.get(&name) {
            Some(bytes) if to_hex(&Sha256::digest(bytes)) == file.sha256 && bytes.len() as u64 == file.length => true,
            Some(_) => return Err(wrong(format!("{name} is another file"))),
            None if newest > file.version => false,
            None => return Err(wrong(format!("{name} is missing"))),
        };
        checked.push(Checked { file: name, present });
    }
    if let Some(root) = transcript.files.iter().find(|file| file.role == "root") {
        for threshold in transcript.thresholds.iter().filter(|threshold| threshold.role == "root") {
            check_signers(threshold, root.version, &files).map_err(wrong)?;
        }
    }
    Ok(checked)
}

/// The keys that the record says signed a root are those that did.
fn check_signers(record: &ThresholdRecord, version: u64, files: &BTreeMap<String, &[u8]>) -> Result<(), String> {
    let bytes = files.get(&format!("{version}.root.json")).ok_or("the root is missing")?;
    let envelope = Envelope::parse("root", bytes).map_err(|e| e.to_string())?;
    let declaring = if record.by.ends_with("(in force)") { version.saturating_sub(1) } else { version };
    let bytes = files.get(&format!("{declaring}.root.json")).ok_or("the root before it is missing")?;
    let root: Root = danger_parse_unverified("root", bytes).map_err(|e| e.to_string())?;
    let role = root.role("root").ok_or("no root role")?;
    let mut valid = valid_signers(root.keys(), role, &envelope);
    let mut said: Vec<KeyId> = record.signed.iter().map(|signer| signer.keyid.clone()).collect();
    valid.sort();
    said.sort();
    if valid == said { Ok(()) } else { Err(format!("root {version} was signed by other keys than it says")) }
}

fn thresholds(proposal: &Proposal, verified: &Verified) -> Result<Vec<ThresholdRecord>> {
    let statuses = verified.requirement_status(proposal)?;
    let record = |(status, requirement): (super::verify::RequirementStatus, &super::verify::Requirement)| {
        let signed = status.signed.iter().filter_map(|id| {
            let entry = proposal.signatures.get(&status.role)?.get(id)?;
            Some(SignerRecord {
                keyid: id.clone(),
                name: proposal.label(id),
                holder: verified.holders.get(id).cloned(),
                scheme: requirement.keys.get(id).map(Key::scheme).unwrap_or_default().to_owned(),
                source: entry.source.clone(),
                time: entry.time,
                tool: entry.tool.clone(),
            })
        });
        ThresholdRecord {
            signed: signed.collect(),
            of: requirement.threshold.keyids.len() as u64,
            role: status.role,
            by: status.by,
            threshold: status.threshold,
        }
    };
    Ok(statuses.into_iter().zip(&verified.requirements).map(record).collect())
}

fn role_record(review: &RoleReview) -> RoleRecord {
    let row = |row: &Row| [row.mark.to_string(), row.what.clone(), row.before.clone(), row.after.clone()];
    RoleRecord {
        role: review.role.clone(),
        version: review.to,
        rows: review.rows.iter().map(row).collect(),
        documents: review.documents.clone(),
    }
}

/// A program's line with the first digits of its hash; the JSON has them all.
fn short_tool(tool: &str) -> String {
    match tool.split_once(" sha256:") {
        Some((version, hash)) => format!("{version} sha256:{}", hash.get(..16).unwrap_or(hash)),
        None => tool.to_owned(),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// Text that stays within its cell.
fn cell(text: &str) -> String {
    // No HTML, nor an end of the cell.
    one_line(text).replace('\\', "\\\\").replace('|', "\\|").replace('<', "\\<")
}

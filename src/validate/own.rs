//! Custom checks: a program a rule.
//!
//! The program gets one JSON object on its standard input and answers with one on its standard output; docs/lifecycle.md describes
//! both. It has a time limit and its output a bound, and what it starts ends with it.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_client::command::{Command, CommandError, Ran};
use tidegate_model::digest::Digest;
use tidegate_model::time;

use super::{RuleResult, Subject, fail, pass};
use crate::error::{Error, Result};
use crate::fs;
use crate::policy::{CheckKind, OwnCheck};
use crate::release::report::{CheckResult, Verdict};
use crate::workspace::artifacts;
use crate::workspace::ledger::clean;

/// The version of the interface, which the program is told.
const PROTOCOL: &str = "tidegate-check/1";
/// The program ends with this code when the check failed: all others are faults of the check itself.
const FAILED: i32 = 1;
/// The most findings and characters that are kept of an answer.
const MOST_FINDINGS: usize = 100;
const MOST_DETAIL: usize = 2000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    findings: Vec<Answered>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answered {
    verdict: Verdict,
    detail: String,
}

/// Runs all checks that policy names, one after the other.
pub(super) fn run(subject: &Subject<'_>) -> Result<Vec<CheckResult>> {
    let checks = &subject.policy.validation.checks;
    if checks.is_empty() {
        return Ok(Vec::new());
    }
    let input = serde_json::to_vec(&input(subject)?).map_err(|e| Error::bug("a check's input").with_source(e))?;
    checks
        .iter()
        .map(|check| {
            let mut question = input.clone();
            // The rule's own name comes last: what came before is the same for all.
            question.pop();
            question.extend(format!(",\"rule\":\"{}\"}}\n", check.id).into_bytes());
            let (verdict, detail) = ask(subject, check, question)?;
            Ok(CheckResult {
                rule: check.id.to_string(),
                kind: CheckKind::OwnChecks,
                title: clean(&check.title),
                verdict,
                detail: clean(&detail).chars().take(MOST_DETAIL).collect(),
            })
        })
        .collect()
}

fn input(subject: &Subject<'_>) -> Result<Value> {
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path).display().to_string();
    let stored =
        |sha256: &Digest| Ok::<_, Error>(absolute(fs::confined(subject.dir, &artifacts::find(subject.dir, sha256))?));
    let manifest = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    let mut artifacts = Vec::new();
    for artifact in &subject.manifest.artifacts {
        artifacts.push(json!({
            "name": artifact.name.as_str(),
            "file": stored(&artifact.sha256)?,
            "length": artifact.length,
            "sha256": artifact.sha256.to_string(),
            "media_type": artifact.media_type.as_str(),
            "hardware": artifact.hardware.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        }));
    }
    let provenance = subject.record.provenance.as_ref().map(|provenance| stored(&provenance.sha256)).transpose()?;
    let previous = subject.previous.map(tidegate_model::manifest::Manifest::to_bytes).transpose();
    let previous = previous.map_err(|e| Error::bug("a manifest").with_source(e))?;
    Ok(json!({
        "protocol": PROTOCOL,
        "release": subject.record.id().to_string(),
        "state": subject.record.state,
        "at": time::format(subject.now),
        "workspace": absolute(subject.dir.to_owned()),
        "manifest": manifest(subject.bytes),
        "manifest_sha256": Digest::of(subject.bytes).to_string(),
        "previous": previous.as_deref().map(manifest),
        "artifacts": artifacts,
        "provenance": provenance,
    }))
}

fn ask(subject: &Subject<'_>, check: &OwnCheck, question: Vec<u8>) -> Result<RuleResult> {
    let limit = Duration::from_secs(check.timeout.seconds());
    let command = Command::new(check.command.iter().cloned(), limit)
        .in_folder(subject.dir)
        .inherit(&check.environment)
        .input(question)
        .variable("TIDEGATE_CHECK", check.id.as_str());
    match command.run() {
        Ok(ran) => judge(&ran),
        // Whatever stops a check, nobody may take it for passed.
        Err(error @ (CommandError::Start { .. } | CommandError::TooLong { .. })) => fail(error.to_string()),
        Err(error) => fail(format!("it cannot be run: {error}")),
    }
}

fn judge(ran: &Ran) -> Result<RuleResult> {
    let complaint = || match ran.complaint() {
        line if line.is_empty() => String::new(),
        line => format!(": {line}"),
    };
    let answered = if ran.output.trim().is_empty() {
        Vec::new()
    } else {
        match serde_json::from_str::<Answer>(&ran.output) {
            Ok(answer) => answer.findings,
            Err(error) => return fail(format!("its answer cannot be read: {error}{}", complaint())),
        }
    };
    let code = match ran.code {
        Some(code @ (0 | FAILED)) => code,
        Some(code) => return fail(format!("it ended with exit code {code}{}", complaint())),
        None => return fail(format!("a signal ended it{}", complaint())),
    };
    let rank = |verdict: Verdict| match verdict {
        Verdict::NotApplicable => 0,
        Verdict::Pass => 1,
        Verdict::Warn => 2,
        Verdict::Fail => 3,
    };
    let worst = answered.iter().map(|finding| finding.verdict).max_by_key(|verdict| rank(*verdict));
    let worst_ones = answered.iter().filter(|finding| Some(finding.verdict) == worst).take(MOST_FINDINGS);
    let details: Vec<_> = worst_ones.map(|finding| finding.detail.as_str()).filter(|text| !text.is_empty()).collect();
    match (code, worst) {
        (FAILED, None | Some(Verdict::Pass | Verdict::Warn | Verdict::NotApplicable)) => {
            fail(format!("it ended with exit code {FAILED}{}", complaint()))
        }
        (_, None) => pass("it found nothing"),
        (_, Some(verdict)) => Ok((verdict, details.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(code: Option<i32>, output: &str) -> (Verdict, String) {
        judge(&Ran { program: "check".into(), code, output: output.into(), errors: "look here\n".into() }).unwrap()
    }

    #[test]
    fn only_an_answer_that_can_be_read_and_a_known_code_can_pass() {
        let answer = |verdict: &str| format!("{{\"findings\": [{{\"verdict\": \"{verdict}\", \"detail\": \"so\"}}]}}");
        for (code, output, verdict, part) in [
            (Some(0), String::new(), Verdict::Pass, "it found nothing"),
            (Some(0), answer("pass"), Verdict::Pass, "so"),
            (Some(0), answer("warn"), Verdict::Warn, "so"),
            (Some(0), answer("not-applicable"), Verdict::NotApplicable, "so"),
            (Some(0), answer("fail"), Verdict::Fail, "so"),
            (Some(1), answer("fail"), Verdict::Fail, "so"),
            (Some(1), String::new(), Verdict::Fail, "exit code 1: look here"),
            (Some(1), answer("pass"), Verdict::Fail, "exit code 1: look here"),
            (Some(2), answer("pass"), Verdict::Fail, "exit code 2: look here"),
            (None, answer("pass"), Verdict::Fail, "a signal ended it"),
            (Some(0), "fine".into(), Verdict::Fail, "cannot be read"),
            (Some(0), answer("splendid"), Verdict::Fail, "cannot be read"),
            (Some(0), "{}".into(), Verdict::Fail, "cannot be read"),
        ] {
            let (found, detail) = ran(code, &output);
            assert_eq!(found, verdict, "{code:?} {output}: {detail}");
            assert!(detail.contains(part), "{code:?} {output}: {detail}");
        }
    }

    #[test]
    fn the_worst_finding_counts_and_is_told() {
        let (verdict, detail) = ran(
            Some(0),
            r#"{"findings": [{"verdict": "pass", "detail": "a"}, {"verdict": "fail", "detail": "b"}, {"verdict": "fail", "detail": "c"}]}"#,
        );
        assert_eq!((verdict, detail.as_str()), (Verdict::Fail, "b; c"));
    }
}

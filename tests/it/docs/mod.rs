//! The commands that the documentation gives, run as they stand there.

#[cfg(unix)]
mod ceremony;
#[cfg(unix)]
mod ci;
#[cfg(unix)]
mod integrate;
mod lifecycle;
mod pages;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::skip;

/// A fenced block of commands.
pub struct Block {
    /// The headings that it stands under, the highest first.
    pub headings: Vec<String>,
    /// What stands after the opening fence.
    pub info: String,
    pub text: String,
}

/// All fenced blocks of a page.
pub fn blocks(page: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let mut blocks: Vec<Block> = Vec::new();
    let mut headings: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        match (line.strip_prefix("```"), open) {
            (Some(info), false) => {
                blocks.push(Block { headings: headings.clone(), info: info.into(), text: String::new() });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => {
                let block = blocks.last_mut().unwrap();
                block.text += line;
                block.text.push('\n');
            }
            (None, false) => {
                let level = line.bytes().take_while(|c| *c == b'#').count();
                if level > 0 {
                    headings.truncate(level - 1);
                    headings.push(line[level..].trim().to_owned());
                }
            }
        }
    }
    blocks
}

/// A script of blocks, one after the other. The info string `sh refused` means that the block has to fail.
fn script<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> String {
    let mut script = String::new();
    for block in blocks {
        let lines = match block.info.as_str() {
            "sh refused" => format!(
                "if bash -euo pipefail <<'REFUSED'\n{}REFUSED\nthen echo 'not refused:' '{}' >&2; exit 99; fi\n",
                block.text, block.text
            ),
            _ => block.text.clone(),
        };
        script.push_str(&lines);
    }
    script
}

/// The folder of the program under test, where the device's program is too if it was built.
fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap().to_owned()
}

/// Runs a script where the programs are on the path, and shows what it said if it fails. `None` where there is no bash.
fn bash(script: &str, place: &Path) -> Option<Output> {
    let path = std::env::join_paths(
        std::iter::once(programs()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let out = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(place)
        .env("PATH", path.unwrap())
        .env_remove("TIDEGATE_PASSPHRASE")
        .stdin(Stdio::null())
        .output();
    let Ok(out) = out else {
        skip("there is no bash");
        return None;
    };
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{}\n{said}\n{script}", String::from_utf8_lossy(&out.stdout));
    Some(out)
}

#[cfg(unix)]
#[test]
fn the_quick_start_works_as_written() {
    let device = programs().join("tidegate-device").is_file();
    let kinds: &[&str] = if device { &["sh", "sh device"] } else { &["sh"] };
    let blocks = blocks("docs/quickstart.md");
    let script = script(blocks.iter().filter(|block| kinds.contains(&block.info.as_str())));
    assert!(script.contains("tidegate release register 1.0.0") && script.contains("tidegate verify"), "{script}");
    let place = tempfile::tempdir().unwrap();
    if bash(&script, place.path()).is_none() {
        return;
    }
    // What the engineer edited before anything was signed is what is signed.
    let signed = bash("tidegate -C fleet --json status", place.path()).unwrap();
    let signed: serde_json::Value = serde_json::from_slice(&signed.stdout).unwrap();
    let cohorts = signed["rollouts"][0]["cohorts"].as_array().unwrap();
    let names: Vec<_> = cohorts.iter().map(|cohort| cohort["cohort"].as_str().unwrap()).collect();
    assert_eq!(names, ["validation", "canary", "general"]);
    assert!(!place.path().join("fleet/metadata/2.root.json").exists(), "no ceremony was needed");
    if device {
        assert!(place.path().join("slot.img").is_file());
    } else {
        skip("the device's part was left out: tidegate-device was not built beside tidegate");
    }
}

#[test]
fn the_first_release_takes_ten_concepts_and_six_commands() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/quickstart.md")).unwrap();
    let bold: Vec<_> = page.split("**").skip(1).step_by(2).collect();
    let once: std::collections::BTreeSet<_> = bold.iter().collect();
    assert!(bold.len() <= 10 && bold.len() == once.len(), "each concept is explained once, where it appears: {bold:?}");
    let blocks = blocks("docs/quickstart.md");
    let of = |heading: &str| {
        let under = blocks.iter().filter(|block| block.headings.last().is_some_and(|last| last == heading));
        let lines: Vec<_> =
            under.flat_map(|block| block.text.lines()).filter(|line| line.starts_with("tidegate ")).collect();
        lines
            .into_iter()
            .filter(|line| ["release", "rollout", "publish"].contains(&line.split(' ').nth(1).unwrap()))
            .count()
    };
    assert_eq!(of("The next release"), 4);
    // With init; a dry run shows what publish would do.
    assert_eq!(1 + of("A release") + of("A rollout") + of("Publishing") - 1, 6);
}

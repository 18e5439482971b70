//! Completions and manual pages.

use std::process::Command;

use super::story::{text, tidegate};
use crate::support::tools::have;

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let out = tidegate(&["completions", shell]);
        let script = String::from_utf8(out.stdout).unwrap();
        for word in ["rollout", "advance", "doctor", "ceremony"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        // The shell itself takes it, where it is here.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("script");
        std::fs::write(&file, script).unwrap();
        if shell == "bash" && have("bash", "--version") {
            let line = format!("source {}; complete -p tidegate", text(&file));
            let out = Command::new("bash").args(["--norc", "-c", &line]).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        }
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let out = tidegate(&["man", "--out", text(folder.path())]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for (page, says) in
        [("tidegate.1", "static files"), ("tidegate-release-new.1", "build"), ("tidegate-diff.1", "public@1")]
    {
        let text = std::fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(text.starts_with(".ie") && text.contains(".TH") && text.contains(says), "{page}: {text}");
    }
}

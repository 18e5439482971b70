//! What people see at a terminal, and pipes do not: colour, progress, folded lines. The terminal is a real one: a pseudo-terminal.

use std::process::{Command, Stdio};

use super::story::{Story, text};
use crate::support::tools::have;

/// Runs a command at a terminal of so many columns, and gives what came out. `None` where there is no `script`.
fn at_a_terminal(columns: u16, command: &str, variables: &[(&str, &str)]) -> Option<String> {
    if !have("script", "--version") {
        return None;
    }
    let line = format!("stty cols {columns} rows 24; {} {command}", env!("CARGO_BIN_EXE_tidegate"));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).env_remove("NO_COLOR").env("TERM", "xterm");
    let out = script.envs(variables.iter().copied()).output().unwrap();
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

const ESCAPE: char = '\u{1b}';

#[test]
fn colour_is_for_terminals_that_want_it() {
    let wrong = "-C /nowhere/at/all status";
    let Some(seen) = at_a_terminal(80, wrong, &[]) else { return };
    assert!(seen.contains("error:") && seen.contains(ESCAPE), "{seen:?}");
    for unwanted in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let seen = at_a_terminal(80, wrong, &[unwanted]).unwrap();
        assert!(seen.contains("error:") && !seen.contains(ESCAPE), "{unwanted:?}: {seen:?}");
    }
    let piped = super::story::tidegate(&["-C", "/nowhere/at/all", "status"]);
    assert!(!String::from_utf8_lossy(&piped.stderr).contains(ESCAPE));
}

/// Large enough to take longer than a bar waits before it shows itself.
const LARGE: u64 = 320 << 20;

#[test]
fn long_work_shows_how_far_it_is() {
    let story = Story::new();
    let image = story.path("large.bin");
    std::fs::File::create(&image).unwrap().set_len(LARGE).unwrap();
    let workspace = story.workspace();
    let step = |args: &[&str]| {
        let out = story.run(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    let seen = |command: &str| {
        at_a_terminal(80, &format!("-C {} --now {} {command}", text(&workspace), super::story::NOW), &[])
    };
    step(&["release", "new", "7.0.0"]);
    let Some(hashing) = seen(&format!("release add 7.0.0 {} --hardware board-a", text(&image))) else { return };
    assert!(hashing.contains("hashing") && hashing.contains("/s ") && hashing.contains(" left"), "{hashing:?}");
    step(&["release", "manifest", "7.0.0"]);
    step(&["release", "sign", "7.0.0", "--key", "release-1", "--key", "release-2"]);
    step(&["release", "validate", "7.0.0"]);
    step(&["release", "register", "7.0.0"]);
    let uploading = seen(&format!("publish {}", text(&story.path("elsewhere")))).unwrap();
    assert!(uploading.contains("publishing") && uploading.contains(" left"), "{uploading:?}");

    // Neither without a terminal nor when quiet is asked for; the same work, so that there would be something to see.
    let simulating = seen("rollout plan 7.0.0 --devices 2000000").unwrap();
    assert!(simulating.contains("looking at the fleet"), "{simulating:?}");
    let quiet = seen("--quiet rollout plan 7.0.0 --devices 2000000").unwrap();
    assert!(!quiet.contains("looking at the fleet"), "{quiet:?}");
    let piped = step(&["rollout", "plan", "7.0.0", "--devices", "2000000"]);
    assert!(!piped.contains("looking at the fleet") && !piped.contains('\r'), "{piped:?}");
}

#[test]
fn counting_shows_how_much_was_read() {
    let story = Story::new();
    let (workspace, folder) = (story.workspace(), story.path("kept/receipts/stable/os/2"));
    std::fs::create_dir_all(&folder).unwrap();
    let key = serde_json::json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "00".repeat(32)}});
    let enrolment = serde_json::json!({"schema": 1, "device": "device-1", "keys": [key]});
    std::fs::create_dir(story.path("enrolled")).unwrap();
    std::fs::write(story.path("enrolled/device-1.json"), enrolment.to_string()).unwrap();
    let (kept, enrolled) = (story.path("kept"), story.path("enrolled"));
    let line = ["receipts", text(&kept), "--enrolments", text(&enrolled)];
    let command = format!("-C {} --now {} {}", text(&workspace), super::story::NOW, line.join(" "));
    let mut written = 0;
    // What is done at once is not worth a line: as many as it takes on this machine.
    for count in [10_000, 40_000, 160_000, 640_000] {
        for number in written..count {
            std::fs::write(folder.join(format!("{number:064x}.json")), "nothing that a device says").unwrap();
        }
        written = count;
        let Some(seen) = at_a_terminal(80, &command, &[]) else { return };
        assert!(seen.contains(&format!("refused  {count}  form: ")), "{seen:?}");
        if seen.contains("receipts read, ") {
            break;
        }
        assert!(count < 640_000, "{seen:?}");
    }
    let piped = story.run(&line);
    assert!(!String::from_utf8_lossy(&piped.stderr).contains("receipts read"));
}

#[test]
fn findings_and_help_fit_a_narrow_terminal() {
    let story = Story::new();
    let workspace = story.workspace();
    let widest = |command: &str, columns| {
        let seen = at_a_terminal(columns, command, &[("NO_COLOR", "1")])?;
        assert!(seen.lines().count() > 10, "{seen}");
        seen.lines().map(|line| line.trim_end().chars().count()).max()
    };
    let Some(help) = widest("publish --help", 60) else { return };
    assert!(help <= 60, "{help}");
    let new = story.run(&["release", "new", "8.0.0"]);
    assert!(new.status.success(), "{}", String::from_utf8_lossy(&new.stderr));
    std::fs::write(story.path("small.bin"), "bytes").unwrap();
    for args in [
        &["release", "add", "8.0.0", text(&story.path("small.bin")), "--hardware", "board-a"][..],
        &["release", "manifest", "8.0.0"],
    ] {
        let out = story.run(args);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    let validate = format!("-C {} --now {} --quiet release validate 8.0.0", text(&workspace), super::story::NOW);
    let findings = widest(&validate, 80).unwrap();
    assert!(findings <= 80, "{findings}");
}

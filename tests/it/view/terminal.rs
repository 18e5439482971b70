//! What people see at a terminal, and pipes do not: colour, progress, folded lines. The terminal is a real one: a pseudo-terminal.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::story::{Story, text};
use crate::support::tools::have;

/// `tidegate serve`, until it is dropped.
pub struct Server {
    child: Child,
    pub url: String,
}

impl Server {
    pub fn over(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["serve", text(folder), "--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim_end().to_owned() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

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

#[test]
fn long_work_shows_how_far_it_is() {
    let story = Story::new();
    let image = story.path("large.bin");
    std::fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
    let workspace = story.workspace();
    let draft = |version: &str| {
        let out = story.run(&["release", "new", version]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        format!(
            "-C {} --now {} release add {version} {} --hardware board-a",
            text(&workspace),
            super::story::NOW,
            text(&image)
        )
    };
    let Some(seen) = at_a_terminal(80, &draft("7.0.0"), &[]) else { return };
    assert!(seen.contains("/s ") && seen.contains(" left"), "a rate, and the time that is left: {seen:?}");
    let seen = at_a_terminal(80, &format!("--quiet {}", draft("7.0.1")), &[]).unwrap();
    assert!(!seen.contains(" left"), "{seen:?}");
    let out = story.run(&draft("7.0.2").split(' ').skip(4).collect::<Vec<_>>());
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && !said.contains(" left") && !said.contains('\r'), "{said:?}");
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

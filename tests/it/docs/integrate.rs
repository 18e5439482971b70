//! docs/integrate.md: the board made of files, from nothing to its first update, and to one that fails.

use std::path::Path;
use std::process::Command;

use super::{bash, blocks, programs, script};
use crate::support::skip;

#[test]
fn the_integrators_guide_works_as_written() {
    if !programs().join("tidegate-device").is_file() {
        return skip("tidegate-device was not built beside tidegate");
    }
    let page = blocks("docs/integrate.md");
    let place = tempfile::tempdir().unwrap();
    let script = script(page.iter().filter(|block| ["sh", "sh refused"].contains(&block.info.as_str())));
    let script = on_board(&script, place.path());
    let Some(out) = bash(&script, place.path()) else { return };
    // In this order, by standard output alone.
    let said = String::from_utf8(out.stdout).unwrap();
    let mut rest = said.as_str();
    for line in [
        "confirmed 1.1.0 (sequence 1)\n",
        "runs         1.1.0 (sequence 1), confirmed\n",
        // The wrong byte.
        "update       waiting until ",
        "does not match the signed metadata",
        "failures     1 in a row\n",
        "installed 1.2.0 (sequence 2)\n",
        // The trial.
        "rolled back 1.2.0 (sequence 2): not healthy within 3 s",
        "runs         1.2.0 (sequence 2), until the restart\n",
        "runs         1.1.0 (sequence 1), confirmed\n",
        // The quarantine.
        "refuse (D-QUARANTINE): 1.2.0 (sequence 2) failed on this device before\n",
        "1.2.0 (sequence 2): not healthy within 3 s",
        "1.2.0 may be tried again\n",
        "install 1.2.0 (sequence 2): bad.img\n",
    ] {
        let (_, after) =
            rest.split_once(line).unwrap_or_else(|| panic!("{line:?} is not there, in this order:\n{said}"));
        rest = after;
    }
    let status = Command::new(programs().join("tidegate-device"))
        .args(["--config", "device.json", "status"])
        .current_dir(place.path())
        .output()
        .unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(
        status.lines().any(|line| line.starts_with("runs ") && line.contains("1.1.0") && line.ends_with("confirmed")),
        "{status}"
    );
}

/// The crate's example: the page shows it as it is, and it does on a new board what the page says.
#[test]
fn the_agent_of_the_guide_is_the_crates_example_and_works() {
    let page = blocks("docs/integrate.md");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("client/examples/board.rs");
    let example = std::fs::read_to_string(example).unwrap();
    let shown = page.iter().find(|block| block.info == "rust").unwrap();
    assert!(
        example.ends_with(&format!("\n\n{}", shown.text)),
        "docs/integrate.md does not show client/examples/board.rs"
    );
    if !programs().join("examples/board").is_file() {
        skip("client/examples/board.rs was not built beside tidegate");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let steps = page.iter().filter(|block| {
        let step = block.headings.iter().any(|heading| heading.starts_with("1. ") || heading.starts_with("2. "));
        (step && block.info == "sh") || block.info == "sh board"
    });
    let script =
        format!("PATH=$PATH:{}\n{}", programs().join("examples").display(), on_board(&script(steps), place.path()));
    let Some(out) = bash(&script, place.path()) else { return };
    let said = String::from_utf8(out.stdout).unwrap();
    let states: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("now: ")).collect();
    assert!(states.iter().any(|state| state.starts_with("rebooting")), "{said}");
    assert!(states.iter().any(|state| state.starts_with("confirmed 1.1.0")), "{said}");
    let kept = std::fs::read_to_string(place.path().join("kept")).unwrap();
    assert_eq!(kept.trim(), "b");
}

/// The programs are built and on the path, and the folder is this one.
fn on_board(script: &str, place: &Path) -> String {
    script
        .lines()
        .filter(|line| !line.starts_with("cargo build") && !line.starts_with("export PATH"))
        .map(|line| line.replace("/tmp/board", place.to_str().unwrap()) + "\n")
        .collect()
}

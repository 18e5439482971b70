//! docs/integrate.md: the board made of files, from nothing to its first update.

use std::process::Command;

use super::{bash, blocks, programs, script};

#[test]
fn the_integrators_guide_works_as_written() {
    if !programs().join("tidegate-device").is_file() {
        eprintln!("left out: tidegate-device was not built beside tidegate");
        return;
    }
    let page = blocks("docs/integrate.md");
    let place = tempfile::tempdir().unwrap();
    let script = script(page.iter().filter(|block| block.info == "sh"));
    // The programs are built and on the path, and the folder is this one.
    let script: String = script
        .lines()
        .filter(|line| !line.starts_with("cargo build") && !line.starts_with("export PATH"))
        .map(|line| line.replace("/tmp/board", place.path().to_str().unwrap()) + "\n")
        .collect();
    if bash(&script, place.path()).is_none() {
        return;
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

//! The commands that the documentation gives, run as they stand there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::skip;

/// The fenced blocks of a page whose info string is one of `kinds`, one after the other.
fn blocks(page: &str, kinds: &[&str]) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let mut script = String::new();
    let mut within = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), within) {
            (Some(info), None) => within = Some(kinds.contains(&info)),
            (Some(_), Some(_)) => within = None,
            (None, Some(true)) => {
                script += line;
                script.push('\n');
            }
            (None, _) => {}
        }
    }
    script
}

/// The folder of the program under test, where the device's program is too if it was built.
fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap().to_owned()
}

#[cfg(unix)]
#[test]
fn the_quick_start_works_as_written() {
    let device = programs().join("tidegate-device").is_file();
    let kinds: &[&str] = if device { &["sh", "sh device"] } else { &["sh"] };
    let script = blocks("docs/quickstart.md", kinds);
    assert!(script.contains("tidegate release register 1.0.0") && script.contains("tidegate verify"), "{script}");
    let place = tempfile::tempdir().unwrap();
    let path = std::env::join_paths(
        std::iter::once(programs()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let out = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(place.path())
        .env("PATH", path.unwrap())
        .stdin(Stdio::null())
        .output();
    let Ok(out) = out else { return skip("there is no bash") };
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}\n{}", String::from_utf8_lossy(&out.stdout));
    if device {
        assert!(place.path().join("slot.img").is_file());
    } else {
        eprintln!("the device's part was left out: tidegate-device was not built beside tidegate");
    }
}

//! A full disk under the workspace: every step of a release says so, changes nothing, and works once there is room.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::skip;

const NOW: &str = "2026-03-01T12:00:00Z";

/// The steps, each of which writes.
const STEPS: &[&[&str]] = &[
    &["release", "new", "1.0.0"],
    &["release", "add", "1.0.0", "image.bin", "--hardware", "board-a"],
    &["release", "manifest", "1.0.0"],
    &["release", "sign", "1.0.0", "--key", "release-1"],
    &["release", "sign", "1.0.0", "--key", "release-2"],
    &["release", "validate", "1.0.0"],
    &["release", "register", "1.0.0"],
    &["rollout", "start", "1.0.0"],
    &["rollout", "pause", "1.0.0", "--reason", "a test"],
];

/// On a file system of its own that is full, which takes root to mount.
#[cfg(target_os = "linux")]
#[test]
fn every_step_on_a_full_disk_changes_nothing_and_can_be_repeated() {
    let mount = tempfile::tempdir().unwrap();
    let path = mount.path().to_str().unwrap();
    let run = |program: &str, args: &[&str]| Command::new(program).args(args).status().is_ok_and(|s| s.success());
    if !run("mount", &["-t", "tmpfs", "-o", "size=4m", "tmpfs", path]) {
        skip("cannot mount a small file system: not root, or not allowed to");
        return;
    }
    let outcome = std::panic::catch_unwind(|| steps(mount.path()));
    run("umount", &["--lazy", path]);
    outcome.unwrap();
}

fn steps(disk: &Path) {
    fs::write(disk.join("image.bin"), vec![7; 200_000]).unwrap();
    let workspace = disk.join("fleet");
    tidegate(disk, &["init", "fleet", "--example-keys", "--salt", "00112233445566778899aabbccddeeff"]);
    for step in STEPS {
        let before = tree(&workspace);
        fill(&disk.join("ballast"));
        let out = run(&workspace, disk, step);
        let errors = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{step:?}: {errors}");
        assert!(errors.contains("free some space"), "{step:?}: {errors}");
        fs::remove_file(disk.join("ballast")).unwrap();
        assert_eq!(tree(&workspace), before, "{step:?} left something behind");
        let out = run(&workspace, disk, step);
        assert!(out.status.success(), "{step:?} with room: {}", String::from_utf8_lossy(&out.stderr));
    }
}

fn tidegate(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(["--now", NOW]).args(args).current_dir(folder).output().unwrap()
}

fn run(workspace: &Path, folder: &Path, step: &[&str]) -> Output {
    let mut args = vec!["-C", workspace.to_str().unwrap()];
    args.extend(step);
    tidegate(folder, &args)
}

/// Takes all the room that there is.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    let block = vec![0; 4096];
    while file.write_all(&block).is_ok() {}
}

/// Every file of the workspace with its content; locks aside, which hold none.
fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let bytes = fs::read(&path).unwrap()
                && !(bytes.is_empty() && path.to_string_lossy().contains("lock"))
            {
                files.insert(path.to_string_lossy().into_owned(), bytes);
            }
        }
    }
    files
}

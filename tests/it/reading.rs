//! Reading a workspace needs no right to write in it.

#![cfg(unix)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::publishers::said;
use crate::support::Fleet;
use crate::view::story::{NOW, Story, text, tidegate};

/// A user without rights.
const NOBODY: u32 = 65_534;

/// Every command that only reads, with arguments for the story; `OUT` is a folder of the user's own.
const READING: &[&[&str]] = &[
    &["ceremony plan", "threshold", "root", "3"],
    &["ceremony rehearse"],
    &["ceremony show"],
    &["ceremony status"],
    &["completions", "bash"],
    &["diff", "../public", "."],
    &["doctor"],
    &["doctor", "../public"],
    &["explain", "--device", "../device.json"],
    &["key list"],
    &["key show", "root-1"],
    &["log"],
    &["log", "--verify"],
    &["man", "--out", "OUT/man"],
    &["prune", "../public"],
    &["publish", "../public", "--dry-run"],
    &["receipts", "file:../receipts", "--enrolments", "file:../enrolments"],
    &["release list"],
    &["release retire", "--keep", "1", "--dry-run"],
    &["release show", "1.1.0"],
    &["rollout plan", "1.1.0", "--devices", "100"],
    &["rollout status"],
    &["rollout status", "1.1.0"],
    &["site", "--out", "OUT/site"],
    &["status"],
    &["sync", "../public", "OUT/copy", "--dry-run"],
    &["verify"],
    &["verify", "../public"],
];

/// Every command that changes a workspace, signs, or reads none.
const OTHER: &str = "ceremony abort, ceremony combine, ceremony finish, ceremony sign, ceremony start, ceremony verify-transcript, demo, \
    import, init, key check, key import, key new, publish, prune, pull, refresh, release add, release create, release drop, release edit, \
    release manifest, release new, release patch, release register, release remove, release retire, release retract, release sign, release unfreeze, \
    release validate, rollout advance, rollout approve, rollout complete, rollout pause, rollout renew, rollout resume, rollout start, \
    rollout withdraw, serve, sync";

fn leaves(command: &clap::Command, path: &str, into: &mut BTreeSet<String>) {
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        let path = format!("{path} {}", below.get_name()).trim().to_owned();
        if below.has_subcommands() && path != "ceremony plan" {
            leaves(below, &path, into);
        } else {
            into.insert(path);
        }
    }
}

#[test]
fn each_command_is_known_to_read_or_to_write() {
    let mut all = BTreeSet::new();
    leaves(&tidegate::cli::command(), "", &mut all);
    let known: BTreeSet<&str> = READING.iter().map(|line| line[0]).chain(OTHER.split(", ")).collect();
    let unknown: Vec<_> = all.iter().filter(|path| !known.contains(path.as_str())).collect();
    assert!(unknown.is_empty(), "add it to the table of commands that read, or to the others: {unknown:?}");
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Everything below `dir`, with its time of change.
fn listing(dir: &Path) -> BTreeMap<PathBuf, i64> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path, metadata.mtime_nsec() + metadata.mtime() * 1_000_000_000);
    }
    found
}

fn set_modes(dir: &Path, folder: u32, file: u32) {
    for path in listing(dir).into_keys() {
        let keys = path.parent().is_some_and(|parent| parent.ends_with("keys"));
        let mode = if path.is_dir() {
            folder
        } else if keys {
            0o600
        } else {
            file
        };
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
}

/// The story with a ceremony under way, readable by everyone; the program as another user can start it; a folder of that user's.
fn shared() -> (Story, PathBuf, PathBuf) {
    let story = Story::new();
    let folder = story.path("");
    let settings = story.workspace().join("tidegate.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, text.replacen("threshold = 2", "threshold = 3", 1)).unwrap();
    let out = story.run(&["ceremony", "start"]);
    assert!(out.status.success(), "{}", said(&out));
    let device = r#"{"id": "device-1", "product": "os", "channel": "stable", "hardware": "board-a", "version": "1.0.0", "sequence": 1}"#;
    fs::write(story.path("device.json"), device).unwrap();
    for name in ["receipts", "enrolments"] {
        fs::create_dir(story.path(name)).unwrap();
    }
    let program = story.path("tidegate");
    if fs::hard_link(env!("CARGO_BIN_EXE_tidegate"), &program).is_err() {
        fs::copy(env!("CARGO_BIN_EXE_tidegate"), &program).unwrap();
    }
    let own = story.path("own");
    fs::create_dir(&own).unwrap();
    for path in [&folder, &program] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&own, Permissions::from_mode(0o777)).unwrap();
    for name in ["fleet", "public"] {
        // Where the tests do not run as root, the modes keep the user from writing.
        let (folder, file) = if is_root() { (0o755, 0o644) } else { (0o555, 0o444) };
        set_modes(&story.path(name), folder, file);
    }
    (story, program, own)
}

fn as_nobody(story: &Story, program: &Path, own: &Path, line: &[&str]) -> Output {
    let words = line[0].split(' ').chain(line[1..].iter().copied());
    let words: Vec<String> = words.map(|word| word.replace("OUT", text(own))).collect();
    let mut command = Command::new(program);
    command.current_dir(story.workspace()).args(["--now", NOW]).args(words);
    command.env("NO_COLOR", "1").env("HOME", own).stdin(Stdio::null());
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.output().unwrap()
}

#[test]
fn reading_needs_no_right_to_write() {
    let (story, program, own) = shared();
    for locked in [true, false] {
        if !locked {
            set_modes(&story.workspace(), 0o755, 0o644);
            // As in a fresh clone.
            fs::remove_dir_all(story.workspace().join(".tidegate")).unwrap();
            if !is_root() {
                set_modes(&story.workspace(), 0o555, 0o444);
            }
        }
        let before = (listing(&story.workspace()), listing(&story.public()));
        // Which lock there is decides nothing but how the workspace is opened.
        for line in READING.iter().filter(|line| !locked || line[0] == "status") {
            let out = as_nobody(&story, &program, &own, line);
            // Receipts need enrolled devices, of which the story has none; that is what is missing, and no right.
            let is_read = out.status.success() || said(&out).contains("holds no enrolled key");
            assert!(is_read, "lock: {locked}, {line:?}: {}", said(&out));
        }
        assert_eq!((listing(&story.workspace()), listing(&story.public())), before);
        let out = as_nobody(&story, &program, &own, &["refresh"]);
        assert!(!out.status.success(), "this user cannot write: {}", said(&out));
    }
}

#[test]
fn readers_share_a_workspace_and_wait_for_a_writer() {
    let fleet = Fleet::new();
    let dir = fleet.path();
    let list = || tidegate(&["-C", text(&dir), "release", "list"]).status.success();
    let reader = tidegate::workspace::Workspace::open_to_read(&dir).unwrap();
    assert!(list(), "two read at once");
    drop(reader);
    let writer = tidegate::workspace::Workspace::open(&dir).unwrap();
    let begun = Instant::now();
    let held = Duration::from_millis(300);
    let other = std::thread::spawn(move || {
        std::thread::sleep(held);
        drop(writer);
    });
    assert!(list());
    assert!(begun.elapsed() >= held, "it read what a writer had not finished");
    other.join().unwrap();
}

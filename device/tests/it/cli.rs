//! `tidegate-device` as a program: what it prints, and how it exits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use chrono::TimeDelta;
use serde_json::{Value, json};
use tidegate_client::store::DirStore;

use crate::fleet::{IMAGE, channel, release};
use crate::mirror::scratch;
use crate::simulator::{Simulator, epoch};

/// A repository in a folder, a device that is set to it, and the program.
pub struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// The program tells the time by the system's clock, so this repository expires in a hundred years.
    pub fn new(edit: impl FnOnce(&mut Simulator)) -> Self {
        let folder = scratch();
        let mut sim = channel(&[("lab", None), ("all", Some(1_000_000))]);
        for role in ["root", "timestamp", "snapshot", "targets", "stable", "stable.lab", "stable.all"] {
            sim.set_expiry(role, epoch() + TimeDelta::days(36_500));
        }
        sim.publish(&["stable.lab", "stable.all", "stable", "targets", "snapshot", "timestamp", "root"]);
        edit(&mut sim);
        for (path, bytes) in &sim.files {
            let path = folder.path().join("repository").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        fs::write(folder.path().join("root.json"), sim.root(1)).unwrap();
        let settings = json!({
            "root": "root.json", "repository": "repository", "state_dir": "state", "slot": "slot",
            "device_id": "device-1", "channel": "stable", "product": "os", "hardware": "board",
            "factory_version": "1.0.0", "facts": {"group": "field"},
        });
        fs::write(folder.path().join("device.json"), settings.to_string()).unwrap();
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-device"));
        command.arg("--config").arg(self.path("device.json")).args(words).env_remove("RUST_BACKTRACE");
        command
    }

    /// Changes the settings file.
    pub fn set(&self, more: &Value) {
        let mut settings: Value = serde_json::from_slice(&fs::read(self.path("device.json")).unwrap()).unwrap();
        for (name, value) in more.as_object().unwrap() {
            if value.is_null() {
                settings.as_object_mut().unwrap().remove(name);
            } else {
                settings[name] = value.clone();
            }
        }
        fs::write(self.path("device.json"), settings.to_string()).unwrap();
    }

    /// Exit code, standard output, standard error.
    pub fn run(&self, words: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.command(words).output().unwrap();
        (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    pub fn json(&self, words: &[&str]) -> Value {
        let (code, out, err) = self.run(&[words, &["--json"]].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        serde_json::from_str(&out).unwrap()
    }

    pub fn json_with_warnings(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[words, &["--json"]].concat()).1).unwrap()
    }
}

pub fn with_release() -> Bench {
    Bench::new(|sim| {
        release(sim, "all", "1.2.0", 12);
    })
}

#[test]
fn a_whole_life() {
    let bench = with_release();
    let (code, out, _) = bench.run(&["status"]);
    assert!(
        code == 0 && out.contains("decision     unknown until the next check: no metadata is stored yet\n"),
        "{out}"
    );
    let (code, out, err) = bench.run(&["check"]);
    assert_eq!((code, out.as_str()), (0, "install 1.2.0 (sequence 12): image.bin\n"), "{err}");
    // It shows what was found last, without a request.
    fs::rename(bench.path("repository"), bench.path("away")).unwrap();
    let (code, out, _) = bench.run(&["status"]);
    assert!(
        code == 0 && out.contains("offered      1.2.0 (sequence 12): install 1.2.0 (sequence 12): image.bin\n"),
        "{out}"
    );
    assert_eq!(bench.json(&["status"])["decision"]["offers"][0]["rules"].as_array().unwrap().len(), 14);
    fs::rename(bench.path("away"), bench.path("repository")).unwrap();
    assert_eq!(err, "next: tidegate-device install fetches and installs it\n");
    let (code, out, _) = bench.run(&["download"]);
    assert_eq!(code, 0);
    assert_eq!(fs::read(out.trim()).unwrap(), IMAGE);
    let (code, out, err) = bench.run(&["install"]);
    assert_eq!((code, out.as_str()), (0, "installed 1.2.0 (sequence 12)\n"), "{err}");
    assert_eq!(fs::read(bench.path("slot")).unwrap(), IMAGE);
    let (code, out, _) = bench.run(&["install", "-q"]);
    assert_eq!((code, out.as_str()), (0, "trial 1.2.0 (sequence 12), boot 1\n"));
    assert_eq!(bench.json(&["status"])["installed"]["state"], "trial");
    let (code, out, _) = bench.run(&["confirm"]);
    assert_eq!((code, out.as_str()), (0, "confirmed 1.2.0 (sequence 12)\n"));
    let (code, out, _) = bench.run(&["install", "-q"]);
    assert_eq!((code, out.as_str()), (0, "up to date: 1.2.0 (sequence 12) is already installed\n"));
    let (_, out, _) = bench.run(&["status"]);
    assert!(out.contains("runs         1.2.0 (sequence 12), confirmed\n"), "{out}");
}

/// The cohort `lab` is for devices with that fact.
#[test]
fn status_decides_by_the_same_facts_as_check() {
    let bench = with_release();
    bench.set(&json!({"facts": {"group": "lab"}}));
    let (check, status) = (bench.json(&["check"]), bench.json(&["status"]));
    for part in ["cohort", "offers", "outcome"] {
        assert_eq!(check["explanation"][part], status["decision"][part], "{part}");
    }
    assert_eq!(status["decision"]["cohort"]["cohort"], "lab");
}

#[test]
fn explain_shows_every_rule_for_any_facts_and_time() {
    let bench = with_release();
    let (code, out, err) = bench.run(&["explain", "--at", "2026-01-05T18:00:00Z", "--fact", "group=lab"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("at         2026-01-05T18:00:00Z\n"), "{out}");
    assert!(out.contains("group = \"lab\"") && out.contains("cohort     lab"), "{out}");
    assert!(out.ends_with("decision   nothing to install: role stable.lab offers no release of os\n"), "{out}");
    let explained = bench.json(&["explain"]);
    assert_eq!(explained["explanation"]["offers"][0]["rules"].as_array().unwrap().len(), 14);
    assert_eq!(explained["explanation"]["outcome"]["kind"], "install");
}

#[test]
fn failures_have_exit_codes_and_remedies() {
    let bench = with_release();
    bench.run(&["check"]);
    for (words, code, expected) in [
        (&["chekc"][..], 2, "\"chekc\" is not a command"),
        (&["check", "--bogus"], 2, "--bogus"),
        (&["check", "--channel", "Stable"], 2, "--channel"),
        (&["check", "--config", "/nowhere/device.json"], 1, "/nowhere/device.json"),
        (&["check", "--root", "/nowhere/root.json"], 1, "/nowhere/root.json"),
        (&["check", "--repository", "ftp://host"], 1, "https://"),
        (&["check", "--repository", "/nowhere"], 1, "help: check the URL"),
        (&["confirm"], 1, "nothing is installed"),
        (&["check", "--channel", "other"], 1, "other/cohorts.json"),
    ] {
        let (got, out, err) = bench.run(words);
        assert_eq!((got, out.as_str()), (code, ""), "{words:?}: {err}");
        assert!(err.starts_with("error: ") && err.contains(expected), "{words:?}: {err}");
    }
}

#[test]
fn json_errors_follow_the_schema() {
    let schema = include_str!("../../../docs/schemas/error.schema.json");
    let validator = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let bench = with_release();
    bench.run(&["check"]);
    for (words, code, kind) in [
        (&["chekc"][..], 2, "usage"),
        (&["check", "--channel", "Stable"], 2, "usage"),
        (&["check", "--root", "/nowhere/root.json"], 1, "io"),
        (&["check", "--repository", "ftp://host"], 1, "input"),
        (&["check", "--repository", "/nowhere"], 1, "trust"),
        (&["check", "--repository", "http://127.0.0.1:1"], 1, "network"),
    ] {
        let (got, out, err) = bench.run(&[words, &["--json"]].concat());
        assert_eq!((got, out.as_str()), (code, ""), "{words:?}: {err}");
        let report: Value = serde_json::from_str(&err).unwrap();
        assert!(validator.is_valid(&report), "{words:?}: {report}");
        assert_eq!(report["error"]["kind"], kind, "{words:?}: {report}");
    }
}

#[test]
fn settings_are_checked() {
    let bench = with_release();
    let good: Value = serde_json::from_slice(&fs::read(bench.path("device.json")).unwrap()).unwrap();
    for (text, expected) in [
        ("{", "device.json"),
        ("{}", "--repository is required"),
        ("[]", "device.json"),
        (&good.to_string().replace("\"slot\"", "\"slots\""), "slots"),
        (&good.to_string().replace("\"field\"", "[]"), "facts"),
        ("{\"root\": \"a\", \"root\": \"b\"}", "root"),
    ] {
        fs::write(bench.path("device.json"), text).unwrap();
        let (code, _, err) = bench.run(&["check"]);
        assert_eq!(code, 2, "{text}: {err}");
        assert!(err.contains(expected), "{text}: {err}");
    }
}

#[cfg(not(feature = "gate"))]
#[test]
fn what_needs_a_feature_names_it() {
    let bench = with_release();
    bench.set(&json!({"receipts": {"to": "file:usb", "key": "device.key"}}));
    let (code, _, err) = bench.run(&["check"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("`receipts`") && err.contains("feature \"gate\""), "{err}");
    assert_eq!(bench.run(&["receipts"]).0, 2);
}

#[test]
fn a_tampered_byte_is_refused_and_nothing_changes() {
    let bench = with_release();
    fs::write(bench.path("slot"), b"old").unwrap();
    let folder = bench.path("repository/targets/stable/releases/os/1.2.0");
    let image =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).find(|p| p.to_string_lossy().ends_with(".bin"));
    let image = image.unwrap();
    let mut bytes = fs::read(&image).unwrap();
    bytes[0] ^= 1;
    fs::write(&image, bytes).unwrap();
    let (code, out, err) = bench.run(&["install"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("does not match the signed metadata"), "{err}");
    assert_eq!(fs::read(bench.path("slot")).unwrap(), b"old");
    assert_eq!(fs::read_dir(bench.path("state/downloads")).unwrap().count(), 0);
}

#[test]
fn two_at_once_and_repairs() {
    let bench = with_release();
    bench.run(&["install"]);
    let held = DirStore::open(bench.path("state")).unwrap();
    let (code, _, err) = bench.run(&["check"]);
    assert_eq!(code, 1);
    assert!(err.contains("another process"), "{err}");
    drop(held);
    for name in ["state/installed.json", "state/metadata/timestamp.json"] {
        fs::write(bench.path(name), b"").unwrap();
    }
    let (code, out, err) = bench.run(&["check"]);
    assert_eq!((code, out.starts_with("up to date")), (0, true));
    assert_eq!(err.matches("warning: the stored file").count(), 2, "{err}");
    assert!(!bench.run(&["check"]).2.contains("warning"));
}

#[test]
fn help_and_version() {
    let bench = with_release();
    let (code, out, err) = bench.run(&["--version"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("tidegate-device "));
    assert!(bench.run(&["-h"]).1.contains("Exit codes:"));
    assert!(bench.run(&["install", "--help"]).1.contains("Examples:"));
    assert_eq!(bench.run(&[]).0, 2);
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written() {
    let bench = with_release();
    let full = fs::OpenOptions::new().write(true).open(Path::new("/dev/full")).unwrap();
    let status = bench.command(&["check"]).stdout(full).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = bench.command(&["explain"]).stdout(writer).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(3));
}

#[test]
fn a_time_zone_that_is_not_known_is_warned_of() {
    let bench = with_release();
    let policy = |zone: &str| json!({"policy": {"windows": ["00:00 - 00:00"], "time_zone": zone}});
    bench.set(&policy("Europe/Nowhere"));
    let (_, out, err) = bench.run(&["install"]);
    assert!(err.contains("policy.time_zone: the time zone \"Europe/Nowhere\" is neither"), "{out}{err}");
    let waits = &bench.json_with_warnings(&["status"])["update"]["state"];
    assert_eq!(waits["kind"], "waiting", "{waits}");
    assert!(waits["why"].as_str().unwrap().contains("the maintenance windows cannot be placed"), "{waits}");
    bench.set(&policy("CET-1CEST,M3.5.0,M10.5.0/3"));
    let (code, _, err) = bench.run(&["install"]);
    assert!(code == 0 && !err.contains("time_zone"), "{err}");
}

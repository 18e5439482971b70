//! `tidegate-device run` as a program: its log, its signals, its service manager, its settings; and killed again and again.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use chrono::Datelike as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tidegate_tuf::hash::to_hex;

use crate::board::WELL;
use crate::cli::Bench;
use crate::fleet::{approve_image, assign, manifest_of, release_image};

/// A boot hook, two slots, and a health command; what runs changes when a test says so.
pub const HOOK: &str = r#"
cd "$(dirname "$0")"
case "$1" in
  running) cat running ;;
  keep) echo "$2" > kept; rm -f tried ;;
  try) echo "$2" > tried ;;
  restart) if [ -e tried ]; then mv tried running; else cp kept running; fi ;;
  health) grep -q well "slot.$(cat running)" ;;
esac
"#;

pub fn bench() -> Bench {
    let bench = Bench::new(|sim| {
        release_image(sim, "all", "1.2.0", 12, WELL);
    });
    with_two_slots(&bench);
    bench
}

/// Two slots with a boot hook, which it gives.
pub fn with_two_slots(bench: &Bench) -> Vec<String> {
    fs::write(bench.path("hook"), HOOK).unwrap();
    for (name, content) in [("slot.a", "old"), ("running", "a"), ("kept", "a")] {
        fs::write(bench.path(name), content).unwrap();
    }
    let path = bench.path("hook").to_str().unwrap().to_owned();
    let hook = |words: &[&str]| [&["sh", &path], words].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    bench.set(&json!({
        "slot": null,
        "installer": {"kind": "slots", "images": [{"a": "slot.a", "b": "slot.b"}], "boot": hook(&[])},
        "trial": {"health": {"program": hook(&["health"]), "limit": "10s"}, "within": "60s", "restart": hook(&["restart"])},
        "poll": {"interval": "1h", "first_within": "0s"},
    }));
    hook(&[])
}

/// A running agent. It is killed when this is dropped.
pub struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.args(["run", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    }

    /// Reads lines up to one of this event, and gives that one's message.
    pub fn until(&mut self, event: &str) -> String {
        loop {
            let line = self.next();
            if line["event"] == event {
                return line["message"].as_str().unwrap().to_owned();
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_whole_update_without_anyone_at_hand() {
    let bench = bench();
    let mut agent = Running::start(&mut bench.command(&[]));
    let started = agent.next();
    assert_eq!(started["event"], "started");
    assert!(started["time"].as_str().unwrap().ends_with('Z'));
    let mut states = Vec::new();
    while states.last().is_none_or(|state| state != "confirmed") {
        let line = agent.next();
        if line["event"] == "state" {
            states.push(line["detail"]["kind"].as_str().unwrap().to_owned());
        }
    }
    let expected = ["downloading", "verifying", "installing", "rebooting", "trial", "confirmed"];
    assert_eq!(states, expected);
    assert_eq!(fs::read_to_string(bench.path("kept")).unwrap().trim(), "b");
    // It looks again at once, since what it installed may have been a bridge; then it sleeps, and a signal wakes it.
    assert!(agent.until("checked").starts_with("up to date"));
    agent.until("state");
    // A check without news is one line.
    for _ in 0..2 {
        agent.signal("USR1");
        assert_eq!(agent.next()["event"], "woken");
        let checked = agent.next();
        assert_eq!(checked["event"], "checked");
        assert!(checked["message"].as_str().unwrap().starts_with("up to date"), "{checked}");
    }
    // Others may look, and work, meanwhile.
    let seen = bench.json(&["status"]);
    assert_eq!((&seen["update"]["state"]["kind"], &seen["installed"]["state"]), (&json!("idle"), &json!("confirmed")));
    // It sleeps, or is about to: then it leaves the state folder to others.
    let begun = Instant::now();
    while bench.run(&["check", "-q"]).0 != 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the state folder is not left to others");
    }
    agent.signal("TERM");
    assert_eq!(agent.until("stopped"), "stopped by a signal");
    assert_eq!(agent.child.wait().unwrap().code(), Some(0));
}

/// A system of two images, and one of another board that stays where it is.
#[test]
fn a_whole_update_of_several_artifacts() {
    const KERNEL: &[u8] = b"a kernel for the new image";
    let bench = Bench::new(|sim| {
        let mut manifest = manifest_of("1.2.0", 12, WELL);
        for (name, hardware, bytes) in [("kernel.bin", "board", KERNEL), ("other.bin", "other-board", b"not for us")] {
            let path = format!("stable/releases/os/1.2.0/{name}");
            manifest["artifacts"].as_array_mut().unwrap().push(json!({
                "name": name, "path": path, "length": bytes.len(), "sha256": to_hex(&Sha256::digest(bytes)),
                "hardware": [hardware], "media_type": "application/octet-stream",
            }));
            sim.add_target("stable", &path, bytes);
        }
        let bytes = approve_image(sim, &manifest, WELL);
        assign(sim, "all", &bytes, &json!({}));
        sim.publish(&["stable.all", "stable", "snapshot", "timestamp"]);
    });
    let hook = with_two_slots(&bench);
    fs::write(bench.path("kernel.a"), "old kernel").unwrap();
    let images = json!([
        {"artifact": "image.bin", "a": "slot.a", "b": "slot.b"},
        {"artifact": "kernel.bin", "a": "kernel.a", "b": "kernel.b"},
    ]);
    bench.set(&json!({"installer": {"kind": "slots", "images": images, "boot": hook}}));
    let (code, out, err) = bench.run(&["check", "-q"]);
    assert_eq!((code, out.as_str()), (0, "install 1.2.0 (sequence 12): image.bin, kernel.bin\n"), "{err}");

    // One of the two spoiled on the way: neither is installed, and the slot that runs is as it was.
    let kernel = find(&bench.path("repository/targets"), ".kernel.bin");
    fs::write(&kernel, b"another kernel for the old").unwrap();
    let (code, _, err) = bench.run(&["install", "-q"]);
    assert_eq!(code, 1, "{err}");
    assert_eq!(fs::read(bench.path("slot.a")).unwrap(), b"old");
    assert!(!bench.path("slot.b").exists() && !bench.path("kernel.b").exists());
    fs::write(&kernel, KERNEL).unwrap();

    let (code, out, err) = bench.run(&["install", "-q", "--now"]);
    assert_eq!((code, out.as_str()), (0, "installed 1.2.0 (sequence 12)\n"), "{err}");
    // The board restarts by itself; the next process finds the new system on trial, and well.
    assert_eq!(bench.run(&["install", "-q"]).0, 0);
    assert_eq!(bench.json(&["status"])["installed"]["state"], "confirmed");
    assert_eq!(
        (fs::read(bench.path("slot.b")).unwrap(), fs::read(bench.path("kernel.b")).unwrap()),
        (WELL.into(), KERNEL.into())
    );
    assert_eq!(fs::read(bench.path("slot.a")).unwrap(), b"old");
    assert_eq!(fs::read(bench.path("kernel.a")).unwrap(), b"old kernel");
    assert_eq!(fs::read_to_string(bench.path("kept")).unwrap().trim(), "b");
}

/// The file below a folder whose name ends so.
fn find(folder: &Path, ending: &str) -> PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().ends_with(ending) {
                return path;
            }
        }
    }
    panic!("there is no {ending}");
}

#[test]
fn failures_are_logged_with_their_kind() {
    let bench = bench();
    bench.set(&json!({"repository": "nowhere"}));
    let mut agent = Running::start(&mut bench.command(&[]));
    assert_eq!(agent.next()["event"], "started");
    // One line, with the pause.
    let failed = agent.next();
    assert_eq!((&failed["event"], &failed["error"]["kind"]), (&json!("failed"), &json!("trust")));
    assert!(failed["message"].as_str().unwrap().starts_with("waiting until 2"), "{failed}");
    assert_eq!(failed["detail"]["kind"], "waiting");
    // The settings are read anew: once they are right, it gets on.
    let status = bench.json(&["status"]);
    assert_eq!((&status["update"]["failures"], &status["update"]["state"]["kind"]), (&json!(1), &json!("waiting")));
    bench.set(&json!({"repository": "repository"}));
    agent.signal("HUP");
    assert_eq!(agent.until("checked"), "install 1.2.0 (sequence 12): image.bin");
}

#[test]
fn the_pause_that_is_told_is_kept() {
    let bench = bench();
    bench.set(&json!({"repository": "nowhere", "poll": {"interval": "1s", "first_within": "0s"}}));
    let mut agent = Running::start(&mut bench.command(&[]));
    assert_eq!(agent.next()["event"], "started");
    assert_eq!(agent.next()["event"], "failed");
    std::thread::sleep(Duration::from_secs(3));
    agent.signal("TERM");
    assert_eq!(agent.next()["event"], "stopped");
    // Also by a process that starts anew.
    let mut agent = Running::start(&mut bench.command(&[]));
    assert_eq!(agent.next()["event"], "started");
    std::thread::sleep(Duration::from_secs(1));
    agent.signal("TERM");
    assert_eq!(agent.next()["event"], "stopped");
}

/// A failure while the clock was ahead leaves a time that is years away. An agent that starts anew checks at once.
#[test]
fn a_pause_from_a_clock_that_was_ahead_is_not_kept() {
    let bench = bench();
    bench.set(&json!({"repository": "nowhere"}));
    bench.run(&["install"]);
    for file in ["state/machine.json", "state/backup/machine.json"] {
        let text = fs::read_to_string(bench.path(file)).unwrap();
        let (before, after) = text.split_once("\"until\":\"2").unwrap();
        let (_, after) = after.split_once('Z').unwrap();
        fs::write(bench.path(file), format!("{before}\"until\":\"2099-01-01T00:00:39Z{after}")).unwrap();
    }
    assert!(bench.run(&["status"]).1.contains("waiting until 2099-01-01T00:00:39Z: "));
    bench.set(&json!({"repository": "repository", "poll": {"interval": "1h", "first_within": "0s"}}));
    let begun = Instant::now();
    let mut agent = Running::start(&mut bench.command(&[]));
    assert_eq!(agent.until("checked"), "install 1.2.0 (sequence 12): image.bin");
    assert!(begun.elapsed() < Duration::from_secs(60));
}

/// It is run again after the pause that `status` tells, and not at every chance.
#[test]
fn a_failing_restart_backs_off_and_is_shown() {
    let bench = bench();
    let mut trial: Value = serde_json::from_slice(&fs::read(bench.path("device.json")).unwrap()).unwrap();
    let mark = bench.path("asked").to_str().unwrap().to_owned();
    trial["trial"]["restart"] = json!(["sh", "-c", format!("echo >> {mark}; exit 1")]);
    bench.set(&json!({"trial": trial["trial"], "poll": {"interval": "1s", "first_within": "0s"}}));
    let mut agent = Running::start(&mut bench.command(&[]));
    assert_eq!(agent.until("failed"), "the restart command failed: sh: exit code 1");
    std::thread::sleep(Duration::from_secs(3));
    agent.signal("TERM");
    assert_eq!(agent.next()["event"], "stopped");
    assert_eq!(fs::read_to_string(&mark).unwrap().lines().count(), 1);
    let (_, status, _) = bench.run(&["status"]);
    let line = status.lines().find(|line| line.starts_with("failures ")).unwrap();
    let at = line.strip_prefix("failures     1 in a row: the restart command fails, and runs again by ").unwrap();
    let left = (at.parse::<chrono::DateTime<chrono::Utc>>().unwrap() - chrono::Utc::now()).num_seconds();
    assert!((10..=60).contains(&left), "{left} s: {line}");
}

/// Whatever it waits for: what is downloaded is not hashed and told again at each check.
#[test]
fn what_is_held_back_is_one_line_a_check() {
    let bench = bench();
    let day = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
        [(chrono::Utc::now().weekday().num_days_from_sunday() as usize + 3) % 7];
    let policy =
        |windows: Value, require: Value| json!({"windows": windows, "require": require, "deferral": {"limit": "7d"}});
    let require = json!({"fact": "ready", "eq": true});
    bench.set(&json!({"policy": policy(json!([]), require.clone())}));
    let mut agent = Running::start(&mut bench.command(&[]));
    let told = |agent: &mut Running| {
        agent.signal("USR1");
        let lines = [agent.next(), agent.next()];
        assert_eq!(lines.map(|line| line["event"].as_str().unwrap().to_owned()), ["woken", "checked"]);
    };
    loop {
        let line = agent.next();
        if line["event"] == "state" && line["detail"]["kind"] == "waiting" {
            break;
        }
    }
    told(&mut agent);
    told(&mut agent);
    // Another reason is another state, and is told once.
    for (change, rule) in [
        (json!({"policy": policy(json!([format!("{day} 01:00 - 01:10")]), Value::Null)}), "L-WINDOW"),
        (json!({"policy": policy(json!([]), Value::Null)}), "L-DEFERRAL"),
    ] {
        if rule == "L-DEFERRAL" {
            assert_eq!(bench.run(&["defer", "4h"]).0, 0);
        }
        bench.set(&change);
        told(&mut agent);
        let line = agent.next();
        assert!(line["event"] == "state" && line["message"].as_str().unwrap().contains(rule), "{line}");
        told(&mut agent);
        told(&mut agent);
    }
    // Once nothing holds it back, it is installed.
    bench.set(&json!({"policy": null}));
    agent.signal("USR1");
    while agent.next()["detail"]["kind"] != "installing" {}
}

/// The check is a line, and its failure is one. That it downloads is told by the first.
#[test]
fn a_download_that_fails_again_is_one_line() {
    let bench = bench();
    let image = find(&bench.path("repository/targets"), ".image.bin");
    let aside = bench.path("image.aside");
    fs::rename(&image, &aside).unwrap();
    let mut agent = Running::start(&mut bench.command(&[]));
    assert!(agent.until("state").starts_with("downloading 1.2.0"));
    assert_eq!(agent.next()["event"], "failed");
    for _ in 0..2 {
        agent.signal("USR1");
        let events = [agent.next(), agent.next(), agent.next()].map(|line| line["event"].as_str().unwrap().to_owned());
        assert_eq!(events, ["woken", "checked", "failed"]);
    }
    fs::rename(&aside, &image).unwrap();
    agent.signal("USR1");
    while agent.next()["detail"]["kind"] != "installing" {}
}

#[test]
fn wrong_settings_stop_it_at_once() {
    let bench = bench();
    for (wrong, expected) in [
        (json!({"installer": {"kind": "floppy"}}), "floppy"),
        (json!({"installer": {"kind": "slots", "images": [{"a": "x", "b": "x"}], "boot": ["true"]}}), "twice"),
        (json!({"installer": null, "policy": {"windows": ["1 - 2"]}}), "not a time of the week"),
        (json!({"policy": null, "poll": {"interval": "soon"}}), "soon"),
        (json!({"poll": null, "network": {"proxy": "no proxy"}}), "network.proxy"),
        (json!({"network": {"ca": "absent.pem"}}), "absent.pem"),
        (json!({"network": {"ca": "device.json"}}), "network.ca"),
        (json!({"network": {"client_key": "key.pem"}}), "client_certificate"),
        (json!({"network": {"authorization": {}}}), "network.authorization"),
        (json!({"network": {"authorization": {"file": "t", "server": "http://example.com"}}}), "only sent over https"),
        (json!({"network": {"speed": 1}}), "speed"),
        (json!({"network": null, "trial": {"health": 3}}), "health"),
    ] {
        bench.set(&wrong);
        let (code, out, err) = bench.run(&["run"]);
        assert!(matches!(code, 1 | 2) && out.is_empty(), "{wrong}: {code} {out}");
        assert!(err.contains(expected), "{wrong}: {err}");
    }
}

#[test]
fn it_reports_to_the_service_manager() {
    let bench = bench();
    let path = bench.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let agent = Running::start(bench.command(&[]).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000"));
    let receive = || {
        let mut buffer = [0; 1000];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    assert_eq!(receive(), "READY=1");
    let until = |wanted: &str| {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(20) {
            if receive().starts_with(wanted) {
                return;
            }
        }
        panic!("no {wanted}");
    };
    until("STATUS=confirmed 1.2.0 (sequence 12)");
    // While it works a signal ends it at once; while it sleeps it says so first.
    until("STATUS=idle");
    for _ in 0..3 {
        until("WATCHDOG=1");
    }
    agent.signal("INT");
    until("STOPPING=1");
}

#[test]
fn policy_deferral_and_facts_come_from_the_settings() {
    let bench = bench();
    bench.set(&json!({
        "policy": {"deferral": {"limit": "7d"}, "require": {"fact": "battery-percent", "ge": 30}},
        "facts_program": ["cat", bench.path("battery")], "system_facts": true,
    }));
    fs::write(bench.path("battery"), "battery-percent=20").unwrap();
    let (code, out, err) = bench.run(&["install"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("waiting") && out.contains("battery-percent >= 30") && out.contains("L-REQUIRE"), "{out}");
    let (_, out, _) = bench.run(&["explain"]);
    assert!(out.contains("own policy, installing: not now") && out.contains("arch = "), "{out}");
    let (code, out, err) = bench.run(&["defer", "4h"]);
    assert!(code == 0 && out.starts_with("deferred until "), "{err}");
    fs::write(bench.path("battery"), "battery-percent=90").unwrap();
    let (_, out, _) = bench.run(&["install"]);
    assert!(out.contains("L-DEFERRAL"), "{out}");
    let (_, out, _) = bench.run(&["status"]);
    assert!(out.contains("deferral     sequence 12") && out.contains("update       waiting until"), "{out}");
    let (code, out, _) = bench.run(&["install", "--now"]);
    assert_eq!((code, out.as_str()), (0, "installed 1.2.0 (sequence 12)\n"));
    assert!(bench.run(&["defer", "4h"]).2.contains("nothing to defer"));
    // A program that fails keeps its facts away, and that is said.
    fs::remove_file(bench.path("battery")).unwrap();
    assert!(bench.run(&["check"]).2.starts_with("warning: cat: exit code 1"));
}

#[test]
fn a_trial_is_rejected_from_the_command_line() {
    let bench = bench();
    bench.set(&json!({"trial": {"health": "by-hand"}}));
    let (code, out, err) = bench.run(&["install"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "installed 1.2.0 (sequence 12)\n", "next: restart to run it\n"));
    assert!(bench.run(&["confirm"]).2.contains("restart first"));
    let (code, out, err) = bench.run(&["reject"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("quarantined 1.2.0 (sequence 12): it was rejected by hand"), "{out}");
    assert!(bench.run(&["reject"]).2.contains("nothing to reject"));
    let (code, out, _) = bench.run(&["install"]);
    assert!(code == 1 && out.starts_with("refuse (D-QUARANTINE)"), "{out}");
}

/// Waits for the hooks of a program that was killed. They go on, and what they write while the next program works would be two boards at once; a
/// service manager kills them, too, and so does a restart.
fn wait_for_hooks(bench: &Bench) {
    let folder = bench.path("").into_os_string().into_encoded_bytes();
    let begun = Instant::now();
    let is_of_bench = |process: fs::DirEntry| {
        // It is empty if the process has ended.
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        words.windows(folder.len()).any(|part| part == folder)
    };
    while fs::read_dir("/proc").unwrap().flatten().any(is_of_bench) {
        assert!(begun.elapsed() < Duration::from_secs(60), "a hook does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The real program, killed at moments all over an update, again and again, until it is through.
#[test]
fn it_is_killed_again_and_again_and_gets_there() {
    for moment in 0..4 {
        let bench = bench();
        // Nobody is to be blamed for these.
        let mut trial: Value = serde_json::from_slice(&fs::read(bench.path("device.json")).unwrap()).unwrap();
        trial["trial"]["attempts"] = json!(1000);
        bench.set(&json!({"trial": trial["trial"]}));
        let mut pause = Duration::from_millis(3 + moment);
        for round in 0.. {
            assert!(round < 400, "it does not get there");
            let mut child =
                bench.command(&["install", "-q"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(pause);
            let _ = child.kill();
            child.wait().unwrap();
            wait_for_hooks(&bench);
            let running = fs::read_to_string(bench.path("running")).unwrap();
            let image = fs::read(bench.path(&format!("slot.{}", running.trim()))).unwrap();
            assert!(image == b"old" || image == WELL, "neither the old image nor the new one runs");
            if bench.json(&["status"])["installed"]["state"] == "confirmed" {
                break;
            }
            // On a busy machine, too, one of them takes long enough.
            pause += Duration::from_millis(2).max(pause / 25);
        }
        assert_eq!(fs::read_to_string(bench.path("kept")).unwrap().trim(), "b");
    }
}

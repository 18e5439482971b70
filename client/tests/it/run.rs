//! `tidegate-device run` as a program: its log, its signals, its service manager, its settings; and killed again and again.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::WELL;
use crate::cli::Bench;
use crate::fleet::release_image;

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

fn bench() -> Bench {
    let bench = Bench::new(|sim| {
        release_image(sim, "all", "1.2.0", 12, WELL);
    });
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
    bench
}

/// A running agent. It is killed when this is dropped.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
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
    fn until(&mut self, event: &str) -> String {
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
    let expected = ["checking", "downloading", "verifying", "installing", "rebooting", "trial", "confirmed"];
    assert_eq!(states, expected);
    assert_eq!(fs::read_to_string(bench.path("kept")).unwrap().trim(), "b");
    // It looks again at once, since what it installed may have been a bridge; then it sleeps, and a signal wakes it.
    assert!(agent.until("checked").starts_with("up to date"));
    agent.until("state");
    agent.signal("USR1");
    agent.until("woken");
    assert!(agent.until("checked").starts_with("up to date"));
    agent.until("state");
    // Others may look, and work, meanwhile.
    let seen = bench.json(&["status"]);
    assert_eq!((&seen["update"]["state"]["kind"], &seen["installed"]["state"]), (&json!("idle"), &json!("confirmed")));
    assert_eq!(bench.run(&["check", "-q"]).0, 0);
    // By now it sleeps: it left the state folder to others.
    agent.signal("TERM");
    assert_eq!(agent.until("stopped"), "told to stop");
    assert_eq!(agent.child.wait().unwrap().code(), Some(0));
}

#[test]
fn failures_are_logged_with_whose_fault_they_are() {
    let bench = bench();
    bench.set(&json!({"repository": "nowhere"}));
    let mut agent = Running::start(&mut bench.command(&[]));
    loop {
        let line = agent.next();
        if line["event"] == "failed" {
            assert_eq!(line["fault"], "peer");
            break;
        }
    }
    // The settings are read anew: once they are right, it gets on.
    let status = bench.json(&["status"]);
    assert_eq!((&status["update"]["failures"], &status["update"]["state"]["kind"]), (&json!(1), &json!("waiting")));
    bench.set(&json!({"repository": "repository"}));
    agent.signal("HUP");
    assert_eq!(agent.until("checked"), "install 1.2.0 (sequence 12): image.bin");
}

#[test]
fn wrong_settings_stop_it_at_once() {
    let bench = bench();
    for (wrong, expected) in [
        (json!({"installer": {"kind": "floppy"}}), "floppy"),
        (json!({"installer": {"kind": "slots", "images": [{"a": "x", "b": "x"}], "boot": ["true"]}}), "twice"),
        (json!({"installer": null, "policy": {"windows": [{"from": "1", "to": "2"}]}}), "HH:MM"),
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
    assert!(out.contains("policy says to installing: not now") && out.contains("arch = "), "{out}");
    let (code, out, err) = bench.run(&["defer", "4h"]);
    assert!(code == 0 && out.starts_with("put off until "), "{err}");
    fs::write(bench.path("battery"), "battery-percent=90").unwrap();
    let (_, out, _) = bench.run(&["install"]);
    assert!(out.contains("L-DEFERRAL"), "{out}");
    let (_, out, _) = bench.run(&["status"]);
    assert!(out.contains("deferral     sequence 12") && out.contains("update       waiting until"), "{out}");
    let (code, out, _) = bench.run(&["install", "--now"]);
    assert_eq!((code, out.as_str()), (0, "installed 1.2.0 (sequence 12)\n"));
    assert!(bench.run(&["defer", "4h"]).2.contains("nothing to put off"));
    // A program that fails keeps its facts away, and that is said.
    fs::remove_file(bench.path("battery")).unwrap();
    assert!(bench.run(&["check"]).2.starts_with("warning: cat: exit code 1"));
}

#[test]
fn a_trial_is_rejected_from_the_command_line() {
    let bench = bench();
    bench.set(&json!({"trial": {"health": "by-hand"}}));
    let (code, out, err) = bench.run(&["install"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "installed 1.2.0 (sequence 12)\n", "hint: restart to run it\n"));
    assert!(bench.run(&["confirm"]).2.contains("restart first"));
    let (code, out, err) = bench.run(&["reject"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("quarantined 1.2.0 (sequence 12): it was rejected by hand"), "{out}");
    assert!(bench.run(&["reject"]).2.contains("nothing to go back from"));
    let (code, out, _) = bench.run(&["install"]);
    assert!(code == 1 && out.starts_with("refuse (D-QUARANTINE)"), "{out}");
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
            let running = fs::read_to_string(bench.path("running")).unwrap();
            let image = fs::read(bench.path(&format!("slot.{}", running.trim()))).unwrap();
            assert!(image == b"old" || image == WELL, "neither the old image nor the new one runs");
            if bench.json(&["status"])["installed"]["state"] == "confirmed" {
                break;
            }
            pause += Duration::from_millis(2);
        }
        assert_eq!(fs::read_to_string(bench.path("kept")).unwrap().trim(), "b");
    }
}

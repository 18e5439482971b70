//! What goes wrong in the field: settings, mounts, boot loaders and people, as public bug reports describe them.

use std::fs;
use std::process::Command;

use chrono::Datelike as _;
use serde_json::{Value, json};

use crate::board::{UNWELL, WELL};
use crate::cli::Bench;
use crate::fleet::{approve_image, assign, manifest_of, release_image};
use crate::run::{Running, bench, with_two_slots};
use crate::tools::{have, skip};

fn said(bench: &Bench, words: &[&str]) -> String {
    let (_, out, err) = bench.run(words);
    out + &err
}

fn restart(bench: &Bench) {
    let hook = bench.path("hook");
    assert!(Command::new("sh").arg(hook).arg("restart").status().unwrap().success());
}

/// A release that does not fit the settings is a decision with a reason, and installs once they are right.
#[test]
fn settings_that_do_not_fit_a_release_are_no_quarantine() {
    let bench = bench();
    let good: Value = serde_json::from_slice(&fs::read(bench.path("device.json")).unwrap()).unwrap();
    let mut wrong = good["installer"].clone();
    wrong["images"] = json!([
        {"artifact": "image.bin", "a": "slot.a", "b": "slot.b"},
        {"artifact": "mcu.bin", "a": "mcu.a", "b": "mcu.b"},
    ]);
    bench.set(&json!({"installer": wrong}));
    for words in [&["check"][..], &["install"], &["status"]] {
        let said = said(&bench, words);
        assert!(said.contains("takes are image.bin, mcu.bin, but the release has image.bin"), "{said}");
    }
    assert_eq!(bench.json(&["check"])["explanation"]["outcome"]["rule"], "D-HARDWARE");
    assert_eq!(bench.json(&["quarantine"]), json!([]));
    bench.set(&json!({"installer": good["installer"]}));
    assert_eq!(bench.run(&["install", "-q"]), (0, "installed 1.2.0 (sequence 12)\n".into(), String::new()));
}

/// What the owner of the device can correct: the device waits, says why, and goes on once that is done.
#[test]
fn faults_of_the_device_wait_and_never_quarantine() {
    let bench = bench();
    fs::rename(bench.path("hook"), bench.path("away")).unwrap();
    for _ in 0..4 {
        let (code, _, err) = bench.run(&["install"]);
        assert!(code == 1 && err.contains("hook"), "{err}");
        let status = said(&bench, &["status"]);
        assert!(status.contains("update       waiting until") && status.contains("hook"), "{status}");
    }
    fs::rename(bench.path("away"), bench.path("hook")).unwrap();
    fs::create_dir(bench.path("slot.b")).unwrap();
    let (code, _, err) = bench.run(&["install"]);
    assert!(code == 1 && err.contains("slot.b"), "{err}");
    fs::remove_dir(bench.path("slot.b")).unwrap();
    assert_eq!(bench.run(&["install", "-q"]), (0, "installed 1.2.0 (sequence 12)\n".into(), String::new()));
}

/// A shell script in mounts of its own, in the bench's folder, `$program` being the program: what it printed after `ready`. Needs root.
fn with_mounts(bench: &Bench, script: &str) -> Option<String> {
    let script = format!("cd \"$1\"; program=\"$2 --config device.json\"; {script}");
    let (folder, program) = (bench.path(""), env!("CARGO_BIN_EXE_tidegate-device"));
    let words = ["-m", "sh", "-c", &script, "-", folder.to_str().unwrap(), program];
    if !have(&["unshare", "mkfs.ext2", "losetup"]) {
        return None;
    }
    let out = Command::new("unshare").args(words).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let Some((_, text)) = text.split_once("ready\n") else {
        skip(&format!("nothing can be mounted here: {}", String::from_utf8_lossy(&out.stderr)));
        return None;
    };
    assert!(out.status.success(), "{text}");
    Some(text.to_owned())
}

/// Somebody has the inactive slot mounted. Needs root, and a loop device.
#[test]
fn a_mounted_slot_is_written_once_it_is_free() {
    let bench = bench();
    bench.set(&json!({"trial": {"health": "by-hand"}}));
    let script = r##"
        set -e; dd if=/dev/zero of=image bs=1M count=2 2>/dev/null; mkfs.ext2 -q -F image
        loop=$(losetup -f --show image); mkdir mnt; trap 'umount mnt 2>/dev/null || :; losetup -d $loop' EXIT
        mount -o ro "$loop" mnt; echo ready
        sed -i "s#\"slot.b\"#\"$loop\"#" device.json
        for _ in 1 2 3 4; do $program install 2>&1 || :; done
        $program status; umount mnt; $program install
    "##;
    let Some(text) = with_mounts(&bench, script) else { return };
    assert!(text.contains("update       waiting until") && text.contains("mounted at"), "{text}");
    assert!(text.ends_with("installed 1.2.0 (sequence 12)\n"), "{text}");
}

/// What reads answers, with a remark; what would write names the cause. Needs root.
#[test]
fn read_only_state_is_told_and_does_not_stop_a_check() {
    let bench = bench();
    bench.set(&json!({"poll": {"interval": "1s", "first_within": "0s"}}));
    let script = r"
        set -e; mkdir state; mount -t tmpfs -o size=8m t state; $program check -q; mount -o remount,ro state; echo ready
        $program check 2>&1; $program explain 2>&1; $program status; ! $program install 2>&1
        timeout 2 $program run > log 2>&1 || :; grep -c ^failed: log; mount -o remount,rw state
        $program install
    ";
    let Some(text) = with_mounts(&bench, script) else { return };
    assert!(text.starts_with("warning: ") && text.contains("install 1.2.0 (sequence 12): image.bin\nnext: "), "{text}");
    assert_eq!(text.matches("state cannot be written: what is found now is not kept").count(), 3, "{text}");
    assert!(text.contains("\nremark       ") && text.contains("\nhelp: make the state folder writable"), "{text}");
    assert!(text.contains("\n1\n"), "the agent spins: {text}");
    assert!(text.ends_with("installed 1.2.0 (sequence 12)\n"), "{text}");
}

#[test]
fn a_quarantine_is_shown_and_lifted() {
    let bench = Bench::new(|sim| drop(release_image(sim, "all", "1.2.0", 12, UNWELL)));
    with_two_slots(&bench);
    bench.set(&json!({"trial": {"health": "by-hand"}}));
    bench.run(&["install"]);
    restart(&bench);
    bench.run(&["reject"]);
    restart(&bench);
    let (code, out, _) = bench.run(&["install"]);
    assert_eq!((code, out.as_str()), (1, "quarantined 1.2.0 (sequence 12): it was rejected by hand\n"));
    let said = said(&bench, &["check"]);
    assert!(said.contains("failed on this device before") && said.contains("tidegate-device quarantine"), "{said}");
    let (code, out, err) = bench.run(&["quarantine"]);
    assert_eq!((code, out.as_str()), (0, "1.2.0 (sequence 12): it was rejected by hand\n"));
    assert_eq!(err, "next: tidegate-device quarantine lift 1.2.0 lets it be tried again\n");
    let (code, _, err) = bench.run(&["quarantine", "lift", "1.3.0"]);
    assert!(code == 1 && err.contains("not in quarantine"), "{err}");
    assert_eq!(bench.run(&["quarantine", "lift", "1.2.0"]).1, "1.2.0 may be tried again\n");
    assert_eq!(bench.run(&["quarantine", "list"]).1, "nothing is in quarantine\n");
    assert_eq!(bench.run(&["install", "-q"]).1, "installed 1.2.0 (sequence 12)\n");
    assert_eq!(fs::read(bench.path("slot.b")).unwrap(), UNWELL);
}

/// The boot loader starts the other slot after an update was confirmed.
#[test]
fn status_and_check_tell_what_the_boot_loader_started() {
    let bench = bench();
    bench.run(&["install"]);
    bench.run(&["install"]);
    assert!(said(&bench, &["status"]).contains("runs         1.2.0 (sequence 12), confirmed\n"));
    fs::write(bench.path("kept"), "a").unwrap();
    restart(&bench);
    let remark = "1.2.0 (sequence 12) was confirmed in b, but a runs";
    for _ in 0..2 {
        let status = said(&bench, &["status"]);
        assert!(status.contains("runs         1.0.0 (sequence 0), not what was installed last\n"), "{status}");
        assert!(status.contains(&format!("remark       {remark}\n")), "{status}");
        let (code, out, err) = bench.run(&["check"]);
        assert_eq!((code, out.as_str()), (0, "install 1.2.0 (sequence 12): image.bin\n"), "{err}");
        assert!(err.starts_with(&format!("warning: {remark}\n")), "{err}");
    }
    let (code, _, err) = bench.run(&["confirm"]);
    assert!(code == 1 && err.contains(&format!("{remark}: there is nothing to confirm")), "{err}");
    // The agent logs it once, and installs the release again.
    let mut agent = Running::start(&mut bench.command(&[]));
    assert_eq!(agent.until("problem"), remark);
    assert_eq!(agent.until("checked"), "install 1.2.0 (sequence 12): image.bin");
}

#[test]
fn nobody_defers_what_the_policy_forbids() {
    let bench = bench();
    let days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let in_three_days = days[(chrono::Utc::now().weekday().num_days_from_sunday() as usize + 3) % 7];
    let policy = |deferral: Value| json!({"windows": [format!("{in_three_days} 01:00 - 01:10")], "deferral": deferral});
    bench.set(&json!({"policy": {"windows": [format!("{in_three_days} 01:00 - 01:10")]}}));
    assert!(bench.run(&["install"]).1.starts_with("waiting until"));
    let (code, out, err) = bench.run(&["defer", "4h"]);
    assert!(code == 1 && out.is_empty() && err.contains("policy.deferral.limit is not set"), "{out}{err}");
    assert_eq!(bench.json(&["status"])["deferral"], Value::Null);
    // It says how long it really is.
    bench.set(&json!({"policy": policy(json!({"limit": "1d"}))}));
    let (code, out, _) = bench.run(&["defer", "2d"]);
    assert!(code == 0 && out.ends_with(", the longest that the device's policy allows\n"), "{out}");
    let first = bench.json(&["status"])["deferral"]["until"].clone();
    assert_eq!(bench.json(&["defer", "3d"])["until"], first, "counted from the first deferral");
    assert!(!bench.run(&["defer", "1h"]).1.contains("longest"));
    bench.set(&json!({"policy": policy(json!({"limit": "1s"}))}));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let (code, _, err) = bench.run(&["defer", "1h"]);
    assert!(code == 1 && err.contains("and no longer"), "{err}");
}

/// A deferral from a clock that was ahead neither holds a release back for years nor keeps the user from a new one.
#[test]
fn a_deferral_from_the_future_does_not_count() {
    let bench = bench();
    let require = json!({"fact": "ready", "eq": true});
    bench.set(&json!({"policy": {"deferral": {"limit": "1d"}, "require": require}}));
    bench.run(&["install"]);
    let stored = json!({"schema": 1, "serial": 9, "value": {
        "sequence": 12, "since": "2099-01-01T00:00:00Z", "until": "2099-01-01T04:00:00Z",
    }});
    fs::write(bench.path("state/deferral.json"), stored.to_string()).unwrap();
    let judged = |bench: &Bench| bench.run(&["explain"]).1;
    assert!(judged(&bench).contains("the clock was set back"), "{}", judged(&bench));
    let (code, out, err) = bench.run(&["defer", "4h"]);
    assert!(code == 0 && out.starts_with("deferred until "), "{out}{err}");
    assert!(judged(&bench).contains("  FAIL  L-DEFERRAL "), "{}", judged(&bench));
}

/// The policy lets security releases pass over deferrals, unless it says otherwise.
#[test]
fn a_security_release_is_not_deferred() {
    let bench = Bench::new(|sim| {
        let mut manifest = manifest_of("1.2.0", 12, WELL);
        manifest["urgency"] = json!("security");
        let bytes = approve_image(sim, &manifest, WELL);
        assign(sim, "all", &bytes, &json!({}));
        sim.publish(&["stable.all", "stable", "snapshot", "timestamp"]);
    });
    with_two_slots(&bench);
    let require = json!({"fact": "ready", "eq": true});
    bench.set(&json!({"policy": {"deferral": {"limit": "1d"}, "require": require}}));
    assert!(bench.run(&["install"]).1.contains("L-REQUIRE"));
    let (code, _, err) = bench.run(&["defer", "4h"]);
    assert!(code == 1 && err.contains("1.2.0 is a security release"), "{err}");
    bench.set(&json!({"policy": {"deferral": {"limit": "1d"}, "require": require, "security_overrides": []}}));
    assert!(bench.run(&["defer", "4h"]).1.starts_with("deferred until "));
}

/// As docs/integrate.md says: called again after the restart, it waits for health, and says when another restart is due.
#[test]
fn install_waits_for_health_and_asks_for_a_restart() {
    let bench = Bench::new(|sim| drop(release_image(sim, "all", "1.2.0", 12, UNWELL)));
    with_two_slots(&bench);
    let mark = bench.path("asked").to_str().unwrap().to_owned();
    let health = format!("echo >> {mark}; [ $(wc -l < {mark}) -ge 3 ] && test ! -e {mark}.never");
    bench.set(&json!({"trial": {"health": ["sh", "-c", health], "within": "20s", "every": "1s"}}));
    assert!(bench.run(&["install"]).2.ends_with("next: restart to run it\n"));
    restart(&bench);
    let (code, out, err) = bench.run(&["install"]);
    assert_eq!((code, out.as_str()), (0, "confirmed 1.2.0 (sequence 12)\n"), "{err}");
    assert_eq!(err.matches("not healthy yet").count(), 2, "{err}");
    // Another one never becomes well.
    fs::write(bench.path("kept"), "a").unwrap();
    restart(&bench);
    fs::write(format!("{mark}.never"), "").unwrap();
    bench.set(&json!({"trial": {"health": ["sh", "-c", health], "within": "2s", "every": "1s"}}));
    assert!(bench.run(&["install"]).2.ends_with("next: restart to run it\n"));
    restart(&bench);
    let (code, out, err) = bench.run(&["install"]);
    assert!(code == 1 && out.starts_with("rolled back 1.2.0 (sequence 12): not healthy within 2 s"), "{out}");
    assert!(err.ends_with("next: restart to run the previous release\n"), "{err}");
    assert!(said(&bench, &["status"]).contains("runs         1.2.0 (sequence 12), until the restart\n"));
    restart(&bench);
    assert!(said(&bench, &["status"]).contains("runs         1.0.0 (sequence 0), "));
}

/// A setting that cannot work is refused when it is read, with its name.
#[test]
fn settings_that_cannot_work_are_refused() {
    let bench = bench();
    let good: Value = serde_json::from_slice(&fs::read(bench.path("device.json")).unwrap()).unwrap();
    let slots = |a: &str, b: &str| json!({"kind": "slots", "images": [{"a": a, "b": b}], "boot": ["./hook"]});
    let none = json!({"program": ["true"], "limit": "0s"});
    std::os::unix::fs::symlink("slot.a", bench.path("link")).unwrap();
    fs::hard_link(bench.path("slot.a"), bench.path("hard")).unwrap();
    let unpack = |words: Value| json!({"kind": "directory", "path": ".", "unpack": words});
    for (more, expected) in [
        (json!({"slot": "slot"}), "either slot or installer"),
        (json!({"trial": {"attempts": 0}}), "`trial.attempts`: it must be at least 1"),
        (json!({"trial": {"boots": 0}}), "`trial.boots`"),
        (json!({"trial": {"health": []}}), "`trial.health`: it names no program"),
        (json!({"network": {"rate": 0}}), "`network.rate`"),
        (json!({"network": {"allowance": {"bytes": 0, "per": "1d"}}}), "`network.allowance.bytes`"),
        (json!({"installer": unpack(json!(["tar", "-x", "-f", "{artifact}"]))}), "it needs the word {folder}"),
        (json!({"installer": {"kind": "directory", "path": "none"}}), "installer.path"),
        (json!({"installer": {"kind": "file", "path": "none/slot"}}), "none/slot is in a folder that is not there"),
        (json!({"installer": {"kind": "file", "path": "/dev/no-such-device"}}), "/dev/no-such-device is not there"),
        (json!({"installer": {"kind": "command", "program": ["./none"]}}), "installer.program: "),
        (json!({"trial": {"health": ["no-such-program"]}}), "trial.health: no-such-program: there is no such program"),
        (json!({"trial": {"restart": ["./device.json"]}}), "trial.restart: "),
        (json!({"trial": {"health": ["true"], "within": "0s"}}), "trial.within is 0s: set at least 1s"),
        (json!({"trial": {"health": ["true"], "every": "0s"}}), "trial.every is 0s"),
        (json!({"trial": {"health": {"program": ["true"], "limit": "0s"}}}), "trial.health.limit is 0s"),
        (json!({"facts_program": {"program": ["true"], "limit": "0s"}}), "facts_program.limit is 0s"),
        (json!({"poll": {"interval": "0s"}}), "poll.interval is 0s"),
        (json!({"network": {"allowance": {"bytes": 1, "per": "0s"}}}), "network.allowance.per is 0s"),
        (json!({"network": {"proxy": "http://proxy:notaport"}}), "network.proxy: it is not the URL of a proxy"),
        (json!({"network": {"proxy": "http://proxy:0"}}), "network.proxy: it is not the URL of a proxy"),
        (json!({"installer": {"kind": "file", "path": "/proc/version"}}), "/proc/version belongs to the kernel"),
        (json!({"installer": {"kind": "file", "path": "/dev/null"}}), "/dev/null is neither a file nor a partition"),
        (json!({"installer": {"kind": "directory", "path": "/proc"}}), "installer.path: /proc belongs to the kernel"),
        (json!({"state_dir": ""}), "state_dir is empty: give it a value"),
        (json!({"repository": ""}), "repository is empty"),
        (json!({"channel": ""}), "channel"),
        (json!({"facts_file": ""}), "facts_file is empty"),
        (json!({"installer": slots("slot.a", "")}), "installer.images.b is empty"),
        (json!({"receipts": {"to": {"program": none}, "key": "key"}}), "receipts.to.program.limit is 0s"),
        (
            json!({"gate": {"attestor": {"kind": "command", "program": none, "gives": "ear"}}}),
            "gate.attestor.program.limit is 0s",
        ),
        (
            json!({"network": {"authorization": {"program": none, "server": "https://example.com"}}}),
            "network.authorization.program.limit is 0s",
        ),
        (json!({"installer": slots("slot.a", "./slot.a")}), "slot.a are the same place: name another slot"),
        (json!({"installer": slots("slot.a", "link")}), "link are the same place"),
        (json!({"installer": slots("slot.a", "hard")}), "hard are the same place"),
        (json!({"state_dir": "slot.a/state"}), "slot.a share a place: name another state folder"),
        (json!({"installer": slots("slot.a", "state/slot.b")}), "state/slot.b share a place"),
    ] {
        fs::write(bench.path("device.json"), good.to_string()).unwrap();
        bench.set(&more);
        let (code, out, err) = bench.run(&["check"]);
        assert!(code == 2 && out.is_empty() && err.contains(expected), "{more}: {out}{err}");
    }
    // A release that could not be confirmed is not installed.
    fs::write(bench.path("device.json"), good.to_string()).unwrap();
    bench.set(&json!({"trial": {"health": ["no-such-program"]}}));
    let (code, _, err) = bench.run(&["install"]);
    assert!(code == 2 && err.contains("trial.health: no-such-program"), "{err}");
    assert!(said(&bench, &["status"]).contains("waiting until") && !bench.path("slot.b").exists());
}

#[test]
fn the_doctor_names_what_is_wrong() {
    let bench = bench();
    let part = |part: &str| {
        let (code, out, err) = bench.run(&["doctor", "--json"]);
        let findings: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
        let findings = findings.as_array().unwrap();
        assert_eq!(code == 0, findings.iter().all(|finding| finding["ok"] == true), "{out}");
        findings.iter().find(|finding| finding["part"] == part).unwrap().clone()
    };
    let (code, out, err) = bench.run(&["doctor"]);
    assert_eq!((code, out.lines().count(), err.as_str()), (0, 6, ""), "{out}");
    assert!(out.contains("\nok    hooks     a runs, and a release can be installed beside it\n"), "{out}");
    assert!(out.contains("\nok    network   install 1.2.0 (sequence 12): image.bin\n"), "{out}");
    // While another process has the state folder.
    let held = tidegate_client::store::DirStore::open(bench.path("state")).unwrap();
    assert_eq!(part("state")["ok"], true);
    drop(held);
    bench.set(&json!({"reserve": 1_000_000_000_000_000_u64}));
    assert!(part("space")["message"].as_str().unwrap().contains("fewer than the reserve"));
    bench.set(&json!({"reserve": null, "facts_program": ["./none"]}));
    assert!(part("settings")["message"].as_str().unwrap().contains("facts_program: "));
    bench.set(&json!({"facts_program": null}));
    fs::write(bench.path("running"), "nothing").unwrap();
    assert!(part("hooks")["message"].as_str().unwrap().contains("must print a or b"));
    fs::write(bench.path("running"), "a").unwrap();
    fs::rename(bench.path("repository"), bench.path("away")).unwrap();
    let network = part("network");
    assert!(network["ok"] == false && network["remedy"].is_string(), "{network}");
    fs::rename(bench.path("away"), bench.path("repository")).unwrap();
    // What cannot be used stops no other check.
    bench.set(&json!({"network": {"ca": "none.pem"}}));
    assert!(part("settings")["message"].as_str().unwrap().contains("none.pem") && part("hooks")["ok"] == true);
    assert!(part("network")["message"].as_str().unwrap().starts_with("not checked") && part("state")["ok"] == true);
    let good: Value = serde_json::from_slice(&fs::read(bench.path("device.json")).unwrap()).unwrap();
    bench.set(&json!({"network": null, "root": "none.json", "polls": 1, "trial": {"boots": 0}}));
    let wrong = part("settings")["message"].as_str().unwrap().to_owned();
    assert!(["none.json", "polls", "trial.boots"].iter().all(|name| wrong.contains(name)), "{wrong}");
    assert!(part("hooks")["ok"] == true && part("space")["ok"] == true && part("network")["ok"] == false);
    fs::write(bench.path("device.json"), good.to_string()).unwrap();
    bench.set(&json!({"network": null, "channel": "stabel"}));
    assert_eq!(
        part("network")["message"],
        "stabel/cohorts.json: there is no such channel: set channel to one that there is: stable"
    );
    assert!(said(&bench, &["check"]).contains("set channel to one that there is: stable"));
    bench.set(&json!({"channel": "stable"}));
    fs::rename(bench.path("state"), bench.path("state.aside")).unwrap();
    fs::write(bench.path("state"), "").unwrap();
    assert!(part("state")["ok"] == false && part("hooks")["ok"] == true && part("network")["ok"] == true);
    fs::remove_file(bench.path("state")).unwrap();
    fs::rename(bench.path("state.aside"), bench.path("state")).unwrap();
    fs::create_dir_all(bench.path("state")).unwrap();
    fs::write(bench.path("state/device"), "device-9").unwrap();
    assert!(part("state")["message"].as_str().unwrap().contains("that of device device-9"));
}

/// A proxy of the settings is a setting; one of the environment is met by what goes through it.
#[test]
fn a_proxy_that_cannot_be_used_stops_what_goes_through_it() {
    let bench = bench();
    let said = |command: &str| {
        let out = bench.command(&[command]).env("http_proxy", "http://proxy:notaport").output().unwrap();
        let text = [out.stdout, out.stderr].concat();
        (out.status.code(), String::from_utf8(text).unwrap())
    };
    assert_eq!(said("check").0, Some(0));
    bench.set(&json!({"repository": "http://127.0.0.1:9/"}));
    let (code, text) = said("check");
    assert!(code != Some(0) && text.contains(": the proxy http://"), "{text}");
    assert_eq!(said("status").0, Some(0));
    bench.set(&json!({"repository": "http://127.0.0.1:0/"}));
    let (code, text) = said("check");
    assert!(code == Some(1) && text.contains("its port is none from 1 to 65535"), "{text}");
    bench.set(&json!({"repository": "repository", "network": {"proxy": "http://proxy:notaport"}}));
    let (code, text) = said("status");
    assert!(code == Some(2) && text.contains("network.proxy"), "{text}");
}

/// That UTC is assumed is said, and no fault. Needs root.
#[test]
fn a_system_without_a_zone_has_utc_with_a_remark() {
    let bench = bench();
    bench.set(&json!({"policy": {"windows": ["mon 01:00 - 02:00"], "time_zone": "system"}}));
    let script = "set -e; unset TZ TZDIR; mount -t tmpfs t /etc; echo ready; $program check -q 2>&1; $program doctor";
    let Some(text) = with_mounts(&bench, script) else { return };
    assert!(
        text.contains("ok    settings  they can be used; policy.time_zone: the system sets no time zone"),
        "{text}"
    );
}

/// The state folder belongs to another user: what is said names that, and the agent does not spin.
#[test]
fn a_state_folder_without_permission_is_told() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::process::CommandExt as _;
    let bench = bench();
    bench.set(&json!({"poll": {"interval": "1s", "first_within": "0s"}}));
    bench.run(&["check", "-q"]);
    let allow = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(bench.path(""), allow(0o777)).unwrap();
    fs::set_permissions(bench.path("state"), allow(0)).unwrap();
    let command = |word: &str| {
        let mut command = bench.command(&[word]);
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(65534);
        }
        command
    };
    let said = |word: &str| {
        let out = command(word).output().unwrap();
        (out.status.code(), String::from_utf8([out.stdout, out.stderr].concat()).unwrap())
    };
    for word in ["check", "status", "install"] {
        let (code, text) = said(word);
        assert!(
            code == Some(1) && text.contains("state") && text.contains("help: give this user the permission"),
            "{text}"
        );
    }
    let (code, text) = said("doctor");
    assert!(code == Some(1) && text.contains("FAIL  state") && text.contains("help: give this user"), "{text}");
    assert!(text.contains("ok    network   install 1.2.0"), "{text}");
    let mut agent = command("run");
    agent.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut agent = agent.spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2500));
    agent.kill().unwrap();
    let out = agent.wait_with_output().unwrap();
    let text = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
    assert_eq!(text.matches("ermission denied").count(), 1, "{text}");
    fs::set_permissions(bench.path("state"), allow(0o700)).unwrap();
}

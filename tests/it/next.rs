//! The next command: what `status` names is accepted, through a whole life; few commands make a release; a refusal names the command
//! that resolves it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::Value;

use crate::clones::text;
use crate::support::{Fleet, words};

/// A fleet whose tidegate.toml says where to publish, and a file of the name that commands leave to people.
fn fleet() -> Fleet {
    let fleet = Fleet::shaped(|_, text| text.replace("[publish]\n", "[publish]\nplace = \"../public\"\n"));
    fs::write(fleet.dir.path().join("FILE"), "the bytes of an image").unwrap();
    fleet
}

/// Runs a command line as it is written, at the fleet's time.
fn run(fleet: &Fleet, line: &str) -> Output {
    let now = fleet.now.to_rfc3339_opts(SecondsFormat::Secs, true);
    let words = words(line);
    assert_eq!(words[0], "tidegate", "{line}");
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(&words[1..])
        .args(["--now", &now])
        .current_dir(fleet.dir.path())
        .env("NO_COLOR", "1")
        .env("TIDEGATE_ACTOR", "tester")
        .output()
        .unwrap()
}

/// Runs a command on the workspace, which must succeed.
fn done(fleet: &Fleet, line: &str) -> String {
    let line = format!("tidegate -C fleet {line}");
    let out = run(fleet, &line);
    assert!(out.status.success(), "{line} at {}: {}", fleet.now, text(&out));
    text(&out)
}

fn json(fleet: &Fleet, line: &str) -> Value {
    let out = run(fleet, &format!("tidegate -C fleet {line} --json"));
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{line}: {e}: {}", text(&out)))
}

/// What `status` names: the command, or when there is one.
fn next(fleet: &Fleet) -> (Option<String>, Option<DateTime<Utc>>, String) {
    let status = json(fleet, "status");
    let at = status["next_at"].as_str().map(|at| at.parse().unwrap());
    (status["next"].as_str().map(str::to_owned), at, status["next_reason"].as_str().unwrap().to_owned())
}

/// Runs exactly what `status` names and returns it without its options; waits if there is nothing to do now.
fn follow(fleet: &mut Fleet) -> String {
    let (command, at, reason) = next(fleet);
    let Some(command) = command else {
        let at = at.unwrap_or_else(|| panic!("nothing to do, and no time is named: {reason}"));
        assert!(at > fleet.now, "{reason}");
        fleet.now = at;
        return "wait".to_owned();
    };
    // A person compares the digest with the other signers, and types it.
    let confirm = if command.contains("ceremony sign") {
        format!(" --confirm {}", json(fleet, "ceremony status")["digest"].as_str().unwrap())
    } else {
        String::new()
    };
    let out = run(fleet, &format!("{command}{confirm}"));
    assert!(out.status.success(), "{command} at {}: {}", fleet.now, text(&out));
    let name = command.strip_prefix("tidegate -C fleet ").unwrap();
    let options = name.find(" --").unwrap_or(name.len());
    name[..options].to_owned()
}

/// Follows until a command of this name has run. Returns what was done, waiting and renewals left out.
fn follow_to(fleet: &mut Fleet, last: &str) -> Vec<String> {
    let mut done = Vec::new();
    for _ in 0..60 {
        let step = follow(fleet);
        let is_last = step.starts_with(last);
        if !matches!(step.as_str(), "wait" | "refresh" | "publish") || is_last {
            done.push(step);
        }
        if is_last {
            return done;
        }
    }
    panic!("{last} never came: {done:?}");
}

#[test]
fn status_names_the_next_command_through_a_whole_life() {
    let mut fleet = fleet();
    // The first release reaches its first cohort with 4 commands after init.
    let begun: Vec<_> = (0..4).map(|_| follow(&mut fleet)).collect();
    assert_eq!(
        begun,
        ["release create 1.0.0 FILE", "release sign 1.0.0", "release register 1.0.0", "rollout start 1.0.0"]
    );
    assert_eq!(json(&fleet, "status")["publication"][0]["published"], true);

    let (command, at, reason) = next(&fleet);
    assert_eq!((command, at), (None, Some(fleet.now + TimeDelta::hours(18) + TimeDelta::seconds(1))), "{reason}");
    assert!(reason.contains("the cohort canary has had it for 0s"), "{reason}");
    let rest = follow_to(&mut fleet, "rollout complete");
    assert_eq!(rest, ["rollout advance 1.0.0", "rollout advance 1.0.0", "rollout complete 1.0.0"]);
    let before = fleet.now;
    assert_eq!(follow_to(&mut fleet, "refresh"), ["refresh"]);
    assert!(fleet.now > before, "a stable release needs nothing but renewals");
    assert_eq!(follow(&mut fleet), "publish");

    // What is done by hand is published next.
    done(&fleet, "rollout withdraw 1.0.0");
    assert_eq!(follow(&mut fleet), "publish");
    let later: Vec<_> = (0..4).map(|_| follow(&mut fleet)).collect();
    assert_eq!(
        later,
        ["release create 1.1.0 FILE", "release sign 1.1.0", "release register 1.1.0", "rollout start 1.1.0"]
    );
    done(&fleet, "rollout pause 1.1.0");
    assert_eq!(follow(&mut fleet), "publish");
    // How it goes on is for whoever paused it to say.
    let (command, _, reason) = next(&fleet);
    let says = |what: &str| reason.contains(what);
    assert!(
        command.is_none() && says("stable/os/1.1.0 is paused") && says("tidegate rollout resume 1.1.0"),
        "{reason}"
    );
    done(&fleet, "rollout resume 1.1.0 --publish");

    // A ceremony comes before the rollout goes on.
    let path = fleet.path().join("tidegate.toml");
    let settings = fs::read_to_string(&path).unwrap();
    fs::write(&path, settings.replacen("threshold = 2", "threshold = 3", 1)).unwrap();
    let ceremony: Vec<_> = (0..4).map(|_| follow(&mut fleet)).collect();
    assert_eq!(ceremony, ["ceremony start", "ceremony sign", "ceremony finish", "publish"]);

    // Nobody looked for longer than every role lives.
    fleet.now += TimeDelta::days(400);
    let rescued = follow_to(&mut fleet, "rollout");
    assert_eq!(rescued[..3], ["ceremony start", "ceremony sign", "ceremony finish"], "{rescued:?}");
    assert_eq!(rescued[rescued.len() - 2..], ["release validate 1.1.0", "rollout renew 1.1.0"], "{rescued:?}");
    let out = run(&fleet, "tidegate verify public --root fleet/metadata/1.root.json");
    assert!(out.status.success(), "{}", text(&out));
}

/// A command is named where it will be accepted; else who has the keys that it takes.
#[test]
fn a_command_is_not_named_where_its_keys_are_elsewhere() {
    let mut fleet = fleet();
    let key = |name: &str| fleet.path().join("keys").join(name);
    let (snapshot, away) = (key("snapshot.pem"), fleet.dir.path().join("snapshot.pem"));
    for step in ["release create 1.0.0 FILE", "release sign 1.0.0", "release register 1.0.0", "rollout start 1.0.0"] {
        fs::rename(&snapshot, &away).unwrap();
        if step.starts_with("release register") || step.starts_with("rollout") {
            assert_ne!(next(&fleet).0, Some(format!("tidegate -C fleet {step}")));
            let told = done(&fleet, "rollout status 1.0.0");
            assert!(told.contains("snapshot (file:keys/snapshot.pem)") && told.contains(step), "{told}");
        }
        fs::rename(&away, &snapshot).unwrap();
        assert_eq!(follow(&mut fleet), step);
    }
    done(&fleet, "ceremony start --renew root");
    assert_eq!(follow(&mut fleet), "ceremony sign");
    let path = fleet.path().join("tidegate.toml");
    let settings = fs::read_to_string(&path).unwrap();
    let held = settings.replacen("[keys.timestamp]", "[keys.timestamp]\nholder = \"Night shift\"", 1);
    assert_ne!(settings, held);
    fs::write(&path, held).unwrap();
    let (timestamp, away) = (fleet.path().join("keys/timestamp.pem"), fleet.dir.path().join("timestamp.pem"));
    fs::rename(&timestamp, &away).unwrap();
    let (named, _, reason) = next(&fleet);
    assert_eq!(named, None, "{reason}");
    assert!(
        reason.contains("timestamp (held by Night shift)") && reason.contains("tidegate ceremony finish"),
        "{reason}"
    );
    fs::rename(&away, &timestamp).unwrap();
    assert_eq!(follow(&mut fleet), "ceremony finish");
}

#[test]
fn a_hint_is_what_status_names() {
    let mut fleet = fleet();
    let hint = |text: &str| text.lines().find_map(|line| line.strip_prefix("next: ")).map(str::to_owned);
    done(&fleet, "release new 1.0.0");
    for line in [
        "release add 1.0.0 FILE --hardware board-a",
        "release manifest 1.0.0",
        "release sign 1.0.0 --key release-1",
        "release sign 1.0.0 --key release-2",
        "release validate 1.0.0",
        "release register 1.0.0",
    ] {
        let hinted = hint(&done(&fleet, line));
        assert_eq!(hinted, next(&fleet).0, "{line}");
    }
    let hinted = hint(&done(&fleet, "rollout start 1.0.0"));
    assert_eq!((hinted.as_deref(), follow(&mut fleet).as_str()), (Some("tidegate -C fleet publish"), "publish"));
    let (command, _, reason) = next(&fleet);
    let hinted = hint(&done(&fleet, "rollout status 1.0.0")).unwrap();
    let own = hinted.split_once("Z: ").unwrap().1;
    assert!(command.is_none() && hinted.starts_with("nothing until") && reason.starts_with(own), "{hinted}");
    let hinted = hint(&done(&fleet, "ceremony start --renew root"));
    assert_eq!(hinted, next(&fleet).0);
    assert_eq!(hinted.as_deref(), Some("tidegate -C fleet ceremony sign --key root-1 --key root-2"));
}

/// Each entry of the folder, with its content.
fn tree(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.path().display().to_string();
        if entry.path().is_dir() {
            found.extend(tree(&entry.path()));
        } else if !name.contains("/.tidegate/") {
            found.push((name, fs::read(entry.path()).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn create_makes_a_whole_release_or_nothing() {
    let fleet = fleet();
    for name in ["a.img", "b.img", "c.img"] {
        fs::write(fleet.dir.path().join(name), format!("the bytes of {name}")).unwrap();
    }
    fs::write(fleet.dir.path().join("empty"), "").unwrap();
    let before = tree(&fleet.path());
    for (line, why) in [
        ("1.0.0 a.img --hardware board-a missing.img --hardware board-b", "cannot read missing.img"),
        ("1.0.0 a.img b.img empty --hardware board-a", "empty is empty"),
        ("1.0.0 a.img --hardware board-a b.img --hardware board-z", "unknown hardware 'board-z'"),
        ("1.0.0 a.img b.img --name a.img --hardware board-a", "two files would be the artifact a.img"),
        ("1.0.0 a.img --hardware board-a --supersedes 9", "could not be released this way"),
        ("1.0.0 a.img --hardware board-a b.img", "no --hardware follows b.img"),
        ("1.0.0 --hardware board-a a.img --hardware board-b b.img", "no --hardware follows b.img"),
        ("1.0.0 --hardware board-a a.img b.img --hardware board-b", "no FILE stands before --hardware board-a"),
        ("1.0.0 --name x.img a.img b.img --hardware board-a", "write --name after the FILE"),
        ("1.0.0 a.img", "--hardware <ID>"),
    ] {
        let out = run(&fleet, &format!("tidegate -C fleet release create {line}"));
        assert!(!out.status.success() && text(&out).contains(why), "{line}: {}", text(&out));
        assert_eq!(tree(&fleet.path()), before, "{line}");
    }
    let line = "release create 1.0.0 a.img b.img --name second.img --hardware board-a c.img --hardware board-a --hardware board-b --note one";
    let dry = json(&fleet, &format!("{line} --dry-run"));
    assert_eq!(tree(&fleet.path()), before, "a dry run changes nothing");
    let made = json(&fleet, line);
    assert_eq!((dry["manifest"].clone(), dry["dry_run"].clone()), (made["manifest"].clone(), Value::Bool(true)));
    let artifacts: Vec<_> =
        made["artifacts"].as_array().unwrap().iter().map(|a| (a["name"].clone(), a["hardware"].clone())).collect();
    let expected = [("a.img", vec!["board-a"]), ("c.img", vec!["board-a", "board-b"]), ("second.img", vec!["board-a"])];
    assert_eq!(artifacts, expected.map(|(name, hardware)| (name.into(), hardware.into())));
    assert_eq!(tidegate::release::audit::audit(&fleet.path()).unwrap().1, [""; 0]);
    let out = run(&fleet, "tidegate -C fleet release create 1.0.0 c.img --hardware board-a");
    assert!(text(&out).contains("R-EXISTS"), "{}", text(&out));
}

#[test]
fn sign_without_a_key_uses_those_that_are_here() {
    let fleet = fleet();
    done(&fleet, "release create 1.0.0 FILE --hardware board-a");
    let away = |name: &str| fs::rename(fleet.path().join("keys").join(name), fleet.dir.path().join(name)).unwrap();
    away("release-1.pem");
    let signed = done(&fleet, "release sign 1.0.0");
    assert!(signed.contains("Signed stable/os/1.0.0 with release-2"), "{signed}");
    assert!(signed.contains("release-1 cannot be used here: ") && signed.contains("1 of 2 signatures"), "{signed}");
    done(&fleet, "publish");
    let (command, _, reason) = next(&fleet);
    assert!(command.is_none() && reason.contains("send them proposals/stable-os-1.0.0.json"), "{command:?} {reason}");
    let out = run(&fleet, "tidegate -C fleet release sign 1.0.0");
    assert!(
        text(&out).contains("K-MISSING") && text(&out).contains("release sign stable/os/1.0.0 --copy FILE"),
        "{}",
        text(&out)
    );

    // What it names, where the key is.
    let copy = fleet.dir.path().join("copy.json");
    fs::copy(fleet.path().join("proposals/stable-os-1.0.0.json"), &copy).unwrap();
    let root = "--root fleet/metadata/1.root.json";
    let out = run(&fleet, &format!("tidegate ceremony status copy.json {root} --json"));
    let digest = serde_json::from_slice::<Value>(&out.stdout).unwrap()["digest"].as_str().unwrap().to_owned();
    let out =
        run(&fleet, &format!("tidegate ceremony sign copy.json {root} --key file:release-1.pem --confirm {digest}"));
    assert!(out.status.success(), "{}", text(&out));
    done(&fleet, "release sign 1.0.0 --copy copy.json");
    let out = run(&fleet, "tidegate -C fleet release sign 1.0.0");
    assert!(text(&out).contains("every key of the role stable has signed"), "{}", text(&out));
}

#[test]
fn register_runs_the_checks_that_are_missing() {
    let mut fleet = fleet();
    done(&fleet, "release create 1.0.0 FILE --hardware board-a");
    done(&fleet, "release sign 1.0.0");
    let path = fleet.path().join("policy.toml");
    let policy = fs::read_to_string(&path).unwrap();
    let check =
        "\n[[validation.check]]\nid = \"X-NO\"\ntitle = \"never\"\ncommand = [\"/bin/false\"]\ntimeout = \"5s\"\n";
    fs::write(&path, format!("{policy}{check}")).unwrap();
    let out = run(&fleet, "tidegate -C fleet release register 1.0.0");
    assert!(!out.status.success() && text(&out).contains("FAIL  X-NO"), "{}", text(&out));
    assert_eq!(json(&fleet, "release show 1.0.0")["record"]["state"], "signed");
    done(&fleet, "publish");
    let (command, _, reason) = next(&fleet);
    assert!(command.is_none() && reason.contains("tidegate release validate stable/os/1.0.0"), "{command:?} {reason}");
    fs::write(&path, policy).unwrap();
    done(&fleet, "release validate 1.0.0");
    let registered = json(&fleet, "release register 1.0.0");
    assert_eq!(registered["report"], Value::Null, "the report is fresh");
    // The report grows old, and the rollout needs a new one.
    fleet.pass(24 * 8);
    assert_eq!(follow_to(&mut fleet, "rollout"), ["release validate 1.0.0", "rollout start 1.0.0"]);
}

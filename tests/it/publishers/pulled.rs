//! Workspaces made from what is published.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use super::said;
use crate::support::forge::copy;
use crate::support::{Fleet, Forge};
use crate::view::story::{NOW, Story, text, tidegate};

/// Checks that `log --verify` and `doctor` accept the workspace `dir`, and gives back the ids and places of doctor's warnings.
pub fn accepted(dir: &Path, now: &str) -> Vec<(String, String)> {
    let run = |args: &[&str]| tidegate(&[&["-C", text(dir), "--now", now, "--json"], args].concat());
    let log = run(&["log", "--verify"]);
    assert!(log.status.success(), "{}", said(&log));
    let entries: Value = serde_json::from_slice(&run(&["log"]).stdout).unwrap();
    assert_eq!(entries[0]["event"], "pull", "{entries:#}");
    assert!(entries[0]["reason"].is_string() && entries[0]["evidence"]["versions"]["root"].is_u64(), "{entries:#}");
    let doctor = run(&["doctor"]);
    assert!(doctor.status.success(), "{}", said(&doctor));
    let found: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let of = |finding: &Value| (finding["id"].as_str().unwrap().into(), finding["place"].as_str().unwrap().into());
    found["findings"].as_array().unwrap().iter().map(of).collect()
}

fn has(findings: &[(String, String)], id: &str, place: &str) -> bool {
    findings.iter().any(|(found, of)| found == id && of.contains(place))
}

/// Pulls into the new folder `name` of the story, as of its end.
fn pulled(story: &Story, name: &str, args: &[&str]) -> (PathBuf, Output) {
    let (dir, public, root) = (story.path(name), story.public(), story.root());
    let line = ["-C", text(&dir), "--now", NOW, "pull", text(&public), "--root", text(&root)];
    let out = tidegate(&[&line[..], args].concat());
    assert!(out.status.success(), "{}", said(&out));
    (dir, out)
}

#[test]
fn a_pulled_workspace_is_accepted_by_its_own_checks() {
    let story = Story::new();
    let (dir, out) = pulled(&story, "bare", &[]);
    // What cannot be told from what is published is told.
    for lost in
        ["policy.toml", "the ledger", "1.0.0 is offered to no cohort", "tidegate rollout withdraw stable/os/1.0.0"]
    {
        assert!(said(&out).contains(lost), "{lost}: {}", said(&out));
    }
    let found = accepted(&dir, NOW);
    assert!(has(&found, "DOC-STORE", "rootfs.img") && has(&found, "DOC-LEDGER", "stable/os/1.0.0"), "{found:?}");
    let out = tidegate(&["-C", text(&dir), "--now", NOW, "rollout", "withdraw", "1.0.0"]);
    assert!(out.status.success(), "{}", said(&out));
    assert!(!has(&accepted(&dir, NOW), "DOC-LEDGER", ""));

    let (dir, _) = pulled(&story, "whole", &["--artifacts"]);
    assert!(!has(&accepted(&dir, NOW), "DOC-STORE", ""));
}

#[test]
fn backed_up_keys_sign_in_a_pulled_workspace_whatever_their_files_are_called() {
    let story = Story::new();
    let keys = story.path("backup");
    copy(&story.workspace().join("keys"), &keys);
    fs::rename(keys.join("timestamp.pem"), keys.join("night-shift.pem")).unwrap();
    let run = |dir: &Path, args: &[&str]| tidegate(&[&["-C", text(dir), "--now", NOW], args].concat());
    // Put there before, they give their names.
    let dir = story.path("before");
    copy(&keys, &dir.join("keys"));
    let (dir, _) = pulled(&story, text(&dir), &[]);
    let settings = fs::read_to_string(dir.join("tidegate.toml")).unwrap();
    assert!(settings.contains("uri = \"file:keys/night-shift.pem\""), "{settings}");
    for name in ["root-1", "root-2", "release-1", "night-shift"] {
        let here = run(&dir, &["key", "show", name, "--json"]);
        let of: Value = serde_json::from_slice(&here.stdout).unwrap();
        let original = if name == "night-shift" { "timestamp" } else { name };
        let there = run(&story.workspace(), &["key", "show", original, "--json"]);
        assert_eq!(of["keyid"], serde_json::from_slice::<Value>(&there.stdout).unwrap()["keyid"], "{name}");
    }
    assert!(!has(&accepted(&dir, NOW), "DOC-KEYS-NAME", ""));

    // Put there afterwards, they are found by what they are, and doctor says which is which.
    let (dir, _) = pulled(&story, "after", &[]);
    copy(&keys, &dir.join("keys"));
    assert!(has(&accepted(&dir, NOW), "DOC-KEYS-NAME", "tidegate.toml"));
    // Every remedy is accepted, also where an earlier one has resolved it.
    let other = story.path("remedies");
    copy(&dir, &other);
    let imports = || -> Vec<String> {
        let found: Value = serde_json::from_slice(&run(&other, &["doctor", "--json"]).stdout).unwrap();
        let remedies = found["findings"].as_array().unwrap().iter().filter_map(|finding| finding["remedy"].as_str());
        remedies.filter_map(|remedy| Some(remedy.split_once(": tidegate key ")?.1.to_owned())).collect()
    };
    let remedies = imports();
    assert!(remedies.len() > 1, "two keys have each other's names");
    for remedy in remedies {
        let out = run(&other, &[&["key"], &remedy.split(' ').collect::<Vec<_>>()[..]].concat());
        assert!(out.status.success(), "{remedy}: {}", said(&out));
    }
    assert_eq!(imports(), [""; 0]);
    let out = run(&dir, &["key", "check"]);
    assert!(out.status.success() && !said(&out).contains("not here"), "{}", said(&out));
    // By their names they get the names that they had.
    for name in ["root-1", "root-2", "root-3", "release-1", "release-2", "targets-1", "targets-2", "targets-3"] {
        let id = |dir: &Path| -> Value {
            serde_json::from_slice(&run(dir, &["key", "show", name, "--json"]).stdout).unwrap()
        };
        let original = id(&story.workspace())["keyid"].clone();
        if id(&dir)["keyid"] != original {
            let out = run(&dir, &["key", "import", name, &format!("file:keys/{name}.pem")]);
            assert!(out.status.success(), "{}", said(&out));
        }
        assert_eq!(id(&dir)["keyid"], original, "{name}");
    }
    assert!(!has(&accepted(&dir, NOW), "DOC-INTENT", ""));
    let second = story.path("second");
    for args in [&["refresh"][..], &["publish"]] {
        let out = run(&dir, args);
        assert!(out.status.success(), "{args:?}: {}", said(&out));
    }
    // An empty place needs what this workspace does not have.
    let out = run(&dir, &["publish", text(&second)]);
    assert!(!out.status.success() && said(&out).contains("tidegate sync FROM TO"), "{}", said(&out));
    assert!(!second.exists(), "nothing was sent");
    for args in [&["pull", text(&story.public()), "--artifacts"][..], &["publish", text(&second)]] {
        let out = run(&dir, args);
        assert!(out.status.success(), "{args:?}: {}", said(&out));
    }
}

#[test]
fn channels_products_and_paused_rollouts_come_back() {
    let mut fleet = Fleet::shaped(|name, text| match name {
        "tidegate.toml" => {
            let (from, until) =
                (text.find("[channels.stable.release]").unwrap(), text.find("\n# How objects").unwrap());
            let beta = text[from..until].replace("channels.stable", "channels.beta");
            format!("{}{beta}\n{}", &text[..from], &text[from..]).replace("[\"os\"]", "[\"os\", \"app\"]")
        }
        "cohorts.toml" => {
            let beta = "[beta]\nsalt = \"00000000000000000000000000000000\"\n\n[[beta.cohort]]\nname = \"everyone\"\nshare = \"100%\"\n";
            format!("{text}\n{beta}")
        }
        _ => text,
    });
    let (os, app) = (fleet.release("stable/os/1.0.0", |_| ()), fleet.release("stable/app/2.0.0", |_| ()));
    fleet.release("beta/os/1.1.0", |_| ());
    fleet.everywhere(&os);
    fleet.validate(&app);
    fleet.start(&app);
    fleet.step(&app, |transaction, op| transaction.pause(op, None)).unwrap();
    let (public, now) = (fleet.dir.path().join("public"), tidegate_tuf::time::format(fleet.now));
    for args in [&["refresh"][..], &["publish", text(&public)]] {
        let out = tidegate(&[&["-C", text(&fleet.path()), "--now", &now], args].concat());
        assert!(out.status.success(), "{}", said(&out));
    }
    let (dir, root) = (fleet.dir.path().join("again"), fleet.path().join("metadata/1.root.json"));
    let out = tidegate(&["-C", text(&dir), "--now", &now, "pull", text(&public), "--root", text(&root)]);
    assert!(out.status.success(), "{}", said(&out));
    let found = accepted(&dir, &now);
    assert!(has(&found, "DOC-LEDGER", "beta/os/1.1.0") && !has(&found, "DOC-INTENT", ""), "{found:?}");
    let list = |dir: &Path| {
        let out = tidegate(&["-C", text(dir), "--now", &now, "release", "list"]);
        said(&out).replace("validation", "registered")
    };
    assert_eq!(list(&dir), list(&fleet.path()));
}

/// The roots of ceremonies come back whole, and keys that replaced others are not mistaken for them.
#[test]
fn a_workspace_comes_back_after_ceremonies() {
    let mut forge = Forge::with_cohorts(2).with_settings();
    forge.release("1.0.0", 1, &[("os.img", b"one")]);
    forge.renew(&["root"]);
    forge.renew(&["root"]);
    let (folder, now) = (tempfile::tempdir().unwrap(), tidegate_tuf::time::format(forge.now()));
    let (public, dir) = (folder.path().join("public"), folder.path().join("again"));
    let out = tidegate(&["-C", text(forge.dir()), "--now", &now, "publish", text(&public)]);
    assert!(out.status.success(), "{}", said(&out));
    let root = forge.dir().join("metadata/3.root.json");
    let out = tidegate(&["-C", text(&dir), "--now", &now, "pull", text(&public), "--root", text(&root)]);
    assert!(out.status.success(), "{}", said(&out));
    accepted(&dir, &now);
    let settings = fs::read_to_string(dir.join("tidegate.toml")).unwrap();
    assert!(settings.contains("keys = [\"root-1\", \"root-2\", \"root-3\"]"), "{settings}");
}

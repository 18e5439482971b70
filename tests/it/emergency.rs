//! What is signed and what devices see: told apart everywhere, and brought together by one command in an emergency.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tidegate::report::view::Place;

use crate::clones::{done, run, text};
use crate::support::Fleet;
use crate::support::tools::have;

fn json(fleet: &Fleet, line: &str) -> Value {
    serde_json::from_slice(&run(fleet, &fleet.path(), &format!("{line} --json")).stdout).unwrap()
}

fn publishes_to(fleet: &Fleet, place: &str) {
    let path = fleet.path().join("tidegate.toml");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("place = ")).collect();
    let text = lines.join("\n");
    fs::write(&path, text.replace("[publish]\n", &format!("[publish]\nplace = \"{place}\"\n"))).unwrap();
}

/// Whether all offers at the place are paused, and how many there are.
fn live(fleet: &Fleet) -> (bool, usize) {
    let place = Place::parse(fleet.dir.path().join("public").to_str().unwrap()).unwrap();
    let reading = place.read(Some(&fleet.path().join("metadata/1.root.json"))).unwrap();
    let offers: Vec<_> = reading.offers.values().flat_map(|list| &list.offers).collect();
    (offers.iter().all(|offered| offered.offer.paused), offers.len())
}

const TELLING: [&str; 3] = ["status", "rollout status 1.0.0", "doctor"];

#[test]
fn what_is_not_published_is_told_wherever_it_is_looked_for() {
    let fleet = Fleet::new();
    let spec = fleet.release("1.0.0", |_| ());
    fleet.start(&spec);
    let dir = fleet.path();
    let refused = run(&fleet, &dir, "publish");
    assert!(!refused.status.success() && text(&refused).contains("place under [publish]"), "{}", text(&refused));
    let refused = run(&fleet, &dir, "rollout pause 1.0.0 --publish");
    assert!(!refused.status.success() && !spec.find(&dir).unwrap().paused, "nothing is done by half");

    publishes_to(&fleet, "../public");
    let publication = |line: &str| json(&fleet, line)["publication"][0].clone();
    assert_eq!(publication("status")["live"], Value::Null);
    done(&fleet, &dir, "publish");
    for line in TELLING {
        assert!(!done(&fleet, &dir, line).contains("not published"), "{line}");
    }
    assert_eq!(publication("rollout status 1.0.0")["published"], true);

    done(&fleet, &dir, "rollout pause 1.0.0");
    // Whatever this checkout remembers, the place itself is asked.
    let remembered = fs::read(dir.join("published.json")).unwrap();
    fs::write(
        dir.join("published.json"),
        String::from_utf8_lossy(&remembered).replace("\"timestamp\": 3", "\"timestamp\": 4"),
    )
    .unwrap();
    for line in TELLING {
        let told = done(&fleet, &dir, line);
        assert!(told.contains("not published yet: ") && told.contains("stable.canary"), "{line}: {told}");
    }
    let told = publication("status");
    assert_eq!(
        (&told["published"], &told["waiting"]),
        (&false.into(), &serde_json::json!(["stable.validation", "stable.canary"]))
    );
    fs::write(dir.join("published.json"), remembered).unwrap();

    // A place that cannot be reached is a remark, and what is known is told all the same.
    publishes_to(&fleet, "http://127.0.0.1:9/fleet");
    for line in TELLING {
        let told = done(&fleet, &dir, line);
        assert!(told.contains("not published yet: ") && told.contains("cannot be reached"), "{line}: {told}");
    }
    // One that is wrong in tidegate.toml is not called unreachable.
    publishes_to(&fleet, "ftp://host/fleet");
    let told = done(&fleet, &dir, "status");
    assert!(told.contains("cannot be used: there is no store behind ftp://; give s3://"), "{told}");
    publishes_to(&fleet, "../public");
    // Paused before, and published now.
    done(&fleet, &dir, "rollout pause 1.0.0 --publish");
    assert_eq!(live(&fleet), (true, 2));
    for line in TELLING {
        assert!(!done(&fleet, &dir, line).contains("not published"), "{line}");
    }
    done(&fleet, &dir, "rollout withdraw 1.0.0 --publish");
    assert_eq!(live(&fleet).1, 0);
}

#[cfg(unix)]
#[test]
fn a_fresh_clone_with_the_online_keys_renews_and_stops_everything() {
    if !have("git", "--version") {
        return;
    }
    let fleet = Fleet::new();
    for (version, start) in [("1.0.0", true), ("1.1.0", true), ("1.2.0", false)] {
        let spec = fleet.release(version, |_| ());
        if start {
            fleet.start(&spec);
        }
    }
    publishes_to(&fleet, "../public");
    done(&fleet, &fleet.path(), "publish");
    assert_eq!(live(&fleet), (false, 4));
    let git = |dir: &Path, args: &[&str]| {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
        let out = Command::new("git").args(identity).arg("-C").arg(dir).args(args).output().unwrap();
        assert!(out.status.success(), "git {args:?}: {}", text(&out));
    };
    for args in [&["init", "-q", "."][..], &["add", "-A"], &["commit", "-qm", "x"]] {
        git(&fleet.path(), args);
    }
    // As git does on Windows; .gitattributes keeps the bytes.
    git(fleet.dir.path(), &["clone", "-q", "-c", "core.autocrlf=true", "fleet", "clone"]);
    let clone = fleet.dir.path().join("clone");
    fs::create_dir(clone.join("keys")).unwrap();
    for key in ["rollout", "snapshot", "timestamp"] {
        fs::copy(fleet.path().join(format!("keys/{key}.pem")), clone.join(format!("keys/{key}.pem"))).unwrap();
    }
    assert!(!clone.join("artifacts/sha256").exists(), "what builds made is not in version control");
    for line in ["refresh", "publish", "status"] {
        done(&fleet, &clone, line);
    }
    // Somebody else publishes meanwhile; the emergency does not wait for that to be sorted out.
    done(
        &fleet,
        &fleet.path(),
        "pull ../public".replace("../public", fleet.dir.path().join("public").to_str().unwrap()).as_str(),
    );
    done(&fleet, &fleet.path(), "refresh");
    done(&fleet, &fleet.path(), "publish");
    let out = done(&fleet, &clone, "rollout pause --all --publish");
    assert!(out.contains("stable/os/1.0.0 is paused") && out.contains("stable/os/1.1.0 is paused"), "{out}");
    assert_eq!(live(&fleet), (true, 4));
    done(&fleet, &clone, "rollout pause --all --publish");
    done(&fleet, &clone, "rollout withdraw 1.1.0 --publish");
    assert_eq!(live(&fleet), (true, 2));

    // What cannot be paused here is named, and stops nothing else.
    done(&fleet, &clone, "rollout resume 1.0.0");
    fs::remove_file(clone.join("releases/stable/os/1.0.0/release.json")).unwrap();
    let out = run(&fleet, &clone, "rollout pause --all --publish");
    let said = text(&out);
    assert!(out.status.code() == Some(1) && said.contains("still offered: stable/os/1.0.0 to validation"), "{said}");
}

#[test]
fn a_workspace_is_not_published_into_itself() {
    let fleet = Fleet::new();
    let dir = fleet.path();
    for own in [dir.clone(), dir.join("metadata"), dir.join("keys/public"), fleet.dir.path().to_owned()] {
        let out = run(&fleet, &dir, &format!("publish {}", own.display()));
        let said = text(&out);
        assert!(out.status.code() == Some(2) && said.contains("a folder of the workspace itself"), "{said}");
    }
    done(&fleet, &dir, &format!("publish {}", dir.join("public").display()));
}

#[test]
fn without_a_place_drafts_go_on_and_no_place_is_spoken_of() {
    let fleet = Fleet::new();
    let dir = fleet.path();
    let spec = fleet.release("1.0.0", |_| ());
    fleet.start(&spec);
    let told = done(&fleet, &dir, "release new 1.1.0");
    assert!(told.contains("next: tidegate") && told.contains("release add 1.1.0 FILE"), "{told}");
    done(&fleet, &dir, "release edit 1.1.0 --build-id ci-7");
    let edited = done(&fleet, &dir, "release edit 1.1.0 --clear build-id --json");
    assert!(edited.contains("\"by-hand\"") && !edited.contains("ci-7"), "{edited}");
    let told = done(&fleet, &dir, "status");
    assert!(told.contains("not published yet (timestamp ") && !told.contains("the place"), "{told}");
}

/// What no rollout can go on with is told by `status`, and once by `doctor`.
#[test]
fn a_broken_cohorts_toml_is_told_once() {
    let fleet = Fleet::new();
    let dir = fleet.path();
    let path = dir.join("cohorts.toml");
    let broken = fs::read_to_string(&path).unwrap().replacen("share = \"5%\"", "share = \"6%\"", 1);
    fs::write(&path, broken).unwrap();
    let told = done(&fleet, &dir, "status");
    assert!(told.contains("cohorts.toml: no rollout takes a step: "), "{told}");
    let found = json(&fleet, "doctor");
    let findings = found["findings"].as_array().unwrap();
    let of: Vec<_> = findings.iter().filter(|finding| finding["id"] == "DOC-CONFIG").collect();
    assert!(of.len() == 1 && of[0]["place"] == "cohorts.toml", "{found:#}");
}

/// What is read of releases, places and workspaces at the edges: none named, nothing signed yet, nothing there.
#[test]
fn what_is_not_named_is_all_of_it_or_the_own_place() {
    let fleet = Fleet::new();
    let dir = fleet.path();
    let spec = fleet.release("1.0.0", |_| ());
    fleet.start(&spec);
    fleet.draft("1.1.0", |_| ());
    publishes_to(&fleet, "../public");
    done(&fleet, &dir, "publish");
    let told = done(&fleet, &dir, "rollout status");
    assert!(
        told.contains("os on stable") && told.contains("  1.0.0  limited, ") && told.contains("  1.1.0  draft"),
        "{told}"
    );
    let found = json(&fleet, "rollout status");
    assert_eq!(
        (found["releases"][1]["state"].as_str(), found["rollouts"].as_array().unwrap().len()),
        (Some("draft"), 1)
    );

    // The copy of a place has the times of the steps, too.
    let [copy, public] = ["copy", "public"].map(|name| fleet.dir.path().join(name));
    done(&fleet, &dir, &format!("sync {} {}", public.display(), copy.display()));
    let records = |place: &Path| -> Vec<_> {
        let read = fs::read_dir(place.join(".tidegate/published")).unwrap().map(|entry| entry.unwrap().path());
        read.map(|path| (path.file_name().unwrap().to_owned(), fs::read(path).unwrap())).collect()
    };
    assert_eq!(records(&copy), records(&public));

    assert!(done(&fleet, &dir, "verify").contains("public is sound"));
    let remedy = |place: &Path| {
        let said = text(&run(&fleet, &dir, &format!("verify {}", place.display())));
        said.lines().last().unwrap_or_default().to_owned()
    };
    let nothing = tempfile::tempdir().unwrap();
    assert!(remedy(nothing.path()).starts_with("help: nothing is published there: check the path"));
    fs::rename(dir.join("artifacts/sha256"), dir.join("aside")).unwrap();
    assert!(remedy(&dir).contains("tidegate pull PLACE --artifacts"), "{}", remedy(&dir));
    let told = done(&fleet, &dir, "pull --artifacts");
    assert!(told.contains("fetched 1 file") && told.contains("; all artifacts are here now"), "{told}");
    assert!(done(&fleet, &dir, &format!("verify {}", dir.display())).contains(" is sound"));
}

/// Before the first root every command names the step to it.
#[test]
fn before_the_first_root_the_step_to_it_is_named() {
    let fleet = Fleet::new();
    let dir = fleet.dir.path().join("fresh");
    let init = Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("init").arg(&dir).output().unwrap();
    assert!(init.status.success(), "{}", text(&init));
    for line in ["status", "release list", "ceremony status", "verify", "refresh", "rollout status"] {
        let said = text(&run(&fleet, &dir, line));
        assert!(said.contains("init --generate-keys"), "{line}: {said}");
    }
}

//! Several checkouts of one workspace: machines that renew and publish, people that take steps, and one place that all publish to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tidegate::keys::generate::{Kind, generate};
use tidegate::keys::{FileKey, NoPassphrases, Signer as _};
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::json::canonical;

use crate::support::tools::have;
use crate::support::{Fleet, Serving};

/// Runs the program on the workspace `dir`, at the fleet's time and in its folder.
pub fn run(fleet: &Fleet, dir: &Path, line: &str) -> Output {
    let now = fleet.now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["--now", &now, "-C"])
        .arg(dir)
        .args(line.split(' '))
        .current_dir(fleet.dir.path())
        .env("NO_COLOR", "1")
        .env("TIDEGATE_ACTOR", "tester")
        .output()
        .unwrap()
}

pub fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

pub fn done(fleet: &Fleet, dir: &Path, line: &str) -> String {
    let out = run(fleet, dir, line);
    assert!(out.status.success(), "{line} at {}: {}", fleet.now, text(&out));
    text(&out)
}

fn refused(fleet: &Fleet, dir: &Path, line: &str, why: &[&str]) {
    let out = run(fleet, dir, line);
    let said = text(&out);
    assert!(out.status.code() == Some(1) && why.iter().all(|why| said.contains(why)), "{line}: {said}");
}

fn git(dir: &Path, args: &[&str]) -> String {
    let identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
    let out = Command::new("git").args(identity).arg("-C").arg(dir).args(args).output().unwrap();
    assert!(out.status.success(), "git {args:?}: {}", text(&out));
    text(&out)
}

/// A fleet with a validated release that publishes to `../public`.
fn publishing() -> Fleet {
    let fleet = Fleet::shaped(|name, text| match name {
        "tidegate.toml" => text.replace("[publish]\n", "[publish]\nplace = \"../public\"\n"),
        _ => text,
    });
    fleet.release("1.0.0", |_| ());
    fleet
}

#[test]
fn soak_counts_from_the_publication_of_a_step() {
    let mut fleet = publishing();
    let dir = fleet.path();
    let advance = "rollout advance 1.0.0 --ramp 24h";
    done(&fleet, &dir, "publish");
    done(&fleet, &dir, "rollout start 1.0.0");
    fleet.pass(49);
    refused(&fleet, &dir, advance, &["R-SOAK", "canary is not published", "tidegate publish"]);
    let planned: Value =
        serde_json::from_slice(&run(&fleet, &dir, "rollout plan 1.0.0 --devices 100 --json").stdout).unwrap();
    let early = planned["steps"].as_array().unwrap().iter().find(|step| step["cohort"] == "early").unwrap();
    assert_eq!(early["at"], "2026-11-29T01:00:00Z", "48 hours after it could be published: {planned:#}");

    // Where it is published counts, too: a trial elsewhere shows devices nothing.
    done(&fleet, &dir, "refresh");
    done(&fleet, &dir, &format!("publish {}", fleet.dir.path().join("trial").display()));
    refused(&fleet, &dir, advance, &["R-SOAK", "canary is not published"]);
    done(&fleet, &dir, "publish --rebase");
    fleet.pass(47);
    done(&fleet, &dir, "refresh");
    done(&fleet, &dir, "publish");
    refused(&fleet, &dir, advance, &["R-SOAK", "has had it for 1d 23h", "wait until 2026-11-29T01:00:00Z"]);
    fleet.pass(1);
    done(&fleet, &dir, advance);
    // A ramp that is paused stands still, and is shown so.
    fleet.pass(6);
    done(&fleet, &dir, "rollout pause 1.0.0");
    fleet.pass(6);
    for line in ["status", "rollout status 1.0.0"] {
        let told = done(&fleet, &dir, line);
        let early = told.lines().find(|line| line.starts_with("early")).unwrap();
        assert!(early.contains("limited (paused)  25%  ") && !early.contains(" in "), "{early}");
    }
    done(&fleet, &dir, "rollout resume 1.0.0");
    // The ramp of 24 hours has ended before it is published.
    fleet.pass(30);
    done(&fleet, &dir, "refresh");
    refused(&fleet, &dir, advance, &["R-SOAK", "early is not published"]);
    done(&fleet, &dir, "publish");
    fleet.pass(23);
    refused(&fleet, &dir, advance, &["R-SOAK", "has had it for 23h"]);
    fleet.pass(1);
    done(&fleet, &dir, advance);
}

/// Two machines that keep nothing, and a person, each with a checkout.
struct Clones {
    fleet: Fleet,
    machines: [PathBuf; 2],
    person: PathBuf,
}

impl Clones {
    fn new() -> Self {
        let fleet = publishing();
        done(&fleet, &fleet.path(), "publish");
        for args in [&["init", "-q", "."][..], &["add", "-A"], &["commit", "-qm", "x"]] {
            git(&fleet.path(), args);
        }
        git(fleet.dir.path(), &["clone", "-q", "--bare", "fleet", "origin.git"]);
        let clone = |name: &str, keys: &[&str]| {
            git(fleet.dir.path(), &["clone", "-q", "origin.git", name]);
            let dir = fleet.dir.path().join(name);
            fs::create_dir(dir.join("keys")).unwrap();
            for key in keys {
                fs::copy(fleet.path().join(format!("keys/{key}.pem")), dir.join(format!("keys/{key}.pem"))).unwrap();
            }
            dir
        };
        let online = ["rollout", "snapshot", "timestamp"];
        let machines = [clone("ci-1", &online), clone("ci-2", &online)];
        let person = clone("person", &online);
        Self { fleet, machines, person }
    }

    /// A day of the machines: each begins with what people have pushed and with what is live, in the one that is not up to date with either.
    fn day(&mut self) {
        for machine in &self.machines {
            self.fleet.pass(12);
            git(machine, &["fetch", "-q"]);
            git(machine, &["reset", "-q", "--hard", "origin/HEAD"]);
            for line in ["pull", "refresh", "publish --rebase --no-verify"] {
                done(&self.fleet, machine, line);
            }
        }
    }

    fn push(&self, what: &str) {
        git(&self.person, &["add", "-A"]);
        git(&self.person, &["commit", "-qm", what]);
        git(&self.person, &["push", "-q"]);
    }
}

#[test]
fn clones_that_renew_fork_no_ledger_and_block_nobody() {
    if !have("git", "--version") {
        return;
    }
    let mut clones = Clones::new();
    clones.day();
    // A step of a person, published by a machine.
    done(&clones.fleet, &clones.person, "rollout start 1.0.0");
    clones.push("Start");
    clones.day();
    clones.day();
    let person = clones.person.clone();
    let advance = "rollout advance 1.0.0 --ramp 24h";
    refused(&clones.fleet, &person, advance, &["canary is not published", "tidegate publish --rebase"]);
    done(&clones.fleet, &person, "pull");
    // 12 hours passed until the machine published it.
    refused(&clones.fleet, &person, advance, &["has had it for 1d 12h"]);
    clones.day();
    done(&clones.fleet, &person, advance);
    done(&clones.fleet, &person, "publish --rebase");
    clones.push("Advance");

    // Meanwhile the machines renew the same cohorts' roles, half of their lifetime later.
    clones.fleet.pass(6 * 24);
    clones.day();
    done(&clones.fleet, &person, "rollout pause 1.0.0 --reason noise --publish");
    clones.push("Pause");
    clones.day();
    for dir in [&person, &clones.machines[0], &clones.machines[1]] {
        assert!(done(&clones.fleet, dir, "log --verify").contains("the chain is intact"));
        let status: Value =
            serde_json::from_slice(&run(&clones.fleet, dir, "rollout status 1.0.0 --json").stdout).unwrap();
        let live = |cohort: &Value| cohort["offers"].as_array().unwrap().iter().all(|offer| offer["paused"] == true);
        assert!(status["in_force"].as_array().unwrap().iter().all(live), "{status:#}");
    }
    assert!(!text(&run(&clones.fleet, &person, "doctor")).contains("DOC-LEDGER"));
    let steps: Value = serde_json::from_slice(&run(&clones.fleet, &person, "log --json").stdout).unwrap();
    let steps: Vec<_> = steps.as_array().unwrap().iter().map(|entry| entry["event"].as_str().unwrap()).collect();
    let own: Vec<_> = steps.iter().filter(|event| ["start", "advance", "pause"].contains(event)).collect();
    assert_eq!(own, [&"start", &"advance", &"pause"], "nothing is lost: {steps:?}");
    assert!(!steps.contains(&"refresh"), "{steps:?}");
    assert_eq!(
        fs::read(person.join("ledger.jsonl")).unwrap(),
        fs::read(clones.machines[1].join("ledger.jsonl")).unwrap()
    );
}

fn state(fleet: &Fleet, dir: &Path) -> (String, bool) {
    let out = run(fleet, dir, "--json status");
    let status: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{}", text(&out)));
    let release = &status["releases"][0];
    (release["state"].as_str().unwrap().to_owned(), release["paused"].as_bool().unwrap())
}

#[test]
fn what_one_checkout_stops_is_stopped_in_the_others() {
    let clones = Clones::new();
    let (fleet, person, [machine, other]) = (&clones.fleet, &clones.person, &clones.machines);
    done(fleet, person, "rollout start 1.0.0 --publish");
    clones.push("start");
    for machine in [machine, other] {
        git(machine, &["pull", "-q"]);
    }
    done(fleet, machine, "rollout pause 1.0.0 --publish");
    done(fleet, person, "pull");
    assert_eq!(state(fleet, person), ("limited".into(), true));
    done(fleet, person, "rollout resume 1.0.0 --publish");
    done(fleet, machine, "rollout withdraw 1.0.0 --publish");
    done(fleet, person, "pull");
    assert_eq!(state(fleet, person), ("withdrawn".into(), false));
    refused(fleet, person, "rollout advance 1.0.0", &["R-"]);
    assert!(run(fleet, person, "log --verify").status.success());

    // A record that says that nobody is offered it keeps nobody from stopping what is offered.
    let record = "releases/stable/os/1.0.0/release.json";
    fs::copy(machine.join(record), other.join(record)).unwrap();
    let said = done(fleet, other, "rollout withdraw 1.0.0");
    assert!(!said.contains("already"), "{said}");
    let status = done(fleet, other, "rollout status 1.0.0");
    assert!(!status.contains("limited"), "{status}");
}

/// Somebody has put a timestamp there that no key of ours has signed.
#[test]
fn nothing_but_a_stop_is_signed_on_top_of_what_does_not_verify() {
    let clones = Clones::new();
    let (fleet, person) = (&clones.fleet, &clones.person);
    done(fleet, person, "rollout start 1.0.0 --publish");
    let timestamp = fleet.dir.path().join("public/metadata/timestamp.json");
    let mut forged: Value = serde_json::from_slice(&fs::read(&timestamp).unwrap()).unwrap();
    forged["signed"]["version"] = json!(forged["signed"]["version"].as_u64().unwrap() + 1);
    fs::write(&timestamp, forged.to_string()).unwrap();
    let ledger = || fs::read(person.join("ledger.jsonl")).unwrap();
    let before = ledger();
    let why = ["does not verify", "nothing was signed", "tidegate verify"];
    refused(fleet, person, "rollout advance 1.0.0 --ramp 24h --publish", &why);
    refused(fleet, person, "rollout renew 1.0.0 --publish", &why);
    assert_eq!(ledger(), before);
    let why = ["warning: what others have published", "does not verify", "NOT PUBLISHED"];
    refused(fleet, person, "rollout pause 1.0.0 --publish", &why);
    assert_eq!(state(fleet, person), ("limited".into(), true));
}

#[test]
fn a_step_after_somebody_elses_renewal_is_known_to_be_unpublished() {
    let mut clones = Clones::new();
    clones.fleet.pass(22);
    let (fleet, person, [machine, _]) = (&clones.fleet, &clones.person, &clones.machines);
    done(fleet, machine, "refresh");
    done(fleet, machine, "publish");
    done(fleet, person, "rollout start 1.0.0");
    let status: Value = serde_json::from_slice(&run(fleet, person, "--json status").stdout).unwrap();
    let publication = &status["publication"][0];
    assert_eq!(publication["published"], false, "{publication}");
    assert!(publication["waiting"].as_array().unwrap().contains(&"stable.canary".into()), "{publication}");
    let next = status["next"].as_str().unwrap();
    assert!(next.ends_with("publish --rebase"), "{next}");
    done(fleet, person, "publish --rebase");
}

/// Git refuses to write over what `tidegate pull` has changed; what operations.md names goes on.
#[test]
fn git_pull_goes_on_after_a_pull_from_the_place() {
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    assert!(docs.contains("`git stash -u && git pull && tidegate pull`"));
    let clones = Clones::new();
    let (fleet, person, [machine, _]) = (&clones.fleet, &clones.person, &clones.machines);
    done(fleet, person, "rollout start 1.0.0 --publish");
    clones.push("start");
    done(fleet, machine, "pull");
    let out = Command::new("git").arg("-C").arg(machine).args(["pull", "-q"]).output().unwrap();
    assert!(!out.status.success(), "{}", text(&out));
    for args in [&["stash", "-q", "-u"][..], &["pull", "-q"]] {
        git(machine, args);
    }
    done(fleet, machine, "pull");
    done(fleet, machine, "log --verify");
    assert_eq!(state(fleet, machine), state(fleet, person));
    let ledger = |dir: &Path| fs::read(dir.join("ledger.jsonl")).unwrap();
    assert_eq!(ledger(machine), ledger(person));
    done(fleet, machine, "rollout pause 1.0.0 --publish");
}

/// Signs and finishes the ceremony of a workspace.
fn finish(fleet: &Fleet, dir: &Path) {
    let status: Value = serde_json::from_slice(&run(fleet, dir, "--json ceremony status").stdout).unwrap();
    let digest = status["digest"].as_str().unwrap()[..16].to_owned();
    for key in ["root-1", "root-2"] {
        done(fleet, dir, &format!("ceremony sign --key {key} --confirm {digest}"));
    }
    done(fleet, dir, "ceremony finish");
}

#[test]
fn proposals_on_other_roots_and_under_other_titles_are_refused() {
    let mut fleet = publishing();
    let (dir, other) = (fleet.path(), fleet.dir.path().join("other"));
    assert!(Command::new("cp").arg("-a").args([&dir, &other]).status().unwrap().success());
    for dir in [&dir, &other] {
        done(&fleet, dir, "ceremony start --renew root");
        finish(&fleet, dir);
        fleet.pass(1);
    }
    done(&fleet, &other, "ceremony start --renew root");
    let proposal = other.join("proposals/ceremony.json");
    let show = format!("ceremony show {}", proposal.display());
    refused(&fleet, &dir, &show, &["C-CHAIN", "another root 2"]);
    done(&fleet, &other, &show);
    let mut altered: Value = serde_json::from_slice(&fs::read(&proposal).unwrap()).unwrap();
    altered["subject"] = "targets 7".into();
    fs::write(&proposal, format!("{altered}\n")).unwrap();
    refused(&fleet, &other, &show, &["C-FORMAT", "is called \"targets 7\", and changes root 3"]);
}

/// Whoever may write to a place makes a root 1 that root 2 follows from: it takes a key of root 2 in it, and no signature of that.
fn forge(root: &Path) {
    let mut root_1: Value = serde_json::from_slice(&fs::read(root).unwrap()).unwrap();
    let made = generate(Kind::Ed25519, None).unwrap();
    let key = FileKey::from_pem("k", &made.pem, &mut NoPassphrases).unwrap();
    let id = key.public().id();
    let mut ids = root_1["signed"]["roles"]["root"]["keyids"].as_array().unwrap().clone();
    ids.push(id.as_str().into());
    root_1["signed"]["keys"][id.as_str()] = key.public().to_value();
    root_1["signed"]["roles"]["root"] = json!({"keyids": ids, "threshold": 1});
    let sig = to_hex(&key.sign(&canonical(&root_1["signed"]).unwrap()).unwrap());
    root_1["signatures"] = json!([{"keyid": id.as_str(), "sig": sig}]);
    fs::write(root, root_1.to_string()).unwrap();
}

#[test]
fn a_root_vouches_for_none_before_it() {
    let fleet = publishing();
    let (dir, place) = (fleet.path(), fleet.dir.path().join("public"));
    done(&fleet, &dir, "ceremony start --renew root");
    finish(&fleet, &dir);
    done(&fleet, &dir, "publish");
    forge(&place.join("metadata/1.root.json"));
    let trusted = dir.join("metadata/2.root.json");
    let (public, root) = (place.display(), trusted.display());
    for (name, line) in [
        ("pulled", format!("pull {public} --root {root}")),
        ("taken", format!("import {public} . --root {root} --example-keys")),
    ] {
        let new = fleet.dir.path().join(name);
        fs::create_dir(&new).unwrap();
        done(&fleet, &new, &line);
        assert_eq!(fs::read_to_string(new.join("metadata/from-root.txt")).unwrap(), "2\n", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_the_url_of_a_repository_stays_out_of_the_ledger() {
    let fleet = publishing();
    done(&fleet, &fleet.path(), "publish");
    let server = Serving::start(&fleet.dir.path().join("public")).await;
    let url = server.url().replace("http://", "http://someone:s3cret@");
    let new = fleet.dir.path().join("taken");
    fs::create_dir(&new).unwrap();
    let root = fleet.path().join("metadata/1.root.json");
    done(&fleet, &new, &format!("import {url} . --root {} --example-keys", root.display()));
    let ledger = fs::read_to_string(new.join("ledger.jsonl")).unwrap();
    assert!(ledger.contains("http://127.0.0.1") && !ledger.contains("s3cret"), "{ledger}");
}

#[test]
fn a_record_at_the_place_changes_nothing_that_is_known_here() {
    let mut fleet = publishing();
    let (dir, place) = (fleet.path(), fleet.dir.path().join("public"));
    done(&fleet, &dir, "publish");
    fleet.pass(10);
    done(&fleet, &dir, "rollout start 1.0.0");
    fleet.pass(8);
    done(&fleet, &dir, "publish");
    let steps = |path: &Path| {
        let published: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        published["steps"].as_array().unwrap().clone()
    };
    let known = steps(&dir.join("published.json"));
    assert!(!known.is_empty());
    let records = place.join(".tidegate/published");
    for record in fs::read_dir(&records).unwrap().map(|entry| entry.unwrap().path()) {
        let mut forged: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
        for step in forged["steps"].as_array_mut().into_iter().flatten() {
            step["at"] = "2020-01-01T00:00:00Z".into();
        }
        fs::write(record, forged.to_string()).unwrap();
    }
    done(&fleet, &dir, "pull");
    assert_eq!(steps(&dir.join("published.json")), known);
}

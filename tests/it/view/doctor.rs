//! `tidegate doctor`: every finding, by making it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::story::{NOW, Story, text, tidegate};

fn doctor(story: &Story, now: &str, args: &[&str]) -> (i32, Vec<(String, String)>) {
    let workspace = story.workspace();
    let out = tidegate(&[&["-C", text(&workspace), "--now", now, "--json", "doctor"], args].concat());
    let said: Value =
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)));
    let schema: Value = serde_json::from_str(include_str!("../../../docs/schemas/doctor.schema.json")).unwrap();
    assert!(jsonschema::is_valid(&schema, &said), "{said:#}");
    let findings = said["findings"].as_array().unwrap();
    for finding in findings {
        for field in ["id", "what", "place", "remedy"] {
            assert!(!finding[field].as_str().unwrap().is_empty(), "{finding}");
        }
    }
    let of = |finding: &Value| (finding["id"].as_str().unwrap().into(), finding["place"].as_str().unwrap().into());
    (out.status.code().unwrap(), findings.iter().map(of).collect())
}

fn has(findings: &[(String, String)], id: &str, place: &str) -> bool {
    findings.iter().any(|(found, of)| found == id && of.contains(place))
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, change(text)).unwrap();
}

#[test]
fn a_sound_fleet_has_nothing_but_its_example_keys() {
    let story = Story::new();
    let public = story.public();
    let (code, findings) = doctor(&story, NOW, &[text(&public), "--deep"]);
    assert_eq!(code, 0);
    assert_eq!(findings, [("DOC-KEYS-EXAMPLE".to_owned(), "tidegate.toml".to_owned())]);
    let out = story.run(&["doctor", text(&public)]);
    assert!(String::from_utf8_lossy(&out.stdout).trim_end().ends_with("checks, 1 finding"));
}

#[test]
fn what_is_wrong_in_a_workspace_is_found_and_named() {
    let story = Story::new();
    let dir = story.workspace();
    // What was only asked for, bytes that are gone, a secret that everyone may read, a line of the ledger, a proposal.
    edit(&dir.join("tidegate.toml"), |text| {
        text.replace("expires = \"365d\"", "expires = \"300d\"").replacen("threshold = 2", "threshold = 3", 1)
    });
    let artifact = fs::read_dir(dir.join("artifacts/sha256")).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(artifact).unwrap();
    edit(&dir.join("ledger.jsonl"), |text| text.replace("only to try", "for good"));
    edit(&dir.join("proposals/stable-os-1.2.0.json"), |text| {
        text.replace("ci-3", "ci-4").replacen("\"proposed\"", "\"Proposed\"", 1)
    });
    let (code, findings) = doctor(&story, NOW, &[]);
    assert_eq!(code, 1);
    for (id, place) in [
        ("DOC-INTENT", "tidegate.toml"),
        ("DOC-STORE", "stable/"),
        ("DOC-LEDGER", "ledger.jsonl"),
        ("DOC-PROPOSAL", "stable-os-1.2.0"),
    ] {
        assert!(has(&findings, id, place), "{id}: {findings:?}");
    }

    edit(&dir.join("policy.toml"), |_| "schema = 2".into());
    edit(&dir.join("metadata/1.root.json"), |text| text.replacen("threshold\":2", "threshold\":1", 1));
    let (_, findings) = doctor(&story, NOW, &[]);
    assert!(has(&findings, "DOC-CONFIG", "policy.toml") && has(&findings, "DOC-METADATA", "metadata/"), "{findings:?}");
}

/// A problem: how to make it in a workspace, and the finding that tells it.
type Problem = (&'static str, fn(&Path), &'static str, &'static str);

/// Runs a command on a workspace where nothing says who acts.
fn nameless(dir: &Path, args: &[&str]) -> String {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["-C", text(dir), "--now", NOW])
        .args(args)
        .env_clear()
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    said
}

/// What several checkouts can get wrong, beside what the other tests make.
const PROBLEMS: &[Problem] = &[
    (
        "line ends that git changed",
        |dir| edit(&dir.join("ledger.jsonl"), |text| text.replace('\n', "\r\n")),
        "DOC-LINE-ENDS",
        "ledger",
    ),
    (
        "a conflict of git",
        |dir| edit(&dir.join("ledger.jsonl"), |text| format!("{text}<<<<<<< HEAD\n=======\n>>>>>>> main\n")),
        "DOC-LEDGER",
        "ledger",
    ),
    (
        "a checkout in which git may change line ends",
        |dir| {
            fs::remove_file(dir.join(".gitattributes")).unwrap();
            let git = std::process::Command::new("git").arg("-C").arg(dir).args(["init", "-q"]).status();
            // Without git there is no such checkout.
            assert!(git.is_err() || git.unwrap().success());
        },
        "DOC-LINE-ENDS",
        ".gitattributes",
    ),
    (
        "a step of nobody",
        |dir| assert!(nameless(dir, &["release", "new", "9.0.0"]).contains("set TIDEGATE_ACTOR")),
        "DOC-ACTOR",
        "ledger",
    ),
    (
        "no place",
        |dir| edit(&dir.join("tidegate.toml"), |text| text.replace("place = \"../public\"", "")),
        "DOC-PLACE",
        "tidegate.toml",
    ),
    (
        "a pause that is not published",
        |dir| assert!(tidegate(&["-C", text(dir), "--now", NOW, "rollout", "pause", "1.1.0"]).status.success()),
        "DOC-PUBLISHED",
        "public",
    ),
    (
        "a step that is not published",
        |dir| {
            let line =
                ["-C", text(dir), "--now", NOW, "rollout", "advance", "1.1.0", "--cohort", "early", "--ramp", "48h"];
            let out = tidegate(&line);
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        },
        "DOC-SOAK",
        "stable.early",
    ),
    (
        "small signed files that are missing",
        |dir| fs::remove_dir_all(dir.join("artifacts/signed")).unwrap(),
        "DOC-STORE",
        "stable/",
    ),
    (
        "a role with a key that nobody declares",
        |dir| edit(&dir.join("tidegate.toml"), |text| text.replace("keys = [\"rollout\"]", "keys = [\"lost\"]")),
        "DOC-CONFIG",
        "tidegate.toml",
    ),
];

#[test]
fn what_several_checkouts_can_get_wrong_is_found() {
    let story = Story::new();
    let dir = story.workspace();
    let saved = story.path("saved");
    fs::rename(&dir, &saved).unwrap();
    for (problem, make, id, place) in PROBLEMS {
        copy(&saved, &dir);
        make(&dir);
        let (_, findings) = doctor(&story, NOW, &[]);
        assert!(has(&findings, id, place), "{problem}: {findings:?}");
        fs::remove_dir_all(&dir).unwrap();
    }
    // A proposal that nobody finishes.
    copy(&saved, &dir);
    let (_, findings) = doctor(&story, "2026-03-14T00:00:00Z", &[]);
    assert!(has(&findings, "DOC-PROPOSAL-AGE", "stable-os-1.2.0"), "{findings:?}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let to = to.join(entry.file_name().unwrap());
        if entry.is_dir() {
            copy(&entry, &to);
        } else {
            fs::copy(&entry, &to).unwrap();
        }
    }
}

#[cfg(unix)]
#[test]
fn secrets_that_others_could_read_are_found() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("fleet");
    assert!(tidegate(&["-q", "init", text(&dir), "--generate-keys"]).status.success());
    fs::set_permissions(dir.join("keys/rollout.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let out = tidegate(&["-C", text(&dir), "doctor"]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.code() == Some(1) && said.contains("[DOC-KEYS-MODE]") && said.contains("chmod 600"), "{said}");
    fs::set_permissions(dir.join("keys/rollout.pem"), fs::Permissions::from_mode(0o600)).unwrap();

    let git = |args: &[&str]| {
        let out = std::process::Command::new("git").arg("-C").arg(&dir).args(args).output();
        out.is_ok_and(|out| out.status.success())
    };
    if git(&["init", "-q"]) {
        assert!(git(&["add", "."]));
        let out = tidegate(&["-C", text(&dir), "doctor"]);
        assert!(out.status.success(), "keys are ignored: {}", String::from_utf8_lossy(&out.stdout));
        assert!(git(&["add", "-f", "keys/rollout.pem"]));
        let out = tidegate(&["-C", text(&dir), "doctor"]);
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(said.contains("keys/rollout.pem: a private key is under version control [DOC-KEYS-GIT]"), "{said}");
    }
}

#[test]
fn what_is_published_is_held_against_the_workspace() {
    let story = Story::new();
    let (public, root) = (story.public(), story.root());
    let late = "2026-03-06T13:00:00Z";
    let (code, findings) = doctor(&story, late, &[text(&public)]);
    assert!(code == 0 && has(&findings, "DOC-PUB-EXPIRY", "timestamp"), "{findings:?}");
    let (code, findings) = doctor(&story, "2026-03-08T17:00:00Z", &[text(&public)]);
    assert!(code == 1 && has(&findings, "DOC-EXPIRY", "timestamp"), "{findings:?}");

    let workspace = story.workspace();
    assert!(tidegate(&["-C", text(&workspace), "--now", late, "-q", "refresh"]).status.success());
    let (code, findings) = doctor(&story, late, &[text(&public)]);
    assert!(code == 0 && has(&findings, "DOC-PUB-SAME", "public"), "it is only behind: {findings:?}");
    let timestamp = fs::read(public.join("metadata/timestamp.json")).unwrap();
    fs::copy(workspace.join("metadata/timestamp.json"), public.join("metadata/timestamp.json")).unwrap();
    fs::write(workspace.join("metadata/timestamp.json"), timestamp).unwrap();
    let (code, findings) = doctor(&story, late, &[text(&public)]);
    assert!(code == 1 && has(&findings, "DOC-PUB-SAME", "public"), "somebody else published: {findings:?}");

    // From the root alone, without a workspace.
    let out = tidegate(&["--now", late, "doctor", text(&public), "--root", text(&root)]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    fs::remove_dir_all(public.join("targets")).unwrap();
    let out = tidegate(&["--now", late, "doctor", text(&public), "--root", text(&root)]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.code() == Some(1) && said.contains("[DOC-PUB-SOUND]"), "{said}");
}

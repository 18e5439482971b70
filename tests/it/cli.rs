//! The commands publish, verify and serve as a person or a script meets them: output, exit codes, refusals.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tidegate_client::fetch::http::HttpFetch;
use tidegate_client::fetch::{Fetch as _, Reply, Request};

use crate::support::{Forge, forge};

fn tidegate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(args).stdin(Stdio::null()).env("NO_COLOR", "1").output().unwrap()
}

/// A workspace that the commands take for one, with a release in it.
fn workspace() -> Forge {
    let mut forge = Forge::new(&["early", "late"]);
    forge.release("1.0.0", 1, &[("os.img", b"one")]);
    forge.assign("early", "1.0.0");
    forge.with_settings()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn stdout(out: &Output) -> String {
    String::from_utf8(out.stdout.clone()).unwrap()
}

fn stderr(out: &Output) -> String {
    String::from_utf8(out.stderr.clone()).unwrap()
}

#[test]
fn publish_says_what_it_will_do_and_what_it_did() {
    let (forge, place) = (workspace(), tempfile::tempdir().unwrap());
    let (dir, place) = (text(forge.dir()), text(&place.path().join("site")));
    let publish = |more: &[&str]| tidegate(&[&["-C", &dir, "publish", &place], more].concat());

    let out = publish(&["--dry-run"]);
    assert!(out.status.success(), "{}", stderr(&out));
    let plan = stdout(&out);
    assert!(plan.starts_with(&format!("{place}: empty; will publish timestamp 3\n  new            11\n")), "{plan}");
    assert!(plan.contains("stable.early: new, lists 1 file"), "{plan}");
    assert!(!Path::new(&place).exists());

    let out = publish(&["--dry-run", "--json"]);
    let plan: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(plan["totals"]["new"], 11);
    assert_eq!(plan["plan"]["objects"][0]["stage"], "target");

    let out = publish(&[]);
    assert!(out.status.success(), "{}", stderr(&out));
    assert!(stdout(&out).starts_with(&format!("published timestamp 3 to {place}: 11 objects, ")), "{}", stdout(&out));
    assert!(stderr(&out).contains("next: tidegate verify"), "{}", stderr(&out));
    let out = publish(&["--quiet"]);
    assert_eq!((stdout(&out).as_str(), stderr(&out).as_str()), (&*format!("{place} is up to date: timestamp 3\n"), ""));

    let out = publish(&["--json"]);
    let done: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&done["report"]["written"], &done["report"]["timestamp"]), (&0.into(), &3.into()));
}

#[test]
fn refusals_name_what_is_wrong_and_what_to_do_and_have_their_exit_code() {
    let (forge, place) = (workspace(), tempfile::tempdir().unwrap());
    let (dir, nowhere) = (text(forge.dir()), text(&place.path().join("nowhere")));
    let file = text(&forge.dir().join("tidegate.toml"));
    let root = text(&forge.dir().join("metadata/1.root.json"));
    let below_a_file = format!("{file}/below");
    for (args, code, says) in [
        (vec!["-C", &dir, "publish"], 2, "PLACE"),
        (vec!["-C", &dir, "publish", "ftp://host/dir"], 2, "there is no store behind ftp://"),
        (vec!["-C", &dir, "publish", &below_a_file], 1, "cannot"),
        (vec!["-C", &nowhere, "publish", "x"], 1, "not a workspace"),
        (
            vec!["-C", &dir, "--now", "2040-01-01T00:00:00Z", "publish", &nowhere],
            1,
            "devices would refuse this workspace",
        ),
        (vec!["-C", &dir, "--now", "yesterday", "publish", &nowhere], 2, "write it as"),
        (vec!["verify", &nowhere], 2, "--root"),
        (vec!["verify", &nowhere, "--root", &root], 1, "cannot read"),
        (vec!["verify", &dir, "--root", &nowhere], 1, "cannot read"),
        (vec!["verify", &dir, "--root", &file], 1, "the given root does not verify"),
        (vec!["verify", "ftp://x/", "--root", &root], 2, "https://"),
        (vec!["verify", "http://127.0.0.1:1/", "--root", &root], 1, "no answer"),
        (vec!["serve", &nowhere], 1, "cannot serve"),
        (vec!["serve", &file], 1, "cannot serve"),
        (vec!["serve", &dir, "--port", "70000"], 2, "70000"),
    ] {
        let out = tidegate(&args);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", stderr(&out));
        assert!(stderr(&out).contains(says), "{args:?}: {}", stderr(&out));
        assert!(out.stdout.is_empty(), "{args:?}: {}", stdout(&out));
    }
    assert!(!Path::new(&nowhere).join("metadata").exists());
}

#[test]
fn verify_reports_and_fails_when_a_byte_is_wrong() {
    let (forge, place) = (workspace(), tempfile::tempdir().unwrap());
    let (dir, site) = (text(forge.dir()), text(place.path()));
    let root = text(&forge.dir().join("metadata/1.root.json"));
    assert!(tidegate(&["-C", &dir, "publish", &site]).status.success());

    let out = tidegate(&["verify", &site, "--root", &root]);
    assert!(out.status.success(), "{}", stderr(&out));
    let said = stdout(&out);
    assert!(said.contains("tidegate  metadata") && said.contains("tough     target files"), "{said}");
    assert!(said.trim_end().ends_with("is sound"), "{said}");

    let image = walk(&place.path().join("targets")).into_iter().find(|path| path.ends_with(".os.img")).unwrap();
    std::fs::write(&image, "two").unwrap();
    let out = tidegate(&["verify", &site, "--root", &root]);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(stdout(&out).matches("FAULT stable/releases/os/1.0.0/os.img: ").count(), 2, "by both: {}", stdout(&out));
    let out = tidegate(&["--json", "verify", &site, "--root", &root]);
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&report["ok"], report["faults"].as_array().unwrap().len()), (&false.into(), 2));

    // Publishing again cannot fix it by itself, and says what stands in the way: the workspace knows nothing of the damage.
    let out = tidegate(&["-C", &dir, "publish", &site]);
    assert!(stdout(&out).contains("is up to date"), "{}", stdout(&out));
}

fn walk(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path) } else { vec![text(&path)] }
        })
        .collect()
}

#[cfg(unix)]
#[test]
fn serve_says_where_logs_requests_and_stops_when_asked() {
    let (forge, place) = (workspace(), tempfile::tempdir().unwrap());
    forge::copy(&forge.dir().join("metadata"), &place.path().join("metadata"));
    let mut server = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["serve", &text(place.path()), "--port", "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let url = format!("{}/metadata/timestamp.json", url.trim_end());
    let fetch = HttpFetch::new();
    let Reply::Found(body) = fetch.fetch(&Request::metadata(&url, 10_000)).unwrap() else { panic!("not found") };
    assert_eq!(body.into_bytes().unwrap(), std::fs::read(forge.dir().join("metadata/timestamp.json")).unwrap());
    drop(fetch);
    assert!(Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap().success());
    let out = server.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(0));
    let log = stderr(&out);
    assert!(log.contains("127.0.0.1 #1 GET /metadata/timestamp.json 200 "), "{log}");
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_error_to_speak_of() {
    let (forge, place) = (workspace(), tempfile::tempdir().unwrap());
    let command = format!(
        "{} -C {} publish {} --dry-run | true; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_tidegate"),
        forge.dir().display(),
        place.path().display()
    );
    let out = Command::new("bash").args(["-c", &command]).output().unwrap();
    // Whether the pipe is closed before or after the write is a matter of luck.
    assert!(matches!(out.status.code(), Some(0 | 3)), "{out:?}");
    assert_eq!(stderr(&out), "");
}

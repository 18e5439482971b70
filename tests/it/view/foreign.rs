//! Repositories that other tools wrote: every command and the device's library read the same set.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use tidegate_client::clock::SystemClock;
use tidegate_client::fetch::file::{FileFetch, url_of};
use tidegate_client::store::MemoryStore;
use tidegate_client::updater::{Repository, Updater};
use tidegate_tuf::path::TargetPath;

use super::import::recorded;
use super::story::{text, tidegate};
use crate::support::{python_tuf, script};

/// The kinds that `foreign.py` makes and that can be taken over; the others are told apart below.
const READABLE: [&str; 8] = ["times", "unversioned", "flat", "nested", "hashed", "bins", "p384", "hex"];

struct Foreign {
    folder: tempfile::TempDir,
}

impl Foreign {
    fn new() -> Option<Self> {
        let python = python_tuf()?;
        let folder = tempfile::tempdir().unwrap();
        script(&python, "foreign.py", &[text(folder.path())]);
        Some(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn root(&self, kind: &str) -> PathBuf {
        self.path(&format!("{kind}.root.json"))
    }

    fn run(&self, kind: &str, args: &[&str]) -> Output {
        tidegate(&[args, &["--root", text(&self.root(kind))]].concat())
    }

    fn done(&self, kind: &str, args: &[&str]) -> String {
        let out = self.run(kind, args);
        assert!(out.status.success(), "{kind}: {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn json(&self, kind: &str, args: &[&str]) -> Value {
        serde_json::from_str(&self.done(kind, &[&["--json"], args].concat())).unwrap()
    }

    fn device(&self, kind: &str, place: &Path) -> Updater {
        device(&self.root(kind), place)
    }
}

/// A device's updater for the repository in `place`.
fn device(root: &Path, place: &Path) -> Updater {
    let (top, below) = (url_of(place).unwrap(), |name| url_of(&place.join(name)).unwrap());
    let is_flat = place.join("timestamp.json").is_file();
    let metadata = if is_flat { top.clone() } else { below("metadata") };
    let targets = if place.join("targets").is_dir() { below("targets") } else { top };
    let repository = Repository::new(&metadata, &targets).unwrap();
    let root = std::fs::read(root).unwrap();
    Updater::new(root, repository, FileFetch::new(), MemoryStore::new(), SystemClock::new())
}

/// Among it files that are listed by SHA-512 alone, RSA keys, and a role whose name is escaped in its file's.
#[test]
fn devices_read_what_go_tuf_and_tuftool_made() {
    for (tool, path, content) in [("go-tuf", "app/1", "app/1"), ("tuftool", "firmware.bin", "old firmware")] {
        let made = recorded(tool);
        let mut device = device(&made.join("1.root.json"), &made.join("repository"));
        let found = device.find(&TargetPath::new(path).unwrap()).unwrap_or_else(|e| panic!("{tool}: {e}"));
        assert_eq!(device.read(&found, 100).unwrap(), content.as_bytes(), "{tool}");
        let error = device.find(&TargetPath::new("app/none").unwrap()).err().unwrap();
        assert!(matches!(error, tidegate_client::Error::TargetNotFound { .. }), "{tool}: {error}");
    }
}

#[test]
fn devices_find_files_in_repositories_of_other_tools() {
    let Some(foreign) = Foreign::new() else { return };
    for kind in READABLE {
        let mut device = foreign.device(kind, &foreign.path(kind));
        for path in ["app/1", "app/2"] {
            let found = device.find(&TargetPath::new(path).unwrap()).unwrap_or_else(|e| panic!("{kind}: {e}"));
            assert_eq!(device.read(&found, 100).unwrap(), path.as_bytes(), "{kind}");
        }
    }
    let error = foreign.device("only-p384", &foreign.path("only-p384")).refresh().err().unwrap();
    assert!(error.to_string().contains("of scheme \"ecdsa-sha2-nistp384\""), "named, and no bad signature: {error}");
}

#[test]
fn every_command_reads_what_devices_read() {
    let Some(foreign) = Foreign::new() else { return };
    for kind in READABLE {
        let place = foreign.path(kind);
        let place = text(&place);
        let report = foreign.json(kind, &["verify", place]);
        assert_eq!(
            (&report["ok"], report["faults"].as_array().map(Vec::len)),
            (&Value::from(true), Some(0)),
            "{report}"
        );
        assert!(report["remarks"].to_string().contains("another tool made it: 2 files"), "{report}");
        let found = foreign.json(kind, &["doctor", place]);
        let severities: Vec<&Value> = found["findings"].as_array().unwrap().iter().map(|f| &f["severity"]).collect();
        assert!(!severities.is_empty() && severities.iter().all(|severity| **severity == "remark"), "{found}");
        assert!(foreign.done(kind, &["diff", place, place]).contains("are the same"), "{kind}");
        let site = foreign.path("site");
        foreign.done(kind, &["site", place, "--out", text(&site)]);
        // Without a workspace there is nothing to merge it into, and it says what to do instead.
        let out = foreign.run(kind, &["-C", text(&foreign.path("pulled")), "pull", place]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(said.contains("has no channels: another tool made it"), "{kind}: {said}");
    }
}

/// What another tool may do is a fault in a repository of Tidegate's own.
#[test]
fn hash_bins_in_a_repository_of_ours_are_a_fault() {
    let Some(foreign) = Foreign::new() else { return };
    let out = foreign.run("marked-bins", &["--json", "verify", text(&foreign.path("marked-bins"))]);
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((out.status.code(), &report["ok"]), (Some(1), &Value::from(false)), "{report}");
    let fault = &report["faults"][0];
    assert_eq!((&fault["by"], &fault["subject"]), (&Value::from("tidegate"), &Value::from("targets")), "{report}");
    assert!(fault["problem"].as_str().unwrap().contains("it delegates to hash bins (succinct_roles)"), "{report}");
}

#[test]
fn a_dry_run_tells_whether_a_takeover_is_possible() {
    let Some(foreign) = Foreign::new() else { return };
    for (kind, change) in [
        ("times", "root 2 names your keys; 1 of the keys of root 1 sign it"),
        ("unversioned", "consistent snapshots, TUF 6.2"),
        ("flat", "metadata moves to metadata/"),
        ("bins", "8 delegated roles are given up"),
        ("p384", "the 2 listed files by name no longer"),
        (
            "nested",
            "clients built on tough (tuftool, Bottlerocket), if there are any, ask for targets/HASH.folder/name",
        ),
    ] {
        let said = foreign.json(kind, &["import", text(&foreign.path(kind)), "--dry-run"]);
        assert_eq!(said["possible"], true, "{said}");
        assert!(said["changes"].to_string().contains(change), "{kind}: {said}");
    }
    // One whose files have the names that tough gives them.
    for entry in std::fs::read_dir(foreign.path("times/targets/app")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let (hash, file) = name.split_once('.').unwrap();
        let folder = foreign.path(&format!("times/targets/{hash}.app"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::rename(entry.path(), folder.join(file)).unwrap();
    }
    let said = foreign.json("times", &["import", text(&foreign.path("times")), "--dry-run"]);
    assert!(said["changes"].to_string().contains("have the names that clients built on tough ask for"), "{said}");
    let out = foreign.run("times", &["verify", text(&foreign.path("times"))]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains(".app/1, where clients built on tough alone look"), "{said}");
    let refused = |kind: &str, args: &[&str]| {
        let out = foreign.run(kind, &[&["--json", "import", text(&foreign.path(kind)), "--dry-run"], args].concat());
        assert_eq!(out.status.code(), Some(1), "{}", String::from_utf8_lossy(&out.stderr));
        let said: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(said["possible"], false, "{said}");
        said["obstacles"].to_string()
    };
    let said = refused("only-p384", &[]);
    assert!(said.contains("ecdsa-sha2-nistp384") && said.contains("enough keys of ed25519, P-256 or RSA"), "{said}");
    // One of the old roles has the name of a channel.
    let fleet = foreign.path("named");
    std::fs::create_dir(&fleet).unwrap();
    let settings =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("repo-template/tidegate.toml")).unwrap();
    std::fs::write(fleet.join("tidegate.toml"), settings.replace("channels.stable", "channels.outer")).unwrap();
    let said = refused("nested", &[text(&fleet)]);
    assert!(said.contains("a role outer, which is no channel") && said.contains("without [channels.outer]"), "{said}");
    std::fs::remove_file(foreign.path("times/metadata/1.targets.json")).unwrap();
    let said = refused("times", &[]);
    assert!(said.contains("1.targets.json is missing") && said.contains("from a backup"), "{said}");
}

/// Bins and roles exclude each other, so that the new targets role must drop the old bins.
#[test]
fn a_repository_with_bins_is_taken_over() {
    let Some(foreign) = Foreign::new() else { return };
    let (fleet, public) = (foreign.path("fleet"), foreign.path("public"));
    let fleet = text(&fleet);
    foreign.done("bins", &["import", text(&foreign.path("bins")), fleet, "--example-keys"]);
    let run = |args: &[&str]| {
        let out = tidegate(&[&["-C", fleet], args].concat());
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let errors = run(&["doctor"]);
    assert!(!errors.contains("error "), "files that are not taken over are not missed: {errors}");
    let status: Value = serde_json::from_str(&run(&["--json", "ceremony", "status"])).unwrap();
    let digest = status["digest"].as_str().unwrap()[..16].to_owned();
    let old = format!("file:{}", text(&foreign.path("bins.pem")));
    for key in ["root-1", "root-2", "targets-1", "targets-2", "release-1", "release-2", &old] {
        run(&["ceremony", "sign", "--key", key, "--confirm", &digest]);
    }
    run(&["ceremony", "finish"]);
    run(&["publish", text(&public)]);
    let report = foreign.json("bins", &["verify", text(&public)]);
    assert_eq!((&report["ok"], &report["remarks"]), (&Value::from(true), &Value::Array(Vec::new())), "{report}");
    let mut device = foreign.device("bins", &public);
    assert_eq!(device.refresh().unwrap().root().common.version, 2);
    assert!(device.find(&TargetPath::new("stable/cohorts.json").unwrap()).is_ok());
}

/// The first root of `old-root` is by a scheme that nobody here supports; the second is signed by its own key, and a client of the old tool
/// reads both.
#[test]
fn a_repository_is_taken_over_from_a_later_root() {
    let Some(foreign) = Foreign::new() else { return };
    let (old, fleet, public) = (foreign.path("old-root"), foreign.path("fleet"), foreign.path("public"));
    let (place, fleet) = (text(&old), text(&fleet));
    let said = |args: &[&str]| {
        let out = tidegate(args);
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
    };
    let first = old.join("metadata/1.root.json");
    let second = old.join("metadata/2.root.json");
    let (first, second) = (text(&first), text(&second));
    // Why, and what to do, from either root.
    for root in [first, second] {
        let (code, told) = said(&["import", place, "--root", root, "--dry-run"]);
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("ecdsa-sha2-nistp384") || root == second, "{told}");
    }
    let (_, told) = said(&["import", place, "--root", second, "--dry-run"]);
    assert!(told.contains("root 1 cannot be verified") && told.contains("--from-root N"), "{told}");
    let (code, told) = said(&["import", place, "--root", first, "--from-root", "2", "--dry-run"]);
    assert!(code == Some(2) && told.contains("the given root is version 1"), "{told}");
    let (code, told) = said(&["import", place, "--root", second, "--from-root", "2", "--dry-run"]);
    assert_eq!(code, Some(0), "{told}");

    let run = |args: &[&str]| {
        let (code, told) = said(args);
        assert_eq!(code, Some(0), "{args:?}: {told}");
        told
    };
    run(&["import", place, fleet, "--root", second, "--from-root", "2", "--example-keys"]);
    let status = String::from_utf8(tidegate(&["-C", fleet, "--json", "ceremony", "status"]).stdout).unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    let digest = status["digest"].as_str().unwrap()[..16].to_owned();
    run(&["-C", fleet, "ceremony", "rehearse"]);
    let key = format!("file:{}", text(&foreign.path("old-root.pem")));
    for key in ["root-1", "root-2", "targets-1", "targets-2", "release-1", "release-2", &key] {
        run(&["-C", fleet, "ceremony", "sign", "--key", key, "--confirm", &digest]);
    }
    run(&["-C", fleet, "ceremony", "finish"]);
    run(&["-C", fleet, "publish", text(&public)]);
    run(&["-C", fleet, "doctor", text(&public)]);
    run(&["-C", fleet, "verify", text(&public)]);
    // The older root is published byte for byte, and a workspace comes back from what is published.
    assert_eq!(std::fs::read(first).unwrap(), std::fs::read(public.join("metadata/1.root.json")).unwrap());
    let copy = foreign.path("copy");
    run(&["-C", text(&copy), "pull", text(&public), "--root", second]);
    run(&["-C", text(&copy), "status"]);
    run(&["-C", text(&copy), "pull", text(&public)]);
    // So does a copy of what is published, from the root that is trusted, and it says that the older one is not verified from it.
    let mirror = foreign.path("mirror");
    let told = run(&["sync", text(&public), text(&mirror), "--root", second]);
    assert!(told.contains("1 older root is copied without being verified, which root 2 cannot do"), "{told}");
    assert_eq!(std::fs::read(first).unwrap(), std::fs::read(mirror.join("metadata/1.root.json")).unwrap());
    run(&["verify", text(&mirror), "--root", second]);
    let told = run(&["sync", text(&public), text(&mirror), "--root", second]);
    assert!(told.contains("is up to date with") && !told.contains("older root"), "{told}");
    std::fs::copy(second, public.join("metadata/3.root.json")).unwrap();
    let third = format!("{fleet}/metadata/3.root.json");
    let (code, told) = said(&["sync", text(&public), text(&mirror), "--root", &third]);
    assert!(code == Some(1) && told.contains("[P-ROOT]"), "{told}");
}

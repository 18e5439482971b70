//! Mirrors, copies, and workspaces made from what is published.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{audit, put_live, said, tidegate, workspace};
use crate::support::s3::{BUCKET, S3};
use crate::support::{Forge, Serving};
use chrono::TimeDelta;

#[test]
fn a_mirror_that_lags_is_named_and_the_next_run_repairs_it() {
    let (mut forge, places) = (workspace(2), tempfile::tempdir().unwrap());
    let place = |name: &str| places.path().join(name).to_str().unwrap().to_owned();
    let (first, second, third) = (place("first"), place("second"), place("third"));
    let run = |forge: &Forge, args: &[&str]| tidegate(forge, None, args).output().unwrap();
    let out = run(&forge, &["publish", &first, &second, &third]);
    assert!(out.status.success(), "{}", said(&out));
    // The second becomes unreachable: a file where its folder was.
    std::fs::rename(&second, place("aside")).unwrap();
    std::fs::write(&second, "").unwrap();
    forge.assign("c0000", "1.0.0");
    let out = run(&forge, &["publish", &first, &second, &third]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    let text = said(&out);
    assert!(
        text.contains(&format!("{second} is out of date")) && text.contains("1 of 3 places are out of date"),
        "{text}"
    );
    assert!(text.contains(&format!("to {third}:")), "the third is not held up: {text}");
    let out = run(&forge, &["--json", "publish", &first, &second, &third]);
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((json["mirrors"][0]["ok"].as_bool(), json["mirrors"][1]["ok"].as_bool()), (Some(false), Some(true)));
    std::fs::remove_file(&second).unwrap();
    std::fs::rename(place("aside"), &second).unwrap();
    let out = run(&forge, &["publish", &first, &second, &third]);
    assert!(out.status.success(), "{}", said(&out));
    let timestamp = |place: &str| std::fs::read(Path::new(place).join("metadata/timestamp.json")).unwrap();
    assert_eq!(timestamp(&first), timestamp(&second));
    assert_eq!(timestamp(&first), timestamp(&third));
}

#[test]
fn mirrors_get_nothing_that_the_first_place_has_not_taken() {
    let (mut one, places) = (workspace(2), tempfile::tempdir().unwrap());
    let place = |name: &str| places.path().join(name).to_str().unwrap().to_owned();
    let (first, mirror) = (place("first"), place("mirror"));
    let run = |forge: &Forge| tidegate(forge, None, &["publish", &first, &mirror]).output().unwrap();
    assert!(run(&one).status.success());
    let mut two = one.fork();
    one.renew(&["stable.c0000"]);
    two.renew(&["stable.c0001"]);
    assert!(run(&one).status.success());
    let before = std::fs::read(Path::new(&mirror).join("metadata/timestamp.json")).unwrap();
    let out = run(&two);
    assert_eq!(out.status.code(), Some(1));
    assert!(said(&out).contains("[P-BEHIND]"), "{}", said(&out));
    assert_eq!(std::fs::read(Path::new(&mirror).join("metadata/timestamp.json")).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_verified_as_it_goes() {
    let (s3, mut forge, folder) = (S3::here().await, workspace(2), tempfile::tempdir().unwrap());
    let from = s3.remote("from").danger_assume_conditional();
    put_live(&forge, &from).await.unwrap();
    let root = folder.path().join("1.root.json");
    std::fs::write(&root, forge.root()).unwrap();
    let (source, copy) = (format!("s3://{BUCKET}/from"), folder.path().join("copy").to_str().unwrap().to_owned());
    let sync = |forge: &Forge, from: &str, to: &str| {
        tidegate(forge, Some(&s3), &["sync", from, to, "--root", root.to_str().unwrap(), "--single-writer"])
            .output()
            .unwrap()
    };
    let out = sync(&forge, &source, &copy);
    assert!(out.status.success(), "{}", said(&out));
    let out = sync(&forge, &source, &copy);
    assert!(said(&out).contains("is up to date with"), "{}", said(&out));
    // Over plain HTTP, as from a CDN, into another store.
    let serving = Serving::start(Path::new(&copy)).await;
    let out = sync(&forge, &serving.url(), &format!("s3://{BUCKET}/again"));
    assert!(out.status.success(), "{}", said(&out));
    audit(&forge, &s3.remote("again")).await;

    // A file that is damaged at the source goes nowhere, and nothing of the release is seen at the copy.
    forge.release("2.0.0", 9, &[("os.img", b"two")]);
    forge.assign("c0000", "2.0.0");
    put_live(&forge, &from).await.unwrap();
    let damaged = s3.folder.as_ref().unwrap().join("from/targets/stable/releases/os/2.0.0");
    let file = std::fs::read_dir(damaged).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.to_str().unwrap().ends_with("os.img")).unwrap();
    std::fs::write(file, b"owt").unwrap();
    let before = std::fs::read(Path::new(&copy).join("metadata/timestamp.json")).unwrap();
    let out = sync(&forge, &source, &copy);
    assert_eq!(out.status.code(), Some(1));
    assert!(said(&out).contains("is damaged"), "{}", said(&out));
    assert_eq!(std::fs::read(Path::new(&copy).join("metadata/timestamp.json")).unwrap(), before);

    // Another repository than the one that is trusted.
    let stranger = workspace(2);
    std::fs::write(&root, stranger.root()).unwrap();
    let out = sync(&forge, &source, folder.path().join("other").to_str().unwrap());
    assert!(said(&out).contains("[P-ROOT]"), "{}", said(&out));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_comes_back_from_what_is_published() {
    let (mut forge, folder) = (workspace(2), tempfile::tempdir().unwrap());
    forge.assign("c0000", "1.0.0");
    forge.renew(&["root"]);
    let place = folder.path().join("site").to_str().unwrap().to_owned();
    assert!(tidegate(&forge, None, &["publish", &place]).output().unwrap().status.success());
    let root = forge.dir().join("metadata/2.root.json");
    let made = folder.path().join("again");
    let run_at = |now: chrono::DateTime<chrono::Utc>, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["-C", made.to_str().unwrap(), "--now", &tidegate_tuf::time::format(now)]);
        command.args(args).env("NO_COLOR", "1").stdin(Stdio::null()).output().unwrap()
    };
    let run = |args: &[&str]| run_at(forge.now(), args);
    let out = run(&["pull", &place]);
    assert_eq!(out.status.code(), Some(2), "a trusted root is needed: {}", said(&out));
    let out = run(&["pull", &place, "--root", root.to_str().unwrap(), "--artifacts"]);
    assert!(out.status.success(), "{}", said(&out));
    let mut same = 0;
    for file in std::fs::read_dir(Path::new(&place).join("metadata")).unwrap() {
        let file = file.unwrap();
        let made = made.join("metadata").join(file.file_name());
        // Older versions of roles are not part of a workspace.
        if made.exists() {
            assert_eq!(std::fs::read(made).unwrap(), std::fs::read(file.path()).unwrap());
            same += 1;
        }
    }
    assert!(same >= 6, "two roots, and one of each role at least: {same}");
    let out = run(&["status"]);
    assert!(out.status.success() && said(&out).contains("1.0.0"), "{}", said(&out));
    // A web server is read from, and never published to.
    let serving = Serving::start(Path::new(&place)).await;
    let out = run(&["pull", &serving.url()]);
    assert!(out.status.success() && said(&out).contains("up to date with"), "{}", said(&out));
    let out = run(&["publish", &serving.url()]);
    assert_eq!(out.status.code(), Some(2), "{}", said(&out));
    assert!(said(&out).contains("only reads from web servers"), "{}", said(&out));
    // With the keys beside it, it goes on where the other one was.
    crate::support::forge::copy(&forge.dir().join("keys"), &made.join("keys"));
    let later = forge.now() + TimeDelta::minutes(1);
    for command in [&["refresh"][..], &["publish", &place]] {
        let out = run_at(later, command);
        assert!(out.status.success(), "{}", said(&out));
    }

    // What does not verify makes no workspace.
    let mut files =
        std::fs::read_dir(Path::new(&place).join("targets/stable")).unwrap().map(|entry| entry.unwrap().path());
    std::fs::write(files.find(|path| path.to_str().unwrap().ends_with("cohorts.json")).unwrap(), "{}").unwrap();
    std::fs::remove_dir_all(&made).unwrap();
    let out = run(&["pull", &place, "--root", root.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(!made.join("metadata").exists());
}

//! Copies, workspaces made from what is published, and what pages and comparisons say of what is protected.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tidegate::Rule;

use crate::publishers::said;
use crate::support::Forge;
use crate::support::forge::copy;
use serde_json::Value;
use tidegate::publish;

use super::{Places, folder, objects, sound};

fn forge() -> Forge {
    super::forge().with_settings()
}

fn run_in(dir: &Path, forge: &Forge, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["--now", &tidegate_tuf::time::format(forge.now()), "-C", dir.to_str().unwrap()]);
    command.args(args).env("NO_COLOR", "1").stdin(Stdio::null()).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_with_protected_cohorts_comes_back_from_both_places() {
    let (mut forge, places, folder) = (forge(), Places::new(), tempfile::tempdir().unwrap());
    let (public, private) = (places.public(), places.private());
    let both = [text(&public), "--private", text(&private)];
    let out = run_in(forge.dir(), &forge, &[&["publish"], &both[..]].concat());
    assert!(out.status.success(), "{}", said(&out));
    let root = forge.dir().join("metadata/1.root.json");
    let made = folder.path().join("again");
    let run = |forge: &Forge, args: &[&str]| run_in(&made, forge, args);

    // Without the private place what is protected is missed, and nothing is made.
    let out = run(&forge, &["pull", text(&public), "--root", text(&root)]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(said(&out).contains("--private"), "{}", said(&out));
    assert!(!made.join("metadata").exists());

    let out = run(&forge, &[&["pull"], &both[..], &["--root", text(&root), "--artifacts"]].concat());
    assert!(out.status.success(), "{}", said(&out));
    crate::publishers::pulled::accepted(&made, &tidegate_tuf::time::format(forge.now()));
    let role = format!("metadata/{}.stable.secret.json", forge.version("stable.secret"));
    assert_eq!(std::fs::read(made.join(&role)).unwrap(), std::fs::read(forge.dir().join(&role)).unwrap());
    let stored = |dir: &Path| -> BTreeSet<String> {
        objects(&dir.join("artifacts")).iter().map(|path| path.rsplit('/').next().unwrap().to_owned()).collect()
    };
    assert_eq!(stored(&made), stored(forge.dir()));
    let cohorts = std::fs::read_to_string(made.join("cohorts.toml")).unwrap();
    assert!(cohorts.contains("protected = { gate = \"https://gate.example.com\" }"), "{cohorts}");
    // It goes on where the other one was, with the keys beside it, and nothing protected comes into the open.
    copy(&forge.dir().join("keys"), &made.join("keys"));
    forge.later();
    let out = run(&forge, &["refresh"]);
    assert!(out.status.success(), "{}", said(&out));
    // Both places are in its tidegate.toml; without the private one, publishing is refused.
    let settings = std::fs::read_to_string(made.join("tidegate.toml")).unwrap();
    let line = format!("private = {:?}\n", std::fs::canonicalize(&private).unwrap());
    assert!(settings.contains(&line), "{settings}");
    // Which of the places that is read belongs to which is known from there.
    let device = folder.path().join("device.json");
    let of = r#"{"id": "device-1", "product": "os", "channel": "stable", "hardware": "board-a", "version": "0.1.0"}"#;
    std::fs::write(&device, of).unwrap();
    let out = run(&forge, &["explain", text(&public), "--device", text(&device)]);
    assert!(out.status.success(), "{}", said(&out));
    std::fs::write(made.join("tidegate.toml"), settings.replace(&line, "")).unwrap();
    let out = run(&forge, &["publish", text(&public)]);
    assert!(said(&out).contains("[P-PRIVATE]"), "{}", said(&out));
    let out = run(&forge, &[&["publish"], &both[..]].concat());
    assert!(out.status.success(), "{}", said(&out));
    sound(&forge, &places.open(), "published by the one that was made").await;
    // And the first takes that over.
    let out = run_in(forge.dir(), &forge, &[&["pull"], &both[..]].concat());
    assert!(out.status.success(), "{}", said(&out));
    assert!(places.plan(&forge).await.unwrap().is_done());
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_have_a_private_place_of_their_own() {
    let (mut forge, places, copied) = (forge(), Places::new(), Places::new());
    places.publish(&forge).await.unwrap();
    let error = publish::plan_sync(&places.open(), &folder(&copied.public()), &forge.root(), forge.now()).await;
    let error = error.unwrap_err();
    assert_eq!(error.broken_rule(), Some(Rule::PublishPrivate));
    assert!(error.remedy_text().unwrap().contains("--private-to PLACE"), "{error:?}");
    let root = forge.dir().join("metadata/1.root.json");
    let nowhere = tempfile::tempdir().unwrap();
    let sync = |forge: &Forge, places: &Places, copied: &Places| {
        let (public, private) = (places.public(), places.private());
        let (to, apart) = (copied.public(), copied.private());
        let args = ["sync", text(&public), text(&to), "--root", text(&root)];
        run_in(
            nowhere.path(),
            forge,
            &[&args[..], &["--private", text(&private), "--private-to", text(&apart)]].concat(),
        )
    };
    let same = |places: &Places, copied: &Places| {
        assert_eq!(objects(&copied.public()), objects(&places.public()));
        assert_eq!(objects(&copied.private()), objects(&places.private()));
    };
    let out = sync(&forge, &places, &copied);
    assert!(out.status.success(), "{}", said(&out));
    same(&places, &copied);
    let out = sync(&forge, &places, &copied);
    assert!(said(&out).contains("is up to date with"), "{}", said(&out));
    forge.release("3.0.0", 3, &[("os.img", b"secret three")]);
    forge.assign_privately("secret", "3.0.0");
    places.publish(&forge).await.unwrap();
    let out = sync(&forge, &places, &copied);
    assert!(out.status.success(), "{}", said(&out));
    same(&places, &copied);
    assert_eq!(copied.listing("stable.secret"), places.listing("stable.secret"));
    sound(&forge, &copied.open(), "the copy").await;
    // A copy of a secret that would lie open is refused, and so is one that is damaged.
    let key = places.listing("stable.secret").into_iter().find(|key| key.contains("3.0.0") && key.contains("os.img"));
    let key = key.unwrap();
    std::fs::write(places.private().join(&key), b"eerht terces").unwrap();
    let fresh = Places::new();
    let out = sync(&forge, &places, &fresh);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(
        said(&out).contains("is damaged") && !fresh.public().join("metadata/timestamp.json").exists(),
        "{}",
        said(&out)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_everyone_may_see_says_nothing_of_what_is_protected() {
    let (mut forge, places, folder) = (forge(), Places::new(), tempfile::tempdir().unwrap());
    let (public, private) = (places.public(), places.private());
    let both = [text(&public), "--private", text(&private)];
    let root = forge.dir().join("metadata/1.root.json");
    let run = |forge: &Forge, args: &[&str]| run_in(forge.dir(), forge, args);
    let status = |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let secrets = |dir: &Path| -> Vec<String> {
        let text = ["status.json", "index.html"].map(|file| std::fs::read_to_string(dir.join(file)).unwrap()).concat();
        ["2.0.0", "build-2"].into_iter().filter(|secret| text.contains(secret)).map(ToOwned::to_owned).collect()
    };

    let out = run(&forge, &[&["publish", "--site"], &both[..]].concat());
    assert!(out.status.success(), "{}", said(&out));
    assert_eq!(secrets(&public), [""; 0], "the page beside the repository");
    let seen = status(&public.join("status.json"));
    assert_eq!((&seen["sound"], &seen["faults"]), (&true.into(), &serde_json::json!([])), "{seen}");
    let cohort = &seen["channels"][0]["cohorts"][1];
    assert_eq!((&cohort["name"], &cohort["gate"]), (&"secret".into(), &super::GATE.into()));
    assert!(std::fs::read_to_string(public.join("index.html")).unwrap().contains("not public"));

    // The same from a place that anyone reads, and from the workspace for everyone; for its own people it says all.
    for (name, args) in [("elsewhere", vec![text(&public), "--root", text(&root)]), ("public", vec!["--public"])] {
        let to = folder.path().join(name);
        let out = run(&forge, &[&["site", "--out", text(&to)], &args[..]].concat());
        assert!(out.status.success() && !said(&out).contains("missing"), "{name}: {}", said(&out));
        assert_eq!(secrets(&to), [""; 0], "{name}");
        assert_eq!(status(&to.join("status.json"))["sound"], true, "{name}");
    }
    let to = folder.path().join("full");
    assert!(run(&forge, &["site", "--out", text(&to)]).status.success());
    assert_eq!(secrets(&to), ["2.0.0", "build-2"]);

    // What the workspace itself says of it.
    let out = run(&forge, &["status"]);
    assert!(said(&out).contains("secret (protected)") && said(&out).contains("2.0.0 (private)"), "{}", said(&out));
    let out = run(&forge, &["diff", text(&public), text(forge.dir()), "--root", text(&root)]);
    assert!(said(&out).contains("are the same"), "{}", said(&out));
    // An audit of a layout that cannot be one.
    let out = run(&forge, &["verify", text(&public), "--private", text(&public.join("x")), "--root", text(&root)]);
    assert!(out.status.code() == Some(1) && said(&out).contains("[P-PRIVATE]"), "{}", said(&out));

    // The doctor finds nothing wrong with what is not there for it, and a comparison tells what is public of a change.
    let out = run(&forge, &["doctor", "--published", text(&public)]);
    assert!(!said(&out).contains("missing"), "{}", said(&out));
    forge.guard(&[("early", None), ("secret", Some("https://other.example.com"))]);
    let out = run(&forge, &["diff", text(&public), text(forge.dir()), "--root", text(&root)]);
    assert!(out.status.success(), "{}", said(&out));
    assert!(said(&out).contains("protected by https://gate.example.com -> "), "{}", said(&out));
    assert!(said(&out).contains("protected by https://other.example.com"), "{}", said(&out));
}

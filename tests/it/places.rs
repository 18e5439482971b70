//! Commands that read a repository take every kind of place.

use std::fs;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tidegate::publish::{Options, Remote};

use crate::publishers::said;
use crate::support::forge::copy;
use crate::support::s3::{BUCKET, S3};
use crate::support::{Forge, Serving};
use crate::view::story::{NOW, Story, text, tidegate};

/// A story whose publication has a second snapshot, a device of it, and where it lies.
struct Published {
    story: Story,
    s3: S3,
    serving: Serving,
}

const LATER: &str = "2026-03-06T06:00:00Z";

impl Published {
    async fn new() -> Self {
        let (story, s3) = (Story::new(), S3::here().await);
        let serving = Serving::start(&story.public()).await;
        let device = r#"{"id": "device-1", "product": "os", "channel": "stable", "hardware": "board-a", "version": "1.0.0", "sequence": 1}"#;
        fs::write(story.path("device.json"), device).unwrap();
        let settings = r#"{"root": "1.root.json", "repository": "https://updates.example.com", "state_dir": "state", "slot": "slot.img",
            "device_id": "device-1", "product": "os", "channel": "stable", "hardware": "board-a", "factory_version": "1.0.0",
            "factory_sequence": 1, "poll": {"interval": "1h"}}"#;
        fs::write(story.path("settings.json"), settings).unwrap();
        let published = Self { story, s3, serving };
        let fleet = published.story.workspace();
        for args in [&["rollout", "pause", "1.1.0"][..], &["refresh"], &["publish", text(&published.story.public())]] {
            published.done(&[&["-C", text(&fleet)], args].concat());
        }
        // Example keys are published to folders alone; the server keeps its objects as files.
        copy(&published.story.public(), &published.s3.folder.as_ref().unwrap().join("fleet"));
        published
    }

    /// The same repository in a folder, behind a web server, and in a store.
    fn places(&self) -> [String; 3] {
        [text(&self.story.public()).to_owned(), self.serving.url(), format!("s3://{BUCKET}/fleet")]
    }

    /// Runs a command outside any workspace.
    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.current_dir(self.story.path("")).args(["--now", LATER]).args(args).envs(self.s3.variables());
        command.env("NO_COLOR", "1").stdin(Stdio::null()).output().unwrap()
    }

    fn done(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(out.status.success(), "{args:?}: {}", said(&out));
        String::from_utf8(out.stdout).unwrap()
    }

    /// The number of the snapshot that is live.
    fn snapshot(&self) -> u64 {
        let timestamp: Value =
            serde_json::from_slice(&fs::read(self.story.public().join("metadata/timestamp.json")).unwrap()).unwrap();
        timestamp["signed"]["meta"]["snapshot.json"]["version"].as_u64().unwrap()
    }

    fn root(&self) -> String {
        text(&self.story.root()).to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reading_command_takes_every_kind_of_place() {
    let published = Published::new().await;
    let root = ["--root", &published.root()].map(str::to_owned);
    let root: Vec<&str> = root.iter().map(String::as_str).collect();
    let live = published.snapshot();
    let mut explained = Vec::new();
    for (number, place) in published.places().iter().enumerate() {
        let run = |args: &[&str]| published.done(&[args, &root[..]].concat());
        for at in [place.clone(), format!("{place}@{live}")] {
            run(&["verify", &at]);
            run(&["doctor", &at]);
            run(&["diff", &at, place]);
            run(&["site", &at, "--out", &format!("site-{number}")]);
            explained.push(run(&["explain", &at, "--device", "device.json", "--json"]));
            explained.push(run(&["explain", &at, "--device", "settings.json", "--json"]));
        }
        let new = |name: &str| text(&published.story.path(&format!("{name}-{number}"))).to_owned();
        run(&["-C", &new("pulled"), "pull", place]);
        run(&["sync", place, &new("copy")]);
        run(&["import", place, &new("imported"), "--example-keys"]);
        let fleet = text(&published.story.workspace()).to_owned();
        let validated = published.done(&["-C", &fleet, "release", "validate", "1.1.0", "--published", place, "--json"]);
        let validated: Value = serde_json::from_str(&validated).unwrap();
        let compared = validated["findings"].as_array().unwrap().iter().find(|finding| finding["rule"] == "V-ART-06");
        assert_eq!(compared.unwrap()["verdict"], "pass", "{compared:?}");
        // What is live is the only state that can be taken over.
        let past = format!("{place}@{live}");
        for args in [
            &["-C", &new("other"), "pull", &past][..],
            &["sync", &past, &new("other")],
            &["import", &past, &new("other"), "--example-keys"],
        ] {
            let out = published.run(&[args, &root[..]].concat());
            assert_eq!(out.status.code(), Some(2), "{args:?}: {}", said(&out));
            assert!(said(&out).contains("only what is live can be taken"), "{}", said(&out));
        }
        for args in [
            &["verify", "s3:bucket"][..],
            &["site", "https:host", "--out", "x"],
            &["explain", "gs:b", "--device", "device.json"],
        ] {
            let out = published.run(&[args, &root[..]].concat());
            assert_eq!(out.status.code(), Some(2), "{args:?}: {}", said(&out));
        }
    }
    assert!(explained.iter().all(|answer| *answer == explained[0]), "{explained:#?}");
}

/// Publishes to a store of any kind, and has commands read it with these variables.
pub async fn read_by_commands(place: &str, variables: &std::collections::BTreeMap<String, String>) {
    let mut forge = Forge::new(&["all"]);
    forge.release("1.0.0", 1, &[("os.img", b"one")]);
    forge.assign("all", "1.0.0");
    let options = Options { variables: variables.clone().into_iter().collect(), ..Options::default() };
    crate::publishers::put_live(&forge, &Remote::open_with(place, &options).unwrap()).await.unwrap();
    let (folder, root) = (tempfile::tempdir().unwrap(), forge.dir().join("metadata/1.root.json"));
    let device =
        r#"{"id": "device-1", "product": "os", "channel": "stable", "hardware": "board-a", "version": "0.1.0"}"#;
    fs::write(folder.path().join("device.json"), device).unwrap();
    for args in [
        &["verify", place][..],
        &["doctor", place],
        &["diff", &format!("{place}@{}", forge.version("snapshot")), place],
        &["site", place, "--out", "site"],
        &["explain", place, "--device", "device.json"],
        &["-C", "pulled", "pull", place],
        &["sync", place, "copy"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.current_dir(&folder).args(["--now", &tidegate_tuf::time::format(forge.now())]).args(args);
        let out = command.args(["--root", text(&root)]).envs(variables).env("NO_COLOR", "1").output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", said(&out));
    }
}

/// All commands that read places describe them in the same words.
#[test]
fn help_describes_places_in_the_same_words() {
    let command = tidegate::cli::command();
    for (name, argument, past) in [
        ("verify", "place", true),
        ("doctor", "place", true),
        ("site", "place", true),
        ("explain", "place", true),
        ("diff", "old", true),
        ("diff", "new", true),
        ("pull", "place", false),
        ("sync", "from", false),
        ("import", "place", false),
    ] {
        let below = command.find_subcommand(name).unwrap();
        let help = below.get_arguments().find(|arg| arg.get_id() == argument).unwrap().get_help().unwrap().to_string();
        assert!(help.contains("a folder, https://, s3://, gs:// or az://"), "{name}: {help}");
        assert_eq!(help.contains("PLACE@12"), past, "{name}: {help}");
        assert!(!past || below.get_arguments().any(|arg| arg.get_id() == "private"), "{name} takes --private");
    }
}

#[test]
fn a_difference_to_an_earlier_snapshot_is_what_changed() {
    let story = Story::new();
    let public = story.public();
    let snapshot = fs::read_dir(public.join("metadata"))
        .unwrap()
        .find_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".snapshot.json")?.parse::<u64>().ok());
    let past = format!("{}@{}", text(&public), snapshot.unwrap());
    let diff = |now: &str| -> Value {
        let out = tidegate(&["-C", text(&story.workspace()), "--now", now, "--json", "diff", &past, text(&public)]);
        assert!(out.status.success(), "{}", said(&out));
        serde_json::from_slice(&out.stdout).unwrap()
    };
    assert_eq!(diff(NOW)["same"], true, "{:#}", diff(NOW));
    for args in [&["rollout", "pause", "1.1.0"][..], &["publish", text(&public)]] {
        let out = story.run(args);
        assert!(out.status.success(), "{}", said(&out));
    }
    let changed = diff(NOW);
    for section in ["keys", "thresholds", "delegations", "cohorts", "releases", "faults"] {
        assert_eq!(changed[section], serde_json::json!([]), "{changed:#}");
    }
    assert!(!changed["offers"].as_array().unwrap().is_empty(), "{changed:#}");
    let versions: Vec<&str> =
        changed["versions"].as_array().unwrap().iter().map(|row| row["field"].as_str().unwrap()).collect();
    assert!(!versions.contains(&"timestamp") && versions.contains(&"snapshot"), "{versions:?}");
}

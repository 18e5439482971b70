//! What a workspace from others can do to whoever runs commands in it: links, journals, pipes, programs.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use tidegate::fs::Changes;
use tidegate_model::time;

use crate::support::fleet::Fleet;

/// Commands that read, and commands that write.
const READ: &[&str] = &["status", "log", "release list", "key list", "key check", "site --out OUT", "key show root-1"];
const WRITE: &[&str] = &["refresh", "release new 9.9.9", "publish OUT", "key new spare --no-passphrase"];

/// Runs a command in the fleet's workspace. Whether it succeeded, and what it said.
fn run(fleet: &Fleet, words: &str) -> (bool, String) {
    let outside = fleet.dir.path().join("out").display().to_string();
    let out = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(if words.starts_with("-C") || words.starts_with("import") { &[][..] } else { &["-C", "fleet"] })
        .args(["--now", &time::format(fleet.now)])
        .args(words.split(' ').map(|word| if word == "OUT" { &outside } else { word }))
        .current_dir(fleet.dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

/// Every file below `root` with its content, and links with where they lead; without the lock.
fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && !name.ends_with(".tidegate/lock") {
                found.insert(name, fs::read(path).unwrap());
            } else if kind.is_symlink() {
                found.insert(name, fs::read_link(path).unwrap().into_os_string().into_encoded_bytes());
            }
        }
    }
    found
}

#[test]
fn a_journal_that_came_with_a_clone_is_not_replayed() {
    let fleet = Fleet::new();
    let journal = fleet.path().join(".tidegate/journal");
    let removes = r#""puts": [], "removes": ["keys/root-1.pem", "ledger.jsonl", "metadata/1.root.json"]"#;
    for decision in [
        format!("{{{removes}}}"),
        format!("{{\"checkout\": \"1764500000.000000000\", {removes}}}"),
        format!("{{\"checkout\": \"\", {removes}}}"),
        r#"{"checkout": "1.000000000", "puts": ["tidegate.toml"], "removes": []}"#.into(),
        "{".into(),
    ] {
        fs::create_dir_all(&journal).unwrap();
        fs::write(journal.join("decision.json"), &decision).unwrap();
        fs::write(journal.join("0"), "planted").unwrap();
        let before = tree(&fleet.path());
        for command in READ.iter().chain(WRITE) {
            let (succeeded, said) = run(&fleet, command);
            assert!(!succeeded && said.contains("W-JOURNAL"), "{command}: {said}");
        }
        let (succeeded, said) = run(&fleet, "doctor");
        assert!(!succeeded && said.contains("DOC-FOLDER"), "{said}");
        assert_eq!(tree(&fleet.path()), before, "{decision}");
        fs::remove_dir_all(&journal).unwrap();
    }
    assert!(run(&fleet, "status").0);
}

#[test]
fn an_interrupted_change_is_left_to_commands_that_write() {
    let fleet = Fleet::new();
    // A file in the place of a folder stops the change after it was decided.
    let place = fleet.path().join("transcripts");
    fs::write(&place, "").unwrap();
    let mut changes = Changes::default();
    changes.put("releases/note", "one");
    changes.put("transcripts/note", "two");
    changes.commit(&fleet.path()).unwrap_err();
    fs::remove_file(&place).unwrap();
    let before = tree(&fleet.path());
    for command in READ {
        let (succeeded, said) = run(&fleet, command);
        assert!(
            !succeeded && said.contains("interrupted change") && said.contains("tidegate refresh"),
            "{command}: {said}"
        );
    }
    assert_eq!(tree(&fleet.path()), before);
    let (succeeded, said) = run(&fleet, "refresh");
    assert!(succeeded, "{said}");
    assert_eq!(fs::read(fleet.path().join("transcripts/note")).unwrap(), b"two");
    assert!(run(&fleet, "status").0);
}

#[test]
fn links_in_the_workspaces_own_folders_are_refused() {
    for name in [
        ".tidegate",
        ".tidegate/lock",
        ".tidegate/journal",
        ".tidegate/remote",
        "metadata",
        "metadata/1.root.json",
        "artifacts",
        "artifacts/sha256",
        "artifacts/signed",
        "releases",
        "releases/stable",
        "proposals",
        "transcripts",
        "keys",
        "keys/root-1.pem",
        "ledger.jsonl",
        "published.json",
        "policy.toml",
    ] {
        let fleet = Fleet::new();
        let (path, outside) = (fleet.path().join(name), fleet.dir.path().join("outside"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if path.exists() {
            fs::rename(&path, &outside).unwrap();
        } else {
            fs::create_dir_all(outside.join("journal")).unwrap();
            fs::write(outside.join("journal/decision.json"), "{}").unwrap();
        }
        fs::create_dir_all(fleet.dir.path().join("out")).unwrap();
        symlink(&outside, &path).unwrap();
        let before = tree(fleet.dir.path());
        let mut commands = vec!["status", "refresh", "diff fleet fleet"];
        if [".tidegate", ".tidegate/remote"].contains(&name) {
            commands.push("sync OUT OUT --root fleet/metadata/1.root.json");
        }
        for command in commands {
            let (succeeded, said) = run(&fleet, command);
            assert!(
                !succeeded && said.contains("P-CONFINED") && said.contains("symbolic link"),
                "{name}, {command}: {said}"
            );
        }
        assert_eq!(tree(fleet.dir.path()), before, "{name}");
    }
}

#[test]
fn pipes_in_a_workspace_do_not_block() {
    for name in [".tidegate/lock", "policy.toml", "metadata/1.root.json", "proposals/ceremony.json"] {
        let fleet = Fleet::new();
        let path = fleet.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        for command in ["status", "refresh", "doctor"] {
            let (succeeded, said) = run(&fleet, command);
            assert!(!succeeded && said.contains("neither a file nor a folder"), "{name}, {command}: {said}");
        }
    }
}

#[test]
fn pipes_in_a_repository_do_not_block() {
    let fleet = Fleet::new();
    let (place, old) = (fleet.dir.path().join("out/metadata"), fleet.dir.path().join("old"));
    let metadata = fleet.path().join("metadata");
    for (to, pipe) in [(&place, "timestamp.json"), (&place, "1.targets.json"), (&old, "1.snapshot.json")] {
        let _ = fs::remove_dir_all(to);
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(&metadata).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        fs::remove_file(to.join(pipe)).unwrap();
        assert!(Command::new("mkfifo").arg(to.join(pipe)).status().unwrap().success());
        let command = if to == &old {
            "import old new --root fleet/metadata/1.root.json --example-keys"
        } else {
            "-C new pull OUT --root fleet/metadata/1.root.json"
        };
        let (succeeded, said) = run(&fleet, command);
        assert!(!succeeded && !said.contains("Usage"), "{pipe}: {said}");
        assert!(!fleet.dir.path().join("new/metadata").exists());
    }
}

/// Makes the workspace a repository of git whose configuration names programs: one that watches files, and one that fetches the folder
/// that the index needs and the repository lacks.
const GIT: &str = r#"
git init -q . && mkdir x && echo b > x/b && git add -f keys x && git -c user.name=a -c user.email=a@b commit -qm m
tree=$(git rev-parse HEAD:x)
git sparse-checkout set --cone --sparse-index keys
rm -f ".git/objects/$(echo "$tree" | cut -c1-2)/$(echo "$tree" | cut -c3-)"
git config core.repositoryformatversion 1 && git config extensions.partialClone origin
git config remote.origin.url "$PWD" && git config remote.origin.promisor true
git config remote.origin.uploadpack "touch '$PWD/executed'; git-upload-pack" && git config core.fsmonitor "touch '$PWD/executed'"
"#;

#[test]
fn commands_that_read_execute_nothing_of_a_workspace() {
    let fleet = Fleet::new();
    tool(&fleet.path().join("tool"));
    let edit = |name: &str, change: &dyn Fn(String) -> String| {
        let path = fleet.path().join(name);
        fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
    };
    edit("tidegate.toml", &|text| text.replace("\"file:keys/", "\"command:./tool?arg=sign&arg="));
    let check =
        "\n[[validation.check]]\nid = \"X-A\"\ntitle = \"a\"\ncommand = [\"./tool\", \"check\"]\ntimeout = \"9s\"\n";
    edit("policy.toml", &|text| text + check);
    fleet.draft("1.0.0", |_| ());
    let made = Command::new("sh").args(["-ec", GIT]).current_dir(fleet.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    assert!(!fleet.path().join("executed").exists());
    for command in READ.iter().chain(&["doctor", "release show 1.0.0"]).filter(|command| **command != "key check") {
        let (succeeded, said) = run(&fleet, command);
        assert!(succeeded || *command == "doctor", "{command}: {said}");
        for name in ["executed", "seen.sign", "seen.check"] {
            assert!(!fleet.path().join(name).exists(), "{command}: {said}");
        }
    }
}

/// Writes down its environment beside itself, under the name of its kind.
fn tool(path: &Path) {
    fs::write(path, "#!/bin/sh\ncat > /dev/null\nenv > \"${0%/*}/seen.$1\"\n").unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn programs_start_in_the_workspace_with_a_clean_environment() {
    let fleet = Fleet::new();
    let policy = fleet.path().join("policy.toml");
    let check = "[[validation.check]]\nid = \"X-A\"\ntitle = \"a\"\ncommand = [\"./tool\", \"check\"]\ntimeout = \"9s\"\nenvironment = [\"LISTED\"]\n";
    let other = "[[validation.check]]\nid = \"X-B\"\ntitle = \"b\"\ncommand = [\"only-here\"]\ntimeout = \"9s\"\n";
    let text = fs::read_to_string(&policy).unwrap().replace(
        "[health]",
        "[health]
environment = [\"LISTED\"]",
    );
    fs::write(
        &policy,
        format!(
            "{text}
{check}{other}"
        ),
    )
    .unwrap();
    let (own, caller) = (fleet.path().join("tool"), fleet.dir.path().join("caller"));
    fs::create_dir(&caller).unwrap();
    tool(&own);
    for name in ["tool", "only-here", "git"] {
        fs::write(caller.join(name), "#!/bin/sh\ntouch \"${0%/*}/executed\"\n").unwrap();
        fs::set_permissions(caller.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fleet.draft("1.0.0", |_| ());
    let health = format!("command:{} health", own.display());
    let kinds: [(&str, &[&str]); 3] = [
        ("check", &["release", "validate", "1.0.0"]),
        ("sign", &["key", "import", "hsm", "command:./tool?arg=sign&env=LISTED"]),
        ("health", &["rollout", "renew", "1.0.0", "--require-health", &health]),
    ];
    for (kind, words) in kinds.into_iter().chain([("", &["doctor"][..])]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["-C", "../fleet", "--now", &time::format(fleet.now)]).args(words).current_dir(&caller);
        command.env("PATH", format!(".::../caller:{}", std::env::var("PATH").unwrap())).env("LISTED", "yes");
        for name in [
            "TIDEGATE_PASSPHRASE",
            "TIDEGATE_PASSPHRASE_RELEASE_1",
            "TIDEGATE_PIN",
            "AWS_SECRET_ACCESS_KEY",
            "AZURE_KEY",
            "CI_TOKEN",
        ] {
            command.env(name, "secret");
        }
        let out = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        assert!(!caller.join("executed").exists(), "{kind}: {said}");
        if kind.is_empty() {
            continue;
        }
        let seen = fs::read_to_string(fleet.path().join(format!("seen.{kind}")));
        let seen = seen.unwrap_or_else(|_| panic!("{kind}: {said}"));
        println!("{kind}:\n{seen}");
        assert!(seen.contains("LISTED=yes\n") && !seen.contains("secret"), "{kind}: {seen}");
        let path = seen.lines().find_map(|line| line.strip_prefix("PATH=")).unwrap();
        assert!(path.split(':').all(|folder| folder.starts_with('/')), "{kind}: {path}");
    }
}

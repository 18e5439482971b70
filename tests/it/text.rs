//! Text from others: whatever names, notes, records, ledgers, proposals, settings, metadata and receipts hold, no command prints a control
//! character or one that turns text around, and no message repeats the secrets of a URL.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tidegate::keys::KeyUri;
use tidegate_model::{text, time};

use crate::support::fleet::Fleet;

/// Ends its line to begin one that looks like the program's own, moves the cursor, hides, and turns what follows around.
const HOSTILE: &str = "x\nnext: forged\r\t\u{1b}[2K\u{7f}\u{9b}31m\u{61c}\u{202e}\u{2066}\u{200b}\u{2028}\u{feff}y";
const SECRETS: [&str; 3] = ["secret-user", "secret-word", "secret-token"];

/// A fleet with a release on its way, a proposal that waits, and what was published.
fn scene() -> Fleet {
    let fleet = Fleet::new();
    let spec = fleet.release("1.0.0", |new| {
        new.notes = vec!["a note".parse().unwrap()];
        new.source = Some("git+https://example.com/os".parse().unwrap());
    });
    fleet.start(&spec);
    for words in ["publish OUT", "ceremony start --renew root --reason because"] {
        let out = run(&fleet, words);
        assert!(out.status.success(), "{words}: {out:?}");
    }
    let write = |name: &str, text: &str| fs::write(fleet.dir.path().join(name), text).unwrap();
    write(
        "device.json",
        r#"{"id": "d-1", "product": "os", "channel": "stable", "hardware": "board-a", "version": "1.1.0", "sequence": 0, "facts": {"group": "lab"}}"#,
    );
    write("fleet.csv", "id,hardware,version,sequence,group\nd-1,board-a,1.1.0,0,lab\n");
    fs::create_dir_all(fleet.dir.path().join("receipts/receipts/stable/os/1")).unwrap();
    write("receipts/receipts/stable/os/1/x.json", r#"{"schema": 1}"#);
    write(
        "health.json",
        r#"{"schema": 1, "at": "2026-11-25T00:00:00Z", "releases": [{"release": "stable/os/1.0.0", "sequence": 1, "cohorts": {"validation": {"installed": 1, "confirmed": 1, "failed": 0, "rolled_back": 0}}}]}"#,
    );
    fleet
}

/// Runs a command in the fleet's workspace. `OUT` is what was published, `DIR` the folder around the workspace.
fn run(fleet: &Fleet, words: &str) -> Output {
    let dir = fleet.dir.path().display().to_string();
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["-C", "fleet", "--now", &time::format(fleet.now)])
        .args(words.split(' ').map(|word| word.replace("OUT", &format!("{dir}/out")).replace("DIR", &dir)))
        .current_dir(fleet.dir.path())
        .env("TIDEGATE_ACTOR", "tester")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn must_be_clean(what: &str, text: &str) {
    let bad = text.lines().find(|line| line.contains(text::is_hidden) || line.starts_with("next: forged"));
    assert!(bad.is_none(), "{what}: {bad:?}");
}

/// Runs a command as text, and as JSON where that is hostile, and looks at all that it says and writes. Whether it said anything hostile.
fn is_clean(fleet: &Fleet, words: &str, what: &str) -> bool {
    let says = |option: &str| {
        let out = run(fleet, &format!("{words}{option}"));
        let said = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
        assert!(!said.contains("panicked"), "{what}: {said}");
        must_be_clean(&format!("{words}{option}, {what}"), &said);
        said.contains("forged")
    };
    let said = says("") && says(" --json");
    for file in ["site/index.html", "curve.svg", "junit.xml"] {
        if let Ok(text) = fs::read_to_string(fleet.dir.path().join(file)) {
            must_be_clean(&format!("{words}, {what}, {file}"), &text);
        }
    }
    said
}

/// The places of all texts in a document: of those in a list, and below names that are hashes, the first.
fn texts(value: &Value, place: &str, kind: &str, kinds: &mut BTreeSet<String>, found: &mut Vec<String>) {
    match value {
        Value::String(_) if kinds.insert(kind.to_owned()) => found.push(place.to_owned()),
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate() {
                texts(value, &format!("{place}/{at}"), &format!("{kind}/*"), kinds, found);
            }
        }
        Value::Object(members) => {
            for (name, value) in members {
                let step = if name.len() >= 64 { "*" } else { name };
                let name = name.replace('~', "~0").replace('/', "~1");
                texts(value, &format!("{place}/{name}"), &format!("{kind}/{step}"), kinds, found);
            }
        }
        _ => {}
    }
}

/// Variants of a document, in each of which one text is hostile; of the ledger, the last line.
fn variants(path: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let kind = path.extension().unwrap();
    if kind == "toml" {
        let mut kinds = BTreeSet::new();
        let lines: Vec<&str> = text.lines().collect();
        let hostile = |line: &str| {
            let (key, value) = line.split_once('=')?;
            let (before, rest) = value.split_once('"')?;
            let (_, after) = rest.split_once('"')?;
            Some(format!("{key}={before}{}{after}", toml::Value::from(HOSTILE)))
        };
        let keys = lines.iter().enumerate().filter(|(_, line)| !line.starts_with('#'));
        let keys = keys.filter(|(_, line)| kinds.insert(line.split('=').next().unwrap().to_owned()));
        let changed = keys.filter_map(|(at, line)| {
            let mut lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            lines[at] = hostile(line)?;
            Some((format!("{name}: {line}"), lines.join("\n") + "\n"))
        });
        return changed.collect();
    }
    let (before, last) = if kind == "jsonl" {
        text.trim_end().rsplit_once('\n').map_or(("", text.as_str()), |(before, last)| (before, last))
    } else {
        ("", text.as_str())
    };
    let value: Value = serde_json::from_str(last).unwrap();
    let (mut kinds, mut found) = (BTreeSet::new(), Vec::new());
    texts(&value, "", "", &mut kinds, &mut found);
    let changed = found.into_iter().map(|place| {
        let mut value = value.clone();
        *value.pointer_mut(&place).unwrap() = HOSTILE.into();
        (format!("{name}: {place}"), format!("{before}{}{value}\n", if before.is_empty() { "" } else { "\n" }))
    });
    changed.collect()
}

/// Every JSON document below a folder.
fn documents(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(documents(&path));
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Each text of each file is hostile in turn: what is refused is refused in clean words, and what is accepted is printed clean.
#[test]
fn no_field_of_any_file_reaches_a_terminal_as_it_is() {
    let fleet = scene();
    let workspace = fleet.path();
    let mut cases: Vec<(PathBuf, &str)> =
        documents(&workspace.join("releases")).into_iter().map(|path| (path, "release show 1.0.0")).collect();
    cases.extend([
        (workspace.join("ledger.jsonl"), "log"),
        (workspace.join("tidegate.toml"), "key list"),
        (workspace.join("policy.toml"), "rollout plan 1.0.0 --fleet DIR/fleet.csv"),
        (workspace.join("cohorts.toml"), "release validate 1.0.0"),
        (workspace.join("proposals/ceremony.json"), "ceremony show"),
        (workspace.join("metadata/1.root.json"), "status"),
        (workspace.join("metadata/timestamp.json"), "status"),
        (fleet.dir.path().join("device.json"), "explain --device DIR/device.json"),
        (fleet.dir.path().join("health.json"), "rollout renew 1.0.0 --require-health DIR/health.json"),
    ]);
    let published = documents(&fleet.dir.path().join("out/metadata"));
    for path in published.into_iter().filter(|path| !path.ends_with("1.stable.early.json")) {
        cases.push((path, "verify OUT --root DIR/fleet/metadata/1.root.json"));
    }
    let (mut tried, mut said) = (0, 0);
    for (path, command) in cases {
        let before = fs::read(&path).unwrap();
        for (what, text) in variants(&path) {
            fs::write(&path, text).unwrap();
            tried += 1;
            said += usize::from(is_clean(&fleet, command, &what));
        }
        fs::write(&path, before).unwrap();
    }
    assert!(tried > 100 && said > 20, "{tried} texts, {said} of them printed");
}

/// What parsers accept is hostile everywhere at once, and every command that reads prints it, in every format.
#[test]
fn every_command_prints_hostile_text_escaped() {
    let fleet = scene();
    let hostile = |path: &Path, change: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        change(&mut value);
        fs::write(path, value.to_string()).unwrap();
    };
    hostile(&fleet.path().join("proposals/ceremony.json"), &|proposal| proposal["reason"] = HOSTILE.into());
    let ledger = fleet.path().join("ledger.jsonl");
    let mut entry: Value = serde_json::from_str(fs::read_to_string(&ledger).unwrap().lines().last().unwrap()).unwrap();
    for field in ["actor", "event", "subject", "from", "to", "reason"] {
        entry[field] = HOSTILE.into();
    }
    let text = fs::read_to_string(&ledger).unwrap() + &entry.to_string() + "\n";
    fs::write(&ledger, text).unwrap();
    let settings = fs::read_to_string(fleet.path().join("tidegate.toml")).unwrap();
    let holder = format!("[keys.root-1]\nholder = {}\n", toml::Value::from(HOSTILE));
    fs::write(fleet.path().join("tidegate.toml"), settings.replace("[keys.root-1]\n", &holder)).unwrap();
    let policy = fs::read_to_string(fleet.path().join("policy.toml")).unwrap();
    let check = format!(
        "{policy}\n[[validation.check]]\nid = \"X-OWN\"\ntitle = \"own \u{202e}forged\"\ncommand = [\"./check\"]\ntimeout = \"9s\"\n"
    );
    fs::write(fleet.path().join("policy.toml"), check).unwrap();
    let check = fleet.path().join("check");
    fs::write(&check, format!("#!/bin/sh\nprintf '%s' '{HOSTILE}'\nprintf '%s' '{HOSTILE}' >&2\nexit 1\n")).unwrap();
    fs::set_permissions(&check, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(fleet.dir.path().join("out/metadata").join(HOSTILE), "x").unwrap();

    let mut said = 0;
    for command in [
        "status",
        "doctor",
        "doctor OUT --root DIR/fleet/metadata/1.root.json",
        "log",
        "log --verify",
        "key list",
        "key show root-1",
        "release list",
        "release show 1.0.0",
        "release validate 1.0.0 --junit DIR/junit.xml",
        "rollout status 1.0.0",
        "rollout plan 1.0.0 --svg DIR/curve.svg",
        "rollout pause 1.0.0 --reason x\u{202e}\u{1b}[2Kforged",
        "ceremony show",
        "ceremony status",
        "ceremony rehearse",
        "ceremony sign --key root-1 --confirm 00000000",
        "site --out DIR/site",
        "diff OUT DIR/fleet",
        "receipts file:DIR/receipts --enrolments file:DIR/receipts",
        "publish OUT --dry-run",
        "prune OUT --grace 1d",
        "verify OUT --root DIR/fleet/metadata/1.root.json",
        "verify DIR/no\u{202e}\u{9b}forged --root DIR/fleet/metadata/1.root.json",
        "serve DIR/no\u{202e}\u{9b}forged",
        "explain --device DIR/no\u{202e}forged",
        "-vv release show \u{202e}forged",
    ] {
        said += usize::from(is_clean(&fleet, command, ""));
    }
    assert!(said > 10, "{said}");
    let page = fs::read_to_string(fleet.dir.path().join("site/index.html")).unwrap();
    assert!(page.contains("next: forged"), "the page has it");
}

/// Places with secrets in their URL, in the settings' keys and on the command line.
#[test]
fn messages_repeat_no_secret_of_a_url() {
    let fleet = scene();
    let secret = "http://secret-user:secret-word@127.0.0.1:1/x?secret-token=1";
    let root = "--root DIR/fleet/metadata/1.root.json";
    for command in [
        format!("-vv verify {secret} {root}"),
        format!("site {secret} {root} --out DIR/site"),
        format!("diff {secret} DIR/fleet"),
        format!("diff OUT {secret} {root}"),
        format!("doctor {secret} {root}"),
        format!("publish {secret}"),
        "publish s3://secret-user:secret-word@bucket/x?secret-token=1".into(),
        format!("pull {secret}"),
        format!("sync OUT {secret} {root}"),
        format!("sync {secret} OUT {root}"),
        format!("prune {secret} --grace 1d"),
        format!("receipts {secret} --enrolments {secret}"),
        format!("import {secret} {root}"),
    ] {
        for option in ["", " --json"] {
            let out = run(&fleet, &format!("{command}{option}"));
            let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
            assert!(!out.status.success() && !said.is_empty(), "{command}");
            for secret in SECRETS {
                assert!(!said.contains(secret), "{command}{option}: {said}");
            }
        }
    }
    for uri in [
        "command:./sign?arg=--token=secret-token&other=1",
        "kms:alias/x?endpoint=http://secret-user:secret-word@h&other=1",
        "pkcs11:object=a?pin-value=secret-word",
        "secret-user",
    ] {
        let said = format!("{:?}", KeyUri::parse(uri).unwrap_err());
        assert_eq!(SECRETS.iter().filter(|secret| said.contains(**secret)).count(), usize::from(uri == SECRETS[0]));
    }
}

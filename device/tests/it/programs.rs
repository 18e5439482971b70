//! Where the programs that the settings name are taken from, and what they find in their environment.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::cli::{Bench, with_release};

/// Writes down its environment under the name of its kind, and answers what every kind of program has to.
const TOOL: &str = r#"#!/bin/sh
env > "seen.$1"
case "$1 $2" in
  facts*) echo group=field ;;
  token*) echo Bearer of-the-program ;;
  *running) echo a ;;
  unpack*) cp "$2" "$3" ;;
  url*) echo "http://127.0.0.1:9/receipt" ;;
esac
"#;
const OTHER: &str = "#!/bin/sh\ntouch \"$PWD/executed\"; exit 1\n";

fn program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs a command from a folder that has programs of the same names, which `PATH` leads to.
fn run(bench: &Bench, words: &[&str]) -> String {
    let path = format!(":.:caller:{}:", std::env::var("PATH").unwrap());
    let mut command = bench.command(words);
    command.current_dir(bench.path("caller")).env("PATH", path).env("LISTED", "yes");
    for secret in ["TIDEGATE_PASSPHRASE", "TIDEGATE_PIN", "AWS_SECRET_ACCESS_KEY", "CI_TOKEN", "NOTIFY_SOCKET"] {
        command.env(secret, "secret");
    }
    let output = command.output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn tool(kind: &str) -> Value {
    json!({"program": ["./tool", kind], "limit": "20s", "environment": ["LISTED", "UNSET"]})
}

fn bench() -> Bench {
    let bench = with_release();
    fs::create_dir(bench.path("caller")).unwrap();
    for name in ["tool", "env", "cp", "mkdir"] {
        program(&bench.path("caller").join(name), OTHER);
    }
    program(&bench.path("tool"), TOOL);
    bench
}

#[test]
fn programs_start_in_the_folder_of_the_settings_with_a_clean_environment() {
    let slots = json!({"kind": "slots", "images": [{"a": "slot.a", "b": "slot.b"}], "boot": tool("boot")});
    let unpack = json!({"program": ["./tool", "unpack", "{artifact}", "{folder}"], "environment": ["LISTED"]});
    let network = json!({"authorization": {"program": tool("token"), "server": "http://127.0.0.1:9"}});
    let mut kinds: BTreeMap<&str, (Value, Vec<&str>)> = BTreeMap::from([
        ("facts", (json!({"facts_program": tool("facts")}), vec!["check"])),
        (
            "installer",
            (json!({"installer": {"kind": "command", "program": tool("installer")}, "slot": null}), vec!["install"]),
        ),
        ("boot", (json!({"installer": slots, "slot": null}), vec!["install"])),
        ("health", (json!({"trial": {"health": tool("health")}}), vec!["install", "install"])),
        (
            "unpack",
            (
                json!({"installer": {"kind": "directory", "path": "tree", "unpack": unpack}, "slot": null}),
                vec!["install"],
            ),
        ),
        ("token", (json!({"network": network, "repository": "http://127.0.0.1:9"}), vec!["check"])),
    ]);
    if cfg!(feature = "gate") {
        let receipts = json!({"to": {"program": tool("url")}, "key": "device.key"});
        kinds.insert("url", (json!({"receipts": receipts}), vec!["install", "confirm", "receipts --send"]));
    }
    for (kind, (settings, commands)) in kinds {
        let bench = bench();
        fs::create_dir(bench.path("tree")).unwrap();
        crate::tools::shell(&bench.path(""), "umask 077; openssl genpkey -algorithm ed25519 -out device.key");
        bench.set(&settings);
        let said: Vec<String> =
            commands.iter().map(|words| run(&bench, &words.split(' ').collect::<Vec<_>>())).collect();
        let seen =
            fs::read_to_string(bench.path(&format!("seen.{kind}"))).unwrap_or_else(|_| panic!("{kind}: {said:?}"));
        println!("{kind}:\n{seen}");
        assert!(seen.contains("LISTED=yes\n") && !seen.contains("secret"), "{kind}: {seen}");
        let path = seen.lines().find_map(|line| line.strip_prefix("PATH=")).unwrap();
        assert!(path.split(':').all(|folder| folder.starts_with('/')), "{kind}: {path}");
        let known = [
            "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TERM", "PATH", "PWD", "OLDPWD", "SHLVL",
            "_", "LISTED",
        ];
        for name in seen.lines().filter_map(|line| Some(line.split_once('=')?.0)) {
            let is_known = known.contains(&name) || name.starts_with("LC_") || name.starts_with("TIDEGATE_");
            assert!(is_known, "{kind} inherits {name}");
        }
        assert!(!bench.path("executed").exists() && !bench.path("caller/executed").exists(), "{kind}: {said:?}");
    }
}

#[test]
fn a_program_of_the_callers_folder_is_not_found() {
    let bench = bench();
    program(&bench.path("caller").join("only-here"), OTHER);
    for words in [json!(["only-here"]), json!(["./only-here"]), json!(["caller/../only-here"])] {
        bench.set(&json!({"facts_program": words}));
        let said = run(&bench, &["check"]);
        assert!(said.contains("cannot be run"), "{words}: {said}");
    }
    assert!(!bench.path("caller/executed").exists());
}

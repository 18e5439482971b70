//! The examples that `--help` gives: every command has some, each is understood, and each that needs nothing from outside is run, as text
//! and with `--json`, whose results the published schema describes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use serde_json::Value;

use crate::support::tools::have;
use crate::support::words;

const SCHEMA: &str = "docs/schemas/commands.schema.json";

/// What every scene begins with: a fleet at noon of some day, the commands on it kept quiet, and shorthands for a release's life.
const PRELUDE: &str = r#"
export TIDEGATE_PASSPHRASE='for practice only' TIDEGATE_ACTOR=somebody
NOW=2026-03-01T12:00:00Z
t() { command tidegate --now "$NOW" --quiet "$@" >/dev/null; }
image() { mkdir -p build; printf 'the bytes of an image' > build/rootfs.img; }
image
fleet() { t init fleet --example-keys; cd fleet; image; if [ -n "${FIRST:-}" ]; then t publish ../public; fi; }
draft() { fleet; t release new 1.2.0; }
filled() { draft; t release add 1.2.0 build/rootfs.img --hardware board-a; }
frozen() { filled; t release manifest 1.2.0; }
signed() { frozen; t release sign 1.2.0 --key release-1; t release sign 1.2.0 --key release-2; t release validate 1.2.0; }
registered() { signed; t release register 1.2.0; }
validated() { registered; t release validate 1.2.0; }
started() { validated; t rollout start 1.2.0; }
listed() { for v in "$@"; do t release new $v; t release add $v build/rootfs.img --hardware board-a; t release manifest $v; t release sign $v --key release-1 --key release-2; t release validate $v; t release register $v; done; }
days() { NOW=$(date -u -d "$NOW + $1 days" +%Y-%m-%dT%H:%M:%SZ); }
placed() { sed -i 's|^\[publish\]|[publish]\nplace = "../public"|' tidegate.toml; }
published() { started; t publish ../public; cp metadata/1.root.json .; }
ceremony() { fleet; t ceremony start --renew root; cp metadata/1.root.json root.json; cp proposals/ceremony.json ceremony.json; }
digest() { command tidegate ceremony status --json | sed -n 's/.*"digest": "\([0-9a-f]\{16\}\).*/\1/p'; }
sign() { t ceremony sign --key "$1" --confirm "$(digest)"; }
"#;

/// What comes before an example, by the start of its command; the longest counts.
const SCENES: &[(&str, &str)] = &[
    ("tidegate", "published"),
    ("tidegate init", "true"),
    ("tidegate import", "published; mv ../public ../old-repository; cd ..; cp fleet/1.root.json .; rm -rf fleet"),
    ("tidegate demo", "true"),
    ("tidegate completions", "true"),
    ("tidegate man", "true"),
    ("tidegate key", "fleet"),
    ("tidegate key import", "fleet; t key new root-4 --no-passphrase --out ../root-4.pem"),
    ("tidegate sync", "published; t publish ../mirror"),
    (
        "tidegate release create",
        "fleet; for board in a b; do cp build/rootfs.img $board.img; mkdir $board; printf $board > $board/rootfs.img; done",
    ),
    ("tidegate release new", "fleet"),
    ("tidegate release add", "draft"),
    ("tidegate release remove", "filled"),
    ("tidegate release edit", "draft"),
    ("tidegate release edit 1.2.0 --upgrade-from", "draft; t release edit 1.2.0 --note 'an old one'"),
    ("tidegate release manifest", "filled"),
    (
        "tidegate release manifest 1.2.0 --patch-from 1.1.0",
        "fleet; listed 1.0.0 1.1.0; t release new 1.2.0; t release add 1.2.0 build/rootfs.img --hardware board-a",
    ),
    ("tidegate release patch", "fleet; listed 1.0.0 1.2.0"),
    ("tidegate release unfreeze", "frozen"),
    ("tidegate release drop", "frozen"),
    ("tidegate release sign", "frozen"),
    ("tidegate release register", "signed"),
    ("tidegate release validate", "registered"),
    (
        "tidegate release retract",
        "fleet; for v in 1.2.0 1.3.0 1.3.1; do listed $v; t release validate $v; t rollout start $v; done",
    ),
    (
        "tidegate release retire",
        "fleet; listed 1.0.0 1.0.1 1.2.0; sed -i '/retirement/d; /^keep_releases/d' policy.toml; printf '\n[retirement]\nkeep_releases = 1\n' >> policy.toml",
    ),
    ("tidegate rollout start", "validated; placed"),
    ("tidegate rollout plan", "validated; printf 'id,hardware,version,sequence\\nd-1,board-a,1.1.0,0\\n' > fleet.csv"),
    ("tidegate rollout advance", "started; days 2; t rollout renew 1.2.0; days 1"),
    ("tidegate rollout advance 1.2.0 --ramp 12h", "started; days 2; t rollout renew 1.2.0; days 1"),
    (
        "tidegate rollout approve",
        "validated; printf '\n[[approval]]\nsteps = [\"start\"]\nby = [\"release-1\"]\ncount = 1\n' >> policy.toml",
    ),
    (
        "tidegate rollout approve 1.2.0 --step advance",
        "started; printf '\n[[approval]]\nsteps = [\"advance\"]\nby = [\"release-1\"]\ncount = 1\n' >> policy.toml",
    ),
    ("tidegate publish", "published; placed"),
    ("tidegate rollout pause", "published; placed"),
    ("tidegate rollout withdraw", "published; placed"),
    ("tidegate rollout resume", "started; t rollout pause 1.2.0"),
    (
        "tidegate rollout complete",
        "started; sed -i 's/^largest_step.*/largest_step = \"100%\"/; s/^soak = .*/soak = \"0h\"/; s/^soak_of = .*//; s/^shortest_ramp.*/shortest_ramp = \"0h\"/' policy.toml; \
         t rollout advance 1.2.0; t rollout advance 1.2.0",
    ),
    (
        "tidegate rollout renew 1.2.0 --require-health",
        "started; printf '{\"schema\": 1, \"at\": \"%s\", \"releases\": [{\"release\": \"stable/os/1.2.0\", \"sequence\": 1, \"cohorts\": {\"validation\": {\"installed\": 9, \"confirmed\": 9, \"failed\": 0, \"rolled_back\": 0}, \"canary\": {\"installed\": 480, \"confirmed\": 470, \"failed\": 3, \"rolled_back\": 2}}}]}' $NOW > health.json; printf '#!/bin/sh\ncat health.json\n' > health; chmod +x health",
    ),
    (
        "tidegate receipts",
        concat!(
            "started; . '",
            env!("CARGO_MANIFEST_DIR"),
            "/tests/interop/receipt.sh'; enrol device-1; enrol device-2; enrol device-3; rm enrolments/device-3.json; \
             says device-1 installed 'on its way' 1.2.0 1 $NOW; says device-1 confirmed 'all lights' 1.2.0 1 $NOW; \
             says device-2 rolled-back 'no light' 1.2.0 1 $NOW; says device-3 failed 'never enrolled' 1.2.0 1 $NOW",
        ),
    ),
    (
        "tidegate explain --fleet",
        "published; printf 'id,hardware,version,sequence\\nd-1,board-a,1.1.0,0\\nd-2,board-b,1.1.0,0\\n' > fleet.csv",
    ),
    (
        "tidegate explain",
        "published; cat > device.json <<'END'\n{\"id\": \"device-0042\", \"product\": \"os\", \"channel\": \"stable\", \"hardware\": \"board-a\", \"version\": \"1.1.0\", \"sequence\": 0}\nEND\n",
    ),
    ("tidegate ceremony", "ceremony"),
    ("tidegate ceremony plan", "fleet"),
    ("tidegate ceremony plan compromised", "published"),
    ("tidegate ceremony start", "fleet"),
    (
        "tidegate ceremony start --reason",
        "fleet; t key new root-4 --no-passphrase; sed -i 's/\"root-2\", \"root-3\"/\"root-2\", \"root-3\", \"root-4\"/' tidegate.toml",
    ),
    ("tidegate ceremony sign", "ceremony; cp keys/root-1.pem ."),
    ("tidegate ceremony finish", "ceremony; sign root-1; sign root-2"),
    ("tidegate ceremony verify-transcript", "ceremony; sign root-1; sign root-2; t ceremony finish"),
    (
        "tidegate ceremony combine",
        "ceremony; for key in 1 2; do cp ceremony.json $key.json; t ceremony sign $key.json --root root.json --key file:keys/root-$key.pem --confirm $(digest); done; mv 1.json a.json; mv 2.json b.json; \
      t ceremony show --signed-bytes root --out bytes; openssl pkeyutl -sign -rawin -inkey keys/root-2.pem -in bytes -out root-2.sig",
    ),
    ("tidegate diff", "FIRST=1; published"),
];

/// What an example may speak of that is not here; it is only read then.
const OUTSIDE: [&str; 9] = [
    "pkcs11:",
    "kms:",
    "/media/usb",
    "https://",
    "s3://",
    "...",
    "serve ",
    "1f0c9a2b77e103d4",
    "tidegate ceremony sign --key root-1 ",
];

/// How many examples these leave out.
const LEFT_OUT: usize = 14;

/// All examples by the command they are of.
fn examples() -> BTreeMap<String, Vec<String>> {
    fn collect(command: &clap::Command, path: &str, found: &mut BTreeMap<String, Vec<String>>) {
        let below: Vec<_> = command.get_subcommands().filter(|below| below.get_name() != "help").collect();
        if below.is_empty() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let help = help.replace(" \\\n    ", " ");
            let lines = help.lines().filter_map(|line| line.strip_prefix("  tidegate "));
            // What comes after two spaces is said to people.
            let lines = lines.map(|line| format!("tidegate {}", line.split("  ").next().unwrap().trim_end()));
            found.insert(path.to_owned(), lines.collect());
        }
        for below in below {
            collect(below, format!("{path} {}", below.get_name()).trim(), found);
        }
    }
    let mut found = BTreeMap::new();
    collect(&tidegate::cli::command(), "", &mut found);
    found
}

#[test]
fn every_command_has_examples_that_it_understands() {
    for (command, lines) in examples() {
        assert!(!lines.is_empty(), "{command} has no example: src/cli/examples.rs");
        for line in lines {
            let parsed = tidegate::cli::command().try_get_matches_from(words(&line));
            if let Err(error) = parsed.as_ref().map_err(ToString::to_string) {
                // Where people fill something in.
                assert!(line.contains("..."), "{line}: {error}");
            }
        }
    }
}

fn scene(line: &str) -> &'static str {
    SCENES.iter().filter(|(start, _)| line.starts_with(start)).max_by_key(|(start, _)| start.len()).unwrap().1
}

fn run(line: &str, options: &str) -> Output {
    let place = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap().to_owned();
    let path = std::env::split_paths(&std::env::var_os("PATH").unwrap()).collect::<Vec<_>>();
    let path = std::env::join_paths(std::iter::once(programs).chain(path)).unwrap();
    let function = format!("tidegate() {{ command tidegate --now \"$NOW\" {options} \"$@\"; }}");
    // There is no terminal to be asked at.
    let confirmed = if line.starts_with("tidegate ceremony sign") { " --confirm \"$(digest)\"" } else { "" };
    let script = format!("{PRELUDE}\n{}\n{function}\n{line}{confirmed}\n", scene(line));
    Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(place.path())
        .env("PATH", path)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Runs `work` on all items, two at a time.
fn in_pairs<T: Sync>(items: &[T], work: impl Fn(&T) -> Option<String> + Sync) -> Vec<String> {
    let half = items.len().div_ceil(2).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            items.chunks(half).map(|part| scope.spawn(|| part.iter().filter_map(&work).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn runnable() -> Vec<(String, String)> {
    let all =
        examples().into_iter().flat_map(|(command, lines)| lines.into_iter().map(move |line| (command.clone(), line)));
    all.filter(|(_, line)| !OUTSIDE.iter().any(|outside| line.contains(outside))).collect()
}

#[cfg(unix)]
#[test]
fn every_example_works() {
    if !have("bash", "--version") || !have("openssl", "version") {
        return;
    }
    let runnable = runnable();
    let all: usize = examples().values().map(Vec::len).sum();
    assert_eq!(all - runnable.len(), LEFT_OUT, "an example that no test runs needs a reason, and this number a change");
    let failed = in_pairs(&runnable, |(_, line)| {
        let out = run(line, "");
        let said = String::from_utf8_lossy(&out.stderr);
        let ok = out.status.success() && !said.contains('\u{1b}');
        (!ok).then(|| format!("{line}\n{said}\n{}", String::from_utf8_lossy(&out.stdout)))
    });
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// The schema, closed: what it does not describe is wrong. As published it is open, since new fields may come.
fn closed_schema() -> Value {
    fn close(schema: &mut Value) {
        match schema {
            Value::Object(members) => {
                if members.contains_key("properties") {
                    members.entry("additionalProperties").or_insert(false.into());
                    let properties = members["properties"].as_object().unwrap();
                    for (name, property) in properties {
                        assert!(property.get("description").is_some(), "{name} has no description: {property}");
                    }
                }
                members.values_mut().for_each(close);
            }
            Value::Array(items) => items.iter_mut().for_each(close),
            _ => {}
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(SCHEMA);
    let mut schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    close(&mut schema);
    schema
}

/// What the schema has against the result of a command.
fn objections(schema: &Value, command: &str, result: &Value) -> Vec<String> {
    let mut of_command = schema.clone();
    of_command["$ref"] = format!("#/$defs/{}", command.replace(' ', "-")).into();
    let validator = jsonschema::validator_for(&of_command).unwrap();
    validator.iter_errors(result).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// A server says where it listens, and goes on.
#[cfg(unix)]
fn served() -> Value {
    use std::io::BufRead as _;
    let place = tempfile::tempdir().unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["serve", place.path().to_str().unwrap(), "--port", "0", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let read = std::io::BufReader::new(server.stdout.take().unwrap()).read_line(&mut line);
    server.kill().unwrap();
    server.wait().unwrap();
    read.unwrap();
    serde_json::from_str(&line).unwrap()
}

#[cfg(unix)]
#[test]
fn the_schema_describes_what_every_command_gives_as_json() {
    if !have("bash", "--version") || !have("openssl", "version") {
        return;
    }
    let schema = closed_schema();
    let described: BTreeSet<String> = schema["$defs"].as_object().unwrap().keys().cloned().collect();
    let commands: BTreeSet<String> = examples().into_keys().map(|name| name.replace(' ', "-")).collect();
    assert_eq!(described, commands, "a definition for each command of the command line, and no other");

    let seen = Mutex::new(BTreeSet::from(["serve".to_owned()]));
    assert_eq!(objections(&schema, "serve", &served()), [""; 0]);
    let failed = in_pairs(&runnable(), |(command, line)| {
        if command == "serve" {
            return None;
        }
        // What the shell would do with the result is not asked for here.
        let out = run(line.split(" > ").next().unwrap(), "--json");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let Some(result) = serde_json::Deserializer::from_str(&text).into_iter::<Value>().next().and_then(Result::ok)
        else {
            return Some(format!("{line}: no JSON\n{text}\n{}", String::from_utf8_lossy(&out.stderr)));
        };
        seen.lock().unwrap().insert(command.clone());
        let errors = objections(&schema, command, &result);
        (!errors.is_empty()).then(|| format!("{line}\n{}\n{result:#}", errors.join("\n")))
    });
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    let unseen: Vec<String> = examples().into_keys().filter(|name| !seen.lock().unwrap().contains(name)).collect();
    assert!(unseen.is_empty(), "these have no example that can be run: {unseen:?}");
}

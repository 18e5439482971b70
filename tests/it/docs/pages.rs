//! Every command in the documentation is run as it stands there, or named here with the reason why not.
//!
//! A block of commands has an info string that begins with `sh`. What runs the blocks of a page is [`PAGES`]; what no test can run is
//! [`NOT_RUN`], whose reasons must be visible in the line itself, and whose length is written down, so that nothing slips in.

use std::collections::BTreeMap;
use std::path::Path;

use clap::error::ErrorKind;

use super::{Block, bash, blocks, script};
use crate::support::{Serving, python_tuf, tools, words};

/// How the blocks of a page are run.
enum Run {
    /// One after the other, after these lines.
    After(&'static str),
    /// By a test of its own, in this folder.
    Elsewhere,
}

use Run::{After, Elsewhere};

/// A fleet with a release that is going out, and its folder entered.
const ROLLING: &str = "tidegate -q init fleet --example-keys >/dev/null; cd fleet; head -c 5000 /dev/zero > ../image
    tidegate -q release new 1.0.0; tidegate -q release add 1.0.0 ../image --hardware board-a; tidegate -q release manifest 1.0.0
    tidegate -q release sign 1.0.0 --key release-1 --key release-2; tidegate -q release validate 1.0.0
    tidegate -q release register 1.0.0; tidegate -q release validate 1.0.0; tidegate -q rollout start 1.0.0\n";

/// The pages with commands, the info strings of their blocks, and how they are run.
const PAGES: &[(&str, &[&str], Run)] = &[
    ("README.md", &["sh"], After("")),
    ("docs/ceremony.md", &["sh", "sh refused"], Elsewhere),
    ("docs/cli.md", &["sh"], After("")),
    ("docs/conformance.md", &["sh"], After("")),
    // By `gate/tests/it/guide.rs`.
    ("docs/gate.md", &["sh", "sh guide"], Elsewhere),
    ("docs/integrate.md", &["sh", "sh refused", "sh board"], Elsewhere),
    (
        "docs/keys.md",
        &["sh"],
        After(
            "export TIDEGATE_PASSPHRASE='for practice only'; tidegate -q init fleet --example-keys; cd fleet
             tidegate -q key new root-6 --no-passphrase --out ../root-6.pem
             tidegate -q key new sent --no-passphrase --out ../sent.pem | tee ../sent.toml
             public=$(sed -n 's/^public = \"\\(.*\\)\"/\\1/p' ../sent.toml)",
        ),
    ),
    // Below, beside repositories that python-tuf, tuftool and go-tuf made.
    ("docs/migrate.md", &["sh takeover", "sh back", "sh tuftool", "sh go-tuf"], Elsewhere),
    ("docs/operations.md", &["sh"], After("")),
    ("docs/publish.md", &["sh"], After(ROLLING)),
    ("docs/quickstart.md", &["sh", "sh device", "sh build"], Elsewhere),
    (
        "docs/rollout.md",
        &["sh"],
        // 1.1.0 everywhere, 1.2.0 on its way, a fleet, a report on its health, from a file and from a program, and devices' receipts.
        After(concat!(
            ". '",
            env!("CARGO_MANIFEST_DIR"),
            "/tests/interop/receipt.sh'
             tidegate() { command tidegate --now 2026-03-01T12:00:00Z \"$@\"; }
             released() {
               tidegate -q release new \"$@\"; tidegate -q release add $1 image --hardware board-a; tidegate -q release manifest $1
               tidegate -q release sign $1 --key release-1 --key release-2; tidegate -q release validate $1
               tidegate -q release register $1; tidegate -q release validate $1; tidegate -q rollout start $1
             }
             tidegate -q init fleet --example-keys; cd fleet; sed -i 's|^.publish.$|[publish]\\nplace = \"../public\"|' tidegate.toml
             echo older > image; released 1.1.0 --urgency security
             echo image > image; released 1.2.0
             printf 'id,hardware,version,sequence\nd-1,board-a,1.1.0,0\n' > fleet.csv
             cohort='{\"installed\": 480, \"confirmed\": 470, \"failed\": 3, \"rolled_back\": 2}'
             echo '{\"schema\": 1, \"at\": \"2026-03-01T12:00:00Z\", \"releases\": [{\"release\": \"stable/os/1.2.0\", \"sequence\": 2,' \
               \"\\\"cohorts\\\": {\\\"validation\\\": $cohort, \\\"canary\\\": $cohort}}]}\" > health.json
             printf '#!/bin/sh\\ncat health.json\\n' > health; chmod +x health
             enrol device-0001; says device-0001 confirmed 'all lights' 1.2.0 2 2026-03-01T12:00:00Z",
        )),
    ),
];

/// Why a command is not run, and what must be seen in it for that.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reason {
    /// The programs are built, and on the path.
    Built,
    /// It tests this very project: CI runs it.
    TheTests,
    /// It takes a token. `tests/it/keys/token.rs` runs the same against `SoftHSM`.
    Token,
    /// It takes an account in a cloud. `tests/it/keys` runs the same against a server that speaks KMS's protocol.
    Cloud,
    /// It takes a TPM. `gate/tests/it/tpm.rs` goes the same way with `swtpm`.
    Tpm,
    /// It takes a checkout of the conformance suite, which is no package of any registry.
    Suite,
}

impl Reason {
    fn is_seen_in(self, line: &str) -> bool {
        match self {
            Self::Built => line.starts_with("cargo build ") || line.starts_with("export PATH="),
            Self::TheTests => line == "cargo test --workspace --all-features",
            Self::Token => line.contains("'pkcs11:"),
            Self::Cloud => line.contains(" kms:"),
            Self::Tpm => line.starts_with("tpm2_") || line.contains(" --ak "),
            Self::Suite => line.contains("conformance"),
        }
    }
}

/// How many commands are not run. One more is one less that is known to work: find a way to run it first.
const HOW_MANY: usize = 13;

/// The commands that are not run: page, line, why. Those of [`Elsewhere`] pages are what their tests leave out.
const NOT_RUN: [(&str, &str, Reason); HOW_MANY] = [
    ("README.md", "cargo test --workspace --all-features", Reason::TheTests),
    ("docs/conformance.md", "cargo build -p tidegate-client --features rsa --example conformance", Reason::Built),
    ("docs/conformance.md", "cd tuf-conformance", Reason::Suite),
    (
        "docs/conformance.md",
        "python -m pytest tuf_conformance --entrypoint ../tidegate/target/debug/examples/conformance",
        Reason::Suite,
    ),
    ("docs/gate.md", "tpm2_createek -c ek.ctx -G ecc -u ek.pub", Reason::Tpm),
    (
        "docs/gate.md",
        "tpm2_createak -C ek.ctx -c ak.ctx -G ecc -g sha256 -s ecdsa -u ak.pem -f pem -n ak.name",
        Reason::Tpm,
    ),
    ("docs/gate.md", "tidegate-gate enrol device-0001 --ak ak.pem", Reason::Tpm),
    ("docs/integrate.md", "cargo build --release && cargo build --release -p tidegate-device", Reason::Built),
    ("docs/integrate.md", "export PATH=$PWD/target/release:$PATH", Reason::Built),
    (
        "docs/keys.md",
        "tidegate key new root-7 --on 'pkcs11:token=Root;object=root-7?module-path=/usr/lib/softhsm/libsofthsm2.so'",
        Reason::Token,
    ),
    ("docs/keys.md", "tidegate key import snapshot-2 kms:alias/snapshot?region=eu-central-1", Reason::Cloud),
    ("docs/quickstart.md", "cargo build --release --workspace", Reason::Built),
    ("docs/quickstart.md", "export PATH=$PATH:$PWD/target/release", Reason::Built),
];

/// The blocks that `tests/it/keys` runs, with a token beside them.
const OUTSIDE: (&str, &str) = ("docs/keys.md", "sh outside");
/// Blocks that hold no commands for a shell.
const OTHERS: [&str; 9] = ["json", "toml", "csv", "rust", "yaml", "cron", "nginx", "text", "c"];
/// What a command begins with.
const PROGRAMS: [&str; 10] =
    ["tidegate", "tidegate-device", "cargo", "openssl", "python", "python3", "pip", "aws", "git", "curl"];

/// All pages, relative to the project's folder.
fn pages() -> Vec<String> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let found = std::fs::read_dir(docs).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let markdown = found.filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "md"));
    markdown.map(|name| format!("docs/{name}")).chain(["README.md".to_owned()]).collect()
}

/// A line of a block without a comment at its end.
fn bare(line: &str) -> &str {
    line.split("  #").next().unwrap_or(line).trim_end()
}

/// The blocks of a page that are run, without the lines that are not, and with `cargo run` as what it builds.
fn runnable(page: &str, infos: &[&str]) -> Vec<Block> {
    let mut found: Vec<Block> = blocks(page).into_iter().filter(|block| infos.contains(&block.info.as_str())).collect();
    for block in &mut found {
        let left_out = |line: &str| NOT_RUN.iter().any(|(of, command, _)| *of == page && *command == bare(line));
        let lines = block.text.lines().filter(|line| !left_out(line));
        block.text = lines.map(|line| line.replace("cargo run --release -- ", "tidegate ") + "\n").collect();
    }
    found
}

#[test]
fn every_command_of_every_page_is_run_or_named_with_the_reason() {
    let mut used: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut commands = 0;
    for page in pages() {
        let infos = PAGES.iter().find(|(name, ..)| *name == page).map_or(&[][..], |(_, infos, _)| infos);
        for block in blocks(&page) {
            let info = block.info.as_str();
            let first = block.text.lines().next().unwrap_or_default();
            let is_run = infos.contains(&info) || (page.as_str(), info) == OUTSIDE;
            assert!(is_run || OTHERS.contains(&info), "{page}: nothing runs the block `{info}`: {first}");
            for line in block.text.lines() {
                if is_run {
                    commands += 1;
                    let named = NOT_RUN.iter().find(|(of, command, _)| *of == page && *command == bare(line));
                    if let Some((page, command, _)) = named {
                        *used.entry((page, command)).or_default() += 1;
                    }
                } else if !["yaml", "cron"].contains(&info) {
                    let program = line.trim_start_matches(['$', ' ']).split(' ').next().unwrap_or_default();
                    assert!(!PROGRAMS.contains(&program), "{page}: a command in a block of {info}: {line}");
                }
            }
        }
    }
    assert!(commands > 250, "{commands}");
    for (page, command, reason) in NOT_RUN {
        assert!(reason.is_seen_in(command), "{command}: that it is {reason:?} is not to be seen");
        assert_eq!(used.get(&(page, command)), Some(&1), "{page} does not have it, or twice: {command}");
    }
    for (page, ..) in PAGES {
        assert!(pages().contains(&(*page).to_owned()), "{page} is gone");
    }
}

/// That the command line knows what a line gives to it.
fn understood(line: &str) -> Result<(), String> {
    let known = |error: &clap::Error| {
        // A sentence may name a command without all that it needs, or with a word in capitals for something of the reader's.
        !matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand | ErrorKind::TooManyValues)
    };
    match tidegate::cli::command().try_get_matches_from(words(line)) {
        Err(error) if !known(&error) => Err(error.to_string()),
        _ => Ok(()),
    }
}

#[test]
fn what_sentences_and_schedules_say_is_understood() {
    let mut seen = 0;
    for page in pages() {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&page)).unwrap();
        let mut lines = Vec::new();
        for (at, part) in text.split("```").enumerate() {
            if at % 2 == 0 {
                lines.extend(part.split('`').skip(1).step_by(2));
            } else if part.starts_with("yaml") || part.starts_with("cron") {
                lines.extend(part.split(['\n', '&']).filter_map(|line| line.find("tidegate ").map(|at| &line[at..])));
            }
        }
        for line in lines {
            if line.starts_with("tidegate ") && !line.contains("COMMAND") {
                seen += 1;
                // What may be left out stands in brackets.
                let line = line.replace(['[', ']'], "").split_whitespace().collect::<Vec<_>>().join(" ");
                if let Err(error) = understood(&line) {
                    panic!("{page}: {line}: {error}");
                }
            }
        }
    }
    assert!(seen > 40, "{seen}");
    assert!(understood("tidegate publish --fast").is_err() && understood("tidegate shout").is_err());
}

#[cfg(unix)]
#[test]
fn pages_that_are_one_story_work_as_written() {
    for (page, infos, run) in PAGES {
        let After(before) = run else { continue };
        let place = tempfile::tempdir().unwrap();
        let blocks = runnable(page, infos);
        assert!(!blocks.is_empty(), "{page}");
        if bash(&format!("{before}\n{}", script(&blocks)), place.path()).is_none() {
            return;
        }
    }
}

/// The old tool goes on from the root that is handed back, and a client follows all the way.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_takeover_and_the_way_back_work_as_written() {
    let Some(python) = python_tuf() else { return };
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().to_str().unwrap();
    let run = |before: &str, info| {
        bash(&format!("{before}\n{}", script(&runnable("docs/migrate.md", &[info]))), place.path());
    };
    crate::support::script(&python, "takeover.py", &[folder, "1", "0"]);
    run("mv repository old", "sh takeover");
    let server = Serving::start(&place.path().join("old")).await;
    let (url, root, client) = (server.url(), format!("{folder}/1.root.json"), format!("{folder}/client"));
    let update = |path| crate::support::script(&python, "update.py", &[&url, &root, &client, path]);
    let said = update("stable/cohorts.json");
    assert!(said["versions"]["root"] == 3 && said["targets"]["stable/cohorts.json"].is_string(), "{said}");
    run("cd fleet", "sh back");
    crate::support::script(&python, "go_back.py", &[folder]);
    let said = update("firmware.bin");
    assert!(said["versions"]["root"] == 5 && said["targets"]["firmware.bin"].is_string(), "{said}");
}

/// A holder of an RSA key makes another to go back, which the page says in words.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_takeover_from_tuftool_works_as_written() {
    if !tools::have("openssl", "version") {
        return;
    }
    let old = crate::view::import::by_tuftool();
    let of = |info| script(&runnable("docs/migrate.md", &[info]));
    bash(&format!("mv repository old\n{}", of("sh takeover")), old.folder());
    assert!(old.folder().join("old/metadata/3.root.json").is_file());
    let key = bash(
        &format!("{}\ntidegate -C fleet key import new-root-0 file:../new-root-0.pem", of("sh tuftool")),
        old.folder(),
    );
    assert!(key.is_none_or(|out| String::from_utf8_lossy(&out.stdout).contains("p256:")));
}

/// CI cannot build go-tuf: a function signs with the keys that it made, and answers as it does.
#[cfg(unix)]
#[test]
fn signatures_of_go_tuf_are_taken_as_written() {
    if !tools::have("openssl", "version") {
        return;
    }
    let (made, place) = (crate::view::import::recorded("go-tuf"), tempfile::tempdir().unwrap());
    let root: serde_json::Value = serde_json::from_slice(&std::fs::read(made.join("1.root.json")).unwrap()).unwrap();
    let ids = root["signed"]["roles"]["root"]["keyids"].as_array().unwrap();
    let ids: Vec<&str> = ids.iter().map(|id| id.as_str().unwrap()).collect();
    let before = format!(
        r#"tidegate -q import '{0}/repository' fleet --root '{0}/1.root.json' --example-keys > /dev/null
        tuf() {{
            (
                test "$*" = '-d ../go-tuf sign-payload --role=root root.bytes'
                openssl pkeyutl -sign -rawin -inkey '{0}/old-root-0.pem' -in root.bytes -out 0.sig
                openssl dgst -sha256 -sign '{0}/old-root-1.pem' -out 1.sig root.bytes
                openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:max \
                    -sign '{0}/old-root-2.pem' -out 2.sig root.bytes
            ) >&2
            hex() {{ od -An -v -tx1 "$1" | tr -d ' \n'; }}
            printf '[{{"keyid":"%s","sig":"%s"}},{{"keyid":"%s","sig":"%s"}},{{"keyid":"%s","sig":"%s"}}]' {1}
        }}
        cd fleet"#,
        made.display(),
        (0..3).map(|n| format!(r#"{} "$(hex {n}.sig)""#, ids[n])).collect::<Vec<_>>().join(" "),
    );
    let blocks = script(&runnable("docs/migrate.md", &["sh go-tuf"]));
    let Some(out) = bash(&format!("{before}\n{blocks}\ntidegate ceremony status"), place.path()) else { return };
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains("root 2 (in force)  3 of 3  met"), "{said}");
}

#[test]
fn every_link_between_the_pages_leads_somewhere() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut seen = 0;
    for page in std::fs::read_dir(&docs).unwrap().map(|entry| entry.unwrap().path()) {
        if page.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let content = std::fs::read_to_string(&page).unwrap();
        for rest in content.split("](").skip(1) {
            let link = rest.split(')').next().unwrap();
            if link.starts_with("http") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { docs.join(file) };
            assert!(target.exists(), "{}: {link}", page.display());
            let slug = |heading: &str| {
                let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
                kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
            };
            if !anchor.is_empty() {
                let headings = std::fs::read_to_string(&target).unwrap();
                let found = headings
                    .lines()
                    .filter_map(|l| l.trim_start_matches('#').strip_prefix(' '))
                    .any(|h| slug(h) == anchor);
                assert!(found, "{}: {link} leads to no heading", page.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
}

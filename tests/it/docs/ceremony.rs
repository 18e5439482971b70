//! docs/ceremony.md, every command of it: the first root and the steps as one story each, and each rotation and each disaster from a
//! table laid anew.
//!
//! After each page devices at every root there ever was follow to the newest. The plans of `tidegate ceremony plan` are carried out
//! as well, as they are printed.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Block, bash, blocks, script};

const PAGE: &str = "docs/ceremony.md";
const TABLE: &str = "A table to practise at";
const FIRST: &str = "The first root";
/// Sections whose blocks follow each other; every other section stands for itself.
const STORY: [&str; 2] = ["The steps", "Releases"];

/// A table that was laid as the page says.
struct Laid {
    dir: tempfile::TempDir,
    page: Vec<Block>,
}

impl Laid {
    fn new() -> Option<Self> {
        let page: Vec<Block> = blocks(PAGE).into_iter().filter(|block| block.info.starts_with("sh")).collect();
        let dir = tempfile::tempdir().unwrap();
        bash(&script(page.iter().filter(|block| block.headings[1] == TABLE)), dir.path())?;
        Some(Self { dir, page })
    }

    /// The same table once more, untouched.
    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        let done = Command::new("cp").arg("-a").arg(self.dir.path().join(".")).arg(copy.path()).status().unwrap();
        assert!(done.success());
        copy
    }
}

const PASSPHRASE: &str = "export TIDEGATE_PASSPHRASE='for practice only'\n";

/// Devices that were shipped with any root there was follow to what is published.
fn everyone_follows(place: &Path) {
    let published =
        "for root in office/metadata/*.root.json; do tidegate $now verify site --root $root >/dev/null; done";
    // The page that plays the clock leaves its time in what it published.
    let now = std::fs::read(place.join("site/metadata/timestamp.json")).unwrap();
    let now: Value = serde_json::from_slice(&now).unwrap();
    let now = format!("now='--now {}'\n", now["signed"]["x-tidegate-issued"].as_str().unwrap());
    bash(&(now + published), place);
}

/// Three holders, each with a folder that nothing but the proposal reaches, make the first root.
#[test]
fn the_first_root_works_as_written() {
    let page = blocks(PAGE);
    let own = page.iter().filter(|block| block.headings[1] == FIRST && block.info == "sh");
    let place = tempfile::tempdir().unwrap();
    if bash(&script(own), place.path()).is_none() {
        return;
    }
    let names = |folder: &str| {
        let files = std::fs::read_dir(place.path().join(folder)).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for holder in [1, 3] {
        let [root, targets] = ["root", "targets"].map(|role| format!("{role}-{holder}.pem"));
        assert_eq!(names(&format!("holder-{holder}")), ["ceremony.json", &root, "root.json", &targets]);
    }
    assert_eq!(names("holder-2"), ["root-2.pem", "root.json", "targets-2.pem"]);
    let made = ["release-1.pem", "release-2.pem", "rollout.pem", "snapshot.pem", "timestamp.pem"];
    assert_eq!(names("office/keys"), made);
    let root: Value =
        serde_json::from_slice(&std::fs::read(place.path().join("site/metadata/1.root.json")).unwrap()).unwrap();
    assert_eq!(root["signatures"].as_array().unwrap().len(), 2);
    everyone_follows(place.path());
}

#[test]
fn the_steps_work_as_written() {
    let Some(laid) = Laid::new() else { return };
    let story: Vec<&Block> = laid.page.iter().filter(|block| STORY.contains(&block.headings[1].as_str())).collect();
    assert!(story.len() > 10);
    let place = laid.copy();
    bash(&(PASSPHRASE.to_owned() + &script(story)), place.path());
    assert!(place.path().join("office/metadata/2.root.json").is_file());
    everyone_follows(place.path());
}

#[test]
fn every_rotation_and_every_disaster_works_as_written() {
    let Some(laid) = Laid::new() else { return };
    let titles: Vec<&String> = laid.page.iter().filter_map(|block| block.headings.last()).collect();
    let mut pages: Vec<&String> = titles
        .into_iter()
        .filter(|title| {
            let block = laid.page.iter().find(|block| block.headings.last() == Some(title)).unwrap();
            ![TABLE, FIRST].contains(&block.headings[1].as_str()) && !STORY.contains(&block.headings[1].as_str())
        })
        .collect();
    pages.dedup();
    assert!(pages.len() >= 16, "{pages:?}");
    // Two at a time: each is a chain of short programs.
    let (left, right) = pages.split_at(pages.len() / 2);
    std::thread::scope(|scope| {
        for half in [left, right] {
            let laid = &laid;
            scope.spawn(move || {
                for title in half {
                    let place = laid.copy();
                    let own = laid.page.iter().filter(|block| block.headings.last() == Some(title));
                    bash(&(PASSPHRASE.to_owned() + &script(own)), place.path());
                    everyone_follows(place.path());
                }
            });
        }
    });
}

/// What one plan takes beside what it says: who signs with which keys, and how the settings are edited.
struct Case {
    plan: &'static str,
    signers: &'static [(u8, &'static [&'static str])],
    /// In the order of the steps that are words alone and speak of `tidegate.toml`: role, and what `sed` does to it.
    edits: &'static [(&'static str, &'static str)],
}

const PLANS: &[Case] = &[
    Case {
        plan: "add-root-key root-4",
        signers: &[(1, &["root-1"]), (2, &["root-2"])],
        edits: &[("roles.root", "s/\"root-3\"/\"root-3\", \"root-4\"/")],
    },
    Case {
        plan: "remove-root-key root-3",
        signers: &[(1, &["root-1"]), (2, &["root-2"])],
        edits: &[("roles.root", "s/, \"root-3\"//")],
    },
    Case {
        plan: "replace-root-key root-3 root-4",
        signers: &[(1, &["root-1"]), (2, &["root-2"])],
        edits: &[("roles.root", "s/\"root-3\"/\"root-4\"/")],
    },
    Case {
        plan: "threshold targets 3",
        signers: &[(1, &["root-1", "targets-1"]), (2, &["root-2", "targets-2"]), (3, &["targets-3"])],
        edits: &[("roles.targets", "s/^threshold = 2/threshold = 3/")],
    },
    Case {
        plan: "replace-online-key snapshot snapshot-2",
        signers: &[(1, &["root-1"]), (3, &["root-3"])],
        edits: &[
            ("roles.snapshot", "s/\"snapshot\"/\"snapshot\", \"snapshot-2\"/"),
            ("roles.snapshot", "s/\"snapshot\", //"),
        ],
    },
    Case {
        plan: "rename-holder targets-2 'holder 2'",
        signers: &[(1, &["root-1"]), (2, &["root-2"])],
        edits: &[("keys.targets-2", "/^uri/ a holder = \"holder 2\"")],
    },
    Case {
        plan: "lost root-3 targets-1 targets-2",
        signers: &[(1, &["root-1", "targets-1-b"]), (2, &["root-2", "targets-2-b"])],
        edits: &[
            ("roles.root", "s/\"root-3\"/\"root-3-b\"/"),
            ("roles.targets", "s/\"\\(targets-[12]\\)\"/\"\\1-b\"/g"),
        ],
    },
    Case {
        plan: "compromised release-1 rollout snapshot",
        signers: &[(1, &["root-1", "targets-1", "release-1-b"]), (2, &["root-2", "targets-2", "release-2"])],
        edits: &[
            ("channels.stable.release", "s/\"release-1\"/\"release-1-b\"/"),
            ("channels.stable.rollout", "s/\"rollout\"/\"rollout-b\"/"),
            ("roles.snapshot", "s/\"snapshot\"/\"snapshot-b\"/"),
        ],
    },
    Case {
        plan: "compromised root-1 root-2",
        signers: &[(1, &["root-1", "root-1-b"]), (2, &["root-2", "root-2-b"])],
        edits: &[("roles.root", "s/\"\\(root-[12]\\)\"/\"\\1-b\"/g")],
    },
];

#[test]
fn every_plan_can_be_carried_out_as_it_is_printed() {
    let Some(laid) = Laid::new() else { return };
    let (left, right) = PLANS.split_at(PLANS.len() / 2);
    std::thread::scope(|scope| {
        for half in [left, right] {
            let laid = &laid;
            scope.spawn(move || half.iter().for_each(|case| carry_out(case, laid)));
        }
    });
}

fn carry_out(case: &Case, laid: &Laid) {
    let place = laid.copy();
    let run = |script: &str| bash(&(PASSPHRASE.to_owned() + script), place.path()).unwrap();
    let plan = run(&format!("tidegate -C office --json ceremony plan {}", case.plan));
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    // The plan names them all: it says who signs.
    let signs = |step: &&Value| step["text"].as_str().unwrap().starts_with("Send proposals/ceremony.json");
    let sending = plan["steps"].as_array().unwrap().iter().find(signs).unwrap()["text"].as_str().unwrap();
    for key in case.signers.iter().flat_map(|(_, keys)| *keys) {
        assert!(sending.contains(key), "{key}: {sending}");
    }
    let mut all = case.edits.iter();
    for step in plan["steps"].as_array().unwrap() {
        let text = step["text"].as_str().unwrap();
        let Some(command) = step["command"].as_str() else {
            if text.contains("tidegate.toml") || text.starts_with("Take ") && text.contains("out of the keys") {
                // One sentence may speak of several roles.
                let count = if case.plan.starts_with("replace-online") { 1 } else { case.edits.len() };
                for (table, edit) in all.by_ref().take(count) {
                    let table = table.replace('.', "\\.");
                    run(&format!("sed -i '/^\\[{table}\\]/,/^$/ {{ {edit}\n}}' office/tidegate.toml"));
                }
            }
            continue;
        };
        let command = command.replace("tidegate ", "tidegate -C office ");
        if let Some((_, name)) = command.split_once("key new ").and_then(|(_, rest)| rest.split_once(" --out ")) {
            // On the machine of the holder, who is given a root and sends the lines that are printed.
            run(&format!(
                "tidegate key new {} --out holder-1/{name} >> office/tidegate.toml",
                name.trim_end_matches(".pem")
            ));
        } else if command.contains("key new ") {
            run(&format!("{} --no-passphrase", command.replace(" --no-passphrase", "")));
        } else if command.contains("ceremony sign") {
            for (holder, keys) in case.signers {
                let (here, new) = (format!("holder-{holder}"), "holder-1");
                run(&format!("cp office/proposals/ceremony.json {here}/"));
                for key in *keys {
                    let key = if place.path().join(&here).join(format!("{key}.pem")).exists() {
                        format!("{key}.pem")
                    } else {
                        format!("../{new}/{key}.pem")
                    };
                    let command = command.replace("tidegate -C office", "tidegate").replace("KEY.pem", &key);
                    let digits = "--confirm \"$(tidegate -C ../office ceremony status | sed -n '1s/.* proposal //p')\"";
                    run(&format!("cd {here}; {command} {digits}"));
                }
            }
        } else {
            let copies: PathBuf = place.path().join("holder-*/ceremony.json");
            let command = command
                .replace("COPY...", &copies.display().to_string())
                .replace("FOLDER", "site")
                .replace("1.root.json", "office/metadata/1.root.json");
            run(&command);
            if command.contains("ceremony combine") {
                run("rm holder-*/ceremony.json");
            }
        }
    }
    assert!(all.next().is_none(), "{}: not all edits were asked for", case.plan);
    everyone_follows(place.path());
}

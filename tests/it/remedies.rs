//! A refusal names the command that resolves it: what is named is run, and accepted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::Value;

use crate::support::{Fleet, words};

/// Workspaces at the points of a release's life, each made from the one before.
const STAGES: [(&str, &str); 9] = [
    ("new", ""),
    ("draft", "release new 1.0.0"),
    ("filled", "release add 1.0.0 FILE --hardware board-a"),
    ("frozen", "release manifest 1.0.0"),
    ("signed", "release sign 1.0.0"),
    ("registered", "release register 1.0.0"),
    ("started", "rollout start 1.0.0"),
    ("published", "publish"),
    ("paused", "rollout pause 1.0.0"),
];

/// What is refused: at which stage, how many hours later, after which commands and changes, by which rule, and whether what is named
/// makes the same command accepted.
struct Case {
    stage: &'static str,
    hours: i64,
    before: &'static [&'static str],
    refused: &'static str,
    rule: &'static str,
    then: bool,
}

const fn case(stage: &'static str, refused: &'static str, rule: &'static str, then: bool) -> Case {
    Case { stage, hours: 0, before: &[], refused, rule, then }
}

const CASES: &[Case] = &[
    case("draft", "release new 1.0.0", "R-EXISTS", false),
    case("draft", "release manifest 1.0.0", "R-ARTIFACTS", true),
    case("draft", "release sign 1.0.0", "R-FROZEN", false),
    case("draft", "rollout start 1.0.0", "R-ORDER", false),
    case("filled", "release sign 1.0.0", "R-FROZEN", true),
    case("filled", "release validate 1.0.0", "R-FROZEN", false),
    case("filled", "release register 1.0.0", "R-THRESHOLD", false),
    case("frozen", "release register 1.0.0", "R-THRESHOLD", true),
    case("frozen", "release edit 1.0.0 --note x", "R-FROZEN", true),
    case("frozen", "rollout pause 1.0.0", "R-ORDER", false),
    case("frozen", "release retract 1.0.0", "R-ORDER", false),
    case("signed", "release edit 1.0.0 --note x", "R-FROZEN", false),
    case("signed", "release sign 1.0.0", "R-KEY", false),
    case("signed", "rollout start 1.0.0", "R-ORDER", true),
    case("signed", "release retire 1.0.0", "R-ORDER", false),
    case("registered", "rollout pause 1.0.0", "R-ORDER", true),
    Case { hours: 24 * 8, ..case("registered", "rollout start 1.0.0", "R-VALIDATED", true) },
    Case {
        before: &["policy.toml: [[approval]]|steps = ['start']|by = ['release-1', 'release-2']|count = 1"],
        ..case("registered", "rollout start 1.0.0", "R-APPROVAL", true)
    },
    case("started", "rollout start 1.0.0", "R-ORDER", false),
    case("started", "rollout complete 1.0.0", "R-COHORTS", false),
    case("started", "release retire 1.0.0", "R-ORDER", false),
    case("started", "release add 1.0.0 FILE --hardware board-b", "R-ORDER", false),
    Case { hours: 49, before: &["refresh"], ..case("started", "rollout advance 1.0.0", "R-SOAK", false) },
    Case { hours: 49, ..case("published", "rollout advance 1.0.0", "R-STEP", false) },
    Case { hours: 49, ..case("published", "rollout advance 1.0.0 --ramp 1h", "R-RAMP", false) },
    case("paused", "rollout advance 1.0.0", "R-PAUSED", false),
    case("paused", "rollout pause 1.0.0", "R-PAUSED", true),
    Case { before: &["rollout withdraw 1.0.0"], ..case("started", "rollout start 1.0.0", "R-OVER", false) },
    Case {
        before: &["release create 1.1.0 FILE --hardware board-a", "release sign 1.1.0", "release register 1.1.0"],
        ..case("frozen", "release sign 1.0.0", "R-BASE", true)
    },
    case("new", "status --expiring 400d", "S-EXPIRING", false),
    case("new", "ceremony finish", "C-NONE", false),
    Case { before: &["ceremony start --renew root"], ..case("new", "ceremony start", "C-ONE", false) },
    Case { before: &["ceremony start --renew root"], ..case("new", "ceremony finish", "C-THRESHOLD", false) },
    // An expired root needs a ceremony.
    Case { hours: 24 * 400, before: &["refresh"], ..case("published", "publish", "", false) },
    // Another machine, whose clock is a day ahead, has renewed it.
    Case { before: &["tomorrow: refresh"], ..case("published", "refresh", "M-TIME", true) },
];

struct Scenes {
    fleet: Fleet,
    stages: BTreeMap<&'static str, PathBuf>,
}

impl Scenes {
    fn new() -> Self {
        let fleet = Fleet::shaped(|_, text| text.replace("[publish]\n", "[publish]\nplace = \"../public\"\n"));
        fs::write(fleet.dir.path().join("FILE"), "the bytes of an image").unwrap();
        let mut scenes = Self { fleet, stages: BTreeMap::new() };
        let mut last = scenes.fleet.dir.path().to_owned();
        for (stage, line) in STAGES {
            let folder = scenes.fleet.dir.path().join("stages").join(stage);
            copy(&last, &folder);
            if !line.is_empty() {
                Scenes::done(&folder, scenes.fleet.now, line);
            }
            last.clone_from(&folder);
            scenes.stages.insert(stage, folder);
        }
        scenes
    }

    fn run(folder: &Path, now: DateTime<Utc>, line: &str) -> Output {
        // The workspace may be another.
        let dir = if line.starts_with("-C ") { &[][..] } else { &["-C", "fleet"][..] };
        Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(dir)
            .args(["--now", &now.to_rfc3339_opts(SecondsFormat::Secs, true)])
            .args(words(line))
            .current_dir(folder)
            .env("NO_COLOR", "1")
            .env("TIDEGATE_ACTOR", "tester")
            .output()
            .unwrap()
    }

    fn done(folder: &Path, now: DateTime<Utc>, line: &str) -> Vec<u8> {
        let out = Self::run(folder, now, line);
        assert!(out.status.success(), "{line} at {now}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }

    /// The rule and the remedy of a command that is refused.
    fn refused(folder: &Path, now: DateTime<Utc>, line: &str) -> (String, String) {
        let out = Self::run(folder, now, &format!("{line} --json"));
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success(), "{line} is not refused: {said}");
        let last = said.lines().last().unwrap_or_default();
        let error: Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{line}: {e}: {said}"));
        let text = |name: &str| error["error"][name].as_str().unwrap_or_default().to_owned();
        (text("rule"), text("remedy"))
    }

    /// Runs a command that a remedy names, with what it leaves to people filled in.
    fn resolve(folder: &Path, now: DateTime<Utc>, command: &str) {
        let digest = || {
            let status: Value = serde_json::from_slice(&Self::done(folder, now, "ceremony status --json")).unwrap();
            status["digest"].as_str().unwrap().to_owned()
        };
        let mut line = command.replace("VERSION", "2.0.0").replace("ROLE", "root");
        line = line.replace("--hardware ID", "--hardware board-a").replace("--key NAME", "--key root-1");
        if line.contains("ceremony sign") {
            line = format!("{line} --confirm {}", digest());
        }
        Self::done(folder, now, &line);
    }
}

/// The commands that a remedy names, in order: those that follow `then`, of alternatives the first.
fn commands(remedy: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in remedy.match_indices("tidegate ") {
        let before = remedy[..at].trim_end();
        if !found.is_empty() && !before.ends_with("then") && !before.ends_with("and") {
            break;
        }
        let rest = &remedy[at + "tidegate ".len()..];
        let end = rest.find([',', ';', ')', '`']).unwrap_or(rest.len());
        found.push(rest[..end].to_owned());
    }
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        match entry.file_name().to_str().unwrap() {
            "stages" => {}
            _ if entry.path().is_dir() => copy(&entry.path(), &to.join(entry.file_name())),
            _ => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[test]
fn what_a_refusal_names_is_accepted() {
    let scenes = Scenes::new();
    for (number, case) in CASES.iter().enumerate() {
        let Case { stage, hours, before, refused, rule, then } = case;
        let (folder, now) =
            (scenes.fleet.dir.path().join(number.to_string()), scenes.fleet.now + TimeDelta::hours(*hours));
        copy(&scenes.stages[stage], &folder);
        for line in *before {
            match line.split_once(": ") {
                Some(("tomorrow", line)) => drop(Scenes::done(&folder, now + TimeDelta::days(1), line)),
                Some((file, text)) => {
                    let path = folder.join("fleet").join(file);
                    let old = fs::read_to_string(&path).unwrap();
                    fs::write(&path, format!("{old}\n{}\n", text.replace('|', "\n"))).unwrap();
                }
                None => drop(Scenes::done(&folder, now, line)),
            }
        }
        let (broken, remedy) = Scenes::refused(&folder, now, refused);
        assert_eq!(broken, *rule, "{stage}: {refused}: {remedy}");
        let commands = commands(&remedy);
        assert!(!commands.is_empty(), "{stage}: {refused}: {remedy}");
        for command in commands {
            Scenes::resolve(&folder, now, &command);
        }
        if *then {
            Scenes::done(&folder, now, refused);
        }
        fs::remove_dir_all(&folder).unwrap();
    }
    dated_ahead(&scenes);
}

/// A place that another machine's wrong clock has dated ahead is taken over with changes of one's own, and dated anew.
fn dated_ahead(scenes: &Scenes) {
    let (folder, now) = (&scenes.stages["published"], scenes.fleet.now);
    copy(&folder.join("fleet"), &folder.join("other"));
    for line in ["release create 1.1.0 FILE --hardware board-a", "release sign 1.1.0", "release register 1.1.0"] {
        Scenes::done(folder, now, line);
    }
    Scenes::done(folder, now + TimeDelta::days(3), "-C other rollout pause 1.0.0 --publish");
    for line in ["publish --rebase", "pull public"] {
        let (rule, remedy) = Scenes::refused(folder, now, line);
        assert_eq!((rule.as_str(), commands(&remedy).len()), ("M-TIME", 2), "{line}: {remedy}");
        if line.starts_with("pull") {
            for command in commands(&remedy) {
                Scenes::resolve(folder, now, &command);
            }
        }
    }
    Scenes::done(folder, now, "refresh");
    Scenes::done(folder, now, "publish");
}

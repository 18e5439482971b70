//! The first root, made by holders in different places: what is refused before it, and what is refused as one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use chrono::{DateTime, TimeDelta, Utc};
use tidegate::ceremony::{self, First, Initialized, init};
use tidegate::error::Result;
use tidegate::keys::generate::{Kind, generate};
use tidegate::keys::{FileKey, KeyRing, NoPassphrases, write_public};
use tidegate::metadata::Repository;
use tidegate::proposal::{self, Proposal, RequirementStatus, Tool};
use tidegate::publish::Variables;
use tidegate::workspace::init::{KeySource, Options, TEMPLATE};
use tidegate::workspace::{Operation, Workspace};

use super::table::Table;
use crate::support::tools::have;

/// The machines of a coordinator and of holders, none of which reaches another.
struct Machines {
    office: tempfile::TempDir,
    holders: BTreeMap<String, tempfile::TempDir>,
    now: DateTime<Utc>,
}

impl Machines {
    /// Each of these keys was made on a machine of its own; the coordinator has their public parts in tidegate.toml.
    fn new(names: &[&str]) -> Self {
        let now = DateTime::parse_from_rfc3339("2026-03-01T00:00:00Z").unwrap().with_timezone(&Utc);
        let mut machines = Self { office: tempfile::tempdir().unwrap(), holders: BTreeMap::new(), now };
        let mut settings = TEMPLATE[0].1.to_owned();
        for name in names {
            let made = generate(Kind::Ed25519, None).unwrap();
            let machine = tempfile::tempdir().unwrap();
            fs::write(machine.path().join("key.pem"), made.pem.as_bytes()).unwrap();
            only_mine(&machine.path().join("key.pem"));
            let uri = format!("uri = \"file:keys/{name}.pem\"\n");
            assert!(settings.contains(&uri));
            let public = write_public(&made.public).unwrap();
            let own = format!("{uri}public = \"{public}\"\nholder = \"holder of {name}\"\n");
            settings = settings.replacen(&uri, &own, 1);
            machines.holders.insert((*name).to_owned(), machine);
        }
        fs::create_dir(machines.dir()).unwrap();
        machines.write("tidegate.toml", &settings);
        machines
    }

    fn dir(&self) -> PathBuf {
        self.office.path().join("fleet")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir().join(name)).unwrap()
    }

    fn init(&self) -> Result<Initialized> {
        let keys = KeySource::Generate { kind: Kind::Ed25519, passphrase: None };
        init(&self.dir(), &Options { keys, salt: None, actor: "tester".into() }, self.now, &mut NoPassphrases)
    }

    fn proposed(&self) -> Proposal {
        match self.init().unwrap().first {
            First::Proposed(proposal) => *proposal,
            First::Signed(_) => panic!("it was signed at once"),
        }
    }

    /// What a holder gets is the file alone, and what comes back is the file.
    fn sign(&self, file: &[u8], name: &str) -> Result<Proposal> {
        let mut proposal = Proposal::parse("mail", file)?;
        let verified = proposal::verify(&proposal, None)?;
        let key = FileKey::open(name, &self.holders[name].path().join("key.pem"), &mut NoPassphrases)?;
        proposal::sign(&mut proposal, &verified, &key, ("file", "tidegate test"), &BTreeSet::new(), self.now)?;
        Ok(proposal)
    }

    fn keep(&self, proposal: &Proposal) {
        let workspace = Workspace::open(&self.dir()).unwrap();
        ceremony::keep(&mut Operation::new(&workspace, "tester", self.now, &mut KeyRing::empty()), proposal).unwrap();
    }

    fn finish(&self) -> Result<ceremony::Done> {
        let workspace = Workspace::open(&self.dir()).unwrap();
        let mut ring = workspace.ring(&workspace.settings().unwrap(), Box::new(NoPassphrases)).unwrap();
        let tool = Tool { version: "tidegate test".into(), sha256: "0".repeat(64) };
        ceremony::finish(&mut Operation::new(&workspace, "tester", self.now, &mut ring), &BTreeSet::new(), &tool)
    }

    /// What `status` names as the next command.
    fn next(&self) -> Option<String> {
        let out = self.run(&["--json", "status"]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let status: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        status["next"].as_str().map(str::to_owned)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(arguments).current_dir(self.dir()).env_remove("TIDEGATE_PASSPHRASE").stdin(Stdio::null());
        command.output().unwrap()
    }
}

#[cfg(unix)]
fn only_mine(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[cfg(not(unix))]
fn only_mine(_path: &Path) {}

fn rule<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    let error = result.unwrap_err();
    assert!(error.remedy_text().is_some(), "{error}");
    error.broken_rule().unwrap_or_else(|| panic!("{error}")).id()
}

#[test]
fn holders_apart_make_the_first_root_and_every_threshold_counts() {
    let machines = Machines::new(&["root-1", "root-2", "root-3", "targets-1", "targets-2", "release-1"]);
    let proposal = machines.proposed();
    // What was made here has signed: one key of targets and one of the channel. The rest waits.
    let verified = proposal::verify(&proposal, None).unwrap();
    let signed = |proposal: &Proposal| -> Vec<(String, usize, bool)> {
        let status = proposal::verify(proposal, None).unwrap().requirement_status(proposal).unwrap();
        status.iter().map(|s: &RequirementStatus| (s.role.clone(), s.signed.len(), s.is_met())).collect()
    };
    assert_eq!(
        signed(&proposal),
        [("root".to_owned(), 0, false), ("targets".into(), 1, false), ("stable".into(), 1, false)]
    );
    assert_eq!(verified.requirements.len(), 3, "the new root's thresholds alone");
    let file = fs::read(machines.dir().join(ceremony::FILE)).unwrap();
    // In any order, and finished by nobody before all are there.
    let mut combined = proposal;
    for name in ["release-1", "root-3", "targets-2", "root-1"] {
        assert_eq!(rule(machines.finish()), "C-THRESHOLD");
        assert_eq!(machines.next(), None, "the keys that are missing are elsewhere");
        assert!(!machines.dir().join("metadata").exists());
        let copy = machines.sign(&file, name).unwrap();
        combined = proposal::combine(&combined, &[(name.to_owned(), copy)], None).unwrap();
        machines.keep(&combined);
    }
    assert_eq!(machines.next().unwrap(), "tidegate ceremony finish");
    let done = machines.finish().unwrap();
    let repository = Repository::open(&machines.dir()).unwrap();
    assert_eq!(repository.roles().count(), 9);
    assert_eq!(repository.signers("root").len(), 2);
    let transcript = proposal::Transcript::parse("t", &fs::read_to_string(&done.transcript).unwrap()).unwrap();
    assert_eq!(proposal::check(&transcript, &repository).unwrap().len(), 3);
    assert!(!machines.dir().join(ceremony::FILE).exists());
    // And is a workspace like any other, which cannot be begun again.
    assert_eq!(rule(machines.init()), "I-EMPTY");
    assert!(machines.run(&["log", "--verify"]).status.success());
    let doctor = machines.run(&["doctor", "--now", "2026-03-01T00:00:00Z"]);
    assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
}

#[test]
fn nothing_is_released_or_published_before_the_first_root() {
    let machines = Machines::new(&["root-1", "root-2"]);
    let refused = |arguments: &[&str], next: &str| {
        let out = machines.run(arguments);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains("[C-FIRST]") && said.contains(next), "{arguments:?}: {said}");
    };
    assert!(machines.run(&["init"]).status.success(), "the files to edit");
    let commands = [
        &["publish", "../site"][..],
        &["release", "new", "1.0.0"],
        &["site", "--out", "../page"],
        &["ceremony", "start"],
    ];
    assert_eq!(machines.next().unwrap(), "tidegate init --generate-keys");
    for command in commands {
        refused(command, "tidegate init --generate-keys");
    }
    machines.proposed();
    let proposal = machines.read(ceremony::FILE);
    for command in &commands[..3] {
        refused(command, "tidegate ceremony status");
    }
    assert_eq!(rule(machines.init()), "C-ONE");
    assert_eq!(machines.read(ceremony::FILE), proposal);
    assert!(!machines.office.path().join("site").exists() && !machines.dir().join("releases").exists());
    // What the refusals name is accepted.
    let out = machines.run(&["ceremony", "status"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn a_first_root_that_is_given_up_is_proposed_anew() {
    let machines = Machines::new(&["root-1", "root-2"]);
    let first = machines.proposed();
    let keys = |name: &str| fs::read(machines.dir().join("keys").join(name)).unwrap();
    let made = keys("rollout.pem");
    assert!(machines.run(&["ceremony", "abort", "--reason", "four cohorts are one too many"]).status.success());
    let text = machines.read("cohorts.toml").replace("\"canary\"", "\"pioneers\"");
    machines.write("cohorts.toml", &text);
    machines.write("policy.toml", &machines.read("policy.toml").replace("canary", "pioneers"));
    let second = machines.proposed();
    assert_ne!(first.digest().unwrap(), second.digest().unwrap());
    assert!(String::from_utf8(second.to_bytes().unwrap()).unwrap().contains("stable.pioneers"));
    assert_eq!(keys("rollout.pem"), made, "no key is replaced");
    // A signature of the one is none of the other.
    let copy = machines.sign(&first.to_bytes().unwrap(), "root-1").unwrap();
    assert_eq!(rule(proposal::combine(&second, &[("copy".into(), copy)], None)), "C-OTHER");
    let entries = tidegate::workspace::Ledger::open(&machines.dir()).unwrap();
    let events: Vec<_> = entries.entries().iter().map(|entry| entry.event.as_str()).collect();
    assert_eq!(events, ["ceremony-start", "ceremony-abort", "ceremony-start"]);
}

/// A holder keeps a root from the day it exists: whoever sends them another first root wants their key for another repository.
#[test]
fn a_first_root_is_for_nobody_who_keeps_a_root() {
    let machines = Machines::new(&["root-1", "root-2"]);
    let first = machines.proposed();
    let mut table = Table::new();
    assert_eq!(rule(proposal::verify(&first, Some(&table.first_root()))), "C-CHAIN");
    let review = proposal::review(&first, &proposal::verify(&first, None).unwrap(), machines.now).unwrap();
    assert_eq!(review.root_version, 0);
    assert!(review.warnings.iter().any(|warning| warning.contains("a first root")), "{:?}", review.warnings);
    assert!(review.refused.is_empty(), "{:?}", review.refused);

    // What follows from a root is checked from one, and nothing else passes for a first root.
    table.key("root-4");
    table.edit("\"root-3\"]", "\"root-4\"]");
    table.pass(1);
    let next = table.start().unwrap();
    assert!(proposal::verify(&next, None).unwrap_err().remedy_text().unwrap().contains("--root"));
    let mut bare = next;
    bare.follows.roots.clear();
    bare.follows.roles.clear();
    assert_eq!(rule(proposal::verify(&bare, None)), "C-CHAIN", "it has no targets");
    let mut second = first.clone();
    second.changes[0].signed["version"] = 2.into();
    assert_eq!(rule(proposal::verify(&second, None)), "C-ISSUE");
    let mut alone = first.clone();
    alone.changes.truncate(1);
    assert_eq!(rule(proposal::verify(&alone, None)), "C-CHAIN");
    // In a workspace that has a root it is none.
    fs::create_dir_all(table.path().join("proposals")).unwrap();
    fs::write(table.path().join(ceremony::FILE), first.to_bytes().unwrap()).unwrap();
    let workspace = table.workspace();
    assert_eq!(rule(ceremony::open(&workspace, Some(&table.repository()))), "C-CHAIN");
    drop(workspace);
    // Nor does it become one where the file of its root is lost.
    fs::remove_file(table.path().join("metadata/1.root.json")).unwrap();
    let mut show = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let out = show.args(["-C", table.path().to_str().unwrap(), "ceremony", "show"]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("can only be checked from a root"), "{said}");
}

/// Whoever lost the metadata but has the ledger must not begin a second first root.
#[test]
fn a_workspace_that_lost_its_metadata_is_not_begun_again() {
    let table = Table::new();
    fs::remove_dir_all(table.path().join("metadata")).unwrap();
    let options = Options { keys: KeySource::Example, salt: None, actor: "tester".into() };
    assert_eq!(rule(init(&table.path(), &options, table.now, &mut NoPassphrases)), "I-EMPTY");
}

#[cfg(unix)]
#[test]
fn keys_behind_a_program_sign_where_it_is_and_are_proposed_to_where_it_is_not() {
    if !have("openssl", "version") {
        return;
    }
    let machines = Machines::new(&[]);
    let key = machines.office.path().join("held.pem");
    let made = Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&key).output().unwrap();
    assert!(made.status.success());
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/sign-with-openssl");
    let uri = |program: &Path| format!("command:{}?arg={}", program.display(), key.display());
    let with = |lines: &str| TEMPLATE[0].1.replace("uri = \"file:keys/root-1.pem\"\n", lines);

    // No `public`, and the program is here: it says which key it is, and no other is made.
    let declared = format!("uri = \"{}\"\n", uri(&program));
    machines.write("tidegate.toml", &with(&declared));
    let made = machines.init().unwrap();
    assert!(matches!(made.first, First::Signed(_)) && made.elsewhere.is_empty(), "{made:?}");
    assert!(!machines.dir().join("keys/root-1.pem").exists() && machines.dir().join("keys/root-2.pem").exists());
    let settings = machines.read("tidegate.toml");
    let public = settings.split("[keys.root-1]").nth(1).unwrap().split("public = ").nth(1).unwrap();
    let public = public.lines().next().unwrap().to_owned();

    // With `public`, and the program is not here: proposed to, as is root-2, and root-3 alone does not make the threshold.
    let gone = machines.office.path().join("gone");
    let declared = format!("uri = \"{}\"\npublic = {public}\n", uri(&gone));
    let waiting = Machines::new(&["root-2"]);
    let text = waiting.read("tidegate.toml").replace("uri = \"file:keys/root-1.pem\"\n", &declared);
    waiting.write("tidegate.toml", &text);
    let made = waiting.init().unwrap();
    assert!(matches!(made.first, First::Proposed(_)));
    assert_eq!(made.elsewhere.keys().collect::<Vec<_>>(), ["root-1", "root-2"]);
    assert!(waiting.read("tidegate.toml").contains(&declared));

    // Neither: refused, and nothing is written.
    let nowhere = Machines::new(&[]);
    nowhere.write("tidegate.toml", &with(&format!("uri = \"{}\"\n", uri(&gone))));
    assert!(nowhere.init().unwrap_err().remedy_text().is_some());
    assert_eq!(fs::read_dir(nowhere.dir()).unwrap().count(), 1);
}

#[test]
fn a_takeover_keeps_declared_keys_and_proposes_to_their_holders() {
    let mut machines = Machines::new(&["root-1", "root-2", "root-3"]);
    let before = machines.read("tidegate.toml");
    let mut table = Table::new();
    let site = tempfile::tempdir().unwrap();
    table.pass(1);
    crate::support::fleet::lay_out_folder(&table.path(), &table.repository(), site.path());
    machines.now = table.now + TimeDelta::hours(1);
    let options = Options {
        keys: KeySource::Generate { kind: Kind::Ed25519, passphrase: None },
        salt: None,
        actor: "tester".into(),
    };
    let place = site.path().to_str().unwrap();
    let root = table.first_root();
    let start = ceremony::Start { root: &root, from: None };
    let origin = tidegate::publish::open_origin(place, Variables::of_process()).unwrap();
    let from = (place, origin.as_ref());
    let done = ceremony::import(&machines.dir(), from, &start, &options, machines.now, &mut NoPassphrases).unwrap();
    let proposal = String::from_utf8(done.proposal.to_bytes().unwrap()).unwrap();
    let publics: Vec<&str> = before.lines().filter_map(|line| line.strip_prefix("public = \"ed25519:")).collect();
    assert_eq!(publics.len(), 3);
    for public in publics {
        let public = public.trim_end_matches('"');
        assert!(machines.read("tidegate.toml").contains(public) && proposal.contains(public));
    }
    assert!(!machines.dir().join("keys/root-1.pem").exists() && machines.dir().join("keys/targets-1.pem").exists());
}

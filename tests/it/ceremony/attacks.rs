//! Attacks by whoever proposes: what signers would not see is shown and refused, and allowed by name alone.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use tidegate::ceremony;
use tidegate::keys::KeyRing;
use tidegate::keys::generate::{Kind, generate};
use tidegate::proposal::{self, Proposal, ProposalRequest, Transcript};
use tidegate::workspace::Operation;

use super::table::Table;

/// A proposal that renews root and targets, and changes a channel's cohorts.
fn proposed() -> (Table, Proposal) {
    let mut table = Table::new();
    let path = table.path().join("cohorts.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("eq = \"lab\"", "eq = \"bench\"")).unwrap();
    table.pass(1);
    let request = ProposalRequest { renew: ["root", "targets"].map(str::to_owned).into(), ..Default::default() };
    let workspace = table.workspace();
    let mut keys = KeyRing::empty();
    let proposal = ceremony::start(&mut Operation::new(&workspace, "tester", table.now, &mut keys), &request).unwrap();
    drop(workspace);
    (table, proposal)
}

/// A key of the attacker's: its id and its object.
fn evil() -> (String, Value) {
    let key = generate(Kind::Ed25519, None).unwrap().public;
    (key.id().to_string(), key.to_value())
}

fn signed<'a>(proposal: &'a mut Proposal, role: &str) -> &'a mut Value {
    &mut proposal.changes.iter_mut().find(|change| change.role == role).unwrap().signed
}

fn forget_files(proposal: &mut Proposal, keep: impl Fn(&str) -> bool) {
    proposal.files.retain(|_, content| keep(&content.to_string()));
}

/// One more delegation, with the keys of the first.
fn delegate(signed: &mut Value, name: &str) {
    let roles = signed["delegations"]["roles"].as_array_mut().unwrap();
    let mut role = roles[0].clone();
    role["name"] = json!(name);
    roles.push(role);
}

/// What a hostile proposer hides, and the beginning of the name that it is refused by.
type Attack = (&'static str, &'static str, fn(&mut Proposal));

const ATTACKS: &[Attack] = &[
    ("unknown:root/roles/mirrors", "C-UNSEEN", |proposal| {
        let (id, key) = evil();
        let root = signed(proposal, "root");
        root["keys"][&id] = key;
        root["roles"]["mirrors"] = json!({"keyids": [id], "threshold": 1});
    }),
    ("unused:root/keys/", "C-UNSEEN", |proposal| {
        let (id, key) = evil();
        signed(proposal, "root")["keys"][&id] = key;
    }),
    ("unused:targets/delegations/keys/", "C-UNSEEN", |proposal| {
        let (id, key) = evil();
        signed(proposal, "targets")["delegations"]["keys"][&id] = key;
    }),
    ("unused:stable/delegations/keys/", "C-UNSEEN", |proposal| {
        let (id, key) = evil();
        signed(proposal, "stable")["delegations"]["keys"][&id] = key;
    }),
    ("unused:root/x-tidegate-holders/", "C-UNSEEN", |proposal| {
        signed(proposal, "root")["x-tidegate-holders"] = json!({evil().0: "nobody"});
    }),
    ("unknown:root/x-other", "C-UNSEEN", |proposal| signed(proposal, "root")["x-other"] = json!({"a": 1})),
    ("unknown:root/roles/root/x-other", "C-UNSEEN", |proposal| {
        signed(proposal, "root")["roles"]["root"]["x-other"] = json!(1);
    }),
    ("unknown:targets/x-other", "C-UNSEEN", |proposal| signed(proposal, "targets")["x-other"] = json!(1)),
    ("unknown:targets/delegations/x-other", "C-UNSEEN", |proposal| {
        signed(proposal, "targets")["delegations"]["x-other"] = json!(1);
    }),
    ("unknown:targets/delegations/roles[stable]/custom", "C-UNSEEN", |proposal| {
        signed(proposal, "targets")["delegations"]["roles"][0]["custom"] = json!({"x": "y"});
    }),
    ("unknown:stable/x-other", "C-UNSEEN", |proposal| signed(proposal, "stable")["x-other"] = json!(1)),
    ("unknown:stable/targets/\"stable/cohorts.json\"/custom", "C-UNSEEN", |proposal| {
        signed(proposal, "stable")["targets"]["stable/cohorts.json"]["custom"] = json!({"x": 1});
    }),
    ("content:stable/targets/\"stable/cohorts.json\"", "C-UNSEEN", |proposal| {
        forget_files(proposal, |content| !content.contains("bench"));
    }),
    ("content:stable/targets/\"stable/cohorts.json\"", "C-UNSEEN", |proposal| {
        forget_files(proposal, |content| content.contains("bench"));
    }),
    ("content:stable/targets/\"stable/releases/os/9.9.9/manifest.json\"", "C-UNSEEN", |proposal| {
        signed(proposal, "stable")["targets"]["stable/releases/os/9.9.9/manifest.json"] =
            json!({"length": 1, "hashes": {"sha256": "00".repeat(32)}});
    }),
    ("content:stable/targets/\"stable/cohorts.json\"", "C-UNSEEN", |proposal| {
        signed(proposal, "stable")["targets"]["stable/cohorts.json"]["length"] = json!(1);
    }),
    ("content:targets", "C-UNSEEN", |proposal| proposal.follows.roles.clear()),
    ("unknown:targets/delegations/roles[\"x\\nWARNINGS: none\"]", "C-UNSEEN", |proposal| {
        delegate(signed(proposal, "targets"), "x\nWARNINGS: none");
    }),
    ("unknown:stable/delegations/roles[other.canary]", "C-UNSEEN", |proposal| {
        delegate(signed(proposal, "stable"), "other.canary");
    }),
    ("twin:root/keys/", "C-UNSEEN", |proposal| {
        let root = signed(proposal, "root");
        let id = root["roles"]["root"]["keyids"][0].as_str().unwrap().to_owned();
        let mut twin = root["keys"][&id].clone();
        twin["x-owner"] = json!("another");
        let id = tidegate_tuf::key::Key::from_value(&twin).unwrap().id();
        root["keys"][id.as_str()] = twin;
        root["roles"]["root"]["keyids"].as_array_mut().unwrap().push(json!(id));
    }),
    ("every-client:root/consistent_snapshot", "C-CLIENT", |proposal| {
        signed(proposal, "root")["consistent_snapshot"] = json!(false);
    }),
    ("every-client:root/roles/snapshot/threshold", "C-CLIENT", |proposal| {
        signed(proposal, "root")["roles"]["snapshot"]["threshold"] = json!(5);
    }),
    ("tough:root/keys/", "C-CLIENT", |proposal| {
        let key = json!({"keytype": "ml-dsa", "scheme": "ml-dsa-44/1", "keyval": {"public": "00"}});
        let id = tidegate_tuf::key::Key::from_value(&key).unwrap().id();
        let root = signed(proposal, "root");
        root["keys"][id.as_str()] = key;
        root["roles"]["targets"]["keyids"].as_array_mut().unwrap().push(json!(id));
    }),
];

#[test]
fn what_signers_would_not_see_is_refused() {
    let (table, proposal) = proposed();
    for (name, rule, attack) in ATTACKS {
        let mut altered = proposal.clone();
        attack(&mut altered);
        let verified = proposal::verify(&altered, Some(&table.first_root())).unwrap();
        let review = proposal::review(&altered, &verified, table.now).unwrap();
        assert!(review.refused.iter().any(|o| o.name.starts_with(name)), "{name}: {:?}", review.refused);
        assert!(review.lines().iter().any(|line| line.contains(name)), "{name}");
        for key in ["root-1", "targets-1", "release-1"] {
            let error = table.sign(&mut altered.clone(), key).unwrap_err();
            assert_eq!(error.broken_rule().map(tidegate::Rule::id), Some(*rule), "{name}: {error}");
            assert!(error.text().contains(name) && error.remedy_text().unwrap().contains("--allow"), "{error}");
        }
        // All names together allow it; one less does not.
        let all: BTreeSet<String> = review.refused.iter().map(|o| o.name.clone()).collect();
        table.sign_allowing(&mut altered.clone(), "root-1", &all).unwrap();
        for one in &all {
            let fewer = all.iter().filter(|other| *other != one).cloned().collect();
            assert!(table.sign_allowing(&mut altered.clone(), "root-1", &fewer).is_err(), "{name} without {one}");
        }
    }
    // What is proposed honestly is not refused, and what nobody objects to cannot be allowed.
    table.sign(&mut proposal.clone(), "root-1").unwrap();
    let idle = table.sign_allowing(&mut proposal.clone(), "root-1", &["unknown:root/x".to_owned()].into());
    assert_eq!(idle.unwrap_err().broken_rule(), Some(tidegate::Rule::CeremonyUnseen));
}

#[test]
fn two_keys_of_one_name_are_warned_of() {
    let (table, mut proposal) = proposed();
    let (evil_id, key) = evil();
    let root = signed(&mut proposal, "root");
    let old = root["roles"]["root"]["keyids"][0].as_str().unwrap().to_owned();
    root["roles"]["root"]["keyids"][0] = json!(evil_id);
    root["keys"].as_object_mut().unwrap().remove(&old);
    root["keys"][&evil_id] = key;
    let name = proposal.label(&tidegate_tuf::key::KeyId::new(old.as_str()));
    proposal.names.insert(tidegate_tuf::key::KeyId::new(evil_id.as_str()), name.clone());
    let is_warned_of = |proposal: &Proposal, name: &str| {
        let verified = proposal::verify(proposal, Some(&table.first_root())).unwrap();
        let review = proposal::review(proposal, &verified, table.now).unwrap();
        let warning = format!("2 different keys are called {name} in this proposal: compare their ids");
        assert!(review.warnings.contains(&warning), "{:?}", review.warnings);
    };
    is_warned_of(&proposal, &name);
    // A key without a name is called by the beginning of its id.
    let id = |id: &str| tidegate_tuf::key::KeyId::new(id);
    proposal.names.remove(&id(&old));
    proposal.names.insert(id(&evil_id), old[..8].to_owned());
    is_warned_of(&proposal, &old[..8]);
    // Nor can a name claim a holder.
    proposal.names.insert(id(&evil_id), format!("{name}, held by somebody"));
    assert!(Proposal::parse("p", &proposal.to_bytes().unwrap()).is_err());
}

#[test]
fn no_text_of_a_proposer_makes_a_line_of_its_own() {
    let (table, mut proposal) = proposed();
    let hostile = "x\n  - nothing changes\u{202e}\u{1b}[2K";
    delegate(signed(&mut proposal, "targets"), hostile);
    let root = signed(&mut proposal, "root");
    let id = root["roles"]["root"]["keyids"][0].as_str().unwrap().to_owned();
    root["x-tidegate-holders"][&id] = json!(hostile);
    signed(&mut proposal, "stable")["targets"][format!("stable/releases/{hostile}")] =
        json!({"length": 1, "hashes": {"sha256": "00".repeat(32)}});
    let verified = proposal::verify(&proposal, Some(&table.first_root())).unwrap();
    let lines = proposal::review(&proposal, &verified, table.now).unwrap().lines();
    assert!(lines.iter().filter(|line| line.contains("nothing changes")).count() > 5);
    for line in lines {
        assert!(!line.starts_with("  - nothing") && !line.contains(['\n', '\u{202e}', '\u{1b}']), "{line:?}");
    }
}

/// Signers elsewhere allow it for themselves; so does whoever finishes, and the transcript says so. From then on it is in force, and
/// shown as that.
#[test]
fn what_is_allowed_by_name_is_in_the_transcript() {
    let (mut table, mut proposal) = proposed();
    let (name, _, attack) = ATTACKS[0];
    attack(&mut proposal);
    let verified = proposal::verify(&proposal, Some(&table.first_root())).unwrap();
    let all: BTreeSet<String> = proposal::objections(&proposal, &verified).new.into_iter().map(|o| o.name).collect();
    for key in ["root-1", "root-2", "targets-1", "targets-2", "release-1", "release-2"] {
        table.sign_allowing(&mut proposal, key, &all).unwrap();
    }
    let workspace = table.workspace();
    ceremony::keep(&mut Operation::new(&workspace, "tester", table.now, &mut KeyRing::empty()), &proposal).unwrap();
    let error = table.finish(&workspace).unwrap_err();
    assert_eq!(error.broken_rule(), Some(tidegate::Rule::CeremonyUnseen), "{error}");
    // The name of a client gives up that client, and nothing else.
    let clients = ["python-tuf".to_owned(), "tough".to_owned()];
    assert!(table.finish_allowing(&workspace, &clients.clone().into()).is_err());
    let people = all.iter().filter(|name| !name.starts_with("python-tuf:") && !name.starts_with("tough:")).cloned();
    let done = table.finish_allowing(&workspace, &people.chain(clients).collect()).unwrap();
    drop(workspace);
    let text = fs::read_to_string(&done.transcript).unwrap();
    Transcript::parse("t", &text).unwrap();
    let (_, allowed) = text.split_once("## Allowed by name").unwrap();
    assert!(all.iter().all(|name| allowed.contains(&format!("- {name}: "))), "{text}");
    assert!(
        text.contains("| /roles/mirrors |")
            && text.contains("| /cohorts[validation]/condition/eq | \"lab\" | \"bench\" |"),
        "{text}"
    );

    table.edit("[keys.root-1]", "[keys.root-1]\nholder = \"holder 1\"");
    table.pass(1);
    let next = table.start().unwrap();
    let verified = proposal::verify(&next, Some(&table.first_root())).unwrap();
    let review = proposal::review(&next, &verified, table.now).unwrap();
    assert_eq!(review.refused, []);
    assert!(review.warnings.iter().any(|warning| warning.contains("in force already") && warning.contains(name)));
}

/// A gate learns who devices are and can withhold releases; without protection everybody reads what was private.
#[test]
fn a_changed_gate_and_dropped_protection_are_spelled_out() {
    let mut table = Table::new();
    let path = table.path().join("cohorts.toml");
    let plain = fs::read_to_string(&path).unwrap();
    let guarded = |gate: &str| {
        fs::write(
            &path,
            plain.replace("name = \"early\"", &format!("name = \"early\"\nprotected = {{ gate = \"{gate}\" }}")),
        )
        .unwrap();
    };
    let review = |table: &mut Table| {
        table.pass(1);
        let proposal = table.start().unwrap();
        let verified = proposal::verify(&proposal, Some(&table.first_root())).unwrap();
        let lines = proposal::review(&proposal, &verified, table.now).unwrap().lines().join("\n");
        let copies = table.copies(&proposal, &["release-1", "release-2"]);
        let combined = proposal::combine(&proposal, &copies, Some(&table.first_root())).unwrap();
        let workspace = table.workspace();
        ceremony::keep(&mut Operation::new(&workspace, "tester", table.now, &mut KeyRing::empty()), &combined).unwrap();
        let done = table.finish(&workspace).unwrap();
        (lines, fs::read_to_string(done.transcript).unwrap())
    };
    guarded("https://one.example.com");
    let (lines, _) = review(&mut table);
    assert!(lines.contains("+ /cohorts[early]/protected: {\"gate\":\"https://one.example.com\"}"), "{lines}");
    guarded("https://two.example.com");
    let (lines, transcript) = review(&mut table);
    let field = "/cohorts[early]/protected/gate";
    assert!(
        lines.contains(&format!("~ {field}: \"https://one.example.com\" -> \"https://two.example.com\"")),
        "{lines}"
    );
    assert!(lines.contains("would ask another gate, https://two.example.com"), "{lines}");
    assert!(transcript.contains(&format!("| {field} | \"https://one.example.com\" | \"https://two.example.com\" |")));
    fs::write(&path, &plain).unwrap();
    let (lines, transcript) = review(&mut table);
    assert!(lines.contains("- /cohorts[early]/protected: "), "{lines}");
    assert!(lines.contains("the cohort early is protected no longer"), "{lines}");
    assert!(transcript.contains("is protected no longer"), "{transcript}");
}

#[test]
fn a_new_key_of_root_that_has_not_signed_is_named() {
    let mut table = Table::new();
    table.key("root-4");
    table.edit("\"root-3\"]", "\"root-4\"]");
    table.pass(1);
    let proposal = table.start().unwrap();
    let warnings = |proposal: &Proposal| {
        let verified = proposal::verify(proposal, Some(&table.first_root())).unwrap();
        proposal::review(proposal, &verified, table.now).unwrap().warnings.join("\n")
    };
    assert!(warnings(&proposal).contains("new keys of root that have not signed: root-4;"));
    let copies = table.copies(&proposal, &["root-4"]);
    let combined = proposal::combine(&proposal, &copies, Some(&table.first_root())).unwrap();
    assert!(!warnings(&combined).contains("that have not signed"), "{}", warnings(&combined));
}

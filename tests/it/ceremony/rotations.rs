//! Every rotation of the runbook, with devices at every earlier root version.

use tidegate::ceremony;
use tidegate::proposal::{self, Situation, plan};
use tidegate::workspace::Operation;

use super::table::Table;

const ROOTS: &str = "keys = [\"root-1\", \"root-2\", \"root-3\"]\nthreshold = 2";

/// A root key is added, removed and replaced, and thresholds go up and down.
#[test]
fn root_keys_and_thresholds_change() {
    let mut table = Table::new();
    table.key("root-4");
    table.edit(ROOTS, "keys = [\"root-1\", \"root-2\", \"root-3\", \"root-4\"]\nthreshold = 2");
    table.ceremony(&["root-1", "root-2"]);
    // Up: the new threshold is met by the new keys, the old one by the old.
    table.edit("\"root-4\"]\nthreshold = 2", "\"root-4\"]\nthreshold = 3");
    table.ceremony(&["root-4", "root-1", "root-2"]);
    // Replaced.
    table.key("root-5");
    table.edit("\"root-3\", \"root-4\"]", "\"root-5\", \"root-4\"]");
    table.ceremony(&["root-1", "root-2", "root-4"]);
    // Down, and one fewer at once.
    table.edit("\"root-5\", \"root-4\"]\nthreshold = 3", "\"root-5\"]\nthreshold = 2");
    table.ceremony(&["root-1", "root-2", "root-5"]);
    // All at once: nobody of the first root is left.
    for name in ["root-6", "root-7", "root-8"] {
        table.key(name);
    }
    table.edit("\"root-1\", \"root-2\", \"root-5\"]", "\"root-6\", \"root-7\", \"root-8\"]");
    table.ceremony(&["root-1", "root-5", "root-6", "root-8"]);
    assert_eq!(table.repository().roots().len(), 6);
}

#[test]
fn one_key_is_lost_and_then_as_many_as_the_threshold_bears() {
    let mut table = Table::new();
    table.key("root-4");
    table.key("root-5");
    table.edit(ROOTS, "keys = [\"root-1\", \"root-2\", \"root-3\", \"root-4\"]\nthreshold = 2");
    table.ceremony(&["root-1", "root-2"]);
    table.lose("root-1");
    table.lose("root-2");
    let repository = table.repository();
    let settings = table.workspace().settings().unwrap();
    let lost = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        plan(&Situation::Lost(names), &repository, &settings).unwrap()
    };
    assert!(lost(&["root-1", "root-2"]).recoverable);
    let hopeless = lost(&["root-1", "root-2", "root-3"]);
    assert!(!hopeless.recoverable);
    assert!(hopeless.facts.iter().any(|fact| fact.contains("ROOT CANNOT BE RECOVERED")));
    assert!(hopeless.steps.iter().any(|step| step.text.contains("new repository")));
    table.key("root-6");
    table.edit("\"root-1\", \"root-2\", \"root-3\", \"root-4\"]", "\"root-3\", \"root-4\", \"root-5\", \"root-6\"]");
    table.ceremony(&["root-3", "root-4"]);

    // Targets keys beyond their threshold: root gives new ones, and they sign what is there.
    table.lose("targets-1");
    table.lose("targets-2");
    table.key("targets-4");
    table.key("targets-5");
    table.edit("\"targets-1\", \"targets-2\", \"targets-3\"]", "\"targets-3\", \"targets-4\", \"targets-5\"]");
    let done = table.ceremony(&["root-3", "root-5", "targets-4", "targets-5"]);
    assert!(done.roles.contains(&"targets".to_owned()));
}

/// An online key is replaced with an overlap, and every device verifies at every instant.
#[test]
fn online_key_rotation_keeps_devices_verifying() {
    let mut table = Table::new();
    table.key("timestamp-2");
    table.key("snapshot-2");
    table.edit("keys = [\"timestamp\"]", "keys = [\"timestamp\", \"timestamp-2\"]");
    table.edit("keys = [\"snapshot\"]", "keys = [\"snapshot\", \"snapshot-2\"]");
    // `ceremony` holds that there was no gap exactly when the rehearsal foresaw none.
    table.ceremony(&["root-1", "root-2"]);
    assert_eq!(table.repository().signers("timestamp").len(), 2, "both sign from the first moment on");
    assert_eq!(table.repository().signers("snapshot").len(), 2);
    table.edit("keys = [\"timestamp\", \"timestamp-2\"]", "keys = [\"timestamp-2\"]");
    table.edit("keys = [\"snapshot\", \"snapshot-2\"]", "keys = [\"snapshot-2\"]");
    let proposal = table.start().unwrap();
    let verified = proposal::verify(&proposal, Some(&table.first_root())).unwrap();
    let rehearsal = proposal::rehearse(&proposal, &verified, &table.repository(), &[].into(), table.now).unwrap();
    assert_eq!(rehearsal.moments, []);
    ceremony::abort(
        &mut Operation::new(&table.workspace(), "tester", table.now, &mut tidegate::keys::KeyRing::empty()),
        None,
    )
    .unwrap();
    table.ceremony(&["root-1", "root-2"]);
    table.lose("timestamp");
    table.lose("snapshot");
    table.refresh();
}

#[test]
fn an_online_key_replaced_at_once_has_a_gap_that_the_rehearsal_foresees() {
    let mut table = Table::new();
    table.key("timestamp-2");
    table.edit("keys = [\"timestamp\"]", "keys = [\"timestamp-2\"]");
    let proposal = table.start().unwrap();
    let verified = proposal::verify(&proposal, Some(&table.first_root())).unwrap();
    let rehearsal = proposal::rehearse(&proposal, &verified, &table.repository(), &[].into(), table.now).unwrap();
    assert!(!rehearsal.moments.is_empty());
    let review = proposal::review(&proposal, &verified, table.now).unwrap();
    assert!(review.devices.iter().any(|line| line.contains("may fail once")), "{:?}", review.devices);
    ceremony::abort(
        &mut Operation::new(&table.workspace(), "tester", table.now, &mut tidegate::keys::KeyRing::empty()),
        None,
    )
    .unwrap();
    table.ceremony(&["root-1", "root-2"]);
}

#[test]
fn stolen_online_keys_that_ran_up_versions_are_recovered_from() {
    let mut table = Table::new();
    // The thief signs versions of their own, far ahead, and a device takes them.
    let thief = {
        let workspace = table.workspace();
        let mut ring = Table::ring(&workspace);
        let repository = table.repository();
        let mut files = Vec::new();
        let mut snapshot = repository.role("snapshot").unwrap().document.to_value();
        snapshot["version"] = 1_000_000.into();
        let bytes = signed(&mut ring, "snapshot", &snapshot);
        let mut timestamp = repository.role("timestamp").unwrap().document.to_value();
        timestamp["version"] = 1_000_000.into();
        timestamp["meta"]["snapshot.json"] = serde_json::json!({"version": 1_000_000});
        files.push(("1000000.snapshot.json".to_owned(), bytes));
        files.push(("timestamp.json".to_owned(), signed(&mut ring, "timestamp", &timestamp)));
        files
    };
    table.deface(thief);
    table.awake_device(0).unwrap();
    table.key("timestamp-2");
    table.key("snapshot-2");
    table.edit("keys = [\"timestamp\"]", "keys = [\"timestamp-2\"]");
    table.edit("keys = [\"snapshot\"]", "keys = [\"snapshot-2\"]");
    table.pass(1);
    let proposal = table.start().unwrap();
    let verified = proposal::verify(&proposal, Some(&table.first_root())).unwrap();
    let rehearsal = proposal::rehearse(&proposal, &verified, &table.repository(), &[].into(), table.now).unwrap();
    assert!(rehearsal.devices.iter().any(|fate| fate.device.contains("ran up versions") && fate.error.is_none()));
    ceremony::abort(
        &mut Operation::new(&table.workspace(), "tester", table.now, &mut tidegate::keys::KeyRing::empty()),
        None,
    )
    .unwrap();
    // The misled device is among those that follow.
    table.ceremony(&["root-2", "root-3"]);
}

fn signed(ring: &mut tidegate::keys::KeyRing, key: &str, content: &serde_json::Value) -> Vec<u8> {
    let opened = ring.signer(key).unwrap();
    let bytes = tidegate_tuf::json::canonical(content).unwrap();
    let sig = tidegate_tuf::hash::to_hex(&opened.sign(&bytes).unwrap());
    tidegate::metadata::assemble(content, &[(opened.public().id(), sig)].into()).unwrap()
}

#[test]
fn compromised_rollout_and_release_keys_are_replaced() {
    let mut table = Table::new();
    table.key("rollout-2");
    table.edit("keys = [\"rollout\"]", "keys = [\"rollout-2\"]");
    let done = table.ceremony(&["release-1", "release-2"]);
    assert!(
        done.roles.contains(&"stable".to_owned()) && done.roles.contains(&"stable.canary".to_owned()),
        "{:?}",
        done.roles
    );
    assert!(!done.roles.contains(&"root".to_owned()));
    table.key("release-3");
    table.edit("keys = [\"release-1\", \"release-2\"]", "keys = [\"release-1\", \"release-3\"]");
    let done = table.ceremony(&["targets-1", "targets-3", "release-1", "release-3"]);
    assert!(done.roles.contains(&"targets".to_owned()) && done.roles.contains(&"stable".to_owned()));
    let settings = table.workspace().settings().unwrap();
    let plan = plan(&Situation::Compromised(vec!["rollout-2".into()]), &table.repository(), &settings).unwrap();
    assert!(plan.facts.iter().any(|fact| fact.contains("never add one")), "{:?}", plan.facts);
}

#[test]
fn holders_are_named_and_renamed() {
    let mut table = Table::new();
    let named = |name: &str, holder: &str| format!("[keys.{name}]\nholder = \"{holder}\"");
    table.edit("[keys.root-1]", &named("root-1", "holder 1"));
    table.edit("[keys.root-2]", &named("root-2", "holder 2"));
    table.ceremony(&["root-1", "root-2"]);
    table.edit("holder = \"holder 2\"", "holder = \"holder 2b\"");
    let proposal = table.start().unwrap();
    let verified = proposal::verify(&proposal, Some(&table.first_root())).unwrap();
    let review = proposal::review(&proposal, &verified, table.now).unwrap();
    let row = review.roles[0].rows.iter().find(|row| row.what == "holder of root-2").unwrap();
    assert_eq!((row.before.as_str(), row.after.as_str()), ("holder 2", "holder 2b"));
    ceremony::abort(
        &mut Operation::new(&table.workspace(), "tester", table.now, &mut tidegate::keys::KeyRing::empty()),
        None,
    )
    .unwrap();
    table.ceremony(&["root-1", "root-3"]);
}

#[test]
fn a_channel_is_added() {
    let mut table = Table::new();
    let path = table.path().join("cohorts.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        format!(
            "{text}\n[beta]\nsalt = \"{}\"\n\n[[beta.cohort]]\nname = \"all\"\nshare = \"100%\"\n",
            "ab".repeat(16)
        ),
    )
    .unwrap();
    let text = "\n[channels.beta.release]\nkeys = [\"release-1\"]\nthreshold = 1\nexpires = \"90d\"\n\n\
                [channels.beta.rollout]\nkeys = [\"rollout\"]\nthreshold = 1\nexpires = \"14d\"\n\n[keys.root-1]";
    table.edit("\n[keys.root-1]", text);
    let done = table.ceremony(&["targets-1", "targets-2", "release-1"]);
    assert!(done.roles.contains(&"beta.all".to_owned()), "{:?}", done.roles);
    assert!(table.repository().role("beta").is_some());
}

#[test]
fn a_refresh_renews_what_is_due_as_far_as_keys_are_at_hand() {
    let mut table = Table::new();
    table.pass(24 * 80);
    table.refresh();
    let version = |table: &Table, role: &str| table.repository().role(role).unwrap().version;
    assert_eq!((version(&table, "stable"), version(&table, "targets"), version(&table, "root")), (2, 1, 1));
    // Without a threshold of release keys the channel stays as it is, and the rest is renewed all the same.
    table.lose("release-1");
    table.pass(24 * 80);
    let before = version(&table, "timestamp");
    table.refresh();
    assert_eq!((version(&table, "stable"), version(&table, "timestamp")), (2, before + 1));
}

//! The trust core against a simulated repository: each check of the client workflow, met and broken.

mod delegations;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tidegate_tuf::{Chain, Error, Freshness, TrustedSet, time};

use crate::simulator::{Simulator, epoch};

fn start(sim: &Simulator) -> TrustedSet {
    TrustedSet::from_root(sim.root(1), epoch()).unwrap()
}

/// Loads everything top-level that is newest.
fn refresh(sim: &Simulator, set: &mut TrustedSet) -> Result<(), Error> {
    while set.root().common.version < sim.version("root") {
        let next = set.root().common.version + 1;
        set.update_root(sim.root(next))?;
    }
    set.update_timestamp(sim.newest("timestamp"))?;
    set.update_snapshot(sim.newest("snapshot"))?;
    set.update_targets(sim.newest("targets"))
}

fn refreshed(sim: &Simulator) -> TrustedSet {
    let mut set = start(sim);
    refresh(sim, &mut set).unwrap();
    set
}

fn top() -> Chain {
    Chain::top()
}

#[test]
fn a_sound_repository_loads() {
    let mut sim = Simulator::new();
    sim.delegate("targets", "a", &["a/*"], true);
    sim.publish(&["a", "targets", "snapshot", "timestamp"]);
    sim.publish(&["root"]);
    let mut set = refreshed(&sim);
    set.update_delegated(&top().then("a"), sim.newest("a")).unwrap();
    assert_eq!(set.root().common.version, 2);
    assert_eq!(set.targets(&top()).unwrap().common.version, 2);
    assert_eq!(set.targets(&top().then("a")).unwrap().common.version, 1);
}

#[test]
fn the_order_of_loading_is_enforced() {
    let sim = Simulator::new();
    let mut set = start(&sim);
    let out_of_order = |result: Result<(), Error>| matches!(result, Err(Error::OutOfOrder(_)));
    assert!(out_of_order(set.update_snapshot(sim.newest("snapshot"))), "snapshot before timestamp");
    assert!(out_of_order(set.update_targets(sim.newest("targets"))), "targets before snapshot");
    assert!(out_of_order(set.update_delegated(&top().then("a"), b"")), "delegated before targets");
    set.update_timestamp(sim.newest("timestamp")).unwrap();
    assert!(out_of_order(set.update_root(sim.root(1))), "root after timestamp");
    set.update_snapshot(sim.newest("snapshot")).unwrap();
    assert!(out_of_order(set.update_timestamp(sim.newest("timestamp")).map(|_| ())), "timestamp after snapshot");
    set.update_targets(sim.newest("targets")).unwrap();
    assert!(out_of_order(set.update_snapshot(sim.newest("snapshot"))), "snapshot after targets");
    assert!(out_of_order(set.update_delegated(&top(), sim.newest("targets"))), "the top-level role as a delegated one");
}

#[test]
fn a_broken_file_is_refused_and_changes_nothing() {
    let sim = Simulator::new();
    let expected = "expected a threshold error or a malformed one";
    for role in ["root", "timestamp", "snapshot", "targets"] {
        let good = match role {
            "root" => {
                let mut next = sim.clone();
                next.publish(&["root"]);
                next.newest("root").to_vec()
            }
            _ => sim.newest(role).to_vec(),
        };
        let load = |bytes: &[u8]| {
            let mut set = start(&sim);
            if role == "root" {
                return set.update_root(bytes);
            }
            let timestamp = if role == "timestamp" { bytes } else { sim.newest("timestamp") };
            set.update_timestamp(timestamp)?;
            let snapshot = if role == "snapshot" { bytes } else { sim.newest("snapshot") };
            set.update_snapshot(snapshot)?;
            set.update_targets(if role == "targets" { bytes } else { sim.newest("targets") })
        };
        load(&good).unwrap();
        for cut in 0..good.len() {
            assert!(load(&good[..cut]).is_err(), "{role} cut at {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let verdict = load(&bad);
            assert!(verdict.is_err(), "{role} with a bit turned at {at}: {expected}");
        }
    }
}

/// What to break in a repository whose snapshot and targets are at version 2, and what the client must say of it.
#[test]
fn signatures_versions_listings_and_expiry() {
    type Break = fn(&mut Simulator);
    let cases: &[(&str, Break, &str)] = &[
        (
            "timestamp by another key",
            |s| resign(s, "timestamp", "snapshot"),
            "timestamp: 0 of the 1 signatures that root requires are valid (TUF 5.4.2)",
        ),
        (
            "snapshot by another key",
            |s| resign(s, "snapshot", "timestamp"),
            "snapshot: 0 of the 1 signatures that root requires are valid (TUF 5.5.3)",
        ),
        (
            "targets by another key",
            |s| resign(s, "targets", "timestamp"),
            "targets: 0 of the 1 signatures that root requires are valid (TUF 5.6.3)",
        ),
        (
            "timestamp expired",
            |s| expire(s, "timestamp"),
            "timestamp: expired at 2026-01-01T00:00:00Z; the current time is 2026-01-01T00:00:00Z (TUF 5.4.4); if the clock is right, the publisher must renew it",
        ),
        (
            "snapshot expired",
            |s| expire(s, "snapshot"),
            "snapshot: expired at 2026-01-01T00:00:00Z; the current time is 2026-01-01T00:00:00Z (TUF 5.5.6); if the clock is right, the publisher must renew it",
        ),
        (
            "targets expired",
            |s| expire(s, "targets"),
            "targets: expired at 2026-01-01T00:00:00Z; the current time is 2026-01-01T00:00:00Z (TUF 5.6.5); if the clock is right, the publisher must renew it",
        ),
        (
            "snapshot of another version",
            |s| wrong_version(s, "snapshot"),
            "snapshot: expected version 2, received version 9 (TUF 5.5.4)",
        ),
        (
            "targets of another version",
            |s| wrong_version(s, "targets"),
            "targets: expected version 2, received version 9 (TUF 5.6.4)",
        ),
        (
            "targets of another type",
            |s| s.signed.get_mut("targets").unwrap()["_type"] = json!("snapshot"),
            "targets: malformed: \"_type\" is \"snapshot\", and \"targets\" was expected (TUF 4)",
        ),
        (
            "targets of another specification",
            |s| s.signed.get_mut("targets").unwrap()["spec_version"] = json!("2.0"),
            "targets: malformed: \"spec_version\" is \"2.0\"; this client implements 1.x (TUF 4)",
        ),
        ("version zero", zero_version, "targets: malformed"),
        (
            "threshold zero",
            |s| {
                s.delegate("targets", "a", &["*"], false);
                s.set_threshold("a", "targets", 0);
            },
            "malformed",
        ),
        (
            "delegation to a top-level name",
            |s| s.delegate("targets", "snapshot", &["*"], false),
            "cannot be the name of a delegated role",
        ),
        (
            "two delegations to one role",
            |s| {
                s.delegate("targets", "a", &["*"], false);
                let roles = s.signed.get_mut("targets").unwrap()["delegations"]["roles"].as_array_mut().unwrap();
                roles.push(roles[0].clone());
            },
            "delegated to twice",
        ),
        (
            "paths and hash prefixes at once",
            |s| {
                s.delegate("targets", "a", &["*"], false);
                s.declaration("a", "targets")["path_hash_prefixes"] = json!(["00"]);
            },
            "exclude each other",
        ),
        (
            "one key id twice for a role",
            |s| {
                s.delegate("targets", "a", &["*"], false);
                let declaration = s.declaration("a", "targets");
                let id = declaration["keyids"][0].clone();
                declaration["keyids"].as_array_mut().unwrap().push(id);
            },
            "is listed twice for one role",
        ),
        (
            "a hash of the wrong length",
            |s| {
                s.signed.get_mut("targets").unwrap()["targets"] =
                    json!({"f": {"length": 1, "hashes": {"sha256": "00"}}});
            },
            "the sha256 digest must be 64 hex digits",
        ),
        (
            "no hash",
            |s| s.signed.get_mut("targets").unwrap()["targets"] = json!({"f": {"length": 1, "hashes": {}}}),
            "at least one hash",
        ),
        (
            "a negative length",
            |s| {
                s.signed.get_mut("targets").unwrap()["targets"] =
                    json!({"f": {"length": -1, "hashes": {"sha256": "00"}}});
            },
            "malformed",
        ),
        (
            "issued after its expiry",
            |s| s.signed.get_mut("targets").unwrap()["x-tidegate-issued"] = json!("2027-01-01T00:00:00Z"),
            "must be before",
        ),
        (
            "an impossible date",
            |s| s.signed.get_mut("targets").unwrap()["expires"] = json!("2026-02-30T00:00:00Z"),
            "is not a time of the form",
        ),
    ];
    for (name, break_it, expected) in cases {
        let mut sim = Simulator::new();
        break_it(&mut sim);
        for role in ["targets", "snapshot", "timestamp"] {
            // Cases that break a version or a signature have published their role themselves.
            if !sim.files.contains_key(&format!("broken/{role}")) {
                sim.publish(&[role]);
            }
        }
        let error = refresh(&sim, &mut start(&sim)).expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

fn resign(sim: &mut Simulator, role: &str, with: &str) {
    let keys = sim.signers[with].clone();
    sim.signers.insert(role.into(), keys);
}

fn expire(sim: &mut Simulator, role: &str) {
    sim.set_expiry(role, epoch());
}

/// Lists version 2, and puts a version 9 there.
fn wrong_version(sim: &mut Simulator, role: &str) {
    let lister = if role == "snapshot" { "timestamp" } else { "snapshot" };
    if role == "snapshot" {
        sim.publish(&["targets"]);
        sim.files.insert("broken/targets".into(), Vec::new());
    }
    sim.signed.get_mut(role).unwrap()["version"] = json!(9);
    sim.publish_as_is(role);
    sim.signed.get_mut(lister).unwrap()["meta"][format!("{role}.json")]["version"] = json!(2);
    sim.files.insert(format!("broken/{role}"), Vec::new());
}

/// Lists version 1, and puts a version 0 there.
fn zero_version(sim: &mut Simulator) {
    sim.signed.get_mut("targets").unwrap()["version"] = json!(0);
    sim.hashes = false;
    sim.publish_as_is("targets");
    sim.files.insert("metadata/0.targets.json".into(), sim.newest("targets").to_vec());
    sim.signed.get_mut("snapshot").unwrap()["meta"]["targets.json"]["version"] = json!(1);
    sim.files.insert("broken/targets".into(), Vec::new());
}

#[test]
fn the_root_chain_is_followed_one_version_at_a_time() {
    let mut sim = Simulator::new();
    sim.rotate("root");
    // Version 2 must be signed by the old key and the new one.
    let old = Simulator::new().signers["root"][0].clone();
    let new = sim.signers["root"][0].clone();
    sim.signed.get_mut("root").unwrap()["version"] = json!(2);
    for (name, keys, valid) in
        [("old only", vec![&old], false), ("new only", vec![&new], false), ("both", vec![&new, &old], true)]
    {
        let keys: Vec<_> = keys.into_iter().cloned().collect();
        let mut set = start(&sim);
        assert_eq!(set.update_root(&sim.sign_with("root", &keys)).is_ok(), valid, "{name}");
        assert_eq!(set.root().common.version, if valid { 2 } else { 1 }, "{name}");
    }
    let both = [old, new];
    for (version, expected) in [(1, "rollback"), (3, "expected version 2, received version 3")] {
        sim.signed.get_mut("root").unwrap()["version"] = json!(version);
        let error = start(&sim).update_root(&sim.sign_with("root", &both)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_expired_root_leads_to_a_newer_one_but_no_further() {
    let mut sim = Simulator::new();
    sim.set_expiry("root", epoch());
    sim.publish(&["root"]);
    let mut set = start(&sim);
    set.update_root(sim.root(2)).unwrap();
    let error = set.update_timestamp(sim.newest("timestamp")).unwrap_err();
    assert!(error.is_expired() && error.to_string().contains("5.3.10"), "{error}");
    sim.set_expiry("root", epoch() + TimeDelta::days(1));
    sim.publish(&["root"]);
    let mut set = start(&sim);
    refresh(&sim, &mut set).unwrap();
}

#[test]
fn a_threshold_counts_keys_not_signatures() {
    let mut sim = Simulator::new();
    sim.add_key("snapshot");
    sim.add_key("snapshot");
    sim.set_threshold("snapshot", "root", 3);
    sim.publish(&["root", "snapshot", "timestamp"]);
    refreshed(&sim);

    // Two of three.
    let mut two = sim.clone();
    two.signers.get_mut("snapshot").unwrap().pop();
    two.publish(&["snapshot", "timestamp"]);
    let error = refresh(&two, &mut start(&two)).unwrap_err();
    assert_eq!(error.to_string(), "snapshot: 2 of the 3 signatures that root requires are valid (TUF 5.5.3)");

    // One key under three ids, as a repository could declare it whose ids are arbitrary (TAP 12).
    let mut one = Simulator::new();
    let root = one.signed.get_mut("root").unwrap();
    let id = root["roles"]["snapshot"]["keyids"][0].as_str().unwrap().to_owned();
    let key = root["keys"][&id].clone();
    for alias in ["x", "y"] {
        root["keys"][alias] = key.clone();
        root["roles"]["snapshot"]["keyids"].as_array_mut().unwrap().push(json!(alias));
    }
    root["roles"]["snapshot"]["threshold"] = json!(2);
    one.publish(&["root", "snapshot"]);
    let mut file: serde_json::Value = serde_json::from_slice(one.newest("snapshot")).unwrap();
    let sig = file["signatures"][0]["sig"].clone();
    for alias in ["x", "y"] {
        file["signatures"].as_array_mut().unwrap().push(json!({"keyid": alias, "sig": sig}));
    }
    one.hashes = false;
    one.publish(&["timestamp"]);
    let timestamp = &mut one.signed.get_mut("timestamp").unwrap()["meta"]["snapshot.json"];
    *timestamp = json!({"version": 2});
    one.publish(&["timestamp"]);
    let mut set = start(&one);
    set.update_root(one.root(2)).unwrap();
    set.update_timestamp(one.newest("timestamp")).unwrap();
    let error = set.update_snapshot(&serde_json::to_vec(&file).unwrap()).unwrap_err();
    assert!(error.to_string().starts_with("snapshot: 1 of the 2 signatures"), "{error}");
}

#[test]
fn a_bad_signature_beside_enough_good_ones_is_passed_over() {
    let mut sim = Simulator::new();
    sim.add_key("timestamp");
    sim.publish(&["root", "timestamp"]);
    for bad in ["", "00", "zz", "\u{e9}"] {
        let mut file: serde_json::Value = serde_json::from_slice(sim.newest("timestamp")).unwrap();
        file["signatures"][0]["sig"] = json!(bad);
        let mut set = start(&sim);
        set.update_root(sim.root(2)).unwrap();
        set.update_timestamp(&serde_json::to_vec(&file).unwrap()).unwrap();
    }
}

#[test]
fn rollback_of_every_version_that_was_trusted() {
    let mut sim = Simulator::new();
    sim.delegate("targets", "a", &["a/*"], true);
    sim.publish(&["a", "targets", "snapshot", "timestamp"]);
    sim.publish(&["a", "targets", "snapshot", "timestamp"]);
    let (timestamp, snapshot) = (sim.newest("timestamp").to_vec(), sim.newest("snapshot").to_vec());
    let returning = |sim: &Simulator| {
        let mut set = start(sim);
        set.load_timestamp(&timestamp).unwrap();
        if sim.version("timestamp") > 3 {
            set.update_timestamp(sim.newest("timestamp"))?;
        }
        set.load_snapshot(&snapshot)?;
        set.update_snapshot(sim.newest("snapshot"))
    };

    let mut older = sim.clone();
    older.signed.get_mut("timestamp").unwrap()["version"] = json!(2);
    older.publish_as_is("timestamp");
    let mut set = start(&sim);
    set.load_timestamp(&timestamp).unwrap();
    let error = set.update_timestamp(older.newest("timestamp")).unwrap_err().to_string();
    assert!(
        error.starts_with("timestamp: version 2 is a rollback: version 3 is trusted already (TUF 5.4.3.1)"),
        "{error}"
    );

    let mut older = sim.clone();
    older.signed.get_mut("snapshot").unwrap()["version"] = json!(2);
    older.publish_as_is("snapshot");
    older.publish(&["timestamp"]);
    let error = returning(&older).unwrap_err().to_string();
    assert!(
        error.starts_with("snapshot: version 2 is a rollback: version 3 is trusted already (TUF 5.4.3.2)"),
        "{error}"
    );

    for role in ["targets", "a"] {
        let mut older = sim.clone();
        older.signed.get_mut(role).unwrap()["version"] = json!(1);
        older.publish_as_is(role);
        older.publish(&["snapshot", "timestamp"]);
        let error = returning(&older).unwrap_err().to_string();
        assert!(
            error.contains(role) && error.contains("a rollback: version") && error.contains("(TUF 5.5.5)"),
            "{error}"
        );
    }

    let mut removed = sim.clone();
    removed.signed.get_mut("snapshot").unwrap()["meta"].as_object_mut().unwrap().remove("a.json");
    removed.publish(&["snapshot", "timestamp"]);
    let error = returning(&removed).unwrap_err().to_string();
    assert_eq!(error, "snapshot: a.json is no longer listed (TUF 5.5.5)");
}

#[test]
fn rotated_online_keys_void_the_local_floor() {
    for role in ["timestamp", "snapshot"] {
        let mut sim = Simulator::new();
        let old = sim.newest("timestamp").to_vec();
        sim.add_key(role);
        sim.publish(&["root"]);
        let mut set = start(&sim);
        set.update_root(sim.root(2)).unwrap();
        assert!(!set.online_keys_rotated(), "a key more is no rotation");
        sim.rotate(role);
        sim.publish(&["root"]);
        // The key is back at the next version; the rotation has been noticed all the same.
        sim.publish(&["root"]);
        let mut set = start(&sim);
        for version in 2..=4 {
            set.update_root(sim.root(version)).unwrap();
        }
        assert!(set.online_keys_rotated());
        assert!(matches!(set.load_timestamp(&old), Err(Error::OutOfOrder(_))));
    }
}

#[test]
fn an_unchanged_timestamp_is_kept_and_still_must_not_be_expired() {
    let mut sim = Simulator::new();
    let trusted = sim.newest("timestamp").to_vec();
    let mut set = start(&sim);
    set.load_timestamp(&trusted).unwrap();
    // The same version with other content is not looked at.
    sim.signed.get_mut("timestamp").unwrap()["meta"]["snapshot.json"]["version"] = json!(7);
    sim.publish_as_is("timestamp");
    assert_eq!(set.update_timestamp(sim.newest("timestamp")), Ok(Freshness::Unchanged));
    assert_eq!(set.timestamp().unwrap().snapshot().version, 1);

    let mut late = TrustedSet::from_root(sim.root(1), epoch() + TimeDelta::days(29)).unwrap();
    let mut short = Simulator::new();
    short.set_expiry("timestamp", epoch() + TimeDelta::days(1));
    short.publish(&["timestamp"]);
    late.load_timestamp(short.newest("timestamp")).unwrap();
    assert!(late.timestamp_is_unchanged().unwrap_err().is_expired());
    assert!(late.update_timestamp(short.newest("timestamp")).unwrap_err().is_expired());
}

#[test]
fn time_is_at_least_the_signed_times_in_force() {
    let day = |n| epoch() + TimeDelta::days(n);
    let at = |text: DateTime<Utc>| json!(time::format(text));
    let mut sim = Simulator::new();
    sim.signed.get_mut("timestamp").unwrap()["x-tidegate-issued"] = at(day(10));
    sim.publish(&["timestamp"]);
    let mut set = TrustedSet::from_root(sim.root(1), day(-20_000)).unwrap();
    set.load_timestamp(sim.newest("timestamp")).unwrap();
    assert_eq!(set.now(), day(10), "a clock in the 1970s stands at the signed time");
    // What has expired by then is refused.
    let mut stale = sim.clone();
    stale.set_expiry("snapshot", day(9));
    stale.publish(&["snapshot", "timestamp"]);
    set.update_timestamp(stale.newest("timestamp")).unwrap();
    assert!(set.update_snapshot(stale.newest("snapshot")).unwrap_err().is_expired());

    // Online roles from the future have no effect once newer ones have replaced them.
    let mut future = sim.clone();
    for role in ["snapshot", "timestamp"] {
        future.signed.get_mut(role).unwrap()["x-tidegate-issued"] = at(day(25));
        future.publish(&[role]);
    }
    let mut set = start(&future);
    set.update_timestamp(future.newest("timestamp")).unwrap();
    set.update_snapshot(future.newest("snapshot")).unwrap();
    assert_eq!(set.now(), day(25));
    let mut honest = future.clone();
    for role in ["snapshot", "timestamp"] {
        honest.signed.get_mut(role).unwrap()["x-tidegate-issued"] = at(day(0));
        honest.set_expiry(role, day(1));
        honest.publish(&[role]);
    }
    let mut set = start(&future);
    set.load_timestamp(future.newest("timestamp")).unwrap();
    set.update_timestamp(honest.newest("timestamp")).unwrap();
    set.load_snapshot(future.newest("snapshot")).unwrap();
    set.update_snapshot(honest.newest("snapshot")).unwrap();
    assert_eq!(set.now(), day(0));

    // A stolen timestamp key cannot push a device's time past the root's expiry.
    let mut stolen = Simulator::new();
    stolen.signed.get_mut("timestamp").unwrap()["x-tidegate-issued"] = at(day(30_000));
    stolen.set_expiry("timestamp", day(30_001));
    stolen.publish(&["timestamp"]);
    let mut set = start(&stolen);
    set.update_timestamp(stolen.newest("timestamp")).unwrap();
    assert_eq!(set.now(), day(30) - TimeDelta::seconds(1));
    set.check_final_root().unwrap();
}

#[test]
fn unknown_fields_are_part_of_what_is_signed_and_ignored() {
    let mut sim = Simulator::new();
    for role in ["root", "timestamp", "snapshot", "targets"] {
        sim.signed.get_mut(role).unwrap()["x-unknown"] = json!({"a": [1, "b", null]});
    }
    let root = sim.signed.get_mut("root").unwrap();
    root["roles"]["targets"]["x-unknown"] = json!(1);
    root["keys"]["x"] = json!({"keytype": "future", "scheme": "future", "keyval": {"public": "?"}, "x": 1});
    sim.publish(&["root", "targets", "snapshot", "timestamp"]);
    refreshed(&sim);
}

/// tuftool and go-tuf write such times; a signed time is Tidegate's own, which has one form.
#[test]
fn expiry_may_have_a_fraction_and_an_offset() {
    let mut sim = Simulator::new();
    for role in ["targets", "snapshot", "timestamp"] {
        sim.signed.get_mut(role).unwrap()["expires"] = json!("2026-01-31T02:00:00.987654321+02:00");
    }
    sim.publish(&["targets", "snapshot", "timestamp"]);
    let set = refreshed(&sim);
    assert_eq!(set.targets(&top()).unwrap().common.expires, epoch() + TimeDelta::days(30));
    sim.signed.get_mut("timestamp").unwrap()["x-tidegate-issued"] = json!("2026-01-01T00:00:00.5Z");
    sim.publish(&["timestamp"]);
    let mut set = TrustedSet::from_root(sim.root(1), epoch()).unwrap();
    let error = set.update_timestamp(sim.newest("timestamp")).unwrap_err();
    assert!(error.to_string().contains("x-tidegate-issued"), "{error}");
}

#[test]
fn keys_of_unknown_schemes_are_named_and_do_not_spoil_others() {
    let mut sim = Simulator::new();
    let key = json!({"keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp384", "keyval": {"public": "PEM"}});
    let signed = sim.signed.get_mut("root").unwrap();
    signed["keys"]["0123456789"] = key;
    signed["roles"]["targets"]["keyids"].as_array_mut().unwrap().push(json!("0123456789"));
    sim.publish(&["root", "targets", "snapshot", "timestamp"]);
    let signature = json!({"keyid": "0123456789", "sig": "00"});
    let signed_twice = |sim: &Simulator| {
        let mut file: Value = serde_json::from_slice(sim.newest("targets")).unwrap();
        file["signatures"].as_array_mut().unwrap().push(signature.clone());
        serde_json::to_vec(&file).unwrap()
    };
    sim.hashes = false;
    sim.publish(&["targets", "snapshot", "timestamp"]);
    let ready = |sim: &Simulator| {
        let mut set = TrustedSet::from_root(sim.root(2), epoch()).unwrap();
        set.update_timestamp(sim.newest("timestamp")).unwrap();
        set.update_snapshot(sim.newest("snapshot")).unwrap();
        set
    };
    assert_eq!(ready(&sim).update_targets(&signed_twice(&sim)), Ok(()));
    sim.set_threshold("targets", "root", 2);
    sim.publish(&["root"]);
    let mut set = TrustedSet::from_root(sim.root(3), epoch()).unwrap();
    set.update_timestamp(sim.newest("timestamp")).unwrap();
    set.update_snapshot(sim.newest("snapshot")).unwrap();
    assert_eq!(
        set.update_targets(&signed_twice(&sim)).unwrap_err().to_string(),
        "targets: 1 of the 2 signatures that root requires are valid; not supported: key 01234567 of scheme \"ecdsa-sha2-nistp384\" (TUF 5.6.3)"
    );
}

/// A public key of 2048 bits.
const RSA: &str = "-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAt8Bbp/XUp5ZXzmHLq3pl\n\
LctaPjMdq/dvkqcli+/KaDUDJ9VHiAQpGDEMBPPBwQumhPIZvAtNBLCPBYFxvpx+\n\
g/bwPZidJhdOTBvy+sLFVP9k3XDRCLqnBo7wECZ57Nx/obddraw7Hp2OyHDMq61O\n\
OfLtNO+Ds9z5mUEtKLXhg8gieFaez4QQtlEfY31VzpYR+XxkjYJSVVJGi9+Fjvfm\n\
+7Y6RCE4JKFGxp9FCTWg+RZabUX343HuQ4EK0ehZSsdgZz7MX+gSUSa0MNYls/xT\n\
3kGBrKEJg5yC9NcRbim1cqIQqSjVIcsDIG58CGxvamIs0cl+SsU9fmZvlj2fc8Fx\n\
WQIDAQAB\n\
-----END PUBLIC KEY-----\n";

#[test]
fn an_rsa_key_is_named_where_this_build_lacks_it() {
    let mut sim = Simulator::new();
    let key = json!({"keytype": "rsa", "scheme": "rsassa-pss-sha256", "keyval": {"public": RSA}});
    let signed = sim.signed.get_mut("root").unwrap();
    signed["keys"]["0123456789"] = key;
    signed["roles"]["timestamp"] = json!({"keyids": ["0123456789"], "threshold": 1});
    sim.publish(&["root", "timestamp"]);
    let mut file: Value = serde_json::from_slice(sim.newest("timestamp")).unwrap();
    file["signatures"] = json!([{"keyid": "0123456789", "sig": "00"}]);
    let mut set = TrustedSet::from_root(sim.root(2), epoch()).unwrap();
    let error = set.update_timestamp(&serde_json::to_vec(&file).unwrap()).unwrap_err();
    let lacks = "; not supported: key 01234567 of scheme \"rsassa-pss-sha256\", which this build lacks (feature rsa)";
    // Where RSA is known, the signature is wrong and the key is not at fault.
    let lacks = if cfg!(feature = "rsa") { "" } else { lacks };
    let expected = format!("timestamp: 0 of the 1 signatures that root requires are valid{lacks} (TUF 5.4.2)");
    assert_eq!(error.to_string(), expected);
}

//! The attacks of the specification's section 1.5.2, by name, against a whole update: fetch, verify, store.
//!
//! Each is a way to bend a repository that a device has updated from before, for every role that it can be aimed at. After each
//! the device refuses with the right reason, has stored nothing that it should not trust, and updates again
//! once the repository is sound. What a server does below this level (endless answers, slowness, redirects) is tested
//! against real sockets beside `http.rs`; what a device makes of *targets* is tested in `device.rs`.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tidegate_client::clock::StubClock;
use tidegate_client::fetch::{FetchError, MemoryFetch, Refusal};
use tidegate_client::store::{MemoryStore, Store as _};
use tidegate_client::updater::{Repository, Updater};
use tidegate_client::{Error, Fault};
use tidegate_tuf::hash::Mismatch;
use tidegate_tuf::path::TargetPath;
use tidegate_tuf::{Limits, time};

use crate::simulator::{Simulator, TOP, epoch};

const URL: &str = "test://repository";

/// A device that updates from a simulated repository through whatever stands between them.
struct Rig {
    root: Vec<u8>,
    fetch: MemoryFetch,
    store: MemoryStore,
    clock: StubClock,
    limits: Limits,
}

impl Rig {
    /// A device shipped with the repository's first root, which has updated once.
    fn updated(sim: &Simulator) -> Self {
        let rig = Self {
            root: sim.root(1).to_vec(),
            fetch: MemoryFetch::new(),
            store: MemoryStore::new(),
            clock: StubClock::at(epoch()),
            limits: Limits::default(),
        };
        rig.serve(sim);
        rig.update().unwrap();
        rig
    }

    /// Serves this repository, and nothing that was served before.
    fn serve(&self, sim: &Simulator) {
        self.fetch.clear();
        for (path, bytes) in &sim.files {
            self.fetch.put(format!("{URL}/{path}"), bytes.clone());
        }
    }

    /// Refreshes and looks for a target of the delegated role, as a device does.
    fn update(&self) -> Result<(), Error> {
        let mut updater = Updater::new(
            self.root.clone(),
            Repository::at(URL).unwrap(),
            self.fetch.clone(),
            self.store.clone(),
            self.clock.clone(),
        )
        .with_limits(self.limits.clone());
        updater.refresh()?;
        updater.find(&TargetPath::new("a/file").unwrap())?;
        Ok(())
    }

    fn stored(&self) -> BTreeMap<String, Vec<u8>> {
        let names = self.store.names();
        names.into_iter().map(|name| (name.clone(), self.store.load(&name, 1 << 20).unwrap().unwrap())).collect()
    }

    fn stored_version(&self, role: &str) -> Option<u64> {
        let bytes = self.store.load(&format!("{role}.json"), 1 << 20).unwrap()?;
        serde_json::from_slice::<Value>(&bytes).unwrap()["signed"]["version"].as_u64()
    }
}

/// Top-level roles and a delegated one with a target, all at version 2, so that there is something to roll back to.
fn repository() -> Simulator {
    let mut sim = Simulator::new();
    sim.delegate("targets", "a", &["a/*"], true);
    sim.add_target("a", "a/file", b"good");
    all(&mut sim);
    // The top-level targets and its listers are at version 2 now; the delegated role follows.
    sim.publish(&["a"]);
    sim.publish_as_is("snapshot");
    sim.publish_as_is("timestamp");
    sim
}

struct Attack {
    /// The attack's name in section 1.5.2, and what it is aimed at.
    name: &'static str,
    /// Bends the repository, which has then moved on from what the device knows.
    bend: fn(&mut Simulator),
    /// What the device must say.
    says: &'static str,
    /// Roles whose stored version must be unchanged.
    untouched: &'static [&'static str],
}

/// What an attacker without keys, or with the keys named, can serve.
#[rustfmt::skip]
const ATTACKS: &[Attack] = &[
    // Arbitrary installation: metadata by keys that nobody declared.
    Attack { name: "arbitrary software: root", bend: |s| forge(s, "root"), says: "root: 0 of the 1 signatures that root requires are valid (TUF 5.3.4)", untouched: &["root", "timestamp", "snapshot", "targets", "a"] },
    Attack { name: "arbitrary software: timestamp", bend: |s| forge(s, "timestamp"), says: "timestamp: 0 of the 1 signatures", untouched: &["timestamp", "snapshot", "targets", "a"] },
    Attack { name: "arbitrary software: snapshot", bend: |s| forge(s, "snapshot"), says: "snapshot: 0 of the 1 signatures", untouched: &["snapshot", "targets", "a"] },
    Attack { name: "arbitrary software: targets", bend: |s| forge(s, "targets"), says: "targets: 0 of the 1 signatures", untouched: &["targets", "a"] },
    Attack { name: "arbitrary software: delegated", bend: |s| forge(s, "a"), says: "a: 0 of the 1 signatures that targets requires", untouched: &["a"] },
    Attack { name: "arbitrary software: unsigned", bend: |s| { s.signers.insert("timestamp".into(), Vec::new()); s.publish(&["timestamp"]); }, says: "timestamp: 0 of the 1 signatures", untouched: &["timestamp"] },
    Attack { name: "arbitrary software: one role's key for another", bend: |s| { let key = s.signers["timestamp"].clone(); s.signers.insert("targets".into(), key); all(s); }, says: "targets: 0 of the 1 signatures", untouched: &["targets", "a"] },
    // Rollback.
    Attack { name: "rollback: root", bend: |s| { s.publish(&["root"]); older(s, "root", 1); relocate(s, "root", 1, 2); }, says: "root: version 1 is a rollback: version 1 is trusted already (TUF 5.3.5)", untouched: &["root"] },
    Attack { name: "rollback: timestamp", bend: |s| { older(s, "timestamp", 1); }, says: "timestamp: version 1 is a rollback: version 2 is trusted already (TUF 5.4.3.1)", untouched: &["timestamp", "snapshot"] },
    Attack { name: "rollback: snapshot", bend: |s| { older(s, "snapshot", 1); s.publish(&["timestamp"]); }, says: "snapshot: version 1 is a rollback: version 2 is trusted already (TUF 5.4.3.2)", untouched: &["timestamp", "snapshot"] },
    Attack { name: "rollback: targets", bend: |s| { older(s, "targets", 1); s.publish(&["snapshot", "timestamp"]); }, says: "targets: version 1 is a rollback: version 2 is trusted already (TUF 5.5.5)", untouched: &["snapshot", "targets"] },
    Attack { name: "rollback: delegated", bend: |s| { older(s, "a", 1); s.publish(&["snapshot", "timestamp"]); }, says: "a: version 1 is a rollback: version 2 is trusted already (TUF 5.5.5)", untouched: &["snapshot", "a"] },
    Attack { name: "rollback: delegated role taken out of the snapshot", bend: |s| { unlist(s, "a"); s.publish(&["snapshot", "timestamp"]); }, says: "snapshot: a.json is no longer listed (TUF 5.5.5)", untouched: &["snapshot", "a"] },
    Attack { name: "rollback: an older file under the newest name", bend: |s| { all(s); let old = s.files["metadata/2.targets.json"].clone(); s.files.insert("metadata/3.targets.json".into(), old); }, says: "targets: not the listed file", untouched: &["targets"] },
    // Freeze: nothing new comes, until what is there has expired.
    Attack { name: "indefinite freeze: root", bend: |s| { s.set_expiry("root", epoch()); s.publish(&["root"]); }, says: "root: expired at 2026-01-01T00:00:00Z", untouched: &["timestamp", "snapshot", "targets", "a"] },
    Attack { name: "indefinite freeze: timestamp", bend: |s| { s.set_expiry("timestamp", epoch()); s.publish(&["timestamp"]); }, says: "timestamp: expired at 2026-01-01T00:00:00Z", untouched: &["timestamp", "snapshot", "targets", "a"] },
    Attack { name: "indefinite freeze: snapshot", bend: |s| { s.set_expiry("snapshot", epoch()); s.publish(&["snapshot", "timestamp"]); }, says: "snapshot: expired at 2026-01-01T00:00:00Z", untouched: &["snapshot", "targets", "a"] },
    Attack { name: "indefinite freeze: targets", bend: |s| { s.set_expiry("targets", epoch()); all(s); }, says: "targets: expired at 2026-01-01T00:00:00Z", untouched: &["targets", "a"] },
    Attack { name: "indefinite freeze: delegated", bend: |s| { s.set_expiry("a", epoch()); all(s); }, says: "a: expired at 2026-01-01T00:00:00Z", untouched: &["a"] },
    // Mix-and-match: files that never were together.
    Attack { name: "mix-and-match: another snapshot of the same version", bend: |s| { s.publish(&["snapshot", "timestamp"]); swap(s, "snapshot"); }, says: "snapshot: not the listed file", untouched: &["snapshot", "targets", "a"] },
    Attack { name: "mix-and-match: another targets of the same version", bend: |s| { all(s); swap(s, "targets"); }, says: "targets: not the listed file", untouched: &["targets", "a"] },
    Attack { name: "mix-and-match: another delegated role of the same version", bend: |s| { all(s); swap(s, "a"); }, says: "a: not the listed file", untouched: &["a"] },
    Attack { name: "mix-and-match: a newer snapshot than announced, no hashes", bend: |s| { s.hashes = false; s.publish(&["snapshot", "timestamp", "snapshot"]); relocate(s, "snapshot", 4, 3); }, says: "snapshot: expected version 3, received version 4 (TUF 5.5.4)", untouched: &["snapshot", "targets", "a"] },
    Attack { name: "mix-and-match: a newer targets than announced, no hashes", bend: |s| { s.hashes = false; all(s); s.publish(&["targets"]); relocate(s, "targets", 4, 3); }, says: "targets: expected version 3, received version 4 (TUF 5.6.4)", untouched: &["targets", "a"] },
    Attack { name: "mix-and-match: a newer delegated role than announced, no hashes", bend: |s| { s.hashes = false; all(s); s.publish(&["a"]); relocate(s, "a", 4, 3); }, says: "a: expected version 3, received version 4 (TUF 5.6.4)", untouched: &["a"] },
    Attack { name: "mix-and-match: one role's file as another's", bend: |s| { all(s); let a = s.files["metadata/3.a.json"].clone(); s.hashes = false; s.publish(&["targets", "snapshot", "timestamp"]); s.files.insert("metadata/4.targets.json".into(), a); }, says: "targets: 0 of the 1 signatures", untouched: &["targets", "a"] },
    // Endless data: longer than announced, or than is ever accepted where no length is announced.
    Attack { name: "endless data: root", bend: |s| bloat(s, "root", true), says: "longer than 512000 bytes", untouched: &["root", "timestamp"] },
    Attack { name: "endless data: timestamp", bend: |s| bloat(s, "timestamp", true), says: "longer than 16384 bytes", untouched: &["timestamp"] },
    Attack { name: "endless data: snapshot, no length announced", bend: |s| bloat(s, "snapshot", false), says: "longer than 1000000 bytes", untouched: &["snapshot", "targets"] },
    Attack { name: "endless data: snapshot, length announced", bend: |s| bloat(s, "snapshot", true), says: "longer than", untouched: &["snapshot", "targets"] },
    Attack { name: "endless data: targets, no length announced", bend: |s| bloat(s, "targets", false), says: "longer than 1000000 bytes", untouched: &["targets"] },
    Attack { name: "endless data: delegated, no length announced", bend: |s| bloat(s, "a", false), says: "longer than 1000000 bytes", untouched: &["a"] },
    Attack { name: "endless data: delegated, length announced", bend: |s| bloat(s, "a", true), says: "longer than", untouched: &["a"] },
    // Withholding: what was announced is not there.
    Attack { name: "withheld: timestamp", bend: |s| s.files.retain(|name, _| name != "metadata/timestamp.json"), says: "the repository has no timestamp", untouched: &["timestamp"] },
    Attack { name: "withheld: snapshot", bend: |s| { all(s); s.files.remove("metadata/3.snapshot.json"); }, says: "the repository has no snapshot", untouched: &["snapshot", "targets", "a"] },
    Attack { name: "withheld: targets", bend: |s| { all(s); s.files.remove("metadata/3.targets.json"); }, says: "the repository has no targets", untouched: &["targets", "a"] },
    Attack { name: "withheld: delegated", bend: |s| { all(s); s.files.remove("metadata/3.a.json"); }, says: "the repository has no a", untouched: &["a"] },
    // Key compromise below the threshold: one of two.
    Attack { name: "key compromise below threshold: root", bend: |s| one_of_two(s, "root", "root"), says: "root: 1 of the 2 signatures that root requires are valid (TUF 5.3.4)", untouched: &["timestamp"] },
    Attack { name: "key compromise below threshold: timestamp", bend: |s| one_of_two(s, "timestamp", "root"), says: "timestamp: 1 of the 2 signatures", untouched: &["timestamp", "snapshot"] },
    Attack { name: "key compromise below threshold: snapshot", bend: |s| one_of_two(s, "snapshot", "root"), says: "snapshot: 1 of the 2 signatures", untouched: &["snapshot"] },
    Attack { name: "key compromise below threshold: targets", bend: |s| one_of_two(s, "targets", "root"), says: "targets: 1 of the 2 signatures", untouched: &["targets"] },
    Attack { name: "key compromise below threshold: delegated", bend: |s| one_of_two(s, "a", "targets"), says: "a: 1 of the 2 signatures that targets requires", untouched: &["a"] },
    // A stolen key that was revoked.
    Attack { name: "key compromise: a revoked key signs on", bend: |s| { let old = s.signers["timestamp"].clone(); s.rotate("timestamp"); s.publish(&["root"]); s.signers.insert("timestamp".into(), old); s.publish(&["timestamp"]); }, says: "timestamp: 0 of the 1 signatures", untouched: &["targets", "a"] },
    // Wrong software and extraneous dependencies: a role speaks for paths that it was not given.
    Attack { name: "wrong software: a target outside the delegation", bend: |s| { s.delegate("targets", "b", &["b/*"], true); move_target(s, "b"); }, says: "a/file: no role that is trusted for it lists it", untouched: &[] },
    Attack { name: "wrong software: delegation no longer given", bend: |s| { s.declaration("a", "targets")["paths"] = json!(["other/*"]); all(s); }, says: "a/file: no role that is trusted for it lists it", untouched: &[] },
    Attack { name: "extraneous dependencies: a later delegation behind a terminating one", bend: |s| { s.delegate("targets", "z", &["*/*"], false); move_target(s, "z"); }, says: "a/file: no role that is trusted for it lists it", untouched: &[] },
];

#[test]
fn no_attack_is_trusted_and_the_device_recovers() {
    let mut failures = Vec::new();
    for attack in ATTACKS {
        let sound = repository();
        let rig = Rig::updated(&sound);
        let before: Vec<_> = attack.untouched.iter().map(|role| (role, rig.stored_version(role))).collect();

        let mut bent = sound.clone();
        (attack.bend)(&mut bent);
        rig.serve(&bent);
        match rig.update() {
            Ok(()) => failures.push(format!("{}: the device accepted it", attack.name)),
            Err(e) if !e.to_string().contains(attack.says) => failures.push(format!("{}: {e}", attack.name)),
            Err(e) if e.fault() != Fault::Peer => failures.push(format!("{}: {:?}'s fault", attack.name, e.fault())),
            Err(_) => {}
        }
        for (role, version) in before {
            let now = rig.stored_version(role);
            if now != version {
                failures.push(format!("{}: {role} is stored in version {now:?}, not {version:?}", attack.name));
            }
        }

        // The publisher goes on; from the attacker's root, if the attack came by way of a root that was properly signed.
        let root = rig.stored_version("root").unwrap();
        let mut next = if root == 1 { sound } else { recovered(bent.clone(), root) };
        for (file, listed) in bent.signed["snapshot"]["meta"].as_object().unwrap() {
            // What was listed once must stay listed.
            let meta = next.signed.get_mut("snapshot").unwrap()["meta"].as_object_mut().unwrap();
            meta.entry(file.clone()).or_insert_with(|| listed.clone());
        }
        for role in ["a", "targets", "snapshot", "timestamp"] {
            next.signed.get_mut(role).unwrap()["version"] = json!(bent.version(role).max(next.version(role)) + 5);
        }
        all(&mut next);
        rig.serve(&next);
        if let Err(e) = rig.update() {
            failures.push(format!("{}: afterwards a sound repository is refused: {e}", attack.name));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// The repository after its owners have taken back every role: new keys, sound expiries, and a root after `root` to say so.
fn recovered(mut sim: Simulator, root: u64) -> Simulator {
    for role in TOP {
        sim.rotate(role);
        sim.set_threshold(role, "root", 1);
        sim.set_expiry(role, epoch() + TimeDelta::days(30));
    }
    sim.delegate_anew("a");
    sim.set_expiry("a", epoch() + TimeDelta::days(30));
    sim.signers.insert("root".into(), sim.every_key());
    sim.signed.get_mut("root").unwrap()["version"] = json!(root);
    sim.publish(&["root"]);
    sim
}

fn all(sim: &mut Simulator) {
    sim.publish(&["a", "targets", "snapshot", "timestamp"]);
}

fn forge(sim: &mut Simulator, role: &str) {
    let stranger = sim.new_key();
    sim.signers.insert(role.into(), vec![stranger]);
    if role == "root" { sim.publish(&["root"]) } else { all(sim) }
}

/// Publishes a role under a lower version than the device has seen.
fn older(sim: &mut Simulator, role: &str, version: u64) {
    sim.signed.get_mut(role).unwrap()["version"] = json!(version);
    sim.publish_as_is(role);
}

/// Serves the file of one version under the name of another.
fn relocate(sim: &mut Simulator, role: &str, version: u64, to: u64) {
    let file = sim.files[&format!("metadata/{version}.{role}.json")].clone();
    sim.files.insert(format!("metadata/{to}.{role}.json"), file);
}

fn unlist(sim: &mut Simulator, role: &str) {
    sim.signed.get_mut("snapshot").unwrap()["meta"].as_object_mut().unwrap().remove(&format!("{role}.json"));
}

/// Replaces a published file by another one of the same version, also properly signed.
fn swap(sim: &mut Simulator, role: &str) {
    sim.set_expiry(role, epoch() + TimeDelta::days(29));
    let file = format!("metadata/{}.{role}.json", sim.version(role));
    sim.files.insert(file, sim.sign(role));
}

/// Makes the next version of a role's file longer than announced, or than anything that is accepted.
fn bloat(sim: &mut Simulator, role: &str, announced: bool) {
    sim.hashes = announced;
    if role == "root" {
        sim.publish(&["root"]);
    } else {
        all(sim);
    }
    let file = tidegate_tuf::path::metadata_file(role, (role != "timestamp").then(|| sim.version(role)));
    let bytes = sim.files.get_mut(&format!("metadata/{file}")).unwrap();
    bytes.resize(17_000_000, b' ');
}

/// Two keys must sign; the attacker has one.
fn one_of_two(sim: &mut Simulator, role: &str, delegator: &str) {
    sim.add_key_from(role, delegator);
    sim.set_threshold(role, delegator, 2);
    sim.publish(&["root"]);
    sim.signers.get_mut(role).unwrap().truncate(1);
    if role == "root" { sim.publish(&["root"]) } else { all(sim) }
}

/// Lists the target in another role than the one that may speak for it.
fn move_target(sim: &mut Simulator, to: &str) {
    sim.signed.get_mut("a").unwrap()["targets"] = json!({});
    sim.add_target(to, "a/file", b"evil");
    sim.publish(&["a", to, "targets", "snapshot", "timestamp"]);
}

#[test]
fn a_freeze_is_noticed_when_the_clock_says_so() {
    let mut sim = repository();
    for (role, days) in [("timestamp", 1), ("snapshot", 7), ("a", 14)] {
        sim.set_expiry(role, epoch() + TimeDelta::days(days));
    }
    all(&mut sim);
    let rig = Rig::updated(&sim);
    // The mirror goes on serving what it has.
    for (day, says) in [(0, None), (1, Some("timestamp: expired")), (40, Some("root: expired"))] {
        rig.clock.set(epoch() + TimeDelta::days(day));
        let verdict = rig.update().map_err(|e| e.to_string());
        match says {
            None => verdict.unwrap(),
            Some(says) => assert!(verdict.unwrap_err().contains(says), "day {day}"),
        }
    }
}

#[test]
fn rotating_keys_recovers_from_fast_forward() {
    for role in ["timestamp", "snapshot"] {
        let mut sim = repository();
        all(&mut sim);
        let rig = Rig::updated(&sim);
        // An attacker with the online keys runs up every version.
        let mut evil = sim.clone();
        for role in ["a", "targets", "snapshot", "timestamp"] {
            evil.signed.get_mut(role).unwrap()["version"] = json!(u64::MAX - 1);
        }
        evil.publish(&["a", "targets", "snapshot", "timestamp"]);
        rig.serve(&evil);
        rig.update().unwrap();
        rig.serve(&sim);
        assert!(rig.update().unwrap_err().to_string().contains("a rollback"), "the attacker's versions stand at first");
        // The publisher rotates the key and goes on from where it was.
        sim.rotate(role);
        sim.publish(&["root"]);
        all(&mut sim);
        rig.serve(&sim);
        rig.update().unwrap();
        assert_eq!(rig.stored_version("snapshot"), Some(sim.version("snapshot")), "{role}");
        assert_eq!(rig.stored_version("a"), Some(sim.version("a")), "{role}");
        rig.update().unwrap();
    }
}

#[test]
fn fast_forward_of_one_role_is_refused() {
    // An attacker with the delegated role's key alone cannot run up its version: the snapshot lists what it lists.
    let mut sim = repository();
    sim.hashes = false;
    all(&mut sim);
    let rig = Rig::updated(&sim);
    let mut evil = sim.clone();
    evil.publish(&["targets", "snapshot", "timestamp"]);
    evil.signed.get_mut("a").unwrap()["version"] = json!(u64::MAX);
    let file = evil.sign("a");
    evil.files.insert(format!("metadata/{}.a.json", sim.version("a")), file);
    rig.store.remove("a.json").unwrap();
    rig.serve(&evil);
    let error = rig.update().unwrap_err().to_string();
    assert!(error.contains("TUF 5.6.4"), "{error}");
}

#[test]
fn another_roles_fault_is_not_this_devices() {
    type Break = fn(&mut Simulator);
    let faults: &[(&str, Break)] = &[
        ("expired", |s| {
            s.set_expiry("b", epoch());
            s.publish(&["b"]);
        }),
        ("badly signed", |s| {
            let stranger = s.new_key();
            s.signers.insert("b".into(), vec![stranger]);
            s.publish(&["b"]);
        }),
        ("malformed", |s| {
            s.signed.get_mut("b").unwrap()["targets"] = json!([]);
            s.publish(&["b"]);
        }),
        ("missing", |s| {
            s.publish(&["b"]);
            s.files.retain(|path, _| !path.ends_with(".b.json"));
        }),
        ("oversized", |s| {
            s.publish(&["b"]);
            let file = format!("metadata/{}.b.json", s.version("b"));
            s.files.get_mut(&file).unwrap().resize(17_000_000, b' ');
        }),
        ("not listed in the snapshot yet", |s| {
            s.delegate("targets", "c", &["c/*"], true);
        }),
        ("of a future kind of key", |s| {
            s.declaration("b", "targets")["keyids"] = json!(["future"]);
            s.signed.get_mut("targets").unwrap()["delegations"]["keys"]["future"] =
                json!({"keytype": "ml-dsa", "scheme": "ml-dsa-65", "keyval": {"public": "?"}});
        }),
    ];
    for (name, fault) in faults {
        let mut sim = repository();
        sim.delegate("targets", "b", &["b/*"], true);
        sim.publish(&["b"]);
        all(&mut sim);
        let rig = Rig::updated(&sim);
        fault(&mut sim);
        sim.publish(&["targets", "snapshot", "timestamp"]);
        rig.serve(&sim);
        rig.fetch.take_requests();
        rig.update().unwrap_or_else(|e| panic!("{name}: {e}"));
        let asked = rig.fetch.take_requests();
        assert!(!asked.iter().any(|url| url.ends_with(".b.json")), "{name}: {asked:?}");
    }
}

#[test]
fn clocks_that_are_wrong_behave_as_documented() {
    let at = |text: &str| time::parse(text).unwrap();
    let issued = |sim: &mut Simulator, when: DateTime<Utc>| {
        for role in ["timestamp", "snapshot"] {
            sim.signed.get_mut(role).unwrap()["x-tidegate-issued"] = json!(time::format(when));
        }
    };
    let mut sim = repository();
    issued(&mut sim, epoch());
    all(&mut sim);
    let rig = Rig::updated(&sim);

    // In 1970, or anywhere behind: the device updates, and time stands at the newest signed time.
    rig.clock.set(at("1970-01-01T00:00:00Z"));
    issued(&mut sim, epoch() + TimeDelta::days(10));
    all(&mut sim);
    rig.serve(&sim);
    rig.update().unwrap();
    // What had expired by then is refused, although the clock is decades behind.
    let mut stale = sim.clone();
    stale.set_expiry("a", epoch() + TimeDelta::days(9));
    all(&mut stale);
    rig.serve(&stale);
    let error = rig.update().unwrap_err().to_string();
    assert!(error.contains("expired at 2026-01-10T00:00:00Z; the current time is 2026-01-11T00:00:00Z"), "{error}");

    // In 2099: all is refused, nothing is stored, and a corrected clock is all it takes.
    let before = rig.stored();
    stale.set_expiry("a", epoch() + TimeDelta::days(30));
    all(&mut stale);
    rig.serve(&stale);
    rig.clock.set(at("2099-01-01T00:00:00Z"));
    let error = rig.update().unwrap_err().to_string();
    assert!(
        error.contains("the current time is 2099-01-01T00:00:00Z") && error.contains("if the clock is right"),
        "{error}"
    );
    assert_eq!(rig.stored(), before);
    rig.clock.set(epoch() + TimeDelta::days(11));
    rig.update().unwrap();
}

/// Mirrors, gates and stores may be named by URLs with passwords and signatures, and a server may send a device to such a URL.
#[test]
fn no_error_repeats_a_secret_of_a_url() {
    let url = || "https://secret-user:secret-word@host:1/a/b?secret-token=1#secret-token".to_owned();
    let (reason, refusal) = ("why".to_owned(), Refusal::default());
    let errors = [
        FetchError::Unreachable { url: url(), reason: reason.clone() },
        FetchError::Interrupted { url: url(), reason: reason.clone() },
        FetchError::TooSlow { url: url(), least: 1, seconds: 1 },
        FetchError::Status { url: url(), status: 500, came: String::new(), retry_after: None },
        FetchError::Denied { url: url(), status: 403, refusal },
        FetchError::Evidence { url: url(), reason: reason.clone() },
        FetchError::TooLong { url: url(), limit: 1 },
        FetchError::Redirect { url: url(), status: 302, to: url(), rule: "no" },
        FetchError::Protocol { url: url(), reason: reason.clone() },
        FetchError::Secret { url: url(), reason: reason.clone() },
        FetchError::Authorities { url: url(), reason: reason.clone() },
        FetchError::Allowance { url: url(), bytes: 1, until: reason.clone() },
        FetchError::CertificateTime { url: url(), reason: reason.clone(), clock: String::new() },
        FetchError::Proxy { url: url(), proxy: String::new(), reason: String::new() },
        FetchError::BadUrl { url: url(), reason: "no" },
    ];
    let others = [
        Error::Missing { what: reason.clone(), url: url(), said: String::new() },
        Error::WrongTarget { path: reason, url: url(), mismatch: Mismatch::TooLong { listed: 1 } },
    ];
    for said in errors.into_iter().map(Error::Fetch).chain(others).map(|error| error.to_string()) {
        assert!(said.contains("https://host:1/a/b") && !said.contains("secret-"), "{said}");
    }
}

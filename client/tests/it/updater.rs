//! The client workflow with its I/O: what is asked for, what is stored, and what a stored state survives.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_client::clock::{Clock as _, StubClock};
use tidegate_client::disk::{Disk, Faults};
use tidegate_client::store::{DirStore, MemoryStore, Store, StoreError};
use tidegate_client::updater::Updater;
use tidegate_client::{Error, Fault};
use tidegate_tuf::TrustedSet;
use tidegate_tuf::path::TargetPath;

use crate::mirror::{Mirror, Trick, scratch};
use crate::simulator::{Simulator, epoch};

fn updater(mirror: &Mirror, store: impl Store + Send + 'static) -> Updater {
    let root = mirror.sim().root(1).to_vec();
    Updater::new(root, Mirror::repository(), mirror.clone(), store, StubClock::at(epoch()))
}

fn target(path: &str) -> TargetPath {
    TargetPath::new(path).unwrap()
}

/// A repository with a role `a` for `a/*`, which lists `a/file`.
fn delegating() -> Simulator {
    let mut sim = Simulator::new();
    sim.delegate("targets", "a", &["a/*"], true);
    sim.add_target("a", "a/file", b"content");
    sim.publish(&["a", "targets", "snapshot", "timestamp"]);
    sim
}

fn versions(folder: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let value: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let role = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (role, value["signed"]["version"].as_u64().unwrap())
        })
        .collect()
}

#[test]
fn an_unchanged_repository_costs_two_requests() {
    let mirror = Mirror::of(delegating());
    let store = MemoryStore::new();
    let mut first = updater(&mirror, store.clone());
    first.find(&target("a/file")).unwrap();
    assert_eq!(
        mirror.take_requests(),
        ["2.root", "timestamp", "2.snapshot", "2.targets", "1.a"].map(|name| format!("metadata/{name}.json"))
    );
    for _ in 0..2 {
        let mut again = updater(&mirror, store.clone());
        again.find(&target("a/file")).unwrap();
        assert!(again.repairs().is_empty());
        assert_eq!(
            mirror.take_transfers(),
            [("metadata/2.root.json".to_owned(), 0), ("metadata/timestamp.json".to_owned(), 0)]
        );
    }
    // Another role's file changed: the snapshot tells that ours did not.
    mirror.edit(|sim| {
        sim.delegate("targets", "b", &["b/*"], true);
        sim.publish(&["b", "snapshot", "timestamp"]);
    });
    updater(&mirror, store).find(&target("a/file")).unwrap();
    assert_eq!(mirror.take_requests().len(), 3);
}

#[test]
fn only_trusted_metadata_is_stored() {
    let mirror = Mirror::of(delegating());
    let store = MemoryStore::new();
    updater(&mirror, store.clone()).find(&target("a/file")).unwrap();
    let sim = mirror.sim();
    for role in ["root", "timestamp", "snapshot", "targets", "a"] {
        let stored = store.load(&format!("{role}.json"), u64::MAX).unwrap().unwrap();
        assert_eq!(stored, sim.newest(role), "{role}");
    }
    let names = store.names();
    mirror.edit(|sim| {
        sim.signers.get_mut("a").unwrap().clear();
        sim.publish(&["a", "snapshot", "timestamp"]);
    });
    let before = store.load("a.json", u64::MAX).unwrap();
    updater(&mirror, store.clone()).find(&target("a/file")).unwrap_err();
    assert_eq!(store.load("a.json", u64::MAX).unwrap(), before);
    assert_eq!(store.names(), names);
}

#[test]
fn overlong_role_names_are_not_stored() {
    let mut sim = Simulator::new();
    let name = "x".repeat(400);
    sim.delegate("targets", &name, &["a/*"], true);
    sim.add_target(&name, "a/file", b"content");
    sim.publish(&[&name, "targets", "snapshot", "timestamp"]);
    let mirror = Mirror::of(sim);
    let folder = scratch();
    for expected in [5, 3] {
        updater(&mirror, DirStore::open(folder.path()).unwrap()).find(&target("a/file")).unwrap();
        assert_eq!(mirror.take_requests().len(), expected);
    }
}

#[test]
fn odd_role_names_stay_in_their_folder() {
    for name in ["../a", "/a", "?", "#", "a b", "%2e%2e", ".", "..", "roots", "backup", "\u{e9}"] {
        let mut sim = Simulator::new();
        sim.delegate("targets", name, &["a/*"], true);
        sim.add_target(name, "a/file", b"content");
        sim.publish(&[name, "targets", "snapshot", "timestamp"]);
        let mirror = Mirror::of(sim);
        let folder = scratch();
        let state = folder.path().join("state");
        updater(&mirror, DirStore::open(&state).unwrap()).find(&target("a/file")).unwrap();
        assert_eq!(versions(&state).len(), 5, "{name}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{name}");
    }
}

/// Roots 1 to 4, with the timestamp key changed in 2 and the snapshot key in 3.
fn rotated() -> Simulator {
    let mut sim = delegating();
    sim.rotate("timestamp");
    sim.publish(&["root", "timestamp"]);
    sim.rotate("snapshot");
    sim.publish(&["root", "snapshot", "timestamp"]);
    sim.publish(&["root"]);
    sim
}

#[test]
fn the_chain_of_roots_is_followed_and_kept() {
    let mirror = Mirror::of(rotated());
    let folder = scratch();
    let run =
        || updater(&mirror, DirStore::open(folder.path()).unwrap()).refresh().map(|set| set.root().common.version);
    assert_eq!(run().unwrap(), 4);
    mirror.take_requests();
    assert_eq!(run().unwrap(), 4);
    assert_eq!(mirror.take_requests(), ["metadata/5.root.json", "metadata/timestamp.json"]);
}

#[test]
fn many_roots_take_several_updates() {
    let mut sim = Simulator::new();
    for _ in 0..6 {
        sim.publish(&["root"]);
    }
    let mirror = Mirror::of(sim);
    let store = MemoryStore::new();
    let limits = tidegate_tuf::Limits { root_rotations: 4, ..Default::default() };
    let mut few = updater(&mirror, store).with_limits(limits);
    assert!(matches!(few.refresh(), Err(Error::TooManyRoots { limit: 4, reached: 5 })));
    assert_eq!(few.refresh().unwrap().root().common.version, 7);
}

/// Fast-forward recovery (TUF 5.3.11) that is killed between any two steps still recovers.
#[test]
fn fast_forward_recovery_survives_kills() {
    let mut sim = delegating();
    sim.signed.get_mut("timestamp").unwrap()["version"] = serde_json::json!(1_000_000);
    sim.publish_as_is("timestamp");
    let before = Mirror::of(sim.clone());
    sim.rotate("timestamp");
    sim.publish(&["root"]);
    sim.signed.get_mut("timestamp").unwrap()["version"] = serde_json::json!(3);
    sim.publish_as_is("timestamp");
    let after = Mirror::of(sim);
    let run = |mirror: &Mirror, disk: Disk, folder: &Path| -> Result<u64, Error> {
        let mut updater = updater(mirror, DirStore::open_on(disk, folder)?);
        Ok(updater.refresh()?.timestamp().unwrap().common.version)
    };
    let folder = scratch();
    run(&before, Disk::new(), folder.path()).unwrap();
    let counted = Faults::none();
    assert_eq!(run(&after, Disk::with_faults(counted.clone()), folder.path()).unwrap(), 3);
    for n in 0..counted.steps() {
        let folder = scratch();
        run(&before, Disk::new(), folder.path()).unwrap();
        run(&after, Disk::with_faults(Faults::stop_at(n)), folder.path()).unwrap_err();
        assert_eq!(run(&after, Disk::new(), folder.path()).unwrap(), 3, "killed at {n}");
    }
}

type Plan = fn(usize) -> std::sync::Arc<Faults>;

/// Killed, or out of space, at every step of a first update and of a later one: the next run completes, and accepts
/// nothing older than what was accepted before.
#[test]
fn every_step_may_be_the_last() {
    let old = Mirror::of(delegating());
    let new = Mirror::of({
        let mut sim = rotated();
        sim.publish(&["a", "targets", "snapshot", "timestamp"]);
        sim
    });
    let run = |mirror: &Mirror, disk: Disk, folder: &Path| -> Result<(), Error> {
        let mut updater = updater(mirror, DirStore::open_on(disk, folder)?);
        updater.find(&target("a/file"))?;
        Ok(())
    };
    let folder = scratch();
    let counted = Faults::none();
    run(&old, Disk::with_faults(counted.clone()), folder.path()).unwrap();
    let first = counted.steps();
    let counted = Faults::none();
    run(&new, Disk::with_faults(counted.clone()), folder.path()).unwrap();
    let later = counted.steps();
    assert!(first > 30 && later > 60, "{first} {later}");
    let final_versions = versions(folder.path());

    let full: Plan = Faults::full_from;
    let eio: Plan = |n| Faults::fail_at(n, std::io::ErrorKind::Other);
    let mut faults = 0;
    for (name, plan) in [("stopped", Faults::stop_at as Plan), ("full", full), ("eio", eio)] {
        for n in 0..first {
            let folder = scratch();
            if let Err(e) = run(&old, Disk::with_faults(plan(n)), folder.path()) {
                assert_eq!(e.fault(), Fault::Device, "{name} at {n}: {e}");
                faults += 1;
            }
            run(&old, Disk::new(), folder.path()).unwrap_or_else(|e| panic!("{name} at {n}: {e}"));
        }
        for n in 0..later {
            let folder = scratch();
            run(&old, Disk::new(), folder.path()).unwrap();
            let failed = run(&new, Disk::with_faults(plan(n)), folder.path());
            if let Err(e) = &failed {
                assert_eq!(e.fault(), Fault::Device, "{name} at {n}: {e}");
                faults += 1;
            }
            for entry in ["root", "timestamp", "snapshot", "targets", "a"] {
                let stored = fs::read(folder.path().join(format!("{entry}.json")));
                assert!(stored.is_err() || serde_json::from_slice::<serde_json::Value>(&stored.unwrap()).is_ok());
            }
            run(&new, Disk::new(), folder.path()).unwrap_or_else(|e| panic!("{name} at {n}: {e}"));
            assert_eq!(versions(folder.path()), final_versions, "{name} at {n}");
            assert!(run(&old, Disk::new(), folder.path()).is_err(), "{name} at {n}: went back to the old repository");
        }
    }
    assert!(faults > 200, "{faults}");
}

/// One stored file is truncated, emptied, filled with rubbish, or replaced by what another role or an older version
/// says: the next run repairs it, and an older repository is refused as before.
#[test]
fn damaged_files_are_repaired() {
    let old = Mirror::of({
        let mut sim = delegating();
        // It signs as the new one does, so that only the stored versions tell them apart.
        sim.publish(&["root"]);
        sim
    });
    let new = Mirror::of({
        let mut sim = old.sim();
        sim.publish(&["root"]);
        sim.publish(&["a", "targets", "snapshot", "timestamp"]);
        sim
    });
    let run = |mirror: &Mirror, folder: &Path| updater(mirror, DirStore::open(folder).unwrap()).find(&target("a/file"));
    let names = [
        "root.json",
        "roots/2.root.json",
        "roots/3.root.json",
        "timestamp.json",
        "snapshot.json",
        "targets.json",
        "a.json",
        "backup/timestamp.json",
        "backup/snapshot.json",
        "timestamp.etag",
    ];
    let sound = scratch();
    run(&new, sound.path()).unwrap();
    let older = scratch();
    run(&old, older.path()).unwrap();
    for name in names {
        let good = fs::read(sound.path().join(name)).unwrap();
        let other = if name == "root.json" { "targets.json" } else { "root.json" };
        let damages = [
            Some(Vec::new()),
            Some(good[..good.len() / 2].to_vec()),
            Some(good[..good.len() - 1].to_vec()),
            Some(vec![0; good.len()]),
            Some(good.iter().rev().copied().collect()),
            Some(vec![b' '; 20_000_000]),
            Some(fs::read(sound.path().join(other)).unwrap()),
            fs::read(older.path().join(name)).ok(),
            None,
        ];
        for (index, damage) in damages.into_iter().enumerate() {
            let folder = scratch();
            run(&new, folder.path()).unwrap();
            let path = folder.path().join(name);
            match damage {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let refused = run(&old, folder.path());
            assert!(refused.is_err(), "{name}, damage {index}: an older repository was accepted");
            run(&new, folder.path()).unwrap_or_else(|e| panic!("{name}, damage {index}: {e}"));
            assert_eq!(versions(folder.path()), versions(sound.path()), "{name}, damage {index}");
            let mut again = updater(&new, DirStore::open(folder.path()).unwrap());
            again.find(&target("a/file")).unwrap();
            assert!(again.repairs().is_empty(), "{name}, damage {index}: {:?}", again.repairs());
        }
    }
}

#[test]
fn repairs_are_told() {
    let mirror = Mirror::of(delegating());
    let folder = scratch();
    updater(&mirror, DirStore::open(folder.path()).unwrap()).refresh().unwrap();
    fs::write(folder.path().join("timestamp.json"), b"").unwrap();
    let mut repairing = updater(&mirror, DirStore::open(folder.path()).unwrap());
    repairing.refresh().unwrap();
    assert_eq!(repairing.repairs().len(), 1);
    assert_eq!(repairing.repairs()[0].name, "timestamp.json");
}

/// Someone who can write to the state folder, but has no keys, can make the device stop, not trust.
#[test]
fn a_planted_root_is_not_trusted() {
    let mirror = Mirror::of(delegating());
    let mut planted = Simulator::new();
    for _ in 0..3 {
        planted.rotate("root");
        planted.publish(&["root"]);
    }
    let folder = scratch();
    fs::create_dir(folder.path().join("roots")).unwrap();
    fs::write(folder.path().join("root.json"), planted.root(4)).unwrap();
    for version in 2..=4 {
        fs::write(
            folder.path().join(format!("roots/{version}.root.json")),
            planted.sign_with("root", &planted.signers["timestamp"]),
        )
        .unwrap();
    }
    let mut updater = updater(&mirror, DirStore::open(folder.path()).unwrap());
    let error = updater.refresh().unwrap_err();
    assert!(matches!(error, Error::RootWithheld { known: 4, offered: 1 }), "{error}");
    assert!(error.hint().unwrap().contains("root.json"));
    fs::remove_file(folder.path().join("root.json")).unwrap();
    assert_eq!(updater.refresh().unwrap().root().common.version, 1);
}

#[test]
fn the_shipped_root_is_the_callers() {
    let mirror = Mirror::of(delegating());
    for bytes in [&b""[..], b"{}", mirror.sim().newest("targets")] {
        let clock = StubClock::at(epoch());
        let mut updater = Updater::new(bytes, Mirror::repository(), mirror.clone(), MemoryStore::new(), clock);
        let error = updater.refresh().unwrap_err();
        assert_eq!(error.fault(), Fault::Caller, "{error}");
    }
    assert!(mirror.take_requests().is_empty());
}

#[test]
fn two_processes_do_not_share_a_state_folder() {
    let folder = scratch();
    let _first = DirStore::open(folder.path()).unwrap();
    assert!(matches!(DirStore::open(folder.path()), Err(StoreError::Locked { .. })));
}

#[test]
fn a_failed_refresh_leaves_nothing_to_search_in() {
    let mirror = Mirror::of(delegating());
    let mut updater = updater(&mirror, MemoryStore::new());
    updater.refresh().unwrap();
    mirror.edit(|sim| sim.publish(&["timestamp"]));
    mirror.trick("metadata/timestamp.json", Trick::Cut(10));
    let error = updater.refresh().unwrap_err();
    assert_eq!(error.fault(), Fault::Network, "{error}");
    assert!(updater.trusted().is_none());
    mirror.behave();
    updater.find(&target("a/file")).unwrap();
}

/// Wrong clocks, as [`tidegate_client::clock`] documents them.
#[test]
fn clocks_that_are_wrong() {
    let issued = |sim: &mut Simulator, role: &str, at: DateTime<Utc>| {
        sim.signed.get_mut(role).unwrap()["x-tidegate-issued"] = serde_json::json!(tidegate_tuf::time::format(at));
    };
    let mut sim = delegating();
    issued(&mut sim, "timestamp", epoch());
    sim.set_expiry("timestamp", epoch() + TimeDelta::days(1));
    sim.publish(&["timestamp"]);
    let mirror = Mirror::of(sim);
    let store = MemoryStore::new();
    let run = |now: DateTime<Utc>| {
        let clock = StubClock::at(now);
        assert_eq!(clock.now(), now);
        Updater::new(mirror.sim().root(1), Mirror::repository(), mirror.clone(), store.clone(), clock)
            .refresh()
            .map(TrustedSet::now)
    };
    // In 1970 the time is that of the newest signature.
    assert_eq!(run(DateTime::UNIX_EPOCH).unwrap(), epoch());
    // In 2099 everything has expired; nothing is forgotten, so a corrected clock is all it takes.
    let error = run("2099-01-01T00:00:00Z".parse().unwrap()).unwrap_err();
    assert!(matches!(&error, Error::Metadata(e) if e.is_expired()), "{error}");
    assert!(error.hint().unwrap().contains("clock"));
    run(epoch()).unwrap();
    // The newest signed time of any top-level role counts, also for what has expired by then.
    mirror.edit(|sim| {
        issued(sim, "timestamp", epoch() + TimeDelta::days(2));
        sim.set_expiry("timestamp", epoch() + TimeDelta::days(3));
        sim.set_expiry("targets", epoch() + TimeDelta::days(1));
        sim.publish(&["targets", "snapshot", "timestamp"]);
    });
    let error = run(DateTime::UNIX_EPOCH).unwrap_err();
    assert!(matches!(&error, Error::Metadata(e) if e.is_expired()), "{error}");
}

#[test]
fn a_root_with_a_key_that_this_build_lacks_names_it() {
    let key = serde_json::json!({"keytype": "rsa", "scheme": "rsassa-pss-sha256", "keyval": {"public": "none"}});
    let mut sim = Simulator::new();
    let signed = sim.signed.get_mut("root").unwrap();
    signed["keys"]["0123456789"] = key;
    signed["roles"]["root"] = serde_json::json!({"keyids": ["0123456789"], "threshold": 1});
    let mut root: serde_json::Value = serde_json::from_slice(&sim.sign_with("root", &[])).unwrap();
    root["signatures"] = serde_json::json!([{"keyid": "0123456789", "sig": "00"}]);
    let mirror = Mirror::of(Simulator::new());
    let root = serde_json::to_vec(&root).unwrap();
    let mut updater = Updater::new(root, Mirror::repository(), mirror, MemoryStore::new(), StubClock::at(epoch()));
    let error = updater.refresh().unwrap_err();
    let lacks = if cfg!(feature = "rsa") { "" } else { ", which this build lacks (feature rsa)" };
    let named = format!("not supported: key 01234567 of scheme \"rsassa-pss-sha256\"{lacks} (TUF ");
    assert!(error.to_string().contains(&named), "{error}");
    assert_eq!((error.code(), error.fault()), ("shipped-root", Fault::Caller));
}

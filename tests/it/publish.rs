//! Publishing: order, atomicity, interruption, competition.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tidegate::Rule;

use crate::support::Forge;
use crate::support::faulty::{Fault, Faulty};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tidegate::Kind;
use tidegate::audit::{self, PublishedRepository};
use tidegate::error::Result;
use tidegate::publish::{
    self, ObjectState, Plan, PublishEvent, PublishReport, Remote, Source, UploadStage, WriteOutcome,
};

/// A workspace with a release, some of it too large for one request.
fn workspace() -> Forge {
    let mut forge = Forge::new(&["early", "late"]);
    forge.release("1.0.0", 1, &[("rootfs.img", &vec![1; (8 << 20) + 1]), ("boot.img", b"boot one")]);
    forge.assign("early", "1.0.0");
    forge
}

/// The same workspace some changes later.
fn changed(forge: &mut Forge) {
    forge.release("1.1.0", 2, &[("rootfs.img", &vec![2; (8 << 20) + 1]), ("boot.img", b"boot two")]);
    forge.assign("early", "1.1.0");
}

async fn plan(forge: &Forge, remote: &Remote) -> Result<Plan> {
    publish::plan(&Source::new(forge.dir()), remote, forge.now()).await
}

async fn publish(forge: &Forge, remote: &Remote) -> Result<PublishReport> {
    let plan = plan(forge, remote).await?;
    publish::execute(&plan, &Source::new(forge.dir()), remote, &|_| {}).await
}

fn folder(path: &Path) -> Remote {
    Remote::open(path.to_str().unwrap()).unwrap()
}

/// What a device could possibly notice is in order: all metadata and all targets verify. Gives back the timestamp's version, 0 if
/// nothing is published.
fn check(forge: &Forge, place: &Path) -> u64 {
    if !place.join("metadata/timestamp.json").exists() {
        return 0;
    }
    let origin = PublishedRepository::open(place.to_str().unwrap()).unwrap();
    let tree = audit::walk(&origin, &forge.root(), forge.now()).unwrap();
    assert_eq!(tree.faults, [], "a reader saw a broken repository");
    for listed in tree.listed() {
        let path = tidegate_tuf::path::TargetPath::new(listed.path).unwrap();
        let path = place.join("targets").join(path.file_path(&listed.file.hashes, true));
        let length = std::fs::metadata(&path).map(|metadata| metadata.len()).ok();
        assert_eq!(length, Some(listed.file.length), "a reader missed {}", path.display());
    }
    tree.timestamp.unwrap().version
}

/// The same with every byte of every target read, by two implementations.
async fn audit(forge: &Forge, place: &Path) {
    let origin = Arc::new(PublishedRepository::open(place.to_str().unwrap()).unwrap());
    let report = audit::verify(origin, "the repository", forge.root(), chrono::Utc::now()).await.unwrap();
    assert!(report.ok, "{report}");
}

/// The first publication creates everything, and the second has nothing to do.
#[tokio::test]
async fn second_publication_has_nothing_to_do() {
    let (mut forge, place) = (workspace(), tempfile::tempdir().unwrap());
    let remote = folder(&place.path().join("not/there/yet"));
    let first = plan(&forge, &remote).await.unwrap();
    assert_eq!(first.live, None);
    assert!(first.objects.iter().all(|object| object.state == ObjectState::New));
    assert!(first.objects.is_sorted_by_key(|object| object.stage));
    // Root, timestamp, snapshot, targets, stable, two cohorts; cohort map, manifest, list of offers, two artifacts.
    assert_eq!(first.totals().new, 12);
    assert!(!place.path().join("not").exists(), "a plan changes nothing");

    let report = publish(&forge, &remote).await.unwrap();
    assert_eq!((report.written, report.found), (12, 0));
    assert_eq!(report.bytes, first.totals().bytes);
    audit(&forge, &place.path().join("not/there/yet")).await;

    let again = plan(&forge, &remote).await.unwrap();
    assert!(again.is_done());
    assert_eq!((again.requests, again.totals().requests), (3, 0), "no listing, whatever the size of the repository");
    assert!(again.notices.is_empty());
    assert_eq!(publish(&forge, &remote).await.unwrap().written, 0);

    changed(&mut forge);
    let next = plan(&forge, &remote).await.unwrap();
    let new: Vec<&str> = next
        .objects
        .iter()
        .filter(|o| o.state == ObjectState::New && o.stage != UploadStage::Target)
        .map(|o| o.key.as_str())
        .collect();
    assert_eq!(new, ["metadata/3.stable.json", "metadata/3.stable.early.json", "metadata/5.snapshot.json"]);
    assert_eq!(
        next.objects.iter().filter(|o| o.state == ObjectState::New && o.stage == UploadStage::Target).count(),
        4
    );
    assert_eq!(next.objects.iter().filter(|o| o.state == ObjectState::Changed).count(), 1);
    let notices: Vec<String> = next.notices.iter().map(ToString::to_string).collect();
    assert_eq!(
        notices,
        [
            "stable: lists stable/releases/os/1.1.0/boot.img and 2 files",
            "stable.early: offers 1.1.0 (sequence 2), limited",
            "stable.early: no longer offers 1.0.0",
        ]
    );
    publish(&forge, &remote).await.unwrap();
    audit(&forge, &place.path().join("not/there/yet")).await;
}

/// Runs the second of two publications with a fault at its `at`-th request; false if it has fewer requests.
async fn with_fault_at(at: u64, fault: Fault, base: &Forge, changed: &Forge) -> bool {
    let place = tempfile::tempdir().unwrap();
    publish(base, &folder(place.path())).await.unwrap();
    let before = base.version("timestamp");
    let after = changed.version("timestamp");

    let reached = Arc::new(AtomicU64::new(0));
    let (counter, path, root) = (Arc::clone(&reached), place.path().to_owned(), changed.fork());
    let root = Mutex::new(root);
    // Dead from that request on: whatever comes later fails, too. A reader looks before every request.
    let script = Arc::new(move |number: u64, _: &str| {
        counter.fetch_max(number + 1, Ordering::SeqCst);
        let version = check(&root.lock().unwrap(), &path);
        assert!(version == before || version == after);
        match number {
            number if number < at => Fault::None,
            number if number == at => fault,
            _ => Fault::Before,
        }
    });
    let broken = folder(place.path()).wrapped(|store| Arc::new(Faulty::new(store, script)));
    let outcome = publish(changed, &broken).await;
    let version = check(changed, place.path());
    if reached.load(Ordering::SeqCst) <= at {
        outcome.unwrap();
        assert_eq!(version, after);
        return false;
    }
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), Kind::Io, "{error}");
    assert!(version == before || version == after);

    // The next run completes it, and sends nothing twice that has arrived.
    let report = publish(changed, &folder(place.path())).await.unwrap();
    assert_eq!(check(changed, place.path()), after, "{report:?}");
    audit(changed, place.path()).await;
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_request_nothing_breaks_and_the_next_run_completes() {
    let base = workspace();
    let mut later = base.fork();
    changed(&mut later);
    let mut faults = 0;
    for fault in [Fault::Before, Fault::After] {
        let mut at = 0;
        while with_fault_at(at, fault, &base, &later).await {
            at += 1;
        }
        faults += at;
    }
    assert!(faults >= 30, "only {faults} requests were made to fail");
    println!("{faults} faults, none seen by a reader");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_a_whole_repository_at_every_instant_of_many_publications() {
    let place = tempfile::tempdir().unwrap();
    let mut forge = Forge::new(&["early", "late"]);
    forge.release("1.0.0", 1, &[("os.img", b"one")]);
    publish(&forge, &folder(place.path())).await.unwrap();
    let (stop, path, root) = (Arc::new(AtomicU64::new(0)), place.path().to_owned(), forge.root());
    let stopped = Arc::clone(&stop);
    let reader = std::thread::spawn(move || {
        let (mut rounds, mut newest) = (0_u64, 0);
        while stopped.load(Ordering::SeqCst) == 0 {
            let origin = PublishedRepository::open(path.to_str().unwrap()).unwrap();
            let tree = audit::walk(&origin, &root, chrono::Utc::now()).unwrap();
            assert_eq!(tree.faults, []);
            let version = tree.timestamp.as_ref().unwrap().version;
            assert!(version >= newest);
            newest = version;
            rounds += 1;
        }
        (rounds, newest)
    });
    for sequence in 2..=40 {
        let version = format!("1.0.{sequence}");
        forge.release(&version, sequence, &[("os.img", version.as_bytes())]);
        forge.assign(["early", "late"][usize::try_from(sequence % 2).unwrap()], &version);
        publish(&forge, &folder(place.path())).await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    stop.store(1, Ordering::SeqCst);
    let (rounds, newest) = reader.join().unwrap();
    assert_eq!(newest, forge.version("timestamp"));
    assert!(rounds > 10, "only {rounds} looks");
    audit(&forge, place.path()).await;
}

#[tokio::test]
async fn of_two_publishers_one_wins_and_the_other_is_told() {
    const ROUNDS: usize = 20;
    let base = Forge::with_cohorts(2 * ROUNDS);
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let remote = || Remote::conditional(Arc::clone(&memory), "bucket/prefix", "memory");
    publish(&base, &remote()).await.unwrap();
    let (mut one, mut two) = (base.fork(), base.fork());
    for round in 0..ROUNDS {
        one.renew(&[&format!("stable.c{:04}", 2 * round)]);
        two.renew(&[&format!("stable.c{:04}", 2 * round + 1)]);
        let (a, b) = (plan(&one, &remote()).await.unwrap(), plan(&two, &remote()).await.unwrap());
        let (source_a, source_b) = (Source::new(one.dir()), Source::new(two.dir()));
        let (here, there) = (remote(), remote());
        let (a, b) = tokio::join!(
            publish::execute(&a, &source_a, &here, &|_| {}),
            publish::execute(&b, &source_b, &there, &|_| {})
        );
        let (winner, loser, error) = match (&a, &b) {
            (Ok(_), Err(error)) => (&one, &two, error),
            (Err(error), Ok(_)) => (&two, &one, error),
            other => panic!("round {round}: {other:?}"),
        };
        assert_eq!(error.kind(), Kind::Conflict, "{error}");
        assert!(error.remedy_text().unwrap().contains("tidegate pull"), "{error}");
        // The loser is told again, before it sends anything, until it has taken over what is live.
        assert_eq!(plan(loser, &remote()).await.unwrap_err().kind(), Kind::Conflict);
        (one, two) = (winner.fork(), winner.fork());
    }
    assert!(plan(&one, &remote()).await.unwrap().is_done());
}

/// A publication that loses to a renewal of the timestamp is completed with a new timestamp.
#[tokio::test]
async fn publication_survives_timestamp_renewal() {
    let mut base = workspace();
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let remote = || Remote::conditional(Arc::clone(&memory), "", "memory");
    publish(&base, &remote()).await.unwrap();
    let mut refresher = base.fork();
    base.assign("late", "1.0.0");
    let prepared = plan(&base, &remote()).await.unwrap();

    // The refresher comes in between, as late as it can: at the write of the timestamp.
    refresher.renew(&["timestamp"]);
    let (store, renewed) = (Arc::clone(&memory), refresher.dir().join("metadata/timestamp.json"));
    let script = move |_: u64, what: &str| {
        if what == "put metadata/timestamp.json" {
            let bytes = std::fs::read(&renewed).unwrap();
            futures::executor::block_on(store.put(&"metadata/timestamp.json".into(), bytes.into())).unwrap();
        }
        Fault::None
    };
    let late = remote().wrapped(|store| Arc::new(Faulty::new(store, Arc::new(script))));
    let error = publish::execute(&prepared, &Source::new(base.dir()), &late, &|_| {}).await.unwrap_err();
    assert!(error.to_string().contains("someone else published in the meantime"), "{error}");

    // A new timestamp over the same snapshot finishes it; all the rest is there.
    base.renew(&["timestamp"]);
    let report = publish(&base, &remote()).await.unwrap();
    assert_eq!((report.written, report.found), (1, 3), "{report:?}");

    // And one that was given up blocks nobody for good: signing anew takes the next version.
    let (mut given_up, mut other) = (base.fork(), base.fork());
    given_up.renew(&["stable.late"]);
    let script =
        |_: u64, what: &str| if what.starts_with("put metadata/timestamp") { Fault::Before } else { Fault::None };
    let dead = remote().wrapped(|store| Arc::new(Faulty::new(store, Arc::new(script))));
    assert_eq!(publish(&given_up, &dead).await.unwrap_err().kind(), Kind::Io);
    other.renew(&["timestamp"]);
    other.renew(&["stable.late"]);
    let error = publish(&other, &remote()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert!(error.remedy_text().unwrap().contains("if it was given up"), "{error}");
    other.renew(&["stable.late"]);
    publish(&other, &remote()).await.unwrap();
}

#[tokio::test]
async fn a_workspace_that_did_not_grow_out_of_what_is_live_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let (mut forge, remote) = (workspace(), folder(place.path()));
    publish(&forge, &remote).await.unwrap();
    let mut other = forge.fork();
    let old = forge.fork();
    changed(&mut forge);
    publish(&forge, &remote).await.unwrap();

    let error = plan(&old, &remote).await.unwrap_err();
    assert!(error.to_string().contains("is at timestamp 5, and this workspace at 3"), "{error}");
    assert_eq!(error.kind(), Kind::Conflict);

    other.renew(&["stable"]);
    other.renew(&["stable"]);
    let error = plan(&other, &remote).await.unwrap_err();
    assert!(error.to_string().contains("has another timestamp 5 than this workspace"), "{error}");

    other.renew(&["stable"]);
    let error = plan(&other, &remote).await.unwrap_err();
    assert!(error.to_string().contains("is at snapshot 5, which this workspace has never had"), "{error}");
    let live = check(&forge, place.path());
    assert_eq!(live, 5, "and nothing was touched");

    // A root that only the other has: its keys may be others.
    let mut rotated = forge.fork();
    rotated.renew(&["root"]);
    publish(&rotated, &remote).await.unwrap();
    forge.renew(&["stable"]);
    forge.renew(&["stable"]);
    let error = plan(&forge, &remote).await.unwrap_err();
    assert!(error.to_string().contains("2.root.json"), "{error}");
    assert_eq!(error.kind(), Kind::Conflict);

    std::fs::write(place.path().join("metadata/timestamp.json"), "hello").unwrap();
    let error = plan(&forge, &remote).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Trust, "{error}");
}

#[tokio::test]
async fn an_immutable_object_with_other_content_is_never_replaced() {
    for (key, problem) in [
        ("metadata/1.stable.json", "another publication has used that version"),
        ("targets/stable/releases/os/1.0.0/SHA.boot.img", "its content does not have the hash in its name"),
        ("targets/stable/releases/os/1.0.0/SHA.rootfs.img", "its content does not have the hash in its name"),
    ] {
        let (place, forge) = (tempfile::tempdir().unwrap(), Forge::new(&["early"]));
        let mut forge = forge;
        if key.starts_with("targets") {
            forge = workspace();
        }
        let remote = folder(place.path());
        let plan = plan(&forge, &remote).await.unwrap();
        let (dir, file) = key.rsplit_once('/').unwrap();
        let file = file.replace("SHA.", "");
        let object = plan.objects.iter().find(|o| o.key.starts_with(dir) && o.key.ends_with(&file)).unwrap();
        let path = place.path().join(&object.key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // The same length, so that only the content tells.
        std::fs::write(&path, vec![0; usize::try_from(object.length).unwrap()]).unwrap();
        let error = publish::execute(&plan, &Source::new(forge.dir()), &remote, &|_| {}).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.to_string().contains(problem), "{error}");
        assert!(std::fs::read(&path).unwrap().iter().all(|byte| *byte == 0));
        assert!(!place.path().join("metadata/timestamp.json").exists());
    }
}

#[tokio::test]
async fn what_an_interrupted_publication_left_is_found_and_not_sent_again() {
    let (place, forge) = (tempfile::tempdir().unwrap(), workspace());
    let script = Arc::new(|_: u64, what: &str| if what.contains("timestamp") { Fault::Before } else { Fault::None });
    let broken = folder(place.path()).wrapped(|store| Arc::new(Faulty::new(store, script)));
    // The timestamp cannot even be read: nothing is begun.
    assert_eq!(publish(&forge, &broken).await.unwrap_err().kind(), Kind::Io);
    assert!(!place.path().join("metadata").exists());
    let script =
        Arc::new(
            |_: u64, what: &str| {
                if what.starts_with("put") && what.contains("timestamp") { Fault::Before } else { Fault::None }
            },
        );
    let broken = folder(place.path()).wrapped(|store| Arc::new(Faulty::new(store, script)));
    publish(&forge, &broken).await.unwrap_err();
    // A leftover of a process that died while it wrote: neither served nor in the way.
    std::fs::write(place.path().join("metadata/timestamp.json#1"), "half").unwrap();

    let remote = folder(place.path());
    let plan = plan(&forge, &remote).await.unwrap();
    let outcomes = Mutex::new(Vec::new());
    let sent = AtomicU64::new(0);
    let report = publish::execute(&plan, &Source::new(forge.dir()), &remote, &|event| match event {
        PublishEvent::Sent(bytes) => {
            sent.fetch_add(bytes, Ordering::SeqCst);
        }
        PublishEvent::Done(object, outcome) => outcomes.lock().unwrap().push((object.key.clone(), outcome)),
    })
    .await
    .unwrap();
    assert_eq!((report.written, report.found), (1, 11));
    assert_eq!(sent.into_inner(), plan.totals().bytes, "progress counts what needs no sending, too");
    let outcomes = outcomes.into_inner().unwrap();
    assert_eq!(outcomes.last().unwrap(), &("metadata/timestamp.json".to_owned(), WriteOutcome::Written));
    assert!(!place.path().join("metadata/timestamp.json#1").exists());
    audit(&forge, place.path()).await;
}

#[tokio::test]
async fn two_processes_on_one_folder_take_turns() {
    let (place, forge) = (tempfile::tempdir().unwrap(), workspace());
    let remote = folder(place.path());
    let guard = remote.lock().unwrap();
    let error = publish(&forge, &folder(place.path())).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert!(plan(&forge, &folder(place.path())).await.is_ok(), "looking is always allowed");
    drop(guard);
    publish(&forge, &remote).await.unwrap();
}

#[tokio::test]
async fn example_keys_stay_on_this_machine() {
    let (place, forge) = (tempfile::tempdir().unwrap(), Forge::with_example_keys(&["early"]));
    publish(&forge, &folder(place.path())).await.unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let error = plan(&forge, &Remote::conditional(store, "", "elsewhere")).await.unwrap_err();
    assert_eq!((error.kind(), error.broken_rule()), (Kind::Refused, Some(Rule::PublishExampleKey)));
}

#[tokio::test]
async fn objects_carry_the_headers_that_caches_need() {
    use object_store::Attribute;
    let (memory, forge) = (Arc::new(InMemory::new()), workspace());
    publish(&forge, &Remote::conditional(memory.clone(), "p", "memory")).await.unwrap();
    for (key, cache_control, content_type) in [
        ("p/metadata/timestamp.json", "public, max-age=60", "application/json"),
        ("p/metadata/1.root.json", "public, max-age=31536000, immutable", "application/json"),
    ] {
        let object = memory.get(&key.into()).await.unwrap();
        assert_eq!(object.attributes.get(&Attribute::CacheControl).unwrap().as_ref(), cache_control, "{key}");
        assert_eq!(object.attributes.get(&Attribute::ContentType).unwrap().as_ref(), content_type, "{key}");
    }
}

#[tokio::test]
async fn what_devices_would_refuse_is_not_published() {
    let (place, forge) = (tempfile::tempdir().unwrap(), workspace());
    let late = forge.now() + chrono::TimeDelta::days(2);
    let source = Source::new(forge.dir());
    let error = publish::plan(&source, &folder(place.path()), late).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Trust);
    assert!(error.to_string().starts_with("devices would refuse this workspace: timestamp: "), "{error}");

    let manifest = forge.manifest("1.0.0");
    let digest = tidegate_model::digest::Digest::of(&manifest);
    for damage in [b"damaged".to_vec(), vec![0; manifest.len()]] {
        std::fs::write(forge.artifact(&digest.to_string()), damage).unwrap();
        let error = publish(&forge, &folder(place.path())).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Input, "{error}");
        assert!(error.to_string().contains("is damaged"), "{error}");
    }
    std::fs::remove_file(forge.artifact(&digest.to_string())).unwrap();
    let error = publish(&forge, &folder(place.path())).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(!place.path().join("metadata/timestamp.json").exists());

    let nowhere = tempfile::tempdir().unwrap();
    let error = publish::plan(&Source::new(nowhere.path()), &folder(place.path()), late).await.unwrap_err();
    assert!(error.remedy_text().unwrap().contains("tidegate init"), "{error}");
}

/// On a file system of its own that is too small, which takes root to mount.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_leaves_what_is_live_untouched() {
    let mount = tempfile::tempdir().unwrap();
    let run = |program: &str, args: &[&str]| {
        std::process::Command::new(program).args(args).status().is_ok_and(|status| status.success())
    };
    let path = mount.path().to_str().unwrap();
    if !run("mount", &["-t", "tmpfs", "-o", "size=14m", "tmpfs", path]) {
        crate::support::skip("cannot mount a small file system: not root, or not allowed to");
        return;
    }
    let (mut forge, remote) = (workspace(), folder(mount.path()));
    publish(&forge, &remote).await.unwrap();
    changed(&mut forge);
    let outcome = publish(&forge, &remote).await;
    let live = check(&forge, mount.path());
    let leftovers: Vec<_> = std::fs::read_dir(mount.path().join("targets/stable/releases/os/1.1.0"))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert!(run("mount", &["-o", "remount,size=64m", path]));
    let after = publish(&forge, &remote).await;
    let version = check(&forge, mount.path());
    assert!(run("umount", &["--lazy", path]));

    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), Kind::Io, "{error}");
    assert!(error.remedy_text().unwrap().contains("free some space"), "{error:?}");
    assert_eq!(live, 3);
    assert!(leftovers.iter().all(|entry| !entry.file_name().to_str().unwrap().contains("rootfs")), "{leftovers:?}");
    after.unwrap();
    assert_eq!(version, 5);
}

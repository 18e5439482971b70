//! Several publishers, several places: races, taking over, leftovers, pruning while others publish, mirrors, copies.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use chrono::{TimeDelta, Utc};
use futures::StreamExt as _;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tidegate::Kind;
use tidegate::error::Result;
use tidegate::keys::{KeyRing, NoPassphrases};
use tidegate::publish::{
    self, BEHIND, CONFLICT, LEFTOVER, Overcome, Plan, RACE, Remote, Report, SWEEP, Source, Taken, Taking,
};
use tidegate::verify::{self, Repository};
use tidegate::workspace::Workspace;

use crate::support::faulty::{Fault, Faulty};
use crate::support::s3::{BUCKET, S3};
use crate::support::{Forge, Serving};

fn workspace(cohorts: usize) -> Forge {
    let mut forge = Forge::with_cohorts(cohorts).with_settings();
    forge.release("1.0.0", 1, &[("os.img", b"one")]);
    forge
}

async fn plan(forge: &Forge, remote: &Remote) -> Result<Plan> {
    publish::plan(&Source::new(forge.dir()), remote, forge.now()).await
}

async fn publish(forge: &Forge, remote: &Remote) -> Result<Report> {
    let plan = plan(forge, remote).await?;
    publish::execute(&plan, &Source::new(forge.dir()), remote, &|_| {}).await
}

/// Publishes and notes what was published, as the command does.
async fn publish_noting(forge: &Forge, remote: &Remote) -> Result<Report> {
    let plan = plan(forge, remote).await?;
    let report = publish::execute(&plan, &Source::new(forge.dir()), remote, &|_| {}).await?;
    note(forge, &plan);
    Ok(report)
}

fn note(forge: &Forge, plan: &Plan) {
    let mut changes = tidegate::files::Changes::default();
    publish::Published::after(plan).put(&mut changes).unwrap();
    changes.commit(forge.dir()).unwrap();
}

fn open(forge: &Forge) -> (Workspace, tidegate::config::Settings, KeyRing) {
    let workspace = Workspace::open(forge.dir()).unwrap();
    let settings = workspace.settings().unwrap();
    let ring = workspace.ring(&settings, Box::new(NoPassphrases)).unwrap();
    (workspace, settings, ring)
}

fn taking(forge: &Forge) -> Taking<'static> {
    Taking { actor: "test", now: forge.now(), artifacts: false, patience: TimeDelta::zero() }
}

async fn pull(forge: &mut Forge, remote: &Remote) -> Result<Taken> {
    forge.later();
    let (workspace, settings, mut ring) = open(forge);
    publish::take_over(&workspace, &settings, remote, &mut ring, &taking(forge)).await
}

/// Publishes, and overcomes what stands in the way, once.
async fn rebase(forge: &mut Forge, remote: &Remote) -> Result<Overcome> {
    let source = Source::new(forge.dir());
    let (error, planned) = match plan(forge, remote).await {
        Ok(planned) => (publish::execute(&planned, &source, remote, &|_| {}).await.unwrap_err(), Some(planned)),
        Err(error) => (error, None),
    };
    forge.later();
    let (workspace, settings, mut ring) = open(forge);
    publish::overcome(error, planned.as_ref(), &workspace, &settings, remote, &mut ring, &taking(forge)).await
}

async fn audit(forge: &Forge, remote: &Remote) {
    let origin = Arc::new(publish::StoreOrigin::new(remote.clone()));
    let report = verify::verify(origin, "the place", forge.root(), Utc::now()).await.unwrap();
    assert!(report.ok, "{report}");
}

fn tidegate(forge: &Forge, s3: Option<&S3>, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("-C").arg(forge.dir()).args(["--now", &tidegate_client::tuf::time::format(forge.now())]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("NO_COLOR", "1");
    if let Some(s3) = s3 {
        command.envs(s3.variables());
    }
    command
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_one_wins_each_of_many_rounds_and_the_other_pulls_and_follows() {
    const ROUNDS: usize = 12;
    let Some(s3) = S3::moto() else { return };
    let remote = s3.remote("race").danger_assume_conditional();
    let mut one = workspace(2 * ROUNDS);
    publish_noting(&one, &remote).await.unwrap();
    let mut two = one.fork();
    for round in 0..ROUNDS {
        one.not_before(&two);
        two.not_before(&one);
        one.renew(&[&format!("stable.c{:04}", 2 * round)]);
        two.renew(&[&format!("stable.c{:04}", 2 * round + 1)]);
        let (a, b) = (plan(&one, &remote).await.unwrap(), plan(&two, &remote).await.unwrap());
        let (source_a, source_b) = (Source::new(one.dir()), Source::new(two.dir()));
        let (here, there) = (remote.clone(), remote.clone());
        let (x, y) = tokio::join!(
            publish::execute(&a, &source_a, &here, &|_| {}),
            publish::execute(&b, &source_b, &there, &|_| {})
        );
        let (winner, loser, won, error) = match (x, y) {
            (Ok(_), Err(error)) => (&mut one, &mut two, &a, error),
            (Err(error), Ok(_)) => (&mut two, &mut one, &b, error),
            other => panic!("round {round}: {other:?}"),
        };
        note(winner, won);
        assert_eq!(error.kind(), Kind::Conflict, "{error}");
        assert!([Some(RACE), Some(LEFTOVER)].contains(&error.rule_id()), "{error}");
        let remedy = error.remedy_text().unwrap();
        assert!(remedy.contains("tidegate pull") || remedy.contains("--rebase"), "{remedy}");
        // The loser takes over what won, keeps its own change, and publishes that on top.
        let taken = pull(loser, &remote).await.unwrap();
        assert_eq!((taken.theirs.len(), taken.ours.len()), (1, 1), "{taken:?}");
        publish_noting(loser, &remote).await.unwrap();
        let taken = pull(winner, &remote).await.unwrap();
        assert_eq!((taken.theirs.len(), taken.ours.len()), (1, 0), "{taken:?}");
    }
    audit(&one, &remote).await;
    assert!(plan(&one, &remote).await.unwrap().is_done() && plan(&two, &remote).await.unwrap().is_done());
    // Every round left its mark: nothing of anybody was lost.
    for cohort in 0..2 * ROUNDS {
        assert_eq!(one.version(&format!("stable.c{cohort:04}")), 2, "c{cohort:04}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_rebase_both_of_two_programs_at_once_get_through() {
    const ROUNDS: usize = 5;
    let Some(s3) = S3::moto() else { return };
    let place = format!("s3://{BUCKET}/rebase");
    let mut one = workspace(2 * ROUNDS);
    let first = tidegate(&one, Some(&s3), &["publish", &place]).output().unwrap();
    assert!(first.status.success(), "{}", said(&first));
    assert!(said(&first).contains("is sound"), "{}", said(&first));
    let mut two = one.fork();
    let mut rebased = 0;
    for round in 0..ROUNDS {
        one.not_before(&two);
        two.not_before(&one);
        one.renew(&[&format!("stable.c{:04}", 2 * round)]);
        two.renew(&[&format!("stable.c{:04}", 2 * round + 1)]);
        let start = |forge: &Forge| tidegate(forge, Some(&s3), &["publish", "--rebase", &place]).spawn().unwrap();
        let (a, b) = (start(&one), start(&two));
        for out in [a.wait_with_output().unwrap(), b.wait_with_output().unwrap()] {
            assert!(out.status.success(), "round {round}: {}", said(&out));
            rebased += usize::from(said(&out).contains("took over"));
        }
        for forge in [&one, &two] {
            let out = tidegate(forge, Some(&s3), &["pull", &place]).output().unwrap();
            assert!(out.status.success(), "{}", said(&out));
        }
    }
    let remote = s3.remote("rebase").danger_assume_conditional();
    audit(&one, &remote).await;
    for cohort in 0..2 * ROUNDS {
        assert_eq!(one.version(&format!("stable.c{cohort:04}")), 2, "c{cohort:04}");
    }
    assert!(rebased > 0, "nobody was ever slower: this tested nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_both_have_changed_is_left_to_people() {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let remote = Remote::conditional(memory, "", "memory");
    let mut one = workspace(2);
    publish_noting(&one, &remote).await.unwrap();
    let mut two = one.fork();
    one.assign("c0000", "1.0.0");
    two.later();
    two.renew(&["stable.c0000"]);
    publish_noting(&one, &remote).await.unwrap();
    let before = std::fs::read(two.dir().join("metadata/timestamp.json")).unwrap();
    let error = rebase(&mut two, &remote).await.unwrap_err();
    assert_eq!(error.rule_id(), Some(CONFLICT), "{error}");
    assert!(error.to_string().contains("stable.c0000"), "{error}");
    assert_eq!(std::fs::read(two.dir().join("metadata/timestamp.json")).unwrap(), before, "nothing was taken over");

    // Not the same role, and yet not together: one withdraws the release that the other assigns.
    let mut three = one.fork();
    one.edit(|edit| {
        edit.change("stable", TimeDelta::days(90), |stable| {
            stable.remove_target("stable/releases/os/1.0.0/manifest.json");
            stable.remove_target("stable/releases/os/1.0.0/os.img");
        })
        .unwrap();
        edit.change("stable.c0000", TimeDelta::days(90), |role| {
            role.remove_target("stable/cohorts/c0000/os.json");
        })
        .unwrap();
    });
    publish_noting(&one, &remote).await.unwrap();
    three.not_before(&one);
    three.assign("c0001", "1.0.0");
    let error = pull(&mut three, &remote).await.unwrap_err();
    assert_eq!(error.rule_id(), Some(CONFLICT), "{error}");
    assert!(error.to_string().contains("do not fit together"), "{error}");
}

/// The snapshot lists the roles of cohorts by their versions alone, so two publishers may make the same one, at the same second, over
/// different roles.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_snapshot_over_different_roles_is_noticed() {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let remote = Remote::conditional(memory, "", "memory");
    let mut one = workspace(2);
    publish_noting(&one, &remote).await.unwrap();
    let mut two = one.fork();
    one.assign("c0000", "1.0.0");
    two.renew(&["stable.c0000"]);
    let timestamp = |forge: &Forge| std::fs::read(forge.dir().join("metadata/timestamp.json")).unwrap();
    assert_eq!(timestamp(&one), timestamp(&two));
    publish_noting(&one, &remote).await.unwrap();
    let error = plan(&two, &remote).await.unwrap_err();
    assert_eq!(error.rule_id(), Some(BEHIND), "{error}");
    assert_eq!(pull(&mut two, &remote).await.unwrap_err().rule_id(), Some(CONFLICT));
    assert_eq!(plan(&one, &remote).await.unwrap().requests, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_blocks_nobody_for_good() {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let remote = || Remote::conditional(Arc::clone(&memory), "x", "memory");
    let mut base = workspace(3);
    publish_noting(&base, &remote()).await.unwrap();
    // Killed before its last request; and again with more, so that several versions are taken.
    let mut given_up = base.fork();
    for role in ["stable.c0000", "stable.c0001"] {
        given_up.renew(&[role]);
        let script =
            |_: u64, what: &str| if what.starts_with("put x/metadata/timestamp") { Fault::Before } else { Fault::None };
        let dead = remote().wrapped(|store| Arc::new(Faulty::new(store, Arc::new(script))));
        assert_eq!(publish(&given_up, &dead).await.unwrap_err().kind(), Kind::Io);
    }
    // The same role, signed by someone who knows nothing of that: the same version, other bytes.
    base.later();
    base.renew(&["stable.c0000"]);
    let error = publish(&base, &remote()).await.unwrap_err();
    assert_eq!(error.rule_id(), Some(LEFTOVER), "{error}");
    assert!(error.remedy_text().unwrap().contains("--rebase"), "{error}");
    let before = memory.list(None).count().await;
    let Overcome::Cleared(keys) = rebase(&mut base, &remote()).await.unwrap() else { panic!("nothing was cleared") };
    assert_eq!(keys.len(), 2, "its role and its snapshot: {keys:?}");
    assert_eq!(memory.list(None).count().await, before - 2, "and no mark is left");
    audit(&base, &remote()).await;
    base.later();
    publish_noting(&base, &remote()).await.unwrap();
    audit(&base, &remote()).await;
    // Whoever had given up and comes back is told that it is too late, and can take over: c0001 is all that it has to say.
    let error = publish(&given_up, &remote()).await.unwrap_err();
    assert_eq!(error.rule_id(), Some(BEHIND), "{error}");
    let error = pull(&mut given_up, &remote()).await.unwrap_err();
    assert!(error.to_string().contains("stable.c0000"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_slow_and_not_dead_is_fenced_out() {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let remote = || Remote::conditional(Arc::clone(&memory), "", "memory");
    let mut base = workspace(2);
    publish_noting(&base, &remote()).await.unwrap();
    let (mut slow, other) = (base.fork(), Arc::new(tokio::sync::Mutex::new(base.fork())));
    slow.renew(&["stable.c0000"]);
    base.renew(&["stable.c0000"]);
    // While the slow one is about to write its timestamp, another has lost patience and clears its leftovers away.
    let (took, clearing) = (Arc::new(AtomicBool::new(false)), Arc::clone(&other));
    let (flag, store) = (Arc::clone(&took), Arc::clone(&memory));
    let script = move |_: u64, what: &str| {
        if what == "put metadata/timestamp.json" && !flag.swap(true, Ordering::SeqCst) {
            futures::executor::block_on(async {
                let mut other = clearing.lock().await;
                other.later();
                other.renew(&["stable.c0000"]);
                other.later();
                let remote = Remote::conditional(Arc::clone(&store), "", "memory");
                assert!(matches!(rebase(&mut other, &remote).await.unwrap(), Overcome::Cleared(_)));
                other.later();
                publish_noting(&other, &remote).await.unwrap();
            });
        }
        Fault::None
    };
    let late = remote().wrapped(|store| Arc::new(Faulty::new(store, Arc::new(script))));
    let error = publish(&slow, &late).await.unwrap_err();
    assert_eq!(error.rule_id(), Some(RACE), "{error}");
    assert!(took.load(Ordering::SeqCst));
    audit(&base, &remote()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_a_whole_repository_during_hundreds_of_publications() {
    let Some(s3) = S3::moto() else { return };
    let (mut forge, remote) = (workspace(2), s3.remote("fleet").danger_assume_conditional());
    publish(&forge, &remote).await.unwrap();
    let (stop, url, root) = (Arc::new(AtomicBool::new(false)), s3.url("fleet"), forge.root());
    let stopped = Arc::clone(&stop);
    let reader = std::thread::spawn(move || {
        let (mut looks, mut newest) = (0_u64, 0);
        while !stopped.load(Ordering::SeqCst) {
            let origin = Repository::open(&url).unwrap();
            let tree = verify::walk(&origin, &root, Utc::now()).unwrap();
            assert_eq!(tree.faults, [], "a reader saw a broken repository");
            for listed in tree.listed() {
                let path = tidegate_client::tuf::path::TargetPath::new(listed.path).unwrap();
                let name = path.file_path(&listed.file.hashes, true);
                let found = verify::Origin::target(&origin, &name, listed.file.length, &mut |_| Ok(())).unwrap();
                assert!(found, "a reader missed {name}");
            }
            let version = tree.timestamp.as_ref().unwrap().version;
            assert!(version >= newest);
            newest = version;
            looks += 1;
        }
        (looks, newest)
    });
    for round in 2..=200_u64 {
        match round % 20 {
            0 => {
                let version = format!("1.0.{round}");
                forge.release(&version, round, &[("os.img", version.as_bytes())]);
                forge.assign("c0000", &version);
            }
            number if number % 2 == 0 => forge.renew(&["timestamp"]),
            _ => forge.renew(&["stable.c0001"]),
        }
        publish(&forge, &remote).await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    let (looks, newest) = reader.join().unwrap();
    println!("{looks} looks during 199 publications, the last at timestamp {newest}");
    assert!(looks >= 20, "only {looks} looks");
    audit(&forge, &remote).await;
}

/// A place with something in it that nothing needs: a release that came and went.
async fn with_rubbish(remote: &Remote) -> Forge {
    let mut forge = workspace(2);
    forge.release("0.9.0", 2, &[("os.img", b"nought"), ("more.img", b"more")]);
    publish_noting(&forge, remote).await.unwrap();
    delist(&mut forge);
    publish_noting(&forge, remote).await.unwrap();
    forge
}

fn delist(forge: &mut Forge) {
    forge.edit(|edit| {
        edit.change("stable", TimeDelta::days(90), |stable| {
            for file in ["os.img", "more.img", "manifest.json"] {
                assert!(stable.remove_target(&format!("stable/releases/os/0.9.0/{file}")));
            }
        })
        .unwrap();
    });
}

/// Prunes as if everything were old enough.
async fn prune(forge: &Forge, remote: &Remote) -> Result<u64> {
    let cutoff = Utc::now() + TimeDelta::seconds(5);
    let pruning = publish::plan_prune(remote, cutoff, cutoff + TimeDelta::days(2)).await?;
    let (workspace, settings, mut ring) = open(forge);
    let (workspace, settings, found, now) = (&workspace, &settings, &pruning, forge.now());
    let fence = move || async move { publish::renew_live(workspace, settings, remote, &mut ring, found, now).await };
    publish::prune(remote, &pruning, now, fence).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_removes_what_nothing_needs_and_nothing_else() {
    let Some(s3) = S3::moto() else { return };
    let remote = s3.remote("prune").danger_assume_conditional();
    let mut forge = with_rubbish(&remote).await;
    let store = s3.store();
    store.put(&"prune/index.html".into(), "hello".into()).await.unwrap();
    let now = Utc::now();

    // Nothing is old enough; and the grace period must cover what edges may still serve.
    let young = publish::plan_prune(&remote, now - TimeDelta::days(30), now).await.unwrap();
    assert_eq!((young.doomed.len(), young.foreign), (0, 1));
    assert!(young.is_done());
    // A clean-up that died has left its mark: that is to be finished, though there is nothing to remove.
    store.put(&"prune/.tidegate/sweep.json".into(), "{}".into()).await.unwrap();
    assert!(!publish::plan_prune(&remote, now - TimeDelta::days(30), now).await.unwrap().is_done());
    store.delete(&"prune/.tidegate/sweep.json".into()).await.unwrap();
    let error = publish::plan_prune(&remote, now - TimeDelta::hours(1), now).await.unwrap_err();
    assert_eq!(error.rule_id(), Some("P-GRACE"), "{error}");

    let cutoff = now + TimeDelta::seconds(5);
    let pruning = publish::plan_prune(&remote, cutoff, cutoff + TimeDelta::days(2)).await.unwrap();
    let doomed: Vec<&str> = pruning.doomed.iter().map(|object| object.key.rsplit('.').nth(1).unwrap()).collect();
    assert_eq!(pruning.doomed.len(), 5, "three files, a role and a snapshot of the time before: {doomed:?}");
    forge.later();
    assert_eq!(prune(&forge, &remote).await.unwrap(), 5);
    audit(&forge, &remote).await;
    assert_eq!(store.get(&"prune/index.html".into()).await.unwrap().bytes().await.unwrap(), "hello");
    assert!(store.get(&format!("prune/{}", publish::MARK).as_str().into()).await.is_err(), "no mark is left");
    // What is pruned can be published again.
    forge.later();
    forge.release("0.9.1", 3, &[("os.img", b"nought")]);
    publish(&forge, &remote).await.unwrap();
    audit(&forge, &remote).await;
}

/// Pruning at every request of a publication that takes up again what is to be pruned, and the other way round: whatever one of
/// them is told, a reader always sees a whole repository, and both get through in the end.
#[tokio::test(flavor = "multi_thread")]
async fn pruning_while_another_publishes_is_safe_at_every_request() {
    let mut outcomes = std::collections::BTreeMap::<String, u64>::new();
    for prune_within in [true, false] {
        for at in 0.. {
            let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let remote = || Remote::conditional(Arc::clone(&memory), "", "memory");
            let mut pruner = with_rubbish(&remote()).await;
            let mut publisher = pruner.fork();
            // The very bytes that are to be pruned are wanted again.
            publisher.release("0.9.0", 2, &[("os.img", b"nought"), ("more.img", b"more")]);
            pruner.later();
            // Each is at work in one of two: the test's own, or one that the script has.
            let (of_script, own) =
                if prune_within { (pruner.fork(), publisher) } else { (publisher.fork(), pruner.fork()) };
            let of_script = Arc::new(tokio::sync::Mutex::new(of_script));
            let reached = Arc::new(AtomicU64::new(0));
            let inner = Arc::new(Mutex::new(None));
            let (count, store, told) = (Arc::clone(&reached), Arc::clone(&memory), Arc::clone(&inner));
            let script = move |number: u64, _: &str| {
                count.fetch_max(number + 1, Ordering::SeqCst);
                if number == at {
                    let remote = Remote::conditional(Arc::clone(&store), "", "memory");
                    *told.lock().unwrap() = Some(futures::executor::block_on(async {
                        let forge = of_script.lock().await;
                        if prune_within {
                            prune(&forge, &remote).await.map(drop)
                        } else {
                            publish(&forge, &remote).await.map(drop)
                        }
                    }));
                }
                Fault::None
            };
            let watched = remote().wrapped(|store| Arc::new(Faulty::new(store, Arc::new(script))));
            let outer = if prune_within {
                publish(&own, &watched).await.map(drop)
            } else {
                prune(&own, &watched).await.map(drop)
            };
            audit(&own, &remote()).await;
            if reached.load(Ordering::SeqCst) <= at {
                outer.unwrap();
                break;
            }
            let inner = inner.lock().unwrap().take().unwrap();
            for error in [&outer, &inner].into_iter().filter_map(|outcome| outcome.as_ref().err()) {
                assert_eq!(error.kind(), Kind::Conflict, "at {at}: {error}");
                assert!([RACE, BEHIND, SWEEP].contains(&error.rule_id().unwrap()), "at {at}: {error}");
            }
            let word = |outcome: &Result<()>| outcome.as_ref().map_or_else(|e| e.rule_id().unwrap_or("?"), |()| "done");
            let (outer_word, inner_word) = (word(&outer), word(&inner));
            let (of_prune, of_publish) = if prune_within { (inner_word, outer_word) } else { (outer_word, inner_word) };
            assert!(outer.is_ok() || inner.is_ok(), "at {at} neither got through");
            *outcomes.entry(format!("pruning: {of_prune}, publishing: {of_publish}")).or_default() += 1;
        }
    }
    let total: u64 = outcomes.values().sum();
    for (outcome, count) in &outcomes {
        println!("{count:>4}  {outcome}");
    }
    assert!(total >= 20, "only {total} moments");
    assert!(outcomes.len() >= 3, "the two never met: {outcomes:?}");
}

#[test]
fn a_mirror_that_lags_is_named_and_the_next_run_mends_it() {
    let (mut forge, places) = (workspace(2), tempfile::tempdir().unwrap());
    let place = |name: &str| places.path().join(name).to_str().unwrap().to_owned();
    let (first, second, third) = (place("first"), place("second"), place("third"));
    let run = |forge: &Forge, args: &[&str]| tidegate(forge, None, args).output().unwrap();
    let out = run(&forge, &["publish", &first, &second, &third]);
    assert!(out.status.success(), "{}", said(&out));
    // The second becomes unreachable: a file where its folder was.
    std::fs::rename(&second, place("aside")).unwrap();
    std::fs::write(&second, "").unwrap();
    forge.assign("c0000", "1.0.0");
    let out = run(&forge, &["publish", &first, &second, &third]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    let text = said(&out);
    assert!(text.contains(&format!("{second} lags behind")) && text.contains("1 of 3 places lag behind"), "{text}");
    assert!(text.contains(&format!("to {third}:")), "the third is not held up: {text}");
    let out = run(&forge, &["--json", "publish", &first, &second, &third]);
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((json["mirrors"][0]["ok"].as_bool(), json["mirrors"][1]["ok"].as_bool()), (Some(false), Some(true)));
    std::fs::remove_file(&second).unwrap();
    std::fs::rename(place("aside"), &second).unwrap();
    let out = run(&forge, &["publish", &first, &second, &third]);
    assert!(out.status.success(), "{}", said(&out));
    let timestamp = |place: &str| std::fs::read(Path::new(place).join("metadata/timestamp.json")).unwrap();
    assert_eq!(timestamp(&first), timestamp(&second));
    assert_eq!(timestamp(&first), timestamp(&third));
}

#[test]
fn mirrors_get_nothing_that_the_first_place_has_not_taken() {
    let (mut one, places) = (workspace(2), tempfile::tempdir().unwrap());
    let place = |name: &str| places.path().join(name).to_str().unwrap().to_owned();
    let (first, mirror) = (place("first"), place("mirror"));
    let run = |forge: &Forge| tidegate(forge, None, &["publish", &first, &mirror]).output().unwrap();
    assert!(run(&one).status.success());
    let mut two = one.fork();
    one.renew(&["stable.c0000"]);
    two.renew(&["stable.c0001"]);
    assert!(run(&one).status.success());
    let before = std::fs::read(Path::new(&mirror).join("metadata/timestamp.json")).unwrap();
    let out = run(&two);
    assert_eq!(out.status.code(), Some(1));
    assert!(said(&out).contains("[P-BEHIND]"), "{}", said(&out));
    assert_eq!(std::fs::read(Path::new(&mirror).join("metadata/timestamp.json")).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_verified_as_it_goes() {
    let (s3, mut forge, folder) = (S3::here().await, workspace(2), tempfile::tempdir().unwrap());
    let from = s3.remote("from").danger_assume_conditional();
    publish(&forge, &from).await.unwrap();
    let root = folder.path().join("1.root.json");
    std::fs::write(&root, forge.root()).unwrap();
    let (source, copy) = (format!("s3://{BUCKET}/from"), folder.path().join("copy").to_str().unwrap().to_owned());
    let sync = |forge: &Forge, from: &str, to: &str| {
        tidegate(forge, Some(&s3), &["sync", from, to, "--root", root.to_str().unwrap(), "--single-writer"])
            .output()
            .unwrap()
    };
    let out = sync(&forge, &source, &copy);
    assert!(out.status.success(), "{}", said(&out));
    let out = sync(&forge, &source, &copy);
    assert!(said(&out).contains("is up to date with"), "{}", said(&out));
    // Over plain HTTP, as from a CDN, into another store.
    let serving = Serving::start(Path::new(&copy)).await;
    let out = sync(&forge, &serving.url(), &format!("s3://{BUCKET}/again"));
    assert!(out.status.success(), "{}", said(&out));
    audit(&forge, &s3.remote("again")).await;

    // A file that is damaged at the source goes nowhere, and nothing of the release is seen at the copy.
    forge.release("2.0.0", 9, &[("os.img", b"two")]);
    forge.assign("c0000", "2.0.0");
    publish(&forge, &from).await.unwrap();
    let damaged = s3.folder.as_ref().unwrap().join("from/targets/stable/releases/os/2.0.0");
    let file = std::fs::read_dir(damaged).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.to_str().unwrap().ends_with("os.img")).unwrap();
    std::fs::write(file, b"owt").unwrap();
    let before = std::fs::read(Path::new(&copy).join("metadata/timestamp.json")).unwrap();
    let out = sync(&forge, &source, &copy);
    assert_eq!(out.status.code(), Some(1));
    assert!(said(&out).contains("is damaged"), "{}", said(&out));
    assert_eq!(std::fs::read(Path::new(&copy).join("metadata/timestamp.json")).unwrap(), before);

    // Another repository than the one that is trusted.
    let stranger = workspace(2);
    std::fs::write(&root, stranger.root()).unwrap();
    let out = sync(&forge, &source, folder.path().join("other").to_str().unwrap());
    assert!(said(&out).contains("[P-ROOT]"), "{}", said(&out));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_comes_back_from_what_is_published() {
    let (mut forge, folder) = (workspace(2), tempfile::tempdir().unwrap());
    forge.assign("c0000", "1.0.0");
    forge.renew(&["root"]);
    let place = folder.path().join("site").to_str().unwrap().to_owned();
    assert!(tidegate(&forge, None, &["publish", &place]).output().unwrap().status.success());
    let root = forge.dir().join("metadata/2.root.json");
    let made = folder.path().join("again");
    let run_at = |now: chrono::DateTime<Utc>, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["-C", made.to_str().unwrap(), "--now", &tidegate_client::tuf::time::format(now)]);
        command.args(args).env("NO_COLOR", "1").stdin(Stdio::null()).output().unwrap()
    };
    let run = |args: &[&str]| run_at(forge.now(), args);
    let out = run(&["pull", &place]);
    assert_eq!(out.status.code(), Some(2), "a trusted root is needed: {}", said(&out));
    let out = run(&["pull", &place, "--root", root.to_str().unwrap(), "--artifacts"]);
    assert!(out.status.success(), "{}", said(&out));
    let mut same = 0;
    for file in std::fs::read_dir(Path::new(&place).join("metadata")).unwrap() {
        let file = file.unwrap();
        let made = made.join("metadata").join(file.file_name());
        // Older versions of roles are not part of a workspace.
        if made.exists() {
            assert_eq!(std::fs::read(made).unwrap(), std::fs::read(file.path()).unwrap());
            same += 1;
        }
    }
    assert!(same >= 6, "two roots, and one of each role at least: {same}");
    let out = run(&["status"]);
    assert!(out.status.success() && said(&out).contains("1.0.0"), "{}", said(&out));
    // With the keys beside it, it goes on where the other one was.
    crate::support::forge::copy(&forge.dir().join("keys"), &made.join("keys"));
    let later = forge.now() + TimeDelta::minutes(1);
    for command in [&["refresh"][..], &["publish", &place]] {
        let out = run_at(later, command);
        assert!(out.status.success(), "{}", said(&out));
    }

    // What does not verify makes no workspace.
    let mut files =
        std::fs::read_dir(Path::new(&place).join("targets/stable")).unwrap().map(|entry| entry.unwrap().path());
    std::fs::write(files.find(|path| path.to_str().unwrap().ends_with("cohorts.json")).unwrap(), "{}").unwrap();
    std::fs::remove_dir_all(&made).unwrap();
    let out = run(&["pull", &place, "--root", root.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(!made.join("metadata").exists());
}

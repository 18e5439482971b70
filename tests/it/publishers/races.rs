//! Several publishers at once: who wins, who is told, what is taken over, what readers see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidegate::Rule;

use crate::support::Forge;
use crate::support::proxy::{self, Proxy};
use crate::support::s3::{BUCKET, S3};
use chrono::{TimeDelta, Utc};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tidegate::Kind;
use tidegate::audit::{Origin, PublishedRepository, walk};
use tidegate::publish::{self, Remote, Source};
use tidegate::workspace::Workspace;

use super::{audit, note, plan, publish_noting, pull, put_live, rebase, said, tidegate, workspace};

/// Of two concurrent publishers one wins in each of many rounds, and the other pulls and follows.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_concurrent_publishers_wins() {
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
        assert!([Some(Rule::PublishRace), Some(Rule::PublishLeftover)].contains(&error.broken_rule()), "{error}");
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
    // Two programs that start together may yet come one after the other.
    const ROUNDS: usize = 15;
    let Some(s3) = S3::moto() else { return };
    let place = format!("s3://{BUCKET}/rebase");
    let mut one = workspace(2 * ROUNDS);
    let first = tidegate(&one, Some(&s3), &["publish", &place]).output().unwrap();
    assert!(first.status.success(), "{}", said(&first));
    assert!(said(&first).contains(": verified "), "{}", said(&first));
    let mut two = one.fork();
    let (mut rebased, mut rounds) = (0, 0);
    while rounds < 3 || (rebased == 0 && rounds < ROUNDS) {
        let round = rounds;
        rounds += 1;
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
    for cohort in 0..2 * rounds {
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
    two.assign("c0000", "1.0.0");
    publish_noting(&one, &remote).await.unwrap();
    let before = std::fs::read(two.dir().join("metadata/timestamp.json")).unwrap();
    let error = rebase(&mut two, &remote).await.unwrap_err();
    assert_eq!(error.broken_rule(), Some(Rule::PublishConflict), "{error}");
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
    assert_eq!(error.broken_rule(), Some(Rule::PublishConflict), "{error}");
    assert!(error.to_string().contains("do not fit together"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_stands_in_no_change_s_way() {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let remote = Remote::conditional(memory, "", "memory");
    let mut machine = workspace(2);
    publish_noting(&machine, &remote).await.unwrap();
    let mut person = machine.fork();
    machine.renew(&["stable.c0000", "stable.c0001"]);
    person.later();
    person.assign("c0000", "1.0.0");
    person.renew(&["stable.c0001"]);
    let changed = person.content("stable.c0000");
    publish_noting(&machine, &remote).await.unwrap();
    let taken = pull(&mut person, &remote).await.unwrap();
    assert_eq!(taken.theirs, ["stable.c0001"]);
    assert!(taken.ours.contains(&"stable.c0000".to_owned()), "{taken:?}");
    assert_eq!((person.version("stable.c0000"), person.content("stable.c0000")), (3, changed));
    publish_noting(&person, &remote).await.unwrap();
    audit(&person, &remote).await;

    // The other way round: what was published stands, whatever was renewed here.
    machine.not_before(&person);
    machine.renew(&["stable.c0000"]);
    assert_eq!(pull(&mut machine, &remote).await.unwrap().theirs, ["stable.c0000"]);
    assert_eq!(machine.version("stable.c0000"), 3);
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
    assert_eq!(error.broken_rule(), Some(Rule::PublishBehind), "{error}");
    assert_eq!(pull(&mut two, &remote).await.unwrap_err().broken_rule(), Some(Rule::PublishConflict));
    assert_eq!(plan(&one, &remote).await.unwrap().requests, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_a_whole_repository_during_hundreds_of_publications() {
    let Some(s3) = S3::moto() else { return };
    let (mut forge, remote) = (workspace(2), s3.remote("fleet").danger_assume_conditional());
    put_live(&forge, &remote).await.unwrap();
    let (stop, url, root) = (Arc::new(AtomicBool::new(false)), s3.url("fleet"), forge.root());
    let stopped = Arc::clone(&stop);
    let reader = std::thread::spawn(move || {
        let (mut looks, mut newest) = (0_u64, 0);
        while !stopped.load(Ordering::SeqCst) {
            let origin = PublishedRepository::open(&url).unwrap();
            let tree = walk(&origin, &root, Utc::now()).unwrap();
            assert_eq!(tree.faults, [], "a reader saw a broken repository");
            for listed in tree.listed() {
                let path = tidegate_tuf::path::TargetPath::new(listed.path).unwrap();
                let name = path.file_path(&listed.file.hashes, true);
                let found = Origin::target(&origin, &name, listed.file.length, &mut |_| Ok(())).unwrap();
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
        put_live(&forge, &remote).await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    let (looks, newest) = reader.join().unwrap();
    println!("{looks} looks during 199 publications, the last at timestamp {newest}");
    assert!(looks >= 20, "only {looks} looks");
    audit(&forge, &remote).await;
}

/// The published state is recorded before it is read back, and never goes backwards.
#[tokio::test(flavor = "multi_thread")]
async fn published_state_is_recorded_before_read_back() {
    let s3 = S3::here().await;
    let mut forge = workspace(2);
    let noted = |forge: &Forge| publish::Published::load(forge.dir()).unwrap().map(|noted| noted.timestamp);
    // The place breaks down just after the timestamp has been written.
    let live = Arc::new(AtomicBool::new(false));
    let script: proxy::Script = Arc::new(move |_, what| {
        let down = live.load(Ordering::SeqCst);
        if what.starts_with("PUT") && what.ends_with("metadata/timestamp.json") {
            live.store(true, Ordering::SeqCst);
        }
        if down { proxy::Fault::Down } else { proxy::Fault::None }
    });
    let proxy = Proxy::start(&s3.endpoint, Duration::from_secs(1), script).await;
    let place = format!("s3://{BUCKET}/noted");
    let mut command = tidegate(&forge, None, &["publish", "--single-writer", "--retry-for", "1s", &place]);
    let out = tokio::task::spawn_blocking({
        let variables = s3.variables_at(&proxy.endpoint);
        move || command.envs(variables).output().unwrap()
    });
    let out = out.await.unwrap();
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(said(&out).contains("reading back"), "{}", said(&out));
    assert_eq!(noted(&forge), Some(forge.version("timestamp")), "{}", said(&out));

    // Someone who was slow to note it finds that the workspace has gone on.
    let old = plan(&forge, &s3.remote("elsewhere")).await.unwrap();
    forge.renew(&["timestamp"]);
    note(&forge, &plan(&forge, &s3.remote("elsewhere")).await.unwrap());
    let newest = noted(&forge);
    assert!(old.published().note(&Workspace::open(forge.dir()).unwrap(), true).unwrap().is_none());
    assert_eq!(noted(&forge), newest);
}

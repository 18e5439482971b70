//! Removing what nobody needs, while others publish.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tidegate::Rule;

use chrono::{TimeDelta, Utc};
use futures::StreamExt as _;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tidegate::Kind;
use tidegate::error::Result;
use tidegate::publish::{self, Remote};

use super::{audit, open, plan, publish_noting, put_live, workspace};
use crate::support::Forge;
use crate::support::faulty::{Fault, Faulty};
use crate::support::s3::S3;

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
    // Records of what was live before are of no use, that of what is live is.
    let live = format!("prune/.tidegate/published/{}.json", forge.version("snapshot"));
    for record in ["prune/.tidegate/published/1.json", &live] {
        store.put(&record.into(), "{}".into()).await.unwrap();
    }
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
    assert_eq!(error.broken_rule(), Some(Rule::PublishGrace), "{error}");

    let cutoff = now + TimeDelta::seconds(5);
    let pruning = publish::plan_prune(&remote, cutoff, cutoff + TimeDelta::days(2)).await.unwrap();
    let doomed: Vec<&str> = pruning.doomed.iter().map(|object| object.key.rsplit('.').nth(1).unwrap()).collect();
    assert_eq!(pruning.doomed.len(), 6, "three files, a role, a snapshot and a record of the time before: {doomed:?}");
    forge.later();
    assert_eq!(prune(&forge, &remote).await.unwrap(), 6);
    audit(&forge, &remote).await;
    assert!(store.get(&live.as_str().into()).await.is_ok());
    assert_eq!(store.get(&"prune/index.html".into()).await.unwrap().bytes().await.unwrap(), "hello");
    assert!(store.get(&format!("prune/{}", publish::MARK).as_str().into()).await.is_err(), "no mark is left");
    // What is pruned can be published again.
    forge.later();
    forge.release("0.9.1", 3, &[("os.img", b"nought")]);
    put_live(&forge, &remote).await.unwrap();
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
                            put_live(&forge, &remote).await.map(drop)
                        }
                    }));
                }
                Fault::None
            };
            let watched = remote().wrapped(|store| Arc::new(Faulty::new(store, Arc::new(script))));
            let outer = if prune_within {
                put_live(&own, &watched).await.map(drop)
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
                assert!(
                    [Rule::PublishRace, Rule::PublishBehind, Rule::PublishSweep]
                        .contains(&error.broken_rule().unwrap()),
                    "at {at}: {error}"
                );
            }
            let word = |outcome: &Result<()>| {
                outcome.as_ref().map_or_else(|e| e.broken_rule().map_or("?", tidegate::Rule::id), |()| "done")
            };
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

/// While a place is pruned nothing is published, and an interrupted prune can be completed by another.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_during_a_prune() {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let remote = Remote::conditional(Arc::clone(&memory), "", "memory");
    let mut forge = with_rubbish(&remote).await;
    // Someone's clean-up died after its mark.
    memory.put(&publish::MARK.into(), "{}".into()).await.unwrap();
    let before = memory.list(None).count().await;
    forge.later();
    forge.release("2.0.0", 7, &[("os.img", b"two")]);
    let error = put_live(&forge, &remote).await.unwrap_err();
    assert_eq!(error.broken_rule(), Some(Rule::PublishSweep), "{error}");
    assert!(error.remedy_text().unwrap().contains("tidegate prune"), "{error}");
    assert_eq!(memory.list(None).count().await, before, "what is written might meet a removal that is late");
    // As the error says: from this workspace, though it holds what is not published yet. (The mark is of just now, so its time is up only
    // when it is taken away.)
    memory.delete(&publish::MARK.into()).await.unwrap();
    forge.later();
    assert_eq!(prune(&forge, &remote).await.unwrap(), 5);
    audit(&forge, &remote).await;
    forge.later();
    publish_noting(&forge, &remote).await.unwrap();
    audit(&forge, &remote).await;
    assert!(plan(&forge, &remote).await.unwrap().is_done());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn pruning_a_folder_leaves_alone_what_links_lead_to() {
    let folder = tempfile::tempdir().unwrap();
    let (place, outside) = (folder.path().join("place"), folder.path().join("outside"));
    let remote = Remote::open(place.to_str().unwrap()).unwrap();
    let forge = with_rubbish(&remote).await;
    std::fs::create_dir(&outside).unwrap();
    let names = ["1.targets.json".to_owned(), format!("{}.img", "ab".repeat(32))];
    for name in &names {
        std::fs::write(outside.join(name), "precious").unwrap();
    }
    for link in ["metadata/link", "targets/link"] {
        std::os::unix::fs::symlink(&outside, place.join(link)).unwrap();
    }
    assert_eq!(prune(&forge, &remote).await.unwrap(), 5);
    assert!(names.iter().all(|name| outside.join(name).exists()));
    audit(&forge, &remote).await;
}

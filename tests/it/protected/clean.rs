//! Removing what nobody needs from the private place.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate::Rule;

use chrono::{DateTime, TimeDelta, Utc};
use object_store::ObjectStoreExt as _;
use tidegate::Kind;
use tidegate::error::Result;
use tidegate::publish::{self, Pruning, Remote};

use super::{GATE, Places, Stores, folder, forge, objects, sound};
use crate::publishers::{open, publish_noting, pull};
use crate::support::Forge;
use crate::support::faulty::Fault;

/// So far ahead of the clock of the machine that all that is written now is old enough, and timestamps are in force.
fn ahead(mut forge: Forge) -> Forge {
    forge.pass(TimeDelta::days(3));
    forge.renew(&["stable.early"]);
    forge
}

/// A grace period as short as may be, at the end of which the workspace is.
async fn plan(remote: &Remote, now: DateTime<Utc>) -> Result<Pruning> {
    publish::plan_prune(remote, now - TimeDelta::days(1), now).await
}

fn doomed(pruning: &Pruning) -> BTreeSet<(bool, String)> {
    pruning.doomed.iter().map(|object| (object.private, object.key.clone())).collect()
}

#[tokio::test]
async fn what_no_snapshot_leads_to_is_removed_from_the_private_place() {
    let (mut forge, places) = (ahead(forge()), Places::new());
    places.publish(&forge).await.unwrap();
    let before = objects(&places.private());
    assert!(plan(&places.open(), forge.now()).await.unwrap().is_done(), "all is needed");

    // Another release in its place. The old one is still approved, so it stays; its assignment does not, but until it is pruned gates give it
    // to those who are on their way through the snapshot before.
    let listed = places.listing("stable.secret");
    forge.release("3.0.0", 3, &[("os.img", b"secret three")]);
    forge.assign_privately("secret", "3.0.0");
    places.publish(&forge).await.unwrap();
    assert!(places.listing("stable.secret").is_superset(&listed));
    let gone = |key: &&String| key.contains("cohorts/secret/") || key.starts_with("metadata/");
    let expected: BTreeSet<_> = before.iter().filter(gone).map(|key| (true, key.clone())).collect();
    let pruning = plan(&places.open(), forge.now()).await.unwrap();
    let found: BTreeSet<_> = doomed(&pruning).into_iter().filter(|(private, _)| *private).collect();
    assert_eq!(found, expected);
    assert_eq!((found.len(), pruning.listings), (2, 1), "the role, and a copy of the manifest: {found:?}");

    // Nothing is old enough for a real grace period.
    let young = publish::plan_prune(&places.open(), forge.now() - TimeDelta::days(30), forge.now()).await.unwrap();
    assert!(young.is_done() && young.snapshots.len() > 1, "{young:?}");

    // Without the private place nobody can say what is needed. With a stranger's, neither.
    let error = plan(&folder(&places.public()), forge.now()).await.unwrap_err();
    assert!(error.remedy_text().unwrap().contains("--private"), "{error}");
    let (mut other, theirs) = (ahead(super::forge()), Places::new());
    for _ in other.version("stable.secret")..forge.version("stable.secret") {
        other.renew(&["stable.secret"]);
    }
    theirs.publish(&other).await.unwrap();
    let wrong = folder(&places.public()).with_private(folder(&theirs.private())).unwrap();
    let error = plan(&wrong, forge.now()).await.unwrap_err();
    assert!(error.to_string().contains("not signed by the keys that stable names"), "{error}");

    let removed = publish::prune(&places.open(), &pruning, forge.now(), async || Ok(())).await.unwrap();
    assert_eq!(removed, pruning.doomed.len() as u64);
    let listing = places.listing("stable.secret");
    for (_, key) in &found {
        assert!(!places.private().join(key).exists() && !listing.contains(key), "{key}");
    }
    assert!(listing.iter().all(|key| places.private().join(key).exists()), "{listing:?}");
    sound(&forge, &places.open(), "pruned").await;
    let (all, public) = places.verify(&forge).await;
    assert!(all.ok && public.ok, "{all}\n{public}");
    assert!(places.plan(&forge).await.unwrap().is_done());
    assert!(plan(&places.open(), forge.now()).await.unwrap().is_done());
}

#[tokio::test]
async fn what_became_public_leaves_the_private_place_with_its_listing() {
    let (mut forge, places) = (ahead(forge()), Places::new());
    places.publish(&forge).await.unwrap();
    // What is not of this repository stays, whatever becomes of it.
    for key in ["gate/beta.canary.json", "metadata/1.beta.canary.json", "notes.txt"] {
        let path = places.private().join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "{}").unwrap();
    }
    forge.guard(&[("early", None), ("secret", None)]);
    places.publish(&forge).await.unwrap();
    let listing = places.listing("stable.secret");
    // Devices that know the old map are still on their way.
    forge.renew(&["timestamp"]);
    let real = Utc::now();
    let grace = publish::plan_prune(&places.open(), real - TimeDelta::hours(1), real + TimeDelta::days(1)).await;
    assert!(grace.unwrap().is_done());

    let pruning = plan(&places.open(), forge.now()).await.unwrap();
    let private: Vec<&str> =
        pruning.doomed.iter().filter(|object| object.private).map(|object| object.key.as_str()).collect();
    assert_eq!(private.first(), Some(&"gate/stable.secret.json"), "so that no gate promises what has gone");
    let expected: BTreeSet<&str> = listing.iter().map(String::as_str).chain(["gate/stable.secret.json"]).collect();
    assert_eq!(private.into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(pruning.foreign, 3 + 2, "these, and what keeps publishers to a folder apart");

    // A place that lags may have a private one in common with others that have gone on.
    let later = forge.now() + TimeDelta::days(2);
    let error = plan(&places.open(), later).await.unwrap_err();
    assert_eq!((error.kind(), error.broken_rule()), (Kind::Refused, Some(Rule::PublishGrace)), "{error}");

    publish::prune(&places.open(), &pruning, forge.now(), async || Ok(())).await.unwrap();
    let left: Vec<_> = objects(&places.private()).into_iter().collect();
    assert_eq!(left, ["gate/beta.canary.json", "metadata/1.beta.canary.json", "notes.txt"]);
    let (all, public) = places.verify(&forge).await;
    assert!(all.ok && public.ok, "{all}\n{public}");
}

async fn put_live(forge: &Forge, remote: &Remote) -> Result<()> {
    publish_noting(forge, remote).await.map(drop)
}

async fn prune(forge: &Forge, remote: &Remote) -> Result<u64> {
    let pruning = plan(remote, forge.now()).await?;
    let (workspace, settings, mut ring) = open(forge);
    let (workspace, settings, found, now) = (&workspace, &settings, &pruning, forge.now());
    let fence = move || async move { publish::renew_live(workspace, settings, remote, &mut ring, found, now).await };
    publish::prune(remote, &pruning, now, fence).await
}

/// A release that nobody is assigned any more is delisted, and what is to be pruned is wanted again by another publisher: pruning at every
/// request of that publication, and the other way round.
#[tokio::test(flavor = "multi_thread")]
async fn pruning_while_another_publishes_is_safe_at_every_request() {
    let mut outcomes = std::collections::BTreeMap::<String, u64>::new();
    for prune_within in [true, false] {
        for at in 0.. {
            let stores = Arc::new(Stores::new());
            let mut pruner = Forge::with_gate(&["early", "secret"], GATE).with_settings();
            pruner.pass(TimeDelta::days(3));
            pruner.release("1.0.0", 1, &[("os.img", b"public one")]);
            pruner.release("2.0.0", 2, &[("os.img", b"secret two")]);
            pruner.assign_privately("secret", "2.0.0");
            put_live(&pruner, &stores.open()).await.unwrap();
            pruner.assign_privately("secret", "1.0.0");
            delist(&mut pruner, "2.0.0");
            put_live(&pruner, &stores.open()).await.unwrap();
            pruner.renew(&["stable.secret"]);
            put_live(&pruner, &stores.open()).await.unwrap();
            let mut publisher = pruner.fork();
            publisher.release("2.0.0", 2, &[("os.img", b"secret two")]);
            publisher.assign_privately("secret", "2.0.0");
            pruner.not_before(&publisher);
            let (of_script, own) =
                if prune_within { (pruner.fork(), publisher) } else { (publisher.fork(), pruner.fork()) };
            let of_script = Arc::new(tokio::sync::Mutex::new(of_script));
            let (reached, inner) = (Arc::new(AtomicU64::new(0)), Arc::new(std::sync::Mutex::new(None)));
            let (count, told, theirs) = (Arc::clone(&reached), Arc::clone(&inner), Arc::clone(&stores));
            let watched = stores.scripted(move |number| {
                count.fetch_max(number + 1, Ordering::SeqCst);
                if number == at {
                    let remote = theirs.open();
                    *told.lock().unwrap() = Some(futures::executor::block_on(async {
                        let forge = of_script.lock().await;
                        if prune_within {
                            prune(&forge, &remote).await.map(drop)
                        } else {
                            put_live(&forge, &remote).await
                        }
                    }));
                }
                Fault::None
            });
            let outer =
                if prune_within { put_live(&own, &watched).await } else { prune(&own, &watched).await.map(drop) };
            sound(&own, &stores.open(), &format!("at {at}")).await;
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
            assert!(outer.is_ok() || inner.is_ok(), "at {at} neither got through");
            let word = |outcome: &Result<()>| {
                outcome.as_ref().map_or_else(|e| e.broken_rule().map_or("?", tidegate::Rule::id), |()| "done")
            };
            let (a, b) = (word(&outer), word(&inner));
            let (of_prune, of_publish) = if prune_within { (b, a) } else { (a, b) };
            *outcomes.entry(format!("pruning: {of_prune}, publishing: {of_publish}")).or_default() += 1;
        }
    }
    let total: u64 = outcomes.values().sum();
    for (outcome, count) in &outcomes {
        println!("{count:>4}  {outcome}");
    }
    assert!(total >= 30, "only {total} moments");
    assert!(outcomes.len() >= 3, "the two never met: {outcomes:?}");
}

/// Pruning that dies at any request leaves a place that hangs together, and the next one finishes.
#[tokio::test(flavor = "multi_thread")]
async fn pruning_that_dies_at_any_request_is_finished_by_the_next() {
    let mut died = 0;
    for at in 0.. {
        let stores = Stores::new();
        let mut forge = Forge::with_gate(&["early", "secret"], GATE).with_settings();
        forge.pass(TimeDelta::days(3));
        forge.release("2.0.0", 2, &[("os.img", b"secret two")]);
        forge.assign_privately("secret", "2.0.0");
        put_live(&forge, &stores.open()).await.unwrap();
        for _ in 0..2 {
            forge.renew(&["stable.secret"]);
            put_live(&forge, &stores.open()).await.unwrap();
        }
        let dead = stores.scripted(move |number| if number >= at { Fault::Before } else { Fault::None });
        forge.later();
        let outcome = prune(&forge, &dead).await;
        sound(&forge, &stores.open(), &format!("dead at {at}")).await;
        if outcome.is_ok() {
            break;
        }
        died += 1;
        // The mark is of just now: its time is up when it is taken away.
        let _ = stores.public.delete(&publish::MARK.into()).await;
        forge.later();
        let remote = stores.open();
        pull(&mut forge, &remote).await.unwrap();
        put_live(&forge, &remote).await.unwrap();
        forge.later();
        prune(&forge, &remote).await.unwrap();
        sound(&forge, &stores.open(), &format!("finished after {at}")).await;
        assert!(plan(&remote, forge.now()).await.unwrap().doomed.is_empty());
    }
    assert!(died >= 10, "only {died}");
}

fn delist(forge: &mut Forge, version: &str) {
    forge.edit(|edit| {
        edit.change("stable", TimeDelta::days(90), |stable| {
            for file in ["os.img", "manifest.json"] {
                assert!(stable.remove_target(&format!("stable/releases/os/{version}/{file}")));
            }
        })
        .unwrap();
    });
}

#[tokio::test]
async fn anothers_private_place_loses_nothing_to_a_fleet_with_the_same_names() {
    // A copy of the settings in which nothing is protected, as for trying out, with keys of its own.
    let (fleet, places) = (ahead(forge()), Places::new());
    places.publish(&fleet).await.unwrap();
    let (mut trial, tried) = (ahead(forge()), Places::new());
    trial.guard(&[("early", None), ("secret", None)]);
    tried.publish(&trial).await.unwrap();
    let wrong = folder(&tried.public()).with_private(folder(&places.private())).unwrap();
    let pruning = plan(&wrong, trial.now()).await.unwrap();
    let lost: Vec<_> = doomed(&pruning).into_iter().filter(|(private, _)| *private).collect();
    assert!(lost.is_empty() && pruning.listings == 0, "{lost:?}");
}

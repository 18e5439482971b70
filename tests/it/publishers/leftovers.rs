//! What a publication left that was given up, and what becomes of one that was only slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidegate::Rule;

use futures::StreamExt as _;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tidegate::Kind;
use tidegate::publish::{Overcome, Remote};

use super::{audit, publish_noting, pull, put_live, rebase, workspace};
use crate::support::faulty::{Fault, Faulty};

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
        assert_eq!(put_live(&given_up, &dead).await.unwrap_err().kind(), Kind::Io);
    }
    // The same role, signed by someone who knows nothing of that: the same version, other bytes.
    base.later();
    base.renew(&["stable.c0000"]);
    let error = put_live(&base, &remote()).await.unwrap_err();
    assert_eq!(error.broken_rule(), Some(Rule::PublishLeftover), "{error}");
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
    let error = put_live(&given_up, &remote()).await.unwrap_err();
    assert_eq!(error.broken_rule(), Some(Rule::PublishBehind), "{error}");
    let taken = pull(&mut given_up, &remote()).await.unwrap();
    assert_eq!((taken.theirs, taken.ours), (vec!["stable.c0000".to_owned()], vec!["stable.c0001".to_owned()]));
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
    let error = put_live(&slow, &late).await.unwrap_err();
    assert_eq!(error.broken_rule(), Some(Rule::PublishRace), "{error}");
    assert!(took.load(Ordering::SeqCst));
    audit(&*other.lock().await, &remote()).await;
}

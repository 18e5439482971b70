//! What a publication to two places left that was given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidegate::Rule;

use tidegate::publish::{Overcome, Published};

use super::{GATE, Stores, sound};
use crate::publishers::{publish_noting, put_live, rebase};
use crate::support::Forge;
use crate::support::faulty::Fault;

fn workspace() -> Forge {
    let mut forge = Forge::with_gate(&["early", "secret"], GATE).with_settings();
    forge.release("1.0.0", 1, &[("os.img", b"public one")]);
    forge.assign("early", "1.0.0");
    forge.release("2.0.0", 2, &[("os.img", b"secret two")]);
    forge.assign_privately("secret", "2.0.0");
    forge
}

/// A publisher is killed at its first request, then at its second, and so on, before the store has carried that out or after; to whichever
/// place it was. Another one, with other changes to the same roles, gets through with `--rebase`.
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_killed_at_any_request_blocks_nobody_for_good() {
    let base = workspace();
    let (mut cleared, mut went_live, mut in_the_way) = (0, 0, 0);
    for last in [Fault::Before, Fault::After] {
        for at in 0.. {
            let (stores, what) = (Stores::new(), format!("{last:?} at {at}"));
            let before = base.fork();
            publish_noting(&before, &stores.open()).await.unwrap();
            let (mut killed, mut other) = (before.fork(), before.fork());
            killed.release("3.0.0", 3, &[("os.img", b"secret three")]);
            killed.assign_privately("secret", "3.0.0");
            other.later();
            other.release("3.0.1", 3, &[("os.img", b"another three")]);
            other.assign_privately("secret", "3.0.1");
            let dead = stores.scripted(move |number| match number {
                number if number < at => Fault::None,
                number if number == at => last,
                _ => Fault::Before,
            });
            let outcome = put_live(&killed, &dead).await;
            let seen = sound(&killed, &stores.open(), &what).await;
            if outcome.is_ok() {
                assert_eq!(seen, killed.version("timestamp"));
                break;
            }
            if seen == killed.version("timestamp") {
                // Only the answer to its last word was lost: then it has won.
                went_live += 1;
                let error = publish_noting(&other, &stores.open()).await.unwrap_err();
                assert_eq!(error.broken_rule(), Some(Rule::PublishBehind), "{what}: {error}");
                assert_eq!(
                    rebase(&mut other, &stores.open()).await.unwrap_err().broken_rule(),
                    Some(Rule::PublishConflict),
                    "{what}"
                );
                continue;
            }
            assert_eq!(seen, before.version("timestamp"), "{what}");
            let mut tries = 0;
            while let Err(error) = publish_noting(&other, &stores.open()).await {
                assert!(
                    [Rule::PublishLeftover, Rule::PublishRace, Rule::PublishBehind]
                        .contains(&error.broken_rule().unwrap()),
                    "{what}: {error}"
                );
                in_the_way += u32::from(error.broken_rule() == Some(Rule::PublishLeftover));
                tries += 1;
                assert!(tries < 4, "{what}: {error}");
                if let Overcome::Cleared(keys) = rebase(&mut other, &stores.open()).await.unwrap() {
                    cleared += u32::from(keys.iter().any(|key| key.ends_with("stable.secret.json (private)")));
                }
                sound(&other, &stores.open(), &what).await;
            }
            let seen = sound(&other, &stores.open(), &what).await;
            assert_eq!(seen, other.version("timestamp"), "{what}");
            assert_eq!(Published::load(other.dir()).unwrap().unwrap().timestamp, seen);
            // Whoever was thought dead and is not is told that it is too late.
            let error = put_live(&killed, &stores.open()).await.unwrap_err();
            assert_eq!(error.broken_rule(), Some(Rule::PublishBehind), "{what}: {error}");
        }
    }
    println!("{in_the_way} times something was in the way, {cleared} times in the private place");
    assert!(went_live == 1 && cleared >= 4 && in_the_way >= cleared, "{went_live} {cleared} {in_the_way}");
}

/// Two at once: while one is between its listing and its timestamp, another begins, and writes its own listing after it. Whoever of the two
/// wins, gates may give out what it leads to.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_the_one_that_wins_is_given_out() {
    let base = workspace();
    let mut both = 0;
    for at in 0.. {
        let stores = Arc::new(Stores::new());
        let before = base.fork();
        publish_noting(&before, &stores.open()).await.unwrap();
        let (mut slow, mut quick) = (before.fork(), before.fork());
        slow.renew(&["stable.secret"]);
        quick.renew(&["stable.early"]);
        let reached = Arc::new(AtomicBool::new(false));
        let (flag, theirs, dir) = (reached.clone(), stores.clone(), quick.fork());
        // The quick one does all but its last request.
        let watched = stores.scripted(move |number| {
            if number == at {
                flag.store(true, Ordering::SeqCst);
                futures::executor::block_on(async {
                    let remote = theirs.without_the_last();
                    let _ = put_live(&dir, &remote).await;
                });
            }
            Fault::None
        });
        let outcome = put_live(&slow, &watched).await;
        if !reached.load(Ordering::SeqCst) {
            outcome.unwrap();
            break;
        }
        let seen = sound(&slow, &stores.open(), &format!("at {at}")).await;
        assert!(seen == before.version("timestamp") || seen == slow.version("timestamp"));
        both += u32::from(outcome.is_ok());
    }
    assert!(both >= 1, "the slow one never won");
}

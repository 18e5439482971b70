//! What becomes protected, what becomes public, and what readers see meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidegate::Rule;

use crate::publishers::publish_noting;
use crate::support::Forge;
use tidegate::publish::{self, Source, StoreOrigin};
use tidegate_model::rollout::{Bridge, Offer};

use super::{GATE, Places, Stores, given_out, objects, release, sound};

const LAB: &str = "https://lab.example.com/fleet";

fn copies(dir: &std::path::Path, cohort: &str) -> usize {
    objects(dir).iter().filter(|key| key.starts_with(&format!("targets/stable/cohorts/{cohort}/"))).count()
}

#[tokio::test]
async fn a_cohort_becomes_protected_and_public_again_with_what_it_has() {
    let (mut forge, places) = (Forge::new(&["early", "secret"]), Places::new());
    forge.release("1.0.0", 1, &[("os.img", b"public one")]);
    forge.assign("early", "1.0.0");
    forge.assign("secret", "1.0.0");
    places.publish(&forge).await.unwrap();
    assert!(!places.private().join("gate").exists());

    // Its release stays public; its role does not, and the copy that says nothing new may stay until it is pruned.
    forge.guard(&[("early", None), ("secret", Some(GATE))]);
    places.publish(&forge).await.unwrap();
    let role = format!("metadata/{}.stable.secret.json", forge.version("stable.secret"));
    assert!(places.private().join(&role).exists() && !places.public().join(&role).exists());
    assert_eq!((release(&places.public(), "1.0.0").len(), release(&places.private(), "1.0.0").len()), (2, 0));
    assert_eq!((copies(&places.public(), "secret"), copies(&places.private(), "secret")), (1, 1));
    let (all, public) = places.verify(&forge).await;
    assert!(all.ok && public.ok, "{all}\n{public}");
    sound(&forge, &places.open(), "protected").await;

    // A private release in it, and one that nobody has yet.
    forge.release("2.0.0", 2, &[("os.img", b"secret two")]);
    forge.assign_privately("secret", "2.0.0");
    forge.release("3.0.0", 3, &[("os.img", b"three, for nobody yet")]);
    places.publish(&forge).await.unwrap();
    assert_eq!((release(&places.public(), "2.0.0").len(), release(&places.public(), "3.0.0").len()), (0, 0));

    // Public again: all of it is there for everyone, before anything leads to it.
    forge.guard(&[("early", None), ("secret", None)]);
    places.publish(&forge).await.unwrap();
    assert_eq!((release(&places.public(), "2.0.0").len(), release(&places.public(), "3.0.0").len()), (2, 2));
    let (all, public) = places.verify(&forge).await;
    assert!(all.ok && public.ok, "{all}\n{public}");
    assert!(publish::plan(&Source::new(forge.dir()), &super::folder(&places.public()), forge.now()).await.is_ok());
}

/// A withdrawn protected release stays secret; one that was public before does not become secret.
#[tokio::test]
async fn withdrawn_release_keeps_its_secrecy() {
    let (mut forge, places) = (super::forge(), Places::new());
    places.publish(&forge).await.unwrap();
    // Withdrawn: nobody has it, and it stays where it is.
    forge.edit(|edit| {
        edit.change("stable.secret", chrono::TimeDelta::days(30), |role| {
            assert!(role.remove_target("stable/cohorts/secret/os.json"));
        })
        .unwrap();
    });
    places.publish(&forge).await.unwrap();
    assert_eq!((release(&places.public(), "2.0.0").len(), release(&places.private(), "2.0.0").len()), (0, 2));
    let (all, public) = places.verify(&forge).await;
    assert!(all.ok && public.ok, "{all}\n{public}");
    // Taken back by one with older bytes, as `tidegate release retract` makes it: that is as private.
    forge.release("1.0.0+retract.3", 3, &[("os.img", b"public one")]);
    forge.assign_privately("secret", "1.0.0+retract.3");
    places.publish(&forge).await.unwrap();
    assert_eq!(release(&places.public(), "1.0.0+retract.3"), [""; 0]);
    let (all, public) = places.verify(&forge).await;
    assert!(all.ok && public.ok, "{all}\n{public}");
    // What everyone could read cannot be made a secret: it is refused before anything is written.
    let live = std::fs::read(places.public().join("metadata/timestamp.json")).unwrap();
    forge.assign("early", "1.0.0+retract.3");
    places.publish(&forge).await.unwrap();
    forge.assign("early", "1.0.0");
    let error = places.publish(&forge).await.unwrap_err();
    assert_eq!(error.broken_rule(), Some(Rule::PublishReadable), "{error}");
    assert_ne!(std::fs::read(places.public().join("metadata/timestamp.json")).unwrap(), live);
}

#[tokio::test]
async fn two_gates_each_give_out_what_is_for_their_own_cohort() {
    let mut forge = Forge::with_gates(&[("early", None), ("lab", Some(LAB)), ("secret", Some(GATE))]);
    let places = Places::new();
    forge.release("1.0.0", 1, &[("os.img", b"for the lab")]);
    forge.assign_privately("lab", "1.0.0");
    forge.release("2.0.0", 2, &[("os.img", b"for both")]);
    forge.assign_privately("secret", "2.0.0");
    places.publish(&forge).await.unwrap();
    let (lab, secret) = (places.listing("stable.lab"), places.listing("stable.secret"));
    assert!(lab.is_disjoint(&secret) && lab.len() == 4 && secret.len() == 4, "{lab:?} {secret:?}");
    forge.assign_privately("lab", "2.0.0");
    places.publish(&forge).await.unwrap();
    let both: Vec<_> = places.listing("stable.lab").intersection(&secret).cloned().collect();
    assert!(both.len() == 2 && both.iter().all(|key| key.contains("releases/os/2.0.0")), "{both:?}");
    let (all, public) = places.verify(&forge).await;
    assert!(all.ok && public.ok, "{all}\n{public}");
}

/// A reader of both places, as devices and gates are, during publications in which cohorts become protected and public, releases private and
/// public; and the public's reader, who never finds anything missing that is public.
#[tokio::test(flavor = "multi_thread")]
async fn readers_find_everything_while_things_move() {
    let stores = Arc::new(Stores::new());
    let (open, guarded) = ([("early", None), ("secret", None)], [("early", None), ("secret", Some(GATE))]);
    let mut forge = Forge::with_gate(&["early", "secret"], GATE).with_settings();
    forge.release("1.0.0", 1, &[("os.img", b"one")]);
    forge.assign("early", "1.0.0");
    publish_noting(&forge, &stores.open()).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (origin, stopped, root) = (StoreOrigin::new(stores.open()), Arc::clone(&stop), forge.root());
    let reader = std::thread::spawn(move || {
        let (mut looks, mut newest) = (0_u64, 0);
        while !stopped.load(Ordering::SeqCst) {
            let now = chrono::Utc::now() + chrono::TimeDelta::hours(3);
            let seen = given_out(&origin, &root, now, "while things move");
            assert!(seen >= newest);
            newest = seen;
            looks += 1;
        }
        (looks, newest)
    });
    for round in 1..=24_u64 {
        let version = format!("1.0.{round}");
        match round % 6 {
            1 => {
                forge.release(&version, round + 1, &[("os.img", version.as_bytes())]);
                forge.assign_privately("secret", &version);
            }
            2 => forge.renew(&["stable.secret"]),
            3 => forge.assign("early", &format!("1.0.{}", round - 2)),
            4 => forge.guard(&open),
            5 => forge.renew(&["timestamp"]),
            _ => forge.guard(&guarded),
        }
        publish_noting(&forge, &stores.open()).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        sound(&forge, &stores.open(), &format!("round {round}")).await;
    }
    stop.store(true, Ordering::SeqCst);
    let (looks, newest) = reader.join().unwrap();
    println!("{looks} looks during 24 publications, the last at timestamp {newest}");
    assert!(looks >= 24, "only {looks} looks");
}

/// Devices take a bridge through their gate, too: one that was public before is moved by hand, as the error says.
#[tokio::test]
async fn a_bridge_of_a_private_release_that_lies_open_is_named() {
    let (mut forge, places) = (Forge::with_gate(&["early", "secret"], GATE), Places::new());
    forge.release("1.0.0", 1, &[("os.img", b"public one")]);
    forge.assign("early", "1.0.0");
    places.publish(&forge).await.unwrap();
    forge.release("1.1.0", 2, &[("os.img", b"public two")]);
    forge.assign("early", "1.1.0");
    forge.release("2.0.0", 3, &[("os.img", b"secret three")]);
    places.publish(&forge).await.unwrap();
    let bridge = forge.offer("1.0.0");
    let bridge = Bridge {
        release: bridge.release,
        sequence: bridge.sequence,
        sha256: bridge.sha256,
        length: bridge.length,
        upgrade_from: "<1.0.0".parse().unwrap(),
        extra: bridge.extra,
    };
    let offer = Offer { private: true, bridges: vec![bridge], ..forge.offer("2.0.0") };
    forge.assign_all("secret", vec![offer]);
    let mut named = 0;
    loop {
        match places.publish(&forge).await {
            Ok(_) => break,
            Err(error) => {
                assert_eq!(error.broken_rule(), Some(Rule::PublishReadable), "{error}");
                let text = error.to_string();
                let key = text.split(' ').next().unwrap();
                assert!(key.starts_with("targets/stable/releases/os/1.0.0/"), "{text}");
                std::fs::remove_file(places.public().join(key)).unwrap();
                named += 1;
            }
        }
    }
    assert_eq!((named, release(&places.private(), "1.0.0").len()), (2, 2), "the manifest and the artifact");
    let (all, public) = places.verify(&forge).await;
    assert!(all.ok && public.ok, "{all}\n{public}");
}

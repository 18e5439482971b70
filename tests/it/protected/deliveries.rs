//! Chunks and patches of private releases.

use chrono::TimeDelta;
use tidegate::publish;
use tidegate_model::digest::Digest;

use super::{GATE, Places};
use crate::support::Forge;

fn keys(patch: &[u8]) -> [String; 3] {
    let key = |bytes: &[u8], kind: &str| format!("targets/stable/delivery/{}.{kind}", Digest::of(bytes));
    [key(b"an index", "index"), key(b"a pack", "pack"), key(patch, "patch")]
}

/// How many of these are at the public place, at the private one, and in the listing of the protected cohort.
fn counts(places: &Places, keys: &[String]) -> [usize; 3] {
    let listing = places.listing("stable.secret");
    let there = |place: std::path::PathBuf| keys.iter().filter(|key| place.join(key).is_file()).count();
    [there(places.public()), there(places.private()), keys.iter().filter(|key| listing.contains(*key)).count()]
}

#[tokio::test]
async fn those_of_a_private_release_are_private_until_it_is_public() {
    let (mut forge, places) = (Forge::with_gate(&["early", "secret"], GATE), Places::new());
    forge.release("1.0.0", 1, &[("os.img", b"public one")]);
    forge.assign("early", "1.0.0");
    forge.release_with("2.0.0", 2, &[("os.img", b"secret two")], Some([b"an index", b"a pack", b"a patch"]));
    forge.assign_privately("secret", "2.0.0");
    places.publish(&forge).await.unwrap();
    assert_eq!(counts(&places, &keys(b"a patch")), [0, 3, 3]);
    let (all, public) = places.verify(&forge).await;
    assert!(all.ok && public.ok, "{all}\n{public}");

    // Another private release has the same chunks, and a patch of its own.
    forge.release_with("2.1.0", 3, &[("os.img", b"secret two")], Some([b"an index", b"a pack", b"another"]));
    forge.assign_privately("secret", "2.1.0");
    places.publish(&forge).await.unwrap();
    assert_eq!(counts(&places, &keys(b"another")), [0, 3, 3]);

    // What lies open is found.
    let open = places.public().join(&keys(b"another")[2]);
    std::fs::create_dir_all(open.parent().unwrap()).unwrap();
    std::fs::write(&open, b"another").unwrap();
    let (all, _) = places.verify(&forge).await;
    assert!(all.to_string().contains("it is protected, and anyone can read it"), "{all}");
    std::fs::remove_file(&open).unwrap();

    forge.assign("early", "2.1.0");
    places.publish(&forge).await.unwrap();
    assert_eq!(counts(&places, &keys(b"another")), [3, 3, 3]);
    let (all, public) = places.verify(&forge).await;
    assert!(all.ok && public.ok, "{all}\n{public}");
    assert!(places.plan(&forge).await.unwrap().is_done());

    // The private release is no longer listed: its patch goes, the chunks stay.
    forge.pass(TimeDelta::days(3));
    forge.unlist("2.0.0");
    forge.renew(&["stable.early", "stable.secret"]);
    places.publish(&forge).await.unwrap();
    let pruning = publish::plan_prune(&places.open(), forge.now() - TimeDelta::days(1), forge.now()).await.unwrap();
    let doomed: Vec<_> = pruning.doomed.iter().map(|object| (object.private, object.key.as_str())).collect();
    assert!(doomed.contains(&(true, keys(b"a patch")[2].as_str())), "{doomed:?}");
    assert!(keys(b"another").iter().all(|key| doomed.iter().all(|(_, gone)| gone != key)), "{doomed:?}");
    publish::prune(&places.open(), &pruning, forge.now(), async || Ok(())).await.unwrap();
    assert_eq!(counts(&places, &keys(b"a patch")), [2, 2, 2]);
    let (all, public) = places.verify(&forge).await;
    assert!(all.ok && public.ok, "{all}\n{public}");
}

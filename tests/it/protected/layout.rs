//! What lies where, and in which order it comes there.

use std::collections::BTreeSet;
use tidegate::Rule;

use tidegate::audit::Check;
use tidegate::publish::{self, ObjectState, Source, UploadStage};

use super::{Places, folder, forge, release};

#[tokio::test]
async fn what_is_protected_is_in_the_private_place_alone() {
    let (mut forge, places) = (forge(), Places::new());
    let plan = places.plan(&forge).await.unwrap();
    assert_eq!(plan.private.as_deref(), places.private().to_str());
    places.publish(&forge).await.unwrap();

    assert_eq!(release(&places.public(), "1.0.0"), ["manifest.json", "os.img"]);
    assert_eq!(release(&places.public(), "2.0.0"), [""; 0]);
    assert_eq!(release(&places.private(), "2.0.0").len(), 2);
    assert_eq!(release(&places.private(), "1.0.0"), [""; 0]);
    let role = format!("metadata/{}.stable.secret.json", forge.version("stable.secret"));
    assert!(!places.public().join(&role).exists() && places.private().join(&role).exists());
    let text = std::fs::read(places.private().join(&role)).unwrap();
    assert!(String::from_utf8(text).unwrap().contains("\"private\":true"));
    // The role, the copy of the manifest, the manifest, the artifact; and all of it is there.
    let listing = places.listing("stable.secret");
    assert_eq!(listing.len(), 4, "{listing:?}");
    assert!(listing.contains(&role));
    assert!(listing.iter().all(|key| places.private().join(key).exists()), "{listing:?}");

    let (all, public) = places.verify(&forge).await;
    assert!(all.ok, "{all}");
    assert!(all.rows.iter().any(|row| row.check == Check::Protected && row.items == 4));
    assert!(all.rows.iter().any(|row| row.check == Check::SecondTargets), "both implementations saw all of it");
    assert!(public.ok, "{public}");
    assert!(public.rows.iter().any(|row| row.check == Check::Protected));

    let again = places.plan(&forge).await.unwrap();
    assert!(again.is_done(), "{:?}", again.objects);

    // Devices may still be on their way through what was live, or come by a cache that is behind: the gate goes on giving it.
    for _ in 0..3 {
        forge.renew(&["stable.secret"]);
        places.publish(&forge).await.unwrap();
    }
    forge.renew(&["timestamp"]);
    places.publish(&forge).await.unwrap();
    let next = format!("metadata/{}.stable.secret.json", forge.version("stable.secret"));
    assert!(places.listing("stable.secret").is_superset(&BTreeSet::from([role, next])));
    assert_eq!(places.listing("stable.secret").len(), 4 + 3);
    assert!(places.plan(&forge).await.unwrap().is_done());
}

/// A release that becomes public is in both places, and a public one stays public.
#[tokio::test]
async fn release_that_becomes_public_is_in_both_places() {
    let (mut forge, places) = (forge(), Places::new());
    places.publish(&forge).await.unwrap();
    forge.assign("early", "2.0.0");
    let plan = places.plan(&forge).await.unwrap();
    let targets =
        plan.objects.iter().filter(|object| object.stage == UploadStage::Target && object.key.contains("2.0.0"));
    let mut sides: Vec<_> = targets.map(|object| (object.private, object.state == ObjectState::New)).collect();
    sides.sort_unstable();
    assert_eq!(sides, [(false, true), (false, true), (true, false), (true, false)]);
    places.publish(&forge).await.unwrap();
    assert_eq!(release(&places.public(), "2.0.0").len(), 2);
    // Nobody is assigned 1.0.0 any more: it stays where it was and is no secret.
    assert_eq!(release(&places.public(), "1.0.0").len(), 2);
    assert_eq!(release(&places.private(), "1.0.0"), [""; 0]);
    let (all, public) = places.verify(&forge).await;
    assert!(all.ok && public.ok, "{all}\n{public}");
    // A new release that nobody is assigned gives nothing away either.
    forge.release("3.0.0", 3, &[("os.img", b"three")]);
    places.publish(&forge).await.unwrap();
    assert_eq!(release(&places.public(), "3.0.0"), [""; 0]);
    assert_eq!(release(&places.private(), "3.0.0").len(), 2);
    let (all, public) = places.verify(&forge).await;
    assert!(all.ok && public.ok, "{all}\n{public}");
}

#[tokio::test]
async fn a_layout_in_which_something_protected_lies_open_is_refused() {
    let (forge, places) = (forge(), Places::new());
    let source = Source::new(forge.dir());
    let error = publish::plan(&source, &folder(&places.public()), forge.now()).await.unwrap_err();
    assert_eq!((error.broken_rule(), error.kind()), (Some(Rule::PublishPrivate), tidegate::Kind::Refused), "{error}");
    assert!(!places.public().exists());

    // Each of the protected objects, put into the open: before the first publication, and after it.
    places.publish(&forge).await.unwrap();
    for key in places.listing("stable.secret") {
        let other = Places::new();
        let there = other.public().join(&key);
        std::fs::create_dir_all(there.parent().unwrap()).unwrap();
        std::fs::copy(places.private().join(&key), &there).unwrap();
        let error = other.publish(&forge).await.unwrap_err();
        assert_eq!(error.broken_rule(), Some(Rule::PublishReadable), "{error}");
        assert!(error.to_string().contains(&key) && error.remedy_text().is_some(), "{error}");

        std::fs::remove_file(&there).unwrap();
        other.publish(&forge).await.unwrap();
        std::fs::create_dir_all(there.parent().unwrap()).unwrap();
        std::fs::copy(places.private().join(&key), &there).unwrap();
        let (all, public) = other.verify(&forge).await;
        let faults: Vec<_> = all.faults.iter().map(|fault| (fault.check, fault.subject.clone())).collect();
        assert_eq!(faults, [(Check::Protected, key.clone())]);
        // Who cannot see the private place still sees that a role lies open; of a file they cannot know that it is a secret.
        assert_eq!(public.ok, !key.starts_with("metadata/"), "{key}: {public}");
    }
}

#[tokio::test]
async fn nothing_public_is_written_before_all_that_is_protected_is_there() {
    let (forge, places) = (forge(), Places::new());
    let (remote, source) = (places.open(), Source::new(forge.dir()));
    let plan = publish::plan(&source, &remote, forge.now()).await.unwrap();
    let order = std::sync::Mutex::new(Vec::new());
    publish::execute(&plan, &source, &remote, &|event| {
        if let publish::PublishEvent::Done(object, _) = event {
            order.lock().unwrap().push((object.private, object.stage));
        }
    })
    .await
    .unwrap();
    let order = order.into_inner().unwrap();
    let first_public = order.iter().position(|(private, _)| !private).unwrap();
    assert!(order[first_public..].iter().all(|(private, _)| !private), "{order:?}");
    assert_eq!(order[first_public - 1], (true, UploadStage::Listing));
    assert_eq!(order.last(), Some(&(false, UploadStage::Timestamp)));

    // Two publishers at once: whoever finds another listing than at the beginning gives way before anything goes live.
    let mut other = forge.fork();
    other.renew(&["stable.secret"]);
    let late = publish::plan(&Source::new(other.dir()), &remote, other.now()).await.unwrap();
    let listing = places.private().join("gate/stable.secret.json");
    std::fs::write(&listing, br#"{"cohort":"stable.secret","objects":["metadata/9.stable.secret.json"],"schema":1}"#)
        .unwrap();
    let error = publish::execute(&late, &Source::new(other.dir()), &remote, &|_| {}).await.unwrap_err();
    assert_eq!(error.broken_rule(), Some(Rule::PublishRace), "{error}");
    let live = std::fs::read(places.public().join("metadata/timestamp.json")).unwrap();
    assert_eq!(live, std::fs::read(forge.dir().join("metadata/timestamp.json")).unwrap());
}

//! Protected cohorts: what is meant for them is where the public cannot read it, at every instant, and nowhere else.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tidegate::Error;
use tidegate::publish::{self, PRIVATE, Plan, READABLE, Remote, Report, Source, Stage, State};
use tidegate::verify::{self, Check, Repository, View};

use crate::support::{Fleet, Forge};

const GATE: &str = "https://gate.example.com";

/// Two places beside each other.
struct Places(tempfile::TempDir);

impl Places {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn public(&self) -> std::path::PathBuf {
        self.0.path().join("public")
    }

    fn private(&self) -> std::path::PathBuf {
        self.0.path().join("private")
    }

    fn open(&self) -> Remote {
        folder(&self.public()).with_private(folder(&self.private())).unwrap()
    }

    async fn plan(&self, forge: &Forge) -> Result<Plan, Error> {
        publish::plan(&Source::new(forge.dir()), &self.open(), forge.now()).await
    }

    async fn publish(&self, forge: &Forge) -> Result<Report, Error> {
        let (remote, source) = (self.open(), Source::new(forge.dir()));
        let plan = publish::plan(&source, &remote, forge.now()).await?;
        let report = publish::execute(&plan, &source, &remote, &|_| {}).await?;
        let audit = publish::read_back(&plan, &source, &remote, forge.now()).await?;
        assert!(audit.ok, "{audit}");
        Ok(report)
    }

    /// What is in the two places, by two implementations, and then as the public sees it.
    async fn verify(&self, forge: &Forge) -> (verify::Report, verify::Report) {
        let open = |path: &Path| Arc::new(Repository::open(path.to_str().unwrap()).unwrap());
        let all = View::both(open(&self.public()), open(&self.private()));
        let now = chrono::Utc::now();
        let all = verify::verify_where(all, "both", forge.root(), now, Arc::new(|_| true)).await.unwrap();
        let public = View::public(open(&self.public()));
        let public = verify::verify_where(public, "public", forge.root(), now, Arc::new(|_| true)).await.unwrap();
        (all, public)
    }

    fn listing(&self, role: &str) -> BTreeSet<String> {
        let bytes = std::fs::read(self.private().join(format!("gate/{role}.json"))).unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["cohort"], role);
        value["objects"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect()
    }
}

fn folder(path: &Path) -> Remote {
    Remote::open(path.to_str().unwrap()).unwrap()
}

/// All objects below a folder.
fn objects(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                pending.push(entry.path());
            } else if entry.file_name() != ".publish.lock" {
                found.insert(entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// The objects of a release below a folder, without their hashes.
fn release(dir: &Path, version: &str) -> Vec<String> {
    let folder = format!("targets/stable/releases/os/{version}/");
    let names =
        objects(dir).into_iter().filter_map(|key| Some(key.strip_prefix(&folder)?.split_once('.')?.1.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names
}

fn forge() -> Forge {
    let mut forge = Forge::with_gate(&["early", "secret"], GATE);
    forge.release("1.0.0", 1, &[("os.img", b"public one")]);
    forge.assign("early", "1.0.0");
    forge.release("2.0.0", 2, &[("os.img", b"secret two")]);
    forge.assign_privately("secret", "2.0.0");
    forge
}

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

    // Devices may still be on their way through what was live: the gate goes on giving it.
    forge.renew(&["stable.secret"]);
    places.publish(&forge).await.unwrap();
    let next = format!("metadata/{}.stable.secret.json", forge.version("stable.secret"));
    assert!(places.listing("stable.secret").is_superset(&BTreeSet::from([role.clone(), next.clone()])));
    assert!(places.plan(&forge).await.unwrap().is_done());
    forge.renew(&["stable.secret"]);
    places.publish(&forge).await.unwrap();
    assert!(places.listing("stable.secret").contains(&next) && !places.listing("stable.secret").contains(&role));
}

#[tokio::test]
async fn a_release_that_becomes_public_is_in_both_places_and_a_public_one_stays() {
    let (mut forge, places) = (forge(), Places::new());
    places.publish(&forge).await.unwrap();
    forge.assign("early", "2.0.0");
    let plan = places.plan(&forge).await.unwrap();
    let targets = plan.objects.iter().filter(|object| object.stage == Stage::Target && object.key.contains("2.0.0"));
    let mut sides: Vec<_> = targets.map(|object| (object.private, object.state == State::New)).collect();
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
    assert_eq!((error.rule_id(), error.kind()), (Some(PRIVATE), tidegate::Kind::Refused), "{error}");
    assert!(!places.public().exists());

    // Each of the protected objects, put into the open: before the first publication, and after it.
    places.publish(&forge).await.unwrap();
    for key in places.listing("stable.secret") {
        let other = Places::new();
        let there = other.public().join(&key);
        std::fs::create_dir_all(there.parent().unwrap()).unwrap();
        std::fs::copy(places.private().join(&key), &there).unwrap();
        let error = other.publish(&forge).await.unwrap_err();
        assert_eq!(error.rule_id(), Some(READABLE), "{error}");
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
        if let publish::Event::Done(object, _) = event {
            order.lock().unwrap().push((object.private, object.stage));
        }
    })
    .await
    .unwrap();
    let order = order.into_inner().unwrap();
    let first_public = order.iter().position(|(private, _)| !private).unwrap();
    assert!(order[first_public..].iter().all(|(private, _)| !private), "{order:?}");
    assert_eq!(order[first_public - 1], (true, Stage::Listing));
    assert_eq!(order.last(), Some(&(false, Stage::Timestamp)));

    // Two publishers at once: whoever finds another listing than at the beginning gives way before anything goes live.
    let mut other = forge.fork();
    other.renew(&["stable.secret"]);
    let late = publish::plan(&Source::new(other.dir()), &remote, other.now()).await.unwrap();
    let listing = places.private().join("gate/stable.secret.json");
    std::fs::write(&listing, br#"{"cohort":"stable.secret","objects":["metadata/9.stable.secret.json"],"schema":1}"#)
        .unwrap();
    let error = publish::execute(&late, &Source::new(other.dir()), &remote, &|_| {}).await.unwrap_err();
    assert_eq!(error.rule_id(), Some(publish::RACE), "{error}");
    let live = std::fs::read(places.public().join("metadata/timestamp.json")).unwrap();
    assert_eq!(live, std::fs::read(forge.dir().join("metadata/timestamp.json")).unwrap());
}

#[tokio::test]
async fn pruning_copying_and_taking_over_know_the_private_place() {
    let (forge, places) = (forge(), Places::new());
    places.publish(&forge).await.unwrap();
    let far = forge.now() + chrono::TimeDelta::days(400);
    let error =
        publish::plan_prune(&folder(&places.public()), far, far + chrono::TimeDelta::days(30)).await.unwrap_err();
    assert!(error.remedy_text().unwrap().contains("--private"), "{error}");
    let pruning = publish::plan_prune(&places.open(), far, far + chrono::TimeDelta::days(30)).await.unwrap();
    assert_eq!(pruning.doomed, [], "all that is there is needed");
    // A secret that lies open is not needed there.
    let key = places.listing("stable.secret").into_iter().find(|key| key.contains("2.0.0")).unwrap();
    std::fs::create_dir_all(places.public().join(&key).parent().unwrap()).unwrap();
    std::fs::copy(places.private().join(&key), places.public().join(&key)).unwrap();
    let pruning = publish::plan_prune(&places.open(), far, far + chrono::TimeDelta::days(30)).await.unwrap();
    assert_eq!(pruning.doomed.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), [key.as_str()]);
    std::fs::remove_file(places.public().join(&key)).unwrap();

    let copy = Places::new();
    let (source, plan) = publish::plan_sync(&places.open(), &copy.open(), &forge.root(), forge.now()).await.unwrap();
    publish::execute(&plan, &source, &copy.open(), &|_| {}).await.unwrap();
    assert_eq!(objects(&copy.public()), objects(&places.public()));
    assert_eq!(objects(&copy.private()), objects(&places.private()));
    let error = publish::plan_sync(&places.open(), &folder(&Places::new().public()), &forge.root(), forge.now()).await;
    assert_eq!(error.unwrap_err().rule_id(), Some(PRIVATE));
}

#[test]
fn an_assignment_says_whether_its_release_is_public_and_what_was_public_stays_so() {
    let of = |standings: &[tidegate::rollout::CohortStanding], cohort: &str| {
        let standing = standings.iter().find(|standing| standing.cohort.as_str() == cohort).unwrap();
        standing.assignment.as_ref().map(|assignment| assignment.private)
    };
    // The validation cohort is public, and has the release from the start: so it is for all to read.
    let fleet = fleet_with_protected(&["canary"]);
    let spec = fleet.release("1.0.0", |_| ());
    let standings = fleet.start(&spec);
    assert_eq!(of(&standings, "early"), None);
    assert_eq!((of(&standings, "validation"), of(&standings, "canary")), (Some(false), Some(false)));

    let mut fleet = fleet_with_protected(&["validation", "canary"]);
    let spec = fleet.release("1.0.0", |_| ());
    let standings = fleet.start(&spec);
    assert_eq!((of(&standings, "validation"), of(&standings, "canary")), (Some(true), Some(true)));
    fleet.pass(48);
    fleet.validate(&spec);
    let standings = fleet.advance(&spec, 24).unwrap();
    assert_eq!(of(&standings, "early"), Some(false));
    assert_eq!(
        (of(&standings, "validation"), of(&standings, "canary")),
        (Some(false), Some(false)),
        "no secret any more"
    );
}

/// A fleet some of whose cohorts are protected: marked in `cohorts.toml`, and signed at a ceremony.
fn fleet_with_protected(cohorts: &[&str]) -> Fleet {
    let fleet = Fleet::new();
    let path = fleet.path().join("cohorts.toml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    for cohort in cohorts {
        let name = format!("name = \"{cohort}\"\n");
        assert!(text.contains(&name));
        text = text.replacen(&name, &format!("{name}protected = {{ gate = \"{GATE}\" }}\n"), 1);
    }
    std::fs::write(&path, text).unwrap();
    let roles = |fleet: &Fleet| {
        let repository = fleet.open().0.repository().unwrap();
        let versions = repository.roles().map(|file| (file.name.clone(), file.version));
        versions.collect::<std::collections::BTreeMap<_, _>>()
    };
    let before = roles(&fleet);
    let run = |args: &[&str]| {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["--now", "2026-11-25T00:00:00Z", "-C"])
            .arg(fleet.path())
            .args(args)
            .output()
            .unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    run(&["ceremony", "start"]);
    let shown = run(&["ceremony", "show"]);
    let digest = shown.lines().find_map(|line| line.strip_prefix("digest")).unwrap().trim();
    run(&["ceremony", "sign", "--key", "release-1", "--key", "release-2", "--confirm", &digest[..8]]);
    run(&["ceremony", "finish"]);
    let after = roles(&fleet);
    for cohort in ["validation", "canary", "early", "general"] {
        let role = format!("stable.{cohort}");
        // The version that the public could read is not the one that is kept from it.
        assert_eq!(after[&role] > before[&role], cohorts.contains(&cohort), "{role}");
    }
    fleet
}

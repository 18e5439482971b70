//! Chunks and patches of releases: made, checked, published with what names them, and removed with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::TimeDelta;
use tidegate::Rule;
use tidegate::audit::{self, AuditReport, PublishedRepository};
use tidegate::publish::{self, Remote, Source};
use tidegate::release::delivery::{PatchBases, PatchOutcome};
use tidegate::release::draft::{self, NewArtifact, NewRelease};
use tidegate::release::record::{Record, ReleaseSpec};
use tidegate::release::report::Verdict;
use tidegate::workspace::{Operation, Workspace};
use tidegate::{ceremony, validate};
use tidegate_client::clock::StubClock;
use tidegate_client::device::Device;
use tidegate_client::install::{SlotImage, SlotInstaller, StubBoot};
use tidegate_client::updater::Repository as Published;
use tidegate_client::watch::unwatched;
use tidegate_model::delivery::{Delivery, PatchList};
use tidegate_model::digest::Digest;
use tidegate_model::receipt::DeliveryWay;

use crate::publishers::{publish_noting, put_live};
use crate::support::{Fleet, Forge, Serving};

const INDEX: &[u8] = b"an index";
const PACK: &[u8] = b"a pack";
const PATCH: &[u8] = b"a patch";

fn folder(path: &Path) -> Remote {
    Remote::open(path.to_str().unwrap()).unwrap()
}

fn key(bytes: &[u8], kind: &str) -> String {
    format!("targets/stable/delivery/{}.{kind}", Digest::of(bytes))
}

fn keys(patch: &[u8]) -> [String; 3] {
    [key(INDEX, "index"), key(PACK, "pack"), key(patch, "patch")]
}

async fn verify(forge: &Forge, place: &Path) -> AuditReport {
    let origin = Arc::new(PublishedRepository::open(place.to_str().unwrap()).unwrap());
    audit::verify(origin, "the place", forge.root(), forge.now()).await.unwrap()
}

/// A workspace with two releases; the later one has chunks and a patch.
fn workspace() -> Forge {
    let mut forge = Forge::new(&["early"]).with_settings();
    forge.release("1.0.0", 1, &[("os.img", b"one")]);
    forge.release_with("1.1.0", 2, &[("os.img", b"two")], Some([INDEX, PACK, PATCH]));
    forge.assign("early", "1.1.0");
    forge
}

#[tokio::test]
async fn they_are_published_with_their_manifest_and_verified() {
    let (forge, dir) = (workspace(), tempfile::tempdir().unwrap());
    let place = dir.path().join("place");
    put_live(&forge, &folder(&place)).await.unwrap();
    for key in keys(PATCH) {
        assert!(place.join(&key).is_file(), "{key}");
    }
    assert!(verify(&forge, &place).await.ok);
    let again = publish::plan(&Source::new(forge.dir()), &folder(&place), forge.now()).await.unwrap();
    assert!(again.is_done() && again.requests == 3, "no manifest is read for what is there: {}", again.requests);

    let patch = place.join(key(PATCH, "patch"));
    fs::write(&patch, b"b patch").unwrap();
    let report = verify(&forge, &place).await.to_string();
    assert!(report.contains("stable/releases/os/1.1.0/manifest.json"), "{report}");
    fs::remove_file(&patch).unwrap();
    let report = verify(&forge, &place).await.to_string();
    assert!(report.contains(&format!("{} is missing", key(PATCH, "patch"))), "{report}");
}

#[tokio::test]
async fn nothing_is_published_if_one_is_not_here() {
    let (forge, dir) = (workspace(), tempfile::tempdir().unwrap());
    fs::remove_file(forge.dir().join(format!("artifacts/sha256/{}", Digest::of(PACK)))).unwrap();
    let place = dir.path().join("place");
    let error = put_live(&forge, &folder(&place)).await.unwrap_err();
    assert!(error.to_string().contains(&key(PACK, "pack")), "{error}");
    assert!(error.remedy_text().unwrap().contains("tidegate pull FROM --artifacts"), "{error}");
    assert!(!place.exists());
}

#[tokio::test]
async fn they_are_copied_and_pulled_with_the_artifacts() {
    let (forge, dir) = (workspace(), tempfile::tempdir().unwrap());
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    put_live(&forge, &folder(&first)).await.unwrap();
    let (source, plan) =
        publish::plan_sync(&folder(&first), &folder(&second), &forge.root(), forge.now()).await.unwrap();
    publish::execute(&plan, &source, &folder(&second), &|_| {}).await.unwrap();
    assert!(verify(&forge, &second).await.ok);

    let lacks = |dir: &Path| {
        let files = [INDEX, PACK, PATCH].map(|bytes| dir.join(format!("artifacts/sha256/{}", Digest::of(bytes))));
        files.iter().filter(|file| !file.exists()).count()
    };
    for (artifacts, expected) in [(false, 3), (true, 0)] {
        let new = tempfile::tempdir().unwrap();
        let taking = publish::PullOptions {
            actor: "test",
            now: forge.now(),
            artifacts,
            redate: false,
            patience: TimeDelta::zero(),
        };
        let mut nobody = tidegate::keys::NoPassphrases;
        publish::recreate(new.path(), &folder(&second), &forge.root(), &taking, &mut nobody).await.unwrap();
        assert_eq!(lacks(new.path()), expected);
        let record = tidegate::release::record::all(new.path()).unwrap().pop().unwrap();
        assert_eq!(record.artifacts[0].delivery.as_ref().unwrap().patches.len(), 1);
    }
}

#[tokio::test]
async fn they_are_removed_once_no_manifest_names_them() {
    let (mut forge, dir) = (workspace(), tempfile::tempdir().unwrap());
    forge.release_with("1.2.0", 3, &[("os.img", b"two")], Some([INDEX, PACK, b"another"]));
    forge.pass(TimeDelta::days(3));
    forge.renew(&["stable.early"]);
    let place = dir.path().join("place");
    publish_noting(&forge, &folder(&place)).await.unwrap();
    let plan = async |forge: &Forge| {
        let now = forge.now();
        publish::plan_prune(&folder(&place), now - TimeDelta::days(1), now).await.unwrap()
    };
    assert!(plan(&forge).await.is_done(), "all is needed");

    forge.assign("early", "1.2.0");
    forge.unlist("1.1.0");
    publish_noting(&forge, &folder(&place)).await.unwrap();
    let doomed: BTreeSet<String> = plan(&forge).await.doomed.into_iter().map(|object| object.key).collect();
    assert!(doomed.contains(&key(PATCH, "patch")), "{doomed:?}");
    assert!(keys(b"another").iter().all(|key| !doomed.contains(key)), "{doomed:?}");
}

/// A fleet in which chunks and patches are made of small files as well.
fn fleet() -> Fleet {
    fleet_with("")
}

/// The same with more settings.
fn fleet_with(settings: &str) -> Fleet {
    Fleet::shaped(|name, text| match name {
        "tidegate.toml" => format!("{text}\n[delivery]\nminimum_bytes = 10_000\n{settings}"),
        _ => text,
    })
}

/// Bytes that do not compress.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[1]
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn build(fleet: &Fleet, image: &[u8]) {
    fs::write(fleet.path().with_file_name("image.bin"), image).unwrap();
}

/// An image, and the next one, of which some bytes in the middle are others.
fn images() -> [Vec<u8>; 2] {
    let old = noise(150_000);
    let mut new = old.clone();
    new[70_000..70_100].fill(7);
    [old, new]
}

/// A fleet that may run 1.0.0, with the next image built.
fn fleet_with_a_release() -> Fleet {
    after_a_release(fleet())
}

fn after_a_release(fleet: Fleet) -> Fleet {
    let [old, new] = images();
    build(&fleet, &old);
    fleet.release("1.0.0", |_| ());
    build(&fleet, &new);
    fleet
}

fn record(fleet: &Fleet, version: &str) -> Record {
    let spec: ReleaseSpec = version.parse().unwrap();
    spec.find(&fleet.path()).unwrap()
}

fn delivery(fleet: &Fleet, version: &str) -> Delivery {
    record(fleet, version).artifacts[0].delivery.clone().unwrap()
}

fn in_store(fleet: &Fleet, sha256: &Digest) -> PathBuf {
    fleet.path().join(format!("artifacts/sha256/{sha256}"))
}

/// Everything in the store, with what was noted of it.
fn stored(fleet: &Fleet) -> BTreeSet<PathBuf> {
    let folders = ["artifacts/sha256", "artifacts/delivery"].map(|folder| fleet.path().join(folder));
    folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().map(|entry| entry.unwrap().path()).collect()
}

fn operate<T>(fleet: &Fleet, work: impl FnOnce(&mut Operation<'_>) -> T) -> T {
    let (workspace, mut ring) = fleet.open();
    work(&mut Operation::new(&workspace, "tester", fleet.now, &mut ring))
}

#[test]
fn a_release_has_chunks_and_a_patch_from_what_devices_may_run() {
    let fleet = fleet_with_a_release();
    assert_eq!(delivery(&fleet, "1.0.0").patches, []);
    let spec = fleet.draft("1.1.0", |_| ());
    let made = delivery(&fleet, "1.1.0");
    let [patch] = made.patches.as_slice() else { panic!("{made:?}") };
    assert_eq!((patch.from.version.to_string().as_str(), patch.from.sha256), ("1.0.0", Digest::of(&images()[0])));
    assert!(patch.length < 2_000 && made.pack.length > 100_000, "{made:?}");
    let (manifest, _) = record(&fleet, "1.1.0").manifest(&fleet.path()).unwrap();
    assert_eq!(manifest.artifacts[0].delivery.as_ref(), Some(&made), "signers sign it");
    for sha256 in [made.index.sha256, made.pack.sha256, patch.sha256] {
        assert_eq!(Digest::of(&fs::read(in_store(&fleet, &sha256)).unwrap()), sha256);
    }

    // The same is not made twice.
    let before = fs::metadata(in_store(&fleet, &patch.sha256)).unwrap().modified().unwrap();
    operate(&fleet, |op| draft::unfreeze(op, &spec)).unwrap();
    assert_eq!(delivery(&fleet, "1.1.0").patches, []);
    let frozen = operate(&fleet, |op| draft::manifest(op, &spec)).unwrap();
    assert_eq!(frozen.patches[0].outcome, PatchOutcome::Made);
    assert_eq!(delivery(&fleet, "1.1.0"), made);
    assert_eq!(fs::metadata(in_store(&fleet, &patch.sha256)).unwrap().modified().unwrap(), before);

    // What is frozen gets no other patches.
    let none = PatchBases::These(Vec::new());
    let error = operate(&fleet, |op| draft::manifest_from(op, &spec, &none, |_| ())).unwrap_err();
    assert_eq!(error.broken_rule(), Some(Rule::ReleaseFrozen));
    operate(&fleet, |op| draft::unfreeze(op, &spec)).unwrap();
    operate(&fleet, |op| draft::manifest_from(op, &spec, &none, |_| ())).unwrap();
    assert_eq!(delivery(&fleet, "1.1.0").patches, []);
}

#[test]
fn a_patch_that_is_not_smaller_than_the_chunks_is_dropped() {
    let fleet = fleet_with_a_release();
    let spec = fleet.draft("1.1.0", |_| ());
    let patch = delivery(&fleet, "1.1.0").patches[0].clone();
    operate(&fleet, |op| draft::unfreeze(op, &spec)).unwrap();
    // As if it had come out as long as the artifact.
    let [old, new] = images();
    let note = fleet.path().join(format!("artifacts/delivery/{}-{}.json", Digest::of(&old), Digest::of(&new)));
    let text = fs::read_to_string(&note).unwrap().replace(&format!("\"length\":{}", patch.length), "\"length\":150000");
    fs::write(&note, text).unwrap();
    let frozen = operate(&fleet, |op| draft::manifest(op, &spec)).unwrap();
    assert_eq!((frozen.patches[0].outcome, frozen.patches[0].length), (PatchOutcome::NotSmaller, Some(150_000)));
    assert!(frozen.patches[0].chunks.unwrap() < 80_000, "{:?}", frozen.patches);
    assert_eq!(delivery(&fleet, "1.1.0").patches, []);
    assert!(!in_store(&fleet, &patch.sha256).exists());
}

#[test]
fn older_bytes_that_are_not_here_make_no_patch() {
    let fleet = fleet_with_a_release();
    fs::remove_file(in_store(&fleet, &Digest::of(&images()[0]))).unwrap();
    let spec = fleet.draft("1.1.0", |_| ());
    assert_eq!(delivery(&fleet, "1.1.0").patches, []);
    operate(&fleet, |op| draft::unfreeze(op, &spec)).unwrap();
    let frozen = operate(&fleet, |op| draft::manifest(op, &spec)).unwrap();
    assert_eq!(frozen.patches[0].outcome, PatchOutcome::NotHere);
    operate(&fleet, |op| draft::unfreeze(op, &spec)).unwrap();
    let named = PatchBases::These(vec!["1.0.0".parse().unwrap()]);
    let error = operate(&fleet, |op| draft::manifest_from(op, &spec, &named, |_| ())).unwrap_err();
    assert!(error.remedy_text().unwrap().contains("tidegate pull PLACE --artifacts"), "{error}");
}

#[test]
fn a_refused_or_dry_run_leaves_nothing_behind() {
    let fleet = fleet_with_a_release();
    let before = stored(&fleet);
    let file = fleet.path().with_file_name("image.bin");
    let create = |bases: &PatchBases, dry_run: bool| {
        let new = NewRelease::of("1.1.0".parse().unwrap(), "ci".parse().unwrap());
        let hardware = BTreeSet::from(["board-a".parse().unwrap()]);
        let artifact = NewArtifact { file: &file, name: None, hardware, media_type: None, replace: false };
        operate(&fleet, |op| draft::create(op, new, &[artifact], bases, dry_run, |_| ()))
    };
    let unknown = PatchBases::These(vec!["9.9.9".parse().unwrap()]);
    let error = create(&unknown, false).unwrap_err();
    assert!(error.to_string().contains("there is no release 9.9.9"), "{error}");
    assert_eq!(stored(&fleet), before);
    create(&PatchBases::Newest, true).unwrap();
    assert_eq!(stored(&fleet), before);
    create(&PatchBases::Newest, false).unwrap();
    assert_eq!(delivery(&fleet, "1.1.0").patches.len(), 1);
    let after = stored(&fleet);
    // A pack of noise has the bytes of the artifact.
    assert_eq!(after.difference(&before).count(), 5, "artifact, index, patch, two notes: {before:?} {after:?}");
}

#[test]
fn others_work_on_the_workspace_while_something_is_made() {
    let fleet = fleet();
    let (workspace, _) = fleet.open();
    workspace.unlocked(|| Workspace::open(&fleet.path()).map(drop)).unwrap();
    let lock = fs::File::open(fleet.path().join(".tidegate/lock")).unwrap();
    assert!(matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)), "it is locked again");
    drop(workspace);
}

#[test]
fn validation_makes_the_artifact_of_chunks_and_patches() {
    let fleet = fleet_with_a_release();
    let spec = fleet.draft("1.1.0", |_| ());
    fleet.sign(&spec).unwrap();
    let finding = || {
        let report = operate(&fleet, |op| validate::validate(op, &spec, &validate::Options::default())).unwrap().1;
        report.findings.into_iter().find(|finding| finding.rule == "V-ART-08").unwrap()
    };
    let found = finding();
    assert_eq!((found.verdict, found.detail.as_str()), (Verdict::Pass, "made from chunks: 1, by patches: 1"));

    let made = delivery(&fleet, "1.1.0");
    for (sha256, named) in [
        (made.patches[0].sha256, "the patch of image.bin from 1.0.0"),
        (made.pack.sha256, "the chunks of image.bin"),
        (made.index.sha256, "the chunks of image.bin"),
    ] {
        let path = in_store(&fleet, &sha256);
        let intact = fs::read(&path).unwrap();
        let mut damaged = intact.clone();
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(&path, damaged).unwrap();
        let found = finding();
        assert!(found.verdict == Verdict::Fail && found.detail.contains(named), "{found:?}");
        fs::write(&path, intact).unwrap();
    }
    fs::remove_file(in_store(&fleet, &Digest::of(&images()[0]))).unwrap();
    let found = finding();
    assert!(found.verdict == Verdict::Warn && found.detail.contains("tidegate pull PLACE --artifacts"), "{found:?}");
}

#[tokio::test]
async fn patches_made_later_are_listed_beside_the_manifest_once_the_channel_signs() {
    let fleet = after_a_release(fleet_with("patches_from = 0\n"));
    let spec = fleet.release("1.1.0", |_| ());
    assert_eq!(delivery(&fleet, "1.1.0").patches, []);
    let from = ["1.0.0".parse().unwrap()];
    let later = |op: &mut Operation<'_>| tidegate::release::delivery::later(op, &spec, &from, |_| ());
    let made = operate(&fleet, |op| later(op)).unwrap();
    assert_eq!(made.reports[0].outcome, PatchOutcome::Made);
    operate(&fleet, |op| ceremony::start(op, made.request.as_ref().unwrap())).unwrap();
    fleet.finish_ceremony().unwrap();

    let listed_at = "stable/patches/os/1.1.0/image.bin.json";
    let dir = fleet.path();
    let repository = fleet.open().0.repository().unwrap();
    let listed = *repository.targets("stable").unwrap().targets[listed_at].hashes.sha256_digest().unwrap();
    let list = fs::read(dir.join(format!("artifacts/signed/{}", Digest::from(listed)))).unwrap();
    let patch = PatchList::parse(&list).unwrap().patches[0].clone();
    let report = operate(&fleet, |op| validate::validate(op, &spec, &validate::Options::default())).unwrap().1;
    let found = report.findings.iter().find(|finding| finding.rule == "V-ART-08").unwrap();
    assert_eq!(found.detail, "made from chunks: 1, by patches: 1");
    let again = operate(&fleet, |op| later(op)).unwrap();
    assert!(again.request.is_none() && again.reports.is_empty(), "it is listed already");

    let place = tempfile::tempdir().unwrap();
    let (source, remote) = (Source::new(&dir), folder(place.path()));
    let plan = publish::plan(&source, &remote, fleet.now).await.unwrap();
    publish::execute(&plan, &source, &remote, &|_| {}).await.unwrap();
    assert!(place.path().join(format!("targets/stable/delivery/{}.patch", patch.sha256)).is_file());
    let origin = Arc::new(PublishedRepository::open(place.path().to_str().unwrap()).unwrap());
    let root = fs::read(dir.join("metadata/1.root.json")).unwrap();
    let report = audit::verify(origin, "the place", root, fleet.now).await.unwrap();
    assert!(report.ok, "{report}");
}

/// From the files of a build to the slot of a device.
#[tokio::test]
async fn a_device_fills_its_slot_by_the_patch() {
    let mut fleet = fleet();
    let [old, new] = images();
    build(&fleet, &old);
    let first = fleet.release("1.0.0", |_| ());
    fleet.everywhere(&first);
    build(&fleet, &new);
    let second = fleet.release("1.1.0", |_| ());
    fleet.everywhere(&second);
    let (place, dir) = (tempfile::tempdir().unwrap(), fleet.path());
    let (source, remote) = (Source::new(&dir), folder(place.path()));
    let plan = publish::plan(&source, &remote, fleet.now).await.unwrap();
    publish::execute(&plan, &source, &remote, &|_| {}).await.unwrap();

    let serving = Serving::start(place.path()).await;
    let (board, url, now) = (tempfile::tempdir().unwrap(), serving.url(), fleet.now);
    let root = fs::read(dir.join("metadata/1.root.json")).unwrap();
    fs::write(board.path().join("a"), &old).unwrap();
    let update = move || {
        let slots = SlotImage::only(board.path().join("a"), board.path().join("b"));
        let mut device = Device::builder()
            .root(root)
            .repository(Published::at(&url).unwrap())
            .state_dir(board.path().join("state"))
            .id("device-1".parse().unwrap())
            .channel("stable".parse().unwrap())
            .product("os".parse().unwrap())
            .hardware("board-a".parse().unwrap())
            .factory("1.0.0".parse().unwrap(), 1)
            .clock(StubClock::at(now))
            .installer(SlotInstaller::new(vec![slots], StubBoot::new()).unwrap())
            .open()
            .unwrap();
        let check = device.check().unwrap();
        let update = check.update.unwrap();
        let way = &update.artifacts[0].ways[0];
        assert_eq!(
            (way.way, way.from.as_ref().map(ToString::to_string).as_deref()),
            (DeliveryWay::Patch, Some("1.0.0"))
        );
        let downloaded = device.download(&update, &mut unwatched).unwrap();
        device.install(&downloaded, &mut unwatched).unwrap();
        fs::read(board.path().join("b")).unwrap()
    };
    assert!(tokio::task::spawn_blocking(update).await.unwrap() == new);
    let log = serving.take_log();
    let asked = |kind: &str| log.iter().filter(|(path, _)| path.ends_with(kind)).count();
    assert!(asked(".patch") > 0, "{log:?}");
    assert_eq!((asked(".pack"), asked(".index"), asked("image.bin")), (0, 0, 0), "{log:?}");
}

//! The same behaviour at every store: real servers that speak S3.

use object_store::{Attribute, ObjectStoreExt as _};
use tidegate::Kind;
use tidegate::publish::{self, Concurrency, Options, Remote, Source, State};
use tidegate::verify;

use crate::support::Forge;
use crate::support::s3::{BUCKET, S3};

async fn publish(forge: &Forge, remote: &Remote) -> tidegate::error::Result<publish::Report> {
    let source = Source::new(forge.dir());
    let plan = publish::plan(&source, remote, forge.now()).await?;
    publish::execute(&plan, &source, remote, &|_| {}).await
}

/// A workspace with a release, some of it in several parts.
fn workspace() -> Forge {
    let mut forge = Forge::new(&["early", "late"]);
    forge.release("1.0.0", 1, &[("rootfs.img", &noise((20 << 20) + 5)), ("boot.img", b"boot one")]);
    forge.assign("early", "1.0.0");
    forge
}

/// Bytes that no compression makes small.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(next());
    }
    bytes.truncate(length);
    bytes
}

async fn audit(forge: &Forge, remote: &Remote) {
    let origin = std::sync::Arc::new(publish::StoreOrigin::new(remote.clone()));
    let report = verify::verify(origin, "the place", forge.root(), chrono::Utc::now()).await.unwrap();
    assert!(report.ok, "{report}");
}

/// What every store must do.
async fn suite(s3: &S3, remote: &Remote, prefix: &str) {
    let mut forge = workspace();
    let report = publish(&forge, remote).await.unwrap();
    assert_eq!((report.written, report.found), (12, 0), "{report:?}");
    audit(&forge, remote).await;

    // Unchanged: three requests, no listing.
    let source = Source::new(forge.dir());
    let again = publish::plan(&source, remote, forge.now()).await.unwrap();
    assert!(again.is_done());
    assert_eq!((again.requests, again.totals().requests), (3, 0));

    // What caches and devices need to know is on the far side.
    let store = s3.store();
    for object in &again.objects {
        let found = store.get(&format!("{prefix}/{}", object.key).as_str().into()).await.unwrap();
        let header = |attribute: &Attribute| found.attributes.get(attribute).map(|value| value.as_ref().to_owned());
        let (cache, kind) = (header(&Attribute::CacheControl).unwrap(), header(&Attribute::ContentType).unwrap());
        let expected = if object.key == "metadata/timestamp.json" {
            "public, max-age=60"
        } else {
            "public, max-age=31536000, immutable"
        };
        assert_eq!(cache, expected, "{}", object.key);
        let expected = if object.key.ends_with(".json") { "application/json" } else { "application/octet-stream" };
        // SeaweedFS takes application/octet-stream for none given, and guesses one from the name.
        assert!(
            kind == expected || (expected != "application/json" && kind != "application/json"),
            "{}: {kind}",
            object.key
        );
        assert_eq!(object.state, State::Unchanged);
    }

    // A change, and a race that is lost.
    let mut other = forge.fork();
    forge.assign("late", "1.0.0");
    other.renew(&["stable.early"]);
    let late = publish::plan(&Source::new(other.dir()), remote, other.now()).await.unwrap();
    publish(&forge, remote).await.unwrap();
    let lost = publish::execute(&late, &Source::new(other.dir()), remote, &|_| {}).await.unwrap_err();
    assert_eq!((lost.kind(), lost.rule_id()), (Kind::Conflict, Some(publish::RACE)), "{lost}");
    audit(&forge, remote).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_this_process() {
    let s3 = S3::here().await;
    suite(&s3, &s3.remote("a/b").danger_assume_conditional(), "a/b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moto() {
    let Some(s3) = S3::moto() else { return };
    let mut remote = s3.remote("a/b");
    assert_eq!(remote.concurrency(), Concurrency::Unknown);
    remote.settle(false, chrono::Utc::now()).await.unwrap();
    assert_eq!(remote.concurrency(), Concurrency::Conditional);
    suite(&s3, &remote, "a/b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seaweedfs() {
    let Some(s3) = S3::seaweed().await else { return };
    let mut remote = s3.remote("a/b");
    remote.settle(false, chrono::Utc::now()).await.unwrap();
    assert_eq!(remote.concurrency(), Concurrency::Conditional);
    suite(&s3, &remote, "a/b").await;
    refusals(&s3).await;
}

/// Wrong keys and wrong buckets are told for what they are, without the keys.
async fn refusals(s3: &S3) {
    let forge = Forge::new(&["early"]);
    let mut variables = s3.variables();
    for (name, value) in &mut variables {
        if name == "AWS_SECRET_ACCESS_KEY" {
            *value = "not-the-secret-of-anyone".into();
        }
    }
    let options = Options { variables: variables.into_iter().collect(), ..s3.options() };
    let wrong = Remote::open_with(&format!("s3://{BUCKET}/x"), &options).unwrap();
    let error = publish(&forge, &wrong).await.unwrap_err();
    let said = format!("{error:?} {:?}", std::error::Error::source(&error).map(ToString::to_string));
    assert!(said.contains("SignatureDoesNotMatch"), "{said}");
    assert!(!said.contains("not-the-secret-of-anyone"), "{said}");
    assert!(error.remedy_text().unwrap().contains("check the credentials"), "{said}");

    let nowhere = Remote::open_with("s3://no-such-bucket/x", &s3.options()).unwrap();
    let error = publish(&forge, &nowhere).await.unwrap_err();
    assert!(error.remedy_text().unwrap().contains("bucket"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_conditions_are_not_atomic_is_found_out_and_needs_a_single_writer() {
    let (s3, memory) = (S3::here().await, tempfile::tempdir().unwrap());
    let options = s3.options().in_workspace(memory.path());
    let place = format!("s3://{BUCKET}/p");
    let mut remote = Remote::open_with(&place, &options).unwrap();
    let now = chrono::Utc::now();
    let error = remote.settle(false, now).await.unwrap_err();
    assert_eq!((error.kind(), error.rule_id()), (Kind::Refused, Some("P-SINGLE-WRITER")), "{error}");
    assert!(error.remedy_text().unwrap().contains("--single-writer"), "{error}");
    remote.settle(true, now).await.unwrap();
    assert_eq!(remote.concurrency(), Concurrency::SingleWriter);
    let probes = s3.folder.as_ref().unwrap().join("p").join(publish::PROBE);
    assert_eq!(std::fs::read_dir(probes).map_or(0, Iterator::count), 0, "nothing of the probe is left");

    // The answer is remembered: no second probe, even if the server is gone.
    let gone = Options { retry_for: std::time::Duration::ZERO, ..options };
    let mut again = Remote::open_with(&place, &gone).unwrap();
    drop(s3);
    assert_eq!(again.settle(false, now).await.unwrap_err().rule_id(), Some("P-SINGLE-WRITER"));
    let mut later = Remote::open_with(&place, &gone).unwrap();
    let error = later.settle(false, now + chrono::TimeDelta::days(31)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Io, "but not for ever: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_writer_publishes_where_there_are_no_conditions() {
    let s3 = S3::here().await;
    let mut remote = s3.remote("p");
    remote.settle(true, chrono::Utc::now()).await.unwrap();
    let mut forge = workspace();
    publish(&forge, &remote).await.unwrap();
    forge.assign("late", "1.0.0");
    // Half of an object, as a plain web server may keep it of a publisher that was killed.
    let half =
        s3.folder.as_ref().unwrap().join(format!("p/metadata/{}.stable.late.json", forge.version("stable.late")));
    std::fs::write(&half, "{\"half").unwrap();
    publish(&forge, &remote).await.unwrap();
    audit(&forge, &remote).await;
}

//! The same behaviour at every store: real servers that speak S3.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tidegate::Rule;

use crate::support::Forge;
use crate::support::faulty::{Fault as Away, Faulty};
use crate::support::proxy::{Fault, Proxy};
use crate::support::s3::{BUCKET, S3};
use object_store::{Attribute, ObjectStore, ObjectStoreExt as _};
use tidegate::publish::{self, Concurrency, ObjectState, Options, Remote, Source};
use tidegate::receipts::{self, Enrolments};
use tidegate::{Kind, audit};

async fn publish(forge: &Forge, remote: &Remote) -> tidegate::error::Result<publish::PublishReport> {
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
    let report = audit::verify(origin, "the place", forge.root(), chrono::Utc::now()).await.unwrap();
    assert!(report.ok, "{report}");
}

/// What every store must do.
pub async fn suite(store: &dyn ObjectStore, remote: &Remote, prefix: &str) {
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
        let json = std::path::Path::new(&object.key).extension().is_some_and(|extension| extension == "json");
        let expected = if json { "application/json" } else { "application/octet-stream" };
        // SeaweedFS takes application/octet-stream for none given, and guesses one from the name.
        assert!(
            kind == expected || (expected != "application/json" && kind != "application/json"),
            "{}: {kind}",
            object.key
        );
        assert_eq!(object.state, ObjectState::Unchanged);
    }

    // A change, and a race that is lost.
    let mut other = forge.fork();
    forge.assign("late", "1.0.0");
    other.renew(&["stable.early"]);
    let late = publish::plan(&Source::new(other.dir()), remote, other.now()).await.unwrap();
    publish(&forge, remote).await.unwrap();
    let lost = publish::execute(&late, &Source::new(other.dir()), remote, &|_| {}).await.unwrap_err();
    assert_eq!((lost.kind(), lost.broken_rule()), (Kind::Conflict, Some(Rule::PublishRace)), "{lost}");
    audit(&forge, remote).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_this_process() {
    let s3 = S3::here().await;
    suite(&*s3.store(), &s3.remote("a/b").danger_assume_conditional(), "a/b").await;
}

/// Answers as the metadata service of an instance does (IMDSv2), with these keys; gives its URL and what it was asked.
async fn instance_with(key: String, secret: String) -> (String, Arc<Mutex<Vec<String>>>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = vec![0; 8192];
            let length = socket.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..length]).to_ascii_lowercase();
            let line = head.lines().next().unwrap_or_default().to_owned();
            let keys = serde_json::json!({
                "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": key, "SecretAccessKey": secret, "Token": "session",
                "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z",
            });
            let has_token = head.contains("x-aws-ec2-metadata-token: a-token");
            let (status, body) = match line.split(' ').nth(1).unwrap_or_default() {
                "/latest/api/token" if line.starts_with("put ") => ("200 OK", "a-token".to_owned()),
                "/latest/meta-data/iam/security-credentials/" if has_token => ("200 OK", "publisher".to_owned()),
                "/latest/meta-data/iam/security-credentials/publisher" if has_token => ("200 OK", keys.to_string()),
                _ => ("403 Forbidden", String::new()),
            };
            log.lock().unwrap().push(line);
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    (url, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_from_the_role_of_an_instance_or_from_a_profile() {
    let s3 = S3::here().await;
    let own: BTreeMap<String, String> = s3.variables().into_iter().collect();
    let (key, secret) = (own["AWS_ACCESS_KEY_ID"].clone(), own["AWS_SECRET_ACCESS_KEY"].clone());
    let without_keys = || {
        let mut variables = own.clone();
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"] {
            variables.remove(name);
        }
        variables
    };
    let open = |prefix: &str, variables: BTreeMap<String, String>| {
        let options = Options { variables: variables.into_iter().collect(), ..s3.options() };
        Remote::open_with(&format!("s3://{BUCKET}/{prefix}"), &options).unwrap().danger_assume_conditional()
    };
    let (instance, asked) = instance_with(key.clone(), secret.clone()).await;
    let mut variables = without_keys();
    variables.insert("AWS_METADATA_ENDPOINT".into(), instance);
    publish(&Forge::new(&["early"]), &open("role", variables)).await.unwrap();
    assert!(asked.lock().unwrap().iter().any(|line| line.contains("security-credentials/publisher")), "{asked:?}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    std::fs::write(&file, format!("[ci]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")).unwrap();
    let mut variables = without_keys();
    variables.insert("AWS_SHARED_CREDENTIALS_FILE".into(), file.display().to_string());
    variables.insert("AWS_PROFILE".into(), "ci".into());
    publish(&Forge::new(&["early"]), &open("profile", variables)).await.unwrap();

    // The role of another is refused: the keys are what lets it in.
    let (other, _) = instance_with(key, "not-the-secret-of-anyone".into()).await;
    let mut variables = without_keys();
    variables.insert("AWS_METADATA_ENDPOINT".into(), other);
    assert!(publish(&Forge::new(&["early"]), &open("other", variables)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn moto() {
    let Some(s3) = S3::moto() else { return };
    let mut remote = s3.remote("a/b");
    assert_eq!(remote.concurrency(), Concurrency::Unknown);
    remote.settle(false, chrono::Utc::now()).await.unwrap();
    assert_eq!(remote.concurrency(), Concurrency::Conditional);
    suite(&*s3.store(), &remote, "a/b").await;

    let options = Options { retry_for: std::time::Duration::ZERO, ..s3.options() };
    let mut nowhere = Remote::open_with("s3://no-such-bucket/x", &options).unwrap();
    let error = nowhere.settle(false, chrono::Utc::now()).await.unwrap_err();
    assert!(error.remedy_text().unwrap().contains("make that bucket"), "{error:?}");
    let error = publish(&Forge::new(&["early"]), &nowhere.danger_assume_conditional()).await.unwrap_err();
    assert!(error.remedy_text().unwrap().contains("make that bucket"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn seaweedfs() {
    let Some(s3) = S3::seaweed().await else { return };
    let mut remote = s3.remote("a/b");
    remote.settle(false, chrono::Utc::now()).await.unwrap();
    assert_eq!(remote.concurrency(), Concurrency::Conditional);
    suite(&*s3.store(), &remote, "a/b").await;
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
}

/// A store whose conditional writes are not atomic is detected, and needs a single writer.
#[tokio::test(flavor = "multi_thread")]
async fn store_with_racy_conditions_needs_single_writer() {
    let (s3, memory) = (S3::here().await, tempfile::tempdir().unwrap());
    let options = s3.options().in_workspace(memory.path());
    let place = format!("s3://{BUCKET}/p");
    let mut remote = Remote::open_with(&place, &options).unwrap();
    let now = chrono::Utc::now();
    let error = remote.settle(false, now).await.unwrap_err();
    assert_eq!((error.kind(), error.broken_rule()), (Kind::Refused, Some(Rule::PublishSingleWriter)), "{error}");
    assert!(error.remedy_text().unwrap().contains("--single-writer"), "{error}");
    remote.settle(true, now).await.unwrap();
    assert_eq!(remote.concurrency(), Concurrency::SingleWriter);
    let probes = s3.folder.as_ref().unwrap().join("p").join(publish::PROBE);
    assert_eq!(std::fs::read_dir(probes).map_or(0, Iterator::count), 0, "nothing of the probe is left");

    // The answer is remembered: no second probe, even if the server is gone.
    let gone = Options { retry_for: std::time::Duration::ZERO, ..options };
    let mut again = Remote::open_with(&place, &gone).unwrap();
    drop(s3);
    assert_eq!(again.settle(false, now).await.unwrap_err().broken_rule(), Some(Rule::PublishSingleWriter));
    let mut later = Remote::open_with(&place, &gone).unwrap();
    let error = later.settle(false, now + chrono::TimeDelta::days(2)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Io, "but not for long: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_race_that_nobody_has_won_is_run_again() {
    let Some(s3) = S3::moto() else { return };
    let settled = async |away: u64| {
        let script = move |number: u64, _: &str| if number < away { Away::TurnedAway } else { Away::None };
        let mut remote =
            s3.remote(&format!("away{away}")).wrapped(|store| Arc::new(Faulty::new(store, Arc::new(script))));
        remote.settle(false, chrono::Utc::now()).await.map(|()| remote.concurrency())
    };
    // The first eight writers, who come at once, all get a conflict.
    assert_eq!(settled(8).await.unwrap(), Concurrency::Conditional);
    // A store that turns everybody away, whatever they do, cannot be relied on.
    assert_eq!(settled(1000).await.unwrap_err().broken_rule(), Some(Rule::PublishSingleWriter));
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

/// The policies in contrib/iam, against a server that enforces them: each party can do its work, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn each_party_may_do_its_work_and_no_more() {
    // Earlier ones ask for more than the listing of a bucket takes.
    let Some(python) = crate::support::tools::python_with("moto", [5, 2, 5], &["moto.server", "boto3"]) else { return };
    let Some(s3) = S3::moto() else { return };
    let policies = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/iam");
    let policy = |name: &str| format!("{name}={}", policies.join(format!("{name}.json")).display());
    // What a gate has stored, before everybody is held to a policy.
    let receipt = format!("receipts/stable/os/1/{}.json", "0".repeat(64));
    let key = serde_json::json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "00".repeat(32)}});
    let enrolment = serde_json::json!({"schema": 1, "device": "device-1", "keys": [key]}).to_string();
    for (name, text) in [(receipt.as_str(), "{}"), ("enrolments/device-1.json", &enrolment)] {
        let body = object_store::PutPayload::from(text.to_owned());
        s3.store().put(&format!("prod/{name}").as_str().into(), body).await.unwrap();
    }
    let names = ["release-publisher", "online-refresher", "public-reader", "receipt-reader"];
    let users = names.map(policy);
    let args: Vec<&str> = std::iter::once(s3.endpoint.as_str()).chain(users.iter().map(String::as_str)).collect();
    let keys = crate::support::script(&python, "iam.py", &args);
    let remote_at = |name: &str, place: &str| {
        let variables = s3.variables_with(keys[name][0].as_str().unwrap(), keys[name][1].as_str().unwrap());
        let options = Options { variables: variables.into_iter().collect(), ..s3.options() };
        Remote::open_with(&format!("s3://{BUCKET}/{place}"), &options).unwrap()
    };
    let remote = |name: &str| remote_at(name, "prod");
    let denied = |outcome: tidegate::error::Result<publish::PublishReport>, key: &str| {
        let error = outcome.unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
        assert!(error.remedy_text().unwrap().contains("least privilege"), "{error:?}");
    };
    let [mut releaser, mut refresher, reader, counter] = names.map(remote);

    // The release publisher publishes all there is, after probing.
    let mut forge = workspace();
    releaser.settle(false, chrono::Utc::now()).await.unwrap();
    publish(&forge, &releaser).await.unwrap();
    // The refresher renews and moves a rollout on, and reads back what it wrote.
    refresher.settle(false, chrono::Utc::now()).await.unwrap();
    let base = forge.fork();
    forge.renew(&["timestamp"]);
    publish(&forge, &refresher).await.unwrap();
    forge.renew(&["snapshot", "stable.early"]);
    forge.assign("late", "1.0.0");
    let source = Source::new(forge.dir());
    let plan = publish::plan(&source, &refresher, forge.now()).await.unwrap();
    publish::execute(&plan, &source, &refresher, &|_| {}).await.unwrap();
    let report = publish::read_back(&plan, &source, &refresher, forge.now()).await.unwrap();
    assert!(report.ok, "{report}");
    // It cannot publish a release, a channel, targets, or a root; nor remove anything.
    let mut thief = forge.fork();
    thief.release("6.6.6", 66, &[("os.img", b"evil")]);
    denied(publish(&thief, &refresher).await, "targets/stable/releases/os/6.6.6/");
    for (role, key) in [("stable", ".stable.json"), ("targets", ".targets.json"), ("root", ".root.json")] {
        let mut thief = forge.fork();
        thief.renew(&[role]);
        denied(publish(&thief, &refresher).await, key);
    }
    let cutoff = chrono::Utc::now() + chrono::TimeDelta::seconds(5);
    let pruning = publish::plan_prune(&releaser, cutoff, cutoff + chrono::TimeDelta::days(2)).await.unwrap();
    assert!(!pruning.doomed.is_empty());
    let none = async || Ok(());
    assert!(publish::prune(&refresher, &pruning, cutoff, none).await.is_err());
    // The release publisher may, though never what devices start from.
    assert_eq!(publish::prune(&releaser, &pruning, cutoff, none).await.unwrap(), pruning.doomed.len() as u64);
    audit(&base, &releaser).await;
    // The reader reads all of it, and writes nothing.
    audit(&forge, &reader).await;
    forge.renew(&["timestamp"]);
    denied(publish(&forge, &reader).await, "metadata/timestamp.json");
    let bytes = bytes::Bytes::from_static(b"x");
    assert!(reader.create("metadata/99.stable.json", &bytes).await.is_err());

    // Who counts receipts lists and reads them and the enrolments; nothing else, and writes neither.
    let enrolments = Arc::new(Enrolments::read(&remote_at("receipt-reader", "prod/enrolments"), |_| ()).await.unwrap());
    let mut found = Vec::new();
    receipts::read(&counter, "receipts", &enrolments, |name, what| found.push((name.to_owned(), what.is_ok())))
        .await
        .unwrap();
    assert_eq!(found, [(receipt.clone(), false)]);
    let bytes = bytes::Bytes::from_static(b"{}");
    for key in [&*receipt, "enrolments/device-2.json"] {
        assert!(counter.create(key, &bytes).await.is_err(), "{key}");
    }
    assert!(counter.read("metadata/timestamp.json", 1 << 20).await.is_err());
}

/// Object lock, versions and encryption, where the store has them.
#[tokio::test(flavor = "multi_thread")]
async fn versions_locks_and_encryption_are_used_where_a_bucket_has_them() {
    let Some(s3) = S3::moto() else { return };
    let python = crate::support::tools::python(&["moto.server", "boto3"]).unwrap();
    crate::support::script(&python, "locked.py", &[&s3.endpoint, "make"]);
    let variables = s3.variables().into_iter().chain([("AWS_SERVER_SIDE_ENCRYPTION".to_owned(), "AES256".to_owned())]);
    let options = Options { variables: variables.collect(), ..s3.options() };
    let remote = Remote::open_with("s3://locked/p", &options).unwrap().danger_assume_conditional();
    let mut forge = workspace();
    publish(&forge, &remote).await.unwrap();
    forge.renew(&["timestamp"]);
    publish(&forge, &remote).await.unwrap();
    audit(&forge, &remote).await;
    let report = crate::support::script(&python, "locked.py", &[&s3.endpoint, "report"]);
    // Both timestamps are kept; none of the thirteen versions can be removed, but for the one that came in parts, which moto forgets
    // to lock; all are encrypted.
    assert_eq!(report, serde_json::json!({"timestamps": 2, "others": 11, "refused": 12, "encrypted": 13}));
}

/// Metadata that is stored compressed is the same to a device, to an audit, and to the next publication.
#[tokio::test(flavor = "multi_thread")]
async fn compressed_metadata_is_the_same_metadata() {
    let Some(s3) = S3::moto() else { return };
    let headers = publish::HeaderRules { timestamp_max_age: 7, compress: true, private: false };
    let options = Options { headers, ..s3.options() };
    let remote = Remote::open_with(&format!("s3://{BUCKET}/z"), &options).unwrap().danger_assume_conditional();
    let mut forge = workspace();
    publish(&forge, &remote).await.unwrap();
    assert!(publish::plan(&Source::new(forge.dir()), &remote, forge.now()).await.unwrap().is_done());
    let object = |key: &str| {
        let (store, key) = (s3.store(), format!("z/{key}"));
        async move { store.get(&key.as_str().into()).await.unwrap() }
    };
    let root = object("metadata/1.root.json").await;
    assert_eq!(root.attributes.get(&Attribute::ContentEncoding).unwrap().as_ref(), "gzip");
    assert!(root.meta.size < forge.root().len() as u64 * 3 / 4, "{} bytes", root.meta.size);
    let timestamp = object("metadata/timestamp.json").await;
    assert_eq!(timestamp.attributes.get(&Attribute::CacheControl).unwrap().as_ref(), "public, max-age=7");
    assert!(timestamp.attributes.get(&Attribute::ContentEncoding).is_none());
    audit(&forge, &remote).await;
    // As devices get it, and after a change and an interruption.
    forge.renew(&["stable.early"]);
    publish(&forge, &remote).await.unwrap();
    let origin = std::sync::Arc::new(audit::PublishedRepository::open(&s3.url("z")).unwrap());
    let report = audit::verify(origin, "as devices see it", forge.root(), chrono::Utc::now()).await.unwrap();
    assert!(report.ok, "{report}");
}

/// What has arrived is not sent again: finished parts of a file, by another process that knows of them from the workspace alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_taken_up_where_it_was_broken_off() {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    let (s3, forge, memory) = (S3::here().await, workspace(), tempfile::tempdir().unwrap());
    let parts = Arc::new(Mutex::new(Vec::<String>::new()));
    let seen = Arc::clone(&parts);
    // The third part never arrives.
    let script = Arc::new(move |_: u64, what: &str| {
        if what.contains("partNumber=3") {
            return Fault::Error500;
        }
        if what.contains("partNumber=") {
            seen.lock().unwrap().push(what.to_owned());
        }
        Fault::None
    });
    let proxy = Proxy::start(&s3.endpoint, Duration::from_secs(1), script).await;
    let open = || {
        let options = Options { retry_for: Duration::from_millis(500), ..s3.options_at(&proxy.endpoint) };
        let remote = Remote::open_with(&format!("s3://{BUCKET}/resume"), &options.in_workspace(memory.path())).unwrap();
        remote.danger_assume_conditional()
    };
    let error = publish(&forge, &open()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Io, "{error}");
    let first = std::mem::take(&mut *parts.lock().unwrap());
    assert_eq!(first.len(), 2, "{first:?}");
    let records = memory.path().join(".tidegate/remote/uploads");
    assert_eq!(std::fs::read_dir(&records).unwrap().count(), 1);
    let sent = proxy.parts();
    proxy.heal();
    let remote = open();
    publish(&forge, &remote).await.unwrap();
    let second = proxy.parts() - sent;
    assert_eq!(second, 1, "only the part that was missing");
    assert_eq!(std::fs::read_dir(&records).unwrap().count(), 0);
    audit(&forge, &remote).await;
}

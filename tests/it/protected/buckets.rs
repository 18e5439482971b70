//! Private places in buckets of real servers: credentials of their own, headers, and what anyone is given who asks without any.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use tidegate::Rule;

use crate::publishers::said;
use crate::support::Forge;
use crate::support::s3::{BUCKET, S3, VAULT};
use bytes::Bytes;
use object_store::{Attribute, ObjectStoreExt as _};
use tidegate::error::Result;
use tidegate::publish::{self, Options, PublishReport, Remote, Source, Variables};
use tidegate_model::listing::Listing;

use super::{forge, sound};

/// A public place and a private one, opened as the program opens them, by these variables.
fn open(public: &str, private: &str, variables: &Variables) -> Remote {
    let options = Options { retry_for: std::time::Duration::from_secs(5), ..Options::default() };
    let with = |variables: Variables| Options { variables, ..options.clone() };
    let remote = Remote::open_with(public, &with(variables.clone())).unwrap();
    remote.with_private(Remote::open_with(private, &with(variables.for_private())).unwrap()).unwrap()
}

async fn publish(forge: &Forge, remote: &Remote) -> Result<PublishReport> {
    let source = Source::new(forge.dir());
    let plan = publish::plan(&source, remote, forge.now()).await?;
    let report = publish::execute(&plan, &source, remote, &|_| {}).await?;
    let audit = publish::read_back(&plan, &source, remote, forge.now()).await?;
    assert!(audit.ok, "{audit}");
    Ok(report)
}

/// The keys of one party for the public place, and of another for the private one.
fn two(public: Vec<(String, String)>, private: &[(String, String)]) -> BTreeMap<String, String> {
    let own = private.iter().filter(|(name, _)| name.contains("ACCESS_KEY"));
    let own = own.map(|(name, value)| (format!("TIDEGATE_PRIVATE_{name}"), value.clone()));
    public.into_iter().chain(own.collect::<Vec<_>>()).collect()
}

async fn status(url: String) -> u16 {
    reqwest::get(url).await.unwrap().status().as_u16()
}

async fn listing(remote: &Remote) -> Listing {
    let key = Listing::key("stable.secret");
    let seen = remote.private().unwrap().read(&key, 1 << 20).await.unwrap().unwrap();
    Listing::parse(&seen.bytes, "stable.secret").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_buckets_with_credentials_of_their_own() {
    let Some(s3) = S3::seaweed().await else { return };
    s3.make_bucket(VAULT).await;
    let variables = two(s3.variables_of("public"), &s3.variables_of("private"));
    let (public, private) = (format!("s3://{BUCKET}/prod"), format!("s3://{VAULT}/prod"));
    let mut remote = open(&public, &private, &variables.clone().into_iter().collect());
    let mut forge = forge();
    // Both are tried out, each with its own credentials, once.
    remote.settle(false, chrono::Utc::now()).await.unwrap();
    publish(&forge, &remote).await.unwrap();
    sound(&forge, &remote, "two buckets").await;
    forge.renew(&["stable.secret"]);
    publish(&forge, &remote).await.unwrap();
    sound(&forge, &remote, "again").await;

    // On the far side: no cache keeps anything of it, and without credentials nobody gets it; what is public everyone gets.
    let listing = listing(&remote).await;
    assert_eq!(listing.objects.len(), 5);
    for key in listing.objects.iter().cloned().chain([Listing::key("stable.secret")]) {
        let found = s3.store_of(VAULT).get(&format!("prod/{key}").as_str().into()).await.unwrap();
        assert_eq!(found.attributes.get(&Attribute::CacheControl).unwrap().as_ref(), "private, no-store", "{key}");
        assert_eq!(status(format!("{}/{VAULT}/prod/{key}", s3.endpoint)).await, 403, "{key}");
    }
    assert_eq!(status(s3.url("prod/metadata/timestamp.json")).await, 200);
    // Each party has its own place alone.
    let as_one = |place: &str, name: &str| {
        let variables = s3.variables_of(name).into_iter().collect();
        Remote::open_with(place, &Options { variables, ..s3.options() }).unwrap()
    };
    let bytes = Bytes::from_static(b"x");
    assert!(as_one(&private, "public").read(&Listing::key("stable.secret"), 1 << 20).await.is_err());
    assert!(as_one(&public, "private").create("metadata/99.stable.json", &bytes).await.is_err());
    let gate = as_one(&private, "gate");
    for key in &listing.objects {
        assert!(gate.read(key, 1 << 20).await.unwrap().is_some(), "{key}");
    }
    assert!(gate.create("metadata/99.stable.secret.json", &bytes).await.is_err());

    // As people do it, by the same variables: the audit reads the public place as anyone does.
    let root = forge.dir().join("metadata/1.root.json");
    let run = |private: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["verify", &s3.url("prod"), "--root", root.to_str().unwrap()]).args(private);
        command.envs(&variables).stdin(Stdio::null()).output().unwrap()
    };
    for private in [&["--private", private.as_str()][..], &[]] {
        let out = run(private);
        assert!(out.status.success(), "{private:?}: {}", said(&out));
    }

    // A bucket that anyone reads is no private place: found out by an object that says nothing, before any secret is there.
    let mut forge = super::forge();
    let root = forge.dir().join("metadata/1.root.json");
    let open_wide =
        open(&format!("s3://{VAULT}/public"), &format!("s3://{BUCKET}/private"), &s3.variables().into_iter().collect());
    let error = publish(&forge, &open_wide).await.unwrap_err();
    assert_eq!(error.broken_rule(), Some(Rule::PublishReadable), "{error}");
    assert!(error.to_string().contains("anyone can read .tidegate/probe/"), "{error}");
    let left = async |bucket: &str, prefix: &str| {
        use futures::TryStreamExt as _;
        s3.store_of(bucket).list(Some(&prefix.into())).try_collect::<Vec<_>>().await.unwrap().len()
    };
    assert_eq!((left(BUCKET, "private").await, left(VAULT, "public").await), (0, 0));
    // And so is one that is opened later, at the next publication; the audit says so, too.
    let remote = open(&format!("s3://{VAULT}/a"), &format!("s3://{VAULT}/b"), &s3.variables().into_iter().collect());
    publish(&forge, &remote).await.unwrap();
    forge.renew(&["stable.secret"]);
    let copied = s3.store_of(VAULT);
    for key in self::listing(&remote).await.objects.into_iter().chain([Listing::key("stable.secret")]) {
        let bytes = copied.get(&format!("b/{key}").as_str().into()).await.unwrap().bytes().await.unwrap();
        s3.store().put(&format!("b/{key}").as_str().into(), bytes.into()).await.unwrap();
    }
    let opened = open(&format!("s3://{VAULT}/a"), &format!("s3://{BUCKET}/b"), &s3.variables().into_iter().collect());
    let error = publish(&forge, &opened).await.unwrap_err();
    assert_eq!(error.broken_rule(), Some(Rule::PublishReadable), "{error}");
    assert!(error.to_string().contains("is not private: anyone can read targets/"), "{error}");
    let out = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["verify", &format!("s3://{VAULT}/a"), "--private", &format!("s3://{BUCKET}/b"), "--root"])
        .arg(&root)
        .args(["--now", &tidegate_tuf::time::format(forge.now())])
        .envs(s3.variables())
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(said(&out).contains("anyone can read it in the private place"), "{}", said(&out));
}

/// A bucket policy that makes a folder of the private place public, the usual kind, is detected before anything refers to it.
#[tokio::test(flavor = "multi_thread")]
async fn public_private_place_is_detected() {
    let Some(s3) = S3::moto() else { return };
    let variables = s3.variables().into_iter().collect();
    // Its policy lets anyone read below metadata/ and targets/, in whatever folder.
    let remote = open(&format!("s3://{VAULT}/a"), &format!("s3://{BUCKET}/b"), &variables);
    let forge = forge();
    let error = publish(&forge, &remote).await.unwrap_err();
    assert_eq!(error.broken_rule(), Some(Rule::PublishReadable), "{error}");
    assert!(error.to_string().contains("anyone can read metadata/"), "{error}");
    assert!(error.remedy_text().unwrap().contains("nothing public leads there yet"), "{error:?}");
    assert!(s3.store_of(VAULT).get(&"a/metadata/timestamp.json".into()).await.is_err());
    let remote = open(&format!("s3://{BUCKET}/a"), &format!("s3://{VAULT}/b"), &variables);
    publish(&forge, &remote).await.unwrap();
    sound(&forge, &remote, "the other way round").await;
}

/// The policies in contrib/iam for the private place, against a server that enforces them.
#[tokio::test(flavor = "multi_thread")]
async fn each_party_may_do_its_work_at_the_private_place_and_no_more() {
    let Some(python) = crate::support::tools::python_with("moto", [5, 2, 5], &["moto.server", "boto3"]) else { return };
    let Some(s3) = S3::moto() else { return };
    let policies = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/iam");
    let users = ["release-publisher", "private-publisher", "gate-reader"]
        .map(|name| format!("{name}={}", policies.join(format!("{name}.json")).display()));
    let args: Vec<&str> = std::iter::once(s3.endpoint.as_str()).chain(users.iter().map(String::as_str)).collect();
    let keys = crate::support::script(&python, "iam.py", &args);
    let of = |name: &str| s3.variables_with(keys[name][0].as_str().unwrap(), keys[name][1].as_str().unwrap());
    let (public, private) = (format!("s3://{BUCKET}/prod"), format!("s3://{VAULT}/prod"));
    let variables = two(of("release-publisher"), &of("private-publisher")).into_iter().collect();
    let remote = open(&public, &private, &variables);
    let mut forge = forge();
    forge.pass(chrono::TimeDelta::days(3));
    forge.renew(&["stable.early"]);
    publish(&forge, &remote).await.unwrap();
    forge.renew(&["stable.secret"]);
    publish(&forge, &remote).await.unwrap();
    // It prunes what is not needed: here the role before this one.
    let now = forge.now();
    let pruning = publish::plan_prune(&remote, now - chrono::TimeDelta::days(1), now).await.unwrap();
    assert!(pruning.doomed.iter().any(|object| object.private) && pruning.listings == 1, "{pruning:?}");
    publish::prune(&remote, &pruning, now, async || Ok(())).await.unwrap();
    sound(&forge, &remote, "pruned").await;

    let as_one = |place: &str, name: &str| {
        let variables = of(name).into_iter().collect();
        Remote::open_with(place, &Options { variables, ..s3.options() }).unwrap()
    };
    let (gate, bytes) = (as_one(&private, "gate-reader"), Bytes::from_static(b"x"));
    for key in listing(&remote).await.objects.into_iter().chain([Listing::key("stable.secret")]) {
        assert!(gate.read(&key, 1 << 20).await.unwrap().is_some(), "{key}");
        // Whoever publishes in the open, and nobody else, does not get at it.
        assert!(as_one(&private, "release-publisher").read(&key, 1 << 20).await.is_err(), "{key}");
    }
    assert!(gate.read("metadata/99.stable.secret.json", 1 << 20).await.unwrap().is_none(), "missing, not forbidden");
    assert!(gate.read(".tidegate/probe/0", 1 << 20).await.is_err());
    assert!(gate.create("metadata/99.stable.secret.json", &bytes).await.is_err());
    let vault = as_one(&private, "private-publisher");
    assert!(vault.create("receipts/x.json", &bytes).await.is_err());
    assert!(as_one(&public, "private-publisher").create("metadata/99.stable.json", &bytes).await.is_err());
}

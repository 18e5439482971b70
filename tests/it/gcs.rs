//! Google Cloud Storage, its XML API before an S3 server: see `tests/interop/gcs.py`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use futures::future::join_all;
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::{Error, ObjectStore as _, ObjectStoreExt as _, PutMode, UpdateVersion};
use tidegate::publish::{Concurrency, Options, Remote};

use crate::support::tools;

const BUCKET: &str = "fleet";

/// A server, until it is dropped.
struct CloudStorage {
    child: Child,
    account: String,
    _folder: tempfile::TempDir,
}

impl CloudStorage {
    fn start() -> Option<Self> {
        let python = tools::python(&["moto.server", "cryptography"])?;
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/gcs.py"))
            .args([folder.path(), Path::new(BUCKET)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let made: serde_json::Value = serde_json::from_str(&line).expect("the server did not come up");
        Some(Self { child, account: made["account"].as_str().unwrap().to_owned(), _folder: folder })
    }

    /// As the environment names the account's key.
    fn options(&self, variable: &str) -> Options {
        let variables = [(variable.to_owned(), self.account.clone())].into_iter().collect();
        Options { variables, retry_for: std::time::Duration::ZERO, ..Options::default() }
    }

    fn store(&self) -> GoogleCloudStorage {
        let _ = rustls::crypto::ring::default_provider().install_default();
        GoogleCloudStorageBuilder::new()
            .with_service_account_path(&self.account)
            .with_bucket_name(BUCKET)
            .with_client_options(object_store::ClientOptions::new().with_allow_http(true))
            .build()
            .unwrap()
    }
}

impl Drop for CloudStorage {
    fn drop(&mut self) {
        // It ends with its standard input.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_storage_is_a_store_like_the_others() {
    let Some(server) = CloudStorage::start() else { return };
    for variable in ["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "SERVICE_ACCOUNT"] {
        let options = server.options(variable);
        let prefix = format!("a/{}", variable.to_ascii_lowercase());
        let remote = Remote::open_with(&format!("gs://{BUCKET}/{prefix}"), &options).unwrap();
        assert_eq!(remote.concurrency(), Concurrency::Conditional);
        crate::s3::suite(&server.store(), &remote, &prefix).await;
    }
    let variables = [("GOOGLE_SERVICE_ACCOUNT".to_owned(), server.account.clone())].into();
    crate::places::read_by_commands(&format!("gs://{BUCKET}/commands"), &variables).await;
}

/// What the suite stands on: the server refuses what it must, and knows whom it serves.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_to_cloud_storage_one_wins() {
    let Some(server) = CloudStorage::start() else { return };
    let store = &server.store();
    let at = object_store::path::Path::from("x/timestamp.json");
    let create = (0..16).map(|n| store.put_opts(&at, vec![n; 9].into(), PutMode::Create.into()));
    let (won, lost): (Vec<_>, Vec<_>) = join_all(create).await.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 15));
    assert!(lost.iter().all(|result| matches!(result, Err(Error::AlreadyExists { .. }))), "{lost:?}");
    let seen = store.head(&at).await.unwrap();
    let version = || PutMode::Update(UpdateVersion { e_tag: seen.e_tag.clone(), version: seen.version.clone() });
    let update = (16..32).map(|n| store.put_opts(&at, vec![n; 9].into(), version().into()));
    let (won, lost): (Vec<_>, Vec<_>) = join_all(update).await.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 15));
    assert!(lost.iter().all(|result| matches!(result, Err(Error::Precondition { .. }))), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_accounts_key_is_refused_and_not_shown() {
    let Some(server) = CloudStorage::start() else { return };
    let Some(other) = CloudStorage::start() else { return };
    let read = |path: &str| serde_json::from_slice::<serde_json::Value>(&std::fs::read(path).unwrap()).unwrap();
    let mut account = read(&other.account);
    account["gcs_base_url"] = read(&server.account)["gcs_base_url"].clone();
    std::fs::write(&other.account, account.to_string()).unwrap();
    let remote = Remote::open_with(&format!("gs://{BUCKET}/x"), &other.options("GOOGLE_SERVICE_ACCOUNT")).unwrap();
    let forge = crate::support::Forge::new(&["early"]);
    let source = tidegate::publish::Source::new(forge.dir());
    let error = tidegate::publish::plan(&source, &remote, forge.now()).await.unwrap_err();
    let said = format!("{error:?} {:?}", std::error::Error::source(&error).map(ToString::to_string));
    assert!(said.contains("401") || said.contains("credentials"), "{said}");
    assert!(!said.contains("PRIVATE KEY") && !said.contains("eyJ"), "{said}");
}

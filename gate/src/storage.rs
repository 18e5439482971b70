//! Places: a folder, or a bucket of a store, with a prefix. Credentials come from the environment, as each store's own tools take them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::ClientConfigKey;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::signer::Signer;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use url::Url;

use crate::error::{Error, Result};
use crate::refusal::Refusal;

/// A place that is read or written.
#[derive(Clone)]
pub struct Place {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// Signs URLs, if the store has such.
    pub signer: Option<Arc<dyn Signer>>,
    prefix: Key,
    folder: Option<PathBuf>,
    name: String,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({})", self.name)
    }
}

impl Place {
    /// Opens a place: `file:FOLDER` (relative to `base`), `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`. `durable`: what
    /// is written to a folder survives a loss of power.
    pub fn open(place: &str, base: &Path, durable: bool) -> Result<Self> {
        if let Some(folder) = place.strip_prefix("file:") {
            return Self::folder(&base.join(folder), place, durable);
        }
        let wrong = |why: &str| {
            Error::new(format!("{} is no place: {why}", place.rsplit('@').next().unwrap_or_default()))
                .remedy("write file:FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX")
        };
        let url = Url::parse(place).map_err(|error| wrong(&error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(wrong("credentials belong into the environment"));
        }
        let opened = |error: object_store::Error| wrong(&error.to_string());
        let prefix = Key::from_url_path(url.path()).map_err(|error| wrong(&error.to_string()))?;
        // Beside what the environment sets, not instead of it.
        let timeouts = [(ClientConfigKey::Timeout, "20s"), (ClientConfigKey::ConnectTimeout, "5s")];
        let (store, signer): (Arc<dyn ObjectStore>, Arc<dyn Signer>) = match url.scheme() {
            "s3" => {
                let store = AmazonS3Builder::from_env().with_url(place).with_retry(retry());
                let store = timeouts
                    .into_iter()
                    .fold(store, |store, (key, value)| store.with_config(AmazonS3ConfigKey::Client(key), value));
                both(store.build().map_err(opened)?)
            }
            "gs" => {
                let store = GoogleCloudStorageBuilder::from_env().with_url(place).with_retry(retry());
                let store = timeouts
                    .into_iter()
                    .fold(store, |store, (key, value)| store.with_config(GoogleConfigKey::Client(key), value));
                both(store.build().map_err(opened)?)
            }
            "az" => {
                let store = MicrosoftAzureBuilder::from_env().with_url(place).with_retry(retry());
                let store = timeouts
                    .into_iter()
                    .fold(store, |store, (key, value)| store.with_config(AzureConfigKey::Client(key), value));
                both(store.build().map_err(opened)?)
            }
            _ => return Err(wrong("its scheme is not known")),
        };
        Ok(Self { store, signer: Some(signer), prefix, folder: None, name: place.to_owned() })
    }

    fn folder(folder: &Path, place: &str, durable: bool) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|error| Error::file("make", folder, error))?;
        let folder = folder.canonicalize().map_err(|error| Error::file("find", folder, error))?;
        let store = LocalFileSystem::new_with_prefix(&folder)
            .map_err(|error| Error::new(format!("{place} cannot be opened: {error}")))?
            .with_fsync(durable);
        let folder = Some(folder);
        Ok(Self { store: Arc::new(store), signer: None, prefix: Key::default(), folder, name: place.to_owned() })
    }

    /// The key of what is at this path in the place. The path must be one of ours: nothing in it is escaped.
    pub fn key(&self, path: &str) -> Key {
        self.prefix.parts().chain(path.split('/').map(Into::into)).collect()
    }

    /// How the settings name it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a device is told when the place does not answer: nothing about the place.
    pub fn failed(&self, error: &object_store::Error) -> Refusal {
        eprintln!("{}", serde_json::json!({"event": "store", "place": self.name, "error": error.to_string()}));
        Refusal::unavailable("G-SRV-02", "a store behind the gate does not answer: try again later")
    }

    /// Removes a folder that is empty, where there are folders.
    pub(crate) fn remove_folder(&self, key: &Key) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir(folder.join(key.as_ref()));
        }
    }
}

fn both<T: ObjectStore + Signer>(store: T) -> (Arc<dyn ObjectStore>, Arc<dyn Signer>) {
    let store = Arc::new(store);
    (Arc::clone(&store) as Arc<dyn ObjectStore>, store)
}

/// A device waits for the answer: a store that does not answer soon is told of, not waited for.
fn retry() -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(50), max_backoff: Duration::from_secs(1), base: 2.0 };
    RetryConfig { backoff, max_retries: 3, retry_timeout: Duration::from_secs(10) }
}

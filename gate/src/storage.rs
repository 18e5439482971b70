//! Storage locations: a folder, or a prefix in a bucket. Credentials come from the environment, as each provider's own tools read them.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::Method;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::ClientConfigKey;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::signer::Signer;
use object_store::{
    BackoffConfig, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    RetryConfig,
};
use tidegate_model::text::{public_url, public_urls};
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::logging::elapsed_ms;
use crate::refusal::Refusal;

mod logged_http;

use logged_http::LoggedConnector;

/// A folder, or a prefix in a bucket.
#[derive(Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    signer: Option<Arc<dyn Signer>>,
    prefix: ObjectPath,
    folder: Option<PathBuf>,
    location: String,
}

/// Why storage cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// It does not answer, or answers with an error.
    #[error("cannot access storage {location}: {cause}")]
    Unavailable {
        /// The location.
        location: String,
        /// The error, without anything secret.
        cause: String,
    },
    /// An object is longer than the gate accepts.
    #[error("object {name} is longer than {limit} bytes")]
    TooLong {
        /// The object.
        name: String,
        /// The limit.
        limit: u64,
    },
}

/// The refusal describes nothing of the storage to the device.
impl From<StorageError> for Refusal {
    fn from(_: StorageError) -> Self {
        Self::unavailable("G-SRV-02", "a storage service of the gate does not answer; try again later")
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Unavailable { location, cause } => {
                Self::new(ErrorKind::Network, format!("cannot access storage {location}")).with_cause(cause)
            }
            StorageError::TooLong { .. } => Self::input(error.to_string()),
        }
    }
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Storage({})", self.location)
    }
}

impl Storage {
    /// Opens a location: `file:FOLDER` (relative to `base`), `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`. With
    /// `durable`, a write to a folder survives a loss of power.
    ///
    /// # Errors
    ///
    /// Fails if the location is malformed, contains credentials, or cannot be opened. No request is sent.
    pub fn open(location: &str, base: &Path, durable: bool) -> Result<Self> {
        if let Some(folder) = location.strip_prefix("file:") {
            return Self::open_folder(&base.join(folder), location, durable);
        }
        let invalid = |cause: &str| {
            Error::input(format!("{} is not a storage location", public_url(location)))
                .with_cause(cause)
                .with_remedy("write file:FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX")
        };
        let url = Url::parse(location).map_err(|error| invalid(&error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(invalid("set credentials in the environment, not in the location"));
        }
        let not_opened = |error: object_store::Error| invalid(&public_urls(&error.to_string()));
        let prefix = ObjectPath::from_url_path(url.path()).map_err(|error| invalid(&error.to_string()))?;
        // These add to the settings from the environment.
        let timeouts = [(ClientConfigKey::Timeout, "20s"), (ClientConfigKey::ConnectTimeout, "5s")];
        let (store, signer) = match url.scheme() {
            "s3" => {
                let builder = AmazonS3Builder::from_env()
                    .with_url(location)
                    .with_retry(retry_config())
                    .with_http_connector(LoggedConnector);
                let builder = timeouts
                    .into_iter()
                    .fold(builder, |builder, (key, value)| builder.with_config(AmazonS3ConfigKey::Client(key), value));
                store_and_signer(builder.build().map_err(not_opened)?)
            }
            "gs" => {
                let builder = GoogleCloudStorageBuilder::from_env()
                    .with_url(location)
                    .with_retry(retry_config())
                    .with_http_connector(LoggedConnector);
                let builder = timeouts
                    .into_iter()
                    .fold(builder, |builder, (key, value)| builder.with_config(GoogleConfigKey::Client(key), value));
                store_and_signer(builder.build().map_err(not_opened)?)
            }
            "az" => {
                let builder = MicrosoftAzureBuilder::from_env()
                    .with_url(location)
                    .with_retry(retry_config())
                    .with_http_connector(LoggedConnector);
                let builder = timeouts
                    .into_iter()
                    .fold(builder, |builder, (key, value)| builder.with_config(AzureConfigKey::Client(key), value));
                store_and_signer(builder.build().map_err(not_opened)?)
            }
            _ => return Err(invalid("unknown scheme")),
        };
        Ok(Self { store, signer: Some(signer), prefix, folder: None, location: location.to_owned() })
    }

    fn open_folder(folder: &Path, location: &str, durable: bool) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|error| Error::io("create", folder, &error))?;
        let folder = folder.canonicalize().map_err(|error| Error::io("find", folder, &error))?;
        let store = LocalFileSystem::new_with_prefix(&folder)
            .map_err(|error| Error::new(ErrorKind::Io, format!("cannot open {location}")).with_cause(error))?
            .with_fsync(durable);
        let (folder, location) = (Some(folder), location.to_owned());
        Ok(Self { store: Arc::new(store), signer: None, prefix: ObjectPath::default(), folder, location })
    }

    /// The location as in the settings.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The path of an object in the bucket or folder.
    pub fn object_path(&self, name: &str) -> ObjectPath {
        self.prefix.parts().chain(name.split('/').map(Into::into)).collect()
    }

    /// The metadata of an object, if it exists.
    ///
    /// # Errors
    ///
    /// Fails if the storage does not answer.
    pub async fn head(&self, name: &str) -> Result<Option<ObjectMeta>, StorageError> {
        match self.logged("HEAD", name, self.store.head(&self.object_path(name))).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.unavailable(&error)),
        }
    }

    /// The bytes of an object, if it exists.
    ///
    /// # Errors
    ///
    /// Fails if the storage does not answer, or if the object is longer than `limit`.
    pub async fn get(&self, name: &str, limit: u64) -> Result<Option<Bytes>, StorageError> {
        let found = match self.logged("GET", name, self.store.get(&self.object_path(name))).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.unavailable(&error)),
        };
        if found.meta.size > limit {
            return Err(StorageError::TooLong { name: name.to_owned(), limit });
        }
        found.bytes().await.map(Some).map_err(|error| self.unavailable(&error))
    }

    /// A part of an object, as a stream.
    ///
    /// # Errors
    ///
    /// Fails if the storage does not answer, or if the object does not exist.
    pub async fn get_range(
        &self,
        name: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, object_store::Result<Bytes>>, StorageError> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let path = self.object_path(name);
        let found = self.logged("GET", name, self.store.get_opts(&path, options)).await;
        found.map(object_store::GetResult::into_stream).map_err(|error| self.unavailable(&error))
    }

    /// Writes an object, replacing the present one.
    ///
    /// # Errors
    ///
    /// Fails if the storage does not answer.
    pub async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), StorageError> {
        let path = self.object_path(name);
        let written = self.logged("PUT", name, self.store.put(&path, PutPayload::from(bytes))).await;
        written.map(drop).map_err(|error| self.unavailable(&error))
    }

    /// Creates an object. Returns `false` if one with this name exists.
    ///
    /// # Errors
    ///
    /// Fails if the storage does not answer.
    pub async fn create(&self, name: &str, bytes: Vec<u8>) -> Result<bool, StorageError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let path = self.object_path(name);
        match self.logged("PUT", name, self.store.put_opts(&path, PutPayload::from(bytes), options)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(self.unavailable(&error)),
        }
    }

    /// The names of the folders directly below a folder.
    ///
    /// # Errors
    ///
    /// Fails if the storage does not answer.
    pub async fn list_folders(&self, name: &str) -> Result<Vec<String>, StorageError> {
        let path = self.object_path(name);
        let listed = self.logged("LIST", name, self.store.list_with_delimiter(Some(&path))).await;
        let listed = listed.map_err(|error| self.unavailable(&error))?;
        Ok(listed.common_prefixes.iter().filter_map(|folder| folder.filename().map(str::to_owned)).collect())
    }

    /// Deletes the objects below a folder. Skips what cannot be deleted. Returns the number of deleted objects.
    pub async fn delete_folder(&self, name: &str) -> usize {
        let path = self.object_path(name);
        let mut deleted = 0;
        let mut objects = self.store.list(Some(&path));
        while let Some(Ok(object)) = objects.next().await {
            let request = self.store.delete(&object.location);
            deleted += usize::from(self.logged("DELETE", object.location.as_ref(), request).await.is_ok());
        }
        if let Some(folder) = &self.folder {
            // If another instance has created an object there, the folder stays until the next run.
            let _ = std::fs::remove_dir(folder.join(path.as_ref()));
        }
        deleted
    }

    /// A presigned URL of an object, if the storage supports presigned URLs.
    ///
    /// # Errors
    ///
    /// Fails if the credentials for it cannot be obtained.
    pub async fn presign(&self, method: &Method, name: &str, life: Duration) -> Result<Option<Url>, StorageError> {
        let Some(signer) = &self.signer else { return Ok(None) };
        let path = self.object_path(name);
        let url = self.logged("PRESIGN", name, signer.signed_url(method.clone(), &path, life)).await;
        url.map(Some).map_err(|error| self.unavailable(&error))
    }

    /// Performs a request and logs its method, object, status and duration.
    async fn logged<T>(
        &self,
        method: &'static str,
        object: &str,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> object_store::Result<T> {
        let started = Instant::now();
        let result = request.await;
        let duration_ms = elapsed_ms(started);
        let status = match &result {
            Ok(_) => "ok",
            Err(object_store::Error::NotFound { .. }) => "not found",
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => "exists",
            // Removal of spent nonces is optional, and may lack the permission.
            Err(_) if matches!(method, "LIST" | "DELETE") => "failed",
            Err(error) => {
                let error = public_urls(&error.to_string());
                tracing::warn!(storage = self.location, method, object, duration_ms, error, "storage request failed");
                return result;
            }
        };
        tracing::debug!(storage = self.location, method, object, status, duration_ms, "storage request");
        result
    }

    fn unavailable(&self, error: &object_store::Error) -> StorageError {
        StorageError::Unavailable { location: self.location.clone(), cause: public_urls(&error.to_string()) }
    }
}

fn store_and_signer<T: ObjectStore + Signer>(store: T) -> (Arc<dyn ObjectStore>, Arc<dyn Signer>) {
    let store = Arc::new(store);
    (Arc::clone(&store) as Arc<dyn ObjectStore>, store)
}

/// Few and short retries: a device waits for the response.
fn retry_config() -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(50), max_backoff: Duration::from_secs(1), base: 2.0 };
    RetryConfig { backoff, max_retries: 3, retry_timeout: Duration::from_secs(10) }
}

//! Where a repository is published to: any object store, and a local folder made to behave like one.

use std::error::Error as StdError;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{
    Attribute, Attributes, Error as StoreError, GetOptions, ObjectStore, ObjectStoreExt as _, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, UpdateVersion,
};
use sha2::{Digest as _, Sha256};
use tidegate_client::tuf::Limits;
use tidegate_client::tuf::hash::to_hex;
use tokio::io::AsyncReadExt as _;

use super::headers::Headers;
use crate::error::{Error, Kind, Result};

/// Parts that large files are sent in; S3 takes none smaller than 5 MiB (but the last).
const PART: usize = 8 << 20;
/// Files up to this size are sent in one request, which can be conditional.
const SINGLE: u64 = PART as u64;
/// The file whose lock keeps two publishers to one local folder apart.
const LOCK: &str = ".publish.lock";

/// A place that a repository is published to.
#[derive(Debug, Clone)]
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    /// Below which every key lies.
    prefix: Key,
    kind: Backend,
    name: String,
}

#[derive(Debug, Clone)]
enum Backend {
    /// A folder: no conditional replacement and no headers, so a lock file and a comparison stand in for the one and the
    /// server that serves the folder for the other.
    Folder(PathBuf),
    /// A store that keeps headers and replaces an object only if it is still the one that was read.
    Conditional,
}

/// An object as it was read: its bytes, and what a conditional replacement refers to it by.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The content.
    pub bytes: Bytes,
    version: UpdateVersion,
}

/// What became of a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The object is as it was to become, by this write.
    Written,
    /// It was so already: an earlier try that was interrupted, or someone else with the same bytes.
    AlreadyThere,
    /// It is something else, and was left alone.
    Different,
}

/// Keeps other publishers out of a local folder until dropped.
#[derive(Debug)]
pub struct Guard(File);

impl Drop for Guard {
    fn drop(&mut self) {
        // Closing the file would do, but for a program that another thread has just begun to start, which holds a copy of it.
        let _ = self.0.unlock();
    }
}

/// The folder that a path means, whether or not it is there yet: absolute, without links and `..` in what is there.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Err(error), Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            Ok(resolved(parent)?.join(name))
        }
        (found, _, _) => found,
    }
}

impl Remote {
    /// Opens a place by name: a path or a `file://` URL. It need not exist yet.
    pub fn open(place: &str) -> Result<Self> {
        let root = match place.split_once("://") {
            Some(("file", _)) => url::Url::parse(place)
                .ok()
                .and_then(|url| url.to_file_path().ok())
                .ok_or_else(|| Error::usage(format!("{place} is not the URL of a local folder")))?,
            Some((scheme, _)) => {
                return Err(Error::usage(format!("cannot publish to {scheme}:// yet"))
                    .remedy("publish to a local folder and copy it, targets first and timestamp.json last"));
            }
            None => PathBuf::from(place),
        };
        let root = resolved(&root).map_err(|error| Error::io("find", &root, error))?;
        let prefix = Key::from_absolute_path(&root)
            .map_err(|error| Error::usage(format!("{place} cannot be published to")).with_source(error))?;
        // Rooted at `/` rather than at the folder, which need not exist before the first write.
        let store = Arc::new(LocalFileSystem::new().with_fsync(true));
        Ok(Self { store, prefix, kind: Backend::Folder(root), name: place.to_owned() })
    }

    /// A store that can replace an object conditionally (`PutMode::Update`); all keys go below `prefix`.
    pub fn conditional(store: Arc<dyn ObjectStore>, prefix: &str, name: impl Into<String>) -> Self {
        Self { store, prefix: Key::from(prefix), kind: Backend::Conditional, name: name.into() }
    }

    /// The same place with its store wrapped: to count requests, to limit their rate, to make them fail.
    #[must_use]
    pub fn wrapped(mut self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        self.store = wrap(self.store);
        self
    }

    /// Whether it is a folder on this machine.
    pub fn is_local(&self) -> bool {
        matches!(self.kind, Backend::Folder(_))
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Keeps other publishers out while the guard lives. Only local folders need that; elsewhere the conditional write decides.
    pub fn lock(&self) -> Result<Option<Guard>> {
        let Backend::Folder(root) = &self.kind else { return Ok(None) };
        std::fs::create_dir_all(root).map_err(|error| Error::io("create", root, error))?;
        let path = root.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| Error::io("write", &path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Guard(file))),
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(Kind::Conflict, format!("another process is publishing to {}", self.name))
                    .remedy("run the command again when it is done"))
            }
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path, error)),
        }
    }

    /// Reads a small object, `None` if there is none.
    pub async fn read(&self, key: &str, limit: u64) -> Result<Option<Seen>> {
        let result = match self.store.get_opts(&self.key(key), GetOptions::default()).await {
            Ok(result) => result,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.fault("read", key, error)),
        };
        if result.meta.size > limit {
            return Err(Error::trust(format!(
                "{key} at {} is {} bytes long, not metadata",
                self.name, result.meta.size
            )));
        }
        let version = UpdateVersion { e_tag: result.meta.e_tag.clone(), version: result.meta.version.clone() };
        let bytes = result.bytes().await.map_err(|error| self.fault("read", key, error))?;
        Ok(Some(Seen { bytes, version }))
    }

    /// Whether an object is still as it was `seen`; with `None`, whether there still is none.
    pub async fn is_still(&self, key: &str, seen: Option<&Seen>) -> Result<bool> {
        let limit = Limits::default().timestamp_length;
        Ok(self.read(key, limit).await?.map(|now| now.bytes) == seen.map(|seen| seen.bytes.clone()))
    }

    /// Creates a small object that never changes. One that exists is compared, never replaced.
    pub async fn create(&self, key: &str, bytes: &Bytes) -> Result<Outcome> {
        self.sweep(key).await;
        let options = PutOptions { mode: PutMode::Create, attributes: self.attributes(key), ..PutOptions::default() };
        match self.store.put_opts(&self.key(key), PutPayload::from(bytes.clone()), options).await {
            Ok(_) => Ok(Outcome::Written),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => self.compare(key, bytes).await,
            Err(error) => Err(self.fault("write", key, error)),
        }
    }

    /// Replaces the object that was `seen`, or creates it if none was.
    pub async fn replace(&self, key: &str, bytes: &Bytes, seen: Option<&Seen>) -> Result<Outcome> {
        let Some(seen) = seen else { return self.create(key, bytes).await };
        self.sweep(key).await;
        let mode = match self.kind {
            Backend::Conditional => PutMode::Update(seen.version.clone()),
            // The caller holds the lock, so nothing comes between the comparison and the write.
            Backend::Folder(_) => match self.read(key, seen.bytes.len() as u64).await {
                Ok(Some(now)) if now.bytes == seen.bytes => PutMode::Overwrite,
                Ok(None) => return Ok(Outcome::Different),
                Ok(Some(_)) | Err(_) => return self.compare(key, bytes).await,
            },
        };
        let options = PutOptions { mode, attributes: self.attributes(key), ..PutOptions::default() };
        match self.store.put_opts(&self.key(key), PutPayload::from(bytes.clone()), options).await {
            Ok(_) => Ok(Outcome::Written),
            // A retry after a lost answer meets what the first try wrote.
            Err(StoreError::Precondition { .. } | StoreError::AlreadyExists { .. } | StoreError::NotFound { .. }) => {
                self.compare(key, bytes).await
            }
            Err(error) => Err(self.fault("write", key, error)),
        }
    }

    /// Creates an object from a file whose length and SHA-256 are known, in parts if it is large. One that exists is compared.
    ///
    /// The file is hashed while it is sent; if it is not what was expected, nothing is created. `sent` is told each part's length.
    pub async fn upload(
        &self,
        key: &str,
        file: &std::path::Path,
        length: u64,
        sha256: &[u8; 32],
        sent: &(dyn Fn(u64) + Sync),
    ) -> Result<Outcome> {
        if length <= SINGLE {
            let bytes = crate::files::read(file, length)?;
            check(file, length, sha256, bytes.len() as u64, Sha256::digest(&bytes).into())?;
            let outcome = self.create(key, &Bytes::from(bytes)).await?;
            sent(length);
            return Ok(outcome);
        }
        // Multipart uploads replace, so absence is asked for first. Whoever comes in between brings the same bytes: the
        // name holds their hash.
        match self.store.head(&self.key(key)).await {
            Ok(meta) => {
                let same = meta.size == length && self.remote_sha256(key).await? == *sha256;
                sent(length);
                return Ok(if same { Outcome::AlreadyThere } else { Outcome::Different });
            }
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(self.fault("look for", key, error)),
        }
        self.sweep(key).await;
        let options = PutMultipartOptions { attributes: self.attributes(key), ..PutMultipartOptions::default() };
        let mut upload = self
            .store
            .put_multipart_opts(&self.key(key), options)
            .await
            .map_err(|error| self.fault("write", key, error))?;
        match self.send_parts(upload.as_mut(), key, file, length, sha256, sent).await {
            Ok(()) => Ok(Outcome::Written),
            Err(error) => {
                // What is left behind otherwise costs money on some stores; that it failed is known already.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    async fn send_parts(
        &self,
        upload: &mut dyn object_store::MultipartUpload,
        key: &str,
        path: &std::path::Path,
        length: u64,
        sha256: &[u8; 32],
        sent: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let mut file = tokio::fs::File::open(path).await.map_err(|error| Error::io("read", path, error))?;
        let (mut hash, mut seen) = (Sha256::new(), 0_u64);
        loop {
            let mut part = bytes::BytesMut::with_capacity(PART);
            // One byte more than expected is wanted too, so that a file which grew is noticed.
            let mut rest = (&mut file).take(PART as u64);
            while rest.read_buf(&mut part).await.map_err(|error| Error::io("read", path, error))? > 0 {}
            if part.is_empty() {
                break;
            }
            let read = part.len() as u64;
            seen = seen.saturating_add(read);
            if seen > length {
                break;
            }
            hash.update(&part);
            upload.put_part(part.freeze().into()).await.map_err(|error| self.fault("write", key, error))?;
            sent(read);
        }
        check(path, length, sha256, seen, hash.finalize().into())?;
        upload.complete().await.map_err(|error| self.fault("write", key, error))?;
        Ok(())
    }

    /// Whether the object that stands in the way is the one that was to be written.
    async fn compare(&self, key: &str, bytes: &Bytes) -> Result<Outcome> {
        match self.store.get(&self.key(key)).await {
            Ok(result) if result.meta.size != bytes.len() as u64 => Ok(Outcome::Different),
            Ok(result) => {
                let found = result.bytes().await.map_err(|error| self.fault("read", key, error))?;
                Ok(if found == *bytes { Outcome::AlreadyThere } else { Outcome::Different })
            }
            Err(StoreError::NotFound { .. }) => Ok(Outcome::Different),
            Err(error) => Err(self.fault("read", key, error)),
        }
    }

    /// The SHA-256 of an object, by stream.
    async fn remote_sha256(&self, key: &str) -> Result<[u8; 32]> {
        let fault = |error| self.fault("read", key, error);
        let mut stream = self.store.get(&self.key(key)).await.map_err(fault)?.into_stream();
        let mut hash = Sha256::new();
        while let Some(chunk) = stream.try_next().await.map_err(fault)? {
            hash.update(&chunk);
        }
        Ok(hash.finalize().into())
    }

    /// The store's name for one of our keys.
    fn key(&self, key: &str) -> Key {
        self.prefix.parts().chain(Key::from(key).parts()).collect()
    }

    /// The headers that an object is to be served with, where the store keeps them.
    fn attributes(&self, key: &str) -> Attributes {
        match self.kind {
            Backend::Folder(_) => Attributes::new(),
            Backend::Conditional => {
                let headers = Headers::of(key);
                Attributes::from_iter([
                    (Attribute::CacheControl, headers.cache_control),
                    (Attribute::ContentType, headers.content_type),
                ])
            }
        }
    }

    /// Removes what a publisher that was killed left of this object: the local store writes `NAME#1` and renames. Whoever holds the
    /// lock is alone, so it is nobody's.
    async fn sweep(&self, key: &str) {
        if let Backend::Folder(root) = &self.kind {
            let _ = tokio::fs::remove_file(root.join(format!("{key}#1"))).await;
        }
    }

    /// A store's error as one of ours.
    fn fault(&self, action: &str, key: &str, error: StoreError) -> Error {
        let what = format!("cannot {action} {key} at {}", self.name);
        let io = io_kind(&error);
        let remedy = match io {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                "free some space there and publish again; what devices see has not changed"
            }
            Some(io::ErrorKind::PermissionDenied) => "check the owner and mode of that folder",
            _ => "publish again; what devices see has not changed",
        };
        Error::new(Kind::Io, what).with_source(error).remedy(remedy)
    }
}

/// Errs if what was read of a file is not what its name and metadata promise.
fn check(file: &std::path::Path, length: u64, sha256: &[u8; 32], read: u64, hash: [u8; 32]) -> Result<()> {
    if read == length && hash == *sha256 {
        return Ok(());
    }
    Err(Error::input(format!("{} is damaged: {} with {read} bytes was read", file.display(), to_hex(&hash)))
        .remedy(format!("restore the file whose SHA-256 is {} and publish again", to_hex(sha256))))
}

/// How many requests an upload takes that finds nothing in its way.
pub(super) fn requests(length: u64) -> u64 {
    // Looked for, begun, sent in parts, completed.
    if length <= SINGLE { 1 } else { 3 + length.div_ceil(PART as u64) }
}

/// The kind of the system's error beneath, if it was the system.
fn io_kind(error: &StoreError) -> Option<io::ErrorKind> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}

//! The place of a repository: an object store, or a local folder that behaves like one.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::{
    Attribute, Attributes, Error as StoreError, GetOptions, GetResult, ObjectStore, ObjectStoreExt as _, PutMode,
    PutOptions, PutPayload, UpdateVersion,
};
use sha2::{Digest as _, Sha256};
use tidegate_tuf::Limits;
use tidegate_tuf::hash::to_hex;
use tracing::debug;

use super::anyone::{self, Anyone};
use super::buffers::Buffers;
use super::fault::{self, Secrets};
use super::headers::HeaderRules;
use super::listing::{Files, Listed};
use super::place::{self, Options};
use super::private::overlap;
use super::probe::{Concurrency, PROBE, Probe};
use super::upload::BUFFERS;
use crate::error::{Error, Kind, Result, Rule, chain};
use crate::fs::confined;

/// The object whose replacement makes a publication visible.
pub(in crate::publish) const TIMESTAMP: &str = "metadata/timestamp.json";

/// The lock file that keeps two publishers to one local folder apart.
const LOCK: &str = ".publish.lock";
/// The folders of a workspace that nothing is published to.
const OWN: [&str; 8] = ["metadata", "artifacts", "keys", "releases", "proposals", "transcripts", ".tidegate", ".git"];
/// The metadata key of an object's SHA-256, as checked when it was sent. Azure allows only letters, digits and `_`.
const CHECKED: &str = "tidegatesha256";
/// Number of attempts of a conditional write whose answer was lost.
const TRIES: u32 = 6;

/// A place that a repository is published to.
#[derive(Clone)]
pub struct Remote {
    pub(in crate::publish) store: Arc<dyn ObjectStore>,
    /// The same store, if another process can resume its multipart uploads.
    pub(super) multipart: Option<Arc<dyn MultipartStore>>,
    /// The prefix of every key.
    pub(in crate::publish) prefix: Key,
    pub(super) kind: Backend,
    pub(super) name: String,
    /// The server of that name, if the name does not imply it.
    pub(super) endpoint: String,
    pub(super) headers: HeaderRules,
    pub(super) secrets: Secrets,
    pub(super) retry_for: Duration,
    pub(super) memory: Option<PathBuf>,
    /// The length of the parts of large files.
    pub(in crate::publish) part: u64,
    /// The buffers that all uploads share.
    pub(super) buffers: Buffers,
    /// The place of protected objects.
    pub(in crate::publish) private: Option<Arc<Remote>>,
    /// How to request objects without credentials; none for folders.
    pub(super) anyone: Option<Anyone>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::publish) enum Backend {
    /// A folder, without conditional replacement and headers: a lock file and a comparison replace the first, and the server of
    /// the folder sets the second.
    Folder(PathBuf),
    /// A store that stores headers.
    Store(Writes),
}

/// Whether a store replaces an object only if it is still the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    /// Yes: of several concurrent writers one wins.
    Conditional,
    /// It accepts the condition; not proven yet.
    Unknown,
    /// No: there must be a single writer.
    None,
}

/// An object as it was read: its bytes, and the version that a conditional replacement refers to.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The content.
    pub bytes: Bytes,
    /// When it was written, by the store's clock.
    pub written: DateTime<Utc>,
    pub(super) version: UpdateVersion,
}

/// The result of a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// This write stored the object.
    Written,
    /// The object already had this content: from an earlier interrupted attempt, or from another writer.
    AlreadyThere,
    /// The object has different content, and was left alone.
    Different,
}

/// Keeps other publishers out of a local folder until dropped.
#[derive(Debug)]
pub struct Guard(File);

impl Drop for Guard {
    fn drop(&mut self) {
        // Closing the file is not enough if another thread is just starting a program, which inherits a copy of it.
        let _ = self.0.unlock();
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the store: the `Debug` output of clients may contain credentials.
        f.debug_struct("Remote").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Remote {
    /// Opens a place by its URL or, for a folder, by its path: `s3://BUCKET/PREFIX`, `gs://`, `az://`, `file://`.
    ///
    /// # Errors
    ///
    /// The same as [`Remote::open_with`].
    pub fn open(place: &str) -> Result<Self> {
        Self::open_with(place, &Options::default())
    }

    /// Opens a place with options.
    ///
    /// # Errors
    ///
    /// Fails if `place` is not the URL of a store or the path of a folder, or if the environment lacks the store's settings.
    pub fn open_with(place: &str, options: &Options) -> Result<Self> {
        place::open_to_write(place, options)
    }

    /// Opens a place for reading only, which may also be a web server: `http(s)://`.
    ///
    /// # Errors
    ///
    /// The same as [`Remote::open_with`], except that web servers are accepted.
    pub fn open_to_read(place: &str, options: &Options) -> Result<Self> {
        place::open_to_read(place, options)
    }

    pub(super) fn new(store: Arc<dyn ObjectStore>, prefix: Key, kind: Backend, name: &str, options: &Options) -> Self {
        Self {
            store,
            multipart: None,
            prefix,
            kind,
            name: name.to_owned(),
            endpoint: String::new(),
            headers: options.headers,
            secrets: Secrets::default(),
            retry_for: options.retry_for,
            memory: options.memory.clone(),
            part: options.part,
            buffers: Buffers::new(BUFFERS),
            private: None,
            anyone: None,
        }
    }

    /// A store that can replace objects conditionally (`PutMode::Update`); `prefix` is prepended to all keys.
    pub fn conditional(store: Arc<dyn ObjectStore>, prefix: &str, name: impl Into<String>) -> Self {
        let options = Options { retry_for: Duration::ZERO, ..Options::default() };
        Self::new(store, Key::from(prefix), Backend::Store(Writes::Conditional), &name.into(), &options)
    }

    /// The same place with its store wrapped: to count, limit or fail requests.
    #[must_use]
    pub fn wrapped(mut self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        self.store = wrap(self.store);
        // Uploads would bypass the wrapper otherwise.
        self.multipart = None;
        self.anyone = None;
        self
    }

    /// Whether it is a folder on this machine.
    pub fn is_local(&self) -> bool {
        matches!(self.kind, Backend::Folder(_))
    }

    /// Whether an object lies in the place itself: a link in a folder may lead out of it.
    pub(in crate::publish) fn is_within(&self, key: &str) -> bool {
        !matches!(&self.kind, Backend::Folder(root) if confined(root, key).is_err())
    }

    /// Whether no other publisher can be active: the lock is held, or the operator declared it.
    pub(in crate::publish) fn is_exclusive(&self) -> bool {
        matches!(self.kind, Backend::Folder(_) | Backend::Store(Writes::None))
    }

    /// Refuses a place that is the workspace `dir`, one of its own folders, or around it: servers of it would give out private keys, and
    /// publishing would write into what is to be published.
    ///
    /// # Errors
    ///
    /// A usage error in these cases.
    pub fn is_apart_from(&self, dir: &Path) -> Result<()> {
        let (Backend::Folder(root), Ok(dir)) = (&self.kind, dir.canonicalize()) else { return Ok(()) };
        let own = root.strip_prefix(&dir).ok().map(|below| below.iter().next().and_then(|first| first.to_str()));
        let is_own = match own {
            Some(first) => first.is_none_or(|first| OWN.contains(&first)),
            None => dir.starts_with(root),
        };
        if !is_own || !dir.join("tidegate.toml").is_file() {
            return Ok(());
        }
        Err(Error::usage(format!("{} is or contains a folder of the workspace itself", self.name))
            .remedy("publish to a folder outside of the workspace, such as ../public"))
    }

    /// The name to display.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The place as commands and settings take it from any folder; `None` for a web server, which is only read.
    pub(in crate::publish) fn reopened(&self) -> Option<String> {
        match &self.kind {
            Backend::Folder(root) => Some(root.display().to_string()),
            Backend::Store(_) => Some(self.name.clone()).filter(|name| !name.starts_with("http")),
        }
    }

    /// Keeps other publishers out while the guard lives. Only local folders need this; elsewhere the conditional write decides.
    ///
    /// # Errors
    ///
    /// Fails with a conflict if another process holds the lock, or if the lock file cannot be created.
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

    /// Reads a small object; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// Fails if the store cannot be read, or if the object is longer than `limit`.
    pub async fn read(&self, key: &str, limit: u64) -> Result<Option<Seen>> {
        let begun = Instant::now();
        let mut tries = 0;
        loop {
            match self.read_once(key, limit).await {
                Err(error) if fault::is_transient(&error) && self.may_retry(begun, &mut tries).await => {}
                Err(error) => return Err(self.fault("read", key, &error)),
                Ok(Some((seen, size))) if size > limit || seen.bytes.len() as u64 > limit => {
                    return Err(Error::trust(format!("{key} at {} is {size} bytes long, not metadata", self.name)));
                }
                Ok(found) => return Ok(found.map(|(seen, _)| seen)),
            }
        }
    }

    /// Gets an object. In a folder only a regular file is one: opening a pipe would block until its other end is open.
    pub(super) async fn get(&self, key: &str, options: GetOptions) -> Result<GetResult, StoreError> {
        if let Backend::Folder(root) = &self.kind
            && std::fs::metadata(root.join(key)).is_ok_and(|metadata| !metadata.is_file())
        {
            return Err(StoreError::NotFound { path: key.to_owned(), source: "it is not a regular file".into() });
        }
        self.store.get_opts(&self.key(key), options).await
    }

    async fn read_once(&self, key: &str, limit: u64) -> Result<Option<(Seen, u64)>, StoreError> {
        let result = self.get(key, GetOptions::default()).await;
        debug!(place = self.name, key, result = outcome(&result), "read");
        let result = match result {
            Ok(result) => result,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let (size, written) = (result.meta.size, result.meta.last_modified);
        let version = UpdateVersion { e_tag: result.meta.e_tag.clone(), version: result.meta.version.clone() };
        let compressed = result.attributes.get(&Attribute::ContentEncoding).is_some_and(|e| e.as_ref() == "gzip");
        let bytes = if size > limit { Bytes::new() } else { result.bytes().await? };
        let bytes = if compressed { decompress(&bytes, limit) } else { bytes };
        Ok(Some((Seen { bytes, written, version }, size)))
    }

    /// Whether the timestamp is still the one that was `seen`; with `None`, whether it still does not exist.
    ///
    /// # Errors
    ///
    /// Fails if the timestamp cannot be read.
    pub async fn is_still_at(&self, seen: Option<&Seen>) -> Result<bool> {
        let limit = Limits::default().timestamp_length;
        Ok(self.read(TIMESTAMP, limit).await?.map(|now| now.bytes) == seen.map(|seen| seen.bytes.clone()))
    }

    /// Creates a small object that never changes. An existing one is compared, never replaced.
    ///
    /// # Errors
    ///
    /// Fails if the store rejects the write or cannot be reached.
    pub async fn create(&self, key: &str, bytes: &Bytes) -> Result<WriteOutcome> {
        self.create_checked(key, bytes, None).await
    }

    /// The same; `checked` is the SHA-256 of the bytes, which the store then keeps with them.
    pub(super) async fn create_checked(
        &self,
        key: &str,
        bytes: &Bytes,
        checked: Option<&[u8; 32]>,
    ) -> Result<WriteOutcome> {
        self.sweep(key).await;
        if self.kind == Backend::Store(Writes::None) {
            return match self.compare(key, bytes).await? {
                Some(outcome) => Ok(outcome),
                None => self.put(key, bytes, checked, PutMode::Overwrite).await,
            };
        }
        self.put(key, bytes, checked, PutMode::Create).await
    }

    /// Replaces the object that was `seen`, or creates it if none was.
    ///
    /// # Errors
    ///
    /// Fails if the store rejects the write or cannot be reached. A lost race is [`WriteOutcome::Different`], not an error.
    pub async fn replace(&self, key: &str, bytes: &Bytes, seen: Option<&Seen>) -> Result<WriteOutcome> {
        let Some(seen) = seen else { return self.create(key, bytes).await };
        self.sweep(key).await;
        let mode = match self.kind {
            Backend::Store(Writes::Conditional | Writes::Unknown) => PutMode::Update(seen.version.clone()),
            // The caller holds the lock or is the only writer, so nothing happens between the comparison and the write.
            Backend::Folder(_) | Backend::Store(Writes::None) => {
                // A longer object is a different one.
                match self.read(key, (seen.bytes.len() as u64).saturating_add(4096)).await {
                    Ok(Some(now)) if now.bytes == seen.bytes => PutMode::Overwrite,
                    Ok(None) => return Ok(WriteOutcome::Different),
                    Ok(Some(_)) | Err(_) => {
                        return Ok(self.compare(key, bytes).await?.unwrap_or(WriteOutcome::Different));
                    }
                }
            }
        };
        self.put(key, bytes, None, mode).await
    }

    /// Writes an object unconditionally. Only for an exclusive publisher.
    pub(in crate::publish) async fn overwrite(&self, key: &str, bytes: &Bytes) -> Result<WriteOutcome> {
        self.put(key, bytes, None, PutMode::Overwrite).await
    }

    /// Writes with retries. If an object blocks a conditional write, it is compared: it may come from an earlier attempt whose
    /// answer was lost.
    async fn put(&self, key: &str, bytes: &Bytes, checked: Option<&[u8; 32]>, mode: PutMode) -> Result<WriteOutcome> {
        let begun = Instant::now();
        let (mut tries, mut gone) = (0, 0);
        let (body, attributes) = self.encode(key, bytes, checked)?;
        loop {
            let options = PutOptions { mode: mode.clone(), attributes: attributes.clone(), ..PutOptions::default() };
            let sent = self.store.put_opts(&self.key(key), PutPayload::from(body.clone()), options).await;
            debug!(place = self.name, key, bytes = body.len(), result = outcome(&sent), "write");
            let Err(error) = sent else { return Ok(WriteOutcome::Written) };
            let lost = match &error {
                StoreError::Precondition { .. } | StoreError::AlreadyExists { .. } => mode != PutMode::Overwrite,
                // The object to replace is missing. When creating, only a missing bucket causes this.
                StoreError::NotFound { .. } => matches!(mode, PutMode::Update(_)),
                _ => false,
            };
            if lost {
                match self.compare(key, bytes).await? {
                    Some(outcome) => return Ok(outcome),
                    // Removed in the meantime, or the answer to an undecided race (409).
                    None if mode == PutMode::Create && gone < TRIES => gone += 1,
                    None => return Ok(WriteOutcome::Different),
                }
            } else if !(fault::is_transient(&error) && self.may_retry(begun, &mut tries).await) {
                return Err(self.fault("write", key, &error));
            }
        }
    }

    /// Whether an object exists with the same content; `None` if it does not exist.
    async fn compare(&self, key: &str, bytes: &Bytes) -> Result<Option<WriteOutcome>> {
        // Longer objects are different, whatever they contain.
        let limit = (bytes.len() as u64).saturating_add(4096);
        let found = match self.read(key, limit).await {
            Ok(found) => found,
            Err(error) if error.kind() == Kind::Trust => return Ok(Some(WriteOutcome::Different)),
            Err(error) => return Err(error),
        };
        Ok(found.map(|seen| if seen.bytes == *bytes { WriteOutcome::AlreadyThere } else { WriteOutcome::Different }))
    }

    /// Whether an object of that length and SHA-256 exists; `None` if it does not exist. Objects that we sent carry the SHA-256
    /// that they were checked against; others are read.
    pub(super) async fn look(&self, key: &str, length: u64, sha256: &[u8; 32]) -> Result<Option<WriteOutcome>> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        let found = self.get(key, options).await;
        debug!(place = self.name, key, result = outcome(&found), "look");
        let found = match found {
            Ok(found) => found,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.why_not_there(key, &error).await),
        };
        let checked = found.attributes.get(&Attribute::Metadata(CHECKED.into()));
        let same = found.meta.size == length
            && (checked.is_some_and(|checked| checked.as_ref() == to_hex(sha256))
                || self.remote_sha256(key).await? == *sha256);
        Ok(Some(if same { WriteOutcome::AlreadyThere } else { WriteOutcome::Different }))
    }

    /// Why an object cannot be checked: the answer to HEAD has no reason, the answer to GET does.
    pub(super) async fn why_not_there(&self, key: &str, error: &StoreError) -> Error {
        let options = GetOptions { range: Some((0..1).into()), ..GetOptions::default() };
        let why = self.get(key, options).await.err();
        self.fault("look for", key, why.as_ref().unwrap_or(error))
    }

    /// The SHA-256 of an object, streamed.
    async fn remote_sha256(&self, key: &str) -> Result<[u8; 32]> {
        let gone = || Error::new(Kind::Io, format!("{key} at {} has gone while it was looked at", self.name));
        let mut stream = self.stream(key).await?.ok_or_else(gone)?;
        let mut hash = Sha256::new();
        while let Some(chunk) = stream.try_next().await? {
            hash.update(&chunk);
        }
        Ok(hash.finalize().into())
    }

    /// Streams an object's bytes; `None` if it does not exist.
    pub(super) async fn stream(&self, key: &str) -> Result<Option<BoxStream<'static, Result<Bytes>>>> {
        let result = self.get(key, GetOptions::default()).await;
        debug!(place = self.name, key, result = outcome(&result), "read");
        let result = match result {
            Ok(result) => result,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.fault("read", key, &error)),
        };
        let (this, key) = (self.clone(), key.to_owned());
        let bytes = result.into_stream().map(move |chunk| chunk.map_err(|error| this.fault("read", &key, &error)));
        Ok(Some(bytes.boxed()))
    }

    /// Removes an object. A missing object counts as removed.
    pub(super) async fn delete(&self, key: &str) -> Result<()> {
        let result = self.store.delete(&self.key(key)).await;
        debug!(place = self.name, key, result = outcome(&result), "delete");
        match result {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.fault("remove", key, &error)),
        }
    }

    /// The store's name for one of our keys.
    pub(in crate::publish) fn key(&self, key: &str) -> Key {
        self.prefix.parts().chain(Key::from(key).parts()).collect()
    }

    /// An object as stored: compressed or not, with the headers to serve it with.
    fn encode(&self, key: &str, bytes: &Bytes, checked: Option<&[u8; 32]>) -> Result<(Bytes, Attributes)> {
        let mut attributes = self.attributes(key, checked);
        if self.is_local() || !self.headers.compresses(key, bytes.len()) {
            return Ok((bytes.clone(), attributes));
        }
        attributes.insert(Attribute::ContentEncoding, "gzip".into());
        // Without a name or a time inside, so that equal input gives equal bytes.
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let compressed = encoder.write_all(bytes).and_then(|()| encoder.finish());
        Ok((compressed.map_err(|error| Error::bug("cannot compress").with_source(error))?.into(), attributes))
    }

    /// The headers to serve an object with, if the store stores headers.
    pub(super) fn attributes(&self, key: &str, checked: Option<&[u8; 32]>) -> Attributes {
        if self.is_local() {
            return Attributes::new();
        }
        let (content_type, cache_control) = self.headers.of(key);
        let mut attributes = Attributes::from_iter([
            (Attribute::CacheControl, object_store::AttributeValue::from(cache_control.into_owned())),
            (Attribute::ContentType, content_type.into()),
        ]);
        if let Some(sha256) = checked {
            attributes.insert(Attribute::Metadata(CHECKED.into()), to_hex(sha256).into());
        }
        attributes
    }

    /// Removes what a killed publisher left of this object: the local store writes `NAME#1` and renames it. The lock is held, so
    /// no other process uses it.
    pub(in crate::publish) async fn sweep(&self, key: &str) {
        if let Backend::Folder(root) = &self.kind {
            let _ = tokio::fs::remove_file(root.join(format!("{key}#1"))).await;
        }
    }

    /// Waits, longer each time, and returns whether to try again. Errors that the store's client has retried itself arrive here
    /// when its time is up.
    pub(super) async fn may_retry(&self, begun: Instant, tries: &mut u32) -> bool {
        *tries += 1;
        if *tries >= TRIES || begun.elapsed() >= self.retry_for {
            return false;
        }
        let pause = Duration::from_millis(25) * 2_u32.pow((*tries).min(8));
        tokio::time::sleep(pause.min(self.retry_for / 4)).await;
        true
    }

    /// Converts a store's error into ours.
    pub(in crate::publish) fn fault(&self, action: &str, key: &str, error: &StoreError) -> Error {
        fault::fault(format!("cannot {action} {key} at {}", self.name), error, &self.secrets)
    }

    /// The place, and at which server.
    pub(super) fn place(&self) -> String {
        format!("{} {}", self.name(), self.endpoint)
    }

    /// The same place, with protected objects in `private`.
    ///
    /// # Errors
    ///
    /// Fails if one of the two is or contains the other: readers of one could read the other.
    pub fn with_private(mut self, mut private: Self) -> Result<Self> {
        if let Some(why) = overlap(&self, &private) {
            return Err(Error::refused(
                Rule::PublishPrivate,
                format!("what is protected would lie open: {} {why} {}", private.name(), self.name()),
            )
            .remedy("choose a private place of its own, best another bucket, which only the gate may read"));
        }
        // A gate serves the bytes as stored, and no cache may serve them to others.
        private.headers.compress = false;
        private.headers.private = true;
        self.private = Some(Arc::new(private));
        Ok(self)
    }

    /// The place of protected objects.
    pub fn private(&self) -> Option<&Self> {
        self.private.as_deref()
    }

    /// Reads a small object from here or, if it is missing, from the private place.
    pub(in crate::publish) async fn find(&self, key: &str, limit: u64) -> Result<Option<Seen>> {
        match (self.read(key, limit).await?, self.private()) {
            (None, Some(private)) => private.read(key, limit).await,
            (found, _) => Ok(found),
        }
    }

    /// Streams an object from here or, if it is missing, from the private place.
    pub(in crate::publish) async fn find_stream(
        &self,
        key: &str,
    ) -> Result<Option<BoxStream<'static, Result<bytes::Bytes>>>> {
        match (self.stream(key).await?, self.private()) {
            (None, Some(private)) => private.stream(key).await,
            (found, _) => Ok(found),
        }
    }

    /// Whether the object exists here, not only in the private place.
    pub(in crate::publish) async fn has(&self, key: &str) -> Result<bool> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        match self.get(key, options).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.why_not_there(key, &error).await),
        }
    }

    /// The place itself, or its private place.
    pub(in crate::publish) fn side(&self, private: bool) -> Result<&Self> {
        match self.private() {
            _ if !private => Ok(self),
            Some(private) => Ok(private),
            None => Err(Error::bug("something private, and no private place")),
        }
    }

    /// The objects below one of our keys, such as `receipts/stable`; an empty key lists the place. In no particular order.
    pub(crate) fn objects(&self, below: &str) -> BoxStream<'_, Result<Listed>> {
        if let Backend::Folder(root) = &self.kind {
            // Not the store's own listing: it stops at the first name that is not a valid key, and follows links.
            let files = Files::below(root, below);
            return stream::iter(files.map(|file| file.map_err(|(path, error)| Error::io("list", &path, error))))
                .boxed();
        }
        debug!(place = self.name(), below, "list");
        let prefix: Key = self.prefix.parts().chain(Key::from(below).parts()).collect();
        let strip = if self.prefix.as_ref().is_empty() { 0 } else { self.prefix.as_ref().len() + 1 };
        let listed = self.store.list((!prefix.as_ref().is_empty()).then_some(&prefix));
        let found = listed.filter_map(move |object| async move {
            let object = object.map_err(|error| match error {
                // The store's listing stops here, and the library has no way to continue.
                object_store::Error::InvalidPath { source } => Error::trust(format!(
                    "{} holds an object whose name is none that was put there by a gate: {source}",
                    self.name()
                ))
                .remedy("remove it with the store's own tools, and let nobody but the gate name objects there: docs/gate.md"),
                error => self.fault("list", "what is", &error),
            });
            object.map(|meta| Some((meta.location.as_ref().get(strip..)?.to_owned(), meta.size))).transpose()
        });
        found.boxed()
    }

    /// Reads a small object that was listed; `None` if it has been removed since. Files of a folder are opened directly: there
    /// may be a million of them.
    ///
    /// # Errors
    ///
    /// [`Kind::Trust`] if it is longer than `limit`, or a file that cannot be read: anyone who may
    /// write to a folder can create such a file.
    pub(crate) async fn read_listed(&self, key: &str, limit: u64) -> Result<Option<Bytes>> {
        let Backend::Folder(root) = &self.kind else {
            return Ok(self.read(key, limit).await?.map(|seen| seen.bytes));
        };
        let path = root.join(key);
        let mut bytes = Vec::new();
        match crate::fs::open_regular(&path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)) {
            Ok(length) if length as u64 > limit => {
                Err(Error::trust(format!("{} is longer than {limit} bytes", path.display())))
            }
            Ok(_) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Error::trust(format!("{} may not be read", path.display())).with_source(error))
            }
            Err(error) => Err(Error::io("read", &path, error)),
        }
    }

    /// Checks that the folder exists. Whether a bucket exists shows when it is listed.
    ///
    /// # Errors
    ///
    /// Fails if the place is a folder that does not exist.
    pub(crate) fn must_be_there(&self) -> Result<()> {
        match &self.kind {
            Backend::Folder(root) if !root.is_dir() => Err(Error::input(format!("there is no folder {}", self.name()))
                .remedy("correct the name, or make the folder if nothing has been put there yet")),
            _ => Ok(()),
        }
    }

    /// Whether anyone who requests an object gets it; `None` where that cannot be checked: a folder is served by another program,
    /// if at all. `length` and `bytes` describe the content, if known.
    ///
    /// # Errors
    ///
    /// Fails if there is no answer, because the result is then unknown.
    pub(in crate::publish) async fn is_open_to_anyone(
        &self,
        key: &str,
        length: Option<u64>,
        bytes: Option<&Bytes>,
    ) -> Result<Option<bool>> {
        let Some(anyone) = &self.anyone else { return Ok(None) };
        let (begun, mut tries) = (Instant::now(), 0);
        loop {
            match anyone.ask(&self.key(key), length, bytes).await {
                Ok(is_open) => return Ok(Some(is_open)),
                Err(_) if self.may_retry(begun, &mut tries).await => {}
                Err(error) => {
                    let why = self.secrets.redact(&chain(&error.without_url()));
                    let what = format!("cannot find out whether anyone can read {key} at {}: {why}", self.name());
                    return Err(Error::new(Kind::Io, what).remedy("what devices see has not changed; try again"));
                }
            }
        }
    }

    /// Checks that nobody can read this object of the private place without credentials.
    ///
    /// # Errors
    ///
    /// `P-READABLE` if anyone can read it.
    pub(in crate::publish) async fn closed_to_anyone(
        &self,
        key: &str,
        length: Option<u64>,
        bytes: Option<&Bytes>,
    ) -> Result<()> {
        if self.is_open_to_anyone(key, length, bytes).await? == Some(true) {
            Err(anyone::open(self, key))
        } else {
            Ok(())
        }
    }

    /// The same check for an empty place, with an object without information.
    pub(in crate::publish) async fn closed_before_the_first(&self) -> Result<()> {
        if self.anyone.is_none() {
            return Ok(());
        }
        let mut random = [0; 12];
        getrandom::fill(&mut random).map_err(|error| Error::bug(format!("no randomness: {error}")))?;
        let name = tidegate_tuf::hash::to_hex(&random);
        let (key, bytes) = (format!("{PROBE}/{name}"), Bytes::from(format!("{name}\n")));
        self.create(&key, &bytes).await?;
        let closed = self.closed_to_anyone(&key, None, Some(&bytes)).await;
        // Nothing depends on this: leftovers are small, and `tidegate prune` removes them.
        let _ = self.delete(&key).await;
        closed
    }

    /// How publishers are kept apart at this place.
    pub fn concurrency(&self) -> Concurrency {
        match self.kind {
            Backend::Folder(_) => Concurrency::Lock,
            Backend::Store(Writes::Conditional) => Concurrency::Conditional,
            Backend::Store(Writes::Unknown) => Concurrency::Unknown,
            Backend::Store(Writes::None) => Concurrency::SingleWriter,
        }
    }

    /// The same place, treated as one with reliable conditional writes. For stores where that is otherwise known.
    #[must_use]
    pub fn danger_assume_conditional(mut self) -> Self {
        if let Backend::Store(writes) = &mut self.kind {
            *writes = Writes::Conditional;
        }
        self
    }

    /// Makes sure, before anything is written, that two publishers cannot both win; `now` is the time recorded with the result.
    ///
    /// # Errors
    ///
    /// `P-SINGLE-WRITER` if the store cannot keep them apart, unless `single_writer` declares that there is only one. Fails if
    /// the probe cannot write.
    pub async fn settle(&mut self, single_writer: bool, now: DateTime<Utc>) -> Result<()> {
        if let Some(private) = &mut self.private {
            Box::pin(std::sync::Arc::make_mut(private).settle(single_writer, now)).await?;
        }
        let why = match self.kind {
            Backend::Folder(_) | Backend::Store(Writes::Conditional) => return Ok(()),
            Backend::Store(Writes::None) => "it has no conditional writes",
            Backend::Store(Writes::Unknown) => {
                if Probe(self).is_conditional(now).await? {
                    self.kind = Backend::Store(Writes::Conditional);
                    return Ok(());
                }
                "of several writers at once more than one won there, or none"
            }
        };
        if single_writer {
            self.kind = Backend::Store(Writes::None);
            return Ok(());
        }
        Err(Error::refused(Rule::PublishSingleWriter, format!("{} cannot keep two publishers apart: {why}", self.name()))
            .remedy("if nothing else ever publishes there, say so: --single-writer; else choose a store with conditional writes"))
    }
}

/// The outcome of a request for the log: a store's description of a failure may contain URLs with signatures.
fn outcome<T>(result: &Result<T, StoreError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(StoreError::NotFound { .. }) => "not found",
        Err(StoreError::AlreadyExists { .. }) => "already exists",
        Err(StoreError::Precondition { .. }) => "changed meanwhile",
        Err(StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. }) => "denied",
        Err(_) => "failed",
    }
}

fn decompress(bytes: &Bytes, limit: u64) -> Bytes {
    let mut plain = Vec::new();
    let read = flate2::read::GzDecoder::new(bytes.as_ref()).take(limit.saturating_add(1)).read_to_end(&mut plain);
    read.map_or_else(|_| bytes.clone(), |_| plain.into())
}

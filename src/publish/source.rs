//! A repository to publish: a workspace, or the contents of another store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate_model::listing::{Listing, MAX_LISTING};
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::path::metadata_file;
use tokio::runtime::{Handle, Runtime};

use super::store::{Options, Remote, Supply, Variables};
use crate::audit::{ByHash, Flat, Origin, PublishedRepository};
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::metadata::{FROM_ROOT, MAX_ROOT, anchor_file};
use crate::workspace::{Published, check_begun};

/// The folder of a workspace that holds metadata.
const METADATA: &str = "metadata";
/// The folder of a workspace that holds the bytes of all targets, by their SHA-256.
const ARTIFACTS: &str = "artifacts/sha256";
/// A repository as an [`Origin`], and where the bytes of its targets are.
#[derive(Clone)]
pub struct Source(From);

#[derive(Clone)]
enum From {
    /// Metadata from its folder, targets from the content-addressed folder.
    Workspace {
        dir: PathBuf,
        origin: ByHash,
    },
    Store {
        origin: Box<StoreOrigin>,
        root: Vec<u8>,
    },
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            From::Workspace { dir, .. } => f.debug_tuple("Source").field(dir).finish(),
            From::Store { origin, .. } => f.debug_tuple("Source").field(&origin.remote).finish(),
        }
    }
}

impl Source {
    /// The workspace in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self(From::Workspace { origin: ByHash::new(dir.join(METADATA), dir.join(ARTIFACTS)), dir })
    }

    /// What is published at `remote`, verified from the trusted `root` on. Only within an asynchronous runtime.
    pub fn store(remote: Remote, root: Vec<u8>) -> Self {
        Self(From::Store { origin: Box::new(StoreOrigin::new(remote)), root })
    }

    /// A separate origin for other threads. It blocks: do not use it in tasks of a runtime.
    pub fn origin(&self) -> Arc<dyn Origin> {
        match &self.0 {
            From::Workspace { origin, .. } => Arc::new(origin.clone()),
            From::Store { origin, .. } => Arc::new(StoreOrigin::clone(origin)),
        }
    }

    /// The root from which everything is verified: that of the workspace, or the one that was given for a store.
    ///
    /// # Errors
    ///
    /// Fails if the root is missing or cannot be read.
    pub fn first_root(&self) -> Result<Vec<u8>> {
        match &self.0 {
            From::Workspace { dir, .. } => {
                check_begun(dir)?;
                if dir.join(METADATA).join(FROM_ROOT).exists() {
                    return fs::read(&anchor_file(dir)?, MAX_ROOT);
                }
                first_root(&dir.join(METADATA))
            }
            From::Store { root, .. } => Ok(root.clone()),
        }
    }

    /// Whether it is what is published somewhere.
    pub(super) fn is_published(&self) -> bool {
        matches!(self.0, From::Store { .. })
    }

    /// The role versions when this workspace and the live state last agreed, if known.
    pub(super) fn agreed(&self) -> Result<Option<BTreeMap<String, u64>>> {
        match &self.0 {
            From::Workspace { dir, .. } => Ok(match Published::load(dir)? {
                Some(published) => published.roles(dir)?,
                None => None,
            }),
            From::Store { .. } => Ok(None),
        }
    }

    /// A metadata file, or `None` if it does not exist.
    pub(super) async fn metadata(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        match &self.0 {
            From::Workspace { origin, .. } => origin.metadata(file, limit),
            From::Store { origin, .. } => {
                let seen = origin.remote.find(&format!("metadata/{file}"), limit).await?;
                Ok(seen.map(|seen| seen.bytes.to_vec()))
            }
        }
    }

    /// The bytes of a small target with the object key `key`, or `None` if it does not exist.
    pub(super) async fn small(&self, key: &str, sha256: &[u8; 32], limit: u64) -> Result<Option<Vec<u8>>> {
        match &self.0 {
            From::Workspace { origin, .. } => fs::read_if_exists(&origin.artifact(&to_hex(sha256)), limit),
            From::Store { origin, .. } => Ok(origin.remote.find(key, limit).await?.map(|seen| seen.bytes.to_vec())),
        }
    }

    /// Whether the bytes of a target are here. A store is asked when they are needed.
    pub(super) fn has(&self, sha256: &[u8; 32]) -> bool {
        match &self.0 {
            From::Workspace { origin, .. } => origin.artifact(&to_hex(sha256)).is_file(),
            From::Store { .. } => true,
        }
    }

    /// The bytes of the target with the object key `key`.
    pub(super) async fn supply(&self, key: &str, sha256: &[u8; 32]) -> Result<Supply> {
        match &self.0 {
            From::Workspace { origin, .. } => Ok(Supply::file(&origin.artifact(&to_hex(sha256)))),
            From::Store { origin, .. } => {
                let name = format!("{key} at {}", origin.remote.name());
                let missing = || Error::trust(format!("{name} is missing"));
                let stream = origin.remote.find_stream(key).await?.ok_or_else(missing)?;
                Ok(Supply::stream(name, stream))
            }
        }
    }
}

fn first_root(dir: &std::path::Path) -> Result<Vec<u8>> {
    let listing = std::fs::read_dir(dir).map_err(|error| {
        Error::io("read", dir, error).remedy("run this in a workspace, or name one with -C; `tidegate init` makes one")
    })?;
    let mut first: Option<u64> = None;
    for entry in listing {
        let entry = entry.map_err(|error| Error::io("read", dir, error))?;
        let name = entry.file_name();
        let version = name.to_str().and_then(|name| name.strip_suffix(".root.json")).and_then(|v| v.parse().ok());
        first = [first, version].into_iter().flatten().min();
    }
    let first = first.ok_or_else(|| {
        Error::input(format!("{} holds no root", dir.display())).remedy("`tidegate init` makes a workspace with one")
    })?;
    fs::read(&dir.join(metadata_file("root", Some(first))), MAX_ROOT)
}

/// Opens a place to read: a folder or a web server as devices read it, a store with the publisher's own credentials, taken from
/// `variables`.
///
/// # Errors
///
/// Fails if the place cannot be opened.
pub fn open_origin(place: &str, variables: Variables) -> Result<Arc<dyn Origin>> {
    let with_credentials = ["s3", "s3a", "gs", "az", "azure", "abfs", "abfss"];
    Ok(match place.split_once("://") {
        Some((scheme, _)) if with_credentials.contains(&scheme) => {
            let options = Options { variables, ..Options::default() };
            Arc::new(StoreOrigin::opened(Remote::open_with(place, &options)?)?)
        }
        _ => Arc::new(PublishedRepository::open(place)?),
    })
}

/// Opens the place of protected objects that belongs to the public one.
///
/// # Errors
///
/// `P-PRIVATE` if one of the places is or contains the other, as far as that can be told: where the files behind a URL are stored is
/// unknown. Fails if it cannot be opened.
pub fn open_private_origin(public: &str, private: &str) -> Result<Arc<dyn Origin>> {
    let is_url = |place: &str| place.starts_with("http://") || place.starts_with("https://");
    if !is_url(public) && !is_url(private) {
        Remote::open(public)?.with_private(Remote::open(private)?)?;
    }
    open_origin(private, Variables::of_process().for_private())
}

/// The contents of a place, read with the publisher's own credentials. It blocks: do not use it in tasks of a runtime.
#[derive(Clone)]
pub struct StoreOrigin {
    remote: Remote,
    runtime: Handle,
    flat: Flat,
    /// The runtime that does the reading, if there was none.
    _own: Option<Arc<Runtime>>,
}

impl std::fmt::Debug for StoreOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreOrigin").field("remote", &self.remote).finish_non_exhaustive()
    }
}

impl StoreOrigin {
    /// The contents of `remote`. Call it within an asynchronous runtime, which does the reading.
    pub fn new(remote: Remote) -> Self {
        Self { remote, runtime: Handle::current(), flat: Flat::default(), _own: None }
    }

    /// The same, also without a runtime: then it has its own.
    fn opened(remote: Remote) -> Result<Self> {
        let flat = Flat::default();
        if let Ok(runtime) = Handle::try_current() {
            return Ok(Self { remote, runtime, flat, _own: None });
        }
        let own = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let own = own.map_err(|e| Error::new(Kind::Io, "the system cannot start a thread").with_source(e))?;
        Ok(Self { remote, runtime: own.handle().clone(), flat, _own: Some(Arc::new(own)) })
    }
}

impl StoreOrigin {
    /// The listing of what a gate serves to a cohort's devices, from the private place; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Fails if the private place cannot be read, or if the listing is too long.
    pub fn listing(&self, cohort: &str) -> Result<Option<Vec<u8>>> {
        let Some(private) = self.remote.private() else { return Ok(None) };
        let seen = self.runtime.block_on(private.read(&Listing::key(cohort), MAX_LISTING))?;
        Ok(seen.map(|seen| seen.bytes.to_vec()))
    }
}

impl Origin for StoreOrigin {
    fn is_flat(&self) -> bool {
        self.flat.is_flat()
    }

    fn metadata(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let read = |key: &str| self.runtime.block_on(self.remote.find(key, limit));
        let seen = self.flat.metadata(file, read)?;
        Ok(seen.map(|seen| seen.bytes.to_vec()))
    }

    fn target(&self, path: &str, length: u64, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        use futures::TryStreamExt as _;
        let key = format!("targets/{path}");
        let read = |key: &str| self.runtime.block_on(self.remote.find_stream(key));
        let Some(mut stream) = self.flat.target(path, read)? else { return Ok(false) };
        let mut read = 0_u64;
        while let Some(chunk) = self.runtime.block_on(stream.try_next())? {
            read = read.saturating_add(chunk.len() as u64);
            sink(&chunk)?;
            if read > length {
                return Err(Error::new(Kind::Trust, format!("{key} at {} is longer than listed", self.remote.name())));
            }
        }
        Ok(true)
    }

    fn is_open(&self, key: &str) -> Result<bool> {
        self.runtime.block_on(self.remote.has(key))
    }

    fn is_open_to_anyone(&self, key: &str) -> Result<Option<bool>> {
        self.runtime.block_on(self.remote.is_open_to_anyone(key, None, None))
    }
}

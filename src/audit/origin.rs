//! Where a repository is read from.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tidegate_client::fetch::file::{FileFetch, url_of};
use tidegate_client::fetch::http::HttpFetch;
use tidegate_client::fetch::{Fetch, Reply, Request};
use tidegate_tuf::path::percent_encode;

use crate::error::{Error, Kind, Result};
use crate::fs;

/// A repository as files, wherever they are stored. Blocking.
pub trait Origin: Send + Sync {
    /// Whether its metadata was found in the top folder.
    fn is_flat(&self) -> bool {
        false
    }

    /// The bytes of a metadata file, `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// Fails if it is longer than `limit` bytes or cannot be read.
    fn metadata(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>>;

    /// Streams a target, named by its path below the targets folder (under consistent snapshots `dir/HASH.file`, not
    /// percent-encoded), into `sink`. Returns false if it does not exist.
    ///
    /// # Errors
    ///
    /// Fails if it is longer than `length` bytes, if it cannot be read, or if `sink` fails.
    fn target(&self, path: &str, length: u64, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool>;

    /// Whether files have their version or hash in their names even if the root does not use consistent snapshots: a workspace that takes over
    /// a repository of that kind.
    fn is_versioned(&self) -> bool {
        false
    }

    /// Whether the object `key` (`metadata/FILE` or `targets/PATH`) can be read here.
    ///
    /// # Errors
    ///
    /// Fails if reading fails for another reason.
    fn is_open(&self, key: &str) -> Result<bool> {
        if let Some(file) = key.strip_prefix("metadata/") {
            return Ok(self.metadata(file, tidegate_tuf::Limits::default().targets_length)?.is_some());
        }
        let path = key.strip_prefix("targets/").unwrap_or(key);
        let mut is_read = false;
        let end = self.target(path, u64::MAX, &mut |_| {
            is_read = true;
            // The first bytes are enough.
            Err(Error::bug("seen enough"))
        });
        if is_read { Ok(true) } else { end }
    }

    /// Whether anyone can read it here without credentials; `None` if that is unknown.
    ///
    /// # Errors
    ///
    /// Fails if reading fails for another reason.
    fn is_open_to_anyone(&self, _: &str) -> Result<Option<bool>> {
        Ok(None)
    }
}

/// A public origin and, behind it, the private one.
pub struct Pair {
    /// The public objects.
    pub public: Arc<dyn Origin>,
    /// The protected objects.
    pub private: Arc<dyn Origin>,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").finish_non_exhaustive()
    }
}

impl Origin for Pair {
    fn metadata(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        match self.public.metadata(file, limit)? {
            None => self.private.metadata(file, limit),
            found => Ok(found),
        }
    }

    fn target(&self, path: &str, length: u64, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        Ok(self.public.target(path, length, sink)? || self.private.target(path, length, sink)?)
    }
}

/// Whether a repository has its metadata in the top folder, as those of sigstore and go-tuf, and not in `metadata/`. Targets are then in
/// `targets/` or in the top folder as well.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flat(OnceLock<bool>);

impl Flat {
    /// Reads a metadata file; which folder it is, is found by the timestamp, once the file is not in `metadata/`.
    pub(crate) fn metadata<T>(&self, file: &str, read: impl Fn(&str) -> Result<Option<T>>) -> Result<Option<T>> {
        if !self.is_flat() {
            let found = read(&format!("metadata/{file}"))?;
            if found.is_some() || self.0.get().is_some() {
                return Ok(found);
            }
            let is_flat = read("metadata/timestamp.json")?.is_none() && read("timestamp.json")?.is_some();
            if !*self.0.get_or_init(|| is_flat) {
                return Ok(None);
            }
        }
        read(file)
    }

    /// Reads the target at `path`.
    pub(crate) fn target<T>(&self, path: &str, read: impl Fn(&str) -> Result<Option<T>>) -> Result<Option<T>> {
        match read(&format!("targets/{path}"))? {
            None if self.is_flat() => read(path),
            found => Ok(found),
        }
    }

    pub(crate) fn is_flat(&self) -> bool {
        self.0.get() == Some(&true)
    }
}

/// A repository at a URL, read with the fetchers of devices: `metadata/` and `targets/` below it, or all in one folder.
pub struct PublishedRepository {
    fetch: Scheme,
    url: String,
    flat: Flat,
}

impl std::fmt::Debug for PublishedRepository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishedRepository").field("url", &self.url).finish_non_exhaustive()
    }
}

enum Scheme {
    File(FileFetch),
    Http(Box<HttpFetch>),
}

/// Refuses a URL without `//` after its scheme: as the path of a folder it would be something else.
///
/// # Errors
///
/// [`Kind::Usage`] for texts such as `s3:bucket`.
pub(crate) fn has_slashes(place: &str) -> Result<()> {
    let known = ["s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "http", "https", "file"];
    match place.split_once(':') {
        Some((scheme, rest)) if known.contains(&scheme) && !rest.starts_with("//") => {
            Err(Error::usage(format!("{scheme}: is not followed by //"))
                .remedy(format!("write {scheme}://..., or ./{scheme}:... for a folder of that name")))
        }
        _ => Ok(()),
    }
}

impl PublishedRepository {
    /// The repository at `place`: an `http://`, `https://` or `file://` URL, or the path of a folder.
    ///
    /// # Errors
    ///
    /// Fails if the scheme is not supported, or if the folder does not exist.
    pub fn open(place: &str) -> Result<Self> {
        has_slashes(place)?;
        let url = match place.split_once("://") {
            Some(("http" | "https", _)) => {
                let url = place.trim_end_matches('/').to_owned();
                return Ok(Self { fetch: Scheme::Http(Box::default()), url, flat: Flat::default() });
            }
            Some(("file", _)) => place.trim_end_matches('/').to_owned(),
            Some((scheme, _)) => {
                return Err(Error::usage(format!("cannot read a repository from {scheme}://"))
                    .remedy("give a folder, or a URL that starts with https://, http:// or file://"));
            }
            None => {
                let path = Path::new(place);
                let path = path.canonicalize().map_err(|error| Error::io("read", path, error))?;
                url_of(&path).map_err(|error| Error::input(error.to_string()))?
            }
        };
        Ok(Self { fetch: Scheme::File(FileFetch::new()), url, flat: Flat::default() })
    }

    fn fetch(&self, request: &Request<'_>) -> Result<Option<tidegate_client::fetch::Body>> {
        let reply = match &self.fetch {
            Scheme::File(fetch) => fetch.fetch(request),
            Scheme::Http(fetch) => fetch.fetch(request),
        };
        match reply {
            Ok(Reply::Found(body)) => Ok(Some(body)),
            // Object stores answer 403 for a missing object without permission to list.
            Ok(Reply::NotFound(_)) | Err(tidegate_client::fetch::FetchError::Status { status: 403, .. }) => Ok(None),
            Ok(Reply::Unchanged) => Err(Error::trust(format!("{}: 304 to a request without condition", request.url))),
            Err(error) => Err(unfetched(&error)),
        }
    }
}

fn unfetched(error: &tidegate_client::fetch::FetchError) -> Error {
    use tidegate_client::fetch::FetchError::{Protocol, Redirect, TooLong};
    let kind = if matches!(error, Protocol { .. } | Redirect { .. } | TooLong { .. }) { Kind::Trust } else { Kind::Io };
    Error::new(kind, error.to_string())
}

impl Origin for PublishedRepository {
    fn is_flat(&self) -> bool {
        self.flat.is_flat()
    }

    fn metadata(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let read = |key: &str| {
            let url = format!("{}/{key}", self.url);
            let Some(body) = self.fetch(&Request::metadata(&url, limit))? else { return Ok(None) };
            body.into_bytes().map(Some).map_err(|error| unfetched(&error))
        };
        self.flat.metadata(file, read)
    }

    fn is_open_to_anyone(&self, key: &str) -> Result<Option<bool>> {
        match self.fetch {
            // Access to a folder depends on what serves it.
            Scheme::File(_) => Ok(None),
            // This sends no credentials, like anyone.
            Scheme::Http(_) => self.is_open(key).map(Some),
        }
    }

    fn is_open(&self, key: &str) -> Result<bool> {
        use tidegate_client::fetch::FetchError::Status;
        let key: Vec<String> = key.split('/').map(percent_encode).collect();
        let url = format!("{}/{}", self.url, key.join("/"));
        let request = Request::target(&url, u64::MAX);
        let reply = match &self.fetch {
            Scheme::File(fetch) => fetch.fetch(&request),
            Scheme::Http(fetch) => fetch.fetch(&request),
        };
        match reply {
            Ok(Reply::NotFound(_)) | Err(Status { status: 401 | 403 | 410, .. }) => Ok(false),
            Ok(_) => Ok(true),
            Err(error) => Err(unfetched(&error)),
        }
    }

    fn target(&self, path: &str, length: u64, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let path: Vec<String> = path.split('/').map(percent_encode).collect();
        let read = |key: &str| self.fetch(&Request::target(&format!("{}/{key}", self.url), length));
        let Some(mut body) = self.flat.target(&path.join("/"), read)? else { return Ok(false) };
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match body.read(&mut buffer).map_err(|error| unfetched(&error))? {
                0 => return Ok(true),
                count => sink(buffer.get(..count).unwrap_or_default())?,
            }
        }
    }
}

/// A folder of metadata, and targets by their SHA-256: a workspace.
#[derive(Debug, Clone)]
pub struct ByHash {
    metadata: PathBuf,
    artifacts: PathBuf,
}

impl ByHash {
    /// Metadata files in the folder `metadata`, targets in the folder `artifacts` or in `signed` beside it, named by their SHA-256 in hex.
    pub fn new(metadata: impl Into<PathBuf>, artifacts: impl Into<PathBuf>) -> Self {
        Self { metadata: metadata.into(), artifacts: artifacts.into() }
    }

    /// The path of a target's bytes.
    pub fn artifact(&self, sha256: &str) -> PathBuf {
        let made = self.artifacts.with_file_name("signed").join(sha256);
        if made.exists() { made } else { self.artifacts.join(sha256) }
    }
}

impl Origin for ByHash {
    fn is_versioned(&self) -> bool {
        true
    }

    fn metadata(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let path = self.metadata.join(file);
        match fs::open_regular(&path) {
            Ok(_) => fs::read_if_exists(&path, limit),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path, error)),
        }
    }

    fn target(&self, path: &str, length: u64, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let file = path.rsplit('/').next().unwrap_or(path);
        let Some((sha256, _)) = file.split_once('.') else { return Ok(false) };
        let path = self.artifact(sha256);
        let file = match fs::open_regular(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io("read", &path, error)),
        };
        let mut file = file.take(length.saturating_add(1));
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match file.read(&mut buffer).map_err(|error| Error::io("read", &path, error))? {
                0 => return Ok(true),
                count => sink(buffer.get(..count).unwrap_or_default())?,
            }
        }
    }
}

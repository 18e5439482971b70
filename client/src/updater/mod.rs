//! The client workflow (TUF 5) with its I/O: it loads stored metadata, fetches what is missing, and stores what is trusted.
//!
//! Metadata is stored byte for byte, under unversioned names, and only once it is trusted:
//!
//! | name | content |
//! |---|---|
//! | `root.json` `timestamp.json` `snapshot.json` `targets.json` `ROLE.json` | the newest trusted version |
//! | `roots/N.root.json` | every root after the shipped one: the chain that leads to `root.json` |
//! | `backup/timestamp.json` `backup/snapshot.json` | second copies, so that a damaged file does not lower the accepted versions |
//! | `timestamp.etag` | the server's tag for `timestamp.json`, bound to its hash |
//! | `time` | the newest signed time that a plausible clock had reached: a clock before it was set back |
//!
//! Damage is repaired from the second copy or from the repository and reported in [`Updater::repairs`]. Whatever happens to
//! these files, the chain of roots is verified from the shipped one every time: someone who can write to them can make
//! the device forget or stop, not trust.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::clock::{BUILT, Clock, FlooredClock, SystemClock};
use crate::disk::Disk;
use crate::download::{Wanted, download};
use crate::error::Error;
use crate::fetch::answer::came;
use crate::fetch::{AnyFetch, Fetch, FetchError, Reply, Request};
use crate::store::{DirStore, LONGEST_SEGMENT, Repair, Store, StoreError};
use crate::watch::Cancel;
use tidegate_tuf::fields::Fields;
use tidegate_tuf::hash::{Checker, to_hex};
use tidegate_tuf::json;
use tidegate_tuf::path::{TargetPath, metadata_file};
use tidegate_tuf::{Chain, Found, Freshness, Limits, Search, Step, TrustedSet, time};

/// The location of a repository's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    metadata_url: String,
    targets_url: String,
}

impl Repository {
    /// A repository with its metadata and targets at these URLs.
    ///
    /// # Errors
    ///
    /// [`Error::Fetch`] with [`FetchError::BadUrl`] if a URL is malformed.
    pub fn new(metadata_url: &str, targets_url: &str) -> Result<Self, Error> {
        let folder = |url: &str| {
            let bad = |reason| FetchError::BadUrl { url: url.to_owned(), reason };
            well_formed(url).map_err(bad)?;
            Ok::<_, Error>(format!("{}/", url.trim_end_matches('/')))
        };
        Ok(Self { metadata_url: folder(metadata_url)?, targets_url: folder(targets_url)? })
    }

    /// A repository with the folders `metadata` and `targets` below this URL.
    ///
    /// # Errors
    ///
    /// [`Error::Fetch`] with [`FetchError::BadUrl`] if the URL is malformed.
    pub fn at(url: &str) -> Result<Self, Error> {
        let bad = |reason| FetchError::BadUrl { url: url.to_owned(), reason };
        well_formed(url).map_err(bad)?;
        let url = url.trim_end_matches('/');
        Self::new(&format!("{url}/metadata"), &format!("{url}/targets"))
    }

    /// The folder of the metadata.
    pub fn metadata_url(&self) -> &str {
        &self.metadata_url
    }

    fn metadata(&self, file: &str) -> String {
        format!("{}{file}", self.metadata_url)
    }
}

/// Checks the form of the URL of a folder (RFC 3986), whatever its scheme. What fetches it may demand more.
fn well_formed(url: &str) -> Result<(), &'static str> {
    let (scheme, rest) = url.split_once(':').ok_or("it must start with a scheme, such as https://")?;
    let is_scheme = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.');
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(is_scheme) {
        return Err("it must start with a scheme, such as https://");
    }
    if !url.bytes().all(|c| c.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&c)) {
        return Err("spaces and other such characters must be percent-encoded");
    }
    if rest.contains(['?', '#']) {
        return Err("a folder has no query and no fragment");
    }
    if !matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") {
        return Ok(());
    }
    let authority = rest.strip_prefix("//").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let (name, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((name, port)) => (name, port.strip_prefix(':').or(port.is_empty().then_some("443"))),
        None => host.split_once(':').map_or((host, Some("443")), |(name, port)| (name, Some(port))),
    };
    if name.is_empty() {
        return Err("it names no host");
    }
    let is_port =
        |port: &str| port.bytes().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    if port.is_some_and(is_port) { Ok(()) } else { Err("its port is none from 1 to 65535") }
}

/// A role whose files have a different location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    /// The role.
    pub(crate) role: String,
    /// The location of its files.
    pub(crate) repository: Repository,
}

/// A TUF client: keeps trusted metadata up to date, and finds, reads and downloads targets.
///
/// ```no_run
/// use tidegate_client::updater::{Repository, Updater};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let root = std::fs::read("/usr/share/example/root.json")?;
/// let mut updater = Updater::open(root, Repository::at("https://updates.example.com")?, "/var/lib/example")?;
/// updater.refresh()?;
/// let found = updater.find(&"maps/europe.bin".parse()?)?;
/// updater.download(&found, "/var/lib/example/europe.bin")?;
/// # Ok(())
/// # }
/// ```
pub struct Updater {
    root: Vec<u8>,
    repository: Repository,
    elsewhere: Option<Elsewhere>,
    limits: Limits,
    fetch: Box<dyn Fetch + Send>,
    store: Box<dyn Store + Send>,
    clock: Box<dyn Clock + Send>,
    trusted: Option<TrustedSet>,
    repairs: Vec<Repair>,
    /// Whether to go by what is stored, without a request.
    pub(crate) offline: bool,
}

impl std::fmt::Debug for Updater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Updater")
            .field("repository", &self.repository)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// A fetcher whose requests end with a token.
struct Until {
    fetch: Box<dyn Fetch + Send>,
    cancel: Cancel,
}

impl Fetch for Until {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        self.cancel.check()?;
        self.fetch.fetch(&request.until(&self.cancel))
    }
}

/// The server's tag for the timestamp with this hash.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Tag {
    etag: String,
    sha256: String,
}

impl Tag {
    fn read(bytes: &[u8]) -> Option<Self> {
        let value = json::parse(bytes).ok()?;
        let mut fields = Fields::of(&value, "").ok()?;
        Some(Self { etag: fields.text("etag").ok()?.to_owned(), sha256: fields.text("sha256").ok()?.to_owned() })
    }
}

const TAG: &str = "timestamp.etag";
const TIME: &str = "time";

impl Updater {
    /// An updater that starts from `root`, the root that the device was shipped with, and keeps trusted metadata in a folder, which
    /// it creates and which no other process may use at the same time. It fetches by `https:`, `http:` and `file:` URLs.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if the folder cannot be used.
    pub fn open(root: impl Into<Vec<u8>>, repository: Repository, folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let clock = FlooredClock::new(SystemClock::new(), BUILT);
        Ok(Self::new(root, repository, AnyFetch::new(), DirStore::open(folder)?, clock))
    }

    /// An updater with another network, storage or clock. Does no I/O yet.
    pub fn new(
        root: impl Into<Vec<u8>>,
        repository: Repository,
        fetch: impl Fetch + Send + 'static,
        store: impl Store + Send + 'static,
        clock: impl Clock + Send + 'static,
    ) -> Self {
        Self {
            root: root.into(),
            repository,
            elsewhere: None,
            limits: Limits::default(),
            fetch: Box::new(fetch),
            store: Box::new(store),
            clock: Box::new(clock),
            trusted: None,
            repairs: Vec::new(),
            offline: false,
        }
    }

    /// The same, within these limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same, ended by this token.
    #[must_use]
    pub fn cancelled_by(self, cancel: &Cancel) -> Self {
        Self { fetch: Box::new(Until { fetch: self.fetch, cancel: cancel.clone() }), ..self }
    }

    /// Fetches one role from another location from now on, or none. Verification does not change.
    pub(crate) fn route(&mut self, elsewhere: Option<Elsewhere>) {
        self.elsewhere = elsewhere;
    }

    /// Brings root, timestamp, snapshot and targets up to date (TUF 5.1 to 5.6.6).
    ///
    /// An unchanged repository costs two requests: for the next root, which does not exist, and for the timestamp. On an
    /// error, the metadata updated before it stays stored, as the specification requires.
    ///
    /// # Errors
    ///
    /// [`Error`] if metadata cannot be fetched, verified or stored.
    pub fn refresh(&mut self) -> Result<&TrustedSet, Error> {
        self.trusted = None;
        self.repairs.clear();
        if self.offline && self.store.load("timestamp.json", self.limits.timestamp_length)?.is_none() {
            return Err(Error::State("no metadata is stored yet".into()));
        }
        let mut trusted = self.update_root()?;
        trusted.check_final_root()?;
        self.update_timestamp(&mut trusted)?;
        self.update_snapshot(&mut trusted)?;
        self.load_targets(&mut trusted, &Chain::top())?;
        self.remember(trusted.signed_time());
        Ok(self.trusted.insert(trusted))
    }

    /// Finds the role that lists `path`, and its entry (TUF 5.6.7, 5.7.1). Refreshes first if necessary.
    ///
    /// Roles are fetched as the search reaches them, and only if they changed.
    ///
    /// # Errors
    ///
    /// [`Error`] if a delegated role cannot be fetched or verified, or no role lists the target.
    pub fn find(&mut self, path: &TargetPath) -> Result<Found, Error> {
        if self.trusted.is_none() {
            self.refresh()?;
        }
        let mut trusted = self.trusted.take().ok_or_else(|| Error::State("refresh the metadata first".into()))?;
        let found = self.search(&mut trusted, path);
        self.trusted = Some(trusted);
        found
    }

    /// The trusted set after a successful refresh.
    pub fn trusted(&self) -> Option<&TrustedSet> {
        self.trusted.as_ref()
    }

    /// The time for what opens: the clock's, or the later of it and signed time if the clock is not plausible.
    pub fn now(&self) -> DateTime<Utc> {
        let now = self.clock.now();
        if self.is_plausible(now) { now } else { self.latest() }
    }

    /// The time for what closes: the later of the clock's and signed time.
    pub fn latest(&self) -> DateTime<Utc> {
        let now = self.clock.now();
        self.trusted.as_ref().map_or(now, |trusted| trusted.now().max(now))
    }

    /// The clock's time since its origin.
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Whether the clock is set, and not back before the remembered time.
    fn is_plausible(&self, now: DateTime<Utc>) -> bool {
        self.clock.is_set() && now >= self.remembered()
    }

    /// The newest signed time that a plausible clock had reached.
    pub(crate) fn remembered(&self) -> DateTime<Utc> {
        let stored = self.store.load(TIME, 20).ok().flatten();
        let text = stored.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.and_then(time::parse).unwrap_or(DateTime::<Utc>::MIN_UTC)
    }

    /// Remembers a signed time as far as a plausible clock confirms it.
    fn remember(&self, signed: DateTime<Utc>) {
        let now = self.clock.now();
        let confirmed = signed.min(now);
        if self.is_plausible(now) && confirmed > self.remembered() {
            // If it cannot be written now, the next update writes it.
            let _ = self.store.save(TIME, time::format(confirmed).as_bytes());
        }
    }

    /// The URL of a target (TUF 5.7.3).
    pub fn target_url(&self, found: &Found) -> String {
        self.target_url_in(&self.repository, found)
    }

    /// The URL of a target in another repository.
    pub(crate) fn target_url_in(&self, place: &Repository, found: &Found) -> String {
        let consistent = self.trusted.as_ref().is_none_or(|trusted| trusted.root().consistent_snapshot);
        format!("{}{}", place.targets_url, found.path.url_path(&found.target.hashes, consistent))
    }

    /// The URL of an object among the targets of this or another repository, whose name holds its hash.
    pub(crate) fn object_url(&self, place: Option<&Repository>, path: &str) -> String {
        format!("{}{path}", place.unwrap_or(&self.repository).targets_url)
    }

    /// Reads a small target into memory: at most `limit` bytes, verified. It is fetched like metadata.
    ///
    /// # Errors
    ///
    /// [`Error`] if the target cannot be fetched, is longer than `limit`, or does not match its digest.
    pub fn read(&self, found: &Found, limit: u64) -> Result<Vec<u8>, Error> {
        self.read_in(&self.repository, found, limit)
    }

    /// Downloads a target to the file `path`, unless it is there already. A download that was interrupted is continued.
    ///
    /// # Errors
    ///
    /// As for [`download()`](crate::download::download), without a progress that could end it.
    pub fn download(&self, found: &Found, path: impl AsRef<Path>) -> Result<(), Error> {
        let wanted = Wanted {
            name: found.path.to_string(),
            url: self.target_url(found),
            length: found.target.length,
            hashes: found.target.hashes.clone(),
        };
        download(&*self.fetch, &Disk::new(), &wanted, path.as_ref(), &mut |_| Ok(()))
    }

    /// [`read`](Self::read) for a target in another repository.
    pub(crate) fn read_in(&self, place: &Repository, found: &Found, limit: u64) -> Result<Vec<u8>, Error> {
        let url = self.target_url_in(place, found);
        let length = found.target.length;
        if length > limit {
            let reason = format!("{length} bytes are listed, more than the {limit} that are read");
            return Err(Error::BadDocument { path: found.path.to_string(), reason });
        }
        let reply = self.get(&Request::metadata(&url, length))?;
        let body = Error::unless_found(reply, found.path.as_str(), &url)?;
        let bytes = body.into_bytes()?;
        let mut checker = Checker::new(Some(length), Some(&found.target.hashes));
        checker.update(&bytes).and_then(|()| checker.finish()).map_err(|mismatch| Error::WrongTarget {
            path: found.path.to_string(),
            url,
            mismatch,
        })?;
        Ok(bytes)
    }

    fn get(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        if self.offline {
            let reason = "only what is stored is read".into();
            return Err(FetchError::Unreachable { url: request.url.to_owned(), reason });
        }
        self.fetch.fetch(request)
    }

    /// The damage found in the store by the last [`refresh`](Self::refresh) and later searches.
    pub fn repairs(&self) -> &[Repair] {
        &self.repairs
    }

    /// The fetcher.
    pub(crate) fn fetcher(&self) -> &dyn Fetch {
        &*self.fetch
    }

    /// TUF 5.2 and 5.3.
    fn update_root(&mut self) -> Result<TrustedSet, Error> {
        // 5.1
        let start = self.clock.now();
        let (mut trusted, known) = self.stored_root(start)?;
        let mut followed = 0;
        loop {
            if self.offline {
                break;
            }
            let next = trusted.root().common.version.saturating_add(1);
            // 5.3.3
            let url = self.repository.metadata(&metadata_file("root", Some(next)));
            let request = Request::metadata(&url, self.limits.root_length);
            let body = match self.fetch.fetch(&request) {
                Ok(Reply::Found(body)) => body,
                // Object stores answer 403 for a missing object without permission to list.
                Ok(_) | Err(FetchError::Status { status: 403, .. }) => break,
                Err(e) => return Err(e.into()),
            };
            if followed == self.limits.root_rotations {
                return Err(Error::TooManyRoots { limit: followed, reached: next.saturating_sub(1) });
            }
            followed += 1;
            let bytes = body.into_bytes()?;
            // 5.3.4 to 5.3.7
            trusted.update_root(&bytes).map_err(|e| refused(&url, &bytes, e))?;
            if next <= known {
                // This root was followed before and only its copy was lost: its rotation was handled then.
                trusted = TrustedSet::from_root(&bytes, start)?;
            } else if trusted.online_keys_rotated() {
                // 5.3.11, before 5.3.8: see `online_keys_rotated` for the order.
                for name in ["timestamp.json", "snapshot.json", TAG] {
                    self.store.remove(name)?;
                    self.store.remove(&format!("backup/{name}"))?;
                }
            }
            // 5.3.8
            self.store.save(&format!("roots/{}", metadata_file("root", Some(next))), &bytes)?;
            if next >= known {
                self.store.save("root.json", &bytes)?;
            }
        }
        let offered = trusted.root().common.version;
        if offered < known {
            return Err(Error::RootWithheld { known, offered });
        }
        Ok(trusted)
    }

    /// The newest root that a stored chain leads to from the shipped one, and the newest version that was ever stored.
    fn stored_root(&mut self, start: DateTime<Utc>) -> Result<(TrustedSet, u64), Error> {
        let newest = self.load("root.json", self.limits.root_length)?;
        let mut chain = TrustedSet::from_root(&self.root, start).map_err(Error::ShippedRoot)?;
        let mut tip = self.root.clone();
        loop {
            let name = format!("roots/{}", metadata_file("root", chain.root().common.version.checked_add(1)));
            let stored = self.load(&name, self.limits.root_length)?;
            // The newest root is stored twice.
            let candidate = [stored.as_deref(), newest.as_deref().filter(|bytes| *bytes != tip)]
                .into_iter()
                .flatten()
                .find(|bytes| chain.update_root(bytes).is_ok());
            if candidate != stored.as_deref() {
                self.note(&name, "it is missing or damaged, or does not follow from the root before it");
                match candidate {
                    Some(bytes) => self.store.save(&name, bytes)?,
                    None => self.store.remove(&name)?,
                }
            }
            let Some(bytes) = candidate else { break };
            bytes.clone_into(&mut tip);
        }
        // A new set: earlier rotations were handled when they were new.
        let trusted = if tip == self.root { chain } else { TrustedSet::from_root(&tip, start)? };
        let version = trusted.root().common.version;
        if newest.as_ref() == Some(&tip) {
            return Ok((trusted, version));
        }
        // Even without a chain, a stored root determines how far the chain must reach.
        let known = newest.and_then(|bytes| TrustedSet::from_root(&bytes, start).ok());
        let known = known.map_or(0, |set| set.root().common.version);
        if known <= version {
            self.store.save("root.json", &tip)?;
        }
        Ok((trusted, known.max(version)))
    }

    /// TUF 5.4.
    fn update_timestamp(&mut self, trusted: &mut TrustedSet) -> Result<(), Error> {
        let name = "timestamp.json";
        let stored = self.load_twice(name, self.limits.timestamp_length, trusted, TrustedSet::load_timestamp)?;
        if self.offline {
            return Ok(trusted.timestamp_is_unchanged()?);
        }
        let hash = stored.as_ref().map(|bytes| to_hex(&Sha256::digest(bytes)));
        let tag = self.load(TAG, 4096)?.and_then(|bytes| Tag::read(&bytes));
        let usable = tag.as_ref().filter(|tag| Some(&tag.sha256) == hash.as_ref()).map(|tag| tag.etag.as_str());
        // 5.4.1
        let url = self.repository.metadata(&metadata_file("timestamp", None));
        let request = Request::metadata(&url, self.limits.timestamp_length).unless(usable);
        let body = match self.fetch.fetch(&request)? {
            Reply::Unchanged => return Ok(trusted.timestamp_is_unchanged()?),
            reply => Error::unless_found(reply, "timestamp", &url)?,
        };
        let etag = body.etag().map(str::to_owned);
        let bytes = body.into_bytes()?;
        // 5.4.2 to 5.4.4
        if trusted.update_timestamp(&bytes).map_err(|e| refused(&url, &bytes, e))? == Freshness::New {
            // 5.4.5
            self.save_twice(name, &bytes)?;
        } else if stored.as_ref() != Some(&bytes) {
            // The same version with other content: the stored one stays, and the tag does not belong to it.
            return Ok(());
        }
        let tag_now = etag.map(|etag| Tag { etag, sha256: to_hex(&Sha256::digest(&bytes)) });
        match &tag_now {
            Some(now) if tag_now != tag => {
                let text = serde_json::to_vec(now).unwrap_or_default();
                self.store.save(TAG, &text)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// TUF 5.5.
    fn update_snapshot(&mut self, trusted: &mut TrustedSet) -> Result<(), Error> {
        let name = "snapshot.json";
        self.load_twice(name, self.limits.snapshot_length, trusted, TrustedSet::load_snapshot)?;
        if trusted.snapshot_is_current() {
            return Ok(());
        }
        // 5.5.1
        let (url, bytes) = self.fetch_listed(trusted, "snapshot", self.limits.snapshot_length)?;
        // 5.5.2 to 5.5.6
        trusted.update_snapshot(&bytes).map_err(|e| refused(&url, &bytes, e))?;
        // 5.5.7
        self.save_twice(name, &bytes)
    }

    /// TUF 5.6.1 to 5.6.6, for the top-level targets role and for delegated ones.
    fn load_targets(&mut self, trusted: &mut TrustedSet, chain: &Chain) -> Result<(), Error> {
        let role = chain.role();
        let name = metadata_file(role, None);
        let accept = |trusted: &mut TrustedSet, bytes: &[u8]| match chain.parent() {
            None => trusted.update_targets(bytes),
            Some(_) => trusted.update_delegated(chain, bytes),
        };
        // A name that no file can bear is fetched every time.
        let storable = name.len() <= LONGEST_SEGMENT;
        let stored = if storable { self.load(&name, self.limits.targets_length)? } else { None };
        match stored.map(|bytes| accept(trusted, &bytes)) {
            Some(Ok(())) => return Ok(()),
            // It is the file that is listed, so the repository has no other.
            Some(Err(e)) if e.is_expired() => return Err(e.into()),
            // Superseded, damaged, or verified through another delegator earlier. The repository's copy decides.
            _ => {}
        }
        let (url, bytes) =
            self.fetch_listed(trusted, role, self.limits.targets_length).map_err(|e| match (e, chain.parent()) {
                (Error::Metadata(tidegate_tuf::Error::NotInSnapshot { role, .. }), Some(parent)) => {
                    tidegate_tuf::Error::NotInSnapshot { role, delegator: parent.role().to_owned() }.into()
                }
                (e, _) => e,
            })?;
        accept(trusted, &bytes).map_err(|e| refused(&url, &bytes, e))?;
        if storable {
            self.store.save(&name, &bytes)?;
        }
        Ok(())
    }

    fn search(&mut self, trusted: &mut TrustedSet, path: &TargetPath) -> Result<Found, Error> {
        let mut search = Search::new(path.clone(), self.limits.roles_visited);
        loop {
            match search.step(trusted) {
                Step::Load(chain) => self.load_targets(trusted, &chain)?,
                Step::Found(found) => return Ok(found),
                Step::NotFound => return Err(Error::TargetNotFound { path: path.to_string() }),
                Step::TooManyRoles => {
                    return Err(Error::TooManyRoles { path: path.to_string(), limit: self.limits.roles_visited });
                }
            }
        }
    }

    /// Fetches the file that timestamp or snapshot lists for a role (TUF 5.5.1, 5.6.1).
    fn fetch_listed(&self, trusted: &TrustedSet, role: &str, limit: u64) -> Result<(String, Vec<u8>), Error> {
        let listed = trusted
            .listed(role)
            .ok_or_else(|| tidegate_tuf::Error::NotInSnapshot { role: role.to_owned(), delegator: "root".into() })?;
        let version = trusted.root().consistent_snapshot.then_some(listed.version);
        let url = self.place_of(role).metadata(&metadata_file(role, version));
        let limit = self.limits.listed(listed.length, limit);
        let body = Error::unless_found(self.get(&Request::metadata(&url, limit))?, role, &url)?;
        Ok((url, body.into_bytes()?))
    }

    /// Where the files of a role are.
    fn place_of(&self, role: &str) -> &Repository {
        if let Some(elsewhere) = self.elsewhere.as_ref().filter(|elsewhere| elsewhere.role == role) {
            return &elsewhere.repository;
        }
        &self.repository
    }

    /// Loads both copies of a file that rollback checks depend on. Uses the newer valid one and returns its bytes.
    fn load_twice(
        &mut self,
        name: &str,
        limit: u64,
        trusted: &mut TrustedSet,
        load: impl Fn(&mut TrustedSet, &[u8]) -> Result<(), tidegate_tuf::Error>,
    ) -> Result<Option<Vec<u8>>, Error> {
        // After 5.3.11 there is nothing to load, even if a copy exists.
        if trusted.online_keys_rotated() {
            return Ok(None);
        }
        let backup = format!("backup/{name}");
        let (first, mut second) = (self.load(name, limit)?, self.load(&backup, limit)?);
        let is_same = first == second;
        if is_same {
            second = None;
        }
        let copies = [(name, &first), (backup.as_str(), &second)];
        let mut good = None;
        for (name, bytes) in copies {
            let Some(bytes) = bytes else { continue };
            match load(trusted, bytes) {
                Ok(()) => good = Some(bytes),
                // An older copy is left behind when a run ends between two writes.
                Err(tidegate_tuf::Error::Rollback { .. }) if good.is_some() => {}
                Err(e) => self.note(name, e),
            }
        }
        let Some(good) = good else { return Ok(None) };
        for (name, bytes) in copies.into_iter().filter(|_| !is_same) {
            if bytes.as_ref() != Some(good) {
                self.store.save(name, good)?;
            }
        }
        let is_first = first.as_ref() == Some(good);
        Ok(if is_first { first } else { second })
    }

    /// The second copy is written once the first is whole, so that one of them always is.
    fn save_twice(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.store.save(name, bytes)?;
        Ok(self.store.save(&format!("backup/{name}"), bytes)?)
    }

    /// Loads a stored file; one that is too long is damaged, and counts as missing.
    fn load(&mut self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        match self.store.load(name, limit) {
            Ok(found) => Ok(found),
            Err(e @ StoreError::TooLong { .. }) => {
                self.note(name, e);
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }

    fn note(&mut self, name: &str, reason: impl std::fmt::Display) {
        self.repairs.push(Repair { name: name.to_owned(), reason: reason.to_string() });
    }
}

/// The error for a role that came from `url` and was refused: what is no metadata at all did not come from the repository.
fn refused(url: &str, bytes: &[u8], error: tidegate_tuf::Error) -> Error {
    if bytes.trim_ascii_start().starts_with(b"{") && bytes.windows(12).any(|word| word == b"\"signatures\"") {
        return error.into();
    }
    FetchError::status(url, 200, format!("{} ({error})", came(200, "", "", bytes))).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_urls_are_refused_when_they_are_set() {
        for (url, reason) in [
            ("", "scheme"),
            ("updates.example.com", "scheme"),
            ("/srv/fleet", "scheme"),
            ("1http://host", "scheme"),
            ("https://", "no host"),
            ("https:///fleet", "no host"),
            ("https:host", "no host"),
            ("https://user@/fleet", "no host"),
            ("http://host:port", "port"),
            ("http://host:65536/", "port"),
            ("http://host:+80/", "port"),
            ("http://[::1]80/", "port"),
            ("http://host:/", "port"),
            ("https://host/my fleet", "percent-encoded"),
            ("https://host/\u{e9}", "percent-encoded"),
            ("https://host/a\nb", "percent-encoded"),
            ("https://host/fleet?token=1", "query"),
            ("https://host/fleet#1", "fragment"),
        ] {
            let error = Repository::at(url).unwrap_err();
            assert!(error.to_string().contains(reason), "{url:?}: {error}");
            assert_eq!(error.fault(), crate::Fault::Caller);
            assert!(Repository::new("https://host/metadata", url).is_err(), "{url:?}");
        }
        for url in [
            "https://host",
            "HTTP://host:8080/a/b/",
            "http://[::1]:80",
            "http://[::1]/",
            "file:///srv/a%20b",
            "usb:fleet",
        ] {
            let repository = Repository::at(url).unwrap();
            assert_eq!(repository.metadata_url(), format!("{}/metadata/", url.trim_end_matches('/')));
        }
    }
}

//! The second opinion: tough, an implementation of TUF that shares no code with ours.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tidegate_tuf::json::Raw;
use tidegate_tuf::limits::Bounds;
use tokio::sync::mpsc;
use tough::schema::{Root, Signed, Targets};
use tough::{
    ExpirationEnforcement, Limits, Repository, RepositoryLoader, Transport, TransportError, TransportErrorKind,
    TransportStream,
};
use url::Url;

use super::Wanted;
use super::origin::Origin;
use super::walk::AuditFinding;
use crate::error::{Error, Result, chain};

/// The URL that tough is given; [`Reader`] maps it to the origin.
const METADATA: &str = "http://repository.invalid/metadata/";
const TARGETS: &str = "http://repository.invalid/targets/";
/// Pieces of a file on their way to tough.
const IN_FLIGHT: usize = 8;

/// What tough found.
#[derive(Debug, Default)]
pub(super) struct Opinion {
    pub(super) roles: u64,
    pub(super) targets: u64,
    pub(super) bytes: u64,
    /// The root that it started with, if it cannot read earlier ones.
    pub(super) since: Option<u64>,
    pub(super) metadata_faults: Vec<AuditFinding>,
    pub(super) target_faults: Vec<AuditFinding>,
}

/// Loads the whole repository with tough, and of its targets the wanted paths.
///
/// `expiry` controls whether expired roles are faults; tough reads the system's clock itself.
///
/// `consistent` says whether the names of target files have hashes.
pub(super) async fn opinion(
    (origin, consistent): (Arc<dyn Origin>, bool),
    root: &[u8],
    expiry: bool,
    wanted: Wanted,
) -> Result<Opinion> {
    let mut opinion = Opinion::default();
    let base = |url: &str| Url::parse(url).map_err(|error| Error::bug(error.to_string()));
    let enforcement = if expiry { ExpirationEnforcement::Safe } else { ExpirationEnforcement::Unsafe };
    let ours = tidegate_tuf::Limits::default();
    let limits = Limits {
        max_root_size: ours.root_length,
        max_targets_size: ours.targets_length,
        max_timestamp_size: ours.timestamp_length,
        max_snapshot_size: ours.snapshot_length,
        max_root_updates: ours.root_rotations,
    };
    let load = async |root: &[u8]| {
        RepositoryLoader::new(&root, base(METADATA)?, base(TARGETS)?)
            .transport(Reader { origin: Arc::clone(&origin), consistent })
            .limits(limits)
            .expiration_enforcement(enforcement)
            .load()
            .await
            .map_err(|error| AuditFinding::new("repository", &chain(&error)))
            .map_or_else(|fault| Ok(Err(fault)), |repository| Ok::<_, Error>(Ok(repository)))
    };
    let mut loaded = load(root).await?;
    if loaded.is_err()
        && let Some((version, later)) = first_readable(&origin, root, ours.root_rotations).await?
    {
        opinion.since = Some(version);
        loaded = load(&later).await?;
    }
    let repository = match loaded {
        Ok(repository) => repository,
        Err(fault) => {
            opinion.metadata_faults.push(fault);
            return Ok(opinion);
        }
    };
    // Root, timestamp, snapshot, and the tree of targets roles.
    opinion.roles = 3 + count(&repository.targets().signed);
    read_all(&repository, &wanted, &mut opinion).await;
    Ok(opinion)
}

/// If tough cannot read or verify roots of other tools, the first root after them, and its version.
///
/// tough includes every member of a key in its id, so it cannot read roots with extra members, such as a key's owner in those
/// of tuf-on-ci, where devices use ids as declared (TAP 12). Of RSA signatures it takes those with a salt of 32 bytes alone, and go-tuf's are
/// longer. Devices have verified the chain up to here.
async fn first_readable(origin: &Arc<dyn Origin>, root: &[u8], most: u64) -> Result<Option<(u64, Vec<u8>)>> {
    let version = |bytes: &[u8]| {
        let signed = Raw::scan(bytes, &Bounds::of("root")).ok()?.get("signed")?;
        signed.get("version")?.tree(&mut 1000).ok()?.as_u64()
    };
    let Some(first) = version(root) else { return Ok(None) };
    let mut before = begins(root);
    let mut obstacle = before.is_none();
    let mut found = None;
    for next in (first..first.saturating_add(most)).map(|version| version + 1) {
        let reader = Arc::clone(origin);
        let limit = tidegate_tuf::Limits::default().root_length;
        let read = tokio::task::spawn_blocking(move || reader.metadata(&format!("{next}.root.json"), limit)).await;
        let Some(bytes) = read.map_err(|error| Error::bug("reading a root was interrupted").with_source(error))??
        else {
            break;
        };
        let after = version(&bytes).and_then(|_| begins(&bytes));
        match (&before, &after) {
            (_, None) => (obstacle, found) = (true, None),
            (Some(before), Some(after)) if !fails(before, after) => {}
            (_, Some(_)) => (obstacle, found) = (true, Some((next, bytes))),
        }
        before = after;
    }
    Ok(found.filter(|_| obstacle))
}

/// A root from which tough can begin.
fn begins(bytes: &[u8]) -> Option<Signed<Root>> {
    serde_json::from_slice(bytes).ok().filter(|root| !fails(root, root))
}

/// Whether tough cannot verify a root by the keys of another tool's. What Tidegate's own root says is always to be verified.
fn fails(by: &Signed<Root>, root: &Signed<Root>) -> bool {
    !by.signed._extra.contains_key("x-tidegate-issued") && by.signed.verify_role(root).is_err()
}

/// Streams every target through tough's checks.
async fn read_all(repository: &Repository, wanted: &Wanted, opinion: &mut Opinion) {
    for (name, _) in repository.all_targets().filter(|(name, _)| wanted(name.raw())) {
        opinion.targets += 1;
        let read = async {
            let stream = repository.read_target(name).await?;
            let Some(stream) = stream else { return Ok(None) };
            stream
                .try_fold(0_u64, |sum, bytes| async move { Ok(sum.saturating_add(bytes.len() as u64)) })
                .await
                .map(Some)
        };
        match read.await {
            Ok(Some(bytes)) => opinion.bytes = opinion.bytes.saturating_add(bytes),
            Ok(None) => opinion.target_faults.push(AuditFinding::new(name.raw(), &"no role delegates to it")),
            Err(error) => opinion.target_faults.push(AuditFinding::new(name.raw(), &chain(&error))),
        }
    }
}

/// This role and all below it.
fn count(targets: &Targets) -> u64 {
    let below = targets.delegations.iter().flat_map(|delegations| &delegations.roles);
    1 + below.filter_map(|role| role.targets.as_ref()).map(|targets| count(&targets.signed)).sum::<u64>()
}

/// Reads an origin on behalf of tough.
#[derive(Clone)]
struct Reader {
    origin: Arc<dyn Origin>,
    consistent: bool,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

#[async_trait]
impl Transport for Reader {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        if let Some(file) = url.as_str().strip_prefix(METADATA) {
            let (origin, file) = (Arc::clone(&self.origin), file.to_owned());
            // tough bounds what it reads; this bound only keeps an endless file out of memory.
            let limit = tidegate_tuf::Limits::default().targets_length;
            let role = file.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            let bounds = Bounds::of(role.strip_suffix(".json").unwrap_or(role));
            let read = tokio::task::spawn_blocking(move || origin.metadata(&file, limit)).await;
            return match read.map_err(|error| failed(&url, error))? {
                // tough builds a tree of what it reads, before it verifies that.
                Ok(Some(bytes)) if let Err(error) = Raw::scan(&bytes, &bounds) => Err(failed(&url, error)),
                Ok(Some(bytes)) => Ok(stream::iter([Ok(Bytes::from(bytes))]).boxed_sync()),
                Ok(None) => Err(TransportError::new(TransportErrorKind::FileNotFound, url)),
                Err(error) => Err(failed(&url, error)),
            };
        }
        let named = |path| if self.consistent { target_file(path) } else { percent_decode(path) };
        match url.as_str().strip_prefix(TARGETS).and_then(named) {
            Some(path) => self.target(url, path).await,
            None => Err(TransportError::new(TransportErrorKind::UnsupportedUrlScheme, url)),
        }
    }
}

impl Reader {
    /// Streams a target from a separate thread, because reading blocks.
    async fn target(&self, url: Url, path: String) -> Result<TransportStream, TransportError> {
        let origin = Arc::clone(&self.origin);
        let (sender, mut pieces) = mpsc::channel::<Result<Option<Bytes>>>(IN_FLIGHT);
        tokio::task::spawn_blocking(move || {
            let mut sink = |bytes: &[u8]| {
                // tough has stopped reading: it has seen enough.
                sender
                    .blocking_send(Ok(Some(Bytes::copy_from_slice(bytes))))
                    .map_err(|_| Error::bug("no longer wanted"))
            };
            let end = origin.target(&path, u64::MAX, &mut sink);
            let _ = match end {
                Ok(true) => Ok(()),
                Ok(false) => sender.blocking_send(Ok(None)),
                Err(error) => sender.blocking_send(Err(error)),
            };
        });
        // The first piece shows whether the file exists.
        let first = match pieces.recv().await {
            None => None,
            Some(Ok(Some(bytes))) => Some(Ok(bytes)),
            Some(Ok(None)) => return Err(TransportError::new(TransportErrorKind::FileNotFound, url)),
            Some(Err(error)) => return Err(failed(&url, error)),
        };
        let rest = stream::unfold((pieces, url), |(mut pieces, url)| async move {
            let piece = match pieces.recv().await? {
                Ok(bytes) => Ok(bytes?),
                Err(error) => Err(failed(&url, error)),
            };
            Some((piece, (pieces, url)))
        });
        Ok(stream::iter(first).chain(rest).boxed_sync())
    }
}

fn failed(url: &Url, error: impl std::error::Error + Send + Sync + 'static) -> TransportError {
    TransportError::new_with_cause(TransportErrorKind::Other, url, error)
}

/// Converts tough's name of a target file to TUF's: tough puts the hash before the whole path (`HASH.dir/file`), the
/// specification before the file name (`dir/HASH.file`, TUF 6.2.1).
fn target_file(path: &str) -> Option<String> {
    let path = percent_decode(path)?;
    let (hash, path) = path.split_once('.')?;
    Some(match path.rsplit_once('/') {
        Some((dir, file)) => format!("{dir}/{hash}.{file}"),
        None => format!("{hash}.{path}"),
    })
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            digit(rest.next()?)? << 4 | digit(rest.next()?)?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok()
}

/// Boxing a stream that is `Sync` as well.
trait BoxedSync {
    fn boxed_sync(self) -> TransportStream;
}

impl<S> BoxedSync for S
where
    S: futures::Stream<Item = Result<Bytes, TransportError>> + Send + Sync + 'static,
{
    fn boxed_sync(self) -> TransportStream {
        Box::pin(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_files_are_named_as_the_specification_says() {
        for (tough, specification) in [
            ("ab.stable/cohorts.json", "stable/ab.cohorts.json"),
            ("ab.stable/releases/os/1.0.0/os.img", "stable/releases/os/1.0.0/ab.os.img"),
            ("ab.file", "ab.file"),
            ("ab.dir%2Ffile%2B1", "dir/ab.file+1"),
        ] {
            assert_eq!(target_file(tough).as_deref(), Some(specification), "{tough}");
        }
        assert_eq!(target_file("nodot"), None);
        assert_eq!(target_file("ab.%zz"), None);
    }
}

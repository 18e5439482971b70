//! The releases that the publisher has registered: the gate takes receipts of these only.
//!
//! They are read from the published metadata, which the gate does not verify: a receipt decides nothing here, and whoever counts receipts
//! verifies them against the workspace.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};
use tidegate_model::layout::{Location, manifest_path};
use tidegate_model::name::Name;
use tidegate_model::receipt::Receipt;
use tidegate_tuf::limits::Limits;
use tokio::sync::Mutex;

use crate::download::Downloader;
use crate::encoding::sha256;
use crate::error::Error;
use crate::refusal::Refusal;
use crate::storage::Storage;

/// The maximum number of channels.
const MAX_CHANNELS: usize = 64;

/// The releases of a published repository.
#[derive(Debug)]
pub struct KnownReleases {
    source: Source,
    /// The minimum time between two looks at the repository, whatever devices send.
    interval: Duration,
    channels: RwLock<BTreeMap<Name, Channel>>,
    last_attempt: Mutex<Option<Instant>>,
}

#[derive(Debug)]
enum Source {
    Storage(Storage),
    Url(String, Downloader),
}

#[derive(Debug)]
struct Channel {
    version: u64,
    /// The hash of each manifest's path and digest.
    manifests: HashSet<[u8; 32]>,
}

#[derive(Deserialize)]
struct Signed<T> {
    signed: T,
}

#[derive(Deserialize)]
struct Meta<T> {
    meta: T,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Deserialize)]
struct Timestamp {
    #[serde(rename = "snapshot.json")]
    snapshot: Version,
}

#[derive(Deserialize)]
struct Targets {
    targets: Manifests,
}

#[derive(Deserialize)]
struct Target {
    hashes: Hashes,
}

#[derive(Deserialize)]
struct Hashes {
    sha256: String,
}

/// The versions of the channels' roles in a snapshot.
struct Channels(BTreeMap<Name, u64>);

/// The manifests among targets.
struct Manifests(HashSet<[u8; 32]>);

impl KnownReleases {
    /// The releases of the repository at this URL or storage location. Reads nothing yet.
    ///
    /// # Errors
    ///
    /// Fails if the location cannot be opened.
    pub fn open(location: &str, base: &Path, interval: Duration) -> Result<Self, Error> {
        let source = if location.starts_with("https:") || location.starts_with("http:") {
            Source::Url(location.trim_end_matches('/').to_owned(), Downloader::new()?)
        } else {
            Source::Storage(Storage::open(location, base, false)?)
        };
        Ok(Self { source, interval, channels: RwLock::default(), last_attempt: Mutex::default() })
    }

    /// Whether the release of a receipt is registered. Looks into the repository before it says no.
    ///
    /// # Errors
    ///
    /// Refuses for now if the repository cannot be read, or was read a moment ago: the release may be newer.
    pub async fn contains(&self, receipt: &Receipt) -> Result<bool, Refusal> {
        let path = manifest_path(&receipt.channel, &receipt.product, &receipt.release);
        let manifest = manifest_hash(&path, &receipt.manifest.to_string());
        let is_known = || {
            let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
            channels.get(&receipt.channel).is_some_and(|channel| channel.manifests.contains(&manifest))
        };
        if is_known() {
            return Ok(true);
        }
        // One task looks; the others wait here, and only those with unknown releases.
        let mut last_attempt = self.last_attempt.lock().await;
        if is_known() {
            return Ok(true);
        }
        let later = || Refusal::unavailable("G-SRV-05", "the gate cannot tell yet whether this release is registered");
        if last_attempt.is_some_and(|attempt| attempt.elapsed() < self.interval) {
            return Err(later());
        }
        *last_attempt = Some(Instant::now());
        let unreadable = |error: Error| {
            tracing::warn!(%error, "cannot read the published metadata");
            later()
        };
        let mut failed = self.update().await.map_err(unreadable)?;
        failed.remove(&receipt.channel).map_or_else(|| Ok(is_known()), |error| Err(unreadable(error)))
    }

    /// Reads what has changed.
    ///
    /// # Errors
    ///
    /// Fails if something cannot be read. What has been read before stays known.
    pub async fn refresh(&self) -> Result<(), Error> {
        self.update().await?.into_values().next().map_or(Ok(()), Err)
    }

    /// Reads what has changed. Returns the channels whose roles cannot be read: they stop no other.
    async fn update(&self) -> Result<BTreeMap<Name, Error>, Error> {
        let limits = Limits::default();
        let timestamp: Meta<Timestamp> = self.read("metadata/timestamp.json", limits.timestamp_length).await?;
        let snapshot = format!("metadata/{}.snapshot.json", timestamp.meta.snapshot.version);
        let snapshot: Meta<Channels> = self.read(&snapshot, limits.snapshot_length).await?;
        let Channels(versions) = snapshot.meta;
        self.write().retain(|name, _| versions.contains_key(name));
        let mut failed = BTreeMap::new();
        for (name, version) in versions {
            if self.version(&name) == Some(version) {
                continue;
            }
            let role = self.read::<Targets>(&format!("metadata/{version}.{name}.json"), limits.targets_length).await;
            match role {
                Ok(role) => drop(self.write().insert(name, Channel { version, manifests: role.targets.0 })),
                Err(error) => drop(failed.insert(name, error)),
            }
        }
        Ok(failed)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Name, Channel>> {
        self.channels.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version of a channel's role that has been read.
    fn version(&self, channel: &Name) -> Option<u64> {
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        channels.get(channel).map(|channel| channel.version)
    }

    async fn read<T: DeserializeOwned>(&self, name: &str, limit: u64) -> Result<T, Error> {
        let bytes = match &self.source {
            Source::Storage(storage) => {
                let missing = || Error::input(format!("{} has no {name}", storage.location()));
                storage.get(name, limit).await?.ok_or_else(missing)?
            }
            Source::Url(url, downloader) => {
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                downloader.get(&format!("{url}/{name}"), limit).await?.into()
            }
        };
        let found: Result<Signed<T>, _> = serde_json::from_slice(&bytes);
        found.map(|found| found.signed).map_err(|error| Error::input(format!("{name} is damaged")).with_cause(error))
    }
}

fn manifest_hash(path: &str, digest: &str) -> [u8; 32] {
    sha256(&[path.as_bytes(), b"\n", digest.as_bytes()])
}

impl<'de> Deserialize<'de> for Channels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Roles;
        impl<'de> Visitor<'de> for Roles {
            type Value = Channels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the roles of a snapshot")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Channels, A::Error> {
                let mut channels = BTreeMap::new();
                while let Some(file) = map.next_key::<String>()? {
                    // A channel's name has no dot, so cohorts are not read.
                    let name =
                        file.strip_suffix(".json").filter(|name| *name != "targets").and_then(|n| n.parse().ok());
                    match name {
                        Some(name) if channels.len() < MAX_CHANNELS => {
                            channels.insert(name, map.next_value::<Version>()?.version);
                        }
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Channels(channels))
            }
        }
        deserializer.deserialize_map(Roles)
    }
}

impl<'de> Deserialize<'de> for Manifests {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Paths;
        impl<'de> Visitor<'de> for Paths {
            type Value = Manifests;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the targets of a role")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Manifests, A::Error> {
                let mut manifests = HashSet::new();
                while let Some(path) = map.next_key::<String>()? {
                    if matches!(Location::parse(&path), Some(Location::Manifest { .. })) {
                        let target: Target = map.next_value()?;
                        manifests.insert(manifest_hash(&path, &target.hashes.sha256));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Manifests(manifests))
            }
        }
        deserializer.deserialize_map(Paths)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Request, Response};
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tidegate_model::receipt::InstallResult;

    use super::*;

    /// The metadata of one release, with what the gate ignores.
    fn files() -> BTreeMap<&'static str, String> {
        let manifest = "ab".repeat(32);
        BTreeMap::from([
            ("/v1/metadata/timestamp.json", r#"{"signed": {"meta": {"snapshot.json": {"version": 7}}}, "signatures": [1]}"#.into()),
            (
                "/v1/metadata/7.snapshot.json",
                r#"{"signed": {"meta": {"targets.json": {"version": 1}, "broken.json": {"version": 1}, "stable.json": {"version": 3}, "stable.canary.json": {"version": 9}}}}"#.into(),
            ),
            ("/v1/metadata/1.broken.json", "[".into()),
            (
                "/v1/metadata/3.stable.json",
                format!(
                    r#"{{"signed": {{"targets": {{"stable/releases/os/1.2.0/manifest.json": {{"length": 1, "hashes": {{"sha256": "{manifest}"}}}}, "stable/cohorts.json": {{}}}}}}}}"#
                ),
            ),
        ])
    }

    async fn serve() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = service_fn(|request: Request<hyper::body::Incoming>| async move {
                    Ok::<_, std::convert::Infallible>(Response::new(files().remove(request.uri().path()).unwrap()))
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        url
    }

    fn receipt(manifest: &str) -> Receipt {
        Receipt {
            device: "device-1".parse().unwrap(),
            channel: "stable".parse().unwrap(),
            cohort: "canary".parse().unwrap(),
            product: "os".parse().unwrap(),
            release: "1.2.0".parse().unwrap(),
            sequence: 12,
            manifest: manifest.repeat(32).parse().unwrap(),
            hardware: "board-a".parse().unwrap(),
            outcome: InstallResult::Installed,
            reason: None,
            at: tidegate_model::time::parse("2026-01-05T12:00:00Z").unwrap(),
            from: "1.1.0".parse().unwrap(),
            offers: Vec::new(),
            delivery: None,
        }
    }

    #[tokio::test]
    async fn reads_a_repository_by_its_url() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let releases = KnownReleases::open(&serve().await, Path::new("."), Duration::ZERO).unwrap();
        assert!(releases.contains(&receipt("ab")).await.unwrap());
        assert!(!releases.contains(&receipt("cd")).await.unwrap());
        // A channel that cannot be read stops its own receipts only.
        let broken = Receipt { channel: "broken".parse().unwrap(), ..receipt("ab") };
        assert_eq!(releases.contains(&broken).await.unwrap_err().rule, "G-SRV-05");
        // A moment later the release may have been published: the gate cannot tell, and does not look again yet.
        let releases = KnownReleases::open(&serve().await, Path::new("."), Duration::from_secs(3600)).unwrap();
        assert!(!releases.contains(&receipt("cd")).await.unwrap());
        assert_eq!(releases.contains(&receipt("cd")).await.unwrap_err().rule, "G-SRV-05");
        assert!(releases.contains(&receipt("ab")).await.unwrap());
        let elsewhere = KnownReleases::open("http://127.0.0.1:9", Path::new("."), Duration::ZERO).unwrap();
        assert_eq!(elsewhere.contains(&receipt("ab")).await.unwrap_err().rule, "G-SRV-05");
    }
}

//! Predicts how many bytes devices fetch, hour by hour and way by way, from what the manifest lists.

use std::collections::BTreeMap;

use serde::Serialize;
use tidegate_model::manifest::{Artifact, Manifest};
use tidegate_model::name::{ArtifactName, HardwareId};
use tidegate_model::receipt::DeliveryWay;
use tidegate_model::version::Version;

/// How many devices take the release in each hour of the window, by what they run then and by hardware.
pub type Takers = BTreeMap<(Version, HardwareId), Vec<u64>>;

/// Bytes by way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BytesByWay {
    /// In patches.
    pub patch: u64,
    /// In indexes and chunks.
    pub chunks: u64,
    /// In whole artifacts.
    pub whole: u64,
}

impl BytesByWay {
    /// All of them.
    pub fn sum(self) -> u64 {
        self.patch.saturating_add(self.chunks).saturating_add(self.whole)
    }

    fn add(&mut self, way: DeliveryWay, bytes: u64) {
        let place = match way {
            DeliveryWay::Patch => &mut self.patch,
            DeliveryWay::Chunks => &mut self.chunks,
            DeliveryWay::Whole => &mut self.whole,
        };
        *place = place.saturating_add(bytes);
    }
}

/// How an artifact comes to the devices that run one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fetched {
    /// The artifact.
    pub artifact: ArtifactName,
    /// What the devices run when they take the release.
    pub from: Version,
    /// How they fetch it.
    pub way: DeliveryWay,
    /// How many devices there are within the window.
    pub devices: u64,
    /// What one of them fetches, at most, by signed sizes.
    pub bytes_each: u64,
    /// What all of them fetch.
    pub bytes: u64,
}

/// The bytes of a rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DeliveryForecast {
    /// What was assumed.
    pub assumptions: Vec<String>,
    /// By artifact and version.
    pub ways: Vec<Fetched>,
    /// What is fetched at the beginning, in the first hour, in the second, and so on.
    pub hours: Vec<BytesByWay>,
    /// What is fetched within the window.
    pub total: BytesByWay,
    /// What it would be if every device fetched whole artifacts.
    pub without: u64,
}

/// Predicts what the devices that take a release fetch.
pub fn predict(manifest: &Manifest, takers: &Takers, hours: usize) -> DeliveryForecast {
    let mut forecast =
        DeliveryForecast { hours: vec![BytesByWay::default(); hours + 1], ..DeliveryForecast::default() };
    let mut ways: BTreeMap<(&ArtifactName, &Version, DeliveryWay), Fetched> = BTreeMap::new();
    for ((from, hardware), counts) in takers {
        let devices: u64 = counts.iter().sum();
        for artifact in manifest.artifacts.iter().filter(|artifact| artifact.hardware.contains(hardware)) {
            let (way, bytes_each) = cheapest(artifact, from);
            let bytes = bytes_each.saturating_mul(devices);
            let none = || Fetched {
                artifact: artifact.name.clone(),
                from: from.clone(),
                way,
                devices: 0,
                bytes_each,
                bytes: 0,
            };
            let fetched = ways.entry((&artifact.name, from, way)).or_insert_with(none);
            fetched.devices += devices;
            fetched.bytes = fetched.bytes.saturating_add(bytes);
            forecast.total.add(way, bytes);
            forecast.without = forecast.without.saturating_add(artifact.length.saturating_mul(devices));
            for (hour, count) in forecast.hours.iter_mut().zip(counts) {
                hour.add(way, bytes_each.saturating_mul(*count));
            }
        }
    }
    forecast.ways = ways.into_values().collect();
    let has = |way: DeliveryWay| forecast.ways.iter().any(|fetched| fetched.way == way);
    forecast.assumptions.push(
        "a device fetches a release as soon as it takes it, once; bytes of other releases on the way are not counted"
            .into(),
    );
    if has(DeliveryWay::Patch) {
        forecast
            .assumptions
            .push("what a device runs is, byte for byte, what its version released, and it installs into slots".into());
    }
    if has(DeliveryWay::Chunks) {
        forecast
            .assumptions
            .push("a device without a patch has none of the chunks; it fetches less if it has some".into());
    }
    forecast
}

/// The cheapest way to an artifact by signed sizes, for a device that runs `from`, and what it takes.
fn cheapest(artifact: &Artifact, from: &Version) -> (DeliveryWay, u64) {
    let delivery = artifact.delivery.as_ref();
    let patches = delivery.into_iter().flat_map(|delivery| &delivery.patches);
    let patches = patches.filter(|patch| patch.from.version == *from).map(|patch| (DeliveryWay::Patch, patch.length));
    let chunks =
        delivery.map(|delivery| (DeliveryWay::Chunks, delivery.index.length.saturating_add(delivery.pack.length)));
    let all = patches.chain(chunks).chain([(DeliveryWay::Whole, artifact.length)]);
    all.min_by_key(|(way, bytes)| (*bytes, *way)).unwrap_or((DeliveryWay::Whole, artifact.length))
}

//! What fetching releases took, as devices tell it in their receipts.

use schemars::JsonSchema;
use serde::Serialize;
use tidegate_model::receipt::{DeliveryCost, DeliveryWay};

/// What the devices of a release fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DeliveryTally {
    /// Devices that took a patch.
    pub patch: Fetched,
    /// Devices that took chunks.
    pub chunks: Fetched,
    /// Devices that took whole artifacts.
    pub whole: Fetched,
    /// What all of them would have fetched as whole artifacts, in bytes.
    pub without: u64,
}

/// Devices that fetched a release in one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Fetched {
    /// How many devices.
    pub devices: u64,
    /// What they fetched, in bytes.
    pub bytes: u64,
}

impl DeliveryTally {
    /// Adds a device whose artifacts have `whole` bytes.
    pub(super) fn add(&mut self, cost: DeliveryCost, whole: u64) {
        let fetched = match cost.way {
            DeliveryWay::Patch => &mut self.patch,
            DeliveryWay::Chunks => &mut self.chunks,
            DeliveryWay::Whole => &mut self.whole,
        };
        fetched.devices += 1;
        fetched.bytes = fetched.bytes.saturating_add(cost.bytes);
        self.without = self.without.saturating_add(whole);
    }

    /// What all devices fetched, in bytes.
    pub fn bytes(&self) -> u64 {
        [self.patch, self.chunks, self.whole].iter().fold(0, |sum, fetched| sum.saturating_add(fetched.bytes))
    }

    /// What was not fetched because of patches and chunks, in bytes.
    pub fn saved(&self) -> u64 {
        self.without.saturating_sub(self.bytes())
    }

    /// The ways that devices took, by name.
    pub fn ways(&self) -> impl Iterator<Item = (&'static str, Fetched)> {
        let all = [("patch", self.patch), ("chunks", self.chunks), ("whole", self.whole)];
        all.into_iter().filter(|(_, fetched)| fetched.devices > 0)
    }
}

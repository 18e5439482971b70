//! Quotas of receipts: how many a device has stored today and in total. In the state storage, so that they hold across restarts.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidegate_model::name::DeviceId;

use crate::bounds::JsonBounds;
use crate::config::Limits;
use crate::encoding::{sha256, to_hex};
use crate::refusal::Refusal;
use crate::storage::{Storage, StorageError};

const DAY: u64 = 86_400;
const BOUNDS: JsonBounds = JsonBounds { length: 256, depth: 1, values: 16 };

/// The receipts of a device: `usage/SHA-256-OF-DEVICE-ID.json`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Usage {
    /// The day of `count` and `bytes`, since 1970.
    day: u64,
    count: u64,
    bytes: u64,
    total: u64,
}

/// The quotas of all devices.
#[derive(Debug)]
pub struct ReceiptQuotas {
    state: Storage,
    /// The devices whose receipts are being stored, so that no device can use its quota twice at once.
    busy: Mutex<HashSet<DeviceId>>,
}

/// Quota that is taken. Dropped, it stays taken.
#[derive(Debug)]
pub struct Reservation<'a> {
    quotas: &'a ReceiptQuotas,
    device: DeviceId,
    usage: Usage,
}

impl ReceiptQuotas {
    /// The quotas in this storage.
    pub fn new(state: Storage) -> Self {
        Self { state, busy: Mutex::default() }
    }

    /// Takes quota for receipts before they are stored: a gate that stops in between has counted too many, never too few.
    ///
    /// # Errors
    ///
    /// Refuses above a quota, or if the storage does not answer. The device keeps its receipts.
    pub async fn reserve(
        &self,
        limits: &Limits,
        device: &DeviceId,
        receipts: impl Iterator<Item = u64>,
        now: u64,
    ) -> Result<Reservation<'_>, Refusal> {
        if !self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(device.clone()) {
            return Err(Refusal::too_many_requests(
                "G-REC-10",
                "the gate is storing other receipts of this device; send them one request after the other",
                1,
            ));
        }
        let mut reservation = Reservation { quotas: self, device: device.clone(), usage: Usage::default() };
        let mut usage = self.read(device).await?;
        if usage.day != now / DAY {
            usage = Usage { day: now / DAY, count: 0, bytes: 0, ..usage };
        }
        for bytes in receipts {
            usage.add(bytes);
        }
        if usage.total > limits.receipts_per_device {
            return Err(Refusal::forbidden("G-REC-09", "this device has stored as many receipts as its gate keeps"));
        }
        if usage.count > limits.receipts_per_device_per_day || usage.bytes > limits.receipt_bytes_per_device_per_day {
            let rest = u32::try_from(DAY - now % DAY).unwrap_or(1);
            let reason = "this device has stored as many receipts as it may today";
            return Err(Refusal::too_many_requests("G-REC-08", reason, rest));
        }
        self.write(device, usage).await?;
        reservation.usage = usage;
        Ok(reservation)
    }

    /// Checks that counts can be written and read.
    ///
    /// # Errors
    ///
    /// Fails if the storage does not answer.
    pub async fn check(&self) -> Result<(), StorageError> {
        self.state.put("usage/check.json", b"{}".to_vec()).await?;
        self.state.get("usage/check.json", 2).await.map(drop)
    }

    /// Starts the count of a device again.
    ///
    /// # Errors
    ///
    /// Fails if the storage does not answer.
    pub async fn reset(&self, device: &DeviceId) -> Result<(), StorageError> {
        self.write(device, Usage::default()).await
    }

    async fn read(&self, device: &DeviceId) -> Result<Usage, Refusal> {
        let name = object_name(device);
        let bytes = match self.state.get(&name, BOUNDS.length as u64).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Usage::default()),
            Err(StorageError::TooLong { .. }) => Bytes::new(),
            Err(error) => return Err(error.into()),
        };
        let usage = BOUNDS.check(&bytes).ok().and_then(|()| serde_json::from_slice(&bytes).ok());
        Ok(usage.unwrap_or_else(|| {
            tracing::warn!(object = name, "damaged count of receipts; counted from zero");
            Usage::default()
        }))
    }

    async fn write(&self, device: &DeviceId, usage: Usage) -> Result<(), StorageError> {
        self.state.put(&object_name(device), serde_json::to_vec(&usage).unwrap_or_default()).await
    }
}

impl Usage {
    fn add(&mut self, bytes: u64) {
        self.count = self.count.saturating_add(1);
        self.total = self.total.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl Reservation<'_> {
    /// Gives back the quota of receipts that were stored before.
    pub async fn give_back(mut self, receipts: impl Iterator<Item = u64>) {
        let before = self.usage;
        for bytes in receipts {
            self.usage.count = self.usage.count.saturating_sub(1);
            self.usage.total = self.usage.total.saturating_sub(1);
            self.usage.bytes = self.usage.bytes.saturating_sub(bytes);
        }
        if self.usage != before
            && let Err(error) = self.quotas.write(&self.device, self.usage).await
        {
            tracing::warn!(%error, "quota of receipts not given back");
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.quotas.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.device);
    }
}

fn object_name(device: &DeviceId) -> String {
    format!("usage/{}.json", to_hex(&sha256(&[device.as_str().as_bytes()])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 20_000 * DAY + DAY / 2;

    #[tokio::test]
    async fn a_device_stores_so_many_a_day_and_in_total() {
        let dir = tempfile::tempdir().unwrap();
        let state = Storage::open("file:state", dir.path(), false).unwrap();
        let limits = Limits {
            receipts_per_device_per_day: 3,
            receipt_bytes_per_device_per_day: 100,
            receipts_per_device: 5,
            ..Limits::default()
        };
        let (one, two): (DeviceId, DeviceId) = ("one".parse().unwrap(), "two".parse().unwrap());
        // Another instance, or the same one after a restart.
        let take = async |device: &DeviceId, receipts: &[u64], now| {
            let quotas = ReceiptQuotas::new(state.clone());
            quotas.reserve(&limits, device, receipts.iter().copied(), now).await.map(drop).map_err(|error| error.rule)
        };
        assert_eq!(take(&one, &[10, 10], NOON).await, Ok(()));
        assert_eq!(take(&one, &[10, 10], NOON).await, Err("G-REC-08"));
        assert_eq!(take(&one, &[81], NOON).await, Err("G-REC-08"));
        assert_eq!(take(&one, &[80], NOON).await, Ok(()));
        assert_eq!(take(&two, &[10, 10, 10], NOON).await, Ok(()));
        assert_eq!(take(&one, &[1, 1], NOON + DAY).await, Ok(()));
        assert_eq!(take(&one, &[1], NOON + 2 * DAY).await, Err("G-REC-09"));
        ReceiptQuotas::new(state.clone()).reset(&one).await.unwrap();
        assert_eq!(take(&one, &[1], NOON + 2 * DAY).await, Ok(()));

        let quotas = ReceiptQuotas::new(state.clone());
        let first = quotas.reserve(&limits, &two, [1, 1].into_iter(), NOON + DAY).await.unwrap();
        let at_once = quotas.reserve(&limits, &two, [1].into_iter(), NOON + DAY).await;
        assert_eq!(at_once.unwrap_err().rule, "G-REC-10");
        first.give_back([1, 1].into_iter()).await;
        assert_eq!(take(&two, &[1, 1], NOON + DAY).await, Ok(()));
    }
}

//! What an attacker with the online keys could have published.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tidegate_tuf::key::KeyId;
use tidegate_tuf::path::metadata_file;
use tidegate_tuf::time;

use super::throwaway_keys::{Files, Shadow, list};
use crate::error::Result;
use crate::proposal::verify::Verified;

/// The repository as an attacker with the old online keys would publish it, with inflated versions, if the proposal removes those
/// keys.
pub(super) fn thief(
    shadow: &mut Shadow,
    verified: &Verified,
    before: &Files,
    (mut snapshot, mut timestamp): (Value, Value),
    (snapshot_signers, timestamp_signers): (&BTreeSet<KeyId>, &BTreeSet<KeyId>),
    now: DateTime<Utc>,
) -> Result<Option<Files>> {
    let (Some(old), Some(new)) = (verified.roots.last(), &verified.new_root) else { return Ok(None) };
    let revoked = |role: &str| match (old.role(role), new.role(role)) {
        (Some(old), Some(new)) => old.keyids.iter().any(|id| !new.keyids.contains(id)),
        _ => false,
    };
    if !revoked("timestamp") && !revoked("snapshot") {
        return Ok(None);
    }
    let mut files = before.clone();
    let highest = u64::from(u32::MAX);
    // What the repository lists stays, so that the device finds it; the numbers alone are run up.
    for (name, bytes) in &before.0 {
        if let Some(role) = name.split_once('.').and_then(|(_, rest)| rest.strip_suffix(".json"))
            && !matches!(role, "root" | "snapshot")
        {
            let version = name.split('.').next().and_then(|v| v.parse().ok()).unwrap_or(1);
            list(&mut snapshot, &percent_decode_str(role).decode_utf8_lossy(), version, bytes, false);
        }
    }
    if let Some(meta) = snapshot.get_mut("meta").and_then(Value::as_object_mut) {
        meta.retain(|name, entry| {
            let version = entry.get("version").and_then(Value::as_u64).unwrap_or_default();
            let role = name.strip_suffix(".json").unwrap_or(name);
            before.0.contains_key(&metadata_file(role, Some(version)))
        });
    }
    reissue(&mut snapshot, highest, now);
    let bytes = shadow.file(&snapshot, snapshot_signers)?;
    files.put("snapshot", highest, bytes.clone());
    list(&mut timestamp, "snapshot", highest, &bytes, true);
    reissue(&mut timestamp, highest, now);
    let bytes = shadow.file(&timestamp, timestamp_signers)?;
    files.put("timestamp", highest, bytes);
    Ok(Some(files))
}

pub(super) fn reissue(signed: &mut Value, version: u64, now: DateTime<Utc>) {
    if let Some(object) = signed.as_object_mut() {
        object.insert("version".into(), version.into());
        object.insert("x-tidegate-issued".into(), time::format(now).into());
        object.insert("expires".into(), time::format(now + TimeDelta::days(1)).into());
    }
}

//! `POST /v1/receipts`: stores install results that the device signed. They are durable before the gate acknowledges them.

use std::sync::atomic::Ordering::Relaxed;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_model::receipt::{MAX_LENGTH, SignedReceipt};
use tidegate_tuf::json;

use super::{AuthenticatedRequest, Route, parse_body, printable};
use crate::audit::AuditEntry;
use crate::context::{GateContext, Receipts};
use crate::encoding::is_sha256_hex;
use crate::refusal::{Refusal, json_response};
use crate::repo::releases::KnownReleases;

/// The maximum number of receipts in a request.
const MAX_RECEIPTS: usize = 64;
/// The number of concurrent writes of a request.
const CONCURRENT_WRITES: usize = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiptsRequest {
    receipts: Vec<Value>,
}

pub(super) async fn respond(
    gate: &GateContext,
    request: &AuthenticatedRequest,
    entry: &mut AuditEntry,
) -> Result<Response<Body>, Refusal> {
    let Receipts { storage, releases, quotas } = gate
        .receipts
        .as_ref()
        .ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "G-REC-01", "this gate accepts no receipts"))?;
    let form: ReceiptsRequest = parse_body(&request.body, Route::Receipts)?;
    if form.receipts.is_empty() || form.receipts.len() > MAX_RECEIPTS {
        return Err(Refusal::bad_request("G-REC-02", format!("send 1 to {MAX_RECEIPTS} receipts per request")));
    }
    // All receipts are checked before the first is stored: a request is accepted as a whole or not at all.
    let mut objects = Vec::new();
    for value in &form.receipts {
        objects.push(check(releases, request, value).await?);
    }
    tracing::debug!(receipts = objects.len(), "signatures of receipts verified");
    let lengths = objects.iter().map(|(_, bytes)| bytes.len() as u64);
    let device = &request.identity.device;
    let reservation = quotas.reserve(&gate.config.limits, device, lengths, request.now).await?;
    // The name contains the hash of the signed content, so an existing object is the same receipt.
    let writes = objects.into_iter().map(|(name, bytes)| async move {
        let length = bytes.len() as u64;
        storage.create(&name, bytes).await.map(|created| (created, length))
    });
    let created: Vec<(bool, u64)> =
        futures::stream::iter(writes).buffer_unordered(CONCURRENT_WRITES).try_collect().await?;
    let stored = created.iter().filter(|(created, _)| *created).count();
    let known = created.iter().filter(|(created, _)| !created).map(|(_, length)| *length);
    reservation.give_back(known).await;
    gate.metrics.stored_receipts.fetch_add(stored as u64, Relaxed);
    entry.stored = Some(stored);
    Ok(json_response(StatusCode::OK, &json!({"stored": stored, "known": created.len() - stored})))
}

/// The name and the bytes of the object for a receipt that this device signed with an enrolled key, for a known release.
async fn check(
    releases: &KnownReleases,
    request: &AuthenticatedRequest,
    value: &Value,
) -> Result<(String, Vec<u8>), Refusal> {
    let malformed =
        |error: String| Refusal::bad_request("G-REC-03", format!("a receipt is malformed: {}", printable(&error)));
    let receipt = SignedReceipt::from_value(value).map_err(|error| malformed(error.to_string()))?;
    let device = receipt.receipt.device.as_str();
    if !is_sha256_hex(device) && device != request.identity.device.as_str() {
        return Err(Refusal::forbidden("G-REC-04", "a receipt is from another device than its sender"));
    }
    // The gate cannot check a salted hash of a device id. It checks the key instead, by which receipts are counted.
    let keyid = receipt.keyid.as_str();
    match request.identity.enrolled_key(keyid) {
        Some(key) if receipt.verify(&key) => {}
        None if request.identity.awaits_enrolment(keyid) => {
            return Err(Refusal::forbidden("G-REC-06", "the key of a receipt is not enrolled yet"));
        }
        _ => return Err(Refusal::forbidden("G-REC-05", "a receipt is not signed with an enrolled key of this device")),
    }
    if !releases.contains(&receipt.receipt).await? {
        return Err(Refusal::forbidden("G-REC-07", "a receipt is of a release that is not registered"));
    }
    let name = receipt.object_name().map_err(|error| malformed(error.to_string()))?;
    let bytes = json::canonical(&receipt.to_value()).map_err(|error| malformed(error.to_string()))?;
    if bytes.len() > MAX_LENGTH {
        return Err(malformed(format!("longer than {MAX_LENGTH} bytes")));
    }
    Ok((name, bytes))
}

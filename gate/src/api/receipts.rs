//! `POST /v1/receipts`: what became of releases, signed by the device; kept for good before it is acknowledged.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectStore as _, PutMode, PutOptions, PutPayload};
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_model::receipt::SignedReceipt;
use tidegate_tuf::json;

use super::{Asked, parse, printable};
use crate::audit::Line;
use crate::context::Gate;
use crate::refusal::{Refusal, json_response};

/// How many receipts one request may bring.
const RECEIPTS: usize = 64;
/// How many of them are stored at a time.
const AT_A_TIME: usize = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    receipts: Vec<Value>,
}

pub(super) async fn answer(gate: &Gate, asked: &Asked, line: &mut Line) -> Result<Response<Body>, Refusal> {
    let place = gate
        .receipts
        .as_ref()
        .ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "G-REC-01", "this gate takes no receipts"))?;
    let form: Form = parse(&asked.body)?;
    if form.receipts.is_empty() || form.receipts.len() > RECEIPTS {
        return Err(Refusal::malformed("G-REC-02", format!("send 1 to {RECEIPTS} receipts at a time")));
    }
    // All are looked at before one is stored: a request is taken whole or not at all.
    let objects = form.receipts.iter().map(|value| check(asked, value)).collect::<Result<Vec<_>, _>>()?;
    let stored = futures::stream::iter(objects).map(|(name, bytes)| async move {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match place.store.put_opts(&place.key(&name), PutPayload::from(bytes), options).await {
            Ok(_) => Ok(true),
            // The name holds the hash of what is signed: it is the same receipt.
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(place.failed(&error)),
        }
    });
    let new: Vec<bool> = stored.buffer_unordered(AT_A_TIME).try_collect().await?;
    let stored = new.iter().filter(|new| **new).count();
    gate.metrics.receipts.fetch_add(stored as u64, std::sync::atomic::Ordering::Relaxed);
    line.stored = Some(stored);
    Ok(json_response(StatusCode::OK, &json!({"stored": stored, "known": new.len() - stored})))
}

/// The object's name and bytes, if the receipt is this device's.
fn check(asked: &Asked, value: &Value) -> Result<(String, Vec<u8>), Refusal> {
    let malformed =
        |why: String| Refusal::malformed("G-REC-03", format!("a receipt is not as it must be: {}", printable(&why)));
    let receipt = SignedReceipt::from_value(value).map_err(|error| malformed(error.to_string()))?;
    let device = receipt.receipt.device.as_str();
    let is_hash = device.len() == 64 && device.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hash && device != asked.identity.device.as_str() {
        return Err(Refusal::forbidden("G-REC-04", "a receipt is another device's than the one that sent it"));
    }
    // Whose salted hash it is cannot be told here; whose key it is can, and receipts are counted by key.
    let key = asked.identity.key(receipt.keyid.as_str());
    if !key.is_some_and(|key| receipt.verify(&key)) {
        return Err(Refusal::forbidden("G-REC-05", "a receipt is not signed by a key of this device"));
    }
    let name = receipt.object_name().map_err(|error| malformed(error.to_string()))?;
    let bytes = json::canonical(&receipt.to_value()).map_err(|error| malformed(error.to_string()))?;
    Ok((name, bytes))
}

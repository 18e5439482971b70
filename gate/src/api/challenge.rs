//! `POST /v1/challenge`: a nonce.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::{Asked, parse};
use crate::context::Gate;
use crate::encoding::to_base64;
use crate::nonce;
use crate::refusal::{Refusal, json_response};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    device: String,
}

pub(super) fn answer(gate: &Gate, asked: &Asked) -> Result<Response<Body>, Refusal> {
    let form: Form = parse(&asked.body)?;
    asked.is_of(&form.device)?;
    let (nonce, expires) = nonce::make(&gate.secret(), asked.identity.device.as_str(), asked.now)?;
    let body = json!({"nonce": to_base64(&nonce), "expires": super::instant(expires)});
    Ok(json_response(StatusCode::OK, &body))
}

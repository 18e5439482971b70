//! `POST /v1/challenge`: issues a nonce.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::{AuthenticatedRequest, Route, format_time, parse_body};
use crate::context::GateContext;
use crate::encoding::to_base64url;
use crate::nonce;
use crate::refusal::{Refusal, json_response};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChallengeRequest {
    device: String,
}

pub(super) fn respond(gate: &GateContext, request: &AuthenticatedRequest) -> Result<Response<Body>, Refusal> {
    let form: ChallengeRequest = parse_body(&request.body, Route::Challenge)?;
    request.check_device(&form.device)?;
    let nonce = nonce::issue(&gate.secret(), request.identity.device.as_str(), request.now)?;
    tracing::debug!("nonce issued");
    let body = json!({"nonce": to_base64url(&nonce.bytes), "expires": format_time(nonce.expires)});
    Ok(json_response(StatusCode::OK, &body))
}

//! The API for devices: routes, limits, identification. Applies to every request before its route handles it.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use axum::routing::{get, post};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tidegate_tuf::json;

use crate::audit::AuditEntry;
use crate::bounds::JsonBounds;
use crate::context::GateContext;
use crate::identity::certificate::{CertificateError, DeviceCertificate};
use crate::identity::proof::{self, RequestProof, SignedRequest};
use crate::identity::{DeviceIdentity, token_binding};
use crate::refusal::Refusal;
use crate::sender::AddressGroup;
use crate::token::MAX_TOKEN;

mod challenge;
mod grant;
mod receipts;
mod repo;

/// The other end of a connection.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// Its address, if that has a budget.
    pub sender: Option<AddressGroup>,
    /// The client certificate, or why it names no device. `None` without a certificate.
    pub certificate: Option<Result<Arc<DeviceCertificate>, CertificateError>>,
}

/// A request whose sender is identified.
#[derive(Debug)]
struct AuthenticatedRequest {
    identity: DeviceIdentity,
    /// The name by which the request addresses this gate, if it does.
    gate_name: Result<String, Refusal>,
    /// The path from `/v1/` on, as sent.
    path: String,
    body: Bytes,
    token: Option<String>,
    /// The time of the request, in Unix seconds.
    now: u64,
}

impl AuthenticatedRequest {
    /// The name by which the request addresses this gate.
    fn gate_name(&self) -> Result<String, Refusal> {
        self.gate_name.clone()
    }

    /// Refuses a body that names another device than the sender.
    fn check_device(&self, device: &str) -> Result<(), Refusal> {
        if device == self.identity.device.as_str() {
            return Ok(());
        }
        Err(Refusal::forbidden("G-ID-07", "the body names another device than its sender"))
    }
}

#[derive(Debug, Clone, Copy)]
enum Route {
    Challenge,
    Grant,
    Receipts,
    Repo,
}

impl Route {
    /// The name in the audit log and in metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Challenge => "challenge",
            Self::Grant => "grant",
            Self::Receipts => "receipts",
            Self::Repo => "repo",
        }
    }

    /// The most that a body of this route can need.
    fn bounds(self) -> JsonBounds {
        match self {
            Self::Challenge => JsonBounds { length: 1024, depth: 1, values: 16 },
            // An attestation result has up to 32 KiB; 24 registers and 16 cohorts have about a hundred values.
            Self::Grant => JsonBounds { length: 40 * 1024, depth: 3, values: 160 },
            // 64 receipts have about 40 values each.
            Self::Receipts => JsonBounds { length: 64 * 1024, depth: 4, values: 4096 },
            Self::Repo => JsonBounds { length: 0, depth: 0, values: 0 },
        }
    }
}

/// The router of all paths.
pub fn router(gate: Arc<GateContext>) -> Router {
    let handler = |route: Route| {
        move |State(gate): State<Arc<GateContext>>, request: Request<Body>| async move {
            handle(&gate, request, route).await
        }
    };
    let unknown =
        |State(gate): State<Arc<GateContext>>, request: Request<Body>| async move { refuse_path(&gate, request).await };
    Router::new()
        .route("/v1/challenge", post(handler(Route::Challenge)))
        .route("/v1/grant", post(handler(Route::Grant)))
        .route("/v1/receipts", post(handler(Route::Receipts)))
        .route("/v1/repo/{*path}", get(handler(Route::Repo)))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .with_state(gate)
}

async fn handle(gate: &GateContext, request: Request<Body>, route: Route) -> Response<Body> {
    let mut entry = AuditEntry { route: route.name(), ..AuditEntry::default() };
    let started = Instant::now();
    let response = respond_within_limits(gate, request, route, &mut entry).await;
    finish(gate, response, entry, started).await
}

async fn refuse_path(gate: &GateContext, request: Request<Body>) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let path = parts.uri.path();
    let is_known = ["/v1/challenge", "/v1/grant", "/v1/receipts"].contains(&path);
    let refusal = if is_known || path.starts_with(repo::PREFIX) {
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "G-REQ-01", "this path does not support the method")
    } else {
        Refusal::new(StatusCode::NOT_FOUND, "G-REQ-02", "there is no such path")
    };
    let mut entry = AuditEntry { route: "other", ..AuditEntry::default() };
    let peer = parts.extensions.get::<Peer>().cloned().unwrap_or_default();
    let refusal = check_sender(gate, &peer, &mut entry).err().unwrap_or(refusal);
    finish(gate, Err(refusal), entry, Instant::now()).await
}

/// Counts a request against the budgets of its sender: of its address, and of the device in its certificate. Returns whether the device has
/// at least half of its budget; `None` if it is not known yet.
fn check_sender(gate: &GateContext, peer: &Peer, entry: &mut AuditEntry) -> Result<Option<bool>, Refusal> {
    if let Some(Ok(certificate)) = &peer.certificate {
        entry.device = Some(gate.audit.device_label(certificate.device.as_str(), &gate.secret()));
    } else if let Some(sender) = peer.sender {
        entry.device = Some(gate.audit.device_label(&sender.to_string(), &gate.secret()));
    }
    gate.rates.check_address(peer.sender)?;
    let Some(Ok(certificate)) = &peer.certificate else { return Ok(None) };
    gate.rates.check_device(certificate.device.as_str()).map(Some)
}

/// Converts a refusal to a response, and records the decision.
async fn finish(
    gate: &GateContext,
    result: Result<Response<Body>, Refusal>,
    mut entry: AuditEntry,
    started: Instant,
) -> Response<Body> {
    let mut response = result.unwrap_or_else(|refusal| {
        entry.rule = Some(refusal.rule);
        entry.missing.clone_from(&refusal.missing);
        refusal.response()
    });
    let duration = started.elapsed();
    entry.at = format_time(gate.now());
    let status = response.status().as_u16();
    entry.status = Some(status);
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        // A sender that does not wait needs a new connection for each further attempt, and handshakes have a budget.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    entry.ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    gate.metrics.record_response(entry.route, status, entry.rule, duration);
    tracing::debug!(
        route = entry.route,
        status,
        rule = entry.rule,
        device = entry.device,
        duration_ms = entry.ms,
        "request"
    );
    gate.audit.append(entry).await;
    response
}

/// Responds within the limits of rate, concurrency and time. The budgets of the sender come first, and a request takes one of the places of
/// all only when it has arrived.
async fn respond_within_limits(
    gate: &GateContext,
    request: Request<Body>,
    route: Route,
    entry: &mut AuditEntry,
) -> Result<Response<Body>, Refusal> {
    let (parts, body) = request.into_parts();
    let peer = parts.extensions.get::<Peer>().cloned().unwrap_or_default();
    let is_sparing = check_sender(gate, &peer, entry)?;
    if parts.uri.query().is_some() || parts.uri.authority().is_some() {
        return Err(Refusal::bad_request("G-REQ-03", "the request must have neither a query nor a host in its path"));
    }
    let body = read_body(gate, &parts, body, route).await?;
    let _permit = gate
        .requests
        .try_acquire()
        .map_err(|_| Refusal::unavailable("G-LIM-05", "the gate is overloaded; try again later"))?;
    let sent = SentRequest { parts, body, peer, is_sparing };
    with_timeout(gate.config.limits.answer.into(), respond(gate, sent, route, entry)).await
}

/// A request that has arrived.
struct SentRequest {
    parts: Parts,
    body: Bytes,
    peer: Peer,
    is_sparing: Option<bool>,
}

async fn with_timeout<T>(limit: Duration, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    let timed_out = || Refusal::unavailable("G-LIM-06", "the request took too long; try again later");
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(timed_out()))
}

async fn respond(
    gate: &GateContext,
    sent: SentRequest,
    route: Route,
    entry: &mut AuditEntry,
) -> Result<Response<Body>, Refusal> {
    let SentRequest { parts, body, peer, is_sparing } = sent;
    let token = bearer_token(&parts.headers)?;
    let now = gate.now();
    let path = parts.uri.path().to_owned();
    let gate_name = gate.names().addressed(&parts.headers);
    let identity = if let Some(certificate) = &peer.certificate {
        let identity = identify_by_certificate(gate, certificate).await;
        identity.map(|identity| (identity, is_sparing.unwrap_or_default()))
    } else {
        let signed = SignedRequest {
            gate: gate_name.as_deref().map_err(Clone::clone)?,
            method: parts.method.as_str(),
            path: &path,
            body: &body,
            token: token.as_deref().unwrap_or_default(),
        };
        identify_by_proof(gate, &parts.headers, &signed, now, entry).await
    };
    if identity.as_ref().is_err_and(|refusal| refusal.status == StatusCode::UNAUTHORIZED) {
        gate.rates.charge_unidentified(peer.sender);
    }
    let (identity, is_sparing) = identity?;
    gate.rates.check_global(is_sparing)?;
    if identity.enrolment.as_ref().is_some_and(|enrolment| enrolment.disabled) {
        return Err(Refusal::forbidden("G-ID-08", "this device is disabled"));
    }
    let request = AuthenticatedRequest { identity, gate_name, path, body, token, now };
    match route {
        Route::Challenge => challenge::respond(gate, &request),
        Route::Grant => grant::respond(gate, &request, entry).await,
        Route::Receipts => receipts::respond(gate, &request, entry).await,
        Route::Repo => repo::respond(gate, &request, &parts.method, &parts.headers, entry).await,
    }
}

/// Reads the body within the limits of length and time. Only `POST` may have one.
async fn read_body(gate: &GateContext, parts: &Parts, body: Body, route: Route) -> Result<Bytes, Refusal> {
    let most = route.bounds().length;
    let too_long =
        || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "G-REQ-04", format!("such a body has at most {most} bytes"));
    let declared = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .map(|value| value.to_str().ok().and_then(|text| text.parse::<usize>().ok()));
    if matches!(declared, Some(Some(length)) if length > most && parts.method == Method::POST) {
        return Err(too_long());
    }
    if parts.headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "G-REQ-08",
            "send the body without Content-Encoding",
        ));
    }
    let timed_out = || Refusal::new(StatusCode::REQUEST_TIMEOUT, "G-LIM-07", "the body took too long");
    let limited = Limited::new(body, most.max(1)).collect();
    let body = match tokio::time::timeout(gate.config.limits.patience.into(), limited).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_long()),
        Ok(Err(_)) => return Err(Refusal::bad_request("G-REQ-06", "the body cannot be read")),
        Err(_) => return Err(timed_out()),
    };
    if parts.method != Method::POST && !body.is_empty() {
        return Err(Refusal::bad_request("G-REQ-07", "this method does not allow a body"));
    }
    Ok(body)
}

/// The bearer token (RFC 6750 section 2.1), if there is one.
fn bearer_token(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let refused = || Refusal::unauthenticated("G-TOK-06", "send a single header Authorization: Bearer TOKEN");
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(refused());
    }
    let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).ok_or_else(refused)?;
    if token.is_empty() || token.len() > MAX_TOKEN {
        return Err(refused());
    }
    Ok(Some(token.to_owned()))
}

async fn identify_by_certificate(
    gate: &GateContext,
    certificate: &Result<Arc<DeviceCertificate>, CertificateError>,
) -> Result<DeviceIdentity, Refusal> {
    let certificate = certificate.as_ref().map_err(|error| {
        Refusal::unauthenticated("G-ID-01", format!("the client certificate does not name a device: {error}"))
    })?;
    let enrolment = gate.enrolments.find(&certificate.device).await?;
    let device = certificate.device.clone();
    let binding = token_binding("certificate", &device, &certificate.spki_hash);
    tracing::debug!(enrolled = enrolment.is_some(), "device identified by its client certificate");
    Ok(DeviceIdentity { device, binding, certificate_key: certificate.key.clone(), enrolment })
}

async fn identify_by_proof(
    gate: &GateContext,
    headers: &HeaderMap,
    signed: &SignedRequest<'_>,
    now: u64,
    entry: &mut AuditEntry,
) -> Result<(DeviceIdentity, bool), Refusal> {
    let mut all = headers.get_all(proof::HEADER).iter();
    let (Some(value), None) = (all.next(), all.next()) else {
        return Err(Refusal::unauthenticated(
            "G-ID-02",
            "the device must identify itself with a client certificate or a single header Tidegate-Proof",
        ));
    };
    let proof = RequestProof::parse(value.to_str().unwrap_or_default())?;
    let enrolment = gate.enrolments.find_by_key(&proof.keyid).await?.ok_or_else(proof::not_signed)?;
    let key = enrolment.key(&proof.keyid).ok_or_else(proof::not_signed)?;
    proof.verify(&key, signed, now)?;
    entry.device = Some(gate.audit.device_label(enrolment.device.as_str(), &gate.secret()));
    // Before the proof is recorded, so that no device fills the memory of proofs.
    let is_sparing = gate.rates.check_device(enrolment.device.as_str())?;
    gate.proofs.record(&proof, now)?;
    tracing::debug!(keyid = proof.keyid, "device identified by a proof");
    let device = enrolment.device.clone();
    let binding = token_binding("key", &device, proof.keyid.as_bytes());
    Ok((DeviceIdentity { device, binding, certificate_key: None, enrolment: Some(enrolment) }, is_sparing))
}

/// Parses a body as strict JSON: no duplicate keys, no unknown fields.
fn parse_body<T: DeserializeOwned>(body: &[u8], route: Route) -> Result<T, Refusal> {
    let malformed =
        |error: String| Refusal::bad_request("G-REQ-06", format!("the body is malformed: {}", printable(&error)));
    route.bounds().check(body).map_err(malformed)?;
    let value = json::parse(body).map_err(|error| malformed(error.to_string()))?;
    serde_json::from_value(value).map_err(|error| malformed(error.to_string()))
}

/// Text that may contain input of the device, without control characters and with a limited length.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(200).collect()
}

/// Formats a time in Unix seconds.
pub(crate) fn format_time(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0));
    at.map(tidegate_model::time::format).unwrap_or_default()
}

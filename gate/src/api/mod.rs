//! The service that devices speak with: routes, and what holds for every request before it is looked at closely.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use axum::routing::{get, post};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tidegate_model::name::DeviceId;
use tidegate_tuf::json;

use crate::audit::Line;
use crate::context::Gate;
use crate::identity::certificate::Certified;
use crate::identity::proof::{self, Proof, Signed};
use crate::identity::{Identity, binding};
use crate::refusal::Refusal;

mod challenge;
mod grant;
mod receipts;
mod repo;

/// The longest body, in bytes.
const BODY: usize = 64 * 1024;

/// What the connection says of who is at its other end.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// What its certificate says, or what is wrong with it. `None` if it showed none.
    pub certificate: Option<Result<Arc<Certified>, &'static str>>,
}

/// A request whose sender is known.
#[derive(Debug)]
struct Asked {
    identity: Identity,
    /// The path, from `/v1/` on, as it was sent.
    path: String,
    body: Bytes,
    token: Option<String>,
    /// Seconds since 1970.
    now: u64,
}

impl Asked {
    /// Whether the device that a body names is the one that sent it.
    fn is_of(&self, device: &str) -> Result<(), Refusal> {
        if device == self.identity.device.as_str() {
            return Ok(());
        }
        Err(Refusal::forbidden("G-ID-07", "the body names another device than the one that sent it"))
    }
}

/// All routes.
pub fn router(gate: Arc<Gate>) -> Router {
    let other = |State(gate): State<Arc<Gate>>, uri: Uri| async move { gate_other(&gate, uri.path()).await };
    Router::new()
        .route(
            "/v1/challenge",
            post(|gate: State<Arc<Gate>>, request: Request<Body>| handle(gate, request, "challenge")),
        )
        .route("/v1/grant", post(|gate: State<Arc<Gate>>, request: Request<Body>| handle(gate, request, "grant")))
        .route("/v1/receipts", post(|gate: State<Arc<Gate>>, request: Request<Body>| handle(gate, request, "receipts")))
        .route("/v1/repo/{*path}", get(|gate: State<Arc<Gate>>, request: Request<Body>| handle(gate, request, "repo")))
        .fallback(other)
        .method_not_allowed_fallback(other)
        .with_state(gate)
}

async fn handle(State(gate): State<Arc<Gate>>, request: Request<Body>, route: &'static str) -> Response<Body> {
    let mut line = Line { route, ..Line::default() };
    let started = Instant::now();
    let answer = bounded(&gate, request, route, &mut line).await;
    finish(&gate, answer, line, started).await
}

async fn gate_other(gate: &Gate, path: &str) -> Response<Body> {
    let known = ["/v1/challenge", "/v1/grant", "/v1/receipts"].contains(&path);
    let refusal = if known || path.starts_with(repo::PREFIX) {
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "G-REQ-01", "this path does not take that method")
    } else {
        Refusal::new(StatusCode::NOT_FOUND, "G-REQ-02", "there is no such path")
    };
    let refusal = gate.rates.anyone().err().unwrap_or(refusal);
    finish(gate, Err(refusal), Line { route: "other", ..Line::default() }, Instant::now()).await
}

async fn finish(
    gate: &Gate,
    answer: Result<Response<Body>, Refusal>,
    mut line: Line,
    started: Instant,
) -> Response<Body> {
    let response = match answer {
        Ok(response) => response,
        Err(refusal) => {
            line.rule = Some(refusal.rule);
            line.missing.clone_from(&refusal.missing);
            refusal.response()
        }
    };
    let took = started.elapsed();
    line.at = instant(gate.now());
    line.status = response.status().as_u16();
    line.ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    gate.metrics.answered(line.route, line.status, line.rule, took);
    gate.log.write(&line).await;
    response
}

/// Within the bounds of number and time.
async fn bounded(
    gate: &Gate,
    request: Request<Body>,
    route: &'static str,
    line: &mut Line,
) -> Result<Response<Body>, Refusal> {
    gate.rates.anyone()?;
    let _one = gate
        .requests
        .try_acquire()
        .map_err(|_| Refusal::unavailable("G-LIM-05", "the gate has all hands full: try again later"))?;
    within(gate.config.limits.answer.into(), answer(gate, request, route, line)).await
}

async fn within<T>(time: std::time::Duration, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    let late = || Refusal::unavailable("G-LIM-06", "it took too long: try again later");
    tokio::time::timeout(time, work).await.unwrap_or_else(|_| Err(late()))
}

async fn answer(
    gate: &Gate,
    request: Request<Body>,
    route: &'static str,
    line: &mut Line,
) -> Result<Response<Body>, Refusal> {
    let (parts, body) = request.into_parts();
    if parts.uri.query().is_some() || parts.uri.authority().is_some() {
        return Err(Refusal::malformed("G-REQ-03", "no request of this gate has a query or names a host in its path"));
    }
    let body = read(gate, &parts, body).await?;
    let token = token(&parts.headers)?;
    let now = gate.now();
    let path = parts.uri.path().to_owned();
    let signed =
        Signed { method: parts.method.as_str(), path: &path, body: &body, token: token.as_deref().unwrap_or_default() };
    let identity = identify(gate, &parts, &signed, now).await?;
    line.device = Some(gate.log.name(identity.device.as_str(), &gate.secret()));
    gate.rates.device(identity.device.as_str())?;
    let asked = Asked { identity, path, body, token, now };
    match route {
        "challenge" => challenge::answer(gate, &asked),
        "grant" => grant::answer(gate, &asked, line).await,
        "receipts" => receipts::answer(gate, &asked, line).await,
        _ => repo::answer(gate, &asked, &parts.method, &parts.headers, line).await,
    }
}

/// The body, bounded in length and time. Only `POST` has one.
async fn read(gate: &Gate, parts: &Parts, body: Body) -> Result<Bytes, Refusal> {
    let too_long =
        || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "G-REQ-04", format!("a body has at most {BODY} bytes"));
    let said = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .map(|value| value.to_str().ok().and_then(|text| text.parse::<usize>().ok()));
    if matches!(said, Some(Some(length)) if length > BODY) {
        return Err(too_long());
    }
    if parts.headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "G-REQ-08",
            "send the body as it is, without Content-Encoding",
        ));
    }
    let late = || Refusal::new(StatusCode::REQUEST_TIMEOUT, "G-LIM-07", "the body took too long");
    let limited = tokio::time::timeout(gate.config.limits.patience.into(), Limited::new(body, BODY).collect());
    let body = match limited.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_long()),
        Ok(Err(_)) => return Err(Refusal::malformed("G-REQ-06", "the body cannot be read")),
        Err(_) => return Err(late()),
    };
    if parts.method != Method::POST && !body.is_empty() {
        return Err(Refusal::malformed("G-REQ-07", "this method takes no body"));
    }
    Ok(body)
}

/// The bearer token (RFC 6750 section 2.1), if there is one.
fn token(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let refused = || Refusal::unknown("G-TOK-06", "the header Authorization is not one Bearer TOKEN");
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(refused());
    }
    let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).ok_or_else(refused)?;
    if token.is_empty() || token.len() > crate::token::LONGEST {
        return Err(refused());
    }
    Ok(Some(token.to_owned()))
}

/// Who asks, by certificate or by proof.
async fn identify(gate: &Gate, parts: &Parts, signed: &Signed<'_>, now: u64) -> Result<Identity, Refusal> {
    let peer = parts.extensions.get::<Peer>().cloned().unwrap_or_default();
    let identity = match peer.certificate {
        Some(Ok(certified)) => {
            let enrolment = gate.enrolments.of(&certified.device).await?;
            let binding = binding("certificate", &certified.device, &certified.spki);
            Identity { device: certified.device.clone(), binding, certified: certified.key.clone(), enrolment }
        }
        Some(Err(why)) => return Err(Refusal::unknown("G-ID-01", format!("the certificate names no device: {why}"))),
        None => by_proof(gate, &parts.headers, signed, now).await?,
    };
    if identity.enrolment.as_ref().is_some_and(|enrolment| enrolment.disabled) {
        return Err(Refusal::forbidden("G-ID-08", "this device is disabled"));
    }
    Ok(identity)
}

async fn by_proof(gate: &Gate, headers: &HeaderMap, signed: &Signed<'_>, now: u64) -> Result<Identity, Refusal> {
    let mut all = headers.get_all(proof::HEADER).iter();
    let (Some(value), None) = (all.next(), all.next()) else {
        return Err(Refusal::unknown(
            "G-ID-02",
            "show who you are: by a client certificate, or by one header Tidegate-Proof",
        ));
    };
    let proof = Proof::parse(value.to_str().unwrap_or_default())?;
    let enrolment = gate.enrolments.by_key(&proof.keyid).await?;
    // The same words whether there is such a key or not.
    let stranger = || Refusal::unknown("G-ID-04", "the proof is not by an enrolled key over this request");
    let enrolment = enrolment.ok_or_else(stranger)?;
    let key = enrolment.key(&proof.keyid).ok_or_else(stranger)?;
    proof.check(&key, signed, now)?;
    gate.seen.once(&proof, now)?;
    let device: DeviceId = enrolment.device.clone();
    let binding = binding("key", &device, proof.keyid.as_bytes());
    Ok(Identity { device, binding, certified: None, enrolment: Some(enrolment) })
}

/// A body of strict JSON: no duplicate keys, nothing unknown.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let refused =
        |why: String| Refusal::malformed("G-REQ-06", format!("the body is not as it must be: {}", printable(&why)));
    let value = json::parse(body).map_err(|error| refused(error.to_string()))?;
    serde_json::from_value(value).map_err(|error| refused(error.to_string()))
}

/// What a device sent may be part of an error: no control characters, and not much of it.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(200).collect()
}

/// An instant as text.
fn instant(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0));
    at.map(tidegate_model::time::format).unwrap_or_default()
}

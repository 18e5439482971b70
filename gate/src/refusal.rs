//! Refusals: the error responses that devices get, each with a stable rule id.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::error::{Error, ErrorKind};

/// Why a request is refused. The device sees all of it, so it contains nothing that the device may not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {reason}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// The stable id of the rule, e.g. `G-ATT-03`.
    pub rule: &'static str,
    /// What is wrong and what would help.
    pub reason: String,
    /// What is missing for a grant, e.g. `pcr sha256:7`.
    pub missing: Vec<String>,
    /// The number of seconds to wait before the next attempt.
    pub retry_after: Option<u32>,
    kind: ErrorKind,
}

impl Refusal {
    /// A refusal with any status.
    pub fn new(status: StatusCode, rule: &'static str, reason: impl Into<String>) -> Self {
        Self { status, rule, reason: reason.into(), missing: Vec::new(), retry_after: None, kind: ErrorKind::Refused }
    }

    /// 400: the request is malformed.
    pub fn bad_request(rule: &'static str, reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, rule, reason)
    }

    /// 401: the device is not identified, or its token is not valid.
    pub fn unauthenticated(rule: &'static str, reason: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, rule, reason)
    }

    /// 403: the device is identified and not allowed to do this.
    pub fn forbidden(rule: &'static str, reason: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, rule, reason)
    }

    /// 429: too many requests. The device may retry after `seconds`.
    pub fn too_many_requests(rule: &'static str, reason: impl Into<String>, seconds: u32) -> Self {
        Self { retry_after: Some(seconds.max(1)), ..Self::new(StatusCode::TOO_MANY_REQUESTS, rule, reason) }
    }

    /// 503: the gate is overloaded, or a service that it depends on does not answer.
    pub fn unavailable(rule: &'static str, reason: impl Into<String>) -> Self {
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, rule, reason);
        Self { retry_after: Some(5), kind: ErrorKind::Network, ..refusal }
    }

    /// 503: an object in storage is damaged, so that the operator has to replace it.
    pub fn damaged(rule: &'static str, reason: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Input, ..Self::unavailable(rule, reason) }
    }

    /// Adds what is missing for a grant.
    #[must_use]
    pub fn with_missing(mut self, missing: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.missing = missing.into_iter().map(Into::into).collect();
        self
    }

    /// The response to the device.
    pub fn response(&self) -> Response<Body> {
        let body = json!({"error": {"rule": self.rule, "why": self.reason, "missing": self.missing}});
        let mut response = json_response(self.status, &body);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 11.6.1: a 401 names a scheme that would be accepted.
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// For commands of the operator that use the same checks as requests.
impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.kind, refusal.reason).with_rule(refusal.rule)
    }
}

/// A JSON response that caches must not store.
pub fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

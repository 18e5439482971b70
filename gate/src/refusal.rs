//! Why a request is not answered as asked: a status, a stable rule, a sentence, and what is missing.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

/// A refusal. Its text goes to the device, so it holds nothing that the device did not say or may not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {why}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// The rule that was broken, e.g. `G-ATT-03`: `docs/gate.md` lists them.
    pub rule: &'static str,
    /// What is wrong and what would help.
    pub why: String,
    /// What a grant lacks, e.g. `pcr sha256:7`.
    pub missing: Vec<String>,
    /// For how many seconds asking again is in vain.
    pub retry_after: Option<u32>,
}

impl Refusal {
    /// A refusal with any status.
    pub fn new(status: StatusCode, rule: &'static str, why: impl Into<String>) -> Self {
        Self { status, rule, why: why.into(), missing: Vec::new(), retry_after: None }
    }

    /// The request is not formed as it must be.
    pub fn malformed(rule: &'static str, why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, rule, why)
    }

    /// Who asks is not known, or its token is not valid any more.
    pub fn unknown(rule: &'static str, why: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, rule, why)
    }

    /// Who asks is known and may not.
    pub fn forbidden(rule: &'static str, why: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, rule, why)
    }

    /// Too much was asked; `seconds` is when it may be asked again.
    pub fn busy(rule: &'static str, why: impl Into<String>, seconds: u32) -> Self {
        Self { retry_after: Some(seconds.max(1)), ..Self::new(StatusCode::TOO_MANY_REQUESTS, rule, why) }
    }

    /// Something behind the gate does not answer.
    pub fn unavailable(rule: &'static str, why: impl Into<String>) -> Self {
        Self { retry_after: Some(5), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, rule, why) }
    }

    /// The same with what is missing.
    #[must_use]
    pub fn missing(mut self, missing: Vec<String>) -> Self {
        self.missing = missing;
        self
    }

    /// The answer to the device.
    pub fn response(&self) -> Response<Body> {
        let body = json!({"error": {"rule": self.rule, "why": self.why, "missing": self.missing}});
        let mut response = json_response(self.status, &body);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 11.6.1: a 401 says what would do.
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An answer in JSON that nobody keeps.
pub fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

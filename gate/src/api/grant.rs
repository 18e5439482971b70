//! `POST /v1/grant`: issues a token for evidence.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::{AuthenticatedRequest, Route, format_time, parse_body};
use crate::audit::AuditEntry;
use crate::context::GateContext;
use crate::encoding::from_base64url;
use crate::evidence::{Evidence, VerifiedEvidence, ear, tpm};
use crate::refusal::{Refusal, json_response};
use crate::token::AccessToken;
use crate::{nonce, policy};

/// The maximum number of cohorts in a request.
const MAX_COHORTS: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantRequest {
    device: String,
    nonce: String,
    cohorts: Vec<String>,
    evidence: Evidence,
}

pub(super) async fn respond(
    gate: &GateContext,
    request: &AuthenticatedRequest,
    entry: &mut AuditEntry,
) -> Result<Response<Body>, Refusal> {
    let form: GrantRequest = parse_body(&request.body, Route::Grant)?;
    request.check_device(&form.device)?;
    if form.cohorts.is_empty() || form.cohorts.len() > MAX_COHORTS {
        return Err(Refusal::bad_request("G-REQ-05", format!("name 1 to {MAX_COHORTS} cohorts")));
    }
    let nonce = from_base64url(&form.nonce).unwrap_or_default();
    let expires = nonce::verify(&gate.secret(), &nonce, request.identity.device.as_str(), request.now)?;
    // The nonce is spent before the evidence is verified: each nonce allows one attempt, whatever its result.
    nonce::spend(&gate.state, &nonce, expires).await?;
    tracing::debug!("nonce verified and spent");

    entry.evidence = Some(form.evidence.kind().name());
    let evidence = verify_evidence(gate, request, &form, &nonce).await?;
    let (cohorts, lifetime) = grant_cohorts(gate, request, form.cohorts, &evidence)?;

    let expires = request.now.saturating_add(lifetime);
    let token = AccessToken { expires, binding: request.identity.binding, cohorts };
    let text = token.seal(&gate.secret())?;
    tracing::debug!(cohorts = ?token.cohorts, lifetime, "token issued");
    for cohort in &token.cohorts {
        gate.metrics.record_grant(cohort);
    }
    let body = json!({"token": text, "expires": format_time(expires), "cohorts": token.cohorts});
    entry.cohorts = token.cohorts;
    Ok(json_response(StatusCode::OK, &body))
}

async fn verify_evidence(
    gate: &GateContext,
    request: &AuthenticatedRequest,
    form: &GrantRequest,
    nonce: &[u8],
) -> Result<VerifiedEvidence, Refusal> {
    let device = &request.identity.device;
    match &form.evidence {
        Evidence::None {} => Ok(VerifiedEvidence::none()),
        Evidence::Ear { token } => ear::verify(token, &gate.verifiers, &form.nonce, device.as_str(), request.now).await,
        Evidence::Tpm2 { quote, signature, pcrs } => {
            let ak = request.identity.enrolment.as_deref().and_then(|enrolment| enrolment.ak.as_deref());
            let challenge = tpm::Challenge { gate: &request.gate_name()?, nonce, device };
            tpm::verify(tpm::QuoteEvidence { quote, signature, pcrs }, ak, challenge)
        }
    }
}

/// The cohorts whose rules the evidence satisfies, and the shortest of their token lifetimes, in seconds.
fn grant_cohorts(
    gate: &GateContext,
    request: &AuthenticatedRequest,
    requested: Vec<String>,
    evidence: &VerifiedEvidence,
) -> Result<(Vec<String>, u64), Refusal> {
    let mut granted: Vec<String> = Vec::new();
    let mut first_refusal = None;
    let mut lifetime = u64::MAX;
    for name in requested {
        match policy::check(&gate.config, &name, evidence, request.identity.enrolment.as_deref()) {
            Ok(()) if granted.contains(&name) => {}
            Ok(()) => {
                lifetime = lifetime.min(gate.config.cohorts.get(&name).map_or(0, |cohort| cohort.token.seconds()));
                granted.push(name);
            }
            Err(refusal) => {
                tracing::debug!(cohort = ?name, rule = refusal.rule, reason = refusal.reason, "cohort not granted");
                first_refusal = first_refusal.or(Some(refusal));
            }
        }
    }
    match first_refusal {
        Some(refusal) if granted.is_empty() => Err(refusal),
        _ => Ok((granted, lifetime)),
    }
}

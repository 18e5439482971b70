//! `GET` and `HEAD /v1/repo/PATH`: delivers an object for a token.

use axum::body::Body;
use axum::http::{HeaderMap, Method, Response};
use subtle::ConstantTimeEq as _;
use tidegate_model::layout::DelegatedRole;

use super::AuthenticatedRequest;
use crate::audit::AuditEntry;
use crate::config::DeliveryMode;
use crate::context::GateContext;
use crate::refusal::Refusal;
use crate::repo::path::{Access, RequestedObject};
use crate::repo::{delivery, path};
use crate::token::AccessToken;

/// The prefix of repository paths.
pub(super) const PREFIX: &str = "/v1/repo/";

pub(super) async fn respond(
    gate: &GateContext,
    request: &AuthenticatedRequest,
    method: &Method,
    headers: &HeaderMap,
    entry: &mut AuditEntry,
) -> Result<Response<Body>, Refusal> {
    let object = path::parse(request.path.strip_prefix(PREFIX).unwrap_or_default())?;
    entry.object = Some(object.name.clone());
    let token = request.token.as_deref().ok_or_else(|| {
        Refusal::unauthenticated("G-TOK-03", "a token is required; request a challenge, then a grant")
    })?;
    let token = AccessToken::open(token, &gate.secret(), request.now)?;
    if !bool::from(token.binding.ct_eq(&request.identity.binding)) {
        return Err(Refusal::unauthenticated(
            "G-TOK-04",
            "the token is bound to another device or another key; request a new grant",
        ));
    }
    tracing::debug!(cohorts = ?token.cohorts, "token verified");
    let cohort = cohort_with_access(gate, &token, &object).await?;
    let cohort = cohort
        .ok_or_else(|| Refusal::forbidden("G-TOK-05", "the token's cohorts do not give access to this object"))?;
    entry.cohorts = vec![cohort];
    if gate.config.deliver == DeliveryMode::Redirect
        && let Some(redirect) =
            delivery::redirect(&gate.private, &object.name, method, gate.config.url_life.into()).await?
    {
        return Ok(redirect);
    }
    delivery::stream(&gate.private, &object.name, method, headers).await
}

/// The first cohort of the token that gives access to the object.
async fn cohort_with_access(
    gate: &GateContext,
    token: &AccessToken,
    object: &RequestedObject,
) -> Result<Option<String>, Refusal> {
    // A cohort that was removed from the settings gives no access, even if a token still names it.
    let cohorts = token.cohorts.iter().filter(|cohort| gate.config.cohorts.contains_key(*cohort));
    for cohort in cohorts {
        let has_access = match &object.access {
            Access::Cohort(role) => role == cohort,
            Access::Channel(required) => match DelegatedRole::parse(cohort) {
                Some(DelegatedRole::Cohort { channel, .. }) if channel == *required => {
                    gate.listings.contains(cohort, &object.name).await?
                }
                _ => false,
            },
        };
        if has_access {
            return Ok(Some(cohort.clone()));
        }
    }
    Ok(None)
}

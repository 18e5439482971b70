//! `GET` and `HEAD /v1/repo/PATH`: an object, for a token.

use axum::body::Body;
use axum::http::{HeaderMap, Method, Response};
use subtle::ConstantTimeEq as _;
use tidegate_model::layout::DelegatedRole;

use super::Asked;
use crate::audit::Line;
use crate::config::Deliver;
use crate::context::Gate;
use crate::refusal::Refusal;
use crate::repo::path::{Owner, Wanted};
use crate::repo::{delivery, path};
use crate::token::Token;

/// What is before a path of the repository.
pub(super) const PREFIX: &str = "/v1/repo/";

pub(super) async fn answer(
    gate: &Gate,
    asked: &Asked,
    method: &Method,
    headers: &HeaderMap,
    line: &mut Line,
) -> Result<Response<Body>, Refusal> {
    let wanted = path::parse(asked.path.strip_prefix(PREFIX).unwrap_or_default())?;
    line.object = Some(wanted.key.clone());
    let token = asked
        .token
        .as_deref()
        .ok_or_else(|| Refusal::unknown("G-TOK-03", "a token is needed: ask for a challenge, then for a grant"))?;
    let token = Token::open(token, &gate.secret(), asked.now)?;
    if !bool::from(token.binding.ct_eq(&asked.identity.binding)) {
        return Err(Refusal::unknown(
            "G-TOK-04",
            "the token is bound to another device or another key: get a grant of your own",
        ));
    }
    let cohort = opened_by(gate, &token, &wanted).await?;
    let cohort = cohort.ok_or_else(|| Refusal::forbidden("G-TOK-05", "the token's cohorts do not open this object"))?;
    line.cohorts = vec![cohort];
    if gate.config.deliver == Deliver::Redirect
        && let Some(redirect) =
            delivery::redirect(&gate.private, &wanted.key, method, gate.config.url_life.into()).await?
    {
        return Ok(redirect);
    }
    delivery::stream(&gate.private, &wanted.key, method, headers).await
}

/// The cohort of the token that opens the object, if one does.
async fn opened_by(gate: &Gate, token: &Token, wanted: &Wanted) -> Result<Option<String>, Refusal> {
    // What the settings do not name any more is closed at once, whatever a token says.
    let cohorts = token.cohorts.iter().filter(|cohort| gate.config.cohorts.contains_key(*cohort));
    for cohort in cohorts {
        let opens = match &wanted.owner {
            Owner::Role(role) => role == cohort,
            Owner::Channel(wanted_channel) => match DelegatedRole::parse(cohort) {
                Some(DelegatedRole::Cohort { channel, .. }) if channel == *wanted_channel => {
                    gate.listings.names(cohort, &wanted.key).await?
                }
                _ => false,
            },
        };
        if opens {
            return Ok(Some(cohort.clone()));
        }
    }
    Ok(None)
}

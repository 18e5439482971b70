//! `POST /v1/grant`: evidence for a token.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::{Asked, parse};
use crate::audit::Line;
use crate::context::Gate;
use crate::encoding::from_base64;
use crate::evidence::{Evidence, Finding, ear, tpm};
use crate::refusal::{Refusal, json_response};
use crate::token::Token;
use crate::{nonce, policy};

/// How many cohorts one request may name.
const COHORTS: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    device: String,
    nonce: String,
    cohorts: Vec<String>,
    evidence: Evidence,
}

pub(super) async fn answer(gate: &Gate, asked: &Asked, line: &mut Line) -> Result<Response<Body>, Refusal> {
    let form: Form = parse(&asked.body)?;
    asked.is_of(&form.device)?;
    if form.cohorts.is_empty() || form.cohorts.len() > COHORTS {
        return Err(Refusal::malformed("G-REQ-05", format!("name 1 to {COHORTS} cohorts")));
    }
    let device = asked.identity.device.as_str();
    let nonce = from_base64(&form.nonce).unwrap_or_default();
    let expires = nonce::check(&gate.secret(), &nonce, device, asked.now)?;
    // Spent before anything is verified: a nonce is good for one try, whatever comes of it.
    nonce::spend(&gate.state, &nonce, expires).await?;

    let enrolment = asked.identity.enrolment.as_deref();
    let finding = match &form.evidence {
        Evidence::None {} => {
            line.evidence = Some("none");
            Finding::nothing()
        }
        Evidence::Ear { token } => {
            line.evidence = Some("ear");
            ear::verify(token, &gate.verifiers, &form.nonce, device, asked.now).await?
        }
        Evidence::Tpm2 { quote, signature, pcrs } => {
            line.evidence = Some("tpm2");
            let ak = enrolment.and_then(|enrolment| enrolment.ak.as_deref());
            tpm::verify(tpm::Sent { quote, signature, pcrs }, ak, &nonce, &asked.identity.device)?
        }
    };

    let mut granted: Vec<String> = Vec::new();
    let mut refusal = None;
    let mut seconds = u64::MAX;
    for name in form.cohorts {
        match policy::decide(&gate.config, &name, &finding, enrolment) {
            Ok(()) if granted.contains(&name) => {}
            Ok(()) => {
                seconds = seconds.min(gate.config.cohorts.get(&name).map_or(0, |cohort| cohort.token.as_secs()));
                granted.push(name);
            }
            Err(refused) => refusal = refusal.or(Some(refused)),
        }
    }
    if let (true, Some(refusal)) = (granted.is_empty(), refusal) {
        return Err(refusal);
    }
    let expires = asked.now.saturating_add(seconds);
    let token = Token { expires, binding: asked.identity.binding, cohorts: granted };
    let text = token.seal(&gate.secret())?;
    for cohort in &token.cohorts {
        gate.metrics.granted(cohort);
    }
    let body = json!({"token": text, "expires": super::instant(expires), "cohorts": token.cohorts});
    line.cohorts = token.cohorts;
    Ok(json_response(StatusCode::OK, &body))
}

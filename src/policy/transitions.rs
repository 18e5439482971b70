//! The life of a release, as a pure function.
//!
//! [`next`] takes a state, an event, the facts it depends on, the policy and the time, and gives the next state or a [`Refusal`] that
//! names the rule and what would satisfy it. It looks at nothing else and changes nothing.

use chrono::{DateTime, Utc};
use tidegate_model::manifest::Urgency;

use super::facts::{Facts, Refusal};
use super::file::Policy;
use super::rules::{
    ANOTHER, approved, follows, list, newest, offered, over, refuse, retracted_is_withdrawn, running, step_allowed,
    thawed, validated,
};
use super::state::{ReleaseEvent, ReleaseState, Status};
use crate::error::Rule;

/// The state after `event`, or why it cannot be.
#[allow(clippy::match_same_arms, clippy::too_many_lines, reason = "it is a table, read event by event")]
pub fn next(
    status: Status,
    event: ReleaseEvent,
    facts: &Facts,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Result<Status, Refusal> {
    use ReleaseEvent as E;
    use ReleaseState as S;
    let stay = Ok(status);
    let to = |state| Ok(Status { state, paused: false });
    match (event, status.state) {
        // A signature stays valid wherever a copy of it is, so what was signed once is given up, not changed.
        (E::Edit | E::Drop | E::Unfreeze, S::Draft | S::Signed)
            if facts.signatures > 0 || status.state == S::Signed =>
        {
            Err(refuse(
                Rule::ReleaseFrozen,
                "somebody has signed its manifest, and what is signed must not change",
                "give it up, and release another version: tidegate rollout withdraw RELEASE",
            ))
        }
        (E::Edit, S::Draft) if facts.frozen => Err(refuse(
            Rule::ReleaseFrozen,
            "the manifest is frozen",
            "nobody has signed it yet, so it can be a draft again: tidegate release unfreeze RELEASE",
        )),
        (E::Edit | E::Drop, S::Draft) => stay,
        (E::Unfreeze, S::Draft) if !facts.frozen => {
            Err(refuse(Rule::ReleaseFrozen, "no manifest is frozen: it is a draft already", "nothing needs to be done"))
        }
        (E::Unfreeze, S::Draft) => stay,

        (E::Freeze, S::Draft | S::Signed) if facts.artifacts == 0 => Err(refuse(
            Rule::ReleaseArtifacts,
            "the release has no artifact",
            "add one: tidegate release add RELEASE FILE --hardware ID",
        )),
        // Signatures on the old proposal are over other bytes.
        (E::Freeze, S::Draft | S::Signed) => to(S::Draft),

        (E::Sign, S::Draft) if !facts.frozen => {
            Err(refuse(Rule::ReleaseFrozen, "there is nothing to sign yet", onward(status, facts)))
        }
        (E::Sign, S::Draft | S::Signed) => {
            follows(facts)?;
            to(if facts.signatures >= facts.threshold { S::Signed } else { S::Draft })
        }

        (E::Register, S::Draft) => Err(refuse(
            Rule::ReleaseThreshold,
            &format!("it has {} of {} required signatures", facts.signatures, facts.threshold),
            onward(status, facts),
        )),
        (E::Register, S::Signed) => {
            follows(facts)?;
            validated(facts, policy, now)?;
            approved(event, facts, policy, now)?;
            to(S::Registered)
        }

        (E::Validate, S::Draft) if !facts.frozen => {
            Err(refuse(Rule::ReleaseFrozen, "there is no manifest to validate yet", onward(status, facts)))
        }
        (E::Validate, S::Registered) if validated(facts, policy, now).is_ok() => to(S::Validation),
        (E::Validate, S::Withdrawn | S::Retired) => Err(over(status)),
        (E::Validate, _) => stay,

        (E::Expose, S::Validation) => {
            running(status)?;
            validated(facts, policy, now)?;
            newest(facts)?;
            retracted_is_withdrawn(facts)?;
            thawed(facts, policy, now)?;
            approved(event, facts, policy, now)?;
            stay
        }

        (E::Start, S::Registered | S::Validation) => {
            running(status)?;
            validated(facts, policy, now)?;
            newest(facts)?;
            retracted_is_withdrawn(facts)?;
            step_allowed(event, facts, policy, now)?;
            thawed(facts, policy, now)?;
            approved(event, facts, policy, now)?;
            to(if facts.urgency == Some(Urgency::Security) && !facts.staged { S::Security } else { S::Limited })
        }

        (E::Advance, S::Limited) => {
            running(status)?;
            validated(facts, policy, now)?;
            newest(facts)?;
            if facts.step.is_none() {
                return Err(refuse(Rule::ReleaseCohorts, "there is no further cohort", finish(facts)));
            }
            step_allowed(event, facts, policy, now)?;
            thawed(facts, policy, now)?;
            approved(event, facts, policy, now)?;
            stay
        }
        (E::Advance, S::Security) => {
            Err(refuse(Rule::ReleaseCohorts, "a security release goes to all cohorts at its start", finish(facts)))
        }

        (E::Pause, S::Validation | S::Limited | S::Stable | S::Security) => {
            if status.paused {
                return Err(refuse(
                    Rule::ReleasePaused,
                    "it is paused already",
                    "continue with: tidegate rollout resume RELEASE",
                ));
            }
            offered(facts)?;
            Ok(Status { paused: true, ..status })
        }
        (E::Resume, S::Validation | S::Limited | S::Stable | S::Security) => {
            if !status.paused {
                return Err(refuse(Rule::ReleasePaused, "it is not paused", "nothing needs to be done"));
            }
            validated(facts, policy, now)?;
            thawed(facts, policy, now)?;
            approved(event, facts, policy, now)?;
            Ok(Status { paused: false, ..status })
        }
        (E::Renew, S::Limited) => {
            running(status)?;
            // To keep an exposure as it is exposes nobody new; to take one up again does.
            if facts.stopped {
                validated(facts, policy, now)?;
                thawed(facts, policy, now)?;
            }
            stay
        }

        (E::Complete, S::Limited | S::Security) => {
            running(status)?;
            if facts.not_reached.is_empty() {
                validated(facts, policy, now)?;
                approved(event, facts, policy, now)?;
                return to(S::Stable);
            }
            Err(refuse(
                Rule::ReleaseCohorts,
                &format!("some devices of these cohorts are not offered it yet: {}", list(&facts.not_reached)),
                "advance the rollout, and wait until its ramps have ended: tidegate rollout status RELEASE",
            ))
        }

        (E::Withdraw, S::Withdrawn | S::Retired) => Err(over(status)),
        (E::Withdraw, _) => to(S::Withdrawn),

        (E::Retire, S::Registered | S::Validation | S::Stable | S::Withdrawn) => {
            if facts.assigned.is_empty() {
                if facts.bridge_of.is_empty() {
                    return to(S::Retired);
                }
                return Err(refuse(
                    Rule::ReleaseBridge,
                    &format!("offered releases need it as a bridge: {}", facts.bridge_of.join(", ")),
                    "keep it until no release that is offered needs it: one that upgrades from every version needs none",
                ));
            }
            Err(refuse(
                Rule::ReleaseAssigned,
                &format!("these cohorts are still offered it: {}", list(&facts.assigned)),
                "roll out another release to them, or withdraw this one: tidegate rollout withdraw RELEASE",
            ))
        }

        (E::Approve, S::Signed | S::Registered | S::Validation | S::Limited | S::Security) => stay,
        (E::Approve, S::Stable) => stay_if_paused(status),

        // A release that is withdrawn is the usual one to take back.
        (E::Retract, S::Validation | S::Limited | S::Stable | S::Security | S::Withdrawn | S::Retired) => stay,
        (E::Retract, S::Draft | S::Signed | S::Registered) => Err(refuse(
            Rule::ReleaseOrder,
            "it was offered to nobody, so no device runs it",
            "withdraw it: tidegate rollout withdraw RELEASE",
        )),
        (E::Retire, S::Draft | S::Signed) => Err(refuse(
            Rule::ReleaseOrder,
            &format!("it is {status}: its channel does not list it"),
            "withdraw it: tidegate rollout withdraw RELEASE",
        )),
        (E::Pause | E::Resume | E::Renew, S::Draft | S::Signed) => {
            Err(refuse(Rule::ReleaseOrder, &format!("it is {status}: nobody is offered it"), onward(status, facts)))
        }

        (_, S::Withdrawn | S::Retired) => Err(over(status)),
        (_, S::Draft | S::Signed) => Err(refuse(
            Rule::ReleaseOrder,
            &format!("it is {status}; register it before starting a rollout"),
            onward(status, facts),
        )),
        (E::Expose | E::Advance | E::Pause | E::Resume | E::Renew | E::Complete, S::Registered | S::Validation) => {
            Err(refuse(
                Rule::ReleaseOrder,
                &format!("it is {status}: the rollout has not started"),
                if event != E::Expose && validated(facts, policy, now).is_ok() {
                    "start it: tidegate rollout start RELEASE"
                } else {
                    "validate it before it is offered: tidegate release validate RELEASE"
                },
            ))
        }
        (E::Edit | E::Drop | E::Unfreeze | E::Freeze | E::Sign | E::Register, _) => Err(refuse(
            Rule::ReleaseOrder,
            &format!("it is {status}: what is registered is signed and does not change"),
            ANOTHER,
        )),
        (E::Expose | E::Start, _) => Err(refuse(
            Rule::ReleaseOrder,
            &format!("it is {status}: the rollout has started already"),
            "see its state: tidegate rollout status RELEASE",
        )),
        (E::Advance | E::Renew | E::Complete, _) => Err(refuse(
            Rule::ReleaseOrder,
            &format!("it is {status}: nothing is left to do"),
            "see its state: tidegate rollout status RELEASE",
        )),
        (E::Retire, _) => Err(refuse(
            Rule::ReleaseOrder,
            &format!("it is {status}: its rollout is in progress"),
            "once it is completed or withdrawn it can be retired; see its state: tidegate rollout status RELEASE",
        )),
    }
}

/// What brings a release that is not registered nearer to it.
fn onward(status: Status, facts: &Facts) -> &'static str {
    match status.state {
        ReleaseState::Signed => "register it: tidegate release register RELEASE",
        _ if facts.artifacts == 0 => "add an artifact first: tidegate release add RELEASE FILE --hardware ID",
        _ if !facts.frozen => "freeze the manifest first: tidegate release manifest RELEASE",
        _ => "have release keys sign it: tidegate release sign RELEASE",
    }
}

/// What comes after the last cohort.
fn finish(facts: &Facts) -> &'static str {
    if facts.not_reached.is_empty() {
        "finish it: tidegate rollout complete RELEASE"
    } else {
        "wait until its ramps have ended: tidegate rollout status RELEASE"
    }
}

/// A stable release waits for nothing, unless it is paused and is to be resumed.
fn stay_if_paused(status: Status) -> Result<Status, Refusal> {
    if status.paused {
        return Ok(status);
    }
    Err(refuse(Rule::ReleaseOrder, "it is stable: there is no step left to approve", "nothing needs to be done"))
}

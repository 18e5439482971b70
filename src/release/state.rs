//! The life of a release, as a pure function.
//!
//! [`next`] takes a state, an event, the facts it depends on, the policy and the time, and gives the next state or a [`Refusal`] that
//! names the rule and what would satisfy it. It looks at nothing else and changes nothing.

use std::collections::BTreeSet;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tidegate_client::model::manifest::Urgency;
use tidegate_client::model::name::Name;
use tidegate_client::tuf::time;

use crate::config::{Policy, Skippable, Span, write_share};
use crate::validate::CheckKind;

/// Where a release is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Artifacts are being added; or the manifest is frozen and waits for signatures.
    Draft,
    /// A threshold of release keys has signed it. Nothing is exposed.
    Signed,
    /// The channel's role lists it. It is assigned to nobody.
    Registered,
    /// It has been validated, and may be exposed to the validation cohort.
    Validation,
    /// It goes out, cohort by cohort.
    Limited,
    /// Every cohort has it.
    Stable,
    /// A security release: it goes out to all cohorts at once.
    Security,
    /// It is offered to nobody any more.
    Withdrawn,
    /// The channel's role lists it no longer.
    Retired,
}

impl State {
    /// All states, in the order of a release's life.
    pub const ALL: [Self; 9] = [
        Self::Draft,
        Self::Signed,
        Self::Registered,
        Self::Validation,
        Self::Limited,
        Self::Stable,
        Self::Security,
        Self::Withdrawn,
        Self::Retired,
    ];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Draft => "draft",
            Self::Signed => "signed",
            Self::Registered => "registered",
            Self::Validation => "validation",
            Self::Limited => "limited",
            Self::Stable => "stable",
            Self::Security => "security",
            Self::Withdrawn => "withdrawn",
            Self::Retired => "retired",
        })
    }
}

/// A state and whether the rollout is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The state.
    pub state: State,
    /// Nobody new is exposed while this is set.
    pub paused: bool,
}

impl Status {
    /// A state that is not paused.
    pub const fn of(state: State) -> Self {
        Self { state, paused: false }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.paused { write!(f, "{} (paused)", self.state) } else { self.state.fmt(f) }
    }
}

/// What somebody wants to do with a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// Change the draft: add or remove artifacts.
    Edit,
    /// Freeze the manifest and propose it for signing; again, if the proposal no longer follows from the live channel.
    Freeze,
    /// Add one signature.
    Sign,
    /// Have the channel's role list it.
    Register,
    /// Record a validation report.
    Validate,
    /// Offer it to the validation cohort.
    Expose,
    /// Start the rollout.
    Start,
    /// Go on to the next cohort, or further within one.
    Advance,
    /// Expose nobody new.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Keep a limited rollout from ending by itself.
    Renew,
    /// Say that every cohort has it.
    Complete,
    /// Offer it to nobody any more.
    Withdraw,
    /// Take it out of the channel's role.
    Retire,
}

impl Event {
    /// All events.
    pub const ALL: [Self; 14] = [
        Self::Edit,
        Self::Freeze,
        Self::Sign,
        Self::Register,
        Self::Validate,
        Self::Expose,
        Self::Start,
        Self::Advance,
        Self::Pause,
        Self::Resume,
        Self::Renew,
        Self::Complete,
        Self::Withdraw,
        Self::Retire,
    ];

    /// What it is called in the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Self::Edit => "edit",
            Self::Freeze => "freeze",
            Self::Sign => "sign",
            Self::Register => "register",
            Self::Validate => "validate",
            Self::Expose => "expose",
            Self::Start => "start",
            Self::Advance => "advance",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Renew => "renew",
            Self::Complete => "complete",
            Self::Withdraw => "withdraw",
            Self::Retire => "retire",
        }
    }
}

/// What the next state depends on besides the state itself. Gathered by whoever asks.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Whether the manifest is frozen.
    pub frozen: bool,
    /// How many artifacts there are.
    pub artifacts: usize,
    /// How pressing the release is.
    pub urgency: Option<Urgency>,
    /// Valid signatures on the proposal, the new one included.
    pub signatures: u64,
    /// Signatures that the channel's role takes.
    pub threshold: u64,
    /// Whether the proposal follows from the channel's role as it is now.
    pub follows: bool,
    /// The newest report on exactly this manifest.
    pub report: Option<ReportFacts>,
    /// The step that is asked for.
    pub step: Option<Step>,
    /// Cohorts, in order, that are not wholly offered the release yet.
    pub not_reached: Vec<Name>,
    /// Cohorts that are offered it.
    pub assigned: Vec<Name>,
    /// A release with a higher sequence that a cohort of this step is already offered.
    pub newer: Option<String>,
}

/// A validation report in short.
#[derive(Debug, Clone)]
pub struct ReportFacts {
    /// When the checks ran.
    pub at: DateTime<Utc>,
    /// The kinds of checks of which all passed.
    pub passed: BTreeSet<CheckKind>,
    /// The rules that failed.
    pub failed: Vec<String>,
}

/// A step of a rollout: what it newly exposes.
#[derive(Debug, Clone)]
pub struct Step {
    /// The cohort.
    pub cohort: Name,
    /// Its share of the fleet in parts per million; `None` for a cohort that names its devices.
    pub share: Option<u32>,
    /// The part of the cohort, in parts per million, that is exposed at once.
    pub at_once: u32,
    /// From nobody to everybody, how long the ramp would take; `None` without a ramp.
    pub ramp: Option<Span>,
    /// The cohort before it, and since when all of it is offered the release: `None` if it is not yet.
    pub previous: Option<(Name, Option<DateTime<Utc>>)>,
}

/// Why an event cannot be: the rule and what would satisfy it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The rule's stable id.
    pub rule: &'static str,
    /// What is in the way.
    pub why: String,
    /// What would satisfy the rule; `RELEASE` stands for the release.
    pub remedy: String,
}

/// The state after `event`, or why it cannot be.
#[allow(clippy::match_same_arms, reason = "the table is read event by event")]
pub fn next(
    status: Status,
    event: Event,
    facts: &Facts,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Result<Status, Refusal> {
    use Event as E;
    use State as S;
    let stay = Ok(status);
    let to = |state| Ok(Status { state, paused: false });
    match (event, status.state) {
        (E::Edit, S::Draft) if facts.frozen => Err(refuse(
            "R-FROZEN",
            "the manifest is frozen, and what is signed must not change",
            "start another version: tidegate release new",
        )),
        (E::Edit, S::Draft) => stay,

        (E::Freeze, S::Draft | S::Signed) if facts.artifacts == 0 => Err(refuse(
            "R-ARTIFACTS",
            "the release has no artifact",
            "add one: tidegate release add RELEASE FILE --hardware ID",
        )),
        // Signatures on the old proposal are over other bytes.
        (E::Freeze, S::Draft | S::Signed) => to(S::Draft),

        (E::Sign, S::Draft) if !facts.frozen => Err(refuse(
            "R-FROZEN",
            "there is nothing to sign yet",
            "freeze the manifest first: tidegate release manifest RELEASE",
        )),
        (E::Sign, S::Draft | S::Signed) => {
            follows(facts)?;
            to(if facts.signatures >= facts.threshold { S::Signed } else { S::Draft })
        }

        (E::Register, S::Draft) => Err(refuse(
            "R-THRESHOLD",
            &format!("it has {} of the {} signatures it takes", facts.signatures, facts.threshold),
            "have release keys sign it: tidegate release sign RELEASE --key NAME",
        )),
        (E::Register, S::Signed) => {
            follows(facts)?;
            to(S::Registered)
        }

        (E::Validate, S::Draft) if !facts.frozen => Err(refuse(
            "R-FROZEN",
            "there is no manifest to validate yet",
            "freeze it first: tidegate release manifest RELEASE",
        )),
        (E::Validate, S::Registered) if validated(facts, policy, now).is_ok() => to(S::Validation),
        (E::Validate, S::Withdrawn | S::Retired) => Err(over(status)),
        (E::Validate, _) => stay,

        (E::Expose, S::Validation) => {
            validated(facts, policy, now)?;
            newest(facts)?;
            stay
        }

        (E::Start, S::Registered | S::Validation) => {
            validated(facts, policy, now)?;
            newest(facts)?;
            step_allowed(facts, policy, now)?;
            to(if facts.urgency == Some(Urgency::Security) { S::Security } else { S::Limited })
        }

        (E::Advance, S::Limited) => {
            running(status)?;
            validated(facts, policy, now)?;
            newest(facts)?;
            if facts.step.is_none() {
                return Err(refuse(
                    "R-COHORTS",
                    "there is no further cohort",
                    "finish it: tidegate rollout complete RELEASE",
                ));
            }
            step_allowed(facts, policy, now)?;
            stay
        }
        (E::Advance, S::Security) => Err(refuse(
            "R-COHORTS",
            "a security release goes to all cohorts at its start",
            "finish it: tidegate rollout complete RELEASE",
        )),

        (E::Pause, S::Validation | S::Limited | S::Stable | S::Security) => {
            if status.paused {
                return Err(refuse("R-PAUSED", "it is paused already", "go on with: tidegate rollout resume RELEASE"));
            }
            offered(facts)?;
            Ok(Status { paused: true, ..status })
        }
        (E::Resume, S::Validation | S::Limited | S::Stable | S::Security) => {
            if status.paused {
                return Ok(Status { paused: false, ..status });
            }
            Err(refuse("R-PAUSED", "it is not paused", "nothing needs to be done"))
        }
        (E::Renew, S::Limited) => {
            running(status)?;
            stay
        }

        (E::Complete, S::Limited | S::Security) => {
            running(status)?;
            if facts.not_reached.is_empty() {
                return to(S::Stable);
            }
            Err(refuse(
                "R-COHORTS",
                &format!("not every device of these cohorts is offered it yet: {}", list(&facts.not_reached)),
                "advance the rollout, and wait until its ramps have ended: tidegate rollout status RELEASE",
            ))
        }

        (E::Withdraw, S::Withdrawn | S::Retired) => Err(over(status)),
        (E::Withdraw, _) => to(S::Withdrawn),

        (E::Retire, S::Registered | S::Validation | S::Stable | S::Withdrawn) => {
            if facts.assigned.is_empty() {
                return to(S::Retired);
            }
            Err(refuse(
                "R-ASSIGNED",
                &format!("these cohorts are still offered it: {}", list(&facts.assigned)),
                "roll out another release to them, or withdraw this one: tidegate rollout withdraw RELEASE",
            ))
        }

        (_, S::Withdrawn | S::Retired) => Err(over(status)),
        (_, S::Draft | S::Signed) => Err(refuse(
            "R-ORDER",
            &format!("it is {status}, and nobody can be offered it before it is registered"),
            "sign and register it: tidegate release sign RELEASE --key NAME, then tidegate release register RELEASE",
        )),
        (E::Expose | E::Advance | E::Pause | E::Resume | E::Renew | E::Complete, S::Registered | S::Validation) => {
            Err(refuse(
                "R-ORDER",
                &format!("it is {status}: the rollout has not started"),
                "validate it, then start: tidegate release validate RELEASE, then tidegate rollout start RELEASE",
            ))
        }
        (E::Edit | E::Freeze | E::Sign | E::Register, _) => Err(refuse(
            "R-ORDER",
            &format!("it is {status}: what is registered is signed and does not change"),
            "start another version: tidegate release new",
        )),
        (E::Expose | E::Start, _) => Err(refuse(
            "R-ORDER",
            &format!("it is {status}: the rollout has started already"),
            "see where it stands: tidegate rollout status RELEASE",
        )),
        (E::Advance | E::Renew | E::Complete, _) => Err(refuse(
            "R-ORDER",
            &format!("it is {status}: there is nothing left to do"),
            "see where it stands: tidegate rollout status RELEASE",
        )),
        (E::Retire, _) => Err(refuse(
            "R-ORDER",
            &format!("it is {status}: its rollout is under way"),
            "complete or withdraw it first: tidegate rollout complete RELEASE",
        )),
    }
}

fn follows(facts: &Facts) -> Result<(), Refusal> {
    if facts.follows {
        return Ok(());
    }
    Err(refuse(
        "R-BASE",
        "the channel's role has moved on since this was proposed, so the proposal no longer follows from it",
        "propose it anew and have it signed again: tidegate release manifest RELEASE",
    ))
}

fn validated(facts: &Facts, policy: &Policy, now: DateTime<Utc>) -> Result<(), Refusal> {
    let remedy = "validate it: tidegate release validate RELEASE";
    let Some(report) = &facts.report else {
        return Err(refuse("R-VALIDATED", "there is no validation report on this manifest", remedy));
    };
    let age = Span::from_delta(now - report.at);
    if age > policy.validation.max_age {
        return Err(refuse(
            "R-VALIDATED",
            &format!("the validation report is {age} old, and policy.toml allows {}", policy.validation.max_age),
            remedy,
        ));
    }
    let lacking: Vec<_> =
        policy.validation.required.difference(&report.passed).map(|kind| kind.name().to_owned()).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let failed = if report.failed.is_empty() { String::new() } else { format!(" ({})", report.failed.join(", ")) };
    Err(refuse(
        "R-VALIDATED",
        &format!("required checks did not pass: {}{failed}", lacking.join(", ")),
        "mend what the report names, then validate again: tidegate release validate RELEASE",
    ))
}

fn newest(facts: &Facts) -> Result<(), Refusal> {
    match &facts.newer {
        None => Ok(()),
        Some(newer) => Err(refuse(
            "R-SEQUENCE",
            &format!("a cohort is offered {newer} already, which has a higher sequence; devices never go back"),
            "make a release with a higher sequence that carries what you want: tidegate release new",
        )),
    }
}

fn running(status: Status) -> Result<(), Refusal> {
    if status.paused {
        return Err(refuse("R-PAUSED", "the rollout is paused", "go on with: tidegate rollout resume RELEASE"));
    }
    Ok(())
}

fn offered(facts: &Facts) -> Result<(), Refusal> {
    if facts.assigned.is_empty() {
        return Err(refuse("R-ASSIGNED", "no cohort is offered it", "nothing needs to be done"));
    }
    Ok(())
}

fn step_allowed(facts: &Facts, policy: &Policy, now: DateTime<Utc>) -> Result<(), Refusal> {
    let Some(step) = &facts.step else { return Ok(()) };
    let skips = |what| facts.urgency == Some(Urgency::Security) && policy.security.skip.contains(&what);
    if let (Some((previous, since)), false) = (&step.previous, skips(Skippable::Soak)) {
        let soak = policy.soak(previous);
        let Some(since) = since else {
            return Err(refuse(
                "R-SOAK",
                &format!("the cohort {previous} is not wholly offered it yet"),
                "wait until its ramp has ended: tidegate rollout status RELEASE",
            ));
        };
        let until = *since + soak.delta();
        if now < until {
            return Err(refuse(
                "R-SOAK",
                &format!(
                    "the cohort {previous} has had it for {}, and policy.toml asks for {soak}",
                    Span::from_delta(now - *since)
                ),
                &format!("wait until {}", time::format(until)),
            ));
        }
    }
    if skips(Skippable::Ramp) {
        return Ok(());
    }
    // A cohort that names its devices is as large as whoever named them made it.
    let Some(share) = step.share else { return Ok(()) };
    let at_once = u64::from(share) * u64::from(step.at_once) / 1_000_000;
    if at_once > u64::from(policy.rollout.largest_step) {
        let shown = write_share(u32::try_from(at_once).unwrap_or(u32::MAX));
        return Err(refuse(
            "R-STEP",
            &format!(
                "{shown} of the fleet would be exposed at one instant, and policy.toml allows {}",
                write_share(policy.rollout.largest_step)
            ),
            &format!("expose the cohort little by little: --ramp {}", policy.rollout.shortest_ramp),
        ));
    }
    if let Some(ramp) = step.ramp
        && ramp < policy.rollout.shortest_ramp
        && u64::from(share) > u64::from(policy.rollout.largest_step)
    {
        return Err(refuse(
            "R-RAMP",
            &format!(
                "the ramp would go from nobody to everybody in {ramp}, and policy.toml asks for {}",
                policy.rollout.shortest_ramp
            ),
            &format!("take more time: --ramp {}", policy.rollout.shortest_ramp),
        ));
    }
    Ok(())
}

fn over(status: Status) -> Refusal {
    refuse("R-OVER", &format!("it is {status}, and its life is over"), "start another version: tidegate release new")
}

fn refuse(rule: &'static str, why: &str, remedy: &str) -> Refusal {
    Refusal { rule, why: why.to_owned(), remedy: remedy.to_owned() }
}

fn list(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}

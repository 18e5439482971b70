//! Predicts a rollout: every step at the first instant at which policy allows it.
//!
//! This module contains no rules: it submits each step to the state machine, as `rollout start` and `rollout advance` do.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use tidegate_model::manifest::Urgency;
use tidegate_model::name::Name;
use tidegate_model::position::PPM;
use tidegate_model::rollout::{Assignment, Bridge, Ramp, Stage};
use tidegate_model::time;
use tidegate_model::version::Version;

use crate::config::write_share;
use crate::error::{Error, Result, Rule};
use crate::policy::{Approved, Facts, Policy, Refusal, ReleaseEvent, ReleaseState, ReportFacts, Status, Step, next};
use crate::rollout::{RampRequest, dead_mans_switch, plan, step};
use crate::workspace::CohortInForce;
use tidegate_model::span::Span;

/// How far ahead to search for a step, in hours.
const HORIZON: i64 = 24 * 366;

/// The input of a prediction.
#[derive(Debug)]
pub(super) struct StepInputs<'a> {
    /// The release.
    pub(super) release: &'a Version,
    /// Its sequence.
    pub(super) sequence: u64,
    /// Its urgency.
    pub(super) urgency: Urgency,
    /// The content of its assignments.
    pub(super) bridges: Vec<Bridge>,
    /// Whether its rollout is paused.
    pub(super) paused: bool,
    /// The rules.
    pub(super) policy: &'a Policy,
    /// What the cohorts are currently offered.
    pub(super) standings: &'a [CohortInForce],
    /// When the first step may be taken.
    pub(super) from: DateTime<Utc>,
    /// How long to take for each cohort, instead of the minimum of the policy.
    pub(super) ramp: Option<Span>,
}

/// A step: what a cohort is assigned, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExpectedStep {
    /// The action, or that it is already done.
    pub what: StepKind,
    /// The cohort.
    pub cohort: Name,
    /// When.
    #[serde(with = "time::text")]
    pub at: DateTime<Utc>,
    /// How the cohort is exposed; `None` for everyone at once.
    pub ramp: Option<Ramp>,
    /// When the whole cohort is exposed.
    #[serde(with = "time::text")]
    pub whole: DateTime<Utc>,
    #[serde(skip)]
    pub(super) assignment: Assignment,
}

/// The action of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// It is already signed.
    InForce,
    /// `rollout start`.
    Start,
    /// `rollout advance`.
    Advance,
}

/// The predicted rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExpectedSteps {
    /// The steps, in order of time.
    pub steps: Vec<ExpectedStep>,
    /// Skipped cohorts, and why.
    pub passed_over: Vec<(Name, String)>,
    /// The assumptions.
    pub assumptions: Vec<String>,
}

impl ExpectedSteps {
    /// When every cohort has it.
    pub fn whole(&self) -> Option<DateTime<Utc>> {
        self.steps.iter().map(|step| step.whole).max()
    }
}

/// Predicts a rollout.
pub(super) fn course(terms: &StepInputs<'_>) -> Result<ExpectedSteps> {
    let mut course = ExpectedSteps { steps: Vec::new(), passed_over: Vec::new(), assumptions: assumptions(terms) };
    let mut started = false;
    for standing in terms.standings {
        let Some(own) = standing.assignment.as_ref() else { continue };
        if own.sequence > terms.sequence {
            let why = format!("it is offered {} (sequence {}), which is newer", own.release, own.sequence);
            course.passed_over.push((standing.cohort.clone(), why));
        } else if own.sequence == terms.sequence {
            started |= own.stage != Stage::Validation;
            course.steps.push(in_force(terms, standing, own)?);
        }
    }
    if terms.paused {
        let goes_on = course.steps.iter().map(|step| step.at).max().unwrap_or(terms.from);
        course.assumptions.push(format!("it is paused, and goes on at {}", time::format(goes_on)));
    }
    if terms.urgency == Urgency::Security {
        at_once(terms, &mut course)?;
    } else {
        in_turn(terms, &mut course, started)?;
    }
    course.steps.sort_by_key(|step| step.at);
    Ok(course)
}

/// A security release goes to all cohorts at its start.
fn at_once(terms: &StepInputs<'_>, course: &mut ExpectedSteps) -> Result<()> {
    for standing in terms.standings {
        if !terms.reached(standing) && !course.passes_over(&standing.cohort) {
            course.steps.push(terms.step(standing, StepKind::Start, terms.from, None, Stage::Security)?);
        }
    }
    Ok(())
}

/// An ordinary release goes through the cohorts in order.
fn in_turn(terms: &StepInputs<'_>, course: &mut ExpectedSteps, mut started: bool) -> Result<()> {
    let validation = terms.policy.validation.cohort.as_ref().filter(|_| terms.standings.len() > 1);
    let mut previous: Option<(Name, DateTime<Utc>)> = None;
    let mut now = terms.from;
    for standing in terms.standings.iter().filter(|standing| Some(&standing.cohort) != validation) {
        if course.passes_over(&standing.cohort) {
            continue;
        }
        let standing_step = course.steps.iter().find(|step| step.cohort == standing.cohort).cloned();
        let exposed = match &standing_step {
            None => 0,
            Some(step) => match step.ramp.map(|ramp| ramp.to()) {
                Some(to) if to < PPM => to,
                _ => {
                    previous = Some((standing.cohort.clone(), step.whole));
                    continue;
                }
            },
        };
        // A partially exposed cohort is continued once its ramp has ended.
        now = now.max(standing_step.map_or(now, |step| step.whole));
        let what = if started { StepKind::Advance } else { StepKind::Start };
        let since = previous.clone().filter(|_| exposed == 0);
        let (at, ramp) = terms.earliest(standing, exposed, since.as_ref(), what, now, &mut course.assumptions)?;
        if !started
            && let Some(validation) = terms.standings.iter().find(|s| Some(&s.cohort) == validation)
            && !terms.reached(validation)
            && !course.passes_over(&validation.cohort)
        {
            course.steps.push(terms.step(validation, what, at, None, Stage::Limited)?);
        }
        started = true;
        let step = terms.step(standing, what, at, ramp, Stage::Limited)?;
        previous = Some((standing.cohort.clone(), step.whole));
        now = at;
        course.steps.push(step);
    }
    Ok(())
}

/// The existing assignment of a cohort. A pause ends when the plan begins, or when the freeze that forbids resuming ends.
fn in_force(terms: &StepInputs<'_>, standing: &CohortInForce, own: &Assignment) -> Result<ExpectedStep> {
    let mut assignment = own.clone();
    let mut at = own.assigned;
    if terms.paused || assignment.paused {
        at = terms.resumed(own)?;
        dead_mans_switch::resume(&mut assignment, at)?;
    }
    let whole = assignment.ramp.map_or(at, |ramp| ramp.end());
    Ok(ExpectedStep {
        what: StepKind::InForce,
        cohort: standing.cohort.clone(),
        at,
        ramp: assignment.ramp,
        whole,
        assignment,
    })
}

impl ExpectedSteps {
    fn passes_over(&self, cohort: &Name) -> bool {
        self.passed_over.iter().any(|(passed, _)| passed == cohort)
    }
}

impl StepInputs<'_> {
    /// The first instant at which the state machine allows resuming a paused offer.
    fn resumed(&self, own: &Assignment) -> Result<DateTime<Utc>> {
        let mut at = self.from;
        while at - self.from < TimeDelta::hours(HORIZON) {
            let mut next_one = own.clone();
            dead_mans_switch::resume(&mut next_one, at)?;
            let facts = Facts {
                urgency: Some(self.urgency),
                report: Some(self.report(at)),
                ramps_until: next_one.ramp.map(|ramp| ramp.end()).filter(|end| *end > at),
                approvals: self.approvals(at),
                ..Facts::default()
            };
            let status = Status { state: ReleaseState::Limited, paused: true };
            match next(status, ReleaseEvent::Resume, &facts, self.policy, at) {
                Err(Refusal { rule: Rule::ReleaseFreeze, .. }) => at += TimeDelta::hours(1),
                _ => return Ok(at),
            }
        }
        Ok(self.from)
    }

    /// Assumes that it is validated in time, and passes.
    fn report(&self, at: DateTime<Utc>) -> ReportFacts {
        ReportFacts {
            at,
            passed: self.policy.validation.required.clone(),
            failed: Vec::new(),
            own: self.policy.validation.checks.iter().map(|check| check.id.to_string()).collect(),
            way_lost: None,
        }
    }

    /// Assumes that the required approvals are given in time.
    fn approvals(&self, at: DateTime<Utc>) -> Vec<Approved> {
        let approvers = self.policy.approvals.iter().flat_map(|rule| &rule.by);
        approvers.map(|key| Approved { key: key.to_string(), person: key.to_string(), at }).collect()
    }

    fn reached(&self, standing: &CohortInForce) -> bool {
        standing.has(self.sequence)
    }

    fn step(
        &self,
        standing: &CohortInForce,
        what: StepKind,
        at: DateTime<Utc>,
        ramp: Option<Ramp>,
        stage: Stage,
    ) -> Result<ExpectedStep> {
        let mut assignment = Assignment::new(self.release.clone(), self.sequence, stage, at);
        assignment.ramp = ramp;
        assignment.bridges.clone_from(&self.bridges);
        assignment.check().map_err(|e| Error::input("the assignment cannot be").with_source(e))?;
        let whole = ramp.map_or(at, |ramp| ramp.end());
        Ok(ExpectedStep { what, cohort: standing.cohort.clone(), at, ramp, whole, assignment })
    }

    /// The first instant at which the state machine allows the step, and its ramp.
    fn earliest(
        &self,
        standing: &CohortInForce,
        exposed: u32,
        previous: Option<&(Name, DateTime<Utc>)>,
        what: StepKind,
        from: DateTime<Utc>,
        assumptions: &mut Vec<String>,
    ) -> Result<(DateTime<Utc>, Option<Ramp>)> {
        let mut at = from;
        let soaked = previous.map(|(cohort, since)| *since + self.policy.soak(cohort).delta());
        loop {
            let mut refusal = None;
            for request in self.requests(exposed) {
                let planned = plan(request, exposed, at)?;
                let since = previous.map(|(cohort, since)| (cohort.clone(), (*since <= at).then_some(*since)));
                match self.ask(what, step(standing, &planned, since), at) {
                    Ok(_) => return Ok((at, planned.ramp)),
                    Err(refused) => refusal = Some((refused, planned.ramp)),
                }
            }
            match (refusal, soaked) {
                (Some((Refusal { rule: Rule::ReleaseSoak, .. }, _)), Some(soaked)) if at < soaked => at = soaked,
                (Some((Refusal { rule: Rule::ReleaseFreeze, .. }, _)), _) if at - from < TimeDelta::hours(HORIZON) => {
                    at += TimeDelta::hours(1);
                }
                (refusal, _) => {
                    let ramp = refusal.as_ref().and_then(|(_, ramp)| *ramp);
                    let note = refusal.map(|(Refusal { rule, why, .. }, _)| {
                        format!("the step to {} would be refused, as things are ({rule}: {why})", standing.cohort)
                    });
                    assumptions.extend(note);
                    return Ok((at, ramp));
                }
            }
        }
    }

    /// Everyone at once; otherwise as fast as policy allows, or as requested.
    fn requests(&self, exposed: u32) -> Vec<RampRequest> {
        let with = |span: Span| RampRequest { span: Some(span), ..RampRequest::default() };
        match self.ramp {
            Some(span) if !span.is_zero() => vec![with(span)],
            _ => {
                let left = u64::from(PPM - exposed.min(PPM));
                let seconds = (self.policy.rollout.shortest_ramp.seconds() * left).div_ceil(u64::from(PPM)).max(1);
                let shortest = Span::from_delta(TimeDelta::seconds(i64::try_from(seconds).unwrap_or(i64::MAX / 1000)));
                vec![RampRequest::default(), with(shortest)]
            }
        }
    }

    fn ask(&self, what: StepKind, step: Step, at: DateTime<Utc>) -> Result<Status, Refusal> {
        let facts = Facts {
            frozen: true,
            artifacts: 1,
            urgency: Some(self.urgency),
            report: Some(self.report(at)),
            step: Some(step),
            approvals: self.approvals(at),
            ..Facts::default()
        };
        match what {
            StepKind::Start => next(Status::of(ReleaseState::Validation), ReleaseEvent::Start, &facts, self.policy, at),
            StepKind::InForce | StepKind::Advance => {
                next(Status::of(ReleaseState::Limited), ReleaseEvent::Advance, &facts, self.policy, at)
            }
        }
    }
}

fn assumptions(terms: &StepInputs<'_>) -> Vec<String> {
    let policy = &terms.policy.rollout;
    let mut assumed =
        vec!["devices take the release as soon as they are offered it, and are what the fleet says they are".into()];
    if terms.urgency == Urgency::Security {
        assumed.push("a security release goes to all cohorts at its start".into());
    } else {
        let of: Vec<_> = policy.soak_of.iter().map(|(cohort, span)| format!(", {cohort} {span}")).collect();
        assumed.push(format!(
            "every step is taken at the first instant that policy.toml allows: soak {}{}; at most {} of the fleet at one instant, \
             else a ramp of {}",
            policy.soak,
            of.concat(),
            write_share(policy.largest_step),
            terms.ramp.unwrap_or(policy.shortest_ramp),
        ));
        assumed.push(format!(
            "somebody advances or renews it at least every {}, else it stops by itself",
            policy.max_unattended
        ));
    }
    if !terms.policy.approvals.is_empty() {
        assumed.push("every step that takes approvals has them by then".into());
    }
    assumed
}

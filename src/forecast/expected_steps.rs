//! Predicts a rollout: every step at the first instant at which policy allows it.
//!
//! This module contains no rules: it submits each step to the state machine, as `rollout start` and `rollout advance` do.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use tidegate_model::manifest::{Manifest, Urgency};
use tidegate_model::name::Name;
use tidegate_model::position::PPM;
use tidegate_model::rollout::{Offer, Offers, Ramp, Stage};
use tidegate_model::time;
use tidegate_model::version::is_newer;

use crate::config::write_share;
use crate::error::{Error, Result, Rule};
use crate::policy::{
    Approved, Facts, Policy, Refusal, ReleaseEvent, ReleaseState, ReportFacts, Soaking, Status, Step, next,
};
use crate::rollout::list::put;
use crate::rollout::{RampRequest, dead_mans_switch, plan, step};
use crate::workspace::CohortInForce;
use tidegate_model::span::Span;

/// How far ahead to search for a step, in hours.
const HORIZON: i64 = 24 * 366;

/// The input of a prediction.
#[derive(Debug)]
pub(super) struct StepInputs<'a> {
    /// The release.
    pub(super) manifest: &'a Manifest,
    /// Its offer to everyone at once, with its bridges.
    pub(super) offer: Offer,
    /// Whether its rollout is paused.
    pub(super) paused: bool,
    /// The rules.
    pub(super) policy: &'a Policy,
    /// What the cohorts are currently offered.
    pub(super) in_force: &'a [CohortInForce],
    /// Since when devices can see the release in each of them; `None` where they cannot yet.
    pub(super) visible: Vec<Option<DateTime<Utc>>>,
    /// When the first step may be taken.
    pub(super) from: DateTime<Utc>,
    /// How long to take for each cohort, instead of the minimum of the policy.
    pub(super) ramp: Option<Span>,
}

/// A step: what a cohort is offered, and when.
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
    pub(super) offer: Offer,
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
    for (current, visible) in terms.in_force.iter().zip(&terms.visible) {
        if let Some(own) = current.offer(terms.offer.sequence) {
            started |= own.stage != Stage::Validation;
            let mut step = in_force(terms, current, own, &mut course.assumptions)?;
            step.whole = step.whole.max(visible.unwrap_or(terms.from));
            course.steps.push(step);
            if visible.is_none() {
                let from = time::format(terms.from);
                course.assumptions.push(format!("the step to {} is published at {from}", current.cohort));
            }
        }
        if let Some(ahead) = terms.ahead(current) {
            let why = format!("it is offered {} (sequence {}), which is newer", ahead.release, ahead.sequence);
            course.passed_over.push((current.cohort.clone(), why));
        }
    }
    if terms.paused {
        let goes_on = course.steps.iter().map(|step| step.at).max().unwrap_or(terms.from);
        course.assumptions.push(format!("it is paused, and resumes at {}", time::format(goes_on)));
    }
    if terms.manifest.urgency == Urgency::Security && !terms.is_staged() {
        at_once(terms, &mut course)?;
    } else {
        in_turn(terms, &mut course, started)?;
    }
    course.steps.sort_by_key(|step| step.at);
    Ok(course)
}

/// A security release goes to all cohorts at its start.
fn at_once(terms: &StepInputs<'_>, course: &mut ExpectedSteps) -> Result<()> {
    for current in terms.in_force {
        if !terms.reached(current) && !course.passes_over(&current.cohort) {
            course.steps.push(terms.step(current, StepKind::Start, terms.from, None, Stage::Security)?);
        }
    }
    Ok(())
}

/// An ordinary release goes through the cohorts in order.
fn in_turn(terms: &StepInputs<'_>, course: &mut ExpectedSteps, mut started: bool) -> Result<()> {
    let validation = terms.policy.validation.cohort.as_ref().filter(|_| terms.in_force.len() > 1);
    let mut previous: Option<(Name, DateTime<Utc>)> = None;
    let mut now = terms.from;
    for current in terms.in_force.iter().filter(|current| Some(&current.cohort) != validation) {
        if course.passes_over(&current.cohort) {
            continue;
        }
        let known_step = course.steps.iter().find(|step| step.cohort == current.cohort).cloned();
        let exposed = match &known_step {
            None => 0,
            Some(step) => match step.ramp.map(|ramp| ramp.to()) {
                Some(to) if to < PPM => to,
                _ => {
                    previous = Some((current.cohort.clone(), step.whole));
                    continue;
                }
            },
        };
        // A partially exposed cohort is continued once its ramp has ended.
        now = now.max(known_step.map_or(now, |step| step.whole));
        let what = if started { StepKind::Advance } else { StepKind::Start };
        let since = previous.clone().filter(|_| exposed == 0);
        let (at, ramp) = terms.earliest(current, exposed, since.as_ref(), what, now, &mut course.assumptions)?;
        if !started
            && let Some(validation) = terms.in_force.iter().find(|s| Some(&s.cohort) == validation)
            && !terms.reached(validation)
            && !course.passes_over(&validation.cohort)
        {
            course.steps.push(terms.step(validation, what, at, None, Stage::Limited)?);
        }
        started = true;
        let step = terms.step(current, what, at, ramp, Stage::Limited)?;
        previous = Some((current.cohort.clone(), step.whole));
        now = at;
        course.steps.push(step);
    }
    Ok(())
}

/// The offer that a cohort has already. A pause ends when the plan begins, or when the freeze that forbids resuming ends.
fn in_force(
    terms: &StepInputs<'_>,
    current: &CohortInForce,
    own: &Offer,
    assumptions: &mut Vec<String>,
) -> Result<ExpectedStep> {
    let mut offer = own.clone();
    let mut at = own.since;
    if terms.paused || offer.paused {
        at = terms.resumed(own)?;
        dead_mans_switch::resume(&mut offer, at)?;
    } else if let Some(stopped) = dead_mans_switch::stopped(own, terms.from) {
        at = terms.from;
        dead_mans_switch::attend(&mut offer, terms.policy, at)?;
        let (stopped, at) = (time::format(stopped), time::format(at));
        assumptions.push(format!("it ended by itself in {} at {stopped}, and resumes at {at}", current.cohort));
    }
    // It is renewed in time.
    offer.until = None;
    let whole = offer.ramp.map_or(at, |ramp| ramp.end());
    Ok(ExpectedStep { what: StepKind::InForce, cohort: current.cohort.clone(), at, ramp: offer.ramp, whole, offer })
}

/// Assumes that an offer that has not ended is renewed in time.
fn renewed(offer: &mut Offer, now: DateTime<Utc>) {
    if !offer.has_ended(now) {
        offer.until = None;
    }
}

impl ExpectedSteps {
    fn passes_over(&self, cohort: &Name) -> bool {
        self.passed_over.iter().any(|(passed, _)| passed == cohort)
    }

    /// What a cohort is offered over time: what it is offered at `from`, and the lists after each step.
    pub(super) fn offers(
        &self,
        current: &CohortInForce,
        manifest: &Manifest,
        from: DateTime<Utc>,
    ) -> Vec<(DateTime<Utc>, Vec<Offer>)> {
        let mut before = current.offers.clone();
        for offer in &mut before {
            renewed(offer, from);
        }
        let steps = self.steps.iter().filter(|step| step.cohort == current.cohort);
        let after = steps.map(|step| {
            let mut offers = before.clone();
            put(&mut offers, step.offer.clone(), Some(&manifest.supersedes));
            (step.at, offers)
        });
        let after: Vec<_> = after.collect();
        let is_replaced = after.first().is_some_and(|(at, _)| *at <= from);
        std::iter::once((from, before)).filter(|_| !is_replaced).chain(after).collect()
    }
}

impl StepInputs<'_> {
    /// The first instant at which the state machine allows resuming a paused offer.
    fn resumed(&self, own: &Offer) -> Result<DateTime<Utc>> {
        let mut at = self.from;
        while at - self.from < TimeDelta::hours(HORIZON) {
            let mut next_one = own.clone();
            dead_mans_switch::resume(&mut next_one, at)?;
            let facts = Facts {
                urgency: Some(self.manifest.urgency),
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

    /// Whether a security release goes through the cohorts like any other: it does so already, or a ramp is requested and policy allows it.
    fn is_staged(&self) -> bool {
        let own = self.in_force.iter().filter_map(|current| current.offer(self.offer.sequence));
        let has_begun = own.into_iter().any(|offer| offer.stage == Stage::Limited);
        has_begun || (self.policy.security.staged && self.ramp.is_some_and(|span| !span.is_zero()))
    }

    /// An offer of a cohort that is ahead of the release: a higher version with a higher sequence.
    fn ahead<'s>(&self, current: &'s CohortInForce) -> Option<&'s Offer> {
        let Offer { release, sequence, .. } = &self.offer;
        current.offers.iter().find(|other| other.sequence > *sequence && is_newer(&other.release, release))
    }

    fn reached(&self, current: &CohortInForce) -> bool {
        current.has(self.offer.sequence)
    }

    fn step(
        &self,
        current: &CohortInForce,
        what: StepKind,
        at: DateTime<Utc>,
        ramp: Option<Ramp>,
        stage: Stage,
    ) -> Result<ExpectedStep> {
        let since = current.offer(self.offer.sequence).map_or(at, |own| own.since);
        let offer = Offer { stage, since, ramp, ..self.offer.clone() };
        let offers = Offers::new(at, vec![offer.clone()]);
        offers.check().map_err(|e| Error::input("the offer is not valid").with_source(e))?;
        let whole = ramp.map_or(at, |ramp| ramp.end());
        Ok(ExpectedStep { what, cohort: current.cohort.clone(), at, ramp, whole, offer })
    }

    /// The first instant at which the state machine allows the step, and its ramp.
    fn earliest(
        &self,
        current: &CohortInForce,
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
                let since = previous.map(|(cohort, since)| {
                    (cohort.clone(), if *since <= at { Soaking::Since(*since) } else { Soaking::Ramping })
                });
                match self.ask(what, step(current, &planned, since), at) {
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
                        format!("the step to {} would be refused now ({rule}: {why})", current.cohort)
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
            urgency: Some(self.manifest.urgency),
            staged: self.is_staged(),
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
    let mut assumed = vec!["devices install the release as soon as it is offered, and match the given fleet".into()];
    if terms.manifest.urgency == Urgency::Security && !terms.is_staged() {
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
            "it is advanced or renewed at least every {}, else it stops by itself",
            policy.max_unattended
        ));
    }
    if !terms.policy.approvals.is_empty() {
        assumed.push("every step that needs approvals has them by then".into());
    }
    assumed
}

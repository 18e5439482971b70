//! The steps of a rollout, each one transaction: decided by the state machine, signed with the rollout key, written at once.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use tidegate_model::cohort::CohortMap;
use tidegate_model::digest::Digest;
use tidegate_model::layout;
use tidegate_model::manifest::{Manifest, Urgency};
use tidegate_model::name::Name;
use tidegate_model::position::PPM;
use tidegate_model::rollout::{Bridge, MAX_OFFERS, Offer, Offers, Ramp, Stage};
use tidegate_model::time;
use tidegate_model::version::is_newer;

use super::dead_mans_switch;
use super::health::{Action, Health, Verdict};
use super::list;
use super::ramp::{Planned, RampRequest, plan};
use crate::config::Settings;
use crate::error::{Error, Kind, Result, Rule};
use crate::fs::Changes;
use crate::keys::KeyRing;
use crate::metadata::{Edit, Finished, Repository};
use crate::policy::{Facts, HealthPolicy, Policy, ReleaseEvent, ReleaseState, Soaking, Status, Step};
use crate::release::adopt::status_of;
use crate::release::draft::happening;
use crate::release::listing::ReleaseProposal;
use crate::release::record::{Record, ReleaseSpec};
use crate::release::{approval, bridges, report, retract};
use crate::workspace::{
    CohortInForce, Ledger, Operation, Published, Workspace, cohorts_in_force, manifest_in_force, map_in_force,
};
use crate::workspace::{artifacts, in_force};

/// Everything that a step of one release's rollout is decided on.
#[derive(Debug)]
pub struct RolloutTransaction<'w> {
    pub(crate) workspace: &'w Workspace,
    pub(crate) settings: Settings,
    pub(crate) policy: Policy,
    pub(crate) repository: Repository,
    pub(crate) record: Record,
    pub(crate) manifest: Manifest,
    pub(crate) bytes: Vec<u8>,
    pub(crate) in_force: Vec<CohortInForce>,
    pub(crate) now: DateTime<Utc>,
    /// What was last known to be published.
    published: Option<Published>,
    /// What the step rests on: for the ledger, and the report that lies beside the record.
    health: Option<(Value, Vec<u8>)>,
}

/// A step that was taken.
#[derive(Debug)]
pub struct StepOutcome {
    /// The record.
    pub record: Record,
    /// The state before.
    pub before: Status,
    /// The cohorts whose offer changed.
    pub cohorts: Vec<Name>,
    /// The roles that got a new version.
    pub roles: Vec<String>,
    /// Releases whose offers named this one as a bridge and do so no longer: devices that needed it wait for another way.
    pub bridge_of: Vec<String>,
    /// Where the cohorts now stand.
    pub in_force: Vec<CohortInForce>,
    /// Older releases that stay offered below a stable one, for devices that it does not fit.
    pub kept: Vec<String>,
}

/// What changes in the list of a cohort: the offer of the release with this sequence, or that it is no longer offered.
type Change = (Name, u64, Option<Offer>);

impl<'w> RolloutTransaction<'w> {
    /// Gathers what there is to know about the release that is meant.
    pub fn open(workspace: &'w Workspace, spec: &ReleaseSpec, now: DateTime<Utc>) -> Result<Self> {
        let mut record = spec.find(workspace.dir())?;
        let repository = workspace.repository()?;
        let (manifest, bytes) = match record.manifest {
            Some(_) => record.manifest(workspace.dir())?,
            // A draft has no rollout; the state machine will say so.
            None => (record.to_manifest(1, now), Vec::new()),
        };
        let map = map_in_force(workspace.dir(), &repository, &record.channel)?;
        let in_force = cohorts_in_force(&repository, &map, &record.channel, &record.product)?;
        // What is offered counts, whatever the record says: another checkout may have offered, paused or resumed it.
        let own = in_force.iter().filter_map(|current| current.offer(manifest.sequence));
        if let Some(offered) =
            status_of(own.filter(|offer| record.manifest.is_some() && offer.release == record.version))
        {
            if record.state == ReleaseState::Withdrawn {
                record.state = offered.state;
            }
            record.paused = offered.paused;
        }
        Ok(Self {
            settings: workspace.settings()?,
            policy: workspace.policy()?,
            workspace,
            repository,
            record,
            manifest,
            bytes,
            in_force,
            now,
            published: Published::load(workspace.dir())?,
            health: None,
        })
    }

    /// The release's record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Where the cohorts stand.
    pub fn in_force(&self) -> &[CohortInForce] {
        &self.in_force
    }

    /// Offers the release to the validation cohort.
    pub fn expose(self, op: &mut Operation<'_>) -> Result<StepOutcome> {
        let cohort = self.validation_cohort().cloned().ok_or_else(|| {
            Error::refused(Rule::ReleaseCohorts, "there is no validation cohort")
                .remedy("set validation.cohort in policy.toml to a cohort of the channel")
        })?;
        let mut facts = self.facts()?;
        facts.newer = self.newer([&cohort.cohort]);
        let offer = self.offer(Stage::Validation, None)?;
        let changes = vec![self.change(cohort.cohort, offer)];
        self.take(ReleaseEvent::Expose, &facts, changes, op, None)
    }

    /// Starts the rollout: the first cohort and the validation cohort, or for a security release all at once.
    pub fn start(self, request: RampRequest, op: &mut Operation<'_>) -> Result<StepOutcome> {
        let (facts, offers) = self.to_start(request)?;
        self.take(ReleaseEvent::Start, &facts, offers, op, None)
    }

    fn to_start(&self, request: RampRequest) -> Result<(Facts, Vec<Change>)> {
        let mut facts = self.facts()?;
        let security = self.manifest.urgency == Urgency::Security;
        facts.staged = security && request != RampRequest::default();
        if facts.staged && !self.policy.security.staged {
            return Err(Error::refused(
                Rule::ReleaseRamp,
                "policy.toml sends security releases to all cohorts at once",
            )
            .remedy("leave out --ramp, --from and --to, or set security.staged = true in policy.toml"));
        }
        let offers = if security && !facts.staged {
            facts.step = self.in_force.first().map(|first| Step {
                cohort: first.cohort.clone(),
                share: Some(self.in_force.iter().filter_map(|current| current.share).sum()),
                at_once: PPM,
                ramp: None,
                until: None,
                previous: None,
            });
            let all = self.in_force.iter().map(|current| current.cohort.clone());
            let offer = self.offer(Stage::Security, None)?;
            all.map(|cohort| self.change(cohort, offer.clone())).collect()
        } else {
            let first = self.ordinary().next().ok_or_else(no_cohort)?;
            let planned = plan(request, 0, self.now)?;
            facts.step = Some(step(first, &planned, None));
            let mut offers = vec![self.change(first.cohort.clone(), self.offer(Stage::Limited, planned.ramp)?)];
            if let Some(validation) = self.validation_cohort().filter(|v| v.cohort != first.cohort) {
                offers.push(self.change(validation.cohort.clone(), self.offer(Stage::Limited, None)?));
            }
            offers
        };
        facts.newer = self.newer(offers.iter().map(|(cohort, ..)| cohort));
        Ok((facts, offers))
    }

    /// Advances to the next cohort, or raises the share of the current one. With a cohort whose ramp is running, changes its speed.
    ///
    /// # Errors
    ///
    /// Fails if policy or the state of the release forbids the step, or if a key cannot sign.
    pub fn advance(self, request: RampRequest, cohort: Option<&Name>, op: &mut Operation<'_>) -> Result<StepOutcome> {
        let (facts, offers) = self.to_advance(request, cohort)?;
        self.take(ReleaseEvent::Advance, &facts, offers, op, None)
    }

    fn to_advance(&self, request: RampRequest, cohort: Option<&Name>) -> Result<(Facts, Vec<Change>)> {
        let mut facts = self.facts()?;
        let mut offers = Vec::new();
        if let Some(running) = cohort.and_then(|cohort| self.running(cohort)) {
            let (changed, step) = self.faster_or_slower(running, request)?;
            facts.step = Some(step);
            facts.newer = self.newer([&running.cohort]);
            offers.push(self.change(running.cohort.clone(), changed));
            return Ok((facts, offers));
        }
        self.must_be_next(cohort)?;
        let sequence = self.manifest.sequence;
        if let Some((current, previous)) = self.next_step() {
            let own = current.offer(sequence);
            let planned = plan(request, own.map_or(0, |own| exposed(own, self.now)), self.now)?;
            let since = previous.map(|previous| (previous.cohort.clone(), self.soaking(previous)));
            facts.step = Some(step(current, &planned, since));
            facts.newer = self.newer([&current.cohort]);
            let mut offer = self.offer(Stage::Limited, planned.ramp)?;
            offer.since = own.map_or(self.now, |own| own.since);
            offers.push(self.change(current.cohort.clone(), offer));
        }
        Ok((facts, offers))
    }

    /// Since when devices can see what a cohort is offered of this release; `None` if they cannot yet. Where no place is configured nobody
    /// can tell what is published when, and the step counts from its command.
    pub(crate) fn visible_since(&self, current: &CohortInForce) -> Option<DateTime<Utc>> {
        let offer = current.offer(self.manifest.sequence)?;
        if self.settings.publish.place.is_empty() {
            return Some(offer.since);
        }
        self.published.as_ref()?.visible_since(&current.role, &self.record.product, offer)
    }

    /// Since when all devices of a cohort can take the release.
    fn soaking(&self, current: &CohortInForce) -> Soaking {
        match (current.whole_since(self.manifest.sequence, self.now), self.visible_since(current)) {
            (None, _) => Soaking::Ramping,
            (Some(_), None) => Soaking::Unpublished,
            (Some(whole), Some(visible)) => Soaking::Since(whole.max(visible)),
        }
    }

    /// A cohort whose ramp is running.
    fn running(&self, cohort: &Name) -> Option<&CohortInForce> {
        let current = self.in_force.iter().find(|current| current.cohort == *cohort)?;
        let ramp = current.offer(self.manifest.sequence)?.ramp?;
        (ramp.from() < ramp.to() && ramp.end() > self.now).then_some(current)
    }

    /// The offer of a cohort with a ramp of another speed, from where it is now. No device loses it.
    fn faster_or_slower(&self, current: &CohortInForce, request: RampRequest) -> Result<(Offer, Step)> {
        let missing = || Error::bug("a running ramp without an offer");
        let own = current.offer(self.manifest.sequence).ok_or_else(missing)?;
        let to = request.to.or(own.ramp.map(|ramp| ramp.to()));
        let planned = plan(RampRequest { to, ..request }, exposed(own, self.now), self.now)?;
        Ok((Offer { ramp: planned.ramp, ..own.clone() }, step(current, &planned, None)))
    }

    /// Exposes nobody new.
    pub fn pause(self, op: &mut Operation<'_>, reason: Option<&str>) -> Result<StepOutcome> {
        let now = self.now;
        let offers = self.change_each(|offer| {
            dead_mans_switch::pause(offer, now);
            Ok(())
        })?;
        let facts = self.facts()?;
        self.take(ReleaseEvent::Pause, &facts, offers, op, reason)
    }

    /// Goes on after a pause. A ramp goes on from where it was: it is moved by as long as the pause took.
    pub fn resume(self, request: RampRequest, op: &mut Operation<'_>) -> Result<StepOutcome> {
        let (facts, offers) = self.to_resume(request)?;
        self.take(ReleaseEvent::Resume, &facts, offers, op, None)
    }

    fn to_resume(&self, request: RampRequest) -> Result<(Facts, Vec<Change>)> {
        let now = self.now;
        let mut offers = self.change_each(|offer| dead_mans_switch::resume(offer, now))?;
        let mut facts = self.facts()?;
        if request != RampRequest::default() {
            for (cohort, _, offer) in &mut offers {
                let current = self.in_force.iter().find(|current| current.cohort == *cohort);
                let (Some(current), Some(offer)) = (current, offer.as_mut()) else { continue };
                let Some(ramp) = offer.ramp.filter(|ramp| ramp.from() < ramp.to() && ramp.end() > now) else {
                    continue;
                };
                let to = request.to.or(Some(ramp.to()));
                let planned = plan(RampRequest { to, ..request }, exposed(offer, now), now)?;
                offer.ramp = planned.ramp;
                facts.step = Some(step(current, &planned, None));
            }
        }
        Ok((facts, offers))
    }

    /// Keeps a limited rollout from ending by itself.
    pub fn renew(self, op: &mut Operation<'_>) -> Result<StepOutcome> {
        let facts = self.to_renew()?;
        self.take(ReleaseEvent::Renew, &facts, Vec::new(), op, None)
    }

    fn to_renew(&self) -> Result<Facts> {
        if self.policy.health.as_ref().is_some_and(|health| health.required) {
            let id = self.record.id();
            return Err(Error::refused(
                Rule::ReleaseHealth,
                format!("{id}: policy.toml requires a health report to renew a rollout"),
            )
            .remedy(format!("give one: tidegate rollout renew {id} --require-health FILE")));
        }
        self.facts()
    }

    /// What policy says about the health of devices; an error if it says nothing.
    pub fn health_policy(&self) -> Result<&HealthPolicy> {
        self.policy.health.as_ref().ok_or_else(|| {
            Error::refused(Rule::ReleaseHealth, "policy.toml has no [health]")
                .remedy("add [health] with min_sample, max_age and thresholds; see docs/rollout.md")
        })
    }

    /// Of a retraction: the release that it takes back, if that is still offered.
    pub(crate) fn still_offered(&self) -> Result<Option<String>> {
        let retraction = retract::facts(self.workspace.dir(), &self.record, &self.manifest)?;
        Ok(retraction.and_then(|retraction| retraction.still_offered))
    }

    /// The cohorts that are offered the release.
    pub fn offered(&self) -> Vec<Name> {
        let has = |current: &&CohortInForce| current.has(self.manifest.sequence);
        self.in_force.iter().filter(has).map(|current| current.cohort.clone()).collect()
    }

    /// Does what a health report means by policy: keeps the rollout from ending by itself, pauses it, or withdraws the release.
    ///
    /// `None` if there is nothing to do: a rollout that is not limited does not end by itself, and one that is paused is stopped already.
    pub fn renew_by_health(
        mut self,
        health: &Health,
        op: &mut Operation<'_>,
    ) -> Result<(Verdict, Option<StepOutcome>)> {
        let verdict = health.judge(self.health_policy()?);
        self.health = Some((health.evidence(&verdict), health.bytes.clone()));
        let reason = verdict.findings.first().map(|finding| format!("{}: {finding}", finding.rule));
        let status = self.record.status();
        let outcome = match verdict.action {
            Action::Renew
                if matches!(status.state, ReleaseState::Stable | ReleaseState::Security) && !status.paused =>
            {
                None
            }
            Action::Renew => {
                let facts = self.facts()?;
                Some(self.take(ReleaseEvent::Renew, &facts, Vec::new(), op, None)?)
            }
            Action::Pause if status.paused => None,
            Action::Pause => Some(self.pause(op, reason.as_deref())?),
            Action::Withdraw => Some(self.withdraw(op, reason.as_deref())?),
        };
        Ok((verdict, outcome))
    }

    /// Says that every cohort has it.
    pub fn complete(self, op: &mut Operation<'_>) -> Result<StepOutcome> {
        let mut offers = self.to_complete()?;
        let (needless, kept) = self.older()?;
        offers.extend(needless);
        let facts = self.facts()?;
        let mut outcome = self.take(ReleaseEvent::Complete, &facts, offers, op, None)?;
        outcome.kept = kept;
        Ok(outcome)
    }

    fn to_complete(&self) -> Result<Vec<Change>> {
        self.change_each(|offer| {
            offer.stage = Stage::Stable;
            offer.ramp = None;
            Ok(())
        })
    }

    /// Whether a step would be accepted now: `start`, `advance`, `resume`, `renew` or `complete`. Signs and changes nothing.
    ///
    /// # Errors
    ///
    /// The refusal of that step.
    pub fn check(&self, event: ReleaseEvent, request: RampRequest) -> Result<()> {
        let (facts, changes) = match event {
            ReleaseEvent::Start => self.to_start(request)?,
            ReleaseEvent::Advance => self.to_advance(request, None)?,
            ReleaseEvent::Resume => self.to_resume(request)?,
            ReleaseEvent::Renew => (self.to_renew()?, Vec::new()),
            ReleaseEvent::Complete => (self.facts()?, self.to_complete()?),
            _ => return Err(Error::bug("no step of a rollout")),
        };
        self.decide(event, &facts, changes).map(drop)
    }

    /// Stops offering it.
    pub fn withdraw(self, op: &mut Operation<'_>, reason: Option<&str>) -> Result<StepOutcome> {
        let facts = self.facts()?;
        let sequence = self.manifest.sequence;
        let offers = facts.assigned.iter().map(|cohort| (cohort.clone(), sequence, None)).collect();
        self.take(ReleaseEvent::Withdraw, &facts, offers, op, reason)
    }

    /// What [`advance`](Self::advance) would look at next, and the cohort before it.
    pub fn next_step(&self) -> Option<(&CohortInForce, Option<&CohortInForce>)> {
        let sequence = self.manifest.sequence;
        let partial = |current: &&CohortInForce| {
            current.offer(sequence).and_then(|own| own.ramp).is_some_and(|ramp| ramp.to() < PPM)
        };
        if let Some(current) = self.ordinary().find(partial) {
            return Some((current, None));
        }
        let next = self.ordinary().position(|current| !current.has(sequence) && self.ahead(current).is_none())?;
        let previous = self.ordinary().take(next).filter(|current| current.has(sequence)).last();
        self.ordinary().nth(next).map(|current| (current, previous))
    }

    /// Checks that the next step is to this cohort; `None` for any.
    ///
    /// # Errors
    ///
    /// [`Rule::ReleaseCohorts`] if the next step is to another cohort.
    pub fn must_be_next(&self, cohort: Option<&Name>) -> Result<()> {
        let Some(wanted) = cohort else { return Ok(()) };
        let next = self.next_step().map(|(current, _)| &current.cohort);
        if next == Some(wanted) {
            return Ok(());
        }
        let id = self.record.id();
        Err(Error::refused(
            Rule::ReleaseCohorts,
            match next {
                Some(next) => format!("{id}: the next cohort is {next}, not {wanted}"),
                None => format!("{id}: there is no further cohort, so {wanted} is not the next"),
            },
        )
        .remedy(format!("see its state: tidegate rollout status {id}")))
    }

    /// Checks that nobody else moved the release while this process waited for the lock: the request was made for the earlier state.
    fn unraced(&self, event: ReleaseEvent) -> Result<()> {
        // What stops an exposure, or keeps it as it is, is as right after as before.
        if matches!(event, ReleaseEvent::Pause | ReleaseEvent::Withdraw | ReleaseEvent::Renew) {
            return Ok(());
        }
        let id = self.record.id().to_string();
        let meanwhile = self.workspace.meanwhile()?;
        let Some(other) = meanwhile.iter().rev().find(|entry| entry.subject == id) else { return Ok(()) };
        Err(Error::new(
            Kind::Conflict,
            format!(
                "{id}: conflict: {} changed it in the meantime: {} at {}",
                other.actor,
                other.event,
                time::format(other.time)
            ),
        )
        .rule(Rule::ReleaseRace)
        .remedy(format!("nothing was changed; see its state: tidegate rollout status {id}")))
    }

    /// The cohorts that a rollout goes through in order: all but the one for validation, unless there is no other.
    fn ordinary(&self) -> impl Iterator<Item = &CohortInForce> {
        let validation = self.validation_cohort().map(|current| current.cohort.clone());
        let alone = self.in_force.len() == 1;
        self.in_force.iter().filter(move |current| alone || Some(&current.cohort) != validation.as_ref())
    }

    fn validation_cohort(&self) -> Option<&CohortInForce> {
        let name = self.policy.validation.cohort.as_ref()?;
        self.in_force.iter().find(|current| current.cohort == *name)
    }

    fn offer(&self, stage: Stage, ramp: Option<Ramp>) -> Result<Offer> {
        let manifest = (Digest::of(&self.bytes), self.bytes.len() as u64);
        let mut offer = Offer::new(self.manifest.version.clone(), self.manifest.sequence, manifest, stage, self.now);
        offer.ramp = ramp;
        offer.bridges = self.bridges()?;
        Ok(offer)
    }

    fn change(&self, cohort: Name, offer: Offer) -> Change {
        (cohort, self.manifest.sequence, Some(offer))
    }

    /// The bridges to the release, for devices that it does not upgrade from.
    pub(crate) fn bridges(&self) -> Result<Vec<Bridge>> {
        bridges(self.workspace.dir(), &self.repository, &self.manifest)
    }

    /// The older offers that the release replaces once it is stable, to be removed, and the releases of those that stay.
    fn older(&self) -> Result<(Vec<Change>, Vec<String>)> {
        let (mut needless, mut kept) = (Vec::new(), BTreeSet::new());
        for current in &self.in_force {
            let Some(own) = current.offer(self.manifest.sequence) else { continue };
            for older in current.offers.iter().filter(|offer| offer.sequence < own.sequence) {
                let path = layout::manifest_path(&self.record.channel, &self.record.product, &older.release);
                let (manifest, _) =
                    manifest_in_force(self.workspace.dir(), &self.repository, &self.record.channel, &path)?;
                if list::replaces(&self.manifest, own, &manifest) {
                    needless.push((current.cohort.clone(), older.sequence, None));
                } else {
                    kept.insert(older.release.to_string());
                }
            }
        }
        Ok((needless, kept.into_iter().collect()))
    }

    /// The changes, each offer saying whether the release comes through a gate: in a protected cohort it does, as long as nobody gets it
    /// in the open. Once it is public it stays so, for all cohorts.
    fn guarded(&self, mut changes: Vec<Change>) -> Result<Vec<Change>> {
        let map = map_in_force(self.workspace.dir(), &self.repository, &self.record.channel)?;
        let is_protected = |cohort: &Name| map.cohort(cohort).is_some_and(|cohort| cohort.protected.is_some());
        if !self.in_force.iter().any(|current| is_protected(&current.cohort)) {
            return Ok(changes);
        }
        let version = &self.manifest.version;
        let gives =
            |offer: &Offer| offer.release == *version || offer.bridges.iter().any(|bridge| bridge.release == *version);
        let current =
            self.in_force.iter().flat_map(|current| current.offers.iter().map(move |offer| (&current.cohort, offer)));
        let offered = changes.iter().filter_map(|(cohort, _, offer)| Some((cohort, offer.as_ref()?)));
        // What stands now counts, too, though it is about to end: who was offered it has seen it.
        let is_open = current.clone().any(|(cohort, offer)| gives(offer) && !(is_protected(cohort) && offer.private))
            || offered.clone().any(|(cohort, offer)| gives(offer) && !is_protected(cohort));
        for (cohort, _, offer) in &mut changes {
            if let Some(offer) = offer {
                offer.private = is_protected(cohort) && !is_open;
            }
        }
        if is_open {
            let others = current.filter(|(cohort, offer)| {
                offer.private && offer.release == *version && changes.iter().all(|(other, ..)| other != *cohort)
            });
            let opened: Vec<Change> = others
                .map(|(cohort, offer)| {
                    (cohort.clone(), offer.sequence, Some(Offer { private: false, ..offer.clone() }))
                })
                .collect();
            changes.extend(opened);
        }
        Ok(changes)
    }

    /// The offers of this release, changed.
    fn change_each(&self, mut change: impl FnMut(&mut Offer) -> Result<()>) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for current in &self.in_force {
            let Some(own) = current.offer(self.manifest.sequence) else { continue };
            let mut offer = own.clone();
            change(&mut offer)?;
            changes.push(self.change(current.cohort.clone(), offer));
        }
        Ok(changes)
    }

    /// An offer of a cohort that is ahead of this release: a higher version with a higher sequence.
    fn ahead<'s>(&self, current: &'s CohortInForce) -> Option<&'s Offer> {
        let Manifest { version, sequence, .. } = &self.manifest;
        current.offers.iter().find(|offer| offer.sequence > *sequence && is_newer(&offer.release, version))
    }

    /// A release that is ahead of this one in one of `cohorts`.
    fn newer<'a>(&self, cohorts: impl IntoIterator<Item = &'a Name>) -> Option<String> {
        let cohorts: Vec<_> = cohorts.into_iter().collect();
        let mut in_force = self.in_force.iter().filter(|current| cohorts.contains(&&current.cohort));
        in_force.find_map(|current| self.ahead(current)).map(|offer| offer.release.to_string())
    }

    fn facts(&self) -> Result<Facts> {
        let sequence = self.manifest.sequence;
        let reached = |current: &CohortInForce| {
            self.ahead(current).is_some() || current.whole_since(sequence, self.now).is_some()
        };
        let names = |filter: &dyn Fn(&CohortInForce) -> bool| -> Vec<Name> {
            self.in_force.iter().filter(|s| filter(s)).map(|current| current.cohort.clone()).collect()
        };
        Ok(Facts {
            frozen: self.record.manifest.is_some(),
            artifacts: self.record.artifacts.len(),
            urgency: Some(self.manifest.urgency),
            report: report::newest(self.workspace.dir(), &self.record, &self.repository)?,
            not_reached: names(&|current| !reached(current)),
            retraction: retract::facts(self.workspace.dir(), &self.record, &self.manifest)?,
            assigned: names(&|current| self.record.manifest.is_some() && current.has(sequence)),
            ..Facts::default()
        })
    }

    /// Adds to the facts when the ramps will end with these changes, and whether offers have stopped by themselves.
    fn look_ahead(&self, changes: &[Change], facts: &mut Facts) -> Result<()> {
        let sequence = self.manifest.sequence;
        for current in &self.in_force {
            let change = changes.iter().find(|(cohort, of, _)| *cohort == current.cohort && *of == sequence);
            let own = current.offer(sequence);
            facts.stopped |= own.is_some_and(|own| dead_mans_switch::stopped(own, self.now).is_some());
            let Some(mut next) = change.map_or_else(|| own.cloned(), |(.., offer)| offer.clone()) else { continue };
            dead_mans_switch::attend(&mut next, &self.policy, self.now)?;
            // A ramp that goes on as it did was checked against the rules when it began.
            let moved = change.is_some() || own.is_some_and(|own| own.ramp != next.ramp);
            let rises = next.ramp.filter(|ramp| !next.paused && ramp.from() < ramp.to() && ramp.end() > self.now);
            let rises = rises.filter(|_| moved);
            facts.ramps_until = facts.ramps_until.max(rises.map(|ramp| ramp.end()));
        }
        Ok(())
    }

    /// Asks the state machine, signs, and writes: all or nothing.
    fn take(
        self,
        event: ReleaseEvent,
        facts: &Facts,
        changes: Vec<Change>,
        op: &mut Operation<'_>,
        reason: Option<&str>,
    ) -> Result<StepOutcome> {
        self.unraced(event)?;
        let before = self.record.status();
        let (facts, changes, after) = self.decide(event, facts, changes)?;
        let renewed = self.renewed(event, after.state, &changes);
        let unbridged = self.unbridged(event);
        let all: Vec<Change> = changes.iter().chain(&renewed).chain(&unbridged).cloned().collect();
        if all.iter().any(|(_, sequence, offer)| *sequence == self.manifest.sequence && offer.is_some()) {
            let path = layout::manifest_path(&self.record.channel, &self.record.product, &self.record.version);
            approved(self.workspace, &self.repository, &self.record, &path, &self.bytes)?;
        }
        let mut written = Changes::default();
        let finished = self.sign(all, &mut written, op.keys)?;
        let Self { workspace, repository, mut record, now, health, .. } = self;
        let (repository, roles) = match finished {
            Some(finished) => {
                written.extend(finished.changes);
                (finished.repository, finished.roles)
            }
            None => (repository, Vec::new()),
        };
        record.set_status(after);
        record.put(&mut written)?;
        if event == ReleaseEvent::Withdraw {
            // Nobody signs it any more.
            written.remove(ReleaseProposal::file(&record.id()));
        }
        let bridge_of: BTreeSet<String> =
            unbridged.iter().filter_map(|(.., other)| Some(other.as_ref()?.release.to_string())).collect();
        let mut evidence = evidence(&facts, &changes, &roles, &bridge_of, reason);
        if let Some((value, report)) = health {
            evidence.insert("health".into(), value);
            written.put(record.id().file("health.json"), report);
        }
        let mut ledger = Ledger::open(workspace.dir())?;
        ledger.append(now, happening(event.name(), &record, Some(before), op.actor, evidence))?;
        ledger.put(&mut written);
        workspace.commit(written)?;
        let map: CohortMap = map_in_force(workspace.dir(), &repository, &record.channel)?;
        let in_force = cohorts_in_force(&repository, &map, &record.channel, &record.product)?;
        let mut cohorts: Vec<Name> = changes.into_iter().map(|(cohort, ..)| cohort).collect();
        cohorts.dedup();
        Ok(StepOutcome {
            before,
            cohorts,
            record,
            roles,
            bridge_of: bridge_of.into_iter().collect(),
            in_force,
            kept: Vec::new(),
        })
    }

    /// Asks the state machine. Returns the facts that it was asked with, the changes as they are to be made, and the state after.
    fn decide(&self, event: ReleaseEvent, facts: &Facts, changes: Vec<Change>) -> Result<(Facts, Vec<Change>, Status)> {
        let changes = self.guarded(changes)?;
        let mut facts = facts.clone();
        let cohort = facts.step.as_ref().map(|step| &step.cohort).filter(|_| event == ReleaseEvent::Advance);
        facts.approvals = approval::given(self.workspace.dir(), &self.settings, &self.record, event, cohort)?;
        self.look_ahead(&changes, &mut facts)?;
        let after = self.record.after(event, &facts, &self.policy, self.now)?;
        Ok((facts, changes, after))
    }

    /// Whoever takes a step has looked at the release, so its other offers live on. What lives for long yet is not signed again.
    fn renewed(&self, event: ReleaseEvent, state: ReleaseState, changes: &[Change]) -> Vec<Change> {
        let half = self.policy.rollout.max_unattended.delta() / 2;
        let due = |current: &&CohortInForce| {
            let untouched = !changes.iter().any(|(cohort, ..)| *cohort == current.cohort);
            let own = current.offer(self.manifest.sequence);
            let soon = own.is_some_and(|own| own.until.is_none_or(|until| until - self.now < half));
            state == ReleaseState::Limited && untouched && own.is_some() && (event == ReleaseEvent::Renew || soon)
        };
        let in_force = self.in_force.iter().filter(due);
        in_force
            .filter_map(|current| Some((current, current.offer(self.manifest.sequence)?)))
            .map(|(current, own)| self.change(current.cohort.clone(), own.clone()))
            .collect()
    }

    /// The offers of other releases that name a withdrawn one as a bridge, without it. A draft that is not frozen has no sequence yet, and is
    /// no bridge.
    fn unbridged(&self, event: ReleaseEvent) -> Vec<Change> {
        let withdrawn = self.record.manifest.as_ref().filter(|_| event == ReleaseEvent::Withdraw);
        let Some(sequence) = withdrawn.map(|frozen| frozen.sequence) else { return Vec::new() };
        let mut changes = Vec::new();
        for current in &self.in_force {
            for other in current.offers.iter().filter(|other| other.sequence != sequence) {
                let mut other = other.clone();
                let named = other.bridges.len();
                other.bridges.retain(|bridge| bridge.sequence != sequence);
                if other.bridges.len() < named {
                    changes.push((current.cohort.clone(), other.sequence, Some(other)));
                }
            }
        }
        changes
    }

    /// Writes and signs new lists for the cohorts that something changes for. Puts the lists' bytes into `written`.
    fn sign(&self, changes: Vec<Change>, written: &mut Changes, keys: &mut KeyRing) -> Result<Option<Finished>> {
        let channel = self.settings.channel(&self.record.channel)?;
        let mut edit = Edit::new(&self.repository, self.now, self.settings.online())?;
        let mut cohorts: BTreeMap<Name, Vec<(u64, Option<Offer>)>> = BTreeMap::new();
        for (cohort, sequence, offer) in changes {
            cohorts.entry(cohort).or_default().push((sequence, offer));
        }
        for (cohort, changes) in cohorts {
            let current = self.in_force.iter().find(|current| current.cohort == cohort);
            let mut offers = current.map_or_else(Vec::new, |current| current.offers.clone());
            for (sequence, offer) in changes {
                match offer {
                    None => offers.retain(|other| other.sequence != sequence),
                    Some(mut offer) => {
                        if sequence == self.manifest.sequence {
                            dead_mans_switch::attend(&mut offer, &self.policy, self.now)?;
                        }
                        let own = sequence == self.manifest.sequence;
                        list::put(&mut offers, offer, own.then_some(&self.manifest.supersedes));
                    }
                }
            }
            if offers.len() > MAX_OFFERS {
                return Err(Error::refused(
                    Rule::ReleaseCohorts,
                    format!("cohort {cohort} is offered {MAX_OFFERS} releases already"),
                )
                .remedy("withdraw or retire releases that are no longer needed"));
            }
            let role = layout::cohort_role(&self.record.channel, &cohort);
            let target = layout::assignment_path(&self.record.channel, &cohort, &self.record.product);
            let mut document = self.repository.must_have(&role)?.document.clone();
            if offers.is_empty() {
                document.remove_target(&target);
            } else {
                let (bytes, custom) = in_force::target(&Offers::new(self.now, offers))?;
                let sha256 = Digest::of(&bytes);
                document.set_target(&target, bytes.len() as u64, sha256.as_bytes(), Some(custom));
                written.put(artifacts::signed_path(&sha256), bytes);
            }
            edit.change(&role, channel.rollout.expires.delta(), |old| *old = document)?;
        }
        edit.finish(keys)
    }
}

/// The exposure of an offer in parts per million, rounded up, so that no device loses it when a ramp continues from there.
fn exposed(offer: &Offer, now: DateTime<Utc>) -> u32 {
    let now = offer.until.map_or(now, |until| now.min(until));
    offer.ramp.map_or(PPM, |ramp| ramp.exposure(now).to_ppm_up())
}

/// Two powers: the channel must have approved what a cohort is offered, byte for byte.
fn approved(workspace: &Workspace, repository: &Repository, record: &Record, path: &str, bytes: &[u8]) -> Result<()> {
    let (_, approved) = manifest_in_force(workspace.dir(), repository, &record.channel, path)?;
    if approved == bytes {
        return Ok(());
    }
    Err(Error::trust(format!("{} is not the manifest that was registered", record.id()))
        .remedy("restore the release's folder from version control"))
}

/// The evidence of a step for the ledger.
fn evidence(
    facts: &Facts,
    changes: &[Change],
    roles: &[String],
    bridge_of: &BTreeSet<String>,
    reason: Option<&str>,
) -> Map<String, Value> {
    let mut cohorts: Vec<&str> = changes.iter().map(|(cohort, ..)| cohort.as_str()).collect();
    cohorts.dedup();
    let mut evidence = Map::new();
    evidence.insert("cohorts".into(), json!(cohorts));
    evidence.insert("roles".into(), json!(roles));
    approval::evidence(facts, &mut evidence);
    if !bridge_of.is_empty() {
        evidence.insert("bridge_of".into(), json!(bridge_of));
    }
    if let Some(reason) = reason {
        evidence.insert("reason".into(), crate::workspace::ledger::clean(reason).into());
    }
    evidence
}

/// What a step to a cohort newly exposes, as the state machine is asked about it.
pub(crate) fn step(current: &CohortInForce, planned: &Planned, previous: Option<(Name, Soaking)>) -> Step {
    Step {
        cohort: current.cohort.clone(),
        share: current.share,
        at_once: planned.at_once,
        ramp: planned.full_span,
        until: planned.ramp.map(|ramp| ramp.end()),
        previous,
    }
}

fn no_cohort() -> Error {
    Error::refused(Rule::ReleaseCohorts, "the channel has no cohort").remedy("add one to cohorts.toml")
}

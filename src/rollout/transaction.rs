//! The steps of a rollout, each one transaction: decided by the state machine, signed with the rollout key, written at once.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use tidegate_model::cohort::CohortMap;
use tidegate_model::digest::Digest;
use tidegate_model::layout;
use tidegate_model::manifest::{Manifest, Urgency};
use tidegate_model::name::Name;
use tidegate_model::position::PPM;
use tidegate_model::rollout::{Assignment, Bridge, Ramp, Stage};
use tidegate_model::time;

use super::dead_mans_switch::{self, Unattended};
use super::health::{Action, Health, Verdict};
use super::ramp::{Planned, RampRequest, plan};
use crate::config::Settings;
use crate::error::{Error, Kind, Result, Rule};
use crate::fs::Changes;
use crate::keys::KeyRing;
use crate::metadata::{Edit, Finished, Repository};
use crate::policy::{Facts, HealthPolicy, Policy, ReleaseEvent, ReleaseState, Status, Step};
use crate::release::draft::happening;
use crate::release::record::{Record, ReleaseSpec};
use crate::release::{approval, bridges, report, retract};
use crate::workspace::in_force::{self, digest};
use crate::workspace::{CohortInForce, Ledger, Operation, Workspace, manifest_in_force, map_in_force, standing};

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
    pub(crate) standings: Vec<CohortInForce>,
    pub(crate) now: DateTime<Utc>,
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
    pub standings: Vec<CohortInForce>,
}

/// What a cohort is to be offered: an assignment, or no longer anything.
type Offer = (Name, Option<Assignment>);

impl<'w> RolloutTransaction<'w> {
    /// Gathers what there is to know about the release that is meant.
    pub fn open(workspace: &'w Workspace, spec: &ReleaseSpec, now: DateTime<Utc>) -> Result<Self> {
        let record = spec.find(workspace.dir())?;
        let repository = workspace.repository()?;
        let (manifest, bytes) = match record.manifest {
            Some(_) => record.manifest(workspace.dir())?,
            // A draft has no rollout; the state machine will say so.
            None => (record.to_manifest(1, now), Vec::new()),
        };
        let map = map_in_force(workspace.dir(), &repository, &record.channel)?;
        let standings = standing(&repository, &map, &record.channel, &record.product)?;
        Ok(Self {
            settings: workspace.settings()?,
            policy: workspace.policy()?,
            workspace,
            repository,
            record,
            manifest,
            bytes,
            standings,
            now,
            health: None,
        })
    }

    /// The release's record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Where the cohorts stand.
    pub fn standings(&self) -> &[CohortInForce] {
        &self.standings
    }

    /// Offers the release to the validation cohort.
    pub fn expose(self, op: &mut Operation<'_>) -> Result<StepOutcome> {
        let cohort = self.validation_cohort().cloned().ok_or_else(|| {
            Error::refused("there is no validation cohort")
                .rule(Rule::ReleaseCohorts)
                .remedy("set validation.cohort in policy.toml to a cohort of the channel")
        })?;
        let mut facts = self.facts()?;
        facts.newer = self.newer([&cohort.cohort]);
        let offer = self.assignment(Stage::Validation, None)?;
        self.take(ReleaseEvent::Expose, &facts, vec![(cohort.cohort, Some(offer))], op, None)
    }

    /// Starts the rollout: the first cohort and the validation cohort, or for a security release all at once.
    pub fn start(self, request: RampRequest, op: &mut Operation<'_>) -> Result<StepOutcome> {
        let mut facts = self.facts()?;
        let security = self.manifest.urgency == Urgency::Security;
        let offers = if security {
            if request != RampRequest::default() {
                return Err(Error::usage("a security release has no ramp: it goes to all cohorts at once")
                    .remedy("leave out --ramp, --from and --to"));
            }
            facts.step = self.standings.first().map(|first| Step {
                cohort: first.cohort.clone(),
                share: Some(self.standings.iter().filter_map(|standing| standing.share).sum()),
                at_once: PPM,
                ramp: None,
                until: None,
                previous: None,
            });
            let all = self.standings.iter().map(|standing| standing.cohort.clone());
            let offer = self.assignment(Stage::Security, None)?;
            all.map(|cohort| (cohort, Some(offer.clone()))).collect()
        } else {
            let first = self.ordinary().next().ok_or_else(no_cohort)?;
            let planned = plan(request, 0, self.now)?;
            facts.step = Some(step(first, &planned, None));
            let mut offers = vec![(first.cohort.clone(), Some(self.assignment(Stage::Limited, planned.ramp)?))];
            if let Some(validation) = self.validation_cohort().filter(|v| v.cohort != first.cohort) {
                offers.push((validation.cohort.clone(), Some(self.assignment(Stage::Limited, None)?)));
            }
            offers
        };
        facts.newer = self.newer(offers.iter().map(|(cohort, _)| cohort));
        self.take(ReleaseEvent::Start, &facts, offers, op, None)
    }

    /// Goes on: further within a cohort of which only a part is to be exposed, else to the next cohort.
    pub fn advance(self, request: RampRequest, op: &mut Operation<'_>) -> Result<StepOutcome> {
        let sequence = self.manifest.sequence;
        let mut facts = self.facts()?;
        let mut offers = Vec::new();
        if let Some((standing, previous)) = self.next_step() {
            let exposed = if standing.has(sequence) { standing.exposed(self.now) } else { 0 };
            let planned = plan(request, exposed, self.now)?;
            let since = previous.map(|previous| (previous.cohort.clone(), previous.whole_since(self.now)));
            facts.step = Some(step(standing, &planned, since));
            facts.newer = self.newer([&standing.cohort]);
            offers.push((standing.cohort.clone(), Some(self.assignment(Stage::Limited, planned.ramp)?)));
        }
        self.take(ReleaseEvent::Advance, &facts, offers, op, None)
    }

    /// Exposes nobody new.
    pub fn pause(self, op: &mut Operation<'_>, reason: Option<&str>) -> Result<StepOutcome> {
        let since = Value::from(time::format(self.now));
        let offers = self.change_each(|assignment| {
            assignment.paused = true;
            assignment.extra.insert(dead_mans_switch::PAUSED_SINCE.into(), since.clone());
            Ok(())
        })?;
        let facts = self.facts()?;
        self.take(ReleaseEvent::Pause, &facts, offers, op, reason)
    }

    /// Goes on after a pause. A ramp goes on from where it was: it is moved by as long as the pause took.
    pub fn resume(self, op: &mut Operation<'_>) -> Result<StepOutcome> {
        let now = self.now;
        let offers = self.change_each(|assignment| dead_mans_switch::resume(assignment, now))?;
        let facts = self.facts()?;
        self.take(ReleaseEvent::Resume, &facts, offers, op, None)
    }

    /// Keeps a limited rollout from ending by itself.
    pub fn renew(self, op: &mut Operation<'_>) -> Result<StepOutcome> {
        if self.policy.health.as_ref().is_some_and(|health| health.required) {
            let id = self.record.id();
            return Err(Error::refused(format!("{id}: policy.toml takes a health report to renew a rollout"))
                .rule(Rule::ReleaseHealth)
                .remedy(format!("give one: tidegate rollout renew {id} --require-health FILE")));
        }
        let facts = self.facts()?;
        self.take(ReleaseEvent::Renew, &facts, Vec::new(), op, None)
    }

    /// What policy says about the health of devices; an error if it says nothing.
    pub fn health_policy(&self) -> Result<&HealthPolicy> {
        self.policy.health.as_ref().ok_or_else(|| {
            Error::refused("policy.toml has no [health]: nothing says what is healthy")
                .rule(Rule::ReleaseHealth)
                .remedy("add [health] with min_sample, max_age and thresholds; see docs/rollout.md")
        })
    }

    /// The cohorts that are offered the release.
    pub fn offered(&self) -> Vec<Name> {
        let has = |standing: &&CohortInForce| standing.has(self.manifest.sequence);
        self.standings.iter().filter(has).map(|standing| standing.cohort.clone()).collect()
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
        let offers = self.change_each(|assignment| {
            assignment.stage = Stage::Stable;
            assignment.ramp = None;
            Ok(())
        })?;
        let facts = self.facts()?;
        self.take(ReleaseEvent::Complete, &facts, offers, op, None)
    }

    /// Stops offering it.
    pub fn withdraw(self, op: &mut Operation<'_>, reason: Option<&str>) -> Result<StepOutcome> {
        let facts = self.facts()?;
        let offers = facts.assigned.iter().map(|cohort| (cohort.clone(), None)).collect();
        self.take(ReleaseEvent::Withdraw, &facts, offers, op, reason)
    }

    /// What [`advance`](Self::advance) would look at next, and the cohort before it.
    pub fn next_step(&self) -> Option<(&CohortInForce, Option<&CohortInForce>)> {
        let sequence = self.manifest.sequence;
        let partial = |standing: &&CohortInForce| {
            let ramp = standing.assignment.as_ref().and_then(|assignment| assignment.ramp);
            standing.has(sequence) && ramp.is_some_and(|ramp| ramp.to() < PPM)
        };
        if let Some(standing) = self.ordinary().find(partial) {
            return Some((standing, None));
        }
        let next = self.ordinary().position(|standing| {
            standing.assignment.as_ref().is_none_or(|assignment| assignment.sequence < sequence)
        })?;
        let previous = self.ordinary().take(next).filter(|standing| standing.has(sequence)).last();
        self.ordinary().nth(next).map(|standing| (standing, previous))
    }

    /// Errs unless the next step is to this cohort; `None` for whichever it is.
    pub fn must_be_next(&self, cohort: Option<&Name>) -> Result<()> {
        let Some(wanted) = cohort else { return Ok(()) };
        let next = self.next_step().map(|(standing, _)| &standing.cohort);
        if next == Some(wanted) {
            return Ok(());
        }
        let id = self.record.id();
        Err(Error::refused(match next {
            Some(next) => format!("{id}: the next cohort is {next}, not {wanted}"),
            None => format!("{id}: there is no further cohort, so {wanted} is not the next"),
        })
        .rule(Rule::ReleaseCohorts)
        .remedy(format!("see where it stands: tidegate rollout status {id}")))
    }

    /// Errs when somebody else moved the release while this process waited for its turn: what was asked for was asked with another
    /// state in mind.
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
        .remedy(format!("nothing was changed; see where it stands now: tidegate rollout status {id}")))
    }

    /// The cohorts that a rollout goes through in order: all but the one for validation, unless there is no other.
    fn ordinary(&self) -> impl Iterator<Item = &CohortInForce> {
        let validation = self.validation_cohort().map(|standing| standing.cohort.clone());
        let alone = self.standings.len() == 1;
        self.standings.iter().filter(move |standing| alone || Some(&standing.cohort) != validation.as_ref())
    }

    fn validation_cohort(&self) -> Option<&CohortInForce> {
        let name = self.policy.validation.cohort.as_ref()?;
        self.standings.iter().find(|standing| standing.cohort == *name)
    }

    fn assignment(&self, stage: Stage, ramp: Option<Ramp>) -> Result<Assignment> {
        let mut assignment = Assignment::new(self.manifest.version.clone(), self.manifest.sequence, stage, self.now);
        assignment.ramp = ramp;
        assignment.bridges = self.bridges()?;
        Ok(assignment)
    }

    /// What the release's assignments list for devices that it does not upgrade from.
    pub(crate) fn bridges(&self) -> Result<Vec<Bridge>> {
        bridges(self.workspace.dir(), &self.repository, &self.manifest)
    }

    /// The offers, each saying whether the release comes through a gate: in a protected cohort it does, as long as nobody gets it in the
    /// open. Once it is public it stays so, for all cohorts.
    fn guarded(&self, mut offers: Vec<Offer>) -> Result<Vec<Offer>> {
        let map = map_in_force(self.workspace.dir(), &self.repository, &self.record.channel)?;
        let is_protected = |cohort: &Name| map.cohort(cohort).is_some_and(|cohort| cohort.protected.is_some());
        if !self.standings.iter().any(|standing| is_protected(&standing.cohort)) {
            return Ok(offers);
        }
        let version = &self.manifest.version;
        let gives = |assignment: &Assignment| {
            assignment.release == *version || assignment.bridges.iter().any(|bridge| bridge.release == *version)
        };
        let standing =
            self.standings.iter().filter_map(|standing| Some((&standing.cohort, standing.assignment.as_ref()?)));
        let offered = offers.iter().filter_map(|(cohort, assignment)| Some((cohort, assignment.as_ref()?)));
        // What stands now counts, too, though it is about to end: who was offered it has seen it.
        let is_open = standing
            .clone()
            .any(|(cohort, assignment)| gives(assignment) && !(is_protected(cohort) && assignment.private))
            || offered.clone().any(|(cohort, assignment)| gives(assignment) && !is_protected(cohort));
        for (cohort, assignment) in &mut offers {
            if let Some(assignment) = assignment {
                assignment.private = is_protected(cohort) && !is_open;
            }
        }
        if is_open {
            let others = standing.filter(|(cohort, assignment)| {
                assignment.private && assignment.release == *version && offers.iter().all(|(other, _)| other != *cohort)
            });
            let opened: Vec<Offer> = others
                .map(|(cohort, assignment)| (cohort.clone(), Some(Assignment { private: false, ..assignment.clone() })))
                .collect();
            offers.extend(opened);
        }
        Ok(offers)
    }

    /// The offers of this release, changed.
    fn change_each(&self, mut change: impl FnMut(&mut Assignment) -> Result<()>) -> Result<Vec<Offer>> {
        let mut offers = Vec::new();
        for standing in self.standings.iter().filter(|standing| standing.has(self.manifest.sequence)) {
            let mut assignment = standing.assignment.clone();
            if let Some(assignment) = &mut assignment {
                change(assignment)?;
            }
            offers.push((standing.cohort.clone(), assignment));
        }
        Ok(offers)
    }

    /// A release with a higher sequence that one of `cohorts` is offered already.
    fn newer<'a>(&self, cohorts: impl IntoIterator<Item = &'a Name>) -> Option<String> {
        let cohorts: Vec<_> = cohorts.into_iter().collect();
        self.standings.iter().filter(|standing| cohorts.contains(&&standing.cohort)).find_map(|standing| {
            let assignment = standing.assignment.as_ref()?;
            (assignment.sequence > self.manifest.sequence).then(|| assignment.release.to_string())
        })
    }

    fn facts(&self) -> Result<Facts> {
        let sequence = self.manifest.sequence;
        let has_newer = |standing: &CohortInForce| {
            standing.assignment.as_ref().is_some_and(|assignment| assignment.sequence > sequence)
        };
        let reached = |standing: &CohortInForce| {
            has_newer(standing) || (standing.has(sequence) && standing.whole_since(self.now).is_some())
        };
        let names = |filter: &dyn Fn(&CohortInForce) -> bool| -> Vec<Name> {
            self.standings.iter().filter(|s| filter(s)).map(|standing| standing.cohort.clone()).collect()
        };
        Ok(Facts {
            frozen: self.record.manifest.is_some(),
            artifacts: self.record.artifacts.len(),
            urgency: Some(self.manifest.urgency),
            report: report::newest(self.workspace.dir(), &self.record, &self.repository)?,
            not_reached: names(&|standing| !reached(standing)),
            retraction: retract::facts(self.workspace.dir(), &self.record, &self.manifest)?,
            assigned: names(&|standing| self.record.manifest.is_some() && standing.has(sequence)),
            ..Facts::default()
        })
    }

    /// Notes how long ramps will run once the cohorts have these offers, and whether some have stopped by themselves.
    fn look_ahead(&self, offers: &[Offer], facts: &mut Facts) -> Result<()> {
        let sequence = self.manifest.sequence;
        for standing in &self.standings {
            let offer = offers.iter().find(|(cohort, _)| *cohort == standing.cohort);
            let own = standing.assignment.as_ref().filter(|assignment| assignment.sequence == sequence);
            facts.stopped |= own.is_some_and(|own| dead_mans_switch::stopped(own, &self.policy, self.now).is_some());
            let Some(mut next) = offer.map_or_else(|| own.cloned(), |(_, assignment)| assignment.clone()) else {
                continue;
            };
            dead_mans_switch::attend(&mut next, &self.policy, self.now)?;
            // A ramp that goes on as it did was put to the rules when it began.
            let moved = offer.is_some() || own.is_some_and(|own| own.ramp != next.ramp);
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
        offers: Vec<Offer>,
        op: &mut Operation<'_>,
        reason: Option<&str>,
    ) -> Result<StepOutcome> {
        self.unraced(event)?;
        let offers = self.guarded(offers)?;
        let before = self.record.status();
        let mut facts = facts.clone();
        let cohort = facts.step.as_ref().map(|step| &step.cohort).filter(|_| event == ReleaseEvent::Advance);
        facts.approvals = approval::given(self.workspace.dir(), &self.settings, &self.record, event, cohort)?;
        self.look_ahead(&offers, &mut facts)?;
        let after = self.record.after(event, &facts, &self.policy, self.now)?;
        let Self { workspace, settings, policy, repository, mut record, manifest, bytes, standings, now, health } =
            self;
        let path = layout::manifest_path(&record.channel, &record.product, &record.version);
        // Whoever takes a step has looked: the offers of a limited rollout live on. What lives for long yet is not signed again.
        let half = policy.rollout.max_unattended.delta() / 2;
        let due = |standing: &&CohortInForce| {
            let untouched = !offers.iter().any(|(cohort, _)| *cohort == standing.cohort);
            let soon = event == ReleaseEvent::Renew || standing.expires - now < half;
            after.state == ReleaseState::Limited && standing.has(manifest.sequence) && untouched && soon
        };
        let renewed: Vec<Offer> =
            standings.iter().filter(due).map(|s| (s.cohort.clone(), s.assignment.clone())).collect();
        // What is withdrawn is offered to nobody, on the way to another release neither.
        // A draft that is not frozen has no sequence yet, and is nobody's bridge.
        let withdrawn = record.manifest.as_ref().filter(|_| event == ReleaseEvent::Withdraw);
        let unbridged = withdrawn.map_or_else(Vec::new, |frozen| without(&standings, frozen.sequence));
        if offers.iter().chain(&renewed).any(|(_, assignment)| assignment.is_some()) {
            approved(workspace, &repository, &record, &path, &bytes)?;
        }
        let signed = offers.iter().chain(&renewed).chain(&unbridged);
        let signing = Signing { settings: &settings, policy: &policy, repository: &repository, record: &record, now };
        let (finished, unattended) = signing.sign(signed, (manifest.sequence, &bytes), op.keys)?;
        let (mut changes, repository, roles) = match finished {
            Some(finished) => (finished.changes, finished.repository, finished.roles),
            None => (Changes::default(), repository, Vec::new()),
        };
        record.set_status(after);
        record.put(&mut changes)?;
        let bridge_of: BTreeSet<String> =
            unbridged.iter().filter_map(|(_, other)| Some(other.as_ref()?.release.to_string())).collect();
        let mut evidence = evidence(&facts, &offers, &roles, &bridge_of, reason);
        if let Some((value, report)) = health {
            evidence.insert("health".into(), value);
            changes.put(record.id().file("health.json"), report);
        }
        let mut ledger = Ledger::open(workspace.dir())?;
        ledger.append(now, happening(event.name(), &record, Some(before), op.actor, evidence))?;
        for other in unattended {
            other.pause(workspace, &record.channel, &mut ledger, &mut changes, (&policy, op.actor, now))?;
        }
        ledger.put(&mut changes);
        workspace.commit(changes)?;
        let map: CohortMap = map_in_force(workspace.dir(), &repository, &record.channel)?;
        let standings = standing(&repository, &map, &record.channel, &record.product)?;
        Ok(StepOutcome {
            before,
            cohorts: offers.into_iter().map(|(cohort, _)| cohort).collect(),
            record,
            roles,
            bridge_of: bridge_of.into_iter().collect(),
            standings,
        })
    }
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
    offers: &[Offer],
    roles: &[String],
    bridge_of: &BTreeSet<String>,
    reason: Option<&str>,
) -> Map<String, Value> {
    let mut evidence = Map::new();
    evidence.insert("cohorts".into(), json!(offers.iter().map(|(cohort, _)| cohort.as_str()).collect::<Vec<_>>()));
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

/// What new versions of cohort roles are made from.
struct Signing<'a> {
    settings: &'a Settings,
    policy: &'a Policy,
    repository: &'a Repository,
    record: &'a Record,
    now: DateTime<Utc>,
}

impl Signing<'_> {
    /// Writes and signs the offers of cohorts. `own` is the sequence of the release that moves, and its manifest. Returns what was signed,
    /// and the releases that have stopped by themselves.
    fn sign<'o>(
        &self,
        offers: impl Iterator<Item = &'o Offer>,
        own: (u64, &[u8]),
        keys: &mut KeyRing,
    ) -> Result<(Option<Finished>, BTreeSet<Unattended>)> {
        let Self { settings, policy, repository, record, now } = *self;
        let channel = settings.channel(&record.channel)?;
        let mut edit = Edit::new(repository, now, settings.online())?;
        let mut unattended = BTreeSet::new();
        for (cohort, assignment) in offers {
            let role = layout::cohort_role(&record.channel, cohort);
            let target = layout::assignment_path(&record.channel, cohort, &record.product);
            let mut document = repository.must_have(&role)?.document.clone();
            let mut assignment = assignment.clone();
            if let Some(assignment) = &mut assignment {
                let (length, sha256) = if assignment.sequence == own.0 {
                    dead_mans_switch::attend(assignment, policy, now)?;
                    (own.1.len() as u64, Digest::of(own.1))
                } else {
                    if dead_mans_switch::let_go(assignment, policy, now) {
                        unattended.insert(Unattended {
                            product: record.product.clone(),
                            release: assignment.release.clone(),
                        });
                    }
                    let listed = repository.targets(&role).and_then(|targets| targets.targets.get(&target));
                    let listed = listed.ok_or_else(|| Error::bug(format!("{role} lists no {target}")))?;
                    (listed.length, digest(listed)?)
                };
                document.set_target(&target, length, sha256.as_bytes(), Some(in_force::custom(assignment)?));
            } else {
                document.remove_target(&target);
            }
            let (lifetime, stopped) = dead_mans_switch::settle(
                &mut document,
                repository.targets(&role),
                (&record.channel, cohort, &record.product),
                assignment.as_ref(),
                (policy, channel.rollout.expires),
                now,
            )?;
            unattended.extend(stopped);
            edit.change(&role, lifetime, |old| *old = document)?;
        }
        Ok((edit.finish(keys)?, unattended))
    }
}

/// The offers of other releases that name the one with this sequence as a bridge, without it.
fn without(standings: &[CohortInForce], sequence: u64) -> Vec<Offer> {
    let mut offers = Vec::new();
    for standing in standings {
        let Some(mut other) = standing.assignment.clone().filter(|other| other.sequence != sequence) else { continue };
        let named = other.bridges.len();
        other.bridges.retain(|bridge| bridge.sequence != sequence);
        if other.bridges.len() < named {
            offers.push((standing.cohort.clone(), Some(other)));
        }
    }
    offers
}

/// What a step to a cohort newly exposes, as the state machine is asked about it.
pub(crate) fn step(
    standing: &CohortInForce,
    planned: &Planned,
    previous: Option<(Name, Option<DateTime<Utc>>)>,
) -> Step {
    Step {
        cohort: standing.cohort.clone(),
        share: standing.share,
        at_once: planned.at_once,
        ramp: planned.full_span,
        until: planned.ramp.map(|ramp| ramp.end()),
        previous,
    }
}

fn no_cohort() -> Error {
    Error::refused("the channel has no cohort").rule(Rule::ReleaseCohorts).remedy("add one to cohorts.toml")
}

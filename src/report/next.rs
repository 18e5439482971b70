//! The one command that comes next.
//!
//! [`next`] looks at a workspace in the order of its candidates, the most urgent first, and names the first command that will be accepted
//! now. A candidate that only waits holds nothing back: its reason is given if nothing else is to be done. A further state of workspaces is
//! a further candidate.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_model::digest::Digest;
use tidegate_model::layout::{DelegatedRole, Location};
use tidegate_model::name::Name;
use tidegate_model::time;
use tidegate_tuf::key::KeyId;

use crate::ceremony;
use crate::config::Settings;
use crate::error::{Error, Result, Rule};
use crate::keys::{KeyRing, NoPassphrases};
use crate::metadata::{Repository, RoleFile};
use crate::policy::{Policy, ReleaseEvent, ReleaseState};
use crate::proposal::{self, Proposal, ProposalRequest, RequirementStatus, Verified};
use crate::publish::PublicationStatus;
use crate::release::listing::ReleaseProposal;
use crate::release::record::{Record, ReleaseId};
use crate::release::{approval, report, signing};
use crate::rollout::refresh::due;
use crate::rollout::{RampRequest, RolloutTransaction};
use crate::workspace::{Workspace, artifacts, has_begun, init_command};

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextStep {
    /// The command; `None` if there is nothing to do now. `FILE` and `PLACE` stand for what only people know.
    pub command: Option<String>,
    /// Why it comes next, or why there is nothing to do.
    pub reason: String,
    /// When there will be something to do, if there is nothing now and that is known.
    pub at: Option<DateTime<Utc>>,
}

impl NextStep {
    fn run(command: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { command: Some(command.into()), reason: reason.into(), at: None }
    }

    fn wait(reason: impl Into<String>, at: Option<DateTime<Utc>>) -> Self {
        Self { command: None, reason: reason.into(), at }
    }

    /// The same, where keys of `away` that it takes are not here: who has them, and the command to run there.
    fn elsewhere(self, away: &BTreeMap<String, Vec<KeyId>>, ring: &KeyRing) -> Self {
        let Some(command) = self.command.as_ref().filter(|_| !away.is_empty()) else { return self };
        let roles = away.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let keys = ring.whereabouts(&away.values().flatten().cloned().collect::<Vec<_>>());
        let why = format!("{}; keys that sign {roles} are not here: {keys}; where they are: {command}", self.reason);
        Self::wait(why, None)
    }

    /// What an error leaves: until when to wait, if time resolves it.
    fn refused(error: &Error) -> Self {
        let remedy = error.remedy_text().map(|remedy| format!("; {remedy}")).unwrap_or_default();
        Self::wait(format!("{}{remedy}", error.text()), error.refused_until())
    }
}

/// The command, or why there is none.
impl fmt::Display for NextStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.command, self.at) {
            (Some(command), _) => f.write_str(command),
            (None, Some(at)) => write!(f, "nothing until {}: {}", time::format(at), self.reason),
            (None, None) => write!(f, "nothing now: {}", self.reason),
        }
    }
}

/// What the next step depends on.
#[derive(Debug)]
pub struct Situation<'a> {
    /// The workspace.
    pub workspace: &'a Workspace,
    /// Its settings.
    pub settings: &'a Settings,
    /// Its metadata.
    pub repository: &'a Repository,
    /// Its keys; none is opened.
    pub ring: &'a KeyRing,
    /// Its releases.
    pub records: &'a [Record],
    /// How far each place is behind.
    pub publication: &'a [PublicationStatus],
    /// The time.
    pub now: DateTime<Utc>,
}

/// What may come next: a command, a reason to wait, or nothing.
type Candidate<'s> = fn(&Situation<'s>) -> Result<Option<NextStep>>;

/// The next step of a workspace.
///
/// # Errors
///
/// Fails if the workspace cannot be read.
pub fn next<'s>(situation: &Situation<'s>) -> Result<NextStep> {
    let candidates: [Candidate<'s>; 8] = [
        Situation::expired_at_the_top,
        |situation| Ok(situation.expired_online()),
        |situation| Ok(situation.unpublished_offers()),
        Situation::ceremony,
        |situation| Ok(situation.unsigned_changes()),
        Situation::releases,
        |situation| Ok(situation.unpublished()),
        |situation| Ok(Some(situation.renewals())),
    ];
    let mut waits: Vec<NextStep> = Vec::new();
    for candidate in candidates {
        match candidate(situation)? {
            Some(step) if step.command.is_some() => return Ok(step),
            step => waits.extend(step),
        }
    }
    let soonest = waits.iter().filter_map(|wait| wait.at).min();
    let named = waits.into_iter().next();
    let mut step = named.unwrap_or_else(|| NextStep::wait("everything is done", None));
    // Whatever it is that is waited for, something else may be due before.
    if soonest < step.at {
        step.reason += " (roles are to be renewed before)";
    }
    step.at = soonest.or(step.at);
    Ok(step)
}

/// The next step before the first root; `None` once there is one.
///
/// # Errors
///
/// Fails if the workspace cannot be read.
pub fn next_to_first_root(workspace: &Workspace, settings: &Settings, now: DateTime<Utc>) -> Result<Option<NextStep>> {
    let dir = workspace.dir();
    if has_begun(dir)? {
        return Ok(None);
    }
    if dir.join(ceremony::FILE).exists() {
        return ceremony_step(workspace, &workspace.ring(settings, Box::new(NoPassphrases))?, None, now);
    }
    Ok(Some(NextStep::run(init_command(dir), "nothing is signed yet: there is no first root")))
}

/// The next step of one release, or the publication of what it has just changed.
///
/// # Errors
///
/// Fails if the workspace cannot be read.
pub fn next_of(situation: &Situation<'_>, id: &ReleaseId) -> Result<Option<NextStep>> {
    let is_elsewhere = |record: &Record| {
        // Where to is not said, and a draft changes nothing that could be published.
        situation.settings.publish.place.is_empty()
            && matches!(record.state, ReleaseState::Draft | ReleaseState::Signed)
    };
    if !situation.records.iter().any(|record| record.id() == *id && is_elsewhere(record))
        && let Some(publish) = situation.unpublished_offers()
    {
        return Ok(Some(publish));
    }
    situation.records.iter().find(|record| record.id() == *id).map_or(Ok(None), |record| situation.release(record))
}

impl Situation<'_> {
    fn dir(&self) -> &Path {
        self.workspace.dir()
    }

    /// Roles without which nothing can be published. A ceremony that is in progress decides what comes next.
    fn expired_at_the_top(&self) -> Result<Option<NextStep>> {
        let is_over = |role: &&RoleFile| matches!(role.name.as_str(), "root" | "targets") && role.expires <= self.now;
        let over: Vec<_> = self.repository.roles().filter(is_over).map(|role| role.name.as_str()).collect();
        if over.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.ceremony()?.unwrap_or_else(|| renewal(&over, "has expired"))))
    }

    fn expired_online(&self) -> Option<NextStep> {
        let is_over = |role: &&RoleFile| is_online(&role.name) && role.expires <= self.now && self.signs(&role.name);
        let over: Vec<_> = self.repository.roles().filter(is_over).map(|role| role.name.clone()).collect();
        (!over.is_empty()).then(|| NextStep::run("tidegate refresh", format!("{} has expired", over.join(", "))))
    }

    /// What devices should know of at once: everything but that a channel lists a release that nobody is offered yet.
    fn unpublished_offers(&self) -> Option<NextStep> {
        if let Some(place) = self.publication.iter().find(|place| place.conflict.is_some()) {
            return Some(match place.live {
                Some(_) => NextStep::run("tidegate publish --rebase", place.to_string()),
                None => NextStep::wait(place.to_string(), None),
            });
        }
        let is_channel = |name: &String| !is_online(name) && !matches!(name.as_str(), "root" | "targets");
        let offers = |name: &String| {
            let listed = self.repository.targets(name).into_iter().flat_map(|targets| targets.targets.keys());
            is_online(name)
                && listed.into_iter().any(|path| matches!(Location::parse(path), Some(Location::Assignment { .. })))
        };
        let is_urgent = |place: &&PublicationStatus| {
            place.published == Some(false)
                && match place.live {
                    None => place.waiting.iter().any(offers),
                    Some(_) => place.waiting.is_empty() || !place.waiting.iter().all(is_channel),
                }
        };
        self.publication.iter().find(is_urgent).map(|place| self.publish(place))
    }

    fn unpublished(&self) -> Option<NextStep> {
        let behind = |place: &&PublicationStatus| place.published == Some(false);
        self.publication.iter().find(behind).map(|place| self.publish(place))
    }

    fn publish(&self, place: &PublicationStatus) -> NextStep {
        let command =
            if self.settings.publish.place.is_empty() { "tidegate publish PLACE" } else { "tidegate publish" };
        NextStep::run(command, place.to_string())
    }

    /// The ceremony that is in progress.
    fn ceremony(&self) -> Result<Option<NextStep>> {
        ceremony_step(self.workspace, self.ring, Some(self.repository), self.now)
    }

    /// Whether artifacts of a release that is published are missing, as after a pull into an empty folder.
    fn lacks_artifacts(&self, record: &Record) -> bool {
        let is_here = |sha256: &Digest| self.dir().join(artifacts::find(self.dir(), sha256)).exists();
        self.repository.role(record.channel.as_str()).is_some()
            && !matches!(record.state, ReleaseState::Draft | ReleaseState::Signed)
            && record.artifacts.iter().any(|artifact| !is_here(&artifact.sha256))
    }

    /// A step that signs these roles, if a threshold of the keys of each can be tried here; else where to run it.
    fn signing<'r>(&self, step: NextStep, roles: impl IntoIterator<Item = &'r str>) -> NextStep {
        let keys = |role: &str| Some(self.repository.keys_of(role)?.1.keyids.clone());
        let out = roles.into_iter().filter(|role| !self.signs(role));
        let away = |ids: Vec<KeyId>| ids.into_iter().filter(|id| !self.ring.is_within_reach(id)).collect();
        let away = out.filter_map(|role| Some((role.to_owned(), away(keys(role)?)))).collect();
        step.elsewhere(&away, self.ring)
    }

    /// Whether a threshold of the role's keys can be tried here.
    fn signs(&self, role: &str) -> bool {
        self.repository.keys_of(role).is_some_and(|(_, keys)| {
            keys.keyids.iter().filter(|id| self.ring.is_within_reach(id)).count() as u64 >= keys.threshold
        })
    }

    /// A configuration that says something else than what is signed, and channels that have expired.
    fn unsigned_changes(&self) -> Option<NextStep> {
        if self.dir().join(ceremony::FILE).exists() {
            return None;
        }
        let is_over = |role: &&RoleFile| !is_online(&role.name) && role.expires <= self.now;
        let over: Vec<_> = self.repository.roles().filter(is_over).map(|role| role.name.as_str()).collect();
        if !over.is_empty() {
            return Some(renewal(&over, "has expired"));
        }
        let proposed = ceremony::proposed(self.workspace, self.repository, &ProposalRequest::default(), self.now);
        match proposed {
            Ok(proposal) => {
                let why = format!("tidegate.toml or cohorts.toml says what is not signed yet: {}", proposal.subject);
                Some(NextStep::run("tidegate ceremony start", why))
            }
            Err(error) if error.broken_rule() == Some(Rule::CeremonyNothing) => None,
            Err(error) => Some(NextStep::refused(&error)),
        }
    }

    /// The release that is furthest in its life and can go on; one that somebody paused comes last.
    fn releases(&self) -> Result<Option<NextStep>> {
        let rank = |record: &Record| match record.state {
            _ if record.paused => 5,
            ReleaseState::Security | ReleaseState::Limited => 0,
            ReleaseState::Validation => 1,
            ReleaseState::Registered => 2,
            ReleaseState::Signed => 3,
            _ => 4,
        };
        let mut records: Vec<_> = self.records.iter().collect();
        let sequence = |record: &Record| record.manifest.as_ref().map(|manifest| manifest.sequence);
        records.sort_by_key(|record| (rank(record), std::cmp::Reverse(sequence(record))));
        let mut wait: Option<NextStep> = None;
        for record in records {
            let Some(step) = self.release(record)? else { continue };
            if step.command.is_some() {
                return Ok(Some(step));
            }
            let sooner = wait.as_ref().is_none_or(|wait| step.at.is_some() && (wait.at.is_none() || step.at < wait.at));
            if sooner {
                wait = Some(step);
            }
        }
        Ok(wait.or_else(|| self.create()))
    }

    /// The first release, or the one after all that were withdrawn.
    fn create(&self) -> Option<NextStep> {
        let is_over = |record: &Record| matches!(record.state, ReleaseState::Withdrawn | ReleaseState::Retired);
        if !self.records.iter().all(is_over) {
            return None;
        }
        let highest = self.records.iter().map(|record| &record.version).max();
        let version = highest.map_or_else(|| "1.0.0".to_owned(), |at| format!("{}.{}.0", at.major, at.minor + 1));
        let channel = self.settings.channels.keys().next()?;
        let product = self.settings.products.first()?;
        let name = if self.is_only() { version } else { format!("{channel}/{product}/{version}") };
        let command = format!("tidegate release create {name} FILE --hardware {}", self.hardware());
        Some(NextStep::run(command, "no release is offered, and none is in progress"))
    }

    fn hardware(&self) -> String {
        self.settings.hardware.keys().next().map_or_else(|| "ID".to_owned(), ToString::to_string)
    }

    /// Whether there is one channel and one product, so that a version names a release.
    fn is_only(&self) -> bool {
        let (channels, products) = (&self.settings.channels, &self.settings.products);
        let known = |record: &Record| channels.contains_key(&record.channel) && products.contains(&record.product);
        channels.len() == 1 && products.len() == 1 && self.records.iter().all(known)
    }

    fn name(&self, record: &Record) -> String {
        if self.is_only() { record.version.to_string() } else { record.id().to_string() }
    }

    /// The next step of a release; `None` if its life needs none.
    fn release(&self, record: &Record) -> Result<Option<NextStep>> {
        let name = self.name(record);
        match record.state {
            ReleaseState::Draft => Ok(Some(self.draft(record, &name))),
            ReleaseState::Signed => self.signed(record, &name).map(Some),
            ReleaseState::Stable if !record.paused => Ok(None),
            ReleaseState::Withdrawn | ReleaseState::Retired => Ok(None),
            _ => self.rollout(record, &name),
        }
    }

    fn draft(&self, record: &Record, name: &str) -> NextStep {
        let id = record.id();
        if record.artifacts.is_empty() {
            let command = format!("tidegate release add {name} FILE --hardware {}", self.hardware());
            return NextStep::run(command, format!("{id} has no artifact yet"));
        }
        let manifest = |why: String| NextStep::run(format!("tidegate release manifest {name}"), why);
        if record.manifest.is_none() {
            return manifest(format!("the manifest of {id} is not frozen yet"));
        }
        let missing = match signing::awaited(self.workspace, record, self.repository, self.now) {
            Ok(missing) => missing,
            Err(error) => return manifest(error.text().to_owned()),
        };
        if missing.iter().any(|key| self.ring.is_within_reach(key)) {
            return NextStep::run(format!("tidegate release sign {name}"), format!("{id} waits for signatures"));
        }
        NextStep::wait(
            format!(
                "{id} waits for signatures of {}: send them {}, and add their copies with tidegate release sign {name} --copy FILE",
                self.ring.labels(&missing),
                ReleaseProposal::file(&id)
            ),
            None,
        )
    }

    fn signed(&self, record: &Record, name: &str) -> Result<NextStep> {
        let id = record.id();
        if let Err(error) = signing::awaited(self.workspace, record, self.repository, self.now) {
            return Ok(NextStep::run(format!("tidegate release manifest {name}"), error.text().to_owned()));
        }
        if let Some(approval) = self.approval(record, name, ReleaseEvent::Register, None)? {
            return Ok(approval);
        }
        if let Some(failed) = self.failed(record) {
            return Ok(failed);
        }
        let register = NextStep::run(format!("tidegate release register {name}"), format!("{id} has all signatures"));
        Ok(self.signing(register, ["snapshot", "timestamp"]))
    }

    /// That checks have failed, which only a person can resolve.
    fn failed(&self, record: &Record) -> Option<NextStep> {
        let failed = report::load(self.dir(), record, self.repository).ok().flatten();
        let failed: Vec<_> = failed.iter().flat_map(|report| report.failed()).map(|check| check.rule.clone()).collect();
        let id = record.id();
        (!failed.is_empty()).then(|| {
            let why = format!("{id}: checks failed: {}", failed.join(", "));
            NextStep::wait(format!("{why}; fix what they name, then: tidegate release validate {id}"), None)
        })
    }

    /// The approval that a step needs and that can be given here, or whose it is; `None` if it needs none.
    fn approval(
        &self,
        record: &Record,
        name: &str,
        event: ReleaseEvent,
        cohort: Option<&Name>,
    ) -> Result<Option<NextStep>> {
        let (policy, id) = (self.workspace.policy()?, record.id());
        let given = approval::given(self.dir(), self.settings, record, event, cohort)?;
        for rule in policy.approvals.iter().filter(|rule| rule.covers(event, cohort)) {
            let counts = |by: &&crate::policy::Approved| {
                let is_new = rule.max_age.is_none_or(|most| by.at <= self.now && self.now - by.at <= most.delta());
                is_new && rule.by.iter().any(|key| key.as_str() == by.key)
            };
            let people: BTreeSet<_> = given.iter().filter(counts).map(|by| by.person.as_str()).collect();
            if people.len() >= rule.count {
                continue;
            }
            let person = |key: &str| {
                let of = self.settings.keys.iter().find(|(name, _)| name.as_str() == key);
                of.and_then(|(_, key)| key.holder.clone()).unwrap_or_else(|| key.to_owned())
            };
            let open: Vec<_> =
                rule.by.iter().map(|key| key.as_str()).filter(|key| !people.contains(person(key).as_str())).collect();
            let is_here =
                |key: &&&str| self.ring.entry(key).is_ok_and(|entry| self.ring.is_within_reach(&entry.public.id()));
            let step = event.with_cohort(cohort);
            return Ok(Some(match open.iter().find(is_here) {
                Some(key) => NextStep::run(
                    format!("tidegate rollout approve {name} --step {} --key {key}", event.name()),
                    format!("{id}: policy.toml requires {} approvals of {step}", rule.count),
                ),
                None => NextStep::wait(format!("{id}: {step} waits for approval by {}", open.join(", ")), None),
            }));
        }
        Ok(None)
    }

    fn rollout(&self, record: &Record, name: &str) -> Result<Option<NextStep>> {
        let spec = record.id().to_string().parse().map_err(|e: String| Error::bug(e))?;
        let transaction = match RolloutTransaction::open(self.workspace, &spec, self.now) {
            Ok(transaction) => transaction,
            Err(error) => return Ok(Some(NextStep::refused(&error))),
        };
        let policy = self.workspace.policy()?;
        let steps = Steps { situation: self, record, name, transaction: &transaction, policy: &policy };
        match record.state {
            _ if record.paused => Ok(Some(steps.paused())),
            ReleaseState::Registered | ReleaseState::Validation => steps.step(ReleaseEvent::Start).map(Some),
            _ => steps.go_on().map(Some),
        }
    }

    /// What is due, though it has not expired.
    fn renewals(&self) -> NextStep {
        let due: Vec<_> = due(self.repository, self.now).collect();
        let online = due.iter().any(|role| is_online(&role.name) && self.signs(&role.name));
        if online {
            return NextStep::run("tidegate refresh", "roles expire soon");
        }
        let offline: Vec<_> = due.iter().map(|role| role.name.as_str()).filter(|role| !is_online(role)).collect();
        if !offline.is_empty() && !self.dir().join(ceremony::FILE).exists() {
            return renewal(&offline, "expires soon");
        }
        let quarter = |role: &RoleFile| Some(role.expires - (role.expires - role.issued?) / 4 + TimeDelta::seconds(1));
        let next = self.repository.roles().filter_map(quarter).filter(|at| *at > self.now).min();
        NextStep::wait("no release is in progress, and no role is to be renewed yet", next)
    }
}

/// The next step of the ceremony that is in progress; without a repository, of the first root. `None` if there is no ceremony.
///
/// # Errors
///
/// Fails if the proposal says what signatures cannot meet.
pub fn ceremony_step(
    workspace: &Workspace,
    ring: &KeyRing,
    repository: Option<&Repository>,
    now: DateTime<Utc>,
) -> Result<Option<NextStep>> {
    let abort = |error: &Error| {
        let why = format!("the proposal of the ceremony cannot be used: {}", error.text());
        Ok(Some(NextStep::run("tidegate ceremony abort", why)))
    };
    let (proposal, verified) = match ceremony::open(workspace, repository) {
        Ok(opened) => opened,
        Err(error) if error.broken_rule() == Some(Rule::CeremonyNone) => return Ok(None),
        Err(error) => return abort(&error),
    };
    if let Some(Err(error)) = repository.map(|repository| proposal::check_follows(&proposal, repository)) {
        return abort(&error);
    }
    if let Err(error) = proposal::objections(&proposal, &verified).refuse(&BTreeSet::new()) {
        return Ok(Some(NextStep::refused(&error)));
    }
    let open: Vec<_> =
        verified.requirement_status(&proposal)?.into_iter().filter(|requirement| !requirement.is_met()).collect();
    if open.is_empty() {
        let why = format!("{} has all signatures", proposal.subject);
        let finish = NextStep::run("tidegate ceremony finish", why);
        return Ok(Some(match ceremony::out_of_reach(workspace, repository, (&proposal, &verified), ring, now) {
            Ok(away) => finish.elsewhere(&away, ring),
            Err(error) => NextStep::refused(&error),
        }));
    }
    let keys = signers(ring, &open, &verified);
    let missing: BTreeSet<_> =
        open.iter().flat_map(|requirement| &requirement.missing).map(|id| proposal.label(id)).collect();
    let missing: Vec<_> = missing.into_iter().collect();
    Ok(Some(if keys.is_empty() { awaited(&proposal, &missing) } else { signing_command(&proposal, &keys) }))
}

/// Keys that are here, as many as the open requirements of a ceremony take, and no two of one holder for one of them.
fn signers(ring: &KeyRing, open: &[RequirementStatus], verified: &Verified) -> Vec<String> {
    let mut chosen: Vec<KeyId> = Vec::new();
    for requirement in open {
        let holders = |ids: &[KeyId]| -> BTreeSet<_> {
            let of = ids.iter().filter(|id| requirement.signed.contains(id) || requirement.missing.contains(id));
            of.filter_map(|id| verified.holders.get(id).cloned()).collect()
        };
        let mut here: Vec<_> = requirement.missing.iter().filter(|id| ring.is_within_reach(id)).collect();
        here.sort_by_key(|id| ring.label(id));
        for id in here {
            let counted = requirement.missing.iter().filter(|id| chosen.contains(id)).count() as u64;
            let enough = requirement.signed.len() as u64 + counted >= requirement.threshold;
            let taken = |ids: &[KeyId]| verified.holders.get(id).is_some_and(|holder| holders(ids).contains(holder));
            let again = taken(&requirement.signed) || taken(&chosen);
            if !enough && !again && !chosen.contains(id) {
                chosen.push(id.clone());
            }
        }
    }
    chosen.iter().filter_map(|id| ring.by_id(id)).map(|entry| entry.name.clone()).collect()
}

fn renewal(roles: &[&str], why: &str) -> NextStep {
    let renew = roles.join(" --renew ");
    NextStep::run(format!("tidegate ceremony start --renew {renew}"), format!("{} {why}", roles.join(", ")))
}

/// Snapshot, timestamp and cohorts, which a machine renews.
fn is_online(role: &str) -> bool {
    matches!(role, "snapshot" | "timestamp") || matches!(DelegatedRole::parse(role), Some(DelegatedRole::Cohort { .. }))
}

/// That a ceremony waits for people elsewhere.
fn awaited(proposal: &Proposal, missing: &[String]) -> NextStep {
    NextStep::wait(
        format!(
            "{} waits for signatures of {}: send them {}, and add their copies with tidegate ceremony combine FILE",
            proposal.subject,
            missing.join(", "),
            ceremony::FILE
        ),
        None,
    )
}

fn signing_command(proposal: &Proposal, keys: &[String]) -> NextStep {
    let keys = keys.join(" --key ");
    NextStep::run(format!("tidegate ceremony sign --key {keys}"), format!("{} waits for signatures", proposal.subject))
}

/// The steps of one release's rollout.
struct Steps<'a> {
    situation: &'a Situation<'a>,
    record: &'a Record,
    name: &'a str,
    transaction: &'a RolloutTransaction<'a>,
    policy: &'a Policy,
}

impl Steps<'_> {
    /// A step, if it is accepted; else what it takes before, or until when it is refused.
    fn step(&self, event: ReleaseEvent) -> Result<NextStep> {
        let (id, now) = (self.record.id(), self.situation.now);
        let why = || format!("{id} is {}", self.record.status());
        let error = match self.transaction.check(event, RampRequest::default()) {
            Ok(()) => return Ok(self.run(event, "", why())),
            Err(error) => error,
        };
        let ramp = RampRequest { span: Some(self.policy.rollout.shortest_ramp), ..RampRequest::default() };
        match error.broken_rule() {
            Some(Rule::ReleaseStep) => match self.transaction.check(event, ramp) {
                Ok(()) => {
                    let span = format!(" --ramp {}", self.policy.rollout.shortest_ramp);
                    Ok(self.run(event, &span, why()))
                }
                Err(error) => self.instead(event, &error),
            },
            Some(Rule::ReleaseCohorts | Rule::ReleaseSoak) if error.refused_until().is_none() => {
                Ok(NextStep { at: self.ramps_end(now), ..NextStep::refused(&error) })
            }
            _ => self.instead(event, &error),
        }
    }

    /// What a refused step takes before it.
    fn instead(&self, event: ReleaseEvent, error: &Error) -> Result<NextStep> {
        let (situation, record) = (self.situation, self.record);
        match error.broken_rule() {
            Some(Rule::ReleaseValidated) if situation.lacks_artifacts(record) => {
                let place = if situation.settings.publish.place.is_empty() { " PLACE" } else { "" };
                let why = format!("the artifacts of {} are not here, and checks take them", self.name);
                Ok(NextStep::run(format!("tidegate pull{place} --artifacts"), why))
            }
            Some(Rule::ReleaseValidated) => {
                let validate = format!("tidegate release validate {}", self.name);
                let failed = situation.failed(record);
                Ok(failed.unwrap_or_else(|| NextStep::run(validate, error.text())))
            }
            Some(Rule::ReleaseApproval) => {
                let cohort = self.transaction.next_step().map(|(current, _)| &current.cohort);
                let cohort = cohort.filter(|_| event == ReleaseEvent::Advance);
                let approval = situation.approval(record, self.name, event, cohort)?;
                Ok(approval.unwrap_or_else(|| NextStep::refused(error)))
            }
            // What is retracted is withdrawn before.
            Some(Rule::ReleaseRetract) => {
                let withdraw = |bad: String| {
                    let step = NextStep::run(format!("tidegate rollout withdraw {bad}"), error.text());
                    self.signing(step)
                };
                Ok(self.transaction.still_offered()?.map_or_else(|| NextStep::refused(error), withdraw))
            }
            _ => Ok(NextStep::refused(error)),
        }
    }

    /// That a person paused it, who decides how it goes on.
    fn paused(&self) -> NextStep {
        let (id, name) = (self.record.id(), self.name);
        let receipts = &self.situation.settings.receipts;
        let reports = if receipts.places.is_empty() { "" } else { ", and what devices report (tidegate receipts)" };
        let why = format!(
            "{id} is paused: see who paused it and why (tidegate log){reports}; then tidegate rollout resume {name}, or for good tidegate rollout withdraw {name}"
        );
        NextStep::wait(why, None)
    }

    /// The step as a command, which publishes where it is said where to.
    fn run(&self, event: ReleaseEvent, options: &str, why: String) -> NextStep {
        let place = !self.situation.settings.publish.place.is_empty();
        let reachable = self.situation.publication.iter().all(|place| place.unreachable.is_none());
        let publish = if place && reachable { " --publish" } else { "" };
        let command = format!("tidegate rollout {} {}{options}{publish}", event.name(), self.name);
        self.signing(NextStep::run(command, why))
    }

    /// A step of a rollout where the online keys are.
    fn signing(&self, step: NextStep) -> NextStep {
        let cohort = self.transaction.in_force().first().map(|current| current.role.as_str());
        self.situation.signing(step, cohort.into_iter().chain(["snapshot", "timestamp"]))
    }

    /// A rollout under way: kept from ending by itself, advanced, completed.
    fn go_on(&self) -> Result<NextStep> {
        let now = self.situation.now;
        let sequence = self.record.manifest.as_ref().map_or(0, |manifest| manifest.sequence);
        let offers = self.transaction.in_force().iter().filter_map(|current| current.offer(sequence));
        let ends = offers.filter_map(|offer| offer.until).min();
        if ends.is_some_and(|ends| ends <= now) {
            return self.step(ReleaseEvent::Renew);
        }
        let has_next = self.record.state == ReleaseState::Limited && self.transaction.next_step().is_some();
        let step = self.step(if has_next { ReleaseEvent::Advance } else { ReleaseEvent::Complete })?;
        let renew_at = ends.map(|ends| ends - self.policy.rollout.max_unattended.delta() / 4);
        match (&step.command, renew_at) {
            (None, Some(at)) if at <= now => self.step(ReleaseEvent::Renew),
            (None, Some(at)) if step.at.is_none_or(|until| at < until) => Ok(NextStep { at: Some(at), ..step }),
            _ => Ok(step),
        }
    }

    /// When the last ramp of the release that is running ends.
    fn ramps_end(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let sequence = self.record.manifest.as_ref()?.sequence;
        let offers = self.transaction.in_force().iter().filter_map(|current| current.offer(sequence));
        offers.filter_map(|offer| offer.ramp).map(|ramp| ramp.end()).filter(|end| *end > now).max()
    }
}

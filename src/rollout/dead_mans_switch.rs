//! The dead man's switch, separate for each release.
//!
//! A cohort's role contains the offers of every product, and expires as a whole. To keep an attended release from extending an
//! unattended one, each limited assignment records when somebody last attended to it (`attended`). The role lives until the first
//! of these deadlines, and overdue releases are paused when the role is signed again.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use tidegate_model::layout;
use tidegate_model::name::Name;
use tidegate_model::rollout::{Assignment, Ramp, Stage};
use tidegate_model::time;
use tidegate_model::version::Version;
use tidegate_tuf::metadata::Targets;

use crate::error::{Error, Result};
use crate::fs::Changes;
use crate::metadata::Document;
use crate::policy::{Policy, Status};
use crate::release::draft::happening;
use crate::release::{ReleaseId, record};
use crate::workspace::in_force::{custom, digest, read};
use crate::workspace::{Ledger, Workspace};
use tidegate_model::span::Span;

/// The field of an assignment with the time when somebody last attended to it.
const ATTENDED: &str = "attended";
/// The field of a paused assignment with the start of the pause.
pub(super) const PAUSED_SINCE: &str = "paused_since";

/// A release that has been unattended for too long.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unattended {
    pub(super) product: Name,
    pub(super) release: Version,
}

impl Unattended {
    /// Records in the release's record and in the ledger that it is paused.
    pub(super) fn pause(
        &self,
        workspace: &Workspace,
        channel: &Name,
        ledger: &mut Ledger,
        changes: &mut Changes,
        (policy, actor, now): (&Policy, &str, DateTime<Utc>),
    ) -> Result<()> {
        let Self { product, release } = self;
        let id = ReleaseId { channel: channel.clone(), product: product.clone(), version: release.clone() };
        let mut record = record::load(workspace.dir(), &id)?.ok_or_else(|| {
            Error::input(format!("{id} is offered, and there is no record of it"))
                .remedy("restore releases/ from version control")
        })?;
        let before = record.status();
        record.set_status(Status { paused: true, ..before });
        record.put(changes)?;
        let why = format!("nobody looked after it for {}", policy.rollout.max_unattended);
        let evidence = Map::from_iter([("reason".to_owned(), Value::from(why))]);
        ledger.append(now, happening("pause", &record, Some(before), actor, evidence))
    }
}

/// Records that somebody attends to a limited assignment. If it was overdue, it was not offered in between: its ramp continues
/// from where it was.
pub(super) fn attend(assignment: &mut Assignment, policy: &Policy, now: DateTime<Utc>) -> Result<()> {
    if let Some(stopped) = stopped(assignment, policy, now)
        && let Some(ramp) = assignment.ramp.filter(|ramp| ramp.end() > stopped)
    {
        assignment.ramp = Some(moved(ramp, now - stopped)?);
    }
    attend_to(assignment, now);
    Ok(())
}

/// Since when a limited assignment is not offered because it is unattended; `None` if it is offered or paused.
pub(super) fn stopped(assignment: &Assignment, policy: &Policy, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    deadline(assignment, policy).filter(|deadline| *deadline < now && !assignment.paused)
}

/// Ends a pause: the ramp continues from where it was, shifted by the length of the pause.
pub(crate) fn resume(assignment: &mut Assignment, now: DateTime<Utc>) -> Result<()> {
    assignment.paused = false;
    let since = assignment.extra.remove(PAUSED_SINCE);
    // Without this field the cohort was not paused but unattended, which `attend` handles.
    let Some(since) = since.as_ref().and_then(Value::as_str).and_then(|text| time::parse(text).ok()) else {
        return Ok(());
    };
    if let Some(ramp) = assignment.ramp.filter(|ramp| ramp.end() > since) {
        assignment.ramp = Some(moved(ramp, now - since)?);
    }
    attend_to(assignment, now);
    Ok(())
}

fn attend_to(assignment: &mut Assignment, now: DateTime<Utc>) {
    if assignment.stage == Stage::Limited {
        assignment.extra.insert(ATTENDED.into(), time::format(now).into());
    } else {
        assignment.extra.remove(ATTENDED);
    }
}

fn moved(ramp: Ramp, by: TimeDelta) -> Result<Ramp> {
    Ramp::new(ramp.start() + by, ramp.end() + by, ramp.from(), ramp.to())
        .map_err(|e| Error::input("the ramp cannot be moved").with_source(e))
}

/// The deadline of an unattended assignment; `None` if it lives as long as its role.
fn deadline(assignment: &Assignment, policy: &Policy) -> Option<DateTime<Utc>> {
    let attended = assignment.extra.get(ATTENDED).and_then(Value::as_str).and_then(|text| time::parse(text).ok());
    let since = attended.unwrap_or(assignment.assigned);
    (assignment.stage == Stage::Limited).then(|| since + policy.rollout.max_unattended.delta())
}

/// Pauses an assignment that has been unattended for too long. Returns whether it was overdue and not paused before.
pub(super) fn let_go(assignment: &mut Assignment, policy: &Policy, now: DateTime<Utc>) -> bool {
    let run_out = deadline(assignment, policy).filter(|deadline| *deadline <= now);
    run_out.is_some_and(|deadline| lapse(assignment, deadline, now))
}

fn lapse(assignment: &mut Assignment, deadline: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    let went_on = !assignment.paused;
    if went_on {
        assignment.paused = true;
        // Devices have been offered nothing since then, so that part of the ramp is still to come.
        assignment.extra.insert(PAUSED_SINCE.into(), time::format(deadline).into());
    }
    // A pause has a deadline, too, which starts now.
    assignment.extra.insert(ATTENDED.into(), time::format(now).into());
    went_on
}

/// How long a cohort's role may live that lists `targets`, with `assignment` for the release of the product `own`.
///
/// Pauses the overdue releases of other products in `document`, and returns them.
pub(super) fn settle(
    document: &mut Document,
    targets: Option<&Targets>,
    (channel, cohort, own): (&Name, &Name, &Name),
    assignment: Option<&Assignment>,
    (policy, ordinary): (&Policy, Span),
    now: DateTime<Utc>,
) -> Result<(TimeDelta, Vec<Unattended>)> {
    let mut unattended = Vec::new();
    let mut until = now + ordinary.delta();
    if let Some(deadline) = assignment.and_then(|assignment| deadline(assignment, policy)) {
        until = until.min(deadline);
    }
    let own_path = layout::assignment_path(channel, cohort, own);
    for (path, file) in targets.into_iter().flat_map(|targets| &targets.targets).filter(|(path, _)| **path != own_path)
    {
        let Some(mut other) = read(path, file)? else { continue };
        let Some(deadline) = deadline(&other, policy) else { continue };
        if deadline > now {
            until = until.min(deadline);
            continue;
        }
        let product = path.rsplit('/').next().and_then(|name| name.strip_suffix(".json")?.parse().ok());
        let product = product.ok_or_else(|| Error::input(format!("{path} is no assignment")))?;
        if lapse(&mut other, deadline, now) {
            unattended.push(Unattended { product, release: other.release.clone() });
        }
        until = until.min(now + policy.rollout.max_unattended.delta());
        let sha256 = *digest(file)?.as_bytes();
        document.set_target(path, file.length, &sha256, Some(custom(&other)?));
    }
    Ok((until - now, unattended))
}

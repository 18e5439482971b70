//! The command that comes next, for hints and `status`.

use super::context::Context;
use crate::error::Result;
use crate::keys::NoPassphrases;
use crate::publish::{PublicationStatus, publication_status};
use crate::release::record::{self, ReleaseId};
use crate::report::next::{NextStep, Situation, next, next_of, next_to_first_root};
use crate::workspace::Workspace;

/// The next step of the workspace, given the status of its places.
pub(super) fn step(cx: &Context, workspace: &Workspace, publication: &[PublicationStatus]) -> Result<NextStep> {
    with(cx, workspace, publication, next)
}

/// The next step of a release, given the status of the places.
pub(super) fn of(
    cx: &Context,
    workspace: &Workspace,
    publication: &[PublicationStatus],
    id: &ReleaseId,
) -> Result<Option<NextStep>> {
    with(cx, workspace, publication, |situation| next_of(situation, id))
}

/// Hints at what comes next for a release, after a command on it. Asks no place: what was published last from here counts.
pub(super) fn hint(cx: &Context, workspace: &Workspace, id: &ReleaseId) {
    if cx.ui.is_json() || cx.ui.is_quiet() || cx.ui.is_step() {
        return;
    }
    let found = workspace.repository().and_then(|repository| {
        let publication = publication_status(&cx.dir, &repository, &[])?;
        of(cx, workspace, &publication, id)
    });
    // The command itself has succeeded.
    if let Ok(Some(step)) = found {
        cx.ui.hint(step);
    }
}

/// Hints at what comes next for the workspace, after a step of a ceremony.
pub(super) fn hint_at_all(cx: &Context, workspace: &Workspace) {
    if cx.ui.is_json() || cx.ui.is_quiet() || cx.ui.is_step() {
        return;
    }
    let found = workspace.repository().and_then(|repository| {
        let publication = publication_status(&cx.dir, &repository, &[])?;
        step(cx, workspace, &publication)
    });
    if let Ok(step) = found {
        return cx.ui.hint(step);
    }
    // Nothing is in force before the first root.
    let first = workspace.settings().and_then(|settings| next_to_first_root(workspace, &settings, cx.now));
    if let Ok(Some(step)) = first {
        cx.ui.hint(step);
    }
}

fn with<T>(
    cx: &Context,
    workspace: &Workspace,
    publication: &[PublicationStatus],
    look: impl FnOnce(&Situation<'_>) -> Result<T>,
) -> Result<T> {
    let (settings, repository) = (workspace.settings()?, workspace.repository()?);
    let ring = workspace.ring(&settings, Box::new(NoPassphrases))?;
    look(&Situation {
        workspace,
        settings: &settings,
        repository: &repository,
        ring: &ring,
        records: &record::all(workspace.dir())?,
        publication,
        now: cx.now,
    })
}

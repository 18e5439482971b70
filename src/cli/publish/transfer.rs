//! Carrying out a plan on a terminal, for all commands that do.

use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};

use crate::audit;
use crate::cli::ui::Ui;
use crate::error::{Error, Result, Rule};
use crate::publish::{self, Plan, PublishEvent, PublishReport, Remote, Source};

/// Carries `plan` out, and shows how far it is; `doing` says what.
pub(in crate::cli) async fn carry_out(
    plan: &Plan,
    source: &Source,
    remote: &Remote,
    ui: &Ui,
    doing: &str,
) -> Result<PublishReport> {
    let progress = Mutex::new(ui.progress_bytes(plan.totals().bytes, doing));
    publish::execute(plan, source, remote, &|event| {
        if let PublishEvent::Sent(bytes) = event {
            progress.lock().unwrap_or_else(PoisonError::into_inner).advance(bytes);
        }
    })
    .await
}

/// Reads back and verifies what was written.
///
/// # Errors
///
/// `P-READ-BACK` if it does not verify.
pub(in crate::cli) async fn read_back(
    plan: &Plan,
    source: &Source,
    remote: &Remote,
    ui: &Ui,
    now: DateTime<Utc>,
) -> Result<audit::AuditReport> {
    ui.status(format_args!("reading back what was written to {}", remote.name()));
    let audit = publish::read_back(plan, source, remote, now).await?;
    // What has expired was reported, and is as it was; tough refuses the whole repository for it.
    let is_known = |subject: &String| plan.expired.contains(subject) || plan.ahead.contains(subject);
    let known = |found: &audit::Found| !plan.expired.is_empty() && found.by == audit::TOUGH || is_known(&found.subject);
    if audit.ok || audit.faults.iter().all(known) {
        return Ok(audit);
    }
    ui.status_block(&audit);
    Err(Error::trust(format!("what was just written to {} does not verify", remote.name()))
        .rule(Rule::PublishReadBack)
        .remedy("devices keep what they have; find out what changed it, and run this again"))
}

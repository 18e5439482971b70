//! `tidegate ceremony status`: who has signed.

use clap::Args as ClapArgs;
use serde_json::json;

use super::proposal::Which;
use super::{read_out, show};
use crate::cli::context::Context;
use crate::error::Result;
use crate::keys::NoPassphrases;
use crate::proposal::RequirementStatus;
use crate::report::next::{NextStep, ceremony_step};
use crate::workspace::Workspace;

/// Show who has signed and who is missing
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let opened = args.which.open(cx)?;
    if cx.ui.is_json() {
        let requirements = opened.verified.requirement_status(&opened.proposal)?;
        return cx.ui.json(&json!({
            "subject": opened.proposal.subject,
            "digest": opened.proposal.digest()?,
            "thresholds": requirements,
            "complete": requirements.iter().all(RequirementStatus::is_met),
        }));
    }
    cx.ui.result(format_args!("{}, proposal {}", opened.proposal.subject, read_out(&opened.proposal.digest()?)))?;
    show::requirements(cx, &opened.proposal, &opened.verified)?;
    if opened.verified.requirement_status(&opened.proposal)?.iter().all(RequirementStatus::is_met) {
        match finish(cx).ok().flatten().filter(|_| args.which.file.is_none()) {
            // It may have to be finished where the online keys are.
            Some(step) => cx.ui.hint(step),
            None => cx.ui.hint("tidegate ceremony finish"),
        }
    } else if args.which.file.is_none() {
        cx.ui.hint("tidegate ceremony combine COPY..., once a signer has sent one back");
    }
    Ok(())
}

/// What comes next in the workspace's own ceremony.
fn finish(cx: &Context) -> Result<Option<NextStep>> {
    let workspace = Workspace::open_to_read(&cx.dir)?;
    let ring = workspace.ring(&workspace.settings()?, Box::new(NoPassphrases))?;
    ceremony_step(&workspace, &ring, workspace.repository_if_any()?.as_ref(), cx.now)
}

//! `tidegate rollout approve`: a signature that lets a step go ahead.

use clap::Args as ClapArgs;
use serde_json::json;
use tidegate_model::name::Name;

use super::context::{Context, actor};
use super::next;
use super::passphrase::PassphraseArgs;
use crate::error::{Error, Result};
use crate::policy::{ApprovalRule, ReleaseEvent, ReleaseState};
use crate::release::approval;
use crate::release::record::ReleaseSpec;
use crate::rollout::RolloutTransaction;
use crate::workspace::{Operation, Workspace};

/// Approve, with a signature, a step that requires approval under policy.toml
///
/// The signature covers the manifest, the step and the current state of the release; it ends when that state changes.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate rollout approve 1.2.0 --key release-1
  tidegate rollout approve 1.2.0 --step advance --cohort general --key release-1")]
pub(super) struct Args {
    /// The release
    release: ReleaseSpec,
    /// The step: register, expose, start, advance, resume or complete [default: the next one]
    #[arg(long, value_name = "STEP", value_parser = parse_step)]
    step: Option<ReleaseEvent>,
    /// The cohort to advance to [default: the next one]
    #[arg(long, value_name = "NAME")]
    cohort: Option<Name>,
    /// The key to approve with, as tidegate.toml names it
    #[arg(long, value_name = "NAME")]
    key: String,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let mut ring = workspace.ring(&workspace.settings()?, args.passphrase.source())?;
    let transaction = RolloutTransaction::open(&workspace, &args.release, cx.now)?;
    let next = transaction.next_step().map(|(current, _)| current.cohort.clone());
    let record = transaction.record();
    let step = args.step.unwrap_or(match record.state {
        _ if record.paused => ReleaseEvent::Resume,
        ReleaseState::Draft | ReleaseState::Signed => ReleaseEvent::Register,
        ReleaseState::Limited if next.is_some() => ReleaseEvent::Advance,
        ReleaseState::Limited | ReleaseState::Security => ReleaseEvent::Complete,
        _ => ReleaseEvent::Start,
    });
    if args.cohort.is_some() && step != ReleaseEvent::Advance {
        return Err(Error::usage(format!("the step {} is not for one cohort", step.name()))
            .remedy("leave out --cohort, or give --step advance"));
    }
    let cohort = if step == ReleaseEvent::Advance { args.cohort.clone().or(next) } else { None };
    let (record, approval) = approval::approve(
        &mut Operation::new(&workspace, &actor(), cx.now, &mut ring),
        &args.release,
        step,
        cohort,
        &args.key,
    )?;
    if cx.ui.is_json() {
        return cx.ui.json(&json!({"release": record.id().to_string(), "approval": approval}));
    }
    let what = step.with_cohort(approval.statement.cohort.as_ref());
    cx.ui.status(format_args!("Approved {what} of {} with {}", record.id(), args.key));
    cx.ui.status(format_args!("  manifest sha256 {}", approval.statement.manifest));
    drop(transaction);
    next::hint(cx, &workspace, &record.id());
    Ok(())
}

fn parse_step(text: &str) -> Result<ReleaseEvent, String> {
    ApprovalRule::STEPS
        .into_iter()
        .find(|step| step.name() == text)
        .ok_or_else(|| format!("take one of: {}", ApprovalRule::STEPS.map(ReleaseEvent::name).join(", ")))
}

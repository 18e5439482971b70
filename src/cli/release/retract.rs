//! `tidegate release retract`: takes a bad release back.

use clap::Args as ClapArgs;
use serde_json::json;

use super::{frozen_json, parse_urgency, tell_frozen};
use crate::cli::context::{Context, actor};
use crate::error::Result;
use crate::keys::KeyRing;
use crate::policy::ReleaseState;
use crate::release::record::{RecordedUrgency, ReleaseSpec};
use crate::release::retract::{RetractionRequest, retract};
use crate::workspace::{Operation, Workspace};

/// Replace a bad release by one with a higher sequence and the bytes of an older one
///
/// Devices that run the bad release move to it, others stay, and no device goes back in sequence. Withdraw the bad release first,
/// so that no more devices get it; then sign, validate, register and roll out the new one like any other.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate release retract 1.3.0 --reason 'does not boot on board-b'
  tidegate release retract 1.3.1 --also 1.3.0 --to 1.2.0 --urgency security")]
pub(super) struct Args {
    /// The bad release
    release: ReleaseSpec,
    /// Another release that is replaced with it (repeatable)
    #[arg(long, value_name = "RELEASE")]
    also: Vec<ReleaseSpec>,
    /// The release whose bytes their devices get [default: the newest earlier one that was offered]
    #[arg(long, value_name = "RELEASE")]
    to: Option<ReleaseSpec>,
    /// normal, or security, which is offered to all cohorts at once
    #[arg(long, value_name = "URGENCY", default_value = "normal", value_parser = parse_urgency)]
    urgency: RecordedUrgency,
    /// The reason, for the ledger and for the release's notes
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) fn run(args: &Args, cx: &Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let request = RetractionRequest {
        bad: std::iter::once(&args.release).chain(&args.also).cloned().collect(),
        to: args.to.clone(),
        urgency: args.urgency,
        reason: args.reason.clone(),
    };
    let retracted = retract(&mut Operation::new(&workspace, &actor(), cx.now, &mut KeyRing::empty()), &request)?;
    let bad: Vec<_> = retracted.bad.iter().map(|bad| bad.id().to_string()).collect();
    if cx.ui.is_json() {
        let mut told = frozen_json(&retracted.frozen);
        if let Some(told) = told.as_object_mut() {
            told.insert("retracts".into(), json!(bad));
            told.insert("carries".into(), json!(retracted.to.id().to_string()));
        }
        return cx.ui.json(&told);
    }
    let id = retracted.frozen.record.id();
    cx.ui.status(format_args!("{id} replaces {}, with the bytes of {}", bad.join(", "), retracted.to.id()));
    tell_frozen(cx, &workspace, &retracted.frozen)?;
    for bad in retracted.bad.iter().filter(|bad| !matches!(bad.state, ReleaseState::Withdrawn | ReleaseState::Retired))
    {
        cx.ui.status(format_args!("So that no more devices get {0}: tidegate rollout withdraw {0}", bad.id()));
    }
    Ok(())
}

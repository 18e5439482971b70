//! `tidegate log`: what happened.

use clap::Args as ClapArgs;
use tidegate_model::time;

use super::context::Context;
use crate::error::{Error, Result, Rule};
use crate::release::audit;
use crate::workspace::ledger::{Cause, FILE};
use crate::workspace::{Ledger, Workspace};

/// Show the ledger, or verify it
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Verify its hash chain, and the states of the releases against it
    #[arg(long)]
    verify: bool,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let workspace = Workspace::open_to_read(&cx.dir)?;
    let (entries, breaks) = Ledger::examine(workspace.dir())?;
    if args.verify {
        let (entries, wrong) = audit::audit(workspace.dir())?;
        if let Some(first) = wrong.first() {
            let error = Error::trust(format!("{FILE}: {first}")).rule(Rule::LedgerChain);
            return Err(match breaks.first().map(|first| first.cause) {
                Some(cause @ (Cause::LineEnds | Cause::Unmerged)) => error.remedy(cause.remedy()),
                _ => error.remedy(format!(
                    "{} faults; restore the ledger from version control and find out who changed it",
                    wrong.len()
                )),
            });
        }
        if cx.ui.is_json() {
            return cx
                .ui
                .json(&serde_json::json!({"entries": entries.len(), "head": entries.last().map(|last| &last.hash)}));
        }
        let head = entries.last().map_or("-", |last| last.hash.as_str());
        return cx.ui.result(format_args!("{} entries, the chain is intact up to {head}", entries.len()));
    }
    if let Some(first) = breaks.first() {
        cx.ui.warn(format_args!("the chain is broken at line {}: {}", first.line, first.why));
    }
    if cx.ui.is_json() {
        return cx.ui.json(&entries);
    }
    for entry in &entries {
        let change = match (&entry.from, &entry.to) {
            (Some(from), Some(to)) if from != to => format!("  {from} -> {to}"),
            _ => String::new(),
        };
        let reason = entry.evidence.get("reason").and_then(|reason| reason.as_str()).or(entry.reason.as_deref());
        let reason = reason.map(|reason| format!("  ({reason})")).unwrap_or_default();
        let time = time::format(entry.time);
        cx.ui
            .result(format_args!("{time}  {:<9} {}{change}  by {}{reason}", entry.event, entry.subject, entry.actor))?;
    }
    Ok(())
}

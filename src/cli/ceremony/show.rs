//! `tidegate ceremony show`, and how the other commands show proposals.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::json;

use super::super::show;
use super::proposal::{Allowed, Which};
use crate::cli::context::Context;
use crate::error::Result;
use crate::fs;
use crate::proposal::{self, Proposal, Rehearsal, Review, Verified};

/// Show what a proposal changes
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    /// Write the exact bytes to sign for this role, for openssl or pkcs11-tool
    #[arg(long, value_name = "ROLE", requires = "out")]
    signed_bytes: Option<String>,
    /// Where to write them
    #[arg(long, value_name = "FILE", requires = "signed_bytes")]
    out: Option<PathBuf>,
    #[command(flatten)]
    allowed: Allowed,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let opened = args.which.open(cx)?;
    if let (Some(role), Some(out)) = (&args.signed_bytes, &args.out) {
        proposal::objections(&opened.proposal, &opened.verified).refuse(&args.allowed.names())?;
        fs::write_atomic(out, &opened.proposal.signed_bytes(role)?)?;
        if cx.ui.is_json() {
            return cx.ui.json(&json!({"written": out, "role": role}));
        }
        cx.ui.status(format_args!("written to {}: sign exactly these bytes", out.display()));
        cx.ui.hint(format_args!("tidegate ceremony combine --signature {role}:KEY=FILE"));
        return Ok(());
    }
    review(cx, &proposal::review(&opened.proposal, &opened.verified, cx.now)?)?;
    if !cx.ui.is_json() {
        cx.ui.result("")?;
        requirements(cx, &opened.proposal, &opened.verified)?;
    }
    Ok(())
}

/// What a proposal changes.
pub(super) fn review(cx: &Context, review: &Review) -> Result<()> {
    if cx.ui.is_json() {
        return cx.ui.json(review);
    }
    for line in review.lines() {
        cx.ui.result(line)?;
    }
    Ok(())
}

/// Who has signed and who is missing.
pub(in crate::cli) fn requirements(cx: &Context, proposal: &Proposal, verified: &Verified) -> Result<()> {
    let names = |ids: &[tidegate_tuf::key::KeyId]| {
        let mut names: Vec<_> = ids
            .iter()
            .map(|id| match verified.holders.get(id) {
                Some(holder) => format!("{} ({holder})", proposal.label(id)),
                None => proposal.label(id),
            })
            .collect();
        names.sort();
        if names.is_empty() { "-".to_owned() } else { names.join(", ") }
    };
    let rows: Vec<Vec<String>> = verified
        .requirement_status(proposal)?
        .iter()
        .map(|requirements| {
            let state = if requirements.is_met() { "met" } else { "open" };
            vec![
                requirements.role.clone(),
                requirements.by.clone(),
                format!("{} of {}", requirements.signed.len(), requirements.threshold),
                state.to_owned(),
                names(&requirements.signed),
                names(&requirements.missing),
            ]
        })
        .collect();
    show::table(&cx.ui, &["ROLE", "KEYS FROM", "HAS", "STATUS", "SIGNED", "MISSING"], &rows)
}

/// What a rehearsal showed.
pub(super) fn rehearsal(cx: &Context, rehearsal: &Rehearsal) -> Result<()> {
    if cx.ui.is_json() {
        return cx.ui.json(rehearsal);
    }
    for fate in &rehearsal.devices {
        match &fate.error {
            None => cx.ui.result(format_args!("follows    {} -> root {}", fate.device, fate.root))?,
            Some(error) => cx.ui.result(format_args!("STRANDED   {}: {error}", fate.device))?,
        }
    }
    cx.ui.result("")?;
    if rehearsal.moments.is_empty() {
        cx.ui.result("Every device verifies at every moment of publishing.")?;
    } else {
        cx.ui.result("While it is being published, these devices fail once and succeed at their next check:")?;
        for fate in &rehearsal.moments {
            cx.ui.result(format_args!("  {}", fate.device))?;
        }
    }
    cx.ui.result("")?;
    for loss in &rehearsal.losses {
        let lost = loss.lost.join(" and ");
        if loss.stuck.is_empty() {
            cx.ui.result(format_args!("without {lost}: can be signed"))?;
        } else {
            cx.ui.result(format_args!("without {lost}: {}", loss.stuck.join("; ")))?;
        }
    }
    Ok(())
}

//! `tidegate ceremony start`: propose.

use clap::Args as ClapArgs;

use super::show;
use crate::ceremony::{self, FILE};
use crate::cli::context::{Context, actor};
use crate::cli::next;
use crate::error::Result;
use crate::keys::KeyRing;
use crate::proposal::{self, ProposalRequest};
use crate::workspace::{Operation, Workspace};

/// Propose to sign what tidegate.toml says
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate ceremony start --reason 'add the third holder'
  tidegate ceremony start --renew root --renew targets")]
pub(super) struct Args {
    /// Renew this role even if nothing else in it changes: root, targets, or a channel (repeatable)
    #[arg(long, value_name = "ROLE")]
    renew: Vec<String>,
    /// The reason, shown to reviewers
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let request = ProposalRequest {
        renew: args.renew.iter().cloned().collect(),
        reason: args.reason.clone(),
        ..ProposalRequest::default()
    };
    let proposal = ceremony::start(&mut Operation::new(&workspace, &actor(), cx.now, &mut KeyRing::empty()), &request)?;
    let repository = workspace.repository()?;
    let verified = proposal::verify(&proposal, Some(repository.anchor()?))?;
    show::review(cx, &proposal::review(&proposal, &verified, cx.now)?)?;
    cx.ui.status("");
    cx.ui.status(format_args!("written to {}", cx.dir.join(FILE).display()));
    cx.ui.status("Rehearse it (tidegate ceremony rehearse), then send the file to signers who are elsewhere");
    next::hint_at_all(cx, &workspace);
    Ok(())
}

//! `tidegate ceremony rehearse`: play a proposal before anybody signs.

use std::collections::BTreeSet;

use clap::Args as ClapArgs;
use tidegate_tuf::key::KeyId;

use super::proposal::key_id;
use super::show;
use crate::ceremony;
use crate::cli::context::Context;
use crate::error::{Error, Result, Rule};
use crate::proposal::{self, Proposal, Verified};
use crate::workspace::Workspace;

/// Try the proposal on simulated devices at every root version, before anybody signs
///
/// Fails if any device could no longer update.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Assume that this key is lost (repeatable)
    #[arg(long, value_name = "NAME")]
    lost: Vec<String>,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let workspace = Workspace::open_to_read(&cx.dir)?;
    let repository = workspace.repository()?;
    let (proposal, verified) = ceremony::open(&workspace, Some(&repository))?;
    proposal::check_follows(&proposal, &repository)?;
    let lost = args.lost.iter().map(|name| lost_key(&proposal, &verified, name)).collect::<Result<BTreeSet<_>>>()?;
    let rehearsal = proposal::rehearse(&proposal, &verified, &repository, &lost, cx.now)?;
    show::rehearsal(cx, &rehearsal)?;
    let stranded = rehearsal.stranded().count();
    if stranded > 0 {
        let expired = rehearsal.stranded().all(|fate| fate.expired);
        return Err(Error::refused(
            Rule::CeremonyStranded,
            format!("{stranded} kinds of devices could no longer update"),
        )
        .remedy(if expired {
            "renew what has expired first: tidegate refresh; or for other roles tidegate ceremony abort, then tidegate ceremony start --renew ROLE"
        } else {
            "do not sign this proposal; tidegate ceremony abort, and change tidegate.toml"
        }));
    }
    cx.ui.hint(
        "send proposals/ceremony.json to its signers; each runs: tidegate ceremony sign FILE --root ROOT --key KEY",
    );
    Ok(())
}

/// A key that is taken for lost: also one that the proposal takes out, which has no say in it any more.
fn lost_key(proposal: &Proposal, verified: &Verified, text: &str) -> Result<KeyId> {
    let named = proposal.names.iter().find(|(_, name)| *name == text);
    named.map_or_else(|| key_id(proposal, verified, text), |(id, _)| Ok(id.clone()))
}

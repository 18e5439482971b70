//! `tidegate ceremony finish`: bring a proposal into force.

use clap::Args as ClapArgs;
use serde_json::json;

use super::super::passphrase::PassphraseArgs;
use super::super::publish::live;
use super::proposal::Allowed;
use crate::ceremony;
use crate::cli::context::{Context, actor};
use crate::cli::show;
use crate::error::Result;
use crate::proposal::Tool;
use crate::workspace::{Operation, Workspace, has_begun};

/// Put the signed proposal into force, and write its transcript
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    allowed: Allowed,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let (workspace, actor) = (Workspace::open(&cx.dir)?, actor());
    let settings = workspace.settings()?;
    let mut ring = workspace.ring(&settings, args.passphrase.source())?;
    let mut op = Operation::new(&workspace, &actor, cx.now, &mut ring);
    let is_first = !has_begun(workspace.dir())?;
    let done = ceremony::finish(&mut op, &args.allowed.names(), &Tool::this()?)?;
    if cx.ui.is_json() {
        return cx.ui.json(&json!({"roles": done.roles, "transcript": done.transcript}));
    }
    cx.ui.result(format_args!("in force: {}", done.roles.join(", ")))?;
    cx.ui.result(format_args!("transcript: {}", done.transcript.display()))?;
    if is_first {
        show::first_root(&cx.ui, workspace.dir())?;
    }
    cx.ui.status("Have the signers check the transcript: tidegate ceremony verify-transcript FILE");
    cx.ui.hint(live::publish_command(cx));
    Ok(())
}

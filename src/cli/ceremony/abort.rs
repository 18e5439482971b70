//! `tidegate ceremony abort`: give a ceremony up.

use clap::Args as ClapArgs;
use serde_json::json;

use crate::ceremony;
use crate::cli::context::{Context, actor};
use crate::error::Result;
use crate::keys::KeyRing;
use crate::workspace::{Operation, Workspace};

/// Abort the ceremony and remove its proposal
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    ceremony::abort(
        &mut Operation::new(&workspace, &actor(), cx.now, &mut KeyRing::empty()),
        args.reason.as_deref().map(crate::workspace::ledger::clean),
    )?;
    if cx.ui.is_json() {
        return cx.ui.json(&json!({"aborted": true, "reason": args.reason}));
    }
    cx.ui.status("aborted; only the ledger was changed");
    Ok(())
}

//! `tidegate release patch`: patches to a release that is signed already.

use clap::Args as ClapArgs;
use serde_json::json;
use tidegate_model::version::{self, Version};

use super::tell_patch;
use crate::ceremony::{self, FILE};
use crate::cli::context::{Context, actor};
use crate::cli::show;
use crate::error::Result;
use crate::keys::KeyRing;
use crate::release::delivery;
use crate::release::record::ReleaseSpec;
use crate::workspace::{Operation, Workspace};

/// Make patches to a release that is registered already
///
/// They are listed in a file of the channel, beside the manifest, which stays as it is. The channel's release keys sign in a ceremony.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  tidegate release patch 1.2.0 --from 1.0.0")]
pub(super) struct Args {
    /// The release
    release: ReleaseSpec,
    /// The version to start from (repeatable)
    #[arg(long, value_name = "VERSION", value_parser = version::parse, required = true)]
    from: Vec<Version>,
}

pub(super) fn run(args: &Args, cx: &Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let (actor, mut ring, mut bar) = (actor(), KeyRing::empty(), None);
    let mut op = Operation::new(&workspace, &actor, cx.now, &mut ring);
    let made = delivery::later(&op, &args.release, &args.from, |progress| show::step(&cx.ui, &mut bar, progress))?;
    drop(bar);
    let proposal = made.request.as_ref().map(|request| ceremony::start(&mut op, request)).transpose()?;
    if cx.ui.is_json() {
        return cx.ui.json(&json!({
            "release": made.release.to_string(),
            "patches": made.reports,
            "proposal": proposal.as_ref().map(|_| FILE),
        }));
    }
    for report in &made.reports {
        tell_patch(cx, &workspace, report)?;
    }
    if proposal.is_none() {
        cx.ui.status(format_args!("Nothing was proposed: {} has no patch to add", made.release));
        return Ok(());
    }
    cx.ui.status(format_args!("Proposed in {}; nothing has changed yet", cx.dir.join(FILE).display()));
    cx.ui.status("The release keys sign it: tidegate ceremony sign --key NAME");
    cx.ui.hint("tidegate ceremony show");
    Ok(())
}

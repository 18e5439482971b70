//! `tidegate diff`: what is different between two states.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::context::Context;
use crate::error::Result;
use crate::metadata::anchor_file;
use crate::report::view::{Place, diff};

/// Show changes between two states, and the devices affected
///
/// A state is a workspace, a folder or a URL; `PLACE@12` is what snapshot 12 listed, while its files exist. Both are verified
/// from a trusted root. "Devices affected" is decided by the code that devices run. Protected cohorts are compared only between
/// workspaces.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate diff ../public .
  tidegate diff ../public@1 ../public --root metadata/1.root.json")]
pub(super) struct Args {
    /// The old state
    old: String,
    /// The new state
    new: String,
    /// A root file that you trust [default: that of the workspace]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let of_workspace = anchor_file(&cx.dir)?;
    let root = args.root.clone().or_else(|| of_workspace.is_file().then_some(of_workspace));
    let (old, new) = (Place::parse(&args.old)?, Place::parse(&args.new)?);
    // A workspace holds what is protected as well. Against a place that does not, both are seen as the public sees them.
    let public = [&old, &new].into_iter().any(|place| place.as_workspace().is_none());
    let read = |place: &Place| {
        let root = root.as_deref();
        if public { place.read_as_the_public(root) } else { place.read(root) }
    };
    let changes = diff(&read(&old)?, &read(&new)?, cx.now);
    if cx.ui.is_json() { cx.ui.json(&changes) } else { cx.ui.block(changes) }
}

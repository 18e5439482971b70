//! `tidegate diff`: what is different between two states.

use clap::Args as ClapArgs;

use super::context::Context;
use super::place::{ReadArgs, place};
use crate::error::Result;
use crate::report::view::{Place, diff};
use crate::workspace::Workspace;

/// Show changes between two states, and the devices affected
///
/// Both states are verified from a trusted root. "Devices affected" is decided by the code that devices run. Protected cohorts are
/// compared between workspaces, and with --private.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate diff ../public .
  tidegate diff ../public@1 ../public --root metadata/1.root.json")]
pub(super) struct Args {
    #[arg(help = place!("The old state"))]
    old: String,
    #[arg(help = place!("The new state"))]
    new: String,
    #[command(flatten)]
    read: ReadArgs,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let root = args.read.root_file(cx)?;
    let (old, new) = (args.read.place(&args.old)?, args.read.place(&args.new)?);
    // No writer changes a workspace while it is read.
    let _locks = [&old, &new]
        .into_iter()
        .filter_map(|place| place.as_workspace().map(Workspace::open_to_read))
        .collect::<Result<Vec<_>>>()?;
    // A workspace holds what is protected as well. Against a place that does not, both are seen as the public sees them.
    let public = [&old, &new].into_iter().any(|place| !place.is_whole());
    let read = |place: &Place| {
        let root = root.as_deref();
        if public { place.read_as_the_public(root) } else { place.read(root) }
    };
    let changes = diff(&read(&old)?, &read(&new)?, cx.now);
    if cx.ui.is_json() { cx.ui.json(&changes) } else { cx.ui.block(changes) }
}

//! `tidegate verify`: an audit of a repository, by two implementations.

use std::sync::Arc;

use clap::Args as ClapArgs;

use super::context::{Context, block_on};
use super::place::{ReadArgs, place};
use crate::audit::{View, verify_where};
use crate::error::{Error, Result};

/// Audit a published repository
///
/// Reads all metadata and every target with the verification code of devices, checks that cohorts are offered only what their
/// channels have approved, and reads everything again with tough, an independent implementation. Exits with 1 if anything is
/// wrong.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[arg(help = place!("The repository"))]
    place: String,
    #[command(flatten)]
    read: ReadArgs,
}

/// Audits, and prints the report.
pub(super) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let ui = &context.ui;
    let root = args.read.trusted(context)?;
    let place = args.read.place(&args.place)?;
    ui.status(format_args!("reading all of {}", args.place));
    let report = block_on(async {
        let view = match place.open()? {
            (origin, None) if place.is_whole() => View::whole(origin),
            (public, None) => View::public(public),
            (public, Some(private)) => View::both(public, private),
        };
        let view = View { snapshot: place.snapshot(), ..view };
        verify_where(view, &args.place, root, context.now, Arc::new(|_| true)).await
    })?;
    if ui.is_json() {
        ui.json(&report)?;
    } else {
        ui.block(&report)?;
    }
    if report.ok {
        return Ok(());
    }
    Err(Error::trust(format!("{} is not sound", args.place)).remedy(match place.snapshot() {
        Some(_) => "files of an earlier snapshot may have been pruned; what is live is checked without the version",
        None if report.remarks.is_empty() => {
            "publish again from an intact workspace; devices keep what they have until then"
        }
        None => "another tool made it: repair it with that, or see what a takeover takes: tidegate import --dry-run",
    }))
}

//! `tidegate verify`: an audit of a repository, by two implementations.

use std::sync::Arc;

use clap::Args as ClapArgs;

use super::context::{Context, block_on};
use super::place::{ReadArgs, place};
use crate::audit::{AuditReport, Check, View, verify_where};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::report::view::Place;

/// Audit a published repository
///
/// Reads all metadata and every target with the verification code of devices, checks that cohorts are offered only what their
/// channels have approved, and reads everything again with tough, an independent implementation. Exits with 1 if anything is
/// wrong.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[arg(help = concat!(place!("The repository"), " [default: publish.place in tidegate.toml, else the workspace]"))]
    place: Option<String>,
    #[command(flatten)]
    read: ReadArgs,
}

/// Audits, and prints the report.
pub(super) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let ui = &context.ui;
    let root = args.read.trusted(context)?;
    let name = match &args.place {
        Some(place) => place.clone(),
        None => own(context)?,
    };
    let place = args.read.place(&name)?;
    ui.status(format_args!("reading all of {name}"));
    let report = block_on(async {
        let view = match place.open()? {
            (origin, None) if place.is_whole() => View::whole(origin),
            (public, None) => View::public(public),
            (public, Some(private)) => View::both(public, private),
        };
        let view = View { snapshot: place.snapshot(), ..view };
        verify_where(view, &name, root, context.now, Arc::new(|_| true)).await
    })?;
    if ui.is_json() {
        ui.json(&report)?;
    } else {
        ui.block(&report)?;
    }
    if report.ok {
        return Ok(());
    }
    Err(Error::trust(format!("{name} is not sound")).remedy(remedy(&place, &report)))
}

/// What is verified unless something else is named.
fn own(context: &Context) -> Result<String> {
    let places = Settings::load(&context.dir)?.publish.places(&context.dir);
    Ok(places.into_iter().next().unwrap_or_else(|| context.dir.display().to_string()))
}

/// What to do about what is wrong.
fn remedy(place: &Place, report: &AuditReport) -> &'static str {
    let only_targets = report.faults.iter().all(|fault| matches!(fault.check, Check::Targets | Check::SecondTargets));
    if place.snapshot().is_some() {
        return "files of an earlier snapshot may have been pruned; what is live is checked without the version";
    }
    if report.is_empty {
        return "nothing is published there: check the path or URL; metadata/timestamp.json lies directly below it";
    }
    match (place.as_workspace(), report.remarks.is_empty()) {
        (Some(_), true) if only_targets => {
            "what builds made may be elsewhere: fetch it (tidegate pull PLACE --artifacts), or restore it from a backup"
        }
        (Some(_), true) => "restore the workspace from version control; tidegate doctor says more",
        (None, true) => "publish again from an intact workspace; devices keep what they have until then",
        (_, false) => {
            "another tool made it: repair it with that, or see what a takeover takes: tidegate import --dry-run"
        }
    }
}

//! `tidegate verify`: an audit of a repository, by two implementations.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args as ClapArgs;

use super::context::{Context, block_on, trusted_root};
use crate::audit::{Origin, PublishedRepository, View, verify_where};
use crate::error::{Error, Result};
use crate::publish::{Options, Remote, StoreOrigin, Variables};

/// Audit a published repository
///
/// Reads all metadata and every target with the verification code of devices, checks that cohorts are offered only what their
/// channels have approved, and reads everything again with tough, an independent implementation. Exits with 1 if anything is
/// wrong.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The repository as devices see it: a folder, or a URL that starts with https:// or http://; or, with your own credentials, s3://,
    /// gs:// or az://
    place: String,
    /// A root file that you trust, such as the one devices are shipped with [default: that of the workspace]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// The private place, to audit protected files as well; without it, checks only that they are not public
    #[arg(long, value_name = "PLACE")]
    private: Option<String>,
}

/// Audits, and prints the report.
pub(super) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let ui = &context.ui;
    let root = trusted_root(args.root.as_deref(), context)?;
    ui.status(format_args!("reading all of {}", args.place));
    let report = block_on(async {
        let public = open(&args.place)?;
        if let Some(private) = &args.private {
            apart(&args.place, private)?;
        }
        let view = match &args.private {
            Some(private) => View::both(public, open_with(private, Variables::of_process().for_private())?),
            None => View::public(public),
        };
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
    Err(Error::trust(format!("{} is not sound", args.place)).remedy(if report.remarks.is_empty() {
        "publish again from an intact workspace; devices keep what they have until then"
    } else {
        "another tool made it: repair it with that, or see what a takeover takes: tidegate import --dry-run"
    }))
}

/// Checks that the two places do not overlap. Where the files behind a URL are stored is unknown.
///
/// # Errors
///
/// `P-PRIVATE` if one of the places is or contains the other.
fn apart(public: &str, private: &str) -> Result<()> {
    let is_url = |place: &str| place.starts_with("http://") || place.starts_with("https://");
    if is_url(public) || is_url(private) {
        return Ok(());
    }
    Remote::open(public)?.with_private(Remote::open(private)?).map(drop)
}

/// A place as it is read: through its store's own interface with credentials, else like a device.
fn open(place: &str) -> Result<Arc<dyn Origin>> {
    open_with(place, Variables::of_process())
}

fn open_with(place: &str, variables: Variables) -> Result<Arc<dyn Origin>> {
    let with_credentials = ["s3", "s3a", "gs", "az", "azure", "abfs", "abfss"];
    Ok(match place.split_once("://") {
        Some((scheme, _)) if with_credentials.contains(&scheme) => {
            let options = Options { variables, ..Options::default() };
            Arc::new(StoreOrigin::new(Remote::open_with(place, &options)?))
        }
        _ => Arc::new(PublishedRepository::open(place)?),
    })
}

//! `tidegate verify`: an audit of a repository, by two implementations.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args as ClapArgs;

use super::{Context, block_on};
use crate::error::{Error, Result};
use crate::files;
use crate::metadata::MAX_ROOT;
use crate::publish::{Remote, StoreOrigin};
use crate::verify::{Origin, Repository, verify};

/// Audit a published repository
///
/// Reads all metadata and every target with the trust core of devices, checks that what cohorts are assigned is what their channels
/// have approved, and reads all of it once more with tough, an independent implementation. Exits with 1 if anything is wrong.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The repository as devices see it: a folder, or a URL that starts with https:// or http://; or, with your own credentials, s3://,
    /// gs:// or az://
    place: String,
    /// The root file to start from: one that you trust, such as the one devices are shipped with
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
}

/// Audits, and prints the report.
pub(super) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let ui = &context.ui;
    let root = files::read(&args.root, MAX_ROOT)?;
    ui.status(format_args!("reading all of {}", args.place));
    let report = block_on(async {
        let with_credentials = ["s3", "s3a", "gs", "az", "azure", "abfs", "abfss"];
        let origin: Arc<dyn Origin> = match args.place.split_once("://") {
            Some((scheme, _)) if with_credentials.contains(&scheme) => {
                Arc::new(StoreOrigin::new(Remote::open(&args.place)?))
            }
            _ => Arc::new(Repository::open(&args.place)?),
        };
        verify(origin, &args.place, root, context.now).await
    })?;
    if ui.is_json() {
        ui.json(&report)?;
    } else {
        ui.result(&report)?;
    }
    if report.ok {
        return Ok(());
    }
    Err(Error::trust(format!("{} is not sound", args.place))
        .remedy("publish again from a sound workspace; devices keep what they have and wait"))
}

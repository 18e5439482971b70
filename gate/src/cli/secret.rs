//! `tidegate-gate secret`

use std::path::Path;

use serde_json::json;

use super::{print, say};
use crate::config::GateConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::rotate;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Add a new current key; the present one stays valid until the next rotation
    #[arg(long)]
    rotate: bool,
}

pub(super) fn run(path: &Path, arguments: &Arguments, json: bool) -> Result<()> {
    let config = GateConfig::load(path)?;
    let file = config.path(&config.secret);
    if arguments.rotate && !file.exists() {
        return Err(Error::input(format!("{} does not exist", file.display())).with_remedy("omit --rotate"));
    }
    if !arguments.rotate && file.exists() {
        return Err(Error::new(ErrorKind::Conflict, format!("{} already exists", file.display()))
            .with_remedy("use --rotate to add a new key"));
    }
    rotate(&file)?;
    if json {
        return print(&json!({"secret": file, "rotated": arguments.rotate}).to_string());
    }
    let action = if arguments.rotate { "rotated; the previous key stays valid" } else { "created" };
    print(&format!("{}: {action}", file.display()))?;
    say("help: copy this file to every instance, readable by its owner only");
    Ok(())
}

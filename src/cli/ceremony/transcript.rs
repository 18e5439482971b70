//! `tidegate ceremony verify-transcript`: check a record against the repository.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::json;

use crate::cli::context::Context;
use crate::error::{Error, Result};
use crate::fs;
use crate::proposal::{self, MAX_TRANSCRIPT, Transcript};
use crate::workspace::Workspace;

/// Check a transcript against the repository
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The transcript
    file: PathBuf,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let bytes = fs::read(&args.file, MAX_TRANSCRIPT)?;
    let name = args.file.display().to_string();
    let text = String::from_utf8(bytes).map_err(|e| Error::input(format!("{name} is not text")).with_source(e))?;
    let transcript = Transcript::parse(&name, &text)?;
    let workspace = Workspace::open_to_read(&cx.dir)?;
    let checked = proposal::check(&transcript, &workspace.repository()?)?;
    if cx.ui.is_json() {
        return cx.ui.json(&json!({"subject": transcript.subject, "files": checked}));
    }
    for file in &checked {
        let how = if file.present { "the same, byte for byte" } else { "replaced by a later version since" };
        cx.ui.result(format_args!("{:<24} {how}", file.file))?;
    }
    cx.ui.result(format_args!("{name} is the record of {}", transcript.subject))
}

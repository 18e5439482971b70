//! `tidegate site`: the status page.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::json;

use super::context::Context;
use crate::error::{Error, Result};
use crate::fs;
use crate::report::site::{PAGE, STATUS, page, status};
use crate::report::view::{Place, add_workspace, signed};
use crate::workspace::Workspace;

/// Write a status page (HTML) and its data (status.json)
///
/// Reads and verifies everything signed as devices do. A workspace adds names of keys, findings, proposals and the ledger. A
/// repository elsewhere needs only a trusted root.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate site --out ../status
  tidegate site ../public --root metadata/1.root.json --out ../status-public")]
pub(super) struct Args {
    /// The repository: a folder, a URL, or a workspace; without it, the workspace
    place: Option<String>,
    /// A root file that you trust; a workspace needs none
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// The folder to write index.html and status.json to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Leave out what only the workspace knows and what is protected, for a public page
    #[arg(long)]
    public: bool,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let place = match &args.place {
        Some(place) => Place::parse(place)?,
        None => Place::workspace(&cx.dir),
    };
    // A workspace is locked while it is read, so that the page shows one state of it.
    let workspace = place.as_workspace().map(Workspace::open_to_read).transpose()?;
    let root = args.root.as_deref();
    let reading = if args.public { place.read_as_the_public(root)? } else { place.read(root)? };
    let mut state = signed(&reading, cx.now);
    if let Some(workspace) = workspace.as_ref().filter(|_| !args.public) {
        add_workspace(&mut state, workspace)?;
    }
    let folder = &args.out;
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    fs::write_atomic(&folder.join(STATUS), &status(&state)?)?;
    fs::write_atomic(&folder.join(PAGE), page(&state).as_bytes())?;
    let shown = folder.join(PAGE);
    if cx.ui.is_json() {
        return cx.ui.json(&json!({"page": shown, "status": folder.join(STATUS), "sound": state.sound}));
    }
    for fault in &state.faults {
        cx.ui.warn(format_args!("{}: {}", fault.subject, fault.problem));
    }
    cx.ui.result(format_args!("wrote {} and {}", shown.display(), folder.join(STATUS).display()))
}

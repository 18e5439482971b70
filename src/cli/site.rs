//! `tidegate site`: the status page.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::json;
use tidegate_model::digest::Digest;

use super::context::{Context, block_on};
use super::place::{ReadArgs, place};
use super::publish::live;
use super::receipts::sources;
use crate::config::{ReceiptSettings, Settings};
use crate::error::{Error, Result};
use crate::fs;
use crate::metadata::anchor_file;
use crate::publish::{Options, publication_status};
use crate::report::site::{PAGE, STATUS, page, status};
use crate::report::view::{Place, Reading, State, add_health, add_publication, add_workspace, signed};
use crate::workspace::Workspace;

/// How long requests for receipts are retried.
const RETRY_FOR: Duration = Duration::from_secs(20);

/// Write a status page (HTML) and its data (status.json)
///
/// Reads and verifies everything signed as devices do, and says whether that is live: the repository at PLACE is; a workspace is
/// compared with the places in tidegate.toml. A workspace adds names of keys, findings, proposals and the ledger. A repository
/// elsewhere needs only a trusted root.
///
/// Where receipts are configured (receipts in tidegate.toml, or --receipts and --enrolments), the page shows installed,
/// confirmed, failed and rolled back over time, beside what is planned. If they cannot be read, the page says so.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate site --out ../status
  tidegate site ../public --root metadata/1.root.json --out ../status-live
  tidegate site --public --out ../status-public")]
pub(super) struct Args {
    #[arg(help = place!("The repository [default: the workspace]"))]
    place: Option<String>,
    #[command(flatten)]
    read: ReadArgs,
    /// The folder to write index.html and status.json to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Leave out what only the workspace knows, receipts, and what is protected, for a public page
    #[arg(long)]
    public: bool,
    /// Where receipts are stored; can be repeated [default: receipts.places in tidegate.toml]
    #[arg(long, value_name = "PLACE", conflicts_with = "public")]
    receipts: Vec<String>,
    /// Where the devices' keys are enrolled [default: receipts.enrolments in tidegate.toml]
    #[arg(long, value_name = "PLACE", conflicts_with = "public")]
    enrolments: Option<String>,
    /// Do not count receipts
    #[arg(long, conflicts_with_all = ["receipts", "enrolments"])]
    no_receipts: bool,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let place = match &args.place {
        Some(place) => args.read.place(place)?,
        None => Place::workspace(&cx.dir),
    };
    let seen = live::read(cx);
    // A workspace is locked while it is read, so that the page shows one state of it.
    let workspace = place.as_workspace().map(Workspace::open_to_read).transpose()?;
    let root = args.read.root_file(cx)?.filter(|_| args.read.root.is_some() || place.as_workspace().is_none());
    let root = root.as_deref();
    let reading = if args.public { place.read_as_the_public(root)? } else { place.read(root)? };
    let mut state = signed(&reading, cx.now);
    if let Some(workspace) = &workspace {
        let places = publication_status(workspace.dir(), &workspace.repository()?, &seen)?;
        add_publication(&mut state, places);
        if args.public {
            state.shows.places.clear();
        } else {
            add_workspace(&mut state, workspace)?;
        }
    }
    // Counting may take long, and changes nothing: others may go on with the workspace.
    drop(workspace);
    if !args.public && !args.no_receipts {
        block_on(async {
            count(&mut state, &reading, args, cx).await;
            Ok(())
        })?;
    }
    let folder = &args.out;
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    fs::write_atomic(&folder.join(STATUS), &status(&state)?)?;
    fs::write_atomic(&folder.join(PAGE), page(&state).as_bytes())?;
    let shown = folder.join(PAGE);
    let fault = state.health.as_ref().and_then(|health| health.fault.as_ref());
    if cx.ui.is_json() {
        return cx.ui.json(&json!({
            "page": shown, "status": folder.join(STATUS), "sound": state.sound, "live": state.shows.live,
            "receipts": state.health.as_ref().map(|health| health.counted), "receipts_fault": fault,
        }));
    }
    for fault in &state.faults {
        cx.ui.warn(format_args!("{}: {}", fault.subject, fault.problem));
    }
    if let Some(fault) = fault {
        cx.ui.warn(format_args!("no receipts on the page: {fault}"));
    }
    cx.ui.result(format_args!("wrote {} and {}", shown.display(), folder.join(STATUS).display()))
}

/// Adds what devices report, where it is said where their receipts are.
async fn count(state: &mut State, reading: &Reading, args: &Args, cx: &Context) {
    let settings = own_settings(reading, cx).map(|settings| settings.receipts).unwrap_or_default();
    if args.receipts.is_empty() && settings.places.is_empty() && args.enrolments.is_none() {
        return;
    }
    count_at(state, reading, (&args.receipts, args.enrolments.as_deref()), &settings, cx).await;
}

/// Counts the receipts at these places, else at those that the settings name.
pub(super) async fn count_at(
    state: &mut State,
    reading: &Reading,
    (places, enrolments): (&[String], Option<&str>),
    settings: &ReceiptSettings,
    cx: &Context,
) {
    let options = Options { retry_for: RETRY_FOR, ..Options::default() };
    let from = sources(places, enrolments, (&cx.dir, settings), &options);
    let mut bar = cx.ui.progress_count("enrolments and receipts read");
    add_health(state, reading, from, |more| bar.advance(more)).await;
}

/// The settings of the workspace at hand, if what was read is its repository: another one's receipts say nothing of it.
fn own_settings(reading: &Reading, cx: &Context) -> Option<Settings> {
    let root = std::fs::read(anchor_file(&cx.dir).ok()?).ok()?;
    (Digest::of(&root) == reading.anchor).then(|| Settings::load(&cx.dir).ok()).flatten()
}

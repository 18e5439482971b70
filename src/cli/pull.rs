//! `tidegate pull`: what is live becomes what the workspace is.

use std::path::PathBuf;

use chrono::TimeDelta;
use clap::Args as ClapArgs;
use serde_json::json;
use tidegate_model::text::public_url;

use super::context::{Context, actor, block_on};
use super::passphrase::PassphraseArgs;
use super::publish::access::AccessArgs;
use super::ui::Ui;
use crate::error::{Error, Result};
use crate::fs;
use crate::metadata::MAX_ROOT;
use crate::publish::{PullOptions, PullReport, recreate, take_over};
use crate::workspace::Workspace;

/// Update a workspace from what is published, or create one
///
/// In a workspace: takes over what others have published and keeps local changes, role by role. If both changed the same role,
/// reports a conflict and changes nothing.
///
/// In an empty folder, with --root: creates a workspace from what is published. Keys are not published: `tidegate.toml` then
/// lists the private keys to add.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The place: s3://, gs://, az://, https://, or a folder
    place: String,
    /// For a new workspace: a root file that you trust, such as the one devices are shipped with
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Also fetch all artifacts, not only manifests
    #[arg(long)]
    artifacts: bool,
    /// Put local changes on top of what is live although it is dated later than now: another machine's clock was wrong
    #[arg(long)]
    redate: bool,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let ui = &context.ui;
    let actor = actor();
    let taking = PullOptions {
        actor: &actor,
        now: context.now,
        artifacts: args.artifacts,
        redate: args.redate,
        patience: TimeDelta::zero(),
    };
    if !context.dir.join("metadata").exists() {
        let root = args.root.as_ref().ok_or_else(|| {
            Error::usage(format!("{} is not a workspace yet, so --root FILE is required", context.dir.display()))
                .remedy("give a root file that you trust, such as the one devices are shipped with")
        })?;
        let root = fs::read(root, MAX_ROOT)?;
        let remote = args.access.open_to_read(&args.place, &context.dir, None)?;
        let made = block_on(recreate(&context.dir, &remote, &root, &taking))?;
        if ui.is_json() {
            return ui.json(&json!({"taken": made.taken, "keys": made.keys}));
        }
        tell(&made.taken, ui);
        ui.result(format_args!(
            "created workspace {1} from {0}: timestamp {2}",
            public_url(&args.place),
            context.dir.display(),
            made.taken.live
        ))?;
        ui.status(format_args!("keys without a private part in tidegate.toml: {}", made.keys.join(", ")));
        ui.hint("tidegate status");
        return Ok(());
    }
    let workspace = Workspace::open(&context.dir)?;
    let settings = workspace.settings()?;
    let remote = args.access.open_to_read(&args.place, &context.dir, Some(&settings))?;
    let mut ring = workspace.ring(&settings, args.passphrase.source())?;
    let taken = block_on(take_over(&workspace, &settings, &remote, &mut ring, &taking))?;
    if ui.is_json() {
        return ui.json(&json!({ "taken": taken }));
    }
    tell(&taken, ui);
    if taken.theirs.is_empty() && taken.releases.is_empty() && taken.timestamp == taken.live {
        ui.result(format_args!("up to date with {}: timestamp {}", public_url(&args.place), taken.live))?;
    } else {
        ui.result(format_args!(
            "took over timestamp {} of {}; now at {}",
            taken.live,
            public_url(&args.place),
            taken.timestamp
        ))?;
    }
    if taken.timestamp > taken.live {
        let redate = if args.redate { " --redate" } else { "" };
        ui.hint(format_args!("tidegate publish {}{redate}", args.place));
    }
    Ok(())
}

/// Says what was taken over.
pub(super) fn tell(taken: &PullReport, ui: &Ui) {
    if !taken.theirs.is_empty() {
        ui.status(format_args!("took over {}", taken.theirs.join(", ")));
    }
    if !taken.ours.is_empty() {
        ui.status(format_args!("kept {}, not published yet", taken.ours.join(", ")));
    }
    if !taken.releases.is_empty() {
        ui.status(format_args!("new here: {}", taken.releases.join(", ")));
    }
}

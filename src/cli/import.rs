//! `tidegate import`: taking over a TUF repository.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use serde_json::json;

use super::context::Context;
use super::init::{KeyArgs, folder};
use super::passphrase::PassphraseArgs;
use super::place::{live, only_live};
use crate::audit::Origin;
use crate::ceremony::{self, Obstacle, Start, import};
use crate::error::{Error, Result, Rule};
use crate::fs;
use crate::metadata::MAX_ROOT;
use crate::publish::{Variables, open_origin};

/// Take over an existing TUF repository and its root chain
///
/// Creates a workspace that continues it, and starts the ceremony for the next root, which names your keys. Clients that trust
/// the old root follow as soon as a threshold of its keys has signed the next one. See docs/migrate.md.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate import old-repository --root 1.root.json --dry-run
  tidegate import old-repository fleet --root 1.root.json --generate-keys
  tidegate import https://example.com/tuf fleet --root 1.root.json \\
    --keys /media/usb/keys")]
pub(super) struct Args {
    #[arg(help = live!("The old repository"))]
    place: String,
    /// The folder of the new workspace; it may contain your own tidegate.toml, cohorts.toml and policy.toml
    folder: Option<PathBuf>,
    /// A root of the old repository that you trust, preferably the one devices were shipped with
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// The version of --root, for which you vouch, if the roots before it cannot be verified; they are kept and published as they are
    #[arg(long, value_name = "N")]
    from_root: Option<u64>,
    /// Only tell whether it can be taken over, what stands against it, and what changes for clients
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Tells what a takeover would find and change. It takes no keys.
fn check(args: &Args, dir: &Path, origin: &dyn Origin, start: &Start<'_>, cx: &Context) -> Result<()> {
    let found = ceremony::check(dir, origin, start)?;
    if cx.ui.is_json() {
        cx.ui.json(&found)?;
    } else {
        for Obstacle { what, remedy } in &found.obstacles {
            cx.ui.result(format_args!("obstacle  {what}"))?;
            cx.ui.result(format_args!("          {remedy}"))?;
        }
        for change in &found.changes {
            cx.ui.result(format_args!("change    {change}"))?;
        }
        if found.possible {
            cx.ui
                .result(format_args!("{} can be taken over: root {}, {} roles", args.place, found.root, found.roles))?;
            let from = args.from_root.map(|version| format!(" --from-root {version}")).unwrap_or_default();
            let root = args.root.display();
            cx.ui.hint(format_args!("tidegate import {} FOLDER --root {root}{from} --generate-keys", args.place));
        }
    }
    match found.obstacles.len() {
        0 => Ok(()),
        count => {
            let what = format!("{} cannot be taken over as it is: obstacles: {count}", args.place);
            Err(Error::refused(Rule::ImportSound, what).remedy("each obstacle names its remedy"))
        }
    }
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let dir = folder(cx, args.folder.as_deref());
    let root = fs::read(&args.root, MAX_ROOT)?;
    let start = Start { root: &root, from: args.from_root };
    let origin = open_origin(only_live(&args.place)?, Variables::of_process())?;
    if args.dry_run {
        return check(args, &dir, origin.as_ref(), &start, cx);
    }
    let options = args.keys.options()?;
    let from = (args.place.as_str(), origin.as_ref());
    let done = import(&dir, from, &start, &options, cx.now, args.passphrase.source().as_mut())?;
    let digest = done.proposal.digest()?;
    if cx.ui.is_json() {
        return cx.ui.json(&json!({
            "dir": dir,
            "root": done.root,
            "roles": done.roles,
            "left_behind": done.left_behind,
            "proposal": {"file": ceremony::FILE, "subject": done.proposal.subject, "digest": digest},
        }));
    }
    cx.ui.status(format_args!("Took over {}: root {}, {} roles", args.place, done.root, done.roles));
    if done.left_behind > 0 {
        cx.ui.warn(format_args!(
            "the new targets role lists channels alone: {} files that clients now find by name they will not find any more",
            done.left_behind
        ));
    }
    cx.ui.result(format_args!(
        "{} waits for signatures, of the old root's keys and the new ones: {digest}",
        done.proposal.subject
    ))?;
    cx.ui.hint(format_args!("tidegate -C {} ceremony status", dir.display()));
    Ok(())
}

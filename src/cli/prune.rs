//! `tidegate prune`: remove what nothing needs any more.

use clap::Args as ClapArgs;
use serde_json::json;
use tidegate_model::text::one_line;

use super::context::{Context, block_on};
use super::passphrase::PassphraseArgs;
use super::publish::access::AccessArgs;
use crate::error::Result;
use crate::publish::{self, Pruning, plan_prune, renew_live};
use crate::workspace::Workspace;
use tidegate_model::span::Span;

/// Remove files from a place that no device needs any more
///
/// Keeps all roots, everything that the live snapshot lists, and everything that a snapshot listed that was live within the grace
/// period, as slow devices and caches may still need it. Also keeps younger files. Without --apply nothing is removed.
///
/// Does the same at the private place, if there is one (--private), and shortens the listings of what gates hand out.
///
/// Others may publish in the meantime: the timestamp is renewed first, and a publication that began earlier is refused and has to
/// start again.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The place: s3://, gs://, az://, or a folder
    place: String,
    /// How long unneeded files are kept; at least the lifetime of a timestamp
    #[arg(long, value_name = "SPAN", default_value = "30d")]
    grace: Span,
    /// Remove it
    #[arg(long)]
    apply: bool,
    /// Confirm that nothing else publishes there: for places without conditional writes
    #[arg(long)]
    single_writer: bool,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let (ui, now) = (&context.ui, context.now);
    let open = if args.apply { Workspace::open } else { Workspace::open_to_read };
    let workspace = open(&context.dir)?;
    let settings = workspace.settings()?;
    let mut remote = args.access.open(&args.place, &context.dir, Some(&settings))?;
    block_on(async {
        let pruning = plan_prune(&remote, now - args.grace.delta(), now).await?;
        if !args.apply || pruning.is_done() {
            if ui.is_json() {
                return ui.json(&json!({"pruning": pruning, "removed": 0}));
            }
            ui.block(describe(&pruning))?;
            if !pruning.is_done() {
                ui.hint(format_args!("tidegate prune {} --grace {} --apply", args.place, args.grace));
            }
            return Ok(());
        }
        ui.status_block(describe(&pruning));
        remote.settle(args.single_writer, now).await?;
        let mut ring = workspace.ring(&settings, args.passphrase.source())?;
        let (workspace, settings, there, found) = (&workspace, &settings, &remote, &pruning);
        let fence = move || async move { renew_live(workspace, settings, there, &mut ring, found, now).await };
        let removed = publish::prune(&remote, &pruning, now, fence).await?;
        if ui.is_json() {
            return ui.json(&json!({"pruning": pruning, "removed": removed}));
        }
        ui.result(format_args!("removed {removed} objects, {} bytes, from {}", pruning.bytes(), pruning.place))
    })
}

fn describe(pruning: &Pruning) -> String {
    use std::fmt::Write as _;
    let mut text = format!("{}: timestamp {} is live\n", pruning.place, pruning.live);
    if let Some(private) = &pruning.private {
        let _ = writeln!(text, "  and the private place, {private}");
    }
    let _ = writeln!(text, "  needed     {:>6}  by {} snapshots", pruning.kept, pruning.snapshots.len());
    let _ = writeln!(text, "  too young  {:>6}", pruning.young);
    let _ = writeln!(text, "  not ours   {:>6}", pruning.foreign);
    if pruning.private.is_some() {
        let _ = writeln!(text, "  listings   {:>6}  to be shortened", pruning.listings);
    }
    let _ = write!(text, "  to remove  {:>6}  {} bytes", pruning.doomed.len(), pruning.bytes());
    for object in &pruning.doomed {
        let _ =
            write!(text, "\n  {:>12}  {}  {}", object.length, object.written.format("%Y-%m-%d"), one_line(&object.key));
        if object.private {
            text.push_str("  (private)");
        }
    }
    text
}

//! `tidegate sync`: from one store to another.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::json;
use tidegate_model::text::public_url;

use super::context::{Context, block_on, trusted_root};
use super::place::{live, only_live};
use super::publish::{AccessArgs, transfer};
use crate::error::Result;
use crate::publish::{copy_record, plan_sync};

/// Copy what is published from one place to another
///
/// In the order in which nothing at the other place ever refers to something missing; all metadata is verified first, every file as it
/// is sent, and what was written is read back. Needs no key, and no workspace if --root is given. Run it again at any time: only what is new is sent.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[arg(help = live!("From"))]
    from: String,
    /// To
    to: String,
    /// A root file that you trust, such as the one devices are shipped with [default: that of the workspace]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// The destination of protected files; their source is --private
    #[arg(long, value_name = "PLACE", requires = "private")]
    private_to: Option<String>,
    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not read back what was written
    #[arg(long)]
    no_verify: bool,
    /// Confirm that nothing else publishes there: for places without conditional writes
    #[arg(long)]
    single_writer: bool,
    #[command(flatten)]
    access: AccessArgs,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let (ui, now) = (&context.ui, context.now);
    only_live(&args.from)?;
    let root = trusted_root(args.root.as_deref(), context)?;
    // There need not be a workspace; one that there is must be right.
    let here = context.dir.join("tidegate.toml").exists();
    let settings = here.then(|| crate::config::Settings::load(&context.dir)).transpose()?;
    let from = args.access.open_to_read(&args.from, &context.dir, None)?;
    let mut to = args.access.open_with(&args.to, args.private_to.as_deref(), &context.dir, settings.as_ref())?;
    block_on(async {
        let (source, plan) = plan_sync(&from, &to, &root, now).await?;
        for notice in plan.notices.iter().filter(|notice| notice.role == "root") {
            ui.status(notice);
        }
        if args.dry_run || plan.is_done() {
            let totals = plan.totals();
            if ui.is_json() {
                return ui.json(&json!({"plan": plan, "totals": totals}));
            }
            return ui.result(if plan.is_done() {
                format!(
                    "{} is up to date with {}: timestamp {}",
                    public_url(&args.to),
                    public_url(&args.from),
                    plan.timestamp
                )
            } else {
                let new = totals.new + totals.changed;
                format!(
                    "{} lacks {new} objects, {} bytes, of timestamp {}",
                    public_url(&args.to),
                    totals.bytes,
                    plan.timestamp
                )
            });
        }
        to.settle(args.single_writer, now).await?;
        let report = transfer::carry_out(&plan, &source, &to, ui, "copying").await?;
        // Without it other checkouts count soak from their next pull, as at a place that keeps none.
        if let Err(error) = copy_record(&from, &to).await {
            ui.warn(format_args!("copied, but for the record of the publication: {error}"));
        }
        let mut audit = None;
        if !args.no_verify {
            audit = Some(transfer::read_back(&plan, &source, &to, ui, now).await?);
        }
        if ui.is_json() {
            return ui.json(&json!({"plan": plan, "report": report, "verified": audit}));
        }
        ui.result(format_args!(
            "copied timestamp {} from {} to {}: {} objects, {} bytes",
            report.timestamp,
            public_url(&args.from),
            public_url(&args.to),
            report.written,
            report.bytes
        ))
    })
}

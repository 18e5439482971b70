//! `tidegate sync`: from one store to another.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use clap::Args as ClapArgs;
use serde_json::json;

use super::publish::AccessArgs;
use super::{Context, block_on};
use crate::error::{Error, Result};
use crate::files;
use crate::publish::{self, Event, plan_sync};

/// Above any root file that a client reads.
const MAX_ROOT: u64 = 1 << 20;

/// Copy what is published from one place to another
///
/// In the order in which nothing at the other place ever refers to something missing; all metadata is verified first, every file as it
/// is sent, and what was written is read back. Needs no workspace and no key. Run it again at any time: only what is new is sent.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// From: s3://, gs://, az://, https://, or a folder
    from: String,
    /// To
    to: String,
    /// A root file that you trust, such as the one devices are shipped with
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not read back what was written
    #[arg(long)]
    no_verify: bool,
    /// Vouch that nothing else ever publishes there: for places that cannot keep two publishers apart
    #[arg(long)]
    single_writer: bool,
    #[command(flatten)]
    access: AccessArgs,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let (ui, now) = (&context.ui, context.now);
    let root = files::read(&args.root, MAX_ROOT)?;
    // There need not be a workspace; one that there is must be right.
    let here = context.dir.join("tidegate.toml").exists();
    let settings = here.then(|| crate::config::Settings::load(&context.dir)).transpose()?;
    let from = args.access.open(&args.from, &context.dir, None)?;
    let mut to = args.access.open(&args.to, &context.dir, settings.as_ref())?;
    block_on(async {
        let (source, plan) = plan_sync(&from, &to, &root, now).await?;
        if args.dry_run || plan.is_done() {
            let totals = plan.totals();
            if ui.is_json() {
                return ui.json(&json!({"plan": plan, "totals": totals}));
            }
            return ui.result(if plan.is_done() {
                format!("{} is up to date with {}: timestamp {}", args.to, args.from, plan.timestamp)
            } else {
                let new = totals.new + totals.changed;
                format!("{} lacks {new} objects, {} bytes, of timestamp {}", args.to, totals.bytes, plan.timestamp)
            });
        }
        to.settle(args.single_writer, now).await?;
        let progress = Mutex::new(ui.progress_bytes(plan.totals().bytes, "copying"));
        let report = publish::execute(&plan, &source, &to, &|event| {
            if let Event::Sent(bytes) = event {
                progress.lock().unwrap_or_else(PoisonError::into_inner).advance(bytes);
            }
        })
        .await?;
        drop(progress);
        let audit = if args.no_verify { None } else { Some(publish::read_back(&plan, &source, &to, now).await?) };
        if let Some(audit) = audit.as_ref().filter(|audit| !audit.ok) {
            ui.status(audit);
            return Err(Error::trust(format!("what was just copied to {} is not sound", args.to))
                .rule("P-READ-BACK")
                .remedy("devices that use it keep what they have and wait; find out what changed it, and sync again"));
        }
        if ui.is_json() {
            return ui.json(&json!({"plan": plan, "report": report, "verified": audit}));
        }
        ui.result(format_args!(
            "copied timestamp {} from {} to {}: {} objects, {} bytes",
            report.timestamp, args.from, args.to, report.written, report.bytes
        ))
    })
}

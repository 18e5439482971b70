//! `tidegate publish`: what is signed becomes what devices see.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use clap::Args as ClapArgs;
use serde_json::json;

use super::{Context, block_on};
use crate::error::Result;
use crate::publish::{self, Event, Plan, Remote, Source, State};
use crate::workspace::Workspace;

/// Publish the workspace for devices to see
///
/// Writes what is new, in an order in which nothing ever refers to something missing, and timestamp.json last: until then devices
/// see what was there before. If it is interrupted, run it again. If another publisher was faster, nothing changes and you are told.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The folder to publish to, as a path or a file:// URL
    place: String,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Publishes, or shows what that would do.
pub(super) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let remote = Remote::open(&args.place)?;
    let source = Source::new(&context.dir);
    let ui = &context.ui;
    block_on(async {
        // The workspace is locked only while its metadata is read: artifacts never change, and sending them may take long.
        let workspace = Workspace::open(&context.dir)?;
        let plan = publish::plan(&source, &remote, context.now).await?;
        drop(workspace);
        if args.dry_run {
            return if ui.is_json() {
                ui.json(&json!({"plan": plan, "totals": plan.totals()}))
            } else {
                ui.result(describe(&plan))
            };
        }
        if !plan.is_done() {
            ui.status(describe(&plan));
        }
        let progress = Mutex::new(ui.progress_bytes(plan.totals().bytes, "publishing"));
        let report = publish::execute(&plan, &source, &remote, &|event| {
            if let Event::Sent(bytes) = event {
                progress.lock().unwrap_or_else(PoisonError::into_inner).advance(bytes);
            }
        })
        .await?;
        drop(progress);
        if ui.is_json() {
            ui.json(&json!({"plan": plan, "report": report}))?;
        } else if report.written == 0 {
            ui.result(format_args!("{} is up to date: timestamp {}", args.place, report.timestamp))?;
        } else {
            let found =
                if report.found == 0 { String::new() } else { format!(", {} were there already", report.found) };
            ui.result(format_args!(
                "published timestamp {} to {}: {} objects, {} bytes{found}",
                report.timestamp, args.place, report.written, report.bytes
            ))?;
        }
        ui.hint(format_args!(
            "tidegate verify {} --root {}",
            args.place,
            context.dir.join("metadata/1.root.json").display()
        ));
        Ok(())
    })
}

/// A plan in words.
fn describe(plan: &Plan) -> String {
    let totals = plan.totals();
    let from = plan.live.map_or_else(|| "nothing is there yet".to_owned(), |live| format!("timestamp {live} is live"));
    let mut text = format!("{}: {from}, to become timestamp {}\n", plan.place, plan.timestamp);
    let _ = writeln!(text, "  new        {:>6}", totals.new);
    let _ = writeln!(text, "  changed    {:>6}", totals.changed);
    let _ = writeln!(text, "  unchanged  {:>6}", totals.unchanged);
    let _ = write!(
        text,
        "  to send    {:>6} bytes in {} requests; planning took {}",
        totals.bytes, totals.requests, plan.requests
    );
    for object in plan.objects.iter().filter(|object| object.state != State::Unchanged) {
        let _ = write!(text, "\n  {:>12}  {}", object.length, object.key);
    }
    match plan.notices.as_slice() {
        [] if plan.is_done() => text.push_str("\ndevices notice nothing: all is there"),
        [] => text.push_str("\ndevices notice nothing but fresh metadata"),
        notices => {
            text.push_str("\ndevices will notice");
            for notice in notices {
                let _ = write!(text, "\n  {notice}");
            }
        }
    }
    text
}

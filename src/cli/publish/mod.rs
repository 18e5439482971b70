//! `tidegate publish`: what is signed becomes what devices see.

mod access;
mod show;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::{Value, json};

pub(super) use self::access::AccessArgs;
use super::passphrase::PassphraseArgs;
use super::{Context, actor, block_on};
use crate::config::{Settings, Span};
use crate::error::{Error, Kind, Result, chain};
use crate::files::Changes;
use crate::publish::{self, Event, Overcome, Plan, Published, Remote, Report, SWEEP, Source, Taking};
use crate::workspace::Workspace;

/// How often others may be in the way before it is left to people.
const TRIES: u32 = 8;
/// How long to wait for someone else's clean-up to end.
const PAUSE: Duration = Duration::from_secs(5);

/// Publish the workspace for devices to see
///
/// Writes what is new, in an order in which nothing ever refers to something missing, and timestamp.json last: until then devices
/// see what was there before. If it is interrupted, run it again. If another publisher was faster, nothing changes and you are told.
///
/// With several places the first decides: what it takes is copied to the others, which may fail without harm; the next run mends them.
#[derive(Debug, ClapArgs)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(super) struct Args {
    /// Where to: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, https://HOST/PATH (WebDAV), or a folder
    #[arg(required = true, value_name = "PLACE")]
    places: Vec<String>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// If another publisher was faster, take theirs over and publish on top, where nothing conflicts
    #[arg(long)]
    rebase: bool,
    /// With --rebase: how long to wait for another publication that is not complete before what it left is removed
    #[arg(long, value_name = "SPAN", default_value = "2m")]
    patience: Span,
    /// Do not read back what was published
    #[arg(long)]
    no_verify: bool,
    /// Vouch that nothing else ever publishes there: for places that cannot keep two publishers apart
    #[arg(long)]
    single_writer: bool,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// What came of one place.
struct Done {
    plan: Plan,
    report: Report,
    audit: Option<crate::verify::Report>,
}

impl Done {
    fn json(&self) -> Value {
        json!({"plan": self.plan, "report": self.report, "verified": self.audit})
    }
}

/// Publishes, or shows what that would do.
pub(super) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let Some((first, mirrors)) = args.places.split_first() else { return Err(Error::bug("no place")) };
    block_on(async {
        if args.dry_run {
            return dry_run(args, context).await;
        }
        let done = publish_first(args, first, context).await?;
        let ui = &context.ui;
        if !ui.is_json() {
            ui.result(show::report(&done.report, first))?;
            tell_audit(&done, first, context);
        }
        let mut told = vec![];
        let mut behind = vec![];
        for place in mirrors {
            match publish_mirror(args, place, done.plan.timestamp, context).await {
                Ok(done) => {
                    told.push(json!({"place": place, "ok": true, "report": done.report, "verified": done.audit}));
                    if !ui.is_json() {
                        ui.result(show::report(&done.report, place))?;
                        tell_audit(&done, place, context);
                    }
                }
                Err(error) => {
                    let why = chain(&error);
                    told.push(json!({"place": place, "ok": false, "error": why}));
                    if !ui.is_json() {
                        ui.result(format_args!("{place} lags behind: {why}"))?;
                    }
                    behind.push(place.as_str());
                }
            }
        }
        if ui.is_json() {
            let mut value = done.json();
            if let (Some(object), false) = (value.as_object_mut(), mirrors.is_empty()) {
                object.insert("mirrors".to_owned(), told.into());
            }
            ui.json(&value)?;
        }
        if !behind.is_empty() {
            return Err(Error::new(Kind::Io, format!("{} of {} places lag behind: {}", behind.len(), args.places.len(), behind.join(", ")))
                .remedy("devices that use those see what they saw before; the next publication mends them, or this one run again"));
        }
        ui.hint(format_args!("tidegate verify {first} --root {}", context.dir.join("metadata/1.root.json").display()));
        Ok(())
    })
}

async fn dry_run(args: &Args, context: &Context) -> Result<()> {
    let (source, ui) = (Source::new(&context.dir), &context.ui);
    let mut plans = vec![];
    for place in &args.places {
        let workspace = Workspace::open(&context.dir)?;
        let remote = args.access.open(place, &context.dir, Some(&workspace.settings()?))?;
        let plan = publish::plan(&source, &remote, context.now).await?;
        if !ui.is_json() {
            ui.result(show::plan(&plan, &remote))?;
        }
        plans.push(json!({"totals": plan.totals(), "concurrency": remote.concurrency(), "plan": plan}));
    }
    match (ui.is_json(), plans.as_mut_slice()) {
        (false, _) => Ok(()),
        (true, [plan]) => ui.json(plan),
        (true, plans) => ui.json(&plans),
    }
}

/// Publishes to the place that decides; with `--rebase` as often as others are faster.
async fn publish_first(args: &Args, place: &str, context: &Context) -> Result<Done> {
    let mut tries = 0;
    loop {
        // The workspace is locked only while its metadata is read: artifacts never change, and sending them may take long.
        let workspace = Workspace::open(&context.dir)?;
        let settings = workspace.settings()?;
        let mut remote = args.access.open(place, &context.dir, Some(&settings))?;
        let source = Source::new(&context.dir);
        let planned = publish::plan(&source, &remote, context.now).await;
        drop(workspace);
        let (error, plan) = match planned {
            Ok(plan) => match carry_out(args, plan, &source, &mut remote, context).await {
                Ok(done) => {
                    let workspace = Workspace::open(&context.dir)?;
                    let published = Published::after(&done.plan);
                    if Published::load(&context.dir)?.as_ref() != Some(&published) {
                        let mut changes = Changes::default();
                        published.put(&mut changes)?;
                        workspace.commit(changes)?;
                    }
                    return Ok(done);
                }
                Err((error, plan)) => (error, Some(plan)),
            },
            Err(error) => (error, None),
        };
        tries += 1;
        if !args.rebase || tries >= TRIES {
            return Err(error);
        }
        if error.rule_id() == Some(SWEEP) {
            context.ui.status(format_args!("waiting: {error}"));
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        rebase(args, error, plan.as_ref(), &settings, &remote, context).await?;
    }
}

/// Overcomes what stood in the way, and says how.
async fn rebase(
    args: &Args,
    error: Error,
    plan: Option<&Plan>,
    settings: &Settings,
    remote: &Remote,
    context: &Context,
) -> Result<()> {
    let workspace = Workspace::open(&context.dir)?;
    let mut ring = workspace.ring(settings, args.passphrase.source())?;
    let actor = actor();
    let patience = args.patience.delta();
    let taking = Taking { actor: &actor, now: context.now, artifacts: false, patience };
    context.ui.status(format_args!("{error}"));
    match publish::overcome(error, plan, &workspace, settings, remote, &mut ring, &taking).await? {
        Overcome::TakenOver(taken) => super::pull::tell(&taken, &context.ui),
        Overcome::Cleared(keys) => {
            context.ui.status(format_args!(
                "removed what was left there of a publication that was given up: {}",
                keys.join(", ")
            ));
        }
    }
    Ok(())
}

/// Publishes to a place that follows the first.
async fn publish_mirror(args: &Args, place: &str, first: u64, context: &Context) -> Result<Done> {
    let workspace = Workspace::open(&context.dir)?;
    let mut remote = args.access.open(place, &context.dir, Some(&workspace.settings()?))?;
    let source = Source::new(&context.dir);
    let plan = publish::plan(&source, &remote, context.now).await?;
    drop(workspace);
    if plan.timestamp != first {
        return Err(Error::new(Kind::Conflict, "the workspace has changed since it was published to the first place")
            .remedy("publish again"));
    }
    carry_out(args, plan, &source, &mut remote, context).await.map_err(|(error, _)| error)
}

/// Carries a plan out, and reads back what it wrote.
async fn carry_out(
    args: &Args,
    plan: Plan,
    source: &Source,
    remote: &mut Remote,
    context: &Context,
) -> Result<Done, (Error, Plan)> {
    let ui = &context.ui;
    if !plan.is_done() {
        if let Err(error) = remote.settle(args.single_writer, context.now).await {
            return Err((error, plan));
        }
        ui.status(show::plan(&plan, remote));
    }
    let progress = Mutex::new(ui.progress_bytes(plan.totals().bytes, "publishing"));
    let report = publish::execute(&plan, source, remote, &|event| {
        if let Event::Sent(bytes) = event {
            progress.lock().unwrap_or_else(PoisonError::into_inner).advance(bytes);
        }
    })
    .await;
    drop(progress);
    let report = match report {
        Ok(report) => report,
        Err(error) => return Err((error, plan)),
    };
    let mut audit = None;
    if report.written > 0 && !args.no_verify {
        ui.status(format_args!("reading back what was published to {}", remote.name()));
        match publish::read_back(&plan, source, remote, context.now).await {
            Ok(found) if found.ok => audit = Some(found),
            Ok(found) => {
                ui.status(&found);
                let error = Error::trust(format!("what was just published to {} is not sound", remote.name()))
                    .rule("P-READ-BACK")
                    .remedy("devices keep what they have and wait; find out what changed it on its way or there, and publish again");
                return Err((error, plan));
            }
            Err(error) => return Err((error, plan)),
        }
    }
    Ok(Done { plan, report, audit })
}

fn tell_audit(done: &Done, place: &str, context: &Context) {
    if let Some(audit) = &done.audit {
        let items: u64 = audit.rows.iter().map(|row| row.items).sum();
        context
            .ui
            .status(format_args!("{place} is sound: {items} things read back and checked, by two implementations"));
    }
}

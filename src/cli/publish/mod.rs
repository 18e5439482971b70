//! `tidegate publish`: what is signed becomes what devices see.

pub(super) mod access;
pub(super) mod live;
mod show;
pub(super) mod transfer;

use std::path::Path;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::{Value, json};

pub(super) use self::access::AccessArgs;
pub(super) use self::live::places;
use super::context::{Context, actor, block_on};
use super::passphrase::PassphraseArgs;
use super::ui::Ui;
use crate::config::Settings;
use crate::error::{Error, Kind, Result, Rule, chain};
use crate::metadata::redate_remedy;
use tidegate_model::layout::DelegatedRole;

use crate::publish::{self, Overcome, Plan, PublishReport, PullOptions, Remote, Source};
use crate::report::{site, view};
use crate::workspace::{Published, Workspace};
use tidegate_model::span::Span;
use tidegate_model::text::{public_url, public_urls};

/// How often others may be in the way before it is left to people.
const TRIES: u32 = 8;
/// How long to wait for someone else's clean-up to end.
const PAUSE: Duration = Duration::from_secs(5);

/// Publish the workspace
///
/// Writes new files in an order in which none refers to a missing one, and timestamp.json last: until then devices see the
/// earlier state. If it is interrupted, run it again. If someone else published in the meantime, nothing changes and the command
/// reports a conflict.
///
/// With several places, the first decides, and what it accepts is copied to the others. If a copy fails, the next run repairs it.
#[derive(Debug, ClapArgs)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(super) struct Args {
    /// Where to: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, or a folder [default: publish.place in
    /// tidegate.toml]
    #[arg(value_name = "PLACE")]
    places: Vec<String>,
    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// If someone else published in the meantime, publish on top of their publication, where nothing conflicts
    #[arg(long)]
    rebase: bool,
    /// With --rebase: how long to wait for another incomplete publication before its files are removed
    #[arg(long, value_name = "SPAN", default_value = "2m")]
    patience: Span,
    /// Replace what is live although it is dated later than now: another machine's clock was wrong, and this one's is right
    #[arg(long)]
    redate: bool,
    /// Do not read back what was published
    #[arg(long)]
    no_verify: bool,
    /// Confirm that nothing else publishes there: for places without conditional writes
    #[arg(long)]
    single_writer: bool,
    /// Also publish the status page (index.html, status.json): with the signed data, or with all that the workspace knows
    #[arg(long, value_name = "public|full", num_args = 0..=1, require_equals = true, default_missing_value = "public")]
    site: Option<Site>,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// How much a published status page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Site {
    /// What is signed, and so public anyway.
    Public,
    /// The ledger, proposals and findings, too.
    Full,
}

/// What came of one place.
struct Done {
    plan: Plan,
    report: PublishReport,
    audit: Option<crate::audit::AuditReport>,
}

impl Done {
    fn json(&self) -> Value {
        json!({"plan": self.plan, "report": self.report, "verified": self.audit})
    }
}

impl Args {
    /// How a step of a rollout is published at once: on top of what others published in the meantime.
    fn at_once(passphrase: &PassphraseArgs) -> Self {
        Self {
            places: Vec::new(),
            dry_run: false,
            rebase: true,
            patience: Span::of_seconds(120),
            no_verify: false,
            single_writer: false,
            redate: false,
            site: None,
            access: AccessArgs::default(),
            passphrase: passphrase.clone(),
        }
    }
}

/// Publishes, or shows what that would do.
pub(super) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let places = if args.places.is_empty() { places(context)? } else { args.places.clone() };
    if args.dry_run {
        return block_on(dry_run(args, &places, context));
    }
    let (value, outcome) = block_on(everywhere(args, &places, context))?;
    let ui = &context.ui;
    if ui.is_json() {
        ui.json(&value)?;
    }
    outcome?;
    if let Some(first) = places.first() {
        ui.hint(format_args!("tidegate verify {first} --root {}", context.dir.join("metadata/1.root.json").display()));
    }
    Ok(())
}

/// Publishes what a step has just signed; `state` is the state here, whatever becomes of it. Returns the result as JSON, and what is
/// still wrong although it is published.
///
/// # Errors
///
/// Fails if it is not published.
pub(super) fn at_once(
    places: &[String],
    passphrase: &PassphraseArgs,
    state: &str,
    context: &Context,
) -> Result<(Value, Result<()>)> {
    block_on(everywhere(&Args::at_once(passphrase), places, context)).map_err(|error| {
        let remedy = error.remedy_text().map_or_else(String::new, |remedy| format!("{remedy}; then: "));
        let told = Error::new(error.kind(), format!("{state} here, but NOT PUBLISHED: devices do not know of it"))
            .remedy(format!("{remedy}tidegate publish"));
        match error.broken_rule() {
            Some(rule) => told.rule(rule).with_source(error),
            None => told.with_source(error),
        }
    })
}

/// Publishes to all places. Returns the result as JSON, and what is still wrong although the first place has it.
async fn everywhere(args: &Args, places: &[String], context: &Context) -> Result<(Value, Result<()>)> {
    let Some((first, mirrors)) = places.split_first() else { return Err(Error::bug("no place")) };
    let done = publish_first(args, first, context).await?;
    let ui = &context.ui;
    if !ui.is_json() {
        ui.result(show::report(&done.report, &public_url(first)))?;
        tell_audit(&done, first, context);
    }
    let mut told = vec![];
    let mut behind = vec![];
    for place in mirrors {
        match publish_mirror(args, place, done.plan.timestamp, context).await {
            Ok(done) => {
                told.push(
                    json!({"place": public_url(place), "ok": true, "report": done.report, "verified": done.audit}),
                );
                if !ui.is_json() {
                    ui.result(show::report(&done.report, &public_url(place)))?;
                    tell_audit(&done, place, context);
                }
            }
            Err(error) => {
                let why = chain(&error);
                told.push(json!({"place": public_url(place), "ok": false, "error": why}));
                if !ui.is_json() {
                    ui.result(public_urls(&format!("{place} is out of date: {why}")))?;
                }
                behind.push(place.as_str());
            }
        }
    }
    if let Some(site) = args.site {
        publish_site(args, site, places, context).await?;
    }
    let mut value = done.json();
    if let (Some(object), false) = (value.as_object_mut(), mirrors.is_empty()) {
        object.insert("mirrors".to_owned(), told.into());
    }
    if behind.is_empty() {
        return Ok((value, expired(&done.plan, ui)));
    }
    let lagging = Error::new(
        Kind::Io,
        format!("{} of {} places are out of date: {}", behind.len(), places.len(), behind.join(", ")),
    )
    .remedy("devices that use them see the earlier state; the next publication repairs them, or run this one again");
    Ok((value, Err(lagging)))
}

/// Reports in the exit status what has expired, once everything else is published; and what is dated later than now, as a warning.
fn expired(plan: &Plan, ui: &Ui) -> Result<()> {
    for role in &plan.ahead {
        ui.warn(format_args!("the role {role} is dated later than now (M-TIME): {}", redate_remedy(role)));
    }
    let Some(first) = plan.expired.first() else { return Ok(()) };
    for role in &plan.expired {
        ui.status(format_args!("warning: the role {role} has expired: its devices keep what they have"));
    }
    let remedy = match DelegatedRole::parse(first) {
        Some(DelegatedRole::Cohort { .. }) => "renew it, then publish again: tidegate refresh".to_owned(),
        _ => format!("have its keys sign it again: tidegate ceremony start --renew {first}"),
    };
    Err(Error::refused(Rule::PublishExpired, format!("published, but expired: {}", plan.expired.join(", ")))
        .remedy(remedy))
}

/// Plans, if the clock is right.
async fn plan(args: &Args, source: &Source, remote: &Remote, context: &Context) -> Result<Plan> {
    let plan = publish::plan(source, remote, context.now).await?;
    if !args.redate {
        plan.check_clock(context.now)?;
    }
    Ok(plan)
}

async fn dry_run(args: &Args, places: &[String], context: &Context) -> Result<()> {
    let (source, ui) = (Source::new(&context.dir), &context.ui);
    let mut plans = vec![];
    for place in places {
        let workspace = Workspace::open_to_read(&context.dir)?;
        let remote = args.access.open(place, &context.dir, Some(&workspace.settings()?))?;
        let plan = plan(args, &source, &remote, context).await?;
        if !ui.is_json() {
            ui.block(show::plan(&plan, &remote))?;
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
        let planned = plan(args, &source, &remote, context).await;
        if args.places.is_empty()
            && let Ok(plan) = &planned
        {
            check_place(plan, place, &context.dir)?;
        }
        drop(workspace);
        let (error, plan) = match planned {
            Ok(plan) => match carry_out(args, &plan, &source, &mut remote, context).await {
                Ok(report) => {
                    // At once: it is live, whatever becomes of reading it back.
                    note(&plan, place, &settings, &remote, context).await?;
                    return read_back(args, plan, report, &source, &remote, context).await;
                }
                Err(error) => (error, Some(plan)),
            },
            Err(error) => (error, None),
        };
        tries += 1;
        if !args.rebase || tries >= TRIES {
            return Err(error);
        }
        if error.broken_rule() == Some(Rule::PublishSweep) {
            context.ui.status(format_args!("waiting: {error}"));
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        rebase(args, error, plan.as_ref(), &settings, &remote, context).await?;
    }
}

/// Checks that the place in tidegate.toml is not empty if something was published before: a folder that is not mounted, or that is
/// relative to another checkout, looks like a place where nothing is yet.
fn check_place(plan: &Plan, place: &str, dir: &Path) -> Result<()> {
    let Some(before) = Published::load(dir)?.filter(|_| plan.live.is_none()) else { return Ok(()) };
    let place = public_url(place);
    Err(Error::refused(
        Rule::PublishEmpty,
        format!("nothing is at {place}, and timestamp {} was published before", before.timestamp),
    )
    .remedy(format!(
        "see whether it is the right place, and mounted; to begin there anew, name it: tidegate publish {place}"
    )))
}

/// Records the publication, here and at the place. The latter is for other checkouts, and its failure stops nothing.
async fn note(plan: &Plan, place: &str, settings: &Settings, remote: &Remote, context: &Context) -> Result<()> {
    let is_theirs = settings.publish.places(&context.dir).first().is_none_or(|first| is_same_place(first, place));
    let noted = plan.published().note(&Workspace::open(&context.dir)?, is_theirs)?;
    if let Some(published) = noted.filter(|_| !plan.is_done())
        && let Err(error) = publish::leave_record(remote, &published).await
    {
        context.ui.warn(format_args!(
            "published, but there is no record of it at the place: other checkouts count soak from their next pull: {error}"
        ));
    }
    Ok(())
}

/// Whether two names are of one place: a folder may be named in several ways.
pub(super) fn is_same_place(a: &str, b: &str) -> bool {
    let folder = |name: &str| std::fs::canonicalize(name).ok();
    a.trim_end_matches('/') == b.trim_end_matches('/') || (folder(a).is_some() && folder(a) == folder(b))
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
    let (now, redate) = (context.now, args.redate);
    let taking = PullOptions { actor: &actor, now, artifacts: false, redate, patience };
    context.ui.status(format_args!("{error}"));
    match publish::overcome(error, plan, &workspace, settings, remote, &mut ring, &taking).await? {
        Overcome::TakenOver(taken) => super::pull::tell(&taken, &context.ui),
        Overcome::Cleared(keys) => {
            context.ui.status(format_args!("removed files of an abandoned publication: {}", keys.join(", ")));
        }
    }
    Ok(())
}

/// Publishes the status page to all places, as of what the workspace says now.
async fn publish_site(args: &Args, site: Site, places: &[String], context: &Context) -> Result<()> {
    let workspace = Workspace::open(&context.dir)?;
    let settings = workspace.settings()?;
    let repository = workspace.repository()?;
    let here = view::Place::workspace(&context.dir);
    let reading = if site == Site::Full { here.read(None)? } else { here.read_as_the_public(None)? };
    let mut state = view::signed(&reading, context.now);
    if site == Site::Full {
        view::add_workspace(&mut state, &workspace)?;
    }
    drop(workspace);
    if site == Site::Full && !settings.receipts.places.is_empty() {
        crate::cli::site::count_at(&mut state, &reading, (&[], None), &settings.receipts, context).await;
    }
    for place in places {
        state.place = public_url(place);
        let mut remote = args.access.open(place, &context.dir, Some(&settings))?;
        let seen = vec![(state.place.clone(), publish::live_timestamp(&remote).await)];
        view::add_publication(&mut state, publish::publication_status(&context.dir, &repository, &seen)?);
        if site == Site::Public {
            state.shows.places.clear();
        }
        let files = [(site::STATUS, site::status(&state)?), (site::PAGE, site::page(&state).into_bytes())];
        remote.settle(args.single_writer, context.now).await?;
        publish::beside(&remote, &files).await?;
        context.ui.status(format_args!("the status page is at {place}/{}", site::PAGE));
    }
    Ok(())
}

/// Publishes to a place that follows the first.
async fn publish_mirror(args: &Args, place: &str, first: u64, context: &Context) -> Result<Done> {
    let workspace = Workspace::open(&context.dir)?;
    let mut remote = args.access.open(place, &context.dir, Some(&workspace.settings()?))?;
    let source = Source::new(&context.dir);
    let plan = plan(args, &source, &remote, context).await?;
    drop(workspace);
    if plan.timestamp != first {
        return Err(Error::new(Kind::Conflict, "the workspace has changed since it was published to the first place")
            .remedy("publish again"));
    }
    let report = carry_out(args, &plan, &source, &mut remote, context).await?;
    read_back(args, plan, report, &source, &remote, context).await
}

/// Carries a plan out.
async fn carry_out(
    args: &Args,
    plan: &Plan,
    source: &Source,
    remote: &mut Remote,
    context: &Context,
) -> Result<PublishReport> {
    if !plan.is_done() {
        remote.settle(args.single_writer, context.now).await?;
        context.ui.status_block(show::plan(plan, remote));
    }
    transfer::carry_out(plan, source, remote, &context.ui, "publishing").await
}

/// Reads back what was written, if anything was and it is wanted.
async fn read_back(
    args: &Args,
    plan: Plan,
    report: PublishReport,
    source: &Source,
    remote: &Remote,
    context: &Context,
) -> Result<Done> {
    let mut audit = None;
    if report.written > 0 && !args.no_verify {
        audit = Some(transfer::read_back(&plan, source, remote, &context.ui, context.now).await?);
    }
    Ok(Done { plan, report, audit })
}

fn tell_audit(done: &Done, place: &str, context: &Context) {
    if let Some(audit) = &done.audit {
        let items: u64 = audit.rows.iter().map(|row| row.items).sum();
        context.ui.status(format_args!("{place}: verified {items} objects with tidegate and tough"));
    }
}

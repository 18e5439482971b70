//! `tidegate rollout`: which cohort is offered which release, and how fast.

mod plan;
mod renew;
mod stop;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};
use tidegate_model::name::Name;

use super::context::{Context, actor};
use super::passphrase::PassphraseArgs;
use super::publish::{self, live};
use super::{next, pull, show, status};
use crate::config::parse_share;
use crate::error::{Result, chain};
use crate::metadata::Repository;
use crate::policy::ReleaseState;
use crate::publish::{PublicationStatus, publication_status};
use crate::release::record::{self, ReleaseId, ReleaseSpec};
use crate::rollout::{RampRequest, RolloutTransaction, StepOutcome};
use crate::workspace::{Operation, Workspace, products_in_force};
use tidegate_model::span::Span;

/// What every step leaves to be done.
const NOT_PUBLISHED: &str = "Devices do not know of it yet: it is not published";

/// Offer a release to the fleet, cohort by cohort
#[derive(Debug, ClapArgs)]
#[command(after_help = "To stop a release:
  pause            offers it to no further device until resume
  withdraw         ends it for good: devices are offered the next older release
  release retract  moves devices that run it to a new release with older bytes
  release retire   removes an old release from its channel, at a ceremony
No device uninstalls anything, and nothing changes for devices before publish.")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what a rollout will do to a fleet, hour by hour, before anything is signed
    Plan(Box<plan::Args>),
    /// Offer the release to the first cohort; a security release to all cohorts
    Start(StepArgs),
    /// Advance to the next cohort, or raise the share of the current one
    Advance(StepArgs),
    Pause(stop::PauseArgs),
    /// Continue after a pause
    Resume(ResumeArgs),
    /// Extend a limited rollout before it ends by itself
    Renew(renew::Args),
    Withdraw(stop::WithdrawArgs),
    /// Mark the release stable once every cohort has it
    Complete(PlainArgs),
    Approve(super::approve::Args),
    /// Show the state of the rollout in each cohort
    Status(StatusArgs),
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate rollout start 1.2.0 --publish
  tidegate rollout advance 1.2.0 --ramp 24h
  tidegate rollout advance 1.2.0 --to 10%
  tidegate rollout advance 1.2.0 --ramp 12h --from 10% --to 50%
  tidegate rollout advance 1.2.0 --cohort early --ramp 30h")]
struct StepArgs {
    /// The release
    release: ReleaseSpec,
    /// Raise the share of the cohort gradually over this time
    #[arg(long, value_name = "SPAN")]
    ramp: Option<Span>,
    /// Share of the cohort that is eligible when the ramp starts
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    from: Option<u32>,
    /// Share of the cohort that is eligible at the end [default: 100%]
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    to: Option<u32>,
    /// The next cohort, or the one whose running ramp gets another speed
    #[arg(long, value_name = "NAME")]
    cohort: Option<Name>,
    #[command(flatten)]
    publishing: Publishing,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate rollout resume 1.2.0
  tidegate rollout resume 1.2.0 --ramp 30h")]
struct ResumeArgs {
    /// The release
    release: ReleaseSpec,
    /// Change the speed of running ramps: from where they are to their end in this time
    #[arg(long, value_name = "SPAN")]
    ramp: Option<Span>,
    /// Share of the cohort that is eligible at the end [default: as before]
    #[arg(long, value_name = "SHARE", value_parser = parse_share, requires = "ramp")]
    to: Option<u32>,
    #[command(flatten)]
    publishing: Publishing,
}

#[derive(Debug, ClapArgs)]
struct PlainArgs {
    /// The release
    release: ReleaseSpec,
    #[command(flatten)]
    publishing: Publishing,
}

#[derive(Debug, ClapArgs)]
struct StatusArgs {
    /// The release [default: all]
    release: Option<ReleaseSpec>,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    match &args.command {
        Command::Plan(args) => plan::run(args, cx),
        Command::Start(args) => step(cx, &args.release, &args.publishing, |transaction, op| {
            transaction.must_be_next(args.cohort.as_ref())?;
            transaction.start(args.request(), op)
        }),
        Command::Advance(args) => step(cx, &args.release, &args.publishing, |transaction, op| {
            transaction.advance(args.request(), args.cohort.as_ref(), op)
        }),
        Command::Pause(args) => stop::pause(args, cx),
        Command::Resume(args) => step(cx, &args.release, &args.publishing, |transaction, op| {
            transaction.resume(RampRequest { span: args.ramp, from: None, to: args.to }, op)
        }),
        Command::Renew(args) => renew::run(args, cx),
        Command::Withdraw(args) => stop::withdraw(args, cx),
        Command::Complete(args) => {
            step(cx, &args.release, &args.publishing, |transaction, op| transaction.complete(op))
        }
        Command::Approve(args) => super::approve::run(args, cx),
        Command::Status(args) => status_of(args, cx),
    }
}

/// How a step is signed, and whether it is published at once.
#[derive(Debug, ClapArgs)]
struct Publishing {
    /// Then publish it to the places in tidegate.toml
    #[arg(long)]
    publish: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

impl Publishing {
    /// The places to publish to; refused before anything is done if there are none. What others have published there is taken over first.
    fn places(&self, cx: &Context) -> Result<Option<Vec<String>>> {
        let places = self.publish.then(|| publish::places(cx)).transpose()?;
        if places.is_some() {
            pull::catch_up(&self.passphrase, cx)?;
        }
        Ok(places)
    }

    /// The same for a step that stops a release: it is taken here whatever is published there.
    fn places_to_stop(&self, cx: &Context) -> Result<Option<Vec<String>>> {
        let places = self.publish.then(|| publish::places(cx)).transpose()?;
        if places.is_some()
            && let Err(error) = pull::catch_up(&self.passphrase, cx)
        {
            cx.ui.warn(chain(&error));
        }
        Ok(places)
    }

    /// Publishes if that is wanted, and prints `value` with what came of it.
    fn finish(&self, cx: &Context, places: Option<&[String]>, mut value: Value, state: &str) -> Result<()> {
        let published = places.map(|places| publish::at_once(places, &self.passphrase, state, cx)).transpose();
        if cx.ui.is_json() {
            if places.is_some() {
                let result = published.as_ref().ok().and_then(Option::as_ref);
                value["published"] = result.map_or(Value::Null, |(value, _)| value.clone());
            }
            cx.ui.json(&value)?;
        }
        published?.map_or(Ok(()), |(_, outcome)| outcome)
    }
}

impl StepArgs {
    fn request(&self) -> RampRequest {
        RampRequest { span: self.ramp, from: self.from, to: self.to }
    }
}

/// Takes a step, prints what it did, and publishes it if that is wanted.
fn step(
    cx: &Context,
    release: &ReleaseSpec,
    publishing: &Publishing,
    step: impl FnOnce(RolloutTransaction<'_>, &mut Operation<'_>) -> Result<StepOutcome>,
) -> Result<()> {
    let places = publishing.places(cx)?;
    let outcome = take(cx, release, &publishing.passphrase, step)?;
    if !cx.ui.is_json() {
        told(cx, &outcome, places.is_some())?;
    }
    let state = format!("{} is {}", outcome.record.id(), outcome.record.status());
    publishing.finish(cx, places.as_deref(), outcome_json(&outcome), &state)?;
    if places.is_some() { hint(cx, &outcome.record.id()) } else { Ok(()) }
}

/// Takes a step.
fn take(
    cx: &Context,
    release: &ReleaseSpec,
    passphrase: &PassphraseArgs,
    step: impl FnOnce(RolloutTransaction<'_>, &mut Operation<'_>) -> Result<StepOutcome>,
) -> Result<StepOutcome> {
    let workspace = Workspace::open(&cx.dir)?;
    let mut ring = workspace.ring(&workspace.settings()?, passphrase.source())?;
    step(
        RolloutTransaction::open(&workspace, release, cx.now)?,
        &mut Operation::new(&workspace, &actor(), cx.now, &mut ring),
    )
}

fn outcome_json(outcome: &StepOutcome) -> Value {
    let record = &outcome.record;
    let mut told = json!({
        "release": record.id().to_string(),
        "state": record.state,
        "paused": record.paused,
        "cohorts": outcome.cohorts,
        "roles": outcome.roles,
        "in_force": outcome.in_force,
        "kept": outcome.kept,
    });
    if !outcome.bridge_of.is_empty() {
        told["bridge_of"] = json!(outcome.bridge_of);
    }
    told
}

/// Prints what each cohort is offered instead of a withdrawn release.
fn fallbacks(cx: &Context, outcome: &StepOutcome) {
    for cohort in outcome.in_force.iter().filter(|current| outcome.cohorts.contains(&current.cohort)) {
        let next = cohort.offers.iter().find(|offer| !offer.paused && !offer.has_ended(cx.now));
        match next {
            Some(offer) => cx.ui.status(format_args!("{} falls back to {}", cohort.cohort, offer.release)),
            None => cx.ui.status(format_args!("{} is offered nothing now", cohort.cohort)),
        }
    }
}

/// Hints at what comes next for a release.
fn hint(cx: &Context, id: &ReleaseId) -> Result<()> {
    next::hint(cx, &Workspace::open_to_read(&cx.dir)?, id);
    Ok(())
}

/// Prints what a step did; `publishes` if it is published at once.
fn told(cx: &Context, outcome: &StepOutcome, publishes: bool) -> Result<()> {
    let record = &outcome.record;
    let (before, after) = (outcome.before.to_string(), record.status().to_string());
    if before == after {
        cx.ui.status(format_args!("{} is {after}", record.id()));
    } else {
        cx.ui.status(format_args!("{}: {before} -> {after}", record.id()));
    }
    show::cohorts(&cx.ui, &outcome.in_force, cx.now)?;
    for release in &outcome.bridge_of {
        cx.ui.status(format_args!(
            "It is no longer a bridge to {release}: devices that needed it wait. List them: tidegate explain --fleet CSV"
        ));
    }
    if record.state == ReleaseState::Withdrawn {
        fallbacks(cx, outcome);
    }
    if record.paused && !outcome.before.paused {
        cx.ui.status("Devices that installed it keep it, those that are installing it go on, and so do other releases");
    }
    for release in &outcome.kept {
        cx.ui.status(format_args!("{release} stays offered below it, for devices that it does not fit"));
    }
    if !outcome.roles.is_empty() {
        cx.ui.status(format_args!("New versions of: {}", outcome.roles.join(", ")));
        if !publishes {
            cx.ui.status(NOT_PUBLISHED);
        }
    }
    if record.state == ReleaseState::Withdrawn
        && outcome.before.state != ReleaseState::Registered
        && !outcome.roles.is_empty()
    {
        cx.ui.status(format_args!(
            "To give devices that run it the older bytes: tidegate release retract {}",
            record.id()
        ));
    }
    if !publishes {
        hint(cx, &record.id())?;
    }
    Ok(())
}

fn status_of(args: &StatusArgs, cx: &Context) -> Result<()> {
    let seen = live::read(cx);
    let workspace = Workspace::open_to_read(&cx.dir)?;
    let repository = workspace.repository()?;
    let publication = publication_status(&cx.dir, &repository, &seen)?;
    let Some(release) = &args.release else { return status_of_all(cx, &workspace, &repository, &publication) };
    let transaction = RolloutTransaction::open(&workspace, release, cx.now)?;
    let record = transaction.record();
    if cx.ui.is_json() {
        return cx.ui.json(&json!({
            "release": record.id().to_string(),
            "state": record.state,
            "paused": record.paused,
            "in_force": transaction.in_force(),
            "publication": publication,
        }));
    }
    cx.ui.result(format_args!("{}  {}", record.id(), record.status()))?;
    show::cohorts(&cx.ui, transaction.in_force(), cx.now)?;
    live::warn(cx, &publication);
    let id = record.id();
    drop(transaction);
    if let Some(step) = next::of(cx, &workspace, &publication, &id)? {
        cx.ui.hint(step);
    }
    Ok(())
}

/// Every release that is not over, and where every cohort stands.
fn status_of_all(
    cx: &Context,
    workspace: &Workspace,
    repository: &Repository,
    publication: &[PublicationStatus],
) -> Result<()> {
    let settings = workspace.settings()?;
    let mut records = record::all(workspace.dir())?;
    records.retain(|record| !matches!(record.state, ReleaseState::Withdrawn | ReleaseState::Retired));
    let in_force = products_in_force(workspace.dir(), repository, &settings)?;
    if cx.ui.is_json() {
        let releases = status::releases_json(&records);
        return cx.ui.json(&json!({"rollouts": in_force, "releases": releases, "publication": publication}));
    }
    for (number, product) in in_force.iter().enumerate() {
        if number > 0 {
            cx.ui.result("")?;
        }
        status::rollouts(cx, product, &records)?;
    }
    live::warn(cx, publication);
    cx.ui.hint(next::step(cx, workspace, publication)?);
    Ok(())
}

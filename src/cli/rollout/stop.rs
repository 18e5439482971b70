//! `tidegate rollout pause` and `withdraw`: what stops a release, and has devices know of it at once if that is wanted.

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::{NOT_PUBLISHED, Publishing, hint, outcome_json, take, told};
use crate::cli::context::Context;
use crate::cli::publish;
use crate::error::{Error, Result, Rule, chain};
use crate::policy::ReleaseState;
use crate::release::record::{self, ReleaseSpec};
use crate::rollout::{RolloutTransaction, StepOutcome};
use crate::workspace::{ProductInForce, Workspace, products_in_force};

/// Offer the release to no further device; devices that installed it keep it
///
/// Devices know of it once it is published: with --publish, or by tidegate publish. Those that are installing it already go on. The
/// releases below it in each cohort stay offered.
///
/// With --all, whatever is offered anywhere is paused: every release, product and channel. One that cannot be paused stops no other;
/// it is named, and the exit status is 1. Resume them one by one.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate rollout pause 1.2.0
  tidegate rollout pause 1.2.0 --publish
  tidegate rollout pause --all --publish     (emergency: all releases)")]
pub(super) struct PauseArgs {
    /// The release
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    release: Option<ReleaseSpec>,
    /// Pause everything that is offered
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    how: How,
}

/// Stop offering the release for good; devices that installed it keep it
///
/// Devices know of it once it is published: with --publish, or by tidegate publish. They are offered the next older release, which
/// those that have a newer one do not install: tidegate release retract moves them.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate rollout withdraw 1.2.0 --reason 'two devices lost their clock'
  tidegate rollout withdraw 1.2.0 --publish")]
pub(super) struct WithdrawArgs {
    /// The release
    release: ReleaseSpec,
    #[command(flatten)]
    how: How,
}

/// What pausing and withdrawing have in common.
#[derive(Debug, ClapArgs)]
struct How {
    /// The reason, for the ledger
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    publishing: Publishing,
}

pub(super) fn pause(args: &PauseArgs, cx: &Context) -> Result<()> {
    let places = args.how.publishing.places_to_stop(cx)?;
    let Some(release) = &args.release else { return pause_all(args, places.as_deref(), cx) };
    let outcome = take(cx, release, &args.how.publishing.passphrase, |transaction, op| {
        transaction.pause(op, args.how.reason.as_deref())
    });
    one(&args.how, release, places.as_deref(), outcome, cx)
}

pub(super) fn withdraw(args: &WithdrawArgs, cx: &Context) -> Result<()> {
    let places = args.how.publishing.places_to_stop(cx)?;
    let outcome = take(cx, &args.release, &args.how.publishing.passphrase, |transaction, op| {
        transaction.withdraw(op, args.how.reason.as_deref())
    });
    one(&args.how, &args.release, places.as_deref(), outcome, cx)
}

/// Tells what a step did, and publishes it. With `--publish`, a step that was taken before is no error: it may not be published yet.
fn one(
    how: &How,
    release: &ReleaseSpec,
    places: Option<&[String]>,
    outcome: Result<StepOutcome>,
    cx: &Context,
) -> Result<()> {
    let id = release.find(&cx.dir)?.id();
    let (value, state) = match outcome {
        Ok(outcome) => {
            let state = format!("{} is {}", outcome.record.id(), outcome.record.status());
            let value = outcome_json(&outcome);
            if !cx.ui.is_json() {
                told(cx, &outcome, places.is_some())?;
            }
            (value, state)
        }
        Err(error) if places.is_some() && was_before(&error) => {
            let record = release.find(&cx.dir)?;
            if error.broken_rule() == Some(Rule::ReleaseOver) && record.state != ReleaseState::Withdrawn {
                return Err(error);
            }
            let state = format!("{} is {}", record.id(), record.status());
            cx.ui.status(format_args!("{state} already"));
            (unchanged(cx, release)?, state)
        }
        Err(error) => return Err(error),
    };
    how.publishing.finish(cx, places, value, &state)?;
    if places.is_some() { hint(cx, &id) } else { Ok(()) }
}

fn was_before(error: &Error) -> bool {
    matches!(error.broken_rule(), Some(Rule::ReleasePaused | Rule::ReleaseOver))
}

/// The state of a release, as the result of a step that changed nothing.
fn unchanged(cx: &Context, release: &ReleaseSpec) -> Result<Value> {
    let workspace = Workspace::open_to_read(&cx.dir)?;
    let transaction = RolloutTransaction::open(&workspace, release, cx.now)?;
    let record = transaction.record();
    Ok(json!({
        "release": record.id().to_string(),
        "state": record.state,
        "paused": record.paused,
        "cohorts": [],
        "roles": [],
        "in_force": transaction.in_force(),
        "kept": [],
    }))
}

/// Pauses everything that is offered. What cannot be paused is told at the end, after everything else is done and published.
fn pause_all(args: &PauseArgs, places: Option<&[String]>, cx: &Context) -> Result<()> {
    let (mut paused, mut before, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for record in record::all(&cx.dir)? {
        let id = record.id().to_string();
        let spec: ReleaseSpec = id.parse().map_err(|e: String| Error::bug(e))?;
        let outcome = take(cx, &spec, &args.how.publishing.passphrase, |transaction, op| {
            transaction.pause(op, args.how.reason.as_deref())
        });
        match outcome {
            Ok(_) => {
                if !cx.ui.is_json() {
                    cx.ui.result(format_args!("{id} is paused"))?;
                }
                paused.push(id);
            }
            Err(error) if error.broken_rule() == Some(Rule::ReleasePaused) => before.push(id),
            // It is offered to nobody.
            Err(error)
                if matches!(
                    error.broken_rule(),
                    Some(Rule::ReleaseAssigned | Rule::ReleaseOrder | Rule::ReleaseOver)
                ) => {}
            Err(error) => failed.push(json!({"release": id, "error": chain(&error)})),
        }
    }
    let offered = still_offered(cx).unwrap_or_else(|error| {
        failed.push(json!({"release": Value::Null, "error": chain(&error)}));
        Vec::new()
    });
    if !cx.ui.is_json() && paused.is_empty() {
        cx.ui.result("nothing else is offered that is not paused")?;
    }
    for failure in &failed {
        cx.ui.warn(format_args!("{}: {}", text(&failure["release"]), text(&failure["error"])));
    }
    let count = paused.len();
    let state = if count == 1 { "1 release is paused".to_owned() } else { format!("{count} releases are paused") };
    let value = json!({"releases": paused, "paused_before": before, "failed": failed, "still_offered": offered});
    args.how.publishing.finish(cx, places, value, &state)?;
    if offered.is_empty() && failed.is_empty() {
        if places.is_none() {
            cx.ui.status(NOT_PUBLISHED);
            cx.ui.hint(publish::live::publish_command(cx));
        }
        return Ok(());
    }
    let still = if offered.is_empty() { "see the warnings".to_owned() } else { offered.join(", ") };
    Err(Error::refused(Rule::ReleasePaused, format!("not everything could be paused; still offered: {still}"))
        .remedy("pause these where their rollout keys are: tidegate rollout pause RELEASE --publish"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("what is offered")
}

/// The offers that go out unpaused, whether or not there is a record of their release.
fn still_offered(cx: &Context) -> Result<Vec<String>> {
    let workspace = Workspace::open_to_read(&cx.dir)?;
    let (settings, repository) = (workspace.settings()?, workspace.repository()?);
    let mut found = Vec::new();
    for ProductInForce { channel, product, cohorts } in products_in_force(workspace.dir(), &repository, &settings)? {
        for current in cohorts {
            let open = current.offers.iter().filter(|offer| !offer.paused && !offer.has_ended(cx.now));
            found.extend(open.map(|offer| format!("{channel}/{product}/{} to {}", offer.release, current.cohort)));
        }
    }
    Ok(found)
}

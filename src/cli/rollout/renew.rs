//! `tidegate rollout renew`: keeps a limited rollout alive, if its devices are well.

use clap::Args as ClapArgs;
use serde_json::json;

use super::super::show;
use crate::cli::context::{Context, actor};
use crate::error::{Error, Result};
use crate::release::record::ReleaseSpec;
use crate::rollout::RolloutTransaction;
use crate::rollout::health::{Action, Counts, Health, Source, Verdict};
use crate::workspace::{Operation, Workspace};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate rollout renew 1.2.0
  tidegate rollout renew 1.2.0 --require-health health.json
  tidegate rollout renew 1.2.0 \\
    --require-health 'command:./health --release 1.2.0'

A health job publishes in any case, so that a pause reaches the devices:

    tidegate rollout renew 1.2.0 --require-health health.json --publish

docs/rollout.md describes the report and [health] in policy.toml.")]
pub(super) struct Args {
    /// The release
    release: ReleaseSpec,
    /// Only if this health report is good: a file, `-` for standard input, or `command:PROGRAM ARGUMENT...`. Beyond the
    /// thresholds of policy.toml the rollout is paused, or the release withdrawn
    #[arg(long, value_name = "FILE|COMMAND")]
    require_health: Option<Source>,
    #[command(flatten)]
    publishing: super::Publishing,
}

pub(super) fn run(args: &Args, cx: &Context) -> Result<()> {
    match &args.require_health {
        None => super::step(cx, &args.release, &args.publishing, |transaction, op| transaction.renew(op)),
        Some(source) => by_health(args, source, cx),
    }
}

fn by_health(args: &Args, source: &Source, cx: &Context) -> Result<()> {
    let places = args.publishing.places(cx)?;
    let workspace = Workspace::open(&cx.dir)?;
    let transaction = RolloutTransaction::open(&workspace, &args.release, cx.now)?;
    let (id, policy) = (transaction.record().id(), transaction.health_policy()?.clone());
    let sequence = transaction.record().manifest.as_ref().map_or(0, |manifest| manifest.sequence);
    drop(transaction);
    // A program may take its time, and may look at the workspace itself.
    drop(workspace);
    let bytes = source.fetch(&id, sequence, &policy)?;

    let workspace = Workspace::open(&cx.dir)?;
    let transaction = RolloutTransaction::open(&workspace, &args.release, cx.now)?;
    let health = Health::parse(bytes, source, (&id, sequence), &transaction.offered(), &policy, cx.now)?;
    let mut ring = workspace.ring(&workspace.settings()?, args.publishing.passphrase.source())?;
    let (verdict, outcome) =
        transaction.renew_by_health(&health, &mut Operation::new(&workspace, &actor(), cx.now, &mut ring))?;
    drop(workspace);
    let value = json!({
        "release": id.to_string(),
        "verdict": verdict,
        "state": outcome.as_ref().map(|outcome| outcome.record.state),
        "paused": outcome.as_ref().map(|outcome| outcome.record.paused),
        "roles": outcome.as_ref().map(|outcome| &outcome.roles),
        "in_force": outcome.as_ref().map(|outcome| &outcome.in_force),
    });
    if !cx.ui.is_json() {
        tell(cx, &health, &verdict)?;
        match &outcome {
            Some(outcome) => super::told(cx, outcome, places.is_some())?,
            None => cx.ui.status("Nothing needs to be changed"),
        }
    }
    let state = outcome
        .as_ref()
        .map_or_else(|| format!("{id} is unchanged"), |outcome| format!("{id} is {}", outcome.record.status()));
    args.publishing.finish(cx, places.as_deref(), value, &state)?;
    let Some(worst) = verdict.findings.first() else { return Ok(()) };
    let done = match (verdict.action, &outcome) {
        (Action::Withdraw, Some(_)) => "the release is withdrawn",
        (_, Some(_)) => "the rollout is paused",
        (_, None) => "the rollout is already paused",
    };
    Err(Error::refused(worst.rule, format!("{id}: {worst}: {done}")).remedy(match verdict.action {
        Action::Withdraw => {
            "publish, so that no device is offered it; then release the fix: tidegate release create VERSION FILE --hardware ID".into()
        }
        _ => format!("publish, and find the cause; then tidegate rollout resume {id}, or tidegate rollout withdraw {id}"),
    }))
}

fn tell(cx: &Context, health: &Health, verdict: &Verdict) -> Result<()> {
    let row = |name: &str, counts: &Counts| {
        let Counts { installed, confirmed, failed, rolled_back } = counts;
        [vec![name.to_owned()], [installed, confirmed, failed, rolled_back].map(u64::to_string).to_vec()].concat()
    };
    let mut rows: Vec<_> = health.cohorts.iter().map(|(cohort, counts)| row(cohort.as_str(), counts)).collect();
    rows.push(row("all", &verdict.all));
    show::table(&cx.ui, &["COHORT", "INSTALLED", "CONFIRMED", "FAILED", "ROLLED BACK"], &rows)?;
    for finding in &verdict.findings {
        cx.ui.result(format_args!("{}: {finding}", finding.rule))?;
    }
    Ok(())
}

//! `tidegate release retire`: have the channel list old releases no longer.

use clap::Args as ClapArgs;
use serde_json::json;

use crate::ceremony::{self, FILE};
use crate::cli::context::{Context, actor};
use crate::error::{Error, Result};
use crate::keys::KeyRing;
use crate::release::record::{ReleaseId, ReleaseSpec};
use crate::release::retire::{self, Choice};
use crate::workspace::{Operation, Workspace};

/// Propose to remove old releases from the channel
///
/// A release can be removed if no cohort is offered it and no offered release needs it as a bridge. Without RELEASE, proposes all
/// of these beyond retirement.keep_releases in policy.toml. The channel's release keys sign in a ceremony.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate release retire --dry-run
  tidegate release retire 1.0.0 1.0.1 --reason 'superseded a year ago'
  tidegate release retire --keep 20")]
pub(super) struct Args {
    /// The releases [default: those beyond what is kept]
    releases: Vec<ReleaseSpec>,
    /// How many releases of each product stay listed [default: retirement.keep_releases of policy.toml]
    #[arg(long, value_name = "COUNT", conflicts_with = "releases", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// The reason, shown to reviewers
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Show which would be removed and which must stay, and propose nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args, cx: &Context) -> Result<()> {
    let workspace = if args.dry_run { Workspace::open_to_read(&cx.dir)? } else { Workspace::open(&cx.dir)? };
    let choice = chosen(args, &workspace, cx)?;
    let go: Vec<String> = choice.go.iter().map(ToString::to_string).collect();
    let stay: Vec<_> = choice.stay.iter().map(|(id, why)| (id.to_string(), why.to_string())).collect();
    let proposal = if args.dry_run || choice.go.is_empty() {
        None
    } else {
        let request = retire::propose(&workspace, &choice.go, args.reason.clone(), cx.now)?;
        Some(ceremony::start(&mut Operation::new(&workspace, &actor(), cx.now, &mut KeyRing::empty()), &request)?)
    };
    if cx.ui.is_json() {
        let stay: Vec<_> = stay.iter().map(|(id, why)| json!({"release": id, "why": why})).collect();
        return cx.ui.json(&json!({
            "go": go,
            "stay": stay,
            "proposal": proposal.as_ref().map(|_| FILE),
        }));
    }
    for id in &go {
        cx.ui.result(format_args!("goes   {id}"))?;
    }
    for (id, why) in &stay {
        cx.ui.result(format_args!(
            "stays  {}",
            why.strip_prefix(id.as_str()).map_or_else(|| why.clone(), |rest| format!("{id}{rest}"))
        ))?;
    }
    match proposal {
        Some(_) => {
            cx.ui.status(format_args!("Proposed in {}; nothing has changed yet", cx.dir.join(FILE).display()));
            cx.ui.status("The release keys sign it: tidegate ceremony sign --key NAME");
            cx.ui.hint("tidegate ceremony show");
        }
        None if go.is_empty() => cx.ui.status("Nothing can be retired"),
        None => cx.ui.status("Nothing was proposed; run it without --dry-run to propose"),
    }
    Ok(())
}

fn chosen(args: &Args, workspace: &Workspace, cx: &Context) -> Result<Choice> {
    let repository = workspace.repository()?;
    if args.releases.is_empty() {
        let kept = workspace.policy()?.retirement.keep_releases;
        let keep = args.keep.and_then(|keep| usize::try_from(keep).ok()).or(kept).ok_or_else(|| {
            Error::usage("no release named, and policy.toml does not say how many are kept")
                .remedy("name them, give --keep COUNT, or set retirement.keep_releases in policy.toml")
        })?;
        return retire::choose(workspace, &repository, keep, cx.now);
    }
    let policy = workspace.policy()?;
    let mut go: Vec<ReleaseId> = Vec::new();
    for spec in &args.releases {
        let record = spec.find(workspace.dir())?;
        retire::check(&repository, &policy, &record, cx.now)?;
        go.push(record.id());
    }
    Ok(Choice { go, stay: Vec::new() })
}

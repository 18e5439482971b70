//! `tidegate pull`: what is live becomes what the workspace is.

use std::path::PathBuf;

use chrono::TimeDelta;
use clap::Args as ClapArgs;
use serde_json::json;
use tidegate_model::text::public_url;

use super::context::{Context, actor, block_on};
use super::passphrase::PassphraseArgs;
use super::place::{live, only_live};
use super::publish::access::AccessArgs;
use super::ui::Ui;
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::metadata::MAX_ROOT;
use crate::publish::{
    NOT_PUBLISHED, PublicationStatus, Published, PullOptions, PullReport, publication_status, recreate, take_over,
};
use crate::workspace::Workspace;

/// Update a workspace from what is published, or create one
///
/// In a workspace: takes over what others have published and keeps local changes, role by role. If both changed the same role,
/// reports a conflict and changes nothing.
///
/// In an empty folder, with --root: creates a workspace from what is published, and says what cannot be recovered. Private keys are
/// not published: put your backup into keys/, before or after.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[arg(help = concat!(live!("The place"), " [default: publish.place in tidegate.toml]"))]
    place: Option<String>,
    /// For a new workspace: a root file that you trust, such as the one devices are shipped with
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Also fetch all artifacts, not only manifests
    #[arg(long)]
    artifacts: bool,
    /// Put local changes on top of what is live although it is dated later than now: another machine's clock was wrong
    #[arg(long)]
    redate: bool,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let place = match &args.place {
        Some(place) => place.clone(),
        None => super::publish::live::places(context)?.swap_remove(0),
    };
    let ui = &context.ui;
    let actor = actor();
    let taking = PullOptions {
        actor: &actor,
        now: context.now,
        artifacts: args.artifacts,
        redate: args.redate,
        patience: TimeDelta::zero(),
    };
    only_live(&place)?;
    if !context.dir.join("metadata").exists() {
        let root = args.root.as_ref().ok_or_else(|| {
            Error::usage(format!("{} is not a workspace yet, so --root FILE is required", context.dir.display()))
                .remedy("give a root file that you trust, such as the one devices are shipped with")
        })?;
        let root = fs::read(root, MAX_ROOT)?;
        let remote = args.access.open_to_read(&place, &context.dir, None)?;
        let made = block_on(recreate(&context.dir, &remote, &root, &taking, args.passphrase.source().as_mut()))?;
        if ui.is_json() {
            return ui.json(&json!({
                "taken": made.taken,
                "keys": made.keys,
                "unoffered": made.unoffered,
                "not_published": NOT_PUBLISHED,
            }));
        }
        tell(&made.taken, ui);
        ui.result(format_args!(
            "created workspace {1} from {0}: timestamp {2}",
            public_url(&place),
            context.dir.display(),
            made.taken.live
        ))?;
        ui.status("not published, and so not recovered:");
        for lost in NOT_PUBLISHED {
            ui.status(format_args!("  {lost}"));
        }
        ui.status(format_args!(
            "keys: {}; put their private parts into keys/, where a file may have another name",
            made.keys.join(", ")
        ));
        for release in &made.unoffered {
            ui.warn(format_args!(
                "{release} is offered to no cohort: it was not started yet, was replaced, or was withdrawn, which is not published; if it \
                 was withdrawn: tidegate rollout withdraw {release}"
            ));
        }
        ui.hint("tidegate doctor");
        return Ok(());
    }
    let workspace = Workspace::open(&context.dir)?;
    let settings = workspace.settings()?;
    let remote = args.access.open_to_read(&place, &context.dir, Some(&settings))?;
    let mut ring = workspace.ring(&settings, args.passphrase.source())?;
    let taken = block_on(take_over(&workspace, &settings, &remote, &mut ring, &taking))?;
    if ui.is_json() {
        return ui.json(&json!({ "taken": taken }));
    }
    told(args, &place, &taken, ui)
}

/// Says what became of a workspace that there was, and what comes next.
fn told(args: &Args, place: &str, taken: &PullReport, ui: &Ui) -> Result<()> {
    tell(taken, ui);
    if taken.theirs.is_empty() && taken.releases.is_empty() && taken.timestamp == taken.live {
        let also = match (args.artifacts, taken.fetched) {
            (true, 0) => "; all artifacts are here",
            (true, _) => "; all artifacts are here now",
            (false, _) => "",
        };
        ui.result(format_args!("up to date with {}: timestamp {}{also}", public_url(place), taken.live))?;
    } else {
        ui.result(format_args!(
            "took over timestamp {} of {}; now at {}",
            taken.live,
            public_url(place),
            taken.timestamp
        ))?;
    }
    if taken.timestamp > taken.live {
        let redate = if args.redate { " --redate" } else { "" };
        ui.hint(format_args!("tidegate publish {place}{redate}"));
    }
    Ok(())
}

/// Takes over what others have published at the place in tidegate.toml since this checkout was made, if they have, before a step that is published
/// at once: the step is then on top of theirs. What else prevents it is told, and stops nothing: publishing has the last word.
///
/// # Errors
///
/// Fails if what is live there does not verify: no step would be published on top of that.
pub(super) fn catch_up(passphrase: &PassphraseArgs, context: &Context) -> Result<()> {
    let caught_up = || -> Result<()> {
        let seen = super::publish::live::read(context);
        let workspace = Workspace::open(&context.dir)?;
        let settings = workspace.settings()?;
        let status = publication_status(&context.dir, &workspace.repository()?, &seen)?;
        let known = Published::load(&context.dir)?.map(|published| published.timestamp);
        let is_news = |place: &PublicationStatus| place.unreachable.is_none() && place.live > known;
        let (Some(first), Some((place, _))) = (status.first().filter(|place| is_news(place)), seen.first()) else {
            return Ok(());
        };
        context.ui.status(format_args!("{} is at timestamp {}: taking it over first", place, first.live.unwrap_or(0)));
        let remote = AccessArgs::default().open_to_read(place, &context.dir, Some(&settings))?;
        let mut ring = workspace.ring(&settings, passphrase.source())?;
        let actor = actor();
        let taking = PullOptions {
            actor: &actor,
            now: context.now,
            artifacts: false,
            redate: false,
            patience: TimeDelta::zero(),
        };
        let taken = block_on(take_over(&workspace, &settings, &remote, &mut ring, &taking)).map_err(|error| {
            match error.kind() {
                Kind::Trust => Error::trust(format!("what others have published at {place} does not verify"))
                    .remedy(format!(
                        "nothing was signed; look at it: tidegate verify {place}; without --publish the step is taken here alone"
                    ))
                    .with_source(error),
                _ => error,
            }
        })?;
        tell(&taken, &context.ui);
        Ok(())
    };
    match caught_up() {
        Err(error) if error.kind() == Kind::Trust => Err(error),
        Err(error) => {
            context.ui.warn(format_args!("what others have published could not be taken over: {error}"));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Says what was taken over.
pub(super) fn tell(taken: &PullReport, ui: &Ui) {
    if !taken.theirs.is_empty() {
        ui.status(format_args!("took over {}", taken.theirs.join(", ")));
    }
    if !taken.ours.is_empty() {
        ui.status(format_args!("kept {}, not published yet", taken.ours.join(", ")));
    }
    if !taken.releases.is_empty() {
        ui.status(format_args!("new here: {}", taken.releases.join(", ")));
    }
    match taken.fetched {
        0 => {}
        1 => ui.status("fetched 1 file"),
        count => ui.status(format_args!("fetched {count} files")),
    }
}

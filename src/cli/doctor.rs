//! `tidegate doctor`: what is not as it should be.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::context::Context;
use super::place::place;
use super::publish::live;
use crate::error::{Error, Result, Rule};
use crate::fs::check_own;
use crate::metadata::{Repository, anchor_file};
use crate::publish::publication_status;
use crate::report::doctor::{Diagnosis, Severity, publication, published, workspace};
use crate::report::view::Place;

/// Check a workspace and a published repository, and suggest fixes
///
/// Also says what is not published yet at the places in tidegate.toml; that reads their timestamp only. With PLACE, that repository is
/// checked as a whole.
///
/// Each finding has a stable id and names the place, the problem and the remedy. Exits with 1 if anything does not work; what is
/// only due or unwise is a warning.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate doctor
  tidegate doctor ../public --deep
  tidegate doctor ../public --root metadata/1.root.json")]
pub(super) struct Args {
    #[arg(help = place!("A published repository to check as well"))]
    place: Option<String>,
    /// A root file that you trust; with it, no workspace is needed
    #[arg(long, value_name = "FILE", requires = "place")]
    root: Option<PathBuf>,
    /// The place of protected cohorts, to read their files as well; without it only what is public is read
    #[arg(long, value_name = "PLACE", requires = "place")]
    private: Option<String>,
    /// Hash all artifacts of the workspace again
    #[arg(long)]
    deep: bool,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let is_workspace = cx.dir.join("tidegate.toml").is_file();
    let mut found = Diagnosis::default();
    if is_workspace || args.root.is_none() {
        let seen = live::read(cx);
        found.extend(workspace(&cx.dir, args.deep, cx.now)?);
        // What keeps the metadata from being read is a finding already.
        if check_own(&cx.dir).is_ok()
            && let Ok(repository) = Repository::open(&cx.dir)
        {
            found.extend(publication(&publication_status(&cx.dir, &repository, &seen)?));
        }
    }
    if let Some(place) = &args.place {
        let own = anchor_file(&cx.dir)?;
        let root = args.root.as_deref().or(is_workspace.then_some(own.as_path()));
        let dir = is_workspace.then_some(cx.dir.as_path());
        found.extend(published(&Place::parse(place)?.with_private(args.private.as_deref()), root, dir, cx.now)?);
    }
    if cx.ui.is_json() {
        cx.ui.json(&found)?;
    } else {
        print(&found, cx)?;
    }
    if found.is_ill() {
        let count = found.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        let things = if count == 1 { "1 thing does".to_owned() } else { format!("{count} things do") };
        return Err(
            Error::refused(Rule::StatusDoctor, format!("{things} not work")).remedy("each finding names its remedy")
        );
    }
    Ok(())
}

fn print(found: &Diagnosis, cx: &Context) -> Result<()> {
    for finding in &found.findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Remark => "remark",
        };
        cx.ui.result(format_args!("{severity:<7}  {}: {} [{}]", finding.place, finding.what, finding.id))?;
        cx.ui.result(format_args!("         {}", finding.remedy))?;
    }
    let checks = found.checked.len();
    match found.findings.len() {
        0 => cx.ui.result(format_args!("{checks} checks, no problems found")),
        1 => cx.ui.result(format_args!("{checks} checks, 1 finding")),
        count => cx.ui.result(format_args!("{checks} checks, {count} findings")),
    }
}

//! Several publishers, several places.

mod copies;
mod leftovers;
mod pruning;
pub mod pulled;
mod races;

use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use crate::support::Forge;
use crate::support::s3::S3;
use chrono::TimeDelta;
use tidegate::audit;
use tidegate::error::Result;
use tidegate::keys::{KeyRing, NoPassphrases};
use tidegate::publish::{self, Overcome, Plan, PublishReport, PullOptions, PullReport, Remote, Source};
use tidegate::workspace::Workspace;

fn workspace(cohorts: usize) -> Forge {
    let mut forge = Forge::with_cohorts(cohorts).with_settings();
    forge.release("1.0.0", 1, &[("os.img", b"one")]);
    forge
}

pub async fn plan(forge: &Forge, remote: &Remote) -> Result<Plan> {
    publish::plan(&Source::new(forge.dir()), remote, forge.now()).await
}

pub async fn put_live(forge: &Forge, remote: &Remote) -> Result<PublishReport> {
    let plan = plan(forge, remote).await?;
    publish::execute(&plan, &Source::new(forge.dir()), remote, &|_| {}).await
}

/// Publishes and notes what was published, as the command does.
pub async fn publish_noting(forge: &Forge, remote: &Remote) -> Result<PublishReport> {
    let plan = plan(forge, remote).await?;
    let report = publish::execute(&plan, &Source::new(forge.dir()), remote, &|_| {}).await?;
    note(forge, &plan);
    Ok(report)
}

pub fn note(forge: &Forge, plan: &Plan) {
    let mut changes = tidegate::fs::Changes::default();
    plan.published().put(&mut changes).unwrap();
    changes.commit(forge.dir()).unwrap();
}

pub fn open(forge: &Forge) -> (Workspace, tidegate::config::Settings, KeyRing) {
    let workspace = Workspace::open(forge.dir()).unwrap();
    let settings = workspace.settings().unwrap();
    let ring = workspace.ring(&settings, Box::new(NoPassphrases)).unwrap();
    (workspace, settings, ring)
}

fn taking(forge: &Forge) -> PullOptions<'static> {
    PullOptions { actor: "test", now: forge.now(), artifacts: false, redate: false, patience: TimeDelta::zero() }
}

pub async fn pull(forge: &mut Forge, remote: &Remote) -> Result<PullReport> {
    forge.later();
    let (workspace, settings, mut ring) = open(forge);
    publish::take_over(&workspace, &settings, remote, &mut ring, &taking(forge)).await
}

/// Publishes, and overcomes what stands in the way, once.
pub async fn rebase(forge: &mut Forge, remote: &Remote) -> Result<Overcome> {
    let source = Source::new(forge.dir());
    let (error, planned) = match plan(forge, remote).await {
        Ok(planned) => (publish::execute(&planned, &source, remote, &|_| {}).await.unwrap_err(), Some(planned)),
        Err(error) => (error, None),
    };
    forge.later();
    let (workspace, settings, mut ring) = open(forge);
    publish::overcome(error, planned.as_ref(), &workspace, &settings, remote, &mut ring, &taking(forge)).await
}

async fn audit(forge: &Forge, remote: &Remote) {
    let origin = Arc::new(publish::StoreOrigin::new(remote.clone()));
    let report = audit::verify(origin, "the place", forge.root(), forge.now()).await.unwrap();
    assert!(report.ok, "{report}");
}

pub fn tidegate(forge: &Forge, s3: Option<&S3>, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("-C").arg(forge.dir()).args(["--now", &tidegate_tuf::time::format(forge.now())]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("NO_COLOR", "1");
    if let Some(s3) = s3 {
        command.envs(s3.variables());
    }
    command
}

pub fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

//! What every command is given, and what commands share.

use std::path::{Path, PathBuf};

use chrono::{DateTime, SubsecRound as _, Utc};
use tidegate_client::command::with_clean_environment;

use super::ui::Ui;
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::metadata::{MAX_ROOT, anchor_file};
use crate::workspace::{check_begun, ledger};

/// What every command is given: where, when, and how to talk.
#[derive(Debug)]
pub(super) struct Context {
    /// The workspace folder, as given with `-C`.
    pub(super) dir: PathBuf,
    /// The instant to act at, in whole seconds: `--now`, else the wall clock.
    pub(super) now: DateTime<Utc>,
    /// Where results, status and hints go.
    pub(super) ui: Ui,
}

/// Runs a command line within this process, talking through a `Ui`.
pub(super) type Execute = fn(Vec<String>, &Ui) -> Result<()>;

/// Runs what is asynchronous (stores and sockets) to its end.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::new(Kind::Io, "the system cannot start a thread").with_source(source))?;
    runtime.block_on(work)
}

/// The root file to verify from: the given one, else the first root of the workspace.
///
/// # Errors
///
/// Fails if neither can be read.
pub(super) fn trusted_root(given: Option<&Path>, context: &Context) -> Result<Vec<u8>> {
    let own = anchor_file(&context.dir)?;
    match given {
        Some(given) => fs::read(given, MAX_ROOT),
        None if own.is_file() => fs::read(&own, MAX_ROOT),
        None if context.dir.join("tidegate.toml").is_file() => {
            check_begun(&context.dir)?;
            Err(Error::bug("a first root that is no file"))
        }
        None => Err(Error::usage("no root to verify from: this folder is not a workspace")
            .remedy("give a root file that you trust: --root FILE, or the workspace: -C DIR")),
    }
}

/// Variables that say who started a job in CI: of GitHub, GitLab, Azure, Buildkite, CircleCI and Bitbucket.
const CI_ACTORS: [&str; 6] = [
    "GITHUB_ACTOR",
    "GITLAB_USER_LOGIN",
    "BUILD_REQUESTEDFOREMAIL",
    "BUILDKITE_BUILD_CREATOR_EMAIL",
    "CIRCLE_USERNAME",
    "BITBUCKET_STEP_TRIGGERER_UUID",
];

/// By whom, for the ledger: TIDEGATE_ACTOR, who started the job in CI, who commits to git, else the user's name. Warns if nobody is named.
pub(super) fn actor() -> String {
    let of = |variable: &str| std::env::var(variable).ok().filter(|name| !name.trim().is_empty());
    let committer = || {
        let git = with_clean_environment("git").args(["config", "user.email"]).output();
        let name = String::from_utf8(git.ok().filter(|out| out.status.success())?.stdout).ok()?.trim().to_owned();
        (!name.is_empty()).then_some(name)
    };
    let name = of("TIDEGATE_ACTOR")
        .or_else(|| CI_ACTORS.iter().find_map(|variable| of(variable)))
        .or_else(committer)
        .or_else(|| ["USER", "LOGNAME", "USERNAME"].iter().find_map(|variable| of(variable)));
    let name = name.unwrap_or_else(|| {
        Ui::new(false, false).warn("the ledger will not say who did this: set TIDEGATE_ACTOR to a name");
        ledger::UNKNOWN.to_owned()
    });
    ledger::clean(&name)
}

pub(super) fn parse_instant(text: &str) -> Result<DateTime<Utc>, String> {
    DateTime::parse_from_rfc3339(text)
        .map(|instant| instant.with_timezone(&Utc).trunc_subsecs(0))
        .map_err(|error| format!("{error}; write it as 2026-03-01T12:00:00Z"))
}

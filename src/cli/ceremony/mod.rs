//! `tidegate ceremony`: changes that need a threshold of people.

mod abort;
mod combine;
mod finish;
mod plan;
mod proposal;
mod rehearse;
mod show;
mod sign;
mod start;
mod status;
mod transcript;

use clap::{Args as ClapArgs, Subcommand};

use super::context::Context;
use crate::error::Result;

pub(in crate::cli) use proposal::read_proposal;
pub(in crate::cli) use show::requirements;

/// How many digits of a digest people read out to each other: 64 bits, which nobody hits by trying.
const READ_OUT: usize = 16;

/// What people read out to each other.
pub(in crate::cli) fn read_out(digest: &str) -> &str {
    digest.get(..READ_OUT).unwrap_or(digest)
}

/// Rotate keys; change thresholds, delegations and cohorts
///
/// Edit tidegate.toml first, then start. The proposal is one file, proposals/ceremony.json. Signers need only that file, this
/// program and a root that they trust. The runbook is docs/ceremony.md.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Plan(plan::Args),
    Start(start::Args),
    Show(show::Args),
    Rehearse(rehearse::Args),
    Sign(sign::Args),
    Status(status::Args),
    Combine(combine::Args),
    Finish(finish::Args),
    Abort(abort::Args),
    VerifyTranscript(transcript::Args),
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    match &args.command {
        Command::Plan(args) => plan::run(args, cx),
        Command::Start(args) => start::run(args, cx),
        Command::Show(args) => show::run(args, cx),
        Command::Rehearse(args) => rehearse::run(args, cx),
        Command::Sign(args) => sign::run(args, cx),
        Command::Status(args) => status::run(args, cx),
        Command::Combine(args) => combine::run(args, cx),
        Command::Finish(args) => finish::run(args, cx),
        Command::Abort(args) => abort::run(args, cx),
        Command::VerifyTranscript(args) => transcript::run(args, cx),
    }
}

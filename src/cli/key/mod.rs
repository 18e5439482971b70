//! `tidegate key`: make, take in, list and check keys.

mod check;
mod entry;
mod import;
mod list;
mod new;
mod show;

use clap::{Args as ClapArgs, Subcommand};

use super::context::Context;
use crate::error::Result;

/// Create, import, list and check keys
///
/// A new key signs for no role until a ceremony delegates one to it.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(new::Args),
    Import(import::Args),
    /// List the keys in tidegate.toml and the roles that use them
    List,
    Show(show::Args),
    Check(check::Args),
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    match &args.command {
        Command::New(args) => new::run(args, cx),
        Command::Import(args) => import::run(args, cx),
        Command::List => list::run(cx),
        Command::Show(args) => show::run(args, cx),
        Command::Check(args) => check::run(args, cx),
    }
}

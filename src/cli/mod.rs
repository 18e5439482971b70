//! The command line: a file a command.
//!
//! Results go to stdout, status to stderr. A command's module has its `Args` (clap) and `run(&Args, &mut Context)`, which
//! returns the library's errors; `error` alone turns those into text and exit codes.

mod approve;
mod ceremony;
mod completions;
mod context;
mod demo;
mod diff;
mod doctor;
mod error;
mod examples;
mod explain;
mod groups;
mod import;
mod init;
mod key;
mod log;
mod logging;
mod next;
mod passphrase;
mod place;
mod prune;
mod publish;
mod pull;
mod receipts;
mod refresh;
mod release;
mod rollout;
mod serve;
mod show;
mod site;
mod status;
mod sync;
pub mod ui;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use chrono::{DateTime, SubsecRound as _, Utc};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::context::{Context, parse_instant};
use self::ui::Ui;
use crate::error::Error;

/// Signed over-the-air releases as static files.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about, long_about = None, propagate_version = true, max_term_width = 80)]
#[command(arg_required_else_help = true, subcommand_required = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// The heading of the options that every command has.
const GLOBAL: &str = "Global options";

#[derive(Debug, Args)]
struct Global {
    /// The workspace to work on
    #[arg(
        help_heading = GLOBAL,
        short = 'C',
        long = "dir",
        value_name = "DIR",
        default_value = ".",
        global = true,
        hide_default_value = true
    )]
    dir: PathBuf,
    /// Print the result as JSON
    #[arg(long, global = true, help_heading = GLOBAL)]
    json: bool,
    /// Print results and errors only, no status and no hints
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    quiet: bool,
    /// Log requests to storage and uses of keys; -vv also HTTP requests and programs. TIDEGATE_LOG sets a filter instead
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = GLOBAL)]
    verbose: u8,
    /// Act as if it were this time, e.g. 2026-03-01T12:00:00Z, for reproducible output
    #[arg(long, value_name = "RFC3339", global = true, help_heading = GLOBAL, value_parser = parse_instant)]
    now: Option<DateTime<Utc>>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Import(import::Args),
    Key(key::Args),
    Ceremony(ceremony::Args),
    Release(Box<release::Args>),
    Rollout(rollout::Args),
    Receipts(receipts::Args),
    Status(status::Args),
    Explain(explain::Args),
    Publish(publish::Args),
    Pull(pull::Args),
    Prune(prune::Args),
    Sync(sync::Args),
    Verify(verify::Args),
    Serve(serve::Args),
    Site(site::Args),
    Diff(diff::Args),
    Doctor(doctor::Args),
    Refresh(refresh::Args),
    Log(log::Args),
    Demo(demo::Args),
    Completions(completions::Args),
    Man(completions::ManArgs),
}

/// Runs the program on the process's arguments and returns its exit code.
///
/// 0 done; 1 a refusal or a fault; 2 usage; 3 closed pipe; 255 a bug.
pub fn main() -> ExitCode {
    // Also where the command line cannot be parsed.
    let json = std::env::args_os().skip(1).take_while(|argument| argument != "--").any(|argument| argument == "--json");
    // A panic is a bug whatever caused it: the default hook prints where, the code tells scripts apart.
    std::panic::catch_unwind(|| {
        let cli = match groups::add(command()).try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
            Ok(cli) => cli,
            Err(error) => return error::report_usage(&error, json),
        };
        let now = cli.global.now.unwrap_or_else(|| Utc::now().trunc_subsecs(0));
        let ui = Ui::new(cli.global.json, cli.global.quiet).on(&cli.global.dir);
        let mut context = Context { dir: cli.global.dir, now, ui };
        match logging::start(cli.global.verbose).and_then(|()| dispatch(&cli.command, &mut context)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => error::report(&error, &context.ui),
        }
    })
    .unwrap_or_else(|_| error::report_panic(json))
}

fn dispatch(command: &Command, context: &mut Context) -> crate::error::Result<()> {
    match command {
        Command::Init(args) => init::run(args, context),
        Command::Import(args) => import::run(args, context),
        Command::Key(args) => key::run(args, context),
        Command::Ceremony(args) => ceremony::run(args, context),
        Command::Release(args) => release::run(args, context),
        Command::Rollout(args) => rollout::run(args, context),
        Command::Receipts(args) => receipts::run(args, context),
        Command::Status(args) => status::run(args, context),
        Command::Explain(args) => explain::run(args, context),
        Command::Refresh(args) => refresh::run(args, context),
        Command::Log(args) => log::run(args, context),
        Command::Demo(args) => demo::run(args, context, execute),
        Command::Completions(args) => completions::run(args, context),
        Command::Man(args) => completions::man(args, context),
        Command::Publish(args) => publish::run(args, context),
        Command::Pull(args) => pull::run(args, context),
        Command::Prune(args) => prune::run(args, context),
        Command::Sync(args) => sync::run(args, context),
        Command::Verify(args) => verify::run(args, context),
        Command::Serve(args) => serve::run(args, context),
        Command::Site(args) => site::run(args, context),
        Command::Diff(args) => diff::run(args, context),
        Command::Doctor(args) => doctor::run(args, context),
    }
}

/// The command line, with all commands, flags and examples: for manuals, completions and tests.
pub fn command() -> clap::Command {
    examples::add(Cli::command())
}

/// Runs a command line within this process, talking through `ui`.
fn execute(line: Vec<String>, ui: &Ui) -> crate::error::Result<()> {
    let cli = Cli::try_parse_from(line).map_err(|e| Error::bug("a command line of our own making").with_source(e))?;
    let now = cli.global.now.unwrap_or_else(|| Utc::now().trunc_subsecs(0));
    let ui = if cli.global.quiet { ui.quieter() } else { ui.for_steps() };
    dispatch(&cli.command, &mut Context { dir: cli.global.dir, now, ui })
}

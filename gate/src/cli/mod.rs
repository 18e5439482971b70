//! The command line. No other module prints, except for the audit log.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidegate_model::text::{lines, public_urls};

use crate::error::{Error, Result};

mod check;
mod enrol;
mod failure;
mod log;
mod secret;
mod serve;

/// Deliver protected releases to devices that prove their identity and state
#[derive(Parser)]
#[command(name = "tidegate-gate", version, max_term_width = 100)]
struct Arguments {
    /// The settings file
    #[arg(long, short, global = true, default_value = "gate.toml")]
    config: PathBuf,
    /// Print the result as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Log to standard error: -v storage requests and attestation steps, -vv every HTTP request to storage [env: TIDEGATE_LOG]
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Validate the settings and everything that they name
    Check(check::Arguments),
    /// Run the service
    Serve(serve::Arguments),
    /// Enrol a device: its keys, its TPM's attestation key, its PCR policy
    Enrol(enrol::Arguments),
    /// Create or rotate the secret that all instances share
    Secret(secret::Arguments),
}

/// Runs the program with the arguments of this process.
///
/// Exit codes: 0 success; 1 an error or a refusal; 2 a wrong command line; 3 standard output was closed; 255 a bug.
pub fn main() -> ExitCode {
    // If the arguments cannot be parsed, this is the only way to know.
    let json = std::env::args_os().any(|argument| argument == "--json");
    std::panic::catch_unwind(|| {
        let arguments = match Arguments::try_parse() {
            Ok(arguments) => arguments,
            Err(error) => return failure::report_usage(&error, json),
        };
        run(&arguments).map_or_else(|error| failure::report(&error, arguments.json), |()| ExitCode::SUCCESS)
    })
    .unwrap_or_else(|_| failure::report_panic(json))
}

fn run(arguments: &Arguments) -> Result<()> {
    // The log of the service is read by programs.
    let format = if arguments.json || matches!(arguments.command, Command::Serve(_)) {
        log::Format::Json
    } else {
        log::Format::Text
    };
    log::init(arguments.verbose, format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::system("cannot start the runtime", &error))?;
    let (config, json) = (arguments.config.as_path(), arguments.json);
    match &arguments.command {
        Command::Check(_) => runtime.block_on(check::run(config, json)),
        Command::Serve(_) => runtime.block_on(serve::run(config)),
        Command::Enrol(arguments) => runtime.block_on(enrol::run(config, arguments, json)),
        Command::Secret(arguments) => secret::run(config, arguments, json),
    }
}

/// Writes to standard error: what others wrote is escaped, further lines are indented, and URLs lack what may be secret.
fn say(text: &str) {
    use std::io::Write as _;
    // Without standard error there is nowhere to report that this failed.
    let _ = writeln!(std::io::stderr(), "{}", lines(&public_urls(text)).replace('\n', "\n  "));
}

/// Writes a result to standard output, in which what others wrote is escaped.
fn print(text: &str) -> Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{}", lines(text))
        .map_err(|error| Error::system("cannot write to standard output", &error))
}

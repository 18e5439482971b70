//! The command line: the only place that prints, but for the service's own events and audit.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{Error, Result};

mod check;
mod enrol;
mod secret;
mod serve;

/// Gives protected releases to devices that can show what they are.
#[derive(Parser)]
#[command(name = "tidegate-gate", version, max_term_width = 100)]
struct Arguments {
    /// The settings.
    #[arg(long, short, global = true, default_value = "gate.toml")]
    config: PathBuf,
    /// Results as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Look at the settings and all that they name, without serving anyone.
    Check(check::Arguments),
    /// Serve until told to stop.
    Serve(serve::Arguments),
    /// Enrol a device: its key, its TPM's attestation key, its PCR policy.
    Enrol(enrol::Arguments),
    /// Make the secret that instances share, or put a new key before its present one.
    Secret(secret::Arguments),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if arguments.json {
                eprintln!(
                    "{}",
                    serde_json::json!({"error": {"message": error.to_string(), "remedy": error.remedy_text()}})
                );
            } else {
                eprintln!("error: {error}");
                if let Some(remedy) = error.remedy_text() {
                    eprintln!("help: {remedy}");
                }
            }
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::new(format!("cannot start: {error}")))?;
    let (config, json) = (arguments.config.as_path(), arguments.json);
    match &arguments.command {
        Command::Check(_) => runtime.block_on(check::run(config, json)),
        Command::Serve(_) => runtime.block_on(serve::run(config)),
        Command::Enrol(arguments) => runtime.block_on(enrol::run(config, arguments, json)),
        Command::Secret(arguments) => secret::run(config, arguments, json),
    }
}

/// Writes a result to standard output.
fn print(text: &str) -> Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{text}").map_err(|error| Error::new(format!("cannot write: {error}")))
}

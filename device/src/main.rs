//! The program `tidegate-device`.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 done, also when there is nothing to do;
//! 1 a refusal or a fault; 2 wrong usage; 3 nobody reads the output; 255 a bug in this program.

mod arguments;
mod check;
mod confirm;
mod defer;
mod download;
mod explain;
#[cfg(feature = "gate")]
mod gate;
mod help;
mod host;
mod install;
mod output;
#[cfg(feature = "gate")]
mod receipts;
mod run;
mod settings;
mod setup;
mod status;

use std::io;
use std::process::ExitCode;

use serde::Serialize;

use arguments::{Arguments, Command, Parsed};
use output::{Output, print_json, print_text};
use tidegate_client::{Error, Fault};
use tidegate_model::decision::Outcome;

const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const CLOSED_PIPE: u8 = 3;
const BUG: i32 = 255;

/// Runs the program with the arguments of this process.
fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|info| {
        eprintln!("error: this is a bug in tidegate-device: {info}");
        std::process::exit(BUG);
    }));
    let arguments = match arguments::parse(lexopt::Parser::from_env()) {
        Ok(Parsed::Help(text)) => return finish(Output::default(), print_text(text).map(|()| true)),
        Ok(Parsed::Run(arguments)) => arguments,
        Err(error) => {
            eprintln!("error: {error}");
            eprintln!("hint: tidegate-device --help lists commands and options");
            return ExitCode::from(USAGE);
        }
    };
    let output = Output { json: arguments.json, quiet: arguments.quiet };
    finish(output, run(&arguments, output))
}

/// Whether what was asked for is done; `false` if it was refused.
fn run(arguments: &Arguments, output: Output) -> Result<bool, Failure> {
    let settings = settings::read_all(arguments)?;
    for problem in &settings.problems {
        output.warning(problem);
    }
    match arguments.command {
        Command::Check => check::run(&mut settings.builder.open()?, output),
        Command::Download => download::run(&mut settings.builder.open()?, output),
        Command::Install => install::run(settings, output),
        Command::Confirm => confirm::confirm(settings, output),
        Command::Reject => confirm::reject(settings, output),
        Command::Defer => defer::run(settings, arguments.time, output),
        Command::Status => status::run(settings, output),
        Command::Explain => explain::run(&mut settings.builder.open()?, arguments, output),
        Command::Run => run::run(arguments, settings, output),
        #[cfg(feature = "gate")]
        Command::Receipts => receipts::show(settings, output),
        #[cfg(feature = "gate")]
        Command::SendReceipts => receipts::send_now(settings, output),
    }
}

/// Why a command did not run to its end.
enum Failure {
    Error(Error),
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// An error for machines.
#[derive(Serialize)]
struct Report {
    error: Described,
}

#[derive(Serialize)]
struct Described {
    fault: Fault,
    message: String,
    hint: Option<&'static str>,
}

/// A decision to refuse is the one decision that asks for somebody's attention.
fn is_refusal(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refuse { .. })
}

fn finish(output: Output, result: Result<bool, Failure>) -> ExitCode {
    let failure = match result {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => return ExitCode::from(REFUSED),
        Err(failure) => failure,
    };
    match failure {
        Failure::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(CLOSED_PIPE),
        Failure::Output(e) => {
            eprintln!("error: cannot write to standard output: {e}");
            ExitCode::from(REFUSED)
        }
        Failure::Error(error) => {
            eprintln!("error: {error}");
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            if output.json {
                let error = Described { fault: error.fault(), message: error.to_string(), hint: error.hint() };
                let report = Report { error };
                if let Err(Failure::Output(e)) = print_json(&report)
                    && e.kind() == io::ErrorKind::BrokenPipe
                {
                    return ExitCode::from(CLOSED_PIPE);
                }
            }
            let is_usage = matches!(error, Error::Setting(_)) && error.fault() == Fault::Caller;
            ExitCode::from(if is_usage { USAGE } else { REFUSED })
        }
    }
}

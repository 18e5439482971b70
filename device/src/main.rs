//! The program `tidegate-device`.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 done, also when there is nothing to do;
//! 1 a refusal or a failure; 2 wrong usage; 3 standard output was closed; 255 a bug in this program.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod arguments;
mod check;
mod command;
mod confirm;
mod defer;
mod doctor;
mod download;
mod explain;
mod failure;
mod form;
#[cfg_attr(not(feature = "gate"), path = "without_gate.rs")]
mod gate;
mod help;
mod host;
mod install;
mod log_output;
mod output;
mod quarantine;
mod run;
mod settings;
mod settings_file;
mod setup;
mod status;

use std::process::ExitCode;

use arguments::{Arguments, Parsed};
use command::Command;
use failure::{Failure, finish, say};
use output::{Output, print_text};
use tidegate_model::failure::ErrorKind;

/// Runs the program with the arguments of this process.
fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|info| {
        say(&format!("error: this is a bug in tidegate-device: {info}"));
        std::process::exit(ErrorKind::Bug.exit_code().into());
    }));
    let arguments = match arguments::parse(lexopt::Parser::from_env()) {
        Ok(Parsed::Help(text)) => return finish(false, print_text(text).map(|()| true)),
        Ok(Parsed::Run(arguments)) => arguments,
        Err(error) => return finish(wants_json(), Err(Failure::Usage(error.to_string()))),
    };
    let output = Output { json: arguments.json, quiet: arguments.quiet };
    let result = log_output::start(arguments.verbose).and_then(|()| run(&arguments, output));
    finish(output.json, result)
}

/// Whether `--json` was given, on a command line that cannot be parsed.
fn wants_json() -> bool {
    std::env::args_os().skip(1).any(|argument| argument == "--json")
}

/// Runs a command; `false` if it was refused.
fn run(arguments: &Arguments, output: Output) -> Result<bool, Failure> {
    let is_doctor = arguments.command == Command::Doctor;
    let settings = match settings::read_all(arguments) {
        Err(e) if is_doctor => return doctor::without_settings(&e, output),
        settings => settings?,
    };
    for problem in settings.problems.iter().chain(&settings.remark).filter(|_| !is_doctor) {
        output.warning(problem);
    }
    if !settings.faults.is_empty() && !is_doctor {
        let why = format!("the settings cannot work: {}", settings.faults.join("; "));
        return Err(Failure::from(tidegate_client::Error::Setting(why)));
    }
    match arguments.command {
        Command::Check => check::run(&mut settings.builder.open_to_check()?, output),
        Command::Download => download::run(&mut settings.builder.open()?, output),
        Command::Install => install::run(settings, output),
        Command::Confirm => confirm::confirm(settings, output),
        Command::Reject => confirm::reject(settings, output),
        Command::Defer => defer::run(settings, arguments.time, output),
        Command::Doctor => doctor::run(settings, output),
        Command::Quarantine => quarantine::run(settings, arguments.lift.as_ref(), output),
        Command::Status => status::run(settings, output),
        Command::Explain => explain::run(&mut settings.builder.open_to_check()?, arguments, output),
        Command::Run => run::run(arguments, settings, output),
        Command::Receipts => gate::receipts::show(settings.builder, output),
        Command::SendReceipts => gate::receipts::send_now(settings.builder, settings.sink, output),
    }
}
